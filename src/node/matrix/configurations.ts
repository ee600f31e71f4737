/** The five configurations as the matrix sees them: who sits in which context of the silicon, and what the modes are called. */

export const CONFIGURATION_NAMES = ['plain', 'snp', 'snp-paravisor', 'tdx', 'tdx-paravisor'] as const;
export type ConfigurationName = (typeof CONFIGURATION_NAMES)[number];

export interface ConfigurationFacts {
  readonly name: ConfigurationName;
  readonly technology: 'none' | 'snp' | 'tdx';
  readonly paravisor: boolean;
  /** Context of the silicon that the guest runs in (VMPL; TDX: 0 is L1, 1 the first L2 VM), and the paravisor. */
  readonly guestContext: number;
  readonly paravisorContext: number | undefined;
  readonly placement: string;
  /** Processor model that it needs. */
  readonly vendor: 'amd' | 'intel';
}

export const CONFIGURATIONS: Readonly<Record<ConfigurationName, ConfigurationFacts>> = {
  plain: facts('plain', 'none', false, 0, undefined, 'ordinary VM', 'amd'),
  snp: facts('snp', 'snp', false, 0, undefined, 'VMPL0', 'amd'),
  'snp-paravisor': facts('snp-paravisor', 'snp', true, 2, 0, 'VMPL2, paravisor at VMPL0', 'amd'),
  tdx: facts('tdx', 'tdx', false, 0, undefined, 'L1 TD', 'intel'),
  'tdx-paravisor': facts('tdx-paravisor', 'tdx', true, 1, 0, 'L2 VM, paravisor in L1', 'intel'),
};

function facts(
  name: ConfigurationName,
  technology: ConfigurationFacts['technology'],
  paravisor: boolean,
  guestContext: number,
  paravisorContext: number | undefined,
  placement: string,
  vendor: ConfigurationFacts['vendor'],
): ConfigurationFacts {
  return { name, technology, paravisor, guestContext, paravisorContext, placement, vendor };
}

/** What a context is in this configuration: the name of a party. */
export function party(configuration: ConfigurationFacts, context: number): string {
  if (context < 0) return 'host';
  if (context === configuration.guestContext) return 'guest';
  if (context === configuration.paravisorContext) return 'paravisor';
  return `context ${context}`;
}
