/**
 * The chipset of a generation-2 VM, as its port and memory addresses: UARTs and the IO-APIC. There is no PIC, PIT,
 * HPET, keyboard controller and no PCI.
 *
 * What nobody claims reads as all ones and swallows writes. Zeros would do harm: Linux polls some absent ports and
 * takes a zero for "busy" or "present".
 */

import { IOAPIC_PAGE, ioApicRead, ioApicWrite } from './interrupts.ts';
import { serialAdvance, serialNextEvent, serialRead, serialWrite, UNITS } from './serial.ts';
import type { HostCall, HostState } from './state.ts';

/** An 8-bit device: wider accesses are one for each port, as on the bus. */
interface ByteDevice {
  readonly read: (call: HostCall, offset: number) => number;
  readonly write: (call: HostCall, offset: number, value: number) => void;
}

interface PortRange {
  readonly first: number;
  readonly count: number;
  readonly present: (state: HostState) => boolean;
  readonly device: ByteDevice;
}

const RANGES: readonly PortRange[] = UNITS.map(({ port }, unit) => ({
  first: port,
  count: 8,
  present: ({ serial }) => unit < serial.length,
  device: {
    read: (call, offset) => serialRead(call, unit, offset),
    write: (call, offset, value) => serialWrite(call, unit, offset, value),
  },
}));

const rangeOfPort = new Map<number, PortRange>();
for (const range of RANGES) {
  for (let port = range.first; port < range.first + range.count; port++) rangeOfPort.set(port, range);
}

/** IN. */
export function boardRead(call: HostCall, port: number, size: number): number {
  let value = 0;
  for (let i = 0; i < size; i++) {
    const range = claimed(call, port + i);
    const byte = range === undefined ? 0xff : range.device.read(call, port + i - range.first) & 0xff;
    value |= byte << (8 * i);
  }
  return value >>> 0;
}

/** OUT. */
export function boardWrite(call: HostCall, port: number, size: number, value: number): void {
  for (let i = 0; i < size; i++) {
    const range = claimed(call, port + i);
    range?.device.write(call, port + i - range.first, (value >>> (8 * i)) & 0xff);
  }
}

function claimed({ state }: HostCall, port: number): PortRange | undefined {
  const range = rangeOfPort.get(port);
  return range?.present(state) === true ? range : undefined;
}

/** A read of memory that is none: low and high half. */
export function boardReadMemory(call: HostCall, gpa: number, size: number): readonly [number, number] {
  if (isIoApic(gpa)) return [ioApicRead(call, gpa - IOAPIC_PAGE), 0];
  return [size >= 4 ? 0xffff_ffff : (1 << (8 * size)) - 1, size === 8 ? 0xffff_ffff : 0];
}

export function boardWriteMemory(call: HostCall, gpa: number, lo: number): void {
  if (isIoApic(gpa)) ioApicWrite(call, gpa - IOAPIC_PAGE, lo);
}

function isIoApic(gpa: number): boolean {
  return gpa >= IOAPIC_PAGE && gpa < IOAPIC_PAGE + 0x1000;
}

export function boardAdvance(call: HostCall): void {
  serialAdvance(call);
}

export function boardNextEvent({ serial }: HostState): number {
  return serialNextEvent(serial);
}
