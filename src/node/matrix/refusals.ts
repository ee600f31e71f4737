/** Asks for what must not be possible, and keeps the answers. */
import {
  CONFIGURATIONS as MACHINES,
  findConfiguration,
  makeMachine,
  type MachineRequest,
} from '../../machine/configurations.ts';
import { sentence } from '../../launch/outcome.ts';
import { cpuModels } from '../../x86/cpuid.ts';
import { CONFIGURATIONS, type ConfigurationName } from './configurations.ts';

export type Refusals = Record<string, string | undefined>;

/** Answers that need no boot. */
export function refusalsOf(configurations: readonly ConfigurationName[]): Refusals {
  const refusals: Refusals = {};
  for (const name of ['sme', 'sev', 'sev-es'])
    refusals[`configuration ${name}`] =
      findConfiguration(name) === undefined
        ? `'${name}' is no configuration: there are ${MACHINES.map((row) => row.name).join(', ')}`
        : undefined;
  for (const name of configurations) refusals[`processor ${name}`] = wrongProcessor(name);
  return refusals;
}

/** The sentence that a machine of the wrong make is refused with. */
function wrongProcessor(name: ConfigurationName): string | undefined {
  const configuration = findConfiguration(name);
  const model = cpuModels().find(({ vendor }) => vendor !== CONFIGURATIONS[name].vendor);
  if (configuration === undefined || model === undefined || CONFIGURATIONS[name].technology === 'none')
    return undefined;
  const request: MachineRequest = {
    kernel: new Uint8Array(0),
    initrd: new Uint8Array(0),
    commandLine: '',
    memoryBytes: 1 << 29,
    vpCount: 1,
    model,
    seed: 1n,
    startDate: 0,
    hyperv: true,
    withheld: [],
    sink: { mask: 0, emit: () => undefined },
  };
  const outcome = makeMachine(configuration, request);
  return outcome.ok ? undefined : sentence(outcome.error);
}
