/** What CPUID says about a VP of the test board, beyond what its processor says of itself. */
import { lapicMode } from '../../chipset/lapic.ts';
import type { CpuidRegisters } from '../../seats/exits.ts';
import type { BoardVp, TestBoardConfig } from './state.ts';

const LEAF = { features: 1, topology: 0xb, hypervisorFirst: 0x40000000, hypervisorLast: 0x4fffffff } as const;
/** AMD APM volume 3, appendix E.4.17: extended APIC ID. */
const AMD_TOPOLOGY = 0x8000001e;

const EDX_APIC = 1 << 9;
const ECX_X2APIC = 1 << 21;
const ECX_TSC_DEADLINE = 1 << 24;

const LEVEL = { smt: 1, core: 2 } as const;
const NOTHING: CpuidRegisters = { eax: 0, ebx: 0, ecx: 0, edx: 0 };

export function answerCpuid(
  config: TestBoardConfig,
  vp: BoardVp,
  leaf: number,
  subleaf: number,
  native: CpuidRegisters,
): CpuidRegisters {
  // There is no hypervisor to be found here.
  if (leaf >= LEAF.hypervisorFirst && leaf <= LEAF.hypervisorLast) return NOTHING;
  switch (leaf) {
    case LEAF.features:
      return features(config, vp, native);
    case LEAF.topology:
      return topology(config, vp, subleaf);
    case AMD_TOPOLOGY:
      return config.vendor === 'amd' ? { ...native, eax: vp.index } : native;
    default:
      return native;
  }
}

function features(config: TestBoardConfig, vp: BoardVp, native: CpuidRegisters): CpuidRegisters {
  const hidden = (config.x2apic ? 0 : ECX_X2APIC) | (config.tscDeadline ? 0 : ECX_TSC_DEADLINE);
  // Intel SDM volume 3, 11.4.3: the flag follows the enable bit of IA32_APIC_BASE.
  const apic = lapicMode(vp.apic) === 'disabled' ? 0 : EDX_APIC;
  return {
    eax: native.eax,
    ebx: ((native.ebx & 0xffff) | ((config.cpus & 0xff) << 16) | (vp.index << 24)) >>> 0,
    ecx: (native.ecx & ~hidden) >>> 0,
    edx: ((native.edx & ~EDX_APIC) | apic) >>> 0,
  };
}

/** One thread for each core, one package (Intel SDM volume 2, CPUID leaf 0BH). */
function topology({ cpus }: TestBoardConfig, { index }: BoardVp, subleaf: number): CpuidRegisters {
  switch (subleaf) {
    case 0:
      return { eax: 0, ebx: 1, ecx: LEVEL.smt << 8, edx: index };
    case 1:
      return { eax: 32 - Math.clz32(cpus - 1), ebx: cpus, ecx: 1 | (LEVEL.core << 8), edx: index };
    default:
      return { eax: 0, ebx: 0, ecx: subleaf & 0xff, edx: index };
  }
}
