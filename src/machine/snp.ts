/** Machines of the `snp` configuration: processor, host and launch that belong together. */
import { cpuidOf } from '../chipset/partition/cpuid.ts';
import type { HostConfig } from '../host/config.ts';
import { hostOffer } from '../host/offer.ts';
import { fail } from '../launch/outcome.ts';
import { launchSnp, type CpuidEntry, type SnpLaunchConfig } from '../launch/snp.ts';
import type { LaunchOutcome } from '../launch/plain.ts';
import { snpCpuid } from '../silicon/snp/cpuid.ts';
import { C_BIT } from '../silicon/snp/layout.ts';
import { snpSilicon } from '../silicon/snp/silicon.ts';
import type { CpuModel } from '../x86/cpuid.ts';
import { assemble } from './assemble.ts';
import {
  entropyBytes,
  hostConfig,
  type LaunchListOutcome,
  type MachineRequest,
  type MakeOutcome,
} from './configurations.ts';
import { hypervPlatform } from './hyperv-platform.ts';

/** Leaves of the CPUID page: what Linux looks up, with their subleaves. What is all zero is left out. */
const LEAVES: readonly (readonly [leaf: number, ...subleaves: number[]])[] = [
  [0x0],
  [0x1],
  [0x2],
  [0x4],
  [0x5],
  [0x6],
  [0x7, 0, 1],
  [0xb, 0, 1],
  [0xd, 0, 1, 2, 9],
  [0x10],
  ...Array.from({ length: 13 }, (_, i): [number] => [0x4000_0000 + i]),
  ...Array.from({ length: 9 }, (_, i): [number] => [0x8000_0000 + i]),
  [0x8000_001d, 0, 1, 2, 3],
  [0x8000_001e],
  [0x8000_001f],
  [0x8000_0021],
];

/** What a host puts into the CPUID page: its own answers, for a processor that has only x87 state enabled. */
export function cpuidEntries(config: HostConfig, model: CpuModel): CpuidEntry[] {
  const cpuid = snpCpuid(model);
  const subject = {
    config,
    offer: hostOffer(config),
    apicId: 0,
    apicEnabled: true,
    // The page cannot change later, so what the guest may ask to see is in it.
    tscInvariantExposed: config.invariantTsc,
  };
  return LEAVES.flatMap(([leaf, ...subleaves]) =>
    (subleaves.length === 0 ? [0] : subleaves).map((subleaf): CpuidEntry => {
      const native = cpuid(leaf, subleaf, { cr4: 0, xcr0: 1, xss: 0 });
      // State components are looked up by what they need to be enabled.
      const xcr0 = leaf === 0xd && subleaf <= 1 ? 1 : 0;
      return { leaf, subleaf, xcr0, xss: 0, ...cpuidOf(subject, leaf, subleaf, native) };
    }),
  ).filter(({ eax, ebx, ecx, edx }) => (eax | ebx | ecx | edx) !== 0);
}

export function snpHostConfig(request: MachineRequest): HostConfig {
  return { ...hostConfig(request), isolation: { kind: 'snp', aliasBit: 0 } };
}

/** The launch of a request, also for those who only measure it. */
export function snpLaunch(request: MachineRequest): LaunchOutcome {
  if (!request.hyperv)
    return fail(
      'a confidential VM needs the hypervisor interface',
      'configuration',
      'leave out --hyperv off',
    );
  const host = snpHostConfig(request);
  const config: SnpLaunchConfig = {
    kernel: request.kernel,
    initrd: request.initrd,
    commandLine: request.commandLine,
    memoryBytes: request.memoryBytes,
    vpCount: request.vpCount,
    uarts: host.uarts,
    entropy: entropyBytes(request.seed),
    cpuid: cpuidEntries(host, request.model),
    cBit: C_BIT,
  };
  return launchSnp(config);
}

/** The directives, in the order in which they are measured and carried out. */
export function snpDirectives(request: MachineRequest): LaunchListOutcome {
  const launched = snpLaunch(request);
  return launched.ok ? { ok: true, directives: launched.launch.directives } : launched;
}

export function makeSnp(request: MachineRequest): MakeOutcome {
  const launched = snpLaunch(request);
  if (!launched.ok) return launched;
  const host = snpHostConfig(request);
  return assemble(request, {
    host,
    directives: launched.launch.directives,
    silicon: snpSilicon(),
    platform: hypervPlatform(host),
  });
}
