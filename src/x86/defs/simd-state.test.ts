import { beforeEach, describe, expect, test } from 'vitest';
import { x86Routines } from '../all.ts';
import { CPU } from '../layout.ts';
import { DATA, freshRegisters, OneInstruction, type Registers } from '../one-instruction.ts';
import { MXCSR_MASK, PKRU_OFFSET } from '../runtime/xsave.ts';
import { simdDefs } from '../simd.ts';

const cpu = new OneInstruction(simdDefs, x86Routines, [
  'mmx',
  'sse',
  'sse2',
  'fxsr',
  'xsave',
  'xsaveopt',
  'xsavec',
  'xsaves',
  'clflush',
]);
const PRESET = { cr0: cpu.cr0, cr4: cpu.cr4 };

beforeEach(() => {
  cpu.cr0 = PRESET.cr0;
  cpu.cr4 = PRESET.cr4;
  cpu.xcr0 = 3;
  cpu.view.setUint32(cpu.cpu + CPU.cpl, 0, true);
  cpu.view.setUint32(cpu.cpu + CPU.pkru, 0, true);
  cpu.view.setUint32(cpu.cpu + CPU.vendor, 1, true);
});

// [rbx] is DATA.
const FXSAVE = [0x0f, 0xae, 0x03];
const FXRSTOR = [0x0f, 0xae, 0x0b];
const XSAVE = [0x0f, 0xae, 0x23];
const XRSTOR = [0x0f, 0xae, 0x2b];
const XSAVEOPT = [0x0f, 0xae, 0x33];
const XSAVEC = [0x0f, 0xc7, 0x23];
const XSAVES = [0x0f, 0xc7, 0x2b];
const XRSTORS = [0x0f, 0xc7, 0x1b];
const IMAGE = 576;

function sample(): Registers {
  const registers = freshRegisters();
  registers.gpr[3] = BigInt(DATA);
  registers.gpr[0] = 0xffffffffn;
  registers.gpr[2] = 0xffffffffn;
  registers.fcw = 0x27f;
  registers.fsw = 0x4100;
  registers.top = 5;
  registers.tags = 0xa5;
  registers.mxcsr = 0x9fc5;
  for (let n = 0; n < 16; n++) registers.xmm[n]?.fill(0x10 + n);
  for (let n = 0; n < 8; n++) registers.st[n]?.fill(0x80 + n, 0, 10);
  return registers;
}
const filled = (length = 4096): Uint8Array => new Uint8Array(length).fill(0xee);
const view = (data: Uint8Array): DataView => new DataView(data.buffer, data.byteOffset);

test('FXSAVE writes the image and leaves the rest: SDM vol. 1, table 10-2', () => {
  const { vector, data } = cpu.run(FXSAVE, sample(), filled());
  expect(vector).toBe(-1);
  const v = view(data);
  expect(v.getUint16(0, true)).toBe(0x27f);
  expect(v.getUint16(2, true)).toBe(0x4100 | (5 << 11));
  expect([data[4], data[5]]).toEqual([0xa5, 0]);
  expect(v.getUint32(24, true)).toBe(0x9fc5);
  expect(v.getUint32(28, true)).toBe(MXCSR_MASK);
  for (let n = 0; n < 8; n++) {
    // ST(n) is physical register (TOP + n) mod 8.
    const at = 32 + n * 16;
    expect(Array.from(data.subarray(at, at + 16))).toEqual([
      ...new Array<number>(10).fill(0x80 + ((5 + n) & 7)),
      0,
      0,
      0,
      0,
      0,
      0,
    ]);
  }
  for (let n = 0; n < 16; n++) expect(data[160 + n * 16 + 7]).toBe(0x10 + n);
  expect(data.subarray(416, 600).every((byte) => byte === 0xee)).toBe(true);
});

test('FXRSTOR brings back what FXSAVE wrote', () => {
  const saved = cpu.run(FXSAVE, sample(), filled());
  const registers = freshRegisters();
  registers.gpr[3] = BigInt(DATA);
  const after = cpu.run(FXRSTOR, registers, saved.data);
  const { fcw, fsw, top, tags, mxcsr, xmm, st } = sample();
  expect(after).toMatchObject({ vector: -1, fcw, fsw, top, tags, mxcsr, xmm, st });
});

test('FOP, FIP and FDP: Intel saves them always, AMD only with an exception pending; REX.W has them whole', () => {
  const registers = sample();
  const image = filled();
  const v = view(image);
  image.fill(0, 0, 512);
  v.setUint16(6, 0x123, true);
  v.setBigUint64(8, 0x0001_2345_89abcdefn, true);
  v.setBigUint64(16, 0x0002_2222_33334444n, true);
  const saved = (vendor: number, fsw: number, wide: boolean): [number, bigint, bigint] => {
    cpu.view.setUint32(cpu.cpu + CPU.vendor, vendor, true);
    v.setUint16(0, 0x37e, true);
    v.setUint16(2, fsw, true);
    const rex = wide ? [0x48] : [];
    // One run is one instruction: the image is loaded first, then saved over with what is in the processor.
    cpu.run([...rex, ...FXRSTOR], registers, image);
    const pointers = [CPU.fop, CPU.fip, CPU.fdp].map((field) => cpu.view.getBigUint64(cpu.cpu + field, true));
    const after = cpu.runAgain([...rex, ...FXSAVE]);
    expect(pointers[1]).not.toBe(0n);
    const out = view(after.data);
    return [out.getUint16(6, true), out.getBigUint64(8, true), out.getBigUint64(16, true)];
  };
  const narrow: [number, bigint, bigint] = [0x123, 0x2345_89abcdefn, 0x2222_33334444n];
  expect(saved(1, 0, true)).toEqual([0x123, 0x0001_2345_89abcdefn, 0x0002_2222_33334444n]);
  expect(saved(1, 0, false)).toEqual(narrow);
  expect(saved(0, 0, true)).toEqual([0, 0n, 0n]);
  expect(saved(0, 0x8081, false)).toEqual(narrow);
});

describe('faults', () => {
  const at = (code: readonly number[], offset: number, change?: (registers: Registers) => void): number => {
    const registers = sample();
    registers.gpr[3] = BigInt(DATA + offset);
    change?.(registers);
    return cpu.run(code, registers, new Uint8Array(4096)).vector;
  };
  test('alignment: 16 bytes for FXSAVE, 64 for XSAVE', () => {
    expect([at(FXSAVE, 8), at(FXRSTOR, 8), at(XSAVE, 16), at(XRSTOR, 32), at(XSAVEC, 16)]).toEqual([
      13, 13, 13, 13, 13,
    ]);
  });
  test('a misaligned image at an address that is not canonical: #SS for FXSAVE by rbp, #GP for XSAVE', () => {
    const far = (registers: Registers): void => void (registers.gpr[5] = 1n << 47n);
    expect([at([0x0f, 0xae, 0x45, 1], 0, far), at([0x0f, 0xae, 0x65, 1], 0, far)]).toEqual([12, 13]);
  });
  test('CR0.TS is #NM, no CR4.OSXSAVE is #UD', () => {
    cpu.cr0 |= 8;
    expect([at(FXSAVE, 0), at(XSAVE, 0), at(XRSTOR, 0)]).toEqual([7, 7, 7]);
    cpu.cr4 &= ~0x40000;
    expect([at(XSAVE, 0), at([0x0f, 0x01, 0xd0], 0), at([0x0f, 0x01, 0xd1], 0)]).toEqual([6, 6, 6]);
  });
  test('reserved MXCSR bits are #GP(0) for LDMXCSR, FXRSTOR and XRSTOR, and nothing changes', () => {
    const image = new Uint8Array(4096);
    view(image).setUint32(24, 0x10000, true);
    view(image).setUint32(512, 3, true);
    view(image).setUint32(0, 0x10000, true);
    for (const code of [[0x0f, 0xae, 0x13], FXRSTOR, XRSTOR]) {
      const after = cpu.run(code, sample(), image);
      const { mxcsr, xmm, tags } = sample();
      expect(after).toMatchObject({ vector: 13, mxcsr, xmm, tags });
    }
  });
  test('LDMXCSR and STMXCSR', () => {
    const image = new Uint8Array(64);
    view(image).setUint32(0, 0xffbf, true);
    expect(cpu.run([0x0f, 0xae, 0x13], sample(), image).mxcsr).toBe(0xffbf);
    expect(view(cpu.run([0x0f, 0xae, 0x1b], sample(), image).data).getUint32(0, true)).toBe(0x9fc5);
  });
});

describe('XSAVE', () => {
  const header = (data: Uint8Array): [bigint, bigint] => [
    view(data).getBigUint64(512, true),
    view(data).getBigUint64(520, true),
  ];

  test('writes the requested components and only their bits of XSTATE_BV', () => {
    const registers = sample();
    registers.gpr[0] = 2n;
    const before = filled();
    view(before).setBigUint64(512, 1n, true);
    const { data } = cpu.run(XSAVE, registers, before);
    expect(header(data)).toEqual([3n, 0xeeeeeeeeeeeeeeeen]);
    expect(data[0]).toBe(0xee);
    expect(view(data).getUint32(24, true)).toBe(0x9fc5);
    expect(data[160]).toBe(0x10);
    registers.gpr[0] = 1n;
    const x87 = cpu.run(XSAVE, registers, filled()).data;
    expect([x87[0], x87[24], x87[160]]).toEqual([0x7f, 0xee, 0xee]);
  });

  test('a component in its initial state is reported so; XSAVEOPT and XSAVEC leave it out', () => {
    const registers = freshRegisters();
    registers.gpr[3] = BigInt(DATA);
    registers.gpr[0] = 3n;
    const before = (): Uint8Array => filled().fill(0, 512, IMAGE);
    expect(header(cpu.run(XSAVE, registers, before()).data)[0]).toBe(0n);
    const optimized = cpu.run(XSAVEOPT, registers, before()).data;
    expect([optimized[0], optimized[160]]).toEqual([0xee, 0xee]);
    registers.xmm[9]?.fill(1);
    expect(header(cpu.run(XSAVE, registers, before()).data)[0]).toBe(2n);
    const compact = cpu.run(XSAVEC, registers, filled()).data;
    expect(header(compact)).toEqual([2n, (1n << 63n) | 3n]);
    expect([compact[0], compact[160]]).toEqual([0xee, 0]);
  });

  test('MXCSR alone keeps SSE in use in the compacted format', () => {
    const registers = freshRegisters();
    registers.gpr[3] = BigInt(DATA);
    registers.gpr[0] = 3n;
    registers.mxcsr = 0x1fa0;
    expect(header(cpu.run(XSAVEC, registers, filled()).data)[0]).toBe(2n);
  });

  test('XRSTOR brings back what each form wrote', () => {
    for (const [save, restore] of [
      [XSAVE, XRSTOR],
      [XSAVEOPT, XRSTOR],
      [XSAVEC, XRSTOR],
      [XSAVES, XRSTORS],
    ] as const) {
      const saved = cpu.run(save, sample(), filled().fill(0, 512, IMAGE));
      const registers = freshRegisters();
      registers.gpr[3] = BigInt(DATA);
      registers.gpr[0] = 3n;
      const after = cpu.run(restore, registers, saved.data);
      const { fcw, fsw, top, tags, mxcsr, xmm, st } = sample();
      expect(after).toMatchObject({ vector: -1, fcw, fsw, top, tags, mxcsr, xmm, st });
    }
  });

  test('XRSTOR initialises what XSTATE_BV leaves out; MXCSR is still loaded in the standard format', () => {
    const image = new Uint8Array(4096);
    view(image).setUint32(24, 0x1fbf, true);
    const standard = cpu.run(XRSTOR, sample(), image);
    expect(standard).toMatchObject({ vector: -1, fcw: 0x37f, fsw: 0, top: 0, tags: 0, mxcsr: 0x1fbf });
    expect(standard.xmm.every((register) => register.every((byte) => byte === 0))).toBe(true);
    view(image).setBigUint64(520, (1n << 63n) | 3n, true);
    expect(cpu.run(XRSTOR, sample(), image)).toMatchObject({ vector: -1, mxcsr: 0x1f80 });
  });

  test.each([
    ['XSTATE_BV beyond XCR0', 512, 4n, false],
    ['XCOMP_BV without the compaction bit', 520, 3n, false],
    ['reserved header bytes', 528, 1n, false],
    ['compacted: XSTATE_BV beyond XCOMP_BV', 512, 3n, true],
    ['compacted: the last header byte', 568, 1n << 56n, true],
  ])('XRSTOR: %s is #GP(0)', (_, offset, value, compact) => {
    const image = new Uint8Array(4096);
    if (compact) view(image).setBigUint64(520, (1n << 63n) | 1n, true);
    expect(cpu.run(XRSTOR, sample(), image).vector).toBe(-1);
    view(image).setBigUint64(offset, value, true);
    expect(cpu.run(XRSTOR, sample(), image).vector).toBe(13);
  });

  test('XRSTORS wants the compacted format', () => {
    expect(cpu.run(XRSTORS, sample(), new Uint8Array(4096)).vector).toBe(13);
  });

  test('PKRU: its own place in each format', () => {
    cpu.xcr0 = 0x203;
    const at = (code: readonly number[], offset: number): number => {
      cpu.view.setUint32(cpu.cpu + CPU.pkru, 0x5555aaa4, true);
      return view(cpu.run(code, sample(), filled().fill(0, 512, IMAGE)).data).getUint32(offset, true);
    };
    expect(at(XSAVE, PKRU_OFFSET)).toBe(0x5555aaa4);
    expect(at(XSAVEC, 576)).toBe(0x5555aaa4);
    const image = new Uint8Array(4096);
    view(image).setUint32(512, 0x200, true);
    view(image).setUint32(PKRU_OFFSET, 0x12345678, true);
    cpu.run(XRSTOR, sample(), image);
    expect(cpu.view.getUint32(cpu.cpu + CPU.pkru, true)).toBe(0x12345678);
  });
});

describe('XGETBV and XSETBV', () => {
  const run = (opcode: number, ecx: bigint, eax = 0n) => {
    const registers = freshRegisters();
    [registers.gpr[0], registers.gpr[1], registers.gpr[2]] = [eax, ecx, 0n];
    const { vector, gpr } = cpu.run([0x0f, 0x01, opcode], registers, new Uint8Array(0));
    return { vector, rax: gpr[0], xcr0: cpu.view.getUint32(cpu.cpu + CPU.xcr0, true) };
  };
  test('XGETBV gives XCR0, and what is in use', () => {
    expect(run(0xd0, 0n).rax).toBe(3n);
    expect(run(0xd0, 1n).rax).toBe(0n);
    expect(run(0xd0, 2n).vector).toBe(13);
  });
  test('XSETBV takes x87 with what the model offers, at CPL 0', () => {
    expect(run(0xd1, 0n, 0x203n)).toMatchObject({ vector: -1, xcr0: 0x203 });
    expect(run(0xd1, 0n, 2n)).toMatchObject({ vector: 13, xcr0: 3 });
    expect(run(0xd1, 0n, 7n)).toMatchObject({ vector: 13, xcr0: 3 });
    expect(run(0xd1, 1n, 3n).vector).toBe(13);
  });
});

test('fences do nothing; their memory forms and prefixes are other instructions', () => {
  for (const modrm of [0xe8, 0xf0, 0xff]) {
    expect(cpu.run([0x0f, 0xae, modrm], sample(), new Uint8Array(0))).toMatchObject({ vector: -1, rip: 3 });
    expect(cpu.run([0x66, 0x0f, 0xae, modrm], sample(), new Uint8Array(0)).vector).toBe(6);
  }
  expect(cpu.run([0x0f, 0xae, 0x3b], sample(), new Uint8Array(0))).toMatchObject({ vector: -1, rip: 3 });
});
