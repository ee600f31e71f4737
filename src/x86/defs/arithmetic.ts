/** Integer arithmetic and logic (Intel SDM vol. 2; AMD APM vol. 3). */
import { CPU, FLAG, RAX, RDX, VEC } from '../layout.ts';
import { FLAGS, type Sem, type Size } from '../sem.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import type { Def } from './def.ts';

/** The eight operations of opcodes 00-3F share their encodings. */
function aluEncodings(n: number, access: '!' | '', lock: boolean): string[] {
  const op = (low: number): string => (n * 8 + low).toString(16).toUpperCase().padStart(2, '0');
  const l = lock ? ' lock' : '';
  return [
    `${op(0)} /r${l} Eb${access},Gb`,
    `${op(1)} /r${l} Ev${access},Gv`,
    `${op(2)} /r Gb${access},Eb`,
    `${op(3)} /r Gv${access},Ev`,
    `${op(4)} AL${access},Ib`,
    `${op(5)} rAX${access},Iz`,
    `80 /${n}${l} Eb${access},Ib`,
    `81 /${n}${l} Ev${access},Iz`,
    `82 /${n} i64${l} Eb${access},Ib`,
    `83 /${n}${l} Ev${access},Ibs`,
  ];
}

const logic = (name: string, n: number, op: (a: Val, b: Val) => Val): Def => ({
  name,
  enc: aluEncodings(n, '!', true),
  sem: (e) => {
    const a = e.get(0);
    const b = e.get(1);
    const r = e.f.let(op(a, b));
    e.set(0, r);
    e.flagsLogic(r);
  },
});

/** An i32 carry in the type of the operand size. */
const widen = (e: Sem, carry: Val): Val => (e.size === 8 ? carry.zext() : carry);

export const arithmeticDefs: readonly Def[] = [
  {
    name: 'add',
    enc: aluEncodings(0, '!', true),
    sem: (e) => {
      const a = e.get(0);
      const b = e.get(1);
      const r = e.f.let(e.trunc(a.add(b)));
      e.set(0, r);
      e.flagsAdd(a, b, r);
    },
  },
  logic('or', 1, (a, b) => a.or(b)),
  {
    name: 'adc',
    enc: aluEncodings(2, '!', true),
    sem: (e) => {
      const a = e.get(0);
      const b = e.get(1);
      const r = e.f.let(e.trunc(a.add(b).add(widen(e, e.carry()))));
      e.set(0, r);
      e.flagsAdd(a, b, r);
    },
  },
  {
    name: 'sbb',
    enc: aluEncodings(3, '!', true),
    sem: (e) => {
      const a = e.get(0);
      const b = e.get(1);
      const r = e.f.let(e.trunc(a.sub(b).sub(widen(e, e.carry()))));
      e.set(0, r);
      e.setFlags(FLAGS.sbb, { a: e.sign64(a), b: e.sign64(b), r: e.sign64(r) });
    },
  },
  logic('and', 4, (a, b) => a.and(b)),
  {
    name: 'sub',
    enc: aluEncodings(5, '!', true),
    sem: (e) => {
      const a = e.get(0);
      const b = e.get(1);
      const r = e.f.let(e.trunc(a.sub(b)));
      e.set(0, r);
      e.flagsSub(a, b, r);
    },
  },
  logic('xor', 6, (a, b) => a.xor(b)),
  {
    name: 'cmp',
    enc: aluEncodings(7, '', false),
    sem: (e) => {
      const a = e.get(0);
      const b = e.get(1);
      e.flagsSub(a, b, e.f.let(e.trunc(a.sub(b))));
    },
  },
  {
    name: 'test',
    enc: [
      '84 /r Eb,Gb',
      '85 /r Ev,Gv',
      'A8 AL,Ib',
      'A9 rAX,Iz',
      'F6 /0 Eb,Ib',
      'F7 /0 Ev,Iz',
      'F6 /1 Eb,Ib',
      'F7 /1 Ev,Iz',
    ],
    sem: (e) => e.flagsLogic(e.f.let(e.get(0).and(e.get(1)))),
  },
  {
    name: 'inc',
    enc: ['FE /0 lock Eb!', 'FF /0 lock Ev!', '40+ i64 Zv!'],
    sem: (e) => {
      const a = e.get(0);
      const r = e.f.let(e.trunc(a.add(1)));
      e.set(0, r);
      e.setFlagsKeepingCarry(FLAGS.inc, a, r);
    },
  },
  {
    name: 'dec',
    enc: ['FE /1 lock Eb!', 'FF /1 lock Ev!', '48+ i64 Zv!'],
    sem: (e) => {
      const a = e.get(0);
      const r = e.f.let(e.trunc(a.sub(1)));
      e.set(0, r);
      e.setFlagsKeepingCarry(FLAGS.dec, a, r);
    },
  },
  {
    name: 'not',
    enc: ['F6 /2 lock Eb!', 'F7 /2 lock Ev!'],
    sem: (e) => e.set(0, e.f.let(e.trunc(e.get(0).not()))),
  },
  {
    name: 'neg',
    enc: ['F6 /3 lock Eb!', 'F7 /3 lock Ev!'],
    sem: (e) => {
      const a = e.get(0);
      const r = e.f.let(e.trunc(a.neg()));
      e.set(0, r);
      e.flagsSub(e.int(0), a, r);
    },
  },
  {
    name: 'mul',
    enc: ['F6 /4 Eb', 'F7 /4 Ev'],
    sem: (e) => {
      const b = e.get(0);
      wideMultiply(e, b, false);
    },
  },
  {
    name: 'imul1',
    enc: ['F6 /5 Eb', 'F7 /5 Ev'],
    sem: (e) => wideMultiply(e, e.get(0), true),
  },
  {
    name: 'imul',
    enc: ['0FAF /r Gv!,Ev', '69 /r Gv=,Ev,Iz', '6B /r Gv=,Ev,Ibs'],
    sem: (e) => {
      const three = e.sizeOf(0) > 0 && hasThird(e);
      const a = three ? e.get(1) : e.get(0);
      const b = three ? e.get(2) : e.get(1);
      if (e.size === 8) {
        const r = e.f.let(a.mul(b));
        if (e.flagsDead) {
          e.set(0, r);
          return;
        }
        e.set(0, r);
        e.setFlags(FLAGS.imul, { a, b, r });
        return;
      }
      if (e.flagsDead) {
        e.set(0, e.f.let(e.trunc(a.mul(b))));
        return;
      }
      const product = e.f.let(e.sign64(a).mul(e.sign64(b)));
      const r = e.f.let(e.trunc(product));
      const low = e.f.let(e.sign64(r));
      e.set(0, r);
      e.setFlags(FLAGS.mul, { a: low.ne(product).zext(), r: low });
    },
  },
  { name: 'div', enc: ['F6 /6 Eb', 'F7 /6 Ev'], sem: (e) => divide(e, e.get(0), false) },
  { name: 'idiv', enc: ['F6 /7 Eb', 'F7 /7 Ev'], sem: (e) => divide(e, e.get(0), true) },
  {
    name: 'cbw',
    enc: ['98 v -'],
    sem: (e) => {
      // CBW, CWDE, CDQE.
      if (e.size === 2) e.setGpr(RAX, e.gpr(RAX, 1).sext8(), 2);
      else if (e.size === 4) e.setGpr(RAX, e.gpr(RAX, 2).sext16(), 4);
      else e.setGpr(RAX, e.gpr(RAX, 4).sext(), 8);
    },
  },
  {
    name: 'cwd',
    enc: ['99 v -'],
    sem: (e) => {
      // CWD, CDQ, CQO.
      if (e.size === 2) e.setGpr(RDX, e.gpr(RAX, 2).sext16().shrS(31), 2);
      else if (e.size === 4) e.setGpr(RDX, e.gpr(RAX, 4).shrS(31), 4);
      else e.setGpr(RDX, e.gpr(RAX, 8).shrS(63), 8);
    },
  },
  {
    name: 'adcx',
    feature: 'adx',
    enc: ['66 0F38F6 /r Gy!,Ey'],
    sem: (e) => addWithFlag(e, FLAG.CF),
  },
  {
    name: 'adox',
    feature: 'adx',
    enc: ['F3 0F38F6 /r Gy!,Ey'],
    sem: (e) => addWithFlag(e, FLAG.OF),
  },
  // BCD, outside 64-bit mode.
  { name: 'daa', enc: ['27 i64 -'], sem: (e) => decimalAdjust(e, true) },
  { name: 'das', enc: ['2F i64 -'], sem: (e) => decimalAdjust(e, false) },
  { name: 'aaa', enc: ['37 i64 -'], sem: (e) => asciiAdjust(e, true) },
  { name: 'aas', enc: ['3F i64 -'], sem: (e) => asciiAdjust(e, false) },
  {
    name: 'aam',
    enc: ['D4 i64 Ib'],
    sem: (e) => {
      const base = e.get(0);
      e.raiseIf(base.eqz(), VEC.DE);
      const al = e.gpr(RAX, 1);
      const low = e.f.let(al.remU(base));
      e.setGpr(RAX, al.divU(base).shl(8).or(low), 2);
      e.flagsLogic(low, 1);
    },
  },
  {
    name: 'aad',
    enc: ['D5 i64 Ib'],
    sem: (e) => {
      const r = e.f.let(
        e
          .gpr(RAX, 1)
          .add(e.ah().mul(e.get(0)))
          .and(0xff),
      );
      e.setGpr(RAX, r, 2);
      e.flagsLogic(r, 1);
    },
  },
];

/** 69 and 6B have three operands. */
function hasThird(e: Sem): boolean {
  try {
    e.sizeOf(2);
    return true;
  } catch {
    return false;
  }
}

function wideMultiply(e: Sem, b: Val, signed: boolean): void {
  const { f } = e;
  const a = e.gpr(RAX, e.size);
  if (e.size === 8) {
    const low = f.let(a.mul(b));
    const high = e.callValue(signed ? 'mul_high_s' : 'mul_high_u', a, b);
    e.setGpr(RAX, low);
    e.setGpr(RDX, high);
    e.setFlags(FLAGS.mul, { a: (signed ? high.ne(low.shrS(63)) : high.ne(0)).zext(), r: low });
    return;
  }
  const wide = (value: Val): Val => (signed ? e.sign64(value) : value.zext());
  const product = f.let(wide(a).mul(wide(b)));
  const bits = e.size * 8;
  const low = f.let(e.trunc(product));
  const high = f.let(e.trunc(product.shrU(bits)));
  if (e.size === 1) e.setGpr(RAX, product.wrap(), 2);
  else {
    e.setGpr(RAX, low, e.size);
    e.setGpr(RDX, high, e.size);
  }
  const fits = signed ? e.sign64(low).eq(product) : high.eqz();
  e.setFlags(FLAGS.mul, { a: fits.xor(1).zext(), r: e.sign64(low) });
}

function divide(e: Sem, divisor: Val, signed: boolean): void {
  const { f } = e;
  e.raiseIf(divisor.eqz(), VEC.DE);
  if (e.size === 8) {
    // 128 by 64 bits: quotient returned, remainder in CPU.wide; raises #DE on overflow.
    const quotient = e.callValue(signed ? 'div128_s' : 'div128_u', e.cpu, e.gpr(RDX), e.gpr(RAX), divisor);
    e.setGpr(RAX, quotient);
    e.setGpr(RDX, e.field64(CPU.wide));
    return;
  }
  const bits = e.size * 8;
  const size = e.size as Size;
  let dividend: Val;
  if (size === 1) dividend = signed ? e.gpr(RAX, 2).sext16().sext() : e.gpr(RAX, 2).zext();
  else if (size === 2) {
    const pair = e.gpr(RDX, 2).shl(16).or(e.gpr(RAX, 2));
    dividend = signed ? pair.sext() : pair.zext();
  } else dividend = e.gpr(RDX, 4).zext().shl(32).or(e.gpr(RAX, 4).zext());
  const n = f.let(dividend);
  const d = f.let(signed ? e.sign64(divisor) : divisor.zext());
  if (signed) e.raiseIf(n.eq(-(1n << 63n)).and(d.eq(-1)), VEC.DE);
  const q = f.let(signed ? n.divS(d) : n.divU(d));
  const r = f.let(signed ? n.remS(d) : n.remU(d));
  const cut = e.trunc(q);
  e.raiseIf((signed ? e.sign64(cut) : cut.zext()).ne(q), VEC.DE);
  if (size === 1) {
    e.setGpr(RAX, q.wrap(), 1);
    e.setAh(r.wrap());
  } else {
    e.setGpr(RAX, e.trunc(q), size);
    e.setGpr(RDX, e.trunc(r), size);
  }
  void bits;
}

function addWithFlag(e: Sem, flag: number): void {
  const { f } = e;
  const a = e.get(0);
  const b = e.get(1);
  const status = e.status();
  const carry = f.let(status.and(flag).ne(0));
  const r = f.let(e.trunc(a.add(b).add(widen(e, carry))));
  // Carry out of the top bit.
  const out = f.let(
    a
      .and(b)
      .or(a.or(b).and(r.not()))
      .shrU(e.size * 8 - 1)
      .wrap()
      .and(1),
  );
  e.set(0, r);
  e.setStatus(status.and(~flag).or(select(out, i32(flag), i32(0))));
}

function decimalAdjust(e: Sem, add: boolean): void {
  const { f } = e;
  const status = e.status();
  const old = e.gpr(RAX, 1);
  const al = f.local('i32', old);
  const cf = f.let(status.and(1));
  const low = f.let(old.and(15).gtU(9).or(status.and(FLAG.AF).bool()));
  const carry = f.local('i32', 0);
  f.if(low, () => {
    const moved = f.let(add ? old.add(6) : old.sub(6));
    carry.set(cf.or(add ? moved.gtU(0xff) : old.ltU(6)));
    al.set(moved.and(0xff));
  });
  const high = f.let(old.gtU(0x99).or(cf));
  f.if(
    high,
    () => {
      al.set(al.get.add(add ? 0x60 : -0x60).and(0xff));
      carry.set(1);
    },
    () => {
      if (add) carry.set(0);
    },
  );
  const r = f.let(al.get);
  e.setGpr(RAX, r, 1);
  e.flagsLogic(r, 1);
  e.mergeStatus(FLAG.CF | FLAG.AF, f.let(carry.get.or(low.shl(4))));
}

function asciiAdjust(e: Sem, add: boolean): void {
  const { f } = e;
  const status = e.status();
  const al = e.gpr(RAX, 1);
  const ax = e.gpr(RAX, 2);
  const need = f.let(al.and(15).gtU(9).or(status.and(FLAG.AF).bool()));
  const adjusted = f.let(select(need, add ? ax.add(0x106) : ax.sub(0x106), ax));
  const r = f.let(adjusted.and(0xff0f));
  e.setGpr(RAX, r, 2);
  const flags = f.let(select(need, i32(FLAG.CF | FLAG.AF), i32(0)));
  e.flagsLogic(r.and(0xff), 1);
  e.mergeStatus(FLAG.CF | FLAG.AF, flags);
  void i64;
}
