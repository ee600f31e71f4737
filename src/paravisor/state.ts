/** All that a paravisor remembers: plain data. */

import {
  createPartition,
  type PartitionCall,
  type PartitionState,
  type VpState,
} from '../chipset/partition/state.ts';
import type { Access } from './emulate.ts';
import type { ParavisorConfig } from './config.ts';
import type { GuestExit } from './exits.ts';
import { paravisorOffer } from './offer.ts';
import type { Processor } from './processor.ts';
import type { HostAnswer, HostRequest, Outgoing, Purpose } from './requests.ts';

/** The paravisor's books on one virtual processor. */
export interface GuestVp {
  readonly index: number;
  /** To be asked of the host, first to last. */
  readonly outbox: Outgoing[];
  /** The first of the outbox is on its way. */
  asked: boolean;
  /** The guest was let run and nothing has come back yet. */
  entered: boolean;
  /** The guest's exit that waits for an answer, and the access that it makes. */
  exit: GuestExit | undefined;
  access: Access | undefined;
  /** What the host's device gave to an access that reads and then writes. */
  fetched: readonly [lo: number, hi: number] | undefined;
  /** A change of visibility under way. */
  change:
    | {
        readonly gpas: readonly number[];
        readonly shared: boolean;
        /** What the host was asked for last. */
        readonly stage: 'split' | 'change';
        readonly answered: boolean;
      }
    | undefined;
  answer: HostAnswer | undefined;
  /** Vector that the processor has been given to deliver; -1: none. */
  offered: number;
  /** Virtual time in ns for which the host's timer is set; Infinity: not set. */
  timer: number;
  /** It has been asked to run and has not run since. */
  woken: boolean;
}

export interface ParavisorState extends PartitionState {
  readonly config: ParavisorConfig;
  readonly guests: GuestVp[];
  /** One bit for each 4 KiB page below the end of RAM: visible to the host. */
  readonly shared: Uint8Array;
  /** One byte for each 2 MiB block: it is one page to the processor. */
  readonly large: Uint8Array;
  /** All memory is accepted and the guest may start. */
  ready: boolean;
}

export interface ParavisorCall extends PartitionCall {
  readonly state: ParavisorState;
  readonly processor: Processor;
}

/** Who calls a hypercall. */
export interface GuestCaller {
  readonly call: ParavisorCall;
  readonly vp: VpState;
  readonly guest: GuestVp;
}

const PAGE = 4096;
export const LARGE_PAGE = 0x20_0000;

export function createParavisorState(config: ParavisorConfig): ParavisorState {
  const top = Math.max(...config.ram.map(({ gpa, length }) => gpa + length));
  return {
    ...createPartition(config, paravisorOffer(config)),
    config,
    guests: Array.from({ length: config.vpCount }, (_, index) => createGuestVp(index)),
    shared: new Uint8Array(Math.ceil(top / PAGE / 8)),
    large: new Uint8Array(Math.ceil(top / LARGE_PAGE)),
    ready: false,
  };
}

function createGuestVp(index: number): GuestVp {
  return {
    index,
    outbox: [],
    asked: false,
    entered: false,
    exit: undefined,
    access: undefined,
    fetched: undefined,
    change: undefined,
    answer: undefined,
    offered: -1,
    timer: Infinity,
    woken: false,
  };
}

export function isShared(state: ParavisorState, gpa: number): boolean {
  const page = Math.floor(gpa / PAGE);
  return (((state.shared[page >>> 3] ?? 0) >>> (page & 7)) & 1) !== 0;
}

export function setShared(state: ParavisorState, gpa: number, shared: boolean): void {
  const page = Math.floor(gpa / PAGE);
  const byte = state.shared[page >>> 3];
  if (byte === undefined) throw new RangeError(`page 0x${gpa.toString(16)} is no RAM`);
  const bit = 1 << (page & 7);
  state.shared[page >>> 3] = shared ? byte | bit : byte & ~bit;
}

/** RAM of the guest: not the paravisor's own pages, and not what the guest shares from the start. */
export function isGuestRam({ config }: ParavisorState, gpa: number): boolean {
  if (gpa >= config.own.start && gpa < config.own.end) return false;
  return config.ram.some((range) => gpa >= range.gpa && gpa < range.gpa + range.length);
}

export function ask(guest: GuestVp, request: HostRequest, purpose: Purpose = 'none'): void {
  guest.outbox.push({ request, purpose });
}
