/** What the host of a TD remembers beside what every host does: plain data. */
import type { MemoryRange } from '../../seats/launch.ts';
import type { TdxHostView } from '../../seats/tdx.ts';
import type { HostConfig } from '../config.ts';
import { createHostState, type HostCall, type HostState } from '../state.ts';
import { tdxOffer } from './offer.ts';

/** What TDH.MNG.INIT is given. */
export interface TdConfig {
  readonly attributes: bigint;
  readonly xfam: bigint;
  readonly numL2Vms: number;
  readonly configFlags: bigint;
  readonly mrConfigId: Uint8Array;
  readonly mrOwner: Uint8Array;
  readonly mrOwnerConfig: Uint8Array;
  /** RCX and R8 of every virtual processor at the reset vector. */
  readonly launchParameter: number;
}

export interface TdxHostConfig extends HostConfig {
  readonly td: TdConfig;
}

/** GetQuote under way. */
export interface PendingQuote {
  readonly due: number;
  readonly gpa: number;
  readonly size: number;
  readonly vp: number;
}

export interface TdBooks {
  tdr: number;
  readonly tdvpr: number[];
  /** L2 VMs of the TD. */
  readonly l2Vms: number;
  /** Memory that the guest was given, and the system memory behind it: whole blocks of 2 MiB in the same order. */
  regions: readonly MemoryRange[];
  readonly backing: Record<number, number>;
  /** System memory that backs nothing: next page that was never used, and pages that came back. */
  nextPage: number;
  readonly freePages: number[];
  readonly quotes: PendingQuote[];
  /** SetupEventNotifyInterrupt: vector by virtual processor; 0: none. */
  readonly notify: number[];
}

export interface TdxHostState extends HostState {
  readonly config: TdxHostConfig;
  readonly td: TdBooks;
}

export interface TdxCall extends HostCall {
  readonly state: TdxHostState;
  readonly view: TdxHostView;
}

export function createTdxHost(config: TdxHostConfig): TdxHostState {
  const state: TdxHostState = {
    ...createHostState(config, tdxOffer(config)),
    config,
    td: {
      tdr: 0,
      tdvpr: [],
      l2Vms: config.td.numL2Vms,
      regions: [],
      backing: {},
      nextPage: 0,
      freePages: [],
      quotes: [],
      notify: Array.from({ length: config.vpCount }, () => 0),
    },
  };
  // There is no wait for SIPI in a TD: every virtual processor runs from its reset vector.
  for (const vp of state.vps) {
    vp.activity = 'running';
    vp.lapic.apic.waitsForStartup = false;
  }
  return state;
}
