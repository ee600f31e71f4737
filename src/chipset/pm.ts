/**
 * ACPI power management registers (ACPI 6.5, 4.8), at the offsets of a Hyper-V Gen-2 VM: PM1a event and control
 * blocks, PM timer, one GPE block, the reset register. Hardware-reduced ACPI (4.8.3.7) has instead a sleep control
 * and a sleep status register, and no SCI.
 */

import { frequency, ticksAt, timeOfTick } from './frequency.ts';
import type { EndReason } from '../seats/actions.ts';

export interface PmOptions {
  readonly hardwareReduced?: boolean;
  /** SLP_TYP values that the DSDT gives for \_S5 and \_S4. */
  readonly sleepTypes?: { readonly s5: number; readonly s4: number };
}

export interface PmState {
  readonly hardwareReduced: boolean;
  readonly powerOffType: number;
  readonly hibernateType: number;
  status: number;
  enable: number;
  /** Writable bits of PM1a control that are kept; SCI_EN is always set: there is no legacy mode. */
  control: number;
  gpeStatus: number;
  gpeEnable: number;
  sleepStatus: number;
  /** Periods of the timer's top bit that TMR_STS has seen. */
  timerHalves: number;
}

export const PM = {
  status: 0x00,
  enable: 0x02,
  control: 0x04,
  timer: 0x08,
  gpeStatus: 0x0c,
  gpeEnable: 0x0e,
  reset: 0x33,
  /** Hardware-reduced only. */
  sleepControl: 0x34,
  sleepStatus: 0x35,
  /** Ports in the block. */
  length: 0x37,
} as const;

export const PM_STATUS = {
  timer: 1 << 0,
  global: 1 << 5,
  powerButton: 1 << 8,
  rtc: 1 << 10,
  wake: 1 << 15,
} as const;

export const PM_TIMER_HZ = 3_579_545;
export const PM_RESET_VALUE = 1;

const STATUS_BITS =
  PM_STATUS.timer | PM_STATUS.global | PM_STATUS.powerButton | PM_STATUS.rtc | PM_STATUS.wake;
const ENABLE_BITS = STATUS_BITS & ~PM_STATUS.wake;
const GPE_STATUS_BITS = 0x0f01;
const SCI_ENABLE = 1;
/** Bus-master reload, and the sleep type. */
const CONTROL_BITS = 0x1c02;
/** In the upper byte of PM1a control, and in the sleep control register. */
const SLEEP_ENABLE = 1 << 5;
/** WAK_STS of the sleep status register. */
const SLEEP_WAKE = 1 << 7;

const TIMER = frequency(PM_TIMER_HZ);

export function createPm(options: PmOptions = {}): PmState {
  const { hardwareReduced = false, sleepTypes = { s5: 0, s4: 1 } } = options;
  return {
    hardwareReduced,
    powerOffType: sleepTypes.s5,
    hibernateType: sleepTypes.s4,
    status: 0,
    enable: 0,
    control: 0,
    gpeStatus: 0,
    gpeEnable: 0,
    sleepStatus: 0,
    timerHalves: 0,
  };
}

/** Level of the system control interrupt. */
export function pmInterrupt(state: PmState): boolean {
  if (state.hardwareReduced) return false;
  return (state.status & state.enable) !== 0 || (state.gpeStatus & state.gpeEnable) !== 0;
}

/** Reads `size` bytes from `offset` in the block; what is not there reads as ones. */
export function pmRead(state: PmState, now: number, offset: number, size: number): number {
  pmAdvance(state, now);
  let value = 0;
  for (let index = 0; index < size; index++) {
    value += readByte(state, now, offset + index) * 2 ** (8 * index);
  }
  return value;
}

function readByte(state: PmState, now: number, offset: number): number {
  if (offset === PM.reset) return 0;
  if (state.hardwareReduced) {
    if (offset === PM.sleepControl) return (state.control >>> 8) & ~SLEEP_ENABLE;
    return offset === PM.sleepStatus ? state.sleepStatus : 0xff;
  }
  const shift = (offset & 1) * 8;
  switch (offset & ~1) {
    case PM.status:
      return (state.status >>> shift) & 0xff;
    case PM.enable:
      return (state.enable >>> shift) & 0xff;
    case PM.control:
      return ((state.control | SCI_ENABLE) >>> shift) & 0xff;
    case PM.control + 2:
      return 0;
    case PM.timer:
    case PM.timer + 2:
      return (pmTimer(now) >>> ((offset & 3) * 8)) & 0xff;
    case PM.gpeStatus:
      return (state.gpeStatus >>> shift) & 0xff;
    case PM.gpeEnable:
      return (state.gpeEnable >>> shift) & 0xff;
    default:
      return 0xff;
  }
}

/** The 32-bit timer. */
export function pmTimer(now: number): number {
  return ticksAt(TIMER, now) % 2 ** 32;
}

/** Writes `size` bytes at `offset`. The result says whether this ends the machine's run. */
export function pmWrite(
  state: PmState,
  now: number,
  offset: number,
  size: number,
  value: number,
): EndReason | undefined {
  pmAdvance(state, now);
  let end: EndReason | undefined;
  for (let index = 0; index < size; index++) {
    end = writeByte(state, offset + index, (value >>> (8 * index)) & 0xff) ?? end;
  }
  return end;
}

function writeByte(state: PmState, offset: number, value: number): EndReason | undefined {
  if (offset === PM.reset) return value === PM_RESET_VALUE ? 'reset' : undefined;
  if (state.hardwareReduced) {
    if (offset === PM.sleepControl) return sleep(state, value);
    // Write one to clear WAK_STS.
    if (offset === PM.sleepStatus) state.sleepStatus &= ~(value & SLEEP_WAKE);
    return undefined;
  }
  const shift = (offset & 1) * 8;
  const placed = value << shift;
  const kept = 0xff00 >>> shift;
  switch (offset & ~1) {
    case PM.status:
      state.status &= ~placed;
      return undefined;
    case PM.enable:
      state.enable = ((state.enable & kept) | placed) & ENABLE_BITS;
      return undefined;
    case PM.control:
      if (shift !== 0) return sleep(state, value);
      state.control = ((state.control & kept) | placed) & CONTROL_BITS;
      return undefined;
    case PM.gpeStatus:
      state.gpeStatus &= ~placed;
      return undefined;
    case PM.gpeEnable:
      state.gpeEnable = ((state.gpeEnable & kept) | placed) & GPE_STATUS_BITS;
      return undefined;
    default:
      return undefined;
  }
}

/** SLP_TYP and SLP_EN share a byte in both variants. Types that the DSDT does not name do nothing. */
function sleep(state: PmState, value: number): EndReason | undefined {
  state.control = ((state.control & 0xff) | (value << 8)) & CONTROL_BITS;
  if ((value & SLEEP_ENABLE) === 0) return undefined;
  const type = (value >>> 2) & 7;
  if (type === state.powerOffType) return 'power-off';
  return type === state.hibernateType ? 'hibernate' : undefined;
}

/** Raises status bits of the fixed events: power button, RTC... Hardware-reduced ACPI knows WAK_STS only. */
export function pmRaise(state: PmState, bits: number): void {
  if (!state.hardwareReduced) state.status |= bits & STATUS_BITS;
  else if ((bits & PM_STATUS.wake) !== 0) state.sleepStatus |= SLEEP_WAKE;
}

export function pmRaiseGpe(state: PmState, bit: number): void {
  state.gpeStatus |= (1 << bit) & GPE_STATUS_BITS;
}

/** When the timer's top bit changes next and that interrupts; Infinity otherwise. */
export function pmNextEvent(state: PmState): number {
  const enabled = (state.enable & ~state.status & PM_STATUS.timer) !== 0;
  return enabled ? timeOfTick(TIMER, (state.timerHalves + 1) * 2 ** 31) : Infinity;
}

/** TMR_STS follows the timer's top bit, in both directions (ACPI 4.8.3.1.1, TMR_VAL_EXT set). */
export function pmAdvance(state: PmState, now: number): void {
  const halves = Math.floor(ticksAt(TIMER, now) / 2 ** 31);
  if (halves === state.timerHalves) return;
  state.timerHalves = halves;
  state.status |= PM_STATUS.timer;
}
