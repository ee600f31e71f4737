/**
 * Synthetic interrupt controller of one VP (Hyper-V TLFS chapter 11): sixteen interrupt sources, a message page with
 * one slot for each, and a page of event flags.
 *
 * It belongs to whoever owns the VP's local APIC. It reaches the two pages through the memory it is given and
 * says which interrupts to raise; the owner raises them.
 */

import { MSR, PAGE_ENABLE } from '../abi/hyperv/msr.ts';
import {
  EVENT_FLAG_COUNT,
  MESSAGE,
  MESSAGE_PENDING,
  messageHeader,
  PAYLOAD_SIZE,
  SCONTROL_ENABLE,
  SINT,
  SINT_COUNT,
  SLOT_SIZE,
  SYNIC_VERSION,
  timerMessage,
} from '../abi/hyperv/synic.ts';
import type { HostView } from '../seats/host-view.ts';

export interface SynicMessage {
  readonly type: number;
  /** Port or partition that the header names; 0 for the hypervisor itself. */
  readonly sender: bigint;
  readonly payload: Uint8Array;
  /** The synthetic timer that speaks, or -1. */
  readonly timer: number;
}

/** A 64-bit register as its halves. */
export interface Pair {
  readonly lo: number;
  readonly hi: number;
}

export interface SynicState {
  control: Pair;
  flagsPage: Pair;
  messagePage: Pair;
  readonly sints: Pair[];
  /** Messages that wait for the slot of their SINT. */
  readonly queues: SynicMessage[][];
}

/** Fixed interrupt for the VP's local APIC. `autoEoi`: not to be marked in service. */
export interface SynicInterrupt {
  readonly sint: number;
  readonly vector: number;
  readonly autoEoi: boolean;
}

export type SynicMemory = Pick<HostView, 'read' | 'write'>;

/** Bound of one queue: a guest that never empties its slot must not grow the host. */
const QUEUE_LIMIT = 64;

/** Vectors below 16 are not interrupts (TLFS 11.8.2). */
const FIRST_VECTOR = 16;

const ZERO: Pair = { lo: 0, hi: 0 };

export function createSynic(): SynicState {
  return {
    control: ZERO,
    flagsPage: ZERO,
    messagePage: ZERO,
    sints: Array.from({ length: SINT_COUNT }, () => ({ lo: SINT.masked, hi: 0 })),
    queues: Array.from({ length: SINT_COUNT }, () => []),
  };
}

/** Value of a SynIC MSR; `undefined` when this is none of them. */
export function synicReadMsr(state: SynicState, index: number): Pair | undefined {
  switch (index) {
    case MSR.scontrol:
      return state.control;
    case MSR.sversion:
      return { lo: SYNIC_VERSION, hi: 0 };
    case MSR.siefp:
      return state.flagsPage;
    case MSR.simp:
      return state.messagePage;
    case MSR.eom:
      return ZERO;
    default:
      return state.sints[index - MSR.sint0];
  }
}

/**
 * Writes a SynIC MSR. False: the write faults. Afterwards something that waited may be deliverable, so the owner
 * moves the pages, if they changed, and calls `synicDeliver`.
 */
export function synicWriteMsr(state: SynicState, index: number, lo: number, hi: number): boolean {
  switch (index) {
    case MSR.scontrol:
      state.control = { lo, hi };
      return true;
    case MSR.siefp:
      state.flagsPage = { lo, hi };
      return true;
    case MSR.simp:
      state.messagePage = { lo, hi };
      return true;
    case MSR.eom:
      return true;
    case MSR.sversion:
      return false;
    default: {
      const sint = index - MSR.sint0;
      if (sint < 0 || sint >= SINT_COUNT) return false;
      const quiet = (lo & (SINT.masked | SINT.polling)) !== 0;
      if (!quiet && (lo & SINT.vectorMask) < FIRST_VECTOR) return false;
      state.sints[sint] = { lo, hi };
      return true;
    }
  }
}

/** Address that a page register enables, or `undefined`. Addresses above 2^53 cannot be memory of ours. */
export function enabledPage(register: Pair): number | undefined {
  if ((register.lo & PAGE_ENABLE) === 0 || register.hi >= 0x20_0000) return undefined;
  return register.hi * 0x1_0000_0000 + ((register.lo & 0xffff_f000) >>> 0);
}

/** SynIC on and the source not masked: only then messages and flags arrive (TLFS 11.8). */
function receives(state: SynicState, sint: number): boolean {
  const register = state.sints[sint];
  return (
    register !== undefined &&
    (state.control.lo & SCONTROL_ENABLE) !== 0 &&
    (register.lo & (SINT.masked | SINT.proxy)) === 0
  );
}

function interruptOf(state: SynicState, sint: number): SynicInterrupt | undefined {
  const register = state.sints[sint];
  if (register === undefined || (register.lo & (SINT.masked | SINT.polling)) !== 0) return undefined;
  return { sint, vector: register.lo & SINT.vectorMask, autoEoi: (register.lo & SINT.autoEoi) !== 0 };
}

export type PostOutcome = 'queued' | 'dropped' | 'full';

/**
 * Puts a message in line for its SINT; `synicDeliver` then moves it to the slot. A source that does not receive
 * loses a message from a port, as on Hyper-V, but a timer's waits.
 */
export function synicPost(state: SynicState, sint: number, message: SynicMessage): PostOutcome {
  const queue = state.queues[sint];
  if (queue === undefined || message.payload.length > PAYLOAD_SIZE || message.type === MESSAGE.none) {
    throw new RangeError(
      `message of type ${message.type} with ${message.payload.length} bytes for SINT ${sint}`,
    );
  }
  if (message.timer < 0 && !receives(state, sint)) return 'dropped';
  if (queue.length >= QUEUE_LIMIT) return 'full';
  queue.push(message);
  return 'queued';
}

/** Takes back what a timer still has in line: it was stopped or set anew. */
export function synicCancelTimer(state: SynicState, timer: number): void {
  for (const queue of state.queues) {
    for (let i = queue.length - 1; i >= 0; i--) {
      if (queue[i]?.timer === timer) queue.splice(i, 1);
    }
  }
}

export function synicTimerWaits(state: SynicState, timer: number): boolean {
  return state.queues.some((queue) => queue.some((message) => message.timer === timer));
}

export interface Delivery {
  readonly sint: number;
  readonly message: SynicMessage;
  readonly interrupt: SynicInterrupt | undefined;
}

/**
 * Moves the first message of each queue into its slot when that is empty; when it is not, sets the slot's "message
 * pending" flag, so that the guest writes EOM. `count` is the reference time, for the delivery time of timer messages.
 */
export function synicDeliver(state: SynicState, memory: SynicMemory, count: bigint): Delivery[] {
  const deliveries: Delivery[] = [];
  const page = enabledPage(state.messagePage);
  for (let sint = 0; sint < SINT_COUNT; sint++) {
    const queue = state.queues[sint];
    if (queue === undefined || queue.length === 0) continue;
    if (!receives(state, sint)) {
      if ((state.sints[sint]?.lo ?? 0) & SINT.masked) dropPortMessages(queue);
      continue;
    }
    if (page === undefined) continue;
    const slot = page + sint * SLOT_SIZE;
    const message = queue[0];
    if (message === undefined) continue;
    const header = memory.read(slot, messageHeader.size);
    if (!header.ok) continue;
    if (messageHeader.low(header.bytes, 'type') !== MESSAGE.none) {
      markPending(memory, slot, header.bytes);
      continue;
    }
    if (!memory.write(slot, slotBytes(message, count, queue.length > 1)).ok) continue;
    queue.shift();
    deliveries.push({ sint, message, interrupt: interruptOf(state, sint) });
  }
  return deliveries;
}

function dropPortMessages(queue: SynicMessage[]): void {
  for (let i = queue.length - 1; i >= 0; i--) {
    if ((queue[i]?.timer ?? 0) < 0) queue.splice(i, 1);
  }
}

function markPending(memory: SynicMemory, slot: number, header: Uint8Array): void {
  const flags = messageHeader.low(header, 'flags');
  if ((flags & MESSAGE_PENDING) !== 0) return;
  memory.write(slot + messageHeader.offsetOf('flags'), Uint8Array.of(flags | MESSAGE_PENDING));
}

function slotBytes(message: SynicMessage, count: bigint, more: boolean): Uint8Array {
  const bytes = new Uint8Array(messageHeader.size + message.payload.length);
  messageHeader.write(
    {
      type: message.type,
      payloadSize: message.payload.length,
      flags: more ? MESSAGE_PENDING : 0,
      sender: message.sender,
    },
    bytes,
  );
  bytes.set(message.payload, messageHeader.size);
  if (message.timer >= 0) timerMessage.set(bytes, 'deliveryTime', count, messageHeader.size);
  return bytes;
}

export type SignalOutcome =
  | { readonly kind: 'signalled'; readonly interrupt: SynicInterrupt | undefined }
  /** The flag was set before: whoever clears it will see both signals, and no interrupt is raised. */
  | { readonly kind: 'already' }
  /** SynIC off, source masked, or no flags page: the signal is lost. */
  | { readonly kind: 'lost' };

/** Sets an event flag, and says which interrupt that raises. */
export function synicSignal(
  state: SynicState,
  memory: SynicMemory,
  sint: number,
  flag: number,
): SignalOutcome {
  if (flag < 0 || flag >= EVENT_FLAG_COUNT) throw new RangeError(`event flag ${flag} for SINT ${sint}`);
  const page = enabledPage(state.flagsPage);
  if (page === undefined || !receives(state, sint)) return { kind: 'lost' };
  const address = page + sint * SLOT_SIZE + (flag >> 3);
  const before = memory.read(address, 1);
  const value = before.ok ? before.bytes[0] : undefined;
  if (value === undefined) return { kind: 'lost' };
  const bit = 1 << (flag & 7);
  if ((value & bit) !== 0) return { kind: 'already' };
  if (!memory.write(address, Uint8Array.of(value | bit)).ok) return { kind: 'lost' };
  return { kind: 'signalled', interrupt: interruptOf(state, sint) };
}

/** Raises a SINT's interrupt with neither message nor flag. */
export function synicRaise(state: SynicState, sint: number): SynicInterrupt | undefined {
  return receives(state, sint) ? interruptOf(state, sint) : undefined;
}
