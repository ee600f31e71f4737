import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createLapic, lapicAcknowledge, lapicEoi, lapicPendingVector, type LapicState } from './lapic.ts';
import { lapicReadMsr, lapicReadPage, lapicWriteMsr, lapicWritePage } from './lapic-access.ts';
import { APIC_MSR, LAPIC } from './lapic-registers.ts';
import { lapicAdvance, lapicNextEvent, lapicSetTscOffset } from './lapic-timer.ts';

const VECTOR = 0xee;
const PERIODIC = 0x2_0000;
const DEADLINE = 0x4_0000;
const MASKED = 0x1_0000;
/** Ns per tick of the default bus clock. */
const TICK = 5;

function read(state: LapicState, now: number, offset: number): number {
  return lapicReadPage(state, now, offset, 4);
}

function write(state: LapicState, now: number, offset: number, value: number): void {
  lapicWritePage(state, now, offset, 4, value);
}

function apic(lvt: number, divide = 0xb): LapicState {
  const state = createLapic({ id: 0, bootstrap: true });
  write(state, 0, LAPIC.svr, 0x1ff);
  write(state, 0, LAPIC.lvtTimer, lvt | VECTOR);
  write(state, 0, LAPIC.divide, divide);
  return state;
}

/** Takes the timer's interrupt if it is pending. */
function take(state: LapicState): boolean {
  if (lapicPendingVector(state) !== VECTOR) return false;
  lapicAcknowledge(state);
  lapicEoi(state);
  return true;
}

describe('one-shot', () => {
  test('counts down to 0, fires there and stops', () => {
    const state = apic(0);
    write(state, 100, LAPIC.initialCount, 1000);
    expect(lapicNextEvent(state)).toBe(100 + 1000 * TICK);
    expect(read(state, 100, LAPIC.currentCount)).toBe(1000);
    expect(read(state, 100 + 4 * TICK, LAPIC.currentCount)).toBe(996);
    expect(lapicAdvance(state, 100 + 1000 * TICK - 1)).toBe(false);
    expect(read(state, 100 + 1000 * TICK - 1, LAPIC.currentCount)).toBe(1);
    expect(take(state)).toBe(false);
    expect(lapicAdvance(state, 100 + 1000 * TICK)).toBe(true);
    expect(take(state)).toBe(true);
    expect(read(state, 1e9, LAPIC.currentCount)).toBe(0);
    expect(read(state, 1e9, LAPIC.initialCount)).toBe(1000);
    expect(lapicNextEvent(state)).toBe(Infinity);
  });

  test('a read behind its end sees 0 and fires it', () => {
    const state = apic(0);
    write(state, 0, LAPIC.initialCount, 10);
    expect(read(state, 1000, LAPIC.currentCount)).toBe(0);
    expect(take(state)).toBe(true);
  });

  test('initial count 0 stops it, another value starts it afresh', () => {
    const state = apic(0);
    write(state, 0, LAPIC.initialCount, 10);
    write(state, 20, LAPIC.initialCount, 0);
    expect(lapicNextEvent(state)).toBe(Infinity);
    write(state, 20, LAPIC.initialCount, 10);
    expect(lapicNextEvent(state)).toBe(20 + 10 * TICK);
  });

  test('masked it counts and ends without an interrupt', () => {
    const state = apic(MASKED);
    write(state, 0, LAPIC.initialCount, 10);
    expect(lapicAdvance(state, 10 * TICK)).toBe(true);
    expect(take(state)).toBe(false);
  });

  test.each([
    [0x0, 2],
    [0x1, 4],
    [0x2, 8],
    [0x3, 16],
    [0x8, 32],
    [0x9, 64],
    [0xa, 128],
    [0xb, 1],
  ])('divide configuration %i divides by %i', (divide, divisor) => {
    const state = apic(0, divide);
    write(state, 0, LAPIC.initialCount, 7);
    expect(lapicNextEvent(state)).toBe(7 * divisor * TICK);
  });

  test('a new divisor applies to what is left', () => {
    const state = apic(0);
    write(state, 0, LAPIC.initialCount, 100);
    write(state, 40 * TICK, LAPIC.divide, 0);
    expect(read(state, 40 * TICK, LAPIC.currentCount)).toBe(60);
    expect(lapicNextEvent(state)).toBe((40 + 120) * TICK);
  });
});

describe('periodic', () => {
  test('reloads without showing 0 and keeps its phase when served late', () => {
    const state = apic(PERIODIC);
    write(state, 0, LAPIC.initialCount, 100);
    const period = 100 * TICK;
    lapicAdvance(state, period);
    expect(take(state)).toBe(true);
    expect(read(state, period, LAPIC.currentCount)).toBe(100);
    expect(lapicNextEvent(state)).toBe(2 * period);
    expect(lapicAdvance(state, 5 * period + 3)).toBe(true);
    expect(take(state)).toBe(true);
    expect(take(state)).toBe(false);
    expect(lapicNextEvent(state)).toBe(6 * period);
  });

  test('between one-shot and periodic the count goes on', () => {
    const state = apic(0);
    write(state, 0, LAPIC.initialCount, 100);
    write(state, 60 * TICK, LAPIC.lvtTimer, PERIODIC | VECTOR);
    expect(read(state, 60 * TICK, LAPIC.currentCount)).toBe(40);
    lapicAdvance(state, 100 * TICK);
    expect(read(state, 100 * TICK, LAPIC.currentCount)).toBe(100);
    write(state, 130 * TICK, LAPIC.lvtTimer, VECTOR);
    expect(read(state, 130 * TICK, LAPIC.currentCount)).toBe(70);
    lapicAdvance(state, 200 * TICK);
    expect(read(state, 200 * TICK, LAPIC.currentCount)).toBe(0);
  });

  test('a one-shot that has ended does not start again as periodic', () => {
    const state = apic(0);
    write(state, 0, LAPIC.initialCount, 10);
    lapicAdvance(state, 10 * TICK);
    write(state, 20 * TICK, LAPIC.lvtTimer, PERIODIC | VECTOR);
    expect(read(state, 20 * TICK, LAPIC.currentCount)).toBe(0);
    expect(lapicNextEvent(state)).toBe(Infinity);
  });
});

describe('TSC deadline', () => {
  /** Two ticks of the TSC per ns. */
  function arm(state: LapicState, now: number, tsc: number): void {
    lapicWriteMsr(state, now, APIC_MSR.tscDeadline, tsc >>> 0, Math.floor(tsc / 2 ** 32));
  }

  function deadline(state: LapicState, now: number): number {
    const value = lapicReadMsr(state, now, APIC_MSR.tscDeadline);
    return value === undefined ? NaN : value.lo + value.hi * 2 ** 32;
  }

  test('fires when the TSC gets there and clears the register', () => {
    const state = apic(DEADLINE);
    arm(state, 1000, 5001);
    expect(deadline(state, 1000)).toBe(5001);
    expect(lapicNextEvent(state)).toBe(2501);
    expect(lapicAdvance(state, 2500)).toBe(false);
    expect(lapicAdvance(state, 2501)).toBe(true);
    expect(take(state)).toBe(true);
    expect(deadline(state, 2501)).toBe(0);
    expect(lapicNextEvent(state)).toBe(Infinity);
  });

  test('in the past it fires with the write', () => {
    const state = apic(DEADLINE);
    arm(state, 1000, 2000);
    expect(take(state)).toBe(true);
    expect(deadline(state, 1000)).toBe(0);
  });

  test('0 disarms, a far one never comes', () => {
    const state = apic(DEADLINE);
    arm(state, 0, 5000);
    arm(state, 0, 0);
    expect(lapicNextEvent(state)).toBe(Infinity);
    lapicWriteMsr(state, 0, APIC_MSR.tscDeadline, 0xffff_ffff, 0xffff_ffff);
    expect(lapicNextEvent(state)).toBe(Number.MAX_SAFE_INTEGER);
  });

  test('follows the TSC when that is set', () => {
    const state = apic(DEADLINE);
    arm(state, 0, 10_000);
    lapicSetTscOffset(state, 0, 4000, 0);
    expect(lapicNextEvent(state)).toBe(3000);
    // The guest writes 0 to its TSC at 1000 ns.
    lapicSetTscOffset(state, 1000, -2000 >>> 0, 0xffff_ffff);
    expect(lapicNextEvent(state)).toBe(6000);
    lapicWriteMsr(state, 1000, APIC_MSR.tscDeadline, 0xffff_ffff, 0xffff_ffff);
    expect(lapicNextEvent(state)).toBe(Number.MAX_SAFE_INTEGER);
    // And the largest half of the range, where the TSC has its top bit set.
    lapicSetTscOffset(state, 1000, 0, 0xf000_0000);
    lapicWriteMsr(state, 1000, APIC_MSR.tscDeadline, 4000, 0xf000_0000);
    expect(lapicNextEvent(state)).toBe(2000);
  });

  test('exactly now is due, and an offset alone arms nothing', () => {
    const state = apic(DEADLINE);
    arm(state, 1000, 2000);
    expect(take(state)).toBe(true);
    lapicSetTscOffset(state, 1000, 5, 0);
    expect(lapicNextEvent(state)).toBe(Infinity);
  });

  test('counts nothing, and is ignored in the other modes', () => {
    const state = apic(DEADLINE);
    write(state, 0, LAPIC.initialCount, 100);
    expect(read(state, 0, LAPIC.initialCount)).toBe(0);
    expect(read(state, 0, LAPIC.currentCount)).toBe(0);
    const oneShot = apic(0);
    arm(oneShot, 0, 1);
    expect(deadline(oneShot, 0)).toBe(0);
    expect(take(oneShot)).toBe(false);
  });

  test('a change of mode disarms', () => {
    const state = apic(DEADLINE);
    arm(state, 0, 5000);
    write(state, 0, LAPIC.lvtTimer, VECTOR);
    write(state, 0, LAPIC.lvtTimer, DEADLINE | VECTOR);
    expect(deadline(state, 0)).toBe(0);
    const counting = apic(0);
    write(counting, 0, LAPIC.initialCount, 100);
    write(counting, 0, LAPIC.lvtTimer, DEADLINE | VECTOR);
    expect(lapicNextEvent(counting)).toBe(Infinity);
    write(counting, 0, LAPIC.lvtTimer, VECTOR);
    expect(read(counting, 0, LAPIC.initialCount)).toBe(0);
  });
});

test('the reserved mode does not count', () => {
  const state = apic(DEADLINE | PERIODIC);
  write(state, 0, LAPIC.initialCount, 100);
  expect(lapicNextEvent(state)).toBe(Infinity);
});

test('the current count is 0 exactly from the announced time on, for any clock', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1_000_000, max: 1_000_000_000 }),
      fc.integer({ min: 1, max: 0xffff_ffff }),
      fc.integer({ min: 0, max: 1e15 }),
      fc.constantFrom(0, 1, 2, 3, 8, 9, 0xa, 0xb),
      (busHz, count, start, divide) => {
        const state = createLapic({ id: 0, bootstrap: true, busHz });
        write(state, 0, LAPIC.divide, divide);
        write(state, start, LAPIC.initialCount, count);
        const due = lapicNextEvent(state);
        expect(read(state, due - 1, LAPIC.currentCount)).toBeGreaterThan(0);
        expect(read(state, due, LAPIC.currentCount)).toBe(0);
      },
    ),
  );
});
