/**
 * The four synthetic timers of one VP (Hyper-V TLFS 12.4). They count partition reference time and, on expiry,
 * either request a vector of the local APIC directly or send a message through the SynIC.
 */

import { MSR } from '../abi/hyperv/msr.ts';
import { MESSAGE, TIMER, TIMER_COUNT, timerMessage } from '../abi/hyperv/synic.ts';
import { highHalf, join, lowHalf } from '../abi/record.ts';
import { referenceCount, timeOfCount, type ReferenceTime } from './reference-time.ts';
import type { Pair, SynicMessage } from './synic.ts';

export interface SyntheticTimer {
  config: Pair;
  /** Absolute reference time (one-shot) or period, as the guest wrote it. */
  count: bigint;
  /** Reference time of the next expiry; 0 when none is set. */
  expiration: bigint;
  /** The same as virtual time in ns; Infinity when none is set. */
  due: number;
}

export type TimerState = SyntheticTimer[];

export type Expiry =
  | { readonly timer: number; readonly kind: 'direct'; readonly vector: number }
  | {
      readonly timer: number;
      readonly kind: 'message';
      readonly sint: number;
      readonly message: SynicMessage;
    };

const COUNT_LIMIT = 1n << 64n;

export function createTimers(): TimerState {
  return Array.from({ length: TIMER_COUNT }, () => ({
    config: { lo: 0, hi: 0 },
    count: 0n,
    expiration: 0n,
    due: Infinity,
  }));
}

/** Number of the timer that an MSR belongs to; `undefined` when it is no timer MSR. */
export function timerOfMsr(index: number): number | undefined {
  return index >= MSR.stimer0Config && index <= MSR.stimer3Count
    ? (index - MSR.stimer0Config) >> 1
    : undefined;
}

export function timerReadMsr(state: TimerState, index: number): Pair | undefined {
  const timer = state[timerOfMsr(index) ?? -1];
  if (timer === undefined) return undefined;
  if ((index & 1) === 0) return timer.config;
  return { lo: lowHalf(timer.count), hi: highHalf(timer.count) };
}

/**
 * Writes CONFIG or COUNT; either starts the timer afresh, so a message that still waits for its slot is void and
 * the owner takes it back. A time in the past expires at the next `timersAdvance`, which may be at once.
 */
export function timerWriteMsr(
  state: TimerState,
  time: ReferenceTime,
  now: number,
  index: number,
  lo: number,
  hi: number,
): void {
  const timer = state[timerOfMsr(index) ?? -1];
  if (timer === undefined) throw new RangeError(`MSR 0x${index.toString(16)} belongs to no timer`);
  if ((index & 1) === 0) {
    timer.config = { lo, hi };
  } else {
    timer.count = join(lo, hi);
    // TLFS 12.4.2: COUNT 0 stops the timer; another value starts it when AutoEnable is set.
    if (timer.count === 0n) setEnable(timer, false);
    else if ((timer.config.lo & TIMER.autoEnable) !== 0) setEnable(timer, true);
  }
  // TLFS 12.4.1: SINT 0 cannot carry timer messages, so such a timer does not stay enabled.
  const { lo: config } = timer.config;
  if ((config & TIMER.direct) === 0 && (config & TIMER.sintMask) === 0) setEnable(timer, false);
  arm(timer, time, now);
}

function setEnable(timer: SyntheticTimer, on: boolean): void {
  const { lo, hi } = timer.config;
  timer.config = { lo: (on ? lo | TIMER.enable : lo & ~TIMER.enable) >>> 0, hi };
}

function arm(timer: SyntheticTimer, time: ReferenceTime, now: number): void {
  const { lo } = timer.config;
  if ((lo & TIMER.enable) === 0 || timer.count === 0n) {
    disarm(timer);
  } else if ((lo & TIMER.periodic) !== 0) {
    expireAt(timer, time, referenceCount(time, now) + timer.count);
  } else {
    expireAt(timer, time, timer.count);
  }
}

function disarm(timer: SyntheticTimer): void {
  timer.expiration = 0n;
  timer.due = Infinity;
}

function expireAt(timer: SyntheticTimer, time: ReferenceTime, expiration: bigint): void {
  timer.expiration = expiration;
  timer.due = expiration >= COUNT_LIMIT ? Infinity : timeOfCount(time, expiration);
}

/** Virtual time in ns of the next expiry. */
export function timersNextEvent(state: TimerState): number {
  let next = Infinity;
  for (const timer of state) if (timer.due < next) next = timer.due;
  return next;
}

/**
 * Expires what is due. A one-shot timer turns itself off; a periodic one keeps its phase, and periods that have
 * passed unseen are lost, not made up for.
 */
export function timersAdvance(state: TimerState, time: ReferenceTime, now: number): Expiry[] {
  const expiries: Expiry[] = [];
  for (const [index, timer] of state.entries()) {
    if (timer.due > now) continue;
    const { expiration } = timer;
    const { lo } = timer.config;
    if ((lo & TIMER.periodic) !== 0) {
      const passed = (referenceCount(time, now) - expiration) / timer.count;
      expireAt(timer, time, expiration + (passed + 1n) * timer.count);
    } else {
      setEnable(timer, false);
      disarm(timer);
    }
    if ((lo & TIMER.direct) !== 0) {
      expiries.push({ timer: index, kind: 'direct', vector: (lo & TIMER.vectorMask) >>> TIMER.vectorShift });
    } else {
      const sint = (lo & TIMER.sintMask) >>> TIMER.sintShift;
      expiries.push({ timer: index, kind: 'message', sint, message: expiryMessage(index, expiration) });
    }
  }
  return expiries;
}

function expiryMessage(timer: number, expiration: bigint): SynicMessage {
  const payload = timerMessage.write({ timerIndex: timer, expirationTime: expiration });
  return { type: MESSAGE.timerExpired, sender: 0n, payload, timer };
}
