/**
 * What CPUID says of the processor itself: one table for each model. A feature bit stands here exactly when the instructions
 * or modes behind it work; what is not offered is #UD. AMD APM vol. 3 appendix E, Intel SDM vol. 2 CPUID.
 */
import type { Feature } from './defs/def.ts';
import { CR4 } from './registers.ts';

export interface CpuModel {
  readonly name: string;
  readonly vendor: 'amd' | 'intel';
  /** Leaf 1 EAX: family, model, stepping. */
  readonly signature: number;
  readonly brand: string;
  readonly features: ReadonlySet<Feature>;
  readonly physicalAddressBits: number;
}

const COMMON: readonly Feature[] = [
  'fpu',
  'tsc',
  'msr',
  'cx8',
  'cmov',
  'mmx',
  'fxsr',
  'sse',
  'sse2',
  'sse3',
  'pclmul',
  'ssse3',
  'cx16',
  'sse4.1',
  'sse4.2',
  'movbe',
  'popcnt',
  'aes',
  'xsave',
  'rdrand',
  'fsgsbase',
  'bmi1',
  'bmi2',
  'invpcid',
  'rdseed',
  'adx',
  'smap',
  'clflushopt',
  'clwb',
  'xsaveopt',
  'xsavec',
  'xsaves',
  'pku',
  'pcid',
  'rdpid',
  'lahf',
  'lzcnt',
  '3dnowprefetch',
  'rdtscp',
  'syscall',
  'sep',
  'clflush',
  'long',
  'vmx',
  'svm',
];

const MODELS: readonly CpuModel[] = [
  {
    name: 'EPYC-Milan',
    vendor: 'amd',
    // Family 19h, model 01h, stepping 1.
    signature: 0x00a00f11,
    brand: 'AMD EPYC 7763 64-Core Processor (Vitrine)',
    features: new Set([...COMMON.filter((name) => name !== 'vmx'), 'wbnoinvd']),
    physicalAddressBits: 48,
  },
  {
    name: 'SapphireRapids',
    vendor: 'intel',
    // Family 6, model 8Fh, stepping 8.
    signature: 0x000806f8,
    brand: 'Intel(R) Xeon(R) Platinum 8473C (Vitrine)',
    features: new Set([...COMMON.filter((name) => name !== 'svm'), 'wbnoinvd', 'serialize', 'pks']),
    physicalAddressBits: 52,
  },
];

export function cpuModels(): readonly CpuModel[] {
  return MODELS;
}

export function findCpuModel(name: string): CpuModel | undefined {
  return MODELS.find((model) => model.name.toLowerCase() === name.toLowerCase());
}

type Row = readonly [Feature, number];

const LEAF1_EDX: readonly Row[] = [
  ['fpu', 0],
  ['tsc', 4],
  ['msr', 5],
  ['cx8', 8],
  ['sep', 11],
  ['cmov', 15],
  ['clflush', 19],
  ['mmx', 23],
  ['fxsr', 24],
  ['sse', 25],
  ['sse2', 26],
];
/** Modes without instructions of their own: VME DE PSE PAE MCE MTRR PGE MCA PAT PSE36; the APIC bit is the platform's. */
const LEAF1_EDX_MODES =
  (1 << 1) |
  (1 << 2) |
  (1 << 3) |
  (1 << 6) |
  (1 << 7) |
  (1 << 9) |
  (1 << 12) |
  (1 << 13) |
  (1 << 14) |
  (1 << 16) |
  (1 << 17);
const LEAF1_ECX: readonly Row[] = [
  ['sse3', 0],
  ['pclmul', 1],
  ['ssse3', 9],
  ['cx16', 13],
  ['pcid', 17],
  ['sse4.1', 19],
  ['sse4.2', 20],
  ['movbe', 22],
  ['popcnt', 23],
  ['aes', 25],
  ['xsave', 26],
  ['rdrand', 30],
];
/** x2APIC, TSC deadline. */
const LEAF1_ECX_MODES = (1 << 21) | (1 << 24);
const LEAF7_EBX: readonly Row[] = [
  ['fsgsbase', 0],
  ['bmi1', 3],
  ['bmi2', 8],
  ['invpcid', 10],
  ['rdseed', 18],
  ['adx', 19],
  ['smap', 20],
  ['clflushopt', 23],
  ['clwb', 24],
  ['sha', 29],
];
/** SMEP, ERMS; FDP_EXCPTN_ONLY (6) and FPU CS/DS deprecation (13) on Intel. */
const LEAF7_EBX_MODES = (1 << 7) | (1 << 9);
const LEAF7_ECX: readonly Row[] = [
  ['pku', 3],
  ['rdpid', 22],
  ['pks', 31],
];
const EXTENDED1_ECX: readonly Row[] = [
  ['lahf', 0],
  ['lzcnt', 5],
  ['3dnowprefetch', 8],
];
const EXTENDED1_EDX: readonly Row[] = [
  ['syscall', 11],
  ['rdtscp', 27],
  ['long', 29],
];
/** NX, 1 GiB pages. */
const EXTENDED1_EDX_MODES = (1 << 20) | (1 << 26);
const LEAF7_ECX_UMIP = 1 << 2;
const LEAF7_EDX_FSRM = 1 << 4;
const LEAF7_EDX_SERIALIZE = 1 << 14;

function bits(model: CpuModel, rows: readonly Row[]): number {
  let value = 0;
  for (const [feature, bit] of rows) if (model.features.has(feature)) value |= 1 << bit;
  return value;
}

export interface CpuidAnswer {
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

/** Register state that shows in CPUID. */
export interface CpuidState {
  readonly cr4: number;
  readonly xcr0: number;
  readonly xss: number;
}

const ascii = (text: string, at: number): number =>
  text.charCodeAt(at) |
  (text.charCodeAt(at + 1) << 8) |
  (text.charCodeAt(at + 2) << 16) |
  (text.charCodeAt(at + 3) << 24) |
  0;

/** Size of the XSAVE area for the components in `mask`, standard format: x87, SSE, PKRU. */
function standardXsaveSize(mask: number): number {
  return mask & 0x200 ? 0xa88 : 0x240;
}

/** Components that XCR0 may enable: x87, SSE, PKRU. */
export function xcr0Allowed(model: CpuModel): number {
  return 3 | (model.features.has('pku') ? 0x200 : 0);
}

export function nativeCpuid(model: CpuModel, state: CpuidState, leaf: number, subleaf: number): CpuidAnswer {
  const answer = (eax = 0, ebx = 0, ecx = 0, edx = 0): CpuidAnswer => ({
    eax: eax >>> 0,
    ebx: ebx >>> 0,
    ecx: ecx >>> 0,
    edx: edx >>> 0,
  });
  const amd = model.vendor === 'amd';
  const vendor = amd ? 'AuthenticAMD' : 'GenuineIntel';
  const maxBasic = amd ? 0x10 : 0x1f;
  const maxExtended = amd ? 0x80000021 : 0x80000008;
  if (leaf > maxBasic && leaf < 0x80000000) {
    // Intel answers a leaf beyond the last one as the last one; AMD with zeros.
    return answer();
  }
  switch (leaf) {
    case 0:
      return answer(maxBasic, ascii(vendor, 0), ascii(vendor, 8), ascii(vendor, 4));
    case 1:
      return answer(
        model.signature,
        0x00010800,
        bits(model, LEAF1_ECX) | LEAF1_ECX_MODES | (state.cr4 & CR4.OSXSAVE ? 1 << 27 : 0),
        bits(model, LEAF1_EDX) | LEAF1_EDX_MODES,
      );
    case 2:
      return amd ? answer() : answer(0x00feff01, 0xf0, 0, 0);
    case 4:
      if (amd) return answer();
      return (
        [
          answer(0x04000121, 0x02c0003f, 0x3f, 0),
          answer(0x04000122, 0x01c0003f, 0x3f, 0),
          answer(0x04000143, 0x03c0003f, 0x7ff, 0),
          answer(0x04004163, 0x02c0003f, 0xffff, 4),
        ][subleaf] ?? answer()
      );
    case 6:
      // ARAT: the APIC timer never stops.
      return answer(4);
    case 7:
      if (subleaf !== 0) return answer();
      return answer(
        0,
        bits(model, LEAF7_EBX) | LEAF7_EBX_MODES,
        bits(model, LEAF7_ECX) | LEAF7_ECX_UMIP | (state.cr4 & CR4.PKE ? 1 << 4 : 0),
        LEAF7_EDX_FSRM | (model.features.has('serialize') ? LEAF7_EDX_SERIALIZE : 0),
      );
    case 0xd:
      switch (subleaf) {
        case 0:
          return answer(
            xcr0Allowed(model),
            standardXsaveSize(state.xcr0),
            standardXsaveSize(xcr0Allowed(model)),
            0,
          );
        case 1:
          // XSAVEOPT, XSAVEC, XGETBV with ECX = 1, XSAVES; size of the compacted format.
          return answer(0xf, 0x240 + ((state.xcr0 | state.xss) & 0x200 ? 8 : 0), 0, 0);
        case 9:
          return model.features.has('pku') ? answer(8, 0xa80, 0, 0) : answer();
        default:
          return answer();
      }
    case 0x80000000:
      return answer(
        maxExtended,
        amd ? ascii(vendor, 0) : 0,
        amd ? ascii(vendor, 8) : 0,
        amd ? ascii(vendor, 4) : 0,
      );
    case 0x80000001: {
      // CR8 of AMD.
      const ecx = bits(model, EXTENDED1_ECX) | (amd ? 1 << 4 : 0);
      const shared = amd ? (bits(model, LEAF1_EDX) | LEAF1_EDX_MODES) & 0x0183f3ff : 0;
      return answer(
        amd ? model.signature : 0,
        0,
        ecx,
        shared | bits(model, EXTENDED1_EDX) | EXTENDED1_EDX_MODES,
      );
    }
    case 0x80000002:
    case 0x80000003:
    case 0x80000004: {
      const text = model.brand.padEnd(48, '\0');
      const at = (leaf - 0x80000002) * 16;
      return answer(ascii(text, at), ascii(text, at + 4), ascii(text, at + 8), ascii(text, at + 12));
    }
    case 0x80000005:
      return amd ? answer(0xff40ff40, 0xff40ff40, 0x20080140, 0x20080140) : answer();
    case 0x80000006:
      return amd ? answer(0x48006400, 0x68006400, 0x02006140, 0x01009140) : answer(0, 0, 0x08008040, 0);
    case 0x80000007:
      // Invariant TSC.
      return answer(0, 0, 0, 1 << 8);
    case 0x80000008:
      return answer(model.physicalAddressBits | (48 << 8), model.features.has('wbnoinvd') ? 1 << 9 : 0, 0, 0);
    case 0x8000001d:
      if (!amd) return answer();
      return (
        [
          answer(0x00000121, 0x01c0003f, 0x3f, 0),
          answer(0x00000122, 0x01c0003f, 0x3f, 0),
          answer(0x00000143, 0x01c0003f, 0x3ff, 2),
          answer(0x00000163, 0x03c0003f, 0x7fff, 1),
        ][subleaf] ?? answer()
      );
    case 0x80000021:
      // LFENCE always serializing; null selector clears base (6).
      return amd ? answer((1 << 2) | (1 << 6)) : answer();
    default:
      return answer();
  }
}

/** Bits of CR4 that a guest may set. */
export function cr4Allowed(model: CpuModel): number {
  const has = (feature: Feature, bit: number): number => (model.features.has(feature) ? bit : 0);
  return (
    CR4.VME |
    CR4.PVI |
    CR4.TSD |
    CR4.DE |
    CR4.PSE |
    CR4.PAE |
    CR4.MCE |
    CR4.PGE |
    CR4.PCE |
    CR4.OSFXSR |
    CR4.OSXMMEXCPT |
    CR4.UMIP |
    CR4.SMEP |
    has('fsgsbase', CR4.FSGSBASE) |
    has('xsave', CR4.OSXSAVE) |
    has('smap', CR4.SMAP) |
    has('pku', CR4.PKE) |
    has('pks', CR4.PKS) |
    has('pcid', CR4.PCIDE)
  );
}
