/**
 * What an initial RAM disk is, as far as a loader can tell before it hands it to the kernel: damage is then said in a sentence
 * and not by a panic. Linux Documentation/driver-api/early-userspace/buffer-format.rst, init/do_mounts_rd.c for the images.
 */
import { ELF_MACHINE_NAMES, ELF_MAGIC } from '../abi/elf.ts';
import { u16, u32 } from '../abi/record.ts';
import { fail, hex, type Failure } from './outcome.ts';

export type InitrdFormat =
  'cpio' | 'gzip' | 'bzip2' | 'lzma' | 'xz' | 'lzo' | 'lz4' | 'zstd' | 'padding' | 'file system';

const MAGICS: readonly {
  readonly format: InitrdFormat;
  readonly at?: number;
  readonly bytes: readonly number[];
}[] = [
  { format: 'cpio', bytes: text('070701') },
  { format: 'cpio', bytes: text('070702') },
  { format: 'gzip', bytes: [0x1f, 0x8b] },
  { format: 'gzip', bytes: [0x1f, 0x9e] },
  { format: 'bzip2', bytes: text('BZh') },
  { format: 'lzma', bytes: [0x5d, 0, 0] },
  { format: 'xz', bytes: [0xfd, ...text('7zXZ'), 0] },
  { format: 'lzo', bytes: [0x89, ...text('LZO')] },
  { format: 'lz4', bytes: [0x02, 0x21, 0x4c, 0x18] },
  { format: 'zstd', bytes: [0x28, 0xb5, 0x2f, 0xfd] },
  { format: 'file system', bytes: text('-rom1fs-') },
  { format: 'file system', bytes: text('hsqs') },
  { format: 'file system', bytes: [0x45, 0x3d, 0xcd, 0x28] },
  { format: 'file system', at: 0x438, bytes: [0x53, 0xef] },
];

function text(word: string): number[] {
  return Array.from(word, (character) => character.charCodeAt(0));
}

/** Format of what starts at `from`; undefined: nothing that a kernel unpacks. */
export function initrdFormat(bytes: Uint8Array, from = 0): InitrdFormat | undefined {
  if (bytes[from] === 0 && bytes[from + 0x438] !== 0x53) return 'padding';
  return MAGICS.find((magic) => magic.bytes.every((byte, k) => bytes[from + (magic.at ?? 0) + k] === byte))
    ?.format;
}

const HEADER = 110;
const FIELD = 8;
const SIZE_FIELD = 6;
const NAME_FIELD = 11;
const TRAILER = 'TRAILER!!!';
const FOREIGN_ADVICE = 'give one with programs for x86-64';
const CUT = 'the file is damaged or cut off; make or fetch it again';
/** Machines whose programs an x86-64 kernel runs: i386 and x86-64. */
const NATIVE = new Set([3, 62]);

export type CpioOutcome =
  { readonly ok: true; /** First byte after the archive. */ readonly end: number } | Failure;

/** Walks one archive in the "newc" format from `from` on. `where` names the file that it lies in. */
export function checkCpio(bytes: Uint8Array, from: number, where: string): CpioOutcome {
  const field = (at: number, index: number): number => {
    const start = at + 6 + index * FIELD;
    const digits = String.fromCharCode(...bytes.subarray(start, start + FIELD));
    return /^[0-9a-f]{8}$/i.test(digits) ? parseInt(digits, 16) : NaN;
  };
  const aligned = (at: number): number => from + Math.ceil((at - from) / 4) * 4;
  let foreign: number | undefined;
  let native = false;
  let at = from;
  while (at < bytes.length && bytes[at] === 0x30) {
    if (at + HEADER > bytes.length)
      return fail('the initrd is cut off in a header', `${where}, byte ${hex(at)}`, CUT);
    const length = field(at, SIZE_FIELD);
    const nameLength = field(at, NAME_FIELD);
    if (
      initrdFormat(bytes, at) !== 'cpio' ||
      Number.isNaN(length) ||
      Number.isNaN(nameLength) ||
      nameLength === 0
    )
      return fail('the initrd has a damaged header', `${where}, byte ${hex(at)}`, CUT);
    const data = aligned(at + HEADER + nameLength);
    if (data + length > bytes.length)
      return fail(
        `the initrd is cut off: it has ${bytes.length} bytes and a file in it ends at ${data + length}`,
        `${where}, byte ${hex(at)}`,
        CUT,
      );
    const name = bytes.subarray(at + HEADER, at + HEADER + nameLength - 1);
    if (nameLength === TRAILER.length + 1 && String.fromCharCode(...name) === TRAILER) {
      at = data;
      break;
    }
    if (length >= 64 && u32(bytes, data) === ELF_MAGIC) {
      const machine = u16(bytes, data + 18);
      if (NATIVE.has(machine)) native = true;
      else foreign ??= machine;
    }
    at = aligned(data + length);
  }
  if (foreign !== undefined && !native) {
    const name = ELF_MACHINE_NAMES[foreign] ?? `machine ${foreign}`;
    return fail(`the programs in the initrd are for ${name}`, where, FOREIGN_ADVICE);
  }
  return { ok: true, end: Math.min(at, bytes.length) };
}
