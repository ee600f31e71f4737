import { expect, test } from 'vitest';
import { ELF32_HEADER, ELF32_SEGMENT, ELF64_HEADER, ELF64_SEGMENT } from './elf.ts';

test('ELF records have the sizes and offsets of the ABI', () => {
  expect([ELF64_HEADER.size, ELF64_SEGMENT.size, ELF32_HEADER.size, ELF32_SEGMENT.size]).toEqual([
    64, 56, 52, 32,
  ]);
  expect([ELF64_HEADER.offsetOf('phoff'), ELF64_HEADER.offsetOf('phnum')]).toEqual([32, 56]);
  expect([ELF32_HEADER.offsetOf('phoff'), ELF32_HEADER.offsetOf('phnum')]).toEqual([28, 44]);
  expect([ELF64_SEGMENT.offsetOf('paddr'), ELF64_SEGMENT.offsetOf('memsz')]).toEqual([24, 40]);
  expect([ELF32_SEGMENT.offsetOf('paddr'), ELF32_SEGMENT.offsetOf('memsz')]).toEqual([12, 20]);
});
