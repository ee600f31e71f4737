/** MSRs that the processor keeps for an SNP guest, and those that never leave it (AMD APM vol. 2, 15.34.10, 15.36; appendix A). */
import { SEV_FEATURE, vmsa } from '../../abi/snp/vmsa.ts';
import type { Halves, Vmcb } from '../../seats/snp.ts';

export const SNP_MSR = {
  ghcb: 0xc001_0130,
  status: 0xc001_0131,
  tscFrequency: 0xc001_0134,
  virtualTom: 0xc001_0135,
} as const;
/** SEV_STATUS: SEV and SEV-ES; SEV_FEATURES follow from bit 2 on. */
const SEV_AND_ES = 3;

/** Not intercepted: state that is swapped with the VMSA, and the TSC. */
const NATIVE: readonly number[] = [
  0x10, 0x48, 0x49, 0x174, 0x175, 0x176, 0x1d9, 0x277, 0xda0, 0xc000_0080, 0xc000_0081, 0xc000_0082,
  0xc000_0083, 0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102, 0xc000_0103,
];
const RANGES: readonly (readonly [first: number, offset: number])[] = [
  [0, 0],
  [0xc000_0000, 0x800],
  [0xc001_0000, 0x1000],
];

/** The MSR permission map (15.11): everything is intercepted but NATIVE. */
export function fillMsrMap(memory: Uint8Array, at: number): void {
  memory.fill(0xff, at, at + 0x2000);
  for (const index of NATIVE) {
    const range = RANGES.find(([first]) => index >= first && index < first + 0x2000);
    if (range === undefined) throw new Error(`MSR 0x${index.toString(16)} has no place in the map`);
    const bit = (index - range[0]) * 2;
    const byte = at + range[1] + (bit >>> 3);
    memory[byte] = (memory[byte] as number) & ~(3 << (bit & 7));
  }
}

export type MsrOutcome =
  | { readonly kind: 'value'; readonly lo: number; readonly hi: number }
  | { readonly kind: 'done' }
  | { readonly kind: 'virtual-tom'; readonly lo: number; readonly hi: number }
  | { readonly kind: 'fault' }
  /** Not one of these: intercepted. */
  | { readonly kind: 'none' };

export interface MsrSubject {
  readonly features: number;
  readonly vmcb: Vmcb;
  readonly vmsa: Uint8Array;
  readonly tscMegahertz: number;
}

/** `written`: the value, for WRMSR. */
export function ownMsr(index: number, written: Halves | undefined, subject: MsrSubject): MsrOutcome {
  const { features, vmcb } = subject;
  switch (index >>> 0) {
    case SNP_MSR.ghcb:
      if (written === undefined) return { kind: 'value', ...vmcb.ghcb };
      vmcb.ghcb = { ...written };
      return { kind: 'done' };
    case SNP_MSR.status:
      if (written !== undefined) return { kind: 'fault' };
      return { kind: 'value', lo: ((features << 2) | SEV_AND_ES) >>> 0, hi: features >>> 30 };
    case SNP_MSR.tscFrequency:
      if ((features & SEV_FEATURE.secureTsc) === 0 || written !== undefined) return { kind: 'fault' };
      return { kind: 'value', lo: subject.tscMegahertz, hi: 0 };
    case SNP_MSR.virtualTom: {
      if ((features & SEV_FEATURE.vTom) === 0) return { kind: 'fault' };
      if (written === undefined)
        return {
          kind: 'value',
          lo: vmsa.low(subject.vmsa, 'virtualTom'),
          hi: vmsa.high(subject.vmsa, 'virtualTom'),
        };
      const lo = (written.lo & ~0x1f_ffff) >>> 0;
      const hi = written.hi & 0xf_ffff;
      vmsa.setHalves(subject.vmsa, 'virtualTom', lo, hi);
      return { kind: 'virtual-tom', lo, hi };
    }
    default:
      return { kind: 'none' };
  }
}
