/**
 * Where RAM, MMIO and the fixed structures of a Hyper-V Generation 2 guest with direct boot lie.
 *
 *   0x00000000  RAM: entry structures, then the kernel's trampolines
 *   0x000a0000  reserved, but backed by RAM: Linux without EFI reads here (RSDP at 0xe0000)
 *   0x00100000  ACPI tables; before them a small kernel that can lie nowhere else
 *   0x00200000  RAM: kernel and initrd
 *   0xf8000000  MMIO: VMBus window, IO-APIC, TPM, local APIC
 *   0x100000000 RAM that did not fit below, then the high MMIO window
 */
import { E820_TYPE } from '../abi/boot-params.ts';
import { PAGE, type RegionDirective } from './directives.ts';
import { fail, size, type Failure } from './outcome.ts';
import { roundUp } from './image.ts';

export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;

/** Low memory: what the entry state points to. */
export const LOW = {
  gdt: 0x1000,
  bootParams: 0x2000,
  commandLine: 0x3000,
  pageTables: 0x4000,
  /** Behind the page tables for 4 GiB. */
  setupData: 0xa000,
} as const;

export const LEGACY_HOLE = 0xa0000;
export const RSDP_ADDRESS = 0xe0000;
export const ACPI_BASE = 1 * MIB;
export const ACPI_END = 2 * MIB;
export const LOW_MMIO = 0xf800_0000;
export const HIGH_RAM = 4 * GIB;
export const HIGH_MMIO_LENGTH = 512 * MIB;
export const IO_APIC_ADDRESS = 0xfec0_0000;
export const LOCAL_APIC_ADDRESS = 0xfee0_0000;

/** Guest RAM that the machine can hold in its one memory. */
export const MOST_MEMORY = 3.5 * GIB;
/** ACPI tables, and something to load a kernel into. */
export const LEAST_MEMORY = 16 * MIB;

/** APIC ids 0 to 254; 255 is the broadcast of xAPIC mode. */
export const MOST_VPS = 255;

export function checkVpCount(vpCount: number): { readonly ok: true } | Failure {
  if (Number.isInteger(vpCount) && vpCount >= 1 && vpCount <= MOST_VPS) return { ok: true };
  return fail(`${vpCount} is no number of processors`, 'processors', `give 1 to ${MOST_VPS}`);
}

export interface MapEntry {
  readonly gpa: number;
  readonly length: number;
  /** As in e820: `E820_TYPE`. */
  readonly type: number;
}

export interface MemoryRange {
  readonly gpa: number;
  readonly length: number;
}

export interface MemoryMap {
  /** RAM as the host provides it. */
  readonly regions: readonly RegionDirective[];
  /** What the guest is told, ascending. */
  readonly e820: readonly MapEntry[];
  /** First address after the RAM below 4 GiB. */
  readonly lowEnd: number;
  /** Windows that VMBus may hand out. */
  readonly lowMmio: MemoryRange;
  readonly highMmio: MemoryRange;
}

/**
 * `reserved`: bytes behind the ACPI tables that are backed by RAM and are not the kernel's. `tables`: where the ACPI tables begin;
 * what lies between ACPI_BASE and them is RAM.
 */
export function memoryMap(
  memoryBytes: number,
  most: number = MOST_MEMORY,
  reserved = 0,
  reservedType: number = E820_TYPE.reserved,
  tables: number = ACPI_BASE,
): { readonly ok: true; readonly map: MemoryMap } | Failure {
  if (!Number.isSafeInteger(memoryBytes) || memoryBytes < 0) {
    return fail(`a memory size of ${memoryBytes} bytes is no size`, 'memory', 'give a whole number of MiB');
  }
  if (memoryBytes % PAGE !== 0) {
    return fail(`${memoryBytes} bytes are not whole pages`, 'memory', 'give a whole number of MiB');
  }
  if (memoryBytes < LEAST_MEMORY) {
    return fail(
      `${size(memoryBytes)} of memory are too little`,
      'memory',
      `give at least ${size(LEAST_MEMORY)}`,
    );
  }
  if (memoryBytes > most) {
    return fail(`${size(memoryBytes)} of memory are too much`, 'memory', `give at most ${size(most)}`);
  }
  const lowEnd = Math.min(memoryBytes, LOW_MMIO);
  const high = memoryBytes - lowEnd;
  const regions: RegionDirective[] = [{ kind: 'region', gpa: 0, length: lowEnd, backing: 'ram' }];
  const e820: MapEntry[] = [
    { gpa: 0, length: LEGACY_HOLE, type: E820_TYPE.ram },
    { gpa: LEGACY_HOLE, length: ACPI_BASE - LEGACY_HOLE, type: E820_TYPE.reserved },
    ...(tables === ACPI_BASE ? [] : [{ gpa: ACPI_BASE, length: tables - ACPI_BASE, type: E820_TYPE.ram }]),
    { gpa: tables, length: ACPI_END - tables, type: E820_TYPE.acpi },
    ...(reserved === 0 ? [] : [{ gpa: ACPI_END, length: reserved, type: reservedType }]),
    { gpa: ACPI_END + reserved, length: lowEnd - ACPI_END - reserved, type: E820_TYPE.ram },
  ];
  if (high > 0) {
    regions.push({ kind: 'region', gpa: HIGH_RAM, length: high, backing: 'ram' });
    e820.push({ gpa: HIGH_RAM, length: high, type: E820_TYPE.ram });
  }
  return {
    ok: true,
    map: {
      regions,
      e820,
      lowEnd,
      lowMmio: { gpa: LOW_MMIO, length: 4 * GIB - LOW_MMIO },
      highMmio: { gpa: roundUp(HIGH_RAM + high, 2 * MIB), length: HIGH_MMIO_LENGTH },
    },
  };
}
