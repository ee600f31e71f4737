import { expect, test } from 'vitest';
import { type Assembler, at, dx, eax, ecx, edx, rax, rbx, rcx, rdx, rsi } from '../../../guests/asm.ts';
import { multibootImage } from '../../../guests/multiboot-image.ts';
import { findCpuModel } from '../../x86/cpuid.ts';
import { restoreSnapshot, takeSnapshot } from '../snapshot.ts';
import { stateHash } from '../state-hash.ts';
import { bootTestBoard } from './boot.ts';
import { testBoardPlatform } from './platform.ts';
import type { TestBoardConfig } from './state.ts';

const cpuid = (asm: Assembler, leaf: number): void => {
  asm.mov(eax, leaf | 0);
  asm.db(0x0f, 0xa2);
};
const rdmsr = (asm: Assembler, index: number): void => {
  asm.mov(ecx, index);
  asm.rdmsr();
};
const wrmsr = (asm: Assembler, index: number, value: number): void => {
  asm.mov(ecx, index);
  asm.mov(eax, value);
  asm.alu('xor', edx, edx);
  asm.wrmsr();
};

function boot(hyperv: boolean, body: (asm: Assembler) => void) {
  const outcome = bootTestBoard({
    source: { kind: 'kernel', image: multibootImage(body), commandLine: 'guest', modules: [] },
    memoryBytes: 64 * 2 ** 20,
    cpus: 2,
    model: findCpuModel('EPYC-Milan')!,
    hyperv,
  });
  if (!outcome.ok) throw new Error(outcome.error.what);
  let text = '';
  const { machine } = outcome;
  machine.onSerial = (_unit, bytes) => {
    text += new TextDecoder().decode(bytes);
  };
  return { machine, text: () => text.trim() };
}

function result(hyperv: boolean, body: (asm: Assembler) => void): string {
  const { machine, text } = boot(hyperv, body);
  const reason = machine.run(2_000_000);
  return reason.kind === 'exit' ? text() : reason.kind;
}

const interfaceSignature = (asm: Assembler): void => cpuid(asm, 0x40000001);

test('a board without a host has no hypervisor leaf and no synthetic MSR', () => {
  expect(result(false, interfaceSignature)).toBe('0000000000000000');
  // #GP without an interrupt table is the end.
  expect(result(false, (asm) => rdmsr(asm, 0x40000020))).toBe('end');
});

test('a board with a host has both', () => {
  expect(result(true, interfaceSignature)).toBe('0000000031237648');
  expect(result(true, (asm) => rdmsr(asm, 0x40000020))).toMatch(/^[0-9a-f]{16}$/);
});

test('the board itself stays what it is: its test device answers', () => {
  const program = (asm: Assembler): void => {
    asm.mov(dx, 0xe0);
    asm.mov(eax, 0x1234);
    asm.outDx(eax);
    asm.alu('xor', eax, eax);
    asm.inDx(eax);
  };
  expect(result(true, program)).toBe('0000000000001234');
});

/** SINT 2 with vector 0x40, message page at 0x600000; then a message over connection 7, which leads back to VP 0. */
function postToSelf(asm: Assembler): void {
  wrmsr(asm, 0x40000000, 1);
  wrmsr(asm, 0x40000001, 0x500001);
  wrmsr(asm, 0x40000080, 1);
  wrmsr(asm, 0x40000083, 0x600001);
  wrmsr(asm, 0x40000092, 0x40);
  asm.mov(dx, 0x3000);
  asm.mov(eax, (7 << 24) | (4 << 16) | 2);
  asm.outDx(eax);
  asm.mov(rbx, 0x700000);
  asm.movMem(4, at({ base: rbx }), 7);
  asm.movMem(4, at({ base: rbx, disp: 8 }), 0x55);
  asm.movMem(4, at({ base: rbx, disp: 12 }), 8);
  asm.movMem(4, at({ base: rbx, disp: 16 }), 0x1abe1);
  asm.mov(rcx, 0x5c);
  asm.mov(rdx, rbx);
  asm.mov(rax, 0x500000);
  asm.call(rax);
  asm.mov(rbx, 0x600200);
  asm.mov(rax, at({ base: rbx, disp: 16 }));
}

test('HvCallPostMessage over a connection of port 0x3000 puts the message into the slot', () => {
  expect(result(true, postToSelf)).toBe('000000000001abe1');
});

test('memory under the hypercall page is back when the page is gone', () => {
  const program = (asm: Assembler): void => {
    asm.mov(rbx, 0x500000);
    asm.movMem(8, at({ base: rbx }), 0x77);
    wrmsr(asm, 0x40000000, 1);
    wrmsr(asm, 0x40000001, 0x500001);
    // ENDBR64 shows instead.
    asm.mov(rsi, at({ base: rbx }));
    asm.shift('shl', rsi, 32);
    wrmsr(asm, 0x40000001, 0x500000);
    asm.mov(rax, at({ base: rbx }));
    asm.alu('or', rax, rsi);
  };
  expect(result(true, program)).toBe('fa1e0ff300000077');
});

test('a snapshot in the middle goes on the same', () => {
  const plain = boot(true, postToSelf);
  plain.machine.run(2_000_000);
  const first = boot(true, postToSelf);
  first.machine.run(Math.floor(plain.machine.instructions / 2));
  const restored = restoreSnapshot(takeSnapshot(first.machine), {
    sink: { mask: 0, emit: () => undefined },
    platform: (_kind, config) => testBoardPlatform(config as TestBoardConfig),
  });
  if (!restored.ok) throw new Error(restored.reason);
  restored.machine.run(2_000_000);
  expect(restored.machine.instructions).toBe(plain.machine.instructions);
  expect(stateHash(restored.machine)).toBe(stateHash(plain.machine));
});
