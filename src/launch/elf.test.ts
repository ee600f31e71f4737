import { describe, expect, test } from 'vitest';
import { parseElf, type ElfImage } from './elf.ts';
import { elf32, elf64, type TestSegment } from './test-images.ts';

const text: TestSegment = {
  paddr: 0x1000000,
  vaddr: 0x81000000,
  bytes: new Uint8Array(0x2000),
  memorySize: 0x3000,
};
const data: TestSegment = { paddr: 0x1004000, bytes: new Uint8Array(0x100) };

function parsed(file: Uint8Array, bits: 32 | 64 = 64): ElfImage {
  const outcome = parseElf(file, bits);
  if (!outcome.ok) throw new Error(outcome.error.what);
  return outcome.image;
}

function what(file: Uint8Array, bits: 32 | 64 = 64): string {
  const outcome = parseElf(file, bits);
  return outcome.ok ? 'taken' : outcome.error.what;
}

describe('parseElf', () => {
  test('reads segments in physical order', () => {
    const image = parsed(elf64(0x1000010, [data, text]));
    expect(image.segments.map(({ paddr, memorySize }) => [paddr, memorySize])).toEqual([
      [0x1000000, 0x3000],
      [0x1004000, 0x100],
    ]);
    expect(image).toMatchObject({ entry: 0x1000010, start: 0x1000000, end: 0x1004100 });
  });

  test('translates a virtual entry', () => {
    expect(parsed(elf64(0x81000020, [text])).entry).toBe(0x1000020);
  });

  test('reads the 32-bit class', () => {
    expect(parsed(elf32(0x100000, [{ paddr: 0x100000, bytes: new Uint8Array(16) }]), 32).entry).toBe(
      0x100000,
    );
  });

  test.each([
    ['an empty file', new Uint8Array(0), 'no ELF file'],
    ['a header that is cut off', elf64(0x1000000, [text]).subarray(0, 63), 'only 63 bytes'],
    [
      'program headers that are cut off',
      elf64(0x1000000, [text]).subarray(0, 100),
      'before its program headers',
    ],
    ['a segment that is cut off', elf64(0x1000000, [text]).subarray(0, 0x1000), 'before segment 0 does'],
    ['arm64', elf64(0x1000000, [text], 183), 'ELF file for arm64'],
    ['s390', elf64(0x1000000, [text], 22), 'ELF file for s390'],
    ['an unknown machine', elf64(0x1000000, [text], 999), 'machine 999'],
    ['no program headers', elf64(0x1000000, []), 'no program headers'],
    ['an entry outside', elf64(0x1002000, [text]), 'lies in no segment'],
    ['overlapping segments', elf64(0x1000000, [text, { ...data, paddr: 0x1002fff }]), 'overlap'],
    ['a segment that shrinks', elf64(0x1000000, [{ ...text, memorySize: 0x1fff }]), 'more bytes in the file'],
    [
      'a segment beyond all memory',
      elf64(0x1000000, [{ ...text, memorySize: 2 ** 47 }]),
      'beyond all memory',
    ],
    [
      '65 segments',
      elf64(
        0x1000000,
        Array.from({ length: 65 }, () => text),
      ),
      '65 program headers',
    ],
  ])('refuses %s', (_, file, expected) => {
    expect(what(file)).toContain(expected);
  });

  test('refuses the other class', () => {
    const file = elf64(0x1000000, [text]);
    file[4] = 1;
    expect(what(file)).toContain('not of the 64-bit class');
    expect(what(elf64(0x1000000, [text]), 32)).toContain('ELF file for x86-64');
  });

  test('refuses an object file and big-endian data', () => {
    const object = elf64(0x1000000, [text]);
    object[16] = 1;
    expect(what(object)).toContain('not an executable');
    const big = elf64(0x1000000, [text]);
    big[5] = 2;
    expect(what(big)).toContain('little-endian');
  });
});
