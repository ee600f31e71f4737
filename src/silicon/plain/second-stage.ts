/**
 * The second stage of an ordinary VM, and what all second stages share: guest-physical to system-physical to frame.
 *
 * In `plain` guest-physical and system-physical addresses are the same. A table of u32 in linear memory has one entry for each
 * 2 MiB block of system-physical addresses; frames are taken on first touch, a whole block at a time, in the order of a
 * free list (which the seed may shuffle).
 */
import { CPU, ENGINE, SECOND } from '../../x86/layout.ts';
import { routine, type Routine } from '../../x86/runtime/library.ts';
import { i32, select } from '../../x86/wasm/value.ts';

/** Layout of the stage area: words, then the block table, then page bitmaps of mixed blocks, then the free list. */
export const STAGE = {
  /** u32: next index into the free list. */
  nextFree: 0,
  freeList: 4,
  blocks: 8,
  blockCount: 12,
  header: 64,
} as const;

/** Entries of the block table. A host address (2 MiB aligned) has its low bits clear. */
export const BLOCK = {
  /** Not memory: accesses leave for the host. */
  none: 0,
  /** Memory, all of it, no frame taken yet. */
  untouched: 1,
  /** Low bits of a taken block: 2 = all memory. 3: some pages are not memory; the bitmap's address follows in the upper table. */
  memory: 2,
  mixed: 3,
  untouchedMixed: 4,
} as const;

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
  // Mixed blocks: one bit for each page that is memory, at the address in the slot's second word.
  f.if(kind.eq(BLOCK.mixed).or(kind.eq(BLOCK.untouchedMixed)), () => {
    const page = f.let(gpa.shrU(12).wrap().and(511));
    const bit = f.load('8u', f.load('32', slot, 4).add(page.shrU(3))).shrU(page.and(7)).and(1);
    f.if(bit.eqz(), none);
  }, () => f.store('32', cpu, i32(SECOND.uniform), CPU.stageFlags));
  f.if(kind.eq(BLOCK.untouched).or(kind.eq(BLOCK.untouchedMixed)), () => {
    const next = f.let(f.load('32', stage, STAGE.nextFree));
    f.store('32', stage, next.add(1), STAGE.nextFree);
    const host = f.let(f.load('32', f.load('32', stage, STAGE.freeList).add(next.shl(2))));
    entry.set(host.or(select(kind.eq(BLOCK.untouched), i32(BLOCK.memory), i32(BLOCK.mixed))));
    f.store('32', slot, entry.get);
  });
  f.return(entry.get.and(-0x200000).add(gpa.wrap().and(0x1ff000)));
  f.unreachable();
});
