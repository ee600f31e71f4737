/** Structures of an SNP launch (AMD 56860, 8.16 to 8.18). */
import { record } from '../record.ts';

/** What one page adds to the launch digest. */
export const pageInfo = record('PAGE_INFO', 'AMD 56860, SNP_LAUNCH_UPDATE', 0x70, [
  { name: 'digest', offset: 0, width: 48, bytes: true },
  { name: 'contents', offset: 0x30, width: 48, bytes: true },
  { name: 'length', offset: 0x60, width: 2 },
  { name: 'type', offset: 0x62, width: 1 },
  /** Bit 0: part of the initial migration image. */
  { name: 'imi', offset: 0x63, width: 1 },
  { name: 'vmpl1', offset: 0x65, width: 1 },
  { name: 'vmpl2', offset: 0x66, width: 1 },
  { name: 'vmpl3', offset: 0x67, width: 1 },
  { name: 'gpa', offset: 0x68, width: 8 },
]);

export const idBlock = record('ID block', 'AMD 56860, SNP_LAUNCH_FINISH', 0x60, [
  { name: 'digest', offset: 0, width: 48, bytes: true },
  { name: 'familyId', offset: 0x30, width: 16, bytes: true },
  { name: 'imageId', offset: 0x40, width: 16, bytes: true },
  { name: 'version', offset: 0x50, width: 4 },
  { name: 'guestSvn', offset: 0x54, width: 4 },
  { name: 'policy', offset: 0x58, width: 8 },
]);

/** Keys and signatures as in `report.ts`. */
export const idAuth = record('ID authentication', 'AMD 56860, SNP_LAUNCH_FINISH', 0x1000, [
  { name: 'idKeyAlgorithm', offset: 0, width: 4 },
  { name: 'authorKeyAlgorithm', offset: 4, width: 4 },
  { name: 'idBlockSignature', offset: 0x40, width: 0x200, bytes: true },
  { name: 'idKey', offset: 0x240, width: 0x404, bytes: true },
  { name: 'idKeySignature', offset: 0x680, width: 0x200, bytes: true },
  { name: 'authorKey', offset: 0x880, width: 0x404, bytes: true },
]);

/** From 0xA0 to 0x100 and from 0x140 to 0x160 it is the guest's (GHCB specification 2.7, SVSM specification 5). */
export const secretsPage = record('secrets page', 'AMD 56860, PAGE_TYPE_SECRETS', 0x1000, [
  { name: 'version', offset: 0, width: 4 },
  { name: 'flags', offset: 4, width: 4 },
  /** CPUID function 1 EAX. */
  { name: 'fms', offset: 8, width: 4 },
  { name: 'gosvw', offset: 0x10, width: 16, bytes: true },
  { name: 'vmpck0', offset: 0x20, width: 32, bytes: true },
  { name: 'vmpck1', offset: 0x40, width: 32, bytes: true },
  { name: 'vmpck2', offset: 0x60, width: 32, bytes: true },
  { name: 'vmpck3', offset: 0x80, width: 32, bytes: true },
  { name: 'messageSequence0', offset: 0xa0, width: 4 },
  { name: 'messageSequence1', offset: 0xa4, width: 4 },
  { name: 'messageSequence2', offset: 0xa8, width: 4 },
  { name: 'messageSequence3', offset: 0xac, width: 4 },
  { name: 'vmsaTweakBitmap', offset: 0x100, width: 64, bytes: true },
  { name: 'svsmBase', offset: 0x140, width: 8 },
  { name: 'svsmSize', offset: 0x148, width: 8 },
  { name: 'svsmCaa', offset: 0x150, width: 8 },
  { name: 'svsmMaxVersion', offset: 0x158, width: 4 },
  { name: 'svsmGuestVmpl', offset: 0x15c, width: 1 },
  { name: 'tscFactor', offset: 0x160, width: 4 },
]);
export const SECRETS_VERSION = 3;
export const VMPCK_SIZE = 32;

/** Functions follow. */
export const cpuidPage = record('CPUID page', 'AMD 56860, PAGE_TYPE_CPUID', 0x10, [
  { name: 'count', offset: 0, width: 4 },
  { name: 'reserved4', offset: 4, width: 4 },
  { name: 'reserved8', offset: 8, width: 8 },
]);
export const cpuidFunction = record('CPUID_FUNCTION', 'AMD 56860, 7.1 CPUID Reporting', 0x30, [
  { name: 'eaxIn', offset: 0, width: 4 },
  { name: 'ecxIn', offset: 4, width: 4 },
  { name: 'xcr0In', offset: 8, width: 8 },
  { name: 'xssIn', offset: 0x10, width: 8 },
  { name: 'eax', offset: 0x18, width: 4 },
  { name: 'ebx', offset: 0x1c, width: 4 },
  { name: 'ecx', offset: 0x20, width: 4 },
  { name: 'edx', offset: 0x24, width: 4 },
  { name: 'reserved', offset: 0x28, width: 8 },
]);
export const CPUID_FUNCTIONS = 64;

/** Fields of a VMSA that the firmware leaves out of the measurement. */
export const VMSA_TSC = { scale: 0x2f0, offset: 0x2f8 } as const;
