/** What definitions of MMX and SSE share. */
import type { Sem } from '../sem.ts';
import { fromLow, lane64, SIMD, splat, splatOf } from '../wasm/simd.ts';
import { i32, select, shuffle, v128, type Val } from '../wasm/value.ts';
import type { Def, Feature } from './def.ts';

/** An operation on two vectors: destination, source. */
export type VectorOp = (a: Val, b: Val) => Val;

/** An operation of one SIMD instruction. */
export const simd =
  (sub: number): VectorOp =>
  (a, b) =>
    a.simd2(b, sub);

/** Byte numbers 0 to 15. */
export const IOTA: Val = v128(Array.from({ length: 16 }, (_, at) => at));

/**
 * MMX semantics around `body`: a pending x87 exception comes first (#MF); afterwards TOP is 0 and all registers are valid
 * (SDM vol. 3, 13.2).
 */
export function mmx(body: (e: Sem) => void): (e: Sem) => void {
  return (e) => {
    e.call('mmx_begin', e.cpu);
    body(e);
    e.call('mmx_done', e.cpu);
  };
}

/** An MMX value in both halves of a vector. */
export const widen = (value: Val): Val => splatOf(value.zext(), SIMD.i64x2Splat);

/** `op` on 16-byte operands: 66 `opcode` /r Vx, Wx. */
export function sseBinary(name: string, opcode: string, op: VectorOp, feature: Feature = 'sse2'): Def {
  return {
    name,
    enc: [`66 ${opcode} /r Vx!,Wx`],
    feature,
    unit: 'sse',
    sem: (e) => {
      const b = e.get(1);
      e.set(0, op(e.get(0), b));
    },
  };
}

/** `op` on MMX operands: NP `opcode` /r Pq, Qq. It sees both in each half of a vector; its low half is the result. */
export function mmxBinary(
  name: string,
  opcode: string,
  op: VectorOp,
  feature: Feature = 'mmx',
  source = 'Qq',
): Def {
  return {
    name,
    enc: [`NP ${opcode} /r Pq!,${source}`],
    feature,
    unit: 'mmx',
    sem: mmx((e) => {
      const b = e.f.let(widen(e.get(1)));
      const a = e.f.let(widen(e.get(0)));
      e.set(0, lane64(op(a, b), 0));
    }),
  };
}

/** The MMX and the SSE form of an operation that works alike on lanes of both. */
export function bothBinary(
  name: string,
  opcode: string,
  op: VectorOp,
  mmxFeature: Feature = 'mmx',
  sseFeature: Feature = 'sse2',
): Def[] {
  return [mmxBinary(name, opcode, op, mmxFeature), sseBinary(name, opcode, op, sseFeature)];
}

/** Interleaves the halves of two values as one instruction does with xmm: lanes of `bytes` from byte `from` on. */
export function interleave(a: Val, b: Val, bytes: number, from: number, total: 8 | 16): Val {
  const lanes: number[] = [];
  for (let at = from; lanes.length < total; at += bytes) {
    for (let k = 0; k < bytes; k++) lanes.push(at + k);
    for (let k = 0; k < bytes; k++) lanes.push(16 + at + k);
  }
  while (lanes.length < 16) lanes.push(0);
  return shuffle(a, b, lanes);
}

/** Bytes of `value` by the numbers in `index`; numbers from 16 on give 0. */
export const swizzle = (value: Val, index: Val): Val => value.simd2(index, SIMD.swizzle);

function atMost16(e: Sem, count: Val): Val {
  const n = e.f.let(count);
  return select(n.gtU(16), i32(16), n);
}

/** `value` moved down by `count` bytes (i32, 0 to 16 and more); zeros come in. */
export function bytesDown(e: Sem, value: Val, count: Val): Val {
  const n = atMost16(e, count);
  return swizzle(value, IOTA.simd2(splatOf(n, SIMD.i8x16Splat), SIMD.i8x16Add));
}
export function bytesUp(e: Sem, value: Val, count: Val): Val {
  const n = atMost16(e, count);
  return swizzle(value, IOTA.simd2(splatOf(n, SIMD.i8x16Splat), SIMD.i8x16Sub));
}

/**
 * A vector whose 32-bit lane k is lane `pick(k)` (an i32 of 0 to 3) of `value`: for immediates that only a record knows.
 */
export function pick32(e: Sem, value: Val, pick: (lane: number) => Val): Val {
  const at = (lane: number): Val => pick(lane).mul(0x04040404).add(0x03020100);
  let index = fromLow(at(0));
  for (let lane = 1; lane < 4; lane++) index = index.withLane(SIMD.i32x4Replace, lane, at(lane));
  return e.f.let(swizzle(value, index));
}

/** All ones in the lanes of `bytes` whose bit in `mask` (i32) is set. */
export function laneMask(mask: Val, bytes: 2 | 4 | 8): Val {
  const bits = v128(Array.from({ length: 16 }, (_, at) => (at % bytes === 0 ? 1 << (at / bytes) : 0)));
  const chosen = splatOf(mask.and(0xff), bytes === 2 ? SIMD.i16x8Splat : SIMD.i32x4Splat);
  const equal = bytes === 2 ? SIMD.i16x8Eq : bytes === 4 ? SIMD.i32x4Eq : SIMD.i64x2Eq;
  const lowMask = splat((1n << BigInt(bytes === 8 ? 32 : bytes * 8)) - 1n, bytes);
  return chosen.simd2(lowMask, SIMD.and).simd2(bits, SIMD.and).simd2(bits, equal);
}
