import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { validateXML } from 'xmllint-wasm';
import { html } from './html.ts';
import { junit } from './junit.ts';
import { jsonReport, type MatrixReport } from './report.ts';
import { table } from './table.ts';

const HOSTILE =
  '</td></table><script>alert(1)</script>"\'&]]>\u001b[2J\u009b31m\u202e\ufffe\n::error::forged\n##[error]forged\nok 5 of 5 booted';

const report: MatrixReport = {
  kernel: { name: `vmlinuz${HOSTILE}`, sha256: 'ab' },
  boots: [
    {
      configuration: 'plain',
      outcome: 'booted',
      end: 'power-off',
      placement: 'ordinary VM',
      isolationLeaf: undefined,
      features: HOSTILE,
      vcpus: 1,
      exits: [{ route: 'guest > host', kind: 'io', count: 1200 }],
      pages: { private: 0, shared: 4 },
      pageMap: [
        { time: 0, shared: [0, 1] },
        { time: 1000, shared: [0.5, 1] },
      ],
      instructions: 1000,
      seconds: 1.5,
      lastWords: [],
    },
    {
      configuration: 'snp',
      outcome: 'died',
      end: HOSTILE,
      placement: 'VMPL0',
      isolationLeaf: { a: 0, b: 2 },
      features: '',
      vcpus: 1,
      exits: [
        { route: 'guest > host', kind: 'vmgexit', count: 7 },
        { route: 'guest > guest', kind: 'cpuid', count: 9 },
      ],
      pages: { private: 3, shared: 1 },
      pageMap: [],
      instructions: 10,
      seconds: 0.1,
      lastWords: [HOSTILE],
    },
  ],
  statements: [
    { id: 'cooperation', configuration: 'plain', verdict: 'shown', evidence: [HOSTILE] },
    { id: 'cooperation', configuration: 'snp', verdict: 'failed', evidence: [HOSTILE] },
    { id: 'ring-buffers', configuration: 'snp', verdict: 'not-shown', evidence: ['no devices'] },
    { id: 'vtom', configuration: 'snp', verdict: 'not-applicable', evidence: [] },
  ],
};

const SCHEMA = readFileSync(new URL('../../../test/schemas/junit.xsd', import.meta.url), 'utf8');

/** What libxml2 has against it. */
async function complaints(text: string): Promise<readonly string[]> {
  const { errors } = await validateXML({ xml: text, schema: SCHEMA });
  return errors.map(({ message }) => message);
}

describe('junit', () => {
  test('keeps to the schema whatever a guest writes', async () => {
    const text = junit(report);
    expect(await complaints(text)).toEqual([]);
    expect(text).not.toContain('\u001b');
    expect(text).not.toMatch(/^\s*(::|##\[|##vso\[)/m);
    // No guest text is a case, a verdict or an attribute.
    expect(text.match(/<testcase /g)?.length).toBe(5);
    expect(text.match(/<failure /g)?.length).toBe(2);
  });
  test('a report that does not keep to the schema is told from one that does', async () => {
    const text = junit(report);
    expect(await complaints(text.replace(' tests="2"', ''))).not.toEqual([]);
    expect(await complaints(text.replace('</testcase>', ''))).not.toEqual([]);
    expect(await complaints(text.replace('<testcase', '<verdict/><testcase'))).not.toEqual([]);
  });
  test('counts tests, failures and skips of each suite', () => {
    const text = junit(report);
    expect(text).toContain('<testsuite name="plain" tests="2" failures="0" errors="0" skipped="0"');
    expect(text).toContain('<testsuite name="snp" tests="3" failures="2" errors="0" skipped="1"');
    expect(text).toContain('<testsuites name="vitrine matrix" tests="5" failures="2"');
  });
});

describe('html', () => {
  test('holds no markup of a guest', () => {
    const page = html(report);
    expect(page).not.toContain('<script');
    expect(page).not.toContain('\u001b');
    expect(page).not.toMatch(/^\s*(::|##\[|##vso\[)/m);
    expect(page.match(/<\/table>/g)?.length).toBe(page.match(/<table[ >]/g)?.length);
  });
  test('shows each configuration with its picture and its exits', () => {
    const page = html(report);
    for (const name of ['plain', 'snp']) expect(page).toContain(`aria-label="exits of ${name}"`);
    expect(page).toContain('shared pages of plain over time');
    expect(page).toContain('1200');
  });
});

describe('table', () => {
  test('a guest forges neither a control sequence nor a workflow command nor a verdict line', () => {
    const text = table(report);
    expect(text).not.toContain('\u001b');
    expect(text).not.toMatch(/^\s*::/m);
    expect(text.split('\n').at(-2)).toBe('1 of 2 booted; statements: 1 shown, 1 failed, 1 not shown');
    expect(text).not.toMatch(/^ok 5 of 5/m);
  });
});

describe('jsonReport', () => {
  test('is the report, with nothing in it that a terminal or a CI log obeys', () => {
    const text = jsonReport(report);
    expect(JSON.parse(text)).toEqual(report);
    expect(text).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]/);
    expect(text).not.toMatch(/^\s*(::|##\[|##vso\[)/m);
  });
});
