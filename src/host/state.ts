/** All that a host remembers: plain data, a part of every snapshot. */

import {
  createPartition,
  type PartitionCall,
  type PartitionState,
  type VpState,
} from '../chipset/partition/state.ts';
import type { Offer } from '../chipset/partition/cpuid.ts';
import type { HostConfig } from './config.ts';
import { hostOffer } from './offer.ts';
import { createSnpHost, type SnpHost } from './snp/state.ts';
import { createTestDevice, type TestDevice } from './test-device.ts';
import { createVmbus, type VmbusState } from './vmbus/server.ts';

export type { VpState } from '../chipset/partition/state.ts';

export interface HostState extends PartitionState {
  readonly config: HostConfig;
  /** Of a partition with SEV-SNP. */
  readonly snp: SnpHost | undefined;
  readonly vmbus: VmbusState;
  readonly testDevice: TestDevice;
  /** Whose turn it is or was, since when, and until when (ns) it may last. */
  readonly turn: { vp: number; active: boolean; since: number; until: number };
}

/** What every step of a host works with: its state, and the world for the duration of one call. */
export interface HostCall extends PartitionCall {
  readonly state: HostState;
}

export function createHostState(config: HostConfig, offer: Offer = hostOffer(config)): HostState {
  return {
    ...createPartition(config, offer),
    config,
    snp:
      config.isolation.kind === 'snp' ? createSnpHost(config.vpCount, config.isolation.aliasBit) : undefined,
    vmbus: createVmbus(),
    testDevice: createTestDevice(),
    // So that VP 0 comes first.
    turn: { vp: config.vpCount - 1, active: false, since: 0, until: 0 },
  };
}

/** Virtual time in ns that the VP has executed, its present turn included. */
export function runtimeOf(state: HostState, vp: VpState, now: number): number {
  const { turn } = state;
  return vp.ranFor + (turn.active && turn.vp === vp.index ? now - turn.since : 0);
}
