/** A TD that starts a kernel at L1. */
import { CONFIG_FLAG, TD_ATTRIBUTE } from '../abi/tdx/td-params.ts';
import type { TdxHostConfig } from '../host/tdx/host.ts';
import { launchTdx } from '../launch/tdx/tdx.ts';
import { tdxSilicon } from '../silicon/tdx/silicon.ts';
import { xcr0Allowed } from '../x86/cpuid.ts';
import { assemble } from './assemble.ts';
import {
  entropyBytes,
  hostConfig,
  type LaunchListOutcome,
  type MachineRequest,
  type MakeOutcome,
} from './configurations.ts';
import { tdxPlatform } from './tdx-platform.ts';

/** The shared bit is bit 47, and the guest hears of no pending page but by its own fault (SEPT_VE_DISABLE). */
export function tdxHostConfig(request: MachineRequest): TdxHostConfig {
  return {
    ...hostConfig(request),
    x2apic: true,
    x2apicLocked: true,
    td: {
      attributes: TD_ATTRIBUTE.septVeDisable,
      xfam: BigInt(xcr0Allowed(request.model)),
      numL2Vms: 0,
      configFlags: CONFIG_FLAG.noRbpMod,
      mrConfigId: new Uint8Array(48),
      mrOwner: new Uint8Array(48),
      mrOwnerConfig: new Uint8Array(48),
      launchParameter: 0,
    },
  };
}

/** The launch that `makeTdx` carries out. */
export function tdxLaunchList(request: MachineRequest): LaunchListOutcome {
  const launched = launchTdx({
    kernel: request.kernel,
    initrd: request.initrd,
    commandLine: request.commandLine,
    memoryBytes: request.memoryBytes,
    vpCount: request.vpCount,
    uarts: hostConfig(request).uarts,
    entropy: entropyBytes(request.seed),
  });
  return launched.ok ? { ok: true, directives: launched.launch.directives } : launched;
}

export function makeTdx(request: MachineRequest): MakeOutcome {
  const launched = tdxLaunchList(request);
  if (!launched.ok) return launched;
  const host = tdxHostConfig(request);
  return assemble(request, {
    host,
    directives: launched.directives,
    silicon: tdxSilicon({ l2Vms: 0 }),
    platform: tdxPlatform(host),
  });
}
