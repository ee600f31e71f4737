/**
 * struct boot_params, the "zero page" that a Linux boot loader hands over, and the setup header inside it.
 * Linux Documentation/arch/x86/boot.rst (protocol 2.15) and zero-page.rst.
 */
import { record } from './record.ts';

const BOOT_RST = 'Linux Documentation/arch/x86/boot.rst, "Details of Header Fields"';
const ZERO_PAGE_RST = 'Linux Documentation/arch/x86/zero-page.rst';

/** Where the setup header starts, in a bzImage as in the zero page. */
export const SETUP_HEADER_OFFSET = 0x1f1;

/** Offsets are those of the file and of the zero page, so this is read and written at 0. */
export const SETUP_HEADER = record('setup_header', BOOT_RST, 0x270, [
  { name: 'setupSects', offset: 0x1f1, width: 1 },
  { name: 'rootFlags', offset: 0x1f2, width: 2 },
  { name: 'sysSize', offset: 0x1f4, width: 4 },
  { name: 'ramSize', offset: 0x1f8, width: 2 },
  { name: 'vidMode', offset: 0x1fa, width: 2 },
  { name: 'rootDev', offset: 0x1fc, width: 2 },
  { name: 'bootFlag', offset: 0x1fe, width: 2 },
  { name: 'jump', offset: 0x200, width: 2 },
  { name: 'header', offset: 0x202, width: 4 },
  { name: 'version', offset: 0x206, width: 2 },
  { name: 'realmodeSwitch', offset: 0x208, width: 4 },
  { name: 'startSysSeg', offset: 0x20c, width: 2 },
  { name: 'kernelVersion', offset: 0x20e, width: 2 },
  { name: 'typeOfLoader', offset: 0x210, width: 1 },
  { name: 'loadFlags', offset: 0x211, width: 1 },
  { name: 'setupMoveSize', offset: 0x212, width: 2 },
  { name: 'code32Start', offset: 0x214, width: 4 },
  { name: 'ramdiskImage', offset: 0x218, width: 4 },
  { name: 'ramdiskSize', offset: 0x21c, width: 4 },
  { name: 'bootsectKludge', offset: 0x220, width: 4 },
  { name: 'heapEndPtr', offset: 0x224, width: 2 },
  { name: 'extLoaderVer', offset: 0x226, width: 1 },
  { name: 'extLoaderType', offset: 0x227, width: 1 },
  { name: 'cmdLinePtr', offset: 0x228, width: 4 },
  { name: 'initrdAddrMax', offset: 0x22c, width: 4 },
  { name: 'kernelAlignment', offset: 0x230, width: 4 },
  { name: 'relocatableKernel', offset: 0x234, width: 1 },
  { name: 'minAlignment', offset: 0x235, width: 1 },
  { name: 'xloadFlags', offset: 0x236, width: 2 },
  { name: 'cmdlineSize', offset: 0x238, width: 4 },
  { name: 'hardwareSubarch', offset: 0x23c, width: 4 },
  { name: 'hardwareSubarchData', offset: 0x240, width: 8 },
  { name: 'payloadOffset', offset: 0x248, width: 4 },
  { name: 'payloadLength', offset: 0x24c, width: 4 },
  { name: 'setupData', offset: 0x250, width: 8 },
  { name: 'prefAddress', offset: 0x258, width: 8 },
  { name: 'initSize', offset: 0x260, width: 4 },
  { name: 'handoverOffset', offset: 0x264, width: 4 },
  { name: 'kernelInfoOffset', offset: 0x268, width: 4 },
]);

/** The fields of the zero page around the setup header that a loader without EFI and without a display fills. */
export const ZERO_PAGE = record('boot_params', ZERO_PAGE_RST, 0x1000, [
  { name: 'screenInfo', offset: 0x000, width: 0x40, bytes: true },
  { name: 'acpiRsdpAddr', offset: 0x070, width: 8 },
  { name: 'extRamdiskImage', offset: 0x0c0, width: 4 },
  { name: 'extRamdiskSize', offset: 0x0c4, width: 4 },
  { name: 'extCmdLinePtr', offset: 0x0c8, width: 4 },
  { name: 'ccBlobAddress', offset: 0x13c, width: 4 },
  { name: 'efiInfo', offset: 0x1c0, width: 0x20, bytes: true },
  { name: 'altMemK', offset: 0x1e0, width: 4 },
  { name: 'e820Entries', offset: 0x1e8, width: 1 },
  { name: 'sentinel', offset: 0x1ef, width: 1 },
  { name: 'e820Table', offset: 0x2d0, width: 128 * 20, bytes: true },
]);

export const E820_ENTRY = record('boot_e820_entry', ZERO_PAGE_RST, 20, [
  { name: 'address', offset: 0, width: 8 },
  { name: 'size', offset: 8, width: 8 },
  { name: 'type', offset: 16, width: 4 },
]);

export const E820_MAX_ENTRIES = 128;

/** ACPI Specification 6.5, table 15.2 "Address Range Types". */
export const E820_TYPE = { ram: 1, reserved: 2, acpi: 3, nvs: 4, unusable: 5 } as const;

/** Head of a node of the setup_data list; the payload follows it. */
export const SETUP_DATA = record('setup_data', `${BOOT_RST}, setup_data`, 16, [
  { name: 'next', offset: 0, width: 8 },
  { name: 'type', offset: 8, width: 4 },
  { name: 'length', offset: 12, width: 4 },
]);

/** Linux arch/x86/include/uapi/asm/setup_data.h. */
export const SETUP_DATA_TYPE = { ccBlob: 7, rngSeed: 9 } as const;

export const BOOT_FLAG = 0xaa55;
/** "HdrS". */
export const HEADER_MAGIC = 0x53726448;
/** 2.12: the first protocol with xloadflags. */
export const LEAST_VERSION = 0x020c;
export const LOADED_HIGH = 1;
export const XLOADFLAG = { kernel64: 1, above4G: 2 } as const;
/** type_of_loader of a boot loader without an assigned number. */
export const LOADER_UNDEFINED = 0xff;
/** Offset of the 64-bit entry in the loaded kernel. */
export const ENTRY64_OFFSET = 0x200;
export const SECTOR = 512;
