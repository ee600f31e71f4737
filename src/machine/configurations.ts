/**
 * The configurations that a VM can be made as, one row each: from files and sizes to a machine that is ready to run. Both
 * shells, the tests and the reports take the names from here.
 */
import { DEFAULT_CONFIG, type HostConfig } from '../host/config.ts';
import { fail, type Failure } from '../launch/outcome.ts';
import { launchPlain } from '../launch/plain.ts';
import type { EventSink } from '../seats/events.ts';
import type { CpuModel } from '../x86/cpuid.ts';
import { FACTS, type ConfigurationFacts } from './facts.ts';
import { assemble } from './assemble.ts';
import { makeTdx, tdxLaunchList } from './make-tdx.ts';
import { hypervPlatform } from './hyperv-platform.ts';
import type { EngineKind, Machine } from './machine.ts';
import type { Measurement } from './measure/measurement.ts';
import type { Directive } from '../launch/directives.ts';
import { makeSnp, snpDirectives } from './snp.ts';
import {
  makeSnpParavisor,
  makeTdxParavisor,
  snpParavisorDirectives,
  tdxParavisorDirectives,
} from './make-paravisor.ts';

/** The paravisor of configurations that have one. */
export interface ParavisorRequest {
  /** SHA-384 of its code. */
  readonly build: Uint8Array;
  /** Bits of PARTS. */
  readonly parts: number;
  readonly hideIsolation: boolean;
}

/** What a VM is made from, whatever its configuration. */
export interface MachineRequest {
  /** bzImage or ELF. */
  readonly kernel: Uint8Array;
  readonly initrd: Uint8Array;
  readonly commandLine: string;
  readonly memoryBytes: number;
  readonly vpCount: number;
  readonly model: CpuModel;
  readonly seed: bigint;
  /** Seconds since 1970 (UTC) at power-on. */
  readonly startDate: number;
  /** False: a machine without a hypervisor interface. */
  readonly hyperv: boolean;
  /** What the host does not offer, of WITHHOLDABLE. */
  readonly withheld: readonly string[];
  readonly sink: EventSink;
  /** Absent: all parts of one whose code nobody has looked at. */
  readonly paravisor?: ParavisorRequest;
  /** Permutation of frame blocks: nothing in a run may depend on it. */
  readonly frameOrder?: (count: number) => Uint32Array;
  readonly engine?: EngineKind;
}

export type MakeOutcome = { readonly ok: true; readonly machine: Machine } | Failure;

export type LaunchListOutcome = { readonly ok: true; readonly directives: readonly Directive[] } | Failure;

export interface Configuration extends ConfigurationFacts {
  readonly make: (request: MachineRequest) => MakeOutcome;
  /** How it is launched, for those whose launch is measured, in the order in which the host carries it out. */
  readonly launch?: (request: MachineRequest) => LaunchListOutcome;
}

export const CONFIGURATIONS: readonly Configuration[] = [
  { ...FACTS.plain, make: makePlain },
  { ...FACTS.snp, make: makeSnp, launch: snpDirectives },
  { ...FACTS['snp-paravisor'], make: makeSnpParavisor, launch: snpParavisorDirectives },
  { ...FACTS.tdx, make: makeTdx, launch: tdxLaunchList },
  { ...FACTS['tdx-paravisor'], make: makeTdxParavisor, launch: tdxParavisorDirectives },
];

export function findConfiguration(name: string): Configuration | undefined {
  return CONFIGURATIONS.find((configuration) => configuration.name === name);
}

/** Parts of the platform that a host may keep from a guest, under the names that the shells use. */
export const WITHHOLDABLE: Readonly<Record<string, Partial<HostConfig>>> = {
  'invariant-tsc': { invariantTsc: false },
  x2apic: { x2apic: false },
  'tsc-deadline': { tscDeadline: false },
};

/** How the host of a VM is set up, without what a configuration adds. */
export function hostConfig(request: MachineRequest): HostConfig {
  return {
    ...DEFAULT_CONFIG,
    vpCount: request.vpCount,
    vendor: request.model.vendor,
    hyperv: request.hyperv,
    startDate: request.startDate,
    physicalAddressBits: request.model.physicalAddressBits,
    ...Object.assign({}, ...request.withheld.map((name) => WITHHOLDABLE[name])),
  };
}

/** Bytes for the kernel's random generator, from the seed. */
export function entropyBytes(seed: bigint): Uint8Array {
  const bytes = new Uint8Array(64);
  let state = seed & 0xffffffffffffffffn;
  for (let k = 0; k < bytes.length; k++) {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
    bytes[k] = Number(state >> 56n);
  }
  return bytes;
}

/** A machine of the given configuration, or what is wrong with the request. */
export function makeMachine(configuration: Configuration, request: MachineRequest): MakeOutcome {
  return wrongVendor(configuration, request) ?? configuration.make(request);
}

/** The directives of a launch that is measured. */
export function launchList(configuration: Configuration, request: MachineRequest): LaunchListOutcome {
  const { launch } = configuration;
  if (launch === undefined) return unmeasured(configuration) as Failure;
  return wrongVendor(configuration, request) ?? launch(request);
}

/** Of one whose launch is measured. */
export const technologyOf = ({ technology }: Configuration): Measurement['technology'] =>
  technology === 'tdx' ? 'tdx' : 'snp';

/** Why the launch of a configuration has no measurement; undefined when it has. */
export function unmeasured(configuration: Configuration): Failure | undefined {
  if (configuration.launch !== undefined) return undefined;
  const measured = CONFIGURATIONS.filter(({ launch }) => launch !== undefined).map(({ name }) => name);
  return fail(
    `the launch of '${configuration.name}' is not measured`,
    'configuration',
    measured.length > 0 ? `give one of ${measured.join(', ')}` : 'no configuration is measured yet',
  );
}

export function wrongVendor(
  { name, vendor }: ConfigurationFacts,
  { model }: Pick<MachineRequest, 'model'>,
): Failure | undefined {
  if (vendor === undefined || vendor === model.vendor) return undefined;
  return fail(
    `processor model ${model.name} cannot run '${name}'`,
    'configuration',
    `give one from ${vendor === 'amd' ? 'AMD' : 'Intel'}`,
  );
}

function makePlain(request: MachineRequest): MakeOutcome {
  const host = hostConfig(request);
  const launched = launchPlain({
    kernel: request.kernel,
    initrd: request.initrd,
    commandLine: request.commandLine,
    memoryBytes: request.memoryBytes,
    vpCount: request.vpCount,
    uarts: host.uarts,
    entropy: entropyBytes(request.seed),
  });
  if (!launched.ok) return launched;
  return assemble(request, { host, directives: launched.launch.directives, platform: hypervPlatform(host) });
}
