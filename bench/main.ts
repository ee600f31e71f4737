/**
 * `npm run bench`: what a user waits for, beside QEMU's TCG on the same computer and, for the confidential configurations,
 * beside `plain`. Everything runs in turns in one go; figures are medians, and what counts are the ratios.
 *
 * - boot: the Debian 6.12 cloud kernel to power-off, same initramfs, command line and console.
 * - suite: commands and programs inside that guest, timed from outside by marks on the console.
 * - engines: instructions per second of each engine on the boot.
 * - memory: resident set while a guest makes new code for `--minutes`.
 * - start: the command until it could run the first instruction.
 * - configurations: boot time of each against `plain`.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { CONFIGURATIONS } from '../src/machine/configurations.ts';
import { ENGINES } from '../src/node/engine-choice.ts';
import { makeGuest, MEMBER_NAMES, scratchFolder, type Guest } from './guest.ts';
import { qemuVersion, run, type Ask, type Machine, type Run } from './machines.ts';
import { measureNewCode } from './memory.ts';
import { parseOptions, positive, refuse } from './options.ts';
import { geometricMean, median } from './statistics.ts';

const options = parseOptions({
  rounds: { type: 'string', default: '3' },
  parts: { type: 'string', default: 'boot,suite,engines,memory,start,configurations' },
  only: { type: 'string' },
  configurations: { type: 'string', default: 'snp,snp-paravisor,tdx,tdx-paravisor' },
  engine: { type: 'string' },
  kernel: { type: 'string' },
  json: { type: 'string' },
  minutes: { type: 'string', default: '1' },
  'time-limit': { type: 'string', default: '600' },
});

const PARTS = ['boot', 'suite', 'engines', 'memory', 'start', 'configurations'];
const parts = options.parts.split(',');
const rounds = positive('rounds', options.rounds, true);
const minutes = positive('minutes', options.minutes);
const timeoutSeconds = positive('time-limit', options['time-limit']);
/** Refuses a list with a name that is not among `known`. */
function check(option: string, text: string, known: readonly string[]): void {
  const unknown = text.split(',').find((name) => !known.includes(name));
  if (unknown !== undefined)
    refuse(`there is no '${unknown}' for --${option}: give some of ${known.join(',')}.`);
}
check('parts', options.parts, PARTS);
check(
  'configurations',
  options.configurations,
  CONFIGURATIONS.map(({ name }) => name),
);
if (options.only !== undefined) check('only', options.only, MEMBER_NAMES);
if (options.engine !== undefined && !(ENGINES as readonly string[]).includes(options.engine))
  refuse(`there is no engine '${options.engine}': give one of ${ENGINES.join(', ')} with --engine.`);
const qemu = qemuVersion();
if (qemu === undefined) console.log('qemu-system-x86_64 is not installed: figures without ratios to TCG');
const machines: readonly Machine[] = qemu === undefined ? ['vitrine'] : ['tcg', 'vitrine'];
let failed = false;

function complain(what: string, { status, errors, lines }: Run): void {
  failed = true;
  const last = lines.slice(-3).map(({ text }) => text);
  console.error(
    `bench: ${what} ended with status ${String(status)}: ${[...last, errors.slice(-400)].join(' | ')}`,
  );
}

const seconds = (value: number): string => value.toFixed(2).padStart(8);

interface Row {
  readonly name: string;
  readonly what: string;
  readonly tcg: number | undefined;
  readonly vitrine: number;
  readonly ratio: number | undefined;
}

function row(name: string, what: string, times: Readonly<Record<Machine, readonly number[]>>): Row {
  const tcg = times.tcg.length > 0 ? median(times.tcg) : undefined;
  const vitrine = median(times.vitrine);
  return { name, what, tcg, vitrine, ratio: tcg === undefined ? undefined : vitrine / tcg };
}

function print({ name, what, tcg, vitrine, ratio }: Row): void {
  const other = tcg === undefined ? '       -' : seconds(tcg);
  const compared = ratio === undefined ? '      -' : ratio.toFixed(2).padStart(7);
  console.log(`${name.padEnd(16)}${other}${seconds(vitrine)}${compared}  ${what}`);
}

const heading = (title: string): void =>
  console.log(`\n${title.padEnd(16)}${'tcg s'.padStart(8)}${'here s'.padStart(8)}${'ratio'.padStart(7)}`);

/** Machines in turns, the order changed with the round so that neither always runs on the warmer processor. */
const turns = (round: number): readonly Machine[] => (round % 2 === 0 ? machines : machines.toReversed());

function ask(guest: Guest, initrd: string): Ask {
  return {
    kernel: guest.kernel,
    initrd,
    timeoutSeconds,
    ...(options.engine === undefined ? {} : { engine: options.engine }),
  };
}

interface Report {
  readonly seconds: number;
  readonly instructions: number;
  readonly exits: unknown;
}

const readReport = (path: string): Report => JSON.parse(readFileSync(path, 'utf8')) as Report;

async function measureBoot(guest: Guest, folder: string): Promise<object> {
  heading('boot');
  const times: Record<Machine, number[]> = { tcg: [], vitrine: [] };
  let resident = 0;
  const json = join(folder, 'boot.json');
  for (let round = 0; round < rounds; round++)
    for (const machine of turns(round)) {
      const result = await run(machine, { ...ask(guest, guest.bootInitrd), more: ['--json', json] });
      if (result.status !== 0) complain(`boot on ${machine}`, result);
      times[machine].push(result.seconds);
      if (machine === 'vitrine') resident = Math.max(resident, result.resident);
    }
  const total = row('boot', `${guest.kernelName} to power-off`, times);
  print(total);
  const report = readReport(json);
  const guestBytes = 512 * 2 ** 20;
  console.log(
    `  ${report.instructions} instructions, exits ${JSON.stringify(report.exits)}; resident ${(resident / 2 ** 20).toFixed(0)} MiB, ` +
      `guest RAM ${guestBytes / 2 ** 20} MiB`,
  );
  return {
    ...total,
    runs: times,
    instructions: report.instructions,
    exits: report.exits,
    resident,
    guestBytes,
  };
}

/** Seconds between the marks of each member, and what it printed. */
function membersOf({ lines }: Run): Map<string, { seconds: number; result: string }> {
  const found = new Map<string, { seconds: number; result: string }>();
  let begin = 0;
  let result = '';
  for (const { at, text } of lines) {
    const [, mark, rest] = /@(begin|result|end) ?(.*)$/.exec(text) ?? [];
    if (mark === 'begin') {
      begin = at;
      result = '';
    } else if (mark === 'result') result = rest ?? '';
    else if (mark === 'end') found.set(rest ?? '', { seconds: at - begin, result });
  }
  return found;
}

async function measureSuite(guest: Guest): Promise<object> {
  heading('suite');
  for (const reason of guest.skipped) console.log(`  skipped ${reason}`);
  const times = new Map(
    guest.members.map(({ name }) => [name, { tcg: [] as number[], vitrine: [] as number[] }]),
  );
  const results = new Map<string, Set<string>>();
  for (let round = 0; round < rounds; round++)
    for (const machine of turns(round)) {
      const result = await run(machine, ask(guest, guest.suiteInitrd));
      if (result.status !== 0) complain(`suite on ${machine}`, result);
      for (const [name, member] of membersOf(result)) {
        times.get(name)?.[machine].push(member.seconds);
        results.set(name, (results.get(name) ?? new Set()).add(member.result));
      }
    }
  const rows: Row[] = [];
  for (const { name, what } of guest.members) {
    const measured = row(name, what, times.get(name) ?? { tcg: [], vitrine: [] });
    rows.push(measured);
    print(measured);
    const answers = [...(results.get(name) ?? [])];
    if (answers.length !== 1 || answers[0] === '') {
      failed = true;
      console.error(`bench: ${name} gave ${answers.length === 0 ? 'nothing' : answers.join(' and ')}`);
    }
  }
  const ratios = rows.flatMap(({ ratio }) => (ratio === undefined ? [] : [ratio]));
  const mean = geometricMean(ratios);
  const worst = Math.max(...ratios);
  if (ratios.length > 0) console.log(`geometric mean ${mean.toFixed(2)}, worst ${worst.toFixed(2)}`);
  return { rows, geometricMean: mean, worst, skipped: guest.skipped };
}

async function measureEngines(guest: Guest, folder: string): Promise<object> {
  console.log('\nengines, MIPS on the boot');
  const speeds: Record<string, number> = {};
  for (const engine of ['interpreter', 'auto']) {
    const json = join(folder, `${engine}.json`);
    const result = await run('vitrine', { ...ask(guest, guest.bootInitrd), engine, more: ['--json', json] });
    if (result.status !== 0) {
      complain(`boot with --engine ${engine}`, result);
      continue;
    }
    const report = readReport(json);
    speeds[engine] = report.instructions / report.seconds / 1e6;
    console.log(`  ${engine.padEnd(14)}${(speeds[engine] ?? NaN).toFixed(0).padStart(8)}`);
  }
  return speeds;
}

async function measureMemory(at: string): Promise<object> {
  const result = await measureNewCode(at, minutes);
  if (!result.sound) failed = true;
  const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(0);
  console.log(
    `\nmemory: resident while new code is made: ${mib(result.early)} MiB in the second quarter, ${mib(result.late)} MiB in the last`,
  );
  return result;
}

async function measureStart(guest: Guest): Promise<object> {
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const result = await run('vitrine', { ...ask(guest, guest.bootInitrd), more: ['--limit', '1'] });
    if (result.status !== 124) complain('start', result);
    times.push(result.seconds);
  }
  console.log(`\nstart: ${median(times).toFixed(2)} s from the command to the first instruction`);
  return { seconds: median(times), runs: times };
}

async function measureConfigurations(guest: Guest): Promise<object> {
  heading('configurations');
  const names = ['plain', ...options.configurations.split(',')];
  const times = new Map(names.map((name) => [name, [] as number[]]));
  for (let round = 0; round < rounds; round++)
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      const result = await run('vitrine', { ...ask(guest, guest.bootInitrd), configuration: name });
      if (result.status === 0) times.get(name)?.push(result.seconds);
      else complain(`boot ${name}`, result);
    }
  const plain = median(times.get('plain') ?? []);
  const ratios: Record<string, number> = {};
  for (const [name, values] of times) {
    if (values.length === 0) continue;
    ratios[name] = median(values) / plain;
    console.log(
      `${name.padEnd(16)}        ${seconds(median(values))}${ratios[name].toFixed(2).padStart(7)}  against plain`,
    );
  }
  return { plainSeconds: plain, ratios };
}

const folder = scratchFolder();
const load = loadavg()[0] ?? 0;
const report: Record<string, unknown> = {
  cpu: cpus()[0]?.model,
  node: process.version,
  qemu,
  commit: spawnSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).stdout.trim(),
  engine: options.engine ?? 'auto',
  ...{ load, rounds },
};
try {
  const guest = await makeGuest(folder, options.only?.split(','), options.kernel);
  report['kernel'] = guest.kernelName;
  if (parts.includes('boot')) report['boot'] = await measureBoot(guest, folder);
  if (parts.includes('suite')) report['suite'] = await measureSuite(guest);
  if (parts.includes('engines')) report['engines'] = await measureEngines(guest, folder);
  if (parts.includes('memory')) report['memory'] = await measureMemory(folder);
  if (parts.includes('start')) report['start'] = await measureStart(guest);
  if (parts.includes('configurations')) report['configurations'] = await measureConfigurations(guest);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
console.log(`load at start ${load.toFixed(2)}`);
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, undefined, 2)}\n`);
if (failed) process.exit(1);
