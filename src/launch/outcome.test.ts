import { expect, test } from 'vitest';
import { fail, sentence, size } from './outcome.ts';

test.each([
  [0, '0 bytes'],
  [1, '1 byte'],
  [2, '2 bytes'],
  [1023, '1023 bytes'],
  [1024, '1 KiB'],
  [1536, '1.5 KiB'],
  [2 ** 20, '1 MiB'],
  [2 ** 30 + 2 ** 29, '1.5 GiB'],
  [3600 * 2 ** 20, '3600 MiB'],
  [75_386_880, '71.9 MiB'],
  [2 ** 50, '1024 TiB'],
])('size of %d', (length, expected) => {
  expect(size(length)).toBe(expected);
});

test('sentence joins what, where and advice', () => {
  expect(sentence(fail('the kernel is empty', 'kernel', 'give another').error)).toBe(
    'the kernel is empty (kernel): give another',
  );
});
