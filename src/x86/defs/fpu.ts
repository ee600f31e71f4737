/** x87 instructions (Intel SDM vol. 2; AMD APM vol. 5); the transcendentals are in transcendental.ts. */
import { ALIGN, CPU, RAX } from '../layout.ts';
import { FSW } from '../runtime/fpu-values.ts';
import type { Sem } from '../sem.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import type { Def } from './def.ts';
import {
  type Value,
  begin,
  beginKeepingC1,
  blocked,
  empty,
  notePointer,
  pop,
  push,
  st,
  wide,
  withOperands,
  write,
} from './fpu-stack.ts';

type Source = 'f32' | 'f64' | 'i16' | 'i32' | 'i64';
const BYTES = { f32: 4, f64: 8, i16: 2, i32: 4, i64: 8 } as const;

/** A memory operand as bits; faults come before anything else happens. */
function loadBits(e: Sem, source: Source): Val {
  const address = e.address(0, BYTES[source], false);
  const bits = e.load(address, BYTES[source]);
  notePointer(e);
  return bits;
}
function convert(e: Sem, source: Source, bits: Val): Value {
  if (source === 'f32') e.call('fpu_from_f32', e.cpu, bits);
  else if (source === 'f64') e.call('fpu_from_f64', e.cpu, bits);
  else
    e.call(
      'fpu_from_int',
      e.cpu,
      source === 'i16' ? bits.sext16().sext() : source === 'i32' ? bits.sext() : bits,
    );
  return wide(e);
}

type Arithmetic = 'add' | 'mul' | 'sub' | 'subr' | 'div' | 'divr';
function compute(e: Sem, op: Arithmetic, a: Value, b: Value): void {
  const flip = (v: Value): Value => ({
    mant: v.mant,
    se: e.f.let(select(isNanValue(v), v.se, v.se.xor(0x8000))),
  });
  switch (op) {
    case 'add':
      return e.call('fpu_add', e.cpu, a.mant, a.se, b.mant, b.se);
    case 'sub': {
      const minus = flip(b);
      return e.call('fpu_add', e.cpu, a.mant, a.se, minus.mant, minus.se);
    }
    case 'subr': {
      const minus = flip(a);
      return e.call('fpu_add', e.cpu, minus.mant, minus.se, b.mant, b.se);
    }
    case 'mul':
      return e.call('fpu_mul', e.cpu, a.mant, a.se, b.mant, b.se);
    case 'div':
      return e.call('fpu_div', e.cpu, a.mant, a.se, b.mant, b.se);
    case 'divr':
      return e.call('fpu_div', e.cpu, b.mant, b.se, a.mant, a.se);
  }
}
/** A NaN keeps its sign in a subtraction. */
function isNanValue({ mant, se }: Value): Val {
  return se.and(0x7fff).eq(0x7fff).and(mant.shl(1).ne(0));
}

/** ST(target) = ST(target) op other. */
function arithmetic(
  e: Sem,
  op: Arithmetic,
  target: Val | number,
  other: Val | number,
  popAfter: boolean,
): void {
  begin(e);
  withOperands(e, [target, other], target, popAfter, () => {
    compute(e, op, st(e, target), st(e, other));
    e.f.if(blocked(e).eqz(), () => {
      write(e, target, wide(e));
      if (popAfter) pop(e);
    });
  });
}
function arithmeticMemory(e: Sem, op: Arithmetic, source: Source): void {
  e.call('fpu_wait', e.cpu);
  const bits = loadBits(e, source);
  begin(e);
  withOperands(e, [0], 0, false, () => {
    const b = convertBeside(e, source, bits, st(e, 0), op === 'divr');
    e.f.if(blocked(e).eqz(), () => {
      compute(e, op, st(e, 0), b);
      e.f.if(blocked(e).eqz(), () => write(e, 0, wide(e)));
    });
  });
}
/**
 * Converts an operand beside `other`: where that is a NaN or no number, or divides by zero, a denormal operand is not reported.
 */
function convertBeside(e: Sem, source: Source, bits: Val, other: Value, divides = false): Value {
  const { f } = e;
  const before = e.field32(CPU.fsw);
  const value = convert(e, source, bits);
  if (source !== 'f32' && source !== 'f64') return value;
  const exp = f.let(other.se.and(0x7fff));
  const unsupported = exp.ne(0).and(other.mant.geS(0));
  const zero = divides ? exp.eqz().and(other.mant.eqz()) : i32(0);
  f.if(isNanValue(other).or(unsupported).or(zero), () => {
    const flags = f.let(e.field32(CPU.floatFlags).and(~FSW.DE));
    e.setField32(CPU.fsw, before);
    e.setField32(CPU.floatFlags, 0);
    e.call('fpu_flag', e.cpu, flags);
  });
  return value;
}

/** Condition codes C3 C2 C0 of a comparison; C1 is clear. */
function compare(e: Sem, b: Value, quiet: boolean, pops: number): void {
  const { f } = e;
  const a = st(e, 0);
  const codes = e.callValue('fpu_compare', e.cpu, a.mant, a.se, b.mant, b.se, i32(quiet ? 1 : 0));
  setCodes(e, codes);
  f.if(blocked(e).eqz(), () => {
    for (let k = 0; k < pops; k++) pop(e);
  });
}
function setCodes(e: Sem, codes: Val): void {
  e.setField32(
    CPU.fsw,
    e
      .field32(CPU.fsw)
      .and(~(FSW.C0 | FSW.C2 | FSW.C3 | FSW.C1))
      .or(codes),
  );
}
const UNORDERED = FSW.C0 | FSW.C2 | FSW.C3;
function unorderedWhenEmpty(
  e: Sem,
  registers: readonly (Val | number)[],
  pops: number,
  body: () => void,
): void {
  const { f } = e;
  let any = empty(e, registers[0] as Val | number);
  for (const register of registers.slice(1)) any = f.let(any.or(empty(e, register)));
  f.if(
    any,
    () => {
      e.call('fpu_underflow', e.cpu);
      setCodes(e, i32(UNORDERED));
      f.if(e.callValue('fpu_masked', e.cpu, i32(FSW.IE)), () => {
        for (let k = 0; k < pops; k++) pop(e);
      });
    },
    body,
  );
}
function compareRegister(e: Sem, i: Val | number, quiet: boolean, pops: number): void {
  begin(e);
  unorderedWhenEmpty(e, [0, i], pops, () => compare(e, st(e, i), quiet, pops));
}
function compareMemory(e: Sem, source: Source, pops: number): void {
  e.call('fpu_wait', e.cpu);
  const bits = loadBits(e, source);
  begin(e);
  unorderedWhenEmpty(e, [0], pops, () => {
    const b = convertBeside(e, source, bits, st(e, 0));
    // A signalling NaN was quieted on the way in, but is invalid all the same; so is a quiet one.
    compare(e, b, false, pops);
  });
}
/** FCOMI and its kin set ZF, PF, CF; OF, SF, AF are cleared. */
function compareFlags(e: Sem, quiet: boolean, popAfter: boolean): void {
  const { f } = e;
  beginKeepingC1(e);
  const i = e.registerNumber(0);
  const set = (codes: Val): void =>
    e.setStatus(f.let(codes.shrU(8).and(1).or(codes.shrU(8).and(4)).or(codes.shrU(8).and(0x40))));
  f.if(
    empty(e, 0).or(empty(e, i)),
    () => {
      e.call('fpu_underflow', e.cpu);
      set(i32(UNORDERED));
      f.if(e.callValue('fpu_masked', e.cpu, i32(FSW.IE)), () => popAfter && pop(e));
    },
    () => {
      const a = st(e, 0);
      const b = st(e, i);
      const codes = e.callValue('fpu_compare', e.cpu, a.mant, a.se, b.mant, b.se, i32(quiet ? 1 : 0));
      set(codes);
      if (popAfter) f.if(blocked(e).eqz(), () => pop(e));
    },
  );
}

function storeFloat(e: Sem, double: boolean, popAfter: boolean): void {
  const { f } = e;
  e.call('fpu_wait', e.cpu);
  const bytes = double ? 8 : 4;
  const address = e.address(0, bytes, true);
  e.call('probe_write', e.cpu, address, i32(bytes));
  begin(e);
  notePointer(e);
  const put = (bits: Val): void => e.store(address, bytes, double ? bits : bits.wrap());
  f.if(
    empty(e, 0),
    () => {
      e.call('fpu_underflow', e.cpu);
      f.if(e.callValue('fpu_masked', e.cpu, i32(FSW.IE)), () => {
        put(i64(double ? 0xfff8000000000000n : 0xffc00000n));
        if (popAfter) pop(e);
      });
    },
    () => {
      const value = st(e, 0);
      const bits = e.callValue('fpu_to_float', e.cpu, value.mant, value.se, i32(double ? 1 : 0));
      // Unmasked invalid operation, overflow or underflow: nothing is stored.
      const stop = f.let(
        e
          .field32(CPU.floatFlags)
          .and(e.field32(CPU.fcw).not())
          .and(FSW.IE | FSW.OE | FSW.UE)
          .bool(),
      );
      f.if(stop.eqz(), () => {
        put(bits);
        if (popAfter) pop(e);
      });
    },
  );
}
function storeInteger(e: Sem, bits: 16 | 32 | 64, popAfter: boolean, truncate: boolean): void {
  const { f } = e;
  e.call('fpu_wait', e.cpu);
  const bytes = (bits / 8) as 2 | 4 | 8;
  const address = e.address(0, bytes, true);
  e.call('probe_write', e.cpu, address, i32(bytes));
  begin(e);
  notePointer(e);
  const put = (value: Val): void => e.store(address, bytes, bits === 64 ? value : value.wrap());
  f.if(
    empty(e, 0),
    () => {
      e.call('fpu_underflow', e.cpu);
      f.if(e.callValue('fpu_masked', e.cpu, i32(FSW.IE)), () => {
        put(i64(-(1n << BigInt(bits - 1))));
        if (popAfter) pop(e);
      });
    },
    () => {
      const value = st(e, 0);
      const mode = truncate ? i32(3) : f.let(e.field32(CPU.fcw).shrU(10).and(3));
      const integer = e.callValue('fpu_to_int', e.cpu, value.mant, value.se, i32(bits), mode);
      f.if(blocked(e).eqz(), () => {
        put(integer);
        if (popAfter) pop(e);
      });
    },
  );
}
function loadValue(e: Sem, source: Source): void {
  e.call('fpu_wait', e.cpu);
  const bits = loadBits(e, source);
  begin(e);
  const { f } = e;
  // A full stack is all that is reported.
  f.if(
    empty(e, 7),
    () => {
      const { mant, se } = convert(e, source, bits);
      const signalling = f.let(
        se
          .and(0x7fff)
          .eq(0x7fff)
          .and(mant.shl(1).ne(0))
          .and(mant.and(1n << 62n).eqz()),
      );
      f.if(signalling, () => e.call('fpu_flag', e.cpu, i32(FSW.IE)));
      const stop = f.let(e.field32(CPU.floatFlags).and(e.field32(CPU.fcw).not()).and(FSW.IE));
      f.if(stop.eqz(), () => push(e, { mant: f.let(select(signalling, mant.or(1n << 62n), mant)), se }));
    },
    () => push(e, { mant: i64(0), se: i32(0) }),
  );
}

/** The whole status word, with TOP. */
const statusWord = (e: Sem): Val => e.f.let(e.field32(CPU.fsw).or(e.field32(CPU.ftop).shl(11)));

const OPERATIONS: readonly (readonly [number, Arithmetic])[] = [
  [0, 'add'],
  [1, 'mul'],
  [4, 'sub'],
  [5, 'subr'],
  [6, 'div'],
  [7, 'divr'],
];
/** DC and DE have subtraction and division the other way round. */
const REVERSED: Readonly<Record<number, number>> = { 0: 0, 1: 1, 4: 5, 5: 4, 6: 7, 7: 6 };

const defs: Def[] = [];
const def = (name: string, enc: string, sem: (e: Sem) => void): void =>
  void defs.push({ name, enc: [enc], unit: 'x87', feature: 'fpu', sem });

for (const [n, op] of OPERATIONS) {
  def(`f${op}`, `D8 /${n}:m Md`, (e) => arithmeticMemory(e, op, 'f32'));
  def(`f${op}`, `DC /${n}:m Mq`, (e) => arithmeticMemory(e, op, 'f64'));
  def(`fi${op}`, `DA /${n}:m Md`, (e) => arithmeticMemory(e, op, 'i32'));
  def(`fi${op}`, `DE /${n}:m Mw`, (e) => arithmeticMemory(e, op, 'i16'));
  def(`f${op}`, `D8 /${n}:r STi`, (e) => arithmetic(e, op, 0, e.registerNumber(0), false));
  def(`f${op}`, `DC /${REVERSED[n] as number}:r STi`, (e) =>
    arithmetic(e, op, e.registerNumber(0), 0, false),
  );
  def(`f${op}p`, `DE /${REVERSED[n] as number}:r STi`, (e) =>
    arithmetic(e, op, e.registerNumber(0), 0, true),
  );
}
for (const [name, n, pops] of [
  ['fcom', 2, 0],
  ['fcomp', 3, 1],
] as const) {
  def(name, `D8 /${n}:m Md`, (e) => compareMemory(e, 'f32', pops));
  def(name, `DC /${n}:m Mq`, (e) => compareMemory(e, 'f64', pops));
  def(`fi${name.slice(1)}`, `DA /${n}:m Md`, (e) => compareMemory(e, 'i32', pops));
  def(`fi${name.slice(1)}`, `DE /${n}:m Mw`, (e) => compareMemory(e, 'i16', pops));
  def(name, `D8 /${n}:r STi`, (e) => compareRegister(e, e.registerNumber(0), false, pops));
  def(name, `DC /${n}:r STi`, (e) => compareRegister(e, e.registerNumber(0), false, pops));
}
def('fcomp', 'DE /2:r STi', (e) => compareRegister(e, e.registerNumber(0), false, 1));
def('fcompp', 'DE =D9 -', (e) => compareRegister(e, 1, false, 2));
def('fucompp', 'DA =E9 -', (e) => compareRegister(e, 1, true, 2));
def('fucom', 'DD /4:r STi', (e) => compareRegister(e, e.registerNumber(0), true, 0));
def('fucomp', 'DD /5:r STi', (e) => compareRegister(e, e.registerNumber(0), true, 1));
def('fucomi', 'DB /5:r STi', (e) => compareFlags(e, true, false));
def('fcomi', 'DB /6:r STi', (e) => compareFlags(e, false, false));
def('fucomip', 'DF /5:r STi', (e) => compareFlags(e, true, true));
def('fcomip', 'DF /6:r STi', (e) => compareFlags(e, false, true));

def('fld', 'D9 /0:m Md', (e) => loadValue(e, 'f32'));
def('fld', 'DD /0:m Mq', (e) => loadValue(e, 'f64'));
def('fild', 'DF /0:m Mw', (e) => loadValue(e, 'i16'));
def('fild', 'DB /0:m Md', (e) => loadValue(e, 'i32'));
def('fild', 'DF /5:m Mq', (e) => loadValue(e, 'i64'));
def('fld', 'DB /5:m Mt', (e) => {
  e.call('fpu_wait', e.cpu);
  const address = e.address(0, 10, false);
  e.call('probe_read', e.cpu, address, i32(10));
  const mant = e.load(address, 8);
  const se = e.load(e.f.let(address.add(8)), 2);
  begin(e);
  notePointer(e);
  push(e, { mant, se });
});
def('fstp', 'DB /7:m Mt', (e) => {
  const { f } = e;
  e.call('fpu_wait', e.cpu);
  const address = e.address(0, 10, true);
  e.call('probe_write', e.cpu, address, i32(10));
  begin(e);
  notePointer(e);
  const put = (value: Value): void => {
    e.store(address, 8, value.mant);
    e.store(f.let(address.add(8)), 2, value.se);
    pop(e);
  };
  f.if(
    empty(e, 0),
    () => {
      e.call('fpu_underflow', e.cpu);
      f.if(e.callValue('fpu_masked', e.cpu, i32(FSW.IE)), () => put(wide(e)));
    },
    () => put(st(e, 0)),
  );
});
def('fst', 'D9 /2:m Md', (e) => storeFloat(e, false, false));
def('fstp', 'D9 /3:m Md', (e) => storeFloat(e, false, true));
def('fst', 'DD /2:m Mq', (e) => storeFloat(e, true, false));
def('fstp', 'DD /3:m Mq', (e) => storeFloat(e, true, true));
for (const [opcode, bits, letter, n, popAfter, truncate] of [
  ['DF', 16, 'w', 2, false, false],
  ['DF', 16, 'w', 3, true, false],
  ['DB', 32, 'd', 2, false, false],
  ['DB', 32, 'd', 3, true, false],
  ['DF', 64, 'q', 7, true, false],
  ['DF', 16, 'w', 1, true, true],
  ['DB', 32, 'd', 1, true, true],
  ['DD', 64, 'q', 1, true, true],
] as const) {
  def(truncate ? 'fisttp' : popAfter ? 'fistp' : 'fist', `${opcode} /${n}:m M${letter}`, (e) =>
    storeInteger(e, bits, popAfter, truncate),
  );
}

// Register moves.
def('fld', 'D9 /0:r STi', (e) => {
  const { f } = e;
  begin(e);
  const i = e.registerNumber(0);
  f.if(
    empty(e, i),
    () => {
      e.call('fpu_underflow', e.cpu);
      f.if(e.callValue('fpu_masked', e.cpu, i32(FSW.IE)), () => push(e, wide(e)));
      e.setField32(CPU.fsw, e.field32(CPU.fsw).and(~FSW.C1));
    },
    () => push(e, st(e, i)),
  );
});
function store(e: Sem, popAfter: boolean): void {
  begin(e);
  const i = e.registerNumber(0);
  withOperands(e, [0], i, popAfter, () => {
    write(e, i, st(e, 0));
    if (popAfter) pop(e);
  });
}
def('fst', 'DD /2:r STi', (e) => store(e, false));
def('fstp', 'DD /3:r STi', (e) => store(e, true));
// An alias that reports nothing: an empty register is popped and not copied.
def('fstpnce', 'D9 /3:r STi', (e) => {
  const { f } = e;
  begin(e);
  const i = e.registerNumber(0);
  f.if(empty(e, 0).eqz(), () => write(e, i, st(e, 0)));
  pop(e);
});
def('fstp', 'DF /2:r STi', (e) => store(e, true));
def('fstp', 'DF /3:r STi', (e) => store(e, true));
for (const opcode of ['D9', 'DD', 'DF']) {
  def('fxch', `${opcode} /1:r STi`, (e) => {
    const { f } = e;
    begin(e);
    const i = e.registerNumber(0);
    const emptyTop = empty(e, 0);
    const emptyOther = empty(e, i);
    const indefinite = { mant: i64(-(1n << 62n)), se: i32(0xffff) };
    const stop = f.local('i32', 0);
    f.if(emptyTop.or(emptyOther), () => {
      e.call('fpu_underflow', e.cpu);
      stop.set(e.callValue('fpu_masked', e.cpu, i32(FSW.IE)).xor(1));
    });
    f.if(stop.get.eqz(), () => {
      const a = st(e, 0);
      const b = st(e, i);
      write(e, 0, {
        mant: f.let(select(emptyOther, indefinite.mant, b.mant)),
        se: f.let(select(emptyOther, indefinite.se, b.se)),
      });
      write(e, i, {
        mant: f.let(select(emptyTop, indefinite.mant, a.mant)),
        se: f.let(select(emptyTop, indefinite.se, a.se)),
      });
    });
  });
}
for (const [name, enc, condition] of [
  ['fcmovb', 'DA /0:r', 2],
  ['fcmove', 'DA /1:r', 4],
  ['fcmovbe', 'DA /2:r', 6],
  ['fcmovu', 'DA /3:r', 10],
  ['fcmovnb', 'DB /0:r', 3],
  ['fcmovne', 'DB /1:r', 5],
  ['fcmovnbe', 'DB /2:r', 7],
  ['fcmovnu', 'DB /3:r', 11],
] as const) {
  def(name, `${enc} STi`, (e) => {
    beginKeepingC1(e);
    const i = e.registerNumber(0);
    withOperands(e, [0, i], 0, false, () => e.f.if(e.condition(condition), () => write(e, 0, st(e, i))));
  });
}

// One operand.
def('fchs', 'D9 =E0 -', (e) => {
  begin(e);
  withOperands(e, [0], 0, false, () => {
    const a = st(e, 0);
    write(e, 0, { mant: a.mant, se: e.f.let(a.se.xor(0x8000)) });
  });
});
def('fabs', 'D9 =E1 -', (e) => {
  begin(e);
  withOperands(e, [0], 0, false, () => {
    const a = st(e, 0);
    write(e, 0, { mant: a.mant, se: e.f.let(a.se.and(0x7fff)) });
  });
});
def('ftst', 'D9 =E4 -', (e) => {
  begin(e);
  unorderedWhenEmpty(e, [0], 0, () => compare(e, { mant: i64(0), se: i32(0) }, false, 0));
});
def('fxam', 'D9 =E5 -', (e) => {
  const { f } = e;
  begin(e);
  const { mant, se } = st(e, 0);
  const exp = f.let(se.and(0x7fff));
  const special = select(mant.shl(1).eqz(), i32(FSW.C0 | FSW.C2), i32(FSW.C0));
  const kind = f.let(
    select(
      empty(e, 0),
      i32(FSW.C3 | FSW.C0),
      select(
        exp.eqz(),
        select(mant.eqz(), i32(FSW.C3), i32(FSW.C3 | FSW.C2)),
        select(mant.geS(0), i32(0), select(exp.eq(0x7fff), special, i32(FSW.C2))),
      ),
    ),
  );
  e.setField32(
    CPU.fsw,
    e
      .field32(CPU.fsw)
      .and(~(FSW.C0 | FSW.C1 | FSW.C2 | FSW.C3))
      .or(kind)
      .or(se.shrU(15).shl(9)),
  );
});
for (const [name, modrm, routine] of [
  ['fsqrt', 'FA', 'fpu_sqrt'],
  ['frndint', 'FC', 'fpu_integral'],
] as const) {
  def(name, `D9 =${modrm} -`, (e) => {
    begin(e);
    withOperands(e, [0], 0, false, () => {
      const a = st(e, 0);
      e.call(routine, e.cpu, a.mant, a.se);
      e.f.if(blocked(e).eqz(), () => write(e, 0, wide(e)));
    });
  });
}
for (const [name, modrm, nearest] of [
  ['fprem', 'F8', 0],
  ['fprem1', 'F5', 1],
] as const) {
  def(name, `D9 =${modrm} -`, (e) => {
    begin(e);
    e.setField32(CPU.fsw, e.field32(CPU.fsw).and(~FSW.C2));
    withOperands(e, [0, 1], 0, false, () => {
      const a = st(e, 0);
      const b = st(e, 1);
      e.call('fpu_remainder', e.cpu, a.mant, a.se, b.mant, b.se, i32(nearest));
      e.f.if(blocked(e).eqz(), () => write(e, 0, wide(e)));
    });
  });
}
def('fscale', 'D9 =FD -', (e) => {
  begin(e);
  withOperands(e, [0, 1], 0, false, () => {
    const a = st(e, 0);
    const b = st(e, 1);
    e.call('fpu_scale', e.cpu, a.mant, a.se, b.mant, b.se);
    e.f.if(blocked(e).eqz(), () => write(e, 0, wide(e)));
  });
});

// Environment and state.
const ENVIRONMENT = { 2: 14, 4: 28, 8: 28 } as const;
const environmentBytes = (e: Sem): number => ENVIRONMENT[e.size as 2 | 4 | 8];
/** Of the whole area: by operand size (SDM vol. 3, interrupt 17). */
const aligned = (e: Sem, bytes: number): Val => i32(bytes | (e.size === 2 ? ALIGN.word : ALIGN.dword));
const initialise = (e: Sem): void => {
  e.setField32(CPU.fcw, 0x37f);
  for (const field of [CPU.fsw, CPU.ftop, CPU.ftw, CPU.fop]) e.setField32(field, 0);
  for (const field of [CPU.fip, CPU.fdp]) e.setField64(field, 0);
};
def('fnstenv', 'D9 /6:m v M', (e) => {
  const address = e.address(0, environmentBytes(e), true);
  e.call('probe_write', e.cpu, address, aligned(e, environmentBytes(e)));
  e.call('fpu_store_environment', e.cpu, address, i32(e.size));
  e.setField32(CPU.fcw, e.field32(CPU.fcw).or(0x3f));
  e.call('fpu_summary', e.cpu);
});
def('fldenv', 'D9 /4:m v M', (e) => {
  e.call('fpu_wait', e.cpu);
  const address = e.address(0, environmentBytes(e), false);
  // The first word is read first: its page fault comes before a later word's other fault.
  e.call('probe_read', e.cpu, address, i32(e.size === 2 ? 2 : 4));
  e.call('probe_read', e.cpu, address, aligned(e, environmentBytes(e)));
  e.call('fpu_load_environment', e.cpu, address, i32(e.size));
});
def('fnsave', 'DD /6:m v M', (e) => {
  const { f } = e;
  const bytes = environmentBytes(e);
  const address = e.address(0, bytes + 80, true);
  e.call('probe_write', e.cpu, address, aligned(e, bytes + 80));
  e.call('fpu_store_environment', e.cpu, address, i32(e.size));
  for (let n = 0; n < 8; n++) {
    const value = st(e, n);
    e.call('store_slow', e.cpu, f.let(address.add(bytes + n * 10)), i32(8 | ALIGN.any), value.mant);
    e.store(f.let(address.add(bytes + n * 10 + 8)), 2, value.se);
  }
  initialise(e);
});
def('frstor', 'DD /4:m v M', (e) => {
  const { f } = e;
  e.call('fpu_wait', e.cpu);
  const bytes = environmentBytes(e);
  const address = e.address(0, bytes + 80, false);
  e.call('probe_read', e.cpu, address, i32(e.size === 2 ? 2 : 4));
  e.call('probe_read', e.cpu, address, aligned(e, bytes + 80));
  e.call('fpu_load_environment', e.cpu, address, i32(e.size));
  const tags = e.field32(CPU.ftw);
  for (let n = 0; n < 8; n++) {
    const mant = e.callValue('load_slow', e.cpu, f.let(address.add(bytes + n * 10)), i32(8 | ALIGN.any));
    const se = e.load(f.let(address.add(bytes + n * 10 + 8)), 2);
    write(e, n, { mant, se });
  }
  e.setField32(CPU.ftw, tags);
});

/** Constants: significand truncated, the bits after it, and the exponent; rounded by the rounding control. */
for (const [name, modrm, mant, exponent, nextBit] of [
  ['fld1', 'E8', 0x8000000000000000n, 0x3fff, 0],
  ['fldl2t', 'E9', 0xd49a784bcd1b8afen, 0x4000, 0],
  ['fldl2e', 'EA', 0xb8aa3b295c17f0bbn, 0x3fff, 1],
  ['fldpi', 'EB', 0xc90fdaa22168c234n, 0x4000, 1],
  ['fldlg2', 'EC', 0x9a209a84fbcff798n, 0x3ffd, 1],
  ['fldln2', 'ED', 0xb17217f7d1cf79abn, 0x3ffe, 1],
  ['fldz', 'EE', 0n, 0, 0],
] as const) {
  def(name, `D9 =${modrm} -`, (e) => {
    const { f } = e;
    begin(e);
    const mode = f.let(e.field32(CPU.fcw).shrU(10).and(3));
    const exact = name === 'fld1' || name === 'fldz';
    // The tail after the significand is never exactly half: nearest follows its first bit, up adds one.
    const up = exact ? i32(0) : f.let(nextBit === 1 ? mode.eqz().or(mode.eq(2)) : mode.eq(2));
    push(e, { mant: f.let(i64(mant).add(up.zext())), se: i32(exponent) });
  });
}

// Stack control.
def('fincstp', 'D9 =F7 -', (e) => {
  begin(e);
  e.setField32(CPU.ftop, e.field32(CPU.ftop).add(1).and(7));
});
def('fdecstp', 'D9 =F6 -', (e) => {
  begin(e);
  e.setField32(CPU.ftop, e.field32(CPU.ftop).sub(1).and(7));
});
function free(e: Sem, popAfter: boolean): void {
  const { f } = e;
  begin(e);
  const physical = f.let(e.field32(CPU.ftop).add(e.registerNumber(0)).and(7));
  e.setField32(CPU.ftw, e.field32(CPU.ftw).and(i32(1).shl(physical).not()));
  if (popAfter) pop(e);
}
def('ffree', 'DD /0:r STi', (e) => free(e, false));
def('ffreep', 'DF /0:r STi', (e) => free(e, true));
def('fnop', 'D9 =D0 -', (e) => begin(e));

// Control instructions.
def('fninit', 'DB =E3 -', initialise);
def('fnclex', 'DB =E2 -', (e) =>
  e.setField32(CPU.fsw, e.field32(CPU.fsw).and(FSW.C0 | FSW.C1 | FSW.C2 | FSW.C3)),
);
for (const modrm of ['E0', 'E1', 'E4']) def('fnop', `DB =${modrm} -`, () => undefined);
def('fnstcw', 'D9 /7:m Mw=', (e) => e.set(0, e.field32(CPU.fcw)));
def('fldcw', 'D9 /5:m Mw', (e) => {
  e.call('fpu_wait', e.cpu);
  e.setField32(CPU.fcw, e.get(0).and(0x1f3f).or(0x40));
  e.call('fpu_summary', e.cpu);
});
def('fnstsw', 'DD /7:m Mw=', (e) => e.set(0, statusWord(e)));
def('fnstsw', 'DF =E0 -', (e) => e.setGpr(RAX, statusWord(e), 2));
defs.push({
  name: 'fwait',
  enc: ['9B -'],
  unit: 'wait',
  feature: 'fpu',
  sem: (e) => e.call('fpu_wait', e.cpu),
});

export const fpuDefs: readonly Def[] = defs;
