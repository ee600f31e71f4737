import { describe, expect, test } from 'vitest';
import { HOST_ACCESS, INJECTION_OUTCOME, PAGE_USE, PRIVILEGED_OPERATION as OP } from '../../abi/events.ts';
import { CALL } from '../../abi/hyperv/hypercall.ts';
import { EXIT_KINDS, EXIT_ROUTES } from '../../abi/exit-kinds.ts';
import { judge } from './checks.ts';
import type { ConfigurationName } from '../../machine/facts.ts';
import { goodFindings, type Mutable } from './good-observations.ts';
import type { Observation } from './observation.ts';
import type { Refusals } from './refusals.ts';
import { NOT_SHOWN, STATEMENTS } from './statements.ts';

type Break = (o: Mutable<Observation>, refusals: Refusals) => void;

const seen = { count: 1, first: 1500, last: 1500 };
const drop =
  (pattern: RegExp): Break =>
  (o) => {
    o.said['dmesg'] = (o.said['dmesg'] ?? []).filter((line) => !pattern.test(line));
  };
const unrefused =
  (name: string): Break =>
  (_o, refusals) => {
    refusals[name] = { ok: false, answer: 'done' };
  };
const event =
  (counts: keyof Observation['counts'], key: string): Break =>
  (o) => {
    o.counts[counts][key] = seen;
  };
const forget =
  (counts: keyof Observation['counts'], pattern: RegExp): Break =>
  (o) => {
    for (const key of Object.keys(o.counts[counts])) if (pattern.test(key)) delete o.counts[counts][key];
  };
const unshare =
  (gpa: number): Break =>
  (o) => {
    o.sharedRuns = o.sharedRuns.flatMap((run) =>
      Array.from({ length: run.pages }, (_, k) => ({ gpa: run.gpa + k * 4096, pages: 1 })).filter(
        (page) => page.gpa !== gpa,
      ),
    );
  };
const share =
  (gpa: number, use?: number): Break =>
  (o) => {
    o.sharedRuns.push({ gpa, pages: 1 });
    if (use !== undefined) o.counts.pageUse[`${gpa} ${use} 0`] = seen;
  };
const probe =
  (name: string): Break =>
  (o) => {
    o.probes[name] = ['at 0x1000'];
  };

const io = EXIT_KINDS.indexOf('io');
const toContext = EXIT_ROUTES.indexOf('context');
const toHost = EXIT_ROUTES.indexOf('host');

/** For each statement: where it is broken, and how. The others must hold. */
const BREAKS: Readonly<Record<string, readonly [ConfigurationName, Break]>> = {
  'data-protected': ['snp', probe('secret')],
  'processor-matches': ['tdx', unrefused('processor tdx')],
  'no-lesser-encryption': ['snp', (o) => void (o.cpuid[`${0x8000001f} 0`] = [2, 51])],
  'kind-fixed': ['plain', unrefused('kind plain')],
  'mode-fixed': ['snp', unrefused('mode snp')],
  'enlightened-manages': ['snp', forget('privilegedOperation', new RegExp(`^${OP.pvalidate} `))],
  'paravisor-provides': [
    'tdx-paravisor',
    (o) => {
      // Someone else did what the paravisor should have.
      o.counts.privilegedOperation = { [`${OP.accept} 0 0`]: { count: 0, first: 10, last: 10 } };
    },
  ],
  spectrum: ['snp-paravisor', (o) => delete o.probes['far-end']],
  'paravisor-in-guest-domain': ['snp-paravisor', unrefused('guest into paravisor snp-paravisor')],
  'host-protects-itself': ['tdx', unrefused('malformed requests tdx')],
  'snp-placement': ['snp-paravisor', event('exit', `${io} ${toHost} 1 -1`)],
  'privileged-operations': ['snp-paravisor', event('privilegedOperation', `${OP.rmpadjust} 0 2`)],
  vtom: ['snp-paravisor', drop(/vTom/)],
  'tdx-placement': ['tdx', event('exit', `${io} ${toContext} 2 0`)],
  'isolation-leaf': ['tdx', (o) => void (o.cpuid[`${0x4000000c} 0`] = [0, 2])],
  'one-image': ['tdx-paravisor', (o) => void (o.kernelSha256 = 'cd34')],
  'memory-set-up': [
    'snp-paravisor',
    (o) => {
      o.counts.privilegedOperation[`${OP.pvalidate} 0 0`] = { count: 900, first: 5000, last: 6000 };
    },
  ],
  'exception-routing': ['tdx-paravisor', event('confidentialException', '20 1')],
  'cpuid-flags': ['snp-paravisor', (o) => void (o.said['flags'] = ['fpu sev_snp'])],
  'platform-has': ['tdx', drop(/Memory Encryption Features/)],
  'private-mmio': ['tdx-paravisor', event('mmioRoute', `${0xfec00000} 0 -1`)],
  transitions: ['tdx-paravisor', event('privilegedOperation', `${OP.mapGpa} 0 1`)],
  'interrupt-mediation': ['snp-paravisor', event('injection', `128 0 ${INJECTION_OUTCOME.illegal} 2`)],
  'interrupt-exposure': ['snp', forget('injection', /./)],
  'hypercalls-direct': ['tdx', event('hypercallRoute', `${CALL.flushVirtualAddressSpace} 0 -1 1`)],
  'hypercalls-trap': ['snp-paravisor', forget('hypercallRoute', / 2 0 0$/)],
  'hypercalls-bypass': ['tdx-paravisor', event('hypercallRoute', `${CALL.flushVirtualAddressSpace} 1 -1 0`)],
  'shared-accounted': ['snp', share(0x40000)],
  'monitor-pages': ['tdx', unshare(0x10000)],
  'synic-pages': ['snp', unshare(0x11000)],
  'hypercall-pages': ['snp-paravisor', share(0x50000, PAGE_USE.hypercallInput)],
  'instructions-hidden': ['snp', probe('code-visible')],
  'not-present-window': ['snp-paravisor', probe('transition-mapped')],
};

/** Breaks that necessarily break these too: the same fact is part of them. */
const SHARED_FACTS: Readonly<Record<string, readonly string[]>> = {
  'one-image': ['one-image'],
  transitions: ['privileged-operations'],
};

describe('judge', () => {
  test('shows every statement that has a check when all holds', () => {
    const results = judge(goodFindings());
    expect(results.filter(({ verdict }) => verdict === 'failed')).toEqual([]);
    const shown = new Set(results.filter(({ verdict }) => verdict === 'shown').map(({ id }) => id));
    expect([...shown].sort()).toEqual(
      STATEMENTS.map(({ id }) => id)
        .filter((id) => NOT_SHOWN[id] === undefined)
        .sort(),
    );
  });

  test('calls only the committed statements not shown', () => {
    const missing = judge(goodFindings()).filter(({ verdict }) => verdict === 'not-shown');
    expect(new Set(missing.map(({ id }) => id))).toEqual(new Set(Object.keys(NOT_SHOWN)));
  });

  test('fails when a host write reaches private memory', () => {
    const findings = goodFindings();
    event('hostAccess', `1 ${HOST_ACCESS.poisoned}`)(
      findings.boots.get('tdx') as Mutable<Observation>,
      findings.refusals,
    );
    expect(
      judge(findings)
        .filter(({ verdict }) => verdict === 'failed')
        .map(({ id }) => id),
    ).toEqual(['data-protected']);
  });

  const checked = STATEMENTS.filter(({ id }) => NOT_SHOWN[id] === undefined && id !== 'cooperation');
  test.each(checked.map(({ id }) => id))('broken on purpose, %s fails and nothing else', (id) => {
    const [configuration, damage] = BREAKS[id] as (typeof BREAKS)[string];
    const findings = goodFindings();
    damage(findings.boots.get(configuration) as Mutable<Observation>, findings.refusals);
    const failed = judge(findings).filter(({ verdict }) => verdict === 'failed');
    expect(failed.some((result) => result.id === id)).toBe(true);
    expect(
      failed.filter((result) => result.id !== id && !(SHARED_FACTS[id] ?? []).includes(result.id)),
    ).toEqual([]);
  });

  test('a guest that never reports fails cooperation and one-image', () => {
    const findings = goodFindings();
    (findings.boots.get('tdx') as Mutable<Observation>).booted = false;
    const failed = judge(findings).filter(({ verdict }) => verdict === 'failed');
    expect(failed.map(({ id }) => id)).toEqual(['cooperation', 'one-image']);
  });
});

describe('STATEMENTS', () => {
  test('covers each paragraph of coco.rst', () => {
    const paragraphs: Readonly<Record<string, number>> = {
      intro: 9,
      modes: 9,
      effects: 6,
      hypercalls: 1,
      communication: 10,
      zeropad: 3,
    };
    for (const [section, count] of Object.entries(paragraphs)) {
      const covered = new Set(
        STATEMENTS.flatMap(({ where }) => {
          const [, name, from, to] = /^(\w+) (\d+)(?:-(\d+))?$/.exec(where) ?? [];
          if (name !== section) return [];
          return Array.from({ length: Number(to ?? from) - Number(from) + 1 }, (_, k) => Number(from) + k);
        }),
      );
      expect([section, [...covered].sort((a, b) => a - b)]).toEqual([
        section,
        Array.from({ length: count }, (_, k) => k + 1),
      ]);
    }
    expect(STATEMENTS.length).toBe(new Set(STATEMENTS.map(({ id }) => id)).size);
  });
});
