/**
 * TDG.VP.VMCALL: what the host serves, in one table (GHCI 1.5, 348552, chapter 3). Nothing in the registers can be trusted;
 * what no row serves is "sub-function unsupported".
 */
import { EVENT, EVENT_CLASS, PRIVILEGED_OPERATION } from '../../abi/events.ts';
import { REGISTER } from '../../abi/hyperv/registers.ts';
import { FATAL_TEXT_REGISTERS, TDVMCALL, TDVMCALL_STATUS } from '../../abi/tdx/ghci.ts';
import { TDH } from '../../abi/tdx/leaves.ts';
import { highHalf, lowHalf, u32 } from '../../abi/record.ts';
import {
  answerCpuid,
  answerHlt,
  answerHypercall,
  answerIo,
  answerMmio,
  answerMsr,
} from '../../chipset/partition/exits.ts';
import type { Completion } from '../../seats/exits.ts';
import type { HostView } from '../../seats/host-view.ts';
import { HYPERCALLS } from '../hypercalls.ts';
import { yieldTurn } from '../scheduler.ts';
import type { VpState } from '../state.ts';
import {
  augment,
  BLOCK,
  entryOf,
  isMemory,
  isShared,
  PAGE,
  removePrivate,
  share,
  unshare,
} from './memory.ts';
import { hostMsrRead, hostMsrWrite } from './msr.ts';
import { startQuote } from './quote.ts';
import type { TdxCall } from './state.ts';

/** Registers of the call in encoding order; a row changes them to what the guest gets. */
export interface Vmcall {
  readonly call: TdxCall;
  readonly vp: VpState;
  readonly registers: bigint[];
  readonly xmm: Uint8Array | undefined;
}

type Served = (vmcall: Vmcall) => bigint;

const R = { rdx: 2, r8: 8, r10: 10, r11: 11, r12: 12, r13: 13, r14: 14, r15: 15 } as const;
const { success, retry, invalidOperand, alignmentError, subfunctionUnsupported } = TDVMCALL_STATUS;

export const TDVMCALL_ROWS: ReadonlyMap<number, Served> = new Map<number, Served>([
  [TDVMCALL.cpuid, cpuid],
  [TDVMCALL.hlt, hlt],
  [TDVMCALL.io, io],
  [TDVMCALL.rdmsr, rdmsr],
  [TDVMCALL.wrmsr, wrmsr],
  [TDVMCALL.mmio, mmio],
  [TDVMCALL.wbinvd, () => success],
  [TDVMCALL.getTdVmCallInfo, getTdVmCallInfo],
  [TDVMCALL.mapGpa, mapGpa],
  [TDVMCALL.getQuote, getQuote],
  [TDVMCALL.reportFatalError, reportFatalError],
  [TDVMCALL.setupEventNotifyInterrupt, setupEventNotifyInterrupt],
]);

export function serveVmcall(vmcall: Vmcall): void {
  const { registers } = vmcall;
  if (get(vmcall, R.r10) !== 0n) {
    hypercall(vmcall);
    return;
  }
  const code = get(vmcall, R.r11);
  const row = code <= 0xffff_ffffn ? TDVMCALL_ROWS.get(Number(code)) : undefined;
  registers[R.r10] = row === undefined ? subfunctionUnsupported : row(vmcall);
}

const get = ({ registers }: Vmcall, n: number): bigint => registers[n] ?? 0n;
const isU32 = (value: bigint): boolean => value <= 0xffff_ffffn;

function cpuid(vmcall: Vmcall): bigint {
  const { call, vp, registers } = vmcall;
  const leaf = get(vmcall, R.r12);
  const subleaf = get(vmcall, R.r13);
  if (!isU32(leaf) || !isU32(subleaf)) return invalidOperand;
  const native = call.view.cpuid(Number(leaf), Number(subleaf), 1, 0);
  const answer = answerCpuid(call, vp, {
    kind: 'cpuid',
    leaf: Number(leaf),
    subleaf: Number(subleaf),
    native,
  });
  if (answer.kind !== 'registers') return invalidOperand;
  registers[R.r12] = BigInt(answer.eax);
  registers[R.r13] = BigInt(answer.ebx);
  registers[R.r14] = BigInt(answer.ecx);
  registers[R.r15] = BigInt(answer.edx);
  return success;
}

/** VCPU_STATE_DETAILS, bit 0: the virtual APIC has an interrupt that can be delivered. */
const STATE_DETAILS = 0xa020_0003_0000_0100n;

function hlt(vmcall: Vmcall): bigint {
  const { call, vp } = vmcall;
  const blocked = get(vmcall, R.r12);
  if (blocked > 1n) return invalidOperand;
  const { r8 } = call.view.seamcall(TDH.vpRd, {
    rcx: BigInt(call.state.td.tdvpr[vp.index] ?? 0),
    rdx: STATE_DETAILS,
  });
  if (blocked === 0n && (r8 & 1n) !== 0n) return success;
  answerHlt(call, vp);
  vp.haltedWithInterrupts = blocked === 0n;
  return success;
}

function io(vmcall: Vmcall): bigint {
  const { call, vp, registers } = vmcall;
  const size = get(vmcall, R.r12);
  const direction = get(vmcall, R.r13);
  const port = get(vmcall, R.r14);
  if ((size !== 1n && size !== 2n && size !== 4n) || direction > 1n || port > 0xffffn) return invalidOperand;
  const bits = size * 8n;
  const answer = answerIo(call, vp, {
    kind: 'io',
    port: Number(port),
    size: Number(size) as 1 | 2 | 4,
    write: direction === 1n,
    value: direction === 1n ? Number(BigInt.asUintN(Number(bits), get(vmcall, R.r15))) : 0,
  });
  registers[R.r11] = answer.kind === 'value' ? BigInt(answer.lo) : 0n;
  return success;
}

function rdmsr(vmcall: Vmcall): bigint {
  const { call, vp, registers } = vmcall;
  const index = get(vmcall, R.r12);
  if (!isU32(index)) return invalidOperand;
  const own = hostMsrRead(vp, Number(index));
  if (own !== undefined) {
    registers[R.r11] = own;
    return success;
  }
  const answer = answerMsr(call, vp, { kind: 'msr', index: Number(index), write: false, lo: 0, hi: 0 });
  if (answer.kind !== 'value') return invalidOperand;
  registers[R.r11] = valueOf(answer);
  return success;
}

const valueOf = ({ lo, hi }: Extract<Completion, { kind: 'value' }>): bigint =>
  (BigInt(hi) << 32n) | BigInt(lo);

function wrmsr(vmcall: Vmcall): bigint {
  const { call, vp } = vmcall;
  const index = get(vmcall, R.r12);
  const value = get(vmcall, R.r13);
  if (!isU32(index)) return invalidOperand;
  const own = hostMsrWrite(Number(index), value);
  if (own !== undefined) return own ? success : invalidOperand;
  const answer = answerMsr(call, vp, {
    kind: 'msr',
    index: Number(index),
    write: true,
    lo: lowHalf(value),
    hi: highHalf(value),
  });
  return answer.kind === 'done' ? success : invalidOperand;
}

/** Guest-physical address without the shared bit, as a number; `undefined`: too wide. */
function plainGpa({ call }: Vmcall, gpa: bigint): number | undefined {
  const bit = sharedBit(call);
  return gpa >= bit << 1n ? undefined : Number(gpa & (bit - 1n));
}

export function sharedBit(call: TdxCall): bigint {
  return 1n << ((call.state.config.td.configFlags & 1n) !== 0n ? 51n : 47n);
}

function mmio(vmcall: Vmcall): bigint {
  const { call, vp, registers } = vmcall;
  const size = get(vmcall, R.r12);
  const direction = get(vmcall, R.r13);
  const gpa = plainGpa(vmcall, get(vmcall, R.r14));
  const sizes = [1n, 2n, 4n, 8n];
  if (!sizes.includes(size) || direction > 1n || gpa === undefined) return invalidOperand;
  // Memory is not for this way in.
  if (isMemory(call.state.td, gpa, Number(size))) return invalidOperand;
  const value = get(vmcall, R.r15);
  const answer = answerMmio(call, vp, {
    kind: 'mmio',
    gpa,
    size: Number(size) as 1 | 2 | 4 | 8,
    write: direction === 1n,
    lo: direction === 1n ? lowHalf(value) : 0,
    hi: direction === 1n ? highHalf(value) : 0,
  });
  registers[R.r11] = answer.kind === 'value' ? BigInt.asUintN(Number(size) * 8, valueOf(answer)) : 0n;
  return success;
}

/** Nothing beyond what GHCI 1.0 demands. */
function getTdVmCallInfo(vmcall: Vmcall): bigint {
  const leaf = get(vmcall, R.r12);
  if (leaf !== 0n) return invalidOperand;
  for (const n of [R.r11, R.r12, R.r13, R.r14]) vmcall.registers[n] = 0n;
  return success;
}

/** Memory that one MapGPA converts before it asks to be called again. */
const MAP_BYTES = 8 << 20;

function mapGpa(vmcall: Vmcall): bigint {
  const { call, vp, registers } = vmcall;
  const { td } = call.state;
  const start = get(vmcall, R.r12);
  const length = get(vmcall, R.r13);
  const bit = sharedBit(call);
  registers[R.r11] = start;
  if (start % BigInt(PAGE) !== 0n || length % BigInt(PAGE) !== 0n) return alignmentError;
  const toShared = (start & bit) !== 0n;
  const gpa = plainGpa(vmcall, start);
  if (gpa === undefined || length === 0n || BigInt(gpa) + length > BigInt(call.view.gpaEnd))
    return invalidOperand;
  const end = gpa + Number(length);
  if (!isMemory(td, gpa, Number(length))) return invalidOperand;
  const stop = Math.min(end, gpa + MAP_BYTES);
  const memory = { view: call.view, td };
  if (toShared) {
    removePrivate(memory, gpa, stop);
    for (let at = gpa; at < stop; at += PAGE) if (!isShared(memory, at)) share(memory, at);
  } else makePrivate(memory, gpa, stop);
  if (call.sink.mask & EVENT_CLASS.privileged)
    call.sink.emit(EVENT.privilegedOperation, call.now, vp.index, PRIVILEGED_OPERATION.mapGpa, gpa, 0, -1);
  if (call.sink.mask & EVENT_CLASS.page && toShared)
    call.sink.emit(EVENT.pageState, call.now, vp.index, gpa, (stop - gpa) / PAGE, 0, -1);
  if (stop === end) return success;
  registers[R.r11] = BigInt(stop) | (toShared ? bit : 0n);
  return retry;
}

/** Shared pages become private ones that wait to be accepted; private ones stay as they are. */
function makePrivate(memory: Parameters<typeof share>[0], start: number, end: number): void {
  for (let gpa = start; gpa < end;) {
    const whole = gpa % BLOCK === 0 && gpa + BLOCK <= end && entryOf(memory, gpa).state === 'free';
    const size = whole ? BLOCK : PAGE;
    for (let at = gpa; at < gpa + size; at += PAGE) if (isShared(memory, at)) unshare(memory, at);
    if (!(whole && augment(memory, gpa, 1)))
      for (let at = gpa; at < gpa + size; at += PAGE)
        if (entryOf(memory, at).state === 'free') augment(memory, at, 0);
    gpa += size;
  }
}

function getQuote(vmcall: Vmcall): bigint {
  const gpa = get(vmcall, R.r12);
  const size = get(vmcall, R.r13);
  const at = plainGpa(vmcall, gpa);
  if ((gpa & sharedBit(vmcall.call)) === 0n || at === undefined) return invalidOperand;
  if (at % PAGE !== 0 || size === 0n || size % BigInt(PAGE) !== 0n) return alignmentError;
  if (size > 0x10_0000n) return invalidOperand;
  return startQuote(vmcall.call, vmcall.vp, at, Number(size)) ? success : invalidOperand;
}

/** The guest gives up: its code, and its text where it fits into registers or lies in shared memory. */
function reportFatalError(vmcall: Vmcall): bigint {
  const { call, vp } = vmcall;
  const code = get(vmcall, R.r12);
  let text: Uint8Array;
  if (code >> 63n === 0n) {
    text = new Uint8Array(64);
    const view = new DataView(text.buffer);
    for (const [k, n] of FATAL_TEXT_REGISTERS.entries()) view.setBigUint64(k * 8, get(vmcall, n), true);
  } else {
    const at = plainGpa(vmcall, get(vmcall, R.r13));
    const read = at === undefined ? undefined : call.view.read(at, PAGE);
    text = read?.ok === true ? read.bytes : new Uint8Array(0);
  }
  const end = text.indexOf(0);
  const message = end < 0 ? text : text.slice(0, end);
  if (call.sink.mask & EVENT_CLASS.lifecycle)
    call.sink.emit(EVENT.termination, call.now, vp.index, -1, Number(code & 0xffff_ffffn), 0, 0);
  call.actions.push({ kind: 'crash', parameters: [code], message });
  return success;
}

function setupEventNotifyInterrupt(vmcall: Vmcall): bigint {
  const vector = get(vmcall, R.r12);
  if (vector < 32n || vector > 255n) return invalidOperand;
  vmcall.call.state.td.notify[vmcall.vp.index] = Number(vector);
  return success;
}

/** RCX, bits 53:52: the VM of the TD that called; 0 is L1. */
const callerOf = ({ registers }: Vmcall): number => Number(((registers[1] ?? 0n) >> 52n) & 3n);

/** R10: control, RDX and R8: input and output; R11: result. Calls that take long are continued here, not by the guest. */
const MOST_CONTINUATIONS = 4096;

function hypercall(vmcall: Vmcall): void {
  const { call, vp, registers, xmm } = vmcall;
  const halves = (value: bigint): readonly [number, number, number, number] => [
    lowHalf(value),
    highHalf(value),
    0,
    0,
  ];
  const names: ReadonlyMap<number, number> = new Map([
    [REGISTER.rcx, R.r10],
    [REGISTER.rdx, R.rdx],
    [REGISTER.r8, R.r8],
  ]);
  const view: HostView = {
    ...call.view,
    getRegister(_vp, name) {
      const n = names.get(name);
      if (n !== undefined) return halves(registers[n] ?? 0n);
      const k = name - REGISTER.xmm0;
      if (k < 0 || k > 15 || xmm === undefined) return undefined;
      return [u32(xmm, k * 16), u32(xmm, k * 16 + 4), u32(xmm, k * 16 + 8), u32(xmm, k * 16 + 12)];
    },
    setRegister(_vp, name, [low, high]) {
      const n = names.get(name);
      if (n === undefined) return false;
      registers[n] = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
      return true;
    },
  };
  const inner = { ...call, view };
  if (call.sink.mask & EVENT_CLASS.hypercall) {
    const code = Number((registers[R.r10] ?? 0n) & 0xffffn);
    call.sink.emit(EVENT.hypercallRoute, call.now, vp.index, code, callerOf(vmcall), -1, 0);
  }
  for (let k = 0; k < MOST_CONTINUATIONS; k++) {
    const answer = answerHypercall(inner, vp, { kind: 'hypercall', long: true, cpl: 0 }, HYPERCALLS, {
      call: inner,
      vp,
    });
    if (answer?.kind === 'again') continue;
    // HV_STATUS_ACCESS_DENIED where there is no answer: the guest has no identity yet.
    registers[R.r11] = answer?.kind === 'value' ? valueOf(answer) : 6n;
    registers[R.r10] = 0n;
    return;
  }
  yieldTurn(call.state, call.now);
}
