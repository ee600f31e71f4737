import { describe, expect, test } from 'vitest';
import { deliverMessage, settleActions } from './apic-bus.ts';
import { DELIVERY, messageOfMsi, type ApicMessage } from './apic-message.ts';
import { createLapic, lapicAcknowledge, lapicDeliver, lapicPendingVector, type LapicState } from './lapic.ts';
import { lapicWriteMsr, lapicWritePage } from './lapic-access.ts';
import { APIC_MSR, LAPIC } from './lapic-registers.ts';

type Mode = 'xapic' | 'x2apic' | 'disabled' | 'software-disabled';

function write(apic: LapicState, offset: number, value: number) {
  return lapicWritePage(apic, 0, offset, 4, value >>> 0);
}

function apics(ids: readonly number[], mode: Mode): LapicState[] {
  return ids.map((id, index) => {
    const apic = createLapic({ id, bootstrap: index === 0 });
    const base = (0xfee0_0000 | (index === 0 ? 0x100 : 0)) >>> 0;
    if (mode !== 'software-disabled') write(apic, LAPIC.svr, 0x1ff);
    if (mode === 'x2apic') lapicWriteMsr(apic, 0, APIC_MSR.base, (base | 0xc00) >>> 0, 0);
    if (mode === 'disabled') lapicWriteMsr(apic, 0, APIC_MSR.base, base, 0);
    return apic;
  });
}

function message(part: Partial<ApicMessage>): ApicMessage {
  return {
    delivery: DELIVERY.fixed,
    vector: 0x40,
    level: false,
    target: 'destination',
    logical: false,
    destination: 0,
    wide: false,
    ...part,
  };
}

function targets(list: readonly LapicState[], part: Partial<ApicMessage>, source = -1): readonly number[] {
  return deliverMessage(list, source, message(part)).targets;
}

describe('physical destinations', () => {
  test('xAPIC: the 8-bit ID as it is now, 0xFF for all', () => {
    const list = apics([0, 1, 2], 'xapic');
    expect(targets(list, { destination: 2 })).toEqual([2]);
    expect(targets(list, { destination: 5 })).toEqual([]);
    expect(targets(list, { destination: 0xff })).toEqual([0, 1, 2]);
    write(list[1] as LapicState, LAPIC.id, 0x0200_0000);
    expect(targets(list, { destination: 2 })).toEqual([1, 2]);
    expect(targets(list, { destination: 1 })).toEqual([]);
  });

  test('x2APIC: the 32-bit ID; 0xFF is an ID there, unless the sender had 8 bits', () => {
    const list = apics([0, 0xff, 0x1_0000], 'x2apic');
    expect(targets(list, { destination: 0x1_0000, wide: true })).toEqual([2]);
    expect(targets(list, { destination: 0xff, wide: true })).toEqual([1]);
    expect(targets(list, { destination: 0xff })).toEqual([0, 1, 2]);
    expect(targets(list, { destination: 0xffff_ffff, wide: true })).toEqual([0, 1, 2]);
  });

  test('a broadcast from x2APIC mode reaches APICs in xAPIC mode', () => {
    const list = [...apics([0], 'x2apic'), ...apics([1], 'xapic')];
    expect(targets(list, { destination: 0xffff_ffff, wide: true })).toEqual([0, 1]);
    expect(targets(list, { destination: 1, wide: true })).toEqual([1]);
    expect(targets(list, { destination: 0x101, wide: true })).toEqual([]);
  });
});

describe('logical destinations', () => {
  test('flat: any common bit', () => {
    const list = apics([0, 1, 2], 'xapic');
    list.forEach((apic, index) => write(apic, LAPIC.ldr, 1 << (24 + index)));
    expect(targets(list, { logical: true, destination: 0b101 })).toEqual([0, 2]);
    expect(targets(list, { logical: true, destination: 0b1000 })).toEqual([]);
    expect(targets(list, { logical: true, destination: 0xff })).toEqual([0, 1, 2]);
  });

  test('cluster: the same cluster and a common bit', () => {
    const list = apics([0, 1, 2], 'xapic');
    const ids = [0x11, 0x12, 0x21];
    list.forEach((apic, index) => {
      write(apic, LAPIC.dfr, 0x0fff_ffff);
      write(apic, LAPIC.ldr, (ids[index] ?? 0) << 24);
    });
    expect(targets(list, { logical: true, destination: 0x13 })).toEqual([0, 1]);
    expect(targets(list, { logical: true, destination: 0x21 })).toEqual([2]);
    expect(targets(list, { logical: true, destination: 0x31 })).toEqual([]);
    expect(targets(list, { logical: true, destination: 0xff })).toEqual([0, 1, 2]);
  });

  test('an undefined model matches nothing', () => {
    const list = apics([0], 'xapic');
    write(list[0] as LapicState, LAPIC.dfr, 0x7000_0000);
    write(list[0] as LapicState, LAPIC.ldr, 0xff00_0000);
    expect(targets(list, { logical: true, destination: 1 })).toEqual([]);
  });

  test('x2APIC: cluster of sixteen in the upper half, also from 8-bit senders', () => {
    const list = apics([0, 2, 3, 0x12], 'x2apic');
    expect(targets(list, { logical: true, wide: true, destination: 0x0000_000d })).toEqual([0, 1, 2]);
    expect(targets(list, { logical: true, wide: true, destination: 0x0001_0004 })).toEqual([3]);
    expect(targets(list, { logical: true, destination: 0x0d })).toEqual([0, 1, 2]);
  });
});

describe('shorthands', () => {
  test('self, all, others', () => {
    const list = apics([0, 1, 2], 'xapic');
    expect(targets(list, { target: 'self' }, 1)).toEqual([1]);
    expect(targets(list, { target: 'all' }, 1)).toEqual([0, 1, 2]);
    expect(targets(list, { target: 'others' }, 1)).toEqual([0, 2]);
  });
});

describe('who takes what', () => {
  test('a software-disabled APIC takes no interrupt but NMI; a disabled one nothing', () => {
    const list = [...apics([0], 'xapic'), ...apics([1], 'software-disabled'), ...apics([2], 'disabled')];
    expect(targets(list, { target: 'all' })).toEqual([0]);
    const result = deliverMessage(list, -1, message({ target: 'all', delivery: DELIVERY.nmi }));
    expect(result.actions).toEqual([
      { apic: 0, action: { kind: 'nmi' } },
      { apic: 1, action: { kind: 'nmi' } },
    ]);
  });

  test('lowest priority goes to one: the lowest, among equals the first', () => {
    const list = apics([0, 1, 2], 'xapic');
    const all = { target: 'all', delivery: DELIVERY.lowestPriority } as const;
    expect(targets(list, all)).toEqual([0]);
    expect(targets(list, all)).toEqual([1]);
    write(list[2] as LapicState, LAPIC.tpr, 0x20);
    lapicAcknowledge(list[0] as LapicState);
    expect(targets(list, all)).toEqual([2]);
  });

  test('lowest priority between two', () => {
    const list = apics([0, 1], 'xapic');
    write(list[0] as LapicState, LAPIC.tpr, 0x40);
    expect(targets(list, { target: 'all', delivery: DELIVERY.lowestPriority })).toEqual([1]);
  });

  test('level is the trigger mode at the receiver', () => {
    const list = apics([0], 'xapic');
    deliverMessage(list, -1, message({ level: true }));
    expect(list[0]?.tmr[2]).toBe(1);
  });
});

describe('settleActions', () => {
  test('bring-up: INIT to all others, then SIPI', () => {
    const list = apics([0, 1, 2], 'xapic');
    const bsp = list[0] as LapicState;
    for (const apic of list) lapicDeliver(apic, DELIVERY.startup, 1, false);
    const init = settleActions(list, 0, write(bsp, LAPIC.icrLow, 0xc_4500));
    expect(init.actions.map(({ apic, action }) => [apic, action.kind])).toEqual([
      [1, 'init'],
      [2, 'init'],
    ]);
    const startup = settleActions(list, 0, write(bsp, LAPIC.icrLow, 0xc_0608));
    expect(startup.actions).toEqual([
      { apic: 1, action: { kind: 'startup', vector: 8 } },
      { apic: 2, action: { kind: 'startup', vector: 8 } },
    ]);
    expect(settleActions(list, 0, write(bsp, LAPIC.icrLow, 0xc_0608)).actions).toEqual([]);
  });

  test('an IPI to oneself is pending at once; an EOI stays for the IO-APICs', () => {
    const list = apics([0, 1], 'x2apic');
    const self = list[0] as LapicState;
    const sent = settleActions(list, 0, lapicWriteMsr(self, 0, 0x83f, 0x99, 0) ?? []);
    expect(sent).toEqual({ targets: [0], actions: [] });
    expect(lapicPendingVector(self)).toBe(0x99);
    expect(settleActions(list, 1, [{ kind: 'eoi', vector: 0x50 }]).actions).toEqual([
      { apic: 1, action: { kind: 'eoi', vector: 0x50 } },
    ]);
  });
});

test('an MSI is a message', () => {
  expect(messageOfMsi(0xfee0_3004, 0xc131)).toEqual(
    message({ delivery: 1, vector: 0x31, level: true, logical: true, destination: 3 }),
  );
  expect(messageOfMsi(0xfee0_3020, 0x31).destination).toBe(3);
  expect(messageOfMsi(0xfee0_3020, 0x31, true).destination).toBe(0x103);
});
