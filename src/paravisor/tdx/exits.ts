/** An L2 exit as TDG.VP.ENTER reports it, and the answer put into the VM (TDX Module 1.5 TD Partitioning; SDM vol. 3, 28). */

import { exact, highHalf, lowHalf } from '../../abi/record.ts';
import { EXIT_REASON, EXTENDED_EPT } from '../../abi/tdx/exit-reasons.ts';
import { STATUS } from '../../abi/tdx/status.ts';
import type { CpuidRegisters } from '../../seats/exits.ts';
import type { GuestCompletion, GuestExit } from '../exits.ts';
import { FIELD } from './fields.ts';
import type { Guest } from './processor.ts';
import { CR0, EFER, setCr0, setCr4, setLongMode } from './start.ts';

/** What of the registers is needed later, in plain data. */
export interface L2Report {
  readonly reason: number;
  readonly qualification: bigint;
  readonly address: bigint;
  /** IDT-vectoring information and error code. */
  readonly vectoring: bigint;
  readonly length: bigint;
  readonly long: boolean;
  readonly cpl: number;
  /** An EPT violation on a page that L1 has not accepted. */
  readonly pending: boolean;
}

const CS_LONG = 1n << 29n;

/** `undefined`: the L2 VM did not run, or has spoken with the host itself. */
export function readReport(registers: readonly bigint[]): L2Report | undefined {
  const r = (n: number): bigint => registers[n] ?? 0n;
  const status = Number(r(0) >> 32n);
  if (status !== STATUS.success && status !== STATUS.l2ExitHostRoutedAsync) return undefined;
  return {
    reason: Number(r(0) & 0xffff_ffffn),
    qualification: r(1),
    address: r(8),
    vectoring: r(10),
    length: r(11) >> 32n,
    // RSI: access rights of CS in 31:16, L is bit 13 of them.
    long: (r(6) & CS_LONG) !== 0n,
    cpl: Number(r(12) & 3n),
    pending: Number(r(13) & 15n) === EXTENDED_EPT.pending,
  };
}

export type L2Outcome =
  | GuestExit
  | { readonly kind: 'nothing' }
  /** Answered already. */
  | { readonly kind: 'handled' }
  | { readonly kind: 'fault'; readonly vector: number; readonly errorCode?: number }
  /** The guest's page is not accepted: the host has taken it away, or nobody was to accept it. */
  | { readonly kind: 'not-validated' }
  | { readonly kind: 'unknown' };

const NOTHING: L2Outcome = { kind: 'nothing' };
const HANDLED: L2Outcome = { kind: 'handled' };
const GP: L2Outcome = { kind: 'fault', vector: 13, errorCode: 0 };
const EFER_MSR = 0xc000_0080;

export function classify(
  report: L2Report,
  guest: Guest,
  boundary: number,
  cpuid: (leaf: number, subleaf: number) => CpuidRegisters,
): L2Outcome {
  const low = (register: number): number => lowHalf(guest.general(register));
  switch (report.reason) {
    case EXIT_REASON.externalInterrupt:
    case EXIT_REASON.interruptWindow:
    case EXIT_REASON.nmiWindow:
      return NOTHING;
    case EXIT_REASON.tripleFault:
      return { kind: 'triple-fault' };
    case EXIT_REASON.cpuid: {
      const leaf = low(0);
      const subleaf = low(1);
      return { kind: 'cpuid', leaf, subleaf, native: cpuid(leaf, subleaf) };
    }
    case EXIT_REASON.hlt:
      return { kind: 'hlt' };
    case EXIT_REASON.invd:
    case EXIT_REASON.wbinvd:
    case EXIT_REASON.mwait:
    case EXIT_REASON.monitor:
    case EXIT_REASON.pause:
      return { kind: 'skip' };
    case EXIT_REASON.rdpmc:
      return { kind: 'counter' };
    case EXIT_REASON.vmcall:
      return { kind: 'hypercall', long: report.long, cpl: report.cpl };
    case EXIT_REASON.controlRegister:
      return controlRegister(report, guest);
    case EXIT_REASON.io: {
      const word = Number(report.qualification & 0xffff_ffffn);
      const size = ((word & 7) + 1) as 1 | 2 | 4;
      const write = (word & 8) === 0;
      if ((word & 0x10) !== 0) return { kind: 'string-io', port: word >>> 16, size, write };
      const mask = size === 4 ? 0xffff_ffff : (1 << (8 * size)) - 1;
      return { kind: 'io', port: word >>> 16, size, write, value: write ? (low(0) & mask) >>> 0 : 0 };
    }
    case EXIT_REASON.rdmsr:
      return { kind: 'msr', index: low(1), write: false, lo: 0, hi: 0 };
    case EXIT_REASON.wrmsr:
      if (low(1) === EFER_MSR) return writeEfer(guest, (guest.general(2) << 32n) | BigInt(low(0)));
      return { kind: 'msr', index: low(1), write: true, lo: low(0), hi: low(2) };
    case EXIT_REASON.eptViolation: {
      if (report.pending) return { kind: 'not-validated' };
      const address = exact(lowHalf(report.address), highHalf(report.address));
      if (address === undefined) return { kind: 'unknown' };
      const shared = address >= boundary;
      const write = (report.qualification & 2n) !== 0n;
      return { kind: 'memory', gpa: shared ? address - boundary : address, shared, write };
    }
    // A TDCALL that may not go to the host: to a guest that knows nothing of TDs there is no such instruction.
    case EXIT_REASON.tdcall:
    case EXIT_REASON.getsec:
      return { kind: 'undefined' };
    default:
      return { kind: 'unknown' };
  }
}

/** MOV to CR0 and CR4, CLTS, LMSW, as far as they touch what L1 owns. */
function controlRegister({ qualification }: L2Report, guest: Guest): L2Outcome {
  const number = Number(qualification & 15n);
  const access = Number((qualification >> 4n) & 3n);
  const value = guest.general(Number((qualification >> 8n) & 15n));
  if (number === 4 && access === 0) {
    setCr4(guest, value);
    return HANDLED;
  }
  if (number !== 0) return { kind: 'unknown' };
  const owned = guest.field(FIELD.cr0Shadow) & (CR0.pe | CR0.ne | CR0.nw | CR0.cd | CR0.pg);
  const seen = (guest.field(FIELD.cr0) & ~(CR0.pe | CR0.ne | CR0.nw | CR0.cd | CR0.pg)) | owned;
  const next =
    access === 0
      ? value
      : access === 2
        ? seen & ~8n
        : (seen & ~14n) | ((qualification >> 16n) & 15n) | (seen & 1n);
  return writeCr0(guest, next);
}

function writeCr0(guest: Guest, value: bigint): L2Outcome {
  // SDM vol. 3, 2.5: paging needs protection, NW needs CD, and long mode PAE.
  if ((value & CR0.pg) !== 0n && (value & CR0.pe) === 0n) return GP;
  if ((value & CR0.nw) !== 0n && (value & CR0.cd) === 0n) return GP;
  if (value >> 32n !== 0n) return GP;
  const efer = guest.field(FIELD.efer);
  const pae = (guest.field(FIELD.cr4) & 0x20n) !== 0n;
  if ((value & CR0.pg) !== 0n && (efer & EFER.lme) !== 0n && !pae) return GP;
  setCr0(guest, value);
  setLongMode(guest, value, efer);
  return HANDLED;
}

function writeEfer(guest: Guest, value: bigint): L2Outcome {
  const known = EFER.sce | EFER.lme | EFER.lma | EFER.nxe;
  if ((value & ~known) !== 0n) return GP;
  const cr0 = guest.field(FIELD.cr0);
  const before = guest.field(FIELD.efer);
  // LME cannot change while paging is on.
  if ((cr0 & CR0.pg) !== 0n && ((before ^ value) & EFER.lme) !== 0n) return GP;
  setLongMode(guest, cr0, value & (EFER.sce | EFER.lme));
  return HANDLED;
}

const VALID = 0x8000_0000n;
const EXCEPTION = 3n;

export function injectFault(guest: Guest, vector: number, errorCode: number | undefined): void {
  const error = errorCode === undefined ? 0n : 1n << 11n;
  guest.setField(FIELD.entryErrorCode, BigInt(errorCode ?? 0));
  guest.setField(FIELD.entryInterruption, VALID | (EXCEPTION << 8n) | error | BigInt(vector));
}

/** An event whose delivery the exit has broken off is delivered again. */
export function injectAgain(guest: Guest, { vectoring, length }: L2Report): void {
  if ((vectoring & VALID) === 0n) return;
  guest.setField(FIELD.entryErrorCode, vectoring >> 32n);
  guest.setField(FIELD.entryLength, length & 15n);
  guest.setField(FIELD.entryInterruption, vectoring & 0xffff_ffffn);
}

/** The guest can take an interrupt at its next instruction, and no event is on its way. */
export function isOpen(guest: Guest, interruptFlag: bigint): boolean {
  return (
    (guest.rflags & interruptFlag) !== 0n &&
    (guest.field(FIELD.interruptibility) & 3n) === 0n &&
    !isInjecting(guest)
  );
}

export const isInjecting = (guest: Guest): boolean => (guest.field(FIELD.entryInterruption) & VALID) !== 0n;

export function injectInterrupt(guest: Guest, vector: number): void {
  guest.setField(FIELD.entryInterruption, VALID | BigInt(vector));
}

/** The instruction is over: RIP behind it, and what it held back open again. */
export function skip(guest: Guest, { length, long }: L2Report): void {
  const next = guest.rip + length;
  guest.rip = long ? next : next & 0xffff_ffffn;
  guest.setField(FIELD.interruptibility, guest.field(FIELD.interruptibility) & ~3n);
}

export function complete(guest: Guest, report: L2Report, exit: GuestExit, completion: GuestCompletion): void {
  switch (completion.kind) {
    case 'again':
    case 'emulated':
      injectAgain(guest, report);
      return;
    case 'fault':
      injectFault(guest, completion.vector, completion.errorCode);
      return;
    case 'done':
      break;
    case 'value':
      giveValue(guest, exit, completion.lo, completion.hi);
      break;
    case 'registers':
      guest.setGeneral(0, BigInt(completion.eax));
      guest.setGeneral(3, BigInt(completion.ebx));
      guest.setGeneral(1, BigInt(completion.ecx));
      guest.setGeneral(2, BigInt(completion.edx));
      break;
    case 'td-enter':
      throw new Error('an answer for a host');
  }
  skip(guest, report);
}

function giveValue(guest: Guest, exit: GuestExit, lo: number, hi: number): void {
  const low = BigInt(lo >>> 0);
  if (exit.kind === 'io' && exit.size < 4) {
    const mask = (1n << BigInt(8 * exit.size)) - 1n;
    guest.setGeneral(0, (guest.general(0) & ~mask) | (low & mask));
  } else if (exit.kind === 'hypercall' && exit.long) {
    guest.setGeneral(0, (BigInt(hi >>> 0) << 32n) | low);
  } else {
    guest.setGeneral(0, low);
    if (exit.kind !== 'io') guest.setGeneral(2, BigInt(hi >>> 0));
  }
}
