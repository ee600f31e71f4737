/** Kernel messages at warning level or worse in each configuration, with one and with four processors. */
import { expect, test } from 'vitest';
import { CONFIGURATIONS, findConfiguration } from '../../src/machine/configurations.ts';
import { cpuModels } from '../../src/x86/cpuid.ts';
import { vitrine, whyNoKernel } from '../e2e/vitrine.ts';
import { compareWarnings } from '../e2e/warnings.ts';

const missing = whyNoKernel();
const reason = missing === undefined ? '' : ` (skipped: ${missing})`;
const CASES = CONFIGURATIONS.flatMap(({ name }) => [1, 4].map((cpus) => [name, cpus] as const));

test.skipIf(missing !== undefined).for(CASES)(`%s with %i processors${reason}`, ([name, cpus]) => {
  const look = 'uname -r; nproc; dmesg -r';
  const ran = vitrine(['boot', name, '--offline', '--cpus', String(cpus), '--run', look]);
  expect(ran.status, ran.stderr).toBe(0);
  const [release = '', count, ...rest] = ran.stdout.toString().split('\n');
  expect(count).toBe(String(cpus));
  const vendor = findConfiguration(name)?.vendor;
  const model = cpuModels().find((candidate) => [undefined, candidate.vendor].includes(vendor))?.name ?? '';
  expect(compareWarnings(rest.join('\n'), { configuration: name, release, model })).toEqual([]);
});
