/** What a host is told when a partition is made. Plain data: part of a snapshot, printed by a report. */

import type { PartitionConfig } from '../chipset/partition/config.ts';

export interface HostConfig extends PartitionConfig {
  /** How the partition is kept from its host. `aliasBit`: where a paravisor's guest has its shared addresses; 0: nowhere. */
  readonly isolation:
    | { readonly kind: 'none' }
    | { readonly kind: 'snp'; readonly aliasBit: number; readonly hostData?: Uint8Array };
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
  isolation: { kind: 'none' },
  testDevice: false,
  slice: 20_000,
};
