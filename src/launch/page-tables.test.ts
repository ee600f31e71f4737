import { describe, expect, test } from 'vitest';
import { BOOT_CS, BOOT_DS, gdt, identityPageTables } from './page-tables.ts';

const GIB = 2 ** 30;
const ADDRESS = 0x000f_ffff_ffff_f000n;

/** Walks the tables as a processor does; `undefined`: not mapped. */
function translate(tables: Uint8Array, at: number, address: number, encryption: bigint): number | undefined {
  const view = new DataView(tables.buffer);
  let table = at;
  for (const shift of [39, 30, 21]) {
    const index = Math.floor(address / 2 ** shift) % 512;
    const entry = view.getBigUint64(table - at + index * 8, true);
    if ((entry & 3n) !== 3n) return undefined;
    if ((entry & encryption) !== encryption) throw new Error(`entry at level ${shift} lacks the C-bit`);
    const next = Number(entry & ADDRESS & ~encryption);
    if (shift === 21) {
      // Present, writable, accessed, dirty, large; nothing else (no NX, no user).
      if ((entry & ~ADDRESS) !== 0xe3n && encryption === 0n) throw new Error(`leaf is ${entry}`);
      return next + (address % 2 ** 21);
    }
    table = next;
  }
  return undefined;
}

describe('identityPageTables', () => {
  test.each([0, 0x2000, 0x1000200, 0x1fffff, 0x7fffffff, 0xfee00000, 4 * GIB - 1])(
    'maps %d to itself',
    (address) => {
      expect(translate(identityPageTables(0x4000, 4 * GIB), 0x4000, address, 0n)).toBe(address);
    },
  );

  test('maps nothing above its length, rounded up to a GiB', () => {
    const tables = identityPageTables(0x4000, GIB + 1);
    expect(translate(tables, 0x4000, 2 * GIB - 1, 0n)).toBe(2 * GIB - 1);
    expect(translate(tables, 0x4000, 2 * GIB, 0n)).toBeUndefined();
    expect(tables).toHaveLength(4 * 4096);
  });

  test('has the C-bit in every entry', () => {
    const c = 1n << 51n;
    expect(translate(identityPageTables(0x4000, 4 * GIB, c), 0x4000, 0x1234567, c)).toBe(0x1234567);
  });

  test('takes whole pages only', () => {
    expect(() => identityPageTables(0x4010, GIB)).toThrow(RangeError);
    expect(() => identityPageTables(0x4000, 0)).toThrow(RangeError);
  });
});

test('gdt has 64-bit code and flat data at the selectors of the boot protocol', () => {
  const view = new DataView(gdt().buffer);
  expect([view.getBigUint64(0, true), view.getBigUint64(8, true)]).toEqual([0n, 0n]);
  expect(view.getBigUint64(BOOT_CS, true)).toBe(0x00af9b000000ffffn);
  expect(view.getBigUint64(BOOT_DS, true)).toBe(0x00cf93000000ffffn);
  const attributes = (selector: number): number => view.getUint16(selector + 5, true) & 0xf0ff;
  expect(attributes(BOOT_CS)).toBe(0xa09b);
  expect(attributes(BOOT_DS)).toBe(0xc093);
});
