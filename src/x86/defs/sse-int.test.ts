import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { x86Routines } from '../all.ts';
import { CPU } from '../layout.ts';
import { DATA, freshRegisters, OneInstruction, type Registers } from '../one-instruction.ts';
import { simdDefs } from '../simd.ts';

const cpu = new OneInstruction(simdDefs, x86Routines, [
  'mmx',
  'sse',
  'sse2',
  'sse3',
  'ssse3',
  'sse4.1',
  'sse4.2',
]);

/** A value of `bytes` bytes as lanes of `width` bytes, signed or not. */
type Lanes = readonly bigint[];
const split = (value: bigint, bytes: number, width: number, signed: boolean): Lanes =>
  Array.from({ length: bytes / width }, (_, n) => {
    const lane = BigInt.asUintN(width * 8, value >> BigInt(n * width * 8));
    return signed ? BigInt.asIntN(width * 8, lane) : lane;
  });
const join = (lanes: Lanes, width: number): bigint =>
  lanes.reduce((value, lane, n) => value | (BigInt.asUintN(width * 8, lane) << BigInt(n * width * 8)), 0n);

const clampS = (bits: number) => (x: bigint) => {
  const top = (1n << BigInt(bits - 1)) - 1n;
  return x > top ? top : x < -top - 1n ? -top - 1n : x;
};
const clampU = (bits: number) => (x: bigint) => {
  const top = (1n << BigInt(bits)) - 1n;
  return x > top ? top : x < 0n ? 0n : x;
};
const abs = (x: bigint): bigint => (x < 0n ? -x : x);
const min = (a: bigint, b: bigint): bigint => (a < b ? a : b);
const max = (a: bigint, b: bigint): bigint => (a > b ? a : b);
const all = (yes: boolean): bigint => (yes ? -1n : 0n);

/** (a, b, bytes) as integers of 8 or 16 bytes. */
type Reference = (a: bigint, b: bigint, bytes: number) => bigint;
const lanewise =
  (width: number, signed: boolean, op: (a: bigint, b: bigint) => bigint): Reference =>
  (a, b, bytes) => {
    const bs = split(b, bytes, width, signed);
    return join(
      split(a, bytes, width, signed).map((lane, n) => op(lane, bs[n] as bigint)),
      width,
    );
  };
const unpack =
  (width: number, high: boolean): Reference =>
  (a, b, bytes) => {
    const as = split(a, bytes, width, false);
    const bs = split(b, bytes, width, false);
    const half = as.length / 2;
    return join(
      as
        .slice(high ? half : 0, high ? undefined : half)
        .flatMap((lane, n) => [lane, bs[n + (high ? half : 0)] as bigint]),
      width,
    );
  };
const pack =
  (width: number, clamp: (x: bigint) => bigint): Reference =>
  (a, b, bytes) =>
    join([...split(a, bytes, width, true), ...split(b, bytes, width, true)].map(clamp), width / 2);
const horizontal =
  (width: number, op: (a: bigint, b: bigint) => bigint): Reference =>
  (a, b, bytes) => {
    const lanes = [...split(a, bytes, width, true), ...split(b, bytes, width, true)];
    return join(
      Array.from({ length: lanes.length / 2 }, (_, n) =>
        op(lanes[2 * n] as bigint, lanes[2 * n + 1] as bigint),
      ),
      width,
    );
  };
const shift =
  (width: number, op: (x: bigint, count: number) => bigint, signed = false): Reference =>
  (a, b, bytes) => {
    const wide = BigInt.asUintN(64, b);
    const count = wide > 64n ? 64 : Number(wide);
    return join(
      split(a, bytes, width, signed).map((lane) =>
        count >= width * 8 && !signed ? 0n : op(lane, Math.min(count, width * 8 - 1)),
      ),
      width,
    );
  };
const multiplyAdd = (a: Lanes, b: Lanes, clamp: (x: bigint) => bigint): Lanes =>
  Array.from({ length: a.length / 2 }, (_, n) =>
    clamp((a[2 * n] as bigint) * (b[2 * n] as bigint) + (a[2 * n + 1] as bigint) * (b[2 * n + 1] as bigint)),
  );
const evens = (lanes: Lanes): Lanes => lanes.filter((_, n) => n % 2 === 0);
const shuffleBytes: Reference = (a, b, bytes) => {
  const as = split(a, bytes, 1, false);
  return join(
    split(b, bytes, 1, false).map((i) => (i & 0x80n ? 0n : (as[Number(i) & (bytes - 1)] as bigint))),
    1,
  );
};

const BOTH = 'both';
const SSE = 'sse';
/** Name, opcode after 0F, which register files, reference. */
const OPERATIONS: [string, number[], typeof BOTH | typeof SSE, Reference][] = [
  ['punpcklbw', [0x60], SSE, unpack(1, false)],
  ['punpcklwd', [0x61], SSE, unpack(2, false)],
  ['punpckldq', [0x62], SSE, unpack(4, false)],
  ['packsswb', [0x63], BOTH, pack(2, clampS(8))],
  ['pcmpgtb', [0x64], BOTH, lanewise(1, true, (a, b) => all(a > b))],
  ['pcmpgtw', [0x65], BOTH, lanewise(2, true, (a, b) => all(a > b))],
  ['pcmpgtd', [0x66], BOTH, lanewise(4, true, (a, b) => all(a > b))],
  ['packuswb', [0x67], BOTH, pack(2, clampU(8))],
  ['punpckhbw', [0x68], BOTH, unpack(1, true)],
  ['punpckhwd', [0x69], BOTH, unpack(2, true)],
  ['punpckhdq', [0x6a], BOTH, unpack(4, true)],
  ['packssdw', [0x6b], BOTH, pack(4, clampS(16))],
  ['punpcklqdq', [0x6c], SSE, unpack(8, false)],
  ['punpckhqdq', [0x6d], SSE, unpack(8, true)],
  ['pcmpeqb', [0x74], BOTH, lanewise(1, false, (a, b) => all(a === b))],
  ['pcmpeqw', [0x75], BOTH, lanewise(2, false, (a, b) => all(a === b))],
  ['pcmpeqd', [0x76], BOTH, lanewise(4, false, (a, b) => all(a === b))],
  ['psrlw', [0xd1], BOTH, shift(2, (x, n) => x >> BigInt(n))],
  ['psrld', [0xd2], BOTH, shift(4, (x, n) => x >> BigInt(n))],
  ['psrlq', [0xd3], BOTH, shift(8, (x, n) => x >> BigInt(n))],
  ['paddq', [0xd4], BOTH, lanewise(8, false, (a, b) => a + b)],
  ['pmullw', [0xd5], BOTH, lanewise(2, true, (a, b) => a * b)],
  ['psubusb', [0xd8], BOTH, lanewise(1, false, (a, b) => clampU(8)(a - b))],
  ['psubusw', [0xd9], BOTH, lanewise(2, false, (a, b) => clampU(16)(a - b))],
  ['pminub', [0xda], BOTH, lanewise(1, false, min)],
  ['pand', [0xdb], BOTH, lanewise(8, false, (a, b) => a & b)],
  ['paddusb', [0xdc], BOTH, lanewise(1, false, (a, b) => clampU(8)(a + b))],
  ['paddusw', [0xdd], BOTH, lanewise(2, false, (a, b) => clampU(16)(a + b))],
  ['pmaxub', [0xde], BOTH, lanewise(1, false, max)],
  ['pandn', [0xdf], BOTH, lanewise(8, false, (a, b) => ~a & b)],
  ['pavgb', [0xe0], BOTH, lanewise(1, false, (a, b) => (a + b + 1n) >> 1n)],
  ['psraw', [0xe1], BOTH, shift(2, (x, n) => x >> BigInt(n), true)],
  ['psrad', [0xe2], BOTH, shift(4, (x, n) => x >> BigInt(n), true)],
  ['pavgw', [0xe3], BOTH, lanewise(2, false, (a, b) => (a + b + 1n) >> 1n)],
  ['pmulhuw', [0xe4], BOTH, lanewise(2, false, (a, b) => (a * b) >> 16n)],
  ['pmulhw', [0xe5], BOTH, lanewise(2, true, (a, b) => (a * b) >> 16n)],
  ['psubsb', [0xe8], BOTH, lanewise(1, true, (a, b) => clampS(8)(a - b))],
  ['psubsw', [0xe9], BOTH, lanewise(2, true, (a, b) => clampS(16)(a - b))],
  ['pminsw', [0xea], BOTH, lanewise(2, true, min)],
  ['por', [0xeb], BOTH, lanewise(8, false, (a, b) => a | b)],
  ['paddsb', [0xec], BOTH, lanewise(1, true, (a, b) => clampS(8)(a + b))],
  ['paddsw', [0xed], BOTH, lanewise(2, true, (a, b) => clampS(16)(a + b))],
  ['pmaxsw', [0xee], BOTH, lanewise(2, true, max)],
  ['pxor', [0xef], BOTH, lanewise(8, false, (a, b) => a ^ b)],
  ['psllw', [0xf1], BOTH, shift(2, (x, n) => x << BigInt(n))],
  ['pslld', [0xf2], BOTH, shift(4, (x, n) => x << BigInt(n))],
  ['psllq', [0xf3], BOTH, shift(8, (x, n) => x << BigInt(n))],
  [
    'pmuludq',
    [0xf4],
    BOTH,
    (a, b, n) =>
      join(
        evens(
          split(
            lanewise(8, false, (x, y) => (x & 0xffffffffn) * (y & 0xffffffffn))(a, b, n),
            n,
            8,
            false,
          ).flatMap((x) => [x, 0n]),
        ),
        8,
      ),
  ],
  [
    'pmaddwd',
    [0xf5],
    BOTH,
    (a, b, n) =>
      join(
        multiplyAdd(split(a, n, 2, true), split(b, n, 2, true), (x) => x),
        4,
      ),
  ],
  [
    'psadbw',
    [0xf6],
    BOTH,
    (a, b, n) => {
      const differences = split(lanewise(1, false, (x, y) => abs(x - y))(a, b, n), n, 1, false);
      return join(
        Array.from({ length: n / 8 }, (_, k) => differences.slice(k * 8, k * 8 + 8).reduce((x, y) => x + y)),
        8,
      );
    },
  ],
  ['psubb', [0xf8], BOTH, lanewise(1, false, (a, b) => a - b)],
  ['psubw', [0xf9], BOTH, lanewise(2, false, (a, b) => a - b)],
  ['psubd', [0xfa], BOTH, lanewise(4, false, (a, b) => a - b)],
  ['psubq', [0xfb], BOTH, lanewise(8, false, (a, b) => a - b)],
  ['paddb', [0xfc], BOTH, lanewise(1, false, (a, b) => a + b)],
  ['paddw', [0xfd], BOTH, lanewise(2, false, (a, b) => a + b)],
  ['paddd', [0xfe], BOTH, lanewise(4, false, (a, b) => a + b)],
  ['pshufb', [0x38, 0x00], BOTH, shuffleBytes],
  ['phaddw', [0x38, 0x01], BOTH, horizontal(2, (a, b) => a + b)],
  ['phaddd', [0x38, 0x02], BOTH, horizontal(4, (a, b) => a + b)],
  ['phaddsw', [0x38, 0x03], BOTH, horizontal(2, (a, b) => clampS(16)(a + b))],
  [
    'pmaddubsw',
    [0x38, 0x04],
    BOTH,
    (a, b, n) => join(multiplyAdd(split(a, n, 1, false), split(b, n, 1, true), clampS(16)), 2),
  ],
  ['phsubw', [0x38, 0x05], BOTH, horizontal(2, (a, b) => a - b)],
  ['phsubd', [0x38, 0x06], BOTH, horizontal(4, (a, b) => a - b)],
  ['phsubsw', [0x38, 0x07], BOTH, horizontal(2, (a, b) => clampS(16)(a - b))],
  ['psignb', [0x38, 0x08], BOTH, lanewise(1, true, (a, b) => (b < 0n ? -a : b === 0n ? 0n : a))],
  ['psignw', [0x38, 0x09], BOTH, lanewise(2, true, (a, b) => (b < 0n ? -a : b === 0n ? 0n : a))],
  ['psignd', [0x38, 0x0a], BOTH, lanewise(4, true, (a, b) => (b < 0n ? -a : b === 0n ? 0n : a))],
  ['pmulhrsw', [0x38, 0x0b], BOTH, lanewise(2, true, (a, b) => (a * b + 0x4000n) >> 15n)],
  ['pabsb', [0x38, 0x1c], BOTH, lanewise(1, true, (_, b) => abs(b))],
  ['pabsw', [0x38, 0x1d], BOTH, lanewise(2, true, (_, b) => abs(b))],
  ['pabsd', [0x38, 0x1e], BOTH, lanewise(4, true, (_, b) => abs(b))],
  ['pmovsxbw', [0x38, 0x20], SSE, (_, b) => join(split(b, 8, 1, true), 2)],
  ['pmovsxbq', [0x38, 0x22], SSE, (_, b) => join(split(b, 2, 1, true), 8)],
  ['pmovsxwd', [0x38, 0x23], SSE, (_, b) => join(split(b, 8, 2, true), 4)],
  ['pmovsxdq', [0x38, 0x25], SSE, (_, b) => join(split(b, 8, 4, true), 8)],
  [
    'pmuldq',
    [0x38, 0x28],
    SSE,
    (a, b) => {
      const bs = evens(split(b, 16, 4, true));
      return join(
        evens(split(a, 16, 4, true)).map((x, n) => x * (bs[n] as bigint)),
        8,
      );
    },
  ],
  ['pcmpeqq', [0x38, 0x29], SSE, lanewise(8, false, (a, b) => all(a === b))],
  ['packusdw', [0x38, 0x2b], SSE, pack(4, clampU(16))],
  ['pmovzxbd', [0x38, 0x31], SSE, (_, b) => join(split(b, 4, 1, false), 4)],
  ['pmovzxwq', [0x38, 0x34], SSE, (_, b) => join(split(b, 4, 2, false), 8)],
  ['pcmpgtq', [0x38, 0x37], SSE, lanewise(8, true, (a, b) => all(a > b))],
  ['pminsb', [0x38, 0x38], SSE, lanewise(1, true, min)],
  ['pminsd', [0x38, 0x39], SSE, lanewise(4, true, min)],
  ['pminuw', [0x38, 0x3a], SSE, lanewise(2, false, min)],
  ['pminud', [0x38, 0x3b], SSE, lanewise(4, false, min)],
  ['pmaxsb', [0x38, 0x3c], SSE, lanewise(1, true, max)],
  ['pmaxsd', [0x38, 0x3d], SSE, lanewise(4, true, max)],
  ['pmaxuw', [0x38, 0x3e], SSE, lanewise(2, false, max)],
  ['pmaxud', [0x38, 0x3f], SSE, lanewise(4, false, max)],
  ['pmulld', [0x38, 0x40], SSE, lanewise(4, true, (a, b) => a * b)],
  [
    'phminposuw',
    [0x38, 0x41],
    SSE,
    (_, b) => {
      const lanes = split(b, 16, 2, false);
      const least = lanes.reduce(min);
      return least | (BigInt(lanes.indexOf(least)) << 16n);
    },
  ],
];

const toBytes = (value: bigint, bytes: number): Uint8Array =>
  Uint8Array.from(split(value, bytes, 1, false), Number);
const fromBytes = (bytes: Uint8Array): bigint => join(Array.from(bytes, BigInt), 1);

/** 128 bits of random bytes, of equal or neighbouring bytes, and small counts. */
const wide = fc.oneof(
  fc.bigInt({ min: 0n, max: (1n << 128n) - 1n }),
  fc
    .array(fc.constantFrom(0, 1, 0x7f, 0x80, 0xff), { minLength: 16, maxLength: 16 })
    .map((bytes) => fromBytes(Uint8Array.from(bytes))),
  fc.bigInt({ min: 0n, max: 70n }),
);

function state(a: bigint, b: bigint): Registers {
  const registers = freshRegisters();
  registers.xmm[0]?.set(toBytes(a, 16));
  registers.xmm[1]?.set(toBytes(b, 16));
  registers.st[0]?.set(toBytes(a, 8));
  registers.st[1]?.set(toBytes(b, 8));
  registers.gpr[3] = BigInt(DATA);
  return registers;
}
const XMM0_XMM1 = 0xc1;
const XMM0_MEMORY = 0x03;
const low64 = (value: bigint): bigint => BigInt.asUintN(64, value);

test.each(OPERATIONS)('%s on xmm, from a register and from memory', (_, opcode, _files, reference) => {
  fc.assert(
    fc.property(wide, wide, (a, b) => {
      const expected = reference(a, b, 16);
      const fromRegister = cpu.run([0x66, 0x0f, ...opcode, XMM0_XMM1], state(a, b), new Uint8Array(0));
      expect(fromBytes(fromRegister.xmm[0] as Uint8Array)).toBe(expected);
      const fromMemory = cpu.run([0x66, 0x0f, ...opcode, XMM0_MEMORY], state(a, 0n), toBytes(b, 16));
      expect(fromBytes(fromMemory.xmm[0] as Uint8Array)).toBe(expected);
    }),
    { numRuns: 40 },
  );
});

test.each(OPERATIONS.filter(([, , files]) => files === BOTH))('%s on mm', (_, opcode, _files, reference) => {
  fc.assert(
    fc.property(wide, wide, (a, b) => {
      const after = cpu.run([0x0f, ...opcode, XMM0_XMM1], state(a, b), new Uint8Array(0));
      expect(fromBytes((after.st[0] as Uint8Array).subarray(0, 8))).toBe(reference(low64(a), low64(b), 8));
      // MMX state: exponent all ones, TOP 0, every register valid.
      expect((after.st[0] as Uint8Array).subarray(8, 10)).toEqual(Uint8Array.of(0xff, 0xff));
      expect([after.top, after.tags]).toEqual([0, 0xff]);
    }),
    { numRuns: 40 },
  );
});

/** One instruction with imm8 on xmm0 and xmm1: the result as an integer. */
const withImmediate = (code: readonly number[], a: bigint, b: bigint, imm: number): bigint =>
  fromBytes(cpu.run([...code, XMM0_XMM1, imm], state(a, b), new Uint8Array(0)).xmm[0] as Uint8Array);
const imm8 = fc.integer({ min: 0, max: 255 });
const pick = (value: bigint, width: number, index: number): bigint =>
  split(value, 16, width, false)[index] as bigint;

describe('immediates', () => {
  const property = (check: (a: bigint, b: bigint, imm: number) => void): void =>
    fc.assert(fc.property(wide, wide, imm8, check), { numRuns: 60 });
  const fields = (imm: number): number[] => [imm & 3, (imm >> 2) & 3, (imm >> 4) & 3, imm >> 6];

  test('pshufd, pshuflw, pshufhw', () =>
    property((a, b, imm) => {
      expect(withImmediate([0x66, 0x0f, 0x70], a, b, imm)).toBe(
        join(
          fields(imm).map((n) => pick(b, 4, n)),
          4,
        ),
      );
      const low = fields(imm).map((n) => pick(b, 2, n));
      expect(withImmediate([0xf2, 0x0f, 0x70], a, b, imm)).toBe(join(low, 2) | ((b >> 64n) << 64n));
      const high = fields(imm).map((n) => pick(b, 2, n + 4));
      expect(withImmediate([0xf3, 0x0f, 0x70], a, b, imm)).toBe(low64(b) | (join(high, 2) << 64n));
    }));
  test('shufps, shufpd', () =>
    property((a, b, imm) => {
      const [p, q, r, s] = fields(imm) as [number, number, number, number];
      expect(withImmediate([0x0f, 0xc6], a, b, imm)).toBe(
        join([pick(a, 4, p), pick(a, 4, q), pick(b, 4, r), pick(b, 4, s)], 4),
      );
      expect(withImmediate([0x66, 0x0f, 0xc6], a, b, imm)).toBe(
        join([pick(a, 8, imm & 1), pick(b, 8, (imm >> 1) & 1)], 8),
      );
    }));
  test('palignr', () =>
    property((a, b, imm) => {
      expect(withImmediate([0x66, 0x0f, 0x3a, 0x0f], a, b, imm)).toBe(
        BigInt.asUintN(128, ((a << 128n) | b) >> BigInt(imm * 8)),
      );
    }));
  test.each([
    ['blendps', 0x0c, 4],
    ['blendpd', 0x0d, 8],
    ['pblendw', 0x0e, 2],
  ])('%s', (_, opcode, width) =>
    property((a, b, imm) => {
      const bs = split(b, 16, width, false);
      const expected = split(a, 16, width, false).map((lane, n) =>
        imm & (1 << n) ? (bs[n] as bigint) : lane,
      );
      expect(withImmediate([0x66, 0x0f, 0x3a, opcode], a, b, imm)).toBe(join(expected, width));
    }),
  );
  test('insertps', () =>
    property((a, b, imm) => {
      const lanes = [...split(a, 16, 4, false)];
      lanes[(imm >> 4) & 3] = pick(b, 4, imm >> 6);
      expect(withImmediate([0x66, 0x0f, 0x3a, 0x21], a, b, imm)).toBe(
        join(
          lanes.map((lane, n) => (imm & (1 << n) ? 0n : lane)),
          4,
        ),
      );
    }));
  test('mpsadbw', () =>
    property((a, b, imm) => {
      const as = split(a, 16, 1, false);
      const bs = split(b, 16, 1, false);
      const from = (imm & 3) * 4;
      const at = (imm & 4) as number;
      const sums = Array.from({ length: 8 }, (_, k) =>
        [0, 1, 2, 3]
          .map((n) => abs((as[at + k + n] as bigint) - (bs[from + n] as bigint)))
          .reduce((x, y) => x + y),
      );
      expect(withImmediate([0x66, 0x0f, 0x3a, 0x42], a, b, imm)).toBe(join(sums, 2));
    }));
  test('byte shifts and shifts by an immediate', () =>
    property((a, _, imm) => {
      const run = (second: number, opcode: number): bigint =>
        fromBytes(
          cpu.run([0x66, 0x0f, opcode, second, imm], state(a, 0n), new Uint8Array(0)).xmm[0] as Uint8Array,
        );
      expect(run(0xf8, 0x73)).toBe(BigInt.asUintN(128, a << BigInt(imm * 8)));
      expect(run(0xd8, 0x73)).toBe(a >> BigInt(imm * 8));
      expect(run(0xe0, 0x71)).toBe(shift(2, (x, n) => x >> BigInt(n), true)(a, BigInt(imm), 16));
      expect(run(0xf0, 0x72)).toBe(shift(4, (x, n) => x << BigInt(n))(a, BigInt(imm), 16));
    }));
  test('lanes out to registers and in from them', () =>
    property((a, b, imm) => {
      const out = (code: readonly number[]): bigint =>
        cpu.run([...code, 0xc0, imm], state(a, 0n), new Uint8Array(0)).gpr[0] as bigint;
      expect(out([0x66, 0x0f, 0x3a, 0x14])).toBe(pick(a, 1, imm & 15));
      expect(out([0x66, 0x0f, 0x3a, 0x16])).toBe(pick(a, 4, imm & 3));
      expect(out([0x66, 0x48, 0x0f, 0x3a, 0x16])).toBe(pick(a, 8, imm & 1));
      expect(out([0x66, 0x0f, 0xc5])).toBe(pick(a, 2, imm & 7));
      const into = (code: readonly number[]): bigint => {
        const registers = state(a, 0n);
        registers.gpr[1] = low64(b);
        return fromBytes(cpu.run([...code, 0xc1, imm], registers, new Uint8Array(0)).xmm[0] as Uint8Array);
      };
      const replaced = (width: number): bigint =>
        join(
          split(a, 16, width, false).map((lane, n) => (n === (imm & (16 / width - 1)) ? b : lane)),
          width,
        );
      expect(into([0x66, 0x0f, 0x3a, 0x20])).toBe(replaced(1));
      expect(into([0x66, 0x0f, 0xc4])).toBe(replaced(2));
      expect(into([0x66, 0x0f, 0x3a, 0x22])).toBe(replaced(4));
      expect(into([0x66, 0x48, 0x0f, 0x3a, 0x22])).toBe(replaced(8));
    }));
});

/** PCMPxSTRx as SDM vol. 2, 4.1 says it: IntRes2 and the flags. */
function compareStrings(
  a: Lanes,
  b: Lanes,
  lengthA: number,
  lengthB: number,
  imm: number,
): { bits: number; flags: number } {
  const count = a.length;
  let bits = 0;
  for (let j = 0; j < count; j++) {
    const equal = (i: number, k: number): boolean => a[i] === b[k];
    let hit: boolean;
    switch ((imm >> 2) & 3) {
      case 0:
        hit = j < lengthB && a.some((_, i) => i < lengthA && equal(i, j));
        break;
      case 1:
        hit =
          j < lengthB &&
          a.some(
            (low, i) =>
              i % 2 === 0 &&
              i + 1 < lengthA &&
              low <= (b[j] as bigint) &&
              (b[j] as bigint) <= (a[i + 1] as bigint),
          );
        break;
      case 2:
        hit = j < lengthA && j < lengthB ? equal(j, j) : j >= lengthA && j >= lengthB;
        break;
      default:
        hit = a.slice(0, count - j).every((_, i) => i >= lengthA || (j + i < lengthB && equal(i, j + i)));
    }
    if (imm & 0x10 && (!(imm & 0x20) || j < lengthB)) hit = !hit;
    if (hit) bits |= 1 << j;
  }
  const flags =
    (bits ? 1 : 0) | (lengthB < count ? 0x40 : 0) | (lengthA < count ? 0x80 : 0) | (bits & 1 ? 0x800 : 0);
  return { bits, flags };
}

describe('string comparison', () => {
  const text = fc
    .array(fc.constantFrom(0, 0x41, 0x42, 0x43, 0x61, 0xc3, 0xff), { minLength: 16, maxLength: 16 })
    .map((bytes) => fromBytes(Uint8Array.from(bytes)));
  const length = fc.constantFrom(-17n, -3n, 0n, 1n, 5n, 8n, 15n, 16n, 100n, -(1n << 31n), 1n << 40n);
  test.each([
    ['pcmpestrm', 0x60, true, true],
    ['pcmpestri', 0x61, true, false],
    ['pcmpistrm', 0x62, false, true],
    ['pcmpistri', 0x63, false, false],
  ])('%s', (_, opcode, explicit, mask) => {
    fc.assert(
      fc.property(text, text, length, length, imm8, fc.boolean(), (a, b, rax, rdx, imm, wideLengths) => {
        const width = imm & 1 ? 2 : 1;
        const count = 16 / width;
        const signed = (imm & 2) !== 0;
        const as = split(a, 16, width, signed);
        const bs = split(b, 16, width, signed);
        const given = (value: bigint): number => {
          const size = abs(wideLengths ? value : BigInt.asIntN(32, value));
          return size > BigInt(count) ? count : Number(size);
        };
        const end = (lanes: Lanes): number => (lanes.indexOf(0n) < 0 ? count : lanes.indexOf(0n));
        const { bits, flags } = compareStrings(
          as,
          bs,
          explicit ? given(rax) : end(as),
          explicit ? given(rdx) : end(bs),
          imm,
        );
        const registers = state(a, b);
        registers.gpr[0] = low64(rax);
        registers.gpr[2] = low64(rdx);
        registers.gpr[1] = 0xffffffffffffffffn;
        registers.rflags = 0x8d7;
        const rex = wideLengths ? [0x48] : [];
        const after = cpu.run(
          [0x66, ...rex, 0x0f, 0x3a, opcode, XMM0_XMM1, imm],
          registers,
          new Uint8Array(0),
        );
        expect(after.rflags & 0x8d5).toBe(flags);
        const numbers = Array.from({ length: count }, (_unused, n) => n).filter((n) => bits & (1 << n));
        if (mask) {
          const spread = join(
            Array.from({ length: count }, (_unused, n) => all((bits & (1 << n)) !== 0)),
            width,
          );
          expect(fromBytes(after.xmm[0] as Uint8Array)).toBe(imm & 0x40 ? spread : BigInt(bits));
        } else {
          expect(after.gpr[1]).toBe(BigInt((imm & 0x40 ? numbers.at(-1) : numbers[0]) ?? count));
        }
      }),
      { numRuns: 400 },
    );
  });
});

describe('moves and their faults', () => {
  const value = 0x00112233445566778899aabbccddeeffn;
  const run = (
    code: readonly number[],
    a: bigint,
    b: bigint,
    data: Uint8Array = new Uint8Array(0),
    base = DATA,
  ) => {
    const registers = state(a, b);
    registers.gpr[3] = BigInt(base);
    registers.gpr[7] = BigInt(base);
    return cpu.run(code, registers, data);
  };
  test('a misaligned aligned operand is #GP(0), an unaligned one is not', () => {
    expect(run([0x66, 0x0f, 0x6f, 0x03], 0n, 0n, new Uint8Array(0), DATA + 8).vector).toBe(13);
    expect(run([0x66, 0x0f, 0xfc, 0x03], 0n, 0n, new Uint8Array(0), DATA + 8).vector).toBe(13);
    expect(run([0x66, 0x0f, 0xe7, 0x03], 0n, 0n, new Uint8Array(0), DATA + 8).vector).toBe(13);
    expect(run([0xf3, 0x0f, 0x6f, 0x03], 0n, 0n, new Uint8Array(0), DATA + 8).vector).toBe(-1);
    expect(run([0xf2, 0x0f, 0xf0, 0x03], 0n, 0n, new Uint8Array(0), DATA + 8).vector).toBe(-1);
  });
  test('movss and movsd clear the rest from memory and keep it between registers', () => {
    const ones = (1n << 128n) - 1n;
    expect(fromBytes(run([0xf3, 0x0f, 0x10, 0x03], ones, 0n, toBytes(value, 16)).xmm[0] as Uint8Array)).toBe(
      value & 0xffffffffn,
    );
    expect(fromBytes(run([0xf2, 0x0f, 0x10, 0xc1], ones, value).xmm[0] as Uint8Array)).toBe(
      ((ones >> 64n) << 64n) | low64(value),
    );
    expect(fromBytes(run([0xf3, 0x0f, 0x7e, 0xc1], ones, value).xmm[0] as Uint8Array)).toBe(low64(value));
  });
  test('maskmovdqu stores the bytes whose mask has its top bit, at [rdi]', () => {
    const data = new Uint8Array(16).fill(0xee);
    const after = run([0x66, 0x0f, 0xf7, 0xc1], value, 0x80ff7f00000000000000000000000080n, data);
    const expected = new Uint8Array(16).fill(0xee);
    expected[0] = 0xff;
    expected[14] = 0x11;
    expected[15] = 0x00;
    expect(after.data.subarray(0, 16)).toEqual(expected);
  });
  test('maskmovdqu without a mask looks at its operand on AMD, not on Intel', () => {
    const vector = (vendor: number): number => {
      cpu.view.setUint32(cpu.cpu + CPU.vendor, vendor, true);
      return run([0x66, 0x0f, 0xf7, 0xc1], value, 0n, new Uint8Array(0), 2 ** 47).vector;
    };
    expect([vector(1), vector(0)]).toEqual([-1, 13]);
  });
  test('emms empties the registers; an MMX instruction first raises a pending x87 exception', () => {
    const registers = state(0n, 0n);
    registers.tags = 0xff;
    registers.top = 3;
    const after = cpu.run([0x0f, 0x77], registers, new Uint8Array(0));
    expect([after.top, after.tags]).toEqual([0, 0]);
    registers.fsw = 0x8081;
    expect(cpu.run([0x0f, 0xfc, 0xc1], registers, new Uint8Array(0)).vector).toBe(16);
  });
  test('CR0.EM and CR4.OSFXSR make #UD, CR0.TS #NM', () => {
    const { cr0, cr4 } = cpu;
    const paddb = [0x66, 0x0f, 0xfc, 0xc1];
    const mm = [0x0f, 0xfc, 0xc1];
    cpu.cr0 = cr0 | 4;
    expect([run(paddb, 0n, 0n).vector, run(mm, 0n, 0n).vector]).toEqual([6, 6]);
    cpu.cr0 = cr0 | 8;
    expect([run(paddb, 0n, 0n).vector, run(mm, 0n, 0n).vector]).toEqual([7, 7]);
    cpu.cr0 = cr0;
    cpu.cr4 = cr4 & ~0x200;
    expect([run(paddb, 0n, 0n).vector, run(mm, 0n, 0n).vector]).toEqual([6, -1]);
    cpu.cr4 = cr4;
  });
  test('prefixes that select no instruction are #UD', () => {
    expect(run([0xf3, 0x0f, 0xfc, 0xc1], 0n, 0n).vector).toBe(6);
    expect(run([0xf2, 0x0f, 0x54, 0xc1], 0n, 0n).vector).toBe(6);
    expect(run([0x66, 0x0f, 0x77], 0n, 0n).vector).toBe(6);
  });
});

test('ptest and the masks of signs', () => {
  const flags = (a: bigint, b: bigint): number =>
    cpu.run([0x66, 0x0f, 0x38, 0x17, XMM0_XMM1], state(a, b), new Uint8Array(0)).rflags & 0x8d5;
  expect(flags(0b1100n, 0b0011n)).toBe(0x40);
  expect(flags(0b1100n, 0b0100n)).toBe(0x01);
  expect(flags(0b1100n, 0b0110n)).toBe(0);
  expect(flags(0n, 0n)).toBe(0x41);
  const signs = 0x80_00_ff_7f_00_00_00_80_00_00_00_00_80_00_00_01n;
  const out = (code: readonly number[]): bigint =>
    cpu.run([...code, XMM0_XMM1], state(0n, signs), new Uint8Array(0)).gpr[0] as bigint;
  expect(out([0x66, 0x0f, 0xd7])).toBe(0xa108n);
  expect(out([0x0f, 0x50])).toBe(0b1001n);
  expect(out([0x66, 0x0f, 0x50])).toBe(0b10n);
});
