/**
 * CPUID as the partition sees it: the processor's own leaves with the partition's topology, and the hypervisor's
 * leaves. The rows below are the profile of docs and tests; a bit stands there only when what it names is served.
 */

import {
  HARDWARE,
  INTERFACE_SIGNATURE,
  LEAF,
  PRIVILEGE_HIGH,
  VENDOR_EBX,
  VENDOR_ECX,
  VENDOR_EDX,
} from '../../abi/hyperv/cpuid.ts';
import type { CpuidRegisters } from '../../seats/exits.ts';
import type { PartitionConfig } from './config.ts';

/** What a partition's owner offers in the hypervisor's leaves: its capabilities as the guest is told of them. */
export interface Offer {
  /** Leaf 3: EAX, EBX and EDX. */
  readonly privileges: number;
  readonly privilegesHigh: number;
  readonly features: number;
  /** Leaf 4 EAX. */
  readonly hints: number;
  /** Last leaf of the block. */
  readonly maxLeaf: number;
  /** Leaf 0x4000000C: configuration A and B, in a partition that has the privilege. */
  readonly isolation: { readonly a: number; readonly b: number };
}

const NEVER_NOTIFY = 0xffff_ffff;
/** As a Server 2022 host reports itself. */
const BUILD = 20348;
const VERSION_10_0 = 10 << 16;
const MAX_VPS_OF_ANY_PARTITION = 2048;

const NOTHING: CpuidRegisters = { eax: 0, ebx: 0, ecx: 0, edx: 0 };

function hypervisorLeaf({ config, offer }: CpuidSubject, leaf: number): CpuidRegisters {
  if (leaf > offer.maxLeaf) return NOTHING;
  switch (leaf) {
    case LEAF.vendor:
      return { eax: offer.maxLeaf, ebx: VENDOR_EBX, ecx: VENDOR_ECX, edx: VENDOR_EDX };
    case LEAF.interface:
      return { ...NOTHING, eax: INTERFACE_SIGNATURE };
    case LEAF.version:
      return { ...NOTHING, eax: BUILD, ebx: VERSION_10_0 };
    case LEAF.features:
      return { eax: offer.privileges, ebx: offer.privilegesHigh, ecx: 0, edx: offer.features };
    case LEAF.recommendations:
      return { eax: offer.hints, ebx: NEVER_NOTIFY, ecx: config.physicalAddressBits, edx: 0 };
    case LEAF.limits:
      return { ...NOTHING, eax: MAX_VPS_OF_ANY_PARTITION };
    case LEAF.hardwareFeatures:
      return {
        ...NOTHING,
        eax: HARDWARE.apicOverlayAssist | HARDWARE.msrBitmaps | HARDWARE.secondLevelTranslation,
      };
    case LEAF.isolation:
      return (offer.privilegesHigh & PRIVILEGE_HIGH.isolation) === 0
        ? NOTHING
        : { ...NOTHING, eax: offer.isolation.a, ebx: offer.isolation.b };
    // Nested features and the rest: none.
    default:
      return NOTHING;
  }
}

const HYPERVISOR_PRESENT = 0x8000_0000;
const X2APIC = 1 << 21;
const TSC_DEADLINE = 1 << 24;
const APIC = 1 << 9;
const HYPER_THREADING = 1 << 28;
const INVARIANT_TSC = 1 << 8;
const LEVEL_SMT = 1 << 8;
const LEVEL_CORE = 2 << 8;

/** What the answer depends on beside the leaf. */
export interface CpuidSubject {
  readonly config: PartitionConfig;
  readonly offer: Offer;
  readonly apicId: number;
  /** IA32_APIC_BASE has the local APIC enabled. */
  readonly apicEnabled: boolean;
  /** The guest has set MSR 0x40000118. */
  readonly tscInvariantExposed: boolean;
}

/** The answer to CPUID, from the bare processor's answer `native`. */
export function cpuidOf(
  subject: CpuidSubject,
  leaf: number,
  subleaf: number,
  native: CpuidRegisters,
): CpuidRegisters {
  if (leaf >= LEAF.vendor && leaf <= LEAF.vendor + 0xff) {
    return subject.config.hyperv ? unsigned(hypervisorLeaf(subject, leaf)) : native;
  }
  return unsigned(edit(subject, leaf, subleaf, native));
}

function edit(subject: CpuidSubject, leaf: number, subleaf: number, native: CpuidRegisters): CpuidRegisters {
  const { config, apicId } = subject;
  const { vpCount } = config;
  const idBits = 32 - Math.clz32(vpCount - 1);
  switch (leaf) {
    case 1:
      return {
        ...native,
        ebx: (native.ebx & 0xffff) | (vpCount << 16) | (apicId << 24),
        ecx: choose(
          native.ecx,
          [HYPERVISOR_PRESENT, config.hyperv],
          [X2APIC, config.x2apic],
          [TSC_DEADLINE, config.tscDeadline],
        ),
        edx: choose(native.edx, [APIC, subject.apicEnabled], [HYPER_THREADING, vpCount > 1]),
      };
    // Deterministic cache parameters: cores of the package in EAX 31:26, minus one.
    case 4:
      if ((native.eax & 0x1f) === 0) return native;
      return { ...native, eax: (native.eax & 0x03ff_ffff) | (Math.min((1 << idBits) - 1, 63) << 26) };
    // Extended topology: one thread per core, all cores in one package.
    case 0xb:
    case 0x1f:
      if (subleaf === 0) return { eax: 0, ebx: 1, ecx: LEVEL_SMT, edx: apicId };
      if (subleaf === 1) return { eax: idBits, ebx: vpCount, ecx: LEVEL_CORE | 1, edx: apicId };
      return { eax: 0, ebx: 0, ecx: subleaf & 0xff, edx: apicId };
    case 0x8000_0007: {
      // With the privilege offered the bit appears once the guest has asked for it (MSR 0x40000118), else never.
      const visible = !config.hyperv || (config.invariantTsc && subject.tscInvariantExposed);
      return visible ? native : { ...native, edx: native.edx & ~INVARIANT_TSC };
    }
    // Size of the APIC id and number of threads, AMD's way of saying the topology.
    case 0x8000_0008:
      return config.vendor === 'amd' ? { ...native, ecx: (idBits << 12) | (vpCount - 1) } : native;
    case 0x8000_001e:
      return config.vendor === 'amd' ? { eax: apicId, ebx: apicId, ecx: 0, edx: 0 } : native;
    default:
      return native;
  }
}

/** `word` with each of these bits set or cleared. */
function choose(word: number, ...bits: readonly (readonly [bit: number, on: boolean])[]): number {
  return bits.reduce((result, [bit, on]) => (on ? result | bit : result & ~bit), word);
}

function unsigned({ eax, ebx, ecx, edx }: CpuidRegisters): CpuidRegisters {
  return { eax: eax >>> 0, ebx: ebx >>> 0, ecx: ecx >>> 0, edx: edx >>> 0 };
}
