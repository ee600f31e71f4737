import { expect, test } from 'vitest';
import { readConfiguration } from './configuration.ts';
import { UserError } from './errors.ts';

test('readConfiguration gives back what a report holds, without where results went', () => {
  const configuration = {
    configuration: 'plain',
    cpus: 4,
    seed: '18446744073709551615',
    add: ['a:b'],
    hyperv: false,
    json: 'x.json',
  };
  const expected = {
    configuration: 'plain',
    cpus: 4,
    seed: 18446744073709551615n,
    add: ['a:b'],
    hyperv: false,
  };
  expect(readConfiguration(JSON.stringify({ configuration, status: 0 }), 'f')).toEqual(expected);
  expect(readConfiguration(JSON.stringify(configuration), 'f')).toEqual(expected);
});

test.each([
  '',
  '[]',
  '3',
  '{}',
  '{"cpus":"4"}',
  '{"cpus":0}',
  '{"seed":"-1"}',
  '{"seed":"18446744073709551616"}',
  '{"add":[1]}',
  '{"memory":1.5}',
])('readConfiguration refuses %s in a sentence', (text) =>
  expect(() => readConfiguration(text, 'f')).toThrow(UserError),
);
