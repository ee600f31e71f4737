/** CPUID of an SNP processor: the model's answers and leaf 8000_001Fh (AMD APM vol. 3, appendix E.4.17). */
import { nativeCpuid, type CpuidAnswer, type CpuidState, type CpuModel } from '../../x86/cpuid.ts';
import { C_BIT } from './layout.ts';

export type SnpCpuid = (leaf: number, subleaf: number, state: CpuidState) => CpuidAnswer;

/** SEV, SEV-ES, SEV-SNP, VMPL, RMPQUERY, Secure TSC, coherency across domains, RI, AI, debug swap, vTOM MSR. SME is not offered. */
const FEATURES =
  (1 << 1) |
  (1 << 3) |
  (1 << 4) |
  (1 << 5) |
  (1 << 6) |
  (1 << 8) |
  (1 << 10) |
  (1 << 12) |
  (1 << 13) |
  (1 << 14) |
  (1 << 15) |
  (1 << 18);
const VMPLS = 4;
/** ASIDs of guests with encrypted state. */
const GUESTS = 509;

export function snpCpuid(model: CpuModel): SnpCpuid {
  return (leaf, subleaf, state) =>
    leaf === 0x8000_001f
      ? { eax: FEATURES, ebx: C_BIT | (VMPLS << 12), ecx: GUESTS, edx: 1 }
      : nativeCpuid(model, state, leaf, subleaf);
}
