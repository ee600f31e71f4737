/**
 * The interrupt controllers of a partition: what reaches local APICs and IO-APIC, what they send, and what the
 * processors may take.
 */

import { deliverMessage, settleActions, type BusAction } from '../apic-bus.ts';
import { DELIVERY, type ApicMessage } from '../apic-message.ts';
import {
  createIoapic,
  ioapicEoi,
  ioapicRead,
  ioapicRejected,
  ioapicSetLine,
  ioapicWrite,
  type IoapicAction,
  type IoapicState,
} from '../ioapic.ts';
import {
  isLapicMsr,
  lapicReadMsr,
  lapicReadPage,
  lapicWriteIcr,
  lapicWriteMsr,
  lapicWritePage,
} from '../lapic-access.ts';
import { lapicAdvance, lapicNextEvent, lapicSetTscOffset } from '../lapic-timer.ts';
import {
  createLapic,
  lapicAccept,
  lapicAcknowledge,
  lapicAcknowledgeExtInt,
  lapicDeliver,
  lapicEoi,
  lapicExtIntPending,
  lapicMayEndSilently,
  lapicMode,
  lapicPage,
  lapicPendingVector,
  lapicReadCr8,
  lapicSetPin,
  lapicWriteCr8,
  type LapicAction,
  type LapicState,
} from '../lapic.ts';
import type { Pair } from '../synic.ts';
import { hasVector, highestVector, removeVector } from '../vector-set.ts';
import { EVENT, EVENT_CLASS } from '../../abi/events.ts';
import { highHalf, lowHalf } from '../../abi/record.ts';
import type { PartitionConfig } from './config.ts';
import type { PartitionCall, VpState } from './state.ts';

export interface LocalApic {
  readonly apic: LapicState;
  /** An NMI that the processor has not taken; a second one is lost, as on hardware. */
  nmi: boolean;
}

/** Register offset of TPR in the xAPIC page. */
const TPR = 0x80;
const ICR_LOW = 0x300;
const ICR_HIGH = 0x310;

export function createLocalApic(config: PartitionConfig, index: number): LocalApic {
  const apic = createLapic({
    id: index,
    bootstrap: index === 0,
    vendor: config.vendor,
    x2apic: config.x2apicLocked === true ? 'locked' : config.x2apic ? 'offered' : 'absent',
    tscDeadline: config.tscDeadline,
    busHz: config.apicHz,
    tscHz: config.tscHz,
    physicalAddressBits: config.physicalAddressBits,
  });
  lapicSetTscOffset(apic, 0, lowHalf(config.tscAtZero), highHalf(config.tscAtZero));
  return { apic, nmi: false };
}

/** A fixed, edge-triggered interrupt straight to one VP. */
export function requestInterrupt(
  call: PartitionCall,
  vp: VpState,
  vector: number,
  { autoEoi = false }: { readonly autoEoi?: boolean },
): void {
  if (call.sink.mask & EVENT_CLASS.interrupt) {
    call.sink.emit(EVENT.interruptRequested, call.now, vp.index, vector, 0, 0, 0);
  }
  lapicDeliver(vp.lapic.apic, DELIVERY.fixed, vector, false, autoEoi);
}

/** A message from an IO-APIC or a device. Empty: nobody took it. */
export function sendMessage(call: PartitionCall, message: ApicMessage): readonly number[] {
  const { targets, actions } = deliverMessage(apicsOf(call), -1, message);
  if (call.sink.mask & EVENT_CLASS.interrupt) {
    for (const target of targets) {
      call.sink.emit(EVENT.interruptRequested, call.now, target, message.vector, 1, 0, 0);
    }
  }
  applyAll(call, actions);
  return targets;
}

function apicsOf({ state }: PartitionCall): LapicState[] {
  return state.vps.map(({ lapic }) => lapic.apic);
}

/** Carries out what the VP's APIC asks for. */
function settle(call: PartitionCall, vp: VpState, actions: readonly LapicAction[]): void {
  if (actions.length === 0) return;
  if (call.sink.mask & EVENT_CLASS.interrupt) {
    for (const action of actions) {
      if (action.kind !== 'message') continue;
      const { vector, destination } = action.message;
      call.sink.emit(EVENT.ipi, call.now, vp.index, vector, destination, 0, 0);
    }
  }
  applyAll(call, settleActions(apicsOf(call), vp.index, actions).actions);
}

function applyAll(call: PartitionCall, actions: readonly BusAction[]): void {
  for (const { apic, action } of actions) {
    const vp = call.state.vps[apic];
    if (vp !== undefined) apply(call, vp, action);
  }
}

function apply(call: PartitionCall, vp: VpState, action: LapicAction): void {
  const lifecycle = (call.sink.mask & EVENT_CLASS.lifecycle) !== 0;
  switch (action.kind) {
    case 'nmi':
      vp.lapic.nmi = true;
      if (call.sink.mask & EVENT_CLASS.interrupt) call.sink.emit(EVENT.nmi, call.now, vp.index, 0, 0, 0, 0);
      return;
    case 'init':
      vp.lapic.nmi = false;
      vp.activity = vp.lapic.apic.waitsForStartup ? 'waiting' : 'running';
      if (lifecycle) call.sink.emit(EVENT.init, call.now, vp.index, 0, 0, 0, 0);
      call.actions.push({ kind: 'init', vp: vp.index });
      return;
    case 'startup':
      vp.activity = 'running';
      if (lifecycle) call.sink.emit(EVENT.startup, call.now, vp.index, action.vector, 0, 0, 0);
      call.actions.push({ kind: 'startup', vp: vp.index, vector: action.vector });
      return;
    case 'eoi':
      settleIoapic(call, ioapicEoi(call.state.ioapic, action.vector));
      return;
    // No SMM here, and messages have been delivered.
    case 'smi':
    case 'message':
      return;
  }
}

/** One unit at the usual address, with no EOI register, as generation-2 VMs have it. */
export const IOAPIC_PAGE = 0xfec0_0000;

export function createIoApic(): IoapicState {
  return createIoapic({ version: 0x11, pins: 24 });
}

/** A device asserts or releases the line of an IO-APIC pin. */
export function setLine(call: PartitionCall, pin: number, asserted: boolean): void {
  settleIoapic(call, ioapicSetLine(call.state.ioapic, pin, asserted));
}

export function ioApicRead({ state }: PartitionCall, offset: number): number {
  return ioapicRead(state.ioapic, offset);
}

export function ioApicWrite(call: PartitionCall, offset: number, value: number): void {
  settleIoapic(call, ioapicWrite(call.state.ioapic, offset, value));
}

function settleIoapic(call: PartitionCall, actions: readonly IoapicAction[]): void {
  for (const action of actions) {
    // `ended` is for devices that hold their line until they are asked; those here follow their registers.
    if (action.kind !== 'message') continue;
    if (sendMessage(call, action.message).length === 0) ioapicRejected(call.state.ioapic, action.pin);
  }
}

/** HvCallStartVirtualProcessor starts a VP past its wait for SIPI. */
export function skipStartup(vp: VpState): void {
  vp.lapic.apic.waitsForStartup = false;
  vp.activity = 'running';
}

/** Whether this guest-physical address is one of the VP's own APIC registers. */
export function isApicPage({ lapic }: VpState, gpa: number): boolean {
  const page = lapicPage(lapic.apic);
  return page >= 0 && gpa >= page && gpa < page + 0x1000;
}

export function apicRead({ now }: PartitionCall, { lapic }: VpState, offset: number, size: number): number {
  return lapicReadPage(lapic.apic, now, offset, size);
}

export function apicWrite(
  call: PartitionCall,
  vp: VpState,
  offset: number,
  size: number,
  value: number,
): void {
  settle(call, vp, lapicWritePage(vp.lapic.apic, call.now, offset, size, value));
}

export { isLapicMsr as isApicMsr };

export function apicReadMsr({ now }: PartitionCall, { lapic }: VpState, index: number): Pair | undefined {
  return lapicReadMsr(lapic.apic, now, index);
}

/** False: #GP. */
export function apicWriteMsr(
  call: PartitionCall,
  vp: VpState,
  index: number,
  lo: number,
  hi: number,
): boolean {
  const actions = lapicWriteMsr(vp.lapic.apic, call.now, index, lo, hi);
  if (actions === undefined) return false;
  settle(call, vp, actions);
  return true;
}

export function isApicEnabled({ lapic }: VpState): boolean {
  return lapicMode(lapic.apic) !== 'disabled';
}

export function apicReadCr8({ lapic }: VpState): number {
  return lapicReadCr8(lapic.apic);
}

export function apicWriteCr8({ lapic }: VpState, value: number): void {
  lapicWriteCr8(lapic.apic, value);
}

/** The four registers that have synthetic MSRs. */
export function apicWriteEoi(call: PartitionCall, vp: VpState): void {
  settle(call, vp, lapicEoi(vp.lapic.apic));
}

export function apicReadIcr({ now }: PartitionCall, { lapic }: VpState): Pair {
  const { apic } = lapic;
  return { lo: lapicReadPage(apic, now, ICR_LOW, 4), hi: lapicReadPage(apic, now, ICR_HIGH, 4) };
}

export function apicWriteIcr(call: PartitionCall, vp: VpState, lo: number, hi: number): void {
  settle(call, vp, lapicWriteIcr(vp.lapic.apic, lo, hi));
}

export function apicReadTpr({ now }: PartitionCall, { lapic }: VpState): number {
  return lapicReadPage(lapic.apic, now, TPR, 4);
}

export function apicWriteTpr({ lapic }: VpState, value: number): void {
  lapic.apic.tpr = value;
}

export function hasInterrupt({ lapic }: VpState): boolean {
  return lapicPendingVector(lapic.apic) >= 0;
}

export function acknowledgeInterrupt({ lapic }: VpState): number {
  return lapicAcknowledge(lapic.apic);
}

/** The interrupt in service may be ended without anybody hearing of it. */
export function endsSilently({ lapic }: VpState): boolean {
  return lapicMayEndSilently(lapic.apic);
}

/** Highest vector that the VP may be interrupted with now; -1: none. */
export function pendingVector({ lapic }: VpState): number {
  return lapicPendingVector(lapic.apic);
}

/** The VP's processor has delivered `vector`, which it had been given before. */
export function acceptInterrupt({ lapic }: VpState, vector: number): void {
  lapicAccept(lapic.apic, vector);
}

/**
 * Hands the highest requested vector to a virtual APIC behind this one (posted interrupts), which alone knows priorities and
 * ends of interrupts. A level-triggered source is asked again at once, since nobody will tell when the vector has ended.
 */
export function postInterrupt(call: PartitionCall, vp: VpState): number {
  const { apic } = vp.lapic;
  const vector = highestVector(apic.irr);
  if (vector < 0) return -1;
  removeVector(apic.irr, vector);
  if (hasVector(apic.tmr, vector)) settleIoapic(call, ioapicEoi(call.state.ioapic, vector));
  return vector;
}

/** An 8259A has something for the VP: where a board has one. */
export function hasExternal({ lapic }: VpState): boolean {
  return lapicExtIntPending(lapic.apic);
}

/** The machine takes the vector from the 8259A. */
export function takeExternal({ lapic }: VpState): void {
  lapicAcknowledgeExtInt(lapic.apic);
}

/** Voltage on LINT0 or LINT1. */
export function setLocalPin(call: PartitionCall, vp: VpState, pin: 0 | 1, high: boolean): void {
  settle(call, vp, lapicSetPin(vp.lapic.apic, pin, high));
}

export function hasNmi({ lapic }: VpState): boolean {
  return lapic.nmi;
}

export function takeNmi({ lapic }: VpState): void {
  lapic.nmi = false;
}

export function apicTimerAdvance({ now }: PartitionCall, { lapic }: VpState): void {
  lapicAdvance(lapic.apic, now);
}

export function apicTimerNextEvent({ lapic }: VpState): number {
  return lapicNextEvent(lapic.apic);
}

/** The VP's TSC was written: what it would have been at virtual time 0, modulo 2^64. */
export function apicTscOffset({ lapic }: VpState, now: number, lo: number, hi: number): void {
  lapicSetTscOffset(lapic.apic, now, lo, hi);
}
