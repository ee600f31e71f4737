import { expect, test } from 'vitest';
import { readModelMsr, writeModelMsr } from './msr.ts';

const MISC_ENABLE = 0x1a0;

test('MISC_ENABLE: fast strings are on, no branch trace, no PEBS', () => {
  expect(readModelMsr(MISC_ENABLE)).toEqual({ lo: (1 << 0) | (1 << 11) | (1 << 12), hi: 0 });
  expect(writeModelMsr(MISC_ENABLE)).toBe(true);
});

test('an idle register reads 0 and takes what is written; one outside the blocks of processors does not exist', () => {
  expect(readModelMsr(0x1b0)).toEqual({ lo: 0, hi: 0 });
  expect(writeModelMsr(0x1b0)).toBe(true);
  for (const index of [0x2000, 0x4000_0000, 0xbfff_ffff, 0xc000_2000, 0xffff_ffff]) {
    expect(readModelMsr(index)).toBeUndefined();
    expect(writeModelMsr(index)).toBe(false);
  }
});
