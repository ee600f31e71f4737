/** Machines with a paravisor of ours: the processor and the host of `snp` or `tdx`, with the program at VMPL0 or L1. */
import type { HostConfig } from '../host/config.ts';
import { fail } from '../launch/outcome.ts';
import {
  BOUNDARY_BITS,
  launchParavisor,
  type ParavisorLaunch,
  type ParavisorLaunchConfig,
} from '../launch/paravisor.ts';
import type { Failure } from '../launch/outcome.ts';
import { ALL_PARTS } from '../paravisor/parts.ts';
import { tdxHostConfig } from './make-tdx.ts';
import { tdxPlatform } from './tdx-platform.ts';
import { assemble } from './assemble.ts';
import {
  entropyBytes,
  hostConfig,
  type LaunchListOutcome,
  type MachineRequest,
  type MakeOutcome,
  type ParavisorRequest,
} from './configurations.ts';
import { hypervPlatform } from './hyperv-platform.ts';
import type { Platform } from './machine.ts';
import { programSilicon, type ProgramAt } from './program.ts';
import { cpuidEntries } from './snp.ts';

/** What the request says of the paravisor, or all of it for a shell that does not know its code. */
export function paravisorOf({ paravisor }: MachineRequest): ParavisorRequest {
  return paravisor ?? { build: new Uint8Array(48), parts: ALL_PARTS, hideIsolation: false };
}

export function snpParavisorHostConfig(request: MachineRequest): HostConfig {
  return { ...hostConfig(request), isolation: { kind: 'snp', aliasBit: BOUNDARY_BITS.snp } };
}

function paravisorLaunch(
  request: MachineRequest,
  host: HostConfig,
  technology: ParavisorLaunchConfig['technology'],
): { readonly ok: true; readonly launch: ParavisorLaunch } | Failure {
  const { build, parts, hideIsolation } = paravisorOf(request);
  return launchParavisor({
    kernel: request.kernel,
    initrd: request.initrd,
    commandLine: request.commandLine,
    memoryBytes: request.memoryBytes,
    vpCount: request.vpCount,
    uarts: host.uarts,
    entropy: entropyBytes(request.seed),
    build,
    parts,
    hideIsolation,
    invariantTsc: host.invariantTsc,
    tscHz: host.tscHz,
    apicHz: host.apicHz,
    startDate: host.startDate,
    physicalAddressBits: host.physicalAddressBits,
    technology,
  });
}

function snpParavisorLaunch(request: MachineRequest): ReturnType<typeof paravisorLaunch> {
  const host = snpParavisorHostConfig(request);
  return paravisorLaunch(request, host, { kind: 'snp', cpuid: cpuidEntries(host, request.model) });
}

/** A TD with one L2 VM. */
function tdxParavisorHostConfig(request: MachineRequest): ReturnType<typeof tdxHostConfig> {
  const host = tdxHostConfig(request);
  return { ...host, td: { ...host.td, numL2Vms: 1 } };
}

const listOf = (launched: ReturnType<typeof paravisorLaunch>): LaunchListOutcome =>
  launched.ok ? { ok: true, directives: launched.launch.directives } : launched;

/** The launches that the makers below carry out. */
export const snpParavisorDirectives = (request: MachineRequest): LaunchListOutcome =>
  listOf(snpParavisorLaunch(request));
export const tdxParavisorDirectives = (request: MachineRequest): LaunchListOutcome =>
  listOf(paravisorLaunch(request, tdxParavisorHostConfig(request), { kind: 'tdx' }));

export function makeSnpParavisor(request: MachineRequest): MakeOutcome {
  if (!request.hyperv)
    return fail(
      'a confidential VM needs the hypervisor interface',
      'configuration',
      'leave out --hyperv off',
    );
  const launched = snpParavisorLaunch(request);
  const host = snpParavisorHostConfig(request);
  return launched.ok ? made(request, 'snp', launched.launch, host, hypervPlatform(host)) : launched;
}

export function makeTdxParavisor(request: MachineRequest): MakeOutcome {
  const host = tdxParavisorHostConfig(request);
  const launched = paravisorLaunch(request, host, { kind: 'tdx' });
  return launched.ok ? made(request, 'tdx', launched.launch, host, tdxPlatform(host)) : launched;
}

function made(
  request: MachineRequest,
  kind: ProgramAt['kind'],
  { page, directives }: ParavisorLaunch,
  host: HostConfig,
  platform: Platform,
): MakeOutcome {
  const program = { kind, page, build: paravisorOf(request).build };
  return assemble(request, { host, directives, platform, program, silicon: programSilicon(program) });
}
