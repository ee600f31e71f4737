/**
 * What the host offers a TD without a paravisor. The guest's TSC needs no help, its TLBs are not the host's business, and no
 * page of the hypervisor can show in private memory.
 */
import { FEATURE, HINT, LEAF, PRIVILEGE, PRIVILEGE_HIGH } from '../../abi/hyperv/cpuid.ts';
import type { Offer } from '../../chipset/partition/cpuid.ts';
import type { HostConfig } from '../config.ts';

/** Leaf 0x4000000C, EBX: TDX. */
const ISOLATION_TDX = 3;

export function tdxOffer(config: HostConfig): Offer {
  return {
    privileges:
      PRIVILEGE.vpRuntime |
      PRIVILEGE.timeRefCount |
      PRIVILEGE.synic |
      PRIVILEGE.syntheticTimers |
      PRIVILEGE.apicMsrs |
      PRIVILEGE.hypercallMsrs |
      PRIVILEGE.vpIndex |
      PRIVILEGE.reset |
      PRIVILEGE.frequencyMsrs |
      (config.invariantTsc ? PRIVILEGE.tscInvariant : 0),
    privilegesHigh: PRIVILEGE_HIGH.postMessages | PRIVILEGE_HIGH.signalEvents | PRIVILEGE_HIGH.isolation,
    features: FEATURE.frequencyMsrs | FEATURE.guestCrashMsrs | FEATURE.directSyntheticTimers,
    // The virtual APIC ends no interrupt by itself.
    hints: HINT.relaxedTiming | HINT.clusterIpi | HINT.exProcessorMasks | HINT.autoEoiDeprecated,
    maxLeaf: LEAF.isolation,
    isolation: { a: 0, b: ISOLATION_TDX },
  };
}
