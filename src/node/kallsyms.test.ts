import { expect, test } from 'vitest';
import { readKallsyms, type KernelSymbol } from './kallsyms.ts';

const BASE = 0xffffffff9a000000n;
const SYMBOLS: readonly KernelSymbol[] = Array.from({ length: 600 }, (_, k) => ({
  address: BASE + BigInt(k * 0x40),
  type: k % 3 === 0 ? 'T' : 't',
  name: `function_${k}_${'x'.repeat(k % 150)}`,
}));
const PER_CPU: KernelSymbol = { address: 0x1c0n, type: 'A', name: 'cpu_number' };

const padded = (...parts: readonly Buffer[]): Buffer =>
  Buffer.concat(parts.map((part) => Buffer.concat([part, Buffer.alloc((8 - (part.length % 8)) % 8)])));
const words = (values: readonly number[]): Buffer => {
  const out = Buffer.alloc(values.length * 4);
  values.forEach((value, k) => out.writeInt32LE(value | 0, k * 4));
  return out;
};

/** As scripts/kallsyms.c writes it, with one token for two letters. */
function table(symbols: readonly KernelSymbol[], perCpu: boolean, layout: '6.1' | '6.12'): Uint8Array {
  const tokens = Array.from({ length: 256 }, (_, code) =>
    code === 1 ? 'function_' : code < 0x20 ? '?' : String.fromCharCode(code),
  );
  const markers: number[] = [];
  const names: Buffer[] = [];
  let length = 0;
  for (const [k, { type, name }] of symbols.entries()) {
    if (k % 256 === 0) markers.push(length);
    const packed = Buffer.from(`${type}${name}`.replace('function_', '\u0001'), 'latin1');
    const head = packed.length < 0x80 ? [packed.length] : [(packed.length & 0x7f) | 0x80, packed.length >> 7];
    names.push(Buffer.from(head), packed);
    length += head.length + packed.length;
  }
  const index = Buffer.alloc(512);
  let at = 0;
  tokens.forEach((token, k) => {
    index.writeUInt16LE(at, k * 2);
    at += token.length + 1;
  });
  const base = Buffer.alloc(8);
  base.writeBigUInt64LE(BASE);
  const offsets = words(
    symbols.map(({ address }) =>
      address < 0x1000n ? Number(address) : Number(perCpu ? BASE - 1n - address : address - BASE),
    ),
  );
  const addresses = [offsets, base];
  const rest = [
    words([symbols.length]),
    Buffer.concat(names),
    words(markers),
    Buffer.from(tokens.map((token) => `${token}\0`).join(''), 'latin1'),
    index,
  ];
  return padded(
    Buffer.alloc(64, 7),
    ...(layout === '6.1' ? [...addresses, ...rest] : [...rest, ...addresses]),
    Buffer.alloc(64, 9),
  );
}

test.each(['6.1', '6.12'] as const)('readKallsyms reads the table of a %s kernel', (layout) => {
  expect(readKallsyms(table(SYMBOLS, false, layout))).toEqual(SYMBOLS);
  const withPerCpu = [PER_CPU, ...SYMBOLS];
  expect(readKallsyms(table(withPerCpu, true, layout))).toEqual(withPerCpu);
});

test('readKallsyms finds none in half a table, a damaged one, or none', () => {
  const good = Buffer.from(table(SYMBOLS, false, '6.12'));
  expect(readKallsyms(good.subarray(0, good.length / 2))).toBeUndefined();
  const tokens = good.indexOf('0\u00001\u0000', 0, 'latin1');
  const damaged = Buffer.from(good);
  damaged[tokens + 2] = 0;
  expect(readKallsyms(damaged)).toBeUndefined();
  expect(readKallsyms(Buffer.alloc(4096))).toBeUndefined();
});
