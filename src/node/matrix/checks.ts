/** A check for each statement: reads what the boots showed and says what its verdict rests on. */
import { HOST_ACCESS, INJECTION_OUTCOME, PRIVILEGED_OPERATION } from '../../abi/events.ts';
import { EXIT_KINDS, type ExitKind } from '../../abi/exit-kinds.ts';
import { CALL } from '../../abi/hyperv/hypercall.ts';
import { FACTS, type ConfigurationFacts, type ConfigurationName } from '../../machine/facts.ts';
import { count, rows, type Observation } from './observation.ts';
import type { Refusals } from './refusals.ts';
import type { StatementResult, Verdict } from './report.ts';
import { accountFor } from './shared-pages.ts';
import { NOT_SHOWN, STATEMENTS } from './statements.ts';

/** What the checks read: the boots, and what the command line and the machine answered when they were asked for the impossible. */
export interface Findings {
  readonly boots: ReadonlyMap<ConfigurationName, Observation>;
  /** Answers to requests for what must not be possible, by name. */
  readonly refusals: Readonly<Refusals>;
}

export interface Outcome {
  readonly ok: boolean;
  readonly evidence: readonly string[];
}

type Check = (o: Observation, facts: ConfigurationFacts, findings: Findings) => Outcome;

const outcome = (ok: boolean, ...evidence: readonly string[]): Outcome => ({ ok, evidence });
const both = (...parts: readonly Outcome[]): Outcome => ({
  ok: parts.every(({ ok }) => ok),
  // What is wrong comes first.
  evidence: [...parts.filter(({ ok }) => !ok), ...parts.filter(({ ok }) => ok)].flatMap(
    ({ evidence }) => evidence,
  ),
});

const dmesg = (o: Observation): readonly string[] => o.said['dmesg'] ?? [];
const looked = (o: Observation, probe: string): number => o.looked[probe] ?? 0;
const hex = (value: number): string => `0x${value.toString(16)}`;

function line(o: Observation, pattern: RegExp, present = true): Outcome {
  const found = dmesg(o).find((text) => pattern.test(text));
  if (present) return outcome(found !== undefined, found ?? `no kernel line matches ${String(pattern)}`);
  return outcome(found === undefined, found ?? `no kernel line matches ${String(pattern)}, as it should be`);
}

const flags = (o: Observation): readonly string[] => (o.said['flags'] ?? []).join(' ').split(/\s+/);
const TECHNOLOGY_FLAGS = /^(sev|sev_es|sev_snp|sme|tdx_guest)$/;

function leaf(o: Observation, a: number, b: number): Outcome {
  const answer = o.cpuid[`${0x4000000c} 0`];
  return outcome(
    answer !== undefined && answer[0] === a && answer[1] === b,
    answer === undefined
      ? 'the guest never asked for CPUID 0x4000000C'
      : `CPUID 0x4000000C gave EAX ${hex(answer[0])} EBX ${hex(answer[1])}`,
  );
}

const LEAVES: Readonly<Record<ConfigurationName, readonly [number, number] | undefined>> = {
  plain: undefined,
  snp: [0, 2],
  'snp-paravisor': [1, 0xba2],
  tdx: [0, 3],
  'tdx-paravisor': [1, 0xbe3],
};

/** Privileged operations of a context: PVALIDATE, RMPADJUST, TDG.MEM.PAGE.ACCEPT, page-state requests... */
const privileged = (o: Observation, context: number): number =>
  count(o.counts.privilegedOperation, (_op, _status, c) => c === context);
const operations = (o: Observation, context: number, operation: number): number =>
  count(o.counts.privilegedOperation, (op, status, c) => op === operation && status === 0 && c === context);
const exceptionsIn = (o: Observation, context: number): number =>
  count(o.counts.confidentialException, (vector, c) => (vector === 29 || vector === 20) && c === context);

/** Exits that the guest made, in any route. */
const guestExits = (o: Observation, facts: ConfigurationFacts): number =>
  count(o.counts.exit, (_kind, _route, from) => from === facts.guestContext);
const directExits = (o: Observation, facts: ConfigurationFacts): number =>
  count(o.counts.exit, (_kind, _route, from, to) => from === facts.guestContext && to === -1);

function placed(o: Observation, facts: ConfigurationFacts, name: string): Outcome {
  const guest = guestExits(o, facts);
  const others = rows(
    o.counts.exit,
    (_kind, _route, from) => from !== facts.guestContext && from !== facts.paravisorContext,
  );
  return both(
    outcome(guest > 0, `${guest} exits from ${name}`),
    outcome(
      others.length === 0,
      ...others.map(({ key, tally }) => `${tally.count} exits from context ${key[2] ?? '?'}`),
    ),
  );
}

const IO_APIC = 0xfec00000;
/** What a guest leaves its code for in any boot, and a paravisor deals with. */
const SERVED: readonly ExitKind[] = ['cpuid', 'msr', 'io', 'mmio', 'hlt'];
const FIRST_ALLOWED_HOST = new Set<number>([
  HOST_ACCESS.clear,
  HOST_ACCESS.ciphertext,
  HOST_ACCESS.zeros,
  HOST_ACCESS.refused,
]);

const CHECKS: Readonly<Record<string, Check>> = {
  'data-protected': (o) => {
    const poisoned = count(o.counts.hostAccess, (_write, result) => !FIRST_ALLOWED_HOST.has(result));
    const secret = o.probes['secret'];
    return both(
      outcome(poisoned === 0, `${poisoned} host writes reached private memory`),
      outcome(
        secret !== undefined && secret.length === 0 && looked(o, 'secret') > 0,
        ...(secret === undefined
          ? ['no secret was looked for']
          : secret.length === 0
            ? [`a secret of the guest was in none of ${looked(o, 'secret')} pages that the host read`]
            : secret),
      ),
    );
  },
  cooperation: (o, facts) =>
    facts.technology === 'none'
      ? both(
          outcome(o.booted, 'user space reported'),
          line(o, /Isolation Config: Group A 0x[1-9a-f]|Memory Encryption Features active/, false),
        )
      : both(
          outcome(o.booted, o.booted ? 'user space reported' : 'user space did not report'),
          line(o, /Isolation Config: Group A/),
        ),
  'processor-matches': (_o, facts, { refusals }) => refused(refusals, `processor ${facts.name}`),
  'no-lesser-encryption': (o, _facts, { refusals }) =>
    both(
      refused(refusals, 'configuration sme'),
      refused(refusals, 'configuration sev'),
      refused(refusals, 'configuration sev-es'),
      outcome(
        Object.entries(o.cpuid).every(
          ([key, [eax]]) => !key.startsWith(`${0x8000001f} `) || (eax & 0x1b) === 0 || (eax & 0x10) !== 0,
        ),
        'CPUID 0x8000001F never shows SME, SEV or SEV-ES without SEV-SNP',
      ),
    ),
  'kind-fixed': (_o, facts, { refusals }) => refused(refusals, `kind ${facts.name}`),
  'mode-fixed': (_o, facts, { refusals }) => refused(refusals, `mode ${facts.name}`),
  'enlightened-manages': (o, facts) => {
    const snp = facts.technology === 'snp';
    const own = operations(
      o,
      facts.guestContext,
      snp ? PRIVILEGED_OPERATION.pvalidate : PRIVILEGED_OPERATION.accept,
    );
    return outcome(own > 0, `${own} ${snp ? 'PVALIDATE' : 'page accepts'} by the guest`);
  },
  'paravisor-provides': (o, facts) => {
    const served = rows(
      o.counts.exit,
      (_kind, _route, from, to) => from === facts.guestContext && to === facts.paravisorContext,
    );
    const kinds = new Map<string, number>();
    for (const { key, tally } of served) {
      const name = EXIT_KINDS[key[0] as number] ?? String(key[0]);
      kinds.set(name, (kinds.get(name) ?? 0) + tally.count);
    }
    const missing = SERVED.filter((kind) => !kinds.has(kind));
    return outcome(
      missing.length === 0,
      missing.length === 0
        ? `exits of the guest to the paravisor: ${[...kinds].map(([kind, times]) => `${kind} ${times}`).join(', ')}`
        : `no exit of the guest for ${missing.join(', ')} went to the paravisor`,
    );
  },
  spectrum: (o) => {
    const far = o.probes['far-end'];
    return outcome(far !== undefined && far.length > 0, ...(far ?? ['the far end was not booted']));
  },
  'paravisor-in-guest-domain': (_o, facts, { refusals }) =>
    both(
      refused(refusals, `guest into paravisor ${facts.name}`),
      refused(refusals, `host into paravisor ${facts.name}`),
    ),
  'host-protects-itself': (_o, facts, { refusals }) => refused(refusals, `malformed requests ${facts.name}`),
  'snp-placement': (o, facts) => placed(o, facts, facts.placement),
  'tdx-placement': (o, facts) => placed(o, facts, facts.placement),
  'privileged-operations': (o, facts) => {
    const done = count(
      o.counts.privilegedOperation,
      (_op, status, c) => c === facts.guestContext && status === 0,
    );
    return outcome(
      done === 0,
      `${done} PVALIDATE, RMPADJUST, page accepts or page-state requests by the guest`,
    );
  },
  vtom: (o) => line(o, /SEV: Status:.*vTom/),
  'isolation-leaf': (o, facts) => {
    const expected = LEAVES[o.configuration];
    if (expected !== undefined)
      return both(
        // With a CPUID page the guest never asks the host: then the kernel's own line is what there is.
        ...(o.cpuid[`${0x4000000c} 0`] === undefined && facts.technology === 'snp'
          ? []
          : [leaf(o, ...expected)]),
        line(o, new RegExp(`Isolation Config: Group A ${hex(expected[0])}, Group B ${hex(expected[1])}`)),
      );
    const answer = o.cpuid[`${0x4000000c} 0`];
    return outcome(
      answer === undefined || (answer[1] & 0xf) === 0,
      answer === undefined ? 'the isolation leaf is not offered' : `isolation type ${answer[1] & 0xf}`,
    );
  },
  'one-image': (_o, _facts, { boots }) => {
    const images = new Set([...boots.values()].map(({ kernelSha256 }) => kernelSha256));
    return outcome(
      images.size === 1,
      `kernel SHA-256 ${[...images].join(', ')} in ${[...boots.keys()].join(', ')}`,
    );
  },
  'memory-set-up': (o, facts) => {
    const paravisor = facts.paravisorContext ?? -2;
    const prepare = facts.technology === 'snp' ? PRIVILEGED_OPERATION.pvalidate : PRIVILEGED_OPERATION.accept;
    const before = rows(
      o.counts.privilegedOperation,
      (op, status, c) => op === prepare && status === 0 && c === paravisor,
    );
    const firstSetUp = Math.min(...before.map(({ tally }) => tally.first));
    const firstGuest = Math.min(
      ...rows(o.counts.exit, (_kind, _route, from) => from === facts.guestContext).map(
        ({ tally }) => tally.first,
      ),
    );
    const guest = operations(o, facts.guestContext, prepare);
    return both(
      outcome(
        before.length > 0,
        `${count(o.counts.privilegedOperation, (op, s, c) => op === prepare && s === 0 && c === paravisor)} pages or blocks set up by the paravisor`,
      ),
      outcome(
        firstSetUp <= firstGuest,
        `the first at ${firstSetUp} ns, the guest's first exit at ${firstGuest} ns`,
      ),
      outcome(guest === 0, `${guest} set up by the guest`),
    );
  },
  'exception-routing': (o, facts) => {
    const guest = exceptionsIn(o, facts.guestContext);
    const name = facts.technology === 'snp' ? '#VC' : '#VE';
    if (!facts.paravisor) return outcome(guest > 0, `${guest} ${name} through the guest's IDT`);
    const served = count(
      o.counts.exit,
      (_kind, _route, from, to) => from === facts.guestContext && to === facts.paravisorContext,
    );
    return both(
      outcome(guest === 0, `${guest} ${name} through the guest's IDT`),
      outcome(served > 0, `${served} exits of the guest to the paravisor`),
    );
  },
  'cpuid-flags': (o, facts) => {
    const seen = flags(o).filter((flag) => TECHNOLOGY_FLAGS.test(flag));
    const text =
      seen.length === 0
        ? 'no sev, sme or tdx flag in /proc/cpuinfo'
        : `flags ${seen.join(' ')} in /proc/cpuinfo`;
    if (facts.paravisor) return outcome(flags(o).length > 1 && seen.length === 0, text);
    // Linux clears sev_snp in a guest, where it would mean the host's part of SNP.
    const wanted = facts.technology === 'snp' ? /^sev/ : /^tdx_guest$/;
    return outcome(
      seen.some((flag) => wanted.test(flag)),
      text,
    );
  },
  'platform-has': (o, facts) =>
    line(
      o,
      facts.technology === 'tdx'
        ? /Memory Encryption Features active: Intel TDX$/
        : facts.paravisor
          ? /Memory Encryption Features active: AMD SEV$/
          : /Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP/,
    ),
  'private-mmio': (o, facts) => {
    const privately = count(o.counts.mmioRoute, (page, how) => page === IO_APIC && how === 1);
    const shared = count(o.counts.mmioRoute, (page, how) => page === IO_APIC && how === 0);
    return outcome(
      facts.paravisor ? privately > 0 && shared === 0 : shared > 0 && privately === 0,
      `${privately} private and ${shared} shared references to the IO-APIC`,
    );
  },
  transitions: (o, facts) => {
    const calls = count(o.counts.visibility, () => true);
    if (facts.paravisor) return outcome(calls > 0, `${calls} visibility calls to the paravisor`);
    // The host sees that a MapGPA came from the TD, and the module alone from which VM of it.
    const requests =
      operations(o, facts.guestContext, PRIVILEGED_OPERATION.pageStateChange) +
      operations(o, facts.guestContext, PRIVILEGED_OPERATION.mapGpa) +
      operations(o, -1, PRIVILEGED_OPERATION.mapGpa);
    return both(
      outcome(requests > 0, `${requests} page-state requests by the guest`),
      outcome(calls === 0, `${calls} visibility calls`),
    );
  },
  'interrupt-mediation': (o, facts) => {
    const legal = count(
      o.counts.injection,
      (_v, _t, result, c) => c === facts.guestContext && result === INJECTION_OUTCOME.delivered,
    );
    const illegal = count(
      o.counts.injection,
      (_v, _t, result, c) => c === facts.guestContext && result === INJECTION_OUTCOME.illegal,
    );
    return both(
      outcome(illegal === 0, `${illegal} events against IF, a shadow or the task priority`),
      outcome(legal > 0, `${legal} legal events delivered`),
    );
  },
  'interrupt-exposure': (o, facts) => {
    const all = count(o.counts.injection, (_v, _t, _r, c) => c === facts.guestContext);
    return outcome(all > 0, `${all} injections by the host into VMPL0 recorded`);
  },
  'hypercalls-direct': (o, facts) =>
    routed(o, facts, (to, relayed) => to === -1 && relayed === 0, 'straight to the host'),
  'hypercalls-trap': (o, facts) => {
    const trapped = rows(
      o.counts.hypercallRoute,
      (_code, from, to) => from === facts.guestContext && to === facts.paravisorContext,
    );
    return outcome(
      trapped.length > 0,
      trapped.length === 0 ? 'no hypercall reached the paravisor' : `to the paravisor: ${codes(trapped)}`,
    );
  },
  'hypercalls-bypass': (o, facts) => {
    const direct = rows(
      o.counts.hypercallRoute,
      (_code, from, to) => from === facts.guestContext && to === -1,
    );
    const allowed = new Set<number>([CALL.postMessage, CALL.signalEvent]);
    return both(
      outcome(
        direct.some(({ key }) => key[0] === CALL.postMessage),
        direct.length === 0 ? 'no hypercall went straight' : `straight to the host: ${codes(direct)}`,
      ),
      outcome(
        direct.every(({ key }) => allowed.has(key[0] as number)),
        'only post-message and signal-event may go straight',
      ),
    );
  },
  'shared-accounted': (o) => {
    const { reasons, unknown } = accountFor(o);
    return outcome(
      unknown.length === 0,
      ...(unknown.length === 0
        ? reasons.map(({ reason, pages }) => `${pages} pages: ${reason}`)
        : [
            `${unknown.reduce((sum, { pages }) => sum + pages, 0)} shared pages without a reason: ${unknown
              .slice(0, 8)
              .map(({ gpa, pages, site }) => `${hex(gpa)}+${pages} by ${site}`)
              .join(' ')}`,
          ]),
    );
  },
  'monitor-pages': (o) => sharedAs(o, 'VMBus monitor page'),
  'synic-pages': (o, facts) =>
    facts.paravisor ? notSharedAs(o, 'SynIC') : sharedAs(o, 'SynIC message page'),
  'hypercall-pages': (o, facts) =>
    facts.paravisor ? notSharedAs(o, 'hypercall input page') : sharedAs(o, 'hypercall input page'),
  'instructions-hidden': (o) => {
    const code = o.probes['code-visible'];
    const times = looked(o, 'code-visible');
    return outcome(
      code !== undefined && code.length === 0 && times > 0,
      ...(code === undefined || times === 0
        ? ['no exit was looked at']
        : code.length === 0
          ? [`at none of ${times} exits could the host read the instruction`]
          : code),
    );
  },
  'not-present-window': (o) => {
    const mapped = o.probes['transition-mapped'];
    const pages = looked(o, 'transition-mapped');
    const again = looked(o, 'transition-restored');
    return both(
      outcome(
        mapped !== undefined && mapped.length === 0 && pages > 0,
        ...(mapped === undefined || pages === 0
          ? ['no page table was looked at']
          : mapped.length === 0
            ? [`none of ${pages} pages was mapped while it changed hands, in either alias`]
            : mapped),
      ),
      outcome(again > 0, `${again} shared pages were mapped again at the end`),
    );
  },
  'padding-zeroed': (o) => {
    const padding = o.probes['padding'];
    const times = looked(o, 'padding');
    return outcome(
      padding !== undefined && padding.length === 0 && times > 0,
      ...(padding === undefined || times === 0
        ? ['no message was looked at']
        : padding.length === 0
          ? [`${times} messages and monitor pages had zeros where they had no data`]
          : padding),
    );
  },
  'parts-enumerated': (_o, facts, { refusals }) => refused(refusals, `parts ${facts.name}`),
};

function refused(refusals: Findings['refusals'], name: string): Outcome {
  const answer = refusals[name];
  return outcome(answer?.ok === true, answer?.answer ?? `${name}: was not tried`);
}

function codes(list: ReturnType<typeof rows>): string {
  const sums = new Map<number, number>();
  for (const { key, tally } of list)
    sums.set(key[0] as number, (sums.get(key[0] as number) ?? 0) + tally.count);
  return [...sums].map(([code, times]) => `${hex(code)} ${times} times`).join(', ');
}

function routed(
  o: Observation,
  facts: ConfigurationFacts,
  right: (to: number, relayed: number) => boolean,
  words: string,
): Outcome {
  const all = rows(o.counts.hypercallRoute, (_code, from) => from === facts.guestContext);
  const wrong = all.filter(({ key }) => !right(key[2] as number, key[3] as number));
  return both(
    outcome(all.length > 0, all.length === 0 ? 'no hypercall was made' : `${words}: ${codes(all)}`),
    outcome(wrong.length === 0, ...(wrong.length === 0 ? [] : [`otherwise: ${codes(wrong)}`])),
  );
}

function sharedAs(o: Observation, reason: string): Outcome {
  const pages = accountFor(o)
    .reasons.filter((entry) => entry.reason.startsWith(reason))
    .reduce((sum, entry) => sum + entry.pages, 0);
  return outcome(pages > 0, `${pages} shared pages: ${reason}`);
}
function notSharedAs(o: Observation, reason: string): Outcome {
  const { ok, evidence } = sharedAs(o, reason);
  return outcome(!ok, ...evidence);
}

/** The verdict on every statement in every configuration that was booted. */
export function judge(findings: Findings): readonly StatementResult[] {
  const results: StatementResult[] = [];
  for (const { id, configurations } of STATEMENTS)
    for (const [configuration, observation] of findings.boots) {
      const result = (verdict: Verdict, evidence: readonly string[]): void =>
        void results.push({ id, configuration, verdict, evidence });
      const missing = NOT_SHOWN[id];
      const check = CHECKS[id];
      if (!configurations.includes(configuration)) result('not-applicable', []);
      else if (missing !== undefined) result('not-shown', [missing]);
      else if (check === undefined)
        throw new Error(`statement ${id} has neither a check nor a reason for having none`);
      else {
        const { ok, evidence } = check(observation, FACTS[configuration], findings);
        result(ok ? 'shown' : 'failed', evidence);
      }
    }
  return results;
}
