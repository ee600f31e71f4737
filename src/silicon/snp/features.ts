/** SEV_FEATURES of a VMSA: what this processor implements, and what it refuses at VMRUN (APM vol. 2, 15.36.20 and table B-4). */
import { SEV_FEATURE } from '../../abi/snp/vmsa.ts';

export interface FeatureRow {
  readonly bit: number;
  readonly name: string;
  readonly status: 'implemented' | 'nothing to do' | 'refused';
  readonly what: string;
}

export const FEATURE_ROWS: readonly FeatureRow[] = [
  {
    bit: SEV_FEATURE.snp,
    name: 'SNPActive',
    status: 'implemented',
    what: 'RMP checks; a VMSA without it is refused',
  },
  {
    bit: SEV_FEATURE.vTom,
    name: 'vTOM',
    status: 'implemented',
    what: 'addresses below VIRTUAL_TOM are private',
  },
  { bit: SEV_FEATURE.reflectVc, name: 'ReflectVC', status: 'implemented', what: '#VC becomes an exit' },
  {
    bit: SEV_FEATURE.restrictedInjection,
    name: 'RestrictInjection',
    status: 'implemented',
    what: 'only #HV can be injected',
  },
  {
    bit: SEV_FEATURE.alternateInjection,
    name: 'AlternateInjection',
    status: 'implemented',
    what: 'events come from the VMSA',
  },
  {
    bit: SEV_FEATURE.debugSwap,
    name: 'DebugSwap',
    status: 'implemented',
    what: 'DR0-3 are part of the VMSA',
  },
  {
    bit: SEV_FEATURE.preventHostIbs,
    name: 'PreventHostIBS',
    status: 'nothing to do',
    what: 'there is no IBS',
  },
  {
    bit: SEV_FEATURE.btbIsolation,
    name: 'BTBIsolation',
    status: 'nothing to do',
    what: 'there is no branch prediction',
  },
  { bit: SEV_FEATURE.vmplSss, name: 'VmplSSS', status: 'refused', what: 'there are no shadow stacks' },
  { bit: SEV_FEATURE.secureTsc, name: 'SecureTSC', status: 'implemented', what: 'TSC by the VMSA' },
  {
    bit: SEV_FEATURE.vmgexitParameter,
    name: 'VmgexitParameter',
    status: 'refused',
    what: 'not in this model',
  },
  {
    bit: SEV_FEATURE.pmcVirtualization,
    name: 'PmcVirtualization',
    status: 'refused',
    what: 'there are no counters',
  },
  {
    bit: SEV_FEATURE.ibsVirtualization,
    name: 'IbsVirtualization',
    status: 'refused',
    what: 'there is no IBS',
  },
  {
    bit: SEV_FEATURE.guestInterceptControl,
    name: 'GuestInterceptCtl',
    status: 'refused',
    what: 'not in this model',
  },
  {
    bit: SEV_FEATURE.vmsaRegisterProtection,
    name: 'VmsaRegProt',
    status: 'refused',
    what: 'not in this model',
  },
  { bit: SEV_FEATURE.smtProtection, name: 'SmtProtection', status: 'nothing to do', what: 'there is no SMT' },
  { bit: SEV_FEATURE.secureAvic, name: 'SecureAVIC', status: 'refused', what: 'not in this model' },
  {
    bit: SEV_FEATURE.ibpbOnEntry,
    name: 'IbpbOnEntry',
    status: 'nothing to do',
    what: 'there is no branch prediction',
  },
];

/** Every bit that VMRUN accepts. */
export const ACCEPTED_FEATURES = FEATURE_ROWS.reduce(
  (mask, { bit, status }) => (status === 'refused' ? mask : mask | bit),
  0,
);
