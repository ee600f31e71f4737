/** MMX state, masked stores, string comparison of SSE4.2, CRC32, and carry-less and AES arithmetic. */
import { ALIGN, CPU, REC, RECFLAG, VEC, RDI } from '../layout.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { lane32, shiftLanes, SIMD, splat, splatOf, ZERO128, fromLow } from '../wasm/simd.ts';
import { i32, i64, select, shuffle, v128, type Val } from '../wasm/value.ts';
import { routine, type Routine } from './library.ts';

const stateRoutines: readonly Routine[] = [
  /** Before an MMX instruction: a pending x87 exception. */
  routine('mmx_begin', ['i32'], [], (f, lib) => {
    const cpu = f.p(0);
    f.if(f.load('32', cpu, CPU.fsw).and(0x80), () => f.call(lib('raise'), cpu, i32(VEC.MF)));
  }),
  routine('mmx_done', ['i32'], [], (f) => {
    f.store('32', f.p(0), i32(0), CPU.ftop);
    f.store('32', f.p(0), i32(0xff), CPU.ftw);
  }),
  routine('mmx_empty', ['i32'], [], (f) => {
    f.store('32', f.p(0), i32(0), CPU.ftop);
    f.store('32', f.p(0), i32(0), CPU.ftw);
  }),

  /** MASKMOVQ, MASKMOVDQU: (cpu, record, data, mask, bytes) to [rDI] of the record's segment and address size. */
  routine('mask_move', ['i32', 'i32', 'v128', 'v128', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const record = f.p(1);
    const bits = f.let(f.p(3).simd1(SIMD.i8x16Bitmask, 'i32'));
    const size = f.let(f.load('8u', record, REC.addressSize));
    const rdi = f.let(f.load('64', cpu, CPU.gpr + RDI * 8));
    const offset = f.let(
      rdi.and(select(size.eq(8), i64(-1), select(size.eq(4), i64(0xffffffff), i64(0xffff)))),
    );
    const base = f.local('i64');
    f.if(
      f.load('32', record, REC.flags).and(RECFLAG.long),
      () => base.set(offset.add(f.load('64', cpu.add(f.load('16u', record, REC.segBase))))),
      () =>
        base.set(
          f.callValue(lib('segment_linear'), cpu, f.load('8u', record, REC.segment), offset, f.p(4), i32(1)),
        ),
    );
    // AMD wants all bytes of the operand to be writable (measured), Intel those whose mask bit is set (SDM vol. 2).
    f.if(
      f.load('32', cpu, CPU.vendor),
      () => {
        // The alignment of the whole operand, bits set or not (measured).
        f.call(lib('check_alignment'), cpu, base.get, i32(8));
        f.if(bits.eqz(), () => f.return());
        const first = f.let(bits.ctz());
        const bytes = f.let(i32(32).sub(bits.clz()).sub(first));
        f.call(lib('probe_write'), cpu, base.get.add(first.zext()), bytes.or(ALIGN.any));
      },
      () => f.call(lib('probe_write'), cpu, base.get, f.p(4)),
    );
    for (let k = 0; k < 16; k++) {
      f.if(bits.and(1 << k), () =>
        f.call(lib('st8'), cpu, base.get.add(k), f.p(2).lane(SIMD.i8x16ExtractU, k, 'i32')),
      );
    }
  }),
];

/** Bits of the immediate of PCMPxSTRx (SDM vol. 2, 4.1). */
const STRING = { words: 1, signed: 2, polarity: 0x10, masked: 0x20, expand: 0x40 } as const;

const stringRoutines: readonly Routine[] = [
  /** Explicit length: the absolute value of a register (all of it with REX.W), at most 16 or 8. */
  routine('string_length', ['i64', 'i32', 'i32'], ['i32'], (f) => {
    const value = f.let(select(f.p(1).and(RECFLAG.rexW), f.p(0), f.p(0).sext32()));
    const length = f.let(select(value.ltS(0), value.neg(), value));
    const most = f.let(select(f.p(2).and(STRING.words), i32(8), i32(16)));
    f.return(select(length.gtU(most.zext()), most, length.wrap()));
    f.unreachable();
  }),
  /** Implicit length: elements before the first zero. */
  routine('string_end', ['v128', 'i32'], ['i32'], (f) => {
    f.if(f.p(1).and(STRING.words), () =>
      f.return(f.p(0).simd2(ZERO128, SIMD.i16x8Eq).simd1(SIMD.i16x8Bitmask, 'i32').or(0x100).ctz()),
    );
    f.return(f.p(0).simd2(ZERO128, SIMD.i8x16Eq).simd1(SIMD.i8x16Bitmask, 'i32').or(0x10000).ctz());
    f.unreachable();
  }),
  /**
   * (cpu, a, b, imm8, length of a, length of b): IntRes2 in bits 0-15, and above it CF, ZF, SF, OF at their EFLAGS positions
   * shifted left by 16.
   */
  routine('string_compare', ['i32', 'v128', 'v128', 'i32', 'i32', 'i32'], ['i32'], (f) => {
    const cpu = f.p(0);
    const imm = f.p(3);
    const lengthA = f.p(4);
    const lengthB = f.p(5);
    const atA = f.let(cpu.add(CPU.scratch));
    const atB = f.let(cpu.add(CPU.scratch + 16));
    f.store('v128', atA, f.p(1));
    f.store('v128', atB, f.p(2));
    const words = f.let(imm.and(STRING.words));
    const count = f.let(i32(16).shrU(words));
    const element = (base: Val, index: Val): Val => {
      const at = f.let(base.add(index.shl(words)));
      const value = f.local('i32');
      f.if(
        words,
        () => value.set(select(imm.and(STRING.signed), f.load('16s', at), f.load('16u', at))),
        () => value.set(select(imm.and(STRING.signed), f.load('8s', at), f.load('8u', at))),
      );
      return value.get;
    };
    const result = f.local('i32', 0);
    const j = f.local('i32', 0);
    const i = f.local('i32');
    const hit = f.local('i32');
    const setBit = (): void => result.set(result.get.or(hit.get.shl(j.get)));
    const each = (
      index: ReturnType<FunctionBuilder['local']>,
      end: () => Val,
      body: () => void,
      step = 1,
    ): void =>
      f.while(
        () => index.get.ltU(end()),
        () => {
          body();
          index.set(index.get.add(step));
        },
      );
    const eachB = (body: () => void): void => each(j, () => count, body);
    f.switch(
      imm.shrU(2).and(3),
      [
        // Equal any: an element of b is one of a's.
        () =>
          eachB(() => {
            hit.set(0);
            i.set(0);
            const b = element(atB, j.get);
            each(
              i,
              () => lengthA,
              () => f.scope(() => hit.set(hit.get.or(element(atA, i.get).eq(b)))),
            );
            hit.set(hit.get.and(j.get.ltU(lengthB)));
            setBit();
          }),
        // Ranges: between the two of one of a's pairs.
        () =>
          eachB(() => {
            hit.set(0);
            i.set(0);
            const b = element(atB, j.get);
            each(
              i,
              () => lengthA.and(-2),
              () =>
                f.scope(() => {
                  const low = element(atA, i.get);
                  const high = element(atA, f.let(i.get.add(1)));
                  const signed = low.leS(b).and(b.leS(high));
                  const unsigned = low.leU(b).and(b.leU(high));
                  hit.set(hit.get.or(select(imm.and(STRING.signed), signed, unsigned)));
                }),
              2,
            );
            hit.set(hit.get.and(j.get.ltU(lengthB)));
            setBit();
          }),
        // Equal each: position by position; both past their ends is equal.
        () =>
          eachB(() => {
            const validA = f.let(j.get.ltU(lengthA));
            const validB = f.let(j.get.ltU(lengthB));
            const equal = element(atA, j.get).eq(element(atB, j.get));
            hit.set(select(validA.and(validB), equal, validA.or(validB).eqz()));
            setBit();
          }),
      ],
      // Equal ordered: a begins at this place of b; what is past a's end matches, what is past b's does not.
      () =>
        eachB(() => {
          hit.set(1);
          i.set(0);
          each(
            i,
            () => count.sub(j.get),
            () =>
              f.scope(() => {
                const at = f.let(i.get.add(j.get));
                const equal = f.let(element(atA, i.get).eq(element(atB, at)).and(at.ltU(lengthB)));
                hit.set(hit.get.and(equal.or(i.get.geU(lengthA))));
              }),
          );
          setBit();
        }),
    );
    const all = f.let(i32(1).shl(count).sub(1));
    const validB = f.let(i32(1).shl(lengthB).sub(1));
    f.if(imm.and(STRING.polarity), () =>
      result.set(result.get.xor(select(imm.and(STRING.masked), validB, all))),
    );
    const flags = result.get
      .bool()
      .or(lengthB.ltU(count).shl(6))
      .or(lengthA.ltU(count).shl(7))
      .or(result.get.and(1).shl(11));
    f.return(result.get.or(flags.shl(16)));
    f.unreachable();
  }),
  /** XMM0 of PCMPxSTRM: the bits themselves, or all ones in the elements that they name. */
  routine('string_mask', ['i32', 'i32'], ['v128'], (f) => {
    const bits = f.p(0);
    f.if(f.p(1).and(STRING.expand).eqz(), () => f.return(fromLow(bits)));
    f.if(f.p(1).and(STRING.words), () => {
      const each = v128([0, 1, 2, 3, 4, 5, 6, 7].flatMap((k) => [1 << k, 0]));
      f.return(splatOf(bits, SIMD.i16x8Splat).simd2(each, SIMD.and).simd2(each, SIMD.i16x8Eq));
    });
    const each = v128(Array.from({ length: 16 }, (_, k) => 1 << (k & 7)));
    const spread = fromLow(bits).simd2(v128([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]), SIMD.swizzle);
    f.return(spread.simd2(each, SIMD.and).simd2(each, SIMD.i8x16Eq));
    f.unreachable();
  }),
];

/** CRC-32C, bits reflected: polynomial 0x11edc6f41. */
const CRC_POLYNOMIAL = 0x82f63b78n;

/** The inverse of 1 + 2P modulo x^64, lowest coefficient in bit 0. */
function crcInverse(): bigint {
  const divisor = 1n | (CRC_POLYNOMIAL << 1n);
  let inverse = 0n;
  let rest = 1n;
  for (let bit = 0n; bit < 64n; bit++) {
    if (((rest >> bit) & 1n) === 0n) continue;
    inverse |= 1n << bit;
    rest ^= divisor << bit;
  }
  return inverse;
}

/** Products of polynomials over GF(2) with ordinary multiplications: four bits apart, carries never meet. */
function carrylessLow(f: FunctionBuilder, x: Val, y: Val): Val {
  const MASKS = [0x1111111111111111n, 0x2222222222222222n, 0x4444444444444444n, 0x8888888888888888n];
  const xs = MASKS.map((mask) => f.let(x.and(mask)));
  const ys = MASKS.map((mask) => f.let(y.and(mask)));
  const columns = MASKS.map((mask, column) =>
    xs
      .map((part, k) => part.mul(ys[(column - k + 4) & 3] as Val))
      .reduce((a, b) => a.xor(b))
      .and(mask),
  );
  return f.let(columns.reduce((a, b) => a.or(b)));
}

function reverseBits(f: FunctionBuilder, value: Val): Val {
  let x = f.let(value);
  const swap = (shift: number, mask: bigint): void => {
    x = f.let(x.shrU(shift).and(mask).or(x.and(mask).shl(shift)));
  };
  swap(1, 0x5555555555555555n);
  swap(2, 0x3333333333333333n);
  swap(4, 0x0f0f0f0f0f0f0f0fn);
  swap(8, 0x00ff00ff00ff00ffn);
  swap(16, 0x0000ffff0000ffffn);
  return f.let(x.rotl(32));
}

const productRoutines: readonly Routine[] = [
  /** (crc, value, bits of value: 8 to 64). A narrow value works on the low bits of the state; the rest only moves down. */
  routine('crc32c', ['i32', 'i64', 'i32'], ['i32'], (f, lib) => {
    const state = f.let(f.p(0).zext().xor(f.p(1)));
    const bits = f.let(f.p(2).zext());
    const rest = select(f.p(2).eq(64), i64(0), state.shrU(bits));
    const consumed = f.callValue(lib('crc32c_reduce'), state.shl(i64(64).sub(bits)));
    f.return(consumed.xor(rest.wrap()));
    f.unreachable();
  }),
  /**
   * 64 steps of the shift register that holds the argument: the bits that fall out are its product with the inverse of
   * 1 + 2P, and each adds P, moved down for the steps that follow it.
   */
  routine('crc32c_reduce', ['i64'], ['i32'], (f) => {
    const fallen = carrylessLow(f, f.p(0), i64(crcInverse()));
    let sum: Val | undefined;
    for (let bit = 0; bit < 32; bit++) {
      if (((CRC_POLYNOMIAL >> BigInt(bit)) & 1n) === 0n) continue;
      const term = fallen.shrU(63 - bit);
      sum = sum ? sum.xor(term) : term;
    }
    f.return((sum as Val).wrap());
    f.unreachable();
  }),
  routine('carryless_multiply', ['i64', 'i64'], ['v128'], (f) => {
    const low = carrylessLow(f, f.p(0), f.p(1));
    // The product of the reversed factors is the reversed product, of 127 bits.
    const mirrored = carrylessLow(f, reverseBits(f, f.p(0)), reverseBits(f, f.p(1)));
    const high = reverseBits(f, mirrored).shrU(1);
    f.return(fromLow(low).withLane(SIMD.i64x2Replace, 1, high));
    f.unreachable();
  }),
];

/** The S-box of AES (FIPS 197, 5.1.1): the inverse in GF(2^8), and an affine map. */
export function aesSbox(): { forward: number[]; inverse: number[] } {
  const multiply = (a: number, b: number): number => {
    let product = 0;
    for (let bit = 0; bit < 8; bit++) {
      if (b & (1 << bit)) product ^= a << bit;
    }
    for (let bit = 14; bit >= 8; bit--) if (product & (1 << bit)) product ^= 0x11b << (bit - 8);
    return product;
  };
  const forward: number[] = [];
  const inverse: number[] = new Array<number>(256).fill(0);
  for (let x = 0; x < 256; x++) {
    // x^254
    let power = 1;
    for (let n = 0; n < 254; n++) power = multiply(power, x);
    if (x === 0) power = 0;
    let y = 0x63;
    for (let turn = 0; turn < 5; turn++) y ^= ((power << turn) | (power >> (8 - turn))) & 0xff;
    forward.push(y);
    inverse[y] = x;
  }
  return { forward, inverse };
}

/** Looks all bytes up in a table of 256: sixteen swizzles, of which each answers for one high nibble. */
function substitute(f: FunctionBuilder, x: Val, table: readonly number[]): Val {
  let result: Val | undefined;
  for (let high = 0; high < 16; high++) {
    const part = v128(table.slice(high * 16, high * 16 + 16)).simd2(
      x.simd2(splat(high << 4, 1), SIMD.xor),
      SIMD.swizzle,
    );
    result = result ? result.simd2(part, SIMD.or) : part;
  }
  return f.let(result as Val);
}

const rows = (map: (column: number, row: number) => number): number[] =>
  Array.from({ length: 16 }, (_, at) => map(at >> 2, at & 3));
/** Rotates each column by `n` rows. */
const rotateRows = (x: Val, n: number): Val =>
  shuffle(
    x,
    x,
    rows((column, row) => column * 4 + ((row + n) & 3)),
  );

function timesX(x: Val): Val {
  const reduce = shiftLanes(x, i32(7), SIMD.i8x16ShrS).simd2(splat(0x1b, 1), SIMD.and);
  return shiftLanes(x, i32(1), SIMD.i8x16Shl).simd2(reduce, SIMD.xor);
}
const xor = (a: Val, b: Val): Val => a.simd2(b, SIMD.xor);

function mixColumns(f: FunctionBuilder, x: Val): Val {
  const next = f.let(rotateRows(x, 1));
  const doubled = timesX(f.let(xor(x, next)));
  return f.let(xor(xor(doubled, next), xor(rotateRows(x, 2), rotateRows(x, 3))));
}
/** InvMixColumns is MixColumns after multiplying by 4x^2 + 5. */
function inverseMixColumns(f: FunctionBuilder, x: Val): Val {
  const two = f.let(timesX(f.let(xor(x, rotateRows(x, 2)))));
  return mixColumns(f, f.let(xor(x, timesX(two))));
}

const { forward: SBOX, inverse: INVERSE_SBOX } = aesSbox();

const aesRoutines: readonly Routine[] = [
  routine('aes_sub', ['v128'], ['v128'], (f) => {
    f.return(substitute(f, f.p(0), SBOX));
    f.unreachable();
  }),
  /** (state, round key, whether the last round). */
  routine('aes_encrypt', ['v128', 'v128', 'i32'], ['v128'], (f, lib) => {
    const moved = shuffle(
      f.p(0),
      f.p(0),
      rows((column, row) => ((column + row) & 3) * 4 + row),
    );
    const x = f.callValue(lib('aes_sub'), moved);
    f.if(f.p(2), () => f.return(xor(x, f.p(1))));
    f.return(xor(mixColumns(f, x), f.p(1)));
    f.unreachable();
  }),
  routine('aes_decrypt', ['v128', 'v128', 'i32'], ['v128'], (f) => {
    const moved = f.let(
      shuffle(
        f.p(0),
        f.p(0),
        rows((column, row) => ((column - row) & 3) * 4 + row),
      ),
    );
    const x = substitute(f, moved, INVERSE_SBOX);
    f.if(f.p(2), () => f.return(xor(x, f.p(1))));
    f.return(xor(inverseMixColumns(f, x), f.p(1)));
    f.unreachable();
  }),
  routine('aes_inverse_mix', ['v128'], ['v128'], (f) => {
    f.return(inverseMixColumns(f, f.p(0)));
    f.unreachable();
  }),
  /** AESKEYGENASSIST: (source, round constant). */
  routine('aes_key', ['v128', 'i32'], ['v128'], (f, lib) => {
    const x = f.callValue(lib('aes_sub'), f.p(0));
    const constant = f.let(f.p(1));
    const first = f.let(lane32(x, 1));
    const third = f.let(lane32(x, 3));
    f.return(
      fromLow(first)
        .withLane(SIMD.i32x4Replace, 1, first.rotr(8).xor(constant))
        .withLane(SIMD.i32x4Replace, 2, third)
        .withLane(SIMD.i32x4Replace, 3, third.rotr(8).xor(constant)),
    );
    f.unreachable();
  }),
];

export const sseMiscRoutines: readonly Routine[] = [
  ...stateRoutines,
  ...stringRoutines,
  ...productRoutines,
  ...aesRoutines,
];
