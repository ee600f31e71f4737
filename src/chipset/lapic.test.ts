import { describe, expect, test } from 'vitest';
import { DELIVERY } from './apic-message.ts';
import {
  createLapic,
  lapicAcknowledge,
  lapicAcknowledgeExtInt,
  lapicDeliver,
  lapicEoi,
  lapicExtIntPending,
  lapicFireExtendedLvt,
  lapicFireLvt,
  lapicMayEndSilently,
  lapicMode,
  lapicPage,
  lapicPendingVector,
  lapicProcessorPriority,
  lapicReadCr8,
  lapicSetPin,
  lapicWriteCr8,
  resetLapic,
  type LapicState,
} from './lapic.ts';
import {
  isLapicMsr,
  lapicReadMsr,
  lapicReadPage,
  lapicWriteIcr,
  lapicWriteMsr,
  lapicWritePage,
} from './lapic-access.ts';
import { APIC_MSR, LAPIC, LVT } from './lapic-registers.ts';
import { hasVector } from './vector-set.ts';

const BASE = 0xfee0_0000;
const ENABLED = BASE | 0x900;

function read(state: LapicState, offset: number, now = 0): number {
  return lapicReadPage(state, now, offset, 4);
}

function write(state: LapicState, offset: number, value: number, now = 0) {
  return lapicWritePage(state, now, offset, 4, value >>> 0);
}

/** The bootstrap processor's APIC, enabled by software, in xAPIC mode. */
function enabledApic(options: Partial<Parameters<typeof createLapic>[0]> = {}): LapicState {
  const state = createLapic({ id: 0, bootstrap: true, ...options });
  write(state, LAPIC.svr, 0x1ff);
  return state;
}

function x2apic(options: Partial<Parameters<typeof createLapic>[0]> = {}): LapicState {
  const state = enabledApic(options);
  expect(lapicWriteMsr(state, 0, APIC_MSR.base, (ENABLED | 0x400) >>> 0, 0)).toEqual([]);
  return state;
}

function msrOf(offset: number): number {
  return 0x800 + offset / 16;
}

function fixed(state: LapicState, vector: number, level = false): void {
  lapicDeliver(state, DELIVERY.fixed, vector, level);
}

describe('reset state', () => {
  test('registers of a bootstrap and an application processor', () => {
    const bsp = createLapic({ id: 0, bootstrap: true });
    const ap = createLapic({ id: 3, bootstrap: false });
    expect(lapicReadMsr(bsp, 0, APIC_MSR.base)).toEqual({ lo: 0xfee0_0900, hi: 0 });
    expect(lapicReadMsr(ap, 0, APIC_MSR.base)).toEqual({ lo: 0xfee0_0800, hi: 0 });
    expect(bsp.waitsForStartup).toBe(false);
    expect(ap.waitsForStartup).toBe(true);
    expect(read(ap, LAPIC.id)).toBe(0x0300_0000);
    expect(read(ap, LAPIC.version)).toBe(0x0005_0014);
    expect(read(ap, LAPIC.dfr)).toBe(0xffff_ffff);
    expect(read(ap, LAPIC.svr)).toBe(0xff);
    for (let offset = LAPIC.lvtTimer; offset <= LAPIC.lvtError; offset += 0x10) {
      expect(read(ap, offset)).toBe(0x1_0000);
    }
    for (const offset of [LAPIC.tpr, LAPIC.ppr, LAPIC.ldr, LAPIC.esr, LAPIC.icrLow, LAPIC.icrHigh]) {
      expect(read(ap, offset)).toBe(0);
    }
  });

  test('version register names CMCI, EOI suppression and the extended space', () => {
    expect(read(createLapic({ id: 0, bootstrap: true, cmci: true }), LAPIC.version)).toBe(0x0006_0014);
    expect(read(createLapic({ id: 0, bootstrap: true, suppressEoiBroadcast: true }), LAPIC.version)).toBe(
      0x0105_0014,
    );
    const amd = createLapic({ id: 0, bootstrap: true, vendor: 'amd', extended: true });
    expect(read(amd, LAPIC.version)).toBe(0x8005_0010);
  });

  test('INIT keeps IDs and mode, RESET does not', () => {
    const state = x2apic();
    lapicDeliver(state, DELIVERY.fixed, 0x40, false);
    expect(lapicDeliver(state, DELIVERY.init, 0, false)).toEqual([{ kind: 'init' }]);
    expect(lapicMode(state)).toBe('x2apic');
    expect(state.svr).toBe(0xff);
    expect(lapicPendingVector(state)).toBe(-1);
    resetLapic(state);
    expect(lapicMode(state)).toBe('xapic');

    const moved = enabledApic();
    write(moved, LAPIC.id, 0x0900_0000);
    lapicDeliver(moved, DELIVERY.init, 0, false);
    expect(read(moved, LAPIC.id)).toBe(0x0900_0000);
    resetLapic(moved);
    expect(read(moved, LAPIC.id)).toBe(0);
  });
});

describe('IA32_APIC_BASE', () => {
  const disabled = BASE | 0x100;
  const xapic = BASE | 0x900;
  const both = BASE | 0xd00;
  const invalid = BASE | 0x500;
  const legal: readonly [string, number, number, boolean][] = [
    ['disabled to disabled', disabled, disabled, true],
    ['disabled to xAPIC', disabled, xapic, true],
    ['disabled to x2APIC', disabled, both, false],
    ['disabled to invalid', disabled, invalid, false],
    ['xAPIC to disabled', xapic, disabled, true],
    ['xAPIC to xAPIC', xapic, xapic, true],
    ['xAPIC to x2APIC', xapic, both, true],
    ['xAPIC to invalid', xapic, invalid, false],
    ['x2APIC to disabled', both, disabled, true],
    ['x2APIC to xAPIC', both, xapic, false],
    ['x2APIC to x2APIC', both, both, true],
    ['x2APIC to invalid', both, invalid, false],
  ];

  test.each(legal)('%s', (_, from, to, allowed) => {
    const state = createLapic({ id: 0, bootstrap: true });
    if (from !== xapic) lapicWriteMsr(state, 0, APIC_MSR.base, from >>> 0, 0);
    expect(state.baseLo).toBe(from >>> 0);
    const result = lapicWriteMsr(state, 0, APIC_MSR.base, to >>> 0, 0);
    expect(result !== undefined).toBe(allowed);
    expect(state.baseLo).toBe((allowed ? to : from) >>> 0);
  });

  test('reserved bits fault, the address may move within the physical range', () => {
    const state = createLapic({ id: 0, bootstrap: true, physicalAddressBits: 40 });
    for (const bit of [0, 1, 2, 3, 4, 5, 6, 7, 9]) {
      expect(lapicWriteMsr(state, 0, APIC_MSR.base, (xapic | (1 << bit)) >>> 0, 0)).toBeUndefined();
    }
    expect(lapicWriteMsr(state, 0, APIC_MSR.base, xapic >>> 0, 0x100)).toBeUndefined();
    expect(lapicWriteMsr(state, 0, APIC_MSR.base, 0xfed4_0900, 0x12)).toEqual([]);
    expect(lapicPage(state)).toBe(0x12_fed4_0000);
  });

  test('without x2APIC its bit is reserved; locked in x2APIC there is no way out', () => {
    const absent = createLapic({ id: 0, bootstrap: true, x2apic: 'absent' });
    expect(lapicWriteMsr(absent, 0, APIC_MSR.base, both >>> 0, 0)).toBeUndefined();
    const locked = createLapic({ id: 0, bootstrap: true, x2apic: 'locked' });
    expect(lapicReadMsr(locked, 0, APIC_MSR.base)).toEqual({ lo: 0xfee0_0d00, hi: 0 });
    expect(lapicWriteMsr(locked, 0, APIC_MSR.base, disabled >>> 0, 0)).toBeUndefined();
    expect(lapicWriteMsr(locked, 0, APIC_MSR.base, both >>> 0, 0)).toEqual([]);
  });

  test('no memory reaches a disabled APIC or one in x2APIC mode; disabling loses its state', () => {
    const state = x2apic();
    expect(lapicPage(state)).toBe(-1);
    lapicWriteMsr(state, 0, APIC_MSR.base, disabled >>> 0, 0);
    expect(lapicPage(state)).toBe(-1);
    lapicWriteCr8(state, 0xf);
    expect(lapicReadCr8(state)).toBe(0xf);
    lapicWriteMsr(state, 0, APIC_MSR.base, xapic >>> 0, 0);
    expect(lapicPage(state)).toBe(0xfee0_0000);
    expect(read(state, LAPIC.svr)).toBe(0xff);
    expect(read(state, LAPIC.tpr)).toBe(0xf0);
  });

  test('an xAPIC ID that was changed comes back when the APIC is disabled', () => {
    const state = enabledApic({ id: 1 });
    write(state, LAPIC.id, 0x0200_0000);
    expect(read(state, LAPIC.id)).toBe(0x0200_0000);
    lapicWriteMsr(state, 0, APIC_MSR.base, disabled >>> 0, 0);
    lapicWriteMsr(state, 0, APIC_MSR.base, xapic >>> 0, 0);
    expect(read(state, LAPIC.id)).toBe(0x0100_0000);
  });
});

describe('x2APIC MSRs', () => {
  /** SDM table 11-6, by register offset. */
  const readOnly = [LAPIC.id, LAPIC.version, LAPIC.ppr, LAPIC.ldr, LAPIC.currentCount];
  for (let word = 0; word < 8; word++) {
    readOnly.push((LAPIC.isr + word * 16) as never, (LAPIC.tmr + word * 16) as never);
    readOnly.push((LAPIC.irr + word * 16) as never);
  }
  const writeOnly: number[] = [LAPIC.eoi, LAPIC.selfIpi];
  const readWrite: number[] = [
    LAPIC.tpr,
    LAPIC.svr,
    LAPIC.esr,
    LAPIC.icrLow,
    LAPIC.lvtTimer,
    LAPIC.lvtThermal,
    LAPIC.lvtPerformance,
    LAPIC.lvtLint0,
    LAPIC.lvtLint1,
    LAPIC.lvtError,
    LAPIC.initialCount,
    LAPIC.divide,
  ];

  test('every MSR of 0x800 to 0x8FF can be read and written exactly where the table says', () => {
    for (let index = 0x800; index <= 0x8ff; index++) {
      const offset = (index - 0x800) * 16;
      const state = x2apic();
      const readable = readWrite.includes(offset) || readOnly.includes(offset as never);
      const writable = readWrite.includes(offset) || writeOnly.includes(offset);
      expect([index, lapicReadMsr(state, 0, index) !== undefined]).toEqual([index, readable]);
      expect([index, lapicWriteMsr(state, 0, index, 0, 0) !== undefined]).toEqual([index, writable]);
      if (offset !== LAPIC.icrLow) {
        expect(lapicWriteMsr(state, 0, index, 0, 1)).toBeUndefined();
        expect(lapicWriteMsr(state, 0, index, 0xffff_ffff, 0xffff_ffff)).toBeUndefined();
      }
    }
  });

  test('CMCI exists where it is configured', () => {
    expect(lapicReadMsr(x2apic({ cmci: true }), 0, 0x82f)).toEqual({ lo: 0x1_0000, hi: 0 });
  });

  test('none is accessible in xAPIC mode', () => {
    const state = enabledApic();
    for (let index = 0x800; index <= 0x8ff; index++) {
      expect(lapicReadMsr(state, 0, index)).toBeUndefined();
      expect(lapicWriteMsr(state, 0, index, 0, 0)).toBeUndefined();
    }
  });

  /** Bits of [31:0] that may be set without a fault. */
  const writableBits: readonly [string, number, number][] = [
    ['TPR', LAPIC.tpr, 0xff],
    ['EOI', LAPIC.eoi, 0],
    ['SVR', LAPIC.svr, 0x3ff],
    ['ESR', LAPIC.esr, 0],
    ['ICR', LAPIC.icrLow, 0xc_dfff],
    ['timer', LAPIC.lvtTimer, 0x7_10ff],
    ['thermal', LAPIC.lvtThermal, 0x1_17ff],
    ['performance', LAPIC.lvtPerformance, 0x1_17ff],
    ['LINT0', LAPIC.lvtLint0, 0x1_f7ff],
    ['LINT1', LAPIC.lvtLint1, 0x1_f7ff],
    ['error', LAPIC.lvtError, 0x1_10ff],
    ['initial count', LAPIC.initialCount, 0xffff_ffff],
    ['divide', LAPIC.divide, 0xb],
    ['self IPI', LAPIC.selfIpi, 0xff],
  ];

  test.each(writableBits)('%s faults on exactly its reserved bits', (_, offset, writable) => {
    for (let bit = 0; bit < 32; bit++) {
      const result = lapicWriteMsr(x2apic(), 0, msrOf(offset), 2 ** bit, 0);
      expect([bit, result !== undefined]).toEqual([bit, ((writable >>> bit) & 1) !== 0]);
    }
  });

  test('the deadline bit is reserved without the deadline', () => {
    expect(lapicWriteMsr(x2apic({ tscDeadline: false }), 0, 0x832, 0x4_0000, 0)).toBeUndefined();
    expect(lapicReadMsr(x2apic({ tscDeadline: false }), 0, APIC_MSR.tscDeadline)).toBeUndefined();
    expect(lapicWriteMsr(x2apic({ tscDeadline: false }), 0, APIC_MSR.tscDeadline, 0, 0)).toBeUndefined();
  });

  test('ID is 32 bits, LDR is derived from it', () => {
    const state = x2apic({ id: 0x1_2345 });
    expect(lapicReadMsr(state, 0, 0x802)).toEqual({ lo: 0x1_2345, hi: 0 });
    expect(lapicReadMsr(state, 0, 0x80d)).toEqual({ lo: 0x1234_0020, hi: 0 });
  });

  test('ICR is one 64-bit register that sends and reads back', () => {
    const state = x2apic();
    expect(lapicWriteMsr(state, 0, 0x830, 0x5040 | 0x1000, 0x1_0007)).toEqual([
      {
        kind: 'message',
        message: {
          delivery: DELIVERY.fixed,
          vector: 0x40,
          level: false,
          target: 'destination',
          logical: false,
          destination: 0x1_0007,
          wide: true,
        },
      },
    ]);
    expect(lapicReadMsr(state, 0, 0x830)).toEqual({ lo: 0x4040, hi: 0x1_0007 });
  });

  test('SELF IPI sends without touching ICR', () => {
    const state = x2apic();
    const actions = lapicWriteMsr(state, 0, 0x83f, 0x51, 0);
    expect(actions).toMatchObject([{ message: { target: 'self', vector: 0x51, delivery: 0 } }]);
    expect(lapicReadMsr(state, 0, 0x830)).toEqual({ lo: 0, hi: 0 });
  });
});

test('the MSRs of the local APIC', () => {
  const own = Array.from({ length: 0x1000 }, (_, index) => index).filter(isLapicMsr);
  expect(own).toHaveLength(2 + 0x100);
  expect([own[0], own[1], own[2], own.at(-1)]).toEqual([0x1b, 0x6e0, 0x800, 0x8ff]);
});

describe('xAPIC page', () => {
  test('ICR sends when its low half is written, to the destination in the high half', () => {
    const state = enabledApic();
    expect(write(state, LAPIC.icrHigh, 0x0700_0000)).toEqual([]);
    expect(write(state, LAPIC.icrLow, 0x0000_4830)).toMatchObject([
      { message: { vector: 0x30, logical: true, destination: 7, wide: false, target: 'destination' } },
    ]);
    expect(read(state, LAPIC.icrHigh)).toBe(0x0700_0000);
    expect(read(state, LAPIC.icrLow)).toBe(0x4830);
    for (const [code, target] of [
      [1, 'self'],
      [2, 'all'],
      [3, 'others'],
    ] as const) {
      expect(write(state, LAPIC.icrLow, (code << 18) | 0x30)).toMatchObject([{ message: { target } }]);
    }
  });

  test('delivery modes that are sent and that are not', () => {
    const state = enabledApic();
    const sent = (icr: number) => write(state, LAPIC.icrLow, icr).length;
    expect(sent(0x4200)).toBe(1);
    expect(sent(0x4400)).toBe(1);
    expect(sent(0x4500)).toBe(1);
    expect(sent(0xc500)).toBe(1);
    expect(sent(0x8500)).toBe(0);
    expect(sent(0x4608)).toBe(1);
    expect(sent(0x4300)).toBe(0);
    expect(sent(0x4700)).toBe(0);
  });

  test("Hyper-V's ICR write uses the layout of the mode", () => {
    expect(lapicWriteIcr(enabledApic(), 0x40, 0x0500_0000)).toMatchObject([
      { message: { destination: 5, wide: false } },
    ]);
    expect(lapicWriteIcr(x2apic(), 0x40, 0x0500_0000)).toMatchObject([
      { message: { destination: 0x0500_0000, wide: true } },
    ]);
  });

  test('LVT mask bits stay set while software has the APIC disabled', () => {
    const state = enabledApic();
    write(state, LAPIC.lvtLint0, 0x700);
    write(state, LAPIC.svr, 0xff);
    expect(read(state, LAPIC.lvtLint0)).toBe(0x1_0700);
    write(state, LAPIC.lvtLint0, 0x700);
    expect(read(state, LAPIC.lvtLint0)).toBe(0x1_0700);
    write(state, LAPIC.svr, 0x1ff);
    write(state, LAPIC.lvtLint0, 0x700);
    expect(read(state, LAPIC.lvtLint0)).toBe(0x700);
  });

  test('reserved bits are dropped', () => {
    const state = enabledApic();
    write(state, LAPIC.lvtTimer, 0xffff_ffff);
    expect(read(state, LAPIC.lvtTimer)).toBe(0x7_00ff);
    write(state, LAPIC.lvtLint0, 0xffff_ffff);
    expect(read(state, LAPIC.lvtLint0)).toBe(0x1_a7ff);
    write(state, LAPIC.svr, 0xffff_ffff);
    expect(read(state, LAPIC.svr)).toBe(0x3ff);
    write(state, LAPIC.dfr, 0);
    expect(read(state, LAPIC.dfr)).toBe(0x0fff_ffff);
    write(state, LAPIC.ldr, 0xffff_ffff);
    expect(read(state, LAPIC.ldr)).toBe(0xff00_0000);
    write(state, LAPIC.divide, 0xffff_ffff);
    expect(read(state, LAPIC.divide)).toBe(0xb);
    write(state, LAPIC.version, 0);
    expect(read(state, LAPIC.version)).toBe(0x0005_0014);
  });

  test('registers with their top bit set read as unsigned', () => {
    const state = enabledApic({ id: 0x9c });
    expect(read(state, LAPIC.id)).toBe(0x9c00_0000);
    write(state, LAPIC.ldr, 0x8000_0000);
    expect(read(state, LAPIC.ldr)).toBe(0x8000_0000);
    write(state, LAPIC.icrHigh, 0xff00_0000);
    expect(read(state, LAPIC.icrHigh)).toBe(0xff00_0000);
    fixed(state, 0x9f);
    expect(read(state, LAPIC.irr + 0x40)).toBe(0x8000_0000);
  });

  test('part of a register can be read, but only a whole one written', () => {
    const state = enabledApic();
    expect(lapicReadPage(state, 0, LAPIC.version + 2, 1)).toBe(5);
    expect(lapicReadPage(state, 0, LAPIC.version, 2)).toBe(0x14);
    expect(lapicReadPage(state, 0, LAPIC.version + 4, 4)).toBe(0);
    lapicWritePage(state, 0, LAPIC.tpr, 1, 0x20);
    lapicWritePage(state, 0, LAPIC.tpr + 4, 4, 0x20);
    expect(read(state, LAPIC.tpr)).toBe(0);
    lapicWritePage(state, 0, LAPIC.tpr, 8, 0x20);
    expect(read(state, LAPIC.tpr)).toBe(0x20);
  });
});

describe('priorities', () => {
  test('the highest vector is offered first; equal and lower classes wait for EOI', () => {
    const state = enabledApic();
    fixed(state, 0x41);
    fixed(state, 0x55);
    fixed(state, 0x58);
    expect(lapicPendingVector(state)).toBe(0x58);
    expect(lapicAcknowledge(state)).toBe(0x58);
    expect(lapicProcessorPriority(state)).toBe(0x50);
    expect(lapicPendingVector(state)).toBe(-1);
    fixed(state, 0x60);
    expect(lapicAcknowledge(state)).toBe(0x60);
    expect(read(state, LAPIC.ppr)).toBe(0x60);
    expect(lapicEoi(state)).toEqual([]);
    expect(lapicPendingVector(state)).toBe(-1);
    lapicEoi(state);
    expect(lapicAcknowledge(state)).toBe(0x55);
    lapicEoi(state);
    expect(lapicAcknowledge(state)).toBe(0x41);
    lapicEoi(state);
    expect(lapicPendingVector(state)).toBe(-1);
  });

  test('TPR holds back its class and those below', () => {
    const state = enabledApic();
    fixed(state, 0x4f);
    write(state, LAPIC.tpr, 0x40);
    expect(lapicPendingVector(state)).toBe(-1);
    expect(read(state, LAPIC.ppr)).toBe(0x40);
    write(state, LAPIC.tpr, 0x3f);
    expect(lapicPendingVector(state)).toBe(0x4f);
    expect(read(state, LAPIC.ppr)).toBe(0x3f);
    lapicWriteCr8(state, 4);
    expect(read(state, LAPIC.tpr)).toBe(0x40);
    expect(lapicPendingVector(state)).toBe(-1);
  });

  test('an interrupt that has gone by the time of INTA is spurious and not in service', () => {
    const state = enabledApic();
    write(state, LAPIC.svr, 0x1ef);
    fixed(state, 0x30);
    lapicWriteCr8(state, 0xf);
    expect(lapicAcknowledge(state)).toBe(0xef);
    expect(state.isr.every((word) => word === 0)).toBe(true);
  });

  test('IRR, ISR and TMR show where a vector is', () => {
    const state = enabledApic();
    fixed(state, 0x9b, true);
    const word = (0x9b >>> 5) * 16;
    const bit = 1 << (0x9b & 31);
    expect([read(state, LAPIC.irr + word), read(state, LAPIC.isr + word)]).toEqual([bit, 0]);
    lapicAcknowledge(state);
    expect([read(state, LAPIC.irr + word), read(state, LAPIC.isr + word)]).toEqual([0, bit]);
    expect(read(state, LAPIC.tmr + word)).toBe(bit);
    fixed(state, 0x9b, false);
    expect(read(state, LAPIC.tmr + word)).toBe(0);
  });

  test('arbitration priority (SDM 11.6.2.4)', () => {
    const state = enabledApic();
    write(state, LAPIC.tpr, 0x25);
    expect(read(state, LAPIC.apr)).toBe(0x25);
    fixed(state, 0x23);
    expect(read(state, LAPIC.apr)).toBe(0x25);
    fixed(state, 0x71);
    expect(read(state, LAPIC.apr)).toBe(0x70);
    lapicAcknowledge(state);
    expect(read(state, LAPIC.apr)).toBe(0x70);
  });
});

describe('EOI', () => {
  test('of a level-triggered vector is broadcast, of an edge-triggered one not', () => {
    const state = enabledApic();
    fixed(state, 0x61, true);
    lapicAcknowledge(state);
    expect(write(state, LAPIC.eoi, 0)).toEqual([{ kind: 'eoi', vector: 0x61 }]);
    fixed(state, 0x61, false);
    lapicAcknowledge(state);
    expect(write(state, LAPIC.eoi, 0)).toEqual([]);
    expect(write(state, LAPIC.eoi, 0)).toEqual([]);
  });

  test('broadcast is suppressed by SVR bit 12, where that exists', () => {
    for (const suppressEoiBroadcast of [true, false]) {
      const state = enabledApic({ suppressEoiBroadcast });
      write(state, LAPIC.svr, 0x11ff);
      fixed(state, 0x61, true);
      lapicAcknowledge(state);
      expect(lapicEoi(state)).toHaveLength(suppressEoiBroadcast ? 0 : 1);
    }
  });

  test('auto-EOI leaves nothing in service, and only for that request', () => {
    const state = enabledApic();
    lapicDeliver(state, DELIVERY.fixed, 0x70, false, true);
    expect(lapicAcknowledge(state)).toBe(0x70);
    expect(hasVector(state.isr, 0x70)).toBe(false);
    fixed(state, 0x70);
    lapicAcknowledge(state);
    expect(hasVector(state.isr, 0x70)).toBe(true);
  });

  test('may be left out only when nothing depends on it', () => {
    const state = enabledApic();
    expect(lapicMayEndSilently(state)).toBe(false);
    fixed(state, 0x70);
    lapicAcknowledge(state);
    expect(lapicMayEndSilently(state)).toBe(true);
    fixed(state, 0x50);
    expect(lapicMayEndSilently(state)).toBe(false);
    write(state, LAPIC.tpr, 0x50);
    expect(lapicMayEndSilently(state)).toBe(true);
    lapicEoi(state);
    fixed(state, 0x71, true);
    lapicAcknowledge(state);
    expect(lapicMayEndSilently(state)).toBe(false);
  });
});

describe('what a disabled APIC takes', () => {
  test('software-disabled: no fixed interrupt, but NMI, SMI, INIT and SIPI; what is pending stays', () => {
    const state = createLapic({ id: 1, bootstrap: false });
    write(state, LAPIC.svr, 0x1ff);
    fixed(state, 0x80);
    write(state, LAPIC.svr, 0xff);
    fixed(state, 0x90);
    expect(lapicPendingVector(state)).toBe(0x80);
    expect(lapicDeliver(state, DELIVERY.nmi, 0, false)).toEqual([{ kind: 'nmi' }]);
    expect(lapicDeliver(state, DELIVERY.smi, 0, false)).toEqual([{ kind: 'smi' }]);
    expect(lapicDeliver(state, DELIVERY.init, 0, false)).toEqual([{ kind: 'init' }]);
    expect(lapicDeliver(state, DELIVERY.startup, 8, false)).toEqual([{ kind: 'startup', vector: 8 }]);
  });

  test('hardware-disabled: nothing', () => {
    const state = enabledApic();
    lapicWriteMsr(state, 0, APIC_MSR.base, (BASE | 0x100) >>> 0, 0);
    for (const delivery of Object.values(DELIVERY)) {
      expect(lapicDeliver(state, delivery, 0x80, false)).toEqual([]);
    }
    expect(lapicPendingVector(state)).toBe(-1);
  });

  test('SIPI only after INIT, and only the first; the bootstrap processor does not wait for one', () => {
    const ap = createLapic({ id: 1, bootstrap: false });
    expect(lapicDeliver(ap, DELIVERY.startup, 9, false)).toHaveLength(1);
    expect(lapicDeliver(ap, DELIVERY.startup, 9, false)).toHaveLength(0);
    lapicDeliver(ap, DELIVERY.init, 0, false);
    expect(lapicDeliver(ap, DELIVERY.startup, 9, false)).toHaveLength(1);
    const bsp = enabledApic();
    lapicDeliver(bsp, DELIVERY.init, 0, false);
    expect(lapicDeliver(bsp, DELIVERY.startup, 9, false)).toHaveLength(0);
  });
});

describe('LINT pins', () => {
  test('ExtINT follows the level of LINT0 while unmasked', () => {
    const state = enabledApic();
    write(state, LAPIC.lvtLint0, 0x700);
    expect(lapicExtIntPending(state)).toBe(false);
    lapicSetPin(state, 0, true);
    expect(lapicExtIntPending(state)).toBe(true);
    lapicAcknowledgeExtInt(state);
    expect(lapicExtIntPending(state)).toBe(true);
    write(state, LAPIC.lvtLint0, 0x1_0700);
    expect(lapicExtIntPending(state)).toBe(false);
    write(state, LAPIC.lvtLint0, 0x2700);
    expect(lapicExtIntPending(state)).toBe(false);
    lapicSetPin(state, 0, false);
    expect(lapicExtIntPending(state)).toBe(true);
  });

  test('ExtINT on LINT1', () => {
    const state = enabledApic();
    write(state, LAPIC.lvtLint1, 0x700);
    lapicSetPin(state, 1, true);
    expect(lapicExtIntPending(state)).toBe(true);
    lapicSetPin(state, 1, false);
    expect(lapicExtIntPending(state)).toBe(false);
  });

  test('an ExtINT message is held until INTA', () => {
    const state = enabledApic();
    lapicDeliver(state, DELIVERY.extInt, 0, false);
    expect(lapicExtIntPending(state)).toBe(true);
    lapicAcknowledgeExtInt(state);
    expect(lapicExtIntPending(state)).toBe(false);
  });

  test('NMI on the edge of LINT1', () => {
    const state = enabledApic();
    write(state, LAPIC.lvtLint1, 0x400);
    expect(lapicSetPin(state, 1, true)).toEqual([{ kind: 'nmi' }]);
    expect(lapicSetPin(state, 1, true)).toEqual([]);
    expect(lapicSetPin(state, 1, false)).toEqual([]);
    write(state, LAPIC.lvtLint1, 0x1_0400);
    expect(lapicSetPin(state, 1, true)).toEqual([]);
  });

  test('of a hardware-disabled APIC are INTR and NMI', () => {
    const state = enabledApic();
    lapicWriteMsr(state, 0, APIC_MSR.base, (BASE | 0x100) >>> 0, 0);
    lapicSetPin(state, 0, true);
    expect(lapicExtIntPending(state)).toBe(true);
    expect(lapicSetPin(state, 1, true)).toEqual([{ kind: 'nmi' }]);
  });

  test('level-triggered fixed: remote IRR until EOI, and again while the pin is active', () => {
    const state = enabledApic();
    write(state, LAPIC.lvtLint0, 0x8042);
    lapicSetPin(state, 0, true);
    expect(read(state, LAPIC.lvtLint0)).toBe(0xc042);
    expect(lapicAcknowledge(state)).toBe(0x42);
    expect(lapicPendingVector(state)).toBe(-1);
    expect(lapicEoi(state)).toEqual([{ kind: 'eoi', vector: 0x42 }]);
    expect(lapicPendingVector(state)).toBe(0x42);
    lapicAcknowledge(state);
    lapicSetPin(state, 0, false);
    lapicEoi(state);
    expect(lapicPendingVector(state)).toBe(-1);
    expect(read(state, LAPIC.lvtLint0)).toBe(0x8042);
  });

  test('level-triggered and active: unmasking asks', () => {
    const state = enabledApic();
    lapicSetPin(state, 0, true);
    write(state, LAPIC.lvtLint0, 0x1_8042);
    expect(lapicPendingVector(state)).toBe(-1);
    write(state, LAPIC.lvtLint0, 0x8042);
    expect(lapicPendingVector(state)).toBe(0x42);
  });

  test('remote IRR goes when the entry becomes edge-triggered, and never comes with an illegal vector', () => {
    const state = enabledApic();
    write(state, LAPIC.lvtLint0, 0x8042);
    lapicSetPin(state, 0, true);
    write(state, LAPIC.lvtLint0, 0x42);
    expect(read(state, LAPIC.lvtLint0)).toBe(0x42);
    write(state, LAPIC.lvtLint0, 0x8002);
    expect(read(state, LAPIC.lvtLint0)).toBe(0x8002);
    write(state, LAPIC.esr, 0);
    expect(read(state, LAPIC.esr)).toBe(0x40);
  });

  test('edge-triggered fixed asks once per edge', () => {
    const state = enabledApic();
    write(state, LAPIC.lvtLint0, 0x42);
    lapicSetPin(state, 0, true);
    expect(lapicAcknowledge(state)).toBe(0x42);
    expect(hasVector(state.tmr, 0x42)).toBe(false);
    expect(lapicEoi(state)).toEqual([]);
    expect(lapicPendingVector(state)).toBe(-1);
  });
});

describe('local vector table', () => {
  test('a performance interrupt masks its entry on Intel, not on AMD', () => {
    for (const [vendor, masked] of [
      ['intel', 0x1_0400],
      ['amd', 0x400],
    ] as const) {
      const state = enabledApic({ vendor });
      write(state, LAPIC.lvtPerformance, 0x400);
      expect(lapicFireLvt(state, LVT.performance)).toEqual([{ kind: 'nmi' }]);
      expect(read(state, LAPIC.lvtPerformance)).toBe(masked);
    }
  });

  test('masked entries do nothing', () => {
    const state = enabledApic();
    write(state, LAPIC.lvtThermal, 0x1_0044);
    expect(lapicFireLvt(state, LVT.thermal)).toEqual([]);
    expect(lapicPendingVector(state)).toBe(-1);
    write(state, LAPIC.lvtThermal, 0x44);
    lapicFireLvt(state, LVT.thermal);
    expect(lapicPendingVector(state)).toBe(0x44);
  });
});

describe('error status', () => {
  test('a write latches what has been found since the last one', () => {
    const state = enabledApic();
    write(state, LAPIC.icrLow, 0x4005);
    expect(read(state, LAPIC.esr)).toBe(0);
    write(state, LAPIC.esr, 0);
    expect(read(state, LAPIC.esr)).toBe(0x20);
    write(state, LAPIC.esr, 0);
    expect(read(state, LAPIC.esr)).toBe(0);
  });

  test('illegal vectors and registers', () => {
    const state = enabledApic();
    fixed(state, 0xf);
    read(state, 0x400);
    write(state, LAPIC.esr, 0);
    expect(read(state, LAPIC.esr)).toBe(0xc0);
    expect(lapicPendingVector(state)).toBe(-1);
    write(state, 0x40, 1);
    write(state, LAPIC.esr, 0);
    expect(read(state, LAPIC.esr)).toBe(0x80);
  });

  test('the first error raises the interrupt, the next ones only after ESR was written', () => {
    const state = enabledApic();
    write(state, LAPIC.lvtError, 0xfe);
    fixed(state, 3);
    expect(lapicAcknowledge(state)).toBe(0xfe);
    lapicEoi(state);
    fixed(state, 4);
    expect(lapicPendingVector(state)).toBe(-1);
    write(state, LAPIC.esr, 0);
    fixed(state, 4);
    expect(lapicPendingVector(state)).toBe(0xfe);
  });

  test('an illegal vector for the error interrupt is an error itself, once', () => {
    const state = enabledApic();
    write(state, LAPIC.lvtError, 0x5);
    write(state, LAPIC.icrLow, 0x4001);
    write(state, LAPIC.esr, 0);
    expect(read(state, LAPIC.esr)).toBe(0x60);
  });
});

describe("AMD's extended space", () => {
  const extended = { vendor: 'amd', extended: true } as const;

  test('is reserved unless configured', () => {
    expect(lapicReadMsr(x2apic(), 0, 0x840)).toBeUndefined();
    expect(lapicReadMsr(x2apic(extended), 0, 0x840)).toEqual({ lo: 0x4_0007, hi: 0 });
  });

  test('its x2APIC MSRs, and their reserved bits', () => {
    const state = x2apic(extended);
    const readable = Array.from({ length: 0x40 }, (_, index) => 0x840 + index).filter(
      (index) => lapicReadMsr(state, 0, index) !== undefined,
    );
    expect(readable).toEqual([
      ...[0x840, 0x841, 0x842, 0x848, 0x849, 0x84a, 0x84b, 0x84c, 0x84d, 0x84e, 0x84f],
      ...[0x850, 0x851, 0x852, 0x853],
    ]);
    for (const [index, writable] of [
      [0x840, 0],
      [0x841, 0x7],
      [0x842, 0xff],
      [0x848, 0xffff_ffff],
      [0x850, 0x1_17ff],
    ] as const) {
      for (let bit = 0; bit < 32; bit++) {
        const result = lapicWriteMsr(x2apic(extended), 0, index, 2 ** bit, 0);
        expect([index, bit, result !== undefined]).toEqual([index, bit, ((writable >>> bit) & 1) !== 0]);
      }
    }
  });

  test('an extended interrupt fires by its own entry', () => {
    const state = enabledApic(extended);
    write(state, LAPIC.extendedLvt + 0x10, 0x400);
    write(state, LAPIC.extendedLvt + 0x30, 0x55);
    expect(read(state, LAPIC.extendedLvt)).toBe(0x1_0000);
    expect(lapicFireExtendedLvt(state, 0)).toEqual([]);
    expect(lapicFireExtendedLvt(state, 1)).toEqual([{ kind: 'nmi' }]);
    expect(lapicFireExtendedLvt(state, 3)).toEqual([]);
    expect(lapicPendingVector(state)).toBe(0x55);
    expect(hasVector(state.tmr, 0x55)).toBe(false);
    write(state, LAPIC.svr, 0xff);
    expect(read(state, LAPIC.extendedLvt + 0x30)).toBe(0x1_0055);
  });

  test('IER holds vectors back once it is switched on', () => {
    const state = enabledApic(extended);
    write(state, LAPIC.enable + 0x20, 0);
    expect(read(state, LAPIC.enable + 0x20)).toBe(0xffff_ffff);
    write(state, LAPIC.extendedControl, 1);
    write(state, LAPIC.enable + 0x20, 0);
    fixed(state, 0x41);
    fixed(state, 0x31);
    expect(lapicPendingVector(state)).toBe(0x31);
    write(state, LAPIC.enable + 0x20, 0xffff_ffff);
    expect(lapicPendingVector(state)).toBe(0x41);
  });

  test('specific EOI ends a vector out of order', () => {
    const state = enabledApic(extended);
    write(state, LAPIC.extendedControl, 2);
    fixed(state, 0x41, true);
    lapicAcknowledge(state);
    fixed(state, 0x91);
    lapicAcknowledge(state);
    expect(write(state, LAPIC.specificEoi, 0x41)).toEqual([{ kind: 'eoi', vector: 0x41 }]);
    expect(hasVector(state.isr, 0x41)).toBe(false);
    expect(hasVector(state.isr, 0x91)).toBe(true);
  });
});
