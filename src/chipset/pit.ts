/**
 * The 8254 interval timer of a PC (Intel 8254 datasheet) and port 0x61, which gates its channel 2.
 *
 * A counter's value and output are functions of the ticks since it was loaded, so they are computed when somebody
 * looks and nothing runs in between.
 */

import { frequency, ticksAt, timeOfTick } from './frequency.ts';

export interface PitCounter {
  mode: number;
  /** 1 low byte, 2 high byte, 3 low then high. */
  access: number;
  bcd: boolean;
  gate: boolean;
  /** Count register: what was last written, 1 to 0x10000; 0 before any. */
  written: number;
  /** Low byte of a 16-bit count that waits for its high byte; -1 for none. */
  lowByte: number;
  /** Count of the running cycle; 0 while the counter has none. */
  count: number;
  /** Tick at which `count` is, or will be, in the counter. */
  start: number;
  /** Ticks counted when counting was suspended; -1 while it goes on. */
  held: number;
  /** Modes 2 and 3: tick at which a count written meanwhile takes over; -1 for none. */
  switchTick: number;
  latchedCount: number;
  latchedStatus: number;
  /** The next read of a 16-bit access is the high byte. */
  readsHigh: boolean;
}

export interface PitState {
  readonly counters: readonly PitCounter[];
  speaker: number;
  /** Channel 0: tick up to which rising edges have been reported, and one that a write made. */
  seenTick: number;
  rose: boolean;
}

export const PIT_PORT = { counter0: 0x40, control: 0x43, speaker: 0x61 } as const;
export const PIT_HZ = 1_193_182;

const CLOCK = frequency(PIT_HZ);
/** Half a period of the memory refresh that bit 4 of port 0x61 shows. */
const REFRESH_NS = 15_085;
const GATE2 = 1;
const SPEAKER_WRITABLE = 0x0f;

export function createPit(): PitState {
  return {
    counters: [true, true, false].map((gate) => ({
      mode: 0,
      access: 3,
      bcd: false,
      gate,
      written: 0,
      lowByte: -1,
      count: 0,
      start: 0,
      held: -1,
      switchTick: -1,
      latchedCount: -1,
      latchedStatus: -1,
      readsHigh: false,
    })),
    speaker: 0,
    seenTick: 0,
    rose: false,
  };
}

/** Ticks counted at `tick`; negative before the count is loaded. */
function elapsed(counter: PitCounter, tick: number): number {
  return counter.held >= 0 ? counter.held : tick - counter.start;
}

function highTicks(count: number): number {
  return Math.ceil(count / 2);
}

/** Lets a count that was written during a cycle take over when that cycle has ended. */
function settle(counter: PitCounter, tick: number): void {
  if (counter.switchTick < 0 || tick < counter.switchTick) return;
  const half = counter.mode === 3 && isHighEnd(counter, counter.switchTick);
  counter.count = counter.written;
  // After a high half the new count begins with its low half.
  counter.start = counter.switchTick - (half ? highTicks(counter.count) : 0);
  counter.switchTick = -1;
}

function isHighEnd(counter: PitCounter, tick: number): boolean {
  return (tick - counter.start) % counter.count === highTicks(counter.count);
}

function output(counter: PitCounter, tick: number): boolean {
  const { mode, count } = counter;
  const passed = elapsed(counter, tick);
  if (count === 0 || passed < 0) return mode !== 0;
  switch (mode) {
    case 0:
    case 1:
      return passed >= count;
    case 2:
      return counter.held >= 0 || passed % count !== count - 1 || count === 1;
    case 3:
      return counter.held >= 0 || passed % count < highTicks(count);
    default:
      return passed !== count;
  }
}

/** What the counting element holds, as a plain number. */
function value(counter: PitCounter, tick: number): number {
  const { mode, count } = counter;
  const passed = elapsed(counter, tick);
  const modulus = counter.bcd ? 10_000 : 0x10000;
  if (count === 0) return 0;
  if (passed < 0) return count % modulus;
  if (mode === 2) return (count - (passed % count)) % modulus;
  if (mode === 3) {
    const inCycle = passed % count;
    const inHalf = inCycle < highTicks(count) ? inCycle : inCycle - highTicks(count);
    // It counts by two from an even number, once for each half.
    return Math.max(count - (count & 1) - 2 * inHalf, 0) % modulus;
  }
  return (((count - passed) % modulus) + modulus) % modulus;
}

/** The counter has not taken over what was written. */
function isNull(counter: PitCounter, tick: number): boolean {
  if (counter.written === 0 || counter.switchTick >= 0) return true;
  if (counter.count === 0) return true;
  return elapsed(counter, tick) < 0 || counter.count !== counter.written;
}

function toRegister(counter: PitCounter, number: number): number {
  if (!counter.bcd) return number & 0xffff;
  const digits = [1000, 100, 10, 1].map((place) => Math.floor(number / place) % 10);
  return digits.reduce((packed, digit) => (packed << 4) | digit, 0);
}

function fromRegister(counter: PitCounter, register: number): number {
  if (!counter.bcd) return register === 0 ? 0x10000 : register;
  const number = [12, 8, 4, 0].reduce((sum, shift) => sum * 10 + ((register >>> shift) & 0xf), 0);
  // Digits above nine count as what they are worth, within the four decades.
  return number === 0 ? 10_000 : Math.min(number, 10_000);
}

/** Begins a cycle with the count that was written, at the next tick. */
function load(counter: PitCounter, tick: number): void {
  counter.count = counter.written;
  counter.start = tick + 1;
  counter.switchTick = -1;
  counter.held = counter.gate || counter.mode === 1 || counter.mode === 5 ? -1 : 0;
}

function writeCount(counter: PitCounter, tick: number, register: number): void {
  counter.written = fromRegister(counter, register);
  switch (counter.mode) {
    case 0:
    case 4:
      load(counter, tick);
      break;
    case 2:
    case 3: {
      if (counter.count === 0 || elapsed(counter, tick) < 0) {
        load(counter, tick);
        break;
      }
      if (counter.held >= 0) break;
      const { count, start, mode } = counter;
      const cycle = start + Math.floor((tick - start) / count) * count;
      const inHigh = mode === 3 && tick - cycle < highTicks(count);
      counter.switchTick = cycle + (inHigh ? highTicks(count) : count);
      break;
    }
    default:
      // Modes 1 and 5 wait for their gate.
      break;
  }
}

function writeCounter(counter: PitCounter, tick: number, byte: number): void {
  if (counter.access === 1) {
    writeCount(counter, tick, byte);
  } else if (counter.access === 2) {
    writeCount(counter, tick, byte << 8);
  } else if (counter.lowByte < 0) {
    counter.lowByte = byte;
    // The first byte of a new count stops mode 0 (datasheet, "mode 0").
    if (counter.mode === 0) counter.count = 0;
  } else {
    const low = counter.lowByte;
    counter.lowByte = -1;
    writeCount(counter, tick, (byte << 8) | low);
  }
}

function readCounter(counter: PitCounter, tick: number): number {
  if (counter.latchedStatus >= 0) {
    const status = counter.latchedStatus;
    counter.latchedStatus = -1;
    return status;
  }
  const latched = counter.latchedCount;
  const register = latched >= 0 ? latched : toRegister(counter, value(counter, tick));
  if (counter.access !== 3) {
    counter.latchedCount = -1;
    return counter.access === 1 ? register & 0xff : register >>> 8;
  }
  const high = counter.readsHigh;
  counter.readsHigh = !high;
  if (high) counter.latchedCount = -1;
  return high ? register >>> 8 : register & 0xff;
}

function latchCount(counter: PitCounter, tick: number): void {
  if (counter.latchedCount < 0) counter.latchedCount = toRegister(counter, value(counter, tick));
}

function latchStatus(counter: PitCounter, tick: number): void {
  if (counter.latchedStatus >= 0) return;
  counter.latchedStatus =
    (output(counter, tick) ? 0x80 : 0) |
    (isNull(counter, tick) ? 0x40 : 0) |
    (counter.access << 4) |
    (counter.mode << 1) |
    (counter.bcd ? 1 : 0);
}

function writeControl(state: PitState, tick: number, control: number): void {
  if (control >>> 6 === 3) {
    state.counters.forEach((counter, index) => {
      if (((control >>> (index + 1)) & 1) === 0) return;
      if ((control & 0x20) === 0) latchCount(counter, tick);
      if ((control & 0x10) === 0) latchStatus(counter, tick);
    });
    return;
  }
  const counter = state.counters[control >>> 6];
  if (counter === undefined) return;
  const access = (control >>> 4) & 3;
  if (access === 0) {
    latchCount(counter, tick);
    return;
  }
  const mode = (control >>> 1) & 7;
  counter.access = access;
  // Bit 3 of the mode is ignored for modes 2 and 3.
  counter.mode = mode > 5 ? mode - 4 : mode;
  counter.bcd = (control & 1) !== 0;
  counter.written = 0;
  counter.count = 0;
  counter.lowByte = -1;
  counter.held = -1;
  counter.switchTick = -1;
  counter.latchedCount = -1;
  counter.latchedStatus = -1;
  counter.readsHigh = false;
}

function setGate(counter: PitCounter, tick: number, gate: boolean): void {
  if (gate === counter.gate) return;
  counter.gate = gate;
  switch (counter.mode) {
    case 0:
    case 4:
      if (counter.count === 0) return;
      if (gate) {
        counter.start = tick - counter.held;
        counter.held = -1;
      } else {
        counter.held = Math.max(tick - counter.start, 0);
      }
      break;
    case 2:
    case 3:
      if (counter.count === 0) return;
      if (gate) load(counter, tick);
      else counter.held = Math.max(tick - counter.start, 0);
      break;
    default: {
      if (!gate || counter.written === 0) return;
      const wasLow = !output(counter, tick);
      load(counter, tick);
      // Triggered again, OUT stays low without a gap.
      if (wasLow) counter.start = tick;
    }
  }
}

export function pitRead(state: PitState, now: number, port: number): number {
  const tick = ticksAt(CLOCK, now);
  follow(state, tick);
  if (port === PIT_PORT.speaker) {
    const refresh = Math.floor(now / REFRESH_NS) % 2 === 0 ? 0 : 0x10;
    return state.speaker | refresh | (pitOutput(state, now, 2) ? 0x20 : 0);
  }
  const counter = state.counters[port - PIT_PORT.counter0];
  return counter === undefined ? 0xff : readCounter(counter, tick);
}

export function pitWrite(state: PitState, now: number, port: number, byte: number): void {
  const tick = ticksAt(CLOCK, now);
  follow(state, tick);
  const before = pitOutput(state, now, 0);
  if (port === PIT_PORT.speaker) {
    state.speaker = byte & SPEAKER_WRITABLE;
    const counter = state.counters[2];
    if (counter !== undefined) setGate(counter, tick, (byte & GATE2) !== 0);
  } else if (port === PIT_PORT.control) {
    writeControl(state, tick, byte & 0xff);
  } else {
    const counter = state.counters[port - PIT_PORT.counter0];
    if (counter !== undefined) writeCounter(counter, tick, byte & 0xff);
  }
  if (!before && pitOutput(state, now, 0)) state.rose = true;
}

/** Level of a channel's OUT pin. */
export function pitOutput(state: PitState, now: number, channel: number): boolean {
  const tick = ticksAt(CLOCK, now);
  follow(state, tick);
  const counter = state.counters[channel];
  return counter !== undefined && output(counter, tick);
}

/** Rising edges of OUT in the cycles from the load of the count to `tick`. */
function rises(counter: PitCounter, tick: number): number {
  const { mode, count } = counter;
  const passed = elapsed(counter, tick);
  if (count === 0 || passed < 0) return 0;
  switch (mode) {
    case 0:
    case 1:
      return passed >= count ? 1 : 0;
    case 2:
      return count === 1 ? 0 : Math.floor(passed / count);
    case 3:
      return Math.floor(passed / count);
    default:
      return passed > count ? 1 : 0;
  }
}

function follow(state: PitState, tick: number): void {
  const counter = state.counters[0];
  for (const item of state.counters.slice(1)) settle(item, tick);
  if (counter === undefined || tick <= state.seenTick) return;
  if (counter.switchTick >= 0 && counter.switchTick <= tick) {
    const end = counter.switchTick;
    if (rises(counter, end) > rises(counter, state.seenTick)) state.rose = true;
    settle(counter, tick);
    state.seenTick = end;
  }
  if (rises(counter, tick) > rises(counter, state.seenTick)) state.rose = true;
  state.seenTick = tick;
}

/**
 * The request on IRQ 0 up to `now`: its level, and whether it rose since this was last asked. An owner that sees a
 * rise lowers the line first, so that the edge is one.
 */
export function pitAdvance(
  state: PitState,
  now: number,
): { readonly rose: boolean; readonly level: boolean } {
  follow(state, ticksAt(CLOCK, now));
  const { rose } = state;
  state.rose = false;
  return { rose, level: pitOutput(state, now, 0) };
}

/** Virtual time in ns at which OUT of channel 0 changes next; Infinity when it does not by itself. */
export function pitNextEvent(state: PitState): number {
  const counter = state.counters[0];
  if (counter === undefined || counter.count === 0 || counter.held >= 0) return Infinity;
  const { mode, count, start } = counter;
  // A new count takes over where OUT changes anyway.
  return timeOfTick(CLOCK, nextChange(mode, count, start, Math.max(state.seenTick, start - 1)));
}

function nextChange(mode: number, count: number, start: number, from: number): number {
  const passed = from - start;
  switch (mode) {
    case 0:
    case 1:
      return passed < count ? start + count : Infinity;
    case 2: {
      if (count === 1) return Infinity;
      const cycle = start + Math.max(Math.floor(passed / count), 0) * count;
      return from < cycle + count - 1 ? cycle + count - 1 : cycle + count;
    }
    case 3: {
      if (count === 1) return Infinity;
      const cycle = start + Math.max(Math.floor(passed / count), 0) * count;
      return from < cycle + highTicks(count) ? cycle + highTicks(count) : cycle + count;
    }
    default:
      if (passed < count) return start + count;
      return passed === count ? start + count + 1 : Infinity;
  }
}
