/** The boots that make a matrix, and what they show together. */
import { findConfiguration } from '../../machine/configurations.ts';
import { cpuModels } from '../../x86/cpuid.ts';
import type { BootOptions } from '../boot.ts';
import { judge, type Findings } from './checks.ts';
import { FACTS, type ConfigurationName } from '../../machine/facts.ts';
import type { Observed } from './observe-boot.ts';
import { refusalsOf } from './refusals.ts';
import type { MatrixReport } from './report.ts';
import type { Boot } from './run.ts';

/** Options of every boot; `cpuModel`: for the configurations that can have it. */
export type MatrixOptions = Omit<BootOptions, 'configuration' | 'cpuModel'> & { readonly cpuModel?: string };

/** The processor that a configuration runs on, unless one was given that it can have. */
function modelFor(name: ConfigurationName, given: string | undefined): string {
  const vendor = findConfiguration(name)?.vendor;
  const fits = cpuModels().filter((model) => vendor === undefined || model.vendor === vendor);
  return (fits.find((model) => model.name === given) ?? fits[0])?.name as string;
}

/** A boot of each configuration, then the far ends of the spectrum: guests that know nothing of isolation, under a paravisor that says nothing of it. */
export function bootsOf(given: MatrixOptions, configurations: readonly ConfigurationName[]): readonly Boot[] {
  const boots = configurations.map((configuration) => ({
    label: configuration as string,
    options: { ...given, configuration, cpuModel: modelFor(configuration, given.cpuModel), offline: true },
  }));
  return [
    ...boots,
    ...boots
      .filter(({ options }) => FACTS[options.configuration].paravisor)
      .map(({ label, options }) => ({
        label: `${label} (hidden)`,
        options: { ...options, hideIsolation: true, append: `${given.append ?? ''} nopv`.trim() },
      })),
  ];
}

/** `results`: of `bootsOf`, in its order. */
export function wholeMatrix(
  configurations: readonly ConfigurationName[],
  results: readonly Observed[],
): { readonly report: MatrixReport; readonly findings: Findings } {
  const observed = results
    .slice(0, configurations.length)
    .map((result) => withFarEnd(result, results.slice(configurations.length)));
  const [first] = observed;
  if (first === undefined) throw new Error('no configuration was booted');
  const findings: Findings = {
    boots: new Map(observed.map(({ observation }) => [observation.configuration, observation])),
    refusals: Object.assign(refusalsOf(configurations), ...observed.map(({ refusals }) => refusals)),
  };
  return {
    findings,
    report: {
      kernel: first.kernel,
      boots: observed.map(({ boot }) => boot),
      statements: judge(findings),
    },
  };
}

/** What the boot with hidden isolation showed, as a finding of the ordinary one. */
function withFarEnd(result: Observed, farEnds: readonly Observed[]): Observed {
  const { observation } = result;
  const far = farEnds.find((other) => other.boot.configuration === observation.configuration);
  if (far === undefined || far.boot.outcome !== 'booted') return result;
  const { pages, features } = far.boot;
  const unaware =
    features === '' &&
    (far.observation.said['dmesg'] ?? []).every((line) => !line.includes('Isolation Config'));
  const finding = `booted with nopv and isolation hidden: the kernel reports no isolation, ${pages.private} pages private, ${pages.shared} shared`;
  const probes =
    unaware && pages.private > pages.shared
      ? { ...observation.probes, 'far-end': [finding] }
      : observation.probes;
  return { ...result, observation: { ...observation, probes } };
}
