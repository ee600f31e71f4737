/**
 * CPUID inside a TD, for module version 1.5 (TDX Module 1.5 ABI, "CPUID Virtualization"). Leaves of the table are answered by
 * the module; all others are #VE. A basic leaf beyond the last one has the last one's values, as on every Intel processor.
 *
 * Deviations from a Sapphire Rapids part, because the processor behind this module lacks them: AVX and AVX-512, AMX, CET,
 * PT, LBR, UINTR, MONITOR/MWAIT, VMX and performance monitoring. The bits that promise them are clear.
 */
import type { CpuidRegisters } from '../../seats/exits.ts';
import { nativeCpuid, type CpuidState, type CpuModel } from '../../x86/cpuid.ts';
import { TSC_UNIT_HZ } from '../../abi/tdx/td-params.ts';

export const MAX_BASIC = 0x23;
export const MAX_EXTENDED = 0x8000_0008;

/** Leaves that the module answers, beside the ranges below. */
const NATIVE: ReadonlySet<number> = new Set([
  0x0, 0x1, 0x3, 0x4, 0x5, 0x7, 0x8, 0xa, 0xd, 0xe, 0x11, 0x12, 0x13, 0x14, 0x15, 0x19, 0x1c, 0x1d, 0x1e,
  0x20, 0x21, 0x22, 0x23, 0x8000_0000, 0x8000_0001, 0x8000_0007, 0x8000_0008,
]);

/** Whether the module answers a leaf itself; otherwise it is #VE. */
export function isNativeLeaf(leaf: number): boolean {
  if (NATIVE.has(leaf)) return true;
  // Past the last basic leaf the last one answers; the hypervisor's range and extended leaves past the last are the host's.
  return leaf > MAX_BASIC && leaf < 0x4000_0000;
}

/** What the answers depend on beside leaf and processor. */
export interface CpuidSubject {
  readonly model: CpuModel;
  readonly state: CpuidState;
  readonly vcpu: number;
  readonly vcpus: number;
  readonly xfam: bigint;
  /** In units of 25 MHz. */
  readonly tscFrequency: number;
}

const ECX1 = { monitor: 1 << 3, vmx: 1 << 5, smx: 1 << 6, x2apic: 1 << 21, hypervisor: 1 << 31 } as const;
const EDX1 = { apic: 1 << 9, mtrr: 1 << 12, htt: 1 << 28, ss: 1 << 27 } as const;
const EBX7 = { tscAdjust: 1 << 1, sgx: 1 << 2, mpx: 1 << 14 } as const;
/** MD_CLEAR, SPEC_CTRL, STIBP, L1D_FLUSH, ARCH_CAPABILITIES, CORE_CAPABILITIES, SSBD: fixed to 1. */
const EDX7_FIXED = (1 << 10) | (0x3f << 26);
/** PSFD, IPRED_CTRL, RRSBA_CTRL, BHI_CTRL of leaf 7.2: bits of IA32_SPEC_CTRL that may be set. */
const EDX7_2 = 0b1_0111;

/** "IntelTDX    " in EBX, EDX, ECX. */
const SIGNATURE = { ebx: 0x65746e49, edx: 0x5844546c, ecx: 0x20202020 } as const;

const NOTHING: CpuidRegisters = { eax: 0, ebx: 0, ecx: 0, edx: 0 };

export function tdCpuid(subject: CpuidSubject, leaf: number, subleaf: number): CpuidRegisters {
  const { eax, ebx, ecx, edx } = answer(
    subject,
    leaf > MAX_BASIC && leaf < 0x4000_0000 ? MAX_BASIC : leaf,
    subleaf,
  );
  return { eax: eax >>> 0, ebx: ebx >>> 0, ecx: ecx >>> 0, edx: edx >>> 0 };
}

function answer(subject: CpuidSubject, leaf: number, subleaf: number): CpuidRegisters {
  const { model, state, vcpu, vcpus } = subject;
  const native = nativeCpuid(model, state, leaf, subleaf);
  const idBits = 32 - Math.clz32(vcpus - 1);
  switch (leaf) {
    case 0:
      return { ...native, eax: MAX_BASIC };
    case 1:
      return {
        ...native,
        ebx: (native.ebx & 0xffff) | (Math.min(vcpus, 255) << 16) | ((vcpu & 0xff) << 24),
        ecx: (native.ecx & ~(ECX1.monitor | ECX1.vmx | ECX1.smx)) | ECX1.x2apic | ECX1.hypervisor,
        edx: (native.edx & ~EDX1.htt) | EDX1.apic | EDX1.mtrr | (vcpus > 1 ? EDX1.htt : 0) | EDX1.ss,
      };
    case 4:
      // Cores of the package in EAX 31:26, minus one.
      if ((native.eax & 0x1f) === 0) return native;
      return { ...native, eax: (native.eax & 0x03ff_ffff) | (Math.min((1 << idBits) - 1, 63) << 26) };
    case 7:
      if (subleaf === 0)
        return {
          eax: 2,
          ebx: native.ebx & ~(EBX7.tscAdjust | EBX7.sgx | EBX7.mpx),
          ecx: native.ecx,
          edx: native.edx | EDX7_FIXED,
        };
      return subleaf === 2 ? { ...NOTHING, edx: EDX7_2 } : NOTHING;
    case 0xd: {
      const allowed = Number(subject.xfam & 0xffff_ffffn);
      if (subleaf === 0) return { ...native, eax: native.eax & allowed, edx: 0 };
      return subleaf < 2 || ((allowed >>> subleaf) & 1) !== 0 ? native : NOTHING;
    }
    case 0x15:
      return { eax: 1, ebx: subject.tscFrequency, ecx: TSC_UNIT_HZ, edx: 0 };
    case 0x21:
      return subleaf === 0 ? { eax: 0, ...SIGNATURE } : NOTHING;
    case 0x8000_0000:
      return { ...native, eax: MAX_EXTENDED };
    case 0x8000_0001:
    case 0x8000_0007:
      return native;
    case 0x8000_0008:
      // 52 physical bits whatever the GPAW; 48 linear ones (LA57 is not offered).
      return { eax: 52 | (48 << 8), ebx: native.ebx, ecx: 0, edx: 0 };
    default:
      // 3, 5, 8, 0xa (no PERFMON), 0xe, 0x11-0x14, 0x19, 0x1c-0x1e, 0x20, 0x22, 0x23.
      return NOTHING;
  }
}
