/**
 * A local APIC (Intel SDM vol. 3 chapter 11, AMD APM vol. 2 chapter 16): what it accepts, holds, offers to its
 * processor and sends. Registers as the guest sees them are in `lapic-access.ts`, the timer in `lapic-timer.ts`,
 * the way between APICs in `apic-bus.ts`.
 *
 * What happens outside the APIC is returned as actions, in order.
 */

import { DELIVERY, type ApicMessage } from './apic-message.ts';
import { frequency, type Frequency } from './frequency.ts';
import { APIC_BASE, ESR, FIRST_VECTOR, ICR, LVT, LVT_BIT, SVR, type LvtIndex } from './lapic-registers.ts';
import {
  addVector,
  clearVectors,
  emptyVectorSet,
  hasVector,
  highestCommonVector,
  highestVector,
  removeVector,
  type VectorSet,
} from './vector-set.ts';

export interface LapicOptions {
  /** x2APIC ID; its low 8 bits are the xAPIC ID after reset. */
  readonly id: number;
  readonly bootstrap: boolean;
  readonly vendor?: 'intel' | 'amd';
  /** `locked`: on from reset and never off (TDX, LEGACY_XAPIC_DISABLED). */
  readonly x2apic?: 'absent' | 'offered' | 'locked';
  readonly tscDeadline?: boolean;
  /** Directed EOI: SVR bit 12 keeps EOIs of level interrupts from being broadcast. */
  readonly suppressEoiBroadcast?: boolean;
  /** The CMCI entry of the LVT. */
  readonly cmci?: boolean;
  /** AMD's registers from 0x400 on. */
  readonly extended?: boolean;
  readonly version?: number;
  readonly physicalAddressBits?: number;
  readonly busHz?: number;
  readonly tscHz?: number;
}

export interface LapicConfig {
  readonly id: number;
  readonly bootstrap: boolean;
  readonly vendor: 'intel' | 'amd';
  readonly x2apic: 'absent' | 'offered' | 'locked';
  readonly tscDeadline: boolean;
  readonly suppressEoiBroadcast: boolean;
  readonly cmci: boolean;
  readonly extended: boolean;
  readonly version: number;
  readonly physicalAddressBits: number;
  readonly bus: Frequency;
  readonly tsc: Frequency;
}

export interface LapicState {
  readonly config: LapicConfig;
  baseLo: number;
  baseHi: number;
  /** Between INIT (or power-on, for an application processor) and SIPI. */
  waitsForStartup: boolean;
  xapicId: number;
  tpr: number;
  svr: number;
  ldr: number;
  dfr: number;
  icrLo: number;
  icrHi: number;
  readonly lvt: number[];
  readonly extendedLvt: number[];
  extendedControl: number;
  /** AMD's IER; all ones elsewhere. */
  readonly enabled: VectorSet;
  readonly irr: VectorSet;
  readonly isr: VectorSet;
  readonly tmr: VectorSet;
  /** Requested vectors that are not to be marked in service (Hyper-V TLFS 11.8: auto-EOI). */
  readonly autoEoi: VectorSet;
  /** What a read of ESR gives, and what has been detected since ESR was last written. */
  esr: number;
  errors: number;
  /** Voltage on LINT0 and LINT1. */
  readonly pins: [boolean, boolean];
  /** An ExtINT message, which has no line to hold it. */
  extIntLatch: boolean;
  divide: number;
  initialCount: number;
  /** Count at `timerAnchor`, a tick of the bus clock. 0: the timer stands still. */
  timerCount: number;
  timerAnchor: number;
  /** TSC at virtual time 0, modulo 2^64. */
  tscOffsetLo: number;
  tscOffsetHi: number;
  deadlineLo: number;
  deadlineHi: number;
  /** Virtual time at which the TSC reaches the deadline; -1 when none is set. */
  deadlineDue: number;
}

export type LapicAction =
  | { readonly kind: 'message'; readonly message: ApicMessage }
  /** EOI of a level-triggered vector, for the IO-APICs. */
  | { readonly kind: 'eoi'; readonly vector: number }
  | { readonly kind: 'nmi' }
  | { readonly kind: 'smi' }
  /** The processor resets. It then waits for SIPI, unless it is the bootstrap processor. */
  | { readonly kind: 'init' }
  | { readonly kind: 'startup'; readonly vector: number };

export const NO_ACTIONS: readonly LapicAction[] = [];

export function createLapic(options: LapicOptions): LapicState {
  const amd = options.vendor === 'amd';
  const config: LapicConfig = {
    id: options.id,
    bootstrap: options.bootstrap,
    vendor: options.vendor ?? 'intel',
    x2apic: options.x2apic ?? 'offered',
    tscDeadline: options.tscDeadline ?? true,
    suppressEoiBroadcast: options.suppressEoiBroadcast ?? false,
    cmci: options.cmci ?? false,
    extended: options.extended ?? false,
    version: options.version ?? (amd ? 0x10 : 0x14),
    physicalAddressBits: options.physicalAddressBits ?? 46,
    bus: frequency(options.busHz ?? 200_000_000),
    tsc: frequency(options.tscHz ?? 2_000_000_000),
  };
  const state: LapicState = {
    config,
    baseLo: 0,
    baseHi: 0,
    waitsForStartup: false,
    xapicId: 0,
    tpr: 0,
    svr: 0,
    ldr: 0,
    dfr: 0,
    icrLo: 0,
    icrHi: 0,
    lvt: [0, 0, 0, 0, 0, 0, 0],
    extendedLvt: [0, 0, 0, 0],
    extendedControl: 0,
    enabled: emptyVectorSet(),
    irr: emptyVectorSet(),
    isr: emptyVectorSet(),
    tmr: emptyVectorSet(),
    autoEoi: emptyVectorSet(),
    esr: 0,
    errors: 0,
    pins: [false, false],
    extIntLatch: false,
    divide: 0,
    initialCount: 0,
    timerCount: 0,
    timerAnchor: 0,
    tscOffsetLo: 0,
    tscOffsetHi: 0,
    deadlineLo: 0,
    deadlineHi: 0,
    deadlineDue: -1,
  };
  resetLapic(state);
  return state;
}

/** Power-on or RESET (SDM 11.4.7.1): everything, the base address included; wiring and the TSC stay. */
export function resetLapic(state: LapicState): void {
  const { bootstrap, x2apic } = state.config;
  state.baseLo =
    (0xfee0_0000 |
      APIC_BASE.enable |
      (bootstrap ? APIC_BASE.bsp : 0) |
      (x2apic === 'locked' ? APIC_BASE.x2apic : 0)) >>>
    0;
  state.baseHi = 0;
  state.waitsForStartup = !bootstrap;
  state.xapicId = state.config.id & 0xff;
  initRegisters(state);
}

/** State after INIT (SDM 11.4.7.3): as after RESET, but the IDs and IA32_APIC_BASE are kept. */
export function initRegisters(state: LapicState): void {
  state.tpr = 0;
  state.svr = 0xff;
  state.ldr = 0;
  state.dfr = 0xffff_ffff;
  state.icrLo = 0;
  state.icrHi = 0;
  state.lvt.fill(LVT_BIT.masked);
  state.extendedLvt.fill(LVT_BIT.masked);
  state.extendedControl = 0;
  state.enabled.fill(0xffff_ffff);
  clearVectors(state.irr);
  clearVectors(state.isr);
  clearVectors(state.tmr);
  clearVectors(state.autoEoi);
  state.esr = 0;
  state.errors = 0;
  state.extIntLatch = false;
  state.divide = 0;
  state.initialCount = 0;
  state.timerCount = 0;
  state.timerAnchor = 0;
  state.deadlineLo = 0;
  state.deadlineHi = 0;
  state.deadlineDue = -1;
}

export type LapicMode = 'disabled' | 'xapic' | 'x2apic';

export function lapicMode(state: LapicState): LapicMode {
  if ((state.baseLo & APIC_BASE.enable) === 0) return 'disabled';
  return (state.baseLo & APIC_BASE.x2apic) === 0 ? 'xapic' : 'x2apic';
}

/** Guest-physical address of the register page; -1 while no access to memory reaches the APIC. */
export function lapicPage(state: LapicState): number {
  if (lapicMode(state) !== 'xapic') return -1;
  return state.baseHi * 2 ** 32 + ((state.baseLo & 0xffff_f000) >>> 0);
}

/** Whether fixed interrupts are taken at all: software enable in SVR (SDM 11.4.7.2). */
export function lapicAcceptsInterrupts(state: LapicState): boolean {
  return (state.svr & SVR.enable) !== 0 && lapicMode(state) !== 'disabled';
}

/** Logical ID in x2APIC mode (SDM 11.12.10.2): cluster in [31:16], one bit of the cluster in [15:0]. */
export function x2apicLogicalId(id: number): number {
  return (((id >>> 4) << 16) | (1 << (id & 15))) >>> 0;
}

/** Whether a message with a destination, as opposed to a shorthand, is for this APIC. */
export function lapicMatches(state: LapicState, message: ApicMessage): boolean {
  const mode = lapicMode(state);
  if (mode === 'disabled') return false;
  const { destination, logical, wide } = message;
  if (destination === (wide ? 0xffff_ffff : 0xff)) return true;
  if (mode === 'x2apic') {
    if (!logical) return destination === state.config.id;
    const own = x2apicLogicalId(state.config.id);
    return destination >>> 16 === own >>> 16 && (destination & own & 0xffff) !== 0;
  }
  if (destination > 0xff) return false;
  if (!logical) return destination === state.xapicId;
  const own = state.ldr >>> 24;
  switch (state.dfr >>> 28) {
    case 0xf:
      return (own & destination) !== 0;
    case 0:
      return own >>> 4 === destination >>> 4 && (own & destination & 0xf) !== 0;
    default:
      // SDM 11.6.2.2: other models are reserved.
      return false;
  }
}

/** What lowest-priority arbitration compares (SDM 11.6.2.4). */
export function lapicArbitrationPriority(state: LapicState): number {
  const requested = Math.max(highestVector(state.irr), 0) & 0xf0;
  const serviced = Math.max(highestVector(state.isr), 0) & 0xf0;
  const task = state.tpr & 0xf0;
  if (task >= requested && task > serviced) return state.tpr;
  return Math.max(task, requested, serviced);
}

/** Processor priority (SDM 11.8.3.1): vectors of its class and below wait. */
export function lapicProcessorPriority(state: LapicState): number {
  const serviced = Math.max(highestVector(state.isr), 0) & 0xf0;
  return (state.tpr & 0xf0) >= serviced ? state.tpr : serviced;
}

/**
 * Takes a message that is for this APIC. `autoEoi`: the interrupt is not marked in service when it is taken.
 * The actions are those of the processor behind it (NMI, INIT...).
 */
export function lapicDeliver(
  state: LapicState,
  delivery: number,
  vector: number,
  level: boolean,
  autoEoi = false,
): readonly LapicAction[] {
  if (lapicMode(state) === 'disabled') return NO_ACTIONS;
  switch (delivery) {
    case DELIVERY.fixed:
    case DELIVERY.lowestPriority:
      if (lapicAcceptsInterrupts(state)) requestVector(state, vector, level, autoEoi);
      return NO_ACTIONS;
    case DELIVERY.smi:
      return [{ kind: 'smi' }];
    case DELIVERY.nmi:
      return [{ kind: 'nmi' }];
    case DELIVERY.init:
      initRegisters(state);
      state.waitsForStartup = !state.config.bootstrap;
      return [{ kind: 'init' }];
    case DELIVERY.startup:
      // SDM 9.4.3: a SIPI that nobody waits for is discarded.
      if (!state.waitsForStartup) return NO_ACTIONS;
      state.waitsForStartup = false;
      return [{ kind: 'startup', vector }];
    case DELIVERY.extInt:
      if (lapicAcceptsInterrupts(state)) state.extIntLatch = true;
      return NO_ACTIONS;
    default:
      // Remote read has no receiver here; the rest is reserved.
      return NO_ACTIONS;
  }
}

function requestVector(state: LapicState, vector: number, level: boolean, autoEoi: boolean): void {
  if (vector < FIRST_VECTOR) {
    reportError(state, ESR.receiveIllegalVector);
    return;
  }
  addVector(state.irr, vector);
  if (level) addVector(state.tmr, vector);
  else removeVector(state.tmr, vector);
  if (autoEoi) addVector(state.autoEoi, vector);
  else removeVector(state.autoEoi, vector);
}

/** Collects an error for ESR; the first one since ESR was written raises the error interrupt (SDM 11.5.3). */
export function reportError(state: LapicState, error: number): void {
  const armed = state.errors === 0;
  state.errors |= error;
  const entry = state.lvt[LVT.error] ?? 0;
  if (!armed || (entry & LVT_BIT.masked) !== 0 || !lapicAcceptsInterrupts(state)) return;
  const vector = entry & 0xff;
  if (vector < FIRST_VECTOR) state.errors |= ESR.receiveIllegalVector;
  else requestVector(state, vector, false, false);
}

/** Fires an entry of the local vector table: timer, performance counters, thermal sensor, CMCI, error. */
export function lapicFireLvt(state: LapicState, index: LvtIndex): readonly LapicAction[] {
  const entry = state.lvt[index] ?? LVT_BIT.masked;
  if ((entry & LVT_BIT.masked) !== 0 || lapicMode(state) === 'disabled') return NO_ACTIONS;
  // SDM 21.6.3: taking a performance interrupt masks its entry; AMD parts leave it alone.
  if (index === LVT.performance && state.config.vendor === 'intel') state.lvt[index] = entry | LVT_BIT.masked;
  return lapicDeliver(state, (entry >>> 8) & 7, entry & 0xff, false);
}

/** AMD's extended interrupts (instruction-based sampling, error thresholds), entry 0 to 3. */
export function lapicFireExtendedLvt(state: LapicState, index: number): readonly LapicAction[] {
  const entry = state.extendedLvt[index] ?? LVT_BIT.masked;
  if ((entry & LVT_BIT.masked) !== 0) return NO_ACTIONS;
  return lapicDeliver(state, (entry >>> 8) & 7, entry & 0xff, false);
}

/** Sets the voltage on LINT0 or LINT1. */
export function lapicSetPin(state: LapicState, pin: 0 | 1, high: boolean): readonly LapicAction[] {
  const before = pinActive(state, pin);
  state.pins[pin] = high;
  return pinActive(state, pin) === before ? NO_ACTIONS : pinChanged(state, pin);
}

/** A pin is active when its voltage differs from its polarity bit; without the APIC the pins are INTR and NMI. */
function pinActive(state: LapicState, pin: 0 | 1): boolean {
  const high = state.pins[pin];
  if (lapicMode(state) === 'disabled') return high;
  return ((state.lvt[LVT.lint0 + pin] ?? 0) & LVT_BIT.polarity) !== 0 ? !high : high;
}

function pinChanged(state: LapicState, pin: 0 | 1): readonly LapicAction[] {
  if (!pinActive(state, pin)) return NO_ACTIONS;
  if (lapicMode(state) === 'disabled') return pin === 1 ? [{ kind: 'nmi' }] : NO_ACTIONS;
  const entry = state.lvt[LVT.lint0 + pin] ?? 0;
  if ((entry & LVT_BIT.masked) !== 0) return NO_ACTIONS;
  const delivery = (entry >>> 8) & 7;
  // ExtINT is level-sensitive and is seen by `lapicExtIntPending` (SDM 11.5.1).
  if (delivery === DELIVERY.extInt) return NO_ACTIONS;
  if (delivery === DELIVERY.fixed && (entry & LVT_BIT.level) !== 0) return samplePin(state, pin);
  return lapicDeliver(state, delivery, entry & 0xff, false);
}

/** A level-triggered pin asks again whenever it is active, unmasked and not in service. */
export function samplePin(state: LapicState, pin: 0 | 1): readonly LapicAction[] {
  const index = LVT.lint0 + pin;
  const entry = state.lvt[index] ?? 0;
  const levelFixed = (entry & (LVT_BIT.level | LVT_BIT.deliveryMode)) === LVT_BIT.level;
  if (!levelFixed || (entry & (LVT_BIT.masked | LVT_BIT.remoteIrr)) !== 0) return NO_ACTIONS;
  if (!pinActive(state, pin) || !lapicAcceptsInterrupts(state)) return NO_ACTIONS;
  if ((entry & 0xff) >= FIRST_VECTOR) state.lvt[index] = entry | LVT_BIT.remoteIrr;
  return lapicDeliver(state, DELIVERY.fixed, entry & 0xff, true);
}

/** Whether the processor is to take a vector from the 8259A (INTA cycle): such interrupts know no priority. */
export function lapicExtIntPending(state: LapicState): boolean {
  if (state.extIntLatch) return true;
  if (lapicMode(state) === 'disabled') return state.pins[0];
  return extIntPin(state, 0) || extIntPin(state, 1);
}

function extIntPin(state: LapicState, pin: 0 | 1): boolean {
  const entry = state.lvt[LVT.lint0 + pin] ?? LVT_BIT.masked;
  if ((entry & LVT_BIT.masked) !== 0 || ((entry >>> 8) & 7) !== DELIVERY.extInt) return false;
  return pinActive(state, pin);
}

/** The INTA cycle: the owner asks the 8259A for the vector. */
export function lapicAcknowledgeExtInt(state: LapicState): void {
  state.extIntLatch = false;
}

/** Highest vector that the processor may be interrupted with now; -1 when there is none. */
export function lapicPendingVector(state: LapicState): number {
  if (lapicMode(state) === 'disabled') return -1;
  const vector = highestCommonVector(state.irr, state.enabled);
  return vector >= 0 && vector >>> 4 > lapicProcessorPriority(state) >>> 4 ? vector : -1;
}

/** Hands the highest pending vector to the processor; the spurious vector when it has gone (SDM 11.9). */
export function lapicAcknowledge(state: LapicState): number {
  const vector = lapicPendingVector(state);
  if (vector < 0) return state.svr & SVR.vector;
  removeVector(state.irr, vector);
  if (hasVector(state.autoEoi, vector)) removeVector(state.autoEoi, vector);
  else addVector(state.isr, vector);
  return vector;
}

/**
 * A processor that was given `vector` to deliver by itself has done so. False: the request had gone meanwhile, and the vector is in
 * service nevertheless.
 */
export function lapicAccept(state: LapicState, vector: number): boolean {
  const requested = hasVector(state.irr, vector);
  removeVector(state.irr, vector);
  if (hasVector(state.autoEoi, vector)) removeVector(state.autoEoi, vector);
  else addVector(state.isr, vector);
  return requested;
}

/** End of interrupt for the highest vector in service (SDM 11.8.5). */
export function lapicEoi(state: LapicState): readonly LapicAction[] {
  const vector = highestVector(state.isr);
  return vector < 0 ? NO_ACTIONS : endVector(state, vector);
}

export function endVector(state: LapicState, vector: number): readonly LapicAction[] {
  removeVector(state.isr, vector);
  if (!hasVector(state.tmr, vector)) return NO_ACTIONS;
  const actions: LapicAction[] = [];
  for (const pin of [0, 1] as const) {
    const entry = state.lvt[LVT.lint0 + pin] ?? 0;
    if ((entry & LVT_BIT.remoteIrr) === 0 || (entry & 0xff) !== vector) continue;
    state.lvt[LVT.lint0 + pin] = entry & ~LVT_BIT.remoteIrr;
    actions.push(...samplePin(state, pin));
  }
  if ((state.svr & SVR.suppressEoiBroadcast) === 0) actions.push({ kind: 'eoi', vector });
  return actions;
}

/**
 * Whether the vector in service may end without the APIC being told (Hyper-V's no-EOI-required bit): it is
 * edge-triggered, and nothing waits for its end.
 */
export function lapicMayEndSilently(state: LapicState): boolean {
  const serviced = highestVector(state.isr);
  if (serviced < 0 || hasVector(state.tmr, serviced)) return false;
  const waiting = highestVector(state.irr);
  return waiting < 0 || waiting >>> 4 <= state.tpr >>> 4;
}

/** Task priority as CR8 shows it. */
export function lapicReadCr8(state: LapicState): number {
  return state.tpr >>> 4;
}

/** MOV to CR8 clears the sub-class (SDM 11.8.6). Values above 15 are a fault before they come here. */
export function lapicWriteCr8(state: LapicState, value: number): void {
  state.tpr = (value & 0xf) << 4;
}

/**
 * Sends what an ICR says. `destination` is 8 bits wide, or 32 in x2APIC mode (`wide`).
 */
export function sendInterrupt(
  state: LapicState,
  icr: number,
  destination: number,
  wide: boolean,
): readonly LapicAction[] {
  const delivery = (icr >>> 8) & 7;
  const vector = icr & ICR.vector;
  if (delivery === DELIVERY.fixed || delivery === DELIVERY.lowestPriority) {
    if (vector < FIRST_VECTOR) {
      reportError(state, ESR.sendIllegalVector);
      return NO_ACTIONS;
    }
  } else if (delivery === DELIVERY.init) {
    // INIT level de-assert only set arbitration IDs, in parts that had any (SDM 11.6.1).
    if ((icr & (ICR.level | ICR.assert)) === ICR.level) return NO_ACTIONS;
  } else if (delivery === DELIVERY.remoteRead || delivery === DELIVERY.extInt) {
    return NO_ACTIONS;
  }
  return [
    {
      kind: 'message',
      message: {
        delivery,
        vector,
        // SDM 11.6.1, table 11-3: the APIC issues every IPI as edge-triggered, whatever the bit says.
        level: false,
        target: SHORTHAND[(icr >>> 18) & 3] ?? 'destination',
        logical: (icr & ICR.logical) !== 0,
        destination,
        wide,
      },
    },
  ];
}

const SHORTHAND = ['destination', 'self', 'all', 'others'] as const;
