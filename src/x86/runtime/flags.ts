/** Evaluation of the lazy status flags (see FLAGS in sem.ts): one formula for each flag and kind. */
import { CPU, FLAG } from '../layout.ts';
import { FLAGS, type Library, type Size } from '../sem.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import { routine, type Routine } from './library.ts';

/** The values that a kind is evaluated from; bound, since formulas use them several times. */
export interface LazyValues {
  readonly a: Val;
  readonly b: Val;
  readonly r: Val;
}
type Formula = (values: LazyValues) => Val;

/**
 * Inside a region, and from one region to the next, the kind says more than FLAGS: by how much the values are to be shifted left
 * and right again to be sign-extended (bits 8-15), which is only done when somebody looks, and whether r is a - b and not in its
 * place.
 */
export const DERIVED = 0x10000;
export const rawKind = (kind: number, size: Size): number => kind | ((64 - 8 * size) << 8);

/** The lazy flags of a region as FLAGS has them. */
export function plainFlags(
  f: FunctionBuilder,
  flags: { readonly kind: Val } & LazyValues,
): { readonly kind: Val } & LazyValues {
  const shift = f.let(flags.kind.shrU(8).and(0xff).zext());
  const extend = (value: Val): Val => f.let(value.shl(shift).shrS(shift));
  const r = f.let(select(flags.kind.and(DERIVED), flags.a.sub(flags.b), flags.r));
  return { kind: f.let(flags.kind.and(0xff)), a: extend(flags.a), b: extend(flags.b), r: extend(r) };
}

const sign = (value: Val): Val => value.shrU(63).wrap();

/**
 * Whether the product does not fit: dividing it gives the other factor back only when it does. WebAssembly's division traps
 * for 0 and for the smallest number by -1, which are looked at by themselves.
 */
const productOverflow: Formula = ({ a, b, r }) => {
  const plain = (): Val => a.add(1).gtU(1);
  const quotient = r.divS(select(plain(), a, i64(1)));
  return select(plain(), quotient.ne(b), a.eq(-1).and(b.eq(-(1n << 63n))));
};

/** By kind, in the order of FLAGS. */
const KINDS = Object.keys(FLAGS).length;
const borrow: Formula = ({ a, b, r }) => sign(a.not().and(b).or(a.not().or(b).and(r)));
const CARRY: readonly Formula[] = [
  ({ r }) => r.wrap().and(1),
  // Carry out of the top bit: both set, or one set and the result clear.
  ({ a, b, r }) => sign(a.and(b).or(a.or(b).and(r.not()))),
  // Sign extension keeps unsigned order.
  ({ a, b }) => a.ltU(b),
  () => i32(0),
  ({ b }) => b.wrap(),
  ({ b }) => b.wrap(),
  ({ a }) => sign(a),
  ({ a }) => a.wrap().and(1),
  ({ a }) => a.wrap().and(1),
  borrow,
  productOverflow,
];
const difference: Formula = ({ a, b, r }) => sign(a.xor(b).and(a.xor(r)));
const OVERFLOW: readonly Formula[] = [
  ({ r }) => r.wrap().shrU(11).and(1),
  ({ a, b, r }) => sign(a.xor(r).and(b.xor(r))),
  difference,
  () => i32(0),
  ({ a, r }) => sign(a.not().and(r)),
  ({ a, r }) => sign(a.and(r.not())),
  ({ a, r }) => sign(a.xor(r)),
  ({ b, r }) => sign(b.xor(r)),
  ({ a }) => a.wrap().and(1),
  difference,
  productOverflow,
];
/** AF: carry out of bit 3; undefined after logic, shifts and multiplication, and clear here. */
function adjust(kind: number, { a, b, r }: LazyValues): Val {
  switch (kind) {
    case FLAGS.explicit:
      return r.wrap().and(FLAG.AF);
    case FLAGS.add:
    case FLAGS.sub:
    case FLAGS.sbb:
      return a.xor(b).xor(r).wrap().and(FLAG.AF);
    case FLAGS.inc:
    case FLAGS.dec:
      return a.xor(r).xor(1).wrap().and(FLAG.AF);
    default:
      return i32(0);
  }
}
const parity = (kind: number, { r }: LazyValues): Val =>
  kind === FLAGS.explicit ? r.wrap().shrU(2).and(1) : r.wrap().and(0xff).popcnt().and(1).xor(1);
const zero = (kind: number, { r }: LazyValues): Val =>
  kind === FLAGS.explicit ? r.wrap().shrU(6).and(1) : r.eqz();
const negative = (kind: number, { r }: LazyValues): Val =>
  kind === FLAGS.explicit ? r.wrap().shrU(7).and(1) : sign(r);

const formula = (list: readonly Formula[], kind: number): Formula => {
  const found = list[kind];
  if (found === undefined) throw new Error(`flag kind ${kind} has no formula`);
  return found;
};

/** CF of a known kind. */
export const carryOf = (kind: number, values: LazyValues): Val => formula(CARRY, kind)(values);

/** Condition 0-15 without its negation (0-7: O B E BE S P L LE) of a known kind, an i32 of 0 or 1. */
export function conditionOf(kind: number, group: number, values: LazyValues): Val {
  const { a, b, r } = values;
  const over = (): Val => formula(OVERFLOW, kind)(values);
  switch (group) {
    case 0:
      return over();
    case 1:
      return carryOf(kind, values);
    case 2:
      return kind === FLAGS.sub ? a.eq(b) : zero(kind, values);
    case 3:
      if (kind === FLAGS.sub) return a.leU(b);
      if (kind === FLAGS.logic) return r.eqz();
      return carryOf(kind, values).or(zero(kind, values));
    case 4:
      return negative(kind, values);
    case 5:
      return parity(kind, values);
    case 6:
      if (kind === FLAGS.sub) return a.ltS(b);
      if (kind === FLAGS.logic) return sign(r);
      return negative(kind, values).xor(over());
    default:
      if (kind === FLAGS.sub) return a.leS(b);
      if (kind === FLAGS.logic) return r.leS(0);
      return zero(kind, values).or(negative(kind, values).xor(over()));
  }
}

/** CF PF AF ZF SF OF of a known kind at their EFLAGS positions. */
export function statusOf(kind: number, values: LazyValues): Val {
  if (kind === FLAGS.explicit) return values.r.wrap();
  return carryOf(kind, values)
    .or(parity(kind, values).shl(2))
    .or(adjust(kind, values))
    .or(zero(kind, values).shl(6))
    .or(negative(kind, values).shl(7))
    .or(formula(OVERFLOW, kind)(values).shl(11));
}

const PURE = ['i32', 'i64', 'i64', 'i64'] as const;

/** A function of (kind, a, b, r) from what `of` gives for each kind. */
function byKind(name: string, of: (kind: number, values: LazyValues) => Val): Routine {
  return routine(name, PURE, ['i32'], (f) => {
    const values = { a: f.p(1), b: f.p(2), r: f.p(3) };
    f.switch(
      f.p(0),
      Array.from({ length: KINDS }, (_, kind) => () => f.return(of(kind, values))),
      () => f.unreachable(),
    );
    f.unreachable();
  });
}

/** The same of the flags in the CPU structure. */
function ofState(name: string, pure: string): Routine {
  return routine(name, ['i32'], ['i32'], (f, lib: Library) => {
    const cpu = f.p(0);
    const word = (offset: number): Val => f.load('64', cpu, offset);
    f.return(
      f.callValue(
        lib(pure),
        f.load('32', cpu, CPU.flagKind),
        word(CPU.flagA),
        word(CPU.flagB),
        word(CPU.flagR),
      ),
    );
    f.unreachable();
  });
}

/** ZF and SF of any kind but the explicit one are those of r. */
function zeroOrSign(name: string, bit: number, of: (f: FunctionBuilder, r: Val) => Val): Routine {
  return routine(name, ['i32'], ['i32'], (f) => {
    const r = f.let(f.load('64', f.p(0), CPU.flagR));
    f.return(select(f.load('32', f.p(0), CPU.flagKind).eqz(), r.wrap().shrU(bit).and(1), of(f, r)));
    f.unreachable();
  });
}

const GROUPS = [0, 1, 2, 3, 4, 5, 6, 7] as const;

export const flagRoutines: readonly Routine[] = [
  byKind('carry_of', carryOf),
  byKind('status_of', statusOf),
  ...GROUPS.map((group) => byKind(`cond_of_${group}`, (kind, values) => conditionOf(kind, group, values))),
  /** Flags in the CPU structure that a region left as it has them become those of FLAGS. */
  routine('plain_flags', ['i32'], [], (f) => {
    const cpu = f.p(0);
    const word = (offset: number): Val => f.let(f.load('64', cpu, offset));
    const kind = f.let(f.load('32', cpu, CPU.flagKind));
    const flags = { kind, a: word(CPU.flagA), b: word(CPU.flagB), r: word(CPU.flagR) };
    const { a, b, r, kind: plain } = plainFlags(f, flags);
    f.store('32', cpu, plain, CPU.flagKind);
    f.store('64', cpu, a, CPU.flagA);
    f.store('64', cpu, b, CPU.flagB);
    f.store('64', cpu, r, CPU.flagR);
  }),
  ofState('carry_flag', 'carry_of'),
  ofState('status_flags', 'status_of'),
  ...GROUPS.filter((group) => group !== 2 && group !== 4).map((group) =>
    ofState(`cond_${group}`, `cond_of_${group}`),
  ),
  zeroOrSign('cond_2', 6, (_f, r) => r.eqz()),
  zeroOrSign('cond_4', 7, (_f, r) => sign(r)),
];
