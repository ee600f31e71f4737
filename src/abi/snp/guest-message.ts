/** Messages between a guest and the firmware (AMD 56860, chapters 7 and 8.26). */
import { record } from '../record.ts';

/** The payload follows. Encrypted under a VMPCK, authenticated from `algorithm` to the end of the header. */
export const messageHeader = record('guest message header', 'AMD 56860, SNP_GUEST_REQUEST', 0x60, [
  { name: 'authTag', offset: 0, width: 32, bytes: true },
  { name: 'sequence', offset: 0x20, width: 8 },
  { name: 'algorithm', offset: 0x30, width: 1 },
  { name: 'headerVersion', offset: 0x31, width: 1 },
  { name: 'headerSize', offset: 0x32, width: 2 },
  { name: 'type', offset: 0x34, width: 1 },
  { name: 'messageVersion', offset: 0x35, width: 1 },
  { name: 'messageSize', offset: 0x36, width: 2 },
  { name: 'vmpck', offset: 0x3c, width: 1 },
]);
/** The authenticated part of the header. */
export const AUTHENTICATED = { from: 0x30, to: 0x60 } as const;
/** AES-256-GCM. */
export const AES_256_GCM = 1;
/** Bytes of the tag that are used. */
export const TAG = 16;

/** Kinds of messages. A response has the request's number plus one. */
export const MESSAGE = {
  cpuidRequest: 1,
  keyRequest: 3,
  reportRequest: 5,
  exportRequest: 7,
  importRequest: 9,
  absorbRequest: 11,
  vmrkRequest: 13,
  absorbNoMaRequest: 15,
  tscInfoRequest: 17,
} as const;

/** MSG_CPUID_REQ; functions as in the CPUID page follow. */
export const cpuidMessage = record('CPUID message', 'AMD 56860, 7.1 CPUID Reporting', 0x10, [
  { name: 'count', offset: 0, width: 4 },
  { name: 'reserved4', offset: 4, width: 4 },
  { name: 'reserved8', offset: 8, width: 8 },
]);
/** The response has the status where the request has the count. */
export const cpuidResponse = record('CPUID response', 'AMD 56860, 7.1 CPUID Reporting', 0x10, [
  { name: 'status', offset: 0, width: 4 },
  { name: 'count', offset: 4, width: 4 },
]);

export const keyRequest = record('MSG_KEY_REQ', 'AMD 56860, 7.2 Key Derivation', 0x20, [
  /** Bit 0: 0 VCEK, 1 VMRK; bits 1-2: KEY_SEL. */
  { name: 'select', offset: 0, width: 4 },
  { name: 'reserved4', offset: 4, width: 4 },
  { name: 'guestFieldSelect', offset: 8, width: 8 },
  { name: 'vmpl', offset: 0x10, width: 4 },
  { name: 'guestSvn', offset: 0x14, width: 4 },
  { name: 'tcbVersion', offset: 0x18, width: 8 },
]);

export const keyResponse = record('MSG_KEY_RSP', 'AMD 56860, 7.2 Key Derivation', 0x40, [
  { name: 'status', offset: 0, width: 4 },
  { name: 'key', offset: 0x20, width: 32, bytes: true },
]);

/** GUEST_FIELD_SELECT. */
export const GUEST_FIELD = {
  policy: 1n << 0n,
  imageId: 1n << 1n,
  familyId: 1n << 2n,
  measurement: 1n << 3n,
  guestSvn: 1n << 4n,
  tcbVersion: 1n << 5n,
} as const;
export const GUEST_FIELDS = 0x3fn;

export const reportRequest = record('MSG_REPORT_REQ', 'AMD 56860, 7.3 Attestation', 0x60, [
  { name: 'reportData', offset: 0, width: 64, bytes: true },
  { name: 'vmpl', offset: 0x40, width: 4 },
  { name: 'keySelect', offset: 0x44, width: 4 },
  { name: 'reserved', offset: 0x48, width: 24, bytes: true },
]);

/** The report follows. */
export const reportResponse = record('MSG_REPORT_RSP', 'AMD 56860, 7.3 Attestation', 0x20, [
  { name: 'status', offset: 0, width: 4 },
  { name: 'reportSize', offset: 4, width: 4 },
]);

/** KEY_SEL. */
export const KEY_SELECT = { vlekOrVcek: 0, vcek: 1, vlek: 2 } as const;

export const TSC_INFO_SIZE = 0x80;
export const tscInfoResponse = record('MSG_TSC_INFO_RSP', 'AMD 56860, 7.9 TSC Info', TSC_INFO_SIZE, [
  { name: 'status', offset: 0, width: 4 },
  /** Guest TSC by reference clock, 8.32 fixed point. */
  { name: 'scale', offset: 8, width: 8 },
  { name: 'offset', offset: 0x10, width: 8 },
  /** Loss of the clock by its spread spectrum, in 1/100000. */
  { name: 'factor', offset: 0x18, width: 4 },
]);
