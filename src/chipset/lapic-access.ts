/**
 * The local APIC as its processor reads and writes it: the xAPIC page, the x2APIC MSRs, IA32_APIC_BASE and
 * IA32_TSC_DEADLINE (Intel SDM vol. 3, 11.4 to 11.12; AMD APM vol. 2, 16.3 to 16.11).
 */

import {
  endVector,
  initRegisters,
  lapicArbitrationPriority,
  lapicEoi,
  lapicMode,
  lapicProcessorPriority,
  NO_ACTIONS,
  reportError,
  samplePin,
  sendInterrupt,
  x2apicLogicalId,
  type LapicAction,
  type LapicState,
} from './lapic.ts';
import {
  APIC_BASE,
  APIC_MSR,
  ESR,
  ICR,
  LAPIC,
  LVT,
  LVT_BIT,
  LVT_READ_ONLY,
  LVT_WRITABLE,
  lvtOfOffset,
  SVR,
  type LvtIndex,
} from './lapic-registers.ts';
import {
  lapicAdvance,
  timerCurrentCount,
  timerDivide,
  timerModeChanged,
  timerSetDeadline,
  timerStart,
} from './lapic-timer.ts';
import { hasVector } from './vector-set.ts';

/** A 64-bit register as its halves. */
export interface MsrValue {
  readonly lo: number;
  readonly hi: number;
}

const EXTENDED_LVT_COUNT = 4;
/** Four entries; IER, specific EOI and 8-bit IDs exist (APM 16.3.4). */
const EXTENDED_FEATURE = (EXTENDED_LVT_COUNT << 16) | 7;

const DIVIDE_WRITABLE = 0xb;
const EXTENDED_CONTROL_WRITABLE = 7;
const ENABLE_CONTROL = 1;
const SPECIFIC_EOI_CONTROL = 2;

function maximumLvt(state: LapicState): number {
  return state.config.cmci ? LVT.cmci : LVT.error;
}

function hasLvt(state: LapicState, index: LvtIndex | -1): index is LvtIndex {
  return index !== -1 && index <= maximumLvt(state);
}

function lvtWritable(state: LapicState, index: LvtIndex): number {
  const mode = index === LVT.timer && state.config.tscDeadline ? LVT_BIT.tscDeadline : 0;
  return (LVT_WRITABLE[index] ?? 0) | mode;
}

/** One of the 32-bit registers, in either mode; `undefined` where there is none that can be read. */
function readRegister(state: LapicState, now: number, offset: number): number | undefined {
  const x2apic = lapicMode(state) === 'x2apic';
  if (offset >= LAPIC.isr && offset < LAPIC.esr) {
    const word = (offset >>> 4) & 7;
    const set = offset < LAPIC.tmr ? state.isr : offset < LAPIC.irr ? state.tmr : state.irr;
    return set[word] ?? 0;
  }
  const lvt = lvtOfOffset(offset);
  if (lvt !== -1) return hasLvt(state, lvt) ? state.lvt[lvt] : undefined;
  switch (offset) {
    case LAPIC.id:
      return x2apic ? state.config.id : (state.xapicId << 24) >>> 0;
    case LAPIC.version:
      return (
        (state.config.version |
          (maximumLvt(state) << 16) |
          (state.config.suppressEoiBroadcast ? 1 << 24 : 0) |
          (state.config.extended ? 1 << 31 : 0)) >>>
        0
      );
    case LAPIC.tpr:
      return state.tpr;
    case LAPIC.apr:
      return x2apic ? undefined : lapicArbitrationPriority(state);
    case LAPIC.ppr:
      return lapicProcessorPriority(state);
    case LAPIC.remoteRead:
      return x2apic ? undefined : 0;
    case LAPIC.ldr:
      return x2apic ? x2apicLogicalId(state.config.id) : state.ldr;
    case LAPIC.dfr:
      return x2apic ? undefined : state.dfr;
    case LAPIC.svr:
      return state.svr;
    case LAPIC.esr:
      return state.esr;
    case LAPIC.icrLow:
      return state.icrLo;
    case LAPIC.icrHigh:
      return x2apic ? undefined : state.icrHi;
    case LAPIC.initialCount:
      return state.initialCount;
    case LAPIC.currentCount:
      lapicAdvance(state, now);
      return timerCurrentCount(state, now);
    case LAPIC.divide:
      return state.divide;
    default:
      return state.config.extended ? readExtended(state, offset) : undefined;
  }
}

function readExtended(state: LapicState, offset: number): number | undefined {
  if (offset >= LAPIC.enable && offset < LAPIC.enable + 0x80) return state.enabled[(offset >>> 4) & 7] ?? 0;
  switch (offset) {
    case LAPIC.extendedFeature:
      return EXTENDED_FEATURE;
    case LAPIC.extendedControl:
      return state.extendedControl;
    case LAPIC.specificEoi:
      return 0;
    default:
      return state.extendedLvt[(offset - LAPIC.extendedLvt) >>> 4];
  }
}

/**
 * Bits of a register whose write in x2APIC mode faults when one of them is set (SDM 11.12.1.2 and table 11-6);
 * `undefined` for registers that cannot be written then.
 */
function reservedBits(state: LapicState, offset: number): number | undefined {
  const lvt = lvtOfOffset(offset);
  if (lvt !== -1) {
    return hasLvt(state, lvt) ? ~(lvtWritable(state, lvt) | (LVT_READ_ONLY[lvt] ?? 0)) : undefined;
  }
  switch (offset) {
    case LAPIC.tpr:
    case LAPIC.selfIpi:
      return ~0xff;
    case LAPIC.eoi:
    case LAPIC.esr:
      return ~0;
    case LAPIC.svr:
      return ~svrWritable(state);
    case LAPIC.icrLow:
      // Delivery status has gone from this mode; parts ignore the bit instead of faulting.
      return ~(ICR.writable | ICR.deliveryStatus);
    case LAPIC.initialCount:
      return 0;
    case LAPIC.divide:
      return ~DIVIDE_WRITABLE;
    default:
      return state.config.extended ? reservedExtended(offset) : undefined;
  }
}

function reservedExtended(offset: number): number | undefined {
  if (offset >= LAPIC.enable && offset < LAPIC.enable + 0x80) return 0;
  switch (offset) {
    case LAPIC.extendedControl:
      return ~EXTENDED_CONTROL_WRITABLE;
    case LAPIC.specificEoi:
      return ~0xff;
    default:
      return isExtendedLvt(offset) ? ~(0x7ff | LVT_BIT.deliveryStatus | LVT_BIT.masked) : undefined;
  }
}

function isExtendedLvt(offset: number): boolean {
  return offset >= LAPIC.extendedLvt && offset < LAPIC.extendedLvt + EXTENDED_LVT_COUNT * 0x10;
}

function svrWritable(state: LapicState): number {
  const suppress = state.config.suppressEoiBroadcast ? SVR.suppressEoiBroadcast : 0;
  return SVR.vector | SVR.enable | SVR.focusDisabled | suppress;
}

/**
 * Writes a 32-bit register that both modes have, reserved bits dropped; `undefined` where there is none.
 * The timer has been advanced to `now`.
 */
function writeRegister(
  state: LapicState,
  now: number,
  offset: number,
  value: number,
): readonly LapicAction[] | undefined {
  const lvt = lvtOfOffset(offset);
  if (lvt !== -1) return hasLvt(state, lvt) ? writeLvt(state, lvt, value) : undefined;
  switch (offset) {
    case LAPIC.tpr:
      state.tpr = value & 0xff;
      return NO_ACTIONS;
    case LAPIC.eoi:
      return lapicEoi(state);
    case LAPIC.svr:
      return writeSvr(state, value);
    case LAPIC.esr:
      state.esr = state.errors;
      state.errors = 0;
      return NO_ACTIONS;
    case LAPIC.initialCount:
      timerStart(state, now, value);
      return NO_ACTIONS;
    case LAPIC.divide:
      timerDivide(state, now, value & DIVIDE_WRITABLE);
      return NO_ACTIONS;
    default:
      return state.config.extended ? writeExtended(state, offset, value) : undefined;
  }
}

function writeLvt(state: LapicState, index: LvtIndex, value: number): readonly LapicAction[] {
  const before = state.lvt[index] ?? 0;
  const writable = lvtWritable(state, index);
  // SDM 11.4.7.2: while software has the APIC disabled, the mask bits cannot be cleared.
  const forced = (state.svr & SVR.enable) === 0 ? LVT_BIT.masked : 0;
  let entry = (value & writable) | (before & (LVT_READ_ONLY[index] ?? 0)) | forced;
  // Remote IRR belongs to a level-triggered pin; an edge-triggered one has none.
  if ((entry & LVT_BIT.level) === 0) entry &= ~LVT_BIT.remoteIrr;
  state.lvt[index] = entry;
  if (index === LVT.timer) timerModeChanged(state, before);
  if (index === LVT.lint0) return samplePin(state, 0);
  return index === LVT.lint1 ? samplePin(state, 1) : NO_ACTIONS;
}

function writeSvr(state: LapicState, value: number): readonly LapicAction[] {
  state.svr = value & svrWritable(state);
  if ((state.svr & SVR.enable) === 0) {
    for (const [index, entry] of state.lvt.entries()) state.lvt[index] = entry | LVT_BIT.masked;
    for (const [index, entry] of state.extendedLvt.entries())
      state.extendedLvt[index] = entry | LVT_BIT.masked;
  }
  return NO_ACTIONS;
}

function writeExtended(state: LapicState, offset: number, value: number): readonly LapicAction[] | undefined {
  if (offset >= LAPIC.enable && offset < LAPIC.enable + 0x80) {
    if ((state.extendedControl & ENABLE_CONTROL) !== 0) state.enabled[(offset >>> 4) & 7] = value;
    return NO_ACTIONS;
  }
  if (isExtendedLvt(offset)) {
    const forced = (state.svr & SVR.enable) === 0 ? LVT_BIT.masked : 0;
    state.extendedLvt[(offset - LAPIC.extendedLvt) >>> 4] = (value & (0x7ff | LVT_BIT.masked)) | forced;
    return NO_ACTIONS;
  }
  switch (offset) {
    case LAPIC.extendedFeature:
      return NO_ACTIONS;
    case LAPIC.extendedControl:
      state.extendedControl = value & EXTENDED_CONTROL_WRITABLE;
      return NO_ACTIONS;
    case LAPIC.specificEoi: {
      const vector = value & 0xff;
      const enabled = (state.extendedControl & SPECIFIC_EOI_CONTROL) !== 0;
      return enabled && hasVector(state.isr, vector) ? endVector(state, vector) : NO_ACTIONS;
    }
    default:
      return undefined;
  }
}

/**
 * Reads the xAPIC page. Registers are 32 bits wide on 16-byte boundaries; a narrower read inside one gets its part,
 * everything between them reads 0. Reserved registers read 0 and are noted in ESR (SDM 11.5.3).
 */
export function lapicReadPage(state: LapicState, now: number, offset: number, size: number): number {
  const within = offset & 0xf;
  if (within >= 4) return 0;
  const value = readRegister(state, now, offset & 0xff0) ?? unreadable(state, offset & 0xff0);
  const shifted = value >>> (within * 8);
  return size >= 4 ? shifted : (shifted & ((1 << (size * 8)) - 1)) >>> 0;
}

function unreadable(state: LapicState, offset: number): number {
  // EOI is write-only, not reserved.
  if (offset !== LAPIC.eoi) reportError(state, ESR.illegalRegister);
  return 0;
}

/** Registers that exist in the page and cannot be written. */
function isReadOnly(offset: number): boolean {
  if (offset >= LAPIC.isr && offset < LAPIC.esr) return true;
  switch (offset) {
    case LAPIC.version:
    case LAPIC.apr:
    case LAPIC.ppr:
    case LAPIC.remoteRead:
    case LAPIC.currentCount:
      return true;
    default:
      return false;
  }
}

/** Writes the xAPIC page; only whole, aligned registers take a write. */
export function lapicWritePage(
  state: LapicState,
  now: number,
  offset: number,
  size: number,
  value: number,
): readonly LapicAction[] {
  if ((offset & 0xf) !== 0 || size < 4) return NO_ACTIONS;
  lapicAdvance(state, now);
  switch (offset) {
    case LAPIC.id:
      state.xapicId = value >>> 24;
      return NO_ACTIONS;
    case LAPIC.ldr:
      state.ldr = (value & 0xff00_0000) >>> 0;
      return NO_ACTIONS;
    case LAPIC.dfr:
      state.dfr = (value | 0x0fff_ffff) >>> 0;
      return NO_ACTIONS;
    case LAPIC.icrHigh:
      state.icrHi = (value & 0xff00_0000) >>> 0;
      return NO_ACTIONS;
    case LAPIC.icrLow:
      state.icrLo = value & ICR.writable;
      return sendInterrupt(state, state.icrLo, state.icrHi >>> 24, false);
    default: {
      const actions = writeRegister(state, now, offset, value);
      if (actions !== undefined) return actions;
      if (!isReadOnly(offset)) reportError(state, ESR.illegalRegister);
      return NO_ACTIONS;
    }
  }
}

/** Whether an MSR belongs to the local APIC, accessible or not. */
export function isLapicMsr(index: number): boolean {
  return (
    (index >= APIC_MSR.x2apicFirst && index <= APIC_MSR.x2apicLast) ||
    index === APIC_MSR.base ||
    index === APIC_MSR.tscDeadline
  );
}

/** Reads an MSR of the local APIC. `undefined`: #GP(0). */
export function lapicReadMsr(state: LapicState, now: number, index: number): MsrValue | undefined {
  if (index === APIC_MSR.base) return { lo: state.baseLo, hi: state.baseHi };
  if (index === APIC_MSR.tscDeadline) {
    if (!state.config.tscDeadline) return undefined;
    lapicAdvance(state, now);
    return { lo: state.deadlineLo, hi: state.deadlineHi };
  }
  if (lapicMode(state) !== 'x2apic') return undefined;
  const offset = (index - APIC_MSR.x2apicFirst) * 16;
  if (offset === LAPIC.icrLow) return { lo: state.icrLo, hi: state.icrHi };
  const lo = readRegister(state, now, offset);
  return lo === undefined ? undefined : { lo, hi: 0 };
}

/** Writes an MSR of the local APIC. `undefined`: #GP(0), and nothing has changed. */
export function lapicWriteMsr(
  state: LapicState,
  now: number,
  index: number,
  lo: number,
  hi: number,
): readonly LapicAction[] | undefined {
  if (index === APIC_MSR.base) return writeBase(state, now, lo, hi);
  if (index === APIC_MSR.tscDeadline) {
    if (!state.config.tscDeadline) return undefined;
    lapicAdvance(state, now);
    timerSetDeadline(state, now, lo, hi);
    lapicAdvance(state, now);
    return NO_ACTIONS;
  }
  if (lapicMode(state) !== 'x2apic') return undefined;
  const offset = (index - APIC_MSR.x2apicFirst) * 16;
  const reserved = reservedBits(state, offset);
  if (reserved === undefined || (lo & reserved) !== 0) return undefined;
  if (offset === LAPIC.icrLow) return lapicWriteIcr(state, lo, hi);
  if (hi !== 0) return undefined;
  lapicAdvance(state, now);
  // SELF IPI is an ICR write with the self shorthand (SDM 11.12.11), but leaves ICR alone.
  if (offset === LAPIC.selfIpi) return sendInterrupt(state, (1 << 18) | (lo & 0xff), 0, true);
  return writeRegister(state, now, offset, lo);
}

/**
 * Writes the whole ICR: MSR 0x830, or Hyper-V's MSR 0x40000071, which has the xAPIC layout while the APIC is in
 * that mode (destination in bits 63:56).
 */
export function lapicWriteIcr(state: LapicState, lo: number, hi: number): readonly LapicAction[] {
  const wide = lapicMode(state) === 'x2apic';
  state.icrLo = lo & ICR.writable;
  state.icrHi = wide ? hi : (hi & 0xff00_0000) >>> 0;
  return sendInterrupt(state, state.icrLo, wide ? hi : hi >>> 24, wide);
}

/** The legal moves between disabled, xAPIC and x2APIC (SDM 11.12.5, figure 11-27). */
function writeBase(
  state: LapicState,
  now: number,
  lo: number,
  hi: number,
): readonly LapicAction[] | undefined {
  const { physicalAddressBits, x2apic } = state.config;
  const modeBits = APIC_BASE.enable | APIC_BASE.x2apic;
  const from = state.baseLo & modeBits;
  const to = lo & modeBits;
  if ((lo & APIC_BASE.reserved) !== 0 || hi >= 2 ** (physicalAddressBits - 32)) return undefined;
  if (to === APIC_BASE.x2apic) return undefined;
  if (to === modeBits && (x2apic === 'absent' || from === 0)) return undefined;
  if (from === modeBits && (to === APIC_BASE.enable || (to === 0 && x2apic === 'locked'))) return undefined;
  lapicAdvance(state, now);
  state.baseLo = lo;
  state.baseHi = hi;
  if (from === to) return NO_ACTIONS;
  if (to === 0) {
    // SDM 11.4.3: the APIC loses its state and comes back as from power-on.
    initRegisters(state);
    state.xapicId = state.config.id & 0xff;
  } else if (to === modeBits) {
    state.icrHi = 0;
  }
  return NO_ACTIONS;
}
