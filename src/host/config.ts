/** What a host is told when a partition is made. Plain data: part of a snapshot, printed by a report. */

export interface HostConfig {
  readonly vpCount: number;
  /** False: a bare machine, with no hypervisor leaf, no synthetic MSR and no hypercall. */
  readonly hyperv: boolean;
  /** Offers the guest the TSC as invariant (privilege bit 15 and MSR 0x40000118). */
  readonly invariantTsc: boolean;
  /** Offers x2APIC. Without it the guest stays in xAPIC mode and is told to use the APIC MSRs. */
  readonly x2apic: boolean;
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
  /** The Hyper-V test device at port 0x3000 that kvm-unit-tests uses. */
  readonly testDevice: boolean;
  /** Instructions that a VP may run before another one gets its turn. */
  readonly slice: number;
}

export const DEFAULT_CONFIG: HostConfig = {
  vpCount: 1,
  hyperv: true,
  invariantTsc: true,
  x2apic: true,
  tscDeadline: true,
  vendor: 'amd',
  tscHz: 2_000_000_000,
  apicHz: 200_000_000,
  tscAtZero: 0n,
  startDate: 0,
  uarts: 2,
  physicalAddressBits: 40,
  testDevice: false,
  slice: 20_000,
};

export const MAX_VPS = 255;
