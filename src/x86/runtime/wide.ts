/**
 * 128-bit arithmetic for the x87 transcendentals. A `Wide` is two i64 words, the more significant first; it stands for an
 * unsigned fraction, the 128-bit number divided by 2^128, unless a routine says otherwise.
 */
import type { Library } from '../sem.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { i64, select, type Val } from '../wasm/value.ts';
import { routine, type Routine } from './library.ts';

export type Wide = readonly [Val, Val];

const pair = (values: readonly Val[]): Wide => [values[0] as Val, values[1] as Val];

/** A constant fraction from the integer that is its value times 2^128. */
export const wideConstant = (value: bigint): Wide => [i64(BigInt.asIntN(64, value >> 64n)), i64(value)];

/** The operations of one function that is being written. */
export class WideMath {
  readonly #f: FunctionBuilder;
  readonly #lib: Library;

  constructor(f: FunctionBuilder, lib: Library) {
    this.#f = f;
    this.#lib = lib;
  }

  /** The sum modulo 1. */
  add(a: Wide, b: Wide): Wide {
    const low = this.#f.let(a[1].add(b[1]));
    return [this.#f.let(a[0].add(b[0]).add(low.ltU(a[1]).zext())), low];
  }
  /** The difference modulo 1. */
  sub(a: Wide, b: Wide): Wide {
    return [this.#f.let(a[0].sub(b[0]).sub(a[1].ltU(b[1]).zext())), this.#f.let(a[1].sub(b[1]))];
  }
  less(a: Wide, b: Wide): Val {
    return this.#f.let(a[0].ltU(b[0]).or(a[0].eq(b[0]).and(a[1].ltU(b[1]))));
  }
  isZero(a: Wide): Val {
    return a[0].or(a[1]).eqz();
  }
  choose(condition: Val, a: Wide, b: Wide): Wide {
    const bound = this.#f.let(condition);
    return [this.#f.let(select(bound, a[0], b[0])), this.#f.let(select(bound, a[1], b[1]))];
  }
  /** The product, at most 3 * 2^-128 too small; exact when both lower words are 0. */
  mul(a: Wide, b: Wide): Wide {
    return pair(this.#f.callValues(this.#lib('wide_mul'), ...a, ...b));
  }
  /** a / b, rounded down; a < b. */
  div(a: Wide, b: Wide): Wide {
    return pair(this.#f.callValues(this.#lib('wide_div'), ...a, ...b));
  }
  /** Shifted right by `count` (i32, any size), rounded down. */
  shr(a: Wide, count: Val): Wide {
    return pair(this.#f.callValues(this.#lib('wide_shr'), ...a, count));
  }
  /** Leading zeros of a value that is not 0 (i32), and the value shifted left by them. */
  normalize(a: Wide): { readonly value: Wide; readonly shift: Val } {
    const [high, low, shift] = this.#f.callValues(this.#lib('wide_normalize'), ...a) as [Val, Val, Val];
    return { value: [high, low], shift };
  }
}

const P4 = ['i64', 'i64', 'i64', 'i64'] as const;

export const wideRoutines: readonly Routine[] = [
  routine('wide_mul', P4, ['i64', 'i64'], (f, lib) => {
    const [ah, al, bh, bl] = [f.p(0), f.p(1), f.p(2), f.p(3)];
    const low = f.local('i64', ah.mul(bh));
    const high = f.local('i64', f.callValue(lib('mul_high_u'), ah, bh));
    for (const [x, y] of [
      [ah, bl],
      [al, bh],
    ] as const) {
      const part = f.callValue(lib('mul_high_u'), x, y);
      low.set(low.get.add(part));
      high.set(high.get.add(low.get.ltU(part).zext()));
    }
    f.return(high.get, low.get);
    f.unreachable();
  }),
  routine('wide_div', P4, ['i64', 'i64'], (f) => {
    const high = f.local('i64', f.p(0));
    const low = f.local('i64', f.p(1));
    const [dh, dl] = [f.p(2), f.p(3)];
    const word = (): Val => {
      const quotient = f.local('i64', 0);
      const count = f.local('i32', 64);
      f.loop((again) => {
        const carry = f.let(high.get.shrU(63).wrap());
        high.set(high.get.shl(1).or(low.get.shrU(63)));
        low.set(low.get.shl(1));
        const fits = f.let(carry.or(high.get.gtU(dh)).or(high.get.eq(dh).and(low.get.geU(dl))));
        f.if(fits, () => {
          high.set(high.get.sub(dh).sub(low.get.ltU(dl).zext()));
          low.set(low.get.sub(dl));
        });
        quotient.set(quotient.get.shl(1).or(fits.zext()));
        count.set(count.get.sub(1));
        f.brIf(again, count.get);
      });
      return quotient.get;
    };
    const first = word();
    const second = word();
    f.return(first, second);
    f.unreachable();
  }),
  routine('wide_shr', ['i64', 'i64', 'i32'], ['i64', 'i64'], (f) => {
    const count = f.let(f.p(2).zext());
    f.if(count.geU(128), () => f.return(i64(0), i64(0)));
    f.if(count.geU(64), () => f.return(i64(0), f.p(0).shrU(count.sub(64))));
    f.if(count.eqz(), () => f.return(f.p(0), f.p(1)));
    f.return(
      f.p(0).shrU(count),
      f
        .p(1)
        .shrU(count)
        .or(f.p(0).shl(i64(64).sub(count))),
    );
    f.unreachable();
  }),
  routine('wide_normalize', ['i64', 'i64'], ['i64', 'i64', 'i32'], (f) => {
    f.if(f.p(0).eqz(), () => {
      const shift = f.let(f.p(1).clz());
      f.return(f.p(1).shl(shift), i64(0), shift.add(64).wrap());
    });
    const shift = f.let(f.p(0).clz());
    f.if(shift.eqz(), () => f.return(f.p(0), f.p(1), shift.wrap()));
    f.return(
      f
        .p(0)
        .shl(shift)
        .or(f.p(1).shrU(i64(64).sub(shift))),
      f.p(1).shl(shift),
      shift.wrap(),
    );
    f.unreachable();
  }),
];
