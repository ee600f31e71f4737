/** The guest-hypervisor communication block (AMD 56421, "SEV-ES Guest-Hypervisor Communication Block", revision 2.03). */
import { record } from '../record.ts';

/** Section 2.6, table 5. What has no row is reserved. */
export const ghcb = record('GHCB', 'AMD 56421 table 5', 0x1000, [
  { name: 'cpl', offset: 0x0cb, width: 1 },
  { name: 'xss', offset: 0x140, width: 8 },
  { name: 'dr7', offset: 0x160, width: 8 },
  { name: 'rip', offset: 0x178, width: 8 },
  { name: 'rsp', offset: 0x1d8, width: 8 },
  { name: 'rax', offset: 0x1f8, width: 8 },
  { name: 'rcx', offset: 0x308, width: 8 },
  { name: 'rdx', offset: 0x310, width: 8 },
  { name: 'rbx', offset: 0x318, width: 8 },
  { name: 'rbp', offset: 0x328, width: 8 },
  { name: 'rsi', offset: 0x330, width: 8 },
  { name: 'rdi', offset: 0x338, width: 8 },
  { name: 'r8', offset: 0x340, width: 8 },
  { name: 'r9', offset: 0x348, width: 8 },
  { name: 'r10', offset: 0x350, width: 8 },
  { name: 'r11', offset: 0x358, width: 8 },
  { name: 'r12', offset: 0x360, width: 8 },
  { name: 'r13', offset: 0x368, width: 8 },
  { name: 'r14', offset: 0x370, width: 8 },
  { name: 'r15', offset: 0x378, width: 8 },
  { name: 'exitCode', offset: 0x390, width: 8 },
  { name: 'exitInfo1', offset: 0x398, width: 8 },
  { name: 'exitInfo2', offset: 0x3a0, width: 8 },
  { name: 'scratch', offset: 0x3a8, width: 8 },
  { name: 'xcr0', offset: 0x3e8, width: 8 },
  { name: 'validBitmap', offset: 0x3f0, width: 16, bytes: true },
  { name: 'x87StateGpa', offset: 0x400, width: 8 },
  { name: 'sharedBuffer', offset: 0x800, width: 2032, bytes: true },
  { name: 'protocolVersion', offset: 0xffa, width: 2 },
  { name: 'usage', offset: 0xffc, width: 4 },
]);
export const SHARED_BUFFER = { offset: 0x800, size: 2032 } as const;

export type GhcbField = (typeof ghcb.fields)[number]['name'];

/** Fields with a bit in the valid bitmap are those below it; its number is the offset in quadwords. */
export function isValid(page: Uint8Array, field: GhcbField): boolean {
  const bit = ghcb.offsetOf(field) >> 3;
  return ((page[0x3f0 + (bit >> 3)] as number) & (1 << (bit & 7))) !== 0;
}
export function setValid(page: Uint8Array, field: GhcbField): void {
  const bit = ghcb.offsetOf(field) >> 3;
  page[0x3f0 + (bit >> 3)] = (page[0x3f0 + (bit >> 3)] as number) | (1 << (bit & 7));
}

export const GHCB_VERSION = { least: 1, most: 2 } as const;

/** `usage`: 0 standard; the others are Hyper-V's. */
export const GHCB_USAGE = { standard: 0, hypercall: 1, vtlReturn: 2 } as const;

/** Requests and responses in the GHCB MSR: bits 11-0 (section 2.3). */
export const GHCB_MSR = {
  page: 0x000,
  sevInfoResponse: 0x001,
  sevInfoRequest: 0x002,
  cpuidRequest: 0x004,
  cpuidResponse: 0x005,
  apResetHoldRequest: 0x006,
  apResetHoldResponse: 0x007,
  preferredGpaRequest: 0x010,
  preferredGpaResponse: 0x011,
  registerGpaRequest: 0x012,
  registerGpaResponse: 0x013,
  pageStateRequest: 0x014,
  pageStateResponse: 0x015,
  runVmplRequest: 0x016,
  runVmplResponse: 0x017,
  featuresRequest: 0x080,
  featuresResponse: 0x081,
  terminate: 0x100,
} as const;

/** Features of a hypervisor, in GHCB_MSR.featuresResponse and exit 0x8000FFFD (section 2.2.5). */
export const HV_FEATURE = {
  snp: 1 << 0,
  apCreation: 1 << 1,
  restrictedInjection: 1 << 2,
  restrictedInjectionTimer: 1 << 3,
  apicIdList: 1 << 4,
  multiVmpl: 1 << 5,
} as const;

/** Page operations of a page state change (section 4.1.6). */
export const PAGE_OPERATION = { private: 1, shared: 2, psmash: 3, unsmash: 4 } as const;
export const MOST_PAGE_STATE_ENTRIES = 253;

/** `exitInfo1` after a request: section 4.1. */
export const GHCB_RESULT = { success: 0, inject: 1, malformed: 2 } as const;
/** `exitInfo2` with `malformed`. */
export const GHCB_ERROR = {
  notRegistered: 1,
  invalidUsage: 2,
  invalidScratch: 3,
  missingInput: 4,
  invalidInput: 5,
  invalidEvent: 6,
} as const;

/** Reasons of terminations: set 0 is the specification's, set 1 Linux's (sev-common.h). */
export function terminationReason(set: number, reason: number): string {
  const sets = [
    [
      'a general termination request',
      'the GHCB protocol range is not supported',
      'SEV-SNP features are not supported',
    ],
    [
      'the GHCB could not be registered',
      'a page state change failed',
      'PVALIDATE failed',
      'it does not run at VMPL0',
      'the CPUID table is not usable',
      'the host gave no CPUID answer',
      'the secrets page is not usable',
      'there is no SVSM',
      'an SVSM is there and the guest runs at VMPL0',
      'the calling area of the SVSM is not usable',
    ],
  ];
  return sets[set]?.[reason] ?? 'of an unknown reason';
}
