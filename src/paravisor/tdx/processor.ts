/** What the paravisor does at L1 of a TD: pages by TDG.MEM.PAGE.ACCEPT and ATTR.WR, the L2 VM's context by TDG.VP.RD and WR. */

import { PAGE_SIZE } from '../../abi/hyperv/pages.ts';
import { REGISTER, type RegisterValue } from '../../abi/hyperv/registers.ts';
import { highHalf, join, lowHalf } from '../../abi/record.ts';
import { L2_ENTER_GUEST_STATE, PAGE_ATTRIBUTE } from '../../abi/tdx/l2.ts';
import { TDG } from '../../abi/tdx/leaves.ts';
import { STATUS } from '../../abi/tdx/status.ts';
import type { CpuidRegisters } from '../../seats/exits.ts';
import type { HostView } from '../../seats/host-view.ts';
import type { L1Seat } from '../../seats/program.ts';
import type { Processor } from '../processor.ts';
import { FIELD, SEGMENTS, segmentFields, vmcsId } from './fields.ts';

const LARGE_PAGE = 0x20_0000;
const ALL = 0xffff_ffff_ffff_ffffn;
const RIGHTS =
  PAGE_ATTRIBUTE.read | PAGE_ATTRIBUTE.write | PAGE_ATTRIBUTE.executeSupervisor | PAGE_ATTRIBUTE.executeUser;
/** In the flags word: also drop the VM's translations. */
const INVEPT = 0x8000;
/** VM 1 has bits 31:16. */
const VM1_SHIFT = 16n;

/** Low half of a status: what happened is in the high half. */
const code = (rax: bigint): number => Number(rax >> 32n);

/** A leaf of TDCALL; `undefined`: the host has to do something first. */
function leaf(
  seat: L1Seat,
  number: number,
  rcx: bigint,
  rdx = 0n,
  r8 = 0n,
  r9 = 0n,
): readonly bigint[] | undefined {
  return seat.tdcall([BigInt(number), rcx, rdx, r8, r9, 0n, 0n, 0n, 0n]);
}

export type AcceptOutcome = 'done' | 'size' | 'failed';

/** An accepted page is clear. One that was accepted before is not accepted again. */
export function accept(seat: L1Seat, gpa: number, large: boolean): AcceptOutcome {
  const result = leaf(seat, TDG.memPageAccept, BigInt(gpa) | (large ? 1n : 0n));
  if (result === undefined) return 'failed';
  const status = code(result[0] ?? 0n);
  if (status === STATUS.success) return 'done';
  return status === STATUS.pageSizeMismatch ? 'size' : 'failed';
}

/** Rights of the guest on a page. */
export function setRights(seat: L1Seat, gpa: number, large: boolean, granted: boolean): AcceptOutcome {
  const attributes = BigInt(granted ? RIGHTS : 0) << VM1_SHIFT;
  const flags = BigInt(RIGHTS | INVEPT) << VM1_SHIFT;
  const result = leaf(seat, TDG.memPageAttrWr, BigInt(gpa) | (large ? 1n : 0n), attributes, flags);
  if (result === undefined) return 'failed';
  const status = code(result[0] ?? 0n);
  if (status === STATUS.success) return 'done';
  return status === STATUS.pageSizeMismatch ? 'size' : 'failed';
}

/** Runs `change` on every page of a range, large where that works. */
export function eachPage(
  start: number,
  end: number,
  change: (gpa: number, large: boolean) => AcceptOutcome,
): boolean {
  for (let gpa = start; gpa < end;) {
    const large = gpa % LARGE_PAGE === 0 && gpa + LARGE_PAGE <= end;
    const outcome = change(gpa, large);
    if (outcome === 'done') gpa += large ? LARGE_PAGE : PAGE_SIZE;
    else if (outcome === 'size' && large) {
      const stop = gpa + LARGE_PAGE;
      for (; gpa < stop; gpa += PAGE_SIZE) if (change(gpa, false) !== 'done') return false;
    } else return false;
  }
  return true;
}

/** VM 1 on the virtual processor of a seat: state page, and fields as they are asked for. */
export class Guest {
  readonly #seat: L1Seat;
  readonly #page: number;
  readonly #state: Uint8Array;
  #dirty = false;

  constructor(seat: L1Seat, page: number) {
    this.#seat = seat;
    this.#page = page;
    const read = seat.read(page, L2_ENTER_GUEST_STATE.size, false);
    this.#state = read.ok ? read.bytes : new Uint8Array(L2_ENTER_GUEST_STATE.size);
  }

  close(): boolean {
    return !this.#dirty || this.#seat.write(this.#page, this.#state, false).ok;
  }

  word(at: number): bigint {
    const view = new DataView(this.#state.buffer, this.#state.byteOffset);
    return view.getBigUint64(at, true);
  }

  setWord(at: number, value: bigint): void {
    const view = new DataView(this.#state.buffer, this.#state.byteOffset);
    view.setBigUint64(at, value, true);
    this.#dirty = true;
  }

  general(number: number): bigint {
    return this.word(8 * number);
  }

  setGeneral(number: number, value: bigint): void {
    this.setWord(8 * number, value);
  }

  get rip(): bigint {
    return this.word(L2_ENTER_GUEST_STATE.offsetOf('rip'));
  }

  set rip(value: bigint) {
    this.setWord(L2_ENTER_GUEST_STATE.offsetOf('rip'), value);
  }

  get rflags(): bigint {
    return this.word(L2_ENTER_GUEST_STATE.offsetOf('rflags'));
  }

  set rflags(value: bigint) {
    this.setWord(L2_ENTER_GUEST_STATE.offsetOf('rflags'), value);
  }

  field(encoding: number): bigint {
    const result = leaf(this.#seat, TDG.vpRd, 0n, vmcsId(encoding));
    return result?.[3] ?? 0n;
  }

  setField(encoding: number, value: bigint): void {
    this.write(vmcsId(encoding), value);
  }

  /** Writes any field by its identifier. */
  write(id: bigint, value: bigint): boolean {
    const result = leaf(this.#seat, TDG.vpWr, 0n, id, value, ALL);
    return result !== undefined && code(result[0] ?? 0n) === STATUS.success;
  }
}

const WIDE: ReadonlyMap<number, number> = new Map([
  [REGISTER.cr3, FIELD.cr3],
  [REGISTER.efer, FIELD.efer],
  [REGISTER.pat, FIELD.pat],
]);
/** The guest's number, and its XMM registers. */
const VM1 = 1;
const XMM_COUNT = 16;
const SEGMENT_REGISTERS: readonly number[] = SEGMENTS.map((name) => REGISTER[name]);

/** What starts a virtual processor, left for the paravisor on that processor to carry out. */
export type Start =
  | { readonly kind: 'init' }
  | { readonly kind: 'startup'; readonly vector: number }
  | { readonly kind: 'context'; readonly context: Uint8Array };

/** What one processor's paravisor leaves for another's. */
export interface TdxVp {
  start: Start | undefined;
  /** Its translations go before its guest runs again. */
  stale: boolean;
}

export class TdxProcessor implements Processor {
  readonly view: HostView;
  readonly #seat: L1Seat;
  readonly #vps: readonly TdxVp[];

  constructor(seat: L1Seat, guest: Guest, vps: readonly TdxVp[]) {
    this.#seat = seat;
    this.#vps = vps;
    const pair = (value: bigint): RegisterValue => [lowHalf(value), highHalf(value), 0, 0];
    this.view = {
      read: (gpa, length) => {
        const read = seat.read(gpa, length, false);
        return read.ok ? read : { ok: false, reason: 'unmapped' };
      },
      write: (gpa, bytes) =>
        seat.write(gpa, bytes, false).ok ? { ok: true } : { ok: false, reason: 'unmapped' },
      overlay: () => ({ ok: false, reason: 'unsupported' }),
      getRegister: (vp, name): RegisterValue | undefined => {
        // Another processor's registers are its own paravisor's to read.
        if (vp !== seat.vp) return undefined;
        if (name >= REGISTER.rax && name <= REGISTER.r15) return pair(guest.general(name - REGISTER.rax));
        if (name === REGISTER.rip) return pair(guest.rip);
        if (name === REGISTER.rflags) return pair(guest.rflags);
        if (name === REGISTER.cr0) return pair(guest.field(FIELD.cr0));
        if (name === REGISTER.cr4) return pair(guest.field(FIELD.cr4));
        if (name >= REGISTER.xmm0 && name < REGISTER.xmm0 + XMM_COUNT)
          return seat.readXmm(VM1, name - REGISTER.xmm0);
        const wide = WIDE.get(name);
        if (wide !== undefined) return pair(guest.field(wide));
        const segment = SEGMENT_REGISTERS.indexOf(name);
        if (segment < 0) return undefined;
        const fields = segmentFields(segment);
        const base = guest.field(fields.base);
        const rights = Number(guest.field(fields.rights)) & 0xffff;
        const selector = Number(guest.field(fields.selector));
        return [
          lowHalf(base),
          highHalf(base),
          Number(guest.field(fields.limit)),
          (selector | (rights << 16)) >>> 0,
        ];
      },
      setRegister: (vp, name, value) => {
        if (vp !== seat.vp) return false;
        const wide = join(value[0], value[1]);
        if (name >= REGISTER.rax && name <= REGISTER.r15) guest.setGeneral(name - REGISTER.rax, wide);
        else if (name === REGISTER.rip) guest.rip = wide;
        else if (name === REGISTER.rflags) guest.rflags = wide;
        else if (name >= REGISTER.xmm0 && name < REGISTER.xmm0 + XMM_COUNT)
          seat.writeXmm(VM1, name - REGISTER.xmm0, value);
        else return false;
        return true;
      },
    };
  }

  nativeCpuid(_vp: number, number: number, subleaf: number): CpuidRegisters {
    return this.#seat.cpuid(number, subleaf) ?? { eax: 0, ebx: 0, ecx: 0, edx: 0 };
  }

  /** MapGPA takes the page out of the secure EPT, and its aliases with it. */
  release(): boolean {
    return true;
  }

  claim(gpa: number): boolean {
    return accept(this.#seat, gpa, false) === 'done' && setRights(this.#seat, gpa, false, true) === 'done';
  }

  flush(vps: readonly number[]): void {
    for (const vp of vps) this.#leave(vp, { stale: true });
  }

  init(vp: number): void {
    this.#leave(vp, { start: { kind: 'init' } });
  }

  startup(vp: number, vector: number): void {
    this.#leave(vp, { start: { kind: 'startup', vector } });
  }

  startContext(vp: number, context: Uint8Array): void {
    this.#leave(vp, { start: { kind: 'context', context } });
  }

  #leave(vp: number, what: Partial<TdxVp>): void {
    const target = this.#vps[vp];
    if (target !== undefined) Object.assign(target, what);
  }
}
