/** ELF executables with program headers: 64-bit vmlinux, 32-bit multiboot images. Every bound is checked. */
import {
  ELF32_HEADER,
  ELF32_SEGMENT,
  ELF64_HEADER,
  ELF64_SEGMENT,
  ELF_CLASS,
  ELF_DATA_LITTLE,
  ELF_MACHINE,
  ELF_MACHINE_NAMES,
  ELF_MAGIC,
  ELF_TYPE,
  SEGMENT_LOAD,
} from '../abi/elf.ts';
import { u16, u32 } from '../abi/record.ts';
import { fail, hex, type Failure } from './outcome.ts';

export interface ElfSegment {
  readonly paddr: number;
  readonly vaddr: bigint;
  /** File contents; the rest up to `memorySize` is zero. */
  readonly bytes: Uint8Array;
  readonly memorySize: number;
}

export interface ElfImage {
  readonly kind: 'elf';
  readonly bits: 32 | 64;
  /** Physical address of the first instruction. */
  readonly entry: number;
  /** Loadable segments with memory, by physical address; they do not overlap. */
  readonly segments: readonly ElfSegment[];
  /** First and behind the last physical address. */
  readonly start: number;
  readonly end: number;
}

export type ElfOutcome = { readonly ok: true; readonly image: ElfImage } | Failure;

const DAMAGED = 'the file is damaged; fetch it again';
/** A kernel has about five. More are refused, so that a hostile table costs nothing. */
const MOST_SEGMENTS = 64;
const MOST_ADDRESS = 2 ** 46;

export function isElf(file: Uint8Array): boolean {
  return file.length >= 4 && u32(file, 0) === ELF_MAGIC;
}

interface Header {
  readonly type: number;
  readonly entry: bigint;
  readonly phoff: bigint;
  readonly phentsize: number;
  readonly phnum: number;
}

interface RawSegment {
  readonly type: number;
  readonly offset: bigint;
  readonly vaddr: bigint;
  readonly paddr: bigint;
  readonly filesz: bigint;
  readonly memsz: bigint;
}

export function parseElf(file: Uint8Array, bits: 32 | 64): ElfOutcome {
  const identity = checkIdentity(file, bits);
  if (!identity.ok) return identity;
  const header = readHeader(file, bits);
  const layout = bits === 64 ? ELF64_SEGMENT : ELF32_SEGMENT;
  if (header.type !== ELF_TYPE.executable && header.type !== ELF_TYPE.shared) {
    return refuse(
      16,
      `the ELF file is of type ${header.type}, not an executable`,
      'give a linked kernel (vmlinux)',
    );
  }
  if (header.phnum === 0)
    return refuse(0, 'the ELF file has no program headers', 'give a linked kernel (vmlinux)');
  if (header.phentsize !== layout.size || header.phnum > MOST_SEGMENTS) {
    return refuse(
      0,
      `the ELF file has ${header.phnum} program headers of ${header.phentsize} bytes`,
      `give one with at most ${MOST_SEGMENTS} of ${layout.size} bytes`,
    );
  }
  if (header.phoff + BigInt(header.phnum * layout.size) > BigInt(file.length)) {
    return refuse(0, 'the ELF file ends before its program headers', DAMAGED);
  }

  const segments: ElfSegment[] = [];
  for (let i = 0; i < header.phnum; i++) {
    const at = Number(header.phoff) + i * layout.size;
    const raw = readSegment(file, bits, at);
    if (raw.type !== SEGMENT_LOAD || raw.memsz === 0n) continue;
    if (raw.filesz > raw.memsz) {
      return refuse(at, `segment ${i} has more bytes in the file than in memory`, DAMAGED);
    }
    if (raw.offset + raw.filesz > BigInt(file.length)) {
      return refuse(at, `the file ends before segment ${i} does`, DAMAGED);
    }
    if (raw.paddr + raw.memsz > MOST_ADDRESS) {
      return refuse(
        at,
        `segment ${i} lies at ${hex(raw.paddr)}, beyond all memory`,
        'link it to a lower address',
      );
    }
    const offset = Number(raw.offset);
    segments.push({
      paddr: Number(raw.paddr),
      vaddr: raw.vaddr,
      bytes: file.subarray(offset, offset + Number(raw.filesz)),
      memorySize: Number(raw.memsz),
    });
  }
  segments.sort((a, b) => a.paddr - b.paddr);
  const first = segments[0];
  const last = segments.at(-1);
  if (first === undefined || last === undefined) {
    return refuse(0, 'the ELF file has nothing to load', 'give a linked kernel (vmlinux)');
  }
  for (let i = 1; i < segments.length; i++) {
    const before = segments[i - 1] as ElfSegment;
    const segment = segments[i] as ElfSegment;
    if (before.paddr + before.memorySize > segment.paddr) {
      return refuse(0, `two segments overlap at ${hex(segment.paddr)}`, DAMAGED);
    }
  }
  const entry = physicalEntry(header.entry, segments);
  if (entry === undefined) {
    return refuse(24, `the entry point ${hex(header.entry)} lies in no segment`, DAMAGED);
  }
  return {
    ok: true,
    image: { kind: 'elf', bits, entry, segments, start: first.paddr, end: last.paddr + last.memorySize },
  };
}

function checkIdentity(file: Uint8Array, bits: 32 | 64): { readonly ok: true } | Failure {
  const layout = bits === 64 ? ELF64_HEADER : ELF32_HEADER;
  if (!isElf(file)) return refuse(0, 'the kernel is no ELF file', 'give a vmlinux file');
  const machine = file.length >= 20 ? u16(file, 18) : undefined;
  const wanted = bits === 64 ? ELF_MACHINE.x86_64 : ELF_MACHINE.i386;
  if (machine !== undefined && machine !== wanted) {
    const name = ELF_MACHINE_NAMES[machine] ?? `machine ${machine}`;
    return refuse(
      18,
      `the kernel is an ELF file for ${name}`,
      `give one for ${ELF_MACHINE_NAMES[wanted] ?? ''}`,
    );
  }
  if (!layout.fits(file)) return refuse(0, `the ELF file has only ${file.length} bytes`, DAMAGED);
  const isClass = file[4] === (bits === 64 ? ELF_CLASS.elf64 : ELF_CLASS.elf32);
  if (!isClass) return refuse(4, `the ELF file is not of the ${bits}-bit class`, 'give one that is');
  if (file[5] !== ELF_DATA_LITTLE) return refuse(5, 'the ELF file is not little-endian', DAMAGED);
  return { ok: true };
}

function readHeader(file: Uint8Array, bits: 32 | 64): Header {
  if (bits === 64) return ELF64_HEADER.read(file);
  const header = ELF32_HEADER.read(file);
  return { ...header, entry: BigInt(header.entry), phoff: BigInt(header.phoff) };
}

function readSegment(file: Uint8Array, bits: 32 | 64, at: number): RawSegment {
  if (bits === 64) return ELF64_SEGMENT.read(file, at);
  const raw = ELF32_SEGMENT.read(file, at);
  return {
    type: raw.type,
    offset: BigInt(raw.offset),
    vaddr: BigInt(raw.vaddr),
    paddr: BigInt(raw.paddr),
    filesz: BigInt(raw.filesz),
    memsz: BigInt(raw.memsz),
  };
}

/** Linux's vmlinux names the physical address of its entry, other images the virtual one. */
function physicalEntry(entry: bigint, segments: readonly ElfSegment[]): number | undefined {
  const inside = (segment: ElfSegment, start: bigint): boolean =>
    entry >= start && entry < start + BigInt(segment.bytes.length);
  const physical = segments.find((segment) => inside(segment, BigInt(segment.paddr)));
  if (physical !== undefined) return Number(entry);
  const virtual = segments.find((segment) => inside(segment, segment.vaddr));
  return virtual === undefined ? undefined : virtual.paddr + Number(entry - virtual.vaddr);
}

function refuse(at: number, what: string, advice: string): Failure {
  return fail(what, `kernel, byte ${hex(at)}`, advice);
}
