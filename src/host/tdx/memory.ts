/** How the host gives a TD its memory and takes it back: SEAMCALLs in the order that the module wants. */
import { TDH } from '../../abi/tdx/leaves.ts';
import { isError, STATUS, statusCode } from '../../abi/tdx/status.ts';
import type { SeamcallInput, SeamcallOutput, TdxHostView } from '../../seats/tdx.ts';
import type { TdBooks } from './state.ts';

export const PAGE = 4096;
export const BLOCK = 2 << 20;

export interface TdMemory {
  readonly view: TdxHostView;
  readonly td: TdBooks;
}

/** A SEAMCALL that this host's books say must succeed. */
export function must({ view }: TdMemory, leaf: number, input: SeamcallInput): SeamcallOutput {
  const output = view.seamcall(leaf, input);
  if (isError(output.rax))
    throw new RangeError(`SEAMCALL ${leaf & 0xffff} failed with status 0x${output.rax.toString(16)}`);
  return output;
}

/** A page for the module's or the host's own use. */
export function takePage({ td, view }: TdMemory): number {
  const back = td.freePages.pop();
  if (back !== undefined) return back;
  const page = td.nextPage;
  if (page + PAGE > view.systemBytes) throw new RangeError('the host is out of system memory');
  td.nextPage += PAGE;
  return page;
}

/** System memory behind a guest-physical address of the guest's memory; `undefined`: none. */
export function backingOf(td: TdBooks, gpa: number): number | undefined {
  if (!td.regions.some((region) => gpa >= region.gpa && gpa < region.gpa + region.length)) return undefined;
  const block = td.backing[Math.floor(gpa / BLOCK)];
  return block === undefined ? undefined : block + (gpa % BLOCK);
}

const SPANS = [BLOCK, 512 * BLOCK, 512 * 512 * BLOCK] as const;

/** Tables of the secure EPT down to `level` (1: for 4 KiB pages), for L1 and every L2 VM. */
export function addTables(memory: TdMemory, gpa: number, level: 1 | 2): void {
  const vms = memory.td.l2Vms;
  const none = 0xffff_ffff_ffff_ffffn;
  for (let table = 3; table >= level; table--) {
    const base = Math.floor(gpa / (SPANS[table - 1] as number)) * (SPANS[table - 1] as number);
    for (let vm = 0; vm <= vms; vm++) {
      const page = takePage(memory);
      const operands = [none, none, none, none];
      operands[vm] = BigInt(page);
      const { rax } = memory.view.seamcall(TDH.memSeptAdd | (1 << 16), {
        rcx: BigInt(base) | BigInt(table),
        rdx: BigInt(memory.td.tdr),
        r8: operands[0] as bigint,
        r9: operands[1] as bigint,
        r10: operands[2] as bigint,
        r11: operands[3] as bigint,
      });
      // It is there already.
      if (isError(rax)) memory.td.freePages.push(page);
    }
  }
}

export interface Entry {
  readonly level: number;
  readonly state: 'free' | 'table' | 'mapped' | 'pending' | 'blocked' | 'pending-blocked';
  readonly spa: number;
}
const STATES: readonly Entry['state'][] = [
  'free',
  'table',
  'mapped',
  'pending',
  'blocked',
  'pending-blocked',
];

/** What the module has at an address (TDH.MEM.SEPT.RD). */
export function entryOf({ view, td }: TdMemory, gpa: number): Entry {
  const { rcx, rdx } = view.seamcall(TDH.memSeptRd, {
    rcx: BigInt(gpa - (gpa % PAGE)),
    rdx: BigInt(td.tdr),
  });
  return {
    level: Number(rdx & 7n),
    state: STATES[Number((rdx >> 8n) & 0xffn)] ?? 'free',
    spa: Number(rcx & ~0xfffn),
  };
}

/** Gives the guest private pages that it must accept: the whole block where nothing is in the way, else 4 KiB. */
export function augment(memory: TdMemory, gpa: number, level: 0 | 1): boolean {
  const { td, view } = memory;
  const size = level === 1 ? BLOCK : PAGE;
  const base = gpa - (gpa % size);
  const spa = backingOf(td, base);
  if (spa === undefined || backingOf(td, base + size - 1) === undefined) return false;
  addTables(memory, base, level === 1 ? 2 : 1);
  const { rax } = view.seamcall(TDH.memPageAug, {
    rcx: BigInt(base) | BigInt(level),
    rdx: BigInt(td.tdr),
    r8: BigInt(spa),
  });
  return statusCode(rax) === STATUS.success;
}

/** Shows the host's page at an address that the guest shares. */
export function share({ view, td }: TdMemory, gpa: number): void {
  const spa = backingOf(td, gpa);
  if (spa !== undefined) view.mapShared(gpa, { kind: 'page', spa, writable: true });
}

export function unshare({ view }: TdMemory, gpa: number): void {
  view.mapShared(gpa, { kind: 'absent', suppressVe: false });
}

export const isShared = ({ view }: TdMemory, gpa: number): boolean => view.shared(gpa).kind === 'page';

/** The guest's memory, all of it. */
export function isMemory(td: TdBooks, gpa: number, length: number): boolean {
  for (let at = gpa - (gpa % PAGE); at < gpa + length; at += PAGE)
    if (backingOf(td, at) === undefined) return false;
  return true;
}

/**
 * Takes private pages of [start, end) out of the TD: blocked, tracked, and then removed; a block of which only a part is asked
 * for is split first. Their contents are lost.
 */
export function removePrivate(memory: TdMemory, start: number, end: number): void {
  const { td } = memory;
  const tdr = BigInt(td.tdr);
  const blocked: { gpa: number; level: 0 | 1 }[] = [];
  for (let gpa = start; gpa < end;) {
    const entry = entryOf(memory, gpa);
    const base = gpa - (gpa % BLOCK);
    if (entry.level === 1 && entry.state !== 'free') {
      const whole = base >= start && base + BLOCK <= end;
      must(memory, TDH.memRangeBlock, { rcx: BigInt(base) | 1n, rdx: tdr });
      if (whole) {
        blocked.push({ gpa: base, level: 1 });
        gpa = base + BLOCK;
        continue;
      }
      must(memory, TDH.memTrack, { rcx: tdr });
      const tables = Array.from({ length: 1 + td.l2Vms }, () => BigInt(takePage(memory)));
      must(memory, TDH.memPageDemote, {
        rcx: BigInt(base) | 1n,
        rdx: tdr,
        r8: tables[0] ?? 0n,
        r9: tables[1] ?? 0n,
        r10: tables[2] ?? 0n,
        r11: tables[3] ?? 0n,
      });
      continue;
    }
    if (entry.level === 1) {
      gpa = base + BLOCK;
      continue;
    }
    if (entry.state !== 'free') {
      must(memory, TDH.memRangeBlock, { rcx: BigInt(gpa), rdx: tdr });
      blocked.push({ gpa, level: 0 });
    }
    gpa += PAGE;
  }
  if (blocked.length === 0) return;
  must(memory, TDH.memTrack, { rcx: tdr });
  for (const { gpa, level } of blocked)
    must(memory, TDH.memPageRemove, { rcx: BigInt(gpa) | BigInt(level), rdx: tdr });
}
