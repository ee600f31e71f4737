/** Pieces of guest programs for the tests of the engines: an interrupt table, small pages, functions to be patched. */
import { type Assembler, at, ax, eax, ecx, edi, edx, esp, r15d, rcx, rdi } from '../../guests/asm.ts';

const IDT = 0x2c0000;
/** The entry of the program's own PDPT for linear addresses from 1 GiB, and tables behind it. */
const PDPT_ENTRY = 0x201008;
const DIRECTORY = 0x300000;
export const TABLE = 0x301000;
/** Small pages lie here: page n is at VIRTUAL + n * 4096. */
export const VIRTUAL = 0x40000000;
/** Page-table entry of small page n, through the identity map. */
export const pte = (page: number): number => TABLE + page * 8;
/** Frames for them; the identity map shows them too. */
export const frame = (n: number): number => 0x400000 + n * 0x1000;
/** Present, and writable. */
export const RIGHTS = 3;

/** Gates for exceptions, with labels of their handlers. Clobbers RAX, RCX. */
export function handlers(asm: Assembler, list: Readonly<Record<number, string>>): void {
  for (const [vector, label] of Object.entries(list)) {
    const gate = IDT + Number(vector) * 16;
    asm.mov(eax, label);
    asm.mov(ecx, eax);
    asm.alu('and', ecx, 0xffff);
    asm.alu('or', ecx, 0x80000);
    asm.mov(at({ disp: gate }), ecx);
    asm.alu('and', eax, -0x10000);
    asm.alu('or', eax, 0x8e00);
    asm.mov(at({ disp: gate + 4 }), eax);
    asm.movMem(8, at({ disp: gate + 8 }), 0);
  }
  // LIDT [idt_pointer], behind which the program goes on.
  asm.db(0x0f, 0x01, 0x1c, 0x25);
  asm.dd('idt_pointer');
  asm.jmp('idt_loaded');
  asm.label('idt_pointer');
  asm.dw(0xfff);
  asm.dq(BigInt(IDT));
  asm.label('idt_loaded');
}

export const iretq = (asm: Assembler): void => asm.db(0x48, 0xcf);
/** INVLPG [RDI] */
export const invlpg = (asm: Assembler): void => asm.db(0x0f, 0x01, 0x3f);

/** Maps small pages 0 to entries.length - 1. Clobbers RAX, RCX, RDI. */
export function smallPages(asm: Assembler, entries: readonly number[]): void {
  asm.mov(rdi, DIRECTORY);
  asm.mov(rcx, 0x2000);
  asm.alu('xor', eax, eax);
  asm.rep('stosb');
  for (const [page, entry] of entries.entries()) asm.movMem(8, at({ disp: pte(page) }), entry);
  asm.movMem(8, at({ disp: DIRECTORY }), TABLE | 3);
  asm.movMem(8, at({ disp: PDPT_ENTRY }), DIRECTORY | 3);
}

/** Writes code bytes to `address`. Clobbers nothing. */
export function plant(asm: Assembler, address: number, bytes: readonly number[]): void {
  for (const [n, byte] of bytes.entries()) asm.movMem(1, at({ disp: address + n }), byte);
}

/** MOV EAX, value; RET */
export const returns = (value: number): number[] => [
  0xb8,
  value & 0xff,
  (value >> 8) & 0xff,
  (value >> 16) & 0xff,
  (value >> 24) & 0xff,
  0xc3,
];

/** `body` so many times; R15D counts down to 1. */
export function times(asm: Assembler, count: number, label: string, body: () => void): void {
  asm.mov(r15d, count);
  asm.label(label);
  body();
  asm.dec(r15d);
  asm.jcc('ne', label);
}

const TRAMPOLINE = 0x8000;
const [INIT, STARTUP] = [0xc4500, 0xc4600];

/** Starts the other processors at `label`, in 64-bit mode and with one stack for all. Clobbers registers. */
export function startOthers(asm: Assembler, label: string): void {
  // MOV ESI, trampoline
  asm.db(0xbe);
  asm.dd('trampoline');
  asm.mov(edi, TRAMPOLINE);
  asm.mov(ecx, 96);
  asm.rep('movsb');
  // x2APIC; then to all but this one.
  asm.mov(ecx, 0x1b);
  asm.rdmsr();
  asm.alu('or', eax, 0xc00);
  asm.wrmsr();
  for (const command of [INIT, STARTUP | (TRAMPOLINE >> 12)]) {
    asm.mov(ecx, 0x830);
    asm.mov(eax, command);
    asm.alu('xor', edx, edx);
    asm.wrmsr();
  }
  asm.jmp('started');
  asm.align(8);
  asm.label('trampoline');
  // Real mode: JMP over the pointer to the GDT; CLI; XOR AX, AX; MOV DS, AX; LGDT [0x8002].
  asm.db(0xeb, 0x06);
  asm.dw(23);
  asm.dd('gdt');
  asm.db(0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x66, 0x0f, 0x01, 0x16, 0x02, 0x80);
  const load = (opcode: number, value: number): void => {
    asm.db(0x66, opcode);
    asm.dd(value);
  };
  load(0xb8, 0x220);
  asm.db(0x0f, 0x22, 0xe0);
  load(0xb8, 0x200000);
  asm.db(0x0f, 0x22, 0xd8);
  load(0xb9, 0xc0000080 | 0);
  asm.db(0x0f, 0x32);
  load(0x0d, 0x100);
  asm.db(0x0f, 0x30);
  load(0xb8, 0x80000013 | 0);
  asm.db(0x0f, 0x22, 0xc0, 0x66, 0xea);
  asm.dd('other');
  asm.dw(8);
  asm.label('other');
  asm.mov(ax, 0x10);
  for (const segment of [0, 2, 3]) asm.movToSegment(segment, ax);
  asm.mov(esp, 0x2a0000);
  asm.jmp(label);
  asm.label('started');
}
