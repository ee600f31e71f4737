/**
 * The x87's transcendentals against arithmetic of 320 bits, worked out here by other series than the processor's, and their
 * special values against the tables of SDM vol. 2 (F2XM1, FCOS, FPATAN, FPTAN, FSIN, FYL2X, FYL2XP1).
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { x86Defs, x86Routines } from '../all.ts';
import { findCpuModel } from '../cpuid.ts';
import { freshRegisters, OneInstruction } from '../one-instruction.ts';

const BITS = 320n;
const ONE = 1n << BITS;
const BIAS = 16383;

/** A number of the x87: sign and exponent, significand. */
interface F80 {
  readonly se: number;
  readonly mant: bigint;
}
const bench = new OneInstruction(x86Defs, x86Routines, [...findCpuModel('EPYC-Milan')!.features]);
const DATA = new Uint8Array(8192);

function bytes({ se, mant }: F80): Uint8Array {
  const out = new Uint8Array(16);
  new DataView(out.buffer).setBigUint64(0, mant, true);
  new DataView(out.buffer).setUint16(8, se, true);
  return out;
}
/** Physical registers afterwards, and the status word; ST(0) is `x`, ST(1) `y`. */
function run(code: readonly number[], x: F80, y: F80 = ZERO): { st: (n: number) => F80; fsw: number } {
  const input = freshRegisters();
  input.st[0] = bytes(x);
  input.st[1] = bytes(y);
  input.tags = 3;
  const { st, fsw, top, vector } = bench.run([...code], input, DATA);
  expect(vector).toBe(-1);
  return {
    st: (n) => {
      const view = new DataView((st[(top + n) & 7] as Uint8Array).buffer);
      return { se: view.getUint16(8, true), mant: view.getBigUint64(0, true) };
    },
    fsw,
  };
}

const shift = (value: bigint, by: number): bigint => (by >= 0 ? value << BigInt(by) : value >> BigInt(-by));
/** In units of 2^-320. */
const fixed = ({ se, mant }: F80): bigint => {
  const magnitude = shift(mant, Number(BITS) + (se & 0x7fff) - BIAS - 63);
  return se & 0x8000 ? -magnitude : magnitude;
};
const mul = (a: bigint, b: bigint): bigint => (a * b) >> BITS;
const div = (a: bigint, b: bigint): bigint => (a << BITS) / b;

function squareRoot(value: bigint): bigint {
  const n = value << BITS;
  let x = 1n << BigInt((n.toString(2).length + 1) >> 1);
  for (let y = (x + n / x) >> 1n; y < x; y = (x + n / x) >> 1n) x = y;
  return x;
}
/** Sum of the terms that `next` makes of the one before, until they are nothing. */
function series(first: bigint, next: (term: bigint, n: bigint) => bigint): bigint {
  let sum = first;
  for (let term = first, n = 1n; ; n++) {
    term = next(term, n);
    if (term === 0n || term === -1n) return sum;
    sum += term;
  }
}
/** Twice the inverse hyperbolic tangent of a quotient: ln((d + n) / (d - n)). */
function twiceAtanh(n: bigint, d: bigint): bigint {
  const r = div(n, d);
  const square = mul(r, r);
  let sum = 0n;
  for (let power = r, k = 1n; power !== 0n && power !== -1n; power = mul(power, square), k += 2n)
    sum += power / k;
  return 2n * sum;
}
const LN2 = twiceAtanh(ONE, 3n * ONE);
function arctangent(x: bigint): bigint {
  let [r, doublings] = [x, 0n];
  for (; doublings < 5n; doublings++) r = div(r, ONE + squareRoot(ONE + mul(r, r)));
  const square = mul(r, r);
  let sum = 0n;
  for (let power = r, k = 1n, sign = 1n; power > 0n; power = mul(power, square), k += 2n, sign = -sign)
    sum += (sign * power) / k;
  return sum << doublings;
}
const PI = arctangent(ONE) * 4n;
/** pi / 2 as the x87 knows it: 66 bits of pi (SDM vol. 1, 8.3.8). */
const HALF_PI_66 = 0x3243f6a8885a308d3n << (BITS - 65n);

const expMinus1 = (x: bigint): bigint => series(x, (term, n) => mul(term, x) / (n + 1n));
const sine = (x: bigint): bigint => series(x, (term, n) => -mul(mul(term, x), x) / (2n * n * (2n * n + 1n)));
const cosine = (x: bigint): bigint =>
  series(ONE, (term, n) => -mul(mul(term, x), x) / (2n * n * (2n * n - 1n)));
function angle(x: F80): { rest: bigint; quarter: number } {
  const value = fixed(x);
  const half = HALF_PI_66 >> 1n;
  const n = (value >= 0n ? value + half : value - half) / HALF_PI_66;
  return { rest: value - n * HALF_PI_66, quarter: Number(((n % 4n) + 4n) % 4n) };
}
function sinOf(x: F80, turn = 0): bigint {
  const { rest, quarter } = angle(x);
  const q = (quarter + turn) & 3;
  const magnitude = q & 1 ? cosine(rest) : sine(rest);
  return q & 2 ? -magnitude : magnitude;
}
function log2(x: F80): bigint {
  // The significand as a number from 1 up to 2.
  const m = x.mant << (BITS - 63n);
  return div(twiceAtanh(m - ONE, m + ONE), LN2) + BigInt((x.se & 0x7fff) - BIAS) * ONE;
}
function log2Plus1(x: F80): bigint {
  const value = fixed(x);
  return div(twiceAtanh(value, 2n * ONE + value), LN2);
}
function atan2(y: F80, x: F80): bigint {
  const [a, b] = [fixed(y), fixed(x)].map((value) => (value < 0n ? -value : value)) as [bigint, bigint];
  const theta = a <= b ? arctangent(div(a, b)) : PI / 2n - arctangent(div(b, a));
  const folded = x.se & 0x8000 ? PI - theta : theta;
  return y.se & 0x8000 ? -folded : folded;
}

/** Units in the last place between a result and the exact value, in thousandths. */
function thousandths(result: F80, exact: bigint): number {
  const difference = fixed(result) - exact;
  const unit = shift(1n, Number(BITS) + (result.se & 0x7fff) - BIAS - 63);
  return Number(((difference < 0n ? -difference : difference) * 1000n) / unit);
}

const number = (low: number, high: number): fc.Arbitrary<F80> =>
  fc
    .tuple(
      fc.integer({ min: low, max: high }),
      fc.boolean(),
      fc.oneof(
        fc.bigInt({ min: 1n << 63n, max: (1n << 64n) - 1n }),
        fc.constantFrom(1n << 63n, (1n << 64n) - 1n, (1n << 63n) + 1n, 3n << 62n, 0xc90fdaa22168c235n),
      ),
    )
    .map(([exponent, negative, mant]) => ({ se: (BIAS + exponent) | (negative ? 0x8000 : 0), mant }));
const positive = (low: number, high: number): fc.Arbitrary<F80> =>
  number(low, high).map(({ se, mant }) => ({ se: se & 0x7fff, mant }));

const CODE = {
  f2xm1: [0xd9, 0xf0],
  fyl2x: [0xd9, 0xf1],
  fptan: [0xd9, 0xf2],
  fpatan: [0xd9, 0xf3],
  fyl2xp1: [0xd9, 0xf9],
  fsincos: [0xd9, 0xfb],
  fsin: [0xd9, 0xfe],
  fcos: [0xd9, 0xff],
} as const;

/** Rounded to nearest: half a unit, but for the arguments in 2^55 or so whose value lies by a tie. */
const HALF = 501;
const property = <T>(check: fc.IProperty<T>): void => fc.assert(check, { numRuns: 150, seed: 20260101 });

describe('the nearest number to the exact value', () => {
  test('F2XM1', () =>
    property(
      fc.property(number(-70, -1), (x) => {
        const exact = expMinus1(mul(fixed(x), LN2));
        expect(thousandths(run(CODE.f2xm1, x).st(0), exact)).toBeLessThan(HALF);
      }),
    ));
  test('FYL2X', () =>
    property(
      fc.property(positive(-60, 60), number(-20, 20), (x, y) => {
        if (x.se === BIAS && x.mant === 1n << 63n) return;
        expect(thousandths(run(CODE.fyl2x, x, y).st(0), mul(log2(x), fixed(y)))).toBeLessThan(HALF);
      }),
    ));
  test('FYL2XP1', () =>
    property(
      fc.property(number(-70, -3), number(-20, 20), (x, y) => {
        expect(thousandths(run(CODE.fyl2xp1, x, y).st(0), mul(log2Plus1(x), fixed(y)))).toBeLessThan(HALF);
      }),
    ));
  test('FPATAN', () =>
    property(
      fc.property(number(-30, 30), number(-30, 30), (x, y) => {
        expect(thousandths(run(CODE.fpatan, x, y).st(0), atan2(y, x))).toBeLessThan(HALF);
      }),
    ));
  test('FSIN and FCOS, of angles reduced by a pi of 66 bits', () =>
    property(
      fc.property(number(-30, 62), (x) => {
        expect(thousandths(run(CODE.fsin, x).st(0), sinOf(x))).toBeLessThan(HALF);
        expect(thousandths(run(CODE.fcos, x).st(0), sinOf(x, 1))).toBeLessThan(HALF);
      }),
    ));
  test('FSINCOS and FPTAN', () =>
    property(
      fc.property(number(-30, 62), (x) => {
        const both = run(CODE.fsincos, x);
        expect([both.st(0), both.st(1)]).toEqual([run(CODE.fcos, x).st(0), run(CODE.fsin, x).st(0)]);
        const tangent = run(CODE.fptan, x);
        expect(tangent.st(0)).toEqual({ se: BIAS, mant: 1n << 63n });
        expect(thousandths(tangent.st(1), div(sinOf(x), sinOf(x, 1)))).toBeLessThan(HALF);
      }),
    ));
});

const [TOP, SPECIAL] = [1n << 63n, 0x7fff];
const ZERO: F80 = { se: 0, mant: 0n };
const VALUES: Readonly<Record<string, F80>> = {
  '-inf': { se: SPECIAL | 0x8000, mant: TOP },
  '-4': { se: (BIAS + 2) | 0x8000, mant: TOP },
  '-1': { se: BIAS | 0x8000, mant: TOP },
  '-1/2': { se: (BIAS - 1) | 0x8000, mant: TOP },
  '-0': { se: 0x8000, mant: 0n },
  '0': ZERO,
  '1/8': { se: BIAS - 3, mant: TOP },
  '1/2': { se: BIAS - 1, mant: TOP },
  '1': { se: BIAS, mant: TOP },
  '2': { se: BIAS + 1, mant: TOP },
  '4': { se: BIAS + 2, mant: TOP },
  '3/2': { se: BIAS, mant: 3n << 62n },
  '12': { se: BIAS + 3, mant: 3n << 62n },
  '-12': { se: (BIAS + 3) | 0x8000, mant: 3n << 62n },
  inf: { se: SPECIAL, mant: TOP },
  none: { se: 0xffff, mant: 3n << 62n },
  'pi/4': { se: BIAS - 1, mant: 0xc90fdaa22168c235n },
  'pi/2': { se: BIAS, mant: 0xc90fdaa22168c235n },
  '3pi/4': { se: BIAS + 1, mant: 0x96cbe3f9990e91a8n },
  pi: { se: BIAS + 1, mant: 0xc90fdaa22168c235n },
};
const value = (name: string): F80 => {
  const [found, negated] = [VALUES[name], VALUES[name.slice(1)]];
  if (found !== undefined) return found;
  if (negated === undefined) throw new Error(`no value ${name}`);
  return { se: negated.se ^ 0x8000, mant: negated.mant };
};
const [IE, ZE] = [1, 4];

/** Instruction, ST(0), ST(1), result; `#Z` behind it: with the exception of a division by zero. */
const TABLE: readonly (readonly [keyof typeof CODE, string, string, string])[] = [
  ...(
    [
      ['-0', '-0'],
      ['0', '0'],
      ['1', '1'],
      ['-1', '-1/2'],
    ] as const
  ).map(([x, result]) => ['f2xm1', x, '0', result] as const),
  ...(['fsin', 'fptan'] as const).flatMap((name) => [
    [name, '0', '0', '0'] as const,
    [name, '-0', '0', '-0'] as const,
    [name, 'inf', '0', 'none'] as const,
    [name, '-inf', '0', 'none'] as const,
  ]),
  ['fcos', '0', '0', '1'],
  ['fcos', '-0', '0', '1'],
  ['fcos', 'inf', '0', 'none'],
  // FYL2X: a row for each ST(1), a column for each ST(0).
  ...(
    [
      ['-inf', ['none', 'none', 'inf', 'inf', 'none', '-inf', '-inf']],
      ['-4', ['none', 'none', 'inf #Z', '4', '-0', '-4', '-inf']],
      ['-0', ['none', 'none', 'none', '0', '-0', '-0', 'none']],
      ['0', ['none', 'none', 'none', '-0', '0', '0', 'none']],
      ['4', ['none', 'none', '-inf #Z', '-4', '0', '4', 'inf']],
      ['inf', ['none', 'none', '-inf', '-inf', 'none', 'inf', 'inf']],
    ] as const
  ).flatMap(([y, row]) =>
    ['-inf', '-4', '0', '1/2', '1', '2', 'inf'].map((x, n) => ['fyl2x', x, y, row[n] as string] as const),
  ),
  ['fyl2x', '-0', '4', '-inf #Z'],
  ...(
    [
      ['-inf', ['none', 'none', '-inf']],
      ['-4', ['0', '-0', undefined]],
      ['-0', ['0', '-0', '-0']],
      ['0', ['-0', '0', '0']],
      ['4', ['-0', '0', undefined]],
      ['inf', ['none', 'none', 'inf']],
    ] as const
  ).flatMap(([y, row]) =>
    ['-0', '0', '1/8'].flatMap((x, n) => {
      const result = row[n];
      return result === undefined ? [] : [['fyl2xp1', x, y, result] as const];
    }),
  ),
  // FPATAN: a row for each ST(1), a column for each ST(0).
  ...(
    [
      ['-inf', ['-3pi/4', '-pi/2', '-pi/2', '-pi/2', '-pi/2', '-pi/4']],
      ['-4', ['-pi', '-3pi/4', '-pi/2', '-pi/2', '-pi/4', '-0']],
      ['-0', ['-pi', '-pi', '-pi', '-0', '-0', '-0']],
      ['0', ['pi', 'pi', 'pi', '0', '0', '0']],
      ['4', ['pi', '3pi/4', 'pi/2', 'pi/2', 'pi/4', '0']],
      ['inf', ['3pi/4', 'pi/2', 'pi/2', 'pi/2', 'pi/2', 'pi/4']],
    ] as const
  ).flatMap(([y, row]) =>
    ['-inf', '-4', '-0', '0', '4', 'inf'].map((x, n) => ['fpatan', x, y, row[n] as string] as const),
  ),
];

test.each(TABLE)('%s of ST(0) = %s, ST(1) = %s is %s', (name, x, y, text) => {
  const [result, zero] = text.split(' ') as [string, string | undefined];
  const { st, fsw } = run(CODE[name], value(x), value(y));
  const invalid = result === 'none';
  expect(st(name === 'fptan' && !invalid ? 1 : 0)).toEqual(value(result));
  expect(fsw & (IE | ZE)).toBe(invalid ? IE : zero === undefined ? 0 : ZE);
});

test.each(['fsin', 'fcos', 'fsincos', 'fptan'] as const)('%s of 2^63 leaves it, and sets C2', (name) => {
  const x = { se: BIAS + 63, mant: TOP };
  const { st, fsw } = run(CODE[name], x);
  expect(st(0)).toEqual(x);
  expect(fsw & 0x400).toBe(0x400);
});
