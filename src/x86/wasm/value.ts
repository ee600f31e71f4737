/**
 * Typed WebAssembly expressions. An expression is a tree that is written out once, where it is used; what is used
 * twice is bound with `FunctionBuilder.let`. Operators fold constants, so that the translator, which knows an
 * instruction's operands, and the interpreter, which reads them from a record, share one definition.
 *
 * Types are checked when the code is generated: a mismatch throws, and every test builds the whole module.
 */
import { Bytes, type WasmType } from './encoder.ts';

export type Operand = Val | number | bigint;

const mask32 = (value: number): number => value | 0;
const mask64 = (value: bigint): bigint => BigInt.asIntN(64, value);

export class Val {
  readonly t: WasmType;
  /** The constant that this is, when it is one. i32 as a signed number, i64 as a signed bigint. */
  readonly c: number | bigint | undefined;
  readonly #emit: (out: Bytes) => void;
  /** May be written out any number of times: constants and bound values. */
  readonly #pure: boolean;
  #used = false;

  constructor(t: WasmType, emit: (out: Bytes) => void, pure = false, c?: number | bigint) {
    this.t = t;
    this.#emit = emit;
    this.#pure = pure;
    this.c = c;
  }

  get isPure(): boolean {
    return this.#pure;
  }

  emit(out: Bytes): void {
    if (this.#used && !this.#pure) throw new Error('expression written twice: bind it with let() first');
    this.#used = true;
    this.#emit(out);
  }

  #same(other: Operand): Val {
    const value = toVal(other, this.t);
    if (value.t !== this.t) throw new Error(`type mismatch: ${this.t} and ${value.t}`);
    return value;
  }

  #bin(
    other: Operand,
    op32: number,
    op64: number,
    fold: ((a: bigint, b: bigint) => bigint) | null,
    compare = false,
  ): Val {
    const right = this.#same(other);
    if (this.t !== 'i32' && this.t !== 'i64') throw new Error(`integer operator on ${this.t}`);
    if (fold !== null && this.c !== undefined && right.c !== undefined) {
      const result = fold(BigInt(this.c), BigInt(right.c));
      return compare || this.t === 'i32' ? i32(Number(BigInt.asIntN(32, result))) : i64(result);
    }
    const code = this.t === 'i32' ? op32 : op64;
    return new Val(compare ? 'i32' : this.t, (out) => {
      this.emit(out);
      right.emit(out);
      out.u8(code);
    });
  }

  #un(opcode: readonly number[], result: WasmType): Val {
    return new Val(result, (out) => {
      this.emit(out);
      out.u8(...opcode);
    });
  }

  #need(type: WasmType): void {
    if (this.t !== type) throw new Error(`expected ${type}, got ${this.t}`);
  }

  get #bits(): bigint {
    return this.t === 'i32' ? 32n : 64n;
  }

  #unsigned(value: bigint): bigint {
    return BigInt.asUintN(Number(this.#bits), value);
  }

  // Integer arithmetic. A number or bigint operand becomes a constant of this value's type.
  add(other: Operand): Val {
    const right = this.#same(other);
    if (isZero(right)) return this;
    if (isZero(this)) return right;
    return this.#bin(right, 0x6a, 0x7c, (a, b) => a + b);
  }
  sub(other: Operand): Val {
    const right = this.#same(other);
    if (isZero(right)) return this;
    return this.#bin(right, 0x6b, 0x7d, (a, b) => a - b);
  }
  mul(other: Operand): Val {
    return this.#bin(other, 0x6c, 0x7e, (a, b) => a * b);
  }
  divS(other: Operand): Val {
    return this.#bin(other, 0x6d, 0x7f, null);
  }
  divU(other: Operand): Val {
    return this.#bin(other, 0x6e, 0x80, null);
  }
  remS(other: Operand): Val {
    return this.#bin(other, 0x6f, 0x81, null);
  }
  remU(other: Operand): Val {
    return this.#bin(other, 0x70, 0x82, null);
  }
  and(other: Operand): Val {
    const right = this.#same(other);
    if (right.c !== undefined && BigInt(right.c) === -1n) return this;
    return this.#bin(right, 0x71, 0x83, (a, b) => a & b);
  }
  or(other: Operand): Val {
    const right = this.#same(other);
    if (isZero(right)) return this;
    return this.#bin(right, 0x72, 0x84, (a, b) => a | b);
  }
  xor(other: Operand): Val {
    const right = this.#same(other);
    if (isZero(right)) return this;
    return this.#bin(right, 0x73, 0x85, (a, b) => a ^ b);
  }
  /** Shift counts are taken modulo the width, as WebAssembly does. */
  shl(other: Operand): Val {
    const right = this.#same(other);
    if (isZero(right)) return this;
    return this.#bin(right, 0x74, 0x86, (a, b) => a << (b & (this.#bits - 1n)));
  }
  shrS(other: Operand): Val {
    const right = this.#same(other);
    if (isZero(right)) return this;
    return this.#bin(right, 0x75, 0x87, (a, b) => a >> (b & (this.#bits - 1n)));
  }
  shrU(other: Operand): Val {
    const right = this.#same(other);
    if (isZero(right)) return this;
    return this.#bin(right, 0x76, 0x88, (a, b) => this.#unsigned(a) >> (b & (this.#bits - 1n)));
  }
  rotl(other: Operand): Val {
    return this.#bin(other, 0x77, 0x89, null);
  }
  rotr(other: Operand): Val {
    return this.#bin(other, 0x78, 0x8a, null);
  }
  not(): Val {
    return this.xor(-1);
  }
  neg(): Val {
    return toVal(0, this.t).sub(this);
  }
  // Comparisons give an i32 of 0 or 1.
  eq(other: Operand): Val {
    const right = this.#same(other);
    if (isZero(right)) return this.eqz();
    return this.#bin(right, 0x46, 0x51, (a, b) => (a === b ? 1n : 0n), true);
  }
  ne(other: Operand): Val {
    return this.#bin(other, 0x47, 0x52, (a, b) => (a !== b ? 1n : 0n), true);
  }
  ltS(other: Operand): Val {
    return this.#bin(other, 0x48, 0x53, (a, b) => (a < b ? 1n : 0n), true);
  }
  ltU(other: Operand): Val {
    return this.#bin(other, 0x49, 0x54, (a, b) => (this.#unsigned(a) < this.#unsigned(b) ? 1n : 0n), true);
  }
  gtS(other: Operand): Val {
    return this.#bin(other, 0x4a, 0x55, (a, b) => (a > b ? 1n : 0n), true);
  }
  gtU(other: Operand): Val {
    return this.#bin(other, 0x4b, 0x56, (a, b) => (this.#unsigned(a) > this.#unsigned(b) ? 1n : 0n), true);
  }
  leS(other: Operand): Val {
    return this.#bin(other, 0x4c, 0x57, (a, b) => (a <= b ? 1n : 0n), true);
  }
  leU(other: Operand): Val {
    return this.#bin(other, 0x4d, 0x58, (a, b) => (this.#unsigned(a) <= this.#unsigned(b) ? 1n : 0n), true);
  }
  geS(other: Operand): Val {
    return this.#bin(other, 0x4e, 0x59, (a, b) => (a >= b ? 1n : 0n), true);
  }
  geU(other: Operand): Val {
    return this.#bin(other, 0x4f, 0x5a, (a, b) => (this.#unsigned(a) >= this.#unsigned(b) ? 1n : 0n), true);
  }
  eqz(): Val {
    if (this.c !== undefined) return i32(BigInt(this.c) === 0n ? 1 : 0);
    return this.#un([this.t === 'i32' ? 0x45 : 0x50], 'i32');
  }
  /** An i32 of 0 or 1: whether this is not zero. */
  bool(): Val {
    return this.ne(0);
  }
  clz(): Val {
    return this.#un([this.t === 'i32' ? 0x67 : 0x79], this.t);
  }
  ctz(): Val {
    return this.#un([this.t === 'i32' ? 0x68 : 0x7a], this.t);
  }
  popcnt(): Val {
    return this.#un([this.t === 'i32' ? 0x69 : 0x7b], this.t);
  }
  // Width changes.
  /** Low 32 bits as i32 (i32 stays). */
  wrap(): Val {
    if (this.t === 'i32') return this;
    if (this.c !== undefined) return i32(Number(BigInt.asIntN(32, BigInt(this.c))));
    return this.#un([0xa7], 'i32');
  }
  /** Zero-extended to i64 (i64 stays). */
  zext(): Val {
    if (this.t === 'i64') return this;
    if (this.c !== undefined) return i64(BigInt(Number(this.c) >>> 0));
    return this.#un([0xad], 'i64');
  }
  /** Sign-extended from 32 bits to i64 (i64 stays). */
  sext(): Val {
    if (this.t === 'i64') return this;
    if (this.c !== undefined) return i64(BigInt(this.c));
    return this.#un([0xac], 'i64');
  }
  /** Sign-extends the low 8 bits within the type. */
  sext8(): Val {
    if (this.c !== undefined) return toVal(BigInt.asIntN(8, BigInt(this.c)), this.t);
    return this.#un([this.t === 'i32' ? 0xc0 : 0xc2], this.t);
  }
  sext16(): Val {
    if (this.c !== undefined) return toVal(BigInt.asIntN(16, BigInt(this.c)), this.t);
    return this.#un([this.t === 'i32' ? 0xc1 : 0xc3], this.t);
  }
  /** i64 only: sign-extends the low 32 bits. */
  sext32(): Val {
    this.#need('i64');
    return this.#un([0xc4], 'i64');
  }

  // Floating point (f32 and f64 share the method names).
  #fbin(other: Operand, op32: number, op64: number, compare = false): Val {
    const right = this.#same(other);
    if (this.t !== 'f32' && this.t !== 'f64') throw new Error(`float operator on ${this.t}`);
    return new Val(compare ? 'i32' : this.t, (out) => {
      this.emit(out);
      right.emit(out);
      out.u8(this.t === 'f32' ? op32 : op64);
    });
  }
  fadd(other: Operand): Val {
    return this.#fbin(other, 0x92, 0xa0);
  }
  fsub(other: Operand): Val {
    return this.#fbin(other, 0x93, 0xa1);
  }
  fmul(other: Operand): Val {
    return this.#fbin(other, 0x94, 0xa2);
  }
  fdiv(other: Operand): Val {
    return this.#fbin(other, 0x95, 0xa3);
  }
  feq(other: Operand): Val {
    return this.#fbin(other, 0x5b, 0x61, true);
  }
  fne(other: Operand): Val {
    return this.#fbin(other, 0x5c, 0x62, true);
  }
  flt(other: Operand): Val {
    return this.#fbin(other, 0x5d, 0x63, true);
  }
  fgt(other: Operand): Val {
    return this.#fbin(other, 0x5e, 0x64, true);
  }
  fle(other: Operand): Val {
    return this.#fbin(other, 0x5f, 0x65, true);
  }
  fge(other: Operand): Val {
    return this.#fbin(other, 0x60, 0x66, true);
  }
  fsqrt(): Val {
    return this.#un([this.t === 'f32' ? 0x91 : 0x9f], this.t);
  }
  fabs(): Val {
    return this.#un([this.t === 'f32' ? 0x8b : 0x99], this.t);
  }
  fneg(): Val {
    return this.#un([this.t === 'f32' ? 0x8c : 0x9a], this.t);
  }
  /** i32 <-> f32, i64 <-> f64: the same bits. */
  reinterpret(): Val {
    switch (this.t) {
      case 'i32':
        return this.#un([0xbe], 'f32');
      case 'i64':
        return this.#un([0xbf], 'f64');
      case 'f32':
        return this.#un([0xbc], 'i32');
      case 'f64':
        return this.#un([0xbd], 'i64');
      case 'v128':
        throw new Error('reinterpret of v128');
    }
  }
  /** f32 to f64, round to nearest is not involved. Signalling NaN payloads are the caller's business. */
  promote(): Val {
    this.#need('f32');
    return this.#un([0xbb], 'f64');
  }
  demote(): Val {
    this.#need('f64');
    return this.#un([0xb6], 'f32');
  }
  /** Any other numeric opcode: `opcode` may be a multi-byte sequence. */
  op1(opcode: readonly number[], result: WasmType): Val {
    return this.#un(opcode, result);
  }
  op2(other: Val, opcode: readonly number[], result: WasmType): Val {
    return new Val(result, (out) => {
      this.emit(out);
      other.emit(out);
      out.u8(...opcode);
    });
  }
  /** SIMD operators by their sub-opcode under prefix 0xfd (WebAssembly Core, 5.4.9). */
  simd1(sub: number, result: WasmType = 'v128'): Val {
    this.#need('v128');
    return this.op1(simdOpcode(sub), result);
  }
  simd2(other: Val, sub: number, result: WasmType = 'v128'): Val {
    this.#need('v128');
    return this.op2(other, simdOpcode(sub), result);
  }
  /** Lane access and replacement: `sub` is the opcode, `lane` its immediate. */
  lane(sub: number, lane: number, result: WasmType): Val {
    return this.op1([...simdOpcode(sub), lane], result);
  }
  withLane(sub: number, lane: number, value: Val): Val {
    return this.op2(value, [...simdOpcode(sub), lane], 'v128');
  }
}

/** The byte sequence of a SIMD instruction: prefix 0xfd and the LEB128 sub-opcode. */
export function simdOpcode(sub: number): number[] {
  return sub < 0x80 ? [0xfd, sub] : [0xfd, (sub & 0x7f) | 0x80, sub >> 7];
}

function isZero(value: Val): boolean {
  return value.c !== undefined && BigInt(value.c) === 0n;
}

export function i32(value: number): Val {
  const constant = mask32(value);
  return new Val('i32', (out) => (out.u8(0x41), out.s32(constant)), true, constant);
}

export function i64(value: number | bigint): Val {
  const constant = mask64(BigInt(value));
  return new Val('i64', (out) => (out.u8(0x42), out.s64(constant)), true, constant);
}

export function f64(value: number): Val {
  return new Val('f64', (out) => (out.u8(0x44), out.f64(value)), true);
}

/** A v128 constant from 16 bytes. */
export function v128(bytes: readonly number[]): Val {
  if (bytes.length !== 16) throw new Error('a v128 constant has 16 bytes');
  return new Val('v128', (out) => (out.u8(0xfd, 0x0c), out.u8(...bytes)), true);
}

/** Shuffle of two vectors by 16 lane numbers (0-31). */
export function shuffle(a: Val, b: Val, lanes: readonly number[]): Val {
  return a.op2(b, [0xfd, 0x0d, ...lanes], 'v128');
}

export function toVal(value: Operand, type: WasmType): Val {
  if (value instanceof Val) return value;
  if (type === 'i32') return i32(Number(BigInt.asIntN(32, BigInt(value))));
  if (type === 'i64') return i64(value);
  if (type === 'f64') return f64(Number(value));
  throw new Error(`no constant of type ${type}`);
}

/** `condition ? a : b`; both sides are evaluated. */
export function select(condition: Val, a: Val, b: Val): Val {
  if (a.t !== b.t) throw new Error(`select of ${a.t} and ${b.t}`);
  if (condition.t !== 'i32') throw new Error('select condition must be i32');
  if (condition.c !== undefined) return condition.c !== 0 ? a : b;
  const typed = a.t === 'v128';
  return new Val(a.t, (out) => {
    a.emit(out);
    b.emit(out);
    condition.emit(out);
    if (typed) out.u8(0x1c, 1, 0x7b);
    else out.u8(0x1b);
  });
}
