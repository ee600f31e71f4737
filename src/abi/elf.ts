/**
 * ELF file and program headers, 32 and 64 bits, little-endian.
 * System V ABI, chapters 4 "Object Files" and 5 "Program Loading".
 */
import { record } from './record.ts';

const GABI_HEADER = 'System V ABI, chapter 4, "ELF Header"';
const GABI_SEGMENT = 'System V ABI, chapter 5, "Program Header"';

export const ELF64_HEADER = record('Elf64_Ehdr', GABI_HEADER, 64, [
  { name: 'ident', offset: 0, width: 16, bytes: true },
  { name: 'type', offset: 16, width: 2 },
  { name: 'machine', offset: 18, width: 2 },
  { name: 'version', offset: 20, width: 4 },
  { name: 'entry', offset: 24, width: 8 },
  { name: 'phoff', offset: 32, width: 8 },
  { name: 'shoff', offset: 40, width: 8 },
  { name: 'flags', offset: 48, width: 4 },
  { name: 'ehsize', offset: 52, width: 2 },
  { name: 'phentsize', offset: 54, width: 2 },
  { name: 'phnum', offset: 56, width: 2 },
  { name: 'shentsize', offset: 58, width: 2 },
  { name: 'shnum', offset: 60, width: 2 },
  { name: 'shstrndx', offset: 62, width: 2 },
]);

export const ELF64_SEGMENT = record('Elf64_Phdr', GABI_SEGMENT, 56, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'flags', offset: 4, width: 4 },
  { name: 'offset', offset: 8, width: 8 },
  { name: 'vaddr', offset: 16, width: 8 },
  { name: 'paddr', offset: 24, width: 8 },
  { name: 'filesz', offset: 32, width: 8 },
  { name: 'memsz', offset: 40, width: 8 },
  { name: 'align', offset: 48, width: 8 },
]);

export const ELF32_HEADER = record('Elf32_Ehdr', GABI_HEADER, 52, [
  { name: 'ident', offset: 0, width: 16, bytes: true },
  { name: 'type', offset: 16, width: 2 },
  { name: 'machine', offset: 18, width: 2 },
  { name: 'version', offset: 20, width: 4 },
  { name: 'entry', offset: 24, width: 4 },
  { name: 'phoff', offset: 28, width: 4 },
  { name: 'shoff', offset: 32, width: 4 },
  { name: 'flags', offset: 36, width: 4 },
  { name: 'ehsize', offset: 40, width: 2 },
  { name: 'phentsize', offset: 42, width: 2 },
  { name: 'phnum', offset: 44, width: 2 },
  { name: 'shentsize', offset: 46, width: 2 },
  { name: 'shnum', offset: 48, width: 2 },
  { name: 'shstrndx', offset: 50, width: 2 },
]);

export const ELF32_SEGMENT = record('Elf32_Phdr', GABI_SEGMENT, 32, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'offset', offset: 4, width: 4 },
  { name: 'vaddr', offset: 8, width: 4 },
  { name: 'paddr', offset: 12, width: 4 },
  { name: 'filesz', offset: 16, width: 4 },
  { name: 'memsz', offset: 20, width: 4 },
  { name: 'flags', offset: 24, width: 4 },
  { name: 'align', offset: 28, width: 4 },
]);

/** 0x7f 'E' 'L' 'F' as a little-endian u32. */
export const ELF_MAGIC = 0x464c457f;
export const ELF_CLASS = { elf32: 1, elf64: 2 } as const;
export const ELF_DATA_LITTLE = 1;
export const ELF_TYPE = { executable: 2, shared: 3 } as const;
export const ELF_MACHINE = { i386: 3, x86_64: 62 } as const;
export const SEGMENT_LOAD = 1;

/** Names of foreign machines, for error messages. */
export const ELF_MACHINE_NAMES: Readonly<Record<number, string>> = {
  2: 'SPARC',
  3: '32-bit x86',
  8: 'MIPS',
  20: '32-bit PowerPC',
  21: '64-bit PowerPC',
  22: 's390',
  40: '32-bit Arm',
  62: 'x86-64',
  183: 'arm64',
  243: 'RISC-V',
  258: 'LoongArch',
};
