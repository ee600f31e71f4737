import { describe, expect, test } from 'vitest';
import { type CpuModel, cpuModels, cr4Allowed, nativeCpuid } from './cpuid.ts';
import type { Feature } from './defs/def.ts';
import { CR4 } from './registers.ts';

const NO_STATE = { cr4: 0, xcr0: 1, xss: 0 };
const without = (model: CpuModel, feature: Feature): CpuModel => ({
  ...model,
  features: new Set([...model.features].filter((name) => name !== feature)),
});

/** Feature, leaf, register, bit, and the CR4 bit that goes with it: AMD APM vol. 3 appendix E, Intel SDM vol. 2 CPUID. */
const BITS = [
  ['pcid', 1, 'ecx', 17, CR4.PCIDE],
  ['xsave', 1, 'ecx', 26, CR4.OSXSAVE],
  ['smap', 7, 'ebx', 20, CR4.SMAP],
  ['pku', 7, 'ecx', 3, CR4.PKE],
  ['pks', 7, 'ecx', 31, CR4.PKS],
  ['lahf', 0x80000001, 'ecx', 0, 0],
  ['lzcnt', 0x80000001, 'ecx', 5, 0],
  ['syscall', 0x80000001, 'edx', 11, 0],
  ['rdtscp', 0x80000001, 'edx', 27, 0],
  ['long', 0x80000001, 'edx', 29, 0],
] as const;

describe.each(cpuModels())('$name', (model) => {
  test.each(BITS)('%s shows exactly when it is offered, and so does its bit of CR4', (...row) => {
    const [feature, leaf, register, bit, cr4] = row;
    const shown = (of: CpuModel): boolean =>
      ((nativeCpuid(of, NO_STATE, leaf, 0)[register] >>> bit) & 1) !== 0;
    expect(shown(model)).toBe(model.features.has(feature));
    expect(shown(without(model, feature))).toBe(false);
    if (cr4 !== 0) expect((cr4Allowed(model) & cr4) !== 0).toBe(model.features.has(feature));
    expect(cr4Allowed(without(model, feature)) & cr4).toBe(0);
  });
});

test('supervisor protection keys are Intel’s', () => {
  expect(
    cpuModels()
      .filter(({ features }) => features.has('pks'))
      .map(({ vendor }) => vendor),
  ).toEqual(['intel']);
});
