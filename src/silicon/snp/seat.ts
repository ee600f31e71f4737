/** What a program at VMPL0 is given: the rights of that level, through the same checks as its instructions would have. */
import { EVENT, EVENT_CLASS, PAGE_STATE, PRIVILEGED_OPERATION } from '../../abi/events.ts';
import type { EventSink } from '../../seats/events.ts';
import type { RmpOutcome, SeatRead, SeatRefusal, SeatWrite, Vmpl0Seat } from '../../seats/program.ts';
import type { Vmcb } from '../../seats/snp.ts';
import { PERMISSION, RMP } from './layout.ts';
import { pvalidate, rmpadjust, rmpquery, type OperationOutcome } from './page-operations.ts';
import type { SnpSystem } from './system.ts';

const PAGE = 4096;
const PAGES_OF_BLOCK = 512;
/** RDX of RMPADJUST: the page becomes a VMSA. */
const VMSA_BIT = 1 << 16;

export interface SeatWorld {
  readonly system: SnpSystem;
  readonly sink: EventSink;
  readonly now: number;
  random(): readonly [lo: number, hi: number];
}

export function createSeat({ system, sink, now, random }: SeatWorld, vp: number, vmcb: Vmcb): Vmpl0Seat {
  const caller = { asid: vmcb.asid, vmpl: 0 };
  const { rmp } = system;

  /** System address of one piece inside a page, or why not. */
  const find = (gpa: number, shared: boolean, write: boolean): number | SeatRefusal => {
    const mapping = system.mapping(gpa);
    if (mapping.kind !== 'page') return mapping.kind === 'mmio' ? 'unmapped' : 'nested-fault';
    if (write && !mapping.writable) return 'nested-fault';
    const page = mapping.spa / PAGE;
    const bits = rmp.bits(page);
    const spa = mapping.spa + (gpa % PAGE);
    if (shared) return write && bits & RMP.assigned ? 'nested-fault' : spa;
    const isOwn =
      (bits & (RMP.assigned | RMP.immutable)) === RMP.assigned &&
      bits >>> RMP.asidShift === caller.asid &&
      rmp.gpa(page) === gpa - (gpa % PAGE) &&
      ((bits & RMP.large) !== 0) === mapping.large;
    if (!isOwn) return 'nested-fault';
    if ((bits & RMP.validated) === 0) return 'not-validated';
    const need = write ? PERMISSION.read | PERMISSION.write : PERMISSION.read;
    return (rmp.permissions(page, 0) & need) === need ? spa : 'nested-fault';
  };
  const walk = (
    gpa: number,
    length: number,
    shared: boolean,
    write: boolean,
    visit: (spa: number, offset: number, bytes: number) => void,
  ): SeatWrite => {
    const pieces: [number, number, number][] = [];
    for (let at = 0; at < length;) {
      const bytes = Math.min(length - at, PAGE - ((gpa + at) % PAGE));
      const spa = find(gpa + at, shared, write);
      if (typeof spa === 'string') return { ok: false, reason: spa };
      const last = pieces.at(-1);
      if (last !== undefined && last[0] + last[2] === spa) last[2] += bytes;
      else pieces.push([spa, at, bytes]);
      at += bytes;
    }
    for (const piece of pieces) visit(...piece);
    return { ok: true };
  };
  const outcome = (result: OperationOutcome): RmpOutcome =>
    result.kind === 'done'
      ? { kind: 'done', eax: result.eax, carry: result.unchanged }
      : { kind: 'nested-fault' };
  const operated = (operation: number, gpa: number, result: RmpOutcome): void => {
    if (sink.mask & EVENT_CLASS.privileged)
      sink.emit(
        EVENT.privilegedOperation,
        now,
        vp,
        operation,
        gpa,
        result.kind === 'done' ? result.eax : -1,
        0,
      );
  };
  return {
    vp,
    now,
    sink,
    random,
    read(gpa, length, shared): SeatRead {
      const bytes = new Uint8Array(length);
      const domain = shared ? 0 : caller.asid;
      const ok = walk(gpa, length, shared, false, (spa, offset, count) => {
        for (let page = Math.floor(spa / PAGE); page * PAGE < spa + count; page++)
          system.changeKey(page, domain);
        bytes.set(system.peek(spa, count, domain), offset);
      });
      return ok.ok ? { ok: true, bytes } : ok;
    },
    write(gpa, bytes, shared): SeatWrite {
      return walk(gpa, bytes.length, shared, true, (spa, offset, count) =>
        system.poke(spa, bytes.subarray(offset, offset + count), shared ? 0 : caller.asid),
      );
    },
    clear(gpa, length): SeatWrite {
      return walk(gpa, length, false, true, (spa, _offset, count) => {
        if (spa % PAGE === 0 && count % PAGE === 0) system.clear(spa / PAGE, count / PAGE, caller.asid);
        else system.poke(spa, new Uint8Array(count), caller.asid);
      });
    },
    getGhcb: () => [vmcb.ghcb.lo, vmcb.ghcb.hi],
    setGhcb(lo, hi) {
      vmcb.ghcb = { lo: lo >>> 0, hi: hi >>> 0 };
    },
    pvalidate(gpa, large, validate) {
      const result = outcome(pvalidate(system, caller, gpa, large, validate));
      operated(PRIVILEGED_OPERATION.pvalidate, gpa, result);
      if (result.kind === 'done' && result.eax === 0 && sink.mask & EVENT_CLASS.page)
        sink.emit(
          EVENT.pageState,
          now,
          vp,
          gpa,
          large ? PAGES_OF_BLOCK : 1,
          validate ? PAGE_STATE.private : PAGE_STATE.pending,
          0,
        );
      return result;
    },
    rmpadjust(gpa, large, rdx) {
      const result = outcome(rmpadjust(system, caller, gpa, large, rdx));
      const { rmpadjust: adjust, vmsaCreate } = PRIVILEGED_OPERATION;
      operated((rdx & VMSA_BIT) !== 0 ? vmsaCreate : adjust, gpa, result);
      return result;
    },
    rmpquery(gpa, vmpl) {
      const result = rmpquery(system, caller, gpa, vmpl);
      return { ...outcome(result), rdx: result.kind === 'done' ? result.rdx : 0 };
    },
  };
}
