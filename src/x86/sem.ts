/**
 * What an instruction's definition may say: the interface between semantics and the code that is generated from them.
 *
 * The same definition is written out by several back ends (interpreter handlers in line and out of line, translated
 * regions). Rules for definitions:
 *
 * - Integers of 1, 2 and 4 bytes are i32, zero-extended; 8 bytes are i64; XMM values are v128, or i64/i32 for parts.
 * - Everything that `get`, `load`, `pop` return is already evaluated and may be used several times.
 * - All reads and all stores to memory come before the first change of a register or flag, so that a fault leaves the
 *   instruction undone. `set` of a memory operand is such a store; set it first, then registers, then flags.
 * - Faults are raised with `raise`; execution does not continue behind it.
 */
import { CPU, FLAG, segField, SEG, STATUS_FLAGS } from './layout.ts';
import type { FunctionBuilder, FunctionRef } from './wasm/function.ts';
import { i32, i64, select, toVal, type Operand, type Val } from './wasm/value.ts';

export type Size = 1 | 2 | 4 | 8;

/** Gives the function of a runtime library routine by name (see runtime/*.ts). */
export type Library = (name: string) => FunctionRef;

/** Lazy status flags: kinds. Values a, b, r are sign-extended to 64 bits, so that evaluation needs no size. */
export const FLAGS = {
  /** r: the status flags themselves. */
  explicit: 0,
  /** a + b (+ carry) = r. */
  add: 1,
  /** a - b = r. */
  sub: 2,
  /** r; CF, OF, AF clear. */
  logic: 3,
  /** a + 1 = r; b: CF. */
  inc: 4,
  /** a - 1 = r; b: CF. */
  dec: 5,
  /** a: the value shifted left by count - 1; r. */
  shl: 6,
  /** a: the value shifted right by count - 1 (CF in bit 0); b: the original (OF in the sign); r. */
  shr: 7,
  /** a: CF and OF (0 or 1); r: low half of the product. */
  mul: 8,
  /** a - b - borrow = r. */
  sbb: 9,
  /** Low 64 bits r of the signed product of a and b: CF and OF say whether they are all of it. */
  imul: 10,
} as const;

export function maskOf(size: Size): bigint {
  return (1n << BigInt(size * 8)) - 1n;
}

/** Sign-extends an integer of `size` bytes to i64. */
export function signExtend64(value: Val, size: Size): Val {
  switch (size) {
    case 1:
      return value.wrap().sext8().sext();
    case 2:
      return value.wrap().sext16().sext();
    case 4:
      return value.wrap().sext();
    case 8:
      return value;
  }
}

/** Cuts an integer to `size` bytes and gives it in that size's type (i32, or i64 for 8). */
export function truncate(value: Val, size: Size): Val {
  switch (size) {
    case 1:
      return value.wrap().and(0xff);
    case 2:
      return value.wrap().and(0xffff);
    case 4:
      return value.wrap();
    case 8:
      return value.zext();
  }
}

/** i32 for sizes 1, 2, 4 and i64 for 8, from a number. */
export function intOf(value: number | bigint, size: Size): Val {
  return size === 8 ? i64(value) : toVal(value, 'i32');
}

export abstract class Sem {
  readonly f: FunctionBuilder;
  /** Base address of the CPU structure. */
  readonly cpu: Val;
  readonly lib: Library;
  /** Operand size of this variant in bytes (by prefixes and mode); byte forms of operands do not change it. */
  readonly size: Size;
  /** Whether modrm.rm is a memory operand in this variant. */
  readonly mem: boolean;
  /** For `rep` variants: no prefix, F3, F2. */
  readonly rep: 'none' | 'repe' | 'repne';

  constructor(
    f: FunctionBuilder,
    cpu: Val,
    lib: Library,
    size: Size,
    mem: boolean,
    rep: 'none' | 'repe' | 'repne',
  ) {
    this.f = f;
    this.cpu = cpu;
    this.lib = lib;
    this.size = size;
    this.mem = mem;
    this.rep = rep;
  }

  // Operands. i counts from 0 in the order of the encoding.
  /** The operand's value (memory is read; for `!` operands with the intent to write). */
  abstract get(i: number): Val;
  /** Writes the operand. 32-bit register writes clear the upper half; 8/16-bit ones keep the rest. */
  abstract set(i: number, value: Val): void;
  /** Bytes of operand i in this variant. */
  abstract sizeOf(i: number): number;
  /** Whether operand i is a memory operand in this variant. */
  abstract isMem(i: number): boolean;
  /** Linear address (i64) of memory operand i for an access of `bytes` (segmentation checked), evaluated. */
  abstract address(i: number, bytes: number, write: boolean): Val;
  /** Effective address (i64, cut to the address size) without segment, as LEA gives it. */
  abstract effective(): Val;
  /** Linear address of `offset` in the memory operand's segment, checked as `address` checks it. */
  abstract linear(offset: Val, bytes: number, write: boolean): Val;
  /** Number (0-7, or 0-15) of the register that operand i names: for Sw, Cy, Dy, STi. i32. */
  abstract registerNumber(i: number): Val;
  /** Second immediate (ENTER's level, the selector of a far pointer). */
  abstract imm2(): Val;
  /** rip after this instruction. */
  abstract nextRip(): Val;
  /** Bits of RECFLAG as i32. */
  abstract recordFlags(): Val;
  /** Address size in bytes (2, 4, 8), i32. */
  abstract addressSize(): Val;
  /** Segment register number of the memory operand (or of the string source), i32. */
  abstract segment(): Val;
  /** The record's address: to pass on to library routines. */
  abstract record(): Val;

  // Memory by linear address (i64). Results: i32 zero-extended for 1, 2, 4 bytes; i64 for 8.
  abstract load(address: Val, bytes: Size): Val;
  abstract store(address: Val, bytes: Size, value: Val): void;
  abstract load128(address: Val): Val;
  abstract store128(address: Val, value: Val): void;
  /** Stack by SS and the stack size of the mode. `push` commits rsp; `pop` commits it too. */
  abstract push(bytes: Size, value: Val): void;
  abstract pop(bytes: Size): Val;

  // Control flow: definitions with ends: 'jump'.
  /** Near jump to `target` (i64; cut to the operand size, checked against the limit or canonical form). */
  abstract jump(target: Val): void;
  /** #GP(0) when a near jump to `target` would fault: before an instruction that also changes the stack. */
  abstract checkTarget(target: Val): void;
  /** Conditional near jump, else the next instruction. */
  abstract jumpIf(condition: Val, target: Val): void;
  /** Ticks (instructions of the whole machine) as of this instruction: i64. */
  abstract now(): Val;

  // CPU structure.
  field32(offset: number): Val {
    return this.f.let(this.f.load('32', this.cpu, offset));
  }
  field64(offset: number): Val {
    return this.f.let(this.f.load('64', this.cpu, offset));
  }
  setField32(offset: number, value: Operand): void {
    this.f.store('32', this.cpu, toVal(value, 'i32'), offset);
  }
  setField64(offset: number, value: Operand): void {
    this.f.store('64', this.cpu, toVal(value, 'i64'), offset);
  }
  /** A fixed general register; sizes 1 (low byte) to 8. */
  gpr(index: number, size: Size = 8): Val {
    const offset = CPU.gpr + index * 8;
    switch (size) {
      case 1:
        return this.f.let(this.f.load('8u', this.cpu, offset));
      case 2:
        return this.f.let(this.f.load('16u', this.cpu, offset));
      case 4:
        return this.f.let(this.f.load('32', this.cpu, offset));
      case 8:
        return this.f.let(this.f.load('64', this.cpu, offset));
    }
  }
  setGpr(index: number, value: Val, size: Size = 8): void {
    const offset = CPU.gpr + index * 8;
    switch (size) {
      case 1:
        this.f.store('8', this.cpu, value.wrap(), offset);
        return;
      case 2:
        this.f.store('16', this.cpu, value.wrap(), offset);
        return;
      case 4:
        this.f.store('64', this.cpu, value.wrap().zext(), offset);
        return;
      case 8:
        this.f.store('64', this.cpu, value, offset);
        return;
    }
  }
  /** A fixed XMM register. */
  xmm(index: number): Val {
    return this.f.let(this.f.load('v128', this.cpu, CPU.xmm + index * 32));
  }
  setXmm(index: number, value: Val): void {
    this.f.store('v128', this.cpu, value, CPU.xmm + index * 32);
  }
  /** AH. */
  ah(): Val {
    return this.f.let(this.f.load('8u', this.cpu, CPU.gpr + 1));
  }
  setAh(value: Val): void {
    this.f.store('8', this.cpu, value.wrap(), CPU.gpr + 1);
  }

  // Integer helpers for this variant's operand size.
  int(value: number | bigint, size: Size = this.size): Val {
    return intOf(value, size);
  }
  trunc(value: Val, size: Size = this.size): Val {
    return truncate(value, size);
  }
  sign64(value: Val, size: Size = this.size): Val {
    return signExtend64(value, size);
  }

  // Status flags.
  /** Nobody can see the status flags that the instruction sets: what only they need may be left out. */
  get flagsDead(): boolean {
    return false;
  }
  setFlags(kind: number, values: { a?: Val; b?: Val; r: Val }): void {
    this.setField32(CPU.flagKind, kind);
    if (values.a) this.setField64(CPU.flagA, values.a);
    if (values.b) this.setField64(CPU.flagB, values.b);
    this.setField64(CPU.flagR, values.r);
  }
  /** INC and DEC: flags of a and r (`size` bytes) with CF as it was. */
  setFlagsKeepingCarry(kind: number, a: Val, r: Val): void {
    this.setFlags(kind, { a: this.sign64(a), b: this.carry().zext(), r: this.sign64(r) });
  }
  /** r = a + b (+ carry): values of `size` bytes. */
  flagsAdd(a: Val, b: Val, r: Val, size: Size = this.size): void {
    this.setFlags(FLAGS.add, {
      a: signExtend64(a, size),
      b: signExtend64(b, size),
      r: signExtend64(r, size),
    });
  }
  /** r = a - b. */
  flagsSub(a: Val, b: Val, r: Val, size: Size = this.size): void {
    this.setFlags(FLAGS.sub, {
      a: signExtend64(a, size),
      b: signExtend64(b, size),
      r: signExtend64(r, size),
    });
  }
  flagsLogic(r: Val, size: Size = this.size): void {
    this.setFlags(FLAGS.logic, { r: signExtend64(r, size) });
  }
  /** SHL, SHR, SAR: values of this variant's size, of `a` only the bits that its flags are. */
  flagsShift(kind: number, { a, b, r }: { a: Val; b?: Val; r: Val }): void {
    this.setFlags(kind, {
      a: this.sign64(a),
      ...(b === undefined ? {} : { b: this.sign64(b) }),
      r: this.sign64(r),
    });
  }
  /** Sets CF PF AF ZF SF OF from an i32 that has them at their EFLAGS positions. */
  setStatus(flags: Val): void {
    this.setFlags(FLAGS.explicit, { r: flags.and(STATUS_FLAGS).zext() });
  }
  /** The status flags (CF PF AF ZF SF OF) at their EFLAGS positions, i32. */
  status(): Val {
    return this.f.callValue(this.lib('status_flags'), this.cpu);
  }
  /** Replaces the flags in `mask` (a constant) by those of `flags` and keeps the others. */
  mergeStatus(mask: number, flags: Val): void {
    const kept = this.f.let(this.status().and(STATUS_FLAGS & ~mask));
    this.setStatus(kept.or(flags.and(mask)));
  }
  /** CF as 0 or 1. */
  carry(): Val {
    return this.f.callValue(this.lib('carry_flag'), this.cpu);
  }
  /** Condition code 0-15 (O NO B AE E NE BE A S NS P NP L GE LE G) as 0 or 1. */
  condition(cc: number): Val {
    return this.f.callValue(this.lib(`cond_${cc >> 1}`), this.cpu).xor(cc & 1);
  }
  /** The whole EFLAGS as PUSHF would see them (RF and VM as they are), i32. */
  eflags(): Val {
    return this.f.let(this.field32(CPU.eflags).or(this.status()));
  }
  /** +bytes or -bytes by DF, i64. */
  direction(bytes: number): Val {
    const eflags = this.field32(CPU.eflags);
    return this.f.let(select(eflags.and(FLAG.DF), i64(-bytes), i64(bytes)));
  }

  // Faults and exits.
  /** Raises an exception; with an error code when `error` is given. Nothing after it runs. */
  raise(vector: number, error?: Operand): void {
    this.f.call(
      this.lib(error === undefined ? 'raise' : 'raise_error'),
      ...(error === undefined ? [this.cpu, i32(vector)] : [this.cpu, i32(vector), toVal(error, 'i32')]),
    );
  }
  raiseIf(condition: Val, vector: number, error?: Operand): void {
    this.f.if(condition, () => this.raise(vector, error), undefined, false);
  }
  /** #GP(0) unless at CPL 0. */
  requireCpl0(): void {
    this.raiseIf(this.field32(CPU.cpl).bool(), 13, 0);
  }
  /**
   * Asks the outside (EXIT code): leaves run() with the information words; the instruction is restarted with the answer,
   * and then this returns the address of the answer (four u32 words).
   */
  ask(code: number, info: Operand = 0, info2: Operand = 0, info3: Operand = 0): Val {
    return this.f.callValue(
      this.lib('ask'),
      this.cpu,
      i32(code),
      toVal(info, 'i64'),
      toVal(info2, 'i64'),
      toVal(info3, 'i64'),
    );
  }
  /** Calls a library routine for its effect. */
  call(name: string, ...args: Operand[]): void {
    this.f.call(this.lib(name), ...args);
  }
  callValue(name: string, ...args: Operand[]): Val {
    return this.f.callValue(this.lib(name), ...args);
  }
  /** Base, limit, attributes or selector of a fixed segment register. */
  segBase(index: number): Val {
    return this.field64(segField(index, SEG.base));
  }
}
