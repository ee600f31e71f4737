import { expect, test } from 'vitest';
import { ascii, concat } from '../abi/bytes.ts';
import { recognise } from './recognise.ts';

const at = (offset: number, ...bytes: number[]): Uint8Array =>
  concat(new Uint8Array(offset), ...bytes, new Uint8Array(64));

function efi(machine: number): Uint8Array {
  const file = concat(ascii('MZ'), new Uint8Array(0x3e), 0x50, 0x45, 0, 0, machine & 0xff, machine >> 8);
  file[0x3c] = 0x40;
  return file;
}

test.each([
  ['a 32-bit Arm kernel', at(0x24, 0x18, 0x28, 0x6f, 0x01), 'byte 0x24'],
  ['an arm64 kernel', at(0x38, 0x41, 0x52, 0x4d, 0x64), 'byte 0x38'],
  ['a RISC-V kernel', at(0x30, ...ascii('RISCV')), 'byte 0x30'],
  ['a RISC-V kernel', at(0x38, 0x52, 0x53, 0x43, 0x05), 'byte 0x38'],
  ['gzip-compressed', at(0, 0x1f, 0x8b), 'byte 0x0'],
  ['xz-compressed', at(0, 0xfd, 0x37, 0x7a, 0x58, 0x5a, 0), 'byte 0x0'],
  ['zstd-compressed', at(0, 0x28, 0xb5, 0x2f, 0xfd), 'byte 0x0'],
  ['LZ4-compressed', at(0, 0x04, 0x22, 0x4d, 0x18), 'byte 0x0'],
  ['LZ4-compressed', at(0, 0x02, 0x21, 0x4c, 0x18), 'byte 0x0'],
  ['bzip2-compressed', at(0, ...ascii('BZh9')), 'byte 0x0'],
  ['a cpio archive (an initrd?)', at(0, ...ascii('070701')), 'byte 0x0'],
  ['an IGVM file', at(0, ...ascii('IGVM')), 'byte 0x0'],
  ['an EFI program for 32-bit x86', efi(0x14c), 'byte 0x44'],
  ['an EFI program for LoongArch', efi(0x6264), 'byte 0x44'],
  ['an EFI program for RISC-V', efi(0x5064), 'byte 0x44'],
  ['an EFI program for x86-64', efi(0x8664), 'byte 0x44'],
  ['an EFI program for unknown (machine 4919)', efi(0x1337), 'byte 0x44'],
  ['a DOS program', at(0, 0x4d, 0x5a), 'byte 0x0'],
])('recognise %s', (what, file, where) => {
  expect(recognise(file)).toMatchObject({ what, where });
});

test('recognise knows nothing of short and strange files', () => {
  expect(recognise(new Uint8Array(0))).toBeUndefined();
  expect(recognise(new Uint8Array(4096).fill(0xcc))).toBeUndefined();
  expect(recognise(efi(0x8664).subarray(0, 0x45))).toMatchObject({ what: 'a DOS program' });
});
