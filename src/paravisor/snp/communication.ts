/** The paravisor's requests as GHCB contents, and the host's answers from them (AMD 56421, chapters 2 and 4; Hyper-V's usages). */

import { ghcbCall } from '../../abi/hyperv/ghcb-call.ts';
import { writeControl } from '../../abi/hyperv/hypercall.ts';
import { setU16, setU32, u16, u32 } from '../../abi/record.ts';
import { GHCB_EXIT, IOIO, SVM_EXIT } from '../../abi/snp/exit-codes.ts';
import {
  ghcb,
  GHCB_MSR,
  GHCB_USAGE,
  MOST_PAGE_STATE_ENTRIES,
  PAGE_OPERATION,
  setValid,
  SHARED_BUFFER,
  type GhcbField,
} from '../../abi/snp/ghcb.ts';
import type { Vmpl0Seat } from '../../seats/program.ts';
import { FAILURE, type HostAnswer, type HostRequest } from '../requests.ts';
import { OWN_VECTOR } from '../turn.ts';

const VERSION = 2;
const PAGE = 4096;
/** What of the page a standard request uses. */
const HEAD = 0x400;

export const REFUSED: HostAnswer = { ok: false, lo: 0, hi: 0 };

/** Reason set of terminations: 0 is the specification's, 1 Linux's; this one is nobody's. */
const OWN_REASON_SET = 7;
/** One paravisor's page on one VP. */
export class Communication {
  readonly #seat: Vmpl0Seat;
  readonly gpa: number;

  constructor(seat: Vmpl0Seat, gpa: number) {
    this.#seat = seat;
    this.gpa = gpa;
  }

  /** Puts `request` where the host finds it. `from`: pages of a page-state change that are done already. */
  send(request: HostRequest, from: number): void {
    switch (request.kind) {
      case 'io': {
        const size = request.size === 1 ? IOIO.size8 : request.size === 2 ? IOIO.size16 : IOIO.size32;
        const word = ((request.port << 16) | size | (request.write ? 0 : IOIO.in)) >>> 0;
        return this.#standard(SVM_EXIT.io, [word, 0], [0, 0], {
          rax: [request.write ? request.value : 0, 0],
        });
      }
      case 'msr':
        return this.#standard(SVM_EXIT.msr, [request.write ? 1 : 0, 0], [0, 0], {
          rcx: [request.index, 0],
          rax: [request.lo, 0],
          rdx: [request.hi, 0],
        });
      case 'cpuid':
        return this.#standard(SVM_EXIT.cpuid, [0, 0], [0, 0], {
          rax: [request.leaf, 0],
          rcx: [request.subleaf, 0],
          xcr0: [1, 0],
        });
      case 'mmio': {
        const data = new Uint8Array(8);
        setU32(data, 0, request.lo);
        setU32(data, 4, request.hi);
        if (request.write) this.#buffer(data);
        const code = request.write ? GHCB_EXIT.mmioWrite : GHCB_EXIT.mmioRead;
        return this.#standard(code, split(request.gpa), [request.size, 0], { scratch: this.#scratch() });
      }
      case 'page-state': {
        const gpas = request.gpas.slice(from, from + MOST_PAGE_STATE_ENTRIES);
        const operation =
          request.split === true
            ? PAGE_OPERATION.psmash
            : request.shared
              ? PAGE_OPERATION.shared
              : PAGE_OPERATION.private;
        this.#buffer(pageStateEntries(gpas, operation, request.large === true || request.split === true));
        return this.#standard(GHCB_EXIT.pageStateChange, [0, 0], [0, 0], { scratch: this.#scratch() });
      }
      case 'wake': {
        // An ICR word, as x2APIC has it: fixed, physical, edge.
        return this.#standard(GHCB_EXIT.hvIpi, [OWN_VECTOR.wake, request.vp], [0, 0], {});
      }
      case 'doorbell':
        return this.#standard(GHCB_EXIT.hvDoorbell, [1, 0], split(request.gpa), {});
      case 'hypercall': {
        const page = new Uint8Array(PAGE);
        page.set(request.input);
        const control = writeControl({ code: request.code, repCount: request.reps });
        setU32(page, ghcbCall.offsetOf('control'), control.low);
        setU32(page, ghcbCall.offsetOf('control') + 4, control.high);
        setU16(page, ghcb.offsetOf('protocolVersion'), VERSION);
        setU32(page, ghcb.offsetOf('usage'), GHCB_USAGE.hypercall);
        this.#seat.write(this.gpa, page, true);
        this.#seat.setGhcb(...split(this.gpa));
        return;
      }
      case 'register':
        this.#seat.setGhcb(...orLow(split(this.gpa), GHCB_MSR.registerGpaRequest));
        return;
      case 'fail': {
        const code = GHCB_MSR.terminate | (OWN_REASON_SET << 12) | (request.reason << 16);
        this.#seat.setGhcb(code >>> 0, 0);
        return;
      }
      default:
        return assertNever(request);
    }
  }

  /** Asks the host to run the guest on this VP. */
  enterGuest(): void {
    // VTL 0 in byte 0.
    this.#seat.write(this.gpa, Uint8Array.of(0), true);
    this.#finish(GHCB_USAGE.vtlReturn);
  }

  /** What the host answered. `done`: pages of a page-state change that are done now, of those asked for. */
  receive(request: HostRequest, from: number): HostAnswer & { readonly done?: number } {
    if (request.kind === 'register') {
      const [lo, hi] = this.#seat.getGhcb();
      const [wantLo, wantHi] = orLow(split(this.gpa), GHCB_MSR.registerGpaResponse);
      return lo === wantLo && hi === wantHi ? { ok: true, lo: 0, hi: 0 } : REFUSED;
    }
    if (request.kind === 'hypercall') {
      const result = this.#seat.read(this.gpa + ghcbCall.offsetOf('control'), 8, true);
      if (!result.ok) return REFUSED;
      return { ok: true, lo: u16(result.bytes, 0), hi: u32(result.bytes, 4) };
    }
    const head = this.#seat.read(this.gpa, HEAD, true);
    if (!head.ok || ghcb.low(head.bytes, 'exitInfo1') !== 0) return REFUSED;
    const low = (name: GhcbField): number => ghcb.low(head.bytes, name);
    switch (request.kind) {
      case 'io':
        return { ok: true, lo: low('rax'), hi: 0 };
      case 'msr':
        return { ok: true, lo: low('rax'), hi: low('rdx') };
      case 'cpuid':
        return { ok: true, lo: low('rax'), hi: low('rbx'), ecx: low('rcx'), edx: low('rdx') };
      case 'mmio': {
        const data = this.#seat.read(this.gpa + SHARED_BUFFER.offset, 8, true);
        return data.ok ? { ok: true, lo: u32(data.bytes, 0), hi: u32(data.bytes, 4) } : REFUSED;
      }
      case 'page-state': {
        const header = this.#seat.read(this.gpa + SHARED_BUFFER.offset, 8, true);
        if (!header.ok || low('exitInfo2') !== 0 || ghcb.high(head.bytes, 'exitInfo2') !== 0) return REFUSED;
        const asked = Math.min(request.gpas.length - from, MOST_PAGE_STATE_ENTRIES);
        // The host says how far it came; it can neither go back nor beyond the end, and standing still is a refusal.
        const current = u16(header.bytes, 0);
        return current > 0 && current <= asked ? { ok: true, lo: 0, hi: 0, done: current } : REFUSED;
      }
      default:
        return { ok: true, lo: 0, hi: 0 };
    }
  }

  #scratch(): readonly [number, number] {
    return split(this.gpa + SHARED_BUFFER.offset);
  }

  #buffer(bytes: Uint8Array): void {
    this.#seat.write(this.gpa + SHARED_BUFFER.offset, bytes, true);
  }

  #standard(
    code: number,
    info1: readonly [number, number],
    info2: readonly [number, number],
    fields: Partial<Record<GhcbField, readonly [number, number]>>,
  ): void {
    const head = new Uint8Array(HEAD);
    const put = (name: GhcbField, [lo, hi]: readonly [number, number]): void => {
      ghcb.setHalves(head, name, lo, hi);
      setValid(head, name);
    };
    put('exitCode', [code, 0]);
    put('exitInfo1', info1);
    put('exitInfo2', info2);
    for (const [name, value] of Object.entries(fields)) put(name as GhcbField, value);
    this.#seat.write(this.gpa, head, true);
    this.#finish(GHCB_USAGE.standard);
  }

  #finish(usage: number): void {
    const tail = new Uint8Array(6);
    setU16(tail, 0, VERSION);
    setU32(tail, 2, usage);
    this.#seat.write(this.gpa + ghcb.offsetOf('protocolVersion'), tail, true);
    this.#seat.setGhcb(...split(this.gpa));
  }
}

function assertNever(request: never): never {
  throw new TypeError(`no GHCB form of ${JSON.stringify(request)}, failure ${FAILURE.host}`);
}

const split = (address: number): readonly [number, number] => [
  address % 0x1_0000_0000,
  Math.floor(address / 0x1_0000_0000),
];

const orLow = ([lo, hi]: readonly [number, number], bits: number): readonly [number, number] => [
  (lo | bits) >>> 0,
  hi,
];

/** Bit 56 of an entry. */
const LARGE = 1 << 24;

/** Header and entries: current entry, end, then frame number and operation. */
function pageStateEntries(gpas: readonly number[], operation: number, large: boolean): Uint8Array {
  const bytes = new Uint8Array(8 + 8 * gpas.length);
  setU16(bytes, 0, 0);
  setU16(bytes, 2, gpas.length - 1);
  for (const [i, gpa] of gpas.entries()) {
    const [lo, hi] = split(gpa);
    setU32(bytes, 8 + 8 * i, lo & 0xffff_f000);
    setU32(bytes, 12 + 8 * i, (hi & 0xf_ffff) | (operation << 20) | (large ? LARGE : 0));
  }
  return bytes;
}
