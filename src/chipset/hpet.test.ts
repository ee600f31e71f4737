import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  createHpet,
  HPET,
  hpetAdvance,
  hpetNextEvent,
  hpetRead,
  hpetWrite,
  type HpetAction,
  type HpetState,
} from './hpet.ts';

const ENABLE = 1;
const LEGACY = 2;
const LEVEL = 2;
const INTERRUPT = 4;
const PERIODIC = 8;
const SET_VALUE = 0x40;
const NARROW = 0x100;
const ROUTE_20 = 20 << 9;
const ROUTE_21 = 21 << 9;
/** Ns per tick. */
const TICK = 10;

function read(state: HpetState, now: number, offset: number): number {
  const { lo, hi } = hpetRead(state, now, offset, 8);
  return hi * 2 ** 32 + lo;
}

function write(state: HpetState, now: number, offset: number, value: number): readonly HpetAction[] {
  return hpetWrite(state, now, offset, 8, value >>> 0, Math.floor(value / 2 ** 32));
}

function timer(index: number): number {
  return HPET.timers + index * 0x20;
}

/** A running block with timer 0 configured and its comparator set. */
function armed(config: number, comparator: number, blockConfig = ENABLE): HpetState {
  const state = createHpet();
  write(state, 0, timer(0), config);
  write(state, 0, timer(0) + 8, comparator);
  write(state, 0, HPET.config, blockConfig);
  return state;
}

describe('registers', () => {
  test('capabilities: 10 ns, three comparators, 64 bits, legacy routing', () => {
    const state = createHpet();
    expect(hpetRead(state, 0, 0, 8)).toEqual({ lo: 0x8086_a201, hi: 10_000_000 });
    expect(hpetRead(state, 0, 4, 4)).toEqual({ lo: 10_000_000, hi: 0 });
  });

  test('timer capabilities and writable bits', () => {
    const state = createHpet();
    write(state, 0, timer(1), 0xffff_ffff);
    // Route 31 does not exist, so it stays 0.
    expect(hpetRead(state, 0, timer(1), 8)).toEqual({ lo: 0x17e, hi: 0x00f0_0000 });
    write(state, 0, timer(1), ROUTE_21);
    expect(hpetRead(state, 0, timer(1), 4).lo).toBe(ROUTE_21 | 0x30);
    write(state, 0, HPET.config, 0xffff_ffff);
    expect(read(state, 0, HPET.config)).toBe(3);
    expect(read(state, 0, timer(3))).toBe(0);
    expect(read(state, 0, timer(0) + 0x10)).toBe(0);
  });

  test('comparators start as all ones', () => {
    expect(hpetRead(createHpet(), 0, timer(2) + 8, 8)).toEqual({ lo: 0xffff_ffff, hi: 0xffff_ffff });
  });

  test('unaligned and narrow accesses do nothing', () => {
    const state = createHpet();
    expect(hpetRead(state, 0, 1, 1)).toEqual({ lo: 0, hi: 0 });
    expect(hpetRead(state, 0, 4, 8)).toEqual({ lo: 0, hi: 0 });
    hpetWrite(state, 0, HPET.config, 1, 1);
    hpetWrite(state, 0, HPET.config + 2, 4, 1);
    expect(read(state, 0, HPET.config)).toBe(0);
  });
});

describe('counter', () => {
  test('runs while enabled and can be set while halted', () => {
    const state = createHpet();
    write(state, 100, HPET.counter, 1000);
    expect(read(state, 500, HPET.counter)).toBe(1000);
    write(state, 500, HPET.config, ENABLE);
    expect(read(state, 500 + 7 * TICK, HPET.counter)).toBe(1007);
    write(state, 500 + 7 * TICK, HPET.counter, 0);
    expect(read(state, 500 + 8 * TICK, HPET.counter)).toBe(1008);
    write(state, 500 + 9 * TICK, HPET.config, 0);
    expect(read(state, 1e9, HPET.counter)).toBe(1009);
  });

  test('carries into its upper half, and wraps', () => {
    const state = createHpet();
    hpetWrite(state, 0, HPET.counter, 8, 0xffff_fffe, 5);
    write(state, 0, HPET.config, ENABLE);
    expect(hpetRead(state, 3 * TICK, HPET.counter, 8)).toEqual({ lo: 1, hi: 6 });
    expect(hpetRead(state, 3 * TICK, HPET.counter + 4, 4).lo).toBe(6);
    const last = createHpet();
    hpetWrite(last, 0, HPET.counter, 8, 0xffff_ffff, 0xffff_ffff);
    write(last, 0, HPET.config, ENABLE);
    expect(hpetRead(last, TICK, HPET.counter, 8)).toEqual({ lo: 0, hi: 0 });
  });

  test('halves can be written alone, and long runs carry', () => {
    const state = createHpet();
    hpetWrite(state, 0, HPET.counter + 4, 4, 3);
    hpetWrite(state, 0, HPET.counter, 4, 5);
    expect(hpetRead(state, 0, HPET.counter, 8)).toEqual({ lo: 5, hi: 3 });
    hpetWrite(state, 0, HPET.config, 4, ENABLE);
    expect(hpetRead(state, (2 ** 33 + 1) * TICK, HPET.counter, 8)).toEqual({ lo: 6, hi: 5 });
    hpetWrite(state, 0, timer(0) + 12, 4, 9);
    expect(hpetRead(state, 0, timer(0) + 8, 8)).toEqual({ lo: 0xffff_ffff, hi: 9 });
  });

  test('does not go back when it is halted and started again and again', () => {
    const state = createHpet();
    let seen = 0;
    for (let now = 0; now < 10_000; now += 37) {
      write(state, now, HPET.config, (now / 37) & 1);
      const value = read(state, now, HPET.counter);
      expect(value).toBeGreaterThanOrEqual(seen);
      seen = value;
    }
    expect(seen).toBeGreaterThan(0);
  });
});

describe('one-shot', () => {
  test('pulses at the match, once, on its route', () => {
    const state = armed(INTERRUPT | ROUTE_20, 100);
    expect(hpetNextEvent(state)).toBe(100 * TICK);
    expect(hpetAdvance(state, 100 * TICK - 1)).toEqual([]);
    expect(hpetAdvance(state, 100 * TICK)).toEqual([{ kind: 'pulse', timer: 0, pin: 20, isa: -1 }]);
    expect(hpetAdvance(state, 100 * TICK)).toEqual([]);
    expect(hpetNextEvent(state)).toBe(Infinity);
    expect(read(state, 2000, HPET.status)).toBe(0);
  });

  test('32-bit mode matches the lower half again when it comes round', () => {
    const state = armed(INTERRUPT | NARROW | ROUTE_20, 100);
    hpetAdvance(state, 100 * TICK);
    expect(hpetNextEvent(state)).toBe((100 + 2 ** 32) * TICK);
    hpetWrite(state, 2000, timer(0) + 8, 8, 300, 7);
    expect(hpetRead(state, 2000, timer(0) + 8, 8)).toEqual({ lo: 300, hi: 0 });
    expect(hpetNextEvent(state)).toBe(300 * TICK);
  });

  test('a comparator behind the counter has to wait; halted nothing is due', () => {
    const state = armed(INTERRUPT | ROUTE_20, 100);
    write(state, 50 * TICK, timer(0) + 8, 50);
    expect(hpetNextEvent(state)).toBe(Infinity);
    write(state, 50 * TICK, timer(0) + 8, 51);
    expect(hpetNextEvent(state)).toBe(51 * TICK);
    write(state, 50 * TICK, HPET.config, 0);
    expect(hpetNextEvent(state)).toBe(Infinity);
    write(state, 80 * TICK, HPET.config, ENABLE);
    expect(hpetNextEvent(state)).toBe(81 * TICK);
  });

  test('with its interrupt off it matches in silence', () => {
    const state = armed(ROUTE_20, 100);
    expect(hpetNextEvent(state)).toBe(Infinity);
    expect(hpetAdvance(state, 100 * TICK)).toEqual([]);
  });
});

describe('periodic', () => {
  /** As drivers do: first value with Tn_VAL_SET_CNF, then the period. */
  function started(first: number, period: number, extra = 0): HpetState {
    const state = createHpet();
    write(state, 0, timer(0), INTERRUPT | PERIODIC | SET_VALUE | ROUTE_20 | extra);
    write(state, 0, timer(0) + 8, first);
    write(state, 0, timer(0) + 8, period);
    write(state, 0, HPET.config, ENABLE);
    return state;
  }

  test('first match, then every period; the comparator shows the next', () => {
    const state = started(100, 30);
    for (const expected of [100, 130, 160]) {
      expect(read(state, 0, timer(0) + 8)).toBe(expected);
      expect(hpetNextEvent(state)).toBe(expected * TICK);
      expect(hpetAdvance(state, expected * TICK)).toHaveLength(1);
    }
  });

  test('served late it pulses once and keeps its phase', () => {
    const state = started(100, 30);
    expect(hpetAdvance(state, 500 * TICK)).toHaveLength(1);
    expect(read(state, 500 * TICK, timer(0) + 8)).toBe(520);
    expect(hpetNextEvent(state)).toBe(520 * TICK);
  });

  test('in 32-bit mode the comparator wraps', () => {
    const state = started(0xffff_fff0, 0x20, NARROW);
    const first = hpetNextEvent(state);
    expect(first).toBe(0xffff_fff0 * TICK);
    hpetAdvance(state, first);
    expect(read(state, first, timer(0) + 8)).toBe(0x10);
    expect(hpetNextEvent(state)).toBe(first + 0x20 * TICK);
  });

  test('period 0 does not hang', () => {
    const state = started(10, 0);
    expect(hpetAdvance(state, 10 * TICK)).toHaveLength(1);
    expect(hpetNextEvent(state)).toBe(Infinity);
  });
});

describe('level-triggered', () => {
  const config = INTERRUPT | LEVEL | ROUTE_20;

  test('holds its line until status is cleared', () => {
    const state = armed(config, 100);
    expect(hpetAdvance(state, 100 * TICK)).toEqual([{ kind: 'assert', timer: 0, pin: 20, isa: -1 }]);
    expect(read(state, 1000, HPET.status)).toBe(1);
    expect(write(state, 1000, HPET.status, 2)).toEqual([]);
    expect(write(state, 1000, HPET.status, 1)).toEqual([{ kind: 'release', timer: 0, pin: 20, isa: -1 }]);
  });

  test('turned off or routed elsewhere it is released', () => {
    const state = armed(config, 100);
    hpetAdvance(state, 100 * TICK);
    expect(write(state, 1000, timer(0), INTERRUPT | LEVEL | ROUTE_21)).toEqual([
      { kind: 'release', timer: 0, pin: 20, isa: -1 },
      { kind: 'assert', timer: 0, pin: 21, isa: -1 },
    ]);
    expect(write(state, 1000, HPET.config, ENABLE | LEGACY)).toEqual([
      { kind: 'release', timer: 0, pin: 21, isa: -1 },
      { kind: 'assert', timer: 0, pin: 2, isa: 0 },
    ]);
    expect(write(state, 1000, timer(0), LEVEL)).toEqual([{ kind: 'release', timer: 0, pin: 2, isa: 0 }]);
  });
});

describe('legacy replacement', () => {
  test('timers 0 and 1 take the lines of the PIT and the RTC, 2 its route', () => {
    const state = createHpet();
    for (const index of [0, 1, 2]) {
      write(state, 0, timer(index), INTERRUPT | ROUTE_20);
      write(state, 0, timer(index) + 8, 10);
    }
    write(state, 0, HPET.config, ENABLE | LEGACY);
    expect(hpetAdvance(state, 10 * TICK)).toEqual([
      { kind: 'pulse', timer: 0, pin: 2, isa: 0 },
      { kind: 'pulse', timer: 1, pin: 8, isa: 8 },
      { kind: 'pulse', timer: 2, pin: 20, isa: -1 },
    ]);
  });
});

test('a period that the specification does not allow is refused', () => {
  expect(() => createHpet({ periodNs: 0 })).toThrow('HPET period');
  expect(() => createHpet({ periodNs: 2.5 })).toThrow('HPET period');
});

test('random traffic: lines are balanced, events lie ahead, copies go on alike', () => {
  const step = fc.record({
    offset: fc.oneof(
      fc.constantFrom(0x10, 0x20, 0xf0, 0xf4, 0x100, 0x108, 0x10c, 0x120, 0x128, 0x140, 0x148),
      fc.nat(0x3ff),
    ),
    size: fc.constantFrom(1, 4, 8),
    lo: fc.oneof(fc.nat(0x3ff), fc.nat(0xffff_ffff)),
    hi: fc.oneof(fc.constant(0), fc.nat(0xffff_ffff)),
    isWrite: fc.boolean(),
    wait: fc.oneof(fc.nat(5000), fc.constant(1e13)),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), fc.nat(120), (steps, cut) => {
      let a = createHpet();
      const b = createHpet();
      const held = new Map<number, number>();
      let now = 0;
      steps.forEach(({ offset, size, lo, hi, isWrite, wait }, index) => {
        now += wait;
        if (index === cut) a = JSON.parse(JSON.stringify(structuredClone(a))) as HpetState;
        const actions = [...hpetAdvance(a, now), ...(isWrite ? hpetWrite(a, now, offset, size, lo, hi) : [])];
        const again = [...hpetAdvance(b, now), ...(isWrite ? hpetWrite(b, now, offset, size, lo, hi) : [])];
        expect(again).toEqual(actions);
        for (const action of actions) {
          if (action.kind === 'assert') {
            expect(held.has(action.timer)).toBe(false);
            held.set(action.timer, action.pin);
          } else if (action.kind === 'release') {
            expect(held.get(action.timer)).toBe(action.pin);
            held.delete(action.timer);
          }
        }
        const got = hpetRead(a, now, offset, size);
        expect(got).toEqual(hpetRead(b, now, offset, size));
        for (const half of [got.lo, got.hi]) {
          expect(Number.isInteger(half) && half >= 0 && half <= 0xffff_ffff).toBe(true);
        }
        expect(hpetNextEvent(a)).toBeGreaterThan(now);
      });
      expect(a).toEqual(b);
    }),
  );
});
