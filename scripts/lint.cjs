/**
 * Checks of the source tree: the import table, nothing nondeterministic in the core, and licences of what ships. Exit status 1
 * with a line for each finding.
 */
const { readFileSync, readdirSync, existsSync } = require('node:fs');
const { join, relative } = require('node:path');

const root = process.argv[2] ?? join(__dirname, '..');
const findings = [];

function files(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory()
      ? files(join(folder, entry.name))
      : entry.name.endsWith('.ts')
        ? [join(folder, entry.name)]
        : [],
  );
}

/** What a core file may not say: clocks, randomness, the outside, and everything that runs later. */
const FORBIDDEN = [
  [/\bDate\b(?!:)/, 'the clock'],
  [/\bMath\.random\b/, 'randomness'],
  [
    /\bMath\.(?!floor|ceil|min|max|abs|imul|clz32|trunc|round|log2|sign)\w+/,
    'Math functions that differ between hosts',
  ],
  [/\bperformance\./, 'the clock'],
  [/\bprocess\./, 'Node.js'],
  [/\bconsole\./, 'the console'],
  [/\b(setTimeout|setInterval|setImmediate|queueMicrotask)\b/, 'timers'],
  [/\basync\b|\bawait\b|\bPromise\b/, 'promises'],
  [/\bfunction\s*\*|\byield\b/, 'generators'],
];
const withoutComments = (text) =>
  text
    .replace(/\/\*[\s\S]*?\*\//g, (comment) => comment.replace(/[^\n]/g, ' '))
    .replace(/(^|[^:])\/\/.*$/gm, '$1')
    .replace(/'(?:[^'\\\n]|\\.)*'|`(?:[^`\\$]|\\.)*`/g, "''");

async function main() {
  const { cruise } = await import('dependency-cruiser');
  const { rules } = require('./import-table.cjs');
  const options = require('../.dependency-cruiser.cjs').options;
  const tsConfig = (await import('dependency-cruiser/config-utl/extract-ts-config')).default(
    join(root, 'tsconfig.json'),
  );
  const before = process.cwd();
  process.chdir(root);
  const { output } = await cruise(
    ['src'],
    { ...options, ruleSet: { forbidden: rules() }, validate: true, baseDir: root },
    {},
    { tsConfig },
  );
  process.chdir(before);
  const seen = new Set(output.modules.map(({ source }) => source));
  const sources = files(join(root, 'src')).filter((file) => !file.endsWith('.d.ts'));
  for (const { from, to, rule } of output.summary.violations)
    findings.push(`${from} imports ${to}: ${rule.name}`);
  for (const file of sources) {
    const name = relative(root, file).replaceAll('\\', '/');
    if (!seen.has(name)) findings.push(`${name} was not seen by the import check`);
    if (name.startsWith('src/node/') || name.endsWith('.test.ts')) continue;
    const lines = withoutComments(readFileSync(file, 'utf8')).split('\n');
    for (const [at, line] of lines.entries()) {
      for (const [pattern, what] of FORBIDDEN)
        if (pattern.test(line)) findings.push(`${name}:${at + 1} uses ${what}: ${line.trim()}`);
    }
  }
  licences();
  for (const finding of findings) process.stdout.write(`${finding}\n`);
  process.stdout.write(`${sources.length} files, ${findings.length} findings\n`);
  process.exitCode = findings.length === 0 ? 0 : 1;
}

/** Licences that may ship with an Apache-2.0 program. */
const LICENCES = new Set([
  'MIT',
  'ISC',
  '0BSD',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'Apache-2.0',
  'MIT OR Apache-2.0',
  'CC0-1.0',
]);
function licences() {
  const lock = join(root, 'package-lock.json');
  if (!existsSync(lock)) return;
  for (const [path, { dev, license }] of Object.entries(JSON.parse(readFileSync(lock, 'utf8')).packages)) {
    if (path === '' || dev === true) continue;
    if (!LICENCES.has(license)) findings.push(`${path} has licence ${license}, which is not on the list`);
  }
}

main();
