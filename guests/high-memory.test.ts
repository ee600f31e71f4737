/** Frames above 2 GiB of WebAssembly memory, whose addresses have their highest bit. */
import { expect, test } from 'vitest';
import { elf64 } from '../src/launch/test-images.ts';
import { testMachine } from '../src/machine/test-machine.ts';
import { Assembler, at, eax, ebx, rbx, rcx, esp } from './asm.ts';

const ENTRY = 0x100_0000;
const RESULT = 0x120_0000;
const STACK = 0x130_0000;
/** The last four bytes of a large page. */
const CROSSING = 0x15f_fffcn;
/** MOV RAX, 0x11223344 in seven bytes; RET. */
const CODE = 0xc311_2233_44c0_c748n;

function program(): Uint8Array {
  const asm = new Assembler(ENTRY);
  asm.bits(64);
  asm.mov(esp, STACK);
  asm.movabs(rbx, CROSSING);
  asm.movabs(rcx, CODE);
  asm.mov(at({ base: rbx }), rcx);
  asm.call(rbx);
  asm.mov(ebx, RESULT);
  asm.mov(at({ base: ebx }), eax);
  asm.label('end');
  asm.jmp('end');
  return asm.finish();
}

test.each([
  ['plain', 'EPYC-Milan', 'translator'],
  ['plain', 'EPYC-Milan', 'interpreter'],
  ['snp-paravisor', 'EPYC-Milan', 'translator'],
  ['tdx-paravisor', 'SapphireRapids', 'translator'],
] as const)('%s, %s, %s: an instruction in two pages', (name, model, engine) => {
  const machine = testMachine(name, model, {
    kernel: elf64(ENTRY, [{ paddr: ENTRY, bytes: program() }]),
    memoryBytes: 3 * 2 ** 30,
    engine,
    // The last frames are taken first.
    frameOrder: (count) => Uint32Array.from({ length: count }, (_, k) => count - 1 - k),
  });
  const result = (): number => {
    const bytes = machine.truth.read(RESULT, 4) as Uint8Array;
    return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  };
  for (let k = 0; k < 100 && result() === 0; k++) machine.run(10_000);
  expect(result()).toBe(0x1122_3344);
});
