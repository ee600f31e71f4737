import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CPU } from '../layout.ts';
import { ModuleBuilder } from '../wasm/module.ts';
import { F32, F64, floatRoutines, MXCSR, type Format } from './float.ts';
import { declareRoutines } from './library.ts';

const CPU_BASE = 0x10000;

/** The routines in a module of their own; raise() only notes the vector. */
function build() {
  const memory = new WebAssembly.Memory({ initial: 2, maximum: 2 });
  const view = new DataView(memory.buffer);
  let raised = -1;
  const module = new ModuleBuilder(2);
  const raise = module.importFunction('env', 'raise', ['i32', 'i32'], []);
  const { lib, define } = declareRoutines(module, floatRoutines, new Map([['raise', raise]]));
  define();
  for (const { name } of floatRoutines) module.export(lib(name));
  const instance = new WebAssembly.Instance(new WebAssembly.Module(module.finish()), {
    env: { memory, raise: (_: number, vector: number) => void (raised = vector) },
  });
  const call = (name: string, ...args: readonly (number | bigint)[]): bigint => {
    const routine = instance.exports[name] as (...args: (number | bigint)[]) => number | bigint;
    const value = routine(CPU_BASE, ...args);
    return typeof value === 'number' ? BigInt(value >>> 0) : BigInt.asUintN(64, value);
  };
  return {
    /** Result and flags of a routine under `mxcsr`. */
    run: (mxcsr: number, name: string, ...args: readonly (number | bigint)[]) => {
      view.setUint32(CPU_BASE + CPU.mxcsr, mxcsr, true);
      view.setUint32(CPU_BASE + CPU.floatFlags, 0, true);
      return { bits: call(name, ...args), flags: view.getUint32(CPU_BASE + CPU.floatFlags, true) };
    },
    finishFlags: (mxcsr: number, cr4: number, flags: number) => {
      raised = -1;
      view.setUint32(CPU_BASE + CPU.mxcsr, mxcsr, true);
      view.setUint32(CPU_BASE + CPU.cr4, cr4, true);
      view.setUint32(CPU_BASE + CPU.floatFlags, flags, true);
      (instance.exports['float_finish'] as (cpu: number) => void)(CPU_BASE);
      return { raised, mxcsr: view.getUint32(CPU_BASE + CPU.mxcsr, true) };
    },
  };
}
const { run, finishFlags } = build();

/** An exact value: (-1)^negative * num / den. */
interface Exact {
  readonly negative: boolean;
  readonly num: bigint;
  readonly den: bigint;
}

interface Rounded {
  readonly bits: bigint;
  readonly flags: number;
}

const pow2 = (n: number): bigint => 1n << BigInt(n);

/** Rounds by the definition, with exact integers: the reference. All exceptions masked, no FTZ. */
function round(fmt: Format, { negative, num, den }: Exact, mode: number, precise = true): Rounded {
  const sign = negative ? pow2(fmt.bits - 1) : 0n;
  if (num === 0n && precise) return { bits: sign, flags: 0 };
  // floor(log2(num / den))
  let exp = num.toString(2).length - den.toString(2).length;
  if (exp >= 0 ? num < den << BigInt(exp) : num << BigInt(-exp) < den) exp--;
  const roundAt = (ulpExp: number): { units: bigint; inexact: boolean } => {
    const scaledNum = ulpExp < 0 ? num << BigInt(-ulpExp) : num;
    const scaledDen = ulpExp < 0 ? den : den << BigInt(ulpExp);
    const units = scaledNum / scaledDen;
    const rest = scaledNum % scaledDen;
    const inexact = rest !== 0n || !precise;
    const twice = rest * 2n;
    const above = twice > scaledDen || (twice === scaledDen && !precise);
    const tie = twice === scaledDen && precise;
    const up =
      mode === 0
        ? above || (tie && (units & 1n) === 1n)
        : mode === 3
          ? false
          : inexact && (mode === 2) === !negative;
    return { units: up ? units + 1n : units, inexact };
  };
  const minExp = 1 - fmt.bias;
  const free = roundAt(exp - fmt.mant);
  const freeExp = free.units === pow2(fmt.mant + 1) ? exp + 1 : exp;
  const tiny = freeExp < minExp;
  const { units, inexact } = roundAt(Math.max(exp, minExp) - fmt.mant);
  let flags = inexact ? MXCSR.PE : 0;
  if (tiny && inexact) flags |= MXCSR.UE;
  if (exp < minExp) return { bits: sign | units, flags };
  if (freeExp > fmt.bias) {
    const inf = BigInt(fmt.expMax) << BigInt(fmt.mant);
    const away = mode === 0 || (mode === 2 && !negative) || (mode === 1 && negative);
    return { bits: sign | (away ? inf : inf - 1n), flags: MXCSR.OE | MXCSR.PE };
  }
  const frac = units === pow2(fmt.mant + 1) ? pow2(fmt.mant) : units;
  return { bits: sign | (BigInt(freeExp + fmt.bias) << BigInt(fmt.mant)) | (frac - pow2(fmt.mant)), flags };
}

/** The exact value of a finite number. */
function exact(fmt: Format, bits: bigint): Exact {
  const negative = bits >> BigInt(fmt.bits - 1) === 1n;
  const field = Number((bits >> BigInt(fmt.mant)) & BigInt(fmt.expMax));
  const frac = bits & (pow2(fmt.mant) - 1n);
  const sig = field === 0 ? frac : frac | pow2(fmt.mant);
  const exp = Math.max(field, 1) - fmt.bias - fmt.mant;
  return exp >= 0 ? { negative, num: sig << BigInt(exp), den: 1n } : { negative, num: sig, den: pow2(-exp) };
}
const isDenormal = (fmt: Format, bits: bigint): boolean =>
  ((bits >> BigInt(fmt.mant)) & BigInt(fmt.expMax)) === 0n && (bits & (pow2(fmt.mant) - 1n)) !== 0n;

/** Finite numbers, with the exponents at which things happen. */
function finite(fmt: Format): fc.Arbitrary<bigint> {
  const exponent = fc.oneof(
    fc.integer({ min: 0, max: fmt.expMax - 1 }),
    fc.constantFrom(0, 1, 2, fmt.expMax - 1, fmt.expMax - 2),
    fc.integer({ min: fmt.bias - 3, max: fmt.bias + 3 }),
  );
  const fraction = fc.oneof(
    fc.bigInt({ min: 0n, max: pow2(fmt.mant) - 1n }),
    fc.constantFrom(0n, 1n, pow2(fmt.mant) - 1n, pow2(fmt.mant - 1), pow2(fmt.mant - 1) + 1n),
  );
  return fc
    .tuple(fc.boolean(), exponent, fraction)
    .map(
      ([negative, exp, frac]) =>
        (negative ? pow2(fmt.bits - 1) : 0n) | (BigInt(exp) << BigInt(fmt.mant)) | frac,
    );
}

const arg = (fmt: Format, bits: bigint): number | bigint =>
  fmt.int === 'i32' ? Number(bits) | 0 : BigInt.asIntN(64, bits);
const mode = fc.integer({ min: 0, max: 3 });
const MASKED = 0x1f80;

function isqrt(n: bigint): bigint {
  if (n < 2n) return n;
  let x = 1n << BigInt((n.toString(2).length + 1) >> 1);
  for (;;) {
    const y = (x + n / x) >> 1n;
    if (y >= x) return x;
    x = y;
  }
}

describe.each([F32, F64])('$name', (fmt) => {
  const signed = ({ negative, num }: Exact): bigint => (negative ? -num : num);
  const binary: [string, (a: Exact, b: Exact) => Exact | undefined][] = [
    ['add', (a, b) => sum(a, b)],
    ['sub', (a, b) => sum(a, { ...b, negative: !b.negative })],
    ['mul', (a, b) => ({ negative: a.negative !== b.negative, num: a.num * b.num, den: a.den * b.den })],
    [
      'div',
      (a, b) =>
        b.num === 0n
          ? undefined
          : { negative: a.negative !== b.negative, num: a.num * b.den, den: a.den * b.num },
    ],
  ];
  function sum(a: Exact, b: Exact): Exact | undefined {
    const num = signed(a) * b.den + signed(b) * a.den;
    // The sign of an exact zero is the rounding mode's.
    if (num === 0n) return undefined;
    return { negative: num < 0n, num: num < 0n ? -num : num, den: a.den * b.den };
  }

  test.each(binary)('%s rounds as exact arithmetic does, with the same flags', (name, reference) => {
    fc.assert(
      fc.property(finite(fmt), finite(fmt), mode, (a, b, rc) => {
        const value = reference(exact(fmt, a), exact(fmt, b));
        fc.pre(value !== undefined);
        const expected = round(fmt, value as Exact, rc);
        const denormal = isDenormal(fmt, a) || isDenormal(fmt, b) ? MXCSR.DE : 0;
        const got = run(MASKED | (rc << 13), `${fmt.name}_${name}`, arg(fmt, a), arg(fmt, b));
        expect(got).toEqual({ bits: expected.bits, flags: expected.flags | denormal });
      }),
      { numRuns: 3000 },
    );
  });

  test('sqrt rounds as the exact root does', () => {
    fc.assert(
      fc.property(finite(fmt), mode, (a, rc) => {
        const bits = a & (pow2(fmt.bits - 1) - 1n);
        fc.pre(bits !== 0n);
        const { num, den } = exact(fmt, bits);
        // 2^200 more precision than the format; whether there is a rest decides inexactness.
        const scale = 1300n;
        const scaled = (num << (2n * scale)) / den;
        const root = isqrt(scaled);
        const precise = root * root === scaled && (num << (2n * scale)) % den === 0n;
        const expected = round(
          fmt,
          {
            negative: false,
            num: precise ? root : root * 2n + 1n,
            den: pow2(Number(scale)) * (precise ? 1n : 2n),
          },
          rc,
        );
        const got = run(MASKED | (rc << 13), `${fmt.name}_sqrt`, arg(fmt, bits));
        expect(got).toEqual({
          bits: expected.bits,
          flags: expected.flags | (isDenormal(fmt, bits) ? MXCSR.DE : 0),
        });
      }),
      { numRuns: 2000 },
    );
  });

  test('from_i64 rounds as exact arithmetic does', () => {
    fc.assert(
      fc.property(
        fc.bigInt({ min: -pow2(63), max: pow2(63) - 1n }),
        fc.integer({ min: 0, max: 63 }),
        mode,
        (wide, shift, rc) => {
          const value = wide >> BigInt(shift);
          const expected = round(
            fmt,
            { negative: value < 0n, num: value < 0n ? -value : value, den: 1n },
            rc,
          );
          expect(run(MASKED | (rc << 13), `${fmt.name}_from_i64`, value)).toEqual(expected);
        },
      ),
      { numRuns: 2000 },
    );
  });

  test.each([32, 64])('to_int gives the rounded integer of %i bits, or the indefinite one', (bits) => {
    fc.assert(
      fc.property(finite(fmt), mode, (a, rc) => {
        const { negative, num, den } = exact(fmt, a);
        const whole = num / den;
        const rest = num % den;
        const up =
          rc === 0
            ? rest * 2n > den || (rest * 2n === den && (whole & 1n) === 1n)
            : rc !== 3 && rest !== 0n && (rc === 2) === !negative;
        const magnitude = up ? whole + 1n : whole;
        const value = negative ? -magnitude : magnitude;
        const fits = value >= -pow2(bits - 1) && value < pow2(bits - 1);
        const got = run(MASKED, `${fmt.name}_to_int`, arg(fmt, a), rc, bits);
        expect(BigInt.asIntN(bits, got.bits)).toBe(fits ? value : -pow2(bits - 1));
        expect(got.flags).toBe(fits ? (rest === 0n ? 0 : MXCSR.PE) : MXCSR.IE);
      }),
      { numRuns: 2000 },
    );
  });
});

test('f64_to_f32 rounds as exact arithmetic does', () => {
  fc.assert(
    fc.property(finite(F64), fc.integer({ min: -160, max: 160 }), fc.boolean(), mode, (a, exp, near, rc) => {
      // Half of them near the range of f32.
      const bits = near ? (a & ~(0x7ffn << 52n)) | (BigInt(1023 + exp) << 52n) : a;
      const expected = round(F32, exact(F64, bits), rc);
      const got = run(MASKED | (rc << 13), 'f64_to_f32', arg(F64, bits));
      expect(got).toEqual({
        bits: expected.bits,
        flags: expected.flags | (isDenormal(F64, bits) ? MXCSR.DE : 0),
      });
    }),
    { numRuns: 3000 },
  );
});

describe('special operands', () => {
  const ONE = 0x3f800000;
  const INF = 0x7f800000;
  const QNAN = 0x7fc12345;
  const SNAN = 0x7f812345;
  const INDEFINITE = 0xffc00000n;
  test.each([
    ['add', INF, 0xff800000, INDEFINITE, MXCSR.IE],
    ['sub', INF, INF, INDEFINITE, MXCSR.IE],
    ['mul', 0, INF, INDEFINITE, MXCSR.IE],
    ['div', 0, 0, INDEFINITE, MXCSR.IE],
    ['div', INF, 0xff800000, INDEFINITE, MXCSR.IE],
    ['div', ONE, 0x80000000, 0xff800000n, MXCSR.ZE],
    ['div', 1, 0, 0x7f800000n, MXCSR.ZE],
    ['div', INF, 0, 0x7f800000n, 0],
    ['add', QNAN, SNAN, 0x7fc12345n, MXCSR.IE],
    ['add', SNAN, QNAN, 0x7fc12345n, MXCSR.IE],
    ['mul', ONE, SNAN, 0x7fc12345n, MXCSR.IE],
    ['mul', 1, QNAN, 0x7fc12345n, 0],
    ['mul', 1, INF, 0x7f800000n, MXCSR.DE],
  ] as const)('%s of %x and %x', (name, a, b, bits, flags) => {
    expect(run(MASKED, `f32_${name}`, a | 0, b | 0)).toEqual({ bits, flags });
  });

  test('an exact cancellation is -0 only when rounding down', () => {
    for (const rc of [0, 1, 2, 3])
      expect(run(MASKED | (rc << 13), 'f32_sub', ONE, ONE).bits).toBe(rc === 1 ? 0x80000000n : 0n);
  });

  test('the root of a negative number is invalid, of -0 it is -0', () => {
    expect(run(MASKED, 'f32_sqrt', 0xbf800000 | 0)).toEqual({ bits: INDEFINITE, flags: MXCSR.IE });
    expect(run(MASKED, 'f32_sqrt', 0x80000000 | 0)).toEqual({ bits: 0x80000000n, flags: 0 });
  });

  test('tininess is detected after rounding with an unbounded exponent', () => {
    // (1 - 2^-24) * 2^-126 has 24 bits and is tiny; a double just below 2^-126 rounds to it in 24 bits, and is not.
    expect(run(MASKED, 'f32_mul', 0x3f7fffff, 0x00800000)).toEqual({
      bits: 0x00800000n,
      flags: MXCSR.UE | MXCSR.PE,
    });
    expect(run(MASKED, 'f64_to_f32', 0x380fffffffffffffn)).toEqual({ bits: 0x00800000n, flags: MXCSR.PE });
  });

  test('FTZ flushes exact tiny results too, and does nothing while underflow is unmasked', () => {
    const half = 0x3f000000;
    expect(run(MASKED | MXCSR.FTZ, 'f32_mul', 0x00800000, half)).toEqual({
      bits: 0n,
      flags: MXCSR.UE | MXCSR.PE,
    });
    expect(run(MASKED, 'f32_mul', 0x00800000, half)).toEqual({ bits: 0x00400000n, flags: 0 });
    expect(run((MASKED | MXCSR.FTZ) & ~MXCSR.UM, 'f32_mul', 0x00800000, half).flags).toBe(MXCSR.UE);
  });
});

describe('float_finish', () => {
  const OSXMMEXCPT = 0x400;
  test('masked flags stick in MXCSR and raise nothing', () => {
    expect(finishFlags(0x1f81, OSXMMEXCPT, MXCSR.PE)).toEqual({ raised: -1, mxcsr: 0x1fa1 });
  });
  test('an unmasked flag raises #XM, or #UD without CR4.OSXMMEXCPT', () => {
    expect(finishFlags(0x0f80, OSXMMEXCPT, MXCSR.PE)).toEqual({ raised: 19, mxcsr: 0x0fa0 });
    expect(finishFlags(0x0f80, 0, MXCSR.PE)).toEqual({ raised: 6, mxcsr: 0x0fa0 });
  });
  test('an unmasked exception before the computation hides those of results', () => {
    expect(finishFlags(0x1f00, OSXMMEXCPT, MXCSR.IE | MXCSR.DE | MXCSR.PE)).toEqual({
      raised: 19,
      mxcsr: 0x1f03,
    });
    expect(finishFlags(0x0f80, OSXMMEXCPT, MXCSR.IE | MXCSR.PE)).toEqual({ raised: 19, mxcsr: 0x0fa1 });
  });
});
