/**
 * Corner and random values, and the state that a case starts from before the generator gives its operands a place.
 * Recorded files hold only what differs from `initialState`, so a change here needs a new recording.
 */
import {
  DATA,
  DATA_BYTES,
  FCW,
  FSW,
  FTW,
  MXCSR,
  MXCSR_MASK,
  RFLAGS,
  RIP,
  CODE,
  Rng,
  ST,
  STATE_BYTES,
  XMM,
  view,
} from './state.ts';

/** What the vector and x87 registers hold. */
export const KINDS = ['int', 'f32', 'f64', 'x87', 'mmx', 'text'] as const;
export type Kind = (typeof KINDS)[number];

const CORNERS_64 = [
  0n,
  1n,
  2n,
  0xffff_ffff_ffff_ffffn,
  0xffff_ffff_ffff_fffen,
  0x7fn,
  0x80n,
  0xffn,
  0x100n,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x1_0000n,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  0x7fff_ffff_ffff_ffffn,
  0x8000_0000_0000_0000n,
  0xffff_ffff_8000_0000n,
  0xffff_ffff_7fff_ffffn,
  0xffff_ffff_ffff_ff80n,
  0xffff_ffff_ffff_8000n,
  0x8080_8080_8080_8080n,
  0x7f7f_7f7f_7f7f_7f7fn,
  0x8000_8000_8000_8000n,
  0x7fff_7fff_7fff_7fffn,
  0x8000_0000_8000_0000n,
  0x7fff_ffff_7fff_ffffn,
  0x5555_5555_5555_5555n,
  0xaaaa_aaaa_aaaa_aaaan,
  0x0123_4567_89ab_cdefn,
];

export function integer64(rng: Rng): bigint {
  const random = (): bigint => (BigInt(rng.next()) << 32n) | BigInt(rng.next());
  switch (rng.below(8)) {
    case 0:
    case 1:
      return rng.pick(CORNERS_64);
    case 2:
      return 1n << BigInt(rng.below(64));
    case 3:
      return BigInt.asUintN(64, ~(1n << BigInt(rng.below(64))));
    case 4:
      return BigInt.asUintN(64, BigInt(rng.below(64) - 32));
    case 5:
      return BigInt.asUintN(64, BigInt.asIntN(32, BigInt(rng.next())));
    default:
      return random();
  }
}

const CORNERS_F32 = [
  0, 0x3f800000, 0x40000000, 0x3f000000, 0x3fc00000, 0x40200000, 0x40600000, 0x00000001, 0x00000002,
  0x007fffff, 0x00800000, 0x00800001, 0x7f7fffff, 0x7f7ffffe, 0x7f800000, 0x7fc00000, 0x7fc12345, 0x7fffffff,
  0x7f800001, 0x7fa5a5a5, 0x7fbfffff, 0x4f000000, 0x4effffff, 0x4f000001, 0x4f800000, 0x5f000000, 0x5effffff,
  0x5f000001, 0x3effffff, 0x3f000001, 0x3f7fffff, 0x3f800001, 0x4b000000, 0x4b000001, 0x4b800000, 0x34000000,
  0x33800000, 0x0c000000, 0x73000000, 0x20000000, 0x5f800000,
];

export function float32(rng: Rng): number {
  const sign = rng.next() & 0x80000000;
  const magnitude = ((): number => {
    switch (rng.below(8)) {
      case 0:
      case 1:
      case 2:
        return rng.pick(CORNERS_F32);
      case 3:
        return rng.next() & 0x007fffff; // denormal
      case 4:
        return ((127 + rng.below(40) - 20) << 23) | (rng.next() & 0x007fffff);
      case 5:
        return ((127 + rng.below(34)) << 23) | (rng.next() & (0x007fffff << rng.below(23)) & 0x007fffff);
      case 6:
        return (rng.pick([1, 2, 24, 25, 230, 253, 254]) << 23) | (rng.next() & 0x007fffff);
      default:
        return rng.next() & 0x7fffffff;
    }
  })();
  return (sign | magnitude) >>> 0;
}

const CORNERS_F64 = [
  0n,
  0x3ff0000000000000n,
  0x4000000000000000n,
  0x3fe0000000000000n,
  0x3ff8000000000000n,
  0x4004000000000000n,
  0x400c000000000000n,
  0x0000000000000001n,
  0x000fffffffffffffn,
  0x0010000000000000n,
  0x0010000000000001n,
  0x7fefffffffffffffn,
  0x7fefffffffffffffn,
  0x7ff0000000000000n,
  0x7ff8000000000000n,
  0x7ff8123456789abcn,
  0x7fffffffffffffffn,
  0x7ff0000000000001n,
  0x7ff4a5a5a5a5a5a5n,
  0x7ff7ffffffffffffn,
  0x41dfffffffc00000n, // 2^31 - 1
  0x41e0000000000000n, // 2^31
  0x41dfffffffe00000n, // 2^31 - 0.5
  0x41e0000000100000n, // 2^31 + 0.5
  0x43e0000000000000n, // 2^63
  0x43dfffffffffffffn,
  0x43e0000000000001n,
  0x3fdfffffffffffffn,
  0x3fe0000000000001n,
  0x3fefffffffffffffn,
  0x3ff0000000000001n,
  0x4330000000000000n, // 2^52
  0x4330000000000001n,
  0x4340000000000000n,
  0x36a0000000000000n, // 2^-149, the least binary32
  0x3690000000000000n, // half of it
  0x3810000000000000n, // 2^-126
  0x380fffffffffffffn,
  0x47efffffe0000000n, // the greatest binary32
  0x47efffffefffffffn,
  0x47effffff0000000n, // rounds to infinity in binary32
  0x3ca0000000000000n,
  0x1ff0000000000000n,
  0x5fe0000000000000n,
];

export function float64(rng: Rng): bigint {
  const random = (BigInt(rng.next()) << 32n) | BigInt(rng.next());
  const sign = rng.chance(0.5) ? 1n << 63n : 0n;
  const fraction = random & 0xfffffffffffffn;
  const sparse = fraction & (0xfffffffffffffn << BigInt(rng.below(52))) & 0xfffffffffffffn;
  switch (rng.below(8)) {
    case 0:
    case 1:
    case 2:
      return sign | rng.pick(CORNERS_F64);
    case 3:
      return sign | fraction;
    case 4:
      return sign | (BigInt(1023 + rng.below(80) - 40) << 52n) | fraction;
    case 5:
      return sign | (BigInt(1023 + rng.below(66)) << 52n) | sparse;
    case 6:
      return (
        sign |
        (BigInt(rng.pick([1, 2, 53, 54, 873, 874, 896, 897, 1149, 1150, 1151, 2000, 2045, 2046])) << 52n) |
        fraction
      );
    default:
      return random;
  }
}

/** An 80-bit value as significand and sign with exponent. */
export function float80(rng: Rng): { readonly significand: bigint; readonly high: number } {
  const random = (BigInt(rng.next()) << 32n) | BigInt(rng.next());
  const top = 1n << 63n;
  const sign = rng.chance(0.5) ? 0x8000 : 0;
  const sparse = (random & (0xffff_ffff_ffff_ffffn << BigInt(rng.below(64)))) | top;
  const make = (exponent: number, significand: bigint): { significand: bigint; high: number } => ({
    significand: BigInt.asUintN(64, significand),
    high: (exponent & 0x7fff) | sign,
  });
  switch (rng.below(24)) {
    case 0:
      return make(0, 0n);
    case 1:
      return make(0x3fff, top); // 1
    case 2:
      return make(
        rng.pick([0x3ffd, 0x3ffe, 0x4000, 0x4001, 0x4002]),
        rng.pick([top, top | (top >> 1n), 0xc90fdaa22168c235n]),
      );
    case 3:
      return make(0, random & (top - 1n)); // denormal
    case 4:
      return make(0, rng.pick([1n, top - 1n, top >> 1n]));
    case 5:
      return make(0, random | top); // pseudo-denormal
    case 6:
      return make(0x7fff, top); // infinity
    case 7:
      return make(0x7fff, random | top | (top >> 1n)); // quiet NaN
    case 8:
      return make(0x7fff, (random & ((top >> 1n) - 1n)) | top | 1n); // signalling NaN
    case 9:
      return rng.chance(0.5) ? make(0x7fff, 3n << 62n) : make(0x7fff, random & (top - 1n)); // default NaN; invalid
    case 10:
      return rng.chance(0.5) ? make(1 + rng.below(0x7ffe), random & (top - 1n)) : make(0x7fff, 0n); // unnormal; invalid
    case 11:
      return make(rng.pick([1, 2, 0x7ffd, 0x7ffe]), rng.pick([top, random | top, 0xffff_ffff_ffff_ffffn]));
    case 12:
      return make(
        0x3fff + rng.pick([31, 32, 62, 63, 64, 15, 14]),
        rng.pick([top, sparse, 0xffff_ffff_ffff_ffffn]),
      );
    case 13:
      return make(
        0x3fff + rng.pick([-1023, -1022, -1074, -1075, 1023, 1024, -126, -127, -149, -150, 127, 128]),
        random | top,
      );
    case 14:
    case 15:
    case 16:
      return make(0x3fff + rng.below(66), sparse);
    case 17:
    case 18:
    case 19:
    case 20:
      return make(0x3fff + rng.below(60) - 30, random | top);
    case 21:
      return make(0x3fff - 1 - rng.below(70), random | top);
    default:
      return make(rng.below(0x7fff), random | top);
  }
}

/** A rounding field, sticky flags and masks for MXCSR; mostly with everything masked. */
export function mxcsr(rng: Rng): number {
  let value = 0x1f80;
  if (rng.chance(0.6)) value |= rng.below(4) << 13;
  if (rng.chance(0.2)) value |= 0x8000;
  if (rng.chance(0.2)) value |= 0x40;
  if (rng.chance(0.3)) value |= rng.next() & 0x3f;
  if (rng.chance(0.2)) value &= ~(rng.next() & 0x1f80);
  return value;
}

/** An x87 control word: mostly masked and with 64-bit precision. */
export function controlWord(rng: Rng): number {
  let value = 0x37f;
  if (rng.chance(0.6)) value = (value & ~0xc00) | (rng.below(4) << 10);
  if (rng.chance(0.4)) value = (value & ~0x300) | (rng.pick([0, 2, 3, 3, 1]) << 8);
  if (rng.chance(0.25)) value &= ~(rng.next() & 0x3f);
  return value;
}

/** Writes a value of the kind's type, or random bytes, to fill `length` bytes. */
export function fillKind(rng: Rng, kind: Kind, bytes: Uint8Array, offset: number, length: number): void {
  const v = view(bytes);
  let at = offset;
  const end = offset + length;
  while (at < end) {
    const left = end - at;
    if (kind === 'f32' && left >= 4) {
      v.setUint32(at, float32(rng), true);
      at += 4;
    } else if (kind === 'f64' && left >= 8) {
      v.setBigUint64(at, float64(rng), true);
      at += 8;
    } else if (kind === 'x87' && left >= 10) {
      const value = float80(rng);
      v.setBigUint64(at, value.significand, true);
      v.setUint16(at + 8, value.high, true);
      at += 10;
    } else if (kind === 'x87' && left >= 8) {
      v.setBigUint64(at, float64(rng), true);
      at += 8;
    } else if (kind === 'x87' && left >= 4) {
      v.setUint32(at, float32(rng), true);
      at += 4;
    } else if (kind === 'text') {
      v.setUint8(at, rng.pick([0, 1, 0x41, 0x42, 0x41, 0x42, 0x43, 0x80, 0xff]));
      at += 1;
    } else if (left >= 8) {
      v.setBigUint64(at, integer64(rng), true);
      at += 8;
    } else {
      v.setUint8(at, rng.next() >>> 24);
      at += 1;
    }
  }
}

const ARITHMETIC_FLAGS = 0x8d5;

/** The state that a case of one kind and seed starts from. */
export function initialState(kind: Kind, seed: number): Uint8Array {
  const rng = new Rng(seed);
  const state = new Uint8Array(STATE_BYTES);
  const v = view(state);
  for (let i = 0; i < 16; i++) v.setBigUint64(i * 8, integer64(rng), true);
  v.setBigUint64(32, BigInt(DATA + 1024 + 8 * rng.below((DATA_BYTES - 2048) / 8)), true);
  v.setBigUint64(RIP, BigInt(CODE + 256 + rng.below(3500)), true);
  v.setUint32(RFLAGS, 0x202 | (rng.next() & ARITHMETIC_FLAGS) | (rng.chance(0.1) ? 0x400 : 0), true);
  v.setUint16(FCW, 0x37f, true);
  v.setUint32(MXCSR, 0x1f80, true);
  v.setUint32(MXCSR_MASK, 0xffff, true);
  for (let i = 0; i < 16; i++) {
    const from = XMM + i * 16;
    if ((kind === 'int' || kind === 'mmx') && rng.chance(0.5)) {
      for (let b = 0; b < 16; b++) state[from + b] = rng.next() >>> 24;
    } else {
      fillKind(rng, kind === 'x87' || kind === 'mmx' ? 'int' : kind, state, from, 16);
    }
  }
  if (kind === 'f32' || kind === 'f64') v.setUint32(MXCSR, mxcsr(rng), true);
  if (kind === 'x87') {
    v.setUint16(FCW, controlWord(rng), true);
    let status = rng.below(8) << 11;
    status |= rng.next() & 0x4700;
    if (rng.chance(0.2)) status |= rng.next() & 0x7f;
    // A pending unmasked exception makes most of the cases #MF: only seldom.
    const unmasked = status & ~v.getUint16(FCW, true) & 0x3f;
    if (unmasked !== 0) {
      if (rng.chance(0.1)) status |= 0x8080;
      else status &= ~unmasked;
    }
    v.setUint16(FSW, status, true);
    let tags = 0xff;
    if (rng.chance(0.3)) tags = rng.next() & 0xff;
    if (rng.chance(0.1)) tags = 0;
    v.setUint8(FTW, tags);
    for (let i = 0; i < 8; i++) {
      const value = float80(rng);
      v.setBigUint64(ST + i * 16, value.significand, true);
      v.setUint16(ST + i * 16 + 8, value.high, true);
    }
  }
  if (kind === 'mmx') {
    v.setUint16(FSW, rng.below(8) << 11, true);
    v.setUint8(FTW, rng.pick([0xff, 0, rng.next() & 0xff]));
    for (let i = 0; i < 8; i++) {
      v.setBigUint64(ST + i * 16, integer64(rng), true);
      v.setUint16(ST + i * 16 + 8, rng.chance(0.8) ? 0xffff : rng.next() & 0xffff, true);
    }
  }
  return state;
}
