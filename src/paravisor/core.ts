/**
 * The paravisor's policy, the same on every processor: what its guest's exits and the host's events lead to, and what comes next.
 * (state, event) to actions: `guestExited`, `hostAnswered`, `hostInterrupted` take an event, `nextStep` says what to do.
 */

import { EVENT, EVENT_CLASS, INJECTION_OUTCOME } from '../abi/events.ts';
import type { ExitKind } from '../abi/exit-kinds.ts';
import { MSR } from '../abi/hyperv/msr.ts';
import { SINT } from '../abi/hyperv/synic.ts';
import { highHalf, lowHalf } from '../abi/record.ts';
import { isRunnable } from '../chipset/partition/activity.ts';
import { boardNextEvent, PM_PORT } from '../chipset/partition/board.ts';
import { partitionAdvance } from '../chipset/partition/clock.ts';
import {
  acceptInterrupt,
  apicTimerNextEvent,
  hasNmi,
  pendingVector,
  requestInterrupt,
  setLine,
  takeNmi,
} from '../chipset/partition/interrupts.ts';
import { serialInput, UNITS } from '../chipset/partition/serial.ts';
import { partitionVp, type VpState } from '../chipset/partition/state.ts';
import { PM } from '../chipset/pm.ts';
import { tscAt } from '../chipset/reference-time.ts';
import { timersNextEvent } from '../chipset/stimer.ts';
import type { HostAction } from '../seats/actions.ts';
import type { EventSink } from '../seats/events.ts';
import { answerGuest, completeFromHost, type GuestCompletion, type GuestExit } from './exits.ts';
import type { OpcodeTable } from './emulate.ts';
import { hasPart } from './parts.ts';
import type { Processor } from './processor.ts';
import { FAILURE, type HostAnswer, type HostRequest } from './requests.ts';
import { ask, type GuestVp, type ParavisorCall, type ParavisorState } from './state.ts';

/** What one turn of the paravisor works with. */
export interface ParavisorWorld {
  readonly processor: Processor;
  readonly sink: EventSink;
  readonly now: number;
  readonly opcodes: OpcodeTable;
}

export type Step =
  | { readonly kind: 'ask'; readonly request: HostRequest }
  /** Run the guest, which takes `vector` (-1: none) or an NMI as soon as the architecture allows it. */
  | { readonly kind: 'enter'; readonly vector: number; readonly nmi: boolean }
  /** Nothing to do until the host has something. */
  | { readonly kind: 'wait' };

/** Names of exits in events. */
export const KIND_OF: Readonly<Record<GuestExit['kind'], ExitKind>> = {
  io: 'io',
  msr: 'msr',
  cpuid: 'cpuid',
  cr8: 'cr8',
  hypercall: 'hypercall',
  hlt: 'hlt',
  'triple-fault': 'triple-fault',
  memory: 'mmio',
  'string-io': 'io',
  skip: 'cache',
  counter: 'pmc',
  undefined: 'io',
};

export function guestVp(state: ParavisorState, index: number): GuestVp {
  const guest = state.guests[index];
  if (guest === undefined) throw new RangeError(`VP ${index} of a VM with ${state.guests.length}`);
  return guest;
}

function begin(state: ParavisorState, { processor, sink, now }: ParavisorWorld): ParavisorCall {
  return { state, processor, view: processor.view, sink, now, actions: [] };
}

/** The processor has delivered the vector that it was given. */
export function interruptTaken(state: ParavisorState, index: number): void {
  const guest = guestVp(state, index);
  if (guest.offered >= 0) acceptInterrupt(partitionVp(state, index), guest.offered);
  guest.offered = -1;
}

/** The guest of VP `index` has stopped. `undefined`: its exit waits for the host. */
export function guestExited(
  state: ParavisorState,
  index: number,
  exit: GuestExit,
  world: ParavisorWorld,
): GuestCompletion | undefined {
  const call = begin(state, world);
  const guest = guestVp(state, index);
  const completion = answerGuest(call, partitionVp(state, index), guest, exit, world.opcodes);
  guest.exit = completion === undefined ? exit : undefined;
  carryOut(call, guest);
  return completion;
}

/** The host has answered the first request of VP `index`. The completion is for the guest's exit, if that waited for it. */
export function hostAnswered(
  state: ParavisorState,
  index: number,
  answer: HostAnswer,
  world: ParavisorWorld,
): GuestCompletion | undefined {
  const guest = guestVp(state, index);
  guest.asked = false;
  const outgoing = guest.outbox.shift();
  if (outgoing === undefined) throw new Error(`VP ${index} has an answer to nothing`);
  const { purpose } = outgoing;
  // Wake-ups, timers and bytes are best effort: a host that refuses them only delays.
  if (purpose === 'none' || purpose === 'setup') return undefined;
  if (typeof purpose === 'object') {
    if (answer.ok) consoleAnswered(state, guest, purpose.unit, purpose.byte, answer.lo, world);
    return undefined;
  }
  const { exit } = guest;
  if (exit === undefined) throw new Error(`VP ${index} has an answer for an exit that does not wait`);
  const call = begin(state, world);
  const vp = partitionVp(state, index);
  if (purpose === 'again') {
    if (guest.change === undefined) guest.answer = answer;
    else guest.change = { ...guest.change, answered: answer.ok };
    return guestExited(state, index, exit, world);
  }
  const completion = completeFromHost(call, vp, guest, exit, answer);
  guest.exit = completion === undefined ? exit : undefined;
  carryOut(call, guest);
  return completion;
}

/**
 * The host has an interrupt for the guest. Only those come through that the guest has announced by a proxy SINT (Linux 6.12
 * mshyperv.c hv_set_msr): whatever else a host sends is dropped. A host that owns the local APIC knows alone what is in service
 * there, so what it sends is over for the paravisor as soon as the guest has taken it.
 */
export function hostInterrupted(
  state: ParavisorState,
  index: number,
  vector: number,
  world: ParavisorWorld,
): void {
  const call = begin(state, world);
  const vp = partitionVp(state, index);
  const announced = vp.synic.sints.some(
    ({ lo }) => (lo & SINT.proxy) !== 0 && (lo & SINT.masked) === 0 && (lo & SINT.vectorMask) === vector,
  );
  const unfiltered = !hasPart(state.config.parts, 'irq.filtered') && vector >= 16;
  const passes = announced || unfiltered;
  if (!passes && call.sink.mask & EVENT_CLASS.exception) {
    call.sink.emit(EVENT.injection, call.now, index, vector, 0, INJECTION_OUTCOME.filtered, contextOf(state));
  }
  if (passes) requestInterrupt(call, vp, vector, { autoEoi: !hasPart(state.config.parts, 'irq.apic') });
}

const UART_LINE_STATUS = 5;
const UART_DATA = 0;
const DATA_READY = 1;

/**
 * A UART of the host interrupts: what it has received is fetched byte by byte and comes out of the guest's UART. When that is the
 * host's own, its line is all there is to pass on.
 */
export function hostConsole(state: ParavisorState, index: number, world: ParavisorWorld): void {
  const guest = guestVp(state, index);
  const mine = hasPart(state.config.parts, 'dev.legacy');
  for (const unit of state.serial.keys()) {
    if (mine) askConsole(guest, unit, UART_LINE_STATUS, false);
    else for (const high of [true, false]) setLine(begin(state, world), UNITS[unit]?.pin ?? 0, high);
  }
}

function askConsole(guest: GuestVp, unit: number, register: number, byte: boolean): void {
  const port = (UNITS[unit]?.port ?? 0) + register;
  ask(guest, { kind: 'io', port, size: 1, write: false, value: 0 }, { unit, byte });
}

function consoleAnswered(
  state: ParavisorState,
  guest: GuestVp,
  unit: number,
  byte: boolean,
  value: number,
  world: ParavisorWorld,
): void {
  if (!byte) {
    if ((value & DATA_READY) !== 0) askConsole(guest, unit, UART_DATA, true);
    return;
  }
  const call = begin(state, world);
  serialInput(call, unit, Uint8Array.of(value & 0xff));
  carryOut(call, guest);
  askConsole(guest, unit, UART_LINE_STATUS, false);
}

/** An event that no paravisor lets through: the host has no business with exceptions and NMIs of the guest. */
export function hostEventRefused(
  state: ParavisorState,
  index: number,
  vector: number,
  type: number,
  { sink, now }: ParavisorWorld,
): void {
  if (sink.mask & EVENT_CLASS.exception) {
    sink.emit(EVENT.injection, now, index, vector, type, INJECTION_OUTCOME.filtered, contextOf(state));
  }
}

const contextOf = ({ config }: ParavisorState): number => (config.vendor === 'amd' ? 2 : 1);

/** What VP `index` does next. To be asked after each event, until it enters the guest, waits, or asks the host. */
export function nextStep(state: ParavisorState, index: number, world: ParavisorWorld): Step {
  const call = begin(state, world);
  const guest = guestVp(state, index);
  guest.woken = false;
  partitionAdvance(call);
  carryOut(call, guest);
  wakeOthers(state, guest);
  const vp = partitionVp(state, index);
  const runs = guest.exit === undefined && isRunnable(vp);
  setTimer(state, guest, vp, world.now);
  const first = guest.outbox[0];
  if (first !== undefined) {
    guest.asked = true;
    return { kind: 'ask', request: first.request };
  }
  if (!runs) return { kind: 'wait' };
  vp.activity = 'running';
  const nmi = hasNmi(vp);
  if (nmi) takeNmi(vp);
  guest.offered = pendingVector(vp);
  guest.entered = true;
  return { kind: 'enter', vector: guest.offered, nmi };
}

/** What the partition's models ask for, done by the processor or by the host. */
function carryOut(call: ParavisorCall, guest: GuestVp): void {
  for (const action of call.actions.splice(0)) act(call, guest, action);
}

function act(call: ParavisorCall, guest: GuestVp, action: HostAction): void {
  const { processor, state } = call;
  switch (action.kind) {
    case 'init':
      processor.init(action.vp);
      guestVp(state, action.vp).offered = -1;
      return;
    case 'startup':
    case 'start-context':
      if (!hasPart(state.config.parts, 'ap.start')) {
        partitionVp(state, action.vp).activity = 'waiting';
        return;
      }
      if (action.kind === 'startup') processor.startup(action.vp, action.vector);
      else processor.startContext(action.vp, action.context);
      return;
    case 'flush-tlb':
      processor.flush(action.vps);
      return;
    case 'serial': {
      // The guest's console is the host's to show.
      const port = UNITS[action.unit]?.port ?? 0;
      for (const byte of action.bytes) ask(guest, { kind: 'io', port, size: 1, write: true, value: byte });
      return;
    }
    case 'crash':
      for (const [i, value] of action.parameters.entries()) {
        ask(guest, {
          kind: 'msr',
          index: MSR.crashP0 + i,
          write: true,
          lo: lowHalf(value),
          hi: highHalf(value),
        });
      }
      // Without its message: that lies in memory which is the guest's own.
      ask(guest, { kind: 'msr', index: MSR.crashCtl, write: true, lo: 0, hi: 0x8000_0000 });
      return;
    case 'terminate':
      // No owner of a partition asks for its own end in that way.
      return;
    case 'end':
      endAtHost(state, guest, action.reason);
      return;
    default:
      assertNever(action);
  }
}

function assertNever(action: never): never {
  throw new TypeError(`paravisor cannot do ${JSON.stringify(action)}`);
}

const SLEEP_ENABLE = 1 << 13;
const SLEEP_TYPE_SHIFT = 10;
const RESET_NOW: HostRequest = { kind: 'msr', index: MSR.reset, write: true, lo: 1, hi: 0 };

function endAtHost(
  state: ParavisorState,
  guest: GuestVp,
  reason: Extract<HostAction, { kind: 'end' }>['reason'],
): void {
  switch (reason) {
    case 'power-off':
    case 'hibernate': {
      const { powerOffType, hibernateType } = state.pm;
      const type = reason === 'power-off' ? powerOffType : hibernateType;
      const value = SLEEP_ENABLE | (type << SLEEP_TYPE_SHIFT);
      ask(guest, { kind: 'io', port: PM_PORT + PM.control, size: 2, write: true, value });
      return;
    }
    case 'reset':
      ask(guest, RESET_NOW);
      return;
    case 'triple-fault':
      ask(guest, { kind: 'fail', reason: FAILURE.exit });
      return;
  }
}

/** Others for whom something has come run on their own processors: the host must be asked to let them. */
function wakeOthers(state: ParavisorState, guest: GuestVp): void {
  for (const other of state.guests) {
    if (other === guest || other.woken || other.asked) continue;
    if (!needsToRun(state, other)) continue;
    other.woken = true;
    ask(guest, { kind: 'wake', vp: other.index });
  }
}

function needsToRun(state: ParavisorState, guest: GuestVp): boolean {
  const vp = partitionVp(state, guest.index);
  if (vp.activity === 'waiting') return false;
  if (!guest.entered) return isRunnable(vp);
  const vector = pendingVector(vp);
  return hasNmi(vp) || (vector >= 0 && vector !== guest.offered);
}

/** x2APIC number of the TSC-deadline register (Intel SDM vol. 3, 11.5.4.1). */
const TSC_DEADLINE = 0x6e0;

/**
 * The host's timer wakes the paravisor when something is due. It is a convenience: time itself comes from the processor, and a
 * host that lets the timer expire early or late only costs time.
 */
function setTimer(state: ParavisorState, guest: GuestVp, vp: VpState, now: number): void {
  if (!hasPart(state.config.parts, 'irq.apic')) return;
  let due = Math.min(timersNextEvent(vp.timers), apicTimerNextEvent(vp));
  if (guest.index === 0) due = Math.min(due, boardNextEvent(state));
  if (guest.timer <= now) guest.timer = Infinity;
  if (due >= guest.timer) return;
  guest.timer = due;
  // The deadline is met when the TSC has reached it: round up to the tick that belongs to the time.
  const tsc = tscAt(state.time, due) + (due % 1 === 0 ? 0n : 1n);
  ask(guest, { kind: 'msr', index: TSC_DEADLINE, write: true, lo: lowHalf(tsc), hi: highHalf(tsc) });
}
