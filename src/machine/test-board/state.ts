/** All that the test board remembers: plain data, a part of every snapshot. */
import type { FwCfgState } from '../../chipset/fwcfg.ts';
import type { HpetState } from '../../chipset/hpet.ts';
import type { IoapicState } from '../../chipset/ioapic.ts';
import type { LapicState } from '../../chipset/lapic.ts';
import type { PicState } from '../../chipset/pic.ts';
import type { PitState } from '../../chipset/pit.ts';
import type { PmState } from '../../chipset/pm.ts';
import type { RtcState } from '../../chipset/rtc.ts';
import type { UartState } from '../../chipset/uart.ts';
import type { HostState } from '../../host/host.ts';
import type { HostAction } from '../../seats/actions.ts';
import type { EventSink } from '../../seats/events.ts';
import type { HostView } from '../../seats/host-view.ts';
import type { TestDevice } from './test-device.ts';

export interface TestBoardConfig {
  /** 1 to 64. */
  readonly cpus: number;
  readonly memoryBytes: number;
  /** Decides which CPUID leaves carry the topology, and who may use VMMCALL or VMCALL. */
  readonly vendor: 'amd' | 'intel';
  readonly x2apic: boolean;
  readonly tscDeadline: boolean;
  readonly physicalAddressBits: number;
  /** Seconds since 1970 (UTC) at virtual time 0, for the RTC. */
  readonly startDate: number;
  /** Where a BIOS image writes its progress, beside 0x80; 0x190 is what test386 is assembled with. */
  readonly postPort: number;
  /** The state in which firmware starts a boot loader; without it, the state after RESET. */
  readonly firmware: boolean;
  /** Instructions that a VP may run before another one gets its turn. Short: programs here spin for each other. */
  readonly slice: number;
  /** A Hyper-V host owns the processors, their APICs and the IO-APIC; the board's other devices stay. */
  readonly hyperv: boolean;
}

export const DEFAULT_TEST_BOARD: TestBoardConfig = {
  cpus: 1,
  memoryBytes: 128 * 2 ** 20,
  vendor: 'amd',
  x2apic: true,
  tscDeadline: true,
  physicalAddressBits: 40,
  startDate: 0,
  postPort: 0x190,
  firmware: true,
  slice: 1000,
  hyperv: false,
};

export const MAX_CPUS = 64;

/**
 * - `running`: executes when it is its turn.
 * - `halted`: behind a HLT; an interrupt wakes it, or only an NMI when it halted with interrupts off.
 * - `waiting`: in the wait-for-SIPI state, or asleep with the whole board.
 */
export type Activity = 'running' | 'halted' | 'waiting';

export interface BoardVp {
  readonly index: number;
  readonly apic: LapicState;
  activity: Activity;
  /** RFLAGS.IF when it halted. */
  haltedWithInterrupts: boolean;
  /** NMIs that the processor has not taken: 0 to 2. */
  nmis: number;
}

export interface TestBoard {
  readonly config: TestBoardConfig;
  /** Empty when a host has them. */
  readonly vps: BoardVp[];
  readonly host: HostState | undefined;
  readonly ioapic: IoapicState;
  readonly pic: PicState;
  readonly pit: PitState;
  readonly hpet: HpetState;
  readonly rtc: RtcState;
  readonly pm: PmState;
  readonly com1: UartState;
  readonly fwcfg: FwCfgState;
  readonly device: TestDevice;
  /** Levels of the interrupt lines, one bit each: as they are, and the shares of the test device and the HPET. */
  lines: number;
  testLines: number;
  hpetLines: number;
  rtcHigh: boolean;
  /** Letters of the word that port 0x8900 has seen. */
  shutdownLetters: number;
  /** The last value at the POST port; -1: none. */
  post: number;
  /** Suspended to memory, until an alarm. */
  asleep: boolean;
  /** Whose turn it is or was, and until when (ns) it may last. */
  readonly turn: { vp: number; until: number };
}

export type BoardAction =
  | HostAction
  /** The program asked for this exit status of the whole run. */
  | { readonly kind: 'exit'; readonly status: number };

/** What the board needs of the world during one call. */
export interface BoardWorld {
  readonly view: HostView;
  readonly sink: EventSink;
  /** Virtual time in ns. */
  readonly now: number;
}

/** What the board's devices ask of whoever owns its processors and the IO-APIC. */
export interface Owner {
  /** The output of the 8259As, which goes to LINT0 of every local APIC. */
  intr(call: BoardCall, high: boolean): void;
  /** The line at a pin of the IO-APIC. */
  pin(call: BoardCall, pin: number, asserted: boolean): void;
  /** Suspend to memory. */
  suspend(call: BoardCall): void;
}

/** What every step works with: the state, and the world for the duration of one call. */
export interface BoardCall extends BoardWorld {
  readonly board: TestBoard;
  readonly owner: Owner;
  /** Filled by the step. */
  readonly actions: BoardAction[];
}
