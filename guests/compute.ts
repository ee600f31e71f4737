/**
 * The compute kernels of `npm run bench:cpu`. Each leaves a 64-bit result in RAX that depends on all of its work, so
 * that two machines that print the same digits did the same thing.
 */
import {
  type Assembler,
  type Reg,
  al,
  at,
  bl,
  cl,
  dl,
  eax,
  ebp,
  ebx,
  ecx,
  edi,
  edx,
  esi,
  r8,
  r8d,
  r9,
  r10,
  r10d,
  r11,
  r11d,
  r12,
  r12d,
  r13,
  r13d,
  r14,
  r15,
  r9d,
  rax,
  rbp,
  rbx,
  rcx,
  rdi,
  rdx,
  rsi,
  xmm,
} from './asm.ts';
import { DATA, multibootImage } from './multiboot-image.ts';

export interface ComputeGuest {
  readonly name: string;
  /** What the program exercises, for the report. */
  readonly what: string;
  /** About this many million guest instructions at scale 1. */
  readonly millions: number;
  image(scale: number): Uint8Array;
}

const BUFFER_BYTES = 0x10000;

/** Fills `bytes` at DATA with xorshift64 output. Clobbers RAX, RDX and RDI. */
function fillRandom(asm: Assembler, bytes: number): void {
  asm.movabs(rax, 0x9e3779b97f4a7c15n);
  asm.mov(edi, DATA);
  asm.label('fill_random');
  asm.mov(rdx, rax);
  asm.shift('shl', rdx, 13);
  asm.alu('xor', rax, rdx);
  asm.mov(rdx, rax);
  asm.shift('shr', rdx, 7);
  asm.alu('xor', rax, rdx);
  asm.mov(rdx, rax);
  asm.shift('shl', rdx, 17);
  asm.alu('xor', rax, rdx);
  asm.mov(at({ base: rdi }), rax);
  asm.alu('add', rdi, 8);
  asm.alu('cmp', rdi, DATA + bytes);
  asm.jcc('ne', 'fill_random');
}

function hash(asm: Assembler, scale: number): void {
  fillRandom(asm, BUFFER_BYTES);
  asm.movabs(rbx, 0x87c37b91114253d5n);
  asm.mov(ebp, Math.ceil(12000 * scale));
  asm.alu('xor', eax, eax);
  asm.label('round');
  asm.mov(esi, DATA);
  asm.label('next');
  asm.alu('xor', rax, at({ base: rsi }));
  asm.imul(rax, rbx);
  asm.shift('rol', rax, 31);
  asm.alu('add', rsi, 8);
  asm.alu('cmp', rsi, DATA + BUFFER_BYTES);
  asm.jcc('ne', 'next');
  asm.dec(ebp);
  asm.jcc('ne', 'round');
}

function memory(asm: Assembler, scale: number): void {
  const copy = DATA + BUFFER_BYTES * 2;
  fillRandom(asm, BUFFER_BYTES);
  asm.alu('xor', eax, eax);
  asm.mov(at({ disp: DATA + BUFFER_BYTES }), rax);
  asm.mov(r8d, Math.ceil(1400 * scale));
  asm.alu('xor', r9d, r9d);
  asm.label('round');

  // Copy by quadwords.
  asm.alu('xor', ecx, ecx);
  asm.label('copy');
  asm.mov(rax, at({ base: rcx, disp: DATA }));
  asm.mov(at({ base: rcx, disp: copy }), rax);
  asm.alu('add', rcx, 8);
  asm.alu('cmp', rcx, BUFFER_BYTES);
  asm.jcc('ne', 'copy');

  // Count bytes by value, unaligned by one: loads and read-modify-writes of every alignment.
  asm.mov(esi, copy + 1);
  asm.label('bytes');
  asm.movzx(eax, at({ base: rsi }), 1);
  asm.alu('add', at({ base: rax, index: rax, disp: copy + BUFFER_BYTES }), eax);
  asm.inc(rsi);
  asm.alu('cmp', rsi, copy + BUFFER_BYTES);
  asm.jcc('ne', 'bytes');

  // The string instructions, forward.
  asm.mov(esi, copy);
  asm.mov(edi, copy + 0x40000);
  asm.mov(ecx, BUFFER_BYTES / 8);
  asm.rep('movsq');
  asm.mov(rax, r8);
  asm.mov(edi, DATA);
  asm.mov(ecx, 64);
  asm.rep('stosb');

  asm.alu('add', r9, at({ disp: copy + BUFFER_BYTES + 0x80 }));
  asm.shift('rol', r9, 5);
  asm.alu('xor', r9, at({ disp: copy + 0x40000 + 0x38 }));
  asm.dec(r8d);
  asm.jcc('ne', 'round');
  asm.mov(rax, r9);
}

/** A ring through 16 MiB, one node in each 64 bytes, in the order of a full-period congruential generator. */
function chase(asm: Assembler, scale: number): void {
  const nodes = 1 << 18;
  asm.alu('xor', eax, eax);
  asm.mov(ecx, nodes);
  asm.label('link');
  asm.mov(rdx, rax);
  asm.mov(ebx, 1664525);
  asm.imul(rax, rbx);
  asm.alu('add', rax, 1013904223);
  asm.alu('and', rax, nodes - 1);
  asm.mov(rsi, rax);
  asm.shift('shl', rsi, 6);
  asm.alu('add', rsi, DATA);
  asm.shift('shl', rdx, 6);
  asm.mov(at({ base: rdx, disp: DATA }), rsi);
  asm.dec(ecx);
  asm.jcc('ne', 'link');
  asm.mov(eax, DATA);
  asm.mov(ecx, Math.ceil(24_000_000 * scale));
  asm.alu('xor', ebx, ebx);
  asm.label('follow');
  asm.mov(rax, at({ base: rax }));
  asm.alu('add', rbx, rax);
  asm.dec(ecx);
  asm.jcc('ne', 'follow');
  asm.alu('xor', rax, rbx);
}

/** A bytecode interpreter with a jump table: three registers, a loop of ten operations. */
function bytecode(asm: Assembler, scale: number): void {
  const operations = ['op_add', 'op_mul', 'op_xor', 'op_rot', 'op_load', 'op_store', 'op_loop', 'op_end'];
  const program = [4, 0, 1, 2, 3, 0, 5, 2, 3, 0, 6, 7];
  asm.mov(edi, DATA);
  asm.alu('xor', eax, eax);
  asm.mov(ecx, 1024);
  asm.rep('stosq');
  asm.mov(ebp, 0x12345);
  asm.alu('xor', ebx, ebx);
  asm.mov(r8d, Math.ceil(9_000_000 * scale));
  asm.mov(esi, 'program');
  const dispatch = (): void => {
    asm.movzx(eax, at({ base: rsi }), 1);
    asm.inc(rsi);
    asm.jmp(at({ index: rax, scale: 8, disp: 'table' }));
  };
  dispatch();
  asm.label('op_add');
  asm.alu('add', rbp, rbx);
  asm.alu('add', rbp, 7);
  dispatch();
  asm.label('op_mul');
  asm.mov(ecx, 0x5851f42d);
  asm.imul(rbx, rcx);
  dispatch();
  asm.label('op_xor');
  asm.alu('xor', rbx, rbp);
  dispatch();
  asm.label('op_rot');
  asm.shift('ror', rbp, 11);
  dispatch();
  asm.label('op_load');
  asm.mov(ecx, ebp);
  asm.alu('and', ecx, 1023);
  asm.alu('add', rbx, at({ index: rcx, scale: 8, disp: DATA }));
  dispatch();
  asm.label('op_store');
  asm.mov(ecx, ebx);
  asm.alu('and', ecx, 1023);
  asm.mov(at({ index: rcx, scale: 8, disp: DATA }), rbp);
  dispatch();
  asm.label('op_loop');
  asm.alu('sub', r8, 1);
  asm.jcc('e', 'loop_done');
  asm.mov(esi, 'program');
  asm.label('loop_done');
  dispatch();
  asm.align(8);
  asm.label('table');
  asm.dq(...operations);
  asm.label('program');
  asm.db(...program);
  asm.label('op_end');
  asm.mov(rax, rbp);
  asm.alu('xor', rax, rbx);
}

function sieve(asm: Assembler, scale: number): void {
  const limit = 1 << 20;
  asm.mov(r8d, Math.ceil(40 * scale));
  asm.alu('xor', r9d, r9d);
  asm.label('round');
  asm.mov(edi, DATA);
  asm.mov(ecx, limit / 8);
  asm.alu('xor', eax, eax);
  asm.rep('stosq');
  asm.mov(ebx, 2);
  asm.label('candidate');
  asm.aluMem('cmp', 1, at({ base: rbx, disp: DATA }), 0);
  asm.jcc('ne', 'composite');
  asm.alu('add', r9, rbx);
  asm.mov(rcx, rbx);
  asm.imul(rcx, rbx);
  asm.alu('cmp', rcx, limit);
  asm.jcc('ae', 'composite');
  asm.label('strike');
  asm.movMem(1, at({ base: rcx, disp: DATA }), 1);
  asm.alu('add', rcx, rbx);
  asm.alu('cmp', rcx, limit);
  asm.jcc('b', 'strike');
  asm.label('composite');
  asm.inc(rbx);
  asm.alu('cmp', rbx, limit);
  asm.jcc('b', 'candidate');
  asm.dec(r8d);
  asm.jcc('ne', 'round');
  asm.mov(rax, r9);
}

/** Additions, rotations and exclusive-ors on 32-bit words: the ChaCha quarter round (RFC 8439, section 2.1). */
function arx(asm: Assembler, scale: number): void {
  fillRandom(asm, 64);
  asm.mov(ebp, Math.ceil(3_300_000 * scale));
  asm.label('round');
  const rounds = [
    [0, 4, 8, 12],
    [1, 5, 9, 13],
    [2, 6, 10, 14],
    [3, 7, 11, 15],
    [0, 5, 10, 15],
    [1, 6, 11, 12],
    [2, 7, 8, 13],
    [3, 4, 9, 14],
  ] as const;
  const step = (to: Reg, from: Reg, mixed: Reg, bits: number): void => {
    asm.alu('add', to, from);
    asm.alu('xor', mixed, to);
    asm.shift('rol', mixed, bits);
  };
  for (const words of rounds) {
    const registers = [eax, ebx, ecx, edx] as const;
    registers.forEach((register, i) => {
      asm.mov(register, at({ disp: DATA + (words[i] ?? 0) * 4 }));
    });
    step(eax, ebx, edx, 16);
    step(ecx, edx, ebx, 12);
    step(eax, ebx, edx, 8);
    step(ecx, edx, ebx, 7);
    registers.forEach((register, i) => {
      asm.mov(at({ disp: DATA + (words[i] ?? 0) * 4 }), register);
    });
  }
  asm.mov(eax, at({ disp: DATA + 60 }));
  asm.alu('xor', eax, at({ disp: DATA + 20 }));
  asm.alu('add', at({ disp: DATA + 48 }), eax);
  asm.dec(ebp);
  asm.jcc('ne', 'round');
  asm.mov(rax, at({ disp: DATA + 8 }));
  asm.alu('xor', rax, at({ disp: DATA + 48 }));
}

/** The naive recursion: calls, returns, pushes and pops. */
function fibonacci(asm: Assembler, scale: number): void {
  asm.mov(r12d, Math.ceil(16 * scale));
  asm.alu('xor', r13d, r13d);
  asm.label('round');
  asm.mov(edi, 31);
  asm.call('fib');
  asm.alu('add', r13, rax);
  asm.dec(r12d);
  asm.jcc('ne', 'round');
  asm.mov(rax, r13);
  asm.jmp('fib_end');
  asm.label('fib');
  asm.alu('cmp', edi, 2);
  asm.jcc('ae', 'fib_sum');
  asm.mov(eax, edi);
  asm.ret();
  asm.label('fib_sum');
  asm.push(rbx);
  asm.push(rbp);
  asm.mov(ebx, edi);
  asm.lea(edi, at({ base: rbx, disp: -1 }));
  asm.call('fib');
  asm.mov(rbp, rax);
  asm.lea(edi, at({ base: rbx, disp: -2 }));
  asm.call('fib');
  asm.alu('add', rax, rbp);
  asm.pop(rbp);
  asm.pop(rbx);
  asm.ret();
  asm.label('fib_end');
}

/** SSE2 integer lanes over a buffer: multiply, add, shift, shuffle, store. */
function vector(asm: Assembler, scale: number): void {
  fillRandom(asm, BUFFER_BYTES);
  asm.movdqu(xmm(4), at({ disp: DATA }));
  asm.movdqu(xmm(5), at({ disp: DATA + 16 }));
  asm.mov(ebp, Math.ceil(8000 * scale));
  asm.label('round');
  asm.mov(esi, DATA);
  asm.label('next');
  asm.movdqa(xmm(0), at({ base: rsi }));
  asm.movdqa(xmm(1), xmm(0));
  asm.packed('pmuludq', xmm(0), xmm(5));
  asm.packed('paddd', xmm(4), xmm(0));
  asm.pshufd(xmm(1), xmm(1), 0x39);
  asm.packed('pxor', xmm(4), xmm(1));
  asm.movdqa(xmm(2), xmm(4));
  asm.packedShift('psrld', xmm(2), 13);
  asm.packedShift('pslld', xmm(4), 19);
  asm.packed('por', xmm(4), xmm(2));
  asm.packed('paddq', xmm(0), xmm(4));
  asm.movdqu(at({ base: rsi }), xmm(0));
  asm.alu('add', rsi, 16);
  asm.alu('cmp', rsi, DATA + BUFFER_BYTES);
  asm.jcc('ne', 'next');
  asm.dec(ebp);
  asm.jcc('ne', 'round');
  asm.movq(rax, xmm(4));
}

/** Shell sort of 64-bit numbers: unpredictable branches, indexed loads and stores. */
function sort(asm: Assembler, scale: number): void {
  const count = 1 << 13;
  asm.mov(r12d, Math.ceil(110 * scale));
  asm.alu('xor', r14, r14);
  asm.label('round');
  fillRandom(asm, count * 8);
  asm.mov(r8d, count / 2);
  asm.label('gap');
  asm.mov(r9, r8);
  asm.label('insert');
  asm.mov(r10, at({ index: r9, scale: 8, disp: DATA }));
  asm.mov(r11, r9);
  asm.label('shift');
  asm.mov(rcx, r11);
  asm.alu('sub', rcx, r8);
  asm.jcc('b', 'place');
  asm.mov(rdx, at({ index: rcx, scale: 8, disp: DATA }));
  asm.alu('cmp', rdx, r10);
  asm.jcc('be', 'place');
  asm.mov(at({ index: r11, scale: 8, disp: DATA }), rdx);
  asm.mov(r11, rcx);
  asm.jmp('shift');
  asm.label('place');
  asm.mov(at({ index: r11, scale: 8, disp: DATA }), r10);
  asm.inc(r9);
  asm.alu('cmp', r9, count);
  asm.jcc('ne', 'insert');
  asm.shift('shr', r8, 1);
  asm.jcc('ne', 'gap');
  asm.alu('add', r14, at({ disp: DATA + 8 * 1000 }));
  asm.shift('rol', r14, 9);
  asm.dec(r12d);
  asm.jcc('ne', 'round');
  asm.mov(rax, r14);
}

/** A bit reader: variable shifts, byte registers, conditional moves and divisions. */
function bits(asm: Assembler, scale: number): void {
  fillRandom(asm, BUFFER_BYTES);
  asm.mov(r8d, Math.ceil(1000 * scale));
  asm.alu('xor', r9d, r9d);
  asm.label('round');
  asm.mov(esi, DATA);
  asm.label('word');
  asm.mov(rbx, at({ base: rsi }));
  asm.mov(r10d, 8);
  asm.label('code');
  asm.mov(ecx, ebx);
  asm.alu('and', cl, 7);
  asm.inc(ecx);
  asm.shift('shr', rbx, 'cl');
  asm.movzx(edx, bl, 1);
  asm.lea(r11d, at({ base: rdx, index: rcx, scale: 4 }));
  asm.alu('cmp', dl, 0x80);
  asm.cmov('b', r11d, ecx);
  asm.setcc('a', al);
  asm.movzx(eax, al, 1);
  asm.alu('add', r9, r11);
  asm.alu('adc', r9, rax);
  asm.dec(r10d);
  asm.jcc('ne', 'code');
  asm.alu('add', rsi, 8);
  asm.alu('cmp', rsi, DATA + BUFFER_BYTES);
  asm.jcc('ne', 'word');
  asm.mov(rax, r9);
  asm.alu('xor', edx, edx);
  asm.mov(r15, r8);
  asm.div(r15);
  asm.bswap(rdx);
  asm.alu('add', r9, rdx);
  asm.dec(r8d);
  asm.jcc('ne', 'round');
  asm.mov(rax, r9);
}

function guest(
  name: string,
  what: string,
  millions: number,
  body: (asm: Assembler, scale: number) => void,
): ComputeGuest {
  return {
    name,
    what,
    millions,
    image: (scale) =>
      multibootImage((asm) => {
        body(asm, scale);
      }),
  };
}

export const COMPUTE_GUESTS: readonly ComputeGuest[] = [
  guest('hash', 'multiply, rotate, exclusive-or over a buffer', 590, hash),
  guest('memory', 'copies, byte counts, string instructions', 528, memory),
  guest('chase', 'dependent loads through 16 MiB', 100, chase),
  guest('bytecode', 'jump table, indirect branches', 486, bytecode),
  guest('sieve', 'byte stores with a stride', 583, sieve),
  guest('arx', 'add, rotate, xor on 32-bit words', 597, arx),
  guest('fib', 'recursive calls', 628, fibonacci),
  guest('vector', 'SSE2 integer lanes', 490, vector),
  guest('sort', 'unpredictable branches', 471, sort),
  guest('bits', 'variable shifts, byte registers, cmov, div', 958, bits),
];

/** Nothing but the way in and out: what starting the machine costs. */
export const IDLE_GUEST: ComputeGuest = guest('start', 'nothing: start and exit', 0, (asm) => {
  asm.alu('xor', eax, eax);
});

/**
 * Writes a new function into each page of 96 MiB, calls it until it is hot, and begins again: code that keeps coming, of
 * which an engine must not keep everything. RAX is the number of calls.
 */
export const NEW_CODE_GUEST: ComputeGuest = guest('new-code', 'new code for ever', 1300, (asm, scale) => {
  asm.alu('xor', ebx, ebx);
  asm.mov(r8d, Math.ceil(scale));
  asm.label('round');
  asm.mov(edi, DATA);
  asm.label('page');
  // mov eax, 1; add ebx, eax; ret
  asm.movabs(rax, 0xc3c30100000001b8n);
  asm.mov(at({ base: rdi }), rax);
  asm.mov(ecx, 7000);
  asm.label('again');
  asm.call(rdi);
  asm.dec(ecx);
  asm.jcc('ne', 'again');
  asm.alu('add', rdi, 4096);
  asm.alu('cmp', rdi, DATA + (96 << 20));
  asm.jcc('ne', 'page');
  asm.dec(r8d);
  asm.jcc('ne', 'round');
  asm.mov(rax, rbx);
});
