/**
 * The PC's clock chip: Motorola MC146818A with its CMOS memory, on ports 0x70 and 0x71, and a century byte at 0x32.
 *
 * The registers hold what was written to them, in the format chosen by register B, right or wrong; the chip adds a
 * second at each update. Updates lie on a grid of virtual time, so they are made up for when somebody looks.
 */

import { dateOfDays, daysOfDate, weekdayOfDays } from './calendar.ts';
import { frequency, ticksAt, timeOfTick } from './frequency.ts';

export interface RtcOptions {
  /** Unix time at virtual time 0, in whole seconds; the chip shows it as UTC. */
  readonly date: number;
  readonly century?: boolean;
}

export interface RtcState {
  readonly century: boolean;
  index: number;
  /** All 128 bytes, the clock's registers included. */
  readonly bytes: number[];
  /** Virtual time at which the next update ends; -1 while the divider is held. */
  nextUpdate: number;
  /** 32.768 kHz tick up to which the periodic flag has been followed. */
  periodicTick: number;
}

export const RTC = {
  seconds: 0,
  secondsAlarm: 1,
  minutes: 2,
  minutesAlarm: 3,
  hours: 4,
  hoursAlarm: 5,
  weekday: 6,
  day: 7,
  month: 8,
  year: 9,
  a: 10,
  b: 11,
  c: 12,
  d: 13,
  centuryByte: 0x32,
} as const;

const A = { updateInProgress: 0x80, divider: 0x70, running: 0x20, rate: 0x0f } as const;
const B = { set: 0x80, periodic: 0x40, alarm: 0x20, update: 0x10, binary: 4, hours24: 2 } as const;
const C = { request: 0x80, periodic: 0x40, alarm: 0x20, update: 0x10 } as const;
const VALID_RAM_AND_TIME = 0x80;

const SECOND = 1_000_000_000;
/** UIP rises 244 µs before the update cycle, which takes 1984 µs (datasheet, "Update cycle"). */
const UPDATE_IN_PROGRESS = (244 + 1984) * 1000;
const CRYSTAL = frequency(32_768);

export function createRtc({ date, century = true }: RtcOptions): RtcState {
  if (!Number.isSafeInteger(date)) throw new RangeError(`${date} is not a Unix time in whole seconds`);
  const state: RtcState = {
    century,
    index: 0,
    bytes: new Array<number>(128).fill(0),
    nextUpdate: SECOND,
    periodicTick: 0,
  };
  state.bytes[RTC.a] = A.running | 6;
  state.bytes[RTC.b] = B.hours24;
  state.bytes[RTC.d] = VALID_RAM_AND_TIME;
  const days = Math.floor(date / 86_400);
  storeTime(state, days, date - days * 86_400);
  state.bytes[RTC.weekday] = weekdayOfDays(days) + 1;
  return state;
}

/** The RESET pin: interrupts off, flags clear; time and memory stay. */
export function resetRtc(state: RtcState, now: number): void {
  follow(state, now);
  state.bytes[RTC.b] = byte(state, RTC.b) & ~(B.periodic | B.alarm | B.update | 8);
  state.bytes[RTC.c] = 0;
  state.index = 0;
}

function byte(state: RtcState, index: number): number {
  return state.bytes[index] ?? 0;
}

/** Port 0x70 is write-only. */
export function rtcRead(state: RtcState, now: number, port: number): number {
  if (port !== 0x71) return 0xff;
  follow(state, now);
  switch (state.index) {
    case RTC.a:
      return byte(state, RTC.a) | (updateInProgress(state, now) ? A.updateInProgress : 0);
    case RTC.c: {
      const flags = byte(state, RTC.c) | (rtcInterrupt(state) ? C.request : 0);
      state.bytes[RTC.c] = 0;
      return flags;
    }
    default:
      return byte(state, state.index);
  }
}

/** Bit 7 of port 0x70 masks the NMI on a PC; that is the owner's business. */
export function rtcWrite(state: RtcState, now: number, port: number, value: number): void {
  if (port !== 0x71) {
    state.index = value & 0x7f;
    return;
  }
  follow(state, now);
  switch (state.index) {
    case RTC.a:
      writeA(state, now, value);
      break;
    case RTC.b:
      // SET clears UIE (datasheet, register B).
      state.bytes[RTC.b] = (value & B.set) !== 0 ? value & 0xff & ~B.update : value & 0xff;
      break;
    case RTC.c:
    case RTC.d:
      break;
    default:
      state.bytes[state.index] = value & 0xff;
  }
}

function writeA(state: RtcState, now: number, value: number): void {
  const running = (value & A.divider) === A.running;
  state.bytes[RTC.a] = value & 0x7f;
  // The first update comes half a second after the divider is let go (datasheet, "Divider control").
  if (!running) state.nextUpdate = -1;
  else if (state.nextUpdate < 0) state.nextUpdate = now + SECOND / 2;
}

function updates(state: RtcState): boolean {
  return state.nextUpdate >= 0 && (byte(state, RTC.b) & B.set) === 0;
}

function updateInProgress(state: RtcState, now: number): boolean {
  return updates(state) && now >= state.nextUpdate - UPDATE_IN_PROGRESS;
}

/** Level of the interrupt request, until register C is read. */
export function rtcInterrupt(state: RtcState): boolean {
  return (byte(state, RTC.b) & byte(state, RTC.c) & (B.periodic | B.alarm | B.update)) !== 0;
}

/** Ticks of the crystal per periodic interrupt; 0 for none (datasheet, table 5). */
function periodicTicks(state: RtcState): number {
  const rate = byte(state, RTC.a) & A.rate;
  if (rate === 0 || state.nextUpdate < 0) return 0;
  return 1 << (rate <= 2 ? rate + 6 : rate - 1);
}

/** Virtual time in ns at which the interrupt may rise next; Infinity when it cannot, or is up already. */
export function rtcNextEvent(state: RtcState): number {
  const enabled = byte(state, RTC.b);
  if (rtcInterrupt(state)) return Infinity;
  let next = Infinity;
  const period = periodicTicks(state);
  if ((enabled & B.periodic) !== 0 && period !== 0) {
    next = timeOfTick(CRYSTAL, (Math.floor(state.periodicTick / period) + 1) * period);
  }
  // An alarm is looked for at every update.
  if ((enabled & (B.update | B.alarm)) !== 0 && updates(state)) next = Math.min(next, state.nextUpdate);
  return next;
}

/** Lets the clock run up to `now`. */
export function rtcAdvance(state: RtcState, now: number): void {
  follow(state, now);
}

function follow(state: RtcState, now: number): void {
  followPeriodic(state, now);
  if (state.nextUpdate < 0 || now < state.nextUpdate) return;
  const seconds = Math.floor((now - state.nextUpdate) / SECOND) + 1;
  state.nextUpdate += seconds * SECOND;
  if (!updates(state)) return;
  addSeconds(state, seconds);
  state.bytes[RTC.c] = byte(state, RTC.c) | C.update;
}

function followPeriodic(state: RtcState, now: number): void {
  const tick = ticksAt(CRYSTAL, now);
  if (tick <= state.periodicTick) return;
  const period = periodicTicks(state);
  if (period !== 0 && Math.floor(tick / period) > Math.floor(state.periodicTick / period)) {
    state.bytes[RTC.c] = byte(state, RTC.c) | C.periodic;
  }
  state.periodicTick = tick;
}

function addSeconds(state: RtcState, seconds: number): void {
  const days = loadDays(state);
  const from = loadSecondOfDay(state);
  const total = from + seconds;
  const carried = Math.floor(total / 86_400);
  if (alarmWithin(state, from, seconds)) state.bytes[RTC.c] = byte(state, RTC.c) | C.alarm;
  storeTime(state, days + carried, total - carried * 86_400);
  // The day of the week is a counter of its own, which software sets.
  if (carried !== 0) state.bytes[RTC.weekday] = ((byte(state, RTC.weekday) + 6 + carried) % 7) + 1;
}

/** Whether one of the seconds after `from` matches the alarm; 0xC0 and above match every value. */
function alarmWithin(state: RtcState, from: number, seconds: number): boolean {
  const wanted = [RTC.hoursAlarm, RTC.minutesAlarm, RTC.secondsAlarm].map((index) => {
    const value = byte(state, index);
    if (value >= 0xc0) return -1;
    return index === RTC.hoursAlarm ? decodeHours(state, value) : decode(state, value);
  });
  const [hour = -1, minute = -1, second = -1] = wanted;
  for (let step = 1; step <= Math.min(seconds, 86_400); step++) {
    const time = (from + step) % 86_400;
    if (second >= 0 && time % 60 !== second) continue;
    if (minute >= 0 && Math.floor(time / 60) % 60 !== minute) continue;
    if (hour < 0 || Math.floor(time / 3600) === hour) return true;
  }
  return false;
}

function decode(state: RtcState, value: number): number {
  return (byte(state, RTC.b) & B.binary) !== 0 ? value : (value >>> 4) * 10 + (value & 0xf);
}

function encode(state: RtcState, value: number): number {
  return (byte(state, RTC.b) & B.binary) !== 0 ? value : (Math.floor(value / 10) << 4) | (value % 10);
}

function decodeHours(state: RtcState, value: number): number {
  if ((byte(state, RTC.b) & B.hours24) !== 0) return decode(state, value);
  return (decode(state, value & 0x7f) % 12) + ((value & 0x80) !== 0 ? 12 : 0);
}

function encodeHours(state: RtcState, hours: number): number {
  if ((byte(state, RTC.b) & B.hours24) !== 0) return encode(state, hours);
  return encode(state, hours % 12 === 0 ? 12 : hours % 12) | (hours >= 12 ? 0x80 : 0);
}

function loadDays(state: RtcState): number {
  const century = state.century ? decode(state, byte(state, RTC.centuryByte)) : 20;
  return daysOfDate({
    year: century * 100 + decode(state, byte(state, RTC.year)),
    month: decode(state, byte(state, RTC.month)),
    day: decode(state, byte(state, RTC.day)),
  });
}

function loadSecondOfDay(state: RtcState): number {
  return (
    decodeHours(state, byte(state, RTC.hours)) * 3600 +
    decode(state, byte(state, RTC.minutes)) * 60 +
    decode(state, byte(state, RTC.seconds))
  );
}

function storeTime(state: RtcState, days: number, secondOfDay: number): void {
  const { year, month, day } = dateOfDays(days);
  state.bytes[RTC.seconds] = encode(state, secondOfDay % 60);
  state.bytes[RTC.minutes] = encode(state, Math.floor(secondOfDay / 60) % 60);
  state.bytes[RTC.hours] = encodeHours(state, Math.floor(secondOfDay / 3600));
  state.bytes[RTC.day] = encode(state, day);
  state.bytes[RTC.month] = encode(state, month);
  state.bytes[RTC.year] = encode(state, ((year % 100) + 100) % 100);
  if (state.century)
    state.bytes[RTC.centuryByte] = encode(state, ((Math.floor(year / 100) % 100) + 100) % 100);
}
