import fc from 'fast-check';
import { expect, test } from 'vitest';
import { dateOfDays, daysOfDate, weekdayOfDays } from './calendar.ts';

const DAY = 86_400_000;

test('agrees with the ECMAScript calendar in both directions', () => {
  fc.assert(
    fc.property(fc.integer({ min: -800_000, max: 3_000_000 }), (days) => {
      const reference = new Date(days * DAY);
      const date = dateOfDays(days);
      expect(date).toEqual({
        year: reference.getUTCFullYear(),
        month: reference.getUTCMonth() + 1,
        day: reference.getUTCDate(),
      });
      expect(daysOfDate(date)).toBe(days);
      expect(weekdayOfDays(days)).toBe(reference.getUTCDay());
    }),
    { numRuns: 2000 },
  );
});

test('days and months beyond their ends carry over', () => {
  expect(dateOfDays(daysOfDate({ year: 2023, month: 2, day: 31 }))).toEqual({ year: 2023, month: 3, day: 3 });
  expect(dateOfDays(daysOfDate({ year: 2023, month: 14, day: 1 }))).toEqual({ year: 2024, month: 2, day: 1 });
  expect(dateOfDays(daysOfDate({ year: 2024, month: 0, day: 1 }))).toEqual({ year: 2023, month: 12, day: 1 });
});
