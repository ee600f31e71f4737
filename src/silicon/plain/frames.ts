/** The frame tables of the second stage, from the outside: which addresses are memory, and copies of what lies there. */
import type { MemoryPlan } from '../../x86/memory-plan.ts';
import { BLOCK, PAGE_ENTRY, STAGE } from './second-stage.ts';

const BLOCK_BYTES = 2 << 20;
const PAGE_BYTES = 4096;

export interface MemoryRegion {
  readonly gpa: number;
  readonly length: number;
  readonly readOnly?: boolean;
}

/** Pages of the host that may show over guest memory; they have a block of their own behind all addresses of the guest. */
const BLOCK_PAGES = BLOCK_BYTES / PAGE_BYTES;
export const HIDDEN_PAGES = BLOCK_PAGES;

/** Bytes of the stage area for addresses below `top` and `frameBytes` of frames. */
export function stageBytes(top: number, frameBytes: number): number {
  const blocks = Math.ceil(top / BLOCK_BYTES) + 1;
  // Every block may come to be split.
  return STAGE.header + blocks * 8 + (frameBytes / BLOCK_BYTES) * 4 + blocks * 2048;
}

/** Bytes of frames that regions need: whole blocks, and the one of the hidden pages. */
export function frameBytesFor(regions: readonly MemoryRegion[]): number {
  const blocks = new Set<number>();
  for (const { gpa, length } of regions) {
    for (let at = Math.floor(gpa / BLOCK_BYTES); at * BLOCK_BYTES < gpa + length; at++) blocks.add(at);
  }
  return (blocks.size + 1) * BLOCK_BYTES;
}

/** What the frame tables look like beyond the regions that they were made for: plain data. */
export interface FrameState {
  /** Hidden pages that show, in the order in which they were laid over each other, and where (page number). */
  readonly shown: readonly { readonly slot: number; readonly page: number }[];
  /** Blocks that have page entries. */
  readonly split: readonly number[];
}

export class Frames {
  readonly #u8: Uint8Array;
  readonly #u32: Uint32Array;
  readonly #plan: MemoryPlan;
  readonly #blocks: number;
  readonly #freeList: number;
  /** Of guest addresses; the block of the hidden pages comes after them. */
  readonly #blockCount: number;
  #splitNext: number;
  #shown: { readonly slot: number; readonly page: number }[] = [];

  /** `order`: permutation of the frame blocks, for runs that must not depend on where frames lie. */
  constructor(
    memory: ArrayBuffer,
    plan: MemoryPlan,
    regions: readonly MemoryRegion[],
    order?: (count: number) => Uint32Array,
  ) {
    this.#u8 = new Uint8Array(memory);
    this.#u32 = new Uint32Array(memory);
    this.#plan = plan;
    const top = Math.max(0, ...regions.map(({ gpa, length }) => gpa + length));
    this.#blockCount = Math.ceil(top / BLOCK_BYTES);
    const stage = plan.stage;
    this.#blocks = stage + STAGE.header;
    this.#freeList = this.#blocks + (this.#blockCount + 1) * 8;
    const frameBlocks = (plan.framesEnd - plan.frames) / BLOCK_BYTES;
    this.#splitNext = this.#freeList + frameBlocks * 4;
    this.#set(stage + STAGE.freeList, this.#freeList);
    this.#set(stage + STAGE.blocks, this.#blocks);
    this.#set(stage + STAGE.blockCount, this.#blockCount);
    const permutation = order?.(frameBlocks);
    for (let k = 0; k < frameBlocks; k++) {
      this.#set(this.#freeList + k * 4, plan.frames + (permutation?.[k] ?? k) * BLOCK_BYTES);
    }
    for (const region of regions) this.#addRegion(region);
    this.#set(this.#blocks + this.#blockCount * 8, BLOCK.untouched);
    this.split(this.#blockCount);
  }

  /** Address of the entry of page `page`, whose block is split for it. */
  #entryOf(page: number): number {
    return this.split(Math.floor(page / BLOCK_PAGES)) + (page % BLOCK_PAGES) * 4;
  }

  #hidden(slot: number): number {
    return this.#blockCount * BLOCK_PAGES + slot;
  }

  /** Exchanges the frames of two pages, and what a guest may do with them. */
  #exchange(a: number, b: number): void {
    const [one, other] = [this.#entryOf(a), this.#entryOf(b)];
    const kept = this.#get(one);
    this.#set(one, this.#get(other));
    this.#set(other, kept);
  }

  /**
   * Shows hidden page `slot` at `gpa` instead of what is there, or takes it away. While it shows, the frame that it covers has
   * the hidden page's number. False: there is no memory at `gpa`, and nothing has changed. Translations are the caller's.
   */
  overlay(slot: number, gpa: number | undefined): boolean {
    if (gpa !== undefined && (gpa % PAGE_BYTES !== 0 || !this.isMemory(gpa, PAGE_BYTES))) return false;
    const at = this.#shown.findIndex((other) => other.slot === slot);
    const old = this.#shown[at];
    if (old !== undefined) {
      // The next one above it, or the guest's own address, has its frame; it has what it covers.
      const above = this.#shown.slice(at + 1).find(({ page }) => page === old.page);
      this.#exchange(this.#hidden(slot), above === undefined ? old.page : this.#hidden(above.slot));
      this.#shown.splice(at, 1);
    }
    if (gpa === undefined) return true;
    const page = gpa / PAGE_BYTES;
    this.#exchange(this.#hidden(slot), page);
    this.#shown.push({ slot, page });
    return true;
  }

  save(): FrameState {
    const split: number[] = [];
    for (let block = 0; block < this.#blockCount; block++)
      if ((this.#get(this.#blocks + block * 8) & 7) === BLOCK.split) split.push(block);
    return { shown: this.#shown, split };
  }
  /** Before translations are filled; the contents of pages go by their numbers, shown or not. */
  load({ shown, split }: FrameState): void {
    this.#shown = [...shown];
    for (const block of split) this.split(block);
  }

  #get(at: number): number {
    return this.#u32[at >>> 2] as number;
  }
  #set(at: number, value: number): void {
    this.#u32[at >>> 2] = value;
  }

  #addRegion({ gpa, length, readOnly }: MemoryRegion): void {
    let at = gpa;
    const end = gpa + length;
    while (at < end) {
      const block = Math.floor(at / BLOCK_BYTES);
      const slot = this.#blocks + block * 8;
      const whole = at % BLOCK_BYTES === 0 && end - at >= BLOCK_BYTES && !readOnly;
      if (whole && this.#get(slot) === BLOCK.none) {
        this.#set(slot, BLOCK.untouched);
        at += BLOCK_BYTES;
        continue;
      }
      const stop = Math.min(end, (block + 1) * BLOCK_BYTES);
      const table = this.split(block);
      for (; at < stop; at += PAGE_BYTES) {
        const entry = table + ((at / PAGE_BYTES) & 511) * 4;
        this.#set(entry, this.#get(entry) | PAGE_ENTRY.present | (readOnly ? PAGE_ENTRY.readOnly : 0));
      }
    }
  }

  #takeBlock(): number {
    const stage = this.#plan.stage;
    const next = this.#get(stage + STAGE.nextFree);
    this.#set(stage + STAGE.nextFree, next + 1);
    return this.#get(this.#freeList + next * 4);
  }

  /** Splits a block into page entries; returns the address of its table. */
  split(block: number): number {
    const slot = this.#blocks + block * 8;
    const word = this.#get(slot);
    if ((word & 7) === BLOCK.split) return this.#get(slot + 4);
    const table = this.#splitNext;
    this.#splitNext += 2048;
    if (this.#splitNext > this.#plan.stage + this.#plan.stageBytes) throw new Error('stage area is full');
    const kind = word & 7;
    const host = kind === BLOCK.memory ? word & -BLOCK_BYTES : this.#takeBlock();
    const present = kind === BLOCK.none ? 0 : PAGE_ENTRY.present;
    for (let page = 0; page < 512; page++)
      this.#set(table + page * 4, ((host + page * PAGE_BYTES) | present) >>> 0);
    this.#set(slot + 4, table);
    this.#set(slot, BLOCK.split);
    return table;
  }

  /** Host address of the byte at `gpa`, taking a frame if need be; undefined where there is no memory. */
  host(gpa: number): number | undefined {
    const block = Math.floor(gpa / BLOCK_BYTES);
    if (gpa < 0 || block >= this.#blockCount) return undefined;
    const slot = this.#blocks + block * 8;
    let word = this.#get(slot);
    switch (word & 7) {
      case BLOCK.none:
        return undefined;
      case BLOCK.split: {
        const entry = this.#get(this.#get(slot + 4) + (Math.floor(gpa / PAGE_BYTES) & 511) * 4);
        return entry & PAGE_ENTRY.present ? ((entry & -PAGE_BYTES) >>> 0) + (gpa % PAGE_BYTES) : undefined;
      }
      case BLOCK.untouched:
        word = (this.#takeBlock() | BLOCK.memory) >>> 0;
        this.#set(slot, word);
    }
    return ((word & -BLOCK_BYTES) >>> 0) + (gpa % BLOCK_BYTES);
  }

  /** Whether the block or page at `gpa` is memory that nobody touched yet: it reads as zero. */
  untouched(gpa: number): boolean {
    const block = Math.floor(gpa / BLOCK_BYTES);
    return block < this.#blockCount && (this.#get(this.#blocks + block * 8) & 7) === BLOCK.untouched;
  }

  /** Guest-physical address of a host address inside a frame; -1 for any other. Valid until frames are taken. */
  reverse(): (host: number) => number {
    const byPage = new Map<number, number>();
    this.eachTouchedPage((gpa, host) => byPage.set(host / PAGE_BYTES, gpa));
    return (host) => {
      const gpa = byPage.get(Math.floor(host / PAGE_BYTES));
      return gpa === undefined ? -1 : gpa + (host % PAGE_BYTES);
    };
  }

  /** Host address of page `page`, hidden pages included. */
  page(page: number): number | undefined {
    if (page < this.#hidden(0)) return this.host(page * PAGE_BYTES);
    return page < this.#hidden(HIDDEN_PAGES)
      ? (this.#get(this.#entryOf(page)) & -PAGE_BYTES) >>> 0
      : undefined;
  }

  /** Calls `visit` for every page of memory that has a frame, in ascending order of address, the hidden ones last. */
  eachTouchedPage(visit: (gpa: number, host: number) => void): void {
    for (let block = 0; block <= this.#blockCount; block++) {
      const slot = this.#blocks + block * 8;
      const word = this.#get(slot);
      if ((word & 7) === BLOCK.memory) {
        const base = (word & -BLOCK_BYTES) >>> 0;
        for (let page = 0; page < 512; page++)
          visit(block * BLOCK_BYTES + page * PAGE_BYTES, base + page * PAGE_BYTES);
      } else if ((word & 7) === BLOCK.split) {
        const table = this.#get(slot + 4);
        for (let page = 0; page < 512; page++) {
          const entry = this.#get(table + page * 4);
          if (entry & PAGE_ENTRY.present)
            visit(block * BLOCK_BYTES + page * PAGE_BYTES, (entry & -PAGE_BYTES) >>> 0);
        }
      }
    }
  }

  /** Calls `visit` for each piece of [gpa, gpa + length) that is contiguous; false when part of it is not memory. */
  pieces(gpa: number, length: number, visit: (host: number, offset: number, bytes: number) => void): boolean {
    for (let at = 0; at < length;) {
      const bytes = Math.min(length - at, PAGE_BYTES - ((gpa + at) % PAGE_BYTES));
      const host = this.host(gpa + at);
      if (host === undefined) return false;
      visit(host, at, bytes);
      at += bytes;
    }
    return true;
  }

  isMemory(gpa: number, length: number): boolean {
    for (let at = gpa; at < gpa + length; at = (Math.floor(at / PAGE_BYTES) + 1) * PAGE_BYTES) {
      const block = Math.floor(at / BLOCK_BYTES);
      if (at < 0 || block >= this.#blockCount) return false;
      const word = this.#get(this.#blocks + block * 8);
      if ((word & 7) === BLOCK.none) return false;
      if ((word & 7) === BLOCK.split) {
        const entry = this.#get(
          this.#get(this.#blocks + block * 8 + 4) + (Math.floor(at / PAGE_BYTES) & 511) * 4,
        );
        if (!(entry & PAGE_ENTRY.present)) return false;
      }
    }
    return true;
  }

  /** A copy. */
  read(gpa: number, length: number): Uint8Array | undefined {
    if (length > 0 && !this.isMemory(gpa, length)) return undefined;
    const bytes = new Uint8Array(length);
    this.pieces(gpa, length, (host, offset, count) =>
      bytes.set(this.#u8.subarray(host, host + count), offset),
    );
    return bytes;
  }

  /** `changed` is called for each piece before it is written, so that code decoded from it is dropped. */
  write(gpa: number, bytes: Uint8Array, changed: (host: number, length: number) => void): boolean {
    if (!this.isMemory(gpa, bytes.length)) return false;
    return this.pieces(gpa, bytes.length, (host, offset, count) => {
      changed(host, count);
      this.#u8.set(bytes.subarray(offset, offset + count), host);
    });
  }
}
