import { expect, test } from 'vitest';
import {
  Assembler,
  al,
  at,
  bl,
  cl,
  eax,
  ecx,
  r12,
  r13,
  r8,
  r9,
  r9d,
  rax,
  rbp,
  rbx,
  rcx,
  rsi,
  rsp,
  xmm,
} from './asm.ts';

function encoded(bits: 16 | 32 | 64, write: (asm: Assembler) => void): string {
  const asm = new Assembler(0x1000);
  asm.bits(bits);
  write(asm);
  return Array.from(asm.finish(), (byte) => byte.toString(16).padStart(2, '0')).join(' ');
}

// The expected bytes are what another assembler gives for the instruction in the first column.
const LONG_MODE: readonly (readonly [string, string, (asm: Assembler) => void])[] = [
  [
    'mov rax, [rsi]',
    '48 8b 06',
    (a) => {
      a.mov(rax, at({ base: rsi }));
    },
  ],
  [
    'mov [r12], rax',
    '49 89 04 24',
    (a) => {
      a.mov(at({ base: r12 }), rax);
    },
  ],
  [
    'mov [r13], r9',
    '4d 89 4d 00',
    (a) => {
      a.mov(at({ base: r13 }), r9);
    },
  ],
  [
    'mov [rbp], al',
    '88 45 00',
    (a) => {
      a.mov(at({ base: rbp }), al);
    },
  ],
  [
    'mov r9d, [rsp+8]',
    '44 8b 4c 24 08',
    (a) => {
      a.mov(r9d, at({ base: rsp, disp: 8 }));
    },
  ],
  [
    'mov rax, 7',
    '48 c7 c0 07 00 00 00',
    (a) => {
      a.mov(rax, 7);
    },
  ],
  [
    'movabs r8, 1<<63',
    '49 b8 00 00 00 00 00 00 00 80',
    (a) => {
      a.movabs(r8, 1n << 63n);
    },
  ],
  [
    'mov eax, [0x2000]',
    '8b 04 25 00 20 00 00',
    (a) => {
      a.mov(eax, at({ disp: 0x2000 }));
    },
  ],
  [
    'lea rax, [rbx+rcx*8-4]',
    '48 8d 44 cb fc',
    (a) => {
      a.lea(rax, at({ base: rbx, index: rcx, scale: 8, disp: -4 }));
    },
  ],
  [
    'mov rcx, [r9*8+0x4000]',
    '4a 8b 0c cd 00 40 00 00',
    (a) => {
      a.mov(rcx, at({ index: r9, scale: 8, disp: 0x4000 }));
    },
  ],
  [
    'add rax, r9',
    '4c 01 c8',
    (a) => {
      a.alu('add', rax, r9);
    },
  ],
  [
    'cmp rcx, 0x10000',
    '48 81 f9 00 00 01 00',
    (a) => {
      a.alu('cmp', rcx, 0x10000);
    },
  ],
  [
    'and cl, 7',
    '80 e1 07',
    (a) => {
      a.alu('and', cl, 7);
    },
  ],
  [
    'sub r8, 1',
    '49 83 e8 01',
    (a) => {
      a.alu('sub', r8, 1);
    },
  ],
  [
    'cmp byte [rbx+0x400000], 0',
    '80 bb 00 00 40 00 00',
    (a) => {
      a.aluMem('cmp', 1, at({ base: rbx, disp: 0x400000 }), 0);
    },
  ],
  [
    'imul rax, rbx',
    '48 0f af c3',
    (a) => {
      a.imul(rax, rbx);
    },
  ],
  [
    'shr rbx, cl',
    '48 d3 eb',
    (a) => {
      a.shift('shr', rbx, 'cl');
    },
  ],
  [
    'rol r9, 5',
    '49 c1 c1 05',
    (a) => {
      a.shift('rol', r9, 5);
    },
  ],
  [
    'movzx eax, bl',
    '0f b6 c3',
    (a) => {
      a.movzx(eax, bl, 1);
    },
  ],
  [
    'seta al',
    '0f 97 c0',
    (a) => {
      a.setcc('a', al);
    },
  ],
  [
    'cmovb eax, ecx',
    '0f 42 c1',
    (a) => {
      a.cmov('b', eax, ecx);
    },
  ],
  [
    'push r12; pop rbx',
    '41 54 5b',
    (a) => {
      a.push(r12);
      a.pop(rbx);
    },
  ],
  [
    'div r13',
    '49 f7 f5',
    (a) => {
      a.div(r13);
    },
  ],
  [
    'bswap rcx',
    '48 0f c9',
    (a) => {
      a.bswap(rcx);
    },
  ],
  [
    'pmuludq xmm0, xmm5',
    '66 0f f4 c5',
    (a) => {
      a.packed('pmuludq', xmm(0), xmm(5));
    },
  ],
  [
    'movdqu [rsi], xmm9',
    'f3 44 0f 7f 0e',
    (a) => {
      a.movdqu(at({ base: rsi }), xmm(9));
    },
  ],
  [
    'movq rax, xmm4',
    '66 48 0f 7e e0',
    (a) => {
      a.movq(rax, xmm(4));
    },
  ],
  [
    'psrld xmm2, 13',
    '66 0f 72 d2 0d',
    (a) => {
      a.packedShift('psrld', xmm(2), 13);
    },
  ],
  [
    'psllq xmm2, 13',
    '66 0f 73 f2 0d',
    (a) => {
      a.packedShift('psllq', xmm(2), 13);
    },
  ],
  [
    'rep stosq',
    'f3 48 ab',
    (a) => {
      a.rep('stosq');
    },
  ],
  [
    'jmp [rax*8+0x1000]',
    'ff 24 c5 00 10 00 00',
    (a) => {
      a.label('t');
      a.jmp(at({ index: rax, scale: 8, disp: 't' }));
    },
  ],
];

test.each(LONG_MODE)('%s', (_text, bytes, write) => {
  expect(encoded(64, write)).toBe(bytes);
});

test('an absolute address in 32-bit code has no SIB byte', () => {
  expect(
    encoded(32, (asm) => {
      asm.mov(eax, at({ disp: 0x2000 }));
    }),
  ).toBe('8b 05 00 20 00 00');
});

test('branches reach labels before and behind them', () => {
  const bytes = encoded(64, (asm) => {
    asm.label('top');
    asm.jcc('ne', 'end');
    asm.jmp('top');
    asm.label('end');
  });
  expect(bytes).toBe('0f 85 05 00 00 00 e9 f5 ff ff ff');
});

test('an undefined label is refused by name', () => {
  expect(() =>
    encoded(64, (asm) => {
      asm.jmp('nowhere');
    }),
  ).toThrow('nowhere');
});

test('a 64-bit register is refused in 32-bit code', () => {
  expect(() =>
    encoded(32, (asm) => {
      asm.mov(rax, 1);
    }),
  ).toThrow('outside 64-bit code');
});
