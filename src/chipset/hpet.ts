/**
 * A high precision event timer block (IA-PC HPET specification 1.0a): one 64-bit counter and three comparators with
 * periodic mode and legacy replacement routing, no FSB delivery.
 *
 * The counter is computed from virtual time; a comparator knows the tick at which it matches next.
 */

import { ticksAt, timeOfTick, type Frequency } from './frequency.ts';

export interface HpetOptions {
  /** Counter period; whole nanoseconds keep the counter exact. */
  readonly periodNs?: number;
  /** IO-APIC inputs that every comparator may be routed to, one bit each. */
  readonly routes?: number;
}

export interface HpetTimer {
  config: number;
  comparatorLo: number;
  comparatorHi: number;
  periodLo: number;
  periodHi: number;
  /** Tick of the counter's clock at which the comparator matches next; -1 for never. */
  due: number;
  /** What its level-triggered line carries, and the input that it was raised on. */
  asserted: boolean;
  pin: number;
}

export interface HpetState {
  readonly periodNs: number;
  readonly clock: Frequency;
  readonly routes: number;
  config: number;
  status: number;
  /** Counter at tick `anchor`; while it is halted, simply the counter. */
  counterLo: number;
  counterHi: number;
  anchor: number;
  readonly timers: readonly HpetTimer[];
}

/**
 * What happens on an interrupt line. `isa` is 0 or 8 with legacy replacement routing, when the 8259A gets it as
 * well, and -1 otherwise. A pulse is an edge: the line goes low, and then high.
 */
export interface HpetAction {
  readonly kind: 'pulse' | 'assert' | 'release';
  readonly timer: number;
  readonly pin: number;
  readonly isa: number;
}

export const HPET = {
  capabilities: 0x000,
  config: 0x010,
  status: 0x020,
  counter: 0x0f0,
  timers: 0x100,
  length: 0x400,
} as const;

export const HPET_BASE = 0xfed0_0000;

const CONFIG = { enable: 1, legacy: 2 } as const;
const TIMER = {
  level: 1 << 1,
  enable: 1 << 2,
  periodic: 1 << 3,
  periodicCapable: 1 << 4,
  wide: 1 << 5,
  setValue: 1 << 6,
  narrow: 1 << 8,
  route: 0x1f << 9,
} as const;
const TIMER_WRITABLE =
  TIMER.level | TIMER.enable | TIMER.periodic | TIMER.setValue | TIMER.narrow | TIMER.route;
const TIMER_COUNT = 3;
const LEGACY = [
  { pin: 2, isa: 0 },
  { pin: 8, isa: 8 },
] as const;
const FEMTOSECONDS_PER_NS = 1_000_000;
/** Intel, revision 1, legacy replacement, 64-bit counter, three comparators. */
const CAPABILITIES = (0x8086_0000 | (1 << 15) | (1 << 13) | ((TIMER_COUNT - 1) << 8) | 1) >>> 0;
const WRAP_64 = 1n << 64n;
const WRAP_32 = 1n << 32n;

export const NO_HPET_ACTIONS: readonly HpetAction[] = [];

export function createHpet(options: HpetOptions = {}): HpetState {
  const { periodNs = 10, routes = 0x00f0_0000 } = options;
  if (!Number.isInteger(periodNs) || periodNs < 1 || periodNs > 100) {
    throw new RangeError(`HPET period of ${periodNs} ns; the specification wants 1 to 100`);
  }
  return {
    periodNs,
    clock: { ticks: 1, nanoseconds: periodNs },
    routes: routes >>> 0,
    config: 0,
    status: 0,
    counterLo: 0,
    counterHi: 0,
    anchor: 0,
    timers: Array.from({ length: TIMER_COUNT }, () => ({
      config: 0,
      comparatorLo: 0xffff_ffff,
      comparatorHi: 0xffff_ffff,
      periodLo: 0,
      periodHi: 0,
      due: -1,
      asserted: false,
      pin: 0,
    })),
  };
}

function join(lo: number, hi: number): bigint {
  return (BigInt(hi) << 32n) | BigInt(lo);
}

function low(value: bigint): number {
  return Number(value & 0xffff_ffffn);
}

function high(value: bigint): number {
  return Number((value >> 32n) & 0xffff_ffffn);
}

function isEnabled(state: HpetState): boolean {
  return (state.config & CONFIG.enable) !== 0;
}

/** The main counter. */
function counterAt(state: HpetState, tick: number): { readonly lo: number; readonly hi: number } {
  const passed = isEnabled(state) ? tick - state.anchor : 0;
  const sum = state.counterLo + (passed % 2 ** 32);
  const carry = Math.floor(passed / 2 ** 32) + (sum >= 2 ** 32 ? 1 : 0);
  return { lo: sum % 2 ** 32, hi: (state.counterHi + carry) % 2 ** 32 };
}

function isPeriodic(timer: HpetTimer): boolean {
  return (timer.config & TIMER.periodic) !== 0;
}

/** A comparator in 32-bit mode looks at the lower half of the counter only. */
function wrapOf(timer: HpetTimer): bigint {
  return (timer.config & TIMER.narrow) !== 0 ? WRAP_32 : WRAP_64;
}

/** Finds the next match. A comparator that equals the counter already has to wait for it to come round. */
function arm(state: HpetState, timer: HpetTimer, tick: number): void {
  if (!isEnabled(state)) {
    timer.due = -1;
    return;
  }
  const wrap = wrapOf(timer);
  const { lo, hi } = counterAt(state, tick);
  const distance = (join(timer.comparatorLo, timer.comparatorHi) - join(lo, hi)) & (wrap - 1n);
  const wait = distance === 0n ? wrap : distance;
  timer.due = wait > BigInt(Number.MAX_SAFE_INTEGER - tick) ? -1 : tick + Number(wait);
}

function armAll(state: HpetState, tick: number): void {
  for (const timer of state.timers) arm(state, timer, tick);
}

/** Virtual time in ns of the next interrupt; Infinity when none is to come. */
export function hpetNextEvent(state: HpetState): number {
  let next = Infinity;
  for (const timer of state.timers) {
    if (timer.due >= 0 && (timer.config & TIMER.enable) !== 0) next = Math.min(next, timer.due);
  }
  return next === Infinity ? next : timeOfTick(state.clock, next);
}

function lineOf(state: HpetState, index: number): { readonly pin: number; readonly isa: number } {
  const legacy = (state.config & CONFIG.legacy) !== 0 ? LEGACY[index] : undefined;
  return legacy ?? { pin: ((state.timers[index]?.config ?? 0) & TIMER.route) >>> 9, isa: -1 };
}

/** Lets every match happen that is due by `now`. */
export function hpetAdvance(state: HpetState, now: number): readonly HpetAction[] {
  const tick = ticksAt(state.clock, now);
  let actions: HpetAction[] | undefined;
  for (const [index, timer] of state.timers.entries()) {
    if (timer.due < 0 || timer.due > tick) continue;
    match(state, timer, tick);
    const level = (timer.config & TIMER.level) !== 0;
    if (level) state.status |= 1 << index;
    if ((timer.config & TIMER.enable) === 0 || level) continue;
    actions ??= [];
    actions.push({ kind: 'pulse', timer: index, ...lineOf(state, index) });
  }
  return joinActions(actions, updateLines(state));
}

function joinActions(first: HpetAction[] | undefined, second: readonly HpetAction[]): readonly HpetAction[] {
  if (first === undefined) return second;
  first.push(...second);
  return first;
}

/** A periodic comparator moves on by whole periods, so that its phase is kept when it is served late. */
function match(state: HpetState, timer: HpetTimer, tick: number): void {
  const wrap = wrapOf(timer);
  const period = join(timer.periodLo, timer.periodHi) & (wrap - 1n);
  if (isPeriodic(timer) && period !== 0n) {
    const times = BigInt(tick - timer.due) / period + 1n;
    const next = (join(timer.comparatorLo, timer.comparatorHi) + times * period) & (wrap - 1n);
    timer.comparatorLo = low(next);
    timer.comparatorHi = high(next);
    const due = BigInt(timer.due) + times * period;
    timer.due = due > BigInt(Number.MAX_SAFE_INTEGER) ? -1 : Number(due);
  } else {
    arm(state, timer, tick);
  }
}

/** Level-triggered lines follow their status bit, on the input that is chosen now. */
function updateLines(state: HpetState): readonly HpetAction[] {
  let actions: HpetAction[] | undefined;
  for (const [index, timer] of state.timers.entries()) {
    const wanted =
      (timer.config & (TIMER.level | TIMER.enable)) === (TIMER.level | TIMER.enable) &&
      ((state.status >>> index) & 1) !== 0;
    const line = lineOf(state, index);
    if (timer.asserted === wanted && (!wanted || timer.pin === line.pin)) continue;
    actions ??= [];
    if (timer.asserted) {
      // The line is released where it was raised, which a change of routing may have left behind.
      const legacy = LEGACY[index];
      const isa = legacy !== undefined && legacy.pin === timer.pin ? legacy.isa : -1;
      actions.push({ kind: 'release', timer: index, pin: timer.pin, isa });
    }
    if (wanted) actions.push({ kind: 'assert', timer: index, ...line });
    timer.asserted = wanted;
    timer.pin = line.pin;
  }
  return actions ?? NO_HPET_ACTIONS;
}

/** Reads 4 or 8 bytes, aligned; anything else reads 0. What matched before has to be advanced first. */
export function hpetRead(
  state: HpetState,
  now: number,
  offset: number,
  size: number,
): { readonly lo: number; readonly hi: number } {
  if ((size !== 4 && size !== 8) || offset % size !== 0) return { lo: 0, hi: 0 };
  const value = readRegister(state, ticksAt(state.clock, now), offset & ~7);
  if (size === 8) return value;
  return { lo: (offset & 4) === 0 ? value.lo : value.hi, hi: 0 };
}

function readRegister(
  state: HpetState,
  tick: number,
  offset: number,
): { readonly lo: number; readonly hi: number } {
  switch (offset) {
    case HPET.capabilities:
      return { lo: CAPABILITIES, hi: state.periodNs * FEMTOSECONDS_PER_NS };
    case HPET.config:
      return { lo: state.config, hi: 0 };
    case HPET.status:
      return { lo: state.status, hi: 0 };
    case HPET.counter:
      return counterAt(state, tick);
    default: {
      const timer = state.timers[(offset - HPET.timers) >> 5];
      if (timer === undefined || offset < HPET.timers) return { lo: 0, hi: 0 };
      switch (offset & 0x1f) {
        case 0:
          return { lo: timer.config | TIMER.periodicCapable | TIMER.wide, hi: state.routes };
        case 8:
          return { lo: timer.comparatorLo, hi: timer.comparatorHi };
        default:
          return { lo: 0, hi: 0 };
      }
    }
  }
}

/** Writes 4 or 8 bytes, aligned; anything else is ignored. */
export function hpetWrite(
  state: HpetState,
  now: number,
  offset: number,
  size: number,
  lo: number,
  hi = 0,
): readonly HpetAction[] {
  if ((size !== 4 && size !== 8) || offset % size !== 0) return NO_HPET_ACTIONS;
  const before = hpetAdvance(state, now);
  const tick = ticksAt(state.clock, now);
  if (size === 8) {
    writeRegister(state, tick, offset, { lo, hi });
  } else if ((offset & 4) === 0) {
    writeRegister(state, tick, offset, { lo });
  } else {
    writeRegister(state, tick, offset - 4, { hi: lo });
  }
  const after = updateLines(state);
  return before === NO_HPET_ACTIONS ? after : [...before, ...after];
}

interface Halves {
  readonly lo?: number;
  readonly hi?: number;
}

function writeRegister(state: HpetState, tick: number, offset: number, value: Halves): void {
  switch (offset) {
    case HPET.config:
      if (value.lo !== undefined) writeConfig(state, tick, value.lo);
      return;
    case HPET.status:
      if (value.lo !== undefined) state.status &= ~value.lo;
      return;
    case HPET.counter:
      // Only a halted counter can be set (2.3.7).
      if (isEnabled(state)) return;
      state.counterLo = value.lo ?? state.counterLo;
      state.counterHi = value.hi ?? state.counterHi;
      return;
    default: {
      const timer = state.timers[(offset - HPET.timers) >> 5];
      if (timer === undefined || offset < HPET.timers) return;
      if ((offset & 0x1f) === 0 && value.lo !== undefined) writeTimerConfig(state, timer, tick, value.lo);
      if ((offset & 0x1f) === 8) writeComparator(state, timer, tick, value);
    }
  }
}

function writeConfig(state: HpetState, tick: number, value: number): void {
  const { lo, hi } = counterAt(state, tick);
  state.counterLo = lo;
  state.counterHi = hi;
  state.anchor = tick;
  const wasEnabled = isEnabled(state);
  state.config = value & (CONFIG.enable | CONFIG.legacy);
  if (wasEnabled !== isEnabled(state)) armAll(state, tick);
}

function writeTimerConfig(state: HpetState, timer: HpetTimer, tick: number, value: number): void {
  let config = value & TIMER_WRITABLE;
  // A route that does not exist is not taken (2.3.8).
  if (((state.routes >>> ((config & TIMER.route) >>> 9)) & 1) === 0) {
    config = (config & ~TIMER.route) | (timer.config & TIMER.route);
  }
  timer.config = config;
  if ((config & TIMER.narrow) !== 0) {
    timer.comparatorHi = 0;
    timer.periodHi = 0;
  }
  arm(state, timer, tick);
}

/**
 * In periodic mode a write sets the period, and the comparator too when Tn_VAL_SET_CNF says so; that bit clears
 * itself with each write, also of one half (2.3.8).
 */
function writeComparator(state: HpetState, timer: HpetTimer, tick: number, value: Halves): void {
  const narrow = (timer.config & TIMER.narrow) !== 0;
  const hi = narrow ? 0 : value.hi;
  if (!isPeriodic(timer) || (timer.config & TIMER.setValue) !== 0) {
    timer.comparatorLo = value.lo ?? timer.comparatorLo;
    timer.comparatorHi = hi ?? timer.comparatorHi;
  }
  if (isPeriodic(timer)) {
    timer.periodLo = value.lo ?? timer.periodLo;
    timer.periodHi = hi ?? timer.periodHi;
  }
  timer.config &= ~TIMER.setValue;
  arm(state, timer, tick);
}
