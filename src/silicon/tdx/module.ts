/**
 * The TDX module's working set: the TD and its virtual processors, the tables, and how a leaf reaches guest memory. Leaves are
 * functions over it (tdcall*.ts for the guest, seamcall*.ts for the host).
 */
import { EVENT, EVENT_CLASS, PAGE_STATE } from '../../abi/events.ts';
import { EPT_QUALIFICATION, EXIT_REASON, EXTENDED_EPT } from '../../abi/tdx/exit-reasons.ts';
import type { EventSink } from '../../seats/events.ts';
import type { CpuModel } from '../../x86/cpuid.ts';
import type { Engine } from '../../x86/engine.ts';
import { status, STATUS } from '../../abi/tdx/status.ts';
import type { Attestation } from './platform-attestation.ts';
import { createTd, createVcpu, type TdState, type VcpuState } from './state.ts';
import { PAGE, PAMT, SEPT, SHARED, type Tables } from './tables.ts';

/** Outputs of TDH.VP.ENTER, by register number. */
export type TdExitRegisters = readonly bigint[];

/** How a leaf of TDCALL ended. */
export type LeafOutcome =
  /** RAX and outputs are set: go on behind the instruction. */
  | { readonly kind: 'done' }
  /** The instruction faults; no leaf ran. */
  | { readonly kind: 'fault'; readonly vector: number; readonly errorCode?: number }
  /** TD exit; when the host comes back the instruction runs again. */
  | { readonly kind: 'exit'; readonly exit: TdExitRegisters }
  /** TDG.VP.VMCALL: behind the instruction, then to the host. */
  | { readonly kind: 'vmcall' }
  /** TDG.VP.ENTER: behind the instruction, then the L2 VM runs. */
  | { readonly kind: 'enter-l2'; readonly vm: number };

export type Reached =
  { readonly ok: true; readonly host: number } | { readonly ok: false; readonly exit: TdExitRegisters };

export interface ModuleParts {
  readonly engine: Engine;
  readonly tables: Tables;
  readonly model: CpuModel;
  readonly vcpus: number;
  readonly seed: bigint;
  /** Linear-memory address of the MSR permission map of a context. */
  msrMapOf(vcpu: number, vm: number): number;
  readonly sink: EventSink;
  readonly attestation: Attestation;
  now(): number;
}

export class TdxModule {
  readonly engine: Engine;
  readonly tables: Tables;
  readonly model: CpuModel;
  readonly sink: EventSink;
  readonly seed: bigint;
  readonly attestation: Attestation;
  readonly now: () => number;
  readonly msrMapOf: (vcpu: number, vm: number) => number;
  /** L1 is a program instead of machine code. */
  l1IsProgram = false;
  td: TdState;
  vcpus: VcpuState[];

  constructor(parts: ModuleParts) {
    this.engine = parts.engine;
    this.tables = parts.tables;
    this.model = parts.model;
    this.sink = parts.sink;
    this.seed = parts.seed;
    this.attestation = parts.attestation;
    this.now = () => parts.now();
    this.msrMapOf = (vcpu, vm) => parts.msrMapOf(vcpu, vm);
    this.td = createTd();
    this.vcpus = Array.from({ length: parts.vcpus }, (_, index) => createVcpu(index));
  }

  get sharedBit(): bigint {
    return 1n << BigInt(this.td.gpaw - 1);
  }
  /** Guest-physical address without the shared bit, as a number. */
  plainGpa(gpa: bigint): number {
    return Number(gpa & (this.sharedBit - 1n));
  }
  isShared(gpa: bigint): boolean {
    return (gpa & this.sharedBit) !== 0n;
  }
  /** Bits above the shared bit are clear. */
  isGpa(gpa: bigint): boolean {
    return gpa >> BigInt(this.td.gpaw) === 0n;
  }
  isPrivateGpa(gpa: bigint, alignment: number): boolean {
    return this.isGpa(gpa) && !this.isShared(gpa) && gpa % BigInt(alignment) === 0n;
  }

  /**
   * Guest memory as L1 reaches it at `gpa` (private or shared by its shared bit); inside one page. What is not mapped is a TD
   * exit to the host, as for the guest's own access.
   */
  reach(gpa: bigint, write: boolean): Reached {
    const at = this.plainGpa(gpa);
    if (this.isShared(gpa)) {
      const { flags, spa } = this.tables.covers(at) ? this.tables.sharedEntry(at) : { flags: 0, spa: 0 };
      const allowed = (flags & SHARED.present) !== 0 && (!write || (flags & SHARED.writable) !== 0);
      if (!allowed || this.tables.pageType(spa) !== PAMT.none)
        return { ok: false, exit: this.eptViolation(gpa, write) };
      return { ok: true, host: this.tables.hostOf(spa) + (at % PAGE) };
    }
    const { level, state, spa } = this.tables.entry(at);
    if (state !== SEPT.mapped) return { ok: false, exit: this.eptViolation(gpa, write) };
    const page = level === 1 ? spa + (at % (2 << 20)) : spa + (at % PAGE);
    return { ok: true, host: this.tables.hostOf(page) };
  }

  /** A write of the module's to guest memory at a host address. */
  writeHost(host: number, bytes: Uint8Array): void {
    this.engine.blocks.codeChanged(host, bytes.length);
    this.engine.u8.set(bytes, host);
    this.tables.markUsed(this.tables.spaOf(host - (host % PAGE)));
  }
  readHost(host: number, length: number): Uint8Array {
    return this.engine.u8.slice(host, host + length);
  }

  /** Exit on an EPT violation of an L1 access or of a leaf. Address bits 11:0 are not told (ABI, TDH.VP.ENTER). */
  eptViolation(gpa: bigint, write: boolean, qualification?: number, extended: bigint = 0n): TdExitRegisters {
    const access = write ? EPT_QUALIFICATION.write : EPT_QUALIFICATION.read;
    return exitRegisters(EXIT_REASON.eptViolation, {
      qualification: BigInt(qualification ?? access),
      extended,
      gpa: gpa & ~0xfffn,
    });
  }

  flushTlb(vcpu: number): void {
    for (let context = 0; context < this.engine.plan.contexts; context++)
      this.engine.tlbFlush(this.engine.cpu(vcpu, context));
  }
  flushAllTlbs(): void {
    for (const { index } of this.vcpus) this.flushTlb(index);
  }

  tellPages(gpa: number, pages: number, state: keyof typeof PAGE_STATE, context: number, vp = 0): void {
    if (this.sink.mask & EVENT_CLASS.page)
      this.sink.emit(EVENT.pageState, this.now(), vp, gpa, pages, PAGE_STATE[state], context);
  }
}

/** Outputs of TDH.VP.ENTER for an exit that is no TDG.VP.VMCALL. */
export function exitRegisters(
  reason: number,
  values: {
    readonly code?: number;
    readonly qualification?: bigint;
    readonly extended?: bigint;
    readonly gpa?: bigint;
    readonly interruption?: bigint;
    readonly vm?: number;
  } = {},
): TdExitRegisters {
  const registers = Array.from({ length: 16 }, () => 0n);
  registers[0] = status(values.code ?? STATUS.success, reason);
  registers[1] = values.qualification ?? 0n;
  registers[2] = values.extended ?? EXTENDED_NONE;
  registers[8] = values.gpa ?? 0n;
  registers[9] = values.interruption ?? 0n;
  registers[10] = BigInt(values.vm ?? 0) << 32n;
  return registers;
}
const EXTENDED_NONE = BigInt(EXTENDED_EPT.none);
