import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { x86Routines } from '../all.ts';
import { freshRegisters, OneInstruction } from '../one-instruction.ts';
import { simdDefs } from '../simd.ts';

const cpu = new OneInstruction(simdDefs, x86Routines, ['sse', 'sse2', 'sse3', 'sse4.1']);

/** Values at which arithmetic changes its ways, as the bits of four singles or two doubles. */
const single = fc.oneof(
  fc.constantFrom(
    0,
    0x80000000,
    1,
    0x80000001,
    0x007fffff,
    0x00800000,
    0x00800001,
    0x3f800000,
    0xbf800000,
    0x7f7fffff,
  ),
  fc.constantFrom(
    0x7f800000,
    0xff800000,
    0x7fc00001,
    0x7f800001,
    0xffc00000,
    0x4f000000,
    0xcf000000,
    0x4b000001,
    0x3f000000,
  ),
  fc.integer({ min: 0, max: 0xffffffff }),
  fc.integer({ min: 0, max: 0x7ffffff }).map((n) => (0x3c000000 + n) >>> 0),
);
const double = fc.oneof(
  fc.constantFrom(
    0n,
    1n << 63n,
    1n,
    (1n << 52n) - 1n,
    1n << 52n,
    (1n << 52n) + 1n,
    0x3ff0000000000000n,
    0x7fefffffffffffffn,
  ),
  fc.constantFrom(
    0x7ff0000000000000n,
    0xfff0000000000000n,
    0x7ff8000000000001n,
    0x7ff0000000000001n,
    0x41e0000000000000n,
  ),
  fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  fc.bigInt({ min: 0n, max: (1n << 57n) - 1n }).map((n) => 0x3fc0000000000000n + n),
);
const vector = fc.oneof(
  fc.tuple(single, single, single, single).map((lanes) => {
    const bytes = new Uint8Array(16);
    for (const [n, lane] of lanes.entries()) new DataView(bytes.buffer).setUint32(n * 4, lane, true);
    return bytes;
  }),
  fc.tuple(double, double).map((lanes) => {
    const bytes = new Uint8Array(16);
    for (const [n, lane] of lanes.entries()) new DataView(bytes.buffer).setBigUint64(n * 8, lane, true);
    return bytes;
  }),
);

function run(code: readonly number[], mxcsr: number, a: Uint8Array, b: Uint8Array) {
  const registers = freshRegisters();
  registers.mxcsr = mxcsr;
  registers.xmm[0]?.set(a);
  registers.xmm[1]?.set(b);
  const { vector: raised, xmm, mxcsr: after, gpr, rflags } = cpu.run(code, registers, new Uint8Array(0));
  return { raised, xmm: xmm[0], after, rax: gpr[0], status: rflags & 0x8d5 };
}

const XMM0_XMM1 = 0xc1;
const prefixes = { ps: [], pd: [0x66], ss: [0xf3], sd: [0xf2] } as const;
const cases: [string, number[]][] = [];
for (const [suffix, prefix] of Object.entries(prefixes)) {
  for (const [name, opcode] of [
    ['add', 0x58],
    ['sub', 0x5c],
    ['mul', 0x59],
    ['div', 0x5e],
    ['sqrt', 0x51],
  ] as const) {
    cases.push([`${name}${suffix}`, [...prefix, 0x0f, opcode, XMM0_XMM1]]);
  }
}
cases.push(
  ['cvtpd2ps', [0x66, 0x0f, 0x5a, XMM0_XMM1]],
  ['cvtsd2ss', [0xf2, 0x0f, 0x5a, XMM0_XMM1]],
  ['cvtdq2ps', [0x0f, 0x5b, XMM0_XMM1]],
  ['cvttss2si', [0xf3, 0x0f, 0x2c, XMM0_XMM1]],
  ['cvttsd2si', [0xf2, 0x48, 0x0f, 0x2c, XMM0_XMM1]],
);

describe('with PE set, where native arithmetic may answer, as without, where it may not', () => {
  test.each(cases)('%s', (_, code) => {
    fc.assert(
      fc.property(vector, vector, (a, b) => {
        const fast = run(code, 0x1fa0, a, b);
        const slow = run(code, 0x1f80, a, b);
        expect(fast.raised).toBe(-1);
        expect(fast).toEqual({ ...slow, after: slow.after | 0x20 });
      }),
      { numRuns: 300 },
    );
  });
});

const lanes = (...values: number[]): Uint8Array => new Uint8Array(new Uint32Array(values).buffer);
const ONE = 0x3f800000;
const TWO = 0x40000000;
const QNAN = 0x7fc00001;

describe('exceptions', () => {
  const addps = [0x0f, 0x58, XMM0_XMM1];
  test('an unmasked one leaves the destination and raises #XM, without CR4.OSXMMEXCPT #UD', () => {
    const a = lanes(ONE, ONE, 0, 0);
    const b = lanes(0x33000000, ONE, 0, 0);
    const { raised, xmm, after } = run(addps, 0x0f80, a, b);
    expect(raised).toBe(19);
    expect(xmm).toEqual(a);
    expect(after).toBe(0x0fa0);
    const { cr4 } = cpu;
    cpu.cr4 &= ~0x400;
    expect(run(addps, 0x0f80, a, b).raised).toBe(6);
    cpu.cr4 = cr4;
  });
  test('DAZ reads denormals as zeros and raises no DE', () => {
    const { xmm, after } = run(addps, 0x1fc0, lanes(0x80000001, 0, 0, 0), lanes(0x007fffff, 0, 0, 0));
    expect(xmm).toEqual(lanes(0, 0, 0, 0));
    expect(after).toBe(0x1fc0);
  });
});

test('a product that is rounded up to the smallest normal number was tiny: UE', () => {
  const singles = [lanes(0x3f7fffff, ONE, ONE, ONE), lanes(0x00800000, ONE, ONE, ONE)] as const;
  const doubles = [lanes(0xffffffff, 0x3fefffff, 0, 0), lanes(0, 0x00100000, 0, 0)] as const;
  for (const [suffix, operands] of [
    ['ps', singles],
    ['ss', singles],
    ['pd', doubles],
    ['sd', doubles],
  ] as const) {
    const { xmm, after } = run([...prefixes[suffix], 0x0f, 0x59, XMM0_XMM1], 0x1fa0, ...operands);
    expect(xmm?.subarray(0, 8)).toEqual(operands[1].subarray(0, 8));
    expect(after).toBe(0x1fb0);
  }
});

test('MIN and MAX give the second operand for NaNs and for zeros of both signs', () => {
  for (const opcode of [0x5d, 0x5f]) {
    const { xmm, after } = run(
      [0x0f, opcode, XMM0_XMM1],
      0x1f80,
      lanes(QNAN, ONE, 0, 0x80000000),
      lanes(ONE, QNAN, 0x80000000, 0),
    );
    expect(xmm).toEqual(lanes(ONE, QNAN, 0x80000000, 0));
    expect(after).toBe(0x1f81);
  }
  expect(run([0x0f, 0x5d, XMM0_XMM1], 0x1f80, lanes(ONE, TWO, 0, 0), lanes(TWO, ONE, 0, 0)).xmm).toEqual(
    lanes(ONE, ONE, 0, 0),
  );
  expect(run([0x0f, 0x5f, XMM0_XMM1], 0x1f80, lanes(ONE, TWO, 0, 0), lanes(TWO, ONE, 0, 0)).xmm).toEqual(
    lanes(TWO, TWO, 0, 0),
  );
});

test('CMPPS: each predicate on less, equal, greater and unordered; LT and LE signal quiet NaNs', () => {
  const expected = [
    [0, 1, 0, 0],
    [1, 0, 0, 0],
    [1, 1, 0, 0],
    [0, 0, 0, 1],
    [1, 0, 1, 1],
    [0, 1, 1, 1],
    [0, 0, 1, 1],
    [1, 1, 1, 0],
  ];
  for (const [predicate, truth] of expected.entries()) {
    const { xmm, after } = run(
      [0x0f, 0xc2, XMM0_XMM1, predicate],
      0x1f80,
      lanes(ONE, ONE, TWO, ONE),
      lanes(TWO, ONE, ONE, QNAN),
    );
    expect(xmm).toEqual(lanes(...truth.map((one) => (one ? 0xffffffff : 0))));
    expect(after & 1).toBe([1, 2, 5, 6].includes(predicate) ? 1 : 0);
  }
});

test('UCOMISS and COMISS set ZF, PF, CF; only COMISS signals a quiet NaN', () => {
  const status = (opcode: number, a: number, b: number) =>
    run([0x0f, opcode, XMM0_XMM1], 0x1f80, lanes(a, 0, 0, 0), lanes(b, 0, 0, 0));
  expect(status(0x2e, TWO, ONE).status).toBe(0);
  expect(status(0x2e, ONE, TWO).status).toBe(1);
  expect(status(0x2f, ONE, ONE).status).toBe(0x40);
  expect(status(0x2e, ONE, QNAN)).toMatchObject({ status: 0x45, after: 0x1f80 });
  expect(status(0x2f, ONE, QNAN)).toMatchObject({ status: 0x45, after: 0x1f81 });
});

test('ROUNDPS follows imm8, or MXCSR.RC with bit 2; bit 3 holds PE back', () => {
  const value = lanes(0x3fc00000, 0xbfc00000, 0x40200000, 0xbe800000);
  const round = (imm: number, mxcsr = 0x1f80) =>
    run([0x66, 0x0f, 0x3a, 0x08, XMM0_XMM1, imm], mxcsr, lanes(0, 0, 0, 0), value);
  expect(round(0).xmm).toEqual(lanes(TWO, 0xc0000000, TWO, 0x80000000));
  expect(round(1).xmm).toEqual(lanes(ONE, 0xc0000000, TWO, 0xbf800000));
  expect(round(2).xmm).toEqual(lanes(TWO, 0xbf800000, 0x40400000, 0x80000000));
  expect(round(3).xmm).toEqual(lanes(ONE, 0xbf800000, TWO, 0x80000000));
  expect(round(4, 0x1f80 | 0x2000).xmm).toEqual(round(1).xmm);
  expect(round(0).after).toBe(0x1fa0);
  expect(round(8).after).toBe(0x1f80);
});

describe('approximations', () => {
  test.each([
    ['rcpps', 0x53, (x: number) => 1 / x],
    ['rsqrtps', 0x52, (x: number) => 1 / Math.sqrt(x)],
  ] as const)('%s stays within 1.5 * 2^-12', (_, opcode, reference) => {
    fc.assert(
      fc.property(fc.float({ min: Math.fround(1e-30), max: Math.fround(1e30), noNaN: true }), (x) => {
        const bits = new Uint32Array(new Float32Array([x]).buffer)[0] as number;
        const { xmm } = run(
          [0x0f, opcode, XMM0_XMM1],
          0x1f80,
          lanes(0, 0, 0, 0),
          lanes(bits, bits, bits, bits),
        );
        const got = new Float32Array((xmm as Uint8Array).buffer)[0] as number;
        expect(Math.abs(got / reference(x) - 1)).toBeLessThan(1.5 / 4096);
      }),
    );
  });
  test('special operands raise nothing', () => {
    const operand = lanes(0x80000001, 0x7f800001, 0xff800000, 0);
    expect(run([0x0f, 0x53, XMM0_XMM1], 0, lanes(0, 0, 0, 0), operand)).toMatchObject({
      raised: -1,
      xmm: lanes(0xff800000, 0x7fc00001, 0x80000000, 0x7f800000),
      after: 0,
    });
    expect(run([0x0f, 0x52, XMM0_XMM1], 0, lanes(0, 0, 0, 0), operand).xmm).toEqual(
      lanes(0xff800000, 0x7fc00001, 0xffc00000, 0x7f800000),
    );
  });
  test('values that AMD processors give', () => {
    expect(
      run([0x0f, 0x53, XMM0_XMM1], 0x1f80, lanes(0, 0, 0, 0), lanes(ONE, 0x3f800800, 0x3f801000, 0x7e800000))
        .xmm,
    ).toEqual(lanes(0x3f7ff000, 0x3f7fe000, 0x3f7fd800, 0));
    expect(
      run([0x0f, 0x52, XMM0_XMM1], 0x1f80, lanes(0, 0, 0, 0), lanes(ONE, TWO, 0x40000800, 0x40001800)).xmm,
    ).toEqual(lanes(0x3f7ff800, 0x3f350000, 0x3f34f800, 0x3f34f000));
  });
});

test('DPPS multiplies and adds the chosen lanes and writes the chosen ones', () => {
  const three = 0x40400000;
  const { xmm } = run(
    [0x66, 0x0f, 0x3a, 0x40, XMM0_XMM1, 0x75],
    0x1f80,
    lanes(ONE, TWO, three, QNAN),
    lanes(ONE, TWO, three, ONE),
  );
  expect(xmm).toEqual(lanes(0x41600000, 0, 0x41600000, 0));
});

test('ADDSUBPS, HADDPS and HSUBPS', () => {
  const a = lanes(ONE, TWO, ONE, ONE);
  const b = lanes(TWO, ONE, ONE, 0);
  expect(run([0xf2, 0x0f, 0xd0, XMM0_XMM1], 0x1f80, a, b).xmm).toEqual(lanes(0xbf800000, 0x40400000, 0, ONE));
  expect(run([0xf2, 0x0f, 0x7c, XMM0_XMM1], 0x1f80, a, b).xmm).toEqual(
    lanes(0x40400000, TWO, 0x40400000, ONE),
  );
  expect(run([0xf2, 0x0f, 0x7d, XMM0_XMM1], 0x1f80, a, b).xmm).toEqual(lanes(0xbf800000, 0, ONE, ONE));
});
