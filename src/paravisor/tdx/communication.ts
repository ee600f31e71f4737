/** The paravisor's requests as TDG.VP.VMCALL registers, and the host's answers from them (Intel GHCI 1.5; Hyper-V's hypercalls). */

import { TDVMCALL, TDVMCALL_STATUS } from '../../abi/tdx/ghci.ts';
import { MSR } from '../../abi/hyperv/msr.ts';
import { highHalf, join, lowHalf } from '../../abi/record.ts';
import type { HostAnswer, HostRequest } from '../requests.ts';
import { OWN_VECTOR } from '../turn.ts';
import { runLength } from '../visibility.ts';

const PAGE = 4096;
/** R10 to R15. */
const MASK = 0xfc00n;
/** x2APIC interrupt command. */
const X2APIC_ICR = 0x830;
const REFUSED: HostAnswer = { ok: false, lo: 0, hi: 0 };

/** R10 and R11 select the call. */
function call(subfunction: number, ...operands: readonly bigint[]): bigint[] {
  const registers = Array.from({ length: 16 }, () => 0n);
  registers[1] = MASK;
  registers[11] = BigInt(subfunction);
  for (const [i, value] of operands.entries()) registers[12 + i] = value;
  return registers;
}

/** Registers for a request. `from`: pages of a page-state change that are done already. */
export function encode(request: HostRequest, from: number, sharedBit: bigint): bigint[] {
  switch (request.kind) {
    case 'io':
      return call(
        TDVMCALL.io,
        BigInt(request.size),
        request.write ? 1n : 0n,
        BigInt(request.port),
        BigInt(request.value >>> 0),
      );
    case 'msr':
      return request.write
        ? call(TDVMCALL.wrmsr, BigInt(request.index), join(request.lo, request.hi))
        : call(TDVMCALL.rdmsr, BigInt(request.index));
    case 'cpuid':
      return call(TDVMCALL.cpuid, BigInt(request.leaf), BigInt(request.subleaf));
    case 'mmio':
      return call(
        TDVMCALL.mmio,
        BigInt(request.size),
        request.write ? 1n : 0n,
        BigInt(request.gpa) | sharedBit,
        join(request.lo, request.hi),
      );
    case 'page-state': {
      const start = BigInt(request.gpas[from] ?? 0) | (request.shared ? sharedBit : 0n);
      return call(TDVMCALL.mapGpa, start, BigInt(runLength(request.gpas, from) * PAGE));
    }
    case 'wake':
      return call(TDVMCALL.wrmsr, BigInt(X2APIC_ICR), (BigInt(request.vp) << 32n) | BigInt(OWN_VECTOR.wake));
    case 'fail':
      return call(TDVMCALL.reportFatalError, BigInt(request.reason));
    // A TD has no page of its own for this, and hears of events by its virtual APIC.
    case 'register':
    case 'doorbell':
      return call(TDVMCALL.getTdVmCallInfo, 0n);
    case 'hypercall':
      return hypercall(request.code, request.input);
    default:
      return assertNever(request);
  }
}

/** A fast hypercall: its input in RDX and R8, which is all that a call without memory can carry. */
function hypercall(code: number, input: Uint8Array): bigint[] {
  const word = (at: number): bigint => {
    let value = 0n;
    for (let i = 7; i >= 0; i--) value = (value << 8n) | BigInt(input[at + i] ?? 0);
    return value;
  };
  const registers = Array.from({ length: 16 }, () => 0n);
  registers[1] = MASK | (1n << 2n) | (1n << 8n);
  registers[10] = BigInt(code) | 0x1_0000n;
  registers[2] = word(0);
  registers[8] = word(8);
  return registers;
}

function assertNever(request: never): never {
  throw new TypeError(`no TDVMCALL form of ${JSON.stringify(request)}`);
}

/** What the host answered. `done`: pages of a page-state change that are done now. */
export function decode(
  request: HostRequest,
  registers: readonly bigint[],
  from: number,
): HostAnswer & { readonly done?: number } {
  const r = (n: number): bigint => registers[n] ?? 0n;
  const value = (n: number): HostAnswer => ({ ok: true, lo: lowHalf(r(n)), hi: highHalf(r(n)) });
  if (request.kind === 'hypercall') return value(11);
  if (request.kind === 'page-state') {
    const asked = runLength(request.gpas, from);
    if (r(10) === TDVMCALL_STATUS.success) return { ok: true, lo: 0, hi: 0, done: asked };
    if (r(10) !== TDVMCALL_STATUS.retry) return REFUSED;
    const start = BigInt(request.gpas[from] ?? 0);
    const done = Number((r(11) & ((1n << 46n) - 1n)) - start) / PAGE;
    // Standing still is a refusal, and so is an address that was not asked for.
    return Number.isInteger(done) && done > 0 && done <= asked ? { ok: true, lo: 0, hi: 0, done } : REFUSED;
  }
  if (r(10) !== TDVMCALL_STATUS.success) return REFUSED;
  if (request.kind === 'cpuid')
    return { ok: true, lo: lowHalf(r(12)), hi: lowHalf(r(13)), ecx: lowHalf(r(14)), edx: lowHalf(r(15)) };
  return value(11);
}

/** HLT with interrupts on: until there is one. */
export const HALT: readonly bigint[] = call(TDVMCALL.hlt, 0n);

/** Where the host keeps the guest's SynIC pages. */
export const SYNIC_PAGES = { messages: MSR.simp, eventFlags: MSR.siefp } as const;
