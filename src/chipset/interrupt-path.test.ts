/** The interrupt models wired together, as an owner wires them: what a guest sees from the line to its EOI. */

import { describe, expect, test } from 'vitest';
import { deliverMessage, settleActions } from './apic-bus.ts';
import {
  createIoapic,
  ioapicEoi,
  IOAPIC,
  ioapicRead,
  ioapicRejected,
  ioapicSetLine,
  ioapicWrite,
  type IoapicAction,
  type IoapicState,
} from './ioapic.ts';
import {
  createLapic,
  lapicAcknowledge,
  lapicAcknowledgeExtInt,
  lapicExtIntPending,
  lapicPendingVector,
  lapicSetPin,
  type LapicState,
} from './lapic.ts';
import { lapicWriteMsr, lapicWritePage } from './lapic-access.ts';
import { APIC_MSR, LAPIC } from './lapic-registers.ts';
import { createPic, picAcknowledge, picOutput, picSetLine, picWrite } from './pic.ts';
import { createPit, pitAdvance, pitNextEvent, pitWrite } from './pit.ts';
import { hasVector } from './vector-set.ts';

const LEVEL = 0x8000;
const REMOTE_IRR = 0x4000;

interface Board {
  readonly apics: LapicState[];
  readonly ioapic: IoapicState;
}

function board(cpus: number, x2apic: boolean): Board {
  const apics = Array.from({ length: cpus }, (_, id) => {
    const apic = createLapic({ id, bootstrap: id === 0 });
    lapicWritePage(apic, 0, LAPIC.svr, 4, 0x1ff);
    if (x2apic) lapicWriteMsr(apic, 0, APIC_MSR.base, (apic.baseLo | 0x400) >>> 0, 0);
    return apic;
  });
  return { apics, ioapic: createIoapic() };
}

function apic(machine: Board, cpu: number): LapicState {
  const state = machine.apics[cpu];
  if (state === undefined) throw new Error(`no processor ${cpu}`);
  return state;
}

function route(machine: Board, actions: readonly IoapicAction[]): void {
  for (const action of actions) {
    if (action.kind !== 'message') continue;
    const { targets } = deliverMessage(machine.apics, -1, action.message);
    if (targets.length === 0) ioapicRejected(machine.ioapic, action.pin);
  }
}

function line(machine: Board, pin: number, asserted: boolean): void {
  route(machine, ioapicSetLine(machine.ioapic, pin, asserted));
}

function program(machine: Board, pin: number, lo: number, destination = 0): void {
  for (const [register, value] of [
    [0x11 + pin * 2, destination << 24],
    [0x10 + pin * 2, lo],
  ] as const) {
    ioapicWrite(machine.ioapic, IOAPIC.select, register);
    route(machine, ioapicWrite(machine.ioapic, IOAPIC.window, value >>> 0));
  }
}

function entry(machine: Board, pin: number): number {
  ioapicWrite(machine.ioapic, IOAPIC.select, 0x10 + pin * 2);
  return ioapicRead(machine.ioapic, IOAPIC.window);
}

function eoi(machine: Board, cpu: number): void {
  const written = lapicWriteMsr(apic(machine, cpu), 0, 0x80b, 0, 0);
  const { actions } = settleActions(machine.apics, cpu, written ?? []);
  for (const { action } of actions) {
    if (action.kind === 'eoi') route(machine, ioapicEoi(machine.ioapic, action.vector));
  }
}

/** Serves interrupts of one processor as long as there are any; `handler` runs before each EOI. */
function serve(machine: Board, cpu: number, handler: (vector: number) => void = () => undefined): number[] {
  const served: number[] = [];
  while (lapicPendingVector(apic(machine, cpu)) >= 0 && served.length < 20) {
    const vector = lapicAcknowledge(apic(machine, cpu));
    served.push(vector);
    handler(vector);
    eoi(machine, cpu);
  }
  return served;
}

describe('IO-APIC to local APIC', () => {
  test('a level-triggered line that stays asserted interrupts again after its EOI', () => {
    const machine = board(1, true);
    program(machine, 14, LEVEL | 0x9a);
    line(machine, 14, true);
    let count = 0;
    const served = serve(machine, 0, () => {
      if (++count === 2) line(machine, 14, false);
    });
    expect(served).toEqual([0x9a, 0x9a]);
    expect(entry(machine, 14) & REMOTE_IRR).toBe(0);
  });

  test('lowered and raised within its handler, it is one interrupt', () => {
    const machine = board(1, true);
    program(machine, 14, LEVEL | 0x98);
    line(machine, 14, true);
    const served = serve(machine, 0, () => {
      line(machine, 14, false);
      line(machine, 14, true);
      line(machine, 14, false);
    });
    expect(served).toEqual([0x98]);
  });

  test('TMR follows the trigger mode of each delivery', () => {
    const machine = board(1, true);
    const seen: boolean[] = [];
    for (const lo of [0x79, LEVEL | 0x79, LEVEL | 0x79, 0x79]) {
      program(machine, 14, lo);
      line(machine, 14, true);
      serve(machine, 0, (vector) => {
        seen.push(hasVector(apic(machine, 0).tmr, vector));
        line(machine, 14, false);
      });
    }
    expect(seen).toEqual([false, true, true, false]);
  });

  test('two edges while interrupts are off: the higher vector first, the lower one after it', () => {
    const machine = board(1, true);
    program(machine, 14, 0x78);
    program(machine, 15, 0x66);
    for (const pin of [15, 14]) {
      line(machine, pin, true);
      line(machine, pin, false);
    }
    expect(serve(machine, 0)).toEqual([0x78, 0x66]);
  });

  test('routed elsewhere while pending, it still ends where it was delivered', () => {
    const machine = board(2, true);
    program(machine, 13, LEVEL | 0x64);
    program(machine, 14, LEVEL | 0x84);
    line(machine, 13, true);
    expect(lapicAcknowledge(apic(machine, 0))).toBe(0x64);
    line(machine, 14, true);
    for (const [pin, vector] of [
      [14, 0x84],
      [13, 0x64],
    ] as const) {
      line(machine, pin, false);
      expect(entry(machine, pin)).toBe(LEVEL | REMOTE_IRR | vector);
      ioapicWrite(machine.ioapic, IOAPIC.select, 0x11 + pin * 2);
      route(machine, ioapicWrite(machine.ioapic, IOAPIC.window, 0x0100_0000));
    }
    eoi(machine, 0);
    expect(entry(machine, 13) & REMOTE_IRR).toBe(0);
    expect(serve(machine, 0)).toEqual([0x84]);
    expect(entry(machine, 14) & REMOTE_IRR).toBe(0);
    expect(lapicPendingVector(apic(machine, 1))).toBe(-1);
  });

  test('logical destination, level: every target serves it, each EOI asks again while the line is asserted', () => {
    const machine = board(4, true);
    program(machine, 14, LEVEL | 0x800 | 0x86, 0x0d);
    line(machine, 14, true);
    expect([0, 1, 2, 3].map((cpu) => lapicPendingVector(apic(machine, cpu)))).toEqual([0x86, -1, 0x86, 0x86]);
    const served = [0, 2, 3].map((cpu) => serve(machine, cpu, () => line(machine, 14, false)));
    expect(served).toEqual([[0x86], [0x86], [0x86]]);
    expect(entry(machine, 14) & REMOTE_IRR).toBe(0);
  });

  test('sent to nobody, it is sent when somebody is named', () => {
    const machine = board(1, false);
    program(machine, 14, LEVEL | 0x50, 7);
    line(machine, 14, true);
    expect(entry(machine, 14) & REMOTE_IRR).toBe(0);
    program(machine, 14, LEVEL | 0x50, 0);
    expect(lapicPendingVector(apic(machine, 0))).toBe(0x50);
  });
});

describe('virtual wire', () => {
  test('timer, 8259A, LINT0 as ExtINT: one vector for each period', () => {
    const machine = board(1, false);
    const cpu = apic(machine, 0);
    const pic = createPic();
    const pit = createPit();
    for (const [port, value] of [
      [0x20, 0x11],
      [0x21, 0x20],
      [0x21, 4],
      [0x21, 1],
      [0x21, 0xfe],
    ] as const) {
      picWrite(pic, port, value);
    }
    lapicWritePage(cpu, 0, LAPIC.lvtLint0, 4, 0x700);
    pitWrite(pit, 0, 0x43, 0x34);
    pitWrite(pit, 0, 0x40, 1193 & 0xff);
    pitWrite(pit, 0, 0x40, 1193 >>> 8);
    const vectors: number[] = [];
    for (let now = pitNextEvent(pit); now <= 10_000_000; now = pitNextEvent(pit)) {
      const { rose, level } = pitAdvance(pit, now);
      if (rose) picSetLine(pic, 0, false);
      picSetLine(pic, 0, rose || level);
      picSetLine(pic, 0, level);
      lapicSetPin(cpu, 0, picOutput(pic));
      if (!lapicExtIntPending(cpu)) continue;
      lapicAcknowledgeExtInt(cpu);
      vectors.push(picAcknowledge(pic));
      picWrite(pic, 0x20, 0x20);
      lapicSetPin(cpu, 0, picOutput(pic));
    }
    expect(vectors).toEqual(new Array(10).fill(0x20));
  });
});
