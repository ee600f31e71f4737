/**
 * An IO-APIC (Intel 82093AA datasheet; version 0x20 and its EOI register as in Intel's I/O controller hubs). Messages
 * that it sends and ends of interrupts that devices may wait for are returned as actions, in order.
 */

import { DELIVERY, type ApicMessage } from './apic-message.ts';

export interface IoapicOptions {
  readonly id?: number;
  /** 0x11, or 0x20, which adds the EOI register. */
  readonly version?: number;
  readonly pins?: number;
  /**
   * Pins that the board wires active-low, one bit each. A device asserts its line; what the pin then carries follows
   * from the wire, and how the IO-APIC reads it from the polarity bit of the entry.
   */
  readonly activeLow?: number;
  /** Bits 55:49 of an entry are destination bits 14:8 (Hyper-V CPUID 0x40000082 EAX bit 2). */
  readonly extendedDestination?: boolean;
}

export interface IoapicState {
  readonly version: number;
  readonly activeLow: number;
  readonly highWritable: number;
  readonly initialId: number;
  id: number;
  select: number;
  /** Asserted lines, one bit each. */
  lines: number;
  readonly entriesLo: number[];
  readonly entriesHi: number[];
}

export type IoapicAction =
  | { readonly kind: 'message'; readonly pin: number; readonly message: ApicMessage }
  /** A level-triggered interrupt of this pin has ended: its device may sample its condition again. */
  | { readonly kind: 'ended'; readonly pin: number };

export const NO_IOAPIC_ACTIONS: readonly IoapicAction[] = [];

/** Offsets in the register page. */
export const IOAPIC = { select: 0x00, window: 0x10, eoi: 0x40 } as const;

const REGISTER = { id: 0, version: 1, arbitration: 2, firstEntry: 0x10 } as const;

export const ENTRY = {
  vector: 0xff,
  logical: 1 << 11,
  deliveryStatus: 1 << 12,
  polarity: 1 << 13,
  remoteIrr: 1 << 14,
  level: 1 << 15,
  masked: 1 << 16,
} as const;

/** All but delivery status and remote IRR. */
const ENTRY_WRITABLE = 0x1_afff;

export function createIoapic(options: IoapicOptions = {}): IoapicState {
  const { id = 0, version = 0x20, pins = 24, activeLow = 0, extendedDestination = false } = options;
  if (pins < 1 || pins > 32) throw new RangeError(`${pins} pins; an IO-APIC here has 1 to 32`);
  const state: IoapicState = {
    version: version | ((pins - 1) << 16),
    activeLow: activeLow >>> 0,
    highWritable: extendedDestination ? 0xfffe_0000 : 0xff00_0000,
    initialId: id,
    id: 0,
    select: 0,
    lines: 0,
    entriesLo: new Array<number>(pins).fill(0),
    entriesHi: new Array<number>(pins).fill(0),
  };
  resetIoapic(state);
  return state;
}

/** Hardware reset. What devices assert is not the IO-APIC's to change. */
export function resetIoapic(state: IoapicState): void {
  state.id = state.initialId;
  state.select = 0;
  state.entriesLo.fill(ENTRY.masked);
  state.entriesHi.fill(0);
}

/** Reads the register page: the selector, or the register it selects. Elsewhere there is nothing. */
export function ioapicRead(state: IoapicState, offset: number): number {
  switch (offset) {
    case IOAPIC.select:
      return state.select;
    case IOAPIC.window:
      return readSelected(state);
    default:
      return 0;
  }
}

function readSelected(state: IoapicState): number {
  switch (state.select) {
    case REGISTER.id:
    case REGISTER.arbitration:
      return (state.id << 24) >>> 0;
    case REGISTER.version:
      return state.version;
    default: {
      const pin = (state.select - REGISTER.firstEntry) >> 1;
      const entries = (state.select & 1) === 0 ? state.entriesLo : state.entriesHi;
      return state.select < REGISTER.firstEntry ? 0 : (entries[pin] ?? 0);
    }
  }
}

/** Writes the register page. */
export function ioapicWrite(state: IoapicState, offset: number, value: number): readonly IoapicAction[] {
  switch (offset) {
    case IOAPIC.select:
      state.select = value & 0xff;
      return NO_IOAPIC_ACTIONS;
    case IOAPIC.window:
      return writeSelected(state, value);
    case IOAPIC.eoi:
      return (state.version & 0xff) >= 0x20 ? ioapicEoi(state, value & 0xff) : NO_IOAPIC_ACTIONS;
    default:
      return NO_IOAPIC_ACTIONS;
  }
}

function writeSelected(state: IoapicState, value: number): readonly IoapicAction[] {
  if (state.select === REGISTER.id) {
    state.id = (value >>> 24) & 0xf;
    return NO_IOAPIC_ACTIONS;
  }
  const pin = (state.select - REGISTER.firstEntry) >> 1;
  const before = state.entriesLo[pin];
  if (state.select < REGISTER.firstEntry || before === undefined) return NO_IOAPIC_ACTIONS;
  if ((state.select & 1) !== 0) {
    state.entriesHi[pin] = (value & state.highWritable) >>> 0;
  } else {
    let entry = (value & ENTRY_WRITABLE) | (before & ENTRY.remoteIrr);
    // Remote IRR does not outlive level mode. Software without an EOI register ends an interrupt this way.
    if ((entry & ENTRY.level) === 0) entry &= ~ENTRY.remoteIrr;
    state.entriesLo[pin] = entry;
  }
  return sampleLevel(state, pin);
}

/** A device asserts or releases its line. Lines that are shared are joined by the owner. */
export function ioapicSetLine(state: IoapicState, pin: number, asserted: boolean): readonly IoapicAction[] {
  if (state.entriesLo[pin] === undefined) return NO_IOAPIC_ACTIONS;
  const before = isActive(state, pin);
  if (asserted) state.lines = (state.lines | (1 << pin)) >>> 0;
  else state.lines = (state.lines & ~(1 << pin)) >>> 0;
  if (!isActive(state, pin)) return NO_IOAPIC_ACTIONS;
  if (isLevel(state.entriesLo[pin] ?? 0)) return sampleLevel(state, pin);
  const masked = ((state.entriesLo[pin] ?? 0) & ENTRY.masked) !== 0;
  // An edge on a masked pin is lost (82093AA 3.2.4).
  return before || masked ? NO_IOAPIC_ACTIONS : [send(state, pin)];
}

export function ioapicLine(state: IoapicState, pin: number): boolean {
  return ((state.lines >>> pin) & 1) !== 0;
}

/** End of interrupt of a vector: from the local APICs' broadcast or the EOI register. */
export function ioapicEoi(state: IoapicState, vector: number): readonly IoapicAction[] {
  const actions: IoapicAction[] = [];
  for (const [pin, entry] of state.entriesLo.entries()) {
    if ((entry & ENTRY.vector) !== vector || (entry & ENTRY.remoteIrr) === 0) continue;
    state.entriesLo[pin] = entry & ~ENTRY.remoteIrr;
    actions.push({ kind: 'ended', pin }, ...sampleLevel(state, pin));
  }
  return actions;
}

/** No local APIC took the message of this pin: it is not in service anywhere, and is sent again when asked for. */
export function ioapicRejected(state: IoapicState, pin: number): void {
  state.entriesLo[pin] = (state.entriesLo[pin] ?? 0) & ~ENTRY.remoteIrr;
}

/** Only fixed and lowest-priority interrupts can be level-triggered (82093AA 3.2.4). */
function isLevel(entry: number): boolean {
  const delivery = (entry >>> 8) & 7;
  return (entry & ENTRY.level) !== 0 && (delivery === DELIVERY.fixed || delivery === DELIVERY.lowestPriority);
}

function isActive(state: IoapicState, pin: number): boolean {
  const inverted = ((state.entriesLo[pin] ?? 0) & ENTRY.polarity) !== 0;
  return (inverted === (((state.activeLow >>> pin) & 1) !== 0)) === ioapicLine(state, pin);
}

function sampleLevel(state: IoapicState, pin: number): readonly IoapicAction[] {
  const entry = state.entriesLo[pin] ?? 0;
  if (!isLevel(entry) || !isActive(state, pin)) return NO_IOAPIC_ACTIONS;
  if ((entry & (ENTRY.masked | ENTRY.remoteIrr)) !== 0) return NO_IOAPIC_ACTIONS;
  state.entriesLo[pin] = entry | ENTRY.remoteIrr;
  return [send(state, pin)];
}

function send(state: IoapicState, pin: number): IoapicAction {
  const lo = state.entriesLo[pin] ?? 0;
  const hi = state.entriesHi[pin] ?? 0;
  const message: ApicMessage = {
    delivery: (lo >>> 8) & 7,
    vector: lo & ENTRY.vector,
    level: isLevel(lo),
    target: 'destination',
    logical: (lo & ENTRY.logical) !== 0,
    destination: (hi >>> 24) | (((hi >>> 17) & 0x7f) << 8),
    wide: false,
  };
  return { kind: 'message', pin, message };
}
