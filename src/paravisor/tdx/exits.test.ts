import { beforeEach, describe, expect, test } from 'vitest';
import { ENTRY_FAILURE, EXIT_REASON } from '../../abi/tdx/exit-reasons.ts';
import { STATUS } from '../../abi/tdx/status.ts';
import {
  classify,
  complete,
  injectAgain,
  injectFault,
  isOpen,
  readReport,
  skip,
  type L2Outcome,
  type L2Report,
} from './exits.ts';
import { FIELD } from './fields.ts';
import { Guest } from './processor.ts';
import { TestTd } from './test-seat.ts';

const BOUNDARY = 2 ** 47;
const RFLAGS_IF = 0x200n;
const PE = 1n;
const NE = 1n << 5n;
const PG = 1n << 31n;
const LME = 1n << 8n;
const LMA = 1n << 10n;
const PAE = 1n << 5n;
const GP = { kind: 'fault', vector: 13, errorCode: 0 };

let guest: Guest;
beforeEach(() => {
  guest = new Guest(new TestTd(0x1_0000).seat(), 0x1000);
  guest.rip = 0x1000n;
});

const report = (reason: number, more: Partial<L2Report> = {}): L2Report => ({
  reason,
  qualification: 0n,
  address: 0n,
  vectoring: 0n,
  length: 2n,
  long: true,
  cpl: 0,
  pending: false,
  ...more,
});
const outcome = (reason: number, more: Partial<L2Report> = {}): L2Outcome =>
  classify(report(reason, more), guest, BOUNDARY, () => ({ eax: 1, ebx: 2, ecx: 3, edx: 4 }));
const set = (rax: bigint, rcx = 0n, rdx = 0n): void => {
  guest.setGeneral(0, rax);
  guest.setGeneral(1, rcx);
  guest.setGeneral(2, rdx);
};

describe('readReport', () => {
  const registers = (status: number, reason: number): bigint[] => {
    const list = Array.from({ length: 16 }, () => 0n);
    list[0] = (BigInt(status) << 32n) | BigInt(reason);
    list[6] = 0xa09bn << 16n;
    list[11] = 3n << 32n;
    list[12] = 3n;
    return list;
  };
  test.for([STATUS.success, STATUS.l2ExitHostRoutedAsync])('status 0x%x is an exit of the guest', (status) =>
    expect(readReport(registers(status, EXIT_REASON.cpuid))).toMatchObject({
      reason: EXIT_REASON.cpuid,
      length: 3n,
      long: true,
      cpl: 3,
    }),
  );
  test.for([STATUS.pendingInterrupt, STATUS.l2ExitPendingInterrupt, STATUS.l2ExitHostRoutedTdvmcall])(
    'status 0x%x is none',
    (status) => expect(readReport(registers(status, EXIT_REASON.tdcall))).toBeUndefined(),
  );
});

describe('classify', () => {
  test('CPUID with the answer of the processor', () => {
    set(0x21n, 5n);
    expect(outcome(EXIT_REASON.cpuid)).toMatchObject({
      kind: 'cpuid',
      leaf: 0x21,
      subleaf: 5,
      native: { eax: 1 },
    });
  });
  test('IN and OUT by size and direction', () => {
    set(0x1234_5678_9abcn);
    expect(outcome(EXIT_REASON.io, { qualification: 0x3f8_0008n })).toMatchObject({
      port: 0x3f8,
      write: false,
    });
    expect(outcome(EXIT_REASON.io, { qualification: 0x3f8_0001n })).toMatchObject({
      size: 2,
      write: true,
      value: 0x9abc,
    });
    expect(outcome(EXIT_REASON.io, { qualification: 0xcf8_0003n })).toMatchObject({
      size: 4,
      value: 0x5678_9abc,
    });
  });
  test('MSRs by ECX and EDX:EAX', () => {
    set(1n, 0x4000_0000n, 2n);
    expect(outcome(EXIT_REASON.rdmsr)).toEqual({
      kind: 'msr',
      index: 0x4000_0000,
      write: false,
      lo: 0,
      hi: 0,
    });
    expect(outcome(EXIT_REASON.wrmsr)).toEqual({
      kind: 'msr',
      index: 0x4000_0000,
      write: true,
      lo: 1,
      hi: 2,
    });
  });
  test('memory by alias, and by what was tried', () => {
    const at = (address: bigint, qualification: bigint): L2Outcome =>
      outcome(EXIT_REASON.eptViolation, { address, qualification });
    expect(at(0xfec0_0010n, 2n)).toEqual({ kind: 'memory', gpa: 0xfec0_0010, shared: false, write: true });
    expect(at(0x1000n | (1n << 47n), 1n)).toEqual({
      kind: 'memory',
      gpa: 0x1000,
      shared: true,
      write: false,
    });
    expect(at(1n << 60n, 1n)).toEqual({ kind: 'unknown' });
    expect(outcome(EXIT_REASON.eptViolation, { address: 0x1000n, pending: true })).toEqual({
      kind: 'not-validated',
    });
  });
  test('a TDCALL that L1 did not allow is no instruction to the guest', () =>
    expect(outcome(EXIT_REASON.tdcall)).toEqual({ kind: 'undefined' }));
  test('a failed entry is nothing that a guest can do', () =>
    expect(outcome((ENTRY_FAILURE + EXIT_REASON.entryFailureState) >>> 0)).toEqual({ kind: 'unknown' }));
});

describe('control registers', () => {
  const write = (number: number, value: bigint): L2Outcome => {
    guest.setGeneral(3, value);
    return outcome(EXIT_REASON.controlRegister, { qualification: BigInt(number) | (3n << 8n) });
  };
  test('paging with LME makes long mode active, and the entry control follows', () => {
    guest.setField(FIELD.efer, LME);
    guest.setField(FIELD.cr4, PAE);
    expect(write(0, PG | PE)).toEqual({ kind: 'handled' });
    expect(guest.field(FIELD.efer) & LMA).toBe(LMA);
    expect(guest.field(FIELD.entryControls) & 0x200n).toBe(0x200n);
    // The guest sees what it wrote; the processor keeps NE.
    expect(guest.field(FIELD.cr0Shadow)).toBe(PG | PE);
    expect(guest.field(FIELD.cr0) & NE).toBe(NE);
    expect(write(0, PE)).toEqual({ kind: 'handled' });
    expect(guest.field(FIELD.efer) & LMA).toBe(0n);
  });
  test.for<[string, bigint]>([
    ['paging without protection', PG],
    ['NW without CD', PE | (1n << 29n)],
    ['upper bits', PE | (1n << 32n)],
  ])('%s is #GP', ([, value]) => expect(write(0, value)).toEqual(GP));
  test('long mode without PAE is #GP', () => {
    guest.setField(FIELD.efer, LME);
    expect(write(0, PG | PE)).toEqual(GP);
  });
  test('CR4 keeps MCE and VMXE for the processor', () => {
    expect(write(4, PAE)).toEqual({ kind: 'handled' });
    expect([guest.field(FIELD.cr4Shadow), guest.field(FIELD.cr4)]).toEqual([PAE, PAE | 0x2040n]);
  });
  test('LMSW sets PE and never clears it', () => {
    const lmsw = (source: bigint): L2Outcome =>
      outcome(EXIT_REASON.controlRegister, { qualification: (3n << 4n) | (source << 16n) });
    expect(lmsw(1n)).toEqual({ kind: 'handled' });
    expect(guest.field(FIELD.cr0Shadow) & PE).toBe(PE);
    lmsw(0n);
    expect(guest.field(FIELD.cr0Shadow) & PE).toBe(PE);
  });
  test('EFER: LME not under paging, nothing that is reserved', () => {
    const efer = (value: bigint): L2Outcome => {
      set(value & 0xffff_ffffn, 0xc000_0080n, value >> 32n);
      return outcome(EXIT_REASON.wrmsr);
    };
    expect(efer(LME)).toEqual({ kind: 'handled' });
    guest.setField(FIELD.cr0, PG | PE);
    expect(efer(0n)).toEqual(GP);
    expect(efer(1n << 12n)).toEqual(GP);
  });
});

describe('complete', () => {
  const io = { kind: 'io', port: 0x60, size: 1, write: false, value: 0 } as const;
  test('IN of a byte leaves the rest of RAX, and the instruction is over', () => {
    set(0xffff_ffff_ffff_ff00n);
    complete(guest, report(EXIT_REASON.io), io, { kind: 'value', lo: 0x5a, hi: 0 });
    expect([guest.general(0), guest.rip]).toEqual([0xffff_ffff_ffff_ff5an, 0x1002n]);
  });
  test('RDMSR gives EDX:EAX, zero-extended', () => {
    set(ALL, 0n, ALL);
    const msr = { kind: 'msr', index: 1, write: false, lo: 0, hi: 0 } as const;
    complete(guest, report(EXIT_REASON.rdmsr), msr, { kind: 'value', lo: 1, hi: 2 });
    expect([guest.general(0), guest.general(2)]).toEqual([1n, 2n]);
  });
  test('a hypercall of 64-bit code gives RAX whole', () => {
    const call = { kind: 'hypercall', long: true, cpl: 0 } as const;
    complete(guest, report(EXIT_REASON.vmcall, { length: 3n }), call, { kind: 'value', lo: 5, hi: 1 });
    expect([guest.general(0), guest.rip]).toEqual([0x1_0000_0005n, 0x1003n]);
  });
  test('a fault goes through the entry, and RIP stays', () => {
    complete(guest, report(EXIT_REASON.io), io, { kind: 'fault', vector: 13, errorCode: 0 });
    expect([guest.field(FIELD.entryInterruption), guest.rip]).toEqual([0x8000_0b0dn, 0x1000n]);
    injectFault(guest, 6, undefined);
    expect(guest.field(FIELD.entryInterruption)).toBe(0x8000_0306n);
  });
  test('an event whose delivery was broken off is delivered again, with its error code and length', () => {
    injectAgain(
      guest,
      report(EXIT_REASON.eptViolation, { vectoring: 0x8000_0b0en | (7n << 32n), length: 2n }),
    );
    expect(guest.field(FIELD.entryInterruption)).toBe(0x8000_0b0en);
    expect(guest.field(FIELD.entryErrorCode)).toBe(7n);
    injectAgain(guest, report(EXIT_REASON.eptViolation));
    expect(guest.field(FIELD.entryInterruption)).toBe(0x8000_0b0en);
  });
});

describe('interrupts', () => {
  test('RIP of 32-bit code wraps, and a shadow ends with the instruction', () => {
    guest.rip = 0xffff_ffffn;
    guest.setField(FIELD.interruptibility, 3n);
    skip(guest, report(EXIT_REASON.hlt, { long: false, length: 1n }));
    expect([guest.rip, guest.field(FIELD.interruptibility)]).toEqual([0n, 0n]);
  });
  test.for<[string, () => void, boolean]>([
    ['IF set', () => void (guest.rflags = RFLAGS_IF), true],
    ['IF clear', () => void (guest.rflags = 2n), false],
    [
      'a shadow',
      () => {
        guest.rflags = RFLAGS_IF;
        guest.setField(FIELD.interruptibility, 1n);
      },
      false,
    ],
    [
      'an event on its way',
      () => {
        guest.rflags = RFLAGS_IF;
        injectFault(guest, 13, 0);
      },
      false,
    ],
  ])('%s', ([, prepare, open]) => {
    prepare();
    expect(isOpen(guest, RFLAGS_IF)).toBe(open);
  });
});

const ALL = 0xffff_ffff_ffff_ffffn;
