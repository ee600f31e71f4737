/** The guest's page tables from ground truth: long mode, 4 levels (APM vol. 2, 5.3). No side effects on the guest. */
import type { Machine } from '../../machine/machine.ts';
import { CPU } from '../../x86/layout.ts';
import { EFER } from '../../x86/registers.ts';

const PRESENT = 1;
const LARGE = 0x80;
const ENTRIES = 512;
const PAGE_BYTES = 4096;
/** Address bits from here on only say which alias a mapping is of (vTOM, C-bit, shared bit). */
const ALIAS = 2 ** 40;
/** Address bits 51 to 32 of an entry lie in its high half. */
const HIGH_FRAME = 0xfffff;

export interface Mapping {
  readonly va: bigint;
  /** The first page that it maps of those that were asked for, and how many. */
  readonly gpa: number;
  readonly pages: number;
}

export class PageTables {
  /** End of the guest's memory. */
  readonly end: number;
  readonly #machine: Machine;
  readonly #context: number;
  /** `context`: of the guest, which may not be the one that runs. */
  constructor(machine: Machine, context: number) {
    this.#machine = machine;
    this.#context = context;
    this.end = Math.max(
      ...machine.config.directives.map((row) => (row.kind === 'region' ? row.gpa + row.length : 0)),
    );
  }

  /** An address without the bits that only say of which alias it is. */
  plain(gpa: number): number {
    return gpa % ALIAS;
  }

  /** Guest-physical address without alias bits of a linear address that long mode maps. */
  translate(vp: number, va: bigint): number | undefined {
    const { engine, truth } = this.#machine;
    const cpu = this.cpu(vp);
    if ((engine.view.getUint32(cpu + CPU.efer, true) & EFER.LMA) === 0) return undefined;
    const page = Number((va >> 12n) & 0xfffffffffn);
    const offset = Number(va & 0xfffn);
    let table = this.#root(vp);
    for (let level = 3; level >= 0; level--) {
      const host = truth.host(table);
      if (host === undefined) return undefined;
      const size = ENTRIES ** level;
      const at = (host >>> 2) + (Math.floor(page / size) % ENTRIES) * 2;
      const low = engine.u32[at] as number;
      if ((low & PRESENT) === 0) return undefined;
      table = this.#address(low, engine.u32[at + 1] as number);
      if (level === 0 || (low & LARGE) !== 0) {
        const bytes = size * PAGE_BYTES;
        return table - (table % bytes) + (page % size) * PAGE_BYTES + offset;
      }
    }
    return undefined;
  }

  /** Where any virtual processor maps one of `pages` pages from `gpa` on, in either alias. */
  mapped(gpa: number, pages: number): readonly Mapping[] {
    const { engine, truth, config } = this.#machine;
    const found: Mapping[] = [];
    const walk = (table: number, level: number, base: bigint): void => {
      const host = truth.host(table);
      if (host === undefined) return;
      const size = ENTRIES ** level * PAGE_BYTES;
      for (let index = 0; index < ENTRIES; index++) {
        const at = (host >>> 2) + index * 2;
        const low = engine.u32[at] as number;
        if ((low & PRESENT) === 0) continue;
        const address = this.#address(low, engine.u32[at + 1] as number);
        const leaf = level === 0 || (low & LARGE) !== 0;
        const first = leaf ? address - (address % size) : 0;
        if (leaf && (first >= gpa + pages * PAGE_BYTES || gpa >= first + size)) continue;
        let va = base + BigInt(index) * BigInt(size);
        if (level === 3 && index >= ENTRIES / 2) va |= 0xffff000000000000n;
        if (leaf) {
          const from = Math.max(first, gpa);
          const to = Math.min(first + size, gpa + pages * PAGE_BYTES);
          found.push({ va, gpa: from, pages: (to - from) / PAGE_BYTES });
        } else walk(address, level - 1, va);
      }
    };
    const roots = new Set(Array.from({ length: config.vcpus }, (_, vp) => this.#root(vp)));
    for (const root of roots) walk(root, 3, 0n);
    return found;
  }

  /** The CPU structure of the guest on `vp`. */
  cpu(vp: number): number {
    return this.#machine.engine.cpu(vp, this.#context);
  }

  #root(vp: number): number {
    const { view } = this.#machine.engine;
    const cpu = this.cpu(vp);
    return this.#address(view.getUint32(cpu + CPU.cr3, true), view.getUint32(cpu + CPU.cr3 + 4, true));
  }

  #address(low: number, high: number): number {
    return ((high & HIGH_FRAME) * 2 ** 32 + ((low & ~0xfff) >>> 0)) % ALIAS;
  }
}
