/** What the module keeps of a TD and of its virtual processors (TDR, TDCS, TDVPS), as plain data. */
import type { Sha384State } from '../sha384.ts';
import { emptyVectorSet, type VectorSet } from '../../chipset/vector-set.ts';

/** TDX Module Base Architecture, "TD life cycle". */
export type LifeCycle = 'none' | 'hkid-assigned' | 'keys-configured' | 'blocked' | 'teardown';
export type OperationState = 'uninitialised' | 'initialised' | 'runnable';

export interface TdState {
  lifeCycle: LifeCycle;
  operation: OperationState;
  /** A machine check has ended it: every further SEAMCALL that runs it fails. */
  fatal: boolean;
  tdr: number;
  hkid: number;
  tdcx: number[];
  /** Pages beside the TDR that belong to it. */
  children: number;
  attributes: bigint;
  xfam: bigint;
  maxVcpus: number;
  numVcpus: number;
  numL2Vms: number;
  configFlags: bigint;
  tdCtls: bigint;
  notifyEnables: bigint;
  eptpControls: bigint;
  /** Position of the shared bit plus one. */
  gpaw: 48 | 52;
  /** In units of 25 MHz. */
  tscFrequency: number;
  mrConfigId: Uint8Array;
  mrOwner: Uint8Array;
  mrOwnerConfig: Uint8Array;
  /** While it is being built. */
  measurement: Sha384State | undefined;
  mrtd: Uint8Array;
  rtmr: Uint8Array[];
  /** TLB tracking: TDH.MEM.TRACK counts it up. */
  epoch: number;
  /** Epoch in which an entry was blocked, by guest-physical address. */
  readonly blockedIn: Record<number, number>;
  /** System pages that serve as tables of the secure EPT, by level and address (`septKey`). */
  readonly septPages: Record<string, number>;
}

export const NO_DEADLINE = 0xffff_ffff_ffff_ffffn;

/** What one L2 VM has on a virtual processor. */
export interface L2State {
  ctls: bigint;
  /** TSC value at which the VM leaves for L1 (VMX-preemption timer); NO_DEADLINE: never. */
  tscDeadline: bigint;
  /** L2 VMCS fields by encoding. */
  readonly vmcs: Record<number, bigint>;
  /** Guest-physical address of L2_ENTER_GUEST_STATE of the entry that runs. */
  stateGpa: number;
  /** Copy of the MSR bitmaps: read low, read high, write low, write high, 1 KiB each. */
  readonly msrBitmaps: Uint8Array;
  /** L1 changed what translations depend on. */
  stale: boolean;
  /** Requested and in-service virtual interrupts (guest interrupt status). */
  rvi: number;
  svi: number;
}

export interface VeInfo {
  valid: boolean;
  reason: number;
  qualification: bigint;
  gla: bigint;
  gpa: bigint;
  length: number;
  information: number;
}

export interface VcpuState {
  readonly index: number;
  state: 'absent' | 'created' | 'ready' | 'disabled';
  tdvpr: number;
  readonly tdcx: number[];
  /** VM that runs: 0 is L1. */
  vm: number;
  ve: VeInfo;
  cpuidSupervisorVe: boolean;
  cpuidUserVe: boolean;
  /** Virtual APIC: task priority, requested and in-service vectors. */
  tpr: number;
  readonly irr: VectorSet;
  readonly isr: VectorSet;
  pendingNmi: boolean;
  /** RCX of the TDG.VP.VMCALL that waits for the host's answer. */
  vmcall: number | undefined;
  /** TD epoch of its last entry. */
  epoch: number;
  /** MSRs that are only kept, by number. */
  readonly msrs: Record<number, bigint>;
  readonly l2: readonly L2State[];
  /** A leaf of the program at L1 waits for the host. */
  l1Waits: boolean;
  /** General registers of L1, where it is a program. */
  readonly l1Gprs: bigint[];
  /** An exit of the L2 that the host was given, for RESUME_L1. */
  l2Exit: L2Exit | undefined;
}

/** What TDG.VP.ENTER returns in registers, beside its status. */
export interface L2Exit {
  readonly reason: number;
  readonly qualification: bigint;
  readonly gla: bigint;
  readonly gpa: bigint;
  readonly interruption: bigint;
  readonly vectoring: bigint;
  readonly instruction: bigint;
  readonly extended: bigint;
  readonly kind: 'async' | 'tdvmcall';
}

export function createTd(): TdState {
  return {
    lifeCycle: 'none',
    operation: 'uninitialised',
    fatal: false,
    tdr: 0,
    hkid: 0,
    tdcx: [],
    children: 0,
    attributes: 0n,
    xfam: 0n,
    maxVcpus: 0,
    numVcpus: 0,
    numL2Vms: 0,
    configFlags: 0n,
    tdCtls: 0n,
    notifyEnables: 0n,
    eptpControls: 0n,
    gpaw: 48,
    tscFrequency: 0,
    mrConfigId: new Uint8Array(48),
    mrOwner: new Uint8Array(48),
    mrOwnerConfig: new Uint8Array(48),
    measurement: undefined,
    mrtd: new Uint8Array(48),
    rtmr: Array.from({ length: 4 }, () => new Uint8Array(48)),
    epoch: 1,
    blockedIn: {},
    septPages: {},
  };
}

export function createVcpu(index: number): VcpuState {
  return {
    index,
    state: 'absent',
    tdvpr: 0,
    tdcx: [],
    vm: 0,
    ve: { valid: false, reason: 0, qualification: 0n, gla: 0n, gpa: 0n, length: 0, information: 0 },
    cpuidSupervisorVe: false,
    cpuidUserVe: false,
    tpr: 0,
    irr: emptyVectorSet(),
    isr: emptyVectorSet(),
    pendingNmi: false,
    vmcall: undefined,
    epoch: 0,
    msrs: {},
    l2: Array.from({ length: 3 }, () => ({
      ctls: 0n,
      tscDeadline: NO_DEADLINE,
      vmcs: {},
      stateGpa: 0,
      msrBitmaps: new Uint8Array(4096).fill(0xff),
      stale: true,
      rvi: 0,
      svi: 0,
    })),
    l1Waits: false,
    l1Gprs: Array.from({ length: 16 }, () => 0n),
    l2Exit: undefined,
  };
}
