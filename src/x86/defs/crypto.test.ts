import fc from 'fast-check';
import { expect, test } from 'vitest';
import { x86Routines } from '../all.ts';
import { freshRegisters, OneInstruction } from '../one-instruction.ts';
import { aesSbox } from '../runtime/sse-misc.ts';
import { simdDefs } from '../simd.ts';

const cpu = new OneInstruction(simdDefs, x86Routines, ['aes', 'pclmul', 'sse4.2']);

const bytes = (hex: string): Uint8Array =>
  Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const hex = (value: Uint8Array): string =>
  Array.from(value, (byte) => byte.toString(16).padStart(2, '0')).join('');

function run(code: readonly number[], a: Uint8Array, b: Uint8Array): Uint8Array {
  const registers = freshRegisters();
  registers.xmm[0]?.set(a);
  registers.xmm[1]?.set(b);
  const after = cpu.run(code, registers, new Uint8Array(0));
  expect(after.vector).toBe(-1);
  return after.xmm[0] as Uint8Array;
}
const aes = (opcode: number) => (state: Uint8Array, key: Uint8Array) =>
  run([0x66, 0x0f, 0x38, opcode, 0xc1], state, key);
const encrypt = aes(0xdc);
const encryptLast = aes(0xdd);
const decrypt = aes(0xde);
const decryptLast = aes(0xdf);
const inverseMix = (key: Uint8Array): Uint8Array =>
  run([0x66, 0x0f, 0x38, 0xdb, 0xc1], new Uint8Array(16), key);
const assist = (key: Uint8Array, constant: number): Uint8Array =>
  run([0x66, 0x0f, 0x3a, 0xdf, 0xc1, constant], new Uint8Array(16), key);
const xor = (a: Uint8Array, b: Uint8Array): Uint8Array => a.map((byte, n) => byte ^ (b[n] as number));

/** The key schedule of AES-128 as software makes it with AESKEYGENASSIST. */
function expand(key: Uint8Array): Uint8Array[] {
  const keys = [key];
  for (const constant of [1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x1b, 0x36]) {
    const last = keys.at(-1) as Uint8Array;
    const next = new Uint8Array(16);
    let carry = assist(last, constant).subarray(12, 16);
    for (let word = 0; word < 4; word++) {
      carry = xor(last.subarray(word * 4, word * 4 + 4), carry);
      next.set(carry, word * 4);
    }
    keys.push(next);
  }
  return keys;
}

const PLAIN = bytes('00112233445566778899aabbccddeeff');
const CIPHER = bytes('69c4e0d86a7b0430d8cdb78070b4c55a');
const KEYS = expand(bytes('000102030405060708090a0b0c0d0e0f'));

test('AES-128 encrypts the example of FIPS 197, C.1', () => {
  expect(hex(KEYS[10] as Uint8Array)).toBe('13111d7fe3944a17f307a78b4d2b30c5');
  let state = xor(PLAIN, KEYS[0] as Uint8Array);
  for (const key of KEYS.slice(1, 10)) state = encrypt(state, key);
  expect(hex(encryptLast(state, KEYS[10] as Uint8Array))).toBe(hex(CIPHER));
});

test('AES-128 decrypts it with the equivalent inverse cipher', () => {
  let state = xor(CIPHER, KEYS[10] as Uint8Array);
  for (const key of KEYS.slice(1, 10).reverse()) state = decrypt(state, inverseMix(key));
  expect(hex(decryptLast(state, KEYS[0] as Uint8Array))).toBe(hex(PLAIN));
});

test('the S-box has the values of FIPS 197, figure 7', () => {
  const { forward, inverse } = aesSbox();
  expect([forward[0], forward[1], forward[0x53], forward[0xff]]).toEqual([0x63, 0x7c, 0xed, 0x16]);
  expect(forward.every((value, at) => inverse[value] === at)).toBe(true);
});

const word = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const toBytes = (...halves: readonly bigint[]): Uint8Array =>
  new Uint8Array(new BigUint64Array(halves).buffer);

test('PCLMULQDQ multiplies the chosen halves without carries', () => {
  fc.assert(
    fc.property(word, word, word, word, fc.integer({ min: 0, max: 255 }), (a0, a1, b0, b1, imm) => {
      const x = imm & 1 ? a1 : a0;
      const y = imm & 16 ? b1 : b0;
      let product = 0n;
      for (let bit = 0n; bit < 64n; bit++) if ((y >> bit) & 1n) product ^= x << bit;
      const got = run([0x66, 0x0f, 0x3a, 0x44, 0xc1, imm], toBytes(a0, a1), toBytes(b0, b1));
      expect(hex(got)).toBe(hex(toBytes(product & ((1n << 64n) - 1n), product >> 64n)));
    }),
    { numRuns: 200 },
  );
});

test('CRC32 accumulates CRC-32C from operands of every size', () => {
  const crc = (code: readonly number[], state: bigint, value: bigint): bigint => {
    const registers = freshRegisters();
    registers.gpr[0] = state;
    registers.gpr[1] = value;
    return cpu.run(code, registers, new Uint8Array(0)).gpr[0] as bigint;
  };
  const text = Array.from('123456789', (letter) => BigInt(letter.charCodeAt(0)));
  const byByte = text.reduce((state, byte) => crc([0xf2, 0x0f, 0x38, 0xf0, 0xc1], state, byte), 0xffffffffn);
  expect(byByte ^ 0xffffffffn).toBe(0xe3069283n);
  const eight = text.slice(0, 8).reduceRight((value, byte) => (value << 8n) | byte, 0n);
  const mixed = crc([0xf2, 0x48, 0x0f, 0x38, 0xf1, 0xc1], 0xffffffffn, eight);
  expect(crc([0xf2, 0x0f, 0x38, 0xf0, 0xc1], mixed, text[8] as bigint)).toBe(byByte);
  const halves = crc(
    [0xf2, 0x0f, 0x38, 0xf1, 0xc1],
    crc([0xf2, 0x0f, 0x38, 0xf1, 0xc1], 0xffffffffn, eight),
    eight >> 32n,
  );
  expect(halves).toBe(mixed);
  const words = [0n, 16n, 32n, 48n].reduce(
    (state, at) => crc([0x66, 0xf2, 0x0f, 0x38, 0xf1, 0xc1], state, eight >> at),
    0xffffffffn,
  );
  expect(words).toBe(mixed);
  // The destination's upper half does not count and is cleared.
  expect(crc([0xf2, 0x48, 0x0f, 0x38, 0xf1, 0xc1], 0xdeadbeefffffffffn, eight)).toBe(mixed);
});
