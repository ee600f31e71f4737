/**
 * What the manuals leave undefined or implementation specific, instruction by instruction: the only things in which an
 * engine may differ from the recorded processor (AMD, family 26, "Zen 5") or the one of the host. Everything else is compared to
 * the bit.
 *
 * Each rule names the outputs it hides. Rules about vendors say both sides, as measured: Intel is family 6, model 207.
 */
import { GENERAL_REGISTERS } from '../../src/abi/general-registers.ts';
import {
  CODE,
  CODE_BYTES,
  DATA_SEGMENTS,
  FSW,
  FS_BASE,
  GS_BASE,
  RIP,
  ST,
  type VectorCase,
  type VectorResult,
  XMM,
  view,
} from './state.ts';

const CF = 0x1;
const PF = 0x4;
const AF = 0x10;
const ZF = 0x40;
const SF = 0x80;
const OF = 0x800;
const C0 = 0x100;
const C1 = 0x200;
const C2 = 0x400;
const C3 = 0x4000;

export interface Mask {
  flags: number;
  fsw: number;
  mxcsr: number;
  /** Bits of a general register that are not compared. */
  registers: Map<number, bigint>;
  /** x87 registers (by ST number) that are not compared. */
  st: Set<number>;
  /** The control word is not compared. */
  fcw: boolean;
  /** The tag word is not compared. */
  tags: boolean;
  /** FOP, FIP and FDP are not compared. */
  pointers: boolean;
  /** XMM registers are not compared. */
  xmm: boolean;
  /** CR2 is not compared. */
  cr2: boolean;
  /** Bits of the error code that are not compared. */
  error: number;
  /** Vector or x87 results only have to be within the documented bound. */
  approximate: boolean;
  /** Memory bytes that are not compared. */
  memory: ((address: number) => boolean) | undefined;
}

interface Situation {
  readonly c: VectorCase;
  readonly expected: VectorResult;
  /** Words of the form: mnemonic and operand texts. */
  readonly operands: readonly string[];
  readonly mask: Mask;
}

export interface Rule {
  readonly mnemonics: readonly string[];
  readonly reason: string;
  readonly apply: (situation: Situation) => void;
}

/** Bits of the first operand, from the form's text. */
function bitsOf(operands: readonly string[]): number {
  const match = /^(?:r|m)(\d+)h?$/.exec(operands[0] ?? '');
  return match === null ? 32 : Number(match[1]);
}

/** The count of a shift, masked as the processor masks it. */
function shiftCount({ c, operands }: Situation): number {
  const last = operands.at(-1) ?? '';
  const raw = last === '1' ? 1 : last === 'cl' ? (c.state[8] ?? 0) : (c.code.at(-1) ?? 0);
  return raw & (bitsOf(operands) === 64 ? 0x3f : 0x1f);
}

const flags =
  (bits: number): Rule['apply'] =>
  ({ mask }) => {
    mask.flags |= bits;
  };

const fsw =
  (bits: number): Rule['apply'] =>
  ({ mask }) => {
    mask.fsw |= bits;
  };

const register =
  (...names: (typeof GENERAL_REGISTERS)[number][]): Rule['apply'] =>
  ({ mask }) => {
    for (const name of names) mask.registers.set(GENERAL_REGISTERS.indexOf(name), 0xffff_ffffn);
  };

/** The general register that ModRM.rm names (register forms, REX.B honoured). */
const modrmRegister =
  (bits: number): Rule['apply'] =>
  ({ c, mask, operands }) => {
    const rex =
      c.code.findLast(
        (byte, i) => i < c.code.length - 2 && (byte & 0xf0) === 0x40 && c.code[i + 1] === 0x0f,
      ) ?? 0;
    const hidden = operands[0] === 'r16' ? 0xffffn : (1n << BigInt(bits)) - 1n;
    mask.registers.set(((rex & 1) << 3) | ((c.code.at(-1) ?? 0) & 7), hidden);
  };

const elements = (names: readonly string[]): readonly string[] =>
  names.flatMap((name) => ['b', 'w', 'd', 'q'].map((size) => name + size));
const COMPARING = elements(['cmps', 'scas']);
const STRINGS = [...COMPARING, ...elements(['movs', 'stos', 'lods'])];
const ZERO_COUNT =
  'repeated with a 32-bit address size, nothing done (count 0, or a fault at once): Intel clears the upper halves of RCX, and of RSI and RDI, AMD keeps them';

/** Upper halves of the string registers under a repeat prefix and an address-size prefix. */
function hideUpperCounts({ c, mask, expected }: Situation): void {
  const prefixes = c.code.slice(0, -1);
  if (!prefixes.includes(0x67) || !(prefixes.includes(0xf2) || prefixes.includes(0xf3))) return;
  if (expected.vector === undefined && view(c.state).getUint32(8, true) !== 0) return;
  for (const name of ['rcx', 'rsi', 'rdi'] as const)
    mask.registers.set(GENERAL_REGISTERS.indexOf(name), 0xffff_ffff_0000_0000n);
}

export const RULES: readonly Rule[] = [
  { mnemonics: ['and', 'or', 'xor', 'test'], reason: 'AF undefined', apply: flags(AF) },
  {
    mnemonics: ['shl', 'sal', 'shr', 'sar'],
    reason:
      'with a count: AF undefined; OF undefined unless the count is 1; CF undefined when the count reaches the width (SHL, SHR)',
    apply: (s) => {
      const count = shiftCount(s);
      if (count === 0) return;
      s.mask.flags |= AF;
      if (count > 1) s.mask.flags |= OF;
      if (count >= bitsOf(s.operands) && !s.c.form.includes('sar')) s.mask.flags |= CF;
    },
  },
  {
    mnemonics: ['rol', 'ror', 'rcl', 'rcr'],
    reason: 'OF undefined unless the masked count is 1',
    apply: (s) => {
      if (shiftCount(s) > 1) s.mask.flags |= OF;
    },
  },
  {
    mnemonics: ['shld', 'shrd'],
    reason:
      'with a count: AF undefined; OF undefined unless the count is 1; a 16-bit operand shifted by more than 16 leaves destination and flags undefined',
    apply: (s) => {
      const count = shiftCount(s);
      if (count === 0) return;
      s.mask.flags |= AF;
      if (count > 1) s.mask.flags |= OF;
      if (bitsOf(s.operands) === 16 && count > 16) {
        s.mask.flags |= CF | PF | ZF | SF | OF;
        if (s.operands[0]?.startsWith('m') === true) s.mask.memory = () => true;
        else {
          // ModRM is before the immediate, or last.
          const modrm = s.c.code.at(s.operands.at(-1) === 'cl' ? -1 : -2) ?? 0;
          const rex = s.c.code.findLast((byte, i) => (byte & 0xf0) === 0x40 && s.c.code[i + 1] === 0x0f) ?? 0;
          s.mask.registers.set(((rex & 1) << 3) | (modrm & 7), 0xffffn);
        }
      }
    },
  },
  { mnemonics: ['mul', 'imul'], reason: 'SF, ZF, AF, PF undefined', apply: flags(SF | ZF | AF | PF) },
  {
    mnemonics: ['div', 'idiv'],
    reason: 'all arithmetic flags undefined',
    apply: flags(CF | PF | AF | ZF | SF | OF),
  },
  {
    mnemonics: ['bt', 'bts', 'btr', 'btc'],
    reason: 'OF, SF, AF, PF undefined',
    apply: flags(OF | SF | AF | PF),
  },
  {
    mnemonics: ['bsf', 'bsr'],
    reason:
      'CF, OF, SF, AF, PF undefined. With source 0 the destination keeps its value (AMD documents it, Intel does it)',
    apply: flags(CF | OF | SF | AF | PF),
  },
  { mnemonics: ['lzcnt', 'tzcnt'], reason: 'OF, SF, AF, PF undefined', apply: flags(OF | SF | AF | PF) },
  {
    mnemonics: ['andn', 'bzhi', 'blsr', 'blsi', 'blsmsk'],
    reason: 'AF, PF undefined',
    apply: flags(AF | PF),
  },
  { mnemonics: ['bextr'], reason: 'SF, AF, PF undefined', apply: flags(SF | AF | PF) },
  { mnemonics: ['aad', 'aam'], reason: 'OF, AF, CF undefined', apply: flags(OF | AF | CF) },
  { mnemonics: ['aaa', 'aas'], reason: 'OF, SF, ZF, PF undefined', apply: flags(OF | SF | ZF | PF) },
  { mnemonics: ['daa', 'das'], reason: 'OF undefined', apply: flags(OF) },
  {
    mnemonics: ['rdrand', 'rdseed'],
    reason: 'random; a 16-bit operand keeps the upper bits',
    apply: (s) => {
      modrmRegister(64)(s);
      s.mask.flags |= CF;
    },
  },
  {
    mnemonics: ['cpuid'],
    reason: 'the answers are the CPU model',
    apply: register('rax', 'rbx', 'rcx', 'rdx'),
  },
  { mnemonics: ['rdtsc'], reason: 'the time', apply: register('rax', 'rdx') },
  { mnemonics: ['rdtscp'], reason: 'the time, and TSC_AUX', apply: register('rax', 'rdx', 'rcx') },
  { mnemonics: ['rdpid'], reason: 'TSC_AUX', apply: modrmRegister(32) },
  { mnemonics: ['xgetbv'], reason: 'XCR0 of the host has more components', apply: register('rax', 'rdx') },
  {
    mnemonics: [
      'fadd',
      'faddp',
      'fiadd',
      'fmul',
      'fmulp',
      'fimul',
      'fsub',
      'fsubp',
      'fisub',
      'fsubr',
      'fsubrp',
      'fisubr',
      'fdiv',
      'fdivp',
      'fidiv',
      'fdivr',
      'fdivrp',
      'fidivr',
      'fld',
      'fst',
      'fstp',
      'fstp1',
      'fstp8',
      'fstp9',
      'fild',
      'fist',
      'fistp',
      'fisttp',
      'fbld',
      'fbstp',
      'fxch',
      'fxch4',
      'fxch7',
      'fchs',
      'fabs',
      'fld1',
      'fldl2t',
      'fldl2e',
      'fldpi',
      'fldlg2',
      'fldln2',
      'fldz',
      'f2xm1',
      'fyl2x',
      'fyl2xp1',
      'fpatan',
      'fxtract',
      'fsqrt',
      'frndint',
      'fscale',
      'fdecstp',
      'fincstp',
      'fcmovb',
      'fcmove',
      'fcmovbe',
      'fcmovu',
      'fcmovnb',
      'fcmovne',
      'fcmovnbe',
      'fcmovnu',
    ],
    reason: 'C0, C2, C3 undefined (AMD keeps them)',
    apply: fsw(C0 | C2 | C3),
  },
  {
    mnemonics: [
      'fldcw',
      'fnstcw',
      'fnstenv',
      'ffree',
      'ffreep',
      'fnclex',
      'fnop',
      'fnstsw',
      'fwait',
      'fneni',
      'fndisi',
      'fnsetpm',
    ],
    reason: 'C0 to C3 undefined (AMD keeps them)',
    apply: fsw(C0 | C1 | C2 | C3),
  },
  {
    mnemonics: ['fsin', 'fcos', 'fsincos', 'fptan'],
    reason:
      'C0, C3 undefined; the result is approximate (after reduction by a 66-bit pi), and with it C1 (rounded up)',
    apply: ({ mask }) => {
      mask.fsw |= C0 | C3 | C1;
      mask.approximate = true;
    },
  },
  {
    mnemonics: ['f2xm1', 'fyl2x', 'fyl2xp1', 'fpatan'],
    reason: 'the result is approximate, and with it C1 (rounded up)',
    apply: ({ mask }) => {
      mask.fsw |= C1;
      mask.approximate = true;
    },
  },
  {
    mnemonics: ['f2xm1', 'fyl2xp1'],
    reason:
      'arguments outside the documented domain (beyond -1..1; beyond 1 - sqrt(1/2)) give undefined results',
    apply: ({ c, mask }) => {
      const exponent = view(c.state).getUint16(ST + 8, true) & 0x7fff;
      const limit = c.form.includes('f2xm1') ? 0x3fff : 0x3ffd;
      if (exponent >= limit && exponent !== 0x7fff) {
        // Whether there is an exception at all, and with it the pop.
        mask.fsw = 0xffff;
        mask.tags = true;
        for (let i = 0; i < 8; i++) mask.st.add(i);
      }
    },
  },
  {
    mnemonics: [...STRINGS],
    reason: ZERO_COUNT,
    apply: (s) => hideUpperCounts(s),
  },
  {
    mnemonics: ['rcpps', 'rcpss', 'rsqrtps', 'rsqrtss'],
    reason: 'relative error up to 1.5 * 2^-12',
    apply: ({ mask }) => void (mask.approximate = true),
  },
];

/** The bytes in front of a page that faults. */
function partialStore(mask: Mask, { vector, cr2 }: VectorResult): void {
  if (vector !== 14 || (cr2 & 0xfffn) !== 0n) return;
  const second = Number(cr2);
  mask.memory = (address) => address >= second - 9 && address < second;
}

/** What is not compared when the instruction ends in an exception. */
export const FAULT_RULES: readonly Rule[] = [
  {
    mnemonics: ['popa', 'popad'],
    reason: 'a fault in the middle: Intel has loaded the registers before it',
    apply: register('rax', 'rcx', 'rdx', 'rbx', 'rbp', 'rsi', 'rdi'),
  },
  {
    mnemonics: [
      'fxsave',
      'fxsave64',
      'fnsave',
      'fnstenv',
      'frstor',
      'fldenv',
      'fxrstor',
      'fxrstor64',
      'xsave',
      'xsave64',
      'xsaveopt',
      'xsaveopt64',
      'xsavec',
      'xsavec64',
      'xrstor',
      'xrstor64',
    ],
    reason: '#PF: which byte of the area CR2 names, and with it whether its page is present',
    apply: ({ mask }) => {
      mask.cr2 = true;
      mask.error = 1;
    },
  },
  {
    mnemonics: ['xrstor', 'xrstor64'],
    reason: '#GP of an image with reserved bits: how much Intel has loaded already; AMD nothing',
    apply: ({ mask, expected }) => {
      if (expected.vector !== 13) return;
      mask.fsw = 0xffff;
      mask.fcw = true;
      mask.tags = true;
      mask.pointers = true;
      mask.xmm = true;
      mask.mxcsr = 0xffff_ffff;
      for (let i = 0; i < 8; i++) mask.st.add(i);
    },
  },
  {
    mnemonics: [...STRINGS],
    reason: ZERO_COUNT,
    apply: hideUpperCounts,
  },
  {
    mnemonics: [...COMPARING],
    reason:
      'a fault after some iterations: Intel gives the flags back that were there before the instruction, AMD those of the last comparison; with two operands that fault, Intel names the one in rDI, AMD the one in rSI',
    apply: ({ mask }) => {
      mask.flags |= CF | PF | AF | ZF | SF | OF;
      mask.cr2 = true;
    },
  },
  {
    mnemonics: ['movd', 'movq', 'movntq'],
    reason: 'a store of an MMX register that faults: Intel has entered MMX state already, AMD has not',
    apply: ({ mask, operands }) => {
      if (!operands[0]?.startsWith('m') || operands[1] !== 'mm') return;
      mask.fsw |= 0x3800;
      mask.tags = true;
      for (let i = 0; i < 8; i++) mask.st.add(i);
    },
  },
  {
    mnemonics: ['fbstp', 'fstp'],
    reason:
      'an m80 of which only the part in the second page faults: Intel may have stored the part in the first (SDM volume 3, "Operand Split Across Segments and/or Pages"), AMD stores nothing',
    apply: ({ mask, expected, operands }) => {
      if (operands[0] === 'm80') partialStore(mask, expected);
    },
  },
  {
    mnemonics: ['call', 'callf'],
    reason:
      '#GP of a target that is not canonical or outside the segment: Intel has written the return address already, AMD has not',
    apply: ({ c, mask, expected }) => {
      if (expected.vector !== 13) return;
      const offset = Number(view(expected.state).getBigUint64(32, true) & 0xffff_ffffn);
      const stack = DATA_SEGMENTS[c.segments?.ss ?? 1];
      const narrow = stack !== undefined && (stack.attributes & 0x10400) === 0;
      const rsp = (narrow ? offset & 0xffff : offset) + (stack?.base ?? 0);
      mask.memory = (address) => address < rsp && address >= rsp - (c.form.endsWith('f') ? 16 : 8);
    },
  },
  {
    mnemonics: ['maskmovq', 'maskmovdqu'],
    reason:
      '#PF: which byte CR2 names, and with it whether its page is present; MASKMOVQ on AMD has already changed the x87 state to MMX',
    apply: ({ c, mask }) => {
      mask.cr2 = true;
      mask.error = 1;
      if (!c.form.includes('maskmovq')) return;
      mask.fsw |= 0x3800;
      mask.tags = true;
      for (let i = 0; i < 8; i++) mask.st.add(i);
    },
  },
];

interface OtherOutcome {
  readonly reason: string;
  readonly accepts: (
    c: VectorCase,
    mnemonic: string,
    expected: VectorResult,
    actual: VectorResult,
  ) => boolean;
}
const canonical = (address: bigint): boolean => address === BigInt.asUintN(64, BigInt.asIntN(48, address));
const isFault = ({ vector }: VectorResult): boolean => vector !== undefined && vector >= 12 && vector <= 17;

/** Outcomes in which Intel's processor and the engine differ. */
const OTHER_OUTCOMES: readonly OtherOutcome[] = [
  {
    reason: 'call with a stack that is not aligned and a target that faults: Intel raises #AC first',
    accepts: (_c, mnemonic, expected, actual) =>
      mnemonic === 'call' && expected.vector === 17 && actual.vector === 13,
  },
  {
    reason: 'bound below its lower limit, with an upper one that cannot be read: Intel raises #BR',
    accepts: (_c, mnemonic, expected, actual) =>
      mnemonic === 'bound' && expected.vector === 5 && isFault(actual),
  },
  {
    reason:
      'an operand across the end of the 4 GiB of a flat segment: Intel goes on at address 0, the engine checks the limit (SDM volume 3, "Limit Checking": implementation specific)',
    accepts: (c, _mnemonic, expected, actual) =>
      c.segments !== undefined &&
      ((expected.vector === 14 && (expected.cr2 >= 0xffff_ffe0n || expected.cr2 < 32n)) ||
        expected.vector === 17) &&
      (actual.vector === 12 || actual.vector === 13),
  },
  {
    reason:
      'a store of an x87 register under an unmasked exception stores nothing: Intel then reports no fault of the memory operand either, AMD does',
    accepts: (_c, mnemonic, expected, actual) =>
      /^f(st|stp|ist|istp|isttp|bstp)$/.test(mnemonic) &&
      expected.vector === undefined &&
      (view(expected.state).getUint16(FSW, true) & 0x80) !== 0 &&
      isFault(actual),
  },
  {
    reason: 'an area that is neither aligned nor, in the stack segment, canonical: Intel raises #SS, AMD #GP',
    accepts: (_c, mnemonic, expected, actual) =>
      /^f?x(save|rstor)/.test(mnemonic) && expected.vector === 12 && actual.vector === 13,
  },
  {
    reason:
      'an area that begins in an absent page and ends where addresses are not canonical: Intel raises #PF, AMD #GP',
    accepts: (c, mnemonic, expected, actual) =>
      (/^(fnsave|frstor|fnstenv|fldenv|f?x(save|rstor))/.test(mnemonic) || c.form.includes('m80')) &&
      expected.vector === 14 &&
      (actual.vector === 13 || actual.vector === 12),
  },
  {
    reason:
      'movsxd with a 16-bit operand size reads 16 bits on Intel, 32 on AMD: the end of a page, or of the canonical addresses, matters to one only',
    accepts: (c, mnemonic, expected, actual) =>
      mnemonic === 'movsxd' &&
      c.form.includes('r16') &&
      ((expected.vector === undefined && (actual.vector === 14 || actual.vector === 17)) ||
        (expected.vector === 14 && (actual.vector === 13 || actual.vector === 12))),
  },
  {
    reason:
      'an undefined instruction, the rest of which lies in a page that cannot be fetched: Intel raises #PF, AMD #UD',
    accepts: (c, mnemonic, expected, actual) =>
      expected.vector === 14 &&
      actual.vector === 6 &&
      Number(expected.cr2) === CODE + CODE_BYTES &&
      (mnemonic === 'invalid' || c.code.includes(0xc4) || c.code.includes(0xc5)),
  },
  {
    reason:
      'an undefined opcode that with its operands would have more than 15 bytes: Intel raises #GP for the length, the engine #UD for the opcode (the SDM, volume 3, "Priority Among Concurrent Events", puts both in one class)',
    accepts: (c, mnemonic, expected, actual) =>
      mnemonic === 'invalid' && c.code.length === 15 && expected.vector === 13 && actual.vector === 6,
  },
  {
    reason:
      'CMPS with two operands that fault: Intel reports that of the one in rDI, AMD that of the one in rSI',
    accepts: (c, mnemonic, expected, actual) => {
      if (!COMPARING.slice(0, 4).includes(mnemonic)) return false;
      // Segments give each operand a limit of its own.
      // So does an alignment check.
      if (c.segments !== undefined || expected.vector === 17 || actual.vector === 17)
        return isFault(expected) && isFault(actual);
      const of = (result: VectorResult, register: 6 | 7): boolean => {
        // A fault in the middle of a repetition shows the registers of its iteration.
        const at = view(result.state).getBigUint64(register * 8, true);
        // Only rSI's segment can be another one.
        const prefix = register === 7 ? undefined : c.code.findLast((byte) => byte === 0x64 || byte === 0x65);
        const base = prefix === undefined ? undefined : prefix === 0x64 ? FS_BASE : GS_BASE;
        const address = BigInt.asUintN(
          64,
          (c.code.includes(0x67) ? at & 0xffff_ffffn : at) +
            (base === undefined ? 0n : view(c.state).getBigUint64(base, true)),
        );
        if (result.vector === 14) return result.cr2 >= address && result.cr2 < address + 8n;
        return result.vector === 13 && !(canonical(address) && canonical(address + 7n));
      };
      return of(expected, 7) && of(actual, 6);
    },
  },
];

/** Different outcomes that the manuals allow, with the reason; undefined when there is none. */
export function acceptedOutcome(
  c: VectorCase,
  expected: VectorResult,
  actual: VectorResult,
): string | undefined {
  const { mnemonic } = splitForm(c.form);
  if (
    mnemonic.startsWith('maskmov') &&
    expected.vector !== undefined &&
    (actual.vector === undefined || actual.vector > 11)
  ) {
    return 'AMD checks all bytes of the operand, Intel only those whose mask bit is set';
  }
  if (mnemonic === 'call' && (expected.vector === 12 || expected.vector === 14) && actual.vector === 13) {
    return 'with a bad stack and a target that is not canonical AMD looks at the stack first, Intel at the target';
  }
  for (const { reason, accepts } of OTHER_OUTCOMES) if (accepts(c, mnemonic, expected, actual)) return reason;
  return undefined;
}

const BY_MNEMONIC = new Map<string, Rule[]>();
for (const rule of RULES) {
  for (const mnemonic of rule.mnemonics)
    BY_MNEMONIC.set(mnemonic, [...(BY_MNEMONIC.get(mnemonic) ?? []), rule]);
}

/** Mnemonic and operands of a form, without the prefixes in its name. */
export function splitForm(form: string): { readonly mnemonic: string; readonly operands: readonly string[] } {
  const words = form.replace(/^(random )?(lock |repn?e? )?/, '').split(' ');
  return { mnemonic: words[0] ?? '', operands: (words[1] ?? '').split(',').filter((word) => word !== '') };
}

export function maskFor(c: VectorCase, expected: VectorResult): Mask {
  const mask: Mask = {
    flags: 0,
    fsw: 0,
    // Bits 16 and above, and what AMD adds there (misaligned SSE), are never set by a case.
    mxcsr: 0xffff_0000,
    registers: new Map(),
    st: new Set(),
    fcw: false,
    tags: false,
    pointers: false,
    xmm: false,
    cr2: false,
    error: 0,
    approximate: false,
    memory: undefined,
  };
  // AMD saves the x87 pointers only while an unmasked exception is pending (and as zero otherwise); Intel always.
  if ((view(expected.state).getUint16(FSW, true) & 0x80) === 0) mask.pointers = true;
  const { mnemonic, operands } = splitForm(c.form);
  // As for the single instructions: C0 to C3 are undefined after most of them.
  if (mnemonic === 'program') {
    mask.fsw |= C0 | C1 | C2 | C3;
    // FSTP m80, as the rule of its own name says.
    const at = Number(view(expected.state).getBigUint64(RIP, true) - view(c.state).getBigUint64(RIP, true));
    const [opcode, modrm] = [c.code[at], c.code[at + 1] ?? 0];
    if (expected.vector === 14 && opcode === 0xdb && (modrm & 0x38) === 0x38) partialStore(mask, expected);
  }
  if (expected.vector !== undefined && expected.vector !== 0) {
    for (const rule of FAULT_RULES)
      if (rule.mnemonics.includes(mnemonic)) rule.apply({ c, expected, operands, mask });
    return mask;
  }
  for (const rule of BY_MNEMONIC.get(mnemonic) ?? []) rule.apply({ c, expected, operands, mask });
  if (c.form.startsWith('rand') && /^(rdrand|rdseed|rdpid)$/.test(mnemonic)) mask.registers.clear();
  return mask;
}

const float = new DataView(new ArrayBuffer(8));
function single(bits: number): number {
  float.setUint32(0, bits);
  return float.getFloat32(0);
}

/** Bounds of the approximating instructions, asked only where the results differ. */
export const APPROXIMATE = {
  /** RCP and RSQRT: each lane within the bound of the exact value, special values exact. */
  single(c: VectorCase, expected: Uint8Array, actual: Uint8Array, index: number): boolean {
    const e = view(expected);
    const a = view(actual);
    for (let lane = 0; lane < 4; lane++) {
      const at = XMM + index * 16 + lane * 4;
      const want = e.getUint32(at, true);
      const have = a.getUint32(at, true);
      if (want === have) continue;
      const x = single(want);
      const y = single(have);
      if (!Number.isFinite(x) || !Number.isFinite(y) || x === 0 || y === 0) return false;
      // Both are within 1.5 * 2^-12 of the exact value.
      if (Math.abs(y / x - 1) > 3.01 * 2 ** -12) return false;
    }
    return /^(random )?(rcp|rsqrt)/.test(c.form);
  },
  /** Transcendental x87: both are within one unit in the last place (of 64 bits) of the exact value. */
  x87(_c: VectorCase, expected: Uint8Array, actual: Uint8Array, index: number): boolean {
    const e = view(expected);
    const a = view(actual);
    const at = ST + index * 16;
    const value = (v: DataView): bigint =>
      (BigInt(v.getUint16(at + 8, true) & 0x7fff) << 64n) | v.getBigUint64(at, true);
    if ((e.getUint16(at + 8, true) & 0x8000) !== (a.getUint16(at + 8, true) & 0x8000)) return false;
    const [x, y] = [value(e), value(a)];
    const [low, high] = x < y ? [x, y] : [y, x];
    if (high >> 64n === 0x7fffn) return false;
    if (high >> 64n === low >> 64n) return high - low <= 2n;
    // Across a power of two.
    return (
      high >> 64n === (low >> 64n) + 1n &&
      (high & 0xffff_ffff_ffff_ffffn) -
        0x8000_0000_0000_0000n +
        (0xffff_ffff_ffff_ffffn - (low & 0xffff_ffff_ffff_ffffn)) <=
        2n
    );
  },
};

/** The table of masks as text, for the documentation. */
export function describeRules(): string {
  const rows = [...RULES, ...FAULT_RULES].map((rule) => `- ${rule.mnemonics.join(' ')}: ${rule.reason}`);
  rows.push(
    '- maskmovq maskmovdqu: AMD checks all bytes of the operand, Intel only those whose mask bit is set',
  );
  for (const { reason } of OTHER_OUTCOMES) rows.push(`- ${reason}`);
  rows.push('- call: a bad stack and a target that is not canonical: AMD raises #SS or #PF, Intel #GP');
  rows.push(
    '- x87: FOP, FIP and FDP are compared only while an unmasked exception is pending: AMD saves them only then',
  );
  return rows.join('\n');
}
