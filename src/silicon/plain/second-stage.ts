/**
 * The second stage of an ordinary VM, and the frames that all second stages share: guest-physical to system-physical to
 * frame.
 *
 * In `plain` guest-physical and system-physical addresses are the same. A table of u32 pairs in linear memory has one entry for
 * each 2 MiB block of system-physical addresses. Frames are taken on first touch, a whole block at a time, in the order of
 * a free list (which the seed may shuffle), so that a block stays contiguous until it is split into pages.
 */
import { CPU, ENGINE, SECOND } from '../../x86/layout.ts';
import { routine, type Routine } from '../../x86/runtime/library.ts';
import { i32 } from '../../x86/wasm/value.ts';

/** Layout of the stage area: these words, then the block table, the free list and the page tables of split blocks. */
export const STAGE = {
  /** u32: next index into the free list. */
  nextFree: 0,
  freeList: 4,
  blocks: 8,
  blockCount: 12,
  header: 64,
} as const;

/** Low bits of a block's first word; the upper bits are the host address of its frames, or of its page table. */
export const BLOCK = {
  /** Not memory: accesses leave for the host. */
  none: 0,
  /** Memory, no frames taken yet. */
  untouched: 1,
  /** Memory, all of it uniform. */
  memory: 2,
  /** Split: the second word is the address of 512 u32 page entries. */
  split: 3,
} as const;

/** Low bits of a page entry of a split block: the upper bits are the host address of its frame. */
export const PAGE_ENTRY = { present: 1, readOnly: 2 } as const;

export const secondStagePlain: Routine = routine('second_stage', ['i32', 'i64', 'i32'], ['i32'], (f) => {
  const cpu = f.p(0);
  const gpa = f.p(1);
  const stage = f.let(f.load('32', f.load('32', cpu, CPU.engine), ENGINE.stage));
  f.store('64', cpu, gpa, CPU.stageGpa);
  f.store('32', cpu, i32(0), CPU.stageFlags);
  const none = (): void => f.return(i32(0));
  f.if(gpa.shrU(21).geU(f.load('32u', stage, STAGE.blockCount, 'i64')), none);
  const slot = f.let(f.load('32', stage, STAGE.blocks).add(gpa.shrU(21).wrap().shl(3)));
  const entry = f.local('i32', f.load('32', slot));
  const kind = f.let(entry.get.and(7));
  f.if(kind.eqz(), none);
  f.if(kind.eq(BLOCK.split), () => {
    const page = f.let(f.load('32', f.load('32', slot, 4).add(gpa.shrU(12).wrap().and(511).shl(2))));
    f.if(page.and(PAGE_ENTRY.present).eqz(), none);
    f.if(page.and(PAGE_ENTRY.readOnly), () => f.store('32', cpu, i32(SECOND.noWrite), CPU.stageFlags));
    f.return(page.and(-4096));
  });
  f.store('32', cpu, i32(SECOND.uniform), CPU.stageFlags);
  f.if(kind.eq(BLOCK.untouched), () => {
    const next = f.let(f.load('32', stage, STAGE.nextFree));
    f.store('32', stage, next.add(1), STAGE.nextFree);
    entry.set(f.load('32', f.load('32', stage, STAGE.freeList).add(next.shl(2))).or(BLOCK.memory));
    f.store('32', slot, entry.get);
  });
  f.return(entry.get.and(-0x200000).add(gpa.wrap().and(0x1ff000)));
  f.unreachable();
});
