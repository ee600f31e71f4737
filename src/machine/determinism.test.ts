import { describe, expect, test } from 'vitest';
import { COMPUTE_GUESTS } from '../../guests/compute.ts';
import { findCpuModel } from '../x86/cpuid.ts';
import type { EventSink } from '../seats/events.ts';
import type { EngineKind, Machine } from './machine.ts';
import { restoreSnapshot, takeSnapshot } from './snapshot.ts';
import { stateHash } from './state-hash.ts';
import { bootTestBoard } from './test-board/boot.ts';
import { testBoardPlatform } from './test-board/platform.ts';
import type { TestBoardConfig } from './test-board/state.ts';

const model = findCpuModel('EPYC-Milan')!;
const LENGTH = 3_000_000;

/** A small generator for the tests themselves: the machine has no randomness of its own. */
function random(seed: number): () => number {
  let x = seed;
  return () => {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0;
    return x / 2 ** 32;
  };
}

function shuffled(seed: number) {
  return (count: number): Uint32Array => {
    const next = random(seed);
    const order = Uint32Array.from({ length: count }, (_, k) => k);
    for (let k = count - 1; k > 0; k--) {
      const other = Math.floor(next() * (k + 1));
      [order[k], order[other]] = [order[other] as number, order[k] as number];
    }
    return order;
  };
}

/** Code is translated soon, so that much of a run is made of regions that begin and end in odd places. */
const TRANSLATE_AFTER = 50;

function board(
  image: Uint8Array,
  engine: EngineKind,
  more: { sink?: EventSink; frameOrder?: (count: number) => Uint32Array } = {},
): Machine {
  const outcome = bootTestBoard({
    source: { kind: 'kernel', image, commandLine: 'guest', modules: [] },
    memoryBytes: 64 * 2 ** 20,
    cpus: 2,
    model,
    engine,
    ...more,
  });
  if (!outcome.ok) throw new Error(outcome.error.what);
  outcome.machine.engine.translateAfter(TRANSLATE_AFTER);
  return outcome.machine;
}

/** To bytes and back. */
function throughBytes(
  machine: Machine,
  engine: EngineKind,
  sink: EventSink,
  frameOrder: (count: number) => Uint32Array,
): Machine {
  const restored = restoreSnapshot(takeSnapshot(machine), {
    sink,
    frameOrder,
    engine,
    platform: (kind, config) =>
      kind === 'test-board' ? testBoardPlatform(config as TestBoardConfig) : undefined,
  });
  if (!restored.ok) throw new Error(restored.reason);
  restored.machine.engine.translateAfter(TRANSLATE_AFTER);
  return restored.machine;
}

function runTo(machine: Machine, count: number): void {
  while (machine.instructions < count) {
    const reason = machine.run(count - machine.instructions);
    if (reason.kind !== 'budget') throw new Error(`ended early: ${reason.kind}`);
  }
}

/** 100 watchpoints of 1 to 4096 bytes: some anywhere, most around the guest's stack and data, so that there are hits. */
function watchRandomly(machine: Machine, next: () => number, hit: () => void): void {
  machine.engine.onWatch = hit;
  machine.engine.setWatches(
    Array.from({ length: 100 }, (_, k) => {
      const page = k < 36 ? Math.floor(next() * 0x3f00) : 0x3e0 + Math.floor(next() * 64);
      const offset = Math.floor(next() * 4096);
      return {
        host: machine.truth.host(page * 4096 + offset) as number,
        length: 1 + Math.floor(next() * (4096 - offset)),
        read: next() < 0.7,
        write: next() < 0.7,
      };
    }),
  );
}

let observed = 0;
const guests = COMPUTE_GUESTS.filter(({ name }) =>
  ['hash', 'memory', 'bytecode', 'fib', 'vector'].includes(name),
);

const end = (machine: Machine) => ({ hash: stateHash(machine), now: machine.now, exits: machine.exits });

const plainEnd = new Map(
  guests.map((guest) => {
    const machine = board(guest.image(1), 'interpreter');
    runTo(machine, LENGTH);
    return [guest.name, end(machine)];
  }),
);
const ENGINES: readonly EngineKind[] = ['interpreter', 'translator'];

describe.each(guests.flatMap((guest) => ENGINES.map((engine) => [guest.name, engine, guest] as const)))(
  '%s on the %s',
  (name, engine, guest) => {
    const image = guest.image(1);
    const expected = plainEnd.get(name);

    test('runs the same again', () => {
      const machine = board(image, engine);
      runTo(machine, LENGTH);
      expect(end(machine)).toEqual(expected);
      const { translator } = machine.engine;
      expect(translator === undefined).toBe(engine === 'interpreter');
      if (translator !== undefined) expect(translator.counts.regions).toBeGreaterThan(0);
    });

    test('runs the same in odd slices, with shuffled frames, all events and 100 watchpoints', () => {
      let events = 0;
      const machine = board(image, engine, {
        frameOrder: shuffled(7),
        sink: { mask: 0xffffffff, emit: () => events++ },
      });
      const next = random(11);
      let hits = 0;
      watchRandomly(machine, next, () => hits++);
      while (machine.instructions < LENGTH)
        runTo(machine, Math.min(LENGTH, machine.instructions + 1 + Math.floor(next() * 100_000)));
      expect(end(machine)).toEqual(expected);
      observed += events + hits;
    });

    test('runs the same through snapshots at 20 random counts', () => {
      const next = random(13);
      const counts = Array.from({ length: 20 }, () => Math.floor(next() * LENGTH)).sort((a, b) => a - b);
      let machine = board(image, engine);
      for (const [index, count] of counts.entries()) {
        runTo(machine, count);
        machine = throughBytes(machine, engine, { mask: 0, emit: () => undefined }, shuffled(index));
      }
      runTo(machine, LENGTH);
      expect(end(machine)).toEqual(expected);
    });

    test('runs the same with all of that at once', () => {
      const next = random(17);
      const counts = Array.from({ length: 20 }, () => Math.floor(next() * LENGTH)).sort((a, b) => a - b);
      const sink: EventSink = { mask: 0xffffffff, emit: () => observed++ };
      let machine = board(image, engine, { frameOrder: shuffled(19), sink });
      for (const [index, count] of counts.entries()) {
        watchRandomly(machine, next, () => observed++);
        runTo(machine, count);
        machine = throughBytes(machine, engine, sink, shuffled(23 + index));
      }
      runTo(machine, LENGTH);
      expect(end(machine)).toEqual(expected);
    });
  },
);

test('the observers of these runs had something to observe', () => {
  expect(observed).toBeGreaterThan(1000);
});

test('another seed gives another state', () => {
  // RDRAND is not used here: the seed shows in the vCPUs' entropy state.
  const [guest] = guests;
  const machine = (seed: bigint): string => {
    const outcome = bootTestBoard({
      source: { kind: 'kernel', image: guest!.image(1), commandLine: 'guest', modules: [] },
      memoryBytes: 64 * 2 ** 20,
      cpus: 1,
      model,
      seed,
    });
    if (!outcome.ok) throw new Error(outcome.error.what);
    runTo(outcome.machine, 1000);
    return stateHash(outcome.machine);
  };
  expect(machine(1n)).toBe(machine(1n));
  expect(machine(1n)).not.toBe(machine(2n));
});

test.each([
  ['nothing', new Uint8Array(0)],
  ['noise', Uint8Array.from({ length: 100 }, (_, k) => k * 7)],
])('a snapshot of %s is refused with a reason', (_name, bytes) => {
  const outcome = restoreSnapshot(bytes, { sink: { mask: 0, emit: () => undefined } });
  expect(outcome.ok).toBe(false);
});
