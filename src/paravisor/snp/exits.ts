/** What a guest's VMSA says about its last exit, and the answer put into it (AMD APM vol. 2, 15.36.16 and appendix C). */

import { exact } from '../../abi/record.ts';
import { IOIO, NPF, SVM_EXIT } from '../../abi/snp/exit-codes.ts';
import { EVENT_INJECTION, VINTR, vmsa } from '../../abi/snp/vmsa.ts';
import type { CpuidRegisters } from '../../seats/exits.ts';
import type { GuestCompletion, GuestExit } from '../exits.ts';
import type { Context } from './context.ts';

/** Nothing happened that the paravisor must answer: the guest was interrupted, or has spoken with the host itself. */
export interface NothingHappened {
  readonly kind: 'nothing';
}
/** The guest cannot go on: the host has changed a page that it holds. */
export interface NotValidated {
  readonly kind: 'not-validated';
  readonly gpa: number;
}
/** A stop that nobody knows. */
export interface UnknownExit {
  readonly kind: 'unknown';
  readonly code: number;
}

export type ContextExit = GuestExit | NothingHappened | NotValidated | UnknownExit;

export type NativeCpuid = (leaf: number, subleaf: number) => CpuidRegisters;

const EFER_LMA = 1 << 10;
const CS_LONG = 1 << 9;
const NOTHING: NothingHappened = { kind: 'nothing' };

export function readExit(context: Context, boundary: number, cpuid: NativeCpuid): ContextExit {
  const code = context.low('exitCode');
  switch (code) {
    case SVM_EXIT.interrupt:
    case SVM_EXIT.nmi:
    case SVM_EXIT.vmgexit:
      return NOTHING;
    case SVM_EXIT.cpuid: {
      const leaf = context.low('rax');
      const subleaf = context.low('rcx');
      return { kind: 'cpuid', leaf, subleaf, native: cpuid(leaf, subleaf) };
    }
    case SVM_EXIT.io: {
      const word = context.low('exitInfo1');
      const size = (word & IOIO.size8) !== 0 ? 1 : (word & IOIO.size16) !== 0 ? 2 : 4;
      const write = (word & IOIO.in) === 0;
      if ((word & IOIO.string) !== 0) return { kind: 'string-io', port: word >>> 16, size, write };
      const value = write ? (context.low('rax') & (size === 4 ? -1 : (1 << (8 * size)) - 1)) >>> 0 : 0;
      return { kind: 'io', port: word >>> 16, size, write, value };
    }
    case SVM_EXIT.msr: {
      const write = (context.low('exitInfo1') & 1) !== 0;
      return {
        kind: 'msr',
        index: context.low('rcx'),
        write,
        lo: write ? context.low('rax') : 0,
        hi: write ? context.low('rdx') : 0,
      };
    }
    case SVM_EXIT.vmmcall: {
      const attributes = vmsa.get(context.bytes, 'csAttributes');
      const long = (context.low('efer') & EFER_LMA) !== 0 && (attributes & CS_LONG) !== 0;
      return { kind: 'hypercall', long, cpl: vmsa.get(context.bytes, 'cpl') };
    }
    case SVM_EXIT.hlt:
      return { kind: 'hlt' };
    // MONITOR is not offered, so MWAIT may go on at once: it is allowed to wake for no reason.
    case SVM_EXIT.mwait:
    case SVM_EXIT.wbinvd:
    case SVM_EXIT.invd:
    case SVM_EXIT.monitor:
    case SVM_EXIT.pause:
      return { kind: 'skip' };
    case SVM_EXIT.readPmc:
      return { kind: 'counter' };
    case SVM_EXIT.shutdown:
      return { kind: 'triple-fault' };
    case SVM_EXIT.nestedPageFault: {
      const address = exact(context.low('exitInfo2'), context.high('exitInfo2'));
      if (address === undefined) return { kind: 'unknown', code };
      const shared = address >= boundary;
      const write = (context.low('exitInfo1') & NPF.write) !== 0;
      return { kind: 'memory', gpa: shared ? address - boundary : address, shared, write };
    }
    case SVM_EXIT.notValidated:
      return { kind: 'not-validated', gpa: exact(context.low('exitInfo2'), context.high('exitInfo2')) ?? -1 };
    default:
      return { kind: 'unknown', code };
  }
}

/** So that a turn that comes without an exit finds none. */
export function clearExit(context: Context): void {
  context.set('exitCode', SVM_EXIT.interrupt, 0);
  context.set('exitIntInfo', 0, 0);
}

export function complete(context: Context, exit: GuestExit, completion: GuestCompletion): void {
  switch (completion.kind) {
    case 'again':
      return resume(context);
    case 'emulated':
      endShadow(context);
      return resume(context);
    case 'fault': {
      const { vector, errorCode } = completion;
      const word =
        (vector |
          (EVENT_INJECTION.exception << EVENT_INJECTION.typeShift) |
          (errorCode === undefined ? 0 : EVENT_INJECTION.hasError) |
          EVENT_INJECTION.valid) >>>
        0;
      context.set('eventInj', word, errorCode ?? 0);
      return;
    }
    case 'done':
      break;
    case 'value':
      giveValue(context, exit, completion.lo, completion.hi);
      break;
    case 'registers':
      context.set('rax', completion.eax, 0);
      context.set('rbx', completion.ebx, 0);
      context.set('rcx', completion.ecx, 0);
      context.set('rdx', completion.edx, 0);
      break;
  }
  // An automatic exit of the trap kind: RIP is behind HLT already (APM vol. 2, table 15-35).
  if (exit.kind !== 'hlt') context.set('rip', context.low('nextRip'), context.high('nextRip'));
  endShadow(context);
}

function giveValue(context: Context, exit: GuestExit, lo: number, hi: number): void {
  switch (exit.kind) {
    case 'io':
      if (exit.size === 4) context.set('rax', lo, 0);
      else {
        const mask = (1 << (8 * exit.size)) - 1;
        context.set('rax', ((context.low('rax') & ~mask) | (lo & mask)) >>> 0, context.high('rax'));
      }
      return;
    case 'hypercall':
      if (exit.long) context.set('rax', lo, hi);
      else {
        context.set('rax', lo, 0);
        context.set('rdx', hi, 0);
      }
      return;
    default:
      context.set('rax', lo, 0);
      context.set('rdx', hi, 0);
  }
}

/** The instruction is over, and with it what STI or MOV SS held back for its length. */
function endShadow(context: Context): void {
  const control = context.low('vintrControl');
  if ((control & VINTR.shadow) !== 0)
    context.set('vintrControl', (control & ~VINTR.shadow) >>> 0, context.high('vintrControl'));
}

/** An event whose delivery the exit has broken off is delivered again. */
function resume(context: Context): void {
  const info = context.low('exitIntInfo');
  if ((info & EVENT_INJECTION.valid) === 0) return;
  context.set('eventInj', info, context.high('exitIntInfo'));
}

/** Gives the processor an interrupt to deliver as soon as it may; -1: none. */
export function offerInterrupt(context: Context, vector: number, nmi: boolean, priority: number): void {
  const kept = context.low('vintrControl') & (VINTR.shadow | VINTR.gif | VINTR.nmiMask);
  let low = kept | VINTR.nmiEnable | (priority & VINTR.tpr);
  if (nmi) low |= VINTR.nmi;
  if (vector >= 0) low |= VINTR.irq | ((vector >>> 4) << VINTR.priorityShift);
  context.set('vintrControl', low >>> 0, vector >= 0 ? vector : 0);
}

/** The interrupt that was offered is delivered. */
export const wasTaken = (context: Context): boolean => (context.low('vintrControl') & VINTR.irq) === 0;
export const taskPriority = (context: Context): number => context.low('vintrControl') & 0xf;
