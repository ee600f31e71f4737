/** What is behind guest-physical addresses without memory: the APICs, the HPET, the test device. */
import { HPET, HPET_BASE, hpetRead, hpetWrite } from '../../chipset/hpet.ts';
import { ioapicRead, ioapicWrite } from '../../chipset/ioapic.ts';
import { lapicReadPage, lapicWritePage } from '../../chipset/lapic-access.ts';
import { lapicPage } from '../../chipset/lapic.ts';
import { settle, settleIoapic } from './interrupts.ts';
import { driveHpet } from './ports.ts';
import type { BoardCall, BoardVp } from './state.ts';
import { DEVICE_MEMORY_BASE, DEVICE_MEMORY_SIZE } from './test-device.ts';

const PAGE = 0x1000;
const IOAPIC_BASE = 0xfec00000;

type Halves = readonly [lo: number, hi: number];
type Size = 1 | 2 | 4 | 8;

const ONES: Halves = [0xffffffff, 0xffffffff];
const within = (gpa: number, base: number, size: number): boolean =>
  base >= 0 && gpa >= base && gpa < base + size;

export function readMemory(call: BoardCall, vp: BoardVp, gpa: number, size: Size): Halves {
  const { board, now } = call;
  const page = lapicPage(vp.apic);
  // The local APIC comes first: a program may move its page over another device.
  if (within(gpa, page, PAGE)) return [lapicReadPage(vp.apic, now, gpa - page, size), 0];
  if (within(gpa, IOAPIC_BASE, PAGE)) return [ioapicRead(board.ioapic, gpa - IOAPIC_BASE), 0];
  return readDevice(call, gpa, size);
}

/** Whether a device of the board that is no interrupt controller lies there. */
export function isDevice(gpa: number): boolean {
  return within(gpa, HPET_BASE, HPET.length) || within(gpa, DEVICE_MEMORY_BASE, DEVICE_MEMORY_SIZE);
}

export function readDevice({ board, now }: BoardCall, gpa: number, size: Size): Halves {
  if (within(gpa, HPET_BASE, HPET.length)) {
    const { lo, hi } = hpetRead(board.hpet, now, gpa - HPET_BASE, size);
    return [lo, hi];
  }
  if (within(gpa, DEVICE_MEMORY_BASE, DEVICE_MEMORY_SIZE)) {
    const { memory } = board.device;
    const word = (at: number, count: number): number => {
      let value = 0;
      for (let i = 0; i < count; i++) value |= (memory[at + i] ?? 0xff) << (i * 8);
      return value >>> 0;
    };
    const at = gpa - DEVICE_MEMORY_BASE;
    return [word(at, Math.min(size, 4)), size === 8 ? word(at + 4, 4) : 0];
  }
  return ONES;
}

export function writeMemory(call: BoardCall, vp: BoardVp, gpa: number, size: Size, [lo, hi]: Halves): void {
  const { board, now } = call;
  const page = lapicPage(vp.apic);
  if (within(gpa, page, PAGE)) {
    settle(call, vp, lapicWritePage(vp.apic, now, gpa - page, size, lo));
  } else if (within(gpa, IOAPIC_BASE, PAGE)) {
    settleIoapic(call, ioapicWrite(board.ioapic, gpa - IOAPIC_BASE, lo));
  } else writeDevice(call, gpa, size, [lo, hi]);
}

export function writeDevice(call: BoardCall, gpa: number, size: Size, [lo, hi]: Halves): void {
  const { board, now } = call;
  if (within(gpa, HPET_BASE, HPET.length)) {
    driveHpet(call, hpetWrite(board.hpet, now, gpa - HPET_BASE, size, lo, hi));
  } else if (within(gpa, DEVICE_MEMORY_BASE, DEVICE_MEMORY_SIZE)) {
    const at = gpa - DEVICE_MEMORY_BASE;
    for (let i = 0; i < size && at + i < DEVICE_MEMORY_SIZE; i++) {
      board.device.memory[at + i] = (i < 4 ? lo >>> (i * 8) : hi >>> ((i - 4) * 8)) & 0xff;
    }
  }
}
