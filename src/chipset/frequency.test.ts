import fc from 'fast-check';
import { expect, test } from 'vitest';
import { frequency, ticksAt, timeOfTick } from './frequency.ts';

test('tick boundaries of a clock that divides nanoseconds', () => {
  const bus = frequency(200_000_000);
  expect(bus).toEqual({ ticks: 1, nanoseconds: 5 });
  expect([0, 4, 5, 9, 10].map((now) => ticksAt(bus, now))).toEqual([0, 0, 1, 1, 2]);
  expect([0, 1, 2].map((tick) => timeOfTick(bus, tick))).toEqual([0, 5, 10]);
});

test('the ACPI timer after one hour', () => {
  const timer = frequency(3_579_545);
  expect(ticksAt(timer, 3_600_000_000_000)).toBe(3_579_545 * 3600);
  expect(ticksAt(timer, 3_600_000_000_000 - 1)).toBe(3_579_545 * 3600 - 1);
});

test('timeOfTick is the first nanosecond of its tick, and ticksAt is exact', () => {
  const hz = fc.oneof(
    fc.integer({ min: 1, max: 4_000_000_000 }),
    fc.constantFrom(32_768, 1_193_182, 3_579_545, 100_000_000, 2_000_000_000),
  );
  fc.assert(
    fc.property(hz, fc.integer({ min: 0, max: 2 ** 50 }), (rate, now) => {
      const clock = frequency(rate);
      const tick = ticksAt(clock, now);
      const exact = (BigInt(now) * BigInt(rate)) / 1_000_000_000n;
      if (exact > BigInt(Number.MAX_SAFE_INTEGER)) return;
      expect(BigInt(tick)).toBe(exact);
      const start = timeOfTick(clock, tick);
      expect(start).toBeLessThanOrEqual(now);
      expect(ticksAt(clock, start)).toBeGreaterThanOrEqual(tick);
      if (start > 0) expect(ticksAt(clock, start - 1)).toBeLessThan(tick);
    }),
    { numRuns: 2000 },
  );
});

test('a tick beyond what a number counts is never', () => {
  expect(timeOfTick(frequency(1), 2 ** 40)).toBe(Infinity);
  expect(timeOfTick(frequency(1000), 2 ** 53)).toBe(Infinity);
});

test('a rate that is none is refused', () => {
  expect(() => frequency(0)).toThrow('not a frequency');
  expect(() => frequency(1.5)).toThrow('not a frequency');
});
