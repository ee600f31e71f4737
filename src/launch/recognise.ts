/** Names what a file is when it is not the kernel that was asked for, so that the message can say it. */
import { ELF_MACHINE_NAMES, ELF_MAGIC } from '../abi/elf.ts';
import { u16, u32 } from '../abi/record.ts';
import { hex } from './outcome.ts';

export interface Recognised {
  readonly what: string;
  readonly where: string;
  readonly advice: string;
}

interface Magic {
  readonly at: number;
  readonly bytes: readonly number[];
  readonly what: string;
  readonly advice: string;
}

const X86_KERNEL = 'give an x86-64 bzImage (vmlinuz) or vmlinux';
const UNPACK = 'unpack it first';

const text = (word: string): number[] => Array.from(word, (character) => character.charCodeAt(0));

/** First bytes by which files are known; the table is tried in order. */
const MAGICS: readonly Magic[] = [
  { at: 0x38, bytes: text('ARM\x64'), what: 'an arm64 kernel', advice: X86_KERNEL },
  { at: 0x38, bytes: text('RSC\x05'), what: 'a RISC-V kernel', advice: X86_KERNEL },
  { at: 0x30, bytes: text('RISCV'), what: 'a RISC-V kernel', advice: X86_KERNEL },
  { at: 0x24, bytes: [0x18, 0x28, 0x6f, 0x01], what: 'a 32-bit Arm kernel', advice: X86_KERNEL },
  { at: 0, bytes: text('!<arch>\n'), what: 'an ar archive (a .deb package?)', advice: UNPACK },
  { at: 0, bytes: [0x1f, 0x8b], what: 'gzip-compressed', advice: UNPACK },
  { at: 0, bytes: [0xfd, ...text('7zXZ'), 0], what: 'xz-compressed', advice: UNPACK },
  { at: 0, bytes: [0x28, 0xb5, 0x2f, 0xfd], what: 'zstd-compressed', advice: UNPACK },
  { at: 0, bytes: [0x04, 0x22, 0x4d, 0x18], what: 'LZ4-compressed', advice: UNPACK },
  { at: 0, bytes: [0x02, 0x21, 0x4c, 0x18], what: 'LZ4-compressed', advice: UNPACK },
  { at: 0, bytes: text('BZh'), what: 'bzip2-compressed', advice: UNPACK },
  { at: 0, bytes: text('070701'), what: 'a cpio archive (an initrd?)', advice: X86_KERNEL },
  { at: 0, bytes: text('hsqs'), what: 'a squashfs image', advice: X86_KERNEL },
  { at: 0, bytes: text('IGVM'), what: 'an IGVM file', advice: X86_KERNEL },
];

/** PE machine numbers (Microsoft PE Format, "Machine Types"). */
const PE_MACHINES: Readonly<Record<number, string>> = {
  0x14c: '32-bit x86',
  0x1c4: '32-bit Arm',
  0x5064: 'RISC-V',
  0x6264: 'LoongArch',
  0x8664: 'x86-64',
  0xaa64: 'arm64',
};

/** `undefined`: nothing that is known. ELF files of a foreign machine are named; others are left to the ELF loader. */
export function recognise(file: Uint8Array): Recognised | undefined {
  const magic = MAGICS.find(({ at, bytes }) => bytes.every((byte, i) => file[at + i] === byte));
  if (magic !== undefined) return { what: magic.what, where: `byte ${hex(magic.at)}`, advice: magic.advice };
  if (file.length >= 20 && u32(file, 0) === ELF_MAGIC) {
    const machine = u16(file, 18);
    const name = ELF_MACHINE_NAMES[machine] ?? `unknown (machine ${machine})`;
    return { what: `an ELF file for ${name}`, where: 'byte 0x12', advice: X86_KERNEL };
  }
  if (file.length >= 0x40 && u16(file, 0) === 0x5a4d) {
    const at = u32(file, 0x3c);
    if (at + 6 > file.length || u32(file, at) !== 0x4550) {
      return { what: 'a DOS program', where: 'byte 0x0', advice: X86_KERNEL };
    }
    const machine = u16(file, at + 4);
    const name = PE_MACHINES[machine] ?? `unknown (machine ${machine})`;
    return { what: `an EFI program for ${name}`, where: `byte ${hex(at + 4)}`, advice: X86_KERNEL };
  }
  return undefined;
}
