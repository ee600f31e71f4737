/** Evaluation of the lazy status flags (see FLAGS in sem.ts). */
import { CPU, FLAG } from '../layout.ts';
import { FLAGS } from '../sem.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { i32, select, type Val } from '../wasm/value.ts';
import { routine, type Routine } from './library.ts';

interface Lazy {
  readonly kind: Val;
  readonly a: Val;
  readonly b: Val;
  readonly r: Val;
}

function lazy(f: FunctionBuilder): Lazy {
  const cpu = f.p(0);
  return {
    kind: f.let(f.load('32', cpu, CPU.flagKind)),
    a: f.let(f.load('64', cpu, CPU.flagA)),
    b: f.let(f.load('64', cpu, CPU.flagB)),
    r: f.let(f.load('64', cpu, CPU.flagR)),
  };
}

const sign = (value: Val): Val => value.shrU(63).wrap();

/** Returns the carry flag of every kind. */
function carry(f: FunctionBuilder, { kind, a, b, r }: Lazy): void {
  f.switch(
    kind,
    [
      () => f.return(r.wrap().and(1)),
      // Carry out of the top bit: both set, or one set and the result clear.
      () => f.return(sign(a.and(b).or(a.or(b).and(r.not())))),
      () => f.return(sign(a.not().and(b).or(a.not().or(b).and(r)))),
      () => f.return(i32(0)),
      () => f.return(b.wrap()),
      () => f.return(b.wrap()),
      () => f.return(sign(a)),
      () => f.return(a.wrap().and(1)),
      () => f.return(a.wrap().and(1)),
    ],
    () => f.unreachable(),
  );
  f.unreachable();
}

function overflow(f: FunctionBuilder, { kind, a, b, r }: Lazy): void {
  f.switch(
    kind,
    [
      () => f.return(r.wrap().shrU(11).and(1)),
      () => f.return(sign(a.xor(r).and(b.xor(r)))),
      () => f.return(sign(a.xor(b).and(a.xor(r)))),
      () => f.return(i32(0)),
      () => f.return(sign(a.not().and(r))),
      () => f.return(sign(a.and(r.not()))),
      () => f.return(sign(a.xor(r))),
      () => f.return(sign(b.xor(r))),
      () => f.return(a.wrap().and(1)),
    ],
    () => f.unreachable(),
  );
  f.unreachable();
}

export const flagRoutines: readonly Routine[] = [
  routine('carry_flag', ['i32'], ['i32'], (f) => carry(f, lazy(f))),
  routine('overflow_flag', ['i32'], ['i32'], (f) => overflow(f, lazy(f))),
  routine('parity_flag', ['i32'], ['i32'], (f) => {
    const cpu = f.p(0);
    const r = f.let(f.load('64', cpu, CPU.flagR));
    f.if(f.load('32', cpu, CPU.flagKind).eq(FLAGS.explicit), () => f.return(r.wrap().shrU(2).and(1)));
    f.return(r.wrap().and(0xff).popcnt().and(1).xor(1));
    f.unreachable();
  }),
  routine('zero_flag', ['i32'], ['i32'], (f) => {
    const cpu = f.p(0);
    const r = f.let(f.load('64', cpu, CPU.flagR));
    f.return(select(f.load('32', cpu, CPU.flagKind).eqz(), r.wrap().shrU(6).and(1), r.eqz()));
    f.unreachable();
  }),
  routine('sign_flag', ['i32'], ['i32'], (f) => {
    const cpu = f.p(0);
    const r = f.let(f.load('64', cpu, CPU.flagR));
    f.return(select(f.load('32', cpu, CPU.flagKind).eqz(), r.wrap().shrU(7).and(1), r.shrU(63).wrap()));
    f.unreachable();
  }),
  routine('status_flags', ['i32'], ['i32'], (f, lib) => {
    const cpu = f.p(0);
    const { kind, a, b, r } = lazy(f);
    f.if(kind.eqz(), () => f.return(r.wrap()));
    // AF: carry out of bit 3; undefined after logic, shifts and multiplication, and clear here.
    const adjust = f.let(
      select(
        kind.eq(FLAGS.add).or(kind.eq(FLAGS.sub)),
        a.xor(b).xor(r),
        select(kind.eq(FLAGS.inc).or(kind.eq(FLAGS.dec)), a.xor(r).xor(1), r.and(0)),
      ),
    );
    const result = f.let(
      f
        .callValue(lib('carry_flag'), cpu)
        .or(f.callValue(lib('parity_flag'), cpu).shl(2))
        .or(adjust.wrap().and(FLAG.AF))
        .or(r.eqz().shl(6))
        .or(r.shrU(63).wrap().shl(7))
        .or(f.callValue(lib('overflow_flag'), cpu).shl(11)),
    );
    f.return(result);
    f.unreachable();
  }),
  routine('cond_0', ['i32'], ['i32'], (f, lib) => {
    f.return(f.callValue(lib('overflow_flag'), f.p(0)));
    f.unreachable();
  }),
  routine('cond_1', ['i32'], ['i32'], (f, lib) => {
    const cpu = f.p(0);
    f.if(f.load('32', cpu, CPU.flagKind).eq(FLAGS.sub), () => {
      // Sign extension keeps unsigned order. Not for borrows (SBB): r is then not a - b.
      const a = f.let(f.load('64', cpu, CPU.flagA));
      const b = f.let(f.load('64', cpu, CPU.flagB));
      const r = f.let(f.load('64', cpu, CPU.flagR));
      f.return(sign(a.not().and(b).or(a.not().or(b).and(r))));
    });
    f.return(f.callValue(lib('carry_flag'), cpu));
    f.unreachable();
  }),
  routine('cond_2', ['i32'], ['i32'], (f, lib) => {
    f.return(f.callValue(lib('zero_flag'), f.p(0)));
    f.unreachable();
  }),
  routine('cond_3', ['i32'], ['i32'], (f, lib) => {
    f.return(f.callValue(lib('carry_flag'), f.p(0)).or(f.callValue(lib('zero_flag'), f.p(0))));
    f.unreachable();
  }),
  routine('cond_4', ['i32'], ['i32'], (f, lib) => {
    f.return(f.callValue(lib('sign_flag'), f.p(0)));
    f.unreachable();
  }),
  routine('cond_5', ['i32'], ['i32'], (f, lib) => {
    f.return(f.callValue(lib('parity_flag'), f.p(0)));
    f.unreachable();
  }),
  routine('cond_6', ['i32'], ['i32'], (f, lib) => {
    f.return(f.callValue(lib('sign_flag'), f.p(0)).xor(f.callValue(lib('overflow_flag'), f.p(0))));
    f.unreachable();
  }),
  routine('cond_7', ['i32'], ['i32'], (f, lib) => {
    const cpu = f.p(0);
    f.return(
      f
        .callValue(lib('zero_flag'), cpu)
        .or(f.callValue(lib('sign_flag'), cpu).xor(f.callValue(lib('overflow_flag'), cpu))),
    );
    f.unreachable();
  }),
];
