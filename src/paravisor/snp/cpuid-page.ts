/**
 * CPUID from the page that the AMD-SP has checked at launch (SEV-SNP Firmware ABI 56860, 8.14.2.6 and table 14-17): the host cannot
 * claim features that the processor does not have.
 */

import { u32 } from '../../abi/record.ts';
import type { CpuidRegisters } from '../../seats/exits.ts';

export const CPUID_PAGE = { count: 0, entries: 16, entrySize: 48, most: 64 } as const;
const ENTRY = { eaxIn: 0, ecxIn: 4, xcr0: 8, xss: 16, eax: 24, ebx: 28, ecx: 32, edx: 36 } as const;

/** Leaves whose answer depends on ECX (AMD APM vol. 3, E.3-E.4; Intel SDM vol. 2, CPUID). */
const INDEXED: readonly number[] = [
  0x4, 0x7, 0xb, 0xd, 0xf, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1d, 0x1e, 0x1f, 0x24, 0x8000_001d, 0x8000_0020,
  0x8000_0026,
];

const NOTHING: CpuidRegisters = { eax: 0, ebx: 0, ecx: 0, edx: 0 };

/** Bits of the answer that follow the guest's own registers. */
export interface CpuidState {
  readonly xcr0: number;
  readonly xss: number;
  readonly cr4: number;
}

const OSXSAVE_IN = 1 << 18;
const OSXSAVE_OUT = 1 << 27;
const PKE_IN = 1 << 22;
const OSPKE_OUT = 1 << 4;
/** Legacy area and header of an XSAVE area. */
const XSAVE_BASE = 0x240;

export function cpuidFromPage(
  page: Uint8Array,
  leaf: number,
  subleaf: number,
  state: CpuidState,
): CpuidRegisters {
  const count = Math.min(u32(page, CPUID_PAGE.count), CPUID_PAGE.most);
  const find = (index: number): CpuidRegisters | undefined => {
    for (let i = 0; i < count; i++) {
      const at = CPUID_PAGE.entries + CPUID_PAGE.entrySize * i;
      if (u32(page, at + ENTRY.eaxIn) !== leaf) continue;
      if (INDEXED.includes(leaf) && u32(page, at + ENTRY.ecxIn) !== index) continue;
      return {
        eax: u32(page, at + ENTRY.eax),
        ebx: u32(page, at + ENTRY.ebx),
        ecx: u32(page, at + ENTRY.ecx),
        edx: u32(page, at + ENTRY.edx),
      };
    }
    return undefined;
  };
  const found = find(subleaf);
  if (found === undefined) return NOTHING;
  switch (leaf) {
    case 1: {
      const ecx = found.ecx & ~OSXSAVE_OUT;
      return { ...found, ecx: ((state.cr4 & OSXSAVE_IN) !== 0 ? ecx | OSXSAVE_OUT : ecx) >>> 0 };
    }
    case 7: {
      if (subleaf !== 0) return found;
      const ecx = found.ecx & ~OSPKE_OUT;
      return { ...found, ecx: ((state.cr4 & PKE_IN) !== 0 ? ecx | OSPKE_OUT : ecx) >>> 0 };
    }
    case 0xd:
      return subleaf > 1 ? found : { ...found, ebx: areaSize(find, state, subleaf === 1) };
    default:
      return found;
  }
}

/** Bytes of the XSAVE area for the features that are on (Intel SDM vol. 1, 13.2). */
function areaSize(
  find: (index: number) => CpuidRegisters | undefined,
  { xcr0, xss }: CpuidState,
  compacted: boolean,
): number {
  let size = XSAVE_BASE;
  for (let feature = 2; feature < 32; feature++) {
    const on = ((compacted ? xcr0 | xss : xcr0) >>> feature) & 1;
    const entry = on === 0 ? undefined : find(feature);
    if (entry === undefined) continue;
    if (compacted) size = ((entry.ecx & 2) !== 0 ? (size + 63) & ~63 : size) + entry.eax;
    else size = Math.max(size, entry.ebx + entry.eax);
  }
  return size;
}
