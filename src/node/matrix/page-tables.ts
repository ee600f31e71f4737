/** Present leaves of the guest's page tables, from ground truth: long mode, 4 levels (APM vol. 2, 5.3). */
import type { Machine } from '../../machine/machine.ts';
import { CPU } from '../../x86/layout.ts';
import { EFER } from '../../x86/registers.ts';

const PRESENT = 1n;
const LARGE = 0x80n;
const FRAME = 0x000ffffffffff000n;
const ENTRIES = 512;

/** End of the guest's memory: addresses above it differ from those below by alias bits only. */
export function memoryEnd(machine: Machine): number {
  return Math.max(
    ...machine.config.directives.map((row) => (row.kind === 'region' ? row.gpa + row.length : 0)),
  );
}

const maskOf = (machine: Machine): bigint => BigInt(2 ** Math.ceil(Math.log2(memoryEnd(machine)))) - 1n;

/** Guest-physical address without alias bits of a linear address, in long mode; no side effects on the guest. */
export function translate(machine: Machine, cpu: number, va: bigint): number | undefined {
  const { view } = machine.engine;
  if ((view.getUint32(cpu + CPU.efer, true) & EFER.LMA) === 0) return undefined;
  const addressMask = maskOf(machine);
  let table = view.getBigUint64(cpu + CPU.cr3, true) & FRAME & addressMask;
  for (let level = 3; level >= 0; level--) {
    const shift = BigInt(12 + 9 * level);
    const bytes = machine.truth.read(Number(table + ((va >> shift) & 0x1ffn) * 8n), 8);
    if (bytes === undefined) return undefined;
    const entry = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
    if ((entry & PRESENT) === 0n) return undefined;
    const size = 1n << shift;
    table = entry & FRAME & addressMask;
    if (level === 0 || (entry & LARGE) !== 0n) return Number((table & ~(size - 1n)) | (va & (size - 1n)));
  }
  return undefined;
}

export interface Mapping {
  readonly va: bigint;
  readonly gpa: number;
}

/**
 * Where any virtual processor maps one of `pages` pages from `gpa` on, in either alias: address bits above the guest's memory
 * (vTOM, C-bit, shared bit) do not count.
 */
export function mappedPages(machine: Machine, gpa: number, pages: number): Mapping[] {
  const { engine, silicon, truth } = machine;
  const top = Math.max(
    ...machine.config.directives.map((row) => (row.kind === 'region' ? row.gpa + row.length : 0)),
  );
  const addressMask = BigInt(2 ** Math.ceil(Math.log2(top))) - 1n;
  const found: Mapping[] = [];
  const seen = new Set<bigint>();
  const walk = (table: bigint, level: number, base: bigint): void => {
    // A page lies in one frame: no copy is needed to look at it.
    const host = truth.host(Number(table & addressMask));
    if (host === undefined) return;
    const shift = BigInt(12 + 9 * level);
    for (let index = 0; index < ENTRIES; index++) {
      const low = engine.u32[(host >>> 2) + index * 2] as number;
      if ((low & 1) === 0) continue;
      const entry = engine.view.getBigUint64(host + index * 8, true);
      let va = base + (BigInt(index) << shift);
      if (level === 3 && index >= ENTRIES / 2) va |= 0xffff000000000000n;
      if (level > 0 && (entry & LARGE) === 0n) {
        walk(entry & FRAME, level - 1, va);
        continue;
      }
      const size = 1n << shift;
      const first = Number(entry & FRAME & addressMask & ~(size - 1n));
      if ((entry & PRESENT) !== 0n && first < gpa + pages * 4096 && gpa < first + Number(size))
        found.push({ va, gpa: Math.max(first, gpa) });
    }
  };
  for (let vp = 0; vp < machine.config.vcpus; vp++) {
    const cpu = silicon.cpu(vp);
    const root = engine.view.getBigUint64(cpu + CPU.cr3, true) & FRAME;
    if (seen.has(root)) continue;
    seen.add(root);
    walk(root, 3, 0n);
  }
  return found;
}
