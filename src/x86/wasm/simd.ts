/** WebAssembly's SIMD instructions by name (WebAssembly Core Specification, 5.4.9), and constants of vectors. */
import { v128, Val, simdOpcode } from './value.ts';

/** Sub-opcodes under prefix 0xfd. */
export const SIMD = {
  swizzle: 14,
  i8x16Splat: 15,
  i16x8Splat: 16,
  i32x4Splat: 17,
  i64x2Splat: 18,
  f32x4Splat: 19,
  f64x2Splat: 20,
  i8x16ExtractS: 21,
  i8x16ExtractU: 22,
  i8x16Replace: 23,
  i16x8ExtractS: 24,
  i16x8ExtractU: 25,
  i16x8Replace: 26,
  i32x4Extract: 27,
  i32x4Replace: 28,
  i64x2Extract: 29,
  i64x2Replace: 30,
  f32x4Extract: 31,
  f32x4Replace: 32,
  f64x2Extract: 33,
  f64x2Replace: 34,
  i8x16Eq: 35,
  i8x16GtS: 39,
  i8x16GtU: 40,
  i16x8Eq: 45,
  i16x8GtS: 49,
  i32x4Eq: 55,
  i32x4LtU: 58,
  i32x4GtS: 59,
  f32x4Eq: 65,
  f32x4Ne: 66,
  f32x4Lt: 67,
  f32x4Gt: 68,
  f32x4Le: 69,
  f32x4Ge: 70,
  f64x2Eq: 71,
  f64x2Ne: 72,
  f64x2Lt: 73,
  f64x2Gt: 74,
  f64x2Le: 75,
  f64x2Ge: 76,
  not: 77,
  and: 78,
  /** a & ~b. */
  andnot: 79,
  or: 80,
  xor: 81,
  /** bitselect(a, b, mask): the third operand is the mask. */
  bitselect: 82,
  anyTrue: 83,
  demoteF64x2Zero: 94,
  promoteLowF32x4: 95,
  i8x16Abs: 96,
  i8x16Neg: 97,
  i8x16AllTrue: 99,
  i8x16Bitmask: 100,
  i8x16NarrowS: 101,
  i8x16NarrowU: 102,
  f32x4Ceil: 103,
  f32x4Floor: 104,
  f32x4Trunc: 105,
  f32x4Nearest: 106,
  i8x16Shl: 107,
  i8x16ShrS: 108,
  i8x16ShrU: 109,
  i8x16Add: 110,
  i8x16AddSatS: 111,
  i8x16AddSatU: 112,
  i8x16Sub: 113,
  i8x16SubSatS: 114,
  i8x16SubSatU: 115,
  f64x2Ceil: 116,
  f64x2Floor: 117,
  i8x16MinS: 118,
  i8x16MinU: 119,
  i8x16MaxS: 120,
  i8x16MaxU: 121,
  f64x2Trunc: 122,
  i8x16AvgrU: 123,
  i16x8ExtaddPairwiseI8x16S: 124,
  i16x8ExtaddPairwiseI8x16U: 125,
  i32x4ExtaddPairwiseI16x8U: 127,
  i16x8Abs: 128,
  i16x8Neg: 129,
  i16x8Bitmask: 132,
  i16x8NarrowS: 133,
  i16x8NarrowU: 134,
  i16x8ExtendLowS: 135,
  i16x8ExtendHighS: 136,
  i16x8ExtendLowU: 137,
  i16x8ExtendHighU: 138,
  i16x8Shl: 139,
  i16x8ShrS: 140,
  i16x8ShrU: 141,
  i16x8Add: 142,
  i16x8AddSatS: 143,
  i16x8AddSatU: 144,
  i16x8Sub: 145,
  i16x8SubSatS: 146,
  i16x8SubSatU: 147,
  f64x2Nearest: 148,
  i16x8Mul: 149,
  i16x8MinS: 150,
  i16x8MinU: 151,
  i16x8MaxS: 152,
  i16x8MaxU: 153,
  i16x8AvgrU: 155,
  i32x4Abs: 160,
  i32x4Neg: 161,
  i32x4AllTrue: 163,
  i32x4Bitmask: 164,
  i32x4ExtendLowS: 167,
  i32x4ExtendHighS: 168,
  i32x4ExtendLowU: 169,
  i32x4ExtendHighU: 170,
  i32x4Shl: 171,
  i32x4ShrS: 172,
  i32x4ShrU: 173,
  i32x4Add: 174,
  i32x4Sub: 177,
  i32x4Mul: 181,
  i32x4MinS: 182,
  i32x4MinU: 183,
  i32x4MaxS: 184,
  i32x4MaxU: 185,
  i32x4DotI16x8S: 186,
  i32x4ExtmulLowI16x8S: 188,
  i32x4ExtmulHighI16x8S: 189,
  i32x4ExtmulLowI16x8U: 190,
  i32x4ExtmulHighI16x8U: 191,
  i64x2AllTrue: 195,
  i64x2Bitmask: 196,
  i64x2ExtendLowS: 199,
  i64x2ExtendLowU: 201,
  i64x2Shl: 203,
  i64x2ShrS: 204,
  i64x2ShrU: 205,
  i64x2Add: 206,
  i64x2Sub: 209,
  i64x2Eq: 214,
  i64x2GtS: 217,
  i64x2ExtmulLowS: 220,
  i64x2ExtmulLowU: 222,
  f32x4Abs: 224,
  f32x4Sqrt: 227,
  f32x4Add: 228,
  f32x4Sub: 229,
  f32x4Mul: 230,
  f32x4Div: 231,
  f32x4Pmin: 234,
  f32x4Pmax: 235,
  f64x2Abs: 236,
  f64x2Sqrt: 239,
  f64x2Add: 240,
  f64x2Sub: 241,
  f64x2Mul: 242,
  f64x2Div: 243,
  f64x2Pmin: 246,
  f64x2Pmax: 247,
  f32x4ConvertI32x4S: 250,
  f64x2ConvertLowI32x4S: 254,
} as const;

/** The vector with the low `bytes * 8` bits of `value` in each lane of `bytes` bytes. */
export function splat(value: bigint | number, bytes: 1 | 2 | 4 | 8): Val {
  const lane = BigInt.asUintN(bytes * 8, BigInt(value));
  return v128(Array.from({ length: 16 }, (_, at) => Number((lane >> BigInt((at % bytes) * 8)) & 0xffn)));
}

/** The vector of four 32-bit lanes, lowest first. */
export function lanes32(values: readonly number[]): Val {
  return v128(
    values.flatMap((value) => [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24]),
  );
}

export const ZERO128: Val = v128(new Array<number>(16).fill(0));

/** Bits of `a` where `mask` is set, else of `b`. */
export function bitselect(a: Val, b: Val, mask: Val): Val {
  return new Val('v128', (out) => {
    a.emit(out);
    b.emit(out);
    mask.emit(out);
    out.u8(...simdOpcode(SIMD.bitselect));
  });
}

/** An integer in the low lane, the others zero. */
export function fromLow(value: Val): Val {
  return value.t === 'i64'
    ? ZERO128.withLane(SIMD.i64x2Replace, 0, value)
    : ZERO128.withLane(SIMD.i32x4Replace, 0, value);
}

/** Shift of all lanes by an i32 count (taken modulo the lane's width). */
export function shiftLanes(value: Val, count: Val, sub: number): Val {
  return value.op2(count, simdOpcode(sub), 'v128');
}

export function splatOf(value: Val, sub: number): Val {
  return value.op1(simdOpcode(sub), 'v128');
}

export function lane64(value: Val, index: 0 | 1): Val {
  return value.lane(SIMD.i64x2Extract, index, 'i64');
}
export function lane32(value: Val, index: number): Val {
  return value.lane(SIMD.i32x4Extract, index, 'i32');
}
