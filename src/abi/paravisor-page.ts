/**
 * The measured page from which a paravisor learns what it is and what it is to do. It is part of the launch digest, so the
 * host cannot change it unnoticed. A format of this project.
 */

import { record } from './record.ts';

/** "VITRPV" and a version. */
export const PARAVISOR_MAGIC = 0x0001_5650_5254_4956n;

export const PARAVISOR_PAGE_SIZE = 4096;
export const MOST_RANGES = 16;
export const RANGES_OFFSET = 256;
/** Runs of pages that the launch has loaded, which are accepted therefore. Ascending, none touches another. */
export const MOST_LOADED = 64;
export const LOADED_OFFSET = 512;

export const paravisorPage = record('ParavisorPage', 'this project', PARAVISOR_PAGE_SIZE, [
  { name: 'magic', offset: 0, width: 8 },
  /** SHA-384 of the program's own code. */
  { name: 'build', offset: 8, width: 48, bytes: true },
  /** Bits of PARTS. */
  { name: 'parts', offset: 56, width: 4 },
  { name: 'flags', offset: 60, width: 4 },
  { name: 'vpCount', offset: 64, width: 4 },
  /** Shared addresses begin at 2 to this power. */
  { name: 'boundaryBits', offset: 68, width: 4 },
  { name: 'uarts', offset: 72, width: 4 },
  { name: 'physicalAddressBits', offset: 76, width: 4 },
  { name: 'tscHz', offset: 80, width: 8 },
  { name: 'apicHz', offset: 88, width: 8 },
  { name: 'startDate', offset: 96, width: 8 },
  /** Pages of the paravisor, one for each VP, ascending: its own communication page and doorbell, the guest's context. */
  { name: 'communication', offset: 104, width: 8 },
  { name: 'doorbell', offset: 112, width: 8 },
  { name: 'context', offset: 120, width: 8 },
  /** Pages that the guest shares with the host but does not allocate: GHCB, message page and event-flags page of each VP. */
  { name: 'guestCommunication', offset: 128, width: 8 },
  { name: 'guestMessages', offset: 136, width: 8 },
  { name: 'guestEventFlags', offset: 144, width: 8 },
  /** CPUID page (SNP). */
  { name: 'cpuid', offset: 152, width: 8 },
  /** All that no guest access reaches: [start, end). */
  { name: 'ownStart', offset: 160, width: 8 },
  { name: 'ownEnd', offset: 168, width: 8 },
  { name: 'rangeCount', offset: 176, width: 4 },
  { name: 'vendor', offset: 180, width: 4 },
  { name: 'loadedCount', offset: 184, width: 4 },
]);

export const PARAVISOR_FLAG = { hideIsolation: 1, invariantTsc: 2, x2apic: 4, tscDeadline: 8 } as const;

/** A range of guest-physical addresses. */
export const paravisorRange = record('ParavisorRange', 'this project', 16, [
  { name: 'gpa', offset: 0, width: 8 },
  { name: 'length', offset: 8, width: 8 },
]);
