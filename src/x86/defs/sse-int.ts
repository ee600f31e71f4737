/** MMX, and SSE to SSE4.2 on vectors of integers (SDM vol. 2; opcode maps ). */
import { RAX, RCX, RDX } from '../layout.ts';
import type { Sem } from '../sem.ts';
import {
  bitselect,
  fromLow,
  lane32,
  lane64,
  shiftLanes,
  SIMD,
  splat,
  splatOf,
  ZERO128,
} from '../wasm/simd.ts';
import { i32, i64, select, shuffle, v128, type Val } from '../wasm/value.ts';
import type { Def, Feature } from './def.ts';
import {
  bothBinary,
  bytesDown,
  bytesUp,
  interleave,
  IOTA,
  mmx,
  mmxBinary,
  pick32,
  simd,
  sseBinary,
  swizzle,
  widen,
  type VectorOp,
} from './vector.ts';

const sse = (
  name: string,
  feature: Feature,
  enc: string | readonly string[],
  sem: (e: Sem) => void,
): Def => ({
  name,
  enc: typeof enc === 'string' ? [enc] : enc,
  feature,
  unit: 'sse',
  sem,
});
const mm = (name: string, feature: Feature, enc: string | readonly string[], sem: (e: Sem) => void): Def => ({
  name,
  enc: typeof enc === 'string' ? [enc] : enc,
  feature,
  unit: 'mmx',
  sem: mmx(sem),
});

const copy = (e: Sem): void => e.set(0, e.get(1));

/** Lane arithmetic that both register files have from the start: name, opcode, operation. */
const PLAIN: readonly (readonly [string, string, VectorOp])[] = [
  ['pcmpgtb', '0F64', simd(SIMD.i8x16GtS)],
  ['pcmpgtw', '0F65', simd(SIMD.i16x8GtS)],
  ['pcmpgtd', '0F66', simd(SIMD.i32x4GtS)],
  ['pcmpeqb', '0F74', simd(SIMD.i8x16Eq)],
  ['pcmpeqw', '0F75', simd(SIMD.i16x8Eq)],
  ['pcmpeqd', '0F76', simd(SIMD.i32x4Eq)],
  ['pmullw', '0FD5', simd(SIMD.i16x8Mul)],
  ['psubusb', '0FD8', simd(SIMD.i8x16SubSatU)],
  ['psubusw', '0FD9', simd(SIMD.i16x8SubSatU)],
  ['pand', '0FDB', simd(SIMD.and)],
  ['paddusb', '0FDC', simd(SIMD.i8x16AddSatU)],
  ['paddusw', '0FDD', simd(SIMD.i16x8AddSatU)],
  ['pandn', '0FDF', (a, b) => b.simd2(a, SIMD.andnot)],
  ['pmulhw', '0FE5', multiplyHigh(SIMD.i32x4ExtmulLowI16x8S, SIMD.i32x4ExtmulHighI16x8S)],
  ['psubsb', '0FE8', simd(SIMD.i8x16SubSatS)],
  ['psubsw', '0FE9', simd(SIMD.i16x8SubSatS)],
  ['por', '0FEB', simd(SIMD.or)],
  ['paddsb', '0FEC', simd(SIMD.i8x16AddSatS)],
  ['paddsw', '0FED', simd(SIMD.i16x8AddSatS)],
  ['pxor', '0FEF', simd(SIMD.xor)],
  ['pmaddwd', '0FF5', simd(SIMD.i32x4DotI16x8S)],
  ['psubb', '0FF8', simd(SIMD.i8x16Sub)],
  ['psubw', '0FF9', simd(SIMD.i16x8Sub)],
  ['psubd', '0FFA', simd(SIMD.i32x4Sub)],
  ['paddb', '0FFC', simd(SIMD.i8x16Add)],
  ['paddw', '0FFD', simd(SIMD.i16x8Add)],
  ['paddd', '0FFE', simd(SIMD.i32x4Add)],
];

/** What SSE added to MMX. */
const EXTENDED: readonly (readonly [string, string, VectorOp])[] = [
  ['pminub', '0FDA', simd(SIMD.i8x16MinU)],
  ['pmaxub', '0FDE', simd(SIMD.i8x16MaxU)],
  ['pavgb', '0FE0', simd(SIMD.i8x16AvgrU)],
  ['pavgw', '0FE3', simd(SIMD.i16x8AvgrU)],
  ['pmulhuw', '0FE4', multiplyHigh(SIMD.i32x4ExtmulLowI16x8U, SIMD.i32x4ExtmulHighI16x8U)],
  ['pminsw', '0FEA', simd(SIMD.i16x8MinS)],
  ['pmaxsw', '0FEE', simd(SIMD.i16x8MaxS)],
  ['psadbw', '0FF6', sumOfDifferences],
];

/** High halves of the 16-bit products. */
function multiplyHigh(low: number, high: number): VectorOp {
  return (a, b) =>
    shuffle(a.simd2(b, low), a.simd2(b, high), [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31]);
}

function absoluteDifference(a: Val, b: Val): Val {
  return a.simd2(b, SIMD.i8x16SubSatU).simd2(b.simd2(a, SIMD.i8x16SubSatU), SIMD.or);
}

/** PSADBW: the sum of each eight absolute differences, as a 64-bit lane. */
function sumOfDifferences(a: Val, b: Val): Val {
  // Pairs, then fours, in 32-bit lanes; the two of a half are added by a shifted copy in each 64-bit lane.
  const fours = absoluteDifference(a, b)
    .simd1(SIMD.i16x8ExtaddPairwiseI8x16U)
    .simd1(SIMD.i32x4ExtaddPairwiseI16x8U);
  // (x * (2^32 + 1)) >> 32 adds the halves: the sums are small.
  return shiftLanes(fours.simd2(splat(0x100000001n, 8), SIMD_I64_MUL), i32(32), SIMD.i64x2ShrU);
}
const SIMD_I64_MUL = 213;

const PACKS: readonly (readonly [string, string, number])[] = [
  ['packsswb', '0F63', SIMD.i8x16NarrowS],
  ['packuswb', '0F67', SIMD.i8x16NarrowU],
  ['packssdw', '0F6B', SIMD.i16x8NarrowS],
];

/** For MMX: the destination's 64 bits below the source's. */
const joined = (a: Val, b: Val): Val => interleave(a, b, 8, 0, 16);

const packDefs: Def[] = PACKS.flatMap(([name, opcode, sub]) => [
  sseBinary(name, opcode, simd(sub)),
  {
    name,
    enc: [`NP ${opcode} /r Pq!,Qq`],
    feature: 'mmx',
    unit: 'mmx',
    sem: mmx((e) => {
      const b = widen(e.get(1));
      const both = e.f.let(joined(widen(e.get(0)), b));
      e.set(0, lane64(both.simd2(both, sub), 0));
    }),
  },
]);

const unpackDefs: readonly Def[] = (
  [
    ['punpcklbw', '0F60', 1, false],
    ['punpcklwd', '0F61', 2, false],
    ['punpckldq', '0F62', 4, false],
    ['punpckhbw', '0F68', 1, true],
    ['punpckhwd', '0F69', 2, true],
    ['punpckhdq', '0F6A', 4, true],
  ] as const
).flatMap(([name, opcode, bytes, high]) => [
  sseBinary(name, opcode, (a, b) => interleave(a, b, bytes, high ? 8 : 0, 16)),
  // The low forms read 32 bits of memory.
  mmxBinary(name, opcode, (a, b) => interleave(a, b, bytes, high ? 4 : 0, 8), 'mmx', high ? 'Qq' : 'Qd'),
]);

/** Shifts by the low 64 bits of the source, or an immediate; counts past the width give zeros (or signs). */
interface Shift {
  readonly name: string;
  readonly opcode: string;
  /** Opcode and extension of the immediate form. */
  readonly group: string;
  readonly bits: number;
  readonly sub: number;
  readonly arithmetic: boolean;
}
const shift = (
  name: string,
  opcode: string,
  group: string,
  bits: number,
  sub: number,
  signed = false,
): Shift => ({
  name,
  opcode,
  group,
  bits,
  sub,
  arithmetic: signed,
});
const SHIFTS: readonly Shift[] = [
  shift('psrlw', '0FD1', '0F71 /2', 16, SIMD.i16x8ShrU),
  shift('psrld', '0FD2', '0F72 /2', 32, SIMD.i32x4ShrU),
  shift('psrlq', '0FD3', '0F73 /2', 64, SIMD.i64x2ShrU),
  shift('psraw', '0FE1', '0F71 /4', 16, SIMD.i16x8ShrS, true),
  shift('psrad', '0FE2', '0F72 /4', 32, SIMD.i32x4ShrS, true),
  shift('psllw', '0FF1', '0F71 /6', 16, SIMD.i16x8Shl),
  shift('pslld', '0FF2', '0F72 /6', 32, SIMD.i32x4Shl),
  shift('psllq', '0FF3', '0F73 /6', 64, SIMD.i64x2Shl),
];

/** `count` is an i64. */
function shifted(e: Sem, { bits, sub, arithmetic }: Shift, value: Val, count: Val): Val {
  const n = e.f.let(count);
  const inside = n.ltU(bits);
  if (arithmetic) return shiftLanes(value, select(inside, n.wrap(), i32(bits - 1)), sub);
  return select(inside, shiftLanes(value, n.wrap(), sub), ZERO128);
}

const shiftDefs: readonly Def[] = SHIFTS.flatMap((entry) => {
  const { name, opcode, group } = entry;
  return [
    sse(name, 'sse2', `66 ${opcode} /r Vx!,Wx`, (e) => {
      const count = lane64(e.get(1), 0);
      e.set(0, shifted(e, entry, e.get(0), count));
    }),
    sse(name, 'sse2', `66 ${group}:r Ux!,Ib`, (e) => e.set(0, shifted(e, entry, e.get(0), e.get(1).zext()))),
    mm(name, 'mmx', `NP ${opcode} /r Pq!,Qq`, (e) => {
      const count = e.get(1);
      e.set(0, lane64(shifted(e, entry, e.f.let(widen(e.get(0))), count), 0));
    }),
    mm(name, 'mmx', `NP ${group}:r Nq!,Ib`, (e) =>
      e.set(0, lane64(shifted(e, entry, e.f.let(widen(e.get(0))), e.get(1).zext()), 0)),
    ),
  ];
});

/** Moves between registers, memory and the register files. */
const moveDefs: readonly Def[] = [
  mm('movd', 'mmx', ['NP 0F6E /r Pq=,Ey'], (e) => e.set(0, e.get(1).zext())),
  mm('movd', 'mmx', ['NP 0F7E /r Ey=,Pq'], copy),
  mm('movq', 'mmx', ['NP 0F6F /r Pq=,Qq', 'NP 0F7F /r Qq=,Pq'], copy),
  sse('movd', 'sse2', '66 0F6E /r Vx=,Ey', (e) => e.set(0, fromLow(e.get(1)))),
  sse('movd', 'sse2', '66 0F7E /r Ey=,Vq', copy),
  sse('movq', 'sse2', 'F3 0F7E /r Vx=,Wq', (e) => e.set(0, fromLow(e.get(1)))),
  sse('movq', 'sse2', '66 0FD6 /r:m Mq=,Vq', copy),
  sse('movq', 'sse2', '66 0FD6 /r:r Ux=,Vq', (e) => e.set(0, fromLow(e.get(1)))),
  sse('movdqa', 'sse2', ['66 0F6F /r Vx=,Wx', '66 0F7F /r Wx=,Vx'], copy),
  sse('movdqu', 'sse2', ['F3 0F6F /r Vx=,Wu', 'F3 0F7F /r Wu=,Vx'], copy),
  sse('lddqu', 'sse3', 'F2 0FF0 /r:m Vx=,Wu', copy),
  sse('movntdq', 'sse2', '66 0FE7 /r:m Wx=,Vx', copy),
  sse('movntdqa', 'sse4.1', '66 0F382A /r:m Vx=,Wx', copy),
  mm('movntq', 'sse', 'NP 0FE7 /r:m Mq=,Pq', copy),
  sse('movq2dq', 'sse2', 'F3 0FD6 /r:r Vx=,Nq', (e) => {
    e.call('mmx_begin', e.cpu);
    e.set(0, fromLow(e.get(1)));
    e.call('mmx_done', e.cpu);
  }),
  sse('movdq2q', 'sse2', 'F2 0FD6 /r:r Pq=,Uq', (e) => {
    e.call('mmx_begin', e.cpu);
    copy(e);
    e.call('mmx_done', e.cpu);
  }),
  mm('pmovmskb', 'sse', 'NP 0FD7 /r:r Gd=,Nq', (e) =>
    e.set(0, fromLow(e.get(1)).simd1(SIMD.i8x16Bitmask, 'i32')),
  ),
  sse('pmovmskb', 'sse2', '66 0FD7 /r:r Gd=,Ux', (e) => e.set(0, e.get(1).simd1(SIMD.i8x16Bitmask, 'i32'))),
  // Bytes whose mask has its sign bit go to [rDI].
  mm('maskmovq', 'sse', 'NP 0FF7 /r:r Pq,Nq', (e) => {
    e.call('mask_move', e.cpu, e.record(), fromLow(e.get(0)), fromLow(e.get(1)), i32(8));
  }),
  sse('maskmovdqu', 'sse2', '66 0FF7 /r:r Vx,Ux', (e) => {
    e.call('mask_move', e.cpu, e.record(), e.get(0), e.get(1), i32(16));
  }),
  { name: 'movnti', enc: ['NP 0FC3 /r:m My=,Gy'], feature: 'sse2', sem: copy },
  {
    name: 'emms',
    enc: ['NP 0F77 -'],
    feature: 'mmx',
    unit: 'mmx',
    sem: (e) => {
      e.call('mmx_begin', e.cpu);
      e.call('mmx_empty', e.cpu);
    },
  },
];

/** Byte index vector for word shuffles of one half: `words` picks four words by imm8. */
function wordIndex(e: Sem, imm: Val, high: boolean): Val {
  let index: Val = high ? IOTA : IOTA;
  for (let lane = 0; lane < 4; lane++) {
    const at = imm
      .shrU(lane * 2)
      .and(3)
      .mul(0x0202)
      .add(high ? 0x0908 : 0x0100);
    index = index.withLane(SIMD.i16x8Replace, lane + (high ? 4 : 0), at);
  }
  return e.f.let(index);
}

const shuffleDefs: readonly Def[] = [
  mm('pshufw', 'sse', 'NP 0F70 /r Pq=,Qq,Ib', (e) => {
    const x = fromLow(e.get(1));
    e.set(0, lane64(swizzle(x, wordIndex(e, e.get(2), false)), 0));
  }),
  sse('pshufd', 'sse2', '66 0F70 /r Vx=,Wx,Ib', (e) => {
    const x = e.get(1);
    const imm = e.get(2);
    e.set(
      0,
      pick32(e, x, (lane) => imm.shrU(lane * 2).and(3)),
    );
  }),
  sse('pshuflw', 'sse2', 'F2 0F70 /r Vx=,Wx,Ib', (e) => {
    const x = e.get(1);
    e.set(0, swizzle(x, wordIndex(e, e.get(2), false)));
  }),
  sse('pshufhw', 'sse2', 'F3 0F70 /r Vx=,Wx,Ib', (e) => {
    const x = e.get(1);
    e.set(0, swizzle(x, wordIndex(e, e.get(2), true)));
  }),
  sseBinary('punpcklqdq', '0F6C', (a, b) => interleave(a, b, 8, 0, 16)),
  sseBinary('punpckhqdq', '0F6D', (a, b) => interleave(a, b, 8, 8, 16)),
  sse('pslldq', 'sse2', '66 0F73 /7:r Ux!,Ib', (e) => e.set(0, bytesUp(e, e.get(0), e.get(1)))),
  sse('psrldq', 'sse2', '66 0F73 /3:r Ux!,Ib', (e) => e.set(0, bytesDown(e, e.get(0), e.get(1)))),
  // Words in and out. The source of an insertion is a 32-bit register or 16 bits of memory.
  ...(['r', 'm'] as const).flatMap((form) => {
    const source = form === 'r' ? 'Rd' : 'Mw';
    return [
      mm('pinsrw', 'sse', `NP 0FC4 /r:${form} Pq!,${source},Ib`, (e) => {
        const value = e.get(1);
        const at = e.f.let(e.get(2).and(3).shl(4).zext());
        const kept = e.get(0).and(i64(0xffff).shl(at).not());
        e.set(0, kept.or(value.and(0xffff).zext().shl(at)));
      }),
      sse('pinsrw', 'sse2', `66 0FC4 /r:${form} Vx!,${source},Ib`, (e) => insertLane(e, e.get(1), 2)),
    ];
  }),
  mm('pextrw', 'sse', 'NP 0FC5 /r:r Gd=,Nq,Ib', (e) =>
    e.set(0, e.get(1).shrU(e.get(2).and(3).shl(4).zext()).wrap().and(0xffff)),
  ),
  sse('pextrw', 'sse2', '66 0FC5 /r:r Gd=,Ux,Ib', (e) => e.set(0, extractLane(e, e.get(1), e.get(2), 2))),
];

/** Lane `imm` of `x`, zero-extended; i64 for 8 bytes. */
function extractLane(e: Sem, x: Val, imm: Val, bytes: 1 | 2 | 4 | 8): Val {
  const down = bytesDown(e, x, imm.and(16 / bytes - 1).mul(bytes));
  if (bytes === 8) return lane64(e.f.let(down), 0);
  const low = lane32(e.f.let(down), 0);
  return bytes === 4 ? low : low.and(bytes === 2 ? 0xffff : 0xff);
}

/** Sets operand 0 with lane imm8 (operand 2) replaced. */
function insertLane(e: Sem, value: Val, bytes: 1 | 2 | 4 | 8): void {
  const splats = { 1: SIMD.i8x16Splat, 2: SIMD.i16x8Splat, 4: SIMD.i32x4Splat, 8: SIMD.i64x2Splat };
  const first = v128(Array.from({ length: 16 }, (_, at) => (at < bytes ? 0xff : 0)));
  const mask = e.f.let(
    bytesUp(
      e,
      first,
      e
        .get(2)
        .and(16 / bytes - 1)
        .mul(bytes),
    ),
  );
  e.set(0, bitselect(splatOf(value, splats[bytes]), e.get(0), mask));
}

/** Sign operations of SSSE3: negated where b is negative, zero where it is zero. */
const sign =
  (greater: number, equal: number, subtract: number): VectorOp =>
  (a, b) => {
    const negative = (): Val => ZERO128.simd2(b, greater);
    const negated = a.simd2(negative(), SIMD.xor).simd2(negative(), subtract);
    return negated.simd2(b.simd2(ZERO128, equal), SIMD.andnot);
  };

/** Even and odd 16-bit or 32-bit lanes of two vectors. */
const lanesOf = (a: Val, b: Val, bytes: 2 | 4, odd: boolean): Val => {
  const lanes: number[] = [];
  for (let at = odd ? bytes : 0; at < 32; at += 2 * bytes) for (let k = 0; k < bytes; k++) lanes.push(at + k);
  return shuffle(a, b, lanes);
};

const horizontal = (name: string, opcode: string, bytes: 2 | 4, sub: number): Def[] => [
  sseBinary(
    name,
    opcode,
    (a, b) => lanesOf(a, b, bytes, false).simd2(lanesOf(a, b, bytes, true), sub),
    'ssse3',
  ),
  {
    name,
    enc: [`NP ${opcode} /r Pq!,Qq`],
    feature: 'ssse3',
    unit: 'mmx',
    sem: mmx((e) => {
      const b = widen(e.get(1));
      const both = e.f.let(joined(widen(e.get(0)), b));
      e.set(0, lane64(lanesOf(both, both, bytes, false).simd2(lanesOf(both, both, bytes, true), sub), 0));
    }),
  },
];

/** PMULHRSW: (a * b + 0x4000) >> 15, not saturated. */
const roundedHigh: VectorOp = (a, b) => {
  const part = (sub: number): Val =>
    shiftLanes(a.simd2(b, sub).simd2(splat(0x4000, 4), SIMD.i32x4Add), i32(15), SIMD.i32x4ShrS);
  return shuffle(
    part(SIMD.i32x4ExtmulLowI16x8S),
    part(SIMD.i32x4ExtmulHighI16x8S),
    [0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29],
  );
};

/** PMADDUBSW: unsigned bytes of a times signed bytes of b, pairs added with saturation. */
const multiplyAddBytes: VectorOp = (a, b) => {
  const even = shiftLanes(shiftLanes(b, i32(8), SIMD.i16x8Shl), i32(8), SIMD.i16x8ShrS).simd2(
    a.simd2(splat(0xff, 2), SIMD.and),
    SIMD.i16x8Mul,
  );
  const odd = shiftLanes(b, i32(8), SIMD.i16x8ShrS).simd2(
    shiftLanes(a, i32(8), SIMD.i16x8ShrU),
    SIMD.i16x8Mul,
  );
  return even.simd2(odd, SIMD.i16x8AddSatS);
};

const ssse3Defs: readonly Def[] = [
  ...bothBinary('psignb', '0F3808', sign(SIMD.i8x16GtS, SIMD.i8x16Eq, SIMD.i8x16Sub), 'ssse3', 'ssse3'),
  ...bothBinary('psignw', '0F3809', sign(SIMD.i16x8GtS, SIMD.i16x8Eq, SIMD.i16x8Sub), 'ssse3', 'ssse3'),
  ...bothBinary('psignd', '0F380A', sign(SIMD.i32x4GtS, SIMD.i32x4Eq, SIMD.i32x4Sub), 'ssse3', 'ssse3'),
  ...bothBinary('pabsb', '0F381C', (_, b) => b.simd1(SIMD.i8x16Abs), 'ssse3', 'ssse3'),
  ...bothBinary('pabsw', '0F381D', (_, b) => b.simd1(SIMD.i16x8Abs), 'ssse3', 'ssse3'),
  ...bothBinary('pabsd', '0F381E', (_, b) => b.simd1(SIMD.i32x4Abs), 'ssse3', 'ssse3'),
  ...bothBinary('pmulhrsw', '0F380B', roundedHigh, 'ssse3', 'ssse3'),
  ...bothBinary('pmaddubsw', '0F3804', multiplyAddBytes, 'ssse3', 'ssse3'),
  ...horizontal('phaddw', '0F3801', 2, SIMD.i16x8Add),
  ...horizontal('phaddd', '0F3802', 4, SIMD.i32x4Add),
  ...horizontal('phaddsw', '0F3803', 2, SIMD.i16x8AddSatS),
  ...horizontal('phsubw', '0F3805', 2, SIMD.i16x8Sub),
  ...horizontal('phsubd', '0F3806', 4, SIMD.i32x4Sub),
  ...horizontal('phsubsw', '0F3807', 2, SIMD.i16x8SubSatS),
  // An index with its top bit set gives zero; the bits between are ignored.
  sseBinary('pshufb', '0F3800', (a, b) => swizzle(a, b.simd2(splat(0x8f, 1), SIMD.and)), 'ssse3'),
  mmxBinary('pshufb', '0F3800', (a, b) => swizzle(a, b.simd2(splat(0x87, 1), SIMD.and)), 'ssse3'),
  sse('palignr', 'ssse3', '66 0F3A0F /r Vx!,Wx,Ib', (e) => {
    const b = e.get(1);
    const imm = e.get(2);
    const n = e.f.let(select(imm.gtU(32), i32(32), imm));
    const index = IOTA.simd2(splatOf(n, SIMD.i8x16Splat), SIMD.i8x16Add);
    const upper = IOTA.simd2(splatOf(n.sub(16), SIMD.i8x16Splat), SIMD.i8x16Add);
    e.set(0, swizzle(b, index).simd2(swizzle(e.get(0), upper), SIMD.or));
  }),
  mm('palignr', 'ssse3', 'NP 0F3A0F /r Pq!,Qq,Ib', (e) => {
    const b = widen(e.get(1));
    e.set(0, lane64(bytesDown(e, joined(b, widen(e.get(0))), e.get(2)), 0));
  }),
];

/** PMOVSX and PMOVZX: name, opcode's last digit, source operand, steps of widening. */
const EXTENSIONS = [
  ['bw', '0', 'Wq', ['i16']],
  ['bd', '1', 'Wd', ['i16', 'i32']],
  ['bq', '2', 'Ww', ['i16', 'i32', 'i64']],
  ['wd', '3', 'Wq', ['i32']],
  ['wq', '4', 'Wd', ['i32', 'i64']],
  ['dq', '5', 'Wq', ['i64']],
] as const;
const WIDEN = {
  sx: { i16: SIMD.i16x8ExtendLowS, i32: SIMD.i32x4ExtendLowS, i64: SIMD.i64x2ExtendLowS },
  zx: { i16: SIMD.i16x8ExtendLowU, i32: SIMD.i32x4ExtendLowU, i64: SIMD.i64x2ExtendLowU },
} as const;

const extensionDefs: readonly Def[] = (['sx', 'zx'] as const).flatMap((kind) =>
  EXTENSIONS.map(([name, digit, source, steps]) =>
    sse(
      `pmov${kind}${name}`,
      'sse4.1',
      `66 0F38${kind === 'sx' ? '2' : '3'}${digit} /r Vx=,${source}`,
      (e) => {
        let x = fromLow(e.get(1));
        for (const step of steps) x = x.simd1(WIDEN[kind][step]);
        e.set(0, x);
      },
    ),
  ),
);

const sse4Defs: readonly Def[] = [
  ...extensionDefs,
  sseBinary(
    'pmuldq',
    '0F3828',
    (a, b) => shuffle(a, a, EVEN32).simd2(shuffle(b, b, EVEN32), SIMD.i64x2ExtmulLowS),
    'sse4.1',
  ),
  sseBinary('pcmpeqq', '0F3829', simd(SIMD.i64x2Eq), 'sse4.1'),
  sseBinary('packusdw', '0F382B', simd(SIMD.i16x8NarrowU), 'sse4.1'),
  sseBinary('pcmpgtq', '0F3837', simd(SIMD.i64x2GtS), 'sse4.2'),
  sseBinary('pminsb', '0F3838', simd(SIMD.i8x16MinS), 'sse4.1'),
  sseBinary('pminsd', '0F3839', simd(SIMD.i32x4MinS), 'sse4.1'),
  sseBinary('pminuw', '0F383A', simd(SIMD.i16x8MinU), 'sse4.1'),
  sseBinary('pminud', '0F383B', simd(SIMD.i32x4MinU), 'sse4.1'),
  sseBinary('pmaxsb', '0F383C', simd(SIMD.i8x16MaxS), 'sse4.1'),
  sseBinary('pmaxsd', '0F383D', simd(SIMD.i32x4MaxS), 'sse4.1'),
  sseBinary('pmaxuw', '0F383E', simd(SIMD.i16x8MaxU), 'sse4.1'),
  sseBinary('pmaxud', '0F383F', simd(SIMD.i32x4MaxU), 'sse4.1'),
  sseBinary('pmulld', '0F3840', simd(SIMD.i32x4Mul), 'sse4.1'),
  sse('phminposuw', 'sse4.1', '66 0F3841 /r Vx=,Wx', (e) => {
    // Word and index in one i32: the least of them has the least word, and of equals the first.
    const x = e.get(1);
    const least = e.f.local('i32', -1);
    for (let lane = 0; lane < 8; lane++) {
      const key = e.f.let(x.lane(SIMD.i16x8ExtractU, lane, 'i32').shl(3).or(lane));
      least.set(select(key.ltU(least.get), key, least.get));
    }
    e.set(0, fromLow(least.get.shrU(3).or(least.get.and(7).shl(16))));
  }),
  sse('mpsadbw', 'sse4.1', '66 0F3A42 /r Vx!,Wx,Ib', (e) => {
    const b = e.get(1);
    const imm = e.get(2);
    // Four bytes of the source against the eight windows of the destination that begin at byte 0 or 4.
    const four = e.f.let(
      splatOf(
        lane32(
          pick32(e, b, () => imm.and(3)),
          0,
        ),
        SIMD.i32x4Splat,
      ),
    );
    const windows = e.f.let(bytesDown(e, e.get(0), imm.and(4)));
    const sums = (from: number): Val => {
      const lanes = [0, 1, 2, 3].flatMap((k) => [0, 1, 2, 3].map((n) => from + k + n));
      const window = e.f.let(shuffle(windows, windows, lanes));
      const pairs = absoluteDifference(window, four).simd1(SIMD.i16x8ExtaddPairwiseI8x16U);
      return e.f.let(pairs.simd1(SIMD.i32x4ExtaddPairwiseI16x8U));
    };
    e.set(0, sums(0).simd2(sums(4), SIMD.i16x8NarrowU));
  }),
  // Extraction to a register or memory, insertion from them.
  ...(['r', 'm'] as const).flatMap((form) => {
    const to = (letter: string): string => (form === 'r' ? 'Rd' : `M${letter}`);
    return [
      sse('pextrb', 'sse4.1', `66 0F3A14 /r:${form} ${to('b')}=,Vx,Ib`, (e) =>
        e.set(0, extractLane(e, e.get(1), e.get(2), 1)),
      ),
      sse('pextrw', 'sse4.1', `66 0F3A15 /r:${form} ${to('w')}=,Vx,Ib`, (e) =>
        e.set(0, extractLane(e, e.get(1), e.get(2), 2)),
      ),
      sse('pinsrb', 'sse4.1', `66 0F3A20 /r:${form} Vx!,${to('b')},Ib`, (e) => insertLane(e, e.get(1), 1)),
    ];
  }),
  sse('pextrd', 'sse4.1', '66 0F3A16 /r Ey=,Vx,Ib', (e) =>
    e.set(0, extractLane(e, e.get(1), e.get(2), e.sizeOf(0) === 8 ? 8 : 4)),
  ),
  sse('pinsrd', 'sse4.1', '66 0F3A22 /r Vx!,Ey,Ib', (e) =>
    insertLane(e, e.get(1), e.sizeOf(1) === 8 ? 8 : 4),
  ),
];

const EVEN32 = [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11];

/** PMULUDQ: the even 32-bit lanes, products of 64 bits. */
const multiplyUnsigned: VectorOp = (a, b) =>
  shuffle(a, a, EVEN32).simd2(shuffle(b, b, EVEN32), SIMD.i64x2ExtmulLowU);

/** PCMPxSTRx: lengths explicit in eAX and eDX (rAX, rDX with REX.W) or implicit; index in ECX or mask in XMM0. */
const stringDefs: readonly Def[] = (
  [
    ['pcmpestrm', '60', true, true],
    ['pcmpestri', '61', true, false],
    ['pcmpistrm', '62', false, true],
    ['pcmpistri', '63', false, false],
  ] as const
).map(([name, opcode, explicit, mask]) =>
  sse(name, 'sse4.2', `66 0F3A${opcode} /r Vx,Wu,Ib`, (e) => {
    const b = e.get(1);
    const a = e.get(0);
    const imm = e.get(2);
    // The routine gives the result's bits in 0-15 and the flags' bits in 16-31.
    const lengths = explicit
      ? [RAX, RDX].map((register) => e.callValue('string_length', e.gpr(register), e.recordFlags(), imm))
      : [a, b].map((value) => e.callValue('string_end', value, imm));
    const both = e.callValue('string_compare', e.cpu, a, b, imm, lengths[0] as Val, lengths[1] as Val);
    const bits = e.f.let(both.and(0xffff));
    const bytes = imm.and(1).eqz();
    if (mask) {
      e.setXmm(0, e.callValue('string_mask', bits, imm));
    } else {
      const none = e.f.let(select(bytes, i32(16), i32(8)));
      const first = bits.ctz();
      const last = i32(31).sub(bits.clz());
      const index = select(imm.and(0x40), last, first);
      e.setGpr(RCX, select(bits, index, none), 4);
    }
    e.setStatus(both.shrU(16));
  }),
);

const crcDefs: readonly Def[] = [
  {
    name: 'crc32',
    enc: ['F2 0F38F0 /r Gy!,Eb', 'F2 0F38F1 /r Gy!,Ev'],
    feature: 'sse4.2',
    sem: (e) => {
      const value = e.get(1);
      const crc = e.get(0).wrap();
      const result = e.callValue('crc32c', crc, value.zext(), i32(e.sizeOf(1) * 8));
      e.set(0, e.sizeOf(0) === 8 ? result.zext() : result);
    },
  },
];

export const sseIntDefs: readonly Def[] = [
  ...PLAIN.flatMap(([name, opcode, op]) => bothBinary(name, opcode, op)),
  ...EXTENDED.flatMap(([name, opcode, op]) => bothBinary(name, opcode, op, 'sse')),
  ...bothBinary('paddq', '0FD4', simd(SIMD.i64x2Add), 'sse2'),
  ...bothBinary('psubq', '0FFB', simd(SIMD.i64x2Sub), 'sse2'),
  ...bothBinary('pmuludq', '0FF4', multiplyUnsigned, 'sse2'),
  ...packDefs,
  ...unpackDefs,
  ...shiftDefs,
  ...moveDefs,
  ...shuffleDefs,
  ...ssse3Defs,
  ...sse4Defs,
  ...stringDefs,
  ...crcDefs,
];
