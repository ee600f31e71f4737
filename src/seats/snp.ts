/**
 * SEV-SNP as its host sees it: VMCBs, nested tables, the RMP instructions and the AMD-SP. System-physical addresses
 * are byte addresses from 0. AMD APM vol. 2, 15.34-15.36; SEV-SNP Firmware ABI (56860).
 */
import type { CpuidRegisters } from './exits.ts';
import type { HostView, ReadOutcome, WriteOutcome } from './host-view.ts';

export interface Halves {
  lo: number;
  hi: number;
}

/** The control area of a VMCB as far as a guest with encrypted state uses it (APM vol. 2, table B-1). Plain data. */
export interface Vmcb {
  /** System-physical address of the VMSA page. */
  vmsa: number;
  asid: number;
  /** SVM_INTERCEPT bits that this host sets. CPUID and port I/O are intercepted in an SNP guest whatever they say. */
  intercepts: number;
  /** MSRs that are not intercepted are those of the silicon; the host adds others to its reach. */
  ghcb: Halves;
  /** EVENTINJ: vector, type, error code; cleared when it was delivered. */
  eventInj: Halves;
  /** AllowedSevFeatures (mask); `undefined`: not checked. */
  allowedFeatures: Halves | undefined;
  exitCode: number;
  exitInfo1: Halves;
  exitInfo2: Halves;
  exitIntInfo: Halves;
  /** V_TPR: the guest's task priority, CR8. */
  virtualTpr: number;
}

/** Intercepts that a host may choose (bits of `Vmcb.intercepts`). */
export const SVM_INTERCEPT = {
  rdtsc: 1 << 0,
  rdtscp: 1 << 1,
  rdpmc: 1 << 2,
  cache: 1 << 3,
  monitor: 1 << 4,
  dr7: 1 << 5,
  vmmcall: 1 << 6,
  hlt: 1 << 7,
  pause: 1 << 8,
} as const;

/** An RMP entry as RMPUPDATE takes it (APM vol. 3, RMPUPDATE). */
export interface RmpUpdate {
  readonly assigned: boolean;
  readonly large: boolean;
  readonly immutable: boolean;
  readonly gpa: number;
  readonly asid: number;
}

/** Result codes of the RMP instructions (APM vol. 3). */
export const RMP_STATUS = {
  success: 0,
  failInput: 1,
  failPermission: 2,
  failInUse: 3,
  failOverlap: 4,
  failSizeMismatch: 6,
} as const;

export interface LaunchFinish {
  readonly id?: { readonly block: Uint8Array; readonly auth: Uint8Array; readonly authorKey: boolean };
  readonly hostData?: Uint8Array;
}

/** What a nested entry maps. */
export type NestedMapping =
  | { readonly kind: 'page'; readonly spa: number; readonly large: boolean; readonly writable: boolean }
  /** A reserved bit is set: the guest gets #VC, not the host an exit. */
  | { readonly kind: 'mmio' }
  | { readonly kind: 'absent' };

/** What the host of an SNP guest may do. `read` and `write` of HostView go through the nested table. */
export interface SnpHostView extends HostView {
  /** Bytes of system memory. */
  readonly systemBytes: number;
  /** CPUID of the processor that the host runs on, for XCR0 and XSS as given. */
  cpuid(leaf: number, subleaf: number, xcr0: number, xss: number): CpuidRegisters;
  map(gpa: number, mapping: NestedMapping): void;
  mapping(gpa: number): NestedMapping;
  rmpupdate(spa: number, entry: RmpUpdate): number;
  psmash(spa: number): number;
  /** System memory as the host's own accesses see it: ciphertext where a guest owns the page. */
  /** SNP_LAUNCH_START. `policy` as in the firmware ABI; status codes of the firmware. */
  launchStart(policy: Halves): number;
  /**
   * SNP_LAUNCH_UPDATE of one 4 KiB page, which the host has filled and made a pre-guest page: assigned, immutable, with
   * its address and ASID. It becomes the guest's, validated. `contents`: what a refused CPUID page should have been.
   */
  launchUpdate(
    spa: number,
    type: number,
    permissions?: readonly [number, number, number],
  ): { readonly status: number; readonly contents?: Uint8Array };
  launchFinish(finish: LaunchFinish): number;
  /** SNP_PAGE_UNSMASH: 512 validated pages in a row become one of 2 MiB. */
  unsmash(spa: number): number;
  /** SNP_GUEST_REQUEST: messages in two shared pages. */
  guestRequest(requestSpa: number, responseSpa: number): number;
  /** The certificate table that an extended guest request gives. */
  certificates(): Uint8Array;
  readSystem(spa: number, length: number): ReadOutcome;
  writeSystem(spa: number, bytes: Uint8Array): WriteOutcome;
}
