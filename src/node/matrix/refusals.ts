/** Asks for what must not be possible, and keeps the answers. */
import {
  CONFIGURATIONS,
  findConfiguration,
  makeMachine,
  type MachineRequest,
} from '../../machine/configurations.ts';
import { sentence } from '../../launch/outcome.ts';
import { cpuModels } from '../../x86/cpuid.ts';
import { FACTS, type ConfigurationName } from '../../machine/facts.ts';

export interface Refusal {
  /** It was refused, in the way that the specification says. */
  readonly ok: boolean;
  /** The answer, or what was wrong with it. */
  readonly answer: string;
}
export type Refusals = Record<string, Refusal>;

/** Answers that need no boot. */
export function refusalsOf(configurations: readonly ConfigurationName[]): Refusals {
  const refusals: Refusals = {};
  for (const name of ['sme', 'sev', 'sev-es'])
    refusals[`configuration ${name}`] = {
      ok: findConfiguration(name) === undefined,
      answer: `'${name}' is no configuration: there are ${CONFIGURATIONS.map((row) => row.name).join(', ')}`,
    };
  for (const name of configurations) refusals[`processor ${name}`] = wrongProcessor(name);
  return refusals;
}

/** The sentence that a machine of the wrong make is refused with. */
function wrongProcessor(name: ConfigurationName): Refusal {
  const configuration = findConfiguration(name);
  const model = cpuModels().find(({ vendor }) => vendor !== FACTS[name].vendor);
  if (configuration === undefined || model === undefined || FACTS[name].technology === 'none')
    return { ok: false, answer: 'there is no processor of another make to try' };
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
  return outcome.ok
    ? { ok: false, answer: `${model.name} was taken` }
    : { ok: true, answer: sentence(outcome.error) };
}
