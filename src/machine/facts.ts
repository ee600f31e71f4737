/** The five configurations: what they are called, and who sits in which context of the silicon. */
import type { CpuModel } from '../x86/cpuid.ts';

export const CONFIGURATION_NAMES = ['plain', 'snp', 'snp-paravisor', 'tdx', 'tdx-paravisor'] as const;
export type ConfigurationName = (typeof CONFIGURATION_NAMES)[number];

export interface ConfigurationFacts {
  readonly name: ConfigurationName;
  readonly summary: string;
  readonly technology: 'none' | 'snp' | 'tdx';
  /** The only maker of processors that has it; none: any. */
  readonly vendor?: CpuModel['vendor'];
  readonly paravisor: boolean;
  /** Context of the silicon that the guest runs in (VMPL; TDX: 0 is L1, 1 the first L2 VM), and the paravisor. */
  readonly guestContext: number;
  readonly paravisorContext?: number;
  readonly placement: string;
}

export const FACTS: Readonly<Record<ConfigurationName, ConfigurationFacts>> = {
  plain: {
    name: 'plain',
    summary: 'an ordinary Hyper-V Generation 2 VM',
    technology: 'none',
    paravisor: false,
    guestContext: 0,
    placement: 'ordinary VM',
  },
  snp: {
    name: 'snp',
    summary: 'SEV-SNP, fully enlightened, at VMPL0',
    technology: 'snp',
    vendor: 'amd',
    paravisor: false,
    guestContext: 0,
    placement: 'VMPL0',
  },
  'snp-paravisor': {
    name: 'snp-paravisor',
    summary: 'SEV-SNP, paravisor at VMPL0, guest at VMPL2 with vTOM',
    technology: 'snp',
    vendor: 'amd',
    paravisor: true,
    guestContext: 2,
    paravisorContext: 0,
    placement: 'VMPL2, paravisor at VMPL0',
  },
  tdx: {
    name: 'tdx',
    summary: 'TDX, fully enlightened, an L1 TD',
    technology: 'tdx',
    vendor: 'intel',
    paravisor: false,
    guestContext: 0,
    placement: 'L1 TD',
  },
  'tdx-paravisor': {
    name: 'tdx-paravisor',
    summary: 'TDX, paravisor at L1, guest an L2 VM',
    technology: 'tdx',
    vendor: 'intel',
    paravisor: true,
    guestContext: 1,
    paravisorContext: 0,
    placement: 'L2 VM, paravisor in L1',
  },
};

/** What a context is in this configuration: the name of a party. */
export function party(configuration: ConfigurationFacts, context: number): string {
  if (context < 0) return 'host';
  if (context === configuration.guestContext) return 'guest';
  if (context === configuration.paravisorContext) return 'paravisor';
  return `context ${context}`;
}
