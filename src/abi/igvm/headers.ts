/** Structures of the IGVM file format (github.com/microsoft/igvm, igvm_defs, version 0.4). Little-endian. */
import { record } from '../record.ts';

const SOURCE = 'igvm_defs 0.4';

export const MAGIC = 0x4d564749;

export const fixedHeader = record('IGVM_FIXED_HEADER', SOURCE, 24, [
  { name: 'magic', offset: 0, width: 4 },
  { name: 'version', offset: 4, width: 4 },
  { name: 'headersOffset', offset: 8, width: 4 },
  { name: 'headersSize', offset: 12, width: 4 },
  { name: 'fileSize', offset: 16, width: 4 },
  /** CRC-32 of fixed and variable headers with this field as zero. */
  { name: 'checksum', offset: 20, width: 4 },
]);
/** What version 2 adds. */
export const fixedHeader2 = record('IGVM_FIXED_HEADER_V2', SOURCE, 32, [
  ...fixedHeader.fields,
  { name: 'architecture', offset: 24, width: 4 },
  { name: 'pageSize', offset: 28, width: 4 },
]);
export const ARCHITECTURE_X64 = 0;

/** Before each structure; the next one begins at a multiple of 8. */
export const variableHeader = record('IGVM_VHS_VARIABLE_HEADER', SOURCE, 8, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'length', offset: 4, width: 4 },
]);
/** A loader that does not know the type may ignore the structure. */
export const OPTIONAL = 0x8000_0000;

export const HEADER = {
  supportedPlatform: 0x1,
  guestPolicy: 0x101,
  relocatableRegion: 0x102,
  pageTableRelocation: 0x103,
  corimDocument: 0x104,
  corimSignature: 0x105,
  ccaPolicy: 0x106,
  parameterArea: 0x301,
  pageData: 0x302,
  parameterInsert: 0x303,
  vpContext: 0x304,
  requiredMemory: 0x305,
  vpCount: 0x307,
  srat: 0x308,
  madt: 0x309,
  mmioRanges: 0x30a,
  snpIdBlock: 0x30b,
  memoryMap: 0x30c,
  errorRange: 0x30d,
  commandLine: 0x30e,
  slit: 0x30f,
  pptt: 0x310,
  vbsMeasurement: 0x311,
  deviceTree: 0x312,
  environment: 0x313,
} as const;

/** Types come in this order: platforms, initialization, directives. */
export const SECTIONS = [
  [0x1, 0x100],
  [0x101, 0x200],
  [0x301, 0x400],
] as const;

export const PLATFORM = { native: 0, vsm: 1, snp: 2, tdx: 3, sev: 4, sevEs: 5, cca: 6 } as const;

export const supportedPlatform = record('IGVM_VHS_SUPPORTED_PLATFORM', SOURCE, 16, [
  /** One bit, which stands for the platform in all other structures. */
  { name: 'mask', offset: 0, width: 4 },
  { name: 'highestVtl', offset: 4, width: 1 },
  { name: 'platform', offset: 5, width: 1 },
  { name: 'platformVersion', offset: 6, width: 2 },
  { name: 'sharedGpaBoundary', offset: 8, width: 8 },
]);

export const guestPolicy = record('IGVM_VHS_GUEST_POLICY', SOURCE, 16, [
  { name: 'policy', offset: 0, width: 8 },
  { name: 'mask', offset: 8, width: 4 },
]);

export const parameterArea = record('IGVM_VHS_PARAMETER_AREA', SOURCE, 16, [
  { name: 'size', offset: 0, width: 8 },
  { name: 'index', offset: 8, width: 4 },
  /** Initial contents; 0: zeros. */
  { name: 'fileOffset', offset: 12, width: 4 },
]);

export const pageData = record('IGVM_VHS_PAGE_DATA', SOURCE, 24, [
  { name: 'gpa', offset: 0, width: 8 },
  { name: 'mask', offset: 8, width: 4 },
  /** 0: a page of zeros. */
  { name: 'fileOffset', offset: 12, width: 4 },
  { name: 'flags', offset: 16, width: 4 },
  { name: 'type', offset: 20, width: 2 },
]);
export const PAGE_FLAG = { large: 1, unmeasured: 2, shared: 4 } as const;
export const PAGE_DATA = { normal: 0, secrets: 1, cpuid: 2, cpuidExtendedState: 3 } as const;

export const parameterInsert = record('IGVM_VHS_PARAMETER_INSERT', SOURCE, 16, [
  { name: 'gpa', offset: 0, width: 8 },
  { name: 'mask', offset: 8, width: 4 },
  { name: 'index', offset: 12, width: 4 },
]);

/** Structures that say what the host writes into an area. */
export const parameter = record('IGVM_VHS_PARAMETER', SOURCE, 8, [
  { name: 'index', offset: 0, width: 4 },
  { name: 'byteOffset', offset: 4, width: 4 },
]);

export const vpContext = record('IGVM_VHS_VP_CONTEXT', SOURCE, 20, [
  { name: 'gpa', offset: 0, width: 8 },
  { name: 'mask', offset: 8, width: 4 },
  { name: 'fileOffset', offset: 12, width: 4 },
  { name: 'vp', offset: 16, width: 2 },
]);

export const requiredMemory = record('IGVM_VHS_REQUIRED_MEMORY', SOURCE, 24, [
  { name: 'gpa', offset: 0, width: 8 },
  { name: 'mask', offset: 8, width: 4 },
  { name: 'size', offset: 12, width: 4 },
  { name: 'flags', offset: 16, width: 4 },
]);

export const errorRange = record('IGVM_VHS_ERROR_RANGE', SOURCE, 16, [
  { name: 'gpa', offset: 0, width: 8 },
  { name: 'mask', offset: 8, width: 4 },
  { name: 'size', offset: 12, width: 4 },
]);
