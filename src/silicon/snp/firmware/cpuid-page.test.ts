import { describe, expect, it } from 'vitest';
import { PAGE_TYPE, STATUS } from '../../../abi/snp/firmware.ts';
import { cpuidFunction, cpuidPage } from '../../../abi/snp/launch.ts';
import type { CpuidRegisters } from './cpuid-page.ts';
import { createContext } from './guest-context.ts';
import { launchStart, launchUpdate } from './launch.ts';
import { platform, POLICY_VALUE, nothing } from './test-guest.ts';

describe('checkCpuidPage', () => {
  const CHIP: Readonly<Record<string, CpuidRegisters>> = {
    '0,0': { eax: 0x10, ebx: 1, ecx: 2, edx: 3 },
    '1,0': { eax: 0x00a00f11, ebx: 0x00010800, ecx: 0x40000001, edx: 0xff },
    '13,0': { eax: 0x207, ebx: 0x340, ecx: 0x988, edx: 0 },
    '13,2': { eax: 0x100, ebx: 0x240, ecx: 0, edx: 0 },
    '13,9': { eax: 8, ebx: 0x980, ecx: 0, edx: 0 },
    '13,1': { eax: 0xf, ebx: 0, ecx: 0, edx: 0 },
    [`${0x8000001f},0`]: { eax: 0x1a, ebx: 51 | (4 << 12), ecx: 0, edx: 0 },
  };
  const chip = (leaf: number, subleaf: number): CpuidRegisters => CHIP[`${leaf},${subleaf}`] ?? nothing();
  const page = (...functions: Partial<ReturnType<typeof cpuidFunction.read>>[]): Uint8Array => {
    const made = new Uint8Array(4096);
    cpuidPage.write({ count: functions.length }, made);
    functions.forEach((values, i) => cpuidFunction.write(values, made, 16 + 48 * i));
    return made;
  };
  const submit = (made: Uint8Array) => {
    const context = createContext(platform, 0);
    launchStart(context, { policy: POLICY_VALUE });
    return launchUpdate(platform, context, { type: PAGE_TYPE.cpuid, gpa: 0, contents: made }, chip);
  };
  it.each([
    ['a hypervisor leaf, whatever it says', { eaxIn: 0x40000001, eax: 0x31237648, ebx: 99 }],
    [
      'fewer features, any APIC id, OSXSAVE and the hypervisor bit',
      { eaxIn: 1, eax: 0x00800f12, ebx: 0x07ff0833, ecx: 0x88000001, edx: 3 },
    ],
    ['a smaller last leaf', { eaxIn: 0, eax: 0xd, ebx: 77 }],
    [
      'the area size of the state that is asked',
      { eaxIn: 0xd, xcr0In: 0x207n, eax: 0x207, ebx: 0x988, ecx: 5 },
    ],
    ['the compacted size', { eaxIn: 0xd, ecxIn: 1, xcr0In: 0x205n, eax: 1, ebx: 0x348 }],
    [
      'another number of reduced address bits',
      { eaxIn: 0x8000001f, eax: 2, ebx: 51 | (5 << 6) | (4 << 12), ecx: 500 },
    ],
  ])('accepts %s', (_, values) => {
    expect(submit(page(values)).status).toBe(STATUS.success);
  });
  it.each([
    ['a feature that the chip lacks', { eaxIn: 1, eax: 0x00a00f11, ebx: 0x800, ecx: 0x3 }, { ecx: 1 }],
    ['a newer processor', { eaxIn: 1, eax: 0x00a10f00, ebx: 0x800 }, { eax: 0x00a00f11 }],
    ['another line size', { eaxIn: 1, eax: 0, ebx: 0x1000 }, { ebx: 0x800 }],
    ['an area without its components', { eaxIn: 0xd, xcr0In: 7n, eax: 3, ebx: 0x240 }, { ebx: 0x340 }],
    ['x87 without SSE', { eaxIn: 0xd, xcr0In: 1n, eax: 1, ebx: 0x240 }, { eax: 3 }],
    ['a function that the chip does not have', { eaxIn: 0x15, eax: 1 }, { eax: 0 }],
    ['a subleaf that does not exist', { eaxIn: 1, ecxIn: 1, eax: 1 }, { eax: 0 }],
    ['another C-bit', { eaxIn: 0x8000001f, eax: 2, ebx: 47 | (4 << 12) }, { ebx: 51 | (4 << 12) }],
  ])('refuses %s and says what it would accept', (_, values, expected) => {
    const result = submit(page({ eaxIn: 0, eax: 1 }, values));
    expect(result.status).toBe(STATUS.invalidParam);
    expect(cpuidFunction.read(result.contents as Uint8Array, 64)).toMatchObject(expected);
    expect(submit(result.contents as Uint8Array).status).toBe(STATUS.success);
  });
  it('refuses reserved fields and more than 64 functions', () => {
    const many = page();
    many[0] = 65;
    expect(submit(many).status).toBe(STATUS.invalidParam);
    const reserved = page();
    reserved[8] = 1;
    expect(submit(reserved).status).toBe(STATUS.invalidParam);
    expect(submit(page({ eaxIn: 0, reserved: 1n })).status).toBe(STATUS.invalidParam);
  });
});
