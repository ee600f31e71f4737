/**
 * What a PC's firmware leaves behind for a program that the boot loader starts: a timer tick at 18.2 Hz on the first
 * input of the 8259As, which reach the first processor through its local APIC, an interrupt table whose entries return,
 * and the ACPI tables. Programs in real mode rely on the tick to wake them from HLT.
 */
import { LAPIC } from '../../chipset/lapic-registers.ts';
import { lapicWritePage } from '../../chipset/lapic-access.ts';
import type { LapicState } from '../../chipset/lapic.ts';
import { PIC_PORT, type PicState, picWrite } from '../../chipset/pic.ts';
import { PIT_PORT, type PitState, pitWrite } from '../../chipset/pit.ts';
import { type PowerManagementPorts, TABLES_BASE, acpiTables } from './tables.ts';

/** A part of the board's memory: what the loader calls a piece. */
export interface FirmwarePiece {
  readonly name: string;
  readonly gpa: number;
  readonly bytes: Uint8Array;
}

const MASTER_VECTOR = 0x08;
const SLAVE_VECTOR = 0x70;
/** Everything masked but the timer and the cascade. */
const MASTER_MASK = 0xfa;
const SLAVE_MASK = 0xff;

export function initialisePic(pic: PicState): void {
  const { masterCommand, masterData, slaveCommand, slaveData } = PIC_PORT;
  for (const port of [masterCommand, slaveCommand]) picWrite(pic, port, 0x11);
  for (const value of [MASTER_VECTOR, 0x04, 0x01, MASTER_MASK]) picWrite(pic, masterData, value);
  for (const value of [SLAVE_VECTOR, 0x02, 0x01, SLAVE_MASK]) picWrite(pic, slaveData, value);
}

/** Channel 0, rate generator, the longest count. */
export function startTimer(pit: PitState): void {
  pitWrite(pit, 0, PIT_PORT.control, 0x34);
  pitWrite(pit, 0, PIT_PORT.counter0, 0);
  pitWrite(pit, 0, PIT_PORT.counter0, 0);
}

/** Virtual wire mode: the APIC is on and LINT0 passes the 8259As' interrupts (MP specification 1.4, 3.6.2.2). */
export function enableVirtualWire(apic: LapicState): void {
  lapicWritePage(apic, 0, LAPIC.svr, 4, 0x1ff);
  lapicWritePage(apic, 0, LAPIC.lvtLint0, 4, 0x700);
}

const STUBS = 0xff000;
const SEGMENT = 0xf000;
const IRET = 0xcf;
/** push ax; mov al, 20h; out 0A0h, al (slave only); out 20h, al; pop ax; iret */
const MASTER_STUB = [0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, IRET];
const SLAVE_STUB = [0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, IRET];
const MASTER_STUB_AT = 0x10;
const SLAVE_STUB_AT = 0x20;

export function firmwarePieces(cpus: number, ports: PowerManagementPorts): FirmwarePiece[] {
  const stubs = new Uint8Array(0x30);
  stubs[0] = IRET;
  stubs.set(MASTER_STUB, MASTER_STUB_AT);
  stubs.set(SLAVE_STUB, SLAVE_STUB_AT);
  const table = new Uint8Array(0x400);
  const view = new DataView(table.buffer);
  for (let vector = 0; vector < 0x100; vector++) {
    const stub =
      vector >= MASTER_VECTOR && vector < MASTER_VECTOR + 8
        ? MASTER_STUB_AT
        : vector >= SLAVE_VECTOR && vector < SLAVE_VECTOR + 8
          ? SLAVE_STUB_AT
          : 0;
    view.setUint16(vector * 4, STUBS - SEGMENT * 16 + stub, true);
    view.setUint16(vector * 4 + 2, SEGMENT, true);
  }
  return [
    { name: 'interrupt table', gpa: 0, bytes: table },
    { name: 'ACPI tables', gpa: TABLES_BASE, bytes: acpiTables(cpus, ports) },
    { name: 'interrupt stubs', gpa: STUBS, bytes: stubs },
  ];
}
