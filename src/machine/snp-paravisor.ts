/** Machines of the `snp-paravisor` configuration: the processor and the host of `snp`, with a paravisor of ours at VMPL0. */
import type { HostConfig } from '../host/config.ts';
import { initEntry } from '../launch/entry-state.ts';
import { fail } from '../launch/outcome.ts';
import { BOUNDARY_BITS, launchSnpParavisor, type ParavisorLaunch } from '../launch/snp-paravisor.ts';
import type { Failure } from '../launch/outcome.ts';
import { ALL_PARTS } from '../paravisor/parts.ts';
import { snpParavisor } from '../paravisor/snp/program.ts';
import { snpSilicon } from '../silicon/snp/silicon.ts';
import { x86Defs } from '../x86/all.ts';
import { buildOpcodeTable } from '../x86/encoding.ts';
import {
  entropyBytes,
  hostConfig,
  type MachineRequest,
  type MakeOutcome,
  type ParavisorRequest,
} from './configurations.ts';
import { hypervPlatform } from './hyperv-platform.ts';
import { Machine } from './machine.ts';
import { cpuidEntries } from './snp.ts';

/** What the request says of the paravisor, or all of it for a shell that does not know its code. */
export function paravisorOf({ paravisor }: MachineRequest): ParavisorRequest {
  return paravisor ?? { build: new Uint8Array(48), parts: ALL_PARTS, hideIsolation: false };
}

export function snpParavisorHostConfig(request: MachineRequest): HostConfig {
  return { ...hostConfig(request), isolation: { kind: 'snp', aliasBit: BOUNDARY_BITS } };
}

export function snpParavisorLaunch(
  request: MachineRequest,
): { readonly ok: true; readonly launch: ParavisorLaunch } | Failure {
  const host = snpParavisorHostConfig(request);
  const { build, parts, hideIsolation } = paravisorOf(request);
  return launchSnpParavisor({
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
    cpuid: cpuidEntries(host, request.model),
  });
}

export function makeSnpParavisor(request: MachineRequest): MakeOutcome {
  const { model } = request;
  if (!request.hyperv)
    return fail(
      'a confidential VM needs the hypervisor interface',
      'configuration',
      'leave out --hyperv off',
    );
  const launched = snpParavisorLaunch(request);
  if (!launched.ok) return launched;
  const host = snpParavisorHostConfig(request);
  const program = snpParavisor({
    page: launched.launch.page,
    build: paravisorOf(request).build,
    opcodes: buildOpcodeTable(x86Defs),
  });
  const machine = new Machine({
    model,
    vcpus: request.vpCount,
    seed: request.seed,
    tscHz: host.tscHz,
    tscAtZero: host.tscAtZero,
    directives: launched.launch.directives,
    sink: request.sink,
    initRegisters: initEntry(model.signature),
    silicon: snpSilicon({ program }),
    ...(request.frameOrder === undefined ? {} : { frameOrder: request.frameOrder }),
    ...(request.engine === undefined ? {} : { engine: request.engine }),
  });
  machine.attach(hypervPlatform(host));
  const failure = machine.launch();
  if (failure !== undefined)
    return fail(failure, 'launch', 'report this: the launch of this configuration is our own');
  return { ok: true, machine };
}
