import { expect, test } from 'vitest';
import { pageHash } from './page-hash.ts';

const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
const bytes = new Uint8Array(memory.buffer);
const hash = pageHash(memory, 1);

test('a page of zeros changes nothing, whatever its number', () => {
  expect(hash(7n, 3, 0)).toBe(7n);
});

test('every bit of a page, its number and what came before count; the place does not', () => {
  const seen = new Set<bigint>();
  const see = (value: bigint): void => {
    expect(seen.has(value)).toBe(false);
    seen.add(value);
  };
  for (let bit = 0; bit < 4096 * 8; bit++) {
    bytes[bit >> 3] = 1 << (bit & 7);
    see(hash(7n, 3, 0));
    bytes[bit >> 3] = 0;
  }
  bytes[4095] = 1;
  see(hash(7n, 4, 0));
  see(hash(8n, 3, 0));
  const here = hash(7n, 3, 0);
  bytes.copyWithin(8192, 0, 4096);
  expect(hash(7n, 3, 8192)).toBe(here);
});

test('words that changed places count', () => {
  bytes.fill(0);
  const view = new DataView(memory.buffer);
  const both = [0, 8, 32, 4088].map((at) => {
    view.setBigUint64(at, 5n, true);
    const one = hash(0n, 0, 0);
    view.setBigUint64(at, 0n, true);
    return one;
  });
  expect(new Set(both).size).toBe(4);
});
