/**
 * What each folder of src may import: the trust diagram of docs/how-it-works.md. What is not listed is forbidden; a folder may
 * always import from itself. The linter's rules and their tests come from this table.
 */
const TABLE = {
  abi: [],
  seats: ['abi'],
  x86: ['abi', 'seats'],
  chipset: ['abi', 'seats'],
  silicon: ['x86', 'chipset', 'abi', 'seats'],
  host: ['chipset', 'abi', 'seats'],
  paravisor: ['chipset', 'x86/decoder.ts', 'abi', 'seats'],
  launch: ['abi', 'seats'],
  adversary: ['host', 'chipset', 'abi', 'seats'],
  machine: ['abi', 'seats', 'x86', 'chipset', 'silicon', 'host', 'paravisor', 'launch', 'adversary'],
};
const TEST = '\\.test\\.ts$';

/** Rules of dependency-cruiser; each forbids one folder everything else under src. */
function rules() {
  const list = Object.entries(TABLE).map(([folder, allowed]) => ({
    name: `${folder}-imports`,
    comment: `src/${folder} may import ${allowed.length === 0 ? 'nothing else' : allowed.join(', ')}`,
    severity: 'error',
    from: { path: `^src/${folder}/`, pathNot: TEST },
    to: {
      path: '^(src/|web/)',
      pathNot: [folder, ...allowed].map((name) =>
        name.endsWith('.ts') ? `^src/${name.replace('.', '\\.')}$` : `^src/${name}/`,
      ),
    },
  }));
  for (const [from, to] of [
    ['snp', 'tdx'],
    ['tdx', 'snp'],
  ]) {
    list.push({
      name: `silicon-${from}-not-${to}`,
      comment: 'the two technologies never know each other',
      severity: 'error',
      from: { path: `^src/silicon/${from}/` },
      to: { path: `^src/silicon/${to}/` },
    });
  }
  list.push({
    name: 'inspect-is-for-shells',
    comment: 'plaintext is for debuggers and tests: no party of the machine may import machine/inspect',
    severity: 'error',
    from: { path: '^src/', pathNot: ['^src/node/', TEST] },
    to: { path: '^src/machine/inspect' },
  });
  list.push({
    name: 'core-without-node',
    comment: 'only src/node knows Node.js',
    severity: 'error',
    from: { path: '^src/', pathNot: ['^src/node/', TEST] },
    to: { dependencyTypes: ['core'] },
  });
  return list;
}

module.exports = { TABLE, rules };
