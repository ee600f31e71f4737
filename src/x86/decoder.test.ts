import { Decoder, DecoderOptions, Code } from 'iced-x86';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { x86Defs } from './all.ts';
import { decode, Insn, type DecodeMode } from './decoder.ts';
import { buildOpcodeTable } from './encoding.ts';

const table = buildOpcodeTable(x86Defs);

function length(mode: DecodeMode, bytes: Uint8Array): { result: string; length: number; name: string } {
  const insn = new Insn();
  const result = decode(table, mode, bytes, 0, bytes.length, insn);
  return { result, length: insn.length, name: insn.entry?.def.name ?? '' };
}

describe('decode', () => {
  test.each([
    ['90', 64, 'nop', 1],
    ['f390', 64, 'pause', 2],
    ['4190', 64, 'xchg', 2],
    ['f34190', 64, 'pause', 3],
    ['488b04250000000080', 64, 'mov', 8],
    ['67668b4601', 32, 'mov', 5],
    ['c4e2f8f2c1', 64, 'andn', 5],
    ['0f01f8', 64, 'swapgs', 3],
    ['f30fbcc8', 64, 'tzcnt', 4],
    ['0fbcc8', 64, 'bsf', 3],
    ['62', 64, '', 0],
    ['d9c0', 16, 'fld', 2],
    ['48b8887766554433221100', 64, 'mov', 10],
    ['ea78563412cdab', 32, 'jmpf', 7],
  ] as const)('%s in %i bits is %s of %i bytes', (hex, bits, name, bytes) => {
    const found = length({ bits, real: false }, Buffer.from(hex.padEnd(30, '0'), 'hex'));
    if (name === '') expect(found.result).toBe('ud');
    else expect(found).toEqual({ result: 'ok', length: bytes, name });
  });

  test('an instruction of more than 15 bytes is refused', () => {
    expect(length({ bits: 64, real: false }, Buffer.from('66'.repeat(15) + '90', 'hex')).result).toBe(
      'too-long',
    );
  });

  test('a cut-off instruction asks for more', () => {
    expect(length({ bits: 64, real: false }, Buffer.from('48b81122', 'hex')).result).toBe('more');
  });

  test('LOCK is for memory destinations that allow it', () => {
    expect(length({ bits: 64, real: false }, Buffer.from('f0480100000000', 'hex')).result).toBe('ok');
    expect(length({ bits: 64, real: false }, Buffer.from('f04801c0000000', 'hex')).result).toBe('ud');
    expect(length({ bits: 64, real: false }, Buffer.from('f0488b00000000', 'hex')).result).toBe('ud');
  });

  // What another decoder accepts as the same instruction set has the same length here.
  test.each([16, 32, 64] as const)('lengths agree with another decoder in %i bits', (bits) => {
    const known = new Set<string>();
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 20, maxLength: 20 }), (bytes) => {
        const ours = length({ bits, real: bits === 16 }, bytes);
        if (ours.result !== 'ok') return;
        const decoder = new Decoder(bits, bytes, DecoderOptions.AMD);
        const theirs = decoder.decode();
        const code = theirs.code;
        const theirLength = theirs.length;
        theirs.free();
        decoder.free();
        // Whether UD0 has a modrm byte differs between vendors; it is #UD all the same.
        if (code === Code.INVALID || ours.name === 'ud2') return;
        known.add(ours.name);
        expect(`${Buffer.from(bytes).toString('hex')} ${ours.name} ${ours.length}`).toBe(
          `${Buffer.from(bytes).toString('hex')} ${ours.name} ${theirLength}`,
        );
      }),
      { numRuns: 20_000, seed: bits },
    );
    expect(known.size).toBeGreaterThan(100);
  });
});
