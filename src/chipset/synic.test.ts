import { beforeEach, describe, expect, test } from 'vitest';
import { MSR } from '../abi/hyperv/msr.ts';
import {
  MESSAGE,
  MESSAGE_PENDING,
  messageHeader,
  SINT,
  SLOT_SIZE,
  timerMessage,
} from '../abi/hyperv/synic.ts';
import {
  createSynic,
  synicCancelTimer,
  synicDeliver,
  synicPost,
  synicRaise,
  synicReadMsr,
  synicSignal,
  synicWriteMsr,
  type SynicMemory,
  type SynicState,
} from './synic.ts';

const SIMP = 0x1000;
const SIEFP = 0x2000;
const VECTOR = 0xf3;

let ram: Uint8Array;
let memory: SynicMemory;
let synic: SynicState;

beforeEach(() => {
  ram = new Uint8Array(0x3000);
  memory = {
    read: (gpa, length) =>
      gpa + length <= ram.length
        ? { ok: true, bytes: ram.slice(gpa, gpa + length) }
        : { ok: false, reason: 'unmapped' },
    write: (gpa, bytes) => {
      if (gpa + bytes.length > ram.length) return { ok: false, reason: 'unmapped' };
      ram.set(bytes, gpa);
      return { ok: true };
    },
  };
  synic = createSynic();
  synicWriteMsr(synic, MSR.scontrol, 1, 0);
  synicWriteMsr(synic, MSR.simp, SIMP | 1, 0);
  synicWriteMsr(synic, MSR.siefp, SIEFP | 1, 0);
  synicWriteMsr(synic, MSR.sint0 + 2, VECTOR, 0);
});

const message = (type: number, ...payload: number[]) => ({
  type,
  sender: 7n,
  payload: Uint8Array.from(payload),
  timer: -1,
});
const slot = (sint: number) => messageHeader.read(ram, SIMP + sint * SLOT_SIZE);
const emptySlot = (sint: number) => messageHeader.set(ram, 'type', 0, SIMP + sint * SLOT_SIZE);
const timer = {
  type: MESSAGE.timerExpired,
  sender: 0n,
  payload: new Uint8Array(timerMessage.size),
  timer: 1,
};

describe('registers', () => {
  test('after reset sources are masked and the version is 1', () => {
    const fresh = createSynic();
    expect(synicReadMsr(fresh, MSR.sint15)).toEqual({ lo: SINT.masked, hi: 0 });
    expect(synicReadMsr(fresh, MSR.sversion)).toEqual({ lo: 1, hi: 0 });
    expect(synicReadMsr(fresh, MSR.eom)).toEqual({ lo: 0, hi: 0 });
    expect(synicReadMsr(fresh, MSR.sint15 + 1)).toBeUndefined();
  });

  test('an unmasked source refuses a vector below 16, a masked or polled one takes it', () => {
    expect(synicWriteMsr(synic, MSR.sint0, 15, 0)).toBe(false);
    expect(synicReadMsr(synic, MSR.sint0)).toEqual({ lo: SINT.masked, hi: 0 });
    expect(synicWriteMsr(synic, MSR.sint0, SINT.masked, 0)).toBe(true);
    expect(synicWriteMsr(synic, MSR.sint0, SINT.polling, 0)).toBe(true);
    expect(synicWriteMsr(synic, MSR.sversion, 1, 0)).toBe(false);
  });
});

describe('messages', () => {
  test('an empty slot takes the message and raises the interrupt', () => {
    expect(synicPost(synic, 2, message(1, 0xaa, 0xbb))).toBe('queued');
    expect(synicDeliver(synic, memory, 0n)).toMatchObject([
      { sint: 2, interrupt: { sint: 2, vector: VECTOR, autoEoi: false } },
    ]);
    expect(slot(2)).toEqual({ type: 1, payloadSize: 2, flags: 0, reserved: 0, sender: 7n });
    expect(Array.from(ram.slice(SIMP + 2 * SLOT_SIZE + 16, SIMP + 2 * SLOT_SIZE + 19))).toEqual([
      0xaa, 0xbb, 0,
    ]);
  });

  test('a full slot keeps its message, gets the pending flag, and gives way when emptied', () => {
    synicPost(synic, 2, message(1));
    synicDeliver(synic, memory, 0n);
    synicPost(synic, 2, message(5));
    expect(synicDeliver(synic, memory, 0n)).toEqual([]);
    expect(slot(2)).toMatchObject({ type: 1, flags: MESSAGE_PENDING });
    emptySlot(2);
    expect(synicDeliver(synic, memory, 0n)).toHaveLength(1);
    expect(slot(2)).toMatchObject({ type: 5, flags: 0 });
  });

  test('a message that has successors says so', () => {
    synicPost(synic, 2, message(1));
    synicPost(synic, 2, message(2));
    expect(synicDeliver(synic, memory, 0n)).toHaveLength(1);
    expect(slot(2)).toMatchObject({ type: 1, flags: MESSAGE_PENDING });
  });

  test('auto-EOI and polling follow the SINT', () => {
    synicWriteMsr(synic, MSR.sint0 + 3, VECTOR | SINT.autoEoi, 0);
    synicWriteMsr(synic, MSR.sint0 + 4, VECTOR | SINT.polling, 0);
    synicPost(synic, 3, message(1));
    synicPost(synic, 4, message(1));
    expect(synicDeliver(synic, memory, 0n)).toMatchObject([
      { sint: 3, interrupt: { autoEoi: true } },
      { sint: 4, interrupt: undefined },
    ]);
    expect(slot(4).type).toBe(1);
  });

  test('a masked source or a disabled SynIC loses a port message but holds back a timer', () => {
    for (const [index, off, on] of [
      [MSR.sint0 + 2, SINT.masked | VECTOR, VECTOR],
      [MSR.scontrol, 0, 1],
    ] as const) {
      synicWriteMsr(synic, index, off, 0);
      expect(synicPost(synic, 2, message(1))).toBe('dropped');
      expect(synicPost(synic, 2, timer)).toBe('queued');
      expect(synicDeliver(synic, memory, 0n)).toEqual([]);
      synicWriteMsr(synic, index, on, 0);
      expect(synicDeliver(synic, memory, 0n)).toHaveLength(1);
      emptySlot(2);
    }
  });

  test('masking drops what a port had in line', () => {
    synicPost(synic, 2, message(1));
    synicPost(synic, 2, timer);
    synicWriteMsr(synic, MSR.sint0 + 2, SINT.masked, 0);
    synicDeliver(synic, memory, 0n);
    expect(synic.queues[2]?.map((queued) => queued.timer)).toEqual([1]);
  });

  test('timer messages get their delivery time when delivered, and can be taken back', () => {
    synicPost(synic, 2, timer);
    synicDeliver(synic, memory, 1234n);
    expect(timerMessage.read(ram, SIMP + 2 * SLOT_SIZE + 16).deliveryTime).toBe(1234n);
    synicPost(synic, 2, timer);
    synicCancelTimer(synic, 1);
    expect(synic.queues[2]).toEqual([]);
  });

  test('no message page, or one outside memory: the message waits', () => {
    for (const page of [0, 0x10_0001]) {
      synicWriteMsr(synic, MSR.simp, page, page === 0 ? 0 : 0xffff_ffff);
      synicPost(synic, 2, message(1));
      expect(synicDeliver(synic, memory, 0n)).toEqual([]);
    }
    synicWriteMsr(synic, MSR.simp, SIMP | 1, 0);
    expect(synicDeliver(synic, memory, 0n)).toHaveLength(1);
  });

  test('a queue has a bound', () => {
    const outcomes = Array.from({ length: 100 }, () => synicPost(synic, 2, message(1)));
    expect(outcomes.filter((outcome) => outcome === 'queued')).toHaveLength(64);
    expect(outcomes.at(-1)).toBe('full');
  });
});

describe('event flags', () => {
  test('a new flag raises the interrupt, a set one does not', () => {
    expect(synicSignal(synic, memory, 2, 21)).toEqual({
      kind: 'signalled',
      interrupt: { sint: 2, vector: VECTOR, autoEoi: false },
    });
    expect(ram[SIEFP + 2 * SLOT_SIZE + 2]).toBe(1 << 5);
    expect(synicSignal(synic, memory, 2, 21)).toEqual({ kind: 'already' });
    expect(synicSignal(synic, memory, 2, 22)).toMatchObject({ kind: 'signalled' });
    expect(ram[SIEFP + 2 * SLOT_SIZE + 2]).toBe(3 << 5);
  });

  test('is lost when the source is masked, the SynIC off or the page absent', () => {
    synicWriteMsr(synic, MSR.siefp, 0, 0);
    expect(synicSignal(synic, memory, 2, 1)).toEqual({ kind: 'lost' });
    synicWriteMsr(synic, MSR.siefp, SIEFP | 1, 0);
    expect(synicSignal(synic, memory, 1, 1)).toEqual({ kind: 'lost' });
    synicWriteMsr(synic, MSR.scontrol, 0, 0);
    expect(synicSignal(synic, memory, 2, 1)).toEqual({ kind: 'lost' });
    expect(synicRaise(synic, 2)).toBeUndefined();
    expect(ram.every((byte) => byte === 0)).toBe(true);
  });
});
