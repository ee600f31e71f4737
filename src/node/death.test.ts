import { expect, test } from 'vitest';
import { endsWithCall } from './death.ts';

const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));

test.for([
  ['90 90 e8 11 22 33 44', 'call rel32'],
  ['90 90 90 90 90 ff d0', 'call rax'],
  ['90 90 90 90 41 ff d3', 'call r11'],
  ['90 90 90 90 90 ff 10', 'call [rax]'],
  ['90 90 90 90 ff 14 c0', 'call [rax + rax*8]'],
  ['90 90 90 90 ff 50 18', 'call [rax + 0x18]'],
  ['90 90 90 ff 54 24 08', 'call [rsp + 8]'],
  ['90 ff 15 11 22 33 44', 'call [rip + x]'],
  ['90 ff 90 11 22 33 44', 'call [rax + x]'],
  ['ff 14 c5 11 22 33 44', 'call [rax*8 + x]'],
  ['ff 94 24 11 22 33 44', 'call [rsp + x]'],
] as const)('endsWithCall: %s is %s', ([code]) => expect(endsWithCall(bytes(code))).toBe(true));

test.for([
  ['90 90 90 90 90 90 90', 'nothing'],
  ['90 90 e9 11 22 33 44', 'jmp rel32'],
  ['90 90 90 90 90 ff e0', 'jmp rax'],
  ['90 90 90 90 90 ff f0', 'push rax'],
  ['90 90 90 90 90 ff c0', 'inc eax'],
  ['', 'nothing at all'],
] as const)('endsWithCall: %s, %s, is none', ([code]) => expect(endsWithCall(bytes(code))).toBe(false));
