/** Where the tables of an SNP system lie in linear memory, and their entries. */
import { CPU } from '../../x86/layout.ts';
import type { MemoryPlan } from '../../x86/memory-plan.ts';

/**
 * Stage area: these words, then the nested tables (one for addresses as they are, one for those with bit ALIAS_BIT), the
 * RMP, key domains, blocks of mixed domains, and the MSR permission map.
 */
export const SNP_STAGE = {
  nested: 0,
  nestedPages: 4,
  rmp: 8,
  domains: 12,
  mixed: 16,
  /** u32: what an address beyond the nested tables is: NESTED bits. */
  outside: 20,
  framesBase: 24,
  msrMap: 28,
  header: 64,
} as const;

/** Guest-physical bit whose addresses have a nested table of their own: vTOM of a paravisor's guest. */
export const ALIAS_BIT = 46;

/** Nested entry: the host address of a page, and in its low bits: */
export const NESTED = {
  present: 1,
  writable: 2,
  /** A reserved bit is set: #VC instead of an exit. */
  mmio: 4,
  /** Part of a 2 MiB mapping. */
  large: 8,
} as const;

/**
 * RMP entry, 16 bytes for each 4 KiB page (the format is the implementation's: APM vol. 2, 15.36.3): u32 of bits with the
 * ASID above; u8 permissions of VMPL0-3; u64 guest-physical address.
 */
export const RMP = {
  bits: 0,
  permissions: 4,
  gpa: 8,
  size: 16,
  assigned: 1,
  /** 2 MiB: this entry speaks for the 512 of its block. */
  large: 2,
  immutable: 4,
  vmsa: 8,
  validated: 16,
  asidShift: 16,
} as const;

/** Permissions of a VMPL (APM vol. 2, table 15-38). */
export const PERMISSION = {
  read: 1,
  write: 2,
  userExecute: 4,
  supervisorExecute: 8,
  shadowStack: 16,
} as const;
export const ALL_PERMISSIONS = 0xf;

/** The context's own constants, in CPU.platform. */
export const CONTEXT = {
  asid: CPU.platform,
  vmpl: CPU.platform + 4,
  /** Low word of SEV_FEATURES. */
  features: CPU.platform + 8,
  /** u64. */
  virtualTom: CPU.platform + 16,
} as const;

export const C_BIT = 51;

/** What a context leaves generated code with. */
export const SNP_EXIT = {
  /** stage_exit: address, EXITINFO1. */
  nestedFault: 64,
  mmio: 65,
  notValidated: 66,
  /** The page's content is under another key. Address: of the frame in linear memory; information: the domain wanted. */
  keyChange: 67,
  /** ask. */
  vmgexit: 68,
  /** info: physical address with its C-bit; info2: size | action << 8; answer: EAX, CF. */
  pvalidate: 69,
  /** info: the same; info2: size; info3: RDX; answer: EAX. */
  rmpadjust: 70,
  /** info: the same; info2: VMPL; answer: EAX, RDX, RCX. */
  rmpquery: 71,
  /** INVLPGB. info: rAX; info2: ECX; info3: EDX. */
  invlpgb: 72,
} as const;

export interface SnpLayout {
  readonly nested: number;
  readonly nestedPages: number;
  readonly rmp: number;
  readonly domains: number;
  readonly mixed: number;
  readonly msrMap: number;
  readonly end: number;
}

/** `top`: end of guest-physical memory; `frameBytes`: system memory. */
export function snpLayout(stage: number, top: number, frameBytes: number): SnpLayout {
  const nestedPages = Math.ceil(top / (2 << 20)) * 512;
  const frames = frameBytes / 4096;
  const nested = stage + SNP_STAGE.header;
  const rmp = nested + nestedPages * 8;
  const domains = rmp + frames * RMP.size;
  const mixed = domains + frames;
  const msrMap = mixed + frames / 512 + 64;
  const aligned = msrMap - (msrMap % 64);
  return { nested, nestedPages, rmp, domains, mixed, msrMap: aligned, end: aligned + 0x2000 };
}

export function snpStageBytes(top: number, frameBytes: number): number {
  return snpLayout(0, top, frameBytes).end + 4096;
}

/** System-physical address of a host address inside a frame. */
export const spaOf = (plan: MemoryPlan, host: number): number => host - plan.frames;
