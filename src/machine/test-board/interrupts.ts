/**
 * The interrupt wiring of the test board, which is a PC's: a device's line goes to the 8259As and to a pin of the
 * IO-APIC (interrupt 0 to pin 2), INTR goes to LINT0 of every local APIC, and what the APICs send each other and ask
 * of their processors is carried out here.
 */
import { REGISTER } from '../../abi/hyperv/registers.ts';
import { deliverMessage, settleActions, type BusAction } from '../../chipset/apic-bus.ts';
import { ioapicEoi, ioapicRejected, ioapicSetLine, type IoapicAction } from '../../chipset/ioapic.ts';
import {
  lapicAcknowledge,
  lapicAcknowledgeExtInt,
  lapicExtIntPending,
  lapicPendingVector,
  lapicSetPin,
  type LapicAction,
  type LapicState,
} from '../../chipset/lapic.ts';
import { picAcknowledge, picOutput, picSetLine } from '../../chipset/pic.ts';
import type { BoardCall, BoardVp } from './state.ts';

const TIMER_PIN = 2;
const PIC_LINES = 16;
/** The line that joins the second 8259A to the first: no device has it. */
const CASCADE = 2;

/** A device drives its line; `line` is the ISA interrupt below 16, the IO-APIC pin above. */
export function setLine(call: BoardCall, line: number, asserted: boolean): void {
  const { board } = call;
  if (line < PIC_LINES && line !== CASCADE) {
    picSetLine(board.pic, line, asserted);
    driveIntr(call);
  }
  call.owner.pin(call, line === 0 ? TIMER_PIN : line, asserted);
}

/** After anything that may have changed the 8259As' output. */
export function driveIntr(call: BoardCall): void {
  call.owner.intr(call, picOutput(call.board.pic));
}

export function setIntr(call: BoardCall, high: boolean): void {
  for (const vp of call.board.vps) settle(call, vp, lapicSetPin(vp.apic, 0, high));
}

export function setIoapicPin(call: BoardCall, pin: number, asserted: boolean): void {
  settleIoapic(call, ioapicSetLine(call.board.ioapic, pin, asserted));
}

export function settleIoapic(call: BoardCall, actions: readonly IoapicAction[]): void {
  for (const action of actions) {
    // `ended` is for devices that hold their line until they are asked; those here follow their registers.
    if (action.kind !== 'message') continue;
    const { targets, actions: left } = deliverMessage(apicsOf(call), -1, action.message);
    applyAll(call, left);
    if (targets.length === 0) ioapicRejected(call.board.ioapic, action.pin);
  }
}

/** Carries out what the VP's own APIC asks for. */
export function settle(call: BoardCall, vp: BoardVp, actions: readonly LapicAction[]): void {
  if (actions.length > 0) applyAll(call, settleActions(apicsOf(call), vp.index, actions).actions);
}

const apicsOf = ({ board }: BoardCall): LapicState[] => board.vps.map(({ apic }) => apic);

function applyAll(call: BoardCall, actions: readonly BusAction[]): void {
  for (const { apic, action } of actions) {
    const vp = call.board.vps[apic];
    if (vp !== undefined) apply(call, vp, action);
  }
}

function apply(call: BoardCall, vp: BoardVp, action: LapicAction): void {
  switch (action.kind) {
    case 'nmi':
      vp.nmis = Math.min(vp.nmis + 1, nmiLimit(call, vp));
      return;
    case 'init':
      vp.nmis = 0;
      vp.activity = vp.apic.waitsForStartup ? 'waiting' : 'running';
      call.actions.push({ kind: 'init', vp: vp.index });
      return;
    case 'startup':
      vp.activity = 'running';
      call.actions.push({ kind: 'startup', vp: vp.index, vector: action.vector });
      return;
    case 'eoi':
      settleIoapic(call, ioapicEoi(call.board.ioapic, action.vector));
      return;
    // There is no SMM here, and messages have been delivered.
    case 'smi':
    case 'message':
      return;
  }
}

/** HV_X64_INTERRUPT_STATE_REGISTER (TLFS 9.7): NMIs wait for IRET. */
const NMI_MASKED = 2;

/**
 * A processor holds one NMI while it handles another. Outside of a handler a real one would have begun with the first
 * before the second came; a VP that did not have its turn yet makes up for it.
 */
function nmiLimit({ view }: BoardCall, { index }: BoardVp): number {
  const state = view.getRegister(index, REGISTER.interruptState);
  return state === undefined || (state[0] & NMI_MASKED) !== 0 ? 1 : 2;
}

/** Whether a maskable interrupt waits, from the local APIC or through it from the 8259As. */
export function hasInterrupt({ apic }: BoardVp): boolean {
  return lapicPendingVector(apic) >= 0 || lapicExtIntPending(apic);
}

/** Takes the interrupt. One from the 8259As goes first: it knows no priority. */
export function acknowledge(call: BoardCall, vp: BoardVp): number {
  if (!lapicExtIntPending(vp.apic)) return lapicAcknowledge(vp.apic);
  lapicAcknowledgeExtInt(vp.apic);
  return acknowledgePic(call);
}

/** The vector that the 8259As give. */
export function acknowledgePic(call: BoardCall): number {
  const vector = picAcknowledge(call.board.pic);
  driveIntr(call);
  return vector;
}
