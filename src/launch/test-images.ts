/** Small well-formed images for tests: what a real file of the kind has, and nothing else. */
import { MULTIBOOT_ADDRESSES, MULTIBOOT_HEADER, MULTIBOOT_HEADER_MAGIC } from '../abi/multiboot.ts';
import { BOOT_FLAG, HEADER_MAGIC, SECTOR, SETUP_HEADER } from '../abi/boot-params.ts';
import { ELF32_HEADER, ELF32_SEGMENT, ELF64_HEADER, ELF64_SEGMENT } from '../abi/elf.ts';
import { ascii } from '../abi/bytes.ts';
import type { ValuesOf } from '../abi/record.ts';

type HeaderValues = Partial<ValuesOf<typeof SETUP_HEADER.fields>>;

const SETUP_SECTORS = 2;
export const BZIMAGE_PAYLOAD_AT = (SETUP_SECTORS + 1) * SECTOR;
const VERSION_AT = 0x300;

/** A bzImage of protocol 2.15 with `payloadBytes` of kernel; `changes` overrides fields of its header. */
export function bzImage(changes: HeaderValues = {}, payloadBytes = 0x1000): Uint8Array {
  const file = new Uint8Array(BZIMAGE_PAYLOAD_AT + payloadBytes);
  for (let i = 0; i < payloadBytes; i++) file[BZIMAGE_PAYLOAD_AT + i] = i * 7;
  SETUP_HEADER.write(
    {
      setupSects: SETUP_SECTORS,
      sysSize: payloadBytes / 16,
      bootFlag: BOOT_FLAG,
      jump: 0x6aeb, // jmp over the header, which ends at 0x26c
      header: HEADER_MAGIC,
      version: 0x020f,
      kernelVersion: VERSION_AT - 0x200,
      loadFlags: 1,
      code32Start: 0x100000,
      initrdAddrMax: 0x7fffffff,
      kernelAlignment: 0x200000,
      relocatableKernel: 1,
      minAlignment: 21,
      xloadFlags: 0x7f,
      cmdlineSize: 2047,
      prefAddress: 0x1000000n,
      initSize: 0x400000,
      ...changes,
    },
    file,
  );
  file.set(ascii('6.12.0-test (nobody) #1 SMP'), VERSION_AT);
  return file;
}

export interface TestSegment {
  readonly paddr: number;
  readonly vaddr?: number;
  readonly bytes: Uint8Array;
  readonly memorySize?: number;
}

export function elf64(entry: number, segments: readonly TestSegment[], machine = 62): Uint8Array {
  const { total, offsets } = elfLayout(ELF64_HEADER.size, ELF64_SEGMENT.size, segments);
  const file = new Uint8Array(total);
  ELF64_HEADER.write(
    {
      ident: Uint8Array.of(0x7f, 0x45, 0x4c, 0x46, 2, 1, 1),
      type: 2,
      machine,
      version: 1,
      entry: BigInt(entry),
      phoff: BigInt(ELF64_HEADER.size),
      ehsize: ELF64_HEADER.size,
      phentsize: ELF64_SEGMENT.size,
      phnum: segments.length,
    },
    file,
  );
  segments.forEach((segment, i) => {
    const at = offsets[i] ?? 0;
    ELF64_SEGMENT.write(
      {
        type: 1,
        flags: 7,
        offset: BigInt(at),
        vaddr: BigInt(segment.vaddr ?? segment.paddr),
        paddr: BigInt(segment.paddr),
        filesz: BigInt(segment.bytes.length),
        memsz: BigInt(segment.memorySize ?? segment.bytes.length),
        align: 4096n,
      },
      file,
      ELF64_HEADER.size + i * ELF64_SEGMENT.size,
    );
    file.set(segment.bytes, at);
  });
  return file;
}

export function elf32(entry: number, segments: readonly TestSegment[], machine = 3): Uint8Array {
  const { total, offsets } = elfLayout(ELF32_HEADER.size, ELF32_SEGMENT.size, segments);
  const file = new Uint8Array(total);
  ELF32_HEADER.write(
    {
      ident: Uint8Array.of(0x7f, 0x45, 0x4c, 0x46, 1, 1, 1),
      type: 2,
      machine,
      version: 1,
      entry,
      phoff: ELF32_HEADER.size,
      ehsize: ELF32_HEADER.size,
      phentsize: ELF32_SEGMENT.size,
      phnum: segments.length,
    },
    file,
  );
  segments.forEach((segment, i) => {
    const at = offsets[i] ?? 0;
    ELF32_SEGMENT.write(
      {
        type: 1,
        offset: at,
        vaddr: segment.vaddr ?? segment.paddr,
        paddr: segment.paddr,
        filesz: segment.bytes.length,
        memsz: segment.memorySize ?? segment.bytes.length,
        flags: 7,
        align: 4096,
      },
      file,
      ELF32_HEADER.size + i * ELF32_SEGMENT.size,
    );
    file.set(segment.bytes, at);
  });
  return file;
}

function elfLayout(
  header: number,
  programHeader: number,
  segments: readonly TestSegment[],
): { total: number; offsets: number[] } {
  let at = header + segments.length * programHeader;
  const offsets = segments.map((segment) => {
    const offset = at;
    at += segment.bytes.length;
    return offset;
  });
  return { total: at, offsets };
}

/** A multiboot header; with `addresses` flag 16 is to be set as well. */
export function multibootHeader(
  flags = 0,
  addresses?: ValuesOf<typeof MULTIBOOT_ADDRESSES.fields>,
): Uint8Array {
  const header = new Uint8Array(addresses === undefined ? MULTIBOOT_HEADER.size : MULTIBOOT_ADDRESSES.size);
  MULTIBOOT_HEADER.write(
    { magic: MULTIBOOT_HEADER_MAGIC, flags, checksum: -(MULTIBOOT_HEADER_MAGIC + flags) >>> 0 },
    header,
  );
  if (addresses !== undefined) MULTIBOOT_ADDRESSES.write(addresses, header);
  return header;
}

/** A multiboot ELF of one segment at `paddr` that begins with its header; the entry follows the header. */
export function multibootElf(paddr = 0x100000, length = 0x2000, flags = 0): Uint8Array {
  const contents = new Uint8Array(length).fill(0x90);
  contents.set(multibootHeader(flags));
  return elf32(paddr + 12, [{ paddr, bytes: contents, memorySize: length + 0x1000 }]);
}
