/**
 * Multiboot images for the test board: a program that starts in 64-bit mode with the first gibibyte mapped one to
 * one, prints its 64-bit result on COM1 as sixteen hexadecimal digits and a newline, and leaves by port 0xF4.
 * Multiboot Specification 0.6.96, section 3; the file is an ELF32 executable with one segment.
 */
import { Assembler, al, at, ax, dx, eax, ebx, ecx, edi, edx, esp, rax, rbx, rcx } from './asm.ts';

const LOAD_ADDRESS = 0x100000;
const PAGE_TABLES = 0x200000;
const STACK_TOP = 0x280000;
/** Programs use the memory from here on for data; the board needs 64 MiB. */
export const DATA = 0x400000;

const ELF_HEADER = 52;
const PROGRAM_HEADER = 32;

/** What `body` emits ends by falling through, with the result in RAX. RSP is set; every other register is undefined. */
export function multibootImage(body: (asm: Assembler) => void): Uint8Array {
  const asm = new Assembler(LOAD_ADDRESS);
  asm.dd(0x1badb002, 0, -0x1badb002);
  asm.bits(32);
  asm.label('start');
  asm.cli();
  asm.cld();
  asm.mov(esp, STACK_TOP);
  enterLongMode(asm);
  asm.bits(64);
  asm.label('long');
  asm.mov(ax, 0x10);
  for (const segment of [0, 2, 3]) asm.movToSegment(segment, ax);
  body(asm);
  finishProgram(asm);
  return elf32(asm.finish(), asm.address('start'));
}

function enterLongMode(asm: Assembler): void {
  // One PML4 entry, one PDPT entry, 512 large pages: the first gibibyte, present and writable.
  asm.mov(edi, PAGE_TABLES);
  asm.alu('xor', eax, eax);
  asm.mov(ecx, 0x3000);
  asm.rep('stosb');
  asm.movMem(4, at({ disp: PAGE_TABLES }), (PAGE_TABLES + 0x1000) | 3);
  asm.movMem(4, at({ disp: PAGE_TABLES + 0x1000 }), (PAGE_TABLES + 0x2000) | 3);
  asm.mov(eax, 0x83);
  asm.mov(edi, PAGE_TABLES + 0x2000);
  asm.label('fill');
  asm.mov(at({ base: edi }), eax);
  asm.alu('add', eax, 0x200000);
  asm.alu('add', edi, 8);
  asm.alu('cmp', edi, PAGE_TABLES + 0x3000);
  asm.jcc('ne', 'fill');

  // CR4.PAE and OSFXSR; EFER.LME; CR0.PG, PE, MP (APM volume 2, section 14.6.1).
  asm.mov(eax, 0x220);
  asm.movToControl(4, eax);
  asm.mov(eax, PAGE_TABLES);
  asm.movToControl(3, eax);
  asm.mov(ecx, 0xc0000080 | 0);
  asm.rdmsr();
  asm.alu('or', eax, 0x100);
  asm.wrmsr();
  asm.mov(eax, 0x80000013 | 0);
  asm.movToControl(0, eax);
  asm.lgdt(at({ disp: 'gdt_pointer' }));
  asm.jmpFar(8, 'long');

  asm.align(8);
  asm.label('gdt');
  asm.dq(0n, 0x00209a0000000000n, 0x0000920000000000n);
  asm.label('gdt_pointer');
  asm.dw(23);
  asm.dd('gdt');
}

function finishProgram(asm: Assembler): void {
  asm.mov(rbx, rax);
  asm.mov(ecx, 16);
  asm.mov(dx, 0x3f8);
  asm.label('digit');
  asm.shift('rol', rbx, 4);
  asm.mov(eax, ebx);
  asm.alu('and', eax, 15);
  asm.mov(al, at({ base: rax, disp: 'digits' }));
  asm.outDx(al);
  asm.dec(rcx);
  asm.jcc('ne', 'digit');
  asm.mov(eax, 10);
  asm.outDx(al);
  asm.alu('xor', eax, eax);
  asm.mov(edx, 0xf4);
  asm.outDx(eax);
  asm.label('stop');
  asm.cli();
  asm.hlt();
  asm.jmp('stop');
  asm.label('digits');
  asm.db(...Array.from('0123456789abcdef', (digit) => digit.charCodeAt(0)));
}

function elf32(program: Uint8Array, entry: number): Uint8Array {
  const offset = ELF_HEADER + PROGRAM_HEADER;
  const image = new Uint8Array(offset + program.length);
  const view = new DataView(image.buffer);
  image.set([0x7f, 0x45, 0x4c, 0x46, 1, 1, 1]);
  view.setUint16(16, 2, true); // executable
  view.setUint16(18, 3, true); // Intel 80386
  view.setUint32(20, 1, true);
  view.setUint32(24, entry, true);
  view.setUint32(28, ELF_HEADER, true);
  view.setUint16(40, ELF_HEADER, true);
  view.setUint16(42, PROGRAM_HEADER, true);
  view.setUint16(44, 1, true);
  const segment = [1, offset, LOAD_ADDRESS, LOAD_ADDRESS, program.length, program.length, 7, 4];
  segment.forEach((value, i) => view.setUint32(ELF_HEADER + i * 4, value, true));
  image.set(program, offset);
  return image;
}
