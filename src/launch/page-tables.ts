/** What 64-bit entry needs in memory: identity page tables and a GDT. AMD APM vol. 2, 5.3 and 4.8. */
import { PAGE } from './directives.ts';
import { GIB, MIB } from './memory-map.ts';

const PRESENT = 1n;
const WRITABLE = 2n;
const ACCESSED = 0x20n;
const DIRTY = 0x40n;
const LARGE = 0x80n;
const ENTRIES = 512;

/**
 * Four-level tables that map the first `length` bytes one to one with 2 MiB pages: one PML4, one PDPT, and a page
 * directory for each GiB, in this order from `gpa` on. `encryption` is ORed into every entry (the C-bit of a CoCo
 * VM). Accessed and dirty bits are set, so that running on them writes nothing.
 */
export function identityPageTables(gpa: number, length: number, encryption = 0n): Uint8Array {
  const directories = Math.ceil(length / GIB);
  if (gpa % PAGE !== 0 || directories < 1 || directories > ENTRIES) {
    throw new RangeError(
      `page tables for ${length} bytes at ${gpa}: need a page boundary and 1 byte to 512 GiB`,
    );
  }
  const tables = new Uint8Array((2 + directories) * PAGE);
  const view = new DataView(tables.buffer);
  const table = PRESENT | WRITABLE | ACCESSED | encryption;
  const leaf = table | DIRTY | LARGE;
  view.setBigUint64(0, BigInt(gpa + PAGE) | table, true);
  for (let i = 0; i < directories; i++) {
    view.setBigUint64(PAGE + i * 8, BigInt(gpa + (2 + i) * PAGE) | table, true);
    for (let j = 0; j < ENTRIES; j++) {
      const page = BigInt(i * GIB + j * 2 * MIB);
      view.setBigUint64((2 + i) * PAGE + j * 8, page | leaf, true);
    }
  }
  return tables;
}

/** Selectors that the Linux boot protocol asks for: __BOOT_CS and __BOOT_DS. */
export const BOOT_CS = 0x10;
export const BOOT_DS = 0x18;
export const GDT_LIMIT = 4 * 8 - 1;

/** Null, unused, 64-bit code, flat data. */
export function gdt(): Uint8Array {
  const table = new Uint8Array(GDT_LIMIT + 1);
  const view = new DataView(table.buffer);
  view.setBigUint64(BOOT_CS, 0x00af_9b00_0000_ffffn, true);
  view.setBigUint64(BOOT_DS, 0x00cf_9300_0000_ffffn, true);
  return table;
}
