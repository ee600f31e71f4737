/**
 * Multiboot 1 images on the bare test board: ELF32 executables as kvm-unit-tests has them, or flat images with
 * address fields. Multiboot Specification 0.6.96.
 */
import * as abi from '../abi/multiboot.ts';
import { E820_TYPE } from '../abi/boot-params.ts';
import { ascii, concat } from '../abi/bytes.ts';
import { u32 } from '../abi/record.ts';
import { commandLineBytes } from './boot-params.ts';
import { checkDirectives, PAGE, type Directive, type RegionDirective } from './directives.ts';
import { isElf, parseElf } from './elf.ts';
import { multibootEntry, parkedFrom1 } from './entry-state.ts';
import { pageRuns, roundUp, type Piece } from './image.ts';
import { checkVpCount, GIB, LEGACY_HOLE, MIB, type MapEntry } from './memory-map.ts';
import { fail, hex, size, type Failure } from './outcome.ts';
import { recognise } from './recognise.ts';

export interface MultibootConfig {
  readonly image: Uint8Array;
  /** Begins with the program's name, as GRUB and QEMU pass it. */
  readonly commandLine: string;
  /** Passed as modules, in this order. */
  readonly modules: readonly { readonly bytes: Uint8Array; readonly commandLine: string }[];
  readonly memoryBytes: number;
  readonly vpCount: number;
  /** Pages of the board itself (its ACPI tables), which the image may not touch. */
  readonly boardPieces: readonly Piece[];
}

export interface MultibootLaunch {
  readonly directives: readonly Directive[];
  readonly entry: number;
  /** Address of the boot information. */
  readonly info: number;
  readonly e820: readonly MapEntry[];
}

export type MultibootOutcome = { readonly ok: true; readonly launch: MultibootLaunch } | Failure;

const MOST_MEMORY = 3.5 * GIB;
const LEAST_MEMORY = 2 * MIB;
const MOST_MODULES = 32;
const MOST_LINE = 4095;
const LOADER_NAME = 'Vitrine';
/** The boot information goes here when the image leaves the place free; page 0 to 8 is where programs start APs. */
const LOW_INFO = 0x9000;

interface Loaded {
  readonly ok: true;
  readonly pieces: readonly Piece[];
  readonly entry: number;
  /** Memory that the image takes, zeros included. */
  readonly start: number;
  readonly end: number;
}

export function launchMultiboot(config: MultibootConfig): MultibootOutcome {
  const { memoryBytes } = config;
  const fits = Number.isSafeInteger(memoryBytes) && memoryBytes % PAGE === 0;
  if (!fits || memoryBytes < LEAST_MEMORY || memoryBytes > MOST_MEMORY) {
    return fail(
      `a memory size of ${memoryBytes} bytes does not work`,
      'memory',
      `give whole MiB from ${size(LEAST_MEMORY)} to ${size(MOST_MEMORY)}`,
    );
  }
  const counted = checkVpCount(config.vpCount);
  if (!counted.ok) return counted;
  if (config.modules.length > MOST_MODULES) {
    return fail(`${config.modules.length} modules are too many`, 'modules', `give at most ${MOST_MODULES}`);
  }
  const header = findHeader(config.image);
  if (!header.ok) return header;
  const loaded = load(config.image, header);
  if (!loaded.ok) return loaded;
  if (loaded.end > memoryBytes) {
    return fail(
      `the image needs memory up to ${size(loaded.end)} and there are ${size(memoryBytes)}`,
      'kernel',
      'give the VM more memory',
    );
  }

  const taken: readonly Range[] = [
    { start: loaded.start, end: loaded.end },
    ...config.boardPieces.map((piece) => ({ start: piece.gpa, end: piece.gpa + piece.bytes.length })),
  ];
  const overlapped = taken.slice(1).some((range) => overlap(range, { start: loaded.start, end: loaded.end }));
  if (overlapped) {
    return fail('the image lies where the board has its tables', 'kernel', 'link it to 1 MiB or above');
  }
  const pieces: Piece[] = [...loaded.pieces, ...config.boardPieces];
  // Modules lie page by page above everything else, as flag 0 of the header asks.
  let next = roundUp(Math.max(MIB, ...taken.map(({ end }) => end)));
  const modules: { start: number; end: number; line: Uint8Array }[] = [];
  for (const [i, module] of config.modules.entries()) {
    const line = commandLineBytes(module.commandLine, MOST_LINE);
    if (!line.ok) return line;
    const end = next + module.bytes.length;
    if (end > memoryBytes) {
      return fail(
        `module ${i + 1} of ${size(module.bytes.length)} does not fit into ${size(memoryBytes)} of memory`,
        'modules',
        'give the VM more memory',
      );
    }
    pieces.push({ name: `module ${i + 1}`, gpa: next, bytes: module.bytes });
    modules.push({ start: next, end, line: line.bytes });
    next = roundUp(end);
  }

  const line = commandLineBytes(config.commandLine, MOST_LINE);
  if (!line.ok) return line;
  const e820 = boardMap(memoryBytes);
  const room = bootInformation({ at: 0, line: line.bytes, modules, e820, memoryBytes }).length;
  const low = { start: LOW_INFO, end: LOW_INFO + room };
  const lowFree = low.end <= LEGACY_HOLE && !taken.some((range) => overlap(range, low));
  const info = lowFree ? LOW_INFO : next;
  if (info + room > memoryBytes) {
    return fail(`${size(memoryBytes)} of memory are too little for the image`, 'memory', 'give more');
  }
  pieces.push({
    name: 'boot information',
    gpa: info,
    bytes: bootInformation({ at: info, line: line.bytes, modules, e820, memoryBytes }),
  });

  const runs = pageRuns(pieces);
  if (!runs.ok) {
    return fail(
      `${runs.first.name} reaches into ${runs.second.name} at ${hex(runs.second.gpa)}`,
      'kernel',
      'give an image that is linked elsewhere',
    );
  }
  const region: RegionDirective = { kind: 'region', gpa: 0, length: memoryBytes, backing: 'ram' };
  const directives: Directive[] = [
    region,
    ...runs.pages,
    {
      kind: 'context',
      vp: 0,
      activity: 'running',
      registers: multibootEntry({ eip: loaded.entry, magic: abi.MULTIBOOT_BOOTLOADER_MAGIC, info }),
    },
    ...parkedFrom1(config.vpCount),
  ];
  const checked = checkDirectives(directives);
  if (!checked.ok) return checked;
  return { ok: true, launch: { directives, entry: loaded.entry, info, e820 } };
}

interface Range {
  readonly start: number;
  readonly end: number;
}

function overlap(a: Range, b: Range): boolean {
  return a.start < b.end && b.start < a.end;
}

/** A PC's memory: 640 KiB below the VGA window, the rest from 1 MiB on. */
function boardMap(memoryBytes: number): MapEntry[] {
  return [
    { gpa: 0, length: LEGACY_HOLE, type: E820_TYPE.ram },
    { gpa: LEGACY_HOLE, length: MIB - LEGACY_HOLE, type: E820_TYPE.reserved },
    { gpa: MIB, length: memoryBytes - MIB, type: E820_TYPE.ram },
  ];
}

interface Header {
  readonly ok: true;
  readonly at: number;
  readonly flags: number;
}

function findHeader(image: Uint8Array): Header | Failure {
  if (image.length === 0) return fail('the kernel is empty', 'kernel', 'give a multiboot image');
  const end = Math.min(image.length, abi.MULTIBOOT_SEARCH) - abi.MULTIBOOT_HEADER.size;
  for (let at = 0; at <= end; at += 4) {
    if (u32(image, at) !== abi.MULTIBOOT_HEADER_MAGIC) continue;
    const { flags, checksum } = abi.MULTIBOOT_HEADER.read(image, at);
    if ((abi.MULTIBOOT_HEADER_MAGIC + flags + checksum) >>> 0 !== 0) continue;
    const { alignModules, memoryInfo } = abi.MULTIBOOT_HEADER_FLAG;
    const unknown = flags & abi.MULTIBOOT_REQUIRED_MASK & ~(alignModules | memoryInfo);
    if (unknown !== 0) {
      return fail(
        `the multiboot header asks for features ${hex(unknown)}`,
        `kernel, byte ${hex(at + 4)}`,
        'give an image that needs only aligned modules and memory information',
      );
    }
    return { ok: true, at, flags };
  }
  const known = isElf(image) ? undefined : recognise(image);
  if (known !== undefined) {
    return fail(`the kernel is ${known.what}`, `kernel, ${known.where}`, 'give a multiboot image');
  }
  return fail(
    'the kernel has no multiboot header',
    `kernel, first ${abi.MULTIBOOT_SEARCH} bytes`,
    'give a multiboot image',
  );
}

function load(image: Uint8Array, header: Header): Loaded | Failure {
  if ((header.flags & abi.MULTIBOOT_HEADER_FLAG.addresses) !== 0) return loadByAddresses(image, header.at);
  if (!isElf(image)) {
    return fail(
      'the multiboot image is neither ELF nor has address fields',
      `kernel, byte ${hex(header.at + 4)}`,
      'set flag 16 in its header',
    );
  }
  const elf = parseElf(image, 32);
  if (!elf.ok) return elf;
  const { segments, entry, start, end } = elf.image;
  const pieces = segments.map((segment, i) => ({
    name: `segment ${i + 1}`,
    gpa: segment.paddr,
    bytes: segment.bytes,
  }));
  return { ok: true, pieces, entry, start, end };
}

/** 3.1.3 "The address fields of Multiboot header". */
function loadByAddresses(image: Uint8Array, at: number): Loaded | Failure {
  const bad = (what: string): Failure => fail(what, `kernel, byte ${hex(at + 12)}`, 'build the image again');
  if (!abi.MULTIBOOT_ADDRESSES.fits(image, at)) return bad('the multiboot header is cut off');
  const { headerAddr, loadAddr, loadEndAddr, bssEndAddr, entryAddr } = abi.MULTIBOOT_ADDRESSES.read(
    image,
    at,
  );
  if (loadAddr > headerAddr) return bad('the multiboot header is loaded before the image begins');
  const offset = at - (headerAddr - loadAddr);
  if (offset < 0) return bad('the image begins before its file does');
  const fileEnd = loadAddr + (image.length - offset);
  const loadEnd = loadEndAddr === 0 ? fileEnd : loadEndAddr;
  if (loadEnd > fileEnd) return bad('the file ends before the image does');
  if (loadEnd <= headerAddr) return bad('the image ends before its header');
  const end = bssEndAddr === 0 ? loadEnd : bssEndAddr;
  if (end < loadEnd) return bad('the zeroed part ends before the loaded part');
  if (entryAddr < loadAddr || entryAddr >= loadEnd) return bad('the entry point lies outside the image');
  const piece = { name: 'image', gpa: loadAddr, bytes: image.subarray(offset, offset + loadEnd - loadAddr) };
  return { ok: true, pieces: [piece], entry: entryAddr, start: loadAddr, end };
}

/** The information structure, then the lists and strings it points to, in one piece at `at`. */
function bootInformation(values: {
  readonly at: number;
  readonly line: Uint8Array;
  readonly modules: readonly { readonly start: number; readonly end: number; readonly line: Uint8Array }[];
  readonly e820: readonly MapEntry[];
  readonly memoryBytes: number;
}): Uint8Array {
  const { at, modules, e820 } = values;
  const modulesAt = at + abi.MULTIBOOT_INFO.size;
  const mmapAt = modulesAt + modules.length * abi.MULTIBOOT_MODULE.size;
  const mmapLength = e820.length * abi.MULTIBOOT_MMAP_ENTRY.size;
  const nameAt = mmapAt + mmapLength;
  const name = concat(ascii(LOADER_NAME), 0);
  const lineAt = nameAt + name.length;
  let moduleLineAt = lineAt + values.line.length;

  const flag = abi.MULTIBOOT_INFO_FLAG;
  const info = abi.MULTIBOOT_INFO.write({
    flags: flag.memory | flag.cmdline | flag.modules | flag.mmap | flag.bootLoaderName,
    memLower: LEGACY_HOLE / 1024,
    memUpper: (values.memoryBytes - MIB) / 1024,
    cmdline: lineAt,
    modsCount: modules.length,
    modsAddr: modulesAt,
    mmapLength,
    mmapAddr: mmapAt,
    bootLoaderName: nameAt,
  });
  const moduleList = modules.map(({ start, end, line }) => {
    const entry = abi.MULTIBOOT_MODULE.write({ start, end, string: moduleLineAt });
    moduleLineAt += line.length;
    return entry;
  });
  const mmap = e820.map(({ gpa, length, type }) =>
    abi.MULTIBOOT_MMAP_ENTRY.write({
      size: abi.MULTIBOOT_MMAP_ENTRY.size - 4,
      address: BigInt(gpa),
      length: BigInt(length),
      type,
    }),
  );
  return concat(info, ...moduleList, ...mmap, name, values.line, ...modules.map(({ line }) => line));
}
