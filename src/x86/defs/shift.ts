/** Shifts, rotates and bit instructions. */
import { FLAG } from '../layout.ts';
import { FLAGS, signExtend64, type Sem, type Size } from '../sem.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import type { Def } from './def.ts';

function shiftEncodings(n: number): string[] {
  return [
    `C0 /${n} Eb!,Ib`,
    `C1 /${n} Ev!,Ib`,
    `D0 /${n} Eb!,1`,
    `D1 /${n} Ev!,1`,
    `D2 /${n} Eb!,CL`,
    `D3 /${n} Ev!,CL`,
  ];
}

/** The count masked to 5 bits (6 for 64-bit operands), i32, evaluated. */
function countOf(e: Sem, i: number): Val {
  const count = e.get(i);
  return e.f.let(count.and(e.size === 8 ? 63 : 31));
}

/** i32 count in the operand's type. */
const as = (e: Sem, count: Val): Val => (e.size === 8 ? count.zext() : count);

/** A count of zero changes neither flags nor, for registers of 32 bits, anything but their upper half. */
function unlessZero(e: Sem, count: Val, a: Val, body: () => void): void {
  e.f.if(count, body, () => e.set(0, a));
}

function rotate(e: Sem, left: boolean): void {
  const { f } = e;
  const size = e.size;
  const bits = size * 8;
  const a = e.get(0);
  const masked = countOf(e, 1);
  unlessZero(e, masked, a, () => {
    const c = f.let(as(e, size < 4 ? masked.and(bits - 1) : masked));
    let r: Val;
    if (size >= 4) r = left ? a.rotl(c) : a.rotr(c);
    else {
      const other = f.let(
        i32(bits)
          .sub(c)
          .and(bits - 1),
      );
      r = left ? a.shl(c).or(a.shrU(other)) : a.shrU(c).or(a.shl(other));
    }
    const result = f.let(e.trunc(r));
    e.set(0, result);
    const top = f.let(
      result
        .shrU(bits - 1)
        .wrap()
        .and(1),
    );
    // OF is defined for a count of 1; the processors compute it the same way for every count.
    const carry = left ? f.let(result.wrap().and(1)) : top;
    const overflow = left
      ? top.xor(carry)
      : top.xor(
          result
            .shrU(bits - 2)
            .wrap()
            .and(1),
        );
    e.mergeStatus(FLAG.CF | FLAG.OF, f.let(carry.or(overflow.shl(11))));
  });
}

/** Rotates through the carry flag, a bit at a time in effect: counts are modulo width + 1. */
function rotateCarry(e: Sem, left: boolean): void {
  const { f } = e;
  const size = e.size;
  const bits = size * 8;
  const a = e.get(0);
  const masked = countOf(e, 1);
  const c = size >= 4 ? masked : f.let(masked.remU(bits + 1));
  unlessZero(e, c, a, () => {
    const carryIn = as(e, e.carry());
    const n = f.let(as(e, c));
    // The two shifts by width - n + 1 are split so that a count of the width is not taken modulo it.
    const back = f.let(e.int(bits).sub(n));
    let r: Val;
    let out: Val;
    if (left) {
      out = f.let(a.shrU(back).wrap().and(1));
      r = a
        .shl(n)
        .or(carryIn.shl(n.sub(1)))
        .or(a.shrU(1).shrU(back));
      if (size < 4) r = f.let(e.trunc(r));
    } else {
      out = f.let(a.shrU(n.sub(1)).wrap().and(1));
      r = a.shrU(n).or(carryIn.shl(back)).or(a.shl(1).shl(back));
    }
    const result = f.let(e.trunc(r));
    e.set(0, result);
    const top = f.let(
      result
        .shrU(bits - 1)
        .wrap()
        .and(1),
    );
    const overflow = left
      ? top.xor(out)
      : top.xor(
          result
            .shrU(bits - 2)
            .wrap()
            .and(1),
        );
    e.mergeStatus(FLAG.CF | FLAG.OF, f.let(out.or(overflow.shl(11))));
  });
}

function doubleShift(e: Sem, left: boolean): void {
  const { f } = e;
  const size = e.size;
  const bits = size * 8;
  const a = e.get(0);
  const b = e.get(1);
  const count = countOf(e, 2);
  unlessZero(e, count, a, () => {
    const n = f.let(as(e, count));
    if (size === 2) {
      // Counts above 16 are undefined; processors go on shifting in the destination's own bits.
      const wide = f.let(a.zext().shl(32).or(b.zext().shl(16)).or(a.zext()));
      const c = f.let(count.zext());
      const r = f.let(left ? wide.shl(c).shrU(32).wrap().and(0xffff) : wide.shrU(c).wrap().and(0xffff));
      const last = f.let(
        left ? wide.shl(c.sub(1)).shrU(32).wrap().and(0xffff) : wide.shrU(c.sub(1)).wrap().and(0xffff),
      );
      e.set(0, r);
      finishDouble(e, left, a, r, last);
      return;
    }
    const back = f.let(e.int(bits).sub(n));
    const r = f.let(left ? a.shl(n).or(b.shrU(back)) : a.shrU(n).or(b.shl(back)));
    const m = f.let(n.sub(1));
    // One step before: the bit that goes out last. n - 1 may be 0, when `b` has no part in it.
    const last = f.let(left ? a.shl(m) : a.shrU(m));
    e.set(0, r);
    finishDouble(e, left, a, r, last);
  });
}

function finishDouble(e: Sem, left: boolean, a: Val, r: Val, last: Val): void {
  const { f } = e;
  const bits = e.size * 8;
  const carry = left
    ? last
        .shrU(bits - 1)
        .wrap()
        .and(1)
    : last.wrap().and(1);
  const cf = f.let(carry);
  e.flagsLogic(r);
  const overflow = f.let(
    a
      .xor(r)
      .shrU(bits - 1)
      .wrap()
      .and(1),
  );
  e.mergeStatus(FLAG.CF | FLAG.OF, f.let(cf.or(overflow.shl(11))));
}

/** Bit offset of BT and its kin: i32 within the operand. */
function bitTest(e: Sem, op: 'bt' | 'bts' | 'btr' | 'btc', immediate: boolean): void {
  const { f } = e;
  const bits = e.size * 8;
  const offset = e.get(1);
  const bit = f.let(immediate ? offset.and(bits - 1) : offset.wrap().and(bits - 1));
  const change = (value: Val): Val => {
    const one = f.let(e.int(1).shl(as(e, bit)));
    switch (op) {
      case 'bts':
        return value.or(one);
      case 'btr':
        return value.and(one.not());
      default:
        return value.xor(one);
    }
  };
  const finish = (value: Val): void => {
    const carry = f.let(value.shrU(as(e, bit)).wrap().and(1));
    e.mergeStatus(FLAG.CF, carry);
  };
  if (e.mem && !immediate) {
    // The offset is signed and reaches beyond the operand: it moves the address by whole operands.
    const address = e.callValue(
      'bit_string_address',
      e.cpu,
      e.record(),
      f.let(signExtend64(offset, e.size)),
      i32(e.size),
      i32(op === 'bt' ? 0 : 1),
    );
    if (op !== 'bt') e.call('probe_write', e.cpu, address, i32(e.size));
    const value = e.load(address, e.size);
    if (op !== 'bt') e.store(address, e.size, f.let(e.trunc(change(value))));
    finish(value);
    return;
  }
  const value = e.get(0);
  if (op !== 'bt') e.set(0, f.let(e.trunc(change(value))));
  finish(value);
}

const bitDef = (name: 'bt' | 'bts' | 'btr' | 'btc', opcode: string, n: number): readonly Def[] => {
  const rw = name === 'bt' ? '' : '!';
  const lock = name === 'bt' ? '' : ' lock';
  return [
    { name, enc: [`${opcode} /r${lock} Ev${rw},Gv`], sem: (e) => bitTest(e, name, false) },
    { name, enc: [`0FBA /${n}${lock} Ev${rw},Ib`], sem: (e) => bitTest(e, name, true) },
  ];
};

/** BSF, BSR: ZF by the source; a zero source leaves the destination. Other flags are undefined (unchanged on AMD). */
function bitScan(e: Sem, reverse: boolean): void {
  const { f } = e;
  const source = e.get(1);
  const old = e.get(0);
  const bits = e.size === 8 ? 63 : 31;
  const found = reverse ? e.int(bits).sub(source.clz()) : source.ctz();
  const zero = f.let(source.eqz());
  f.if(
    zero,
    () => {
      // A 32-bit destination keeps its upper half too.
      void old;
    },
    () => e.set(0, f.let(found)),
  );
  e.mergeStatus(FLAG.ZF, f.let(zero.shl(6)));
}

export const shiftDefs: readonly Def[] = [
  { name: 'rol', enc: shiftEncodings(0), sem: (e) => rotate(e, true) },
  { name: 'ror', enc: shiftEncodings(1), sem: (e) => rotate(e, false) },
  { name: 'rcl', enc: shiftEncodings(2), sem: (e) => rotateCarry(e, true) },
  { name: 'rcr', enc: shiftEncodings(3), sem: (e) => rotateCarry(e, false) },
  {
    name: 'shl',
    enc: [...shiftEncodings(4), ...shiftEncodings(6)],
    sem: (e) => {
      const { f } = e;
      const a = e.get(0);
      const count = countOf(e, 1);
      unlessZero(e, count, a, () => {
        const n = f.let(as(e, count));
        const last = f.let(a.shl(n.sub(1)));
        const r = f.let(e.trunc(a.shl(n)));
        e.set(0, r);
        e.flagsShift(FLAGS.shl, { a: e.trunc(last), r });
      });
    },
  },
  {
    name: 'shr',
    enc: shiftEncodings(5),
    sem: (e) => {
      const { f } = e;
      const a = e.get(0);
      const count = countOf(e, 1);
      unlessZero(e, count, a, () => {
        const n = f.let(as(e, count));
        const last = f.let(a.shrU(n.sub(1)));
        const r = f.let(a.shrU(n));
        e.set(0, r);
        e.flagsShift(FLAGS.shr, { a: last, b: a, r });
      });
    },
  },
  {
    name: 'sar',
    enc: shiftEncodings(7),
    sem: (e) => {
      const { f } = e;
      const a = e.get(0);
      const count = countOf(e, 1);
      unlessZero(e, count, a, () => {
        const wide = f.let(e.size === 1 ? a.sext8() : e.size === 2 ? a.sext16() : a);
        const n = f.let(as(e, count));
        const last = f.let(e.trunc(wide.shrS(n.sub(1))));
        const r = f.let(e.trunc(wide.shrS(n)));
        e.set(0, r);
        e.flagsShift(FLAGS.shr, { a: last, b: r, r });
      });
    },
  },
  { name: 'shld', enc: ['0FA4 /r Ev!,Gv,Ib', '0FA5 /r Ev!,Gv,CL'], sem: (e) => doubleShift(e, true) },
  { name: 'shrd', enc: ['0FAC /r Ev!,Gv,Ib', '0FAD /r Ev!,Gv,CL'], sem: (e) => doubleShift(e, false) },
  ...bitDef('bt', '0FA3', 4),
  ...bitDef('bts', '0FAB', 5),
  ...bitDef('btr', '0FB3', 6),
  ...bitDef('btc', '0FBB', 7),
  { name: 'bsf', enc: ['0FBC /r Gv!,Ev'], sem: (e) => bitScan(e, false) },
  { name: 'bsr', enc: ['0FBD /r Gv!,Ev'], sem: (e) => bitScan(e, true) },
  {
    name: 'tzcnt',
    feature: 'bmi1',
    enc: ['F3 0FBC /r Gv=,Ev'],
    sem: (e) => countZeros(e, (value) => (e.size === 2 ? value.or(0x10000).ctz() : value.ctz())),
  },
  {
    name: 'lzcnt',
    feature: 'lzcnt',
    enc: ['F3 0FBD /r Gv=,Ev'],
    sem: (e) => countZeros(e, (value) => (e.size === 2 ? value.clz().sub(16) : value.clz())),
  },
  {
    name: 'popcnt',
    feature: 'popcnt',
    enc: ['F3 0FB8 /r Gv=,Ev'],
    sem: (e) => {
      const source = e.get(1);
      e.set(0, e.f.let(source.popcnt()));
      e.setStatus(e.f.let(source.eqz().shl(6)));
    },
  },
  // BMI1, BMI2.
  {
    name: 'andn',
    feature: 'bmi1',
    enc: ['VEX.L0.NP.0F38.WIG F2 /r Gy=,By,Ey'],
    sem: (e) => {
      const r = e.f.let(e.get(1).not().and(e.get(2)));
      e.set(0, r);
      e.flagsLogic(r);
    },
  },
  bitField(
    'blsr',
    1,
    (a) => a.and(a.sub(1)),
    (a) => a.eqz(),
  ),
  bitField(
    'blsmsk',
    2,
    (a) => a.xor(a.sub(1)),
    (a) => a.eqz(),
  ),
  bitField(
    'blsi',
    3,
    (a) => a.and(a.neg()),
    (a) => a.ne(0),
  ),
  {
    name: 'bextr',
    feature: 'bmi1',
    enc: ['VEX.L0.NP.0F38.WIG F7 /r Gy=,Ey,By'],
    sem: (e) => {
      const { f } = e;
      const source = f.let(e.get(1).zext());
      const control = f.let(e.get(2).zext());
      const start = f.let(control.and(0xff));
      const length = f.let(control.shrU(8).and(0xff));
      const shifted = f.let(select(start.geU(64), i64(0), source.shrU(start)));
      const mask = f.let(select(length.geU(64), i64(-1), i64(1).shl(length).sub(1)));
      const r = f.let(e.trunc(shifted.and(mask)));
      e.set(0, r);
      e.setStatus(f.let(r.eqz().shl(6)));
    },
  },
  {
    name: 'bzhi',
    feature: 'bmi2',
    enc: ['VEX.L0.NP.0F38.WIG F5 /r Gy=,Ey,By'],
    sem: (e) => {
      const { f } = e;
      const bits = e.size * 8;
      const source = f.let(e.get(1).zext());
      const index = f.let(e.get(2).zext().and(0xff));
      const over = f.let(index.geU(bits));
      const r = f.let(e.trunc(select(over, source, source.and(i64(1).shl(index).sub(1)))));
      e.set(0, r);
      e.setFlags(FLAGS.logic, { r: e.sign64(r) });
      e.mergeStatus(FLAG.CF, over);
    },
  },
  {
    name: 'pext',
    feature: 'bmi2',
    enc: ['VEX.L0.F3.0F38.WIG F5 /r Gy=,By,Ey'],
    sem: (e) => e.set(0, e.f.let(e.trunc(e.callValue('parallel_extract', e.get(1).zext(), e.get(2).zext())))),
  },
  {
    name: 'pdep',
    feature: 'bmi2',
    enc: ['VEX.L0.F2.0F38.WIG F5 /r Gy=,By,Ey'],
    sem: (e) => e.set(0, e.f.let(e.trunc(e.callValue('parallel_deposit', e.get(1).zext(), e.get(2).zext())))),
  },
  {
    name: 'mulx',
    feature: 'bmi2',
    enc: ['VEX.L0.F2.0F38.WIG F6 /r Gy=,By=,Ey'],
    sem: (e) => {
      const { f } = e;
      const a = e.gpr(2, e.size);
      const b = e.get(2);
      if (e.size === 8) {
        const low = f.let(a.mul(b));
        const high = e.callValue('mul_high_u', a, b);
        e.set(1, low);
        e.set(0, high);
        return;
      }
      const product = f.let(a.zext().mul(b.zext()));
      e.set(1, product.wrap());
      e.set(0, product.shrU(32).wrap());
    },
  },
  {
    name: 'rorx',
    feature: 'bmi2',
    enc: ['VEX.L0.F2.0F3A.WIG F0 /r Gy=,Ey,Ib'],
    sem: (e) => {
      const source = e.get(1);
      const count = e.get(2);
      e.set(0, e.f.let(source.rotr(as(e, count))));
    },
  },
  countedShift('sarx', 'F3', (a, n) => a.shrS(n)),
  countedShift('shlx', '66', (a, n) => a.shl(n)),
  countedShift('shrx', 'F2', (a, n) => a.shrU(n)),
  {
    name: 'bswap',
    enc: ['0FC8+ v Zv!'],
    sem: (e) => {
      const a = e.get(0);
      // With a 16-bit operand the result is undefined; processors give zero.
      e.set(0, e.size === 2 ? i32(0) : swapBytes(e, a, e.size));
    },
  },
  {
    name: 'movbe',
    feature: 'movbe',
    enc: ['NR 0F38F0 /r:m Gv=,Ev'],
    sem: (e) => e.set(0, swapBytes(e, e.get(1), e.size)),
  },
  {
    name: 'movbe',
    feature: 'movbe',
    enc: ['NR 0F38F1 /r:m Ev=,Gv'],
    sem: (e) => e.set(0, swapBytes(e, e.get(1), e.size)),
  },
];

function countZeros(e: Sem, count: (value: Val) => Val): void {
  const { f } = e;
  const source = e.get(1);
  const r = f.let(count(source));
  e.set(0, r);
  // CF: source zero; ZF: result zero. The others are undefined.
  e.mergeStatus(FLAG.CF | FLAG.ZF, f.let(source.eqz().or(r.eqz().shl(6))));
}

function bitField(name: string, n: number, op: (a: Val) => Val, carry: (a: Val) => Val): Def {
  return {
    name,
    feature: 'bmi1',
    enc: [`VEX.L0.NP.0F38.WIG F3 /${n} By=,Ey`],
    sem: (e) => {
      const { f } = e;
      const a = e.get(1);
      const r = f.let(op(a));
      const cf = f.let(carry(a));
      e.set(0, r);
      e.flagsLogic(r);
      e.mergeStatus(FLAG.CF, cf);
    },
  };
}

function countedShift(name: string, prefix: string, op: (a: Val, n: Val) => Val): Def {
  return {
    name,
    feature: 'bmi2',
    enc: [`VEX.L0.${prefix}.0F38.WIG F7 /r Gy=,Ey,By`],
    sem: (e) => e.set(0, e.f.let(op(e.get(1), e.get(2)))),
  };
}

/** Reverses the bytes of `a`, which is used several times. */
export function swapBytes(e: Sem, a: Val, size: Size): Val {
  const { f } = e;
  if (size === 2) return f.let(a.shl(8).or(a.shrU(8)).and(0xffff));
  if (size === 4)
    return f.let(
      a
        .rotl(8)
        .and(0x00ff00ff)
        .or(a.rotr(8).and(0xff00ff00 | 0)),
    );
  const b = f.let(a.and(0x00ff00ff00ff00ffn).shl(8).or(a.shrU(8).and(0x00ff00ff00ff00ffn)));
  const c = f.let(b.and(0x0000ffff0000ffffn).shl(16).or(b.shrU(16).and(0x0000ffff0000ffffn)));
  return f.let(c.rotl(32));
}
