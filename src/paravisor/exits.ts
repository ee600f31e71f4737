/**
 * What the paravisor answers when its guest stops: from the models that it owns, or by asking the host where the part in question
 * is switched off or the thing is the host's by nature.
 */

import { EVENT, EVENT_CLASS } from '../abi/events.ts';
import { CALL, STATUS } from '../abi/hyperv/hypercall.ts';
import * as inputs from '../abi/hyperv/inputs.ts';
import { PRIVILEGE_HIGH } from '../abi/hyperv/cpuid.ts';
import { MSR } from '../abi/hyperv/msr.ts';
import { readControl } from '../abi/hyperv/hypercall.ts';
import { REGISTER } from '../abi/hyperv/registers.ts';
import { done, hypercallTable, type HypercallAnswer, type HypercallRow } from '../chipset/hypercall.ts';
import { boardReadMemory, boardWriteMemory } from '../chipset/partition/board.ts';
import {
  answerCpuid,
  answerCr8,
  answerHlt,
  answerHypercall,
  answerIo,
  answerMsr,
  answerTripleFault,
  DONE,
  GP,
  UD,
  value,
} from '../chipset/partition/exits.ts';
import { PARTITION_HYPERCALL_ROWS } from '../chipset/partition/hypercalls.ts';
import {
  apicRead,
  apicWrite,
  apicWriteMsr,
  IOAPIC_PAGE,
  isApicMsr,
  isApicPage,
} from '../chipset/partition/interrupts.ts';
import { isSynthetic } from '../chipset/partition/msr.ts';
import type { VpState } from '../chipset/partition/state.ts';
import type {
  Completion,
  Cr8Exit,
  CpuidExit,
  HltExit,
  HypercallExit,
  IoExit,
  MsrExit,
  TripleFaultExit,
} from '../seats/exits.ts';
import {
  decodeAccess,
  finishAccess,
  halves,
  valueToWrite,
  type Access,
  type OpcodeTable,
} from './emulate.ts';
import { hiddenLeaf } from './cpuid.ts';
import { readModelMsr, writeModelMsr } from './msr.ts';
import { hasPart, type PartName } from './parts.ts';
import type { HostAnswer, HostRequest } from './requests.ts';
import { ask, isGuestRam, type GuestCaller, type GuestVp, type ParavisorCall } from './state.ts';
import { visibilityRow } from './visibility.ts';

/** An access to a guest-physical address that the second stage did not let through. `gpa`: without the shared alias. */
export interface MemoryExit {
  readonly kind: 'memory';
  readonly gpa: number;
  readonly shared: boolean;
  readonly write: boolean;
}

/** An instruction that does nothing in a guest (WBINVD, INVD, MONITOR, PAUSE), or that reads a counter which is not there. */
export interface SkippedExit {
  readonly kind: 'skip' | 'counter';
}

/** INS or OUTS: one element between a port and memory. */
export interface StringIoExit {
  readonly kind: 'string-io';
  readonly port: number;
  readonly size: 1 | 2 | 4;
  readonly write: boolean;
}

export interface UndefinedExit {
  readonly kind: 'undefined';
}

export type GuestExit =
  | IoExit
  | MsrExit
  | CpuidExit
  | Cr8Exit
  | HypercallExit
  | HltExit
  | TripleFaultExit
  | MemoryExit
  | StringIoExit
  | SkippedExit
  | UndefinedExit;

/** The access was emulated, RIP and all. */
export interface Emulated {
  readonly kind: 'emulated';
}
export type GuestCompletion = Completion | Emulated;

const EMULATED: Emulated = { kind: 'emulated' };
const MACHINE_CHECK: Completion = { kind: 'fault', vector: 18 };
const ONES = 0xffff_ffff;

/** Calls for the hypervisor that a guest may also make by the ordinary way: the paravisor passes them on. */
const relayed = (name: string, code: number, size: number, privilege: number): HypercallRow<GuestCaller> => ({
  name,
  code,
  input: size,
  output: 0,
  privilege,
  serve: ({ guest, call, vp }, { input }): HypercallAnswer => {
    const { answer } = guest;
    if (answer === undefined) {
      ask(guest, { kind: 'hypercall', code, reps: 0, input: input.slice() }, 'again');
      traceHypercall(call, vp, code, HOST, true);
      return { status: STATUS.success, unfinished: true };
    }
    guest.answer = undefined;
    return done(answer.ok ? answer.lo & 0xffff : STATUS.operationDenied);
  },
});

export const HYPERCALL_ROWS: readonly HypercallRow<GuestCaller>[] = [
  ...PARTITION_HYPERCALL_ROWS,
  visibilityRow,
  {
    name: 'HvCallNotifyLongSpinWait',
    code: CALL.notifyLongSpinWait,
    input: 8,
    output: 0,
    serve: () => done(STATUS.success),
  },
  relayed('HvCallPostMessage', CALL.postMessage, inputs.postMessageInput.size, PRIVILEGE_HIGH.postMessages),
  relayed('HvCallSignalEvent', CALL.signalEvent, inputs.signalEventInput.size, PRIVILEGE_HIGH.signalEvents),
];

const HYPERCALLS = hypercallTable(HYPERCALL_ROWS);

/** Contexts as events number them: VMPL 2 and 0, or L2 VM 1 and L1; the host. */
const HOST = -1;
const PARAVISOR = 0;
const guestContext = ({ state }: ParavisorCall): number => (state.config.vendor === 'amd' ? 2 : 1);

/** `undefined`: the host has been asked, and the exit waits. */
export function answerGuest(
  call: ParavisorCall,
  vp: VpState,
  guest: GuestVp,
  exit: GuestExit,
  table: OpcodeTable,
): GuestCompletion | undefined {
  switch (exit.kind) {
    case 'io':
      return has(call, 'dev.legacy') ? answerIo(call, vp, exit) : relay(guest, exit);
    case 'msr':
      return msr(call, vp, guest, exit);
    case 'cpuid':
      if (!has(call, 'cpuid.trusted'))
        return relay(guest, { kind: 'cpuid', leaf: exit.leaf, subleaf: exit.subleaf });
      return hiddenLeaf(exit.leaf) ?? answerCpuid(call, vp, exit);
    case 'cr8':
      return answerCr8(vp, exit);
    case 'hypercall':
      return hypercall(call, vp, guest, exit);
    case 'hlt':
      return answerHlt(call, vp);
    case 'triple-fault':
      return answerTripleFault(call, vp);
    case 'memory':
      return memory(call, vp, guest, exit, table);
    case 'string-io':
      return stringIo(call, vp, guest, exit, table);
    case 'skip':
      return DONE;
    case 'counter':
      return value(0);
    case 'undefined':
      return UD;
    default:
      return assertNever(exit);
  }
}

function assertNever(exit: never): never {
  throw new TypeError(`paravisor cannot answer exit ${JSON.stringify(exit)}`);
}

function has({ state }: ParavisorCall, part: PartName): boolean {
  return hasPart(state.config.parts, part);
}

function relay(guest: GuestVp, request: HostRequest): undefined {
  ask(guest, request, 'guest');
}

/** The host has answered what a guest's exit asked for. `undefined`: the exit has asked for more. */
export function completeFromHost(
  call: ParavisorCall,
  vp: VpState,
  guest: GuestVp,
  exit: GuestExit,
  answer: HostAnswer,
): GuestCompletion | undefined {
  switch (exit.kind) {
    case 'io':
      return exit.write ? DONE : value(answer.ok ? answer.lo : ONES);
    case 'msr':
      if (!answer.ok) return GP;
      return exit.write ? DONE : value(answer.lo, answer.hi);
    case 'cpuid':
      return {
        kind: 'registers',
        eax: answer.lo,
        ebx: answer.hi,
        ecx: answer.ecx ?? 0,
        edx: answer.edx ?? 0,
      };
    case 'memory':
    case 'string-io': {
      const { access } = guest;
      if (access === undefined) throw new Error('an access waits that was never decoded');
      const fetched = guest.fetched ?? (answer.ok ? [answer.lo, answer.hi] : [ONES, ONES]);
      if (exit.kind === 'memory' && access.read && access.write && guest.fetched === undefined) {
        guest.fetched = fetched;
        const [lo, hi] = halves(valueToWrite(access, ...fetched));
        return relay(guest, { kind: 'mmio', gpa: exit.gpa, size: access.size, write: true, lo, hi });
      }
      guest.access = undefined;
      guest.fetched = undefined;
      return finish(call, vp, access, ...fetched);
    }
    default:
      throw new Error(`an exit of kind ${exit.kind} does not wait for the host`);
  }
}

function msr(call: ParavisorCall, vp: VpState, guest: GuestVp, exit: MsrExit): GuestCompletion | undefined {
  const { index, write } = exit;
  if (isApicMsr(index) && !has(call, 'irq.apic')) return hostsApic(call, vp, guest, exit);
  if (isSynthetic(index) && !has(call, 'time.trusted') && isTime(index)) return relay(guest, exit);
  if (isSynthetic(index) || isApicMsr(index)) return answerMsr(call, vp, exit);
  if (write) return writeModelMsr(index) ? DONE : GP;
  const read = readModelMsr(index);
  return read === undefined ? GP : value(read.lo, read.hi);
}

const APIC_BASE = 0x1b;
const X2APIC_ON = 0xfee0_0c00;
const BOOTSTRAP = 1 << 8;
const X2APIC_SVR = 0x80f;
const X2APIC_ICR = 0x830;
const INIT_MODE = 5;
const STARTUP_MODE = 6;

/** A register of a local APIC that the host owns. Starting processors is still the paravisor's. */
function hostsApic(
  call: ParavisorCall,
  vp: VpState,
  guest: GuestVp,
  exit: MsrExit,
): GuestCompletion | undefined {
  const { index, write, lo, hi } = exit;
  const mode = (lo >>> 8) & 7;
  const starts = write && index === X2APIC_ICR && (mode === INIT_MODE || mode === STARTUP_MODE);
  if (starts) return answerMsr(call, vp, exit);
  // The paravisor's own model is how the guest gets what the host sends: an x2APIC as the host's is, and on when that is.
  if (write && index === X2APIC_SVR) {
    apicWriteMsr(call, vp, APIC_BASE, X2APIC_ON | (vp.index === 0 ? BOOTSTRAP : 0), 0);
    apicWriteMsr(call, vp, X2APIC_SVR, lo, hi);
  }
  return relay(guest, exit);
}

function isTime(index: number): boolean {
  return (
    index === MSR.timeRefCount ||
    index === MSR.referenceTsc ||
    (index >= MSR.stimer0Config && index <= MSR.stimer3Count)
  );
}

function hypercall(
  call: ParavisorCall,
  vp: VpState,
  guest: GuestVp,
  exit: HypercallExit,
): GuestCompletion | undefined {
  const before = guest.outbox.length;
  if (guest.change === undefined && guest.answer === undefined) {
    const control = call.view.getRegister(vp.index, exit.long ? REGISTER.rcx : REGISTER.rax);
    traceHypercall(call, vp, readControl(control?.[0] ?? 0, 0).code, PARAVISOR, false);
  }
  const completion = answerHypercall(call, vp, exit, HYPERCALLS, { call, vp, guest });
  if (completion === undefined) return UD;
  return completion.kind === 'again' && guest.outbox.length > before ? undefined : completion;
}

function traceHypercall(call: ParavisorCall, vp: VpState, code: number, to: number, relay: boolean): void {
  if ((call.sink.mask & EVENT_CLASS.hypercall) === 0) return;
  const from = relay ? PARAVISOR : guestContext(call);
  call.sink.emit(EVENT.hypercallRoute, call.now, vp.index, code, from, to, relay ? 1 : 0);
}

/** Pages that are devices, and who owns them. */
function ownsDevice(call: ParavisorCall, vp: VpState, gpa: number): boolean {
  if (isApicPage(vp, gpa)) return has(call, 'irq.apic');
  return gpa >= IOAPIC_PAGE && gpa < IOAPIC_PAGE + 0x1000 && has(call, 'dev.ioapic');
}

function isDevice(vp: VpState, gpa: number): boolean {
  return isApicPage(vp, gpa) || (gpa >= IOAPIC_PAGE && gpa < IOAPIC_PAGE + 0x1000);
}

function memory(
  call: ParavisorCall,
  vp: VpState,
  guest: GuestVp,
  exit: MemoryExit,
  table: OpcodeTable,
): GuestCompletion | undefined {
  const { gpa, shared, write } = exit;
  // A page of the wrong visibility, or one of the paravisor's: what hardware has for a location that cannot be read.
  const { own } = call.state.config;
  if (isGuestRam(call.state, gpa) || (gpa >= own.start && gpa < own.end)) return MACHINE_CHECK;
  const access = decodeAccess(table, call.view, vp.index, write);
  if (access === undefined) return MACHINE_CHECK;
  const owned = !shared && ownsDevice(call, vp, gpa);
  // What is private and nobody's is nothing; what is shared, or a device without its part, is the host's.
  const isHosts = shared || (!owned && isDevice(vp, gpa));
  if (call.sink.mask & EVENT_CLASS.io) {
    const to = isHosts ? HOST : PARAVISOR;
    call.sink.emit(EVENT.mmioRoute, call.now, vp.index, gpa, shared ? 0 : 1, write ? 1 : 0, to);
  }
  if (isHosts) {
    // Of an instruction that reads and writes the device, the reading comes first.
    guest.access = access;
    const [lo, hi] = halves(access.value);
    return relay(guest, { kind: 'mmio', gpa, size: access.size, write: !access.read, lo, hi });
  }
  const [lo, hi] = access.read ? readDevice(call, vp, gpa, access.size, owned) : [0, 0];
  if (access.write && owned) writeDevice(call, vp, gpa, access.size, halves(valueToWrite(access, lo, hi))[0]);
  return finish(call, vp, access, lo, hi);
}

function stringIo(
  call: ParavisorCall,
  vp: VpState,
  guest: GuestVp,
  { port, size, write }: StringIoExit,
  table: OpcodeTable,
): GuestCompletion | undefined {
  const access = decodeAccess(table, call.view, vp.index, write);
  // Another processor has taken the instruction or its operand away meanwhile: it is looked at again.
  if (access === undefined) return { kind: 'again' };
  const io: IoExit = { kind: 'io', port, size, write, value: halves(access.value)[0] };
  if (!has(call, 'dev.legacy')) {
    guest.access = access;
    return relay(guest, io);
  }
  const answer = answerIo(call, vp, io);
  return finish(call, vp, access, answer.kind === 'value' ? answer.lo : 0, 0);
}

function finish(call: ParavisorCall, vp: VpState, access: Access, lo: number, hi: number): GuestCompletion {
  return finishAccess(call.view, vp.index, access, lo, hi) ? EMULATED : MACHINE_CHECK;
}

function readDevice(
  call: ParavisorCall,
  vp: VpState,
  gpa: number,
  size: number,
  owned: boolean,
): readonly [number, number] {
  if (!owned) return [ONES, ONES];
  if (isApicPage(vp, gpa)) return [apicRead(call, vp, gpa % 0x1000, size), 0];
  return boardReadMemory(call, gpa, size);
}

function writeDevice(call: ParavisorCall, vp: VpState, gpa: number, size: number, lo: number): void {
  if (isApicPage(vp, gpa)) apicWrite(call, vp, gpa % 0x1000, size, lo);
  else boardWriteMemory(call, gpa, lo);
}
