/** Observations in which every statement holds, made up for tests: each test breaks one property. */
import { HOST_ACCESS, INJECTION_OUTCOME, PAGE_USE, PRIVILEGED_OPERATION as OP } from '../../abi/events.ts';
import { CALL } from '../../abi/hyperv/hypercall.ts';
import { EXIT_KINDS, EXIT_ROUTES } from '../../abi/exit-kinds.ts';
import type { Findings } from './checks.ts';
import {
  FACTS,
  CONFIGURATION_NAMES,
  type ConfigurationFacts,
  type ConfigurationName,
} from '../../machine/facts.ts';
import type { Refusals } from './refusals.ts';
import { KEYS, type Counts, type Observation, type Tally } from './observation.ts';

export type Mutable<T> = T extends object ? { -readonly [K in keyof T]: Mutable<T[K]> } : T;

const seen = (count: number, first = 1000, last = 2000): Tally => ({ count, first, last });
const kind = (name: (typeof EXIT_KINDS)[number]): number => EXIT_KINDS.indexOf(name);
const route = (name: (typeof EXIT_ROUTES)[number]): number => EXIT_ROUTES.indexOf(name);

const LEAF: Readonly<Record<ConfigurationName, readonly [number, number]>> = {
  plain: [0, 0],
  snp: [0, 2],
  'snp-paravisor': [1, 0xba2],
  tdx: [0, 3],
  'tdx-paravisor': [1, 0xbe3],
};
const FEATURES: Readonly<Record<ConfigurationName, string | undefined>> = {
  plain: undefined,
  snp: 'AMD SEV SEV-ES SEV-SNP',
  'snp-paravisor': 'AMD SEV',
  tdx: 'Intel TDX',
  'tdx-paravisor': 'Intel TDX',
};
const FLAGS: Readonly<Record<ConfigurationName, string>> = {
  plain: 'fpu vme',
  snp: 'fpu vme sev_snp',
  'snp-paravisor': 'fpu vme',
  tdx: 'fpu vme tdx_guest',
  'tdx-paravisor': 'fpu vme',
};

function countsOf({
  technology,
  paravisor,
  guestContext: g,
  paravisorContext: p = -2,
}: ConfigurationFacts): Record<string, Counts> {
  const exit: Record<string, Tally> = { [`${kind('io')} ${route('host')} ${g} -1`]: seen(50, 2000) };
  const counts: Record<string, Record<string, Tally>> = {
    exit,
    hypercallRoute: {
      [`${CALL.postMessage} ${g} -1 0`]: seen(3),
      ...(paravisor ? { [`${CALL.modifySparseGpaPageHostVisibility} ${g} ${p} 0`]: seen(9) } : {}),
    },
    hostAccess: { [`0 ${HOST_ACCESS.ciphertext}`]: seen(1) },
    injection: { [`236 0 ${INJECTION_OUTCOME.delivered} ${g}`]: seen(40) },
    pageUse: {
      [`${0x10000} ${PAGE_USE.monitor} 0`]: seen(1),
      ...(paravisor && technology === 'tdx'
        ? { [`${0x13000} ${PAGE_USE.hypercallInput} ${CALL.postMessage}`]: seen(3) }
        : {}),
      ...(paravisor
        ? {}
        : {
            [`${0x11000} ${PAGE_USE.synicMessages} 0`]: seen(1),
            [`${0x12000} ${PAGE_USE.hypercallInput} 0`]: seen(1),
          }),
    },
  };
  if (technology === 'none') return counts;
  counts['mmioRoute'] = { [`${0xfec00000} ${paravisor ? 1 : 0} ${paravisor ? p : -1}`]: seen(20) };
  const prepare = technology === 'snp' ? OP.pvalidate : OP.accept;
  const request = technology === 'snp' ? OP.pageStateChange : OP.mapGpa;
  if (paravisor) {
    exit[`${kind('cpuid')} ${route('context')} ${g} ${p}`] = seen(30, 2000);
    counts['privilegedOperation'] = { [`${prepare} 0 ${p}`]: seen(900, 10, 2000) };
    counts['visibility'] = { '1 0': seen(9) };
  } else {
    exit[`${kind('cpuid')} ${route('guest')} ${g} ${g}`] = seen(30, 2000);
    counts['privilegedOperation'] = { [`${prepare} 0 ${g}`]: seen(900), [`${request} 0 ${g}`]: seen(9) };
    counts['confidentialException'] = { [`${technology === 'snp' ? 29 : 20} ${g}`]: seen(30) };
  }
  return counts;
}

export function goodObservation(name: ConfigurationName): Mutable<Observation> {
  const facts = FACTS[name];
  const [a, b] = LEAF[name];
  const features = FEATURES[name];
  const confidential = facts.technology !== 'none';
  const counts = countsOf(facts);
  return structuredClone<Observation>({
    configuration: name,
    kernelSha256: 'ab12',
    vcpus: 1,
    memoryBytes: 1 << 22,
    booted: true,
    said: {
      dmesg: [
        ...(features === undefined ? [] : [`[    0.1] Memory Encryption Features active: ${features}`]),
        ...(confidential
          ? [`[    0.0] Hyper-V: Isolation Config: Group A 0x${a.toString(16)}, Group B 0x${b.toString(16)}`]
          : []),
        ...(name === 'snp-paravisor' ? ['[    0.1] SEV: Status: vTom '] : []),
        '[    0.2] software IO TLB: mapped [mem 0x0000000000300000-0x000000000030ffff] (0MB)',
      ],
      flags: [FLAGS[name]],
    },
    counts: Object.fromEntries(
      Object.keys(KEYS).map((key) => [key, counts[key] ?? {}]),
    ) as Observation['counts'],
    cpuid: { [`${0x4000000c} 0`]: LEAF[name] },
    sharedRuns: confidential
      ? [
          { gpa: 0x10000, pages: facts.paravisor ? 1 : 3 },
          ...(facts.paravisor && facts.technology === 'tdx' ? [{ gpa: 0x13000, pages: 1 }] : []),
          { gpa: 0x300000, pages: 16 },
        ]
      : [{ gpa: 0, pages: 1024 }],
    pages: { private: confidential ? 1005 : 0, shared: confidential ? 19 : 1024 },
    pageMap: [],
    shareSites: [],
    probes: { secret: [], 'code-visible': [], 'transition-mapped': [], 'far-end': ['booted with nopv'] },
    looked: { secret: 9, 'code-visible': 9, 'transition-mapped': 9, 'transition-restored': 9 },
  }) as Mutable<Observation>;
}

export function goodFindings(): {
  boots: Map<ConfigurationName, Mutable<Observation>>;
  refusals: Refusals;
} {
  const refusals = CONFIGURATION_NAMES.flatMap((name) =>
    ['processor', 'kind', 'mode', 'guest into paravisor', 'host into paravisor', 'malformed requests'].map(
      (what) => `${what} ${name}`,
    ),
  );
  return {
    boots: new Map(CONFIGURATION_NAMES.map((name) => [name, goodObservation(name)])),
    refusals: Object.fromEntries(
      [...refusals, 'configuration sme', 'configuration sev', 'configuration sev-es'].map((name) => [
        name,
        { ok: true, answer: 'refused' },
      ]),
    ),
  } satisfies { boots: Findings['boots']; refusals: Findings['refusals'] };
}
