/**
 * `npm run bench:cpu`: the same guest images on QEMU's TCG and on Vitrine, in turns, on this computer.
 *
 * Each image runs once per round on each machine; the figures are medians of the wall-clock time of the whole command,
 * start included. `net` takes off what the image that does nothing costs on the same machine. Both must print the same
 * result and leave with the same status, otherwise the comparison is void and the exit status is 1; it is 1 as well
 * when the geometric mean of the ratios is above `--limit`.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { COMPUTE_GUESTS, IDLE_GUEST, type ComputeGuest } from '../guests/compute.ts';
import { parseOptions, positive, refuse } from './options.ts';
import { geometricMean, median } from './statistics.ts';

const options = parseOptions({
  rounds: { type: 'string', default: '3' },
  scale: { type: 'string', default: '1' },
  only: { type: 'string' },
  engine: { type: 'string' },
  qemu: { type: 'string', default: 'qemu-system-x86_64' },
  limit: { type: 'string', default: '5' },
  json: { type: 'string' },
  program: { type: 'string', default: fileURLToPath(new URL('../src/node/main.ts', import.meta.url)) },
  'time-limit': { type: 'string', default: '120' },
});

type Machine = 'tcg' | 'vitrine';

interface Run {
  readonly seconds: number;
  readonly status: number | null;
  readonly output: string;
}

interface Row {
  readonly name: string;
  readonly what: string;
  readonly millions: number;
  readonly seconds: Record<Machine, number>;
  readonly runs: Record<Machine, readonly number[]>;
  readonly ratio: number;
  readonly netRatio: number;
  readonly result: string;
  readonly same: boolean;
}

/** The status that both machines give for a zero written to port 0xF4. */
const EXPECTED_STATUS = 1;
const rounds = positive('rounds', options.rounds, true);
const scale = positive('scale', options.scale);
const limit = positive('limit', options.limit);
const timeout = positive('time-limit', options['time-limit']) * 1000;

function command(machine: Machine, image: string): [string, string[]] {
  if (machine === 'tcg') {
    const board = ['-nodefaults', '-no-reboot', '-display', 'none', '-serial', 'stdio', '-m', '128'];
    const exit = ['-device', 'isa-debug-exit,iobase=0xf4,iosize=4'];
    return [options.qemu, ['-accel', 'tcg', ...board, ...exit, '-kernel', image]];
  }
  const engine = options.engine === undefined ? [] : ['--engine', options.engine];
  return [
    process.execPath,
    ['--no-warnings', options.program, 'boot', '--board', 'test', '--kernel', image, ...engine],
  ];
}

function run(machine: Machine, image: string): Run {
  const [program, args] = command(machine, image);
  const start = process.hrtime.bigint();
  const child = spawnSync(program, args, { encoding: 'utf8', timeout, stdio: ['ignore', 'pipe', 'pipe'] });
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  if (child.error !== undefined && child.signal === null) {
    console.error(
      `bench: cannot start ${program}: ${child.error.message}. Install it or name it with --qemu.`,
    );
    process.exit(2);
  }
  return {
    seconds,
    status: child.status,
    output: child.stdout + (child.status === EXPECTED_STATUS ? '' : child.stderr),
  };
}

const digits = (output: string): string => /[0-9a-f]{16}/.exec(output)?.[0] ?? '';

function measure(guest: ComputeGuest, folder: string, start: Record<Machine, number>): Row {
  const image = join(folder, `${guest.name}.elf`);
  writeFileSync(image, guest.image(scale));
  const runs: Record<Machine, number[]> = { tcg: [], vitrine: [] };
  const results = new Set<string>();
  let sound = true;
  for (let round = 0; round < rounds; round++) {
    // The order changes with the round, so that neither machine always runs on the warmer processor.
    const order: readonly Machine[] = round % 2 === 0 ? ['tcg', 'vitrine'] : ['vitrine', 'tcg'];
    for (const machine of order) {
      const { seconds, status, output } = run(machine, image);
      runs[machine].push(seconds);
      results.add(digits(output));
      if (status !== EXPECTED_STATUS || digits(output) === '') {
        sound = false;
        console.error(
          `bench: ${guest.name} on ${machine} ended with status ${String(status)}: ${output.slice(-400)}`,
        );
      }
    }
  }
  const seconds = { tcg: median(runs.tcg), vitrine: median(runs.vitrine) };
  return {
    name: guest.name,
    what: guest.what,
    millions: guest.millions * scale,
    seconds,
    runs,
    ratio: seconds.vitrine / seconds.tcg,
    netRatio: Math.max(seconds.vitrine - start.vitrine, 0) / Math.max(seconds.tcg - start.tcg, 0.001),
    result: [...results].join(' '),
    same: sound && results.size === 1,
  };
}

function print(row: Row): void {
  const cell = (value: number, width: number): string => value.toFixed(2).padStart(width);
  const mips = (row.millions / row.seconds.vitrine).toFixed(0).padStart(6);
  const note = row.same ? '' : '  results differ';
  console.log(
    `${row.name.padEnd(10)}${cell(row.seconds.tcg, 9)}${cell(row.seconds.vitrine, 10)}${cell(row.ratio, 8)}` +
      `${cell(row.netRatio, 8)}${mips}  ${row.what}${note}`,
  );
}

const wanted = options.only?.split(',');
const guests = COMPUTE_GUESTS.filter(({ name }) => wanted === undefined || wanted.includes(name));
const strange = wanted?.find((name) => COMPUTE_GUESTS.every((guest) => guest.name !== name));
if (strange !== undefined) {
  const names = COMPUTE_GUESTS.map(({ name }) => name).join(', ');
  refuse(`there is no '${strange}' for --only: give some of ${names}.`);
}

const folder = mkdtempSync(join(tmpdir(), 'vitrine-bench-'));
const load = loadavg()[0] ?? 0;
const rows: Row[] = [];
let start: Row;
try {
  start = measure(IDLE_GUEST, folder, { tcg: 0, vitrine: 0 });
  console.log(
    `${'program'.padEnd(10)}${'tcg s'.padStart(9)}${'vitrine s'.padStart(10)}${'ratio'.padStart(8)}${'net'.padStart(8)}  MIPS`,
  );
  print(start);
  for (const guest of guests) {
    const row = measure(guest, folder, start.seconds);
    rows.push(row);
    print(row);
  }
} finally {
  rmSync(folder, { recursive: true });
}

const ratio = geometricMean(rows.map((row) => row.ratio));
const netRatio = geometricMean(rows.map((row) => row.netRatio));
const worst = Math.max(...rows.map((row) => row.ratio));
console.log(
  `geometric mean: ${ratio.toFixed(2)} (net ${netRatio.toFixed(2)}), worst ${worst.toFixed(2)}; load at start ${load.toFixed(2)}`,
);

if (options.json !== undefined) {
  const report = {
    cpu: cpus()[0]?.model,
    node: process.version,
    qemu: spawnSync(options.qemu, ['--version'], { encoding: 'utf8' }).stdout.split('\n')[0],
    engine: options.engine ?? 'default',
    ...{ load, rounds, scale, ratio, netRatio, worst, start, rows },
  };
  writeFileSync(options.json, JSON.stringify(report, undefined, 2) + '\n');
}
if (!start.same || rows.some((row) => !row.same) || !(ratio <= limit)) process.exit(1);
