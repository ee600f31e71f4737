/** The attestation report (AMD 56860, 7.3) and the forms of ECDSA keys and signatures (chapter 10). */
import { record } from '../record.ts';

export const REPORT_SIZE = 0x4a0;
/** The signature covers what is before it. */
export const SIGNED = 0x2a0;

export const report = record('ATTESTATION_REPORT', 'AMD 56860, 7.3 Attestation', REPORT_SIZE, [
  { name: 'version', offset: 0, width: 4 },
  { name: 'guestSvn', offset: 4, width: 4 },
  { name: 'policy', offset: 8, width: 8 },
  { name: 'familyId', offset: 0x10, width: 16, bytes: true },
  { name: 'imageId', offset: 0x20, width: 16, bytes: true },
  { name: 'vmpl', offset: 0x30, width: 4 },
  { name: 'signatureAlgorithm', offset: 0x34, width: 4 },
  { name: 'currentTcb', offset: 0x38, width: 8 },
  { name: 'platformInfo', offset: 0x40, width: 8 },
  /** Bit 0 author key, bit 1 chip key masked, bits 2-4 signing key: 0 VCEK, 1 VLEK, 7 none. */
  { name: 'keyInfo', offset: 0x48, width: 4 },
  { name: 'reportData', offset: 0x50, width: 64, bytes: true },
  { name: 'measurement', offset: 0x90, width: 48, bytes: true },
  { name: 'hostData', offset: 0xc0, width: 32, bytes: true },
  { name: 'idKeyDigest', offset: 0xe0, width: 48, bytes: true },
  { name: 'authorKeyDigest', offset: 0x110, width: 48, bytes: true },
  { name: 'reportId', offset: 0x140, width: 32, bytes: true },
  { name: 'reportIdMa', offset: 0x160, width: 32, bytes: true },
  { name: 'reportedTcb', offset: 0x180, width: 8 },
  /** From version 3 on. */
  { name: 'cpuidFamily', offset: 0x188, width: 1 },
  { name: 'cpuidModel', offset: 0x189, width: 1 },
  { name: 'cpuidStepping', offset: 0x18a, width: 1 },
  { name: 'chipId', offset: 0x1a0, width: 64, bytes: true },
  { name: 'committedTcb', offset: 0x1e0, width: 8 },
  { name: 'currentBuild', offset: 0x1e8, width: 1 },
  { name: 'currentMinor', offset: 0x1e9, width: 1 },
  { name: 'currentMajor', offset: 0x1ea, width: 1 },
  { name: 'committedBuild', offset: 0x1ec, width: 1 },
  { name: 'committedMinor', offset: 0x1ed, width: 1 },
  { name: 'committedMajor', offset: 0x1ee, width: 1 },
  { name: 'launchTcb', offset: 0x1f0, width: 8 },
  { name: 'signature', offset: SIGNED, width: 0x200, bytes: true },
]);

/** ECDSA P-384 with SHA-384. */
export const ECDSA_P384_SHA384 = 1;

/** Integers are little-endian. */
export const signature = record('ECDSA signature', 'AMD 56860, chapter 10', 0x200, [
  { name: 'r', offset: 0, width: 72, bytes: true },
  { name: 's', offset: 72, width: 72, bytes: true },
]);

export const publicKey = record('ECDSA public key', 'AMD 56860, chapter 10', 0x404, [
  { name: 'curve', offset: 0, width: 4 },
  { name: 'x', offset: 4, width: 72, bytes: true },
  { name: 'y', offset: 76, width: 72, bytes: true },
]);
export const CURVE_P384 = 2;

/** A big-endian number of at most 72 bytes in the firmware's form. */
export function toFirmware(bigEndian: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(72);
  bytes.set(new Uint8Array(bigEndian).reverse());
  return bytes;
}

/** The low 48 bytes of a number in the firmware's form, big-endian; undefined when it is larger. */
export function fromFirmware(bytes: Uint8Array): Uint8Array | undefined {
  return bytes.subarray(48).some((byte) => byte !== 0)
    ? undefined
    : new Uint8Array(bytes.subarray(0, 48)).reverse();
}
