/**
 * Fast hypercalls whose parameters lie in XMM registers, made through the hypercall page: answered by the host, by the paravisor at
 * VMPL0 from the guest's context, and by the one at L1 from the registers of the L2 VM.
 */
import { expect, test } from 'vitest';
import { CALL, STATUS } from '../src/abi/hyperv/hypercall.ts';
import { MSR } from '../src/abi/hyperv/msr.ts';
import { elf64 } from '../src/launch/test-images.ts';
import { testMachine } from '../src/machine/test-machine.ts';
import { Assembler, at, eax, ebx, ecx, edx, esp, r8, rax, rcx, rdx, xmm } from './asm.ts';

const ENTRY = 0x100_0000;
const PAGE = 0x110_0000;
const RESULT = 0x120_0000;
const STACK = 0x130_0000;
const OSFXSR = 0x200;
const VCPUS = 4;

/** HvCallGetVpIndexFromApicId: partition and VTL in RDX and R8, APIC ids in XMM0, VP indices in the next register. */
function program(ids: readonly number[]): Uint8Array {
  const asm = new Assembler(ENTRY);
  asm.bits(64);
  const wrmsr = (index: number, value: number): void => {
    asm.mov(ecx, index);
    asm.mov(eax, value);
    asm.alu('xor', edx, edx);
    asm.wrmsr();
  };
  asm.mov(esp, STACK);
  wrmsr(MSR.guestOsId, 1);
  wrmsr(MSR.hypercall, PAGE | 1);
  asm.movFromControl(rax, 4);
  asm.alu('or', rax, OSFXSR);
  asm.movToControl(4, rax);
  asm.mov(ebx, ENTRY + 0x800);
  asm.movdqu(xmm(0), at({ base: ebx }));
  asm.movabs(rcx, BigInt(CALL.getVpIndexFromApicId) | (1n << 16n) | (BigInt(ids.length) << 32n));
  asm.movabs(rdx, (1n << 64n) - 1n);
  asm.alu('xor', r8, r8);
  asm.mov(ebx, PAGE);
  asm.call(ebx);
  asm.mov(ebx, RESULT);
  asm.movdqu(at({ base: ebx, disp: 16 }), xmm(0));
  asm.movdqu(at({ base: ebx, disp: 32 }), xmm(1));
  asm.mov(at({ base: ebx }), rax);
  asm.mov(eax, 1);
  asm.mov(at({ base: ebx, disp: 8 }), eax);
  asm.label('end');
  asm.jmp('end');
  const code = new Uint8Array(0x800 + 16);
  code.set(asm.finish());
  new Uint32Array(code.buffer, 0x800, 4).set(ids);
  return code;
}

interface Answer {
  readonly status: number;
  readonly reps: number;
  readonly input: readonly number[];
  readonly output: readonly number[];
}

function run(name: string, model: string, ids: readonly number[]): Answer {
  const machine = testMachine(name, model, {
    kernel: elf64(ENTRY, [{ paddr: ENTRY, bytes: program(ids) }]),
    vpCount: VCPUS,
  });
  for (let k = 0; k < 100; k++) {
    machine.run(10_000);
    const words = new Uint32Array((machine.truth.read(RESULT, 48) as Uint8Array).slice().buffer);
    const [status = 0, reps = 0, done = 0] = words;
    if (done === 1)
      return {
        status: status & 0xffff,
        reps,
        input: [...words.subarray(4, 8)],
        output: [...words.subarray(8)],
      };
  }
  throw new Error('the guest does not come to its end');
}

test.each([
  ['plain', 'EPYC-Milan'],
  ['plain', 'SapphireRapids'],
  ['snp-paravisor', 'EPYC-Milan'],
  ['tdx-paravisor', 'SapphireRapids'],
] as const)('%s, %s: input and output of a fast hypercall in XMM registers', (name, model) => {
  const ids = [3, 1, 2, 0];
  expect(run(name, model, ids)).toEqual({ status: STATUS.success, reps: 4, input: ids, output: ids });
  // The third APIC id is nobody's: two have been done.
  const bad = run(name, model, [2, 1, VCPUS, 0]);
  expect(bad).toMatchObject({ status: STATUS.invalidParameter, reps: 2 });
});
