/** What a partition is made of, as far as the owner of its virtual processors must know. Plain data: part of a snapshot. */

export interface PartitionConfig {
  readonly vpCount: number;
  /** False: a bare machine, with no hypervisor leaf, no synthetic MSR and no hypercall. */
  readonly hyperv: boolean;
  /** Offers the guest the TSC as invariant (privilege bit 15 and MSR 0x40000118). */
  readonly invariantTsc: boolean;
  /** Offers x2APIC. Without it the guest stays in xAPIC mode and is told to use the APIC MSRs. */
  readonly x2apic: boolean;
  /** x2APIC mode from reset on, which cannot be left. */
  readonly x2apicLocked?: boolean;
  /** The local APIC's timer has TSC-deadline mode. */
  readonly tscDeadline: boolean;
  /** Decides between VMMCALL and VMCALL. */
  readonly vendor: 'amd' | 'intel';
  readonly tscHz: number;
  /** Input clock of the local APIC timers. */
  readonly apicHz: number;
  /** TSC at virtual time 0. */
  readonly tscAtZero: bigint;
  /** Seconds since 1970 (UTC) at virtual time 0, for the RTC. */
  readonly startDate: number;
  /** UARTs from COM1 on, at most 4. */
  readonly uarts: number;
  readonly physicalAddressBits: number;
}

export const MAX_VPS = 255;
