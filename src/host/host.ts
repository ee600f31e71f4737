/**
 * The Hyper-V host: (state, event) to (completion, actions). The machine calls it like this, over and over:
 *
 * 1. `hostAdvance` when the clock has reached `hostNextEvent`: timers expire, devices move.
 * 2. `hostTurn` says which VP runs and for how many instructions, or until when all of them wait.
 * 3. The machine runs that VP. Before it starts, and whenever the VP can take one, it asks `hostInterrupt` what is
 *    pending and takes it by `hostAcknowledge` or `hostTakeNmi`.
 * 4. `hostExit` answers the exit. The machine carries out the actions, in order, then completes the instruction.
 */

import { REGISTER } from '../abi/hyperv/registers.ts';
import { readControl, type Control } from '../abi/hyperv/hypercall.ts';
import { EVENT, EVENT_CLASS } from '../abi/events.ts';
import { setU32 } from '../abi/record.ts';
import { dispatchHypercall, type HypercallPort } from '../chipset/hypercall.ts';
import { timersNextEvent } from '../chipset/stimer.ts';
import type { HostAction } from '../seats/actions.ts';
import type { EventSink } from '../seats/events.ts';
import type { Completion, Cr8Exit, Exit, HypercallExit, IoExit, MmioExit, MsrExit } from '../seats/exits.ts';
import type { HostView } from '../seats/host-view.ts';
import {
  boardAdvance,
  boardNextEvent,
  boardRead,
  boardReadMemory,
  boardWrite,
  boardWriteMemory,
  endRun,
  pressPowerButton,
} from './board.ts';
import type { HostConfig } from './config.ts';
import { answerCpuid, FEATURES, PRIVILEGES_HIGH } from './cpuid.ts';
import { FEATURE } from '../abi/hyperv/cpuid.ts';
import { HYPERCALLS } from './hypercalls.ts';
import {
  acknowledgeInterrupt,
  apicRead,
  apicReadCr8,
  apicReadMsr,
  apicTimerAdvance,
  apicTimerNextEvent,
  apicTscOffset,
  apicWrite,
  apicWriteCr8,
  apicWriteMsr,
  hasExternal,
  hasInterrupt,
  hasNmi,
  isApicEnabled,
  isApicMsr,
  isApicPage,
  setLine,
  setLocalPin,
  takeExternal,
  takeNmi,
} from './interrupts.ts';
import { runTimers } from './messages.ts';
import { isSynthetic, readSynthetic, writeSynthetic } from './msr.ts';
import { endTurn, nextTurn, yieldTurn, type Turn } from './scheduler.ts';
import { serialInput } from './serial.ts';
import { createHostState, type HostCall, type HostState, type VpState } from './state.ts';
import { TEST_DEVICE_PORT, testDeviceWrite } from './test-device.ts';

export type { HostState } from './state.ts';
export type { HostConfig } from './config.ts';
export type { Turn } from './scheduler.ts';

const VECTOR_UD = 6;
const VECTOR_GP = 13;
const RFLAGS_IF = 1 << 9;

const DONE: Completion = { kind: 'done' };
const GP: Completion = { kind: 'fault', vector: VECTOR_GP, errorCode: 0 };
const UD: Completion = { kind: 'fault', vector: VECTOR_UD };
const value = (lo: number, hi = 0): Completion => ({ kind: 'value', lo: lo >>> 0, hi: hi >>> 0 });

/** What the host needs of the world during one call. */
export interface HostWorld {
  readonly view: HostView;
  readonly sink: EventSink;
  /** Virtual time in ns. */
  readonly now: number;
}

export interface HostStep {
  readonly completion: Completion;
  readonly actions: readonly HostAction[];
}

export function createHost(config: HostConfig): HostState {
  return createHostState(config);
}

/** Answers an exit of VP `vp`. */
export function hostExit(state: HostState, vp: number, exit: Exit, world: HostWorld): HostStep {
  const call = begin(state, world);
  return { completion: answer(call, vpOf(state, vp), exit), actions: call.actions };
}

function begin(state: HostState, { view, sink, now }: HostWorld): HostCall {
  return { state, view, sink, now, actions: [] };
}

function vpOf(state: HostState, index: number): VpState {
  const vp = state.vps[index];
  if (vp === undefined) throw new RangeError(`VP ${index} of a partition with ${state.vps.length}`);
  return vp;
}

function answer(call: HostCall, vp: VpState, exit: Exit): Completion {
  switch (exit.kind) {
    case 'io':
      return io(call, vp, exit);
    case 'mmio':
      return mmio(call, vp, exit);
    case 'msr':
      return msr(call, vp, exit);
    case 'cpuid': {
      const { config, tscInvariantExposed } = call.state;
      const subject = { config, apicId: vp.index, apicEnabled: isApicEnabled(vp), tscInvariantExposed };
      const registers = answerCpuid(subject, exit.leaf, exit.subleaf, exit.native);
      if (call.sink.mask & EVENT_CLASS.cpuid) {
        call.sink.emit(
          EVENT.cpuid,
          call.now,
          vp.index,
          exit.leaf,
          exit.subleaf,
          registers.eax,
          registers.ebx,
        );
      }
      return { kind: 'registers', ...registers };
    }
    case 'cr8':
      return cr8(vp, exit);
    case 'hypercall':
      return hypercall(call, vp, exit);
    case 'hlt':
      return halt(call, vp);
    case 'triple-fault':
      if (call.sink.mask & EVENT_CLASS.lifecycle) {
        call.sink.emit(EVENT.tripleFault, call.now, vp.index, 0, 0, 0, 0);
      }
      endRun(call, 'triple-fault');
      return DONE;
    case 'budget':
      return DONE;
    default:
      return assertNever(exit);
  }
}

function assertNever(exit: never): never {
  throw new TypeError(`host cannot answer exit ${JSON.stringify(exit)}`);
}

function io(call: HostCall, vp: VpState, { port, size, write, value: written }: IoExit): Completion {
  const { config } = call.state;
  let result = written;
  if (config.testDevice && port === TEST_DEVICE_PORT) {
    if (write) testDeviceWrite(call, written);
    else result = 0xffff_ffff;
  } else if (write) {
    boardWrite(call, port, size, written);
  } else {
    result = boardRead(call, port, size);
  }
  if (call.sink.mask & EVENT_CLASS.io) {
    call.sink.emit(EVENT.io, call.now, vp.index, port, size, write ? 1 : 0, result);
  }
  return write ? DONE : value(result);
}

function mmio(call: HostCall, vp: VpState, { gpa, size, write, lo, hi }: MmioExit): Completion {
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

function msr(call: HostCall, vp: VpState, { index, write, lo, hi }: MsrExit): Completion {
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

function readMsr(call: HostCall, vp: VpState, index: number): Completion {
  const read = isSynthetic(index)
    ? readSynthetic(call, vp, index)
    : isApicMsr(index)
      ? apicReadMsr(call, vp, index)
      : undefined;
  return read === undefined ? GP : value(read.lo, read.hi);
}

function writeMsr(call: HostCall, vp: VpState, index: number, lo: number, hi: number): Completion {
  const written = isSynthetic(index)
    ? writeSynthetic(call, vp, index, lo, hi)
    : isApicMsr(index) && apicWriteMsr(call, vp, index, lo, hi);
  return written ? DONE : GP;
}

function cr8(vp: VpState, exit: Cr8Exit): Completion {
  if (!exit.write) return value(apicReadCr8(vp));
  if (exit.value > 15) return GP;
  apicWriteCr8(vp, exit.value);
  return DONE;
}

function halt(call: HostCall, vp: VpState): Completion {
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

function hypercall(call: HostCall, vp: VpState, { long, cpl }: HypercallExit): Completion {
  const { state, view, sink } = call;
  const identified = state.guestOsId.lo !== 0 || state.guestOsId.hi !== 0;
  if (cpl !== 0 || !state.config.hyperv || !identified) {
    if (sink.mask & EVENT_CLASS.hypercall)
      sink.emit(EVENT.hypercallRefused, call.now, vp.index, cpl, 0, 0, 0);
    // The test board answers as a hypervisor that does not know the call: kvm-unit-tests' hypercall test asks that.
    return state.config.testDevice && cpl === 0 ? value(0xffff_ffff, 0xffff_ffff) : UD;
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
    privilegesHigh: PRIVILEGES_HIGH,
    xmmInput: long && (FEATURES & FEATURE.xmmFastInput) !== 0,
    fastOutput: long && (FEATURES & FEATURE.xmmFastOutput) !== 0,
  };
  const outcome = dispatchHypercall(HYPERCALLS, { call, vp }, port);
  const control = readControl(port.control[0], port.control[1]);
  if (outcome.kind === 'again') {
    setControl(call, vp, long, outcome.control);
    return { kind: 'again' };
  }
  trace(call, vp, control, outcome.status, outcome.reps);
  return value(outcome.status, outcome.reps);
}

function trace(call: HostCall, vp: VpState, control: Control, status: number, reps: number): void {
  if (call.sink.mask & EVENT_CLASS.hypercall) {
    call.sink.emit(EVENT.hypercall, call.now, vp.index, control.code, status, reps, control.fast ? 1 : 0);
  }
}

function setControl({ view }: HostCall, vp: VpState, long: boolean, [low, high]: Halves): void {
  if (long) {
    view.setRegister(vp.index, LONG_MODE.control, [low, high, 0, 0]);
  } else {
    view.setRegister(vp.index, PROTECTED_MODE.control[0], [low, 0, 0, 0]);
    view.setRegister(vp.index, PROTECTED_MODE.control[1], [high, 0, 0, 0]);
  }
}

function readXmm({ view }: HostCall, vp: VpState, index: number): Uint8Array | undefined {
  const register = view.getRegister(vp.index, REGISTER.xmm0 + index);
  if (register === undefined) return undefined;
  const bytes = new Uint8Array(16);
  register.forEach((word, i) => setU32(bytes, 4 * i, word));
  return bytes;
}

function writeFast({ view }: HostCall, vp: VpState, qword: number, low: number, high: number): void {
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

/** Lets everything happen that is due at `now`. */
export function hostAdvance(state: HostState, world: HostWorld): readonly HostAction[] {
  const call = begin(state, world);
  for (const vp of state.vps) {
    if (timersNextEvent(vp.timers) <= call.now) runTimers(call, vp);
    apicTimerAdvance(call, vp);
  }
  boardAdvance(call);
  return call.actions;
}

/** Virtual time in ns at which `hostAdvance` next has something to do; Infinity: never. */
export function hostNextEvent(state: HostState): number {
  let next = boardNextEvent(state);
  for (const vp of state.vps) next = Math.min(next, timersNextEvent(vp.timers), apicTimerNextEvent(vp));
  return next;
}

/** Whose turn it is. To be asked again after every exit. */
export function hostTurn(state: HostState, now: number): Turn {
  return nextTurn(state, now, hostNextEvent(state));
}

/** The VP whose turn it is gives way: for a machine that sees it spin. */
export function hostYield(state: HostState, now: number): void {
  yieldTurn(state, now);
}

/** Closes the books on virtual CPU time, before a snapshot's report for example. */
export function hostEndTurn(state: HostState, now: number): void {
  endTurn(state, now);
}

/**
 * What waits for the VP; NMIs first. The machine knows whether the VP can take it now. `external`: an 8259A that the
 * machine has put on the board has a vector (`hostTakeExternal`).
 */
export function hostInterrupt(state: HostState, vp: number): 'none' | 'interrupt' | 'external' | 'nmi' {
  const target = vpOf(state, vp);
  if (hasNmi(target)) return 'nmi';
  if (hasExternal(target)) return 'external';
  return hasInterrupt(target) ? 'interrupt' : 'none';
}

/** Takes the pending interrupt: its vector. */
export function hostAcknowledge(state: HostState, vp: number, world: HostWorld): number {
  const vector = acknowledgeInterrupt(vpOf(state, vp));
  if (world.sink.mask & EVENT_CLASS.interrupt) {
    world.sink.emit(EVENT.interruptAcknowledged, world.now, vp, vector, 0, 0, 0);
  }
  return vector;
}

export function hostTakeNmi(state: HostState, vp: number): void {
  takeNmi(vpOf(state, vp));
}

/** Bytes for a UART of the guest. `taken`: how many; the rest may be offered again later. */
export function hostSerialInput(
  state: HostState,
  unit: number,
  bytes: Uint8Array,
  world: HostWorld,
): { readonly taken: number; readonly actions: readonly HostAction[] } {
  const call = begin(state, world);
  return { taken: serialInput(call, unit, bytes), actions: call.actions };
}

/** The ACPI power button: the guest's operating system decides what it means. */
export function hostPowerButton(state: HostState, world: HostWorld): readonly HostAction[] {
  const call = begin(state, world);
  pressPowerButton(call);
  return call.actions;
}

export function hostTakeExternal(state: HostState, vp: number): void {
  takeExternal(vpOf(state, vp));
}

/** A device that the machine has put on the board drives a pin of the IO-APIC. */
export function hostSetLine(
  state: HostState,
  pin: number,
  asserted: boolean,
  world: HostWorld,
): readonly HostAction[] {
  const call = begin(state, world);
  setLine(call, pin, asserted);
  return call.actions;
}

/** The same for LINT0 (where an 8259A's INTR goes) or LINT1 of a VP. */
export function hostSetLocalPin(
  state: HostState,
  vp: number,
  pin: 0 | 1,
  high: boolean,
  world: HostWorld,
): readonly HostAction[] {
  const call = begin(state, world);
  setLocalPin(call, vpOf(state, vp), pin, high);
  return call.actions;
}

/** The guest wrote the VP's TSC or TSC_ADJUST: what the TSC would have been at virtual time 0, modulo 2^64. */
export function hostTscOffset(state: HostState, vp: number, now: number, lo: number, hi: number): void {
  apicTscOffset(vpOf(state, vp), now, lo, hi);
}

/** Hidden pages that show, and where. */
export function hostOverlays(state: HostState): { readonly slot: number; readonly gpa: number }[] {
  return Object.entries(state.overlays).flatMap(([slot, { gpa }]) =>
    gpa === undefined ? [] : [{ slot: Number(slot), gpa }],
  );
}
