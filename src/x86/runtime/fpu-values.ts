/** x87 values in generated code: their kinds, the special operands, and the flags of the status word. */
import { CPU } from '../layout.ts';
import type { Library } from '../sem.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';

/** Status word: exception flags, stack fault, error summary, condition codes, busy. */
export const FSW = {
  IE: 1,
  DE: 2,
  ZE: 4,
  OE: 8,
  UE: 0x10,
  PE: 0x20,
  SF: 0x40,
  ES: 0x80,
  C0: 0x100,
  C1: 0x200,
  C2: 0x400,
  C3: 0x4000,
  B: 0x8000,
} as const;

export const INTEGER_BIT = -(1n << 63n);
export const INDEFINITE_MANT = -(1n << 62n); // 0xC000...
export const INDEFINITE_SE = 0xffff;
export const BIAS = 16383;

export const result = (f: FunctionBuilder, cpu: Val, mant: Val, se: Val): void => {
  f.store('64', cpu, mant, CPU.wide);
  f.store('32', cpu, se, CPU.wide + 8);
};

export const flag = (f: FunctionBuilder, lib: Library, cpu: Val, bits: number | Val): void =>
  f.call(lib('fpu_flag'), cpu, typeof bits === 'number' ? i32(bits) : bits);

export const indefinite = (f: FunctionBuilder, lib: Library, cpu: Val): void => {
  flag(f, lib, cpu, FSW.IE);
  result(f, cpu, i64(INDEFINITE_MANT), i32(INDEFINITE_SE));
  f.return();
};

export const isNan = (mant: Val, se: Val): Val => se.and(0x7fff).eq(0x7fff).and(mant.shl(1).ne(0));
export const isInf = (mant: Val, se: Val): Val => se.and(0x7fff).eq(0x7fff).and(mant.shl(1).eqz());
/** Encodings that the 387 and later do not support: a normal exponent without the integer bit. */
export const isUnsupported = (mant: Val, se: Val): Val => se.and(0x7fff).ne(0).and(mant.geS(0));
export const isDenormal = (mant: Val, se: Val): Val => se.and(0x7fff).eqz().and(mant.ne(0));

/** Handles NaN and unsupported operands of a two-operand instruction: returns from the routine when there is one. */
export function notANumber(
  f: FunctionBuilder,
  lib: Library,
  cpu: Val,
  a: Val,
  ase: Val,
  b: Val,
  bse: Val,
): void {
  f.if(isUnsupported(a, ase).or(isUnsupported(b, bse)), () => indefinite(f, lib, cpu));
  const aNan = f.let(isNan(a, ase));
  const bNan = f.let(isNan(b, bse));
  f.if(aNan.or(bNan), () => {
    const quiet = 1n << 62n;
    const aSignalling = f.let(aNan.and(a.and(quiet).eqz()));
    const bSignalling = f.let(bNan.and(b.and(quiet).eqz()));
    f.if(aSignalling.or(bSignalling), () => flag(f, lib, cpu, FSW.IE));
    // A quiet NaN wins over a signalling one, the larger significand over the smaller, the positive over the negative.
    const both = f.let(aNan.and(bNan));
    const sameKind = f.let(aSignalling.eq(bSignalling));
    const larger = f.let(select(a.eq(b), ase.and(0x8000).leU(bse.and(0x8000)), a.gtU(b)));
    const takeA = f.let(select(both, select(sameKind, larger, bSignalling), aNan));
    result(f, cpu, select(takeA, a, b).or(quiet), select(takeA, ase, bse));
    f.return();
  });
}

export function denormalOperands(
  f: FunctionBuilder,
  lib: Library,
  cpu: Val,
  a: Val,
  ase: Val,
  b: Val,
  bse: Val,
): void {
  f.if(isDenormal(a, ase).or(isDenormal(b, bse)), () => denormal(f, lib, cpu));
}

export function specialOperands(
  f: FunctionBuilder,
  lib: Library,
  cpu: Val,
  a: Val,
  ase: Val,
  b: Val,
  bse: Val,
): void {
  notANumber(f, lib, cpu, a, ase, b, bse);
  denormalOperands(f, lib, cpu, a, ase, b, bse);
}

/** The same for one operand; what is denormal is left to the caller, who may have other exceptions to report first. */
export function specialOperand(f: FunctionBuilder, lib: Library, cpu: Val, a: Val, se: Val): void {
  f.if(isUnsupported(a, se), () => indefinite(f, lib, cpu));
  f.if(isNan(a, se), () => {
    f.if(a.and(1n << 62n).eqz(), () => flag(f, lib, cpu, FSW.IE));
    result(f, cpu, a.or(1n << 62n), se);
    f.return();
  });
}

/** A denormal operand; when that is unmasked, the operation ends there. */
export function denormal(f: FunctionBuilder, lib: Library, cpu: Val): void {
  flag(f, lib, cpu, FSW.DE);
  f.if(f.load('32', cpu, CPU.fcw).and(FSW.DE).eqz(), () => f.return());
}

/** Significand with its top bit set and the exponent to it, for a value that is not zero. */
export function normalize(f: FunctionBuilder, mant: Val, se: Val): { mant: Val; exp: Val } {
  const e = f.let(se.and(0x7fff));
  const shift = f.let(mant.clz());
  return { mant: f.let(mant.shl(shift)), exp: f.let(select(e.eqz(), i32(1), e).sub(shift.wrap())) };
}

export const signOf = (se: Val): Val => se.shrU(15).and(1);
