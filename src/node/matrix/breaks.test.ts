/**
 * Each property broken on purpose, in the recorded event stream of a real boot of each configuration: the statement fails in that
 * configuration, and no other statement does anywhere. `npm run record:matrix` makes the recordings.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  EVENT,
  HOST_ACCESS,
  INJECTION_OUTCOME,
  PAGE_STATE,
  PAGE_USE,
  PRIVILEGED_OPERATION as OP,
} from '../../abi/events.ts';
import { EXIT_KINDS, EXIT_ROUTES } from '../../abi/exit-kinds.ts';
import { CALL } from '../../abi/hyperv/hypercall.ts';
import {
  CONFIGURATION_NAMES,
  FACTS,
  type ConfigurationFacts,
  type ConfigurationName,
} from '../../machine/facts.ts';
import { judge } from './checks.ts';
import { replay, type RecordedEvent, type Recording } from './recording.ts';
import { refusalsOf, type Refusals } from './refusals.ts';
import { NOT_SHOWN, STATEMENTS } from './statements.ts';

const RECORDED = new Map(
  CONFIGURATION_NAMES.map((name): [ConfigurationName, Recording] => [
    name,
    JSON.parse(
      readFileSync(new URL(`../../../test/recorded/${name}.json`, import.meta.url), 'utf8'),
    ) as Recording,
  ]),
);
const OUTSIDE = refusalsOf(CONFIGURATION_NAMES);

/** What is recorded of one boot, and the answers of the machine to all of them. */
interface Case {
  readonly recording: Recording;
  readonly facts: ConfigurationFacts;
  readonly refusals: Refusals;
}
type Break = (given: Case) => Partial<Case>;

const event =
  (make: (facts: ConfigurationFacts) => RecordedEvent): Break =>
  ({ recording, facts }) => ({
    recording: { ...recording, events: [...recording.events, make(facts)] },
  });
const without =
  (where: (event: RecordedEvent, facts: ConfigurationFacts) => boolean): Break =>
  ({ recording, facts }) => ({
    recording: { ...recording, events: recording.events.filter((entry) => !where(entry, facts)) },
  });
const about =
  (change: (about: Recording['about'], facts: ConfigurationFacts) => Partial<Recording['about']>): Break =>
  ({ recording, facts }) => ({
    recording: { ...recording, about: { ...recording.about, ...change(recording.about, facts) } },
  });
const said = (section: string, change: (lines: readonly string[]) => readonly string[]): Break =>
  about(({ said: all }) => ({ said: { ...all, [section]: change(all[section] ?? []) } }));
const forget = (pattern: RegExp): Break =>
  said('dmesg', (lines) => lines.filter((line) => !pattern.test(line)));
const probe = (name: string): Break =>
  about(({ probes }) => ({ probes: { ...probes, [name]: ['found at 0x1000'] } }));
const done =
  (what: string, named = true): Break =>
  ({ refusals, facts }) => ({
    refusals: { ...refusals, [named ? `${what} ${facts.name}` : what]: { ok: false, answer: 'done' } },
  });
/** By mode: with a paravisor, without. */
const either =
  (paravisor: Break, enlightened: Break): Break =>
  (given) =>
    (given.facts.paravisor ? paravisor : enlightened)(given);

const at = (type: number, a: number, b: number, c: number, d: number): RecordedEvent => [
  type,
  3_000_000_000,
  a,
  b,
  c,
  d,
];
const PAGE = 4096;
/** A page that no kernel of these boots shares, in the middle of its memory. */
const LEAKED = 0x800_0000;
const share = (use?: number): Break => {
  return ({ recording }) => ({
    recording: {
      ...recording,
      events: [
        ...recording.events,
        at(EVENT.pageState, LEAKED, 1, PAGE_STATE.shared, -1),
        ...(use === undefined ? [] : [at(EVENT.pageUse, LEAKED, use, 0, 0)]),
      ],
    },
  });
};
/** Every page that the host used so is private after all, and somebody else's page stays in its place. */
const unshare =
  (use: number): Break =>
  ({ recording }) => ({
    recording: {
      ...recording,
      events: [
        ...recording.events,
        ...recording.events
          .filter(([type, , , used]) => type === EVENT.pageUse && used === use)
          .map(([, , gpa]) => at(EVENT.pageState, (gpa % 2 ** 40) - (gpa % PAGE), 1, PAGE_STATE.private, -1)),
      ],
    },
  });

const kind = (name: (typeof EXIT_KINDS)[number]): number => EXIT_KINDS.indexOf(name);
const IO_APIC = 0xfec00000;

const BREAKS: Readonly<Record<string, Break>> = {
  'data-protected': event(() => at(EVENT.hostAccess, LEAKED, 8, 1, HOST_ACCESS.poisoned)),
  cooperation: about(() => ({ booted: false })),
  'processor-matches': done('processor'),
  'no-lesser-encryption': done('configuration sev', false),
  'kind-fixed': done('kind'),
  'mode-fixed': done('mode'),
  'enlightened-manages': without(
    ([type, , operation]) =>
      type === EVENT.privilegedOperation && (operation === OP.pvalidate || operation === OP.accept),
  ),
  'paravisor-provides': without(
    ([type, , exit, , from], { guestContext }) =>
      type === EVENT.exit && exit === kind('msr') && from === guestContext,
  ),
  spectrum: about(({ probes }) => ({ probes: { ...probes, 'far-end': [] } })),
  'parts-enumerated': done('parts'),
  'paravisor-in-guest-domain': done('host into paravisor'),
  'host-protects-itself': done('malformed requests'),
  'snp-placement': event(() => at(EVENT.exit, kind('io'), EXIT_ROUTES.indexOf('host'), 1, -1)),
  'tdx-placement': event(() => at(EVENT.exit, kind('io'), EXIT_ROUTES.indexOf('host'), 2, -1)),
  'privileged-operations': event(({ guestContext }) =>
    at(EVENT.privilegedOperation, OP.attributeWrite, LEAKED, 0, guestContext),
  ),
  vtom: forget(/vTom/),
  'isolation-leaf': (given) =>
    (given.facts.technology === 'none'
      ? event(() => at(EVENT.cpuid, 0x4000000c, 0, 0, 2))
      : said('dmesg', (lines) => lines.map((line) => line.replace(/Group B 0x\w+/, 'Group B 0x1'))))(given),
  'one-image': about(() => ({ kernelSha256: 'of another image' })),
  'memory-set-up': ({ recording, facts }) => ({
    recording: {
      ...recording,
      events: recording.events.map((entry) =>
        entry[0] === EVENT.privilegedOperation && entry[5] === facts.paravisorContext
          ? [entry[0], 3e9, entry[2], entry[3], entry[4], entry[5]]
          : entry,
      ),
    },
  }),
  'exception-routing': either(
    event(({ technology, guestContext }) =>
      at(EVENT.confidentialException, technology === 'snp' ? 29 : 20, 0x72, guestContext, 0),
    ),
    without(([type]) => type === EVENT.confidentialException),
  ),
  'cpuid-flags': either(
    said('flags', ([line]) => [`${line ?? ''} sev_es`]),
    said('flags', ([line]) => [(line ?? '').replaceAll(/\b(sev\w*|tdx_guest)\b/g, '')]),
  ),
  'platform-has': forget(/Memory Encryption Features/),
  'private-mmio': either(
    event(() => at(EVENT.mmioRoute, IO_APIC, 0, 0, -1)),
    event(() => at(EVENT.mmioRoute, IO_APIC, 1, 0, -1)),
  ),
  transitions: either(
    without(([type]) => type === EVENT.visibility),
    event(() => at(EVENT.visibility, LEAKED, 1, 1, 0)),
  ),
  'interrupt-mediation': event(({ guestContext }) =>
    at(EVENT.injection, 128, 0, INJECTION_OUTCOME.illegal, guestContext),
  ),
  'interrupt-exposure': without(([type]) => type === EVENT.injection),
  'hypercalls-direct': event(({ guestContext }) =>
    at(EVENT.hypercallRoute, CALL.flushVirtualAddressSpace, guestContext, -1, 1),
  ),
  'hypercalls-trap': without(([type, , , , to]) => type === EVENT.hypercallRoute && to !== -1),
  'hypercalls-bypass': event(({ guestContext }) =>
    at(EVENT.hypercallRoute, CALL.flushVirtualAddressSpace, guestContext, -1, 0),
  ),
  'shared-accounted': share(),
  'monitor-pages': unshare(PAGE_USE.monitor),
  'synic-pages': either(share(PAGE_USE.synicMessages), unshare(PAGE_USE.synicMessages)),
  'hypercall-pages': either(share(PAGE_USE.hypercallInput), unshare(PAGE_USE.hypercallInput)),
  'padding-zeroed': probe('padding'),
  'instructions-hidden': probe('code-visible'),
  'not-present-window': probe('transition-mapped'),
};

function verdicts(broken?: ConfigurationName, damage?: Break) {
  const refusals: Refusals = Object.assign({}, OUTSIDE, ...[...RECORDED.values()].map((r) => r.refusals));
  const recordings = new Map(RECORDED);
  let answers = refusals;
  const recording = broken === undefined ? undefined : recordings.get(broken);
  if (broken !== undefined && recording !== undefined && damage !== undefined) {
    const changed = damage({ recording, facts: FACTS[broken], refusals });
    recordings.set(broken, changed.recording ?? recording);
    answers = changed.refusals ?? refusals;
  }
  return judge({
    boots: new Map([...recordings].map(([name, entry]) => [name, replay(entry)])),
    refusals: answers,
  });
}

test('what was recorded shows every statement that has a check', () => {
  const results = verdicts();
  expect(results.filter(({ verdict }) => verdict === 'failed')).toEqual([]);
  expect(
    [...new Set(results.filter(({ verdict }) => verdict === 'shown').map(({ id }) => id))].sort(),
  ).toEqual(
    STATEMENTS.map(({ id }) => id)
      .filter((id) => NOT_SHOWN[id] === undefined)
      .sort(),
  );
});

test('only the committed statements are not shown', () => {
  const missing = verdicts().filter(({ verdict }) => verdict === 'not-shown');
  expect(new Set(missing.map(({ id }) => id))).toEqual(new Set(Object.keys(NOT_SHOWN)));
});

/** Facts of the whole set: they fail wherever they are looked at. */
const OF_ALL = ['one-image', 'no-lesser-encryption'];

describe.each(
  STATEMENTS.filter(({ id }) => NOT_SHOWN[id] === undefined).map((entry) => [entry.id, entry] as const),
)('broken on purpose, %s', (id, { configurations }) => {
  test.each(configurations)('fails in %s, and nothing else does', (configuration) => {
    const damage = BREAKS[id];
    expect(damage).toBeDefined();
    const failed = verdicts(configuration, damage).filter(({ verdict }) => verdict === 'failed');
    expect(failed.map((result) => result.id).filter((other) => other !== id)).toEqual([]);
    expect(failed.map((result) => result.configuration)).toContain(configuration);
    if (!OF_ALL.includes(id)) expect(failed.map((result) => result.configuration)).toEqual([configuration]);
  });
});
