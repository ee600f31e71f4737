/**
 * What the paravisor offers its guest in the hypervisor's CPUID leaves (paravisor's counterpart of a host's offer). Linux 6.12
 * mshyperv.c and ivm.c decide by these bits how they run; a bit stands here only while the part behind it is on.
 */

import { FEATURE, HINT, LEAF, PRIVILEGE, PRIVILEGE_HIGH } from '../abi/hyperv/cpuid.ts';
import type { Offer } from '../chipset/partition/cpuid.ts';
import type { ParavisorConfig } from './config.ts';
import { hasPart, type PartName } from './parts.ts';

/** Leaf 0x4000000C EBX: type in 3:0, boundary active in bit 5, its number in 11:6 (Linux 6.12 hyperv-tlfs.h). */
const ISOLATION_TYPE = { amd: 2, intel: 3 } as const;
const BOUNDARY_ACTIVE = 1 << 5;
const BOUNDARY_SHIFT = 6;
const PARAVISOR_PRESENT = 1;

export function paravisorOffer(config: ParavisorConfig): Offer {
  const has = (name: PartName): boolean => hasPart(config.parts, name);
  const shown = !config.hideIsolation;
  const on = (condition: boolean, bits: number): number => (condition ? bits : 0);
  return {
    privileges:
      PRIVILEGE.synic |
      PRIVILEGE.hypercallMsrs |
      PRIVILEGE.vpIndex |
      PRIVILEGE.guestIdle |
      PRIVILEGE.frequencyMsrs |
      on(has('irq.apic'), PRIVILEGE.apicMsrs) |
      on(has('time.trusted'), PRIVILEGE.timeRefCount | PRIVILEGE.syntheticTimers | PRIVILEGE.referenceTsc) |
      on(config.invariantTsc, PRIVILEGE.tscInvariant),
    privilegesHigh:
      PRIVILEGE_HIGH.accessVpRegisters |
      PRIVILEGE_HIGH.fastHypercallOutput |
      on(has('ap.start'), PRIVILEGE_HIGH.startVirtualProcessor) |
      on(shown, PRIVILEGE_HIGH.postMessages | PRIVILEGE_HIGH.signalEvents | PRIVILEGE_HIGH.isolation),
    features:
      FEATURE.xmmFastInput |
      FEATURE.guestIdle |
      FEATURE.frequencyMsrs |
      FEATURE.guestCrashMsrs |
      FEATURE.xmmFastOutput |
      on(has('time.trusted'), FEATURE.directSyntheticTimers),
    hints:
      HINT.relaxedTiming |
      HINT.exProcessorMasks |
      HINT.remoteFlush |
      (config.x2apic ? HINT.autoEoiDeprecated : on(has('irq.apic'), HINT.apicMsrs)) |
      on(has('irq.apic'), HINT.clusterIpi),
    maxLeaf: shown ? LEAF.isolation : LEAF.limits,
    isolation: {
      a: PARAVISOR_PRESENT,
      b: ISOLATION_TYPE[config.vendor] | BOUNDARY_ACTIVE | (config.boundaryBits << BOUNDARY_SHIFT),
    },
  };
}
