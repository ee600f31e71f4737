/**
 * Timer of the local APIC (Intel SDM vol. 3, 11.5.4): a count-down on the divided bus clock, one-shot or periodic,
 * or a deadline on the TSC. The count lies on the bus clock's grid, so it is computed, not stepped.
 */

import { ticksAt, timeOfTick } from './frequency.ts';
import { lapicFireLvt, type LapicState } from './lapic.ts';
import { LVT, LVT_BIT } from './lapic-registers.ts';

type TimerMode = 'one-shot' | 'periodic' | 'deadline' | 'reserved';

export function timerMode(entry: number): TimerMode {
  if ((entry & LVT_BIT.tscDeadline) === 0) return (entry & LVT_BIT.periodic) === 0 ? 'one-shot' : 'periodic';
  return (entry & LVT_BIT.periodic) === 0 ? 'deadline' : 'reserved';
}

function modeOf(state: LapicState): TimerMode {
  return timerMode(state.lvt[LVT.timer] ?? 0);
}

/** Bits 3, 1 and 0 of the divide configuration: 2, 4 ... 128, and 1 for all ones. */
function divisorOf(divide: number): number {
  const code = ((divide >>> 1) & 4) | (divide & 3);
  return code === 7 ? 1 : 2 << code;
}

/** Bus-clock tick at which the count runs out. */
function expiryTick(state: LapicState): number {
  return state.timerAnchor + state.timerCount * divisorOf(state.divide);
}

/** Virtual time in ns of the next expiry; Infinity when the timer stands still. */
export function lapicNextEvent(state: LapicState): number {
  if (modeOf(state) === 'deadline') return state.deadlineDue < 0 ? Infinity : state.deadlineDue;
  return state.timerCount === 0 ? Infinity : timeOfTick(state.config.bus, expiryTick(state));
}

/** Lets the timer expire if it is due by `now`. True when it did, masked or not. */
export function lapicAdvance(state: LapicState, now: number): boolean {
  if (lapicNextEvent(state) > now) return false;
  if (modeOf(state) === 'deadline') {
    clearDeadline(state);
  } else if (modeOf(state) === 'periodic') {
    // The phase is kept; periods that nobody saw pass are one interrupt, as IRR would have made of them.
    const period = state.initialCount * divisorOf(state.divide);
    const first = expiryTick(state);
    const passed = period === 0 ? 0 : Math.floor((ticksAt(state.config.bus, now) - first) / period);
    state.timerAnchor = first + passed * period;
    state.timerCount = state.initialCount;
  } else {
    state.timerCount = 0;
  }
  lapicFireLvt(state, LVT.timer);
  return true;
}

/** Current-count register. The timer must have been advanced to `now`. */
export function timerCurrentCount(state: LapicState, now: number): number {
  if (state.timerCount === 0) return 0;
  const passed = ticksAt(state.config.bus, now) - state.timerAnchor;
  return Math.max(state.timerCount - Math.floor(passed / divisorOf(state.divide)), 0);
}

/** Initial-count register: starts the timer, or stops it with 0; ignored while it works by deadline. */
export function timerStart(state: LapicState, now: number, count: number): void {
  if (modeOf(state) === 'deadline') return;
  state.initialCount = count;
  // Mode 11b is reserved (SDM figure 11-8): nothing counts.
  state.timerCount = modeOf(state) === 'reserved' ? 0 : count;
  state.timerAnchor = ticksAt(state.config.bus, now);
}

/** Divide configuration: the count goes on from where it is, at the new speed. */
export function timerDivide(state: LapicState, now: number, divide: number): void {
  state.timerCount = timerCurrentCount(state, now);
  state.timerAnchor = ticksAt(state.config.bus, now);
  state.divide = divide;
}

/** The timer's LVT entry has changed. Between one-shot and periodic the count goes on; to or from deadline it ends. */
export function timerModeChanged(state: LapicState, before: number): void {
  const from = timerMode(before);
  const to = modeOf(state);
  if (from === to) return;
  if (from !== 'deadline' && to !== 'deadline' && to !== 'reserved') return;
  state.initialCount = 0;
  state.timerCount = 0;
  clearDeadline(state);
}

function clearDeadline(state: LapicState): void {
  state.deadlineLo = 0;
  state.deadlineHi = 0;
  state.deadlineDue = -1;
}

/** IA32_TSC_DEADLINE: 0 disarms; ignored in the other modes. A deadline in the past is due at once. */
export function timerSetDeadline(state: LapicState, now: number, lo: number, hi: number): void {
  if (modeOf(state) !== 'deadline') return;
  state.deadlineLo = lo;
  state.deadlineHi = hi;
  state.deadlineDue = dueTime(state, now);
}

/** Sets what the TSC was at virtual time 0, modulo 2^64, after a write of the TSC or of TSC_ADJUST. */
export function lapicSetTscOffset(state: LapicState, now: number, lo: number, hi: number): void {
  state.tscOffsetLo = lo;
  state.tscOffsetHi = hi;
  state.deadlineDue = dueTime(state, now);
}

/** When the TSC reaches the deadline; -1 when there is none. */
function dueTime(state: LapicState, now: number): number {
  const { deadlineLo, deadlineHi, config } = state;
  if (deadlineLo === 0 && deadlineHi === 0) return -1;
  const ticks = ticksAt(config.tsc, now);
  const tsc = BigInt.asUintN(64, BigInt(ticks) + join(state.tscOffsetLo, state.tscOffsetHi));
  const wait = join(deadlineLo, deadlineHi) - tsc;
  if (wait <= 0n) return now;
  const limit = BigInt(Number.MAX_SAFE_INTEGER - ticks);
  return wait >= limit ? Number.MAX_SAFE_INTEGER : timeOfTick(config.tsc, ticks + Number(wait));
}

function join(lo: number, hi: number): bigint {
  return (BigInt(hi) << 32n) | BigInt(lo);
}
