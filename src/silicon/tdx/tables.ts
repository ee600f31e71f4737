/**
 * The TD's translation tables and the state of system pages, in linear memory behind the engine's tables, where the
 * second stage reads them without leaving WebAssembly.
 *
 * - Secure EPT: one entry for each 2 MiB of guest-physical addresses below the shared bit, which is a leaf or says that
 *   512 entries of 4 KiB are in force. An entry is two words: host address of the frame and state; then one byte of
 *   attributes for each L2 VM (byte 0 unused).
 * - Shared EPT: one word for each 4 KiB.
 * - PAMT: one byte for each system page of 4 KiB.
 *
 * System-physical addresses count from 0 and do not depend on where frames lie in linear memory.
 */

export const PAGE = 4096;
export const BLOCK = 2 << 20;
const PAGES_IN_BLOCK = 512;

/** Stage area: these words, then the tables. */
export const STAGE = {
  /** u32 each: pages of guest-physical addresses that the tables cover; the tables. */
  pages: 0,
  blocks: 4,
  entries: 8,
  shared: 12,
  pamt: 16,
  /** u64: the shared bit. */
  sharedBit: 24,
  header: 64,
} as const;

/** State of a secure EPT entry, in the low bits of its first word. */
export const SEPT = {
  free: 0,
  /** Of a 2 MiB entry: a page of 4 KiB entries is linked. */
  split: 1,
  mapped: 2,
  pending: 3,
  blocked: 4,
  pendingBlocked: 5,
  mask: 7,
} as const;

/** An L2 alias: PAGE_ATTRIBUTE bits 0-6, and bit 7 for VALID. */
export const ALIAS_VALID = 0x80;

export const SHARED = {
  present: 1,
  writable: 2,
  /** No #VE: the host wants to hear of a violation. */
  suppressVe: 4,
} as const;

/** PAMT page types and flags. */
export const PAMT = {
  /** The host's. */
  none: 0,
  /** A TD's private page. */
  private: 1,
  tdr: 2,
  tdcx: 3,
  tdvpr: 4,
  sept: 5,
  typeMask: 0xf,
  /** Private pages: part of a 2 MiB leaf. */
  large: 0x10,
  /** It may hold something else than zeros. */
  used: 0x40,
  /** The host wrote to it while it was a TD's: the next access of the TD is a machine check. */
  poisoned: 0x80,
} as const;

export interface TablePlan {
  readonly gpaPages: number;
  readonly frameBytes: number;
  readonly stageBytes: number;
}

/** Room for guest-physical addresses below `top` and so many bytes of system memory. */
export function planTables(top: number, frameBytes: number): TablePlan {
  const gpaPages = Math.ceil(top / BLOCK) * PAGES_IN_BLOCK;
  const blocks = gpaPages / PAGES_IN_BLOCK;
  return {
    gpaPages,
    frameBytes,
    stageBytes: STAGE.header + blocks * 8 + gpaPages * 8 + gpaPages * 4 + frameBytes / PAGE,
  };
}

/** An entry of the secure EPT as it is read out. `level` 0: 4 KiB, 1: 2 MiB. */
export interface SeptEntry {
  readonly level: 0 | 1;
  readonly state: number;
  /** System-physical address, where there is a page. */
  readonly spa: number;
}

export class Tables {
  readonly plan: TablePlan;
  readonly #u8: Uint8Array;
  readonly #u32: Uint32Array;
  readonly #stage: number;
  readonly #frames: number;
  readonly #blocks: number;
  readonly #entries: number;
  readonly #shared: number;
  readonly #pamt: number;
  /** Host address of each 2 MiB of system memory, and the way back. */
  readonly #hostOfBlock: Uint32Array;
  readonly #blockOfHost: Uint32Array;

  constructor(
    memory: ArrayBuffer,
    at: { readonly stage: number; readonly frames: number },
    plan: TablePlan,
    sharedBit: bigint,
    order?: (count: number) => Uint32Array,
  ) {
    this.plan = plan;
    this.#u8 = new Uint8Array(memory);
    this.#u32 = new Uint32Array(memory);
    this.#stage = at.stage;
    this.#frames = at.frames;
    this.#blocks = at.stage + STAGE.header;
    this.#entries = this.#blocks + (plan.gpaPages / PAGES_IN_BLOCK) * 8;
    this.#shared = this.#entries + plan.gpaPages * 8;
    this.#pamt = this.#shared + plan.gpaPages * 4;
    const view = new DataView(memory);
    for (const [field, value] of [
      [STAGE.pages, plan.gpaPages],
      [STAGE.blocks, this.#blocks],
      [STAGE.entries, this.#entries],
      [STAGE.shared, this.#shared],
      [STAGE.pamt, this.#pamt],
    ] as const)
      view.setUint32(at.stage + field, value, true);
    view.setBigUint64(at.stage + STAGE.sharedBit, sharedBit, true);
    const count = plan.frameBytes / BLOCK;
    const permutation = order?.(count);
    this.#hostOfBlock = Uint32Array.from(
      { length: count },
      (_, k) => at.frames + (permutation?.[k] ?? k) * BLOCK,
    );
    this.#blockOfHost = new Uint32Array(count);
    for (const [k, host] of this.#hostOfBlock.entries()) this.#blockOfHost[(host - at.frames) / BLOCK] = k;
  }

  setSharedBit(bit: bigint): void {
    new DataView(this.#u8.buffer).setBigUint64(this.#stage + STAGE.sharedBit, bit, true);
  }

  // System memory.
  /** Host address of a system-physical address inside memory. */
  hostOf(spa: number): number {
    return (this.#hostOfBlock[Math.floor(spa / BLOCK)] as number) + (spa % BLOCK);
  }
  spaOf(host: number): number {
    const offset = host - this.#frames;
    return (this.#blockOfHost[Math.floor(offset / BLOCK)] as number) * BLOCK + (offset % BLOCK);
  }
  isSystem(spa: number, length = 1): boolean {
    return Number.isSafeInteger(spa) && spa >= 0 && spa + length <= this.plan.frameBytes;
  }
  /** The PAMT is indexed by where the frame lies. */
  #pamtAt(spa: number): number {
    return this.#pamt + (this.hostOf(spa) - this.#frames) / PAGE;
  }
  pamt(spa: number): number {
    return this.#u8[this.#pamtAt(spa)] as number;
  }
  setPamt(spa: number, value: number): void {
    this.#u8[this.#pamtAt(spa)] = value;
  }
  pageType(spa: number): number {
    return this.pamt(spa) & PAMT.typeMask;
  }
  /** New owner; what is known of the contents stays. */
  setPageType(spa: number, type: number): void {
    this.setPamt(spa, (this.pamt(spa) & PAMT.used) | type);
  }
  markUsed(spa: number, length = PAGE): void {
    for (let at = spa; at < spa + length; at += PAGE) this.setPamt(at, this.pamt(at) | PAMT.used);
  }
  /** Fills pages with zeros where they may hold something else. */
  clear(spa: number, length = PAGE): void {
    for (let at = spa; at < spa + length; at += PAGE) {
      if ((this.pamt(at) & PAMT.used) === 0) continue;
      const host = this.hostOf(at);
      this.#u8.fill(0, host, host + PAGE);
    }
  }
  /** Every system page that may hold something, ascending. */
  eachUsed(visit: (page: number, host: number) => void): void {
    for (let spa = 0; spa < this.plan.frameBytes; spa += PAGE)
      if (this.pamt(spa) & PAMT.used) visit(spa / PAGE, this.hostOf(spa));
  }

  // Secure EPT.
  covers(gpa: number): boolean {
    return Number.isSafeInteger(gpa) && gpa >= 0 && gpa < this.plan.gpaPages * PAGE;
  }
  #blockAt(gpa: number): number {
    return this.#blocks + Math.floor(gpa / BLOCK) * 8;
  }
  #entryAt(gpa: number): number {
    return this.#entries + Math.floor(gpa / PAGE) * 8;
  }
  /** Where the words of the entry lie that is in force for `gpa`. */
  #where(gpa: number): { at: number; level: 0 | 1 } {
    const block = this.#blockAt(gpa);
    return ((this.#u32[block >>> 2] as number) & SEPT.mask) === SEPT.split
      ? { at: this.#entryAt(gpa), level: 0 }
      : { at: block, level: 1 };
  }
  /** The entry that translates `gpa`: of 2 MiB, or of 4 KiB where such entries are in force. */
  entry(gpa: number): SeptEntry {
    if (!this.covers(gpa)) return { level: 1, state: SEPT.free, spa: 0 };
    const { at, level } = this.#where(gpa);
    const word = this.#u32[at >>> 2] as number;
    const state = word & SEPT.mask;
    return { level, state, spa: state === SEPT.free ? 0 : this.spaOf((word & -PAGE) >>> 0) };
  }
  /** State of the 2 MiB entry: free, split or a leaf. */
  blockState(gpa: number): number {
    return (this.#u32[this.#blockAt(gpa) >>> 2] as number) & SEPT.mask;
  }
  setEntry(gpa: number, level: 0 | 1, state: number, spa = 0): void {
    const at = level === 1 ? this.#blockAt(gpa) : this.#entryAt(gpa);
    this.#u32[at >>> 2] =
      state === SEPT.free || state === SEPT.split ? state : (this.hostOf(spa) | state) >>> 0;
  }
  setState(gpa: number, state: number): void {
    const { at } = this.#where(gpa);
    const word = this.#u32[at >>> 2] as number;
    this.#u32[at >>> 2] = ((word & ~SEPT.mask) | state) >>> 0;
  }
  /** Attributes of the alias in L2 VM 1-3. */
  alias(gpa: number, vm: number): number {
    return this.#u8[this.#where(gpa).at + 4 + vm] as number;
  }
  setAlias(gpa: number, vm: number, attributes: number): void {
    this.#u8[this.#where(gpa).at + 4 + vm] = attributes;
  }
  /** The four bytes at once, for splitting and joining. */
  aliases(gpa: number): number {
    return this.#u32[(this.#where(gpa).at + 4) >>> 2] as number;
  }
  setAliases(gpa: number, level: 0 | 1, word: number): void {
    const at = level === 1 ? this.#blockAt(gpa) : this.#entryAt(gpa);
    this.#u32[(at + 4) >>> 2] = word;
  }
  eachEntry(visit: (gpa: number, level: 0 | 1, entry: SeptEntry, aliases: number) => void): void {
    for (let gpa = 0; gpa < this.plan.gpaPages * PAGE; gpa += BLOCK) {
      const state = this.blockState(gpa);
      if (state === SEPT.free) continue;
      if (state !== SEPT.split) {
        visit(gpa, 1, this.entry(gpa), this.aliases(gpa));
        continue;
      }
      for (let page = gpa; page < gpa + BLOCK; page += PAGE) {
        const entry = this.entry(page);
        if (entry.state !== SEPT.free) visit(page, 0, entry, this.aliases(page));
      }
    }
  }

  eachSplit(visit: (gpa: number) => void): void {
    for (let gpa = 0; gpa < this.plan.gpaPages * PAGE; gpa += BLOCK)
      if (this.blockState(gpa) === SEPT.split) visit(gpa);
  }
  /** Nothing is mapped, and no page is anybody's. */
  reset(): void {
    this.#u8.fill(0, this.#blocks, this.#pamt + this.plan.frameBytes / PAGE);
  }

  // Shared EPT.
  sharedEntry(gpa: number): { readonly flags: number; readonly spa: number } {
    const word = this.#u32[(this.#shared + Math.floor(gpa / PAGE) * 4) >>> 2] as number;
    const flags = word & (PAGE - 1);
    return { flags, spa: flags & SHARED.present ? this.spaOf((word & -PAGE) >>> 0) : 0 };
  }
  setShared(gpa: number, flags: number, spa = 0): void {
    this.#u32[(this.#shared + Math.floor(gpa / PAGE) * 4) >>> 2] =
      flags & SHARED.present ? (this.hostOf(spa) | flags) >>> 0 : flags;
  }
}
