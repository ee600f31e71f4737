/**
 * The x87 transcendentals (Intel SDM vol. 1, 8.3.10; AMD APM vol. 5): worked out in 128-bit fractions, then rounded once by
 * the control word, so that the result is the rounded exact value but for about one argument in 2^55; the documented bound is one
 * unit in the last place of 64 bits. Arguments of the trigonometric functions are reduced by the 66-bit pi of the 387 and all
 * its successors (SDM vol. 1, 8.3.8), exactly.
 *
 * Results go to CPU.wide as in fpu.ts. A value in flight is a fraction from 1/2 up to 1 and a power of two.
 */
import { CPU } from '../layout.ts';
import type { Library } from '../sem.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import {
  BIAS,
  FSW,
  INTEGER_BIT,
  denormal,
  flag,
  indefinite,
  isDenormal,
  denormalOperands,
  isInf,
  normalize,
  notANumber,
  result,
  signOf,
  specialOperand,
  specialOperands,
} from './fpu-values.ts';
import { routine, type Routine } from './library.ts';
import { ARCTANGENTS, CONSTANTS, callSeries } from './series.ts';
import { type Wide, WideMath, wideConstant } from './wide.ts';

/** pi / 2 with pi of 66 bits, 4 * 0.C90FDAA22168C234C (hexadecimal), in units of 2^-65. */
const HALF_PI_66 = 0x3243f6a8885a308d3n;
/** The greatest fraction: 1 less the smallest unit, for a value that lies just below 1. */
const BELOW_ONE = wideConstant(-1n);

interface Float {
  readonly value: Wide;
  /** The number is value * 2^exp. */
  readonly exp: Val;
}

/** Significand and exponent of an operand that is not zero. */
function unpack(f: FunctionBuilder, mant: Val, se: Val): Float {
  const n = normalize(f, mant, se);
  return { value: [n.mant, i64(0)], exp: f.let(n.exp.sub(BIAS - 1)) };
}
/** The product of a logarithm and b, rounded. */
function scaleBy(
  f: FunctionBuilder,
  lib: Library,
  cpu: Val,
  log: Float,
  sign: Val,
  rest: Val,
  b: Val,
  bse: Val,
): void {
  const y = unpack(f, b, bse);
  const value = new WideMath(f, lib).mul(log.value, y.value);
  // Processors report the logarithm of every power of two but 1 as inexact.
  flag(f, lib, cpu, FSW.PE);
  finish(f, lib, cpu, f.let(sign.xor(signOf(bse))), { value, exp: f.let(log.exp.add(y.exp)) }, rest);
  // And so as an underflow, when the result is a denormal.
  const tiny = f.let(
    f
      .load('32', cpu, CPU.wide + 8)
      .and(0x7fff)
      .eqz(),
  );
  f.if(
    rest
      .eqz()
      .and(tiny)
      .and(f.load('64', cpu, CPU.wide).gtS(0)),
    () => flag(f, lib, cpu, FSW.UE),
  );
}
const isZero = (mant: Val, se: Val): Val => mant.eqz().and(se.and(0x7fff).eqz());

/** Rounds value * 2^exp (value not zero); `rest` says whether more bits follow than value has. */
function finish(
  f: FunctionBuilder,
  lib: Library,
  cpu: Val,
  sign: Val,
  { value, exp }: Float,
  rest: Val = i32(1),
): void {
  const { value: v, shift } = new WideMath(f, lib).normalize(value);
  f.call(lib('fpu_round'), cpu, sign, exp.sub(shift).add(BIAS - 1), v[0], v[1].or(rest.zext()), i32(64));
}

/** A value of at least 1/4 as a plain fraction: exp is 0 or less. */
const fixed = (m: WideMath, { value, exp }: Float): Wide => m.shr(value, exp.neg());

/** a less a little: a - a * part, and less still by the bits that are not there. */
function minusPart(m: WideMath, a: Wide, part: Wide): Wide {
  return m.sub(m.sub(a, m.mul(a, part)), [i64(0), i64(1)]);
}

export const transcendentalRoutines: readonly Routine[] = [
  /** 2^a - 1 for a between -1 and 1. Outside, where the result is undefined, the operand stays. */
  routine('fpu_exp2_minus_1', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const [cpu, a, se] = [f.p(0), f.p(1), f.p(2)];
    const m = new WideMath(f, lib);
    const sign = f.let(signOf(se));
    specialOperand(f, lib, cpu, a, se);
    f.if(isInf(a, se), () => {
      result(f, cpu, i64(INTEGER_BIT), select(sign, i32(0x8000 | BIAS), se));
      f.return();
    });
    f.if(isZero(a, se), () => {
      result(f, cpu, a, se);
      f.return();
    });
    f.if(isDenormal(a, se), () => denormal(f, lib, cpu));
    f.if(se.and(0x7fff).geU(BIAS), () => {
      // -1 gives -1/2; 1 gives 1 and stays as it is, like everything beyond. Processors report even these as inexact.
      const minusOne = f.let(se.eq(0x8000 | BIAS).and(a.eq(INTEGER_BIT)));
      flag(f, lib, cpu, FSW.PE);
      result(f, cpu, a, se.sub(minusOne));
      f.return();
    });
    const n = unpack(f, a, se);
    const product = m.normalize(m.mul(n.value, CONSTANTS.ln2));
    const t: Float = { value: product.value, exp: f.let(n.exp.sub(product.shift)) };
    const z = fixed(m, t);
    f.if(
      sign,
      () => {
        const part = m.mul(z, callSeries(f, lib, 'series_exp_minus', z));
        finish(f, lib, cpu, sign, { value: minusPart(m, t.value, part), exp: t.exp });
      },
      () => {
        const part = m.mul(z, callSeries(f, lib, 'series_exp', z));
        const half = m.shr(t.value, i32(1));
        finish(f, lib, cpu, sign, { value: m.add(half, m.mul(half, part)), exp: t.exp.add(1) });
      },
    );
  }),
  /**
   * 2 atanh(n / d) / ln 2 = log2((d + n) / (d - n)), as a float, for a fraction n (not 0) times 2^exp and a fraction d of 1/4 at
   * least, that quotient being 0.1716 at most.
   */
  routine('fpu_log2_ratio', ['i64', 'i64', 'i32', 'i64', 'i64'], ['i64', 'i64', 'i32'], (f, lib) => {
    const m = new WideMath(f, lib);
    const n = m.normalize([f.p(0), f.p(1)]);
    const quotient = m.normalize(m.div(m.shr(n.value, i32(2)), [f.p(3), f.p(4)]));
    const exp = f.let(f.p(2).add(2).sub(n.shift).sub(quotient.shift));
    const r = fixed(m, { value: quotient.value, exp });
    const z = m.mul(r, r);
    const part = m.mul(z, callSeries(f, lib, 'series_atanh', z));
    const half = m.shr(quotient.value, i32(1));
    const log = m.normalize(m.mul(m.add(half, m.mul(half, part)), CONSTANTS.halfLog2E));
    // Halves: one of the sum, one of the constant, and two of them are asked for.
    f.return(...log.value, exp.add(3).sub(log.shift));
    f.unreachable();
  }),
  /** log2 of a fraction from 1/2 up to 1 times 2^exp: magnitude (0 when it is 0), exponent, sign, whether bits are missing. */
  routine('fpu_log2', ['i64', 'i64', 'i32'], ['i64', 'i64', 'i32', 'i32', 'i32'], (f, lib) => {
    const m = new WideMath(f, lib);
    const w: Wide = [f.p(0), f.p(1)];
    // Below sqrt(1/2) twice the fraction is nearer to 1.
    const below = f.let(w[0].ltU(0xb504f333f9de6484n));
    const whole = f.let(f.p(2).sub(below));
    const twice: Wide = [f.let(w[0].shl(1).or(w[1].shrU(63))), f.let(w[1].shl(1))];
    const distance = m.choose(below, twice, m.sub([i64(0), i64(0)], w));
    // A quarter of 1 + m.
    const quarter = m.add([i64(1n << 62n), i64(0)], m.shr(w, i32(2).sub(below)));
    f.if(m.isZero(distance), () => {
      const exact = m.normalize([f.let(select(whole.ltS(0), whole.neg(), whole).zext()), i64(0)]);
      f.return(...exact.value, i32(64).sub(exact.shift), whole.shrU(31), i32(0));
    });
    const [high, low, exp] = f.callValues(lib('fpu_log2_ratio'), ...distance, i32(-2), ...quarter) as [
      Val,
      Val,
      Val,
    ];
    f.if(whole.eqz(), () => f.return(high, low, exp, below.eqz(), i32(1)));
    // 16 bits of whole part.
    const integer: Wide = [f.let(select(whole.ltS(0), whole.neg(), whole).zext().shl(48)), i64(0)];
    const part = m.shr([high, low], i32(16).sub(exp));
    const negative = f.let(whole.shrU(31));
    const sum = m.normalize(m.choose(negative.eq(below), m.sub(integer, part), m.add(integer, part)));
    f.return(...sum.value, i32(16).sub(sum.shift), negative, i32(1));
    f.unreachable();
  }),
  /** b * log2(a). */
  routine('fpu_y_log2_x', ['i32', 'i64', 'i32', 'i64', 'i32'], [], (f, lib) => {
    const [cpu, a, ase, b, bse] = [f.p(0), f.p(1), f.p(2), f.p(3), f.p(4)];
    const aZero = f.let(isZero(a, ase));
    const bZero = f.let(isZero(b, bse));
    const bInf = f.let(isInf(b, bse));
    const bSign = f.let(signOf(bse));
    notANumber(f, lib, cpu, a, ase, b, bse);
    f.if(signOf(ase).and(aZero.eqz()), () => indefinite(f, lib, cpu));
    f.if(aZero, () => {
      f.if(bZero, () => indefinite(f, lib, cpu));
      f.if(bInf.eqz(), () => {
        flag(f, lib, cpu, FSW.ZE);
      });
      result(f, cpu, i64(INTEGER_BIT), i32(0xffff).sub(bSign.shl(15)));
      f.return();
    });
    const one = f.let(ase.eq(BIAS).and(a.eq(INTEGER_BIT)));
    f.if(isInf(a, ase).and(bZero).or(one.and(bInf)), () => indefinite(f, lib, cpu));
    const less = f.let(ase.and(0x7fff).ltU(BIAS));
    denormalOperands(f, lib, cpu, a, ase, b, bse);
    f.if(isInf(a, ase).or(bInf), () => {
      result(f, cpu, i64(INTEGER_BIT), f.let(bSign.xor(less).shl(15).or(0x7fff)));
      f.return();
    });
    f.if(bZero.or(one), () => {
      result(f, cpu, i64(0), f.let(bSign.xor(less).shl(15)));
      f.return();
    });
    const x = unpack(f, a, ase);
    const [high, low, exp, sign, rest] = f.callValues(lib('fpu_log2'), ...x.value, x.exp) as [
      Val,
      Val,
      Val,
      Val,
      Val,
    ];
    scaleBy(f, lib, cpu, { value: [high, low], exp }, sign, rest, b, bse);
  }),
  /** b * log2(a + 1), for a up to 1 - sqrt(1/2) either way; beyond, where the result is undefined, log2 of 1 + a as far as it exists. */
  routine('fpu_y_log2_x_plus_1', ['i32', 'i64', 'i32', 'i64', 'i32'], [], (f, lib) => {
    const [cpu, a, ase, b, bse] = [f.p(0), f.p(1), f.p(2), f.p(3), f.p(4)];
    const m = new WideMath(f, lib);
    const bSign = f.let(signOf(bse));
    const aSign = f.let(signOf(ase));
    notANumber(f, lib, cpu, a, ase, b, bse);
    const aInf = f.let(isInf(a, ase));
    const bInf = f.let(isInf(b, bse));
    const aZero = f.let(isZero(a, ase));
    const bZero = f.let(isZero(b, bse));
    f.if(aInf.and(aSign.or(bZero)).or(aZero.and(bInf)), () => indefinite(f, lib, cpu));
    denormalOperands(f, lib, cpu, a, ase, b, bse);
    f.if(aInf.or(bInf), () => {
      result(f, cpu, i64(INTEGER_BIT), f.let(aSign.xor(bSign).shl(15).or(0x7fff)));
      f.return();
    });
    f.if(aZero.or(bZero), () => {
      result(f, cpu, i64(0), f.let(aSign.xor(bSign).shl(15)));
      f.return();
    });
    const x = unpack(f, a, ase);
    f.if(x.exp.leS(-1), () => {
      // a / (2 + a), both divided by 4 or 8: below 1/2.
      const quarter = m.shr(x.value, i32(2).sub(x.exp));
      const half: Wide = [i64(1n << 63n), i64(0)];
      const sum = m.choose(aSign, m.sub(half, quarter), m.add(half, quarter));
      const [high, low, exp] = f.callValues(lib('fpu_log2_ratio'), ...x.value, x.exp.sub(2), ...sum) as [
        Val,
        Val,
        Val,
      ];
      scaleBy(f, lib, cpu, { value: [high, low], exp }, aSign, i32(1), b, bse);
      f.return();
    });
    f.if(aSign.and(x.exp.gtS(0)), () => indefinite(f, lib, cpu));
    // 1 + a with 1 as a fraction of the larger power of two; above 2^127 the 1 is lost.
    const exp = f.let(x.exp.add(1));
    const one = m.shr([i64(INTEGER_BIT), i64(0)], x.exp);
    const shifted = m.shr(x.value, i32(1));
    const sum = m.normalize(m.choose(aSign, m.sub(one, shifted), m.add(one, shifted)));
    const [high, low, logExp, sign, rest] = f.callValues(
      lib('fpu_log2'),
      ...sum.value,
      exp.sub(sum.shift),
    ) as [Val, Val, Val, Val, Val];
    scaleBy(f, lib, cpu, { value: [high, low], exp: logExp }, sign, rest, b, bse);
  }),
  /** The angle of the point (a, b), from -pi to pi: FPATAN of ST(0) = a and ST(1) = b. */
  routine('fpu_arctangent', ['i32', 'i64', 'i32', 'i64', 'i32'], [], (f, lib) => {
    const [cpu, a, ase, b, bse] = [f.p(0), f.p(1), f.p(2), f.p(3), f.p(4)];
    const m = new WideMath(f, lib);
    specialOperands(f, lib, cpu, a, ase, b, bse);
    const left = f.let(signOf(ase));
    const sign = f.let(signOf(bse));
    const aInf = f.let(isInf(a, ase));
    const bInf = f.let(isInf(b, bse));
    const aZero = f.let(isZero(a, ase));
    const bZero = f.let(isZero(b, bse));
    // Quarters of pi for what lies on an axis or in a corner at infinity.
    const quarters = f.local('i32', -1);
    f.if(bInf.and(aInf), () => quarters.set(select(left, i32(3), i32(1))));
    f.if(bInf.xor(1).and(aInf).or(bZero), () => quarters.set(left.shl(2)));
    f.if(bInf.and(aInf.xor(1)).or(aZero.and(bZero.xor(1))), () => quarters.set(2));
    f.if(quarters.get.eqz(), () => {
      result(f, cpu, i64(0), sign.shl(15));
      f.return();
    });
    f.if(quarters.get.gtS(0), () => {
      f.if(quarters.get.eq(3), () => {
        finish(f, lib, cpu, sign, { value: CONSTANTS.threeSixteenthsPi, exp: i32(2) });
        f.return();
      });
      finish(f, lib, cpu, sign, { value: CONSTANTS.quarterPi, exp: quarters.get.shrU(1) });
      f.return();
    });
    const x = unpack(f, a, ase);
    const y = unpack(f, b, bse);
    const steep = f.let(y.exp.gtS(x.exp).or(y.exp.eq(x.exp).and(y.value[0].gtU(x.value[0]))));
    const small = m.choose(steep, x.value, y.value);
    const large = m.choose(steep, y.value, x.value);
    const ratio = m.normalize(m.div(m.shr(small, i32(1)), large));
    const difference = f.let(x.exp.sub(y.exp));
    const exp = f.let(select(steep, difference, difference.neg()).add(1).sub(ratio.shift));
    // Equal: the quotient is 1, a half times 2^1; its angle is exactly known.
    const angle = { high: f.local('i64'), low: f.local('i64'), exp: f.local('i32', 0) };
    const set = (value: Wide): void => {
      angle.high.set(value[0]);
      angle.low.set(value[1]);
    };
    f.if(
      exp.gtS(0),
      () => set(CONSTANTS.quarterPi),
      () => {
        const q = fixed(m, { value: ratio.value, exp });
        // The nearest sixteenth.
        const j = f.let(q[0].shrU(59).add(1).shrU(1).wrap());
        f.if(
          j.eqz(),
          () => {
            const z = m.mul(q, q);
            set(minusPart(m, ratio.value, m.mul(z, callSeries(f, lib, 'series_atan', z))));
            angle.exp.set(exp);
          },
          () => {
            const c: Wide = [f.let(j.zext().shl(60)), i64(0)];
            // c = 1 does not fit a fraction: then q - 1 is the negative of what is missing.
            const c1 = f.let(j.eq(16));
            const over = f.let(m.less(q, c).xor(1).and(c1.xor(1)));
            const distance = m.choose(over, m.sub(q, c), m.sub(c, q));
            const product = m.choose(c1, q, m.mul(q, c));
            const half: Wide = [i64(1n << 63n), i64(0)];
            const r = m.div(m.shr(distance, i32(1)), m.add(half, m.shr(product, i32(1))));
            const z = m.mul(r, r);
            const part = m.sub(r, m.mul(r, m.mul(z, callSeries(f, lib, 'series_atan', z))));
            const table = { high: f.local('i64'), low: f.local('i64') };
            ARCTANGENTS.forEach((value, i) => {
              f.if(j.eq(i + 1), () => {
                table.high.set(value[0]);
                table.low.set(value[1]);
              });
            });
            const base: Wide = [table.high.get, table.low.get];
            set(m.choose(over, m.add(base, part), m.sub(base, part)));
          },
        );
      },
    );
    const theta: Float = { value: [angle.high.get, angle.low.get], exp: angle.exp.get };
    f.if(steep.or(left).eqz(), () => {
      finish(f, lib, cpu, sign, theta);
      f.return();
    });
    // Sixteenths of the circle's units leave room: pi / 4 stands for pi.
    const quarter = m.shr(fixed(m, theta), i32(2));
    const base = m.choose(steep, m.shr(CONSTANTS.quarterPi, i32(1)), CONSTANTS.quarterPi);
    const sum = m.choose(steep.and(left), m.add(base, quarter), m.sub(base, quarter));
    finish(f, lib, cpu, sign, { value: sum, exp: i32(2) });
  }),
  /**
   * Reduces a positive argument, given as significand and power of two of its top bit (below 63), to within pi / 4: the distance
   * to the nearest multiple of pi / 2 as a float, its sign, and the multiple modulo 4.
   */
  routine('fpu_reduce_angle', ['i64', 'i32'], ['i64', 'i64', 'i32', 'i32', 'i32'], (f, lib) => {
    const m = new WideMath(f, lib);
    const exponent = f.p(1);
    f.if(exponent.ltS(-1), () => f.return(f.p(0), i64(0), exponent.add(1), i32(0), i32(0)));
    const divisor = wideConstant(HALF_PI_66);
    const high = f.local('i64', 0);
    const low = f.local('i64', f.p(0));
    const quotient = f.local('i32', 0);
    const left = f.local('i32', exponent.add(2));
    const value = (): Wide => [high.get, low.get];
    // Below the divisor of 66 bits at the start; then one more bit of the argument at a time, all of them zero.
    f.loop((again) => {
      high.set(high.get.shl(1).or(low.get.shrU(63)));
      low.set(low.get.shl(1));
      const fits = f.let(m.less(value(), divisor).xor(1));
      f.if(fits, () => {
        const rest = m.sub(value(), divisor);
        high.set(rest[0]);
        low.set(rest[1]);
      });
      quotient.set(quotient.get.shl(1).or(fits));
      left.set(left.get.sub(1));
      f.brIf(again, left.get);
    });
    const complement = m.sub(divisor, value());
    const nearer = m.less(complement, value());
    const r = m.normalize(m.choose(nearer, complement, value()));
    f.return(...r.value, i32(63).sub(r.shift), nearer, quotient.get.add(nearer).and(3));
    f.unreachable();
  }),
  /** Sine (`which` 0), cosine (1) or tangent (2) of an angle below 2^63. */
  routine('fpu_trigonometric', ['i32', 'i64', 'i32', 'i32'], [], (f, lib) => {
    const [cpu, a, se, which] = [f.p(0), f.p(1), f.p(2), f.p(3)];
    const m = new WideMath(f, lib);
    specialOperand(f, lib, cpu, a, se);
    f.if(isInf(a, se), () => indefinite(f, lib, cpu));
    f.if(isZero(a, se), () => {
      const cosine = f.let(which.eq(1));
      result(f, cpu, select(cosine, i64(INTEGER_BIT), a), select(cosine, i32(BIAS), se));
      f.return();
    });
    f.if(isDenormal(a, se), () => denormal(f, lib, cpu));
    const x = unpack(f, a, se);
    // Sine and tangent of the smallest arguments are the argument, in every rounding mode (measured), and inexact.
    f.if(x.exp.ltS(-66).and(which.ne(1)), () => {
      // A pseudo-denormal is the smallest normal: not tiny.
      const tiny = f.let(isDenormal(a, se).and(a.geS(0)));
      flag(f, lib, cpu, f.let(select(tiny, i32(FSW.UE | FSW.PE), i32(FSW.PE))));
      finish(f, lib, cpu, signOf(se), x, i32(0));
      f.return();
    });
    const [high, low, exp, minus, turn] = f.callValues(lib('fpu_reduce_angle'), x.value[0], x.exp.sub(1)) as [
      Val,
      Val,
      Val,
      Val,
      Val,
    ];
    const r = fixed(m, { value: [high, low], exp });
    const z = m.mul(r, r);
    const odd = f.let(turn.and(1));
    const argument = f.let(signOf(se));
    const sine = (): Float => ({
      value: minusPart(m, [high, low], m.mul(z, callSeries(f, lib, 'series_sin', z))),
      exp,
    });
    const cosine = (): Float => ({
      value: m.sub(BELOW_ONE, m.mul(z, callSeries(f, lib, 'series_cos', z))),
      exp: i32(0),
    });
    f.if(which.eq(2), () => {
      const s = sine();
      const c = cosine();
      const sn = m.normalize(s.value);
      const up = m.choose(odd, c.value, sn.value);
      const down = m.choose(odd, sn.value, c.value);
      const quotient = m.div(m.shr(up, i32(1)), down);
      const sineExp = f.let(exp.sub(sn.shift));
      finish(f, lib, cpu, argument.xor(minus).xor(odd), {
        value: quotient,
        exp: f.let(select(odd, sineExp.neg(), sineExp).add(1)),
      });
      f.return();
    });
    // The quadrant's function is the sine of r when both are even or both are odd.
    const turned = f.let(turn.add(which));
    const negative = f.let(turned.shrU(1).and(1));
    const odds = f.let(select(which, i32(0), argument));
    f.if(
      turned.and(1),
      () => finish(f, lib, cpu, negative.xor(odds), cosine()),
      () => finish(f, lib, cpu, negative.xor(odds).xor(minus), sine()),
    );
  }),
  /** The exponent of a, as a number: minus infinity for zero. */
  routine('fpu_extract_exponent', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const [cpu, a, se] = [f.p(0), f.p(1), f.p(2)];
    specialOperand(f, lib, cpu, a, se);
    f.if(isInf(a, se), () => {
      result(f, cpu, i64(INTEGER_BIT), i32(0x7fff));
      f.return();
    });
    f.if(isZero(a, se), () => {
      flag(f, lib, cpu, FSW.ZE);
      result(f, cpu, i64(INTEGER_BIT), i32(0xffff));
      f.return();
    });
    f.if(isDenormal(a, se), () => denormal(f, lib, cpu));
    f.call(lib('fpu_from_int'), cpu, normalize(f, a, se).exp.sub(BIAS).sext());
  }),
  /** The significand of a, with the exponent of 1; zero and infinity stay. */
  routine('fpu_extract_significand', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const [cpu, a, se] = [f.p(0), f.p(1), f.p(2)];
    specialOperand(f, lib, cpu, a, se);
    const stays = f.let(isInf(a, se).or(isZero(a, se)));
    const significand = normalize(f, a, se).mant;
    result(f, cpu, select(stays, a, significand), select(stays, se, se.and(0x8000).or(BIAS)));
  }),
];
