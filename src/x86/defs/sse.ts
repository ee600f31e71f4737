/** SSE, SSE2, SSE3 and SSE4.1 on floating-point vectors and scalars (SDM vol. 2; opcode maps ). */
import { CPU, FLAG } from '../layout.ts';
import type { Sem } from '../sem.ts';
import { bitselect, fromLow, lane32, lane64, shiftLanes, SIMD, splatOf, ZERO128 } from '../wasm/simd.ts';
import { i32, select, shuffle, type Val } from '../wasm/value.ts';
import type { Def, Feature } from './def.ts';
import { interleave, laneMask, pick32, type VectorOp } from './vector.ts';

/** The four forms of an arithmetic opcode: NP packed single, 66 packed double, F3 scalar single, F2 scalar double. */
const FORMS = [
  { prefix: 'NP', suffix: 'ps', operands: ['Vx', 'Wx'], feature: 'sse' },
  { prefix: '66', suffix: 'pd', operands: ['Vx', 'Wx'], feature: 'sse2' },
  { prefix: 'F3', suffix: 'ss', operands: ['Vd', 'Wd'], feature: 'sse' },
  { prefix: 'F2', suffix: 'sd', operands: ['Vq', 'Wq'], feature: 'sse2' },
] as const;

const sse = (
  name: string,
  feature: Feature,
  enc: string | readonly string[],
  sem: (e: Sem) => void,
): Def => ({
  name,
  enc: typeof enc === 'string' ? [enc] : enc,
  feature,
  unit: 'sse',
  sem,
});

const arithmetic = ([name, opcode]: readonly [string, string]): Def[] =>
  FORMS.map(({ prefix, suffix, operands, feature }) =>
    sse(`${name}${suffix}`, feature, `${prefix} ${opcode} /r ${operands[0]}!,${operands[1]}`, (e) => {
      const b = e.get(1);
      e.set(0, e.callValue(`${name}${suffix}`, e.cpu, e.get(0), b));
    }),
  );

/** Packed logic on NP and 66 forms. */
const logic = (name: string, opcode: string, op: VectorOp): Def[] =>
  FORMS.slice(0, 2).map(({ prefix, suffix, feature }) =>
    sse(`${name}${suffix}`, feature, `${prefix} ${opcode} /r Vx!,Wx`, (e) => {
      const b = e.get(1);
      e.set(0, op(e.get(0), b));
    }),
  );

const copy = (e: Sem): void => e.set(0, e.get(1));

const withHigh = (low: Val, high: Val): Val => low.withLane(SIMD.i64x2Replace, 1, high);

const movesDefs: readonly Def[] = [
  sse('movups', 'sse', ['NP 0F10 /r Vx=,Wu', 'NP 0F11 /r Wu=,Vx'], copy),
  sse('movupd', 'sse2', ['66 0F10 /r Vx=,Wu', '66 0F11 /r Wu=,Vx'], copy),
  sse('movaps', 'sse', ['NP 0F28 /r Vx=,Wx', 'NP 0F29 /r Wx=,Vx'], copy),
  sse('movapd', 'sse2', ['66 0F28 /r Vx=,Wx', '66 0F29 /r Wx=,Vx'], copy),
  sse('movntps', 'sse', 'NP 0F2B /r:m Wx=,Vx', copy),
  sse('movntpd', 'sse2', '66 0F2B /r:m Wx=,Vx', copy),
  // From memory the rest of the register is cleared, between registers it stays.
  sse('movss', 'sse', 'F3 0F10 /r:m Vx=,Md', (e) => e.set(0, fromLow(e.get(1)))),
  sse('movss', 'sse', ['F3 0F10 /r:r Vd=,Ud', 'F3 0F11 /r Wd=,Vd'], copy),
  sse('movsd', 'sse2', 'F2 0F10 /r:m Vx=,Mq', (e) => e.set(0, fromLow(e.get(1)))),
  sse('movsd', 'sse2', ['F2 0F10 /r:r Vq=,Uq', 'F2 0F11 /r Wq=,Vq'], copy),
  sse('movlps', 'sse', ['NP 0F12 /r:m Vq=,Mq', 'NP 0F13 /r:m Mq=,Vq'], copy),
  sse('movlpd', 'sse2', ['66 0F12 /r:m Vq=,Mq', '66 0F13 /r:m Mq=,Vq'], copy),
  sse('movhlps', 'sse', 'NP 0F12 /r:r Vq=,Ux', (e) => e.set(0, lane64(e.get(1), 1))),
  sse('movhps', 'sse', 'NP 0F16 /r:m Vx!,Mq', (e) => {
    const high = e.get(1);
    e.set(0, withHigh(e.get(0), high));
  }),
  sse('movhpd', 'sse2', '66 0F16 /r:m Vx!,Mq', (e) => {
    const high = e.get(1);
    e.set(0, withHigh(e.get(0), high));
  }),
  sse('movlhps', 'sse', 'NP 0F16 /r:r Vx!,Uq', (e) => e.set(0, withHigh(e.get(0), e.get(1)))),
  sse('movhps', 'sse', 'NP 0F17 /r:m Mq=,Vx', (e) => e.set(0, lane64(e.get(1), 1))),
  sse('movhpd', 'sse2', '66 0F17 /r:m Mq=,Vx', (e) => e.set(0, lane64(e.get(1), 1))),
  sse('movsldup', 'sse3', 'F3 0F12 /r Vx=,Wx', (e) => {
    const x = e.get(1);
    e.set(0, shuffle(x, x, [0, 1, 2, 3, 0, 1, 2, 3, 8, 9, 10, 11, 8, 9, 10, 11]));
  }),
  sse('movshdup', 'sse3', 'F3 0F16 /r Vx=,Wx', (e) => {
    const x = e.get(1);
    e.set(0, shuffle(x, x, [4, 5, 6, 7, 4, 5, 6, 7, 12, 13, 14, 15, 12, 13, 14, 15]));
  }),
  sse('movddup', 'sse3', 'F2 0F12 /r Vx=,Wq', (e) => {
    const x = e.get(1);
    e.set(0, withHigh(fromLow(x), x));
  }),
  sse('movmskps', 'sse', 'NP 0F50 /r:r Gd=,Ux', (e) => e.set(0, e.get(1).simd1(SIMD.i32x4Bitmask, 'i32'))),
  sse('movmskpd', 'sse2', '66 0F50 /r:r Gd=,Ux', (e) => e.set(0, e.get(1).simd1(SIMD.i64x2Bitmask, 'i32'))),
  sse('unpcklps', 'sse', 'NP 0F14 /r Vx!,Wx', (e) => {
    const b = e.get(1);
    e.set(0, interleave(e.get(0), b, 4, 0, 16));
  }),
  sse('unpcklpd', 'sse2', '66 0F14 /r Vx!,Wx', (e) => {
    const b = e.get(1);
    e.set(0, interleave(e.get(0), b, 8, 0, 16));
  }),
  sse('unpckhps', 'sse', 'NP 0F15 /r Vx!,Wx', (e) => {
    const b = e.get(1);
    e.set(0, interleave(e.get(0), b, 4, 8, 16));
  }),
  sse('unpckhpd', 'sse2', '66 0F15 /r Vx!,Wx', (e) => {
    const b = e.get(1);
    e.set(0, interleave(e.get(0), b, 8, 8, 16));
  }),
  sse('shufps', 'sse', 'NP 0FC6 /r Vx!,Wx,Ib', (e) => {
    const b = e.get(1);
    const a = e.get(0);
    const imm = e.get(2);
    const field = (lane: number): Val => imm.shrU(lane * 2).and(3);
    const low = pick32(e, a, (lane) => field(lane & 1));
    const high = pick32(e, b, (lane) => field(2 + (lane & 1)));
    e.set(0, interleave(low, high, 8, 0, 16));
  }),
  sse('shufpd', 'sse2', '66 0FC6 /r Vx!,Wx,Ib', (e) => {
    const b = e.get(1);
    const a = e.get(0);
    const imm = e.get(2);
    const low = e.f.let(select(imm.and(1), lane64(a, 1), lane64(a, 0)));
    const high = e.f.let(select(imm.and(2), lane64(b, 1), lane64(b, 0)));
    e.set(0, withHigh(fromLow(low), high));
  }),
];

/** The sources of a horizontal operation: even lanes of both operands, and odd ones. */
const evens = (a: Val, b: Val, bytes: 4 | 8): Val =>
  bytes === 8
    ? interleave(a, b, 8, 0, 16)
    : shuffle(a, b, [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27]);
const odds = (a: Val, b: Val, bytes: 4 | 8): Val =>
  bytes === 8
    ? interleave(a, b, 8, 8, 16)
    : shuffle(a, b, [4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31]);

const horizontal = (name: string, op: 'add' | 'sub', opcode: string): Def[] =>
  (
    [
      ['66', 'pd', 8],
      ['F2', 'ps', 4],
    ] as const
  ).map(([prefix, suffix, bytes]) =>
    sse(`${name}${suffix}`, 'sse3', `${prefix} ${opcode} /r Vx!,Wx`, (e) => {
      const b = e.get(1);
      const a = e.get(0);
      e.set(0, e.callValue(`${op}${suffix}`, e.cpu, e.f.let(evens(a, b, bytes)), e.f.let(odds(a, b, bytes))));
    }),
  );

const arithmeticDefs: readonly Def[] = [
  ...(
    [
      ['mul', '0F59'],
      ['add', '0F58'],
      ['sub', '0F5C'],
      ['min', '0F5D'],
      ['div', '0F5E'],
      ['max', '0F5F'],
    ] as const
  ).flatMap(arithmetic),
  ...FORMS.map(({ prefix, suffix, operands, feature }) =>
    sse(`sqrt${suffix}`, feature, `${prefix} 0F51 /r ${operands[0]}=,${operands[1]}`, (e) =>
      e.set(0, e.callValue(`sqrt${suffix}`, e.cpu, e.get(1))),
    ),
  ),
  ...(['rsqrt', 'rcp'] as const).flatMap((name, n) => [
    sse(`${name}ps`, 'sse', `NP 0F5${2 + n} /r Vx=,Wx`, (e) => {
      const x = e.get(1);
      const lanes = [0, 1, 2, 3].map((lane) => e.callValue(name, e.cpu, lane32(x, lane)));
      e.set(
        0,
        lanes.reduce((vector, value, lane) => vector.withLane(SIMD.i32x4Replace, lane, value), ZERO128),
      );
    }),
    sse(`${name}ss`, 'sse', `F3 0F5${2 + n} /r Vd=,Wd`, (e) => e.set(0, e.callValue(name, e.cpu, e.get(1)))),
  ]),
  ...logic('and', '0F54', (a, b) => a.simd2(b, SIMD.and)),
  ...logic('andn', '0F55', (a, b) => b.simd2(a, SIMD.andnot)),
  ...logic('or', '0F56', (a, b) => a.simd2(b, SIMD.or)),
  ...logic('xor', '0F57', (a, b) => a.simd2(b, SIMD.xor)),
  ...FORMS.map(({ prefix, suffix, operands, feature }) =>
    sse(`cmp${suffix}`, feature, `${prefix} 0FC2 /r ${operands[0]}!,${operands[1]},Ib`, (e) => {
      const b = e.get(1);
      e.set(0, e.callValue(`cmp${suffix}`, e.cpu, e.get(0), b, e.get(2)));
    }),
  ),
  ...(['ucomi', 'comi'] as const).flatMap((name, signalling) =>
    (
      [
        ['NP', 'ss', 'Vd,Wd', 'sse'],
        ['66', 'sd', 'Vq,Wq', 'sse2'],
      ] as const
    ).map(([prefix, suffix, operands, feature]) =>
      sse(`${name}${suffix}`, feature, `${prefix} 0F2${signalling ? 'F' : 'E'} /r ${operands}`, (e) => {
        const b = e.get(1);
        e.setStatus(e.callValue(`comi${suffix}`, e.cpu, e.get(0), b, i32(signalling)));
      }),
    ),
  ),
  ...horizontal('hadd', 'add', '0F7C'),
  ...horizontal('hsub', 'sub', '0F7D'),
  ...(
    [
      ['66', 'pd'],
      ['F2', 'ps'],
    ] as const
  ).map(([prefix, suffix]) =>
    sse(`addsub${suffix}`, 'sse3', `${prefix} 0FD0 /r Vx!,Wx`, (e) => {
      const b = e.get(1);
      e.set(0, e.callValue(`addsub${suffix}`, e.cpu, e.get(0), b));
    }),
  ),
  ...(
    [
      ['ps', '08', 'Vx=,Wx,Ib'],
      ['pd', '09', 'Vx=,Wx,Ib'],
      ['ss', '0A', 'Vd=,Wd,Ib'],
      ['sd', '0B', 'Vq=,Wq,Ib'],
    ] as const
  ).map(([suffix, opcode, operands]) =>
    sse(`round${suffix}`, 'sse4.1', `66 0F3A${opcode} /r ${operands}`, (e) => {
      const x = e.get(1);
      e.set(0, e.callValue(`round${suffix}`, e.cpu, x, e.get(2)));
    }),
  ),
  ...(
    [
      ['ps', '40'],
      ['pd', '41'],
    ] as const
  ).map(([suffix, opcode]) =>
    sse(`dp${suffix}`, 'sse4.1', `66 0F3A${opcode} /r Vx!,Wx,Ib`, (e) => {
      const b = e.get(1);
      e.set(0, e.callValue(`dp${suffix}`, e.cpu, e.get(0), b, e.get(2)));
    }),
  ),
];

/** SSE4.1's blends, INSERTPS and EXTRACTPS. */
const blendDefs: readonly Def[] = [
  ...(
    [
      ['blendps', '0C', 4],
      ['blendpd', '0D', 8],
      ['pblendw', '0E', 2],
    ] as const
  ).map(([name, opcode, bytes]) =>
    sse(name, 'sse4.1', `66 0F3A${opcode} /r Vx!,Wx,Ib`, (e) => {
      const b = e.get(1);
      e.set(0, bitselect(b, e.get(0), laneMask(e.get(2), bytes)));
    }),
  ),
  // The mask is XMM0's sign bits.
  ...(
    [
      ['pblendvb', '10', SIMD.i8x16ShrS, 7],
      ['blendvps', '14', SIMD.i32x4ShrS, 31],
      ['blendvpd', '15', SIMD.i64x2ShrS, 63],
    ] as const
  ).map(([name, opcode, shift, count]) =>
    sse(name, 'sse4.1', `66 0F38${opcode} /r Vx!,Wx`, (e) => {
      const b = e.get(1);
      const mask = shiftLanes(e.xmm(0), i32(count), shift);
      e.set(0, bitselect(b, e.get(0), mask));
    }),
  ),
  // From a register the lane is chosen by imm8[7:6], from memory there is one.
  sse('insertps', 'sse4.1', '66 0F3A21 /r:m Vx!,Md,Ib', (e) => insertps(e, e.get(1), e.get(2))),
  sse('insertps', 'sse4.1', '66 0F3A21 /r:r Vx!,Ux,Ib', (e) =>
    insertps(
      e,
      e.f.let(
        lane32(
          pick32(e, e.get(1), () => e.get(2).shrU(6)),
          0,
        ),
      ),
      e.get(2),
    ),
  ),
  sse('extractps', 'sse4.1', '66 0F3A17 /r Ed=,Vx,Ib', (e) => {
    const x = e.get(1);
    e.set(
      0,
      lane32(
        pick32(e, x, () => e.get(2).and(3)),
        0,
      ),
    );
  }),
];

function insertps(e: Sem, value: Val, imm: Val): void {
  const { f } = e;
  const at = f.let(imm.shrU(4).and(3));
  const chosen = laneMask(i32(1).shl(at), 4);
  const inserted = f.let(bitselect(splatOf(value, SIMD.i32x4Splat), e.get(0), chosen));
  e.set(0, inserted.simd2(laneMask(imm.and(15), 4), SIMD.andnot));
}

/**
 * The integers that CVTPI2xx converts. From memory none of them enters MMX state: measured on both vendors' processors, although
 * the SDM says otherwise of CVTPI2PS.
 */
function mmxSource(e: Sem): Val {
  const enter = (name: string): void => {
    if (!e.isMem(1)) e.call(name, e.cpu);
  };
  enter('mmx_begin');
  const x = e.get(1);
  enter('mmx_done');
  return x;
}

const conversionDefs: readonly Def[] = [
  ...(
    [
      ['F3', 'ss', 'Vd', 'Wd', 'sse'],
      ['F2', 'sd', 'Vq', 'Wq', 'sse2'],
    ] as const
  ).flatMap(([prefix, suffix, destination, source, feature]) => [
    sse(`cvtsi2${suffix}`, feature, `${prefix} 0F2A /r ${destination}=,Ey`, (e) =>
      e.set(0, e.callValue(`cvtsi${e.sizeOf(1) * 8}2${suffix}`, e.cpu, e.get(1))),
    ),
    ...(['t', ''] as const).map((t) =>
      sse(`cvt${t}${suffix}2si`, feature, `${prefix} 0F2${t ? 'C' : 'D'} /r Gy=,${source}`, (e) =>
        e.set(0, e.callValue(`cvt${t}${suffix}2si${e.sizeOf(0) * 8}`, e.cpu, e.get(1))),
      ),
    ),
  ]),
  sse('cvtps2pd', 'sse2', 'NP 0F5A /r Vx=,Wq', (e) => e.set(0, e.callValue('cvtps2pd', e.cpu, e.get(1)))),
  sse('cvtpd2ps', 'sse2', '66 0F5A /r Vx=,Wx', (e) => e.set(0, e.callValue('cvtpd2ps', e.cpu, e.get(1)))),
  sse('cvtss2sd', 'sse2', 'F3 0F5A /r Vq=,Wd', (e) => e.set(0, e.callValue('cvtss2sd', e.cpu, e.get(1)))),
  sse('cvtsd2ss', 'sse2', 'F2 0F5A /r Vd=,Wq', (e) => e.set(0, e.callValue('cvtsd2ss', e.cpu, e.get(1)))),
  sse('cvtdq2ps', 'sse2', 'NP 0F5B /r Vx=,Wx', (e) => e.set(0, e.callValue('cvtdq2ps', e.cpu, e.get(1)))),
  sse('cvtps2dq', 'sse2', '66 0F5B /r Vx=,Wx', (e) => e.set(0, e.callValue('cvtps2dq', e.cpu, e.get(1)))),
  sse('cvttps2dq', 'sse2', 'F3 0F5B /r Vx=,Wx', (e) => e.set(0, e.callValue('cvttps2dq', e.cpu, e.get(1)))),
  sse('cvtdq2pd', 'sse2', 'F3 0FE6 /r Vx=,Wq', (e) =>
    e.set(0, fromLow(e.get(1)).simd1(SIMD.f64x2ConvertLowI32x4S)),
  ),
  sse('cvtpd2dq', 'sse2', 'F2 0FE6 /r Vx=,Wx', (e) =>
    e.set(0, fromLow(e.callValue('cvtpd2pi', e.cpu, e.get(1)))),
  ),
  sse('cvttpd2dq', 'sse2', '66 0FE6 /r Vx=,Wx', (e) =>
    e.set(0, fromLow(e.callValue('cvttpd2pi', e.cpu, e.get(1)))),
  ),

  // With MMX registers. An unmasked exception comes after the entry to MMX state.
  sse('cvtpi2ps', 'sse', 'NP 0F2A /r Vq=,Qq', (e) => {
    const x = mmxSource(e);
    e.set(0, e.callValue('cvtpi2ps', e.cpu, x));
  }),
  sse('cvtpi2pd', 'sse2', '66 0F2A /r Vx=,Qq', (e) => {
    const x = mmxSource(e);
    e.set(0, fromLow(x).simd1(SIMD.f64x2ConvertLowI32x4S));
  }),
  ...(['t', ''] as const).flatMap((t) => {
    const opcode = t ? '0F2C' : '0F2D';
    const convert = (routine: string) => (e: Sem) => {
      e.call('mmx_begin', e.cpu);
      const x = e.get(1);
      e.call('mmx_done', e.cpu);
      e.set(0, e.callValue(routine, e.cpu, x));
    };
    return [
      sse(`cvt${t}ps2pi`, 'sse', `NP ${opcode} /r Pq=,Wq`, convert(`cvt${t}ps2pi`)),
      sse(`cvt${t}pd2pi`, 'sse2', `66 ${opcode} /r Pq=,Wx`, convert(`cvt${t}pd2pi`)),
    ];
  }),
];

const ptest: Def = sse('ptest', 'sse4.1', '66 0F3817 /r Vx,Wx', (e) => {
  const b = e.get(1);
  const a = e.get(0);
  const none = (v: Val): Val => v.simd1(SIMD.anyTrue, 'i32').xor(1);
  e.setStatus(
    none(a.simd2(b, SIMD.and))
      .mul(FLAG.ZF)
      .or(none(b.simd2(a, SIMD.andnot)).mul(FLAG.CF)),
  );
});

export const sseDefs: readonly Def[] = [
  ...movesDefs,
  ...arithmeticDefs,
  ...blendDefs,
  ...conversionDefs,
  ptest,
];
