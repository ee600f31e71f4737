/** What a paravisor knows of its VM, read from its measured page. Plain data. */

import {
  LOADED_OFFSET,
  MOST_LOADED,
  MOST_RANGES,
  PARAVISOR_FLAG,
  PARAVISOR_MAGIC,
  paravisorPage,
  paravisorRange,
  RANGES_OFFSET,
} from '../abi/paravisor-page.ts';
import { MAX_VPS, type PartitionConfig } from '../chipset/partition/config.ts';

export interface Range {
  readonly gpa: number;
  readonly length: number;
}

export interface ParavisorConfig extends PartitionConfig {
  readonly parts: number;
  readonly hideIsolation: boolean;
  readonly boundaryBits: number;
  readonly ram: readonly Range[];
  /** What the launch has loaded. */
  readonly loaded: readonly Range[];
  /** First page of each kind; VP n has the n-th. */
  readonly pages: {
    readonly communication: number;
    readonly doorbell: number;
    readonly context: number;
    readonly guestCommunication: number;
    readonly guestMessages: number;
    readonly guestEventFlags: number;
    readonly cpuid: number;
  };
  /** What the guest never reaches: [start, end). */
  readonly own: { readonly start: number; readonly end: number };
}

/** `undefined`: this page is not for the program with digest `build`, or makes no sense. */
export function readConfig(page: Uint8Array, build: Uint8Array): ParavisorConfig | undefined {
  if (!paravisorPage.fits(page)) return undefined;
  const p = paravisorPage.read(page);
  if (p.magic !== PARAVISOR_MAGIC || p.build.some((byte, i) => byte !== build[i])) return undefined;
  if (p.loadedCount > MOST_LOADED) return undefined;
  if (p.vpCount < 1 || p.vpCount > MAX_VPS || p.rangeCount > MOST_RANGES || p.uarts > 4) return undefined;
  const flag = (bit: number): boolean => (p.flags & bit) !== 0;
  const ranges = (first: number, count: number): Range[] =>
    Array.from({ length: count }, (_, i) => {
      const range = paravisorRange.read(page, first + paravisorRange.size * i);
      return { gpa: Number(range.gpa), length: Number(range.length) };
    });
  return {
    vpCount: p.vpCount,
    hyperv: true,
    invariantTsc: flag(PARAVISOR_FLAG.invariantTsc),
    x2apic: flag(PARAVISOR_FLAG.x2apic),
    tscDeadline: flag(PARAVISOR_FLAG.tscDeadline),
    vendor: p.vendor === 0 ? 'amd' : 'intel',
    tscHz: Number(p.tscHz),
    apicHz: Number(p.apicHz),
    tscAtZero: 0n,
    startDate: Number(p.startDate),
    uarts: p.uarts,
    physicalAddressBits: p.physicalAddressBits,
    parts: p.parts,
    hideIsolation: flag(PARAVISOR_FLAG.hideIsolation),
    boundaryBits: p.boundaryBits,
    ram: ranges(RANGES_OFFSET, p.rangeCount),
    loaded: ranges(LOADED_OFFSET, p.loadedCount),
    pages: {
      communication: Number(p.communication),
      doorbell: Number(p.doorbell),
      context: Number(p.context),
      guestCommunication: Number(p.guestCommunication),
      guestMessages: Number(p.guestMessages),
      guestEventFlags: Number(p.guestEventFlags),
      cpuid: Number(p.cpuid),
    },
    own: { start: Number(p.ownStart), end: Number(p.ownEnd) },
  };
}
