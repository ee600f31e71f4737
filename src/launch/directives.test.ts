import { describe, expect, test } from 'vitest';
import { checkDirectives, eachPage, type Directive, type PagesDirective } from './directives.ts';
import { resetEntry } from './entry-state.ts';
import { pageRuns } from './image.ts';

const ram: Directive = { kind: 'region', gpa: 0, length: 0x10000, backing: 'ram' };

function pages(gpa: number, length: number, data = new Uint8Array(0)): PagesDirective {
  return { kind: 'pages', gpa, length, type: 'normal', measured: true, name: 'test', data };
}

describe('checkDirectives', () => {
  test('takes runs side by side', () => {
    expect(checkDirectives([ram, pages(0x1000, 0x1000), pages(0x2000, 0x1000)]).ok).toBe(true);
  });

  test.each([
    ['an unaligned run', [ram, pages(0x1001, 0x1000)], 'whole pages'],
    ['an empty run', [ram, pages(0x1000, 0)], 'whole pages'],
    ['a run outside RAM', [ram, pages(0xf000, 0x2000)], 'no region'],
    ['runs that overlap', [ram, pages(0x1000, 0x2000), pages(0x2000, 0x1000)], 'overlaps'],
    ['regions that overlap', [ram, { ...ram, gpa: 0x8000 }], 'overlaps'],
    ['too much data', [ram, pages(0x1000, 0x1000, new Uint8Array(0x1001))], '4097 bytes for 4096'],
    [
      'two contexts for a VP',
      [1, 2].map((): Directive => ({
        kind: 'context',
        vp: 0,
        activity: 'running',
        registers: resetEntry(0),
      })),
      'VP 0 has two contexts',
    ],
  ] as const)('refuses %s', (_, list, what) => {
    const outcome = checkDirectives(list);
    expect(outcome.ok).toBe(false);
    if (!outcome.ok) expect(outcome.error.what).toContain(what);
  });
});

test('eachPage pads the last page and goes on with zeros', () => {
  const seen: [number, number, number][] = [];
  eachPage(pages(0x3000, 0x3000, new Uint8Array(0x1001).fill(9)), (gpa, contents) => {
    expect(contents).toHaveLength(4096);
    seen.push([gpa, contents[0] ?? -1, contents[1] ?? -1]);
  });
  expect(seen).toEqual([
    [0x3000, 9, 9],
    [0x4000, 9, 0],
    [0x5000, 0, 0],
  ]);
});

describe('pageRuns', () => {
  test('keeps an aligned piece as a view of its file', () => {
    const file = new Uint8Array(0x3000);
    const outcome = pageRuns([{ gpa: 0x5000, bytes: file.subarray(0x800, 0x2000), name: 'a' }]);
    if (!outcome.ok) throw new Error('refused');
    expect(outcome.pages[0]?.data.buffer).toBe(file.buffer);
    expect(outcome.pages[0]?.length).toBe(0x2000);
  });

  test('joins pieces that share a page', () => {
    const outcome = pageRuns([
      { gpa: 0x1ff0, bytes: Uint8Array.of(2, 3), name: 'b' },
      { gpa: 0x1010, bytes: Uint8Array.of(1), name: 'a' },
      { gpa: 0x3000, bytes: Uint8Array.of(4), name: 'c' },
    ]);
    if (!outcome.ok) throw new Error('refused');
    expect(outcome.pages.map(({ gpa, length, name }) => [gpa, length, name])).toEqual([
      [0x1000, 0x1000, 'a+b'],
      [0x3000, 0x1000, 'c'],
    ]);
    const data = outcome.pages[0]?.data;
    expect([data?.[0x10], data?.[0xff0], data?.[0xff1]]).toEqual([1, 2, 3]);
  });

  test('names the pieces that overlap', () => {
    const outcome = pageRuns([
      { gpa: 0x1000, bytes: new Uint8Array(0x11), name: 'a' },
      { gpa: 0x1010, bytes: new Uint8Array(1), name: 'b' },
    ]);
    expect(outcome).toMatchObject({ ok: false, first: { name: 'a' }, second: { name: 'b' } });
  });
});
