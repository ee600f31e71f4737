/** A boot of the default kernel is the same, instruction for instruction, whatever watches it and however it is cut. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { findConfiguration, makeMachine, type Configuration } from '../../src/machine/configurations.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { restoreSnapshot, takeSnapshot } from '../../src/machine/snapshot.ts';
import { stateHash } from '../../src/machine/state-hash.ts';
import { Apt } from '../../src/node/apt.ts';
import { Cache } from '../../src/node/cache.ts';
import { defaultCacheDir } from '../../src/node/cache-folder.ts';
import { buildInitramfs, busyboxFromDeb } from '../../src/node/initramfs.ts';
import { packageBytes, resolveKernel, type PackageSource } from '../../src/node/kernel.ts';
import type { EventSink } from '../../src/seats/events.ts';
import { findCpuModel, type CpuModel } from '../../src/x86/cpuid.ts';
import { vitrine, whyNoKernel } from '../e2e/vitrine.ts';

/** Hashes of the whole state are taken at every multiple. */
const EVERY = 2 ** 20;
const COMMAND = 'uname -r; nproc; cat /proc/uptime; cat /proc/sys/kernel/random/uuid; dmesg | tail -5';

const missing = whyNoKernel();
const reason = missing === undefined ? '' : ` (skipped: no kernel: ${missing})`;
const folder = mkdtempSync(join(tmpdir(), 'vitrine-determinism-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let kernel: Uint8Array;
let initrd: Uint8Array;
beforeAll(async () => {
  if (missing !== undefined) return;
  const cache = new Cache(defaultCacheDir());
  const source: PackageSource = { cache, apt: new Apt(cache), offline: true, say: () => undefined };
  const found = await resolveKernel({}, source);
  const { bytes, entry } = await packageBytes('busybox-static', source);
  kernel = found.image;
  initrd = buildInitramfs({
    busybox: await busyboxFromDeb(bytes, entry.name, cache),
    modules: found.modules,
    command: COMMAND,
    extra: [],
  });
});

interface Trail {
  readonly instructions: number;
  readonly now: number;
  readonly exits: number;
  readonly console: string;
  readonly uart2: string;
  readonly hashes: readonly string[];
}

interface Way {
  readonly seed?: bigint;
  readonly sink?: EventSink;
  readonly frameOrder?: (count: number) => Uint32Array;
  /** Most instructions for each call of run(). */
  readonly slice?: number;
  /** Goes on in a machine made from a snapshot, taken behind every so many hashes. */
  readonly snapshotEvery?: number;
  readonly hash: boolean;
}

function follow(cpus: number, way: Way): Trail {
  const outcome = makeMachine(findConfiguration('plain') as Configuration, {
    kernel,
    initrd,
    commandLine: 'console=ttyS0,115200 panic=-1 cryptomgr.notests quiet',
    memoryBytes: 256 * 2 ** 20,
    vpCount: cpus,
    model: findCpuModel('EPYC-Milan') as CpuModel,
    seed: way.seed ?? 1n,
    startDate: 1_767_225_600,
    hyperv: true,
    withheld: [],
    sink: way.sink ?? { mask: 0, emit: () => undefined },
    ...(way.frameOrder === undefined ? {} : { frameOrder: way.frameOrder }),
  });
  if (!outcome.ok) throw new Error(outcome.error.what);
  const { machine } = outcome;
  return runToEnd(machine, way);
}

/** Another machine, from a snapshot, with frames elsewhere. */
function again(machine: Machine, { sink, frameOrder }: Way): Machine {
  const outcome = restoreSnapshot(takeSnapshot(machine), {
    sink: sink ?? { mask: 0, emit: () => undefined },
    ...(frameOrder === undefined ? {} : { frameOrder }),
  });
  if (!outcome.ok) throw new Error(outcome.reason);
  outcome.machine.onSerial = machine.onSerial;
  return outcome.machine;
}

function runToEnd(whole: Machine, way: Way): Trail {
  let machine = whole;
  const text = [Buffer.alloc(0), Buffer.alloc(0)];
  machine.onSerial = (unit, bytes) =>
    void (text[unit] = Buffer.concat([text[unit] ?? Buffer.alloc(0), bytes]));
  const hashes: string[] = [];
  for (;;) {
    const toMark = EVERY - (machine.instructions % EVERY);
    const reason = machine.run(Math.min(toMark, way.slice ?? Infinity));
    if (way.hash && machine.instructions % EVERY === 0) {
      hashes.push(stateHash(machine));
      if (hashes.length % (way.snapshotEvery ?? Infinity) === 0) machine = again(machine, way);
    }
    if (reason.kind !== 'budget') break;
  }
  const [first = Buffer.alloc(0), second = Buffer.alloc(0)] = text;
  hashes.push(stateHash(machine));
  return {
    instructions: machine.instructions,
    now: machine.now,
    exits: machine.exits,
    console: first.toString('latin1'),
    uart2: second.toString('latin1'),
    hashes,
  };
}

function shuffle(count: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, k) => k);
  let state = 7;
  for (let k = count - 1; k > 0; k--) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    const other = state % (k + 1);
    [order[k], order[other]] = [order[other] as number, order[k] as number];
  }
  return order;
}

test.skipIf(missing !== undefined)(
  `2 processors: every 2^20 instructions the same, with frames shuffled, all events on and snapshots midway${reason}`,
  () => {
    const first = follow(2, { hash: true });
    expect(first.uart2).toContain('6.12.');
    expect(first.hashes.length).toBeGreaterThan(500);
    console.log(`${first.instructions} instructions, ${first.exits} exits, ${first.hashes.length} hashes`);
    let events = 0;
    const watched = follow(2, {
      hash: true,
      frameOrder: shuffle,
      sink: { mask: 0xffffffff, emit: () => events++ },
      slice: 777_777,
      snapshotEvery: 250,
    });
    console.log(`${events} events`);
    expect(events).toBeGreaterThan(10_000);
    expect(watched).toEqual(first);
    const other = follow(2, { hash: false, seed: 2n });
    expect(other.hashes.at(-1)).not.toBe(first.hashes.at(-1));
    expect(other.uart2).not.toBe(first.uart2);
  },
);

const REPORT_KEYS = ['instructions', 'exits', 'virtualNanoseconds', 'stateHash', 'end'] as const;

test.skipIf(missing !== undefined)(
  `the command line: two runs, and one in three pieces through snapshots, are the same${reason}`,
  () => {
    const json = join(folder, 'report.json');
    const read = (): Record<string, unknown> => {
      const report = JSON.parse(readFileSync(json, 'utf8')) as Record<string, unknown>;
      return Object.fromEntries(REPORT_KEYS.map((key) => [key, report[key]]));
    };
    const args = ['boot', '--offline', '--cpus', '2', '--memory', '256M', '--json', json];
    const whole = vitrine([...args, '--run', COMMAND]);
    expect(whole.status, whole.stderr).toBe(0);
    const expected = read();
    const again = vitrine([...args, '--run', COMMAND, '--trace', join(folder, 'trace.jsonl')]);
    expect({ ...read(), stdout: again.stdout.toString() }).toEqual({
      ...expected,
      stdout: whole.stdout.toString(),
    });

    const total = expected['instructions'] as number;
    const snapshot = join(folder, 'snapshot');
    const ends = ['--json', json, '--snapshot', snapshot];
    const cuts = [Math.floor(total * 0.37) + 1, Math.floor(total * 0.955) + 3];
    let stdout = '';
    const first = vitrine([...args, '--snapshot', snapshot, '--limit', String(cuts[0]), '--run', COMMAND]);
    expect(first.status).toBe(124);
    stdout += first.stdout.toString();
    const second = vitrine(['boot', '--resume', snapshot, ...ends, '--limit', String(cuts[1])]);
    expect(second.status).toBe(124);
    expect(read()['instructions']).toBe(cuts[1]);
    stdout += second.stdout.toString();
    const third = vitrine(['boot', '--resume', snapshot, '--json', json]);
    stdout += third.stdout.toString();
    expect({ ...read(), stdout }).toEqual({ ...expected, stdout: whole.stdout.toString() });
    expect(third.status).toBe(0);
  },
);
