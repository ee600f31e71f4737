/**
 * The chipset of a generation-2 VM, as its port and memory addresses: UARTs, clock chip, ACPI power management and the
 * IO-APIC. There is no PIC, PIT, HPET, keyboard controller and no PCI.
 *
 * What nobody claims reads as all ones and swallows writes. Zeros would do harm: Linux polls some absent ports and
 * takes a zero for "busy" or "present".
 */

import { PM, PM_STATUS, pmAdvance, pmInterrupt, pmNextEvent, pmRaise, pmRead, pmWrite } from '../pm.ts';
import { rtcAdvance, rtcInterrupt, rtcNextEvent, rtcRead, rtcWrite } from '../rtc.ts';
import { EVENT, EVENT_CLASS } from '../../abi/events.ts';
import type { EndReason } from '../../seats/actions.ts';
import { IOAPIC_PAGE, ioApicRead, ioApicWrite, setLine } from './interrupts.ts';
import { serialAdvance, serialNextEvent, serialRead, serialWrite, UNITS } from './serial.ts';
import type { PartitionCall, PartitionState } from './state.ts';

/** An 8-bit device: wider accesses are one for each port, as on the bus. */
interface ByteDevice {
  readonly read: (call: PartitionCall, offset: number) => number;
  readonly write: (call: PartitionCall, offset: number, value: number) => void;
}

interface PortRange {
  readonly first: number;
  readonly count: number;
  readonly present: (state: PartitionState) => boolean;
  readonly device: ByteDevice;
}

const RTC_PORT = 0x70;
const RTC_PIN = 8;
export const PM_PORT = 0x400;
/** The SCI, level-triggered and active high (the MADT says so). */
const SCI_PIN = 9;

const always = (): boolean => true;

const RANGES: readonly PortRange[] = [
  { first: RTC_PORT, count: 2, present: always, device: { read: clockRead, write: clockWrite } },
  { first: PM_PORT, count: PM.length, present: always, device: { read: powerRead, write: powerWrite } },
  ...UNITS.map(({ port }, unit): PortRange => ({
    first: port,
    count: 8,
    present: ({ serial }) => unit < serial.length,
    device: {
      read: (call, offset) => serialRead(call, unit, offset),
      write: (call, offset, value) => serialWrite(call, unit, offset, value),
    },
  })),
];

const rangeOfPort = new Map<number, PortRange>();
for (const range of RANGES) {
  for (let port = range.first; port < range.first + range.count; port++) rangeOfPort.set(port, range);
}

/** IN. */
export function boardRead(call: PartitionCall, port: number, size: number): number {
  let value = 0;
  for (let i = 0; i < size; i++) {
    const range = claimed(call, port + i);
    const byte = range === undefined ? 0xff : range.device.read(call, port + i - range.first) & 0xff;
    value |= byte << (8 * i);
  }
  return value >>> 0;
}

/** OUT. */
export function boardWrite(call: PartitionCall, port: number, size: number, value: number): void {
  for (let i = 0; i < size; i++) {
    const range = claimed(call, port + i);
    range?.device.write(call, port + i - range.first, (value >>> (8 * i)) & 0xff);
  }
}

function claimed({ state }: PartitionCall, port: number): PortRange | undefined {
  const range = rangeOfPort.get(port);
  return range?.present(state) === true ? range : undefined;
}

/** A read of memory that is none: low and high half. */
export function boardReadMemory(call: PartitionCall, gpa: number, size: number): readonly [number, number] {
  if (isIoApic(gpa)) return [ioApicRead(call, gpa - IOAPIC_PAGE), 0];
  return [size >= 4 ? 0xffff_ffff : (1 << (8 * size)) - 1, size === 8 ? 0xffff_ffff : 0];
}

export function boardWriteMemory(call: PartitionCall, gpa: number, lo: number): void {
  if (isIoApic(gpa)) ioApicWrite(call, gpa - IOAPIC_PAGE, lo);
}

function isIoApic(gpa: number): boolean {
  return gpa >= IOAPIC_PAGE && gpa < IOAPIC_PAGE + 0x1000;
}

function clockRead(call: PartitionCall, offset: number): number {
  const value = rtcRead(call.state.rtc, call.now, RTC_PORT + offset);
  driveClock(call);
  return value;
}

function clockWrite(call: PartitionCall, offset: number, value: number): void {
  rtcWrite(call.state.rtc, call.now, RTC_PORT + offset, value);
  driveClock(call);
}

function driveClock(call: PartitionCall): void {
  setLine(call, RTC_PIN, rtcInterrupt(call.state.rtc));
}

function powerRead(call: PartitionCall, offset: number): number {
  const value = pmRead(call.state.pm, call.now, offset, 1);
  drivePower(call);
  return value;
}

function powerWrite(call: PartitionCall, offset: number, value: number): void {
  const reason = pmWrite(call.state.pm, call.now, offset, 1, value);
  drivePower(call);
  if (reason !== undefined) endRun(call, reason);
}

function drivePower(call: PartitionCall): void {
  setLine(call, SCI_PIN, pmInterrupt(call.state.pm));
}

/** Somebody outside pressed the button. */
export function pressPowerButton(call: PartitionCall): void {
  pmRaise(call.state.pm, PM_STATUS.powerButton);
  drivePower(call);
}

/** The guest, or its death, ends the run. */
export function endRun(call: PartitionCall, reason: EndReason): void {
  if (call.sink.mask & EVENT_CLASS.lifecycle) {
    call.sink.emit(EVENT.end, call.now, 0, END_REASONS.indexOf(reason), 0, 0, 0);
  }
  call.actions.push({ kind: 'end', reason });
}

const END_REASONS: readonly EndReason[] = ['power-off', 'hibernate', 'reset', 'triple-fault'];

export function boardAdvance(call: PartitionCall): void {
  const { pm, rtc } = call.state;
  serialAdvance(call);
  if (rtcNextEvent(rtc) <= call.now) {
    rtcAdvance(rtc, call.now);
    driveClock(call);
  }
  if (pmNextEvent(pm) <= call.now) {
    pmAdvance(pm, call.now);
    drivePower(call);
  }
}

export function boardNextEvent({ pm, rtc, serial }: PartitionState): number {
  return Math.min(serialNextEvent(serial), rtcNextEvent(rtc), pmNextEvent(pm));
}
