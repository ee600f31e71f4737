/**
 * Runs the programs of kvm-unit-tests, built elsewhere, on the test board and prints a row for each.
 *
 *     node scripts/kvm-unit-tests.ts --images DIR [--config FILE] [--arch x86_64|i386] [--baseline FILE]
 *       [--expected FILE] [--only NAME,...] [--engine NAME] [--translate-after N] [--same FILE,...] [--slower N] [--jobs N]
 *       [--json FILE] [--verbose] [--program FILE | --qemu PROGRAM]
 *
 * `--images` is the folder with the .flat files, and with unittests.cfg unless `--config` names it. `--baseline` holds
 * another machine's results as `--json` wrote them: `--qemu PROGRAM` makes them with QEMU's TCG. `--same` holds results
 * of other engines: instruction counts and state hashes must be the same. The exit status is 0 when every program
 * passed, or is in `test/kvm-unit-tests.expected.json` with the reason why it does not; 1 otherwise.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import {
  type Architecture,
  type Baseline,
  type Expected,
  type TestResult,
  type UnitTest,
  judge,
  parseConfig,
  qemuArguments,
  readResult,
} from './kvm-unit-tests-report.ts';

const project = (path: string): string => fileURLToPath(new URL(`../${path}`, import.meta.url));

const { values: options } = parseArgs({
  options: {
    images: { type: 'string' },
    config: { type: 'string' },
    arch: { type: 'string', default: 'x86_64' },
    baseline: { type: 'string' },
    expected: { type: 'string', default: project('test/kvm-unit-tests.expected.json') },
    only: { type: 'string' },
    engine: { type: 'string' },
    'translate-after': { type: 'string' },
    same: { type: 'string' },
    slower: { type: 'string', default: '5' },
    jobs: { type: 'string', default: '1' },
    json: { type: 'string' },
    verbose: { type: 'boolean', default: false },
    qemu: { type: 'string' },
    program: { type: 'string', default: project('src/node/main.ts') },
  },
});

function refuse(message: string): never {
  console.error(`kvm-unit-tests: ${message}`);
  process.exit(2);
}

function readJson<T>(file: string, architecture: Architecture): T {
  try {
    return ((JSON.parse(readFileSync(file, 'utf8')) as Partial<Record<Architecture, T>>)[architecture] ??
      {}) as T;
  } catch (error) {
    return refuse(`cannot read ${file}: ${String(error)}`);
  }
}

/** The models that stand for the configuration's vendors. */
const MODELS = { amd: 'EPYC-Milan', intel: 'SapphireRapids' } as const;
/** Of the features that the configuration takes away: those that the test board can hide. The others are not offered. */
const HIDABLE = new Set(['x2apic', 'tsc-deadline', 'pcid', 'invpcid', 'rdtscp', 'xsave', 'pku']);

function vitrineArguments(test: UnitTest, image: string, report: string): string[] {
  const args = ['boot', '--board', 'test', '--kernel', image, '--cpus', String(test.cpus)];
  args.push('--memory', `${String(test.memoryMiB)}M`, '--cpu-model', MODELS[test.vendor]);
  for (const feature of test.without) if (HIDABLE.has(feature)) args.push('--without', feature);
  if (test.hyperv) args.push('--hyperv', 'on');
  if (test.args !== '') args.push('--append', test.args);
  if (options.engine !== undefined) args.push('--engine', options.engine);
  const after = options['translate-after'];
  if (after !== undefined) args.push('--translate-after', after);
  args.push('--json', report);
  return args;
}

/** Where the programs' own reports go. */
const scratch = mkdtempSync(join(tmpdir(), 'kvm-unit-tests-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

/** What does not depend on the engine; undefined for QEMU, and when the program did not end. */
function readRun(report: string): Pick<TestResult, 'run'> {
  if (!existsSync(report)) return {};
  const { instructions, stateHash } = JSON.parse(readFileSync(report, 'utf8')) as Record<string, unknown>;
  return { run: `${String(instructions)} instructions, state hash ${String(stateHash)}` };
}

const missing = (outcome: 'NO IMAGE' | 'NOT RUN'): TestResult => {
  return { outcome, status: null, pass: 0, fail: 0, skip: 0, seconds: 0, failures: [] };
};

function run(test: UnitTest, images: string): Promise<TestResult> {
  if (test.needs !== undefined && options.qemu === undefined) return Promise.resolve(missing('NOT RUN'));
  const image = join(images, test.file);
  if (!existsSync(image)) return Promise.resolve(missing('NO IMAGE'));
  return new Promise((resolve) => {
    const start = performance.now();
    const report = join(scratch, `${test.name}.json`);
    const [program, args] =
      options.qemu === undefined
        ? [process.execPath, ['--no-warnings', options.program, ...vitrineArguments(test, image, report)]]
        : [options.qemu, qemuArguments(test, image)];
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    let timedOut = false;
    const collect = (chunk: Buffer): void => {
      output += chunk.toString('latin1');
    };
    child.stdout.on('data', collect);
    child.stderr.on('data', collect);
    const timer = setTimeout(
      () => {
        timedOut = true;
        child.kill('SIGKILL');
      },
      test.timeout * Number(options.slower) * 1000,
    );
    child.on('close', (status) => {
      clearTimeout(timer);
      if (options.verbose) console.log(output);
      const result = readResult(status, output, (performance.now() - start) / 1000, timedOut);
      resolve({ ...result, ...readRun(report) });
    });
  });
}

const images = options.images ?? refuse('--images DIR is needed: the folder with the built .flat files.');
const architecture =
  options.arch === 'i386' || options.arch === 'x86_64' ? options.arch : refuse('--arch is x86_64 or i386.');
const configFile = options.config ?? join(images, 'unittests.cfg');
if (!existsSync(configFile)) refuse(`${configFile} does not exist; name unittests.cfg with --config.`);
const only = options.only?.split(',');
const tests = parseConfig(readFileSync(configFile, 'utf8'), architecture).filter(
  ({ name }) => only === undefined || only.includes(name),
);
if (tests.length === 0) refuse('no test has a name that --only lists.');
const others = (options.same?.split(',') ?? []).map((file) =>
  readJson<Record<string, TestResult>>(file, architecture),
);
const baseline: Baseline = options.baseline === undefined ? {} : readJson(options.baseline, architecture);
const expected: Expected = readJson(options.expected, architecture);

const results: Record<string, TestResult & { baseline: string | undefined; note: string; good: boolean }> =
  {};
console.log(
  `${'test'.padEnd(42)}${'baseline'.padEnd(10)}${(options.qemu === undefined ? 'vitrine' : 'qemu').padEnd(10)}${'pass/fail/skip'.padEnd(16)}seconds  note`,
);

function report(test: UnitTest, result: TestResult): void {
  const before = baseline[test.name]?.outcome;
  const reason = result.outcome === 'NOT RUN' ? `needs ${test.needs ?? ''}` : expected[test.name];
  const other = others.find(({ [test.name]: row }) => row !== undefined && row.run !== result.run);
  const verdict =
    other === undefined
      ? judge(test.name, result.outcome, before, reason)
      : { good: false, note: `${result.run ?? 'no end'}, not ${other[test.name]?.run ?? 'no end'}` };
  results[test.name] = { ...result, baseline: before, ...verdict };
  const counts = `${String(result.pass)}/${String(result.fail)}/${String(result.skip)}`;
  console.log(
    `${test.name.padEnd(42)}${(before ?? '-').padEnd(10)}${result.outcome.padEnd(10)}${counts.padEnd(16)}` +
      `${result.seconds.toFixed(1).padStart(7)}  ${verdict.good ? '' : 'NOT GOOD: '}${verdict.note}` +
      (options.same === undefined || other !== undefined ? '' : ` = ${result.run ?? ''}`),
  );
  if (!verdict.good) for (const line of result.failures.slice(0, 20)) console.log(`    ${line}`);
}

const queue = [...tests];
const worker = async (): Promise<void> => {
  for (let test = queue.shift(); test !== undefined; test = queue.shift())
    report(test, await run(test, images));
};
await Promise.all(Array.from({ length: Math.max(1, Number(options.jobs)) }, worker));

const all = Object.values(results);
const passed = all.filter(({ outcome }) => outcome === 'PASS').length;
const bad = all.filter(({ good }) => !good).length;
const behind = all.filter((row) => row.baseline === 'PASS' && row.outcome !== 'PASS').length;
console.log(
  `${architecture}: ${String(passed)} of ${String(all.length)} pass, ${String(behind)} behind the baseline, ` +
    `${String(bad)} without a listed reason` +
    (others.length === 0 ? '' : `; compared with ${String(others.length)} other engines`),
);
if (options.json !== undefined) {
  writeFileSync(options.json, JSON.stringify({ [architecture]: results }, undefined, 2) + '\n');
}
process.exit(bad === 0 ? 0 : 1);
