/**
 * Model-specific registers that leave the processor and that no model owns. A guest probes many of them; what a register of an
 * idle feature holds is 0, and writing it changes nothing. Numbers outside the blocks that processors have do not exist.
 */

import type { Pair } from '../chipset/synic.ts';

interface Row {
  readonly name: string;
  readonly index: number;
  readonly value: Pair;
}

const ZERO: Pair = { lo: 0, hi: 0 };

const ROWS: readonly Row[] = [
  // Write-combining is supported, no fixed and no variable ranges (Intel SDM vol. 3, 12.11.1).
  { name: 'MTRRCAP', index: 0xfe, value: { lo: 0x400, hi: 0 } },
  // As hypervisors answer it: newer than any microcode that a guest would load.
  { name: 'PATCH_LEVEL', index: 0x8b, value: { lo: 0xffff_ffff, hi: 0xffff_ffff } },
  // Fast strings on, no branch trace, no PEBS (Intel SDM vol. 4, table 2-2). Without the first bit a guest takes ERMS for
  // absent, and code that takes FSRM to imply ERMS, as Linux 6.1's memmove, copies without end.
  { name: 'MISC_ENABLE', index: 0x1a0, value: { lo: 0x1801, hi: 0 } },
];

const rows = new Map(ROWS.map((row) => [row.index, row.value]));

/** Intel SDM vol. 4, table 2-2; AMD APM vol. 2, appendix A. */
const BLOCKS: readonly (readonly [first: number, last: number])[] = [
  [0, 0x1fff],
  [0xc000_0000, 0xc000_1fff],
  [0xc001_0000, 0xc001_1fff],
];

const exists = (index: number): boolean => BLOCKS.some(([first, last]) => index >= first && index <= last);

/** `undefined`: #GP. */
export function readModelMsr(index: number): Pair | undefined {
  return exists(index) ? (rows.get(index) ?? ZERO) : undefined;
}

/** False: #GP. */
export function writeModelMsr(index: number): boolean {
  return exists(index);
}
