/**
 * Partition reference time (Hyper-V TLFS 12.2, 12.7): a 100 ns counter that a guest reads from an MSR or computes
 * from its TSC by the reference TSC page.
 *
 * Both must agree to the tick, and a timer that is due at count c must not fire while a reader still sees c - 1. So
 * the counter is DEFINED as the page's formula, ((tsc * scale) >> 64) + offset, and times are found by inverting it,
 * not by dividing nanoseconds.
 */

import { referenceTscPage, PAGE_SIZE } from '../abi/hyperv/pages.ts';

export interface ReferenceTime {
  readonly tscHz: number;
  readonly apicHz: number;
  /** TSC at virtual time 0. */
  readonly tscAtZero: bigint;
  readonly scale: bigint;
  readonly offset: bigint;
  /** Of the page; never 0 or 0xFFFFFFFF, which tell old and new guests that it is invalid. */
  sequence: number;
}

const NS_PER_SECOND = 1_000_000_000n;
const TICKS_PER_SECOND = 10_000_000n;

export function createReferenceTime(options: {
  readonly tscHz: number;
  readonly apicHz: number;
  readonly tscAtZero?: bigint;
}): ReferenceTime {
  const { tscHz, apicHz, tscAtZero = 0n } = options;
  if (!Number.isSafeInteger(tscHz) || tscHz <= Number(TICKS_PER_SECOND)) {
    throw new RangeError(`TSC frequency ${tscHz} Hz must be a whole number above 10 MHz`);
  }
  const scale = (TICKS_PER_SECOND << 64n) / BigInt(tscHz);
  return { tscHz, apicHz, tscAtZero, scale, offset: -((tscAtZero * scale) >> 64n), sequence: 0 };
}

/** The TSC at virtual time `now` (ns). */
export function tscAt(time: ReferenceTime, now: number): bigint {
  return (BigInt(now) * BigInt(time.tscHz)) / NS_PER_SECOND + time.tscAtZero;
}

/** The reference counter, in 100 ns since virtual time 0. */
export function referenceCount(time: ReferenceTime, now: number): bigint {
  return ((tscAt(time, now) * time.scale) >> 64n) + time.offset;
}

/** First virtual time in ns at which the counter is at least `count`; Infinity beyond what a number can count. */
export function timeOfCount(time: ReferenceTime, count: bigint): number {
  if (count <= 0n) return 0;
  const tsc = ceilDivide((count - time.offset) << 64n, time.scale);
  const ns = ceilDivide((tsc - time.tscAtZero) * NS_PER_SECOND, BigInt(time.tscHz));
  return ns > BigInt(Number.MAX_SAFE_INTEGER) ? Infinity : Number(ns);
}

function ceilDivide(dividend: bigint, divisor: bigint): bigint {
  return (dividend + divisor - 1n) / divisor;
}

/** Contents of the reference TSC page for a guest that enables it now; each enabling has a sequence of its own. */
export function nextReferenceTscPage(time: ReferenceTime): Uint8Array {
  time.sequence = (time.sequence + 1) >>> 0;
  if (time.sequence === 0 || time.sequence === 0xffff_ffff) time.sequence = 1;
  return referenceTscPage.write(
    { sequence: time.sequence, scale: time.scale, offset: BigInt.asUintN(64, time.offset) },
    new Uint8Array(PAGE_SIZE),
  );
}
