/** L2 VMCS fields and MSR bitmaps of VM 1, as L1 names them (TDX Module 1.5 TD Partitioning, "L2 VMCS"). */

import { FIELD_CLASS, fieldId } from '../../abi/tdx/metadata.ts';

/** Encodings of Intel SDM vol. 3, appendix B. */
export const FIELD = {
  procControls: 0x4002,
  entryControls: 0x4012,
  entryInterruption: 0x4016,
  entryErrorCode: 0x4018,
  entryLength: 0x401a,
  virtualApic: 0x2012,
  cr0Mask: 0x6000,
  cr4Mask: 0x6002,
  cr0Shadow: 0x6004,
  cr4Shadow: 0x6006,
  cr0: 0x6800,
  cr3: 0x6802,
  cr4: 0x6804,
  efer: 0x2806,
  pat: 0x2804,
  dr7: 0x681a,
  interruptibility: 0x4824,
  gdtrLimit: 0x4810,
  idtrLimit: 0x4812,
  gdtrBase: 0x6816,
  idtrBase: 0x6818,
} as const;

/** ES CS SS DS FS GS LDTR TR. */
export const SEGMENTS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'] as const;
export const segmentFields = (
  index: number,
): Readonly<Record<'selector' | 'limit' | 'rights' | 'base', number>> => ({
  selector: 0x800 + 2 * index,
  limit: 0x4800 + 2 * index,
  rights: 0x4814 + 2 * index,
  base: 0x6806 + 2 * index,
});

/** Width in bits 14:13 of an encoding: 16, 64, 32, natural; as log2 of bytes. */
const SIZES = [1, 3, 2, 3] as const;
const VCPU_CONTEXT = 2;

export function vmcsId(encoding: number): bigint {
  return fieldId(FIELD_CLASS.l2Vmcs[0], encoding, SIZES[(encoding >> 13) & 3] ?? 3, VCPU_CONTEXT);
}

/** 64 bits of the bitmaps: reads low and high, writes low and high, 128 each. */
export const bitmapId = (word: number): bigint => fieldId(FIELD_CLASS.l2MsrBitmap[0], word, 3, VCPU_CONTEXT);

/** L2_CTLS of VM 1. */
export const CONTROLS_ID = fieldId(FIELD_CLASS.vcpuManagement, 0x51, 3, VCPU_CONTEXT, true);

export const INTERRUPT_WINDOW = 1 << 2;
export const NMI_WINDOW = 1 << 22;
export const IA32E_GUEST = 1 << 9;

/** MSRs that stay inside the processor: they hold the guest's own state and nobody else's. */
export const NATIVE_MSRS: readonly { readonly index: number; readonly write: boolean }[] = [
  ...[
    0x48, 0x174, 0x175, 0x176, 0x277, 0xda0, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0100,
    0xc000_0101, 0xc000_0102, 0xc000_0103,
  ].map((index) => ({ index, write: true })),
  { index: 0x10, write: false },
  { index: 0xc000_0080, write: false },
];
