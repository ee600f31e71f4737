import fc from 'fast-check';
import { expect, test } from 'vitest';
import { deliverMessage, settleActions } from './apic-bus.ts';
import type { ApicMessage } from './apic-message.ts';
import {
  createLapic,
  lapicAcknowledge,
  lapicEoi,
  lapicFireLvt,
  lapicMode,
  lapicPendingVector,
  lapicProcessorPriority,
  lapicSetPin,
  lapicWriteCr8,
  type LapicOptions,
  type LapicState,
} from './lapic.ts';
import { lapicReadMsr, lapicReadPage, lapicWriteIcr, lapicWriteMsr, lapicWritePage } from './lapic-access.ts';
import { APIC_MSR, LAPIC, type LvtIndex } from './lapic-registers.ts';
import { lapicAdvance, lapicNextEvent, lapicSetTscOffset } from './lapic-timer.ts';
import { highestVector } from './vector-set.ts';

const registers = Object.values(LAPIC) as number[];
const word = fc.oneof(
  fc.nat(0xff),
  fc.nat(0xffff_ffff),
  fc.constantFrom(0, 0x1ff, 0x1_0000, 0x4_00ee, 0x2_00ee),
);
const offset = fc.oneof(fc.constantFrom(...registers), fc.nat(0xfff));
const msr = fc.oneof(
  fc.constantFrom(...registers).map((register) => 0x800 + (register >>> 4)),
  fc.constantFrom(APIC_MSR.base, APIC_MSR.tscDeadline),
  fc.integer({ min: 0x800, max: 0x8ff }),
);
const base = fc.constantFrom(0, 0x400, 0x800, 0xc00).map((mode) => (0xfee0_0000 | mode) >>> 0);

const message: fc.Arbitrary<ApicMessage> = fc.record({
  delivery: fc.nat(7),
  vector: fc.nat(255),
  level: fc.boolean(),
  target: fc.constantFrom('destination', 'self', 'all', 'others'),
  logical: fc.boolean(),
  destination: fc.oneof(fc.nat(4), fc.constantFrom(0xff, 0xffff_ffff)),
  wide: fc.boolean(),
});

const step = fc.oneof(
  fc.record({
    kind: fc.constant('page-write' as const),
    offset,
    value: word,
    size: fc.constantFrom(1, 4, 4, 8),
  }),
  fc.record({ kind: fc.constant('page-read' as const), offset, size: fc.constantFrom(1, 2, 4) }),
  fc.record({ kind: fc.constant('msr-write' as const), msr, lo: word, hi: fc.oneof(fc.constant(0), word) }),
  fc.record({ kind: fc.constant('msr-read' as const), msr }),
  fc.record({ kind: fc.constant('mode' as const), base }),
  fc.record({ kind: fc.constant('icr' as const), lo: word, hi: word }),
  fc.record({ kind: fc.constant('message' as const), message }),
  fc.record({
    kind: fc.constant('pin' as const),
    pin: fc.constantFrom(0 as const, 1 as const),
    high: fc.boolean(),
  }),
  fc.record({ kind: fc.constant('lvt' as const), index: fc.nat(6) }),
  fc.record({ kind: fc.constant('take' as const) }),
  fc.record({ kind: fc.constant('eoi' as const) }),
  fc.record({ kind: fc.constant('cr8' as const), value: fc.nat(15) }),
  fc.record({ kind: fc.constant('tsc' as const), lo: word, hi: word }),
);

type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** One step on one of the APICs; gives what the guest or the owner sees of it. */
function perform(apics: LapicState[], index: number, now: number, item: Step): unknown {
  const apic = apics[index] as LapicState;
  switch (item.kind) {
    case 'page-write':
      return settleActions(apics, index, lapicWritePage(apic, now, item.offset, item.size, item.value));
    case 'page-read':
      return lapicReadPage(apic, now, item.offset, item.size);
    case 'msr-write': {
      const before = JSON.stringify(apic);
      const advanced = lapicNextEvent(apic) <= now;
      const actions = lapicWriteMsr(apic, now, item.msr, item.lo, item.hi);
      // A write that faults changes nothing.
      if (actions === undefined && !advanced) expect(JSON.stringify(apic)).toBe(before);
      return actions === undefined ? 'fault' : settleActions(apics, index, actions);
    }
    case 'msr-read':
      return lapicReadMsr(apic, now, item.msr);
    case 'mode':
      return lapicWriteMsr(apic, now, APIC_MSR.base, item.base, 0);
    case 'icr':
      return settleActions(apics, index, lapicWriteIcr(apic, item.lo, item.hi));
    case 'message':
      return deliverMessage(apics, index, item.message);
    case 'pin':
      return lapicSetPin(apic, item.pin, item.high);
    case 'lvt':
      return lapicFireLvt(apic, item.index as LvtIndex);
    case 'take':
      return lapicPendingVector(apic) >= 0 ? lapicAcknowledge(apic) : -1;
    case 'eoi':
      return lapicEoi(apic);
    case 'cr8':
      return lapicWriteCr8(apic, item.value);
    case 'tsc':
      return lapicSetTscOffset(apic, now, item.lo, item.hi);
    default:
      return item satisfies never;
  }
}

function check(apic: LapicState, now: number): void {
  const words = [
    ...[apic.irr, apic.isr, apic.tmr, apic.autoEoi, apic.enabled, apic.lvt, apic.extendedLvt].flat(),
    ...[
      apic.baseLo,
      apic.baseHi,
      apic.svr,
      apic.ldr,
      apic.dfr,
      apic.icrLo,
      apic.icrHi,
      apic.esr,
      apic.errors,
    ],
    ...[apic.initialCount, apic.timerCount, apic.deadlineLo, apic.deadlineHi, apic.divide],
  ];
  expect(words.every((value) => Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff)).toBe(true);
  expect(apic.tpr).toBeLessThanOrEqual(0xff);
  // Vectors below 16 are never requested or in service.
  expect(((apic.irr[0] ?? 0) | (apic.isr[0] ?? 0)) & 0xffff).toBe(0);
  const pending = lapicPendingVector(apic);
  if (pending >= 0) {
    expect(pending >>> 4).toBeGreaterThan(lapicProcessorPriority(apic) >>> 4);
    expect(pending >>> 4).toBeGreaterThan(apic.tpr >>> 4);
    expect(pending).toBeGreaterThan(highestVector(apic.isr));
    expect(lapicMode(apic)).not.toBe('disabled');
  }
  lapicAdvance(apic, now);
  expect(lapicNextEvent(apic)).toBeGreaterThan(now);
}

function create(options: Omit<LapicOptions, 'id' | 'bootstrap'>): LapicState[] {
  return [0, 1, 2].map((id) => {
    const apic = createLapic({ ...options, id, bootstrap: id === 0 });
    if (id !== 2) lapicWritePage(apic, 0, LAPIC.svr, 4, 0x1ff);
    return apic;
  });
}

const options = fc.record({
  vendor: fc.constantFrom('intel' as const, 'amd' as const),
  x2apic: fc.constantFrom('absent' as const, 'offered' as const, 'locked' as const),
  tscDeadline: fc.boolean(),
  suppressEoiBroadcast: fc.boolean(),
  cmci: fc.boolean(),
  extended: fc.boolean(),
});

test('random traffic on three APICs: states stay in range, copies through JSON and clone go on alike', () => {
  const steps = fc.array(fc.tuple(fc.nat(2), step, fc.nat(3000)), { maxLength: 120 });
  fc.assert(
    fc.property(options, steps, fc.nat(120), (chosen, list, cut) => {
      let a = create(chosen);
      const b = create(chosen);
      let now = 0;
      list.forEach(([index, item, wait], position) => {
        now += wait;
        if (position === cut) a = JSON.parse(JSON.stringify(structuredClone(a))) as LapicState[];
        expect(perform(a, index, now, item)).toEqual(perform(b, index, now, item));
        for (const apic of [...a, ...b]) check(apic, now);
      });
      expect(a).toEqual(b);
    }),
    { numRuns: 400 },
  );
});

test('every requested vector is delivered exactly once, in priority order, when nothing interferes', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.integer({ min: 16, max: 255 }), { maxLength: 60 }), (vectors) => {
      const [apic] = create({});
      if (apic === undefined) return;
      for (const vector of vectors) {
        deliverMessage([apic], -1, {
          delivery: 0,
          vector,
          level: false,
          target: 'all',
          logical: false,
          destination: 0,
          wide: false,
        });
      }
      const taken: number[] = [];
      while (lapicPendingVector(apic) >= 0) {
        taken.push(lapicAcknowledge(apic));
        lapicEoi(apic);
      }
      expect(taken).toEqual([...vectors].sort((x, y) => y - x));
    }),
  );
});
