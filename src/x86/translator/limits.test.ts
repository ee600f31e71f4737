/**
 * V8 optimizes a function in a time that grows faster than its size, and not at all above its limits; until then it runs as
 * unoptimized code. docs/engine.md has the figures.
 */
import { describe, expect, test } from 'vitest';
import { type Assembler, rsi } from '../../../guests/asm.ts';
import { DATA, multibootImage } from '../../../guests/multiboot-image.ts';
import { bootTestBoard } from '../../machine/test-board/boot.ts';
import type { Machine } from '../../machine/machine.ts';
import { findCpuModel } from '../cpuid.ts';
import { LIMIT } from './region.ts';

function boot(body: (asm: Assembler) => void): Machine {
  const outcome = bootTestBoard({
    source: { kind: 'kernel', image: multibootImage(body), commandLine: 'guest', modules: [] },
    memoryBytes: 64 * 2 ** 20,
    cpus: 1,
    model: findCpuModel('EPYC-Milan')!,
    engine: 'translator',
  });
  if (!outcome.ok) throw new Error(outcome.error.what);
  return outcome.machine;
}

/** Instructions that make much code each: operands in memory, read and written, 16 bytes, 10 bytes, byte registers. */
const KINDS: Readonly<Record<string, readonly number[]>> = {
  'ADD [RSI+disp], RAX': [0x48, 0x01, 0x46, 0x08],
  'ADC [RSI+disp], AL': [0x10, 0x46, 0x08],
  'ROL qword [RSI+disp], 5': [0x48, 0xc1, 0x46, 0x08, 5],
  'RCL dword [RSI+disp], CL': [0xd3, 0x56, 0x08],
  'SHLD [RSI+disp], RAX, CL': [0x48, 0x0f, 0xa5, 0x46, 0x08],
  'CMPXCHG [RSI+disp], RCX': [0x48, 0x0f, 0xb1, 0x4e, 0x08],
  'PUSH [RSI+disp]; POP [RSI+disp]': [0xff, 0x76, 0x08, 0x8f, 0x46, 0x08],
  'MOVDQU [RSI+disp], XMM1': [0xf3, 0x0f, 0x7f, 0x4e, 0x08],
  'ADDPS XMM0, [RSI+disp]': [0x0f, 0x58, 0x46, 0x10],
  'PSHUFB XMM0, [RSI+disp]': [0x66, 0x0f, 0x38, 0x00, 0x46, 0x10],
  'FLD tbyte [RSI]; FSTP tbyte [RSI]': [0xdb, 0x2e, 0xdb, 0x3e],
  'FADD qword [RSI]': [0xdc, 0x06],
  'MUL qword [RSI]': [0x48, 0xf7, 0x26],
  'PEXT RAX, RAX, [RSI+disp]': [0xc4, 0xe2, 0xfa, 0xf5, 0x46, 0x08],
  'JZ next; INC EAX': [0x74, 0x00, 0xff, 0xc0],
  'PCMPISTRI XMM0, [RSI], 0': [0x66, 0x0f, 0x3a, 0x63, 0x06, 0],
};

describe('a region of nothing but', () => {
  test.each(Object.entries(KINDS))('%s stays small', (_name, bytes) => {
    const machine = boot((asm) => {
      asm.mov(rsi, DATA);
      asm.alu('xor', rsi, 0);
      asm.label('again');
      // More than a region may hold, in blocks that a jump over nothing ends.
      for (let k = 0; k < 600; k++) {
        asm.db(...bytes);
        if (k % 20 === 19) asm.db(0xeb, 0x00);
      }
      asm.jmp('again');
    });
    const { blocks, translator } = machine.engine;
    if (translator === undefined) throw new Error('this host cannot translate');
    blocks.heat = 20;
    let [largest, instructions] = [0, 0];
    translator.onFunction = (size, region) => {
      largest = Math.max(largest, size);
      instructions = Math.max(instructions, region.instructions);
    };
    for (let k = 0; k < 30 && largest === 0; k++) {
      machine.run(5000);
      translator.compile();
    }
    expect(largest).toBeGreaterThan(0);
    expect(instructions).toBeLessThanOrEqual(LIMIT.instructions);
    expect(largest).toBeLessThanOrEqual(LIMIT.bytes);
  });
});

test('the hot switch of the interpreter stays small', () => {
  const { code } = boot((asm) => asm.hlt()).engine;
  const run = code.sizes.find(({ name }) => name === 'run');
  expect(run?.size).toBeLessThanOrEqual(64 << 10);
  expect(code.hotCases).toBeGreaterThan(100);
  expect(code.hotCases).toBeLessThanOrEqual(400);
});
