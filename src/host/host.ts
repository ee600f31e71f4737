/**
 * The Hyper-V host: (state, event) to (completion, actions). The machine calls it like this, over and over:
 *
 * 1. `hostAdvance` when the clock has reached `hostNextEvent`: timers expire, devices move.
 * 2. `hostTurn` says which VP runs and for how many instructions, or until when all of them wait.
 * 3. The machine runs that VP. Before it starts, and whenever the VP can take one, it asks `hostInterrupt` what is
 *    pending and takes it by `hostAcknowledge` or `hostTakeNmi`.
 * 4. `hostExit` answers the exit. The machine carries out the actions, in order, then completes the instruction.
 */

import { EVENT, EVENT_CLASS } from '../abi/events.ts';
import { REGISTER } from '../abi/hyperv/registers.ts';
import { pressPowerButton } from '../chipset/partition/board.ts';
import { partitionAdvance, partitionNextEvent } from '../chipset/partition/clock.ts';
import {
  answerCpuid,
  answerCr8,
  answerHlt,
  answerHypercall,
  answerIo,
  answerMmio,
  answerMsr,
  answerTripleFault,
  DONE,
  UD,
  value,
} from '../chipset/partition/exits.ts';
import {
  acknowledgeInterrupt,
  apicTscOffset,
  hasExternal,
  hasInterrupt,
  hasNmi,
  setLine,
  setLocalPin,
  skipStartup,
  takeExternal,
  takeNmi,
} from '../chipset/partition/interrupts.ts';
import { serialInput } from '../chipset/partition/serial.ts';
import { partitionVp } from '../chipset/partition/state.ts';
import type { HostAction } from '../seats/actions.ts';
import type { EventSink } from '../seats/events.ts';
import type { Completion, Exit, HypercallExit, IoExit } from '../seats/exits.ts';
import type { Directive } from '../seats/launch.ts';
import type { HostView } from '../seats/host-view.ts';
import type { HostConfig } from './config.ts';
import { HYPERCALLS } from './hypercalls.ts';
import { answerSnpExit, snpEntry, syncPriority } from './snp/exits.ts';
import { launchGuest } from './snp/launch.ts';
import { snpView } from './snp/state.ts';
import { proxyInterrupt, ringDoorbells } from './snp/vtl.ts';
import { endTurn, nextTurn, yieldTurn, type Turn } from './scheduler.ts';
import { createHostState, runtimeOf, type HostCall, type HostState, type VpState } from './state.ts';
import { TEST_DEVICE_PORT, testDeviceWrite } from './test-device.ts';

export type { HostState } from './state.ts';
export type { HostConfig } from './config.ts';
export type { Turn } from './scheduler.ts';

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

/** Carries a launch out, where the silicon leaves that to the host. A sentence when it did not work. */
export function hostLaunch(
  state: HostState,
  directives: readonly Directive[],
  world: HostWorld,
): string | undefined {
  if (state.snp === undefined) return undefined;
  // A paravisor runs on every processor from the start; its guest's wait for it.
  if (state.snp.aliasBit !== 0) for (const vp of state.vps) skipStartup(vp);
  const { isolation } = state.config;
  const hostData = isolation.kind === 'snp' ? isolation.hostData : undefined;
  return launchGuest(state.snp, snpView(world.view), directives, hostData === undefined ? {} : { hostData });
}

/** Answers an exit of VP `vp`. */
export function hostExit(state: HostState, vp: number, exit: Exit, world: HostWorld): HostStep {
  const call = begin(state, world);
  const target = partitionVp(state, vp);
  const completion = state.snp === undefined ? answer(call, target, exit) : answerSnpExit(call, target, exit);
  return { completion, actions: end(call) };
}

function begin(state: HostState, { view, sink, now }: HostWorld): HostCall {
  const call = { state, view, sink, now, actions: [], runtimeOf: (vp: VpState) => runtimeOf(state, vp, now) };
  const isBelow = state.config.isolation.kind === 'snp' && state.config.isolation.aliasBit !== 0;
  return isBelow ? { ...call, proxy: (vp, vector) => proxyInterrupt(call, vp, vector) } : call;
}

/** What the host asks the machine to do. Whatever has come for a paravisor meanwhile is left where it finds it. */
function end(call: HostCall): readonly HostAction[] {
  if (call.proxy !== undefined) ringDoorbells(call);
  return call.actions;
}

function answer(call: HostCall, vp: VpState, exit: Exit): Completion {
  switch (exit.kind) {
    case 'io':
      return call.state.config.testDevice && exit.port === TEST_DEVICE_PORT
        ? testDevicePort(call, exit)
        : answerIo(call, vp, exit);
    case 'mmio':
      return answerMmio(call, vp, exit);
    case 'msr':
      return answerMsr(call, vp, exit);
    case 'cpuid':
      return answerCpuid(call, vp, exit);
    case 'cr8':
      return answerCr8(vp, exit);
    case 'hypercall': {
      if (call.sink.mask & EVENT_CLASS.hypercall) hypercallFromGuest(call, vp, exit);
      const answered = answerHypercall(call, vp, exit, HYPERCALLS, { call, vp });
      if (answered !== undefined) return answered;
      // The test board answers as a hypervisor that does not know the call: kvm-unit-tests' hypercall test asks that.
      return call.state.config.testDevice && exit.cpl === 0 ? value(0xffff_ffff, 0xffff_ffff) : UD;
    }
    case 'hlt':
      return answerHlt(call, vp);
    case 'triple-fault':
      return answerTripleFault(call, vp);
    case 'budget':
      return DONE;
    case 'vmgexit':
    case 'nested-fault':
    case 'entry-failed':
    case 'reflected':
    case 'td-exit':
      throw new RangeError(`VP ${vp.index} of an ordinary partition left by '${exit.kind}'`);
    default:
      return assertNever(exit);
  }
}

/** Of an ordinary partition every hypercall is the guest's own. */
function hypercallFromGuest(
  { view, sink, now }: HostCall,
  { index }: VpState,
  { long }: HypercallExit,
): void {
  const control = view.getRegister(index, long ? REGISTER.rcx : REGISTER.rax)?.[0] ?? 0;
  sink.emit(EVENT.hypercallRoute, now, index, control & 0xffff, 0, -1, 0);
}

function assertNever(exit: never): never {
  throw new TypeError(`host cannot answer exit ${JSON.stringify(exit)}`);
}

function testDevicePort(call: HostCall, { write, value: written }: IoExit): Completion {
  if (!write) return value(0xffff_ffff);
  testDeviceWrite(call, written);
  return DONE;
}

/** Lets everything happen that is due at `now`. */
export function hostAdvance(state: HostState, world: HostWorld): readonly HostAction[] {
  const call = begin(state, world);
  partitionAdvance(call);
  return end(call);
}

/** Virtual time in ns at which `hostAdvance` next has something to do; Infinity: never. */
export function hostNextEvent(state: HostState): number {
  return partitionNextEvent(state);
}

/** Whose turn it is. To be asked again after every exit. */
export function hostTurn(state: HostState, now: number): Turn {
  const turn = nextTurn(state, now, hostNextEvent(state));
  if (turn.kind !== 'run' || state.snp === undefined) return turn;
  return { ...turn, entry: snpEntry(state, partitionVp(state, turn.vp)) };
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
  const target = partitionVp(state, vp);
  if (state.snp !== undefined) syncPriority(state, target);
  if (hasNmi(target)) return 'nmi';
  if (hasExternal(target)) return 'external';
  return hasInterrupt(target) ? 'interrupt' : 'none';
}

/** Takes the pending interrupt: its vector. */
export function hostAcknowledge(state: HostState, vp: number, world: HostWorld): number {
  const vector = acknowledgeInterrupt(partitionVp(state, vp));
  if (world.sink.mask & EVENT_CLASS.interrupt) {
    world.sink.emit(EVENT.interruptAcknowledged, world.now, vp, vector, 0, 0, 0);
  }
  return vector;
}

export function hostTakeNmi(state: HostState, vp: number): void {
  takeNmi(partitionVp(state, vp));
}

/** Bytes for a UART of the guest. `taken`: how many; the rest may be offered again later. */
export function hostSerialInput(
  state: HostState,
  unit: number,
  bytes: Uint8Array,
  world: HostWorld,
): { readonly taken: number; readonly actions: readonly HostAction[] } {
  const call = begin(state, world);
  return { taken: serialInput(call, unit, bytes), actions: end(call) };
}

/** The ACPI power button: the guest's operating system decides what it means. */
export function hostPowerButton(state: HostState, world: HostWorld): readonly HostAction[] {
  const call = begin(state, world);
  pressPowerButton(call);
  return end(call);
}

export function hostTakeExternal(state: HostState, vp: number): void {
  takeExternal(partitionVp(state, vp));
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
  return end(call);
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
  setLocalPin(call, partitionVp(state, vp), pin, high);
  return end(call);
}

/** The guest wrote the VP's TSC or TSC_ADJUST: what the TSC would have been at virtual time 0, modulo 2^64. */
export function hostTscOffset(state: HostState, vp: number, now: number, lo: number, hi: number): void {
  apicTscOffset(partitionVp(state, vp), now, lo, hi);
}

/** Hidden pages that show, and where. */
export function hostOverlays(state: HostState): { readonly slot: number; readonly gpa: number }[] {
  return Object.entries(state.overlays).flatMap(([slot, { gpa }]) =>
    gpa === undefined ? [] : [{ slot: Number(slot), gpa }],
  );
}
