/** AES-NI and PCLMULQDQ. */
import { lane64 } from '../wasm/simd.ts';
import { i32, select } from '../wasm/value.ts';
import type { Def } from './def.ts';

const rounds = [
  ['aesenc', 'DC', 'aes_encrypt', 0],
  ['aesenclast', 'DD', 'aes_encrypt', 1],
  ['aesdec', 'DE', 'aes_decrypt', 0],
  ['aesdeclast', 'DF', 'aes_decrypt', 1],
] as const;

export const cryptoDefs: readonly Def[] = [
  ...rounds.map(([name, opcode, routine, last]): Def => ({
    name,
    enc: [`66 0F38${opcode} /r Vx!,Wx`],
    feature: 'aes',
    unit: 'sse',
    sem: (e) => {
      const key = e.get(1);
      e.set(0, e.callValue(routine, e.get(0), key, i32(last)));
    },
  })),
  {
    name: 'aesimc',
    enc: ['66 0F38DB /r Vx=,Wx'],
    feature: 'aes',
    unit: 'sse',
    sem: (e) => e.set(0, e.callValue('aes_inverse_mix', e.get(1))),
  },
  {
    name: 'aeskeygenassist',
    enc: ['66 0F3ADF /r Vx=,Wx,Ib'],
    feature: 'aes',
    unit: 'sse',
    sem: (e) => {
      const x = e.get(1);
      e.set(0, e.callValue('aes_key', x, e.get(2)));
    },
  },
  {
    // imm8 bits 0 and 4 choose the halves.
    name: 'pclmulqdq',
    enc: ['66 0F3A44 /r Vx!,Wx,Ib'],
    feature: 'pclmul',
    unit: 'sse',
    sem: (e) => {
      const b = e.get(1);
      const a = e.get(0);
      const imm = e.get(2);
      const left = select(imm.and(1), lane64(a, 1), lane64(a, 0));
      const right = select(imm.and(16), lane64(b, 1), lane64(b, 0));
      e.set(0, e.callValue('carryless_multiply', left, right));
    },
  },
];
