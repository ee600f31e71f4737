/** Cases whose results were worked out by hand from the manuals: they check the measuring itself. */
import { GENERAL_REGISTERS } from '../../src/abi/general-registers.ts';
import {
  CODE,
  type CaseSegments,
  DATA,
  FX,
  MXCSR,
  RFLAGS,
  RIP,
  ST,
  FSW,
  STATE_BYTES,
  type VectorCase,
  XMM,
  view,
} from './state.ts';

const CF = 1;
const PF = 4;
const AF = 0x10;
const ZF = 0x40;
const SF = 0x80;
const OF = 0x800;

type Registers = Readonly<Record<string, bigint>>;

export interface Known {
  readonly name: string;
  readonly case: VectorCase;
  readonly vector?: number;
  readonly errorCode?: number;
  readonly cr2?: bigint;
  readonly registers?: Registers;
  /** [mask, value] */
  readonly flags?: readonly [number, number];
  readonly rip?: number;
  /** Two quadwords of XMM0, high first. */
  readonly xmm0?: readonly [bigint, bigint];
  readonly mxcsr?: number;
  /** Exponent word and significand of ST0. */
  readonly st0?: readonly [number, bigint];
  readonly fsw?: readonly [number, number];
  readonly memory?: readonly [number, bigint];
}

const NAMES: readonly string[] = GENERAL_REGISTERS;
export const registerOffset = (name: string): number => NAMES.indexOf(name) * 8;

interface Setup {
  readonly registers?: Registers;
  readonly flags?: number;
  readonly at?: number;
  readonly xmm0?: readonly [bigint, bigint];
  readonly xmm1?: readonly [bigint, bigint];
  readonly mxcsr?: number;
  readonly st?: readonly (readonly [number, bigint])[];
  readonly memory?: readonly [number, bigint];
  readonly segments?: CaseSegments;
}

function make(hex: string, setup: Setup): VectorCase {
  const state = new Uint8Array(STATE_BYTES);
  const v = view(state);
  v.setBigUint64(32, BigInt(DATA + 4096), true);
  for (const [name, value] of Object.entries(setup.registers ?? {}))
    v.setBigUint64(registerOffset(name), value, true);
  v.setBigUint64(RIP, BigInt(setup.at ?? CODE + 0x100), true);
  v.setUint32(RFLAGS, 0x202 | (setup.flags ?? 0), true);
  v.setUint16(FX, 0x37f, true);
  v.setUint32(MXCSR, setup.mxcsr ?? 0x1f80, true);
  v.setUint32(MXCSR + 4, 0xffff, true);
  for (const [index, value] of [setup.xmm0, setup.xmm1].entries()) {
    v.setBigUint64(XMM + index * 16, value?.[1] ?? 0n, true);
    v.setBigUint64(XMM + index * 16 + 8, value?.[0] ?? 0n, true);
  }
  const st = setup.st ?? [];
  v.setUint16(FSW, ((8 - st.length) & 7) << 11, true);
  for (const [i, [high, significand]] of st.entries()) {
    v.setBigUint64(ST + i * 16, significand, true);
    v.setUint16(ST + i * 16 + 8, high, true);
    state[FX + 4] = (state[FX + 4] ?? 0) | (1 << (7 - i));
  }
  const code = Uint8Array.from(hex.split(' '), (byte) => parseInt(byte, 16));
  const patches = [];
  if (setup.memory !== undefined) {
    const bytes = new Uint8Array(8);
    view(bytes).setBigUint64(0, setup.memory[1], true);
    patches.push({ address: setup.memory[0], bytes });
  }
  const { segments } = setup;
  return { form: 'known', code, state, patches, stop: undefined, ...(segments && { segments }) };
}

/** 32-bit code at `CODE` with a limit, in data segments with limits; flat 32-bit code with a read-only data segment. */
const SMALL = { cs: 3, ss: 2, ds: 2, es: 2 } as const;
const FLAT = { cs: 1, ss: 1, ds: 1, es: 1 } as const;
const READ_ONLY = { cs: 1, ss: 1, ds: 6, es: 1 } as const;
const ONE = [0x3fff, 1n << 63n] as const;

export const KNOWN: readonly Known[] = [
  {
    name: 'add carries out of bit 63',
    case: make('48 01 d8', { registers: { rax: (1n << 64n) - 1n, rbx: 1n } }),
    registers: { rax: 0n },
    flags: [CF | PF | AF | ZF | SF | OF, CF | PF | AF | ZF],
    rip: CODE + 0x103,
  },
  {
    name: 'a 32-bit result clears the upper half',
    case: make('01 d8', { registers: { rax: 0xffff_ffff_7fff_ffffn, rbx: 1n } }),
    registers: { rax: 0x8000_0000n },
    flags: [CF | PF | AF | ZF | SF | OF, SF | OF | AF | PF],
  },
  {
    name: 'ah + bh',
    case: make('00 fc', { registers: { rax: 0x7f00n, rbx: 0x0100n } }),
    registers: { rax: 0x8000n },
    flags: [OF | SF | AF, OF | SF | AF],
  },
  {
    name: 'sbb with borrow',
    case: make('19 d8', { registers: { rax: 0n, rbx: 0n }, flags: CF }),
    registers: { rax: 0xffff_ffffn },
    flags: [CF, CF],
  },
  {
    name: 'inc keeps CF',
    case: make('ff c0', { registers: { rax: 0x7fff_ffffn }, flags: CF }),
    registers: { rax: 0x8000_0000n },
    flags: [CF | OF, CF | OF],
  },
  {
    name: 'mul 64',
    case: make('48 f7 e3', { registers: { rax: 1n << 63n, rbx: 6n } }),
    registers: { rax: 0n, rdx: 3n },
    flags: [CF | OF, CF | OF],
  },
  {
    name: 'div 7 / 2',
    case: make('f7 f3', { registers: { rax: 7n, rdx: 0n, rbx: 2n } }),
    registers: { rax: 3n, rdx: 1n },
  },
  {
    name: 'div by zero',
    case: make('f7 f3', { registers: { rax: 7n, rbx: 0n } }),
    vector: 0,
    rip: CODE + 0x100,
  },
  {
    name: 'idiv overflow',
    case: make('48 f7 fb', { registers: { rax: 1n << 63n, rdx: (1n << 64n) - 1n, rbx: (1n << 64n) - 1n } }),
    vector: 0,
  },
  {
    name: 'shl by a count of 32 is a count of 0',
    case: make('d3 e0', { registers: { rax: 5n, rcx: 32n }, flags: CF | ZF }),
    registers: { rax: 5n },
    flags: [CF | ZF, CF | ZF],
  },
  {
    name: 'rcl through carry',
    case: make('d1 d0', { registers: { rax: 0x8000_0000n }, flags: CF }),
    registers: { rax: 1n },
    flags: [CF | OF, CF | OF],
  },
  {
    name: 'shrd',
    case: make('0f ac d8 04', { registers: { rax: 0x0000_0018n, rbx: 0xfn } }),
    registers: { rax: 0xf000_0001n },
    flags: [CF, CF],
  },
  {
    name: 'bsf of 8',
    case: make('0f bc c3', { registers: { rbx: 8n } }),
    registers: { rax: 3n },
    flags: [ZF, 0],
  },
  {
    name: 'bts reaches memory beside the operand',
    case: make('0f ab 03', { registers: { rbx: BigInt(DATA), rax: 64n }, memory: [DATA + 8, 0n] }),
    memory: [DATA + 8, 1n],
    flags: [CF, 0],
  },
  {
    name: 'pext',
    case: make('c4 e2 f2 f5 c3', { registers: { rcx: 0xabcdn, rbx: 0xf0f0n } }),
    registers: { rax: 0xacn },
  },
  {
    name: 'crc32 of a zero byte',
    case: make('f2 0f 38 f0 c3', { registers: { rax: 0xffff_ffffn, rbx: 0n } }),
    registers: { rax: 0xad82_acaen },
  },
  {
    name: 'cmpxchg that fails loads the accumulator',
    case: make('0f b1 cb', { registers: { rax: 1n, rbx: 2n, rcx: 3n } }),
    registers: { rax: 2n, rbx: 2n },
    flags: [ZF, 0],
  },
  {
    name: 'push writes below rsp',
    case: make('53', { registers: { rbx: 0x1122n } }),
    registers: { rsp: BigInt(DATA + 4088) },
    memory: [DATA + 4088, 0x1122n],
  },
  {
    name: 'rep movsb moves three',
    case: make('f3 a4', {
      registers: { rcx: 3n, rsi: BigInt(DATA), rdi: BigInt(DATA + 64) },
      memory: [DATA + 64, 0n],
    }),
    registers: { rcx: 0n, rsi: BigInt(DATA + 3), rdi: BigInt(DATA + 67) },
    rip: CODE + 0x102,
  },
  {
    name: 'rep stosb into an unmapped page',
    case: make('f3 aa', { registers: { rcx: 4n, rax: 0n, rdi: BigInt(DATA + 8190) } }),
    vector: 14,
    errorCode: 6,
    cr2: BigInt(DATA + 8192),
    registers: { rcx: 2n, rdi: BigInt(DATA + 8192) },
    rip: CODE + 0x100,
  },
  {
    name: 'a load from a kernel address that is not canonical',
    case: make('8b 03', { registers: { rbx: 1n << 47n } }),
    vector: 13,
    errorCode: 0,
  },
  {
    name: 'a stack load that is not canonical',
    case: make('58', { registers: { rsp: 1n << 47n } }),
    vector: 12,
    errorCode: 0,
  },
  {
    name: 'a store to read-only code',
    case: make('88 03', { registers: { rbx: BigInt(CODE) } }),
    vector: 14,
    errorCode: 7,
    cr2: BigInt(CODE),
  },
  {
    name: 'an instruction that goes on in an unmapped page',
    case: make('48 b8 00 00 00 00 00 00 00 00', { at: CODE + 8192 - 4 }),
    vector: 14,
    errorCode: 0x14,
    cr2: BigInt(CODE + 8192),
  },
  {
    name: 'pop to memory behind the limit of its segment leaves the stack pointer alone',
    case: make('8f 03', { segments: SMALL, at: 0x100, registers: { rsp: 0x200n, rbx: 0x1ffdn } }),
    vector: 13,
    errorCode: 0,
    registers: { rsp: 0x200n },
  },
  {
    name: 'an instruction of which the last byte is behind the limit of its code segment',
    case: make('05 01 00 00 00', { segments: SMALL, at: 0x17f0 - 3 }),
    vector: 13,
    errorCode: 0,
    rip: 0x17f0 - 3,
  },
  {
    name: 'an instruction that ends at the limit of its code segment',
    case: make('05 01 00 00 00', { segments: SMALL, at: 0x17f0 - 4 }),
    registers: { rax: 1n },
    rip: 0x17f1,
  },
  {
    name: 'arpl that changes a read-only segment',
    case: make('63 0b', {
      segments: READ_ONLY,
      registers: { rbx: 0x100n, rcx: 3n },
      memory: [DATA + 0x100, 0n],
    }),
    vector: 13,
    errorCode: 0,
  },
  {
    name: 'arpl that changes nothing in a read-only segment',
    case: make('63 0b', {
      segments: READ_ONLY,
      registers: { rbx: 0x100n, rcx: 0n },
      memory: [DATA + 0x100, 1n],
    }),
    flags: [ZF, 0],
  },
  {
    name: 'a load that needs two bytes behind the limit of the stack segment',
    case: make('8b 45 00', { segments: SMALL, at: 0x100, registers: { rbp: 0x1ffen } }),
    vector: 12,
    errorCode: 0,
  },
  {
    name: 'a far call from compatibility to 64-bit mode pushes without a segment base',
    case: make('9a 40 01 00 10 33 00', {
      segments: SMALL,
      at: 0x100,
      registers: { rsp: BigInt(DATA + 0x800) },
    }),
    registers: { rsp: BigInt(DATA + 0x7f8) },
    memory: [DATA + 0x7f8, 0xf_0000_0107n],
    rip: CODE + 0x140,
  },
  {
    name: 'a VEX prefix in 32-bit code names one of eight registers',
    case: make('c4 e2 38 f2 c2', { segments: FLAT, registers: { rax: 1n, rdx: 0xfn, r8: 3n } }),
    registers: { rax: 0xen },
  },
  {
    name: 'a load of 8 bytes at a multiple of 4, with alignment checked',
    case: make('48 8b 03', { flags: 0x40000, registers: { rbx: BigInt(DATA + 4) } }),
    vector: 17,
    errorCode: 0,
  },
  {
    name: 'fnsave wants a multiple of 4 only, when alignment is checked',
    case: make('dd 33', { flags: 0x40000, registers: { rbx: BigInt(DATA + 4) } }),
    rip: CODE + 0x102,
  },
  {
    name: 'fldenv at an odd address, with alignment checked',
    case: make('66 d9 23', { flags: 0x40000, registers: { rbx: BigInt(DATA + 1) } }),
    vector: 17,
    errorCode: 0,
  },
  { name: 'ud2', case: make('0f 0b', {}), vector: 6 },
  { name: 'lock on a register', case: make('f0 01 d8', {}), vector: 6 },
  { name: 'hlt at CPL 3', case: make('f4', {}), vector: 13, errorCode: 0 },
  { name: 'int3 is a trap', case: make('cc', {}), vector: 3, rip: CODE + 0x101 },
  {
    name: 'fifteen prefixes are too many',
    case: make('66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90', {}),
    vector: 13,
    errorCode: 0,
  },
  {
    name: 'addsd 1 + 2^-60 is inexact',
    case: make('f2 0f 58 c1', { xmm0: [0n, 0x3ff0000000000000n], xmm1: [0n, 0x3c30000000000000n] }),
    xmm0: [0n, 0x3ff0000000000000n],
    mxcsr: 0x1fa0,
  },
  {
    name: 'addsd rounds up',
    case: make('f2 0f 58 c1', {
      mxcsr: 0x5f80,
      xmm0: [0n, 0x3ff0000000000000n],
      xmm1: [0n, 0x3c30000000000000n],
    }),
    xmm0: [0n, 0x3ff0000000000001n],
    mxcsr: 0x5fa0,
  },
  {
    name: 'a signalling NaN becomes quiet',
    case: make('f2 0f 58 c1', { xmm0: [0n, 0x7ff0000000000123n], xmm1: [0n, 0n] }),
    xmm0: [0n, 0x7ff8000000000123n],
    mxcsr: 0x1f81,
  },
  {
    name: 'divss by zero, unmasked',
    case: make('f3 0f 5e c1', { mxcsr: 0x1d80, xmm0: [0n, 0x3f800000n], xmm1: [0n, 0n] }),
    vector: 19,
    mxcsr: 0x1d84,
  },
  {
    name: 'movaps misaligned',
    case: make('0f 28 03', { registers: { rbx: BigInt(DATA + 8) } }),
    vector: 13,
    errorCode: 0,
  },
  {
    name: 'pcmpistri finds the a',
    case: make('66 0f 3a 63 c1 00', { xmm0: [0n, 0x61n], xmm1: [0n, 0x6162n] }),
    registers: { rcx: 1n },
    flags: [CF | ZF | SF | OF, CF | ZF | SF],
  },
  {
    name: 'aesenc of zeros',
    case: make('66 0f 38 dc c1', {}),
    xmm0: [0x6363636363636363n, 0x6363636363636363n],
  },
  { name: 'fld1', case: make('d9 e8', {}), st0: ONE, fsw: [0x3800, 0x3800] },
  { name: 'fadd 1 + 1', case: make('d8 c1', { st: [ONE, ONE] }), st0: [0x4000, 1n << 63n] },
  {
    name: 'fsqrt of -1',
    case: make('d9 fa', { st: [[0xbfff, 1n << 63n]] }),
    st0: [0xffff, 3n << 62n],
    fsw: [1, 1],
  },
  { name: 'fxam of an empty register', case: make('d9 e5', {}), fsw: [0x4500, 0x4100] },
];
