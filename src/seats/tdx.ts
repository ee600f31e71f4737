/**
 * Intel TDX as its host sees it: SEAMCALLs, the shared EPT, and system memory. System-physical addresses are byte addresses
 * from 0. Intel TDX Module 1.5 ABI (344551).
 */
import type { CpuidRegisters } from './exits.ts';
import type { HostView, ReadOutcome, WriteOutcome } from './host-view.ts';

/** Operands of a SEAMCALL, in the registers that the ABI names; absent ones are 0. */
export interface SeamcallInput {
  readonly rcx?: bigint;
  readonly rdx?: bigint;
  readonly r8?: bigint;
  readonly r9?: bigint;
  readonly r10?: bigint;
  readonly r11?: bigint;
}

/** RAX is the completion status; the others are what the leaf returns, else their input. */
export interface SeamcallOutput {
  readonly rax: bigint;
  readonly rcx: bigint;
  readonly rdx: bigint;
  readonly r8: bigint;
  readonly r9: bigint;
  readonly r10: bigint;
  readonly r11: bigint;
}

/** An entry of the shared EPT. */
export type SharedMapping =
  | { readonly kind: 'page'; readonly spa: number; readonly writable: boolean }
  /** An access is #VE in the guest, or with `suppressVe` an EPT violation that the host handles. */
  | { readonly kind: 'absent'; readonly suppressVe: boolean };

/**
 * What the host of a TD may do. `read` and `write` of HostView go through the shared EPT: a page that the guest keeps
 * private is not in the host's map. Registers of a TD are not shown.
 */
export interface TdxHostView extends HostView {
  /** Bytes of system memory. */
  readonly systemBytes: number;
  /** Guest-physical addresses below this can be mapped. */
  readonly gpaEnd: number;
  /** CPUID of the processor that the host runs on. */
  cpuid(leaf: number, subleaf: number, xcr0: number, xss: number): CpuidRegisters;
  seamcall(leaf: number, input: SeamcallInput): SeamcallOutput;
  /** The shared EPT is the host's own table: it writes it as it likes. Addresses without the shared bit. */
  mapShared(gpa: number, mapping: SharedMapping): void;
  shared(gpa: number): SharedMapping;
  /** System memory as the host's own accesses see it: zeros where a TD owns the page. A write there poisons the page. */
  readSystem(spa: number, length: number): ReadOutcome;
  writeSystem(spa: number, bytes: Uint8Array): WriteOutcome;
  /** The platform's quoting enclave: a quote for a TDREPORT that this platform made, or none. */
  quote(report: Uint8Array): Uint8Array | undefined;
}
