/**
 * x87 in extended precision: the register stack, exceptions, rounding and basic arithmetic (Intel SDM vol. 1 ch. 8, AMD APM
 * vol. 1 ch. 6). Values travel as a 64-bit significand and a 16-bit sign and exponent; results are left in CPU.wide (significand)
 * and CPU.wide + 8 (sign and exponent).
 */
import { CPU, REC, VEC } from '../layout.ts';
import { CR0 } from '../registers.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import type { Library } from '../sem.ts';
import {
  BIAS,
  FSW,
  INDEFINITE_MANT,
  INDEFINITE_SE,
  INTEGER_BIT,
  denormal,
  flag,
  indefinite,
  isDenormal,
  isInf,
  isNan,
  isUnsupported,
  normalize,
  result,
  signOf,
  specialOperand,
  specialOperands,
} from './fpu-values.ts';
import { routine, type Routine } from './library.ts';

/** Neither zero nor denormal nor infinite nor a NaN nor unsupported. */
const bothNormal = (a: Val, ase: Val, b: Val, bse: Val): Val => {
  const normal = (mant: Val, se: Val): Val => mant.ltS(0).and(se.and(0x7fff).sub(1).ltU(0x7ffe));
  return normal(a, ase).and(normal(b, bse));
};

/**
 * Rounds as fpu_round, at the precision that the control word says. In line when that is 64 bits to nearest, inexact results
 * are masked and the exponent stays in range.
 */
function finish(f: FunctionBuilder, lib: Library, cpu: Val, sign: Val, exp: Val, high: Val, low: Val): void {
  const plain = f.load('32', cpu, CPU.fcw).and(0xf20).eq(0x320);
  f.if(
    plain.and(exp.sub(1).ltU(0x7ffd)),
    () => {
      const inexact = f.let(low.ne(0));
      const up = f.let(
        low
          .shrU(63)
          .wrap()
          .and(low.shl(1).or(high.and(1)).ne(0)),
      );
      const rounded = f.let(high.add(up.zext()));
      const carry = f.let(rounded.eqz());
      const flags = f.let(inexact.mul(FSW.PE).or(up.shl(9)));
      f.store('32', cpu, f.load('32', cpu, CPU.floatFlags).or(flags), CPU.floatFlags);
      f.store('32', cpu, f.load('32', cpu, CPU.fsw).and(~FSW.C1).or(flags), CPU.fsw);
      result(f, cpu, rounded.or(carry.zext().shl(63)), exp.add(carry).or(sign.shl(15)));
    },
    () => {
      const precision = f.callValue(lib('fpu_precision'), cpu);
      f.call(lib('fpu_round'), cpu, sign, exp, high, low, precision);
    },
  );
}

export const fpuRoutines: readonly Routine[] = [
  /** Before a waiting instruction: a pending unmasked exception is reported now (CR0.NE). */
  routine('fpu_wait', ['i32'], [], (f, lib) => {
    const cpu = f.p(0);
    f.if(
      f
        .load('32', cpu, CPU.fsw)
        .and(FSW.ES)
        .bool()
        .and(f.load('32', cpu, CPU.cr0).and(CR0.NE).bool()),
      () => f.call(lib('raise'), cpu, i32(VEC.MF)),
    );
  }),
  /** Raises exception flags; an unmasked one sets the summary bits. CPU.floatFlags gathers those of one instruction. */
  routine('fpu_flag', ['i32', 'i32'], [], (f) => {
    const cpu = f.p(0);
    f.store('32', cpu, f.load('32', cpu, CPU.floatFlags).or(f.p(1)), CPU.floatFlags);
    const unmasked = f.let(
      f
        .p(1)
        .and(f.load('32', cpu, CPU.fcw).not())
        .and(0x3f),
    );
    f.store(
      '32',
      cpu,
      f
        .load('32', cpu, CPU.fsw)
        .or(f.p(1))
        .or(select(unmasked, i32(FSW.ES | FSW.B), i32(0))),
      CPU.fsw,
    );
  }),
  /** Starts an instruction that is not a control instruction: pending exceptions, pointers, no flags yet, C1 clear. */
  routine('fpu_begin', ['i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const record = f.p(1);
    const fsw = f.let(f.load('32', cpu, CPU.fsw));
    f.if(fsw.and(FSW.ES), () => f.call(lib('fpu_wait'), cpu));
    f.store('64', cpu, f.load('64', record, REC.next).sub(f.load('8u', record, REC.length, 'i64')), CPU.fip);
    f.store('32', cpu, f.load('32', record, REC.imm).and(0x7ff), CPU.fop);
    f.store('32', cpu, i32(0), CPU.floatFlags);
    f.store('32', cpu, fsw.and(~FSW.C1), CPU.fsw);
  }),
  /** ES and B follow flags and masks. */
  routine('fpu_summary', ['i32'], [], (f) => {
    const cpu = f.p(0);
    const fsw = f.let(f.load('32', cpu, CPU.fsw).and(~(FSW.ES | FSW.B)));
    const pending = f.let(fsw.and(f.load('32', cpu, CPU.fcw).not()).and(0x3f));
    f.store('32', cpu, fsw.or(select(pending, i32(FSW.ES | FSW.B), i32(0))), CPU.fsw);
  }),
  /** Address of ST(i). */
  routine('fpu_st', ['i32', 'i32'], ['i32'], (f) => {
    const cpu = f.p(0);
    f.return(cpu.add(CPU.st).add(f.load('32', cpu, CPU.ftop).add(f.p(1)).and(7).shl(4)));
    f.unreachable();
  }),
  routine('fpu_empty', ['i32', 'i32'], ['i32'], (f) => {
    const cpu = f.p(0);
    f.return(
      f
        .load('32', cpu, CPU.ftw)
        .shrU(f.load('32', cpu, CPU.ftop).add(f.p(1)).and(7))
        .and(1)
        .xor(1),
    );
    f.unreachable();
  }),
  /** Whether the invalid-operation exception is masked. */
  routine('fpu_masked', ['i32', 'i32'], ['i32'], (f) => {
    f.return(f.load('32', f.p(0), CPU.fcw).and(f.p(1)).eq(f.p(1)));
    f.unreachable();
  }),
  /** Pushes a value; a full stack is #IS with C1 = 1: the indefinite when masked, nothing otherwise. */
  routine('fpu_push', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const mant = f.local('i64', f.p(1));
    const se = f.local('i32', f.p(2));
    f.if(f.callValue(lib('fpu_empty'), cpu, i32(7)).eqz(), () => {
      flag(f, lib, cpu, FSW.IE | FSW.SF | FSW.C1);
      f.if(f.callValue(lib('fpu_masked'), cpu, i32(FSW.IE)).eqz(), () => f.return());
      mant.set(INDEFINITE_MANT);
      se.set(INDEFINITE_SE);
    });
    const top = f.let(f.load('32', cpu, CPU.ftop).sub(1).and(7));
    f.store('32', cpu, top, CPU.ftop);
    f.store('32', cpu, f.load('32', cpu, CPU.ftw).or(i32(1).shl(top)), CPU.ftw);
    f.call(lib('fpu_write'), cpu, i32(0), mant.get, se.get);
  }),
  routine('fpu_write', ['i32', 'i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const at = f.callValue(lib('fpu_st'), cpu, f.p(1));
    f.store('64', at, f.p(2));
    f.store('64', at, f.p(3).and(0xffff).zext(), 8);
    const physical = f.let(f.load('32', cpu, CPU.ftop).add(f.p(1)).and(7));
    f.store('32', cpu, f.load('32', cpu, CPU.ftw).or(i32(1).shl(physical)), CPU.ftw);
  }),
  /** #IS of an empty register (C1 = 0): leaves the indefinite in CPU.wide. */
  routine('fpu_underflow', ['i32'], [], (f, lib) => {
    const cpu = f.p(0);
    f.store('32', cpu, f.load('32', cpu, CPU.fsw).and(~FSW.C1), CPU.fsw);
    flag(f, lib, cpu, FSW.IE | FSW.SF);
    result(f, cpu, i64(INDEFINITE_MANT), i32(INDEFINITE_SE));
  }),

  /**
   * Rounds sign, exponent (biased, any size) and a 128-bit significand (top bit set) by the control word; handles overflow,
   * underflow and inexact with C1. `precision`: significant bits (24, 53, 64).
   */
  routine('fpu_round', ['i32', 'i32', 'i32', 'i64', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const sign = f.p(1);
    const exp = f.local('i32', f.p(2));
    const high = f.local('i64', f.p(3));
    const low = f.local('i64', f.p(4));
    const fcw = f.let(f.load('32', cpu, CPU.fcw));
    const mode = f.let(fcw.shrU(10).and(3));
    const drop = f.let(i32(64).sub(f.p(5)).zext());
    f.store('32', cpu, f.load('32', cpu, CPU.fsw).and(~FSW.C1), CPU.fsw);
    const rounded = f.local('i64');
    const inexact = f.local('i32', 0);
    const carry = f.local('i32', 0);
    const up = f.local('i32', 0);
    const round = (): void => {
      const mask = f.let(i64(1).shl(drop).sub(1));
      const below = f.let(high.get.and(mask));
      const half = f.let(select(drop.eqz(), low.get.shrU(63), below.shrU(drop.sub(1)).and(1)).wrap());
      const rest = f.let(select(drop.eqz(), low.get.shl(1), below.and(mask.shrU(1)).or(low.get)).ne(0));
      const base = f.let(high.get.and(mask.not()));
      inexact.set(half.or(rest));
      const lsb = f.let(base.shrU(drop).and(1).wrap());
      up.set(
        select(
          mode.eqz(),
          half.and(rest.or(lsb)),
          select(mode.eq(1), inexact.get.and(sign), select(mode.eq(2), inexact.get.and(sign.xor(1)), i32(0))),
        ),
      );
      rounded.set(base.add(up.get.zext().shl(drop)));
      carry.set(up.get.and(rounded.get.ltU(base)));
    };
    round();
    // Tiny after rounding: with an unbounded exponent the result would lie below the smallest normal.
    const tiny = f.let(exp.get.add(carry.get).leS(0));
    const underflowMasked = f.let(fcw.and(FSW.UE).bool());
    f.if(tiny.and(underflowMasked), () => {
      // Denormalize, then round again at the fixed position.
      const shift = f.let(i32(1).sub(exp.get).zext());
      f.if(
        shift.geU(128),
        () => {
          low.set(high.get.or(low.get).ne(0).zext());
          high.set(0);
        },
        () =>
          f.if(
            shift.geU(64),
            () => {
              const s = f.let(shift.sub(64));
              const lost = f.let(
                low.get.ne(0).or(select(s.eqz(), i64(0), high.get.shl(i64(64).sub(s))).ne(0)),
              );
              low.set(high.get.shrU(s).or(lost.zext()));
              high.set(0);
            },
            () =>
              f.if(shift.ne(0), () => {
                const lost = f.let(low.get.shl(i64(64).sub(shift)).ne(0));
                low.set(
                  low.get
                    .shrU(shift)
                    .or(high.get.shl(i64(64).sub(shift)))
                    .or(lost.zext()),
                );
                high.set(high.get.shrU(shift));
              }),
          ),
      );
      round();
      f.if(inexact.get, () => flag(f, lib, cpu, f.let(i32(FSW.UE | FSW.PE).or(up.get.shl(9)))));
      // Rounding may have made it the smallest normal.
      result(f, cpu, rounded.get, f.let(rounded.get.shrU(63).wrap().or(sign.shl(15))));
      f.return();
    });
    exp.set(exp.get.add(carry.get));
    f.if(carry.get, () => rounded.set(INTEGER_BIT));
    f.if(tiny, () => {
      flag(f, lib, cpu, FSW.UE);
      exp.set(exp.get.add(24576));
      // FSCALE may be out of range even so (SDM vol. 1, 8.5.5): zero then, and infinity below.
      f.if(exp.get.leS(0), () => {
        flag(f, lib, cpu, FSW.PE);
        result(f, cpu, i64(0), sign.shl(15));
        f.return();
      });
    });
    f.if(exp.get.geS(0x7fff), () => {
      f.if(fcw.and(FSW.OE).bool(), () => {
        flag(f, lib, cpu, FSW.OE | FSW.PE);
        // To infinity, or to the largest value, by the direction.
        const away = f.let(
          mode
            .eqz()
            .or(mode.eq(1).and(sign))
            .or(mode.eq(2).and(sign.xor(1))),
        );
        f.if(away, () => f.store('32', cpu, f.load('32', cpu, CPU.fsw).or(FSW.C1), CPU.fsw));
        const most = f.let(i64(-1).shl(drop));
        result(
          f,
          cpu,
          select(away, i64(INTEGER_BIT), most),
          f.let(select(away, i32(0x7fff), i32(0x7ffe)).or(sign.shl(15))),
        );
        f.return();
      });
      flag(f, lib, cpu, FSW.OE);
      exp.set(exp.get.sub(24576));
      f.if(exp.get.geS(0x7fff), () => {
        flag(f, lib, cpu, FSW.PE | FSW.C1);
        result(f, cpu, i64(INTEGER_BIT), i32(0x7fff).or(sign.shl(15)));
        f.return();
      });
    });
    f.if(inexact.get, () => flag(f, lib, cpu, f.let(i32(FSW.PE).or(up.get.shl(9)))));
    result(f, cpu, rounded.get, f.let(exp.get.and(0x7fff).or(sign.shl(15))));
  }),
  /** Significant bits by the precision control. */
  routine('fpu_precision', ['i32'], ['i32'], (f) => {
    const pc = f.let(f.load('32', f.p(0), CPU.fcw).shrU(8).and(3));
    f.return(select(pc.eqz(), i32(24), select(pc.eq(2), i32(53), i32(64))));
    f.unreachable();
  }),
  /** Rounds a value that is already normalized to the precision control: for operands that pass through. */
  routine('fpu_pass', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const n = normalize(f, f.p(1), f.p(2));
    f.call(
      lib('fpu_round'),
      cpu,
      signOf(f.p(2)),
      n.exp,
      n.mant,
      i64(0),
      f.callValue(lib('fpu_precision'), cpu),
    );
  }),

  routine('fpu_add', ['i32', 'i64', 'i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const a = f.p(1);
    const ase = f.p(2);
    const b = f.p(3);
    const bse = f.p(4);
    const down = f.let(f.load('32', cpu, CPU.fcw).shrU(10).and(3).eq(1));
    f.if(bothNormal(a, ase, b, bse).eqz(), () => {
      specialOperands(f, lib, cpu, a, ase, b, bse);
      const aInf = f.let(isInf(a, ase));
      const bInf = f.let(isInf(b, bse));
      f.if(aInf.and(bInf).and(ase.xor(bse).and(0x8000).bool()), () => indefinite(f, lib, cpu));
      f.if(aInf, () => {
        result(f, cpu, a, ase);
        f.return();
      });
      f.if(bInf, () => {
        result(f, cpu, b, bse);
        f.return();
      });
      f.if(a.or(b).eqz(), () => {
        const sign = f.let(select(ase.xor(bse).and(0x8000), down.shl(15), ase.and(0x8000)));
        result(f, cpu, i64(0), sign);
        f.return();
      });
      f.if(a.eqz(), () => {
        f.call(lib('fpu_pass'), cpu, b, bse);
        f.return();
      });
      f.if(b.eqz(), () => {
        f.call(lib('fpu_pass'), cpu, a, ase);
        f.return();
      });
    });
    const na = normalize(f, a, ase);
    const nb = normalize(f, b, bse);
    const swap = f.let(na.exp.ltS(nb.exp).or(na.exp.eq(nb.exp).and(na.mant.ltU(nb.mant))));
    const big = f.let(select(swap, nb.mant, na.mant));
    const small = f.let(select(swap, na.mant, nb.mant));
    const exp = f.let(select(swap, nb.exp, na.exp));
    const sign = f.let(signOf(select(swap, bse, ase)));
    const d = f.let(exp.sub(select(swap, na.exp, nb.exp)).zext());
    const sh = f.local('i64');
    const sl = f.local('i64');
    f.if(
      d.eqz(),
      () => {
        sh.set(small);
        sl.set(0);
      },
      () =>
        f.if(
          d.ltU(64),
          () => {
            sh.set(small.shrU(d));
            sl.set(small.shl(i64(64).sub(d)));
          },
          () => {
            sh.set(0);
            f.if(
              d.eq(64),
              () => sl.set(small),
              () =>
                f.if(
                  d.ltU(128),
                  () => {
                    const s = f.let(d.sub(64));
                    sl.set(small.shrU(s).or(small.shl(i64(64).sub(s)).ne(0).zext()));
                  },
                  () => sl.set(1),
                ),
            );
          },
        ),
    );
    const high = f.local('i64');
    const low = f.local('i64');
    const top = f.local('i32', exp);
    f.if(
      ase.xor(bse).and(0x8000),
      () => {
        low.set(i64(0).sub(sl.get));
        high.set(big.sub(sh.get).sub(sl.get.ne(0).zext()));
        f.if(high.get.or(low.get).eqz(), () => {
          result(f, cpu, i64(0), down.shl(15));
          f.return();
        });
        f.if(high.get.eqz(), () => {
          high.set(low.get);
          low.set(0);
          top.set(exp.sub(64));
        });
        const shift = f.let(high.get.clz());
        f.if(shift.ne(0), () => {
          high.set(high.get.shl(shift).or(low.get.shrU(i64(64).sub(shift))));
          low.set(low.get.shl(shift));
          top.set(top.get.sub(shift.wrap()));
        });
      },
      () => {
        high.set(big.add(sh.get));
        low.set(sl.get);
        f.if(high.get.ltU(big), () => {
          low.set(high.get.shl(63).or(sl.get.shrU(1)).or(sl.get.and(1)));
          high.set(high.get.shrU(1).or(INTEGER_BIT));
          top.set(exp.add(1));
        });
      },
    );
    finish(f, lib, cpu, sign, top.get, high.get, low.get);
  }),

  routine('fpu_mul', ['i32', 'i64', 'i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const a = f.p(1);
    const ase = f.p(2);
    const b = f.p(3);
    const bse = f.p(4);
    const sign = f.let(ase.xor(bse).shrU(15).and(1));
    f.if(bothNormal(a, ase, b, bse).eqz(), () => {
      specialOperands(f, lib, cpu, a, ase, b, bse);
      const anyInf = f.let(isInf(a, ase).or(isInf(b, bse)));
      const anyZero = f.let(a.eqz().or(b.eqz()));
      f.if(anyInf, () => {
        f.if(anyZero, () => indefinite(f, lib, cpu));
        result(f, cpu, i64(INTEGER_BIT), sign.shl(15).or(0x7fff));
        f.return();
      });
      f.if(anyZero, () => {
        result(f, cpu, i64(0), sign.shl(15));
        f.return();
      });
    });
    const na = normalize(f, a, ase);
    const nb = normalize(f, b, bse);
    const high = f.callValue(lib('mul_high_u'), na.mant, nb.mant);
    const low = f.let(na.mant.mul(nb.mant));
    const exp = f.let(na.exp.add(nb.exp).sub(BIAS - 1));
    const shift = f.let(high.geS(0));
    finish(
      f,
      lib,
      cpu,
      sign,
      f.let(exp.sub(shift)),
      f.let(select(shift, high.shl(1).or(low.shrU(63)), high)),
      f.let(low.shl(shift.zext())),
    );
  }),

  /** a / b. */
  routine('fpu_div', ['i32', 'i64', 'i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const a = f.p(1);
    const ase = f.p(2);
    const b = f.p(3);
    const bse = f.p(4);
    const sign = f.let(ase.xor(bse).shrU(15).and(1));
    f.if(bothNormal(a, ase, b, bse).eqz(), () => {
      // 0/0 and inf/inf come before a denormal operand's exception.
      const aInf = f.let(isInf(a, ase));
      const bInf = f.let(isInf(b, bse));
      f.if(
        aInf.and(bInf).or(a.eqz().and(ase.and(0x7fff).eqz()).and(b.eqz()).and(bse.and(0x7fff).eqz())),
        () => indefinite(f, lib, cpu),
      );
      // Division by zero comes before a denormal dividend's exception.
      const bZero = f.let(b.eqz().and(bse.and(0x7fff).eqz()));
      f.if(bZero.and(ase.and(0x7fff).ne(0x7fff)).and(isUnsupported(a, ase).eqz()), () => {
        flag(f, lib, cpu, FSW.ZE);
        result(f, cpu, i64(INTEGER_BIT), sign.shl(15).or(0x7fff));
        f.return();
      });
      specialOperands(f, lib, cpu, a, ase, b, bse);
      f.if(aInf, () => {
        result(f, cpu, i64(INTEGER_BIT), sign.shl(15).or(0x7fff));
        f.return();
      });
      f.if(bInf.or(a.eqz()), () => {
        result(f, cpu, i64(0), sign.shl(15));
        f.return();
      });
    });
    const na = normalize(f, a, ase);
    const nb = normalize(f, b, bse);
    const less = f.let(na.mant.ltU(nb.mant));
    const q = f.callValue(
      lib('div128_u'),
      cpu,
      select(less, na.mant, na.mant.shrU(1)),
      select(less, i64(0), na.mant.shl(63)),
      nb.mant,
    );
    const r = f.let(f.load('64', cpu, CPU.wide));
    const q2 = f.callValue(lib('div128_u'), cpu, r, i64(0), nb.mant);
    const sticky = f.let(f.load('64', cpu, CPU.wide).ne(0).zext());
    const exp = f.let(na.exp.sub(nb.exp).add(BIAS).sub(less));
    finish(f, lib, cpu, sign, exp, q, f.let(q2.or(sticky)));
  }),

  routine('fpu_sqrt', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const a = f.p(1);
    const se = f.p(2);
    specialOperand(f, lib, cpu, a, se);
    f.if(a.eqz(), () => {
      result(f, cpu, a, se);
      f.return();
    });
    f.if(se.and(0x8000), () => indefinite(f, lib, cpu));
    f.if(isInf(a, se), () => {
      result(f, cpu, a, se);
      f.return();
    });
    f.if(isDenormal(a, se), () => denormal(f, lib, cpu));
    const n = normalize(f, a, se);
    // value = mant * 2^(exp - BIAS - 63); an even exponent puts the root's top bit at bit 63.
    const odd = f.let(n.exp.sub(BIAS).and(1));
    const exp = f.let(n.exp.sub(BIAS).sub(odd).shrS(1).add(BIAS));
    // Radicand of 128 bits: mant << 63 (odd: << 64), its root has 64 bits; bit by bit, restoring.
    const high = f.local('i64', select(odd, n.mant, n.mant.shrU(1)));
    const low = f.local('i64', select(odd, i64(0), n.mant.shl(63)));
    const root = f.local('i64', 0);
    const remHigh = f.local('i64', 0);
    const remLow = f.local('i64', 0);
    const count = f.local('i32', 64);
    f.loop((again) => {
      // rem = rem << 2 | next two bits.
      remHigh.set(remHigh.get.shl(2).or(remLow.get.shrU(62)));
      remLow.set(remLow.get.shl(2).or(high.get.shrU(62)));
      high.set(high.get.shl(2).or(low.get.shrU(62)));
      low.set(low.get.shl(2));
      // trial = root << 2 | 1.
      const trialHigh = f.let(root.get.shrU(62));
      const trialLow = f.let(root.get.shl(2).or(1));
      const fits = f.let(
        remHigh.get.gtU(trialHigh).or(remHigh.get.eq(trialHigh).and(remLow.get.geU(trialLow))),
      );
      f.if(fits, () => {
        remHigh.set(remHigh.get.sub(trialHigh).sub(remLow.get.ltU(trialLow).zext()));
        remLow.set(remLow.get.sub(trialLow));
      });
      root.set(root.get.shl(1).or(fits.zext()));
      count.set(count.get.sub(1));
      f.brIf(again, count.get);
    });
    // The remainder decides the rounding: above half when it is larger than the root.
    const above = f.let(remHigh.get.ne(0).or(remLow.get.gtU(root.get)));
    const some = f.let(remHigh.get.or(remLow.get).ne(0));
    f.call(
      lib('fpu_round'),
      cpu,
      i32(0),
      exp,
      root.get,
      select(above, i64(INTEGER_BIT + 1n), some.zext()),
      f.callValue(lib('fpu_precision'), cpu),
    );
  }),

  /** Widens a float of 32 or 64 bits; a denormal is #D, a signalling NaN stays one. */
  routine('fpu_from_f64', ['i32', 'i64'], [], (f, lib) => {
    const cpu = f.p(0);
    const bits = f.p(1);
    widen(f, lib, cpu, bits.shrU(63).wrap(), bits.shrU(52).wrap().and(0x7ff), bits.shl(12), 0x7ff, 1023);
  }),
  routine('fpu_from_f32', ['i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const bits = f.p(1);
    widen(f, lib, cpu, bits.shrU(31), bits.shrU(23).and(0xff), bits.zext().shl(41), 0xff, 127);
  }),
  routine('fpu_from_int', ['i32', 'i64'], [], (f) => {
    const cpu = f.p(0);
    const value = f.p(1);
    f.if(value.eqz(), () => {
      result(f, cpu, i64(0), i32(0));
      f.return();
    });
    const sign = f.let(value.shrU(63).wrap());
    const magnitude = f.let(select(sign, value.neg(), value));
    const shift = f.let(magnitude.clz());
    result(
      f,
      cpu,
      magnitude.shl(shift),
      i32(BIAS + 63)
        .sub(shift.wrap())
        .or(sign.shl(15)),
    );
  }),
  /**
   * Rounds to an integer of `bits` (16, 32, 64) by mode `mode`; #IA and the integer indefinite when it does not fit. The
   * result is the i64; exceptions are raised as flags.
   */
  routine('fpu_to_int', ['i32', 'i64', 'i32', 'i32', 'i32'], ['i64'], (f, lib) => {
    const cpu = f.p(0);
    const mant = f.p(1);
    const se = f.p(2);
    const bits = f.p(3);
    const mode = f.p(4);
    const sign = signOf(se);
    f.store('32', cpu, f.load('32', cpu, CPU.fsw).and(~FSW.C1), CPU.fsw);
    const invalid = (): void => {
      flag(f, lib, cpu, FSW.IE);
      f.return(i64(-1).shl(bits.sub(1).zext()));
    };
    const exp = f.let(se.and(0x7fff).sub(BIAS));
    f.if(mant.eqz().and(se.and(0x7fff).eqz()), () => f.return(i64(0)));
    f.if(isUnsupported(mant, se).or(se.and(0x7fff).eq(0x7fff)).or(exp.geS(64)), invalid);
    const whole = f.local('i64');
    const fraction = f.local('i64');
    f.if(
      exp.ltS(-1),
      () => {
        whole.set(0);
        fraction.set(1);
      },
      () =>
        f.if(
          exp.eq(-1),
          () => {
            whole.set(0);
            fraction.set(mant);
          },
          () => {
            const shift = f.let(i32(63).sub(exp).zext());
            whole.set(mant.shrU(shift));
            fraction.set(select(shift.eqz(), i64(0), mant.shl(i64(64).sub(shift))));
          },
        ),
    );
    const inexact = f.let(fraction.get.ne(0));
    const half = f.let(fraction.get.shrU(63).wrap());
    const rest = f.let(fraction.get.shl(1).ne(0));
    const s = f.let(sign);
    const up = f.let(
      select(
        mode.eqz(),
        half.and(rest.or(whole.get.and(1).wrap())),
        select(mode.eq(1), inexact.and(s), select(mode.eq(2), inexact.and(s.xor(1)), i32(0))),
      ),
    );
    const value = f.let(whole.get.add(up.zext()));
    f.if(up.and(value.eqz()), invalid);
    const limit = f.let(i64(1).shl(bits.sub(1).zext()));
    f.if(value.gtU(limit.sub(s.xor(1).zext())), invalid);
    f.if(inexact, () => flag(f, lib, cpu, f.let(i32(FSW.PE).or(up.shl(9)))));
    f.return(select(s, value.neg(), value));
    f.unreachable();
  }),
  /** Narrows to a float of 64 (`wide` 1) or 32 bits; the bits are returned. Rounding, overflow and underflow by the control word. */
  routine('fpu_to_float', ['i32', 'i64', 'i32', 'i32'], ['i64'], (f, lib) => {
    const cpu = f.p(0);
    const mant = f.p(1);
    const se = f.p(2);
    const wide = f.p(3);
    const sign = f.let(signOf(se).zext());
    const fractionBits = f.let(select(wide, i64(52), i64(23)));
    const signBit = f.let(sign.shl(select(wide, i64(63), i64(31))));
    const most = f.let(select(wide, i32(0x7ff), i32(0xff)));
    const bias = f.let(select(wide, i32(1023), i32(127)));
    const pack = (exp: Val, fraction: Val): Val => signBit.or(exp.zext().shl(fractionBits)).or(fraction);
    f.store('32', cpu, f.load('32', cpu, CPU.fsw).and(~FSW.C1), CPU.fsw);
    f.if(isUnsupported(mant, se), () => {
      flag(f, lib, cpu, FSW.IE);
      f.return(select(wide, i64(0xfff8000000000000n), i64(0xffc00000n)));
    });
    f.if(se.and(0x7fff).eq(0x7fff), () => {
      f.if(mant.shl(1).eqz(), () => f.return(pack(most, i64(0))));
      f.if(mant.and(1n << 62n).eqz(), () => flag(f, lib, cpu, FSW.IE));
      f.return(
        pack(
          most,
          mant
            .or(1n << 62n)
            .shl(1)
            .shrU(i64(64).sub(fractionBits)),
        ),
      );
    });
    f.if(mant.eqz(), () => f.return(signBit));
    const n = normalize(f, mant, se);
    const fcw = f.let(f.load('32', cpu, CPU.fcw));
    const mode = f.let(fcw.shrU(10).and(3));
    const s = f.let(sign.wrap());
    const exp = f.local('i32', n.exp.sub(BIAS).add(bias));
    const value = f.local('i64');
    const inexact = f.local('i32');
    const up = f.local('i32');
    const round = (drop: Val): void => {
      // drop: 1 to 64 and more bits go.
      const gone = f.let(select(drop.geU(64), n.mant, n.mant.and(i64(1).shl(drop).sub(1))));
      const kept = f.let(select(drop.geU(64), i64(0), n.mant.shrU(drop)));
      const half = f.let(select(drop.gtU(64), i64(0), n.mant.shrU(drop.sub(1)).and(1)).wrap());
      const rest = f.let(select(drop.gtU(64), gone, gone.and(i64(1).shl(drop.sub(1)).sub(1))).ne(0));
      inexact.set(gone.ne(0));
      up.set(
        select(
          mode.eqz(),
          half.and(rest.or(kept.and(1).wrap())),
          select(mode.eq(1), inexact.get.and(s), select(mode.eq(2), inexact.get.and(s.xor(1)), i32(0))),
        ),
      );
      value.set(kept.add(up.get.zext()));
    };
    const normalDrop = f.let(i64(63).sub(fractionBits));
    round(normalDrop);
    const hidden = f.let(i64(1).shl(fractionBits));
    const carry = f.let(value.get.geU(hidden.shl(1)));
    const tiny = f.let(exp.get.add(carry).leS(0));
    f.if(tiny, () => {
      f.if(fcw.and(FSW.UE).eqz(), () => {
        flag(f, lib, cpu, FSW.UE);
        f.return(i64(0));
      });
      round(f.let(normalDrop.add(i32(1).sub(exp.get).sext())));
      f.if(inexact.get, () => flag(f, lib, cpu, f.let(i32(FSW.UE | FSW.PE).or(up.get.shl(9)))));
      // value may have become the smallest normal: its hidden bit is the exponent 1.
      f.return(signBit.or(value.get));
    });
    f.if(carry, () => {
      value.set(value.get.shrU(1));
      exp.set(exp.get.add(1));
    });
    f.if(exp.get.geS(most), () => {
      f.if(fcw.and(FSW.OE).eqz(), () => {
        flag(f, lib, cpu, FSW.OE);
        f.return(i64(0));
      });
      flag(f, lib, cpu, FSW.OE | FSW.PE);
      const away = f.let(
        mode
          .eqz()
          .or(mode.eq(1).and(s))
          .or(mode.eq(2).and(s.xor(1))),
      );
      f.if(away, () => f.store('32', cpu, f.load('32', cpu, CPU.fsw).or(FSW.C1), CPU.fsw));
      f.return(select(away, pack(most, i64(0)), pack(most.sub(1), hidden.sub(1))));
    });
    f.if(inexact.get, () => flag(f, lib, cpu, f.let(i32(FSW.PE).or(up.get.shl(9)))));
    f.return(pack(exp.get, value.get.and(hidden.sub(1))));
    f.unreachable();
  }),
  /**
   * Compares; the answer is C3 (equal), C0 (less), all three (unordered) at their FSW positions. `quiet`: only signalling NaNs
   * are invalid (FUCOM).
   */
  routine('fpu_compare', ['i32', 'i64', 'i32', 'i64', 'i32', 'i32'], ['i32'], (f, lib) => {
    const cpu = f.p(0);
    const a = f.p(1);
    const ase = f.p(2);
    const b = f.p(3);
    const bse = f.p(4);
    const unordered = FSW.C0 | FSW.C2 | FSW.C3;
    f.if(isUnsupported(a, ase).or(isUnsupported(b, bse)), () => {
      flag(f, lib, cpu, FSW.IE);
      f.return(i32(unordered));
    });
    const aNan = f.let(isNan(a, ase));
    const bNan = f.let(isNan(b, bse));
    f.if(aNan.or(bNan), () => {
      const signalling = f.let(aNan.and(a.and(1n << 62n).eqz()).or(bNan.and(b.and(1n << 62n).eqz())));
      f.if(f.p(5).eqz().or(signalling), () => flag(f, lib, cpu, FSW.IE));
      f.return(i32(unordered));
    });
    f.if(isDenormal(a, ase).or(isDenormal(b, bse)), () => flag(f, lib, cpu, FSW.DE));
    f.if(a.or(b).eqz(), () => f.return(i32(FSW.C3)));
    const as = f.let(signOf(ase));
    const bs = f.let(signOf(bse));
    // A pseudo-denormal has the exponent of the smallest normal.
    const ae = f.let(select(ase.and(0x7fff).eqz().and(a.ltS(0)), i32(1), ase.and(0x7fff)));
    const be = f.let(select(bse.and(0x7fff).eqz().and(b.ltS(0)), i32(1), bse.and(0x7fff)));
    f.if(as.ne(bs), () => f.return(select(as, i32(FSW.C0), i32(0))));
    f.if(ae.eq(be).and(a.eq(b)), () => f.return(i32(FSW.C3)));
    const less = f.let(ae.ltU(be).or(ae.eq(be).and(a.ltU(b))));
    f.return(select(less.ne(as), i32(FSW.C0), i32(0)));
    f.unreachable();
  }),
  /** Stores the environment at `address`: 14 bytes (`size` 2) or 28, in the format of the mode (SDM vol. 1, 8.1.10). */
  routine('fpu_store_environment', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const at = f.p(1);
    const narrow = f.let(f.p(2).eq(2));
    const fsw = f.let(f.load('32', cpu, CPU.fsw).or(f.load('32', cpu, CPU.ftop).shl(11)));
    const tags = f.local('i32', 0);
    for (let n = 0; n < 8; n++) {
      const register = f.let(cpu.add(CPU.st + n * 16));
      const mant = f.let(f.load('64', register));
      const exp = f.let(f.load('16u', register, 8).and(0x7fff));
      const kind = select(
        mant.eqz().and(exp.eqz()),
        i32(1),
        select(exp.eqz().or(exp.eq(0x7fff)).or(mant.geS(0)), i32(2), i32(0)),
      );
      const full = select(f.load('32', cpu, CPU.ftw).shrU(n).and(1), kind, i32(3));
      tags.set(tags.get.or(full.shl(n * 2)));
    }
    // AMD shows the pointers only while an exception is pending.
    const hidden = f.let(
      f
        .load('32', cpu, CPU.fsw)
        .and(FSW.ES)
        .eqz()
        .and(f.load('32', cpu, CPU.vendor).eqz()),
    );
    const shown = (field: number): Val => f.let(select(hidden, i32(0), f.load('32', cpu, field)));
    const fip = shown(CPU.fip);
    const fdp = shown(CPU.fdp);
    const fop = shown(CPU.fop);
    const real = f.callValue(lib('in_protected_mode'), cpu).eqz();
    const isReal = f.let(real);
    const wordOf = (real16: Val, protectedValue: Val): Val => select(isReal, real16, protectedValue);
    f.if(
      narrow,
      () => {
        const values = [
          f.load('32', cpu, CPU.fcw),
          fsw,
          tags.get,
          fip,
          wordOf(fip.shrU(4).and(0xf000).or(fop), i32(0)),
          fdp,
          wordOf(fdp.shrU(4).and(0xf000), i32(0)),
        ];
        for (const [k, value] of values.entries()) f.call(lib('st16'), cpu, at.add(k * 2), value);
      },
      () => {
        const high = 0xffff0000 | 0;
        const values = [
          f.load('32', cpu, CPU.fcw).or(high),
          fsw.or(high),
          tags.get.or(high),
          wordOf(fip.and(0xffff), fip),
          wordOf(fip.shrU(4).and(0x0ffff000).or(fop), fop.shl(16)),
          wordOf(fdp.and(0xffff), fdp),
          wordOf(fdp.shrU(4).and(0x0ffff000), i32(high)),
        ];
        for (const [k, value] of values.entries()) f.call(lib('st32'), cpu, at.add(k * 4), value);
      },
    );
  }),
  routine('fpu_load_environment', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const at = f.p(1);
    const narrow = f.let(f.p(2).eq(2));
    const word = (k: number): Val =>
      f.ifValue(
        narrow,
        () => f.callValue(lib('ld16'), cpu, at.add(k * 2)),
        () => f.callValue(lib('ld32'), cpu, at.add(k * 4)),
      );
    const values = [0, 1, 2, 3, 4, 5, 6].map(word) as [Val, Val, Val, Val, Val, Val, Val];
    const isReal = f.let(f.callValue(lib('in_protected_mode'), cpu).eqz());
    const [fcw, fsw, tags, fip, fop, fdp, fds] = values;
    f.store('32', cpu, fcw.and(0x1f3f).or(0x40), CPU.fcw);
    f.store('32', cpu, fsw.and(0x477f), CPU.fsw);
    f.store('32', cpu, fsw.shrU(11).and(7), CPU.ftop);
    const valid = f.local('i32', 0);
    for (let n = 0; n < 8; n++)
      valid.set(
        valid.get.or(
          tags
            .shrU(n * 2)
            .and(3)
            .ne(3)
            .shl(n),
        ),
      );
    f.store('32', cpu, valid.get, CPU.ftw);
    const wideReal = f.let(isReal.and(narrow.eqz()));
    const narrowReal = f.let(isReal.and(narrow));
    const pointer = (low: Val, upper: Val): Val =>
      select(
        wideReal,
        low.and(0xffff).or(upper.and(0x0ffff000).shl(4)),
        select(narrowReal, low.or(upper.and(0xf000).shl(4)), low),
      ).zext();
    f.store('64', cpu, pointer(fip, fop), CPU.fip);
    f.store('64', cpu, pointer(fdp, fds), CPU.fdp);
    f.store(
      '32',
      cpu,
      select(isReal, fop.and(0x7ff), select(narrow, i32(0), fop.shrU(16).and(0x7ff))),
      CPU.fop,
    );
    f.call(lib('fpu_summary'), cpu);
  }),
  /** FSCALE: a * 2^trunc(b). */
  routine('fpu_scale', ['i32', 'i64', 'i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const a = f.p(1);
    const ase = f.p(2);
    const b = f.p(3);
    const bse = f.p(4);
    const bInf = f.let(isInf(b, bse));
    const aInf = f.let(isInf(a, ase));
    const aZero = f.let(a.eqz().and(ase.and(0x7fff).eqz()));
    const negative = f.let(bse.and(0x8000).bool());
    f.if(bInf.and(select(negative, aInf, aZero)), () => indefinite(f, lib, cpu));
    specialOperands(f, lib, cpu, a, ase, b, bse);
    f.if(bInf, () => {
      const sign = f.let(ase.and(0x8000));
      f.if(
        negative,
        () => result(f, cpu, i64(0), sign),
        () => result(f, cpu, i64(INTEGER_BIT), sign.or(0x7fff)),
      );
      f.return();
    });
    f.if(aInf.or(aZero), () => {
      result(f, cpu, a, ase);
      f.return();
    });
    const exp = f.let(bse.and(0x7fff).sub(BIAS));
    // Beyond 2^16 the result overflows or underflows whatever a is.
    const amount = f.local('i32', 0);
    f.if(
      exp.geS(16),
      () => amount.set(0x10000),
      () => f.if(exp.geS(0), () => amount.set(b.shrU(i32(63).sub(exp).zext()).wrap())),
    );
    f.if(negative, () => amount.set(amount.get.neg()));
    const n = normalize(f, a, ase);
    f.call(lib('fpu_round'), cpu, signOf(ase), n.exp.add(amount.get), n.mant, i64(0), i32(64));
  }),
  /**
   * FPREM (`nearest` 0) and FPREM1: at most 63 bits of the quotient at a time. Condition codes: C2 unfinished, else C0 C3 C1 the
   * quotient's low three bits.
   */
  routine('fpu_remainder', ['i32', 'i64', 'i32', 'i64', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const a = f.p(1);
    const ase = f.p(2);
    const b = f.p(3);
    const bse = f.p(4);
    const codes = FSW.C0 | FSW.C1 | FSW.C2 | FSW.C3;
    const clear = (which: number): void =>
      f.store('32', cpu, f.load('32', cpu, CPU.fsw).and(~which), CPU.fsw);
    // An invalid operation leaves C0 and C3.
    clear(FSW.C1 | FSW.C2);
    const aInf = f.let(isInf(a, ase));
    const bZero = f.let(b.eqz().and(bse.and(0x7fff).eqz()));
    f.if(aInf.and(isNan(b, bse).eqz()).or(bZero.and(isNan(a, ase).eqz())), () => indefinite(f, lib, cpu));
    specialOperands(f, lib, cpu, a, ase, b, bse);
    clear(codes);
    f.if(a.eqz(), () => {
      result(f, cpu, a, ase);
      f.return();
    });
    const na = normalize(f, a, ase);
    const nb = normalize(f, b, bse);
    const d = f.let(na.exp.sub(nb.exp));
    const sign = f.local('i32', signOf(ase));
    f.if(isInf(b, bse).or(d.ltS(-1)), () => {
      f.call(lib('fpu_round'), cpu, sign.get, na.exp, na.mant, i64(0), i32(64));
      f.return();
    });
    // Partial: reduce the exponent difference by N between 32 and 63.
    const partial = f.let(d.geS(64));
    const steps = f.let(select(partial, d.and(31).or(32), d));
    const rem = f.local('i64', na.mant);
    const carry = f.local('i32', 0);
    const quotient = f.local('i64', 0);
    const count = f.local('i32', select(steps.ltS(0), i32(-1), steps));
    f.block((end) => {
      f.brIf(end, steps.ltS(0));
      f.loop((again) => {
        const fits = f.let(carry.get.or(rem.get.geU(nb.mant)));
        quotient.set(quotient.get.shl(1).or(fits.zext()));
        f.if(fits, () => rem.set(rem.get.sub(nb.mant)));
        f.brIf(end, count.get.eqz());
        carry.set(rem.get.shrU(63).wrap());
        rem.set(rem.get.shl(1));
        count.set(count.get.sub(1));
        f.br(again);
      });
    });
    f.if(partial, () => {
      f.store('32', cpu, f.load('32', cpu, CPU.fsw).or(FSW.C2), CPU.fsw);
      f.if(rem.get.eqz(), () => {
        result(f, cpu, i64(0), sign.get.shl(15));
        f.return();
      });
      const left = f.let(rem.get.clz());
      f.call(
        lib('fpu_round'),
        cpu,
        sign.get,
        na.exp.sub(steps).sub(left.wrap()),
        rem.get.shl(left),
        i64(0),
        i32(64),
      );
      f.return();
    });
    const exp = f.local('i32', nb.exp);
    f.if(steps.ltS(0), () => exp.set(na.exp));
    f.if(f.p(5), () => {
      // To nearest: another subtraction when the remainder is above half the divisor, or half with an odd quotient.
      const below = f.let(steps.ltS(0));
      const twiceCarry = f.let(select(below, i32(0), rem.get.shrU(63).wrap()));
      const twice = f.let(select(below, rem.get, rem.get.shl(1)));
      const more = f.let(
        twiceCarry.or(twice.gtU(nb.mant)).or(twice.eq(nb.mant).and(quotient.get.and(1).wrap())),
      );
      f.if(more, () => {
        quotient.set(quotient.get.add(1));
        sign.set(sign.get.xor(1));
        // divisor - remainder, at the divisor's exponent; below: the remainder has half its weight.
        f.if(
          below,
          () => {
            // 2 * divisor - remainder at exponent - 1 may need 65 bits: only when the remainder exceeds half, so it does not.
            rem.set(nb.mant.shl(1).sub(rem.get));
          },
          () => rem.set(nb.mant.sub(rem.get)),
        );
      });
    });
    const q = f.let(quotient.get.wrap());
    const bits = f.let(q.shrU(2).and(1).shl(8).or(q.shrU(1).and(1).shl(14)).or(q.and(1).shl(9)));
    f.if(
      rem.get.eqz(),
      () => result(f, cpu, i64(0), signOf(ase).shl(15)),
      () => {
        const left = f.let(rem.get.clz());
        f.call(lib('fpu_round'), cpu, sign.get, exp.get.sub(left.wrap()), rem.get.shl(left), i64(0), i32(64));
      },
    );
    f.store('32', cpu, f.load('32', cpu, CPU.fsw).and(~codes).or(bits), CPU.fsw);
  }),
  /** FRNDINT: rounds to an integral value. */
  routine('fpu_integral', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const mant = f.p(1);
    const se = f.p(2);
    specialOperand(f, lib, cpu, mant, se);
    const exp = f.let(se.and(0x7fff).sub(BIAS));
    f.if(isDenormal(mant, se), () => denormal(f, lib, cpu));
    f.if(mant.eqz().or(exp.geS(63)), () => {
      result(f, cpu, mant, se);
      f.return();
    });
    const mode = f.let(f.load('32', cpu, CPU.fcw).shrU(10).and(3));
    const s = f.let(signOf(se));
    const small = f.let(exp.ltS(0));
    const shift = f.let(select(small, i64(0), i32(63).sub(exp).zext()));
    const fraction = f.let(select(small, select(exp.eq(-1), mant, i64(1)), mant.shl(i64(64).sub(shift))));
    const whole = f.let(select(small, i64(0), mant.shrU(shift)));
    const inexact = f.let(fraction.ne(0));
    const half = f.let(fraction.shrU(63).wrap());
    const up = f.let(
      select(
        mode.eqz(),
        half.and(fraction.shl(1).ne(0).or(whole.and(1).wrap())),
        select(mode.eq(1), inexact.and(s), select(mode.eq(2), inexact.and(s.xor(1)), i32(0))),
      ),
    );
    const value = f.let(whole.add(up.zext()));
    f.store('32', cpu, f.load('32', cpu, CPU.fsw).and(~FSW.C1), CPU.fsw);
    f.if(inexact, () => flag(f, lib, cpu, f.let(i32(FSW.PE).or(up.shl(9)))));
    f.if(value.eqz(), () => {
      result(f, cpu, i64(0), s.shl(15));
      f.return();
    });
    const left = f.let(value.clz());
    result(
      f,
      cpu,
      value.shl(left),
      i32(BIAS + 63)
        .sub(left.wrap())
        .or(s.shl(15)),
    );
  }),
];

function widen(
  f: FunctionBuilder,
  lib: Library,
  cpu: Val,
  signBit: Val,
  exponent: Val,
  fractionTop: Val,
  most: number,
  bias: number,
): void {
  const sign = f.let(signBit.shl(15));
  const exp = f.let(exponent);
  const fraction = f.let(fractionTop.shrU(1));
  f.if(exp.eq(most), () => {
    result(f, cpu, fraction.or(INTEGER_BIT), sign.or(0x7fff));
    f.return();
  });
  f.if(exp.eqz(), () => {
    f.if(fraction.eqz(), () => {
      result(f, cpu, i64(0), sign);
      f.return();
    });
    flag(f, lib, cpu, FSW.DE);
    const shift = f.let(fraction.clz());
    result(
      f,
      cpu,
      fraction.shl(shift),
      i32(BIAS - bias + 1)
        .sub(shift.wrap())
        .or(sign),
    );
    f.return();
  });
  result(f, cpu, fraction.or(INTEGER_BIT), exp.add(BIAS - bias).or(sign));
}
