/**
 * Arithmetic of SSE and SSE2 on vectors and scalars: with WebAssembly's own when its result and flags are known to be x86's
 * (round to nearest, ordinary operands, PE already set and masked, so that nothing changes in MXCSR), else lane by lane with
 * the routines of float.ts. NaNs that WebAssembly makes never become visible: a lane with a NaN never takes the fast path.
 */
import { CPU } from '../layout.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { bitselect, fromLow, lane32, lane64, SIMD, splat, splatOf, ZERO128 } from '../wasm/simd.ts';
import { i32, i64, select, shuffle, type Val } from '../wasm/value.ts';
import { MXCSR } from './float.ts';
import { routine, type Routine } from './library.ts';
import type { Library } from '../sem.ts';

/** A vector or scalar type of SSE. */
interface Shape {
  /** Suffix of mnemonics. */
  readonly suffix: 'ps' | 'pd' | 'ss' | 'sd';
  readonly scalar: 'f32' | 'f64';
  readonly lanes: 1 | 2 | 4;
  readonly type: 'i32' | 'i64' | 'v128';
}

const SHAPES: readonly Shape[] = [
  { suffix: 'ps', scalar: 'f32', lanes: 4, type: 'v128' },
  { suffix: 'pd', scalar: 'f64', lanes: 2, type: 'v128' },
  { suffix: 'ss', scalar: 'f32', lanes: 1, type: 'i32' },
  { suffix: 'sd', scalar: 'f64', lanes: 1, type: 'i64' },
];

const MIN_NORMAL = { f32: 0x00800000n, f64: 0x0010000000000000n } as const;
const INFINITY_BITS = { f32: 0x7f800000n, f64: 0x7ff0000000000000n } as const;
const ABS = { f32: 0x7fffffffn, f64: 0x7fffffffffffffffn } as const;
const QUIET = { f32: 0x00400000n, f64: 0x0008000000000000n } as const;
const intBytes = (shape: Shape): 4 | 8 => (shape.scalar === 'f32' ? 4 : 8);
const is32 = (shape: Shape): boolean => shape.scalar === 'f32';

/** Conditions on lanes as masks (vectors) or 0/1 (scalars). All are false for NaNs. */
interface Tests {
  zero(x: Val): Val;
  /** Finite, not zero, not denormal. */
  normal(x: Val): Val;
  /** Finite and larger than the smallest normal number: certainly not tiny before rounding. */
  clear(x: Val): Val;
  /** Neither NaN nor denormal. */
  plain(x: Val): Val;
  /** Whether all lanes hold. */
  all(mask: Val): Val;
}

/** `x` must be bound. Everything is integer arithmetic, on the bits. */
function tests(shape: Shape): Tests {
  const abs = ABS[shape.scalar];
  const min = MIN_NORMAL[shape.scalar];
  const inf = INFINITY_BITS[shape.scalar];
  if (shape.type !== 'v128') {
    return {
      zero: (x) => x.shl(1).eqz(),
      normal: (x) =>
        x
          .and(abs)
          .sub(min)
          .ltU(inf - min),
      clear: (x) =>
        x
          .and(abs)
          .sub(min + 1n)
          .ltU(inf - min - 1n),
      plain: (x) =>
        x
          .and(abs)
          .sub(min)
          .leU(inf - min)
          .or(x.shl(1).eqz()),
      all: (mask) => mask,
    };
  }
  const bytes = intBytes(shape);
  const [ge, le, lt, gt, absolute, equal, allTrue] = is32(shape)
    ? [SIMD.f32x4Ge, SIMD.f32x4Le, SIMD.f32x4Lt, SIMD.f32x4Gt, SIMD.f32x4Abs, SIMD.f32x4Eq, SIMD.i32x4AllTrue]
    : [
        SIMD.f64x2Ge,
        SIMD.f64x2Le,
        SIMD.f64x2Lt,
        SIMD.f64x2Gt,
        SIMD.f64x2Abs,
        SIMD.f64x2Eq,
        SIMD.i64x2AllTrue,
      ];
  const c = (bits: bigint): Val => splat(bits, bytes);
  return {
    zero: (x) => x.simd2(ZERO128, equal),
    normal: (x) =>
      x
        .simd1(absolute)
        .simd2(c(min), ge)
        .simd2(x.simd1(absolute).simd2(c(inf), lt), SIMD.and),
    clear: (x) =>
      x
        .simd1(absolute)
        .simd2(c(min), gt)
        .simd2(x.simd1(absolute).simd2(c(inf), lt), SIMD.and),
    plain: (x) =>
      x
        .simd1(absolute)
        .simd2(c(min), ge)
        .simd2(x.simd2(ZERO128, equal), SIMD.or)
        .simd2(x.simd1(absolute).simd2(c(inf), le), SIMD.and),
    all: (mask) => mask.simd1(allTrue, 'i32'),
  };
}

const both = (shape: Shape, a: Val, b: Val): Val => (shape.type === 'v128' ? a.simd2(b, SIMD.and) : a.and(b));
const either = (shape: Shape, a: Val, b: Val): Val => (shape.type === 'v128' ? a.simd2(b, SIMD.or) : a.or(b));

/** Round to nearest, PE set and masked: an inexact result changes nothing. */
function settled(f: FunctionBuilder): Val {
  return f
    .load('32', f.p(0), CPU.mxcsr)
    .and(MXCSR.RC | MXCSR.PM | MXCSR.PE)
    .eq(MXCSR.PM | MXCSR.PE);
}

function extract(shape: Shape, vector: Val, lane: number): Val {
  if (shape.type !== 'v128') return vector;
  return is32(shape) ? lane32(vector, lane) : lane64(vector, lane as 0 | 1);
}

/** Builds a vector (or the scalar) lane by lane with a routine, first to last. */
function byLanes(f: FunctionBuilder, shape: Shape, lane: (index: number) => Val): Val {
  if (shape.type !== 'v128') return lane(0);
  const result = f.local('v128', ZERO128);
  for (let index = 0; index < shape.lanes; index++) {
    const value = f.let(lane(index));
    result.set(result.get.withLane(is32(shape) ? SIMD.i32x4Replace : SIMD.i64x2Replace, index, value));
  }
  return result.get;
}

function start(f: FunctionBuilder): void {
  f.store('32', f.p(0), i32(0), CPU.floatFlags);
}
function finish(f: FunctionBuilder, lib: Library): void {
  f.call(lib('float_finish'), f.p(0));
}

/** Native operator of a shape. */
function native(shape: Shape, op: 'add' | 'sub' | 'mul' | 'div', a: Val, b: Val): Val {
  if (shape.type === 'v128') {
    const single = { add: SIMD.f32x4Add, sub: SIMD.f32x4Sub, mul: SIMD.f32x4Mul, div: SIMD.f32x4Div };
    const double = { add: SIMD.f64x2Add, sub: SIMD.f64x2Sub, mul: SIMD.f64x2Mul, div: SIMD.f64x2Div };
    return a.simd2(b, (is32(shape) ? single : double)[op]);
  }
  const x = a.reinterpret();
  const y = b.reinterpret();
  const r = op === 'add' ? x.fadd(y) : op === 'sub' ? x.fsub(y) : op === 'mul' ? x.fmul(y) : x.fdiv(y);
  return r.reinterpret();
}

function shapeRoutines(shape: Shape): Routine[] {
  const { suffix, type } = shape;
  const test = tests(shape);
  const list: Routine[] = [];

  /** DAZ: denormals become zeros of their sign. */
  list.push(
    routine(`daz_${suffix}`, ['i32', type], [type], (f) => {
      const x = f.p(1);
      f.if(f.load('32', f.p(0), CPU.mxcsr).and(MXCSR.DAZ).eqz(), () => f.return(x));
      if (shape.type === 'v128') {
        const exponent = x.simd2(splat(INFINITY_BITS[shape.scalar], intBytes(shape)), SIMD.and);
        const mask = exponent.simd2(ZERO128, is32(shape) ? SIMD.i32x4Eq : SIMD.i64x2Eq);
        const sign = x.simd2(splat(ABS[shape.scalar], intBytes(shape)), SIMD.andnot);
        f.return(bitselect(sign, x, mask));
      } else {
        f.return(select(x.and(INFINITY_BITS[shape.scalar]).eqz(), x.and(~ABS[shape.scalar]), x));
      }
      f.unreachable();
    }),
  );

  for (const op of ['add', 'sub', 'mul', 'div'] as const) {
    list.push(
      routine(`${op}${suffix}`, ['i32', type, type], [type], (f, lib) => {
        const a = f.p(1);
        const b = f.p(2);
        f.if(settled(f), () => {
          const r = f.let(native(shape, op, a, b));
          const okA = f.let(either(shape, test.normal(a), test.zero(a)));
          const zeroA = (): Val => test.zero(a);
          let good: Val;
          if (op === 'div')
            good = both(shape, both(shape, okA, test.normal(b)), either(shape, test.clear(r), zeroA()));
          else {
            const okB = f.let(either(shape, test.normal(b), test.zero(b)));
            const zero = op === 'mul' ? either(shape, zeroA(), test.zero(b)) : test.zero(r);
            good = both(shape, both(shape, okA, okB), either(shape, test.clear(r), zero));
          }
          f.if(test.all(good), () => f.return(r));
        });
        start(f);
        const x = f.callValue(lib(`daz_${suffix}`), f.p(0), a);
        const y = f.callValue(lib(`daz_${suffix}`), f.p(0), b);
        const r = byLanes(f, shape, (lane) =>
          f.callValue(lib(`${shape.scalar}_${op}`), f.p(0), extract(shape, x, lane), extract(shape, y, lane)),
        );
        finish(f, lib);
        f.return(r);
        f.unreachable();
      }),
    );
  }

  list.push(
    routine(`sqrt${suffix}`, ['i32', type], [type], (f, lib) => {
      const a = f.p(1);
      f.if(settled(f), () => {
        // The root of a normal number is normal; of a zero it is that zero.
        const root =
          shape.type === 'v128'
            ? a.simd1(is32(shape) ? SIMD.f32x4Sqrt : SIMD.f64x2Sqrt)
            : a.reinterpret().fsqrt().reinterpret();
        const notNegative =
          shape.type === 'v128'
            ? a.simd2(ZERO128, is32(shape) ? SIMD.f32x4Ge : SIMD.f64x2Ge)
            : a.geS(0).or(test.zero(a));
        const good = both(shape, either(shape, test.normal(a), test.zero(a)), notNegative);
        f.if(test.all(good), () => f.return(root));
      });
      start(f);
      const x = f.callValue(lib(`daz_${suffix}`), f.p(0), a);
      const r = byLanes(f, shape, (lane) =>
        f.callValue(lib(`${shape.scalar}_sqrt`), f.p(0), extract(shape, x, lane)),
      );
      finish(f, lib);
      f.return(r);
      f.unreachable();
    }),
  );

  /** Flags of a comparison (`signalling`: QNaNs are invalid too), lane by lane; leaves the operands cleared by DAZ to the caller. */
  list.push(
    routine(`compare_flags_${suffix}`, ['i32', type, type, 'i32'], [], (f, lib) => {
      const a = f.p(1);
      const b = f.p(2);
      f.if(test.all(both(shape, test.plain(a), test.plain(b))), () => f.return());
      start(f);
      for (let lane = 0; lane < shape.lanes; lane++) {
        f.call(
          lib(`${shape.scalar}_compare_flags`),
          f.p(0),
          extract(shape, a, lane),
          extract(shape, b, lane),
          f.p(3),
        );
      }
      finish(f, lib);
    }),
  );

  for (const op of ['min', 'max'] as const) {
    list.push(
      routine(`${op}${suffix}`, ['i32', type, type], [type], (f, lib) => {
        const a = f.callValue(lib(`daz_${suffix}`), f.p(0), f.p(1));
        const b = f.callValue(lib(`daz_${suffix}`), f.p(0), f.p(2));
        f.call(lib(`compare_flags_${suffix}`), f.p(0), a, b, i32(1));
        // a < b ? a : b (a > b for MAX): with NaNs and equal zeros the second operand, unchanged.
        if (shape.type === 'v128') {
          const compare = is32(shape)
            ? op === 'min'
              ? SIMD.f32x4Lt
              : SIMD.f32x4Gt
            : op === 'min'
              ? SIMD.f64x2Lt
              : SIMD.f64x2Gt;
          f.return(bitselect(a, b, a.simd2(b, compare)));
        } else {
          const x = a.reinterpret();
          const y = b.reinterpret();
          f.return(select(op === 'min' ? x.flt(y) : x.fgt(y), a, b));
        }
        f.unreachable();
      }),
    );
  }

  /** CMPxx: (a, b, predicate 0-7) gives masks of ones and zeros. */
  list.push(
    routine(`cmp${suffix}`, ['i32', type, type, 'i32'], [type], (f, lib) => {
      const a = f.callValue(lib(`daz_${suffix}`), f.p(0), f.p(1));
      const b = f.callValue(lib(`daz_${suffix}`), f.p(0), f.p(2));
      const predicate = f.let(f.p(3).and(3));
      // LT and LE, and their negations, signal QNaNs.
      f.call(lib(`compare_flags_${suffix}`), f.p(0), a, b, predicate.eq(1).or(predicate.eq(2)));
      const result = f.local(type);
      if (shape.type === 'v128') {
        const ops = is32(shape)
          ? [SIMD.f32x4Eq, SIMD.f32x4Lt, SIMD.f32x4Le]
          : [SIMD.f64x2Eq, SIMD.f64x2Lt, SIMD.f64x2Le];
        const ne = is32(shape) ? SIMD.f32x4Ne : SIMD.f64x2Ne;
        const cases = ops.map((sub) => () => result.set(a.simd2(b, sub)));
        f.switch(predicate, cases, () => result.set(a.simd2(a, ne).simd2(b.simd2(b, ne), SIMD.or)));
        f.if(f.p(3).and(4), () => result.set(result.get.simd1(SIMD.not)));
      } else {
        const x = (): Val => a.reinterpret();
        const y = (): Val => b.reinterpret();
        const hold = f.local('i32');
        f.switch(
          predicate,
          [() => hold.set(x().feq(y())), () => hold.set(x().flt(y())), () => hold.set(x().fle(y()))],
          () => hold.set(x().fne(x()).or(y().fne(y()))),
        );
        const mask = f.let(hold.get.xor(f.p(3).shrU(2).and(1)).neg());
        result.set(type === 'i64' ? mask.sext() : mask);
      }
      f.return(result.get);
      f.unreachable();
    }),
  );

  if (shape.lanes === 1) {
    /** COMIS (signalling 1) and UCOMIS: ZF, PF, CF at their EFLAGS positions. */
    list.push(
      routine(`comi${suffix}`, ['i32', type, type, 'i32'], ['i32'], (f, lib) => {
        const a = f.callValue(lib(`daz_${suffix}`), f.p(0), f.p(1));
        const b = f.callValue(lib(`daz_${suffix}`), f.p(0), f.p(2));
        f.call(lib(`compare_flags_${suffix}`), f.p(0), a, b, f.p(3));
        const x = (): Val => a.reinterpret();
        const y = (): Val => b.reinterpret();
        f.if(x().fgt(y()), () => f.return(i32(0)));
        f.if(x().flt(y()), () => f.return(i32(0x01)));
        f.if(x().feq(y()), () => f.return(i32(0x40)));
        f.return(i32(0x45));
        f.unreachable();
      }),
    );
  }

  /** ROUNDxx: (value, imm8): bits 0-1 mode, bit 2 mode by MXCSR, bit 3 no PE (SDM vol. 2, table 4-18). */
  list.push(
    routine(`round${suffix}`, ['i32', type, 'i32'], [type], (f, lib) => {
      const x = f.callValue(lib(`daz_${suffix}`), f.p(0), f.p(1));
      const mode = f.let(select(f.p(2).and(4), f.load('32', f.p(0), CPU.mxcsr).shrU(13), f.p(2)).and(3));
      const flags = f.local('i32', 0);
      const r = f.local(type);
      if (shape.type === 'v128') {
        const subs = is32(shape)
          ? [SIMD.f32x4Nearest, SIMD.f32x4Floor, SIMD.f32x4Ceil, SIMD.f32x4Trunc]
          : [SIMD.f64x2Nearest, SIMD.f64x2Floor, SIMD.f64x2Ceil, SIMD.f64x2Trunc];
        f.switch(
          mode,
          subs.slice(0, 3).map((sub) => () => r.set(x.simd1(sub))),
          () => r.set(x.simd1(subs[3] as number)),
        );
        const ne = is32(shape) ? SIMD.f32x4Ne : SIMD.f64x2Ne;
        const nan = f.let(x.simd2(x, ne));
        const quiet = splat(QUIET[shape.scalar], intBytes(shape));
        f.if(r.get.simd2(x, ne).simd2(nan, SIMD.andnot).simd1(SIMD.anyTrue, 'i32'), () =>
          flags.set(MXCSR.PE),
        );
        f.if(nan.simd1(SIMD.anyTrue, 'i32'), () => {
          r.set(bitselect(x.simd2(quiet, SIMD.or), r.get, nan));
          const isQuiet = x.simd2(quiet, SIMD.and).simd2(quiet, is32(shape) ? SIMD.i32x4Eq : SIMD.i64x2Eq);
          f.if(nan.simd2(isQuiet, SIMD.andnot).simd1(SIMD.anyTrue, 'i32'), () =>
            flags.set(flags.get.or(MXCSR.IE)),
          );
        });
      } else {
        const ops = is32(shape) ? [0x90, 0x8e, 0x8d, 0x8f] : [0x9e, 0x9c, 0x9b, 0x9d];
        const value = (): Val => x.reinterpret();
        const rounded = (op: number) => () => r.set(value().op1([op], shape.scalar).reinterpret());
        f.switch(mode, ops.slice(0, 3).map(rounded), rounded(ops[3] as number));
        f.if(
          value().fne(value()),
          () => {
            f.if(x.and(QUIET[shape.scalar]).eqz(), () => flags.set(MXCSR.IE));
            r.set(x.or(QUIET[shape.scalar]));
          },
          () => f.if(r.get.ne(x), () => flags.set(MXCSR.PE)),
        );
      }
      f.store('32', f.p(0), select(f.p(2).and(8), flags.get.and(~MXCSR.PE), flags.get), CPU.floatFlags);
      finish(f, lib);
      f.return(r.get);
      f.unreachable();
    }),
  );

  if (shape.lanes !== 1) {
    /** ADDSUBPx: even lanes are subtracted, odd ones added. */
    list.push(
      routine(`addsub${suffix}`, ['i32', 'v128', 'v128'], ['v128'], (f, lib) => {
        const x = f.callValue(lib(`daz_${suffix}`), f.p(0), f.p(1));
        const y = f.callValue(lib(`daz_${suffix}`), f.p(0), f.p(2));
        start(f);
        const r = byLanes(f, shape, (lane) =>
          f.callValue(
            lib(`${shape.scalar}_${lane % 2 === 0 ? 'sub' : 'add'}`),
            f.p(0),
            extract(shape, x, lane),
            extract(shape, y, lane),
          ),
        );
        finish(f, lib);
        f.return(r);
        f.unreachable();
      }),
    );
    /**
     * DPPx: (a, b, imm8). Products of the lanes in imm8[7:4], sums in pairs, results to the lanes in imm8[3:0]; every step
     * rounds, and unmasked exceptions of a step come before the next.
     */
    list.push(
      routine(`dp${suffix}`, ['i32', 'v128', 'v128', 'i32'], ['v128'], (f, lib) => {
        const zeroLane = is32(shape) ? i32(0) : i64(0);
        const x = f.callValue(lib(`daz_${suffix}`), f.p(0), f.p(1));
        const y = f.callValue(lib(`daz_${suffix}`), f.p(0), f.p(2));
        const chosen = (lane: number): Val =>
          f
            .p(3)
            .shrU(4 + lane)
            .and(1);
        start(f);
        const products = Array.from({ length: shape.lanes }, (_, lane) =>
          f.ifValue(
            chosen(lane),
            () =>
              f.callValue(
                lib(`${shape.scalar}_mul`),
                f.p(0),
                extract(shape, x, lane),
                extract(shape, y, lane),
              ),
            () => zeroLane,
          ),
        );
        finish(f, lib);
        // What lies between is an operand like others: DAZ clears it.
        const daz = (value: Val): Val => f.callValue(lib(is32(shape) ? 'daz_ss' : 'daz_sd'), f.p(0), value);
        const plus = (a: Val, b: Val): Val => f.callValue(lib(`${shape.scalar}_add`), f.p(0), daz(a), daz(b));
        const product = (lane: number): Val => products[lane] as Val;
        const answer = (sum: (lane: number) => Val): void =>
          f.return(byLanes(f, shape, (lane) => select(f.p(3).shrU(lane).and(1), sum(lane), zeroLane)));
        // Of two NaNs the first operand's stays. Intel adds vectors whose lanes are swapped, so that each lane has an order of
        // its own (measured); AMD adds once.
        f.if(f.load('32', f.p(0), CPU.vendor), () => {
          start(f);
          const swapped = shape.lanes === 4 ? 1 : 0;
          const lanes = products.map((_, lane) => plus(product(lane ^ swapped), product(lane ^ swapped ^ 1)));
          finish(f, lib);
          if (shape.lanes !== 4) return answer((lane) => lanes[lane] as Val);
          start(f);
          const sums = lanes.map((sum, lane) => plus(sum, lanes[lane ^ 2] as Val));
          finish(f, lib);
          answer((lane) => sums[lane] as Val);
        });
        start(f);
        let sums = [plus(product(0), product(1))];
        if (shape.lanes === 4) {
          sums.push(plus(product(2), product(3)));
          finish(f, lib);
          start(f);
          sums = [plus(sums[0] as Val, sums[1] as Val)];
        }
        finish(f, lib);
        answer(() => sums[0] as Val);
        f.unreachable();
      }),
    );
  }
  return list;
}

const PS = SHAPES[0] as Shape;
const PD = SHAPES[1] as Shape;
const SS = SHAPES[2] as Shape;
const SD = SHAPES[3] as Shape;

/** PE would be new, or is not masked. */
const freshPe = (f: FunctionBuilder): Val =>
  f
    .load('32', f.p(0), CPU.mxcsr)
    .and(MXCSR.PM | MXCSR.PE)
    .ne(MXCSR.PM | MXCSR.PE);

/** Rounding mode in force: `truncate` or MXCSR.RC. */
const roundMode = (f: FunctionBuilder, truncate: boolean): Val =>
  truncate ? i32(3) : f.load('32', f.p(0), CPU.mxcsr).shrU(13).and(3);

function conversionRoutines(): Routine[] {
  const list: Routine[] = [];
  for (const shape of [SS, SD]) {
    const { suffix, scalar } = shape;
    const test = tests(shape);
    // Signed integers to scalars.
    for (const bits of [32, 64] as const) {
      const type = bits === 32 ? 'i32' : 'i64';
      list.push(
        routine(`cvtsi${bits}2${suffix}`, ['i32', type], [shape.type], (f, lib) => {
          const value = f.p(1);
          const convert = value
            .op1([scalar === 'f32' ? (bits === 32 ? 0xb2 : 0xb4) : bits === 32 ? 0xb7 : 0xb9], scalar)
            .reinterpret();
          if (bits === 32 && scalar === 'f64') {
            f.return(convert);
          } else {
            // Integers that fit the significand convert exactly in every mode.
            const room = scalar === 'f32' ? 24 : 53;
            const exact = value.add(1n << BigInt(room)).ltU(1n << BigInt(room + 1));
            f.if(exact.or(settled(f)), () => f.return(convert));
            start(f);
            const r = f.callValue(lib(`${scalar}_from_i64`), f.p(0), value.sext());
            finish(f, lib);
            f.return(r);
          }
          f.unreachable();
        }),
      );
      for (const truncate of [false, true]) {
        list.push(
          routine(`cvt${truncate ? 't' : ''}${suffix}2si${bits}`, ['i32', shape.type], [type], (f, lib) => {
            const x = f.p(1);
            // In range: whole numbers, and truncation when PE says nothing new.
            const limit =
              scalar === 'f32'
                ? bits === 32
                  ? 0x4f000000n
                  : 0x5f000000n
                : bits === 32
                  ? 0x41e0000000000000n
                  : 0x43e0000000000000n;
            f.if(test.normal(x).and(x.and(ABS[scalar]).ltU(limit)).or(test.zero(x)), () => {
              // trunc_sat: opcodes 0xfc 0..7.
              const cut = f.let(
                x.reinterpret().op1([0xfc, (bits === 32 ? 0 : 4) + (scalar === 'f32' ? 0 : 2)], type),
              );
              const back = cut.op1(
                [scalar === 'f32' ? (bits === 32 ? 0xb2 : 0xb4) : bits === 32 ? 0xb7 : 0xb9],
                scalar,
              );
              const whole = back.feq(x.reinterpret());
              f.if(truncate ? whole.or(freshPe(f).eqz()) : whole, () => f.return(cut));
            });
            start(f);
            const y = f.callValue(lib(`daz_${suffix}`), f.p(0), x);
            const r = f.callValue(lib(`${scalar}_to_int`), f.p(0), y, roundMode(f, truncate), i32(bits));
            finish(f, lib);
            f.return(bits === 32 ? r.wrap() : r);
            f.unreachable();
          }),
        );
      }
    }
  }

  list.push(
    routine('cvtss2sd', ['i32', 'i32'], ['i64'], (f, lib) => {
      const x = f.p(1);
      const test = tests(SS);
      f.if(test.plain(x), () => f.return(x.reinterpret().promote().reinterpret()));
      start(f);
      const r = f.callValue(lib('f32_to_f64'), f.p(0), f.callValue(lib('daz_ss'), f.p(0), x));
      finish(f, lib);
      f.return(r);
      f.unreachable();
    }),
    routine('cvtsd2ss', ['i32', 'i64'], ['i32'], (f, lib) => {
      const x = f.p(1);
      f.if(settled(f), () => {
        const r = f.let(x.reinterpret().demote().reinterpret());
        f.if(tests(SD).normal(x).and(tests(SS).clear(r)).or(tests(SD).zero(x)), () => f.return(r));
      });
      start(f);
      const r = f.callValue(lib('f64_to_f32'), f.p(0), f.callValue(lib('daz_sd'), f.p(0), x));
      finish(f, lib);
      f.return(r);
      f.unreachable();
    }),
    // The two low lanes (an i64) to two doubles.
    routine('cvtps2pd', ['i32', 'i64'], ['v128'], (f, lib) => {
      const x = f.let(splatOf(f.p(1), SIMD.i64x2Splat));
      f.if(tests(PS).all(tests(PS).plain(x)), () => f.return(x.simd1(SIMD.promoteLowF32x4)));
      start(f);
      const y = f.callValue(lib('daz_ps'), f.p(0), x);
      const r = byLanes(f, PD, (lane) => f.callValue(lib('f32_to_f64'), f.p(0), lane32(y, lane)));
      finish(f, lib);
      f.return(r);
      f.unreachable();
    }),
    // Two doubles to two singles in the low half, zeros above.
    routine('cvtpd2ps', ['i32', 'v128'], ['v128'], (f, lib) => {
      const x = f.p(1);
      f.if(settled(f), () => {
        const r = f.let(x.simd1(SIMD.demoteF64x2Zero));
        // Widened again so that the test has as many lanes as the operand.
        const wide = shuffle(r, r, [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7]);
        f.if(
          tests(PD)
            .all(tests(PD).normal(x))
            .and(tests(PS).all(tests(PS).clear(f.let(wide)))),
          () => f.return(r),
        );
      });
      start(f);
      const y = f.callValue(lib('daz_pd'), f.p(0), x);
      const low = f.callValue(lib('f64_to_f32'), f.p(0), lane64(y, 0));
      const high = f.callValue(lib('f64_to_f32'), f.p(0), lane64(y, 1));
      finish(f, lib);
      f.return(fromLow(low).withLane(SIMD.i32x4Replace, 1, high));
      f.unreachable();
    }),
    routine('cvtdq2ps', ['i32', 'v128'], ['v128'], (f, lib) => {
      const x = f.p(1);
      const exact = x
        .simd2(splat(1 << 24, 4), SIMD.i32x4Add)
        .simd2(splat(1 << 25, 4), SIMD.i32x4LtU)
        .simd1(SIMD.i32x4AllTrue, 'i32');
      f.if(exact.or(settled(f)), () => f.return(x.simd1(SIMD.f32x4ConvertI32x4S)));
      start(f);
      const r = byLanes(f, PS, (lane) => f.callValue(lib('f32_from_i64'), f.p(0), lane32(x, lane).sext()));
      finish(f, lib);
      f.return(r);
      f.unreachable();
    }),
    // CVTPI2PS: two integers to two singles.
    routine('cvtpi2ps', ['i32', 'i64'], ['i64'], (f, lib) => {
      start(f);
      const low = f.callValue(lib('f32_from_i64'), f.p(0), f.p(1).wrap().sext());
      const high = f.callValue(lib('f32_from_i64'), f.p(0), f.p(1).shrS(32));
      finish(f, lib);
      f.return(low.zext().or(high.zext().shl(32)));
      f.unreachable();
    }),
  );
  for (const truncate of [false, true]) {
    const t = truncate ? 't' : '';
    const toInt = (f: FunctionBuilder, lib: Library, scalar: 'f32' | 'f64', value: Val): Val =>
      f.callValue(lib(`${scalar}_to_int`), f.p(0), value, roundMode(f, truncate), i32(32)).wrap();
    list.push(
      routine(`cvt${t}ps2dq`, ['i32', 'v128'], ['v128'], (f, lib) => {
        start(f);
        const x = f.callValue(lib('daz_ps'), f.p(0), f.p(1));
        const r = byLanes(f, PS, (lane) => toInt(f, lib, 'f32', lane32(x, lane)));
        finish(f, lib);
        f.return(r);
        f.unreachable();
      }),
      // Two doubles to two integers (also CVTPD2PI).
      routine(`cvt${t}pd2pi`, ['i32', 'v128'], ['i64'], (f, lib) => {
        start(f);
        const x = f.callValue(lib('daz_pd'), f.p(0), f.p(1));
        const low = f.let(toInt(f, lib, 'f64', lane64(x, 0)));
        const high = f.let(toInt(f, lib, 'f64', lane64(x, 1)));
        finish(f, lib);
        f.return(low.zext().or(high.zext().shl(32)));
        f.unreachable();
      }),
      routine(`cvt${t}ps2pi`, ['i32', 'i64'], ['i64'], (f, lib) => {
        start(f);
        const x = f.callValue(lib('daz_ps'), f.p(0), splatOf(f.p(1), SIMD.i64x2Splat));
        const low = f.let(toInt(f, lib, 'f32', lane32(x, 0)));
        const high = f.let(toInt(f, lib, 'f32', lane32(x, 1)));
        finish(f, lib);
        f.return(low.zext().or(high.zext().shl(32)));
        f.unreachable();
      }),
    );
  }
  return list;
}

export const sseFloatRoutines: readonly Routine[] = [
  ...SHAPES.flatMap(shapeRoutines),
  ...conversionRoutines(),
];
