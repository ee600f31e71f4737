/**
 * The reverse map table: what RMPUPDATE, PSMASH, PVALIDATE, RMPADJUST and RMPQUERY do to it (AMD APM vol. 3; vol. 2,
 * 15.36). The checks of each access are in `second-stage.ts`, on the same entries.
 */
import { RMP_STATUS, type RmpUpdate } from '../../seats/snp.ts';
import { ALL_PERMISSIONS, RMP } from './layout.ts';

const BLOCK_PAGES = 512;
const PAGE = 4096;

export class ReverseMap {
  readonly pages: number;
  readonly #u32: Uint32Array;
  readonly #u8: Uint8Array;
  readonly #f64: DataView;
  readonly #base: number;
  /** Pages whose entry a processor has locked: VMSAs that run. */
  readonly inUse = new Set<number>();

  constructor(memory: ArrayBuffer, base: number, pages: number) {
    this.#u32 = new Uint32Array(memory);
    this.#u8 = new Uint8Array(memory);
    this.#f64 = new DataView(memory);
    this.#base = base;
    this.pages = pages;
  }

  #at(page: number): number {
    return this.#base + page * RMP.size;
  }
  /** The entry's own bits, whether or not another one speaks for the page. */
  own(page: number): number {
    return this.#u32[this.#at(page) >>> 2] as number;
  }
  #set(page: number, bits: number, gpa: number, permissions: number): void {
    const at = this.#at(page);
    this.#u32[at >>> 2] = bits;
    this.#u32[(at + RMP.permissions) >>> 2] = permissions;
    this.#f64.setUint32(at + RMP.gpa, gpa >>> 0, true);
    this.#f64.setUint32(at + RMP.gpa + 4, Math.floor(gpa / 0x100000000), true);
  }
  /** The page whose entry speaks for `page`: the first of its block when that is a 2 MiB entry. */
  speaker(page: number): number {
    const first = page - (page % BLOCK_PAGES);
    const bits = this.own(first);
    return (bits & (RMP.assigned | RMP.large)) === (RMP.assigned | RMP.large) ? first : page;
  }
  bits(page: number): number {
    return this.own(this.speaker(page));
  }
  /** Guest-physical address that the page has by its entry. */
  gpa(page: number): number {
    const speaker = this.speaker(page);
    const at = this.#at(speaker) + RMP.gpa;
    const base = this.#f64.getUint32(at, true) + this.#f64.getUint32(at + 4, true) * 0x100000000;
    return base + (page - speaker) * PAGE;
  }
  asid(page: number): number {
    return this.bits(page) >>> RMP.asidShift;
  }
  permissions(page: number, vmpl: number): number {
    return this.#u8[this.#at(this.speaker(page)) + RMP.permissions + vmpl] as number;
  }
  setPermissions(page: number, vmpl: number, permissions: number): void {
    this.#u8[this.#at(this.speaker(page)) + RMP.permissions + vmpl] = permissions;
  }
  setBits(page: number, set: number, clear: number): void {
    const at = this.#at(this.speaker(page)) >>> 2;
    this.#u32[at] = ((this.#u32[at] as number) & ~clear) | set;
  }
  isAssigned(page: number): boolean {
    return (this.bits(page) & RMP.assigned) !== 0;
  }

  /** RMPUPDATE. `changed` is called with the pages whose translations are to go. */
  update(spa: number, entry: RmpUpdate, changed: (page: number, count: number) => void): number {
    const bytes = entry.large ? BLOCK_PAGES * PAGE : PAGE;
    const page = spa / PAGE;
    const count = entry.large ? BLOCK_PAGES : 1;
    const isAligned = Number.isInteger(spa / bytes) && Number.isInteger(entry.gpa / bytes) && entry.gpa >= 0;
    if (!isAligned || spa < 0 || page + count > this.pages) return RMP_STATUS.failInput;
    if (entry.asid < 0 || entry.asid > 0xffff || (!entry.assigned && entry.asid !== 0))
      return RMP_STATUS.failInput;
    // Firmware pages: assigned, ASID 0, immutable. A guest's own have an ASID.
    if (entry.assigned && entry.asid === 0 && !entry.immutable) return RMP_STATUS.failInput;
    for (let k = 0; k < count; k++) {
      if (this.bits(page + k) & RMP.immutable) return RMP_STATUS.failPermission;
      if (this.inUse.has(page + k)) return RMP_STATUS.failInUse;
    }
    const speaker = this.speaker(page);
    const isLarge = (this.own(speaker) & (RMP.assigned | RMP.large)) === (RMP.assigned | RMP.large);
    // A part of a 2 MiB entry must be smashed first; a 2 MiB entry needs its 4 KiB entries gone.
    if (isLarge && !entry.large) return RMP_STATUS.failOverlap;
    if (!isLarge && entry.large)
      for (let k = 0; k < count; k++) if (this.own(page + k) & RMP.assigned) return RMP_STATUS.failOverlap;
    const old = this.own(page);
    const kept = RMP.assigned | RMP.large | (0xffff << RMP.asidShift);
    const bits =
      (entry.assigned ? RMP.assigned : 0) |
      (entry.large && entry.assigned ? RMP.large : 0) |
      (entry.immutable ? RMP.immutable : 0) |
      (entry.asid << RMP.asidShift);
    const same = ((old ^ bits) & kept) === 0 && (!entry.assigned || this.gpa(page) === entry.gpa);
    if (same) this.#u32[this.#at(page) >>> 2] = (old & ~RMP.immutable) | (bits & RMP.immutable);
    else this.#set(page, bits, entry.gpa, entry.assigned ? ALL_PERMISSIONS : 0);
    changed(page, count);
    return RMP_STATUS.success;
  }

  /** PSMASH: one 2 MiB entry becomes 512 of 4 KiB that say the same. */
  smash(spa: number): number {
    const page = spa / PAGE;
    if (!Number.isInteger(page / BLOCK_PAGES) || page < 0 || page + BLOCK_PAGES > this.pages)
      return RMP_STATUS.failInput;
    const bits = this.own(page);
    if ((bits & (RMP.assigned | RMP.large)) !== (RMP.assigned | RMP.large)) return RMP_STATUS.failInput;
    if (bits & RMP.immutable) return RMP_STATUS.failPermission;
    for (let k = 0; k < BLOCK_PAGES; k++) if (this.inUse.has(page + k)) return RMP_STATUS.failInUse;
    const gpa = this.gpa(page);
    const permissions = this.#u32[(this.#at(page) + RMP.permissions) >>> 2] as number;
    for (let k = 0; k < BLOCK_PAGES; k++) this.#set(page + k, bits & ~RMP.large, gpa + k * PAGE, permissions);
    return RMP_STATUS.success;
  }

  /**
   * What SNP_PAGE_UNSMASH of the firmware does (56860, 8.15): 512 entries that say the same of consecutive addresses become
   * one. False when they do not.
   */
  unsmash(spa: number): boolean {
    const first = spa / PAGE;
    const bits = this.own(first);
    const gpa = this.gpa(first);
    const permissions = this.#u32[(this.#at(first) + RMP.permissions) >>> 2];
    const needed = RMP.assigned | RMP.validated;
    if (
      (bits & needed) !== needed ||
      bits & (RMP.large | RMP.vmsa | RMP.immutable) ||
      gpa % (BLOCK_PAGES * PAGE) !== 0
    )
      return false;
    for (let k = 1; k < BLOCK_PAGES; k++) {
      const at = this.#at(first + k);
      if (this.own(first + k) !== bits || this.gpa(first + k) !== gpa + k * PAGE) return false;
      if (this.#u32[(at + RMP.permissions) >>> 2] !== permissions) return false;
    }
    this.setBits(first, RMP.large, 0);
    return true;
  }

  /** Every entry that was ever used, for a snapshot: [page, bits, permissions, gpa]. */
  save(): Float64Array {
    const list: number[] = [];
    for (let page = 0; page < this.pages; page++) {
      const at = this.#at(page);
      const bits = this.#u32[at >>> 2] as number;
      const permissions = this.#u32[(at + RMP.permissions) >>> 2] as number;
      const low = this.#f64.getUint32(at + RMP.gpa, true);
      const high = this.#f64.getUint32(at + RMP.gpa + 4, true);
      if (bits !== 0 || permissions !== 0 || low !== 0 || high !== 0)
        list.push(page, bits, permissions, low + high * 0x100000000);
    }
    return Float64Array.from(list);
  }
  load(list: Float64Array): void {
    this.#u8.fill(0, this.#base, this.#base + this.pages * RMP.size);
    for (let k = 0; k < list.length; k += 4)
      this.#set(list[k] as number, list[k + 1] as number, list[k + 3] as number, list[k + 2] as number);
  }
}
