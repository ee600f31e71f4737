import { expect, test } from 'vitest';
import { CODE_MODES, codeCase, mutatedImage } from './fuzz-cases.ts';

test('a case depends on seed, mode and index only', () => {
  expect(codeCase(1, 'long', 17)).toEqual(codeCase(1, 'long', 17));
  expect(codeCase(1, 'long', 17)).not.toEqual(codeCase(1, 'long', 18));
  expect(codeCase(1, 'long', 17)).not.toEqual(codeCase(2, 'long', 17));
  expect(codeCase(1, 'long', 17).code).not.toEqual(codeCase(1, 'real', 17).code);
});

test('the strings of each mode begin with every byte', () => {
  for (const mode of CODE_MODES) {
    const first = new Set(Array.from({ length: 20_000 }, (_, i) => codeCase(1, mode, i).code[0]));
    expect(first.size).toBe(256);
  }
});

test('mutation leaves the base alone and changes most images', () => {
  const base = Uint8Array.from({ length: 300 }, (_, i) => i & 0xff);
  const before = base.slice();
  let changed = 0;
  for (let i = 0; i < 200; i++) if (mutatedImage(1, base, i).toString() !== base.toString()) changed++;
  expect(changed).toBeGreaterThan(190);
  expect(base).toEqual(before);
});
