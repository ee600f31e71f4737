/**
 * Exits that the owner of a partition's processors answers from the partition's own state, whichever party it is.
 */

import { REGISTER } from '../../abi/hyperv/registers.ts';
import { FEATURE } from '../../abi/hyperv/cpuid.ts';
import { readControl, type Control } from '../../abi/hyperv/hypercall.ts';
import { EVENT, EVENT_CLASS, PAGE_USE } from '../../abi/events.ts';
import { setU32 } from '../../abi/record.ts';
import type {
  Completion,
  Cr8Exit,
  CpuidExit,
  HypercallExit,
  IoExit,
  MmioExit,
  MsrExit,
} from '../../seats/exits.ts';
import { dispatchHypercall, type HypercallPort, type HypercallTable } from '../hypercall.ts';
import { boardRead, boardReadMemory, boardWrite, boardWriteMemory, endRun } from './board.ts';
import { cpuidOf } from './cpuid.ts';
import {
  apicRead,
  apicReadCr8,
  apicReadMsr,
  apicWrite,
  apicWriteCr8,
  apicWriteMsr,
  isApicEnabled,
  isApicMsr,
  isApicPage,
} from './interrupts.ts';
import { isSynthetic, readSynthetic, writeSynthetic } from './msr.ts';
import type { PartitionCall, VpState } from './state.ts';

const VECTOR_UD = 6;
const VECTOR_GP = 13;
const RFLAGS_IF = 1 << 9;

export const DONE: Completion = { kind: 'done' };
export const GP: Completion = { kind: 'fault', vector: VECTOR_GP, errorCode: 0 };
export const UD: Completion = { kind: 'fault', vector: VECTOR_UD };
export const value = (lo: number, hi = 0): Completion => ({ kind: 'value', lo: lo >>> 0, hi: hi >>> 0 });

export function answerIo(
  call: PartitionCall,
  vp: VpState,
  { port, size, write, value: written }: IoExit,
): Completion {
  let result = written;
  if (write) boardWrite(call, port, size, written);
  else result = boardRead(call, port, size);
  if (call.sink.mask & EVENT_CLASS.io) {
    call.sink.emit(EVENT.io, call.now, vp.index, port, size, write ? 1 : 0, result);
  }
  return write ? DONE : value(result);
}

export function answerMmio(
  call: PartitionCall,
  vp: VpState,
  { gpa, size, write, lo, hi }: MmioExit,
): Completion {
  let result: readonly [number, number] = [lo, hi];
  if (isApicPage(vp, gpa)) {
    if (write) apicWrite(call, vp, gpa % 0x1000, size, lo);
    else result = [apicRead(call, vp, gpa % 0x1000, size), 0];
  } else if (write) {
    boardWriteMemory(call, gpa, lo);
  } else {
    result = boardReadMemory(call, gpa, size);
  }
  if (call.sink.mask & EVENT_CLASS.io) {
    call.sink.emit(EVENT.mmio, call.now, vp.index, gpa, size, write ? 1 : 0, result[0]);
  }
  return write ? DONE : value(...result);
}

export function answerMsr(call: PartitionCall, vp: VpState, { index, write, lo, hi }: MsrExit): Completion {
  const completion = write ? writeMsr(call, vp, index, lo, hi) : readMsr(call, vp, index);
  if (call.sink.mask & EVENT_CLASS.msr) {
    if (completion.kind === 'fault') {
      call.sink.emit(EVENT.msrFault, call.now, vp.index, index, write ? 1 : 0, lo, hi);
    } else if (completion.kind === 'value') {
      call.sink.emit(EVENT.msrRead, call.now, vp.index, index, completion.lo, completion.hi, 0);
    } else {
      call.sink.emit(EVENT.msrWrite, call.now, vp.index, index, lo, hi, 0);
    }
  }
  return completion;
}

function readMsr(call: PartitionCall, vp: VpState, index: number): Completion {
  const read = isSynthetic(index)
    ? readSynthetic(call, vp, index)
    : isApicMsr(index)
      ? apicReadMsr(call, vp, index)
      : undefined;
  return read === undefined ? GP : value(read.lo, read.hi);
}

function writeMsr(call: PartitionCall, vp: VpState, index: number, lo: number, hi: number): Completion {
  const written = isSynthetic(index)
    ? writeSynthetic(call, vp, index, lo, hi)
    : isApicMsr(index) && apicWriteMsr(call, vp, index, lo, hi);
  return written ? DONE : GP;
}

export function answerCr8(vp: VpState, exit: Cr8Exit): Completion {
  if (!exit.write) return value(apicReadCr8(vp));
  if (exit.value > 15) return GP;
  apicWriteCr8(vp, exit.value);
  return DONE;
}

export function answerHlt(call: PartitionCall, vp: VpState): Completion {
  const flags = call.view.getRegister(vp.index, REGISTER.rflags);
  // A view that hides the flags leaves the host to believe that the guest wants to be woken.
  vp.haltedWithInterrupts = flags === undefined || (flags[0] & RFLAGS_IF) !== 0;
  vp.activity = 'halted';
  if (call.sink.mask & EVENT_CLASS.exit) call.sink.emit(EVENT.halt, call.now, vp.index, 0, 0, 0, 0);
  return DONE;
}

type Halves = readonly [low: number, high: number];

/** Registers of the two calling conventions (TLFS 3.7.1 and 3.7.2). */
const LONG_MODE = { control: REGISTER.rcx, input: REGISTER.rdx, output: REGISTER.r8 };
const PROTECTED_MODE = {
  control: [REGISTER.rax, REGISTER.rdx],
  input: [REGISTER.rcx, REGISTER.rbx],
  output: [REGISTER.rsi, REGISTER.rdi],
} as const;

/** `undefined`: it is not served at all, for want of an identity or a privilege level. */
export function answerHypercall<Context>(
  call: PartitionCall,
  vp: VpState,
  { long, cpl }: HypercallExit,
  table: HypercallTable<Context>,
  context: Context,
): Completion | undefined {
  const { state, view, sink } = call;
  const identified = state.guestOsId.lo !== 0 || state.guestOsId.hi !== 0;
  if (cpl !== 0 || !state.config.hyperv || !identified) {
    if (sink.mask & EVENT_CLASS.hypercall)
      sink.emit(EVENT.hypercallRefused, call.now, vp.index, cpl, 0, 0, 0);
    return undefined;
  }
  const read = (name: number): Halves => {
    const register = view.getRegister(vp.index, name);
    return register === undefined ? [0, 0] : [register[0], register[1]];
  };
  const pair = (names: readonly [number, number]): Halves => [read(names[0])[0], read(names[1])[0]];
  const inputRegister = long ? read(LONG_MODE.input) : pair(PROTECTED_MODE.input);
  const outputRegister = long ? read(LONG_MODE.output) : pair(PROTECTED_MODE.output);
  const port: HypercallPort = {
    memory: view,
    control: long ? read(LONG_MODE.control) : pair(PROTECTED_MODE.control),
    input: inputRegister,
    output: outputRegister,
    readXmm: (index) => readXmm(call, vp, index),
    writeFast: (qword, low, high) => writeFast(call, vp, qword, low, high),
    privilegesHigh: state.offer.privilegesHigh,
    xmmInput: long && (state.offer.features & FEATURE.xmmFastInput) !== 0,
    fastOutput: long && (state.offer.features & FEATURE.xmmFastOutput) !== 0,
  };
  const outcome = dispatchHypercall(table, context, port);
  const control = readControl(port.control[0], port.control[1]);
  if (outcome.kind === 'again') {
    setControl(call, vp, long, outcome.control);
    return { kind: 'again' };
  }
  trace(call, vp, control, outcome.status, outcome.reps);
  if (!control.fast && sink.mask & EVENT_CLASS.page) {
    useOf(call, vp, inputRegister, PAGE_USE.hypercallInput, control.code);
    useOf(call, vp, outputRegister, PAGE_USE.hypercallOutput, control.code);
  }
  return value(outcome.status, outcome.reps);
}

function trace(call: PartitionCall, vp: VpState, control: Control, status: number, reps: number): void {
  if (call.sink.mask & EVENT_CLASS.hypercall) {
    call.sink.emit(EVENT.hypercall, call.now, vp.index, control.code, status, reps, control.fast ? 1 : 0);
  }
}

/** A register that named a page of parameters of the call `code`; 0 stands for none. */
function useOf(
  { sink, now }: PartitionCall,
  vp: VpState,
  [low, high]: Halves,
  use: number,
  code: number,
): void {
  const gpa = high * 0x1_0000_0000 + low;
  if (gpa !== 0) sink.emit(EVENT.pageUse, now, vp.index, gpa, use, code, 0);
}

function setControl({ view }: PartitionCall, vp: VpState, long: boolean, [low, high]: Halves): void {
  if (long) {
    view.setRegister(vp.index, LONG_MODE.control, [low, high, 0, 0]);
  } else {
    view.setRegister(vp.index, PROTECTED_MODE.control[0], [low, 0, 0, 0]);
    view.setRegister(vp.index, PROTECTED_MODE.control[1], [high, 0, 0, 0]);
  }
}

function readXmm({ view }: PartitionCall, vp: VpState, index: number): Uint8Array | undefined {
  const register = view.getRegister(vp.index, REGISTER.xmm0 + index);
  if (register === undefined) return undefined;
  const bytes = new Uint8Array(16);
  register.forEach((word, i) => setU32(bytes, 4 * i, word));
  return bytes;
}

function writeFast({ view }: PartitionCall, vp: VpState, qword: number, low: number, high: number): void {
  if (qword < 2) {
    view.setRegister(vp.index, qword === 0 ? LONG_MODE.input : LONG_MODE.output, [low, high, 0, 0]);
    return;
  }
  const name = REGISTER.xmm0 + ((qword - 2) >> 1);
  const old = view.getRegister(vp.index, name) ?? [0, 0, 0, 0];
  view.setRegister(
    vp.index,
    name,
    qword % 2 === 0 ? [low, high, old[2], old[3]] : [old[0], old[1], low, high],
  );
}

export function answerCpuid(call: PartitionCall, vp: VpState, exit: CpuidExit): Completion {
  const { config, offer, tscInvariantExposed } = call.state;
  const subject = { config, offer, apicId: vp.index, apicEnabled: isApicEnabled(vp), tscInvariantExposed };
  const registers = cpuidOf(subject, exit.leaf, exit.subleaf, exit.native);
  if (call.sink.mask & EVENT_CLASS.cpuid) {
    call.sink.emit(EVENT.cpuid, call.now, vp.index, exit.leaf, exit.subleaf, registers.eax, registers.ebx);
  }
  return { kind: 'registers', ...registers };
}

export function answerTripleFault(call: PartitionCall, vp: VpState): Completion {
  if (call.sink.mask & EVENT_CLASS.lifecycle) {
    call.sink.emit(EVENT.tripleFault, call.now, vp.index, 0, 0, 0, 0);
  }
  endRun(call, 'triple-fault');
  return DONE;
}
