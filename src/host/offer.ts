/**
 * What this host offers a partition: privileges, features and hints of the hypervisor's CPUID leaves. A bit stands here only
 * when what it names is served.
 */

import { FEATURE, HINT, LEAF, PRIVILEGE, PRIVILEGE_HIGH } from '../abi/hyperv/cpuid.ts';
import type { Offer } from '../chipset/partition/cpuid.ts';
import type { HostConfig } from './config.ts';

/** Leaf 3 EAX. */
function privileges(config: HostConfig): number {
  return (
    PRIVILEGE.vpRuntime |
    PRIVILEGE.timeRefCount |
    PRIVILEGE.synic |
    PRIVILEGE.syntheticTimers |
    PRIVILEGE.apicMsrs |
    PRIVILEGE.hypercallMsrs |
    PRIVILEGE.vpIndex |
    PRIVILEGE.reset |
    PRIVILEGE.referenceTsc |
    PRIVILEGE.guestIdle |
    PRIVILEGE.frequencyMsrs |
    PRIVILEGE.reenlightenment |
    (config.invariantTsc ? PRIVILEGE.tscInvariant : 0)
  );
}

/** Leaf 3 EBX. Partition id and CPU management stay out: Linux takes a partition that has them for the root. */
const PRIVILEGES_HIGH =
  PRIVILEGE_HIGH.postMessages |
  PRIVILEGE_HIGH.signalEvents |
  PRIVILEGE_HIGH.extendedGvaRanges |
  PRIVILEGE_HIGH.accessVpRegisters |
  PRIVILEGE_HIGH.fastHypercallOutput |
  PRIVILEGE_HIGH.extendedHypercalls |
  PRIVILEGE_HIGH.startVirtualProcessor;

/** Leaf 0x4000000C EBX 3:0 (Linux 6.12 asm/hyperv-tlfs.h, enum hv_isolation_type). */
const ISOLATION_SNP = 2;

/** Leaf 3 EDX. */
const FEATURES =
  FEATURE.xmmFastInput |
  FEATURE.guestIdle |
  FEATURE.frequencyMsrs |
  FEATURE.guestCrashMsrs |
  FEATURE.extendedGvaRangesFlush |
  FEATURE.xmmFastOutput |
  FEATURE.sintPolling |
  FEATURE.hypercallMsrLock |
  FEATURE.directSyntheticTimers;

/** Leaf 4 EAX. In xAPIC mode the APIC MSRs spare the guest an MMIO exit, in x2APIC mode they are no gain. */
function hints(config: HostConfig): number {
  const common = HINT.remoteFlush | HINT.relaxedTiming | HINT.clusterIpi | HINT.exProcessorMasks;
  return common | (config.x2apic ? HINT.autoEoiDeprecated : HINT.apicMsrs);
}

/**
 * What an isolated partition gets less: hypercalls with output in a page that the guest keeps private (Linux 6.12
 * hv_query_ext_cap), and hints that would only cost it an exit more; and the leaf that says what isolates it.
 */
function isolatedOffer(config: HostConfig): Offer {
  return {
    privileges: privileges(config) & ~(PRIVILEGE.guestIdle | PRIVILEGE.reenlightenment),
    privilegesHigh: (PRIVILEGES_HIGH & ~PRIVILEGE_HIGH.extendedHypercalls) | PRIVILEGE_HIGH.isolation,
    features: FEATURE.frequencyMsrs | FEATURE.guestCrashMsrs | FEATURE.directSyntheticTimers,
    hints: HINT.relaxedTiming | (config.x2apic ? HINT.autoEoiDeprecated : HINT.apicMsrs),
    maxLeaf: LEAF.isolation,
    isolation: { a: 0, b: ISOLATION_SNP },
  };
}

export function hostOffer(config: HostConfig): Offer {
  if (config.isolation.kind !== 'none') return isolatedOffer(config);
  return {
    privileges: privileges(config),
    privilegesHigh: PRIVILEGES_HIGH,
    features: FEATURES,
    hints: hints(config),
    maxLeaf: LEAF.isolation,
    isolation: { a: 0, b: 0 },
  };
}
