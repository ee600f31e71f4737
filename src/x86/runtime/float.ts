/**
 * Binary floating point of SSE in integers: every rounding mode, denormals, exceptions (IEEE 754; SDM vol. 1, 11.5).
 *
 * `f32_*` and `f64_*` take and give the bits of values and collect what they raise in CPU.floatFlags, as if all exceptions
 * were masked except where an unmasked one changes what else is raised. Operands are already cleared of denormals when DAZ
 * says so. `float_finish` moves the flags to MXCSR and raises #XM. Fast paths with the host's arithmetic are in sse-float.ts.
 */
import { CPU, VEC } from '../layout.ts';
import { CR4 } from '../registers.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import { routine, type Routine } from './library.ts';
import type { Library } from '../sem.ts';

/** Exception bits of MXCSR, and control bits (SDM vol. 1, figure 10-3). */
export const MXCSR = {
  IE: 1,
  DE: 2,
  ZE: 4,
  OE: 8,
  UE: 16,
  PE: 32,
  DAZ: 64,
  UM: 0x800,
  OM: 0x400,
  PM: 0x1000,
  RC: 0x6000,
  FTZ: 0x8000,
} as const;

/** Rounding modes as RC encodes them. */
export const ROUND = { nearest: 0, down: 1, up: 2, zero: 3 } as const;

export interface Format {
  readonly name: 'f32' | 'f64';
  readonly int: 'i32' | 'i64';
  readonly bits: number;
  /** Bits of the fraction. */
  readonly mant: number;
  readonly bias: number;
  /** The largest biased exponent: infinities and NaNs. */
  readonly expMax: number;
}

export const F32: Format = { name: 'f32', int: 'i32', bits: 32, mant: 23, bias: 127, expMax: 255 };
export const F64: Format = { name: 'f64', int: 'i64', bits: 64, mant: 52, bias: 1023, expMax: 2047 };

const fracMask = (fmt: Format): bigint => (1n << BigInt(fmt.mant)) - 1n;
const quietBit = (fmt: Format): bigint => 1n << BigInt(fmt.mant - 1);
const signBit = (fmt: Format): bigint => 1n << BigInt(fmt.bits - 1);
const infinity = (fmt: Format): bigint => BigInt(fmt.expMax) << BigInt(fmt.mant);
/** The default NaN: sign and quiet bit set ("real indefinite"). */
const indefinite = (fmt: Format): bigint => signBit(fmt) | infinity(fmt) | quietBit(fmt);

/** Fields of a value whose bits are in an i64. */
interface Parts {
  readonly bits: Val;
  /** 0 or 1. */
  readonly sign: Val;
  /** Biased. */
  readonly exp: Val;
  readonly frac: Val;
}

function parts(f: FunctionBuilder, fmt: Format, value: Val): Parts {
  const bits = f.let(value.zext());
  return {
    bits,
    sign: f.let(bits.shrU(fmt.bits - 1).wrap()),
    exp: f.let(bits.shrU(fmt.mant).wrap().and(fmt.expMax)),
    frac: f.let(bits.and(fracMask(fmt))),
  };
}

const isNaN = (fmt: Format, x: Parts): Val => x.exp.eq(fmt.expMax).and(x.frac.ne(0));
const isInf = (fmt: Format, x: Parts): Val => x.exp.eq(fmt.expMax).and(x.frac.eqz());
const isZero = (fmt: Format, x: Parts): Val => x.bits.shl(65 - fmt.bits).eqz();
const isDenormal = (x: Parts): Val => x.exp.eqz().and(x.frac.ne(0));

/** From the i64 in which a result was computed to the type of the format. */
const out = (fmt: Format, value: Val): Val => (fmt.int === 'i32' ? value.wrap() : value);

function raiseFlags(f: FunctionBuilder, flags: number | Val): void {
  const cpu = f.p(0);
  f.store('32', cpu, f.load('32', cpu, CPU.floatFlags).or(flags), CPU.floatFlags);
}

const loadMxcsr = (f: FunctionBuilder): Val => f.let(f.load('32', f.p(0), CPU.mxcsr));

/**
 * Significand with its top bit in bit 63, and the exponent for which the value is sig / 2^63 * 2^exp. Zero: sig 0 and an
 * exponent below all others.
 */
function normalise(f: FunctionBuilder, fmt: Format, x: Parts): { sig: Val; exp: Val } {
  const sig = f.local('i64');
  const exp = f.local('i32');
  f.if(
    x.exp,
    () => {
      sig.set(x.frac.shl(63 - fmt.mant).or(signBit(F64)));
      exp.set(x.exp.sub(fmt.bias));
    },
    () => {
      const shift = f.let(x.frac.clz());
      sig.set(x.frac.shl(shift));
      exp.set(select(x.frac.eqz(), i32(-20000), i32(64 - fmt.bias - fmt.mant).sub(shift.wrap())));
    },
  );
  return { sig: sig.get, exp: exp.get };
}

/** value >> count with the bits shifted out collected in bit 0; any count from 0. */
export function shiftRightJam(f: FunctionBuilder, value: Val, count: Val): Val {
  const n = f.let(count);
  const v = f.let(value);
  const near = f.let(v.shrU(n.zext()).or(v.shl(i64(64).sub(n.zext())).ne(0).and(n.ne(0)).zext()));
  return f.let(select(n.gtU(63), v.ne(0).zext(), near));
}

/** What to add below the last kept bit: half for nearest, all ones away from zero, nothing towards it. */
function increment(f: FunctionBuilder, mode: Val, sign: Val, mask: bigint): Val {
  const half = (mask >> 1n) + 1n;
  const directed = select(mode.eq(select(sign, i32(ROUND.down), i32(ROUND.up))), i64(mask), i64(0));
  return f.let(select(mode.eqz(), i64(half), directed));
}

const result = (fmt: Format, sign: Val, magnitude: Val): Val =>
  out(
    fmt,
    sign
      .zext()
      .shl(fmt.bits - 1)
      .or(magnitude),
  );

/** Both formats' routines. */
function routines(fmt: Format): Routine[] {
  const t = fmt.int;
  const list: Routine[] = [];
  const add = (
    name: string,
    params: readonly ('i32' | 'i64')[],
    body: (f: FunctionBuilder, lib: Library) => void,
  ): void => {
    list.push(
      routine(`${fmt.name}_${name}`, ['i32', ...params], [t], (f, lib) => {
        body(f, lib);
        f.unreachable();
      }),
    );
  };
  const give = (f: FunctionBuilder, value: bigint | Val): void =>
    f.return(typeof value === 'bigint' ? out(fmt, i64(value)) : out(fmt, value));
  const invalid = (f: FunctionBuilder): void => {
    raiseFlags(f, MXCSR.IE);
    give(f, indefinite(fmt));
  };
  /** DE unless the result is decided by something of higher priority; called behind the tests for that. */
  const denormals = (f: FunctionBuilder, ...xs: readonly Parts[]): void => {
    const any = xs.map(isDenormal).reduce((a, b) => a.or(b));
    f.if(any, () => raiseFlags(f, MXCSR.DE));
  };
  const call = (f: FunctionBuilder, lib: Library, name: string, ...args: readonly Val[]): void =>
    f.return(f.callValue(lib(`${fmt.name}_${name}`), f.p(0), ...args));

  /** (sign, exp, sig): the rounded value of sig / 2^63 * 2^exp, bit 63 of sig set. */
  add('pack', ['i32', 'i32', 'i64'], (f) => {
    const shift = 63 - fmt.mant;
    const mask = (1n << BigInt(shift)) - 1n;
    const half = 1n << BigInt(shift - 1);
    const sign = f.p(1);
    const sig = f.p(3);
    const mxcsr = loadMxcsr(f);
    const mode = f.let(mxcsr.and(MXCSR.RC).shrU(13));
    const exp = f.local('i32', f.p(2).add(fmt.bias));
    const inc = increment(f, mode, sign, mask);
    const roundTo = (value: Val, low: Val): Val => {
      const rounded = f.let(value.add(inc).shrU(shift));
      return f.let(select(mode.eqz().and(low.eq(half)), rounded.and(-2n), rounded));
    };
    f.if(exp.get.leS(0), () => {
      // Tiny after rounding: also with an unbounded exponent the rounded value stays below the smallest normal one.
      const tiny = f.let(exp.get.ne(0).or(sig.add(inc).geU(sig)));
      f.if(tiny, () => {
        f.if(mxcsr.and(MXCSR.UM).eqz(), () => {
          raiseFlags(f, select(sig.and(mask).ne(0), i32(MXCSR.UE | MXCSR.PE), i32(MXCSR.UE)));
          give(f, 0n);
        });
        f.if(mxcsr.and(MXCSR.FTZ), () => {
          raiseFlags(f, MXCSR.UE | MXCSR.PE);
          f.return(result(fmt, sign, i64(0)));
        });
      });
      const small = shiftRightJam(f, sig, i32(1).sub(exp.get));
      const low = f.let(small.and(mask));
      f.if(low.ne(0), () => raiseFlags(f, select(tiny, i32(MXCSR.UE | MXCSR.PE), i32(MXCSR.PE))));
      f.return(result(fmt, sign, roundTo(small, low)));
    });
    const low = f.let(sig.and(mask));
    const rounded = f.local('i64');
    f.if(
      sig.add(inc).ltU(sig),
      () => {
        rounded.set(i64(1n << BigInt(fmt.mant)));
        exp.set(exp.get.add(1));
      },
      () => rounded.set(roundTo(sig, low)),
    );
    f.if(exp.get.geS(fmt.expMax), () => {
      const inexact = f.let(low.ne(0).or(mxcsr.and(MXCSR.OM).bool()));
      raiseFlags(f, select(inexact, i32(MXCSR.OE | MXCSR.PE), i32(MXCSR.OE)));
      // Rounding towards zero, or to the infinity of the other sign, stops at the largest finite value.
      const finite = f.let(mode.ne(0).and(mode.ne(select(sign, i32(ROUND.down), i32(ROUND.up)))));
      f.return(result(fmt, sign, select(finite, i64(infinity(fmt) - 1n), i64(infinity(fmt)))));
    });
    f.if(low.ne(0), () => raiseFlags(f, MXCSR.PE));
    f.return(
      result(
        fmt,
        sign,
        exp.get
          .zext()
          .shl(fmt.mant)
          .or(rounded.get.and(fracMask(fmt))),
      ),
    );
  });

  /** At least one operand is a NaN: the first that is, made quiet (SDM vol. 1, table 4-7, SSE column). */
  add('nan', [t, t], (f) => {
    const a = parts(f, fmt, f.p(1));
    const b = parts(f, fmt, f.p(2));
    const signalling = (x: Parts): Val => isNaN(fmt, x).and(x.frac.and(quietBit(fmt)).eqz());
    f.if(signalling(a).or(signalling(b)), () => raiseFlags(f, MXCSR.IE));
    give(f, select(isNaN(fmt, a), a.bits, b.bits).or(quietBit(fmt)));
  });

  /** Returns when an operand is a NaN. */
  const nans = (f: FunctionBuilder, lib: Library, a: Parts, b: Parts): void =>
    f.if(isNaN(fmt, a).or(isNaN(fmt, b)), () => call(f, lib, 'nan', f.p(1), f.p(2)));

  const sum = (name: string, subtract: boolean): void =>
    add(name, [t, t], (f, lib) => {
      const a = parts(f, fmt, f.p(1));
      const b = parts(f, fmt, f.p(2));
      nans(f, lib, a, b);
      const signB = f.let(subtract ? b.sign.xor(1) : b.sign);
      const infA = f.let(isInf(fmt, a));
      const infB = f.let(isInf(fmt, b));
      f.if(infA.and(infB).and(a.sign.ne(signB)), () => invalid(f));
      denormals(f, a, b);
      f.if(infA, () => give(f, a.bits));
      f.if(infB, () => f.return(result(fmt, signB, i64(infinity(fmt)))));
      const cancelled = f.let(
        loadMxcsr(f)
          .and(MXCSR.RC)
          .eq(ROUND.down << 13),
      );
      f.if(isZero(fmt, a).and(isZero(fmt, b)), () =>
        f.return(result(fmt, select(a.sign.eq(signB), a.sign, cancelled), i64(0))),
      );
      const x = normalise(f, fmt, a);
      const y = normalise(f, fmt, b);
      const swap = f.let(x.exp.ltS(y.exp));
      const exp = f.let(select(swap, y.exp, x.exp));
      const distance = f.let(select(swap, exp.sub(x.exp), exp.sub(y.exp)));
      const large = f.let(select(swap, y.sig, x.sig).shrU(1));
      const small = shiftRightJam(f, select(swap, x.sig, y.sig).shrU(1), distance);
      const sign = f.local('i32', select(swap, signB, a.sign));
      const sig = f.local('i64');
      f.if(
        a.sign.eq(signB),
        () => sig.set(large.add(small)),
        () => {
          sig.set(large.sub(small));
          f.if(sig.get.eqz(), () => f.return(result(fmt, cancelled, i64(0))));
          f.if(large.ltU(small), () => {
            sig.set(small.sub(large));
            sign.set(sign.get.xor(1));
          });
        },
      );
      const shift = f.let(sig.get.clz());
      call(f, lib, 'pack', sign.get, exp.add(1).sub(shift.wrap()), sig.get.shl(shift));
    });
  sum('add', false);
  sum('sub', true);

  add('mul', [t, t], (f, lib) => {
    const a = parts(f, fmt, f.p(1));
    const b = parts(f, fmt, f.p(2));
    nans(f, lib, a, b);
    const sign = f.let(a.sign.xor(b.sign));
    const zero = f.let(isZero(fmt, a).or(isZero(fmt, b)));
    const inf = f.let(isInf(fmt, a).or(isInf(fmt, b)));
    f.if(zero.and(inf), () => invalid(f));
    denormals(f, a, b);
    f.if(inf, () => f.return(result(fmt, sign, i64(infinity(fmt)))));
    f.if(zero, () => f.return(result(fmt, sign, i64(0))));
    const x = normalise(f, fmt, a);
    const y = normalise(f, fmt, b);
    const high = f.callValue(lib('float_mul_high'), x.sig, y.sig);
    const low = f.let(x.sig.mul(y.sig));
    const carry = f.let(high.shrU(63));
    const sig = f.let(select(carry.wrap(), high, high.shl(1).or(low.shrU(63))));
    const rest = f.let(select(carry.wrap(), low, low.shl(1)).ne(0).zext());
    call(f, lib, 'pack', sign, x.exp.add(y.exp).add(carry.wrap()), sig.or(rest));
  });

  add('div', [t, t], (f, lib) => {
    const a = parts(f, fmt, f.p(1));
    const b = parts(f, fmt, f.p(2));
    nans(f, lib, a, b);
    const sign = f.let(a.sign.xor(b.sign));
    const zeroA = f.let(isZero(fmt, a));
    const zeroB = f.let(isZero(fmt, b));
    const infA = f.let(isInf(fmt, a));
    const infB = f.let(isInf(fmt, b));
    f.if(zeroA.and(zeroB).or(infA.and(infB)), () => invalid(f));
    // Division by zero comes before a denormal dividend, but an infinite dividend divides exactly.
    f.if(zeroB.and(infA.eqz()), () => {
      raiseFlags(f, MXCSR.ZE);
      f.return(result(fmt, sign, i64(infinity(fmt))));
    });
    denormals(f, a, b);
    f.if(infA, () => f.return(result(fmt, sign, i64(infinity(fmt)))));
    f.if(zeroA.or(infB), () => f.return(result(fmt, sign, i64(0))));
    const x = normalise(f, fmt, a);
    const y = normalise(f, fmt, b);
    const exp = f.let(x.exp.sub(y.exp));
    const quotient = f.local('i64', 0);
    const rest = f.local('i64');
    if (fmt.mant === 23) {
      // 24-bit significands: one integer division gives 38 bits and more.
      const divisor = f.let(y.sig.shrU(40));
      const dividend = f.let(x.sig.shrU(1));
      quotient.set(dividend.divU(divisor));
      rest.set(dividend.sub(quotient.get.mul(divisor)));
      const shift = f.let(quotient.get.clz());
      call(
        f,
        lib,
        'pack',
        sign,
        exp.add(24).sub(shift.wrap()),
        quotient.get.shl(shift).or(rest.get.ne(0).zext()),
      );
      return;
    }
    const divisor = f.let(y.sig.shrU(1));
    rest.set(x.sig.shrU(2));
    const steps = f.local('i32', 64);
    f.loop((again) => {
      rest.set(rest.get.shl(1));
      const fits = f.let(rest.get.geU(divisor));
      rest.set(rest.get.sub(select(fits, divisor, i64(0))));
      quotient.set(quotient.get.shl(1).or(fits.zext()));
      steps.set(steps.get.sub(1));
      f.brIf(again, steps.get);
    });
    const shift = f.let(quotient.get.clz());
    call(f, lib, 'pack', sign, exp.sub(shift.wrap()), quotient.get.shl(shift).or(rest.get.ne(0).zext()));
  });

  add('sqrt', [t], (f, lib) => {
    const a = parts(f, fmt, f.p(1));
    f.if(isNaN(fmt, a), () => call(f, lib, 'nan', f.p(1), f.p(1)));
    f.if(isZero(fmt, a), () => f.return(f.p(1)));
    f.if(a.sign, () => invalid(f));
    denormals(f, a);
    f.if(a.exp.eq(fmt.expMax), () => f.return(f.p(1)));
    const x = normalise(f, fmt, a);
    // Two bits of the radicand give one of the root; an odd exponent moves one bit into the radicand.
    const bits = fmt.mant + 6;
    const radicand = f.local('i64', select(x.exp.and(1), x.sig, x.sig.shrU(1)));
    const root = f.local('i64', 0);
    const rest = f.local('i64', 0);
    const steps = f.local('i32', bits);
    f.loop((again) => {
      rest.set(rest.get.shl(2).or(radicand.get.shrU(62)));
      radicand.set(radicand.get.shl(2));
      const trial = f.let(root.get.shl(2).or(1));
      const fits = f.let(rest.get.geU(trial));
      rest.set(rest.get.sub(select(fits, trial, i64(0))));
      root.set(root.get.shl(1).or(fits.zext()));
      steps.set(steps.get.sub(1));
      f.brIf(again, steps.get);
    });
    call(f, lib, 'pack', i32(0), x.exp.shrS(1), root.get.shl(64 - bits).or(rest.get.ne(0).zext()));
  });

  /** MIN and MAX raise as a signalling comparison does; the value is a native comparison's business. */
  list.push(
    routine(`${fmt.name}_compare_flags`, ['i32', t, t, 'i32'], [], (f) => {
      const a = parts(f, fmt, f.p(1));
      const b = parts(f, fmt, f.p(2));
      const nanA = f.let(isNaN(fmt, a));
      const nanB = f.let(isNaN(fmt, b));
      f.if(
        nanA.or(nanB),
        () => {
          const quiet = (x: Parts, nan: Val): Val => nan.eqz().or(x.frac.and(quietBit(fmt)).ne(0));
          f.if(f.p(3).or(quiet(a, nanA).and(quiet(b, nanB)).eqz()), () => raiseFlags(f, MXCSR.IE));
        },
        () => denormals(f, a, b),
      );
    }),
  );

  /** Rounded value of an i64. */
  add('from_i64', ['i64'], (f, lib) => {
    f.if(f.p(1).eqz(), () => give(f, 0n));
    const sign = f.let(f.p(1).shrU(63).wrap());
    const magnitude = f.let(select(sign, f.p(1).neg(), f.p(1)));
    const shift = f.let(magnitude.clz());
    call(f, lib, 'pack', sign, i32(63).sub(shift.wrap()), magnitude.shl(shift));
  });

  /** (value, mode, bits 32 or 64): the integer by rounding mode `mode`, or the integer indefinite; as i64. */
  list.push(
    routine(`${fmt.name}_to_int`, ['i32', t, 'i32', 'i32'], ['i64'], (f) => {
      const a = parts(f, fmt, f.p(1));
      const mode = f.p(2);
      const wide = f.let(f.p(3).eq(64));
      const limit = f.let(select(wide, i64(1n << 63n), i64(1n << 31n)));
      const bad = (): void => {
        raiseFlags(f, MXCSR.IE);
        f.return(limit);
      };
      f.if(isZero(fmt, a), () => f.return(i64(0)));
      f.if(a.exp.eq(fmt.expMax), bad);
      const x = normalise(f, fmt, a);
      f.if(x.exp.gtS(63), bad);
      const whole = f.local('i64', 0);
      /** The fraction as 64 bits behind the point. */
      const fraction = f.local('i64', 0);
      f.if(
        x.exp.ltS(0),
        () => fraction.set(shiftRightJam(f, x.sig, i32(-1).sub(x.exp))),
        () => {
          whole.set(x.sig.shrU(i32(63).sub(x.exp).zext()));
          f.if(x.exp.ltS(63), () => fraction.set(x.sig.shl(x.exp.add(1).zext())));
        },
      );
      const half = 1n << 63n;
      const nearest = fraction.get.gtU(half).or(fraction.get.eq(half).and(whole.get.wrap().and(1)));
      const directed = fraction.get.ne(0).and(mode.eq(select(a.sign, i32(ROUND.down), i32(ROUND.up))));
      const up = f.let(select(mode.eqz(), nearest, directed));
      whole.set(whole.get.add(up.zext()));
      f.if(whole.get.gtU(limit.sub(a.sign.eqz().zext())), bad);
      f.if(fraction.get.ne(0), () => raiseFlags(f, MXCSR.PE));
      f.return(select(a.sign, whole.get.neg(), whole.get));
      f.unreachable();
    }),
  );
  return list;
}

export const floatRoutines: readonly Routine[] = [
  ...routines(F32),
  ...routines(F64),

  /** High half of the product of two u64. */
  routine('float_mul_high', ['i64', 'i64'], ['i64'], (f) => {
    const low = (value: Val): Val => value.and(0xffffffffn);
    const a0 = f.let(low(f.p(0)));
    const a1 = f.let(f.p(0).shrU(32));
    const b0 = f.let(low(f.p(1)));
    const b1 = f.let(f.p(1).shrU(32));
    const mid = f.let(a1.mul(b0).add(a0.mul(b0).shrU(32)));
    const mid2 = f.let(a0.mul(b1).add(low(mid)));
    f.return(a1.mul(b1).add(mid.shrU(32)).add(mid2.shrU(32)));
    f.unreachable();
  }),

  /** f32 to f64: exact, NaNs quietened. */
  routine('f32_to_f64', ['i32', 'i32'], ['i64'], (f) => {
    const a = parts(f, F32, f.p(1));
    f.if(isNaN(F32, a), () => {
      f.if(a.frac.and(quietBit(F32)).eqz(), () => raiseFlags(f, MXCSR.IE));
      f.return(
        a.sign
          .zext()
          .shl(63)
          .or(a.frac.shl(29))
          .or(infinity(F64) | quietBit(F64)),
      );
    });
    f.if(isDenormal(a), () => raiseFlags(f, MXCSR.DE));
    f.return(f.p(1).reinterpret().promote().reinterpret());
    f.unreachable();
  }),

  routine('f64_to_f32', ['i32', 'i64'], ['i32'], (f, lib) => {
    const a = parts(f, F64, f.p(1));
    const sign = f.let(a.sign.shl(31));
    f.if(isNaN(F64, a), () => {
      f.if(a.frac.and(quietBit(F64)).eqz(), () => raiseFlags(f, MXCSR.IE));
      f.return(sign.or(a.frac.shrU(29).wrap()).or(Number(infinity(F32) | quietBit(F32))));
    });
    f.if(a.exp.eq(F64.expMax), () => f.return(sign.or(Number(infinity(F32)))));
    f.if(isZero(F64, a), () => f.return(sign));
    f.if(isDenormal(a), () => raiseFlags(f, MXCSR.DE));
    const x = normalise(f, F64, a);
    f.return(f.callValue(lib('f32_pack'), f.p(0), a.sign, x.exp, x.sig));
    f.unreachable();
  }),

  /**
   * Ends an instruction: CPU.floatFlags go to MXCSR; an unmasked one raises #XM, or #UD when the system does not take #XM. An
   * unmasked IE, DE or ZE anywhere in the vector is found before results are, and with it no OE, UE or PE is reported.
   */
  routine('float_finish', ['i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const flags = f.local('i32', f.load('32', cpu, CPU.floatFlags));
    f.if(flags.get.eqz(), () => f.return());
    const mxcsr = loadMxcsr(f);
    const enabled = f.let(mxcsr.shrU(7).and(0x3f).not());
    f.if(flags.get.and(enabled).and(MXCSR.IE | MXCSR.DE | MXCSR.ZE), () =>
      flags.set(flags.get.and(MXCSR.IE | MXCSR.DE | MXCSR.ZE)),
    );
    f.store('32', cpu, mxcsr.or(flags.get), CPU.mxcsr);
    f.if(flags.get.and(enabled), () => {
      const taken = f.load('32', cpu, CPU.cr4).and(CR4.OSXMMEXCPT);
      f.call(lib('raise'), cpu, select(taken, i32(VEC.XM), i32(VEC.UD)));
    });
  }),
];
