import { expect, test } from 'vitest';
import { MULTIBOOT_ADDRESSES, MULTIBOOT_INFO, MULTIBOOT_MMAP_ENTRY, MULTIBOOT_MODULE } from './multiboot.ts';

test('multiboot records have the sizes and offsets of the specification', () => {
  expect(MULTIBOOT_ADDRESSES.offsetOf('entryAddr')).toBe(28);
  expect(MULTIBOOT_INFO.offsetOf('cmdline')).toBe(16);
  expect(MULTIBOOT_INFO.offsetOf('modsAddr')).toBe(24);
  expect(MULTIBOOT_INFO.offsetOf('mmapLength')).toBe(44);
  expect(MULTIBOOT_INFO.offsetOf('bootLoaderName')).toBe(64);
  expect([MULTIBOOT_INFO.size, MULTIBOOT_MODULE.size, MULTIBOOT_MMAP_ENTRY.size]).toEqual([88, 16, 24]);
});
