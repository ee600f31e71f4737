/**
 * The virtual processors' surroundings as Hyper-V presents them: interrupt controllers, SynIC, timers, synthetic MSRs, board.
 * They belong to whoever owns the partition's processors: the host, or a paravisor. Plain data, part of every snapshot.
 */

import type { HostAction } from '../../seats/actions.ts';
import type { EventSink } from '../../seats/events.ts';
import type { HostView } from '../../seats/host-view.ts';
import type { IoapicState } from '../ioapic.ts';
import { createPm, type PmState } from '../pm.ts';
import { createReferenceTime, type ReferenceTime } from '../reference-time.ts';
import { createRtc, type RtcState } from '../rtc.ts';
import { createTimers, type TimerState } from '../stimer.ts';
import { createSynic, type Pair, type SynicState } from '../synic.ts';
import { MAX_VPS, type PartitionConfig } from './config.ts';
import type { Offer } from './cpuid.ts';
import { createIoApic, createLocalApic, type LocalApic } from './interrupts.ts';
import type { OverlayPage } from './overlays.ts';
import { createSerial, type SerialState } from './serial.ts';

/**
 * - `running`: executes when it is its turn.
 * - `halted`: behind a HLT; an interrupt wakes it, or only an NMI when it halted with interrupts off.
 * - `idle`: in the guest-idle MSR; an interrupt wakes it, whether or not interrupts are on.
 * - `waiting`: in the wait-for-SIPI state.
 */
export type Activity = 'running' | 'halted' | 'idle' | 'waiting';

export interface VpState {
  readonly index: number;
  activity: Activity;
  /** RFLAGS.IF when it halted. */
  haltedWithInterrupts: boolean;
  /** Virtual time in ns that it has had, its present turn not counted. */
  ranFor: number;
  readonly lapic: LocalApic;
  readonly synic: SynicState;
  readonly timers: TimerState;
  assistPage: Pair;
}

export interface PartitionState {
  readonly config: PartitionConfig;
  readonly offer: Offer;
  readonly time: ReferenceTime;
  readonly vps: VpState[];
  readonly ioapic: IoapicState;
  readonly serial: SerialState;
  readonly rtc: RtcState;
  readonly pm: PmState;
  guestOsId: Pair;
  hypercall: Pair;
  referenceTsc: Pair;
  tscInvariantExposed: boolean;
  /** CRASH_P0..P4. */
  readonly crash: Pair[];
  readonly reenlightenment: { control: Pair; emulation: Pair };
  readonly overlays: Record<number, OverlayPage>;
}

/** What every step works with: the state, and the world for the duration of one call. */
export interface PartitionCall {
  readonly state: PartitionState;
  readonly view: HostView;
  readonly sink: EventSink;
  /** Virtual time in ns. */
  readonly now: number;
  /** Filled by the step. */
  readonly actions: HostAction[];
  /** Takes the interrupts of SynIC sources, where these are not for the local APIC of the same owner. */
  readonly proxy?: (vp: VpState, vector: number) => void;
  /** Virtual time in ns that a VP has executed, for an owner that schedules. */
  readonly runtimeOf?: (vp: VpState) => number;
}

export const ZERO: Pair = { lo: 0, hi: 0 };

export function createPartition(config: PartitionConfig, offer: Offer): PartitionState {
  const { vpCount } = config;
  if (!Number.isInteger(vpCount) || vpCount < 1 || vpCount > MAX_VPS) {
    throw new RangeError(`a partition has 1 to ${MAX_VPS} VPs, not ${vpCount}`);
  }
  return {
    config,
    offer,
    time: createReferenceTime(config),
    vps: Array.from({ length: vpCount }, (_, index) => createVp(config, index)),
    ioapic: createIoApic(),
    serial: createSerial(config),
    rtc: createRtc({ date: config.startDate }),
    pm: createPm(),
    guestOsId: ZERO,
    hypercall: ZERO,
    referenceTsc: ZERO,
    tscInvariantExposed: false,
    crash: Array.from({ length: 5 }, () => ZERO),
    reenlightenment: { control: ZERO, emulation: ZERO },
    overlays: {},
  };
}

function createVp(config: PartitionConfig, index: number): VpState {
  return {
    index,
    activity: index === 0 ? 'running' : 'waiting',
    haltedWithInterrupts: true,
    ranFor: 0,
    lapic: createLocalApic(config, index),
    synic: createSynic(),
    timers: createTimers(),
    assistPage: ZERO,
  };
}

export function partitionVp(state: PartitionState, index: number): VpState {
  const vp = state.vps[index];
  if (vp === undefined) throw new RangeError(`VP ${index} of a partition with ${state.vps.length}`);
  return vp;
}
