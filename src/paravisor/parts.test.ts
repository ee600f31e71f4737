import { expect, test } from 'vitest';
import { ALL_PARTS, hasPart, parseParts, partBit, PARTS, partsWithout } from './parts.ts';
import { toAccept, without } from './memory.ts';

test('parseParts: a list of names, or the name that is none', () => {
  expect(parseParts('irq.apic, dev.ioapic')).toEqual({
    ok: true,
    parts: partBit('irq.apic') | partBit('dev.ioapic'),
  });
  expect(parseParts('irq.apic,irq.apc')).toEqual({ ok: false, unknown: 'irq.apc' });
  expect(parseParts('')).toEqual({ ok: false, unknown: '' });
});

test('hasPart: all parts are on by default', () => {
  for (const { name } of PARTS) expect(hasPart(ALL_PARTS, name)).toBe(true);
});

test('partsWithout: what needs a part goes with it', () => {
  const left = (names: readonly string[]): string[] =>
    PARTS.filter(({ name }) => !hasPart(partsWithout(names), name)).map(({ name }) => name);
  expect(left(['ap.start'])).toEqual(['ap.start']);
  expect(left(['irq.apic'])).toEqual([
    'irq.filtered',
    'irq.apic',
    'time.trusted',
    'dev.ioapic',
    'dev.legacy',
  ]);
});

test('without: holes at the ends, in the middle, and beside the range', () => {
  const range = { gpa: 0x1000, length: 0x4000 };
  expect(without(range, [])).toEqual([range]);
  expect(without(range, [{ gpa: 0, length: 0x2000 }])).toEqual([{ gpa: 0x2000, length: 0x3000 }]);
  expect(without(range, [{ gpa: 0x2000, length: 0x1000 }])).toEqual([
    { gpa: 0x1000, length: 0x1000 },
    { gpa: 0x3000, length: 0x2000 },
  ]);
  expect(without(range, [{ gpa: 0, length: 0x9000 }])).toEqual([]);
  expect(without(range, [{ gpa: 0x8000, length: 0x1000 }])).toEqual([range]);
});

test('toAccept: large pages where nothing is loaded, small ones around what is', () => {
  const MIB = 0x10_0000;
  const { large, small } = toAccept({
    ram: [{ gpa: 0, length: 6 * MIB }],
    loaded: [{ gpa: 2 * MIB, length: 0x1000 }],
  });
  expect(large).toEqual([0, 4 * MIB]);
  expect([small.length, small[0], small.at(-1)]).toEqual([511, 2 * MIB + 0x1000, 4 * MIB - 0x1000]);
});
