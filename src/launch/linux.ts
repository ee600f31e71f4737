/**
 * A Linux kernel that is started directly, without firmware, in a Hyper-V Generation 2 VM: what has to lie where, and how its first
 * processor begins. Configurations make their launch directives from it.
 */
import { acpiTables } from './acpi.ts';
import { bootParams, commandLineBytes, MOST_COMMAND_LINE } from './boot-params.ts';
import { isBzImage, parseBzImage, placeBzImage, type BzImage } from './bzimage.ts';
import { PAGE, type InitialRegisters, type PagesDirective } from './directives.ts';
import { isElf, parseElf, type ElfImage } from './elf.ts';
import { longModeEntry } from './entry-state.ts';
import { pageRuns, roundUp, type Piece } from './image.ts';
import {
  ACPI_BASE,
  ACPI_END,
  checkVpCount,
  GIB,
  KIB,
  LOW,
  memoryMap,
  MIB,
  RSDP_ADDRESS,
  type MemoryMap,
} from './memory-map.ts';
import { fail, hex, size, type Failure } from './outcome.ts';
import { gdt, identityPageTables } from './page-tables.ts';
import { ENTRY64_OFFSET } from '../abi/boot-params.ts';

export interface LinuxConfig {
  /** A bzImage or an x86-64 vmlinux. */
  readonly kernel: Uint8Array;
  readonly initrd?: Uint8Array;
  readonly commandLine: string;
  readonly memoryBytes: number;
  readonly vpCount: number;
  /** UARTs from COM1 on that the ACPI tables announce, at most 4. */
  readonly uarts: number;
  /** 8 to 4096 bytes for the kernel's random generator (OEM0 table). Empty: no table. */
  readonly entropy: Uint8Array;
  /** Overrides the ceiling of the machine, for tests of large memories. */
  readonly mostMemory?: number;
}

export interface LaunchPart {
  readonly name: string;
  readonly gpa: number;
  readonly length: number;
}

export interface LinuxImage {
  readonly map: MemoryMap;
  readonly kernel: { readonly format: 'bzimage' | 'elf'; readonly version: string; readonly entry: number };
  /** What lies where, ascending, for reports. */
  readonly parts: readonly LaunchPart[];
  readonly pages: readonly PagesDirective[];
  /** Of the first processor. */
  readonly registers: InitialRegisters;
}

export type LinuxOutcome = { readonly ok: true; readonly image: LinuxImage } | Failure;

export const MOST_UARTS = 4;
const MAPPED = 4 * GIB;
/** Command line with NUL: one page. */
const COMMAND_LINE_ROOM = PAGE - 1;

/** What a configuration adds to the memory map and the tables. */
export interface LinuxExtras {
  /** E820 type of the reserved bytes. */
  readonly reservedType?: number;
  /** Where parked processors look for their wakeup. */
  readonly wakeupMailbox?: number;
  /** ORed into every page-table entry and CR3: the C-bit. */
  readonly encryption?: bigint;
  /** Address of a chain of setup_data nodes. */
  readonly setupData?: number;
}

/** `reserved`: bytes behind the ACPI tables that the kernel is told to leave alone. */
export function linuxImage(config: LinuxConfig, reserved = 0, extras: LinuxExtras = {}): LinuxOutcome {
  const { encryption = 0n, setupData = 0 } = extras;
  const counts = checkCounts(config);
  if (!counts.ok) return counts;
  const tables = tablesBehind(config.kernel);
  const memory = memoryMap(config.memoryBytes, config.mostMemory, reserved, extras.reservedType, tables);
  if (!memory.ok) return memory;
  const map = memory.map;
  // Below it lie the fixed structures.
  const floor = tables > ACPI_BASE ? ACPI_BASE : ACPI_END + reserved;
  const kernel = loadKernel(config.kernel, floor, map.lowEnd);
  if (!kernel.ok) return kernel;
  const line = commandLineBytes(config.commandLine, Math.min(kernel.commandLineSize, COMMAND_LINE_ROOM));
  if (!line.ok) return line;
  const initrd = placeInitrd(config.initrd, kernel, ACPI_END + reserved, map.lowEnd);
  if (!initrd.ok) return initrd;

  const acpi = acpiTables({
    base: tables,
    limit: ACPI_END,
    apicIds: Array.from({ length: config.vpCount }, (_, i) => i),
    uarts: config.uarts,
    entropy: config.entropy,
    mmio: [map.lowMmio, map.highMmio],
    memory: map.regions,
    ...(extras.wakeupMailbox === undefined ? {} : { wakeupMailbox: extras.wakeupMailbox }),
  });
  const zeroPage = bootParams({
    ...(kernel.header === undefined ? {} : { header: kernel.header }),
    commandLine: LOW.commandLine,
    initrd: initrd.at === undefined ? undefined : { gpa: initrd.at, length: initrd.bytes.length },
    e820: map.e820,
    rsdp: RSDP_ADDRESS,
    setupData,
  });
  const pieces: Piece[] = [
    { name: 'gdt', gpa: LOW.gdt, bytes: gdt() },
    { name: 'boot_params', gpa: LOW.bootParams, bytes: zeroPage },
    { name: 'command line', gpa: LOW.commandLine, bytes: line.bytes },
    {
      name: 'page tables',
      gpa: LOW.pageTables,
      bytes: identityPageTables(LOW.pageTables, MAPPED, encryption),
    },
    { name: 'rsdp', gpa: RSDP_ADDRESS, bytes: acpi.rsdp },
    { name: 'acpi', gpa: tables, bytes: acpi.tables },
    ...kernel.pieces,
    { name: 'initrd', gpa: initrd.at ?? 0, bytes: initrd.bytes },
  ];
  const image = pageRuns(pieces);
  if (!image.ok) {
    return fail(
      `the kernel's ${image.first.name} reaches into ${image.second.name} at ${hex(image.second.gpa)}`,
      'kernel',
      'give a kernel that is linked elsewhere',
    );
  }
  const parts = pieces
    .filter((piece) => piece.bytes.length > 0)
    .map(({ name, gpa, bytes }) => ({ name, gpa, length: bytes.length }))
    .sort((a, b) => a.gpa - b.gpa);
  return {
    ok: true,
    image: {
      map,
      kernel: { format: kernel.format, version: kernel.version, entry: kernel.entry },
      parts,
      pages: image.pages,
      registers: longModeEntry({
        rip: kernel.entry,
        rsi: LOW.bootParams,
        cr3: BigInt(LOW.pageTables) | encryption,
        gdt: LOW.gdt,
      }),
    },
  };
}

function checkCounts(config: LinuxConfig): { readonly ok: true } | Failure {
  const { uarts, entropy } = config;
  const counted = checkVpCount(config.vpCount);
  if (!counted.ok) return counted;
  if (!Number.isInteger(uarts) || uarts < 0 || uarts > MOST_UARTS) {
    return fail(`${uarts} is no number of UARTs`, 'UARTs', `give 0 to ${MOST_UARTS}`);
  }
  // mshyperv.c ms_hyperv_late_init ignores a table outside these bounds.
  if (entropy.length !== 0 && (entropy.length < 8 || entropy.length > 4096)) {
    return fail(`the entropy has ${entropy.length} bytes`, 'entropy', 'give 8 to 4096, or none');
  }
  return { ok: true };
}

interface LoadedKernel {
  readonly ok: true;
  readonly format: 'bzimage' | 'elf';
  readonly version: string;
  readonly pieces: readonly Piece[];
  readonly entry: number;
  /** First address that the kernel does not need before it reads the memory map. */
  readonly end: number;
  readonly header?: Uint8Array;
  readonly commandLineSize: number;
  readonly initrdMax: number;
}

/** What the ACPI tables of most processors, and their entropy, need. */
const TABLES_ROOM = 256 * KIB;

/**
 * Where the ACPI tables begin: at their usual place, or behind a kernel that is small enough and must lie there, as programs do
 * that are loaded by the protocol of Linux and are none (memtest86+).
 */
function tablesBehind(file: Uint8Array): number {
  if (!isBzImage(file)) return ACPI_BASE;
  const parsed = parseBzImage(file);
  if (!parsed.ok || parsed.image.relocatable || parsed.image.prefAddress !== ACPI_BASE) return ACPI_BASE;
  const end = roundUp(ACPI_BASE + parsed.image.initSize, PAGE);
  return end + TABLES_ROOM <= ACPI_END ? end : ACPI_BASE;
}

function loadKernel(file: Uint8Array, floor: number, lowEnd: number): LoadedKernel | Failure {
  if (isElf(file) && !isBzImage(file)) {
    const elf = parseElf(file, 64);
    return elf.ok ? loadElf(elf.image, floor, lowEnd) : elf;
  }
  const parsed = parseBzImage(file);
  return parsed.ok ? loadBzImage(parsed.image, floor, lowEnd) : parsed;
}

function loadBzImage(image: BzImage, floor: number, lowEnd: number): LoadedKernel | Failure {
  const place = placeBzImage(image, floor, lowEnd);
  if (!place.ok) return place;
  return {
    ok: true,
    format: 'bzimage',
    version: image.kernelVersion,
    pieces: [{ name: 'kernel', gpa: place.base, bytes: image.payload }],
    entry: place.base + ENTRY64_OFFSET,
    end: place.base + image.initSize,
    header: image.header,
    commandLineSize: image.commandLineSize,
    initrdMax: image.initrdMax,
  };
}

function loadElf(image: ElfImage, floor: number, lowEnd: number): LoadedKernel | Failure {
  if (image.start < floor) {
    return fail(
      `the kernel must lie at ${hex(image.start)}, where the machine has its tables`,
      'kernel',
      `give one that is linked to ${hex(floor)} or above`,
    );
  }
  if (image.end > lowEnd) {
    return fail(
      `the kernel needs memory up to ${size(image.end)} and there are ${size(lowEnd)}`,
      'kernel',
      `give the VM at least ${size(roundUp(image.end, MIB))}`,
    );
  }
  return {
    ok: true,
    format: 'elf',
    version: '',
    pieces: image.segments.map((segment) => ({
      name: 'kernel',
      gpa: segment.paddr,
      bytes: segment.bytes,
    })),
    entry: image.entry,
    end: image.end,
    commandLineSize: MOST_COMMAND_LINE,
    initrdMax: 0xffff_ffff,
  };
}

type InitrdOutcome =
  { readonly ok: true; readonly at: number | undefined; readonly bytes: Uint8Array } | Failure;

/** The first 2 MiB boundary after the kernel and the fixed structures: what is above stays one piece. */
function placeInitrd(
  initrd: Uint8Array | undefined,
  kernel: LoadedKernel,
  floor: number,
  lowEnd: number,
): InitrdOutcome {
  if (initrd === undefined) return { ok: true, at: undefined, bytes: new Uint8Array(0) };
  if (initrd.length === 0)
    return fail('the initrd is empty', 'initrd', 'leave it out, or give a cpio archive');
  const at = roundUp(Math.max(kernel.end, floor), 2 * MIB);
  const end = at + initrd.length;
  if (end > lowEnd) {
    return fail(
      `the initrd of ${size(initrd.length)} does not fit behind the kernel into ${size(lowEnd)} of memory`,
      'initrd',
      `give the VM at least ${size(roundUp(end, MIB))}`,
    );
  }
  if (end - 1 > kernel.initrdMax) {
    return fail(
      `the initrd of ${size(initrd.length)} would end above ${hex(kernel.initrdMax)}, this kernel's limit`,
      'initrd',
      'give a smaller one',
    );
  }
  return { ok: true, at, bytes: initrd };
}
