import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import type { BootOptions } from './boot.ts';
import { printedConfiguration, readConfiguration } from './configuration.ts';
import { UserError } from './errors.ts';

const options: BootOptions = {
  configuration: 'plain',
  kernel: 'some/bzImage',
  add: ['a:b', 'c'],
  append: 'quiet x="y"',
  memory: 2 ** 29,
  cpus: 4,
  cpuModel: 'EPYC-Milan',
  run: 'echo "ü"',
  limit: 10,
  timeout: 3,
  seed: 18446744073709551615n,
  date: 0,
  realtime: true,
  hyperv: false,
  hypervWithout: ['invariant-tsc'],
  paravisorWithout: ['dev.legacy'],
  hideIsolation: true,
  hashEvery: 7,
  engine: 'auto',
  json: 'x.json',
  gdbWait: true,
  offline: true,
  cacheDir: 'cache',
};

test('readConfiguration gives back what printedConfiguration printed, files by their whole path', () => {
  const { timeout, realtime, hashEvery, engine, json, gdbWait, offline, cacheDir, ...machine } = options;
  void [timeout, realtime, hashEvery, engine, json, gdbWait, offline, cacheDir];
  const expected = {
    ...machine,
    kernel: resolve('some/bzImage'),
    add: [`${resolve('a')}:b`, resolve('c')],
  };
  const printed = JSON.stringify(printedConfiguration(options, undefined));
  expect(readConfiguration(printed, 'f')).toEqual(expected);
  expect(readConfiguration(`{"configuration":${printed},"end":{}}`, 'f')).toEqual(expected);
});

test('printedConfiguration names the kernel package that was found', () => {
  const { kernel, ...rest } = options;
  void kernel;
  expect(printedConfiguration(rest, 'linux-image-x')).toMatchObject({ kernelPackage: 'linux-image-x' });
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
  '{"cpus":1,"cpu":2}',
])('readConfiguration refuses %s in a sentence', (text) =>
  expect(() => readConfiguration(text, 'f')).toThrow(UserError),
);
