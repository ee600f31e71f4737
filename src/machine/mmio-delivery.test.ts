import { describe, expect, test } from 'vitest';
import { type Assembler, at, eax, ecx, rax, rbp, rbx, rcx, rdi, rsp } from '../../guests/asm.ts';
import { multibootImage } from '../../guests/multiboot-image.ts';
import { findCpuModel } from '../x86/cpuid.ts';
import { restoreSnapshot, takeSnapshot } from './snapshot.ts';
import { stateHash } from './state-hash.ts';
import { bootTestBoard } from './test-board/boot.ts';
import { testBoardPlatform } from './test-board/platform.ts';
import type { TestBoardConfig } from './test-board/state.ts';

/** The test board's device memory: 64 KiB that is not memory to the processor. Mapped at 2 GiB by `mapDevice`. */
const DEVICE = 0xff000000;
const WINDOW = 0x40000000;
const TABLES = 0x400000;
const STACK_TOP = WINDOW + 0x8000;

function mapDevice(asm: Assembler): void {
  asm.mov(rdi, TABLES);
  asm.mov(rcx, 0x1000);
  asm.alu('xor', eax, eax);
  asm.rep('stosb');
  asm.movabs(rax, BigInt(DEVICE) | 0x83n);
  asm.mov(at({ disp: TABLES }), rax);
  asm.movMem(8, at({ disp: 0x201008 }), TABLES | 3);
}

/** An IDT of 256 gates at `base`, only `vector` is present; the handler's address is a label. */
function gate(asm: Assembler, base: number, vector: number, handler: string): void {
  asm.mov(rbx, base + vector * 16);
  asm.mov(eax, handler);
  asm.movabs(rcx, 0x8e00_0008_0000n);
  asm.mov(rdi, rax);
  asm.alu('and', rdi, 0xffff);
  asm.alu('or', rcx, rdi);
  asm.alu('and', rax, 0x7fff0000);
  asm.shift('shl', rax, 32);
  asm.alu('or', rcx, rax);
  asm.mov(at({ base: rbx }), rcx);
  asm.movMem(8, at({ base: rbx, disp: 8 }), 0);
}

function loadIdt(asm: Assembler, base: number): void {
  asm.mov(rbx, 0x500000);
  asm.mov(eax, 0xfff);
  asm.mov(at({ base: rbx }), eax);
  asm.mov(rax, base);
  asm.mov(at({ base: rbx, disp: 2 }), rax);
  asm.db(0x0f, 0x01, 0x1b); // LIDT [rbx]
}

function boot(body: (asm: Assembler) => void) {
  const outcome = bootTestBoard({
    source: { kind: 'kernel', image: multibootImage(body), commandLine: 'guest', modules: [] },
    memoryBytes: 64 * 2 ** 20,
    cpus: 1,
    model: findCpuModel('EPYC-Milan')!,
  });
  if (!outcome.ok) throw new Error(outcome.error.what);
  return outcome.machine;
}

function result(body: (asm: Assembler) => void, slice = 1_000_000): string {
  const machine = boot(body);
  let text = '';
  machine.onSerial = (_unit, bytes) => {
    text += new TextDecoder().decode(bytes);
  };
  for (let k = 0; k < 1_000_000; k++) {
    const reason = machine.run(slice);
    if (reason.kind === 'exit') return text.trim();
    if (reason.kind !== 'budget') return JSON.stringify(reason);
  }
  return 'never ends';
}

/** INT `vector` with the gates at `idt` and the stack at `stack`; the handler returns the RIP that it was given. */
const interrupt =
  (idt: number, stack: number, opcode: readonly number[], vector: number, frame = 0) =>
  (asm: Assembler): void => {
    mapDevice(asm);
    gate(asm, idt, vector, 'handler');
    loadIdt(asm, idt);
    asm.mov(rsp, stack);
    asm.label('here');
    asm.db(...opcode);
    asm.hlt();
    asm.label('handler');
    asm.mov(rax, at({ base: rsp, disp: frame }));
    asm.mov(ecx, 'here');
    asm.alu('sub', rax, rcx);
  };

const MEMORY = 0x600000;
const PLACES = [
  ['the IDT', WINDOW, MEMORY + 0x8000],
  ['the stack', MEMORY, STACK_TOP],
  ['both', WINDOW, STACK_TOP],
] as const;

describe.each(PLACES)('with %s where there is no memory', (_name, idt, stack) => {
  test('a software interrupt is delivered', () => {
    expect(result(interrupt(idt, stack, [0xcd, 0x40], 0x40))).toBe('0000000000000002');
  });
  test('an exception is delivered', () => {
    expect(result(interrupt(idt, stack, [0x0f, 0x0b], 6))).toBe('0000000000000000');
  });
  test('a fault in the delivery of a software interrupt is one of its instruction', () => {
    // Vector 0x41 has no gate: #GP, with an error code in front of RIP.
    expect(result(interrupt(idt, stack, [0xcd, 0x41], 13, 8))).toBe('0000000000000000');
  });
  test('IRET comes back', () => {
    const program = (asm: Assembler): void => {
      mapDevice(asm);
      gate(asm, idt, 0x40, 'handler');
      loadIdt(asm, idt);
      asm.mov(rsp, stack);
      asm.mov(ecx, 0);
      for (let k = 0; k < 3; k++) asm.db(0xcd, 0x40);
      asm.mov(eax, ecx);
      asm.jmp('end');
      asm.label('handler');
      asm.alu('add', ecx, 1);
      asm.db(0x48, 0xcf);
      asm.label('end');
      asm.mov(rsp, MEMORY);
    };
    expect(result(program)).toBe('0000000000000003');
    expect(result(program, 1)).toBe('0000000000000003');
  });
});

test('time, state and snapshots are the same however the run is cut', () => {
  const program = interrupt(WINDOW, STACK_TOP, [0xcd, 0x40], 0x40);
  const whole = boot(program);
  whole.run(1_000_000);
  const cut = boot(program);
  let machine = cut;
  for (let k = 0; machine.instructions < whole.instructions - 40; k++) {
    machine.run(machine.instructions < whole.instructions - 400 ? 1000 : 1);
    if (k % 40 !== 0 || machine.instructions < whole.instructions - 400) continue;
    const restored = restoreSnapshot(takeSnapshot(machine), {
      sink: { mask: 0, emit: () => undefined },
      platform: (_kind, config) => testBoardPlatform(config as TestBoardConfig),
    });
    if (!restored.ok) throw new Error(restored.reason);
    ({ machine } = restored);
  }
  while (machine.run(1).kind === 'budget');
  expect([machine.instructions, machine.now]).toEqual([whole.instructions, whole.now]);
  expect(stateHash(machine)).toBe(stateHash(whole));
});

test('one instruction may ask for more than sixty answers: ENTER with 31 levels', () => {
  const program = (asm: Assembler): void => {
    mapDevice(asm);
    asm.mov(rsp, STACK_TOP);
    asm.mov(rbp, STACK_TOP);
    asm.db(0xc8, 0, 0, 31);
    asm.mov(rax, STACK_TOP);
    asm.alu('sub', rax, rsp);
  };
  expect(result(program)).toBe('0000000000000100');
});
