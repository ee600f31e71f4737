/**
 * Synthetic MSRs: one table of what the owner of a partition's processors serves. What is not in it, what the partition lacks the privilege for,
 * and what a row refuses, faults.
 */

import { FEATURE, PRIVILEGE } from '../../abi/hyperv/cpuid.ts';
import {
  CRASH_MESSAGE_HIGH,
  CRASH_NOTIFY_HIGH,
  HYPERCALL_LOCKED,
  MSR,
  PAGE_ENABLE,
  SYNTHETIC_FIRST,
  SYNTHETIC_LAST,
} from '../../abi/hyperv/msr.ts';
import { PAGE_SIZE } from '../../abi/hyperv/pages.ts';
import { EVENT, EVENT_CLASS, PAGE_USE } from '../../abi/events.ts';
import { exact, highHalf, join, lowHalf } from '../../abi/record.ts';
import { nextReferenceTscPage, referenceCount } from '../reference-time.ts';
import { enabledPage, synicCancelTimer, synicReadMsr, synicWriteMsr, type Pair } from '../synic.ts';
import { timerOfMsr, timerReadMsr, timerWriteMsr } from '../stimer.ts';
import { endRun } from './board.ts';
import { apicReadIcr, apicReadTpr, apicWriteEoi, apicWriteIcr, apicWriteTpr } from './interrupts.ts';
import { deliverMessages, runTimers } from './messages.ts';
import {
  assistSlot,
  flagsSlot,
  HYPERCALL_SLOT,
  messageSlot,
  REFERENCE_TSC_SLOT,
  showOverlay,
} from './overlays.ts';
import { ZERO, type PartitionCall, type VpState } from './state.ts';

export interface MsrRow {
  readonly name: string;
  readonly first: number;
  readonly last?: number;
  /** Bit of leaf 3 EAX. */
  readonly privilege?: number;
  /** Bit of leaf 3 EDX. */
  readonly feature?: number;
  /** `undefined`: the access faults. */
  readonly read?: (call: PartitionCall, vp: VpState, index: number) => Pair | undefined;
  /** False: the access faults. */
  readonly write?: (call: PartitionCall, vp: VpState, lo: number, hi: number, index: number) => boolean;
}

const pair = (value: bigint): Pair => ({ lo: lowHalf(value), hi: highHalf(value) });

export const MSR_ROWS: readonly MsrRow[] = [
  {
    name: 'GUEST_OS_ID',
    first: MSR.guestOsId,
    privilege: PRIVILEGE.hypercallMsrs,
    read: ({ state }) => state.guestOsId,
    write: writeGuestOsId,
  },
  {
    name: 'HYPERCALL',
    first: MSR.hypercall,
    privilege: PRIVILEGE.hypercallMsrs,
    read: ({ state }) => state.hypercall,
    write: writeHypercall,
  },
  {
    name: 'VP_INDEX',
    first: MSR.vpIndex,
    privilege: PRIVILEGE.vpIndex,
    read: (_call, vp) => ({ lo: vp.index, hi: 0 }),
  },
  {
    name: 'RESET',
    first: MSR.reset,
    privilege: PRIVILEGE.reset,
    read: () => ZERO,
    write: (call, _vp, lo) => {
      if (lo & 1) endRun(call, 'reset');
      return true;
    },
  },
  {
    name: 'VP_RUNTIME',
    first: MSR.vpRuntime,
    privilege: PRIVILEGE.vpRuntime,
    read: ({ runtimeOf }, vp) =>
      runtimeOf === undefined ? undefined : pair(BigInt(Math.floor(runtimeOf(vp) / 100))),
  },
  {
    name: 'TIME_REF_COUNT',
    first: MSR.timeRefCount,
    privilege: PRIVILEGE.timeRefCount,
    read: ({ state, now }) => pair(referenceCount(state.time, now)),
  },
  {
    name: 'REFERENCE_TSC',
    first: MSR.referenceTsc,
    privilege: PRIVILEGE.referenceTsc,
    read: ({ state }) => state.referenceTsc,
    write: writeReferenceTsc,
  },
  {
    name: 'TSC_FREQUENCY',
    first: MSR.tscFrequency,
    privilege: PRIVILEGE.frequencyMsrs,
    feature: FEATURE.frequencyMsrs,
    read: ({ state }) => pair(BigInt(state.config.tscHz)),
  },
  {
    name: 'APIC_FREQUENCY',
    first: MSR.apicFrequency,
    privilege: PRIVILEGE.frequencyMsrs,
    feature: FEATURE.frequencyMsrs,
    read: ({ state }) => pair(BigInt(state.config.apicHz)),
  },
  {
    name: 'EOI',
    first: MSR.eoi,
    privilege: PRIVILEGE.apicMsrs,
    write: (call, vp) => {
      apicWriteEoi(call, vp);
      return true;
    },
  },
  {
    name: 'ICR',
    first: MSR.icr,
    privilege: PRIVILEGE.apicMsrs,
    read: apicReadIcr,
    write: (call, vp, lo, hi) => {
      apicWriteIcr(call, vp, lo, hi);
      return true;
    },
  },
  {
    name: 'TPR',
    first: MSR.tpr,
    privilege: PRIVILEGE.apicMsrs,
    read: (call, vp) => ({ lo: apicReadTpr(call, vp), hi: 0 }),
    write: (_call, vp, lo, hi) => {
      if (hi !== 0 || lo > 0xff) return false;
      apicWriteTpr(vp, lo);
      return true;
    },
  },
  {
    name: 'VP_ASSIST_PAGE',
    first: MSR.vpAssistPage,
    privilege: PRIVILEGE.apicMsrs,
    read: (_call, vp) => vp.assistPage,
    // The host never sets "no EOI required", so the page has no further meaning here.
    write: (call, vp, lo, hi) => {
      if (!movePage(call, assistSlot(vp.index), lo, hi)) return false;
      vp.assistPage = { lo, hi };
      pageUse(call, vp, PAGE_USE.vpAssist, lo, hi);
      return true;
    },
  },
  {
    name: 'SCONTROL..EOM',
    first: MSR.scontrol,
    last: MSR.eom,
    privilege: PRIVILEGE.synic,
    read: (_call, vp, index) => synicReadMsr(vp.synic, index),
    write: writeSynic,
  },
  {
    name: 'SINT0..15',
    first: MSR.sint0,
    last: MSR.sint15,
    privilege: PRIVILEGE.synic,
    read: (_call, vp, index) => synicReadMsr(vp.synic, index),
    write: writeSynic,
  },
  {
    name: 'STIMER0..3',
    first: MSR.stimer0Config,
    last: MSR.stimer3Count,
    privilege: PRIVILEGE.syntheticTimers,
    read: (_call, vp, index) => timerReadMsr(vp.timers, index),
    write: writeTimer,
  },
  {
    name: 'GUEST_IDLE',
    first: MSR.guestIdle,
    privilege: PRIVILEGE.guestIdle,
    feature: FEATURE.guestIdle,
    // An interrupt that is pending already ends the wait before it begins: see `isRunnable`.
    read: (_call, vp) => {
      vp.activity = 'idle';
      return ZERO;
    },
  },
  {
    name: 'CRASH_P0..P4',
    first: MSR.crashP0,
    last: MSR.crashP4,
    feature: FEATURE.guestCrashMsrs,
    read: ({ state }, _vp, index) => state.crash[index - MSR.crashP0],
    write: ({ state }, _vp, lo, hi, index) => {
      state.crash[index - MSR.crashP0] = { lo, hi };
      return true;
    },
  },
  {
    name: 'CRASH_CTL',
    first: MSR.crashCtl,
    feature: FEATURE.guestCrashMsrs,
    // Reads say what is supported, not what was written.
    read: () => ({ lo: 0, hi: (CRASH_NOTIFY_HIGH | CRASH_MESSAGE_HIGH) >>> 0 }),
    write: writeCrashControl,
  },
  {
    name: 'REENLIGHTENMENT_CONTROL',
    first: MSR.reenlightenmentControl,
    privilege: PRIVILEGE.reenlightenment,
    read: ({ state }) => state.reenlightenment.control,
    write: ({ state }, _vp, lo, hi) => {
      // The TSC never changes its frequency here, so nobody is ever notified.
      state.reenlightenment.control = { lo, hi };
      return true;
    },
  },
  {
    name: 'TSC_EMULATION_CONTROL',
    first: MSR.tscEmulationControl,
    privilege: PRIVILEGE.reenlightenment,
    read: ({ state }) => state.reenlightenment.emulation,
    write: ({ state }, _vp, lo, hi) => {
      state.reenlightenment.emulation = { lo, hi };
      return true;
    },
  },
  {
    name: 'TSC_EMULATION_STATUS',
    first: MSR.tscEmulationStatus,
    privilege: PRIVILEGE.reenlightenment,
    read: () => ZERO,
    // "In progress" can only be cleared, and it is never set.
    write: (_call, _vp, lo, hi) => lo === 0 && hi === 0,
  },
  {
    name: 'TSC_INVARIANT_CONTROL',
    first: MSR.tscInvariantControl,
    privilege: PRIVILEGE.tscInvariant,
    read: ({ state }) => ({ lo: state.tscInvariantExposed ? 1 : 0, hi: 0 }),
    // TLFS: once set it stays set, and all other bits are reserved.
    write: ({ state }, _vp, lo, hi) => {
      if (hi !== 0 || lo > 1 || (state.tscInvariantExposed && lo === 0)) return false;
      state.tscInvariantExposed = lo === 1;
      return true;
    },
  },
];

const rowOfIndex = new Map<number, MsrRow>();
for (const row of MSR_ROWS) {
  for (let index = row.first; index <= (row.last ?? row.first); index++) rowOfIndex.set(index, row);
}

export function isSynthetic(index: number): boolean {
  return index >= SYNTHETIC_FIRST && index <= SYNTHETIC_LAST;
}

function offeredRow(call: PartitionCall, index: number): MsrRow | undefined {
  const { config, offer } = call.state;
  const row = rowOfIndex.get(index);
  if (row === undefined || !config.hyperv) return undefined;
  if (row.privilege !== undefined && (offer.privileges & row.privilege) === 0) return undefined;
  if (row.feature !== undefined && (offer.features & row.feature) === 0) return undefined;
  return row;
}

/** RDMSR; `undefined`: #GP. */
export function readSynthetic(call: PartitionCall, vp: VpState, index: number): Pair | undefined {
  return offeredRow(call, index)?.read?.(call, vp, index);
}

/** WRMSR; false: #GP. */
export function writeSynthetic(
  call: PartitionCall,
  vp: VpState,
  index: number,
  lo: number,
  hi: number,
): boolean {
  return offeredRow(call, index)?.write?.(call, vp, lo, hi, index) ?? false;
}

/** Follows a page register: enable bit and page number. False: there is no memory at that address. */
function movePage(
  call: PartitionCall,
  slot: number,
  lo: number,
  hi: number,
  contents?: () => Uint8Array,
): boolean {
  const gpa = enabledPage({ lo, hi });
  if (gpa === undefined) return (lo & PAGE_ENABLE) === 0 && showOverlay(call, slot, undefined);
  return showOverlay(call, slot, gpa, contents?.());
}

function writeGuestOsId(call: PartitionCall, _vp: VpState, lo: number, hi: number): boolean {
  const { state } = call;
  state.guestOsId = { lo, hi };
  // TLFS 3.13: a guest without an identity has no hypercall page.
  if (lo === 0 && hi === 0 && (state.hypercall.lo & PAGE_ENABLE) !== 0) {
    showOverlay(call, HYPERCALL_SLOT, undefined);
    state.hypercall = { lo: (state.hypercall.lo & ~PAGE_ENABLE) >>> 0, hi: state.hypercall.hi };
  }
  return true;
}

function writeHypercall(call: PartitionCall, _vp: VpState, lo: number, hi: number): boolean {
  const { state } = call;
  if ((state.hypercall.lo & HYPERCALL_LOCKED) !== 0) return false;
  const identified = state.guestOsId.lo !== 0 || state.guestOsId.hi !== 0;
  const value = identified ? lo : (lo & ~PAGE_ENABLE) >>> 0;
  // An isolated guest names a page that it keeps to itself and never calls: the register holds what it wrote, the page is
  // left alone (Linux 6.12 hyperv_init).
  const gpa = enabledPage({ lo: value, hi });
  const isKept = gpa !== undefined && isPrivatePage(call, gpa);
  if (!isKept && !movePage(call, HYPERCALL_SLOT, value, hi, () => hypercallPage(state.config.vendor)))
    return false;
  state.hypercall = { lo: value, hi };
  return true;
}

/** Whether the view refuses writes there because the page is the guest's own. */
function isPrivatePage({ view }: PartitionCall, gpa: number): boolean {
  const probe = view.write(gpa, new Uint8Array(0));
  return !probe.ok && probe.reason === 'private';
}

const INT3 = 0xcc;

/** ENDBR64; VMMCALL or VMCALL; RET. The rest traps. */
export function hypercallPage(vendor: 'amd' | 'intel'): Uint8Array {
  const page = new Uint8Array(PAGE_SIZE).fill(INT3);
  page.set([0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x01, vendor === 'amd' ? 0xd9 : 0xc1, 0xc3]);
  return page;
}

function writeReferenceTsc(call: PartitionCall, _vp: VpState, lo: number, hi: number): boolean {
  if (!movePage(call, REFERENCE_TSC_SLOT, lo, hi, () => nextReferenceTscPage(call.state.time))) return false;
  call.state.referenceTsc = { lo, hi };
  return true;
}

function writeSynic(call: PartitionCall, vp: VpState, lo: number, hi: number, index: number): boolean {
  if (index === MSR.simp || index === MSR.siefp) {
    const slot = index === MSR.simp ? messageSlot(vp.index) : flagsSlot(vp.index);
    if (!movePage(call, slot, lo, hi)) return false;
  }
  if (!synicWriteMsr(vp.synic, index, lo, hi)) return false;
  if (index === MSR.simp) pageUse(call, vp, PAGE_USE.synicMessages, lo, hi);
  if (index === MSR.siefp) pageUse(call, vp, PAGE_USE.synicEventFlags, lo, hi);
  deliverMessages(call, vp);
  return true;
}

/** An MSR that names a page gives it to the host. */
function pageUse({ sink, now }: PartitionCall, vp: VpState, use: number, lo: number, hi: number): void {
  if ((lo & 1) === 0 || (sink.mask & EVENT_CLASS.page) === 0) return;
  sink.emit(EVENT.pageUse, now, vp.index, hi * 0x1_0000_0000 + ((lo & ~0xfff) >>> 0), use, 0, 0);
}

function writeTimer(call: PartitionCall, vp: VpState, lo: number, hi: number, index: number): boolean {
  const timer = timerOfMsr(index);
  if (timer === undefined) return false;
  synicCancelTimer(vp.synic, timer);
  timerWriteMsr(vp.timers, call.state.time, call.now, index, lo, hi);
  if (call.sink.mask & EVENT_CLASS.timer) {
    call.sink.emit(EVENT.timerArmed, call.now, vp.index, timer, vp.timers[timer]?.due ?? Infinity, 0, 0);
  }
  runTimers(call, vp);
  return true;
}

function writeCrashControl(call: PartitionCall, _vp: VpState, _lo: number, hi: number): boolean {
  if ((hi & CRASH_NOTIFY_HIGH) === 0) return true;
  const parameters = call.state.crash.map(({ lo, hi: high }) => join(lo, high));
  const message = (hi & CRASH_MESSAGE_HIGH) !== 0 ? crashMessage(call) : undefined;
  if (call.sink.mask & EVENT_CLASS.lifecycle) {
    call.sink.emit(EVENT.crash, call.now, 0, Number(parameters[0] ?? 0n), message?.length ?? 0, 0, 0);
  }
  call.actions.push({ kind: 'crash', parameters, message });
  return true;
}

/** P3 is the address of a text, P4 its length, at most a page. */
function crashMessage({ state, view }: PartitionCall): Uint8Array | undefined {
  const [, , , address = ZERO, length = ZERO] = state.crash;
  const gpa = exact(address.lo, address.hi);
  if (gpa === undefined || length.hi !== 0 || length.lo > PAGE_SIZE) return undefined;
  const bytes = view.read(gpa, length.lo);
  return bytes.ok ? bytes.bytes : undefined;
}
