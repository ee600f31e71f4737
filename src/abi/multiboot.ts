/** Multiboot Specification 0.6.96, sections 3.1 (header) and 3.3 (boot information). */
import { record } from './record.ts';

const HEADER_SECTION = 'Multiboot Specification 0.6.96, 3.1.1';
const INFO_SECTION = 'Multiboot Specification 0.6.96, 3.3';

export const MULTIBOOT_HEADER = record('multiboot_header', HEADER_SECTION, 12, [
  { name: 'magic', offset: 0, width: 4 },
  { name: 'flags', offset: 4, width: 4 },
  { name: 'checksum', offset: 8, width: 4 },
]);

/** Follows the header when flag 16 is set: the "a.out kludge". */
export const MULTIBOOT_ADDRESSES = record('multiboot_header (address fields)', HEADER_SECTION, 32, [
  { name: 'headerAddr', offset: 12, width: 4 },
  { name: 'loadAddr', offset: 16, width: 4 },
  { name: 'loadEndAddr', offset: 20, width: 4 },
  { name: 'bssEndAddr', offset: 24, width: 4 },
  { name: 'entryAddr', offset: 28, width: 4 },
]);

export const MULTIBOOT_INFO = record('multiboot_info', INFO_SECTION, 88, [
  { name: 'flags', offset: 0, width: 4 },
  { name: 'memLower', offset: 4, width: 4 },
  { name: 'memUpper', offset: 8, width: 4 },
  { name: 'bootDevice', offset: 12, width: 4 },
  { name: 'cmdline', offset: 16, width: 4 },
  { name: 'modsCount', offset: 20, width: 4 },
  { name: 'modsAddr', offset: 24, width: 4 },
  { name: 'syms', offset: 28, width: 16, bytes: true },
  { name: 'mmapLength', offset: 44, width: 4 },
  { name: 'mmapAddr', offset: 48, width: 4 },
  { name: 'drivesLength', offset: 52, width: 4 },
  { name: 'drivesAddr', offset: 56, width: 4 },
  { name: 'configTable', offset: 60, width: 4 },
  { name: 'bootLoaderName', offset: 64, width: 4 },
  { name: 'apmTable', offset: 68, width: 4 },
  { name: 'vbe', offset: 72, width: 16, bytes: true },
]);

export const MULTIBOOT_MODULE = record('multiboot module', INFO_SECTION, 16, [
  { name: 'start', offset: 0, width: 4 },
  { name: 'end', offset: 4, width: 4 },
  { name: 'string', offset: 8, width: 4 },
  { name: 'reserved', offset: 12, width: 4 },
]);

/** `size` does not count itself. */
export const MULTIBOOT_MMAP_ENTRY = record('multiboot mmap entry', INFO_SECTION, 24, [
  { name: 'size', offset: 0, width: 4 },
  { name: 'address', offset: 4, width: 8 },
  { name: 'length', offset: 12, width: 8 },
  { name: 'type', offset: 20, width: 4 },
]);

export const MULTIBOOT_HEADER_MAGIC = 0x1badb002;
/** In EAX at entry. */
export const MULTIBOOT_BOOTLOADER_MAGIC = 0x2badb002;
/** The header lies wholly in this many bytes of the file, on a 4-byte boundary. */
export const MULTIBOOT_SEARCH = 8192;

export const MULTIBOOT_HEADER_FLAG = {
  alignModules: 1 << 0,
  memoryInfo: 1 << 1,
  videoMode: 1 << 2,
  addresses: 1 << 16,
} as const;
/** A set bit that a loader does not know among these makes it refuse the image. */
export const MULTIBOOT_REQUIRED_MASK = 0xffff;

export const MULTIBOOT_INFO_FLAG = {
  memory: 1 << 0,
  cmdline: 1 << 2,
  modules: 1 << 3,
  mmap: 1 << 6,
  bootLoaderName: 1 << 9,
} as const;
