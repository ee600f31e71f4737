import { describe, expect, test } from 'vitest';
import { html } from './html.ts';
import { junit } from './junit.ts';
import type { MatrixReport } from './report.ts';
import { table } from './table.ts';

const HOSTILE = '</td></table><script>alert(1)</script>"\'&\u001b[2J\n::error::forged\nok 5 of 5 booted';

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

/** Enough of an XML reader to know whether tags nest: attributes quoted, no stray angle brackets or ampersands. */
function wellFormed(text: string): boolean {
  const open: string[] = [];
  const rest = text
    .replace(/<\?xml[^>]*\?>/, '')
    .replace(
      /<(\/?)([\w-]+)((?:\s+[\w-]+="[^"<]*")*)\s*(\/?)>/g,
      (_, close: string, name: string, _a, empty: string) => {
        if (close !== '') {
          if (open.pop() !== name) throw new Error(`</${name}> closes nothing`);
        } else if (empty === '') open.push(name);
        return '';
      },
    );
  return open.length === 0 && !/[<>]/.test(rest) && !/&(?!(amp|lt|gt|quot|#39);)/.test(rest);
}

describe('junit', () => {
  test('is well-formed XML whatever a guest writes', () => {
    const text = junit(report);
    expect(wellFormed(text)).toBe(true);
    expect(text).not.toContain('\u001b');
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
    expect(page.match(/<\/table>/g)?.length).toBe(page.match(/<table>/g)?.length);
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
