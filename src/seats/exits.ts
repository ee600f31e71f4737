/**
 * Why a vCPU stopped running guest code, and what it is told to do about it. Exits and completions are plain values:
 * they can be stored in a snapshot, compared by a replay and printed by a trace.
 *
 * 64-bit values travel as two unsigned halves, so that no exit allocates a bigint.
 */

export interface CpuidRegisters {
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

/** IN or OUT of one element. A string instruction gives one exit per element. `value` is 0 for reads. */
export interface IoExit {
  readonly kind: 'io';
  readonly port: number;
  readonly size: 1 | 2 | 4;
  readonly write: boolean;
  readonly value: number;
}

/** A memory access to a guest-physical address with nothing behind it. `lo`, `hi` are 0 for reads. */
export interface MmioExit {
  readonly kind: 'mmio';
  readonly gpa: number;
  readonly size: 1 | 2 | 4 | 8;
  readonly write: boolean;
  readonly lo: number;
  readonly hi: number;
}

/** RDMSR or WRMSR of an MSR that the processor does not keep itself. */
export interface MsrExit {
  readonly kind: 'msr';
  readonly index: number;
  readonly write: boolean;
  readonly lo: number;
  readonly hi: number;
}

/** CPUID, with the answer of the bare processor, which whoever handles the exit may change. */
export interface CpuidExit {
  readonly kind: 'cpuid';
  readonly leaf: number;
  readonly subleaf: number;
  readonly native: CpuidRegisters;
}

/** MOV to or from CR8: the task priority of the local APIC. */
export interface Cr8Exit {
  readonly kind: 'cr8';
  readonly write: boolean;
  readonly value: number;
}

/** VMCALL or VMMCALL. Its registers are read through the view, under their names. */
export interface HypercallExit {
  readonly kind: 'hypercall';
  /** 64-bit mode: RCX, RDX, R8 and RAX; otherwise EDX:EAX, EBX:ECX, EDI:ESI and EDX:EAX. */
  readonly long: boolean;
  readonly cpl: number;
}

export interface HltExit {
  readonly kind: 'hlt';
}

export interface TripleFaultExit {
  readonly kind: 'triple-fault';
}

/** The slice that the host asked for is used up. */
export interface BudgetExit {
  readonly kind: 'budget';
}

/** What the host of an ordinary VM handles, and what a paravisor handles for its guest. */
export type OpenExit =
  IoExit | MmioExit | MsrExit | CpuidExit | Cr8Exit | HypercallExit | HltExit | TripleFaultExit | BudgetExit;

/** VMGEXIT: what the guest asks lies behind the GHCB MSR (`Vmcb.ghcb`). */
export interface VmgexitExit {
  readonly kind: 'vmgexit';
}

/** The second stage refused an access. RIP stays on the instruction, which runs again when the host enters again. */
export interface NestedFaultExit {
  readonly kind: 'nested-fault';
  readonly gpa: number;
  /** Of the silicon: SNP, EXITINFO1 of VMEXIT_NPF; TDX, the exit qualification. */
  readonly lo: number;
  readonly hi: number;
}

/** The context could not be entered: VMEXIT_INVALID, VMEXIT_BUSY, a status of TDH.VP.ENTER. */
export interface EntryFailedExit {
  readonly kind: 'entry-failed';
  readonly code: number;
}

/** An exception that a lower context would have had, kept from it (SNP: ReflectVC). Who may see why reads the VMSA. */
export interface ReflectedExit {
  readonly kind: 'reflected';
}

/** TDH.VP.ENTER returned: its output registers in encoding order; RAX has the status and the exit reason. */
export interface TdExit {
  readonly kind: 'td-exit';
  readonly registers: readonly bigint[];
  /** XMM0-15 of TDG.VP.VMCALL, 16 bytes each, where RCX selects any. */
  readonly xmm?: Uint8Array;
}

export type Exit = OpenExit | VmgexitExit | NestedFaultExit | EntryFailedExit | ReflectedExit | TdExit;

/**
 * - `done`: the instruction is complete; go on behind it.
 * - `value`: the same, with what it read. A narrower read takes the low bits. A hypercall's result word.
 * - `registers`: the answer to CPUID.
 * - `fault`: the instruction raises this exception; RIP stays on it.
 * - `again`: RIP stays on the instruction and it runs again (registers may have changed through the view).
 */
export type Completion =
  | { readonly kind: 'done' }
  | { readonly kind: 'value'; readonly lo: number; readonly hi: number }
  | ({ readonly kind: 'registers' } & CpuidRegisters)
  | { readonly kind: 'fault'; readonly vector: number; readonly errorCode?: number }
  | { readonly kind: 'again' }
  /**
   * TDH.VP.ENTER again, with these registers in encoding order: after TDG.VP.VMCALL the guest gets those that it selected. After
   * the exit of an L2 VM `resumeL1` lets L1 have it.
   */
  | {
      readonly kind: 'td-enter';
      readonly registers: readonly bigint[];
      readonly xmm?: Uint8Array;
      readonly resumeL1?: boolean;
    };
