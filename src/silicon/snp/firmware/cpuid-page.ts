/**
 * What the firmware lets a host say about the processor in a CPUID page or message (AMD 56860, 7.1; the rules of each function
 * stand in the Processor Programming Reference for family 19h, "CPUID Policy Enforcement"). Functions outside the standard and
 * the extended range, so also a hypervisor's own, are not checked.
 */
import { CPUID_FUNCTIONS, cpuidFunction, cpuidPage } from '../../../abi/snp/launch.ts';

export interface CpuidRegisters {
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

/** What the chip itself would answer. */
export type Hardware = (leaf: number, subleaf: number) => CpuidRegisters;

/** What the chip would accept instead of `said`. */
type Rule = (said: number, real: number) => number;

const any: Rule = (said) => said;
/** No feature that the chip does not have. */
const mask: Rule = (said, real) => said & real;
const exact: Rule = (_, real) => real;
const most: Rule = (said, real) => Math.min(said >>> 0, real >>> 0);
/** `bits` as `inside` says, the rest as `outside`. */
const within =
  (bits: number, inside: Rule, outside: Rule): Rule =>
  (said, real) =>
    (inside(said & bits, real & bits) & bits) | (outside(said & ~bits, real & ~bits) & ~bits);
/** The smaller of each field. */
const fields =
  (...masks: readonly number[]): Rule =>
  (said, real) =>
    masks.reduce((value, bits) => value | most(said & bits, real & bits), 0);

/** Family, model and stepping not newer than the chip's. */
const processor: Rule = (said, real) => {
  const newness = (fms: number): number => {
    const family = ((fms >>> 8) & 0xf) + ((fms >>> 20) & 0xff);
    const model = ((fms >>> 4) & 0xf) | ((fms >>> 12) & 0xf0);
    return (family * 256 + model) * 16 + (fms & 0xf);
  };
  return newness(said) <= newness(real) ? said & 0x0fff_0fff : real;
};

type Rules = readonly [Rule, Rule, Rule, Rule];
const ANY: Rules = [any, any, any, any];
const COMPONENT: Rules = [exact, exact, mask, exact];

/** Rules by leaf; a single entry is for subleaf 0. What is not here must be zero. */
const RULES: Readonly<Record<number, readonly (Rules | undefined)[]>> = {
  0x0: [[most, any, any, any]],
  0x1: [[processor, within(0x0000_ff00, exact, any), within(0x8800_0000, any, mask), mask]],
  0x2: [ANY],
  0x4: [ANY],
  0x5: [ANY],
  0x6: [[mask, exact, mask, exact]],
  0x7: [
    [most, mask, within(0x10, any, mask), mask],
    [mask, exact, exact, exact],
  ],
  0xb: [ANY, ANY, ANY],
  // EBX of subleaves 0 and 1 follows from the state that the entry is for: see `areaSize`.
  0xd: [
    [within(3, exact, mask), any, any, exact],
    [mask, any, mask, mask],
    ...Array.from({ length: 11 }, () => COMPONENT),
  ],
  0xf: [[exact, any, exact, any], ANY],
  0x10: [[exact, any, exact, exact], ANY],
  0x8000_0000: [[most, any, any, any]],
  0x8000_0001: [[processor, any, mask, mask]],
  0x8000_0002: [ANY],
  0x8000_0003: [ANY],
  0x8000_0004: [ANY],
  0x8000_0005: [ANY],
  0x8000_0006: [ANY],
  0x8000_0007: [[exact, mask, any, mask]],
  0x8000_0008: [[fields(0xff, 0xff00, 0xff_0000), mask, any, fields(0xffff, 0xffff_0000)]],
  0x8000_000a: [[any, any, exact, mask]],
  0x8000_0019: [[any, any, exact, exact]],
  0x8000_001a: [[any, exact, exact, exact]],
  0x8000_001b: [[mask, exact, exact, exact]],
  0x8000_001d: [ANY, ANY, ANY, ANY, [any, exact, any, exact]],
  0x8000_001e: [ANY],
  0x8000_001f: [[mask, within(0xfc0, any, exact), any, any]],
  0x8000_0020: [
    [exact, any, exact, exact],
    [any, exact, exact, any],
    [any, exact, exact, any],
    [exact, any, mask, exact],
  ],
  0x8000_0021: [[mask, any, exact, exact]],
  0x8000_0022: [[mask, within(0x3ff, fields(0xf, 0x3f0), any), any, exact]],
  0x8000_0023: [[mask, any, exact, exact]],
  0x8000_0026: [ANY, ANY, ANY, ANY],
};

const LEGACY_AREA = 0x240;

/** Bytes of the XSAVE area with the components of `state`: standard format (subleaf 0) or compacted (subleaf 1). */
function areaSize(subleaf: number, state: bigint, hardware: Hardware): number {
  let size = LEGACY_AREA;
  for (let component = 2; component < 63; component++) {
    if (((state >> BigInt(component)) & 1n) === 0n) continue;
    const { eax, ebx } = hardware(0xd, component);
    size = subleaf === 0 ? Math.max(size, ebx + eax) : size + eax;
  }
  return size;
}

const isChecked = (leaf: number): boolean => leaf <= 0xffff || (leaf >= 0x8000_0000 && leaf <= 0x8000_ffff);

/** Sets what the chip would accept into `bytes` at `at`; false when something else stood there. */
function correct(bytes: Uint8Array, at: number, hardware: Hardware): boolean {
  const said = cpuidFunction.read(bytes, at);
  if (!isChecked(said.eaxIn)) return true;
  const rules = RULES[said.eaxIn]?.[said.ecxIn];
  const real = hardware(said.eaxIn, said.ecxIn);
  const expected = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
  if (rules !== undefined) {
    expected.eax = rules[0](said.eax, real.eax) >>> 0;
    expected.ebx = rules[1](said.ebx, real.ebx) >>> 0;
    expected.ecx = rules[2](said.ecx, real.ecx) >>> 0;
    expected.edx = rules[3](said.edx, real.edx) >>> 0;
    if (said.eaxIn === 0xd && said.ecxIn <= 1)
      expected.ebx = areaSize(said.ecxIn, said.xcr0In | (said.ecxIn === 1 ? said.xssIn : 0n), hardware);
  }
  cpuidFunction.write(expected, bytes, at);
  return (
    said.reserved === 0n &&
    said.eax === expected.eax &&
    said.ebx === expected.ebx &&
    said.ecx === expected.ecx &&
    said.edx === expected.edx
  );
}

/** Corrects `count` functions in place from `at` on; false when one had to be corrected. */
export function checkFunctions(bytes: Uint8Array, at: number, count: number, hardware: Hardware): boolean {
  let good = true;
  for (let i = 0; i < count; i++) if (!correct(bytes, at + cpuidFunction.size * i, hardware)) good = false;
  return good;
}

/** How many of the functions are of the ranges that are checked. */
export function checkedFunctions(bytes: Uint8Array, at: number, count: number): number {
  let checked = 0;
  for (let i = 0; i < count; i++)
    if (isChecked(cpuidFunction.get(bytes, 'eaxIn', at + cpuidFunction.size * i))) checked++;
  return checked;
}

/** `accepted` is undefined when the page is no CPUID page at all. */
export interface CheckedPage {
  readonly good: boolean;
  /** The page with what the chip would have accepted. */
  readonly corrected?: Uint8Array;
}

export function checkCpuidPage(page: Uint8Array, hardware: Hardware): CheckedPage {
  const { count, reserved4, reserved8 } = cpuidPage.read(page);
  if (count > CPUID_FUNCTIONS || reserved4 !== 0 || reserved8 !== 0n) return { good: false };
  const corrected = new Uint8Array(page);
  const good = checkFunctions(corrected, cpuidPage.size, count, hardware);
  return { good, corrected };
}
