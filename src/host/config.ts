/** What a host is told when a partition is made. Plain data: part of a snapshot, printed by a report. */

import type { PartitionConfig } from '../chipset/partition/config.ts';

export interface HostConfig extends PartitionConfig {
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
