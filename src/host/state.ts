/** All that a host remembers: plain data, a part of every snapshot. */

import type { IoapicState } from '../chipset/ioapic.ts';
import { createPm, type PmState } from '../chipset/pm.ts';
import { createReferenceTime, type ReferenceTime } from '../chipset/reference-time.ts';
import { createRtc, type RtcState } from '../chipset/rtc.ts';
import { createTimers, type TimerState } from '../chipset/stimer.ts';
import { createSynic, type Pair, type SynicState } from '../chipset/synic.ts';
import type { HostAction } from '../seats/actions.ts';
import type { EventSink } from '../seats/events.ts';
import type { HostView } from '../seats/host-view.ts';
import { MAX_VPS, type HostConfig } from './config.ts';
import { createIoApic, createLocalApic, type LocalApic } from './interrupts.ts';
import type { OverlayPage } from './overlays.ts';
import { createSerial, type SerialState } from './serial.ts';
import { createTestDevice, type TestDevice } from './test-device.ts';
import { createVmbus, type VmbusState } from './vmbus/server.ts';

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

export interface HostState {
  readonly config: HostConfig;
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
  readonly vmbus: VmbusState;
  readonly testDevice: TestDevice;
  /** Whose turn it is or was, since when, and until when (ns) it may last. */
  readonly turn: { vp: number; active: boolean; since: number; until: number };
}

/** What every step of a host works with: its state, and the world for the duration of one call. */
export interface HostCall {
  readonly state: HostState;
  readonly view: HostView;
  readonly sink: EventSink;
  /** Virtual time in ns. */
  readonly now: number;
  /** Filled by the step. */
  readonly actions: HostAction[];
}

const ZERO: Pair = { lo: 0, hi: 0 };

export function createHostState(config: HostConfig): HostState {
  const { vpCount } = config;
  if (!Number.isInteger(vpCount) || vpCount < 1 || vpCount > MAX_VPS) {
    throw new RangeError(`a partition has 1 to ${MAX_VPS} VPs, not ${vpCount}`);
  }
  return {
    config,
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
    vmbus: createVmbus(),
    testDevice: createTestDevice(),
    // So that VP 0 comes first.
    turn: { vp: vpCount - 1, active: false, since: 0, until: 0 },
  };
}

function createVp(config: HostConfig, index: number): VpState {
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

/** Virtual time in ns that the VP has executed, its present turn included. */
export function runtimeOf(state: HostState, vp: VpState, now: number): number {
  const { turn } = state;
  return vp.ranFor + (turn.active && turn.vp === vp.index ? now - turn.since : 0);
}
