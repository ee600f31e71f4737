import { describe, expect, test } from 'vitest';
import expectedList from '../kernel-warnings.json' with { type: 'json' };
import { compareWarnings, warnings, type ExpectedWarning } from './warnings.ts';

const DMESG = `<6>[    0.000000] Linux version 6.12
<4>[    0.066727] a warning
<3>[    0.1] an error
<12>[    1.0] of a user program
<5>notice without time
`;
const of = { configuration: 'plain', release: '6.12.1', model: 'EPYC-Milan' };
const entry = (line: string, more: Partial<ExpectedWarning> = {}): ExpectedWarning => ({
  configuration: 'plain',
  kernel: '^6\\.12',
  line,
  reason: 'r',
  ...more,
});

test('warnings takes levels 0 to 4, whatever the facility', () => {
  expect(warnings(DMESG)).toEqual(['a warning', 'an error', 'of a user program']);
});

describe('compareWarnings', () => {
  const rest = [entry('^an error$'), entry('^of a user program$')];

  test('is content when every message has its entry and every entry its message', () => {
    expect(compareWarnings(DMESG, of, [entry('^a warning$'), ...rest])).toEqual([]);
  });

  test.for([
    ['a message without an entry', rest, 'not in the list: a warning'],
    [
      'an entry of another configuration',
      [entry('a warning', { configuration: 'snp' }), ...rest],
      'not in the list: a warning',
    ],
    [
      'an entry of another kernel',
      [entry('a warning', { kernel: '^6\\.1\\.' }), ...rest],
      'not in the list: a warning',
    ],
    [
      'an entry of another processor',
      [entry('a warning', { model: 'x' }), ...rest],
      'not in the list: a warning',
    ],
    ['an entry without a message', [entry('a warning'), entry('missing'), ...rest], 'did not come: missing'],
    [
      'a message that comes too often',
      [entry('^a warning$'), entry('^an? '), ...rest],
      'came 2 times: ^an? ',
    ],
  ] as const)('%s is said', ([, list, sentence]) => {
    expect(compareWarnings(DMESG, of, list)).toEqual([sentence]);
  });
});

test('every entry of the committed list has a reason', () => {
  expect(expectedList.length).toBeGreaterThan(0);
  for (const { reason } of expectedList) expect(reason.length).toBeGreaterThan(5);
});
