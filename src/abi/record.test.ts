import { describe, expect, test } from 'vitest';
import { exact, join, record, highHalf, lowHalf } from './record.ts';

const sample = record('Sample', 'test', 24, [
  { name: 'kind', offset: 0, width: 1 },
  { name: 'flags', offset: 2, width: 2 },
  { name: 'length', offset: 4, width: 4 },
  { name: 'address', offset: 8, width: 8 },
  { name: 'tag', offset: 16, width: 5, bytes: true },
]);

describe('record', () => {
  test('reads little endian, unsigned, at an offset', () => {
    const bytes = new Uint8Array(32).fill(0xff, 8);
    expect(sample.read(bytes, 8)).toEqual({
      kind: 0xff,
      flags: 0xffff,
      length: 0xffffffff,
      address: 0xffff_ffff_ffff_ffffn,
      tag: new Uint8Array(5).fill(0xff),
    });
  });

  test('writes each field at its offset and leaves the rest alone', () => {
    const bytes = sample.write({ kind: 1, flags: 0x302, length: 0x7060504, address: 0xf0e0d0c0b0a0908n });
    expect(Array.from(bytes)).toEqual([
      1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    const kept = new Uint8Array(24).fill(0xee);
    sample.write({ length: 0 }, kept);
    expect(kept.filter((b) => b === 0xee).length).toBe(20);
  });

  test('what was written reads back', () => {
    const values = { kind: 7, flags: 8, length: 9, address: 1n << 63n, tag: Uint8Array.of(1, 2, 3, 4, 5) };
    expect(sample.read(sample.write(values))).toEqual(values);
  });

  test('a short run of bytes is padded with zeros, a long one refused', () => {
    const bytes = new Uint8Array(24).fill(0xff);
    sample.set(bytes, 'tag', Uint8Array.of(9));
    expect(sample.get(bytes, 'tag')).toEqual(Uint8Array.of(9, 0, 0, 0, 0));
    expect(() => sample.set(bytes, 'tag', new Uint8Array(6))).toThrow(RangeError);
  });

  test('halves of a 64-bit field', () => {
    const bytes = sample.write({ address: 0x1234_5678_9abc_def0n });
    expect(sample.low(bytes, 'address')).toBe(0x9abcdef0);
    expect(sample.high(bytes, 'address')).toBe(0x12345678);
    expect(sample.high(bytes, 'length')).toBe(0);
    sample.setHalves(bytes, 'address', 0xffffffff, 1);
    expect(sample.get(bytes, 'address')).toBe(0x1_ffff_ffffn);
  });

  test('does not read or write outside its buffer', () => {
    expect(sample.fits(new Uint8Array(24))).toBe(true);
    expect(sample.fits(new Uint8Array(24), 1)).toBe(false);
    expect(sample.fits(new Uint8Array(24), -1)).toBe(false);
    expect(() => sample.read(new Uint8Array(23), 4)).toThrow(RangeError);
    expect(() => sample.set(new Uint8Array(8), 'address', 1n)).toThrow(RangeError);
  });

  test('refuses a table that contradicts itself', () => {
    expect(() =>
      record('Overlap', 'test', 8, [
        { name: 'a', offset: 0, width: 4 },
        { name: 'b', offset: 2, width: 4 },
      ]),
    ).toThrow(/before the end/);
    expect(() => record('Outside', 'test', 4, [{ name: 'a', offset: 2, width: 4 }])).toThrow(/record size/);
    expect(() =>
      record('Twice', 'test', 8, [
        { name: 'a', offset: 0, width: 4 },
        { name: 'a', offset: 4, width: 4 },
      ]),
    ).toThrow(/twice/);
  });

  test('dump names every field', () => {
    expect(sample.dump(sample.write({ kind: 1, tag: Uint8Array.of(0xab) }))).toBe(
      '+0 kind 0x1\n+2 flags 0x0\n+4 length 0x0\n+8 address 0x0\n+16 tag ab00000000',
    );
  });
});

test('join, lowHalf, highHalf, exact', () => {
  expect(join(0xffffffff, 0x80000000)).toBe(0x8000_0000_ffff_ffffn);
  expect([lowHalf(0x8000_0000_ffff_ffffn), highHalf(0x8000_0000_ffff_ffffn)]).toEqual([
    0xffffffff, 0x80000000,
  ]);
  expect(exact(0xffffffff, 0x1fffff)).toBe(Number.MAX_SAFE_INTEGER);
  expect(exact(0, 0x200000)).toBeUndefined();
});
