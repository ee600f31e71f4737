/** The chipset of a generation-2 VM as far as the host owns it, behind port and memory addresses. */

import type { HostConfig } from './config.ts';
import { IOAPIC_PAGE, ioApicRead, ioApicWrite } from './interrupts.ts';
import type { HostCall, HostState } from './state.ts';

export interface BoardState {
  readonly reserved: 0;
}

export function createBoard(_config: HostConfig): BoardState {
  return { reserved: 0 };
}

/** IN. Ports that nobody claims read as all ones: Linux polls some of them and takes zero for "busy". */
export function boardRead(_call: HostCall, _port: number, size: number): number {
  return allOnes(size);
}

/** OUT. What nobody claims is lost. */
export function boardWrite(_call: HostCall, _port: number, _size: number, _value: number): void {}

export function boardReadMemory(call: HostCall, gpa: number, size: number): readonly [number, number] {
  if (isIoApic(gpa)) return [ioApicRead(call, gpa - IOAPIC_PAGE), 0];
  return [allOnes(size), size === 8 ? 0xffff_ffff : 0];
}

export function boardWriteMemory(call: HostCall, gpa: number, lo: number): void {
  if (isIoApic(gpa)) ioApicWrite(call, gpa - IOAPIC_PAGE, lo);
}

function isIoApic(gpa: number): boolean {
  return gpa >= IOAPIC_PAGE && gpa < IOAPIC_PAGE + 0x1000;
}

export function boardAdvance(_call: HostCall): void {}

export function boardNextEvent(_state: HostState): number {
  return Infinity;
}

function allOnes(size: number): number {
  return size >= 4 ? 0xffff_ffff : (1 << (8 * size)) - 1;
}
