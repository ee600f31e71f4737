/** x87 instructions beyond arithmetic: transcendentals, FXTRACT, packed decimal (Intel SDM vol. 2; AMD APM vol. 5). */
import { CPU } from '../layout.ts';
import { FSW } from '../runtime/fpu-values.ts';
import type { Sem } from '../sem.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import type { Def } from './def.ts';
import { begin, blocked, empty, notePointer, pop, push, st, wide, withOperands, write } from './fpu-stack.ts';

const defs: Def[] = [];
const def = (name: string, enc: string, sem: (e: Sem) => void): void =>
  void defs.push({ name, enc: [enc], unit: 'x87', feature: 'fpu', sem });

const BIAS = 16383;
const INDEFINITE = { mant: i64(-(1n << 62n)), se: i32(0xffff) };
const ONE = { mant: i64(-(1n << 63n)), se: i32(BIAS) };

def('f2xm1', 'D9 =F0 -', (e) => {
  begin(e);
  withOperands(e, [0], 0, false, () => {
    const a = st(e, 0);
    e.call('fpu_exp2_minus_1', e.cpu, a.mant, a.se);
    e.f.if(blocked(e).eqz(), () => write(e, 0, wide(e)));
  });
});

// ST(1) becomes the result, then ST(0) is popped.
for (const [name, modrm, routine] of [
  ['fyl2x', 'F1', 'fpu_y_log2_x'],
  ['fpatan', 'F3', 'fpu_arctangent'],
  ['fyl2xp1', 'F9', 'fpu_y_log2_x_plus_1'],
] as const) {
  def(name, `D9 =${modrm} -`, (e) => {
    begin(e);
    withOperands(e, [0, 1], 1, true, () => {
      const a = st(e, 0);
      const b = st(e, 1);
      e.call(routine, e.cpu, a.mant, a.se, b.mant, b.se);
      e.f.if(blocked(e).eqz(), () => {
        write(e, 1, wide(e));
        pop(e);
      });
    });
  });
}

/** Runs `body` with an angle that can be reduced; one of 2^63 or more leaves everything and sets C2. */
function withAngle(e: Sem, body: (mant: Val, se: Val) => void): void {
  const { f } = e;
  const { mant, se } = st(e, 0);
  const exp = f.let(se.and(0x7fff));
  f.if(
    exp
      .geU(BIAS + 63)
      .and(exp.ne(0x7fff))
      .and(mant.ltS(0)),
    () => e.setField32(CPU.fsw, e.field32(CPU.fsw).or(FSW.C2)),
    () => body(mant, se),
  );
}
const clearC2 = (e: Sem): void => e.setField32(CPU.fsw, e.field32(CPU.fsw).and(~FSW.C2));

for (const [name, modrm, which] of [
  ['fsin', 'FE', 0],
  ['fcos', 'FF', 1],
] as const) {
  def(name, `D9 =${modrm} -`, (e) => {
    begin(e);
    clearC2(e);
    withOperands(e, [0], 0, false, () =>
      withAngle(e, (mant, se) => {
        e.call('fpu_trigonometric', e.cpu, mant, se, i32(which));
        e.f.if(blocked(e).eqz(), () => write(e, 0, wide(e)));
      }),
    );
  });
}

/**
 * An instruction that replaces ST(0) and pushes a second result: both are the indefinite when ST(0) is empty or the stack is
 * full, and nothing happens when that is unmasked.
 */
function withRoom(e: Sem, body: () => void): void {
  const { f } = e;
  const both = (): void => {
    f.if(e.callValue('fpu_masked', e.cpu, i32(FSW.IE)), () => {
      // A full stack is not reported again: C1 tells what came first.
      const status = f.let(e.field32(CPU.fsw));
      write(e, 0, INDEFINITE);
      push(e, INDEFINITE);
      e.setField32(CPU.fsw, status);
    });
  };
  f.if(
    empty(e, 0),
    () => {
      e.call('fpu_underflow', e.cpu);
      both();
    },
    () => {
      f.if(empty(e, 7), body, () => {
        e.call('fpu_flag', e.cpu, i32(FSW.IE | FSW.SF | FSW.C1));
        both();
      });
    },
  );
}
def('fptan', 'D9 =F2 -', (e) => {
  begin(e);
  clearC2(e);
  withRoom(e, () =>
    withAngle(e, (mant, se) => {
      e.call('fpu_trigonometric', e.cpu, mant, se, i32(2));
      e.f.if(blocked(e).eqz(), () => {
        const tangent = wide(e);
        const bound = { mant: e.f.let(tangent.mant), se: e.f.let(tangent.se) };
        write(e, 0, bound);
        // A NaN is pushed as well.
        const nan = e.f.let(bound.se.and(0x7fff).eq(0x7fff));
        push(e, {
          mant: e.f.let(select(nan, bound.mant, ONE.mant)),
          se: e.f.let(select(nan, bound.se, ONE.se)),
        });
      });
    }),
  );
});
def('fsincos', 'D9 =FB -', (e) => {
  begin(e);
  clearC2(e);
  withRoom(e, () =>
    withAngle(e, (mant, se) => {
      e.call('fpu_trigonometric', e.cpu, mant, se, i32(0));
      const sine = wide(e);
      const bound = { mant: e.f.let(sine.mant), se: e.f.let(sine.se) };
      e.call('fpu_trigonometric', e.cpu, mant, se, i32(1));
      e.f.if(blocked(e).eqz(), () => {
        write(e, 0, bound);
        push(e, wide(e));
      });
    }),
  );
});
def('fxtract', 'D9 =F4 -', (e) => {
  begin(e);
  withRoom(e, () => {
    const { f } = e;
    const a = st(e, 0);
    e.call('fpu_extract_exponent', e.cpu, a.mant, a.se);
    const exponent = wide(e);
    const bound = { mant: f.let(exponent.mant), se: f.let(exponent.se) };
    e.call('fpu_extract_significand', e.cpu, a.mant, a.se);
    f.if(blocked(e).eqz(), () => {
      write(e, 0, bound);
      push(e, wide(e));
    });
  });
});

def('fbld', 'DF /4:m Mt', (e) => {
  e.call('fpu_wait', e.cpu);
  const address = e.address(0, 10, false);
  e.call('probe_read', e.cpu, address, i32(10));
  const low = e.load(address, 8);
  const high = e.load(e.f.let(address.add(8)), 2);
  begin(e);
  notePointer(e);
  e.call('fpu_from_decimal', e.cpu, low, high);
  push(e, wide(e));
});
def('fbstp', 'DF /6:m Mt', (e) => {
  const { f } = e;
  e.call('fpu_wait', e.cpu);
  const address = e.address(0, 10, true);
  e.call('probe_write', e.cpu, address, i32(10));
  begin(e);
  notePointer(e);
  f.if(
    empty(e, 0),
    () => {
      e.call('fpu_underflow', e.cpu);
      e.setField64(CPU.wide, i64(-(1n << 62n)));
    },
    () => {
      const a = st(e, 0);
      e.call('fpu_to_decimal', e.cpu, a.mant, a.se);
    },
  );
  f.if(blocked(e).eqz(), () => {
    e.store(address, 8, e.field64(CPU.wide));
    e.store(f.let(address.add(8)), 2, e.field32(CPU.wide + 8));
    pop(e);
  });
});

export const transcendentalDefs: readonly Def[] = defs;
