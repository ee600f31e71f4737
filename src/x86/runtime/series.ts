/** Mathematical constants and series as fractions of 128 bits, worked out with integers when the engine is built. */
import type { Library } from '../sem.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { routine, type Routine } from './library.ts';
import { wideConstant, type Wide, WideMath } from './wide.ts';

/** Working precision of the constants: well above the 128 bits that are kept. */
const BITS = 256n;
const ONE = 1n << BITS;

/** atan(p / q) = sum of (-1)^k (p / q)^(2k + 1) / (2k + 1), times 2^BITS; p <= q / 2. */
function arctangent(p: bigint, q: bigint): bigint {
  let power = (ONE * p) / q;
  let sum = power;
  for (let k = 1n; power !== 0n; k++) {
    power = (power * p * p) / (q * q);
    sum += (k % 2n === 0n ? power : -power) / (2n * k + 1n);
  }
  return sum;
}
/** Machin's formula. */
const PI = 16n * arctangent(1n, 5n) - 4n * arctangent(1n, 239n);
/** ln 2 = sum of 1 / (k 2^k). */
const LN2 = ((): bigint => {
  let sum = 0n;
  for (let k = 1n; k < BITS; k++) sum += (ONE >> k) / k;
  return sum;
})();

/** The leading 128 bits of value / 2^BITS, which is below 1. */
const fraction = (value: bigint): Wide => wideConstant(value >> (BITS - 128n));

export const CONSTANTS = {
  /** pi / 4. */
  quarterPi: fraction(PI / 4n),
  /** 3 pi / 16: three quarters of pi, a quarter of it. */
  threeSixteenthsPi: fraction((3n * PI) / 16n),
  ln2: fraction(LN2),
  /** 1 / (2 ln 2). */
  halfLog2E: fraction((ONE * ONE) / (2n * LN2)),
} as const;

/** atan(j / 16), for j from 1 to 16; beyond 1/2 by atan(c) = pi / 4 - atan((1 - c) / (1 + c)). */
export const ARCTANGENTS: readonly Wide[] = Array.from({ length: 16 }, (_, i) => {
  const j = BigInt(i + 1);
  return fraction(j <= 8n ? arctangent(j, 16n) : PI / 4n - arctangent(16n - j, 16n + j));
});

const inverse = (n: bigint): Wide => fraction(ONE / n);
const factorial = (n: bigint): bigint => (n <= 1n ? 1n : n * factorial(n - 1n));
const range = (count: number): readonly bigint[] => Array.from({ length: count }, (_, k) => BigInt(k));

/** c0 +- z c1 + z^2 c2 +- ..., by Horner's rule; coefficients fall, z < 1, and every part stays within 0 and 1. */
function series(name: string, coefficients: readonly Wide[], alternating: boolean): Routine {
  return routine(name, ['i64', 'i64'], ['i64', 'i64'], (f, lib) => {
    const m = new WideMath(f, lib);
    const z: Wide = [f.p(0), f.p(1)];
    const high = f.local('i64');
    const low = f.local('i64');
    const set = (value: Wide): void => {
      high.set(value[0]);
      low.set(value[1]);
    };
    set(coefficients.at(-1) as Wide);
    for (const c of coefficients.slice(0, -1).reverse()) {
      f.scope(() => {
        const product = m.mul(z, [high.get, low.get]);
        set(alternating ? m.sub(c, product) : m.add(c, product));
      });
    }
    f.return(high.get, low.get);
    f.unreachable();
  });
}

/** Terms enough for 2^-126 at the bound of each argument. */
export const seriesRoutines: readonly Routine[] = [
  // z = r^2 with r up to pi / 4: sin r = r - r z S(z), cos r = 1 - z C(z).
  series(
    'series_sin',
    range(17).map((k) => inverse(factorial(2n * k + 3n))),
    true,
  ),
  series(
    'series_cos',
    range(17).map((k) => inverse(factorial(2n * k + 2n))),
    true,
  ),
  // z = r^2 with r up to 1/31: atan r = r - r z A(z).
  series(
    'series_atan',
    range(13).map((k) => inverse(2n * k + 3n)),
    true,
  ),
  // z = r^2 with r up to 0.1716: atanh r = r + r z H(z).
  series(
    'series_atanh',
    range(25).map((k) => inverse(2n * k + 3n)),
    false,
  ),
  // t up to ln 2: e^t - 1 = t + t^2 E(t), e^-t - 1 = -(t - t^2 E(-t)).
  series(
    'series_exp',
    range(30).map((k) => inverse(factorial(k + 2n))),
    false,
  ),
  series(
    'series_exp_minus',
    range(30).map((k) => inverse(factorial(k + 2n))),
    true,
  ),
];

export function callSeries(f: FunctionBuilder, lib: Library, name: string, z: Wide): Wide {
  const [high, low] = f.callValues(lib(name), ...z) as [Wide[0], Wide[1]];
  return [high, low];
}
