/** Quotes of versions 4 and 5 (Intel TDX DCAP Quoting Library API, appendix A.3 and A.4; SGX report: SDM vol. 3D, 38.16). */
import { record, u16, u32 } from '../record.ts';

export const quoteHeader = record('quote header', 'TDX DCAP API A.3.1', 48, [
  { name: 'version', offset: 0, width: 2 },
  /** 2: ECDSA P-256. */
  { name: 'attestationKeyType', offset: 2, width: 2 },
  { name: 'teeType', offset: 4, width: 4 },
  { name: 'vendorId', offset: 12, width: 16, bytes: true },
  { name: 'userData', offset: 28, width: 20, bytes: true },
]);
export const ATTESTATION_KEY_P256 = 2;
export const TEE_TDX = 0x81;
/** Intel's quoting enclave. */
export const INTEL_QE_VENDOR = Uint8Array.of(
  ...[0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07],
);

const TD_FIELDS = [
  { name: 'teeTcbSvn', offset: 0, width: 16, bytes: true },
  { name: 'mrSeam', offset: 16, width: 48, bytes: true },
  { name: 'mrSignerSeam', offset: 64, width: 48, bytes: true },
  { name: 'seamAttributes', offset: 112, width: 8 },
  { name: 'tdAttributes', offset: 120, width: 8 },
  { name: 'xfam', offset: 128, width: 8 },
  { name: 'mrTd', offset: 136, width: 48, bytes: true },
  { name: 'mrConfigId', offset: 184, width: 48, bytes: true },
  { name: 'mrOwner', offset: 232, width: 48, bytes: true },
  { name: 'mrOwnerConfig', offset: 280, width: 48, bytes: true },
  { name: 'rtmr0', offset: 328, width: 48, bytes: true },
  { name: 'rtmr1', offset: 376, width: 48, bytes: true },
  { name: 'rtmr2', offset: 424, width: 48, bytes: true },
  { name: 'rtmr3', offset: 472, width: 48, bytes: true },
  { name: 'reportData', offset: 520, width: 64, bytes: true },
] as const;

/** The body of version 4, and of version 5 for a module of 1.0. */
export const tdBody10 = record('TD report body 1.0', 'TDX DCAP API A.3.2', 584, TD_FIELDS);
/** The body of version 5 for a module of 1.5. */
export const tdBody15 = record('TD report body 1.5', 'TDX DCAP API A.4.4', 648, [
  ...TD_FIELDS,
  { name: 'teeTcbSvn2', offset: 584, width: 16, bytes: true },
  { name: 'mrServiceTd', offset: 600, width: 48, bytes: true },
]);
/** Version 5 says before the body what it is: type of 2 bytes, size of 4. */
export const BODY_TYPE = { td10: 2, td15: 3 } as const;
export const BODY_DESCRIPTOR = 6;

/** An enclave's report. */
export const enclaveReport = record('enclave report', 'SDM vol. 3D, REPORT', 384, [
  { name: 'cpuSvn', offset: 0, width: 16, bytes: true },
  { name: 'miscSelect', offset: 16, width: 4 },
  { name: 'attributes', offset: 48, width: 16, bytes: true },
  { name: 'mrEnclave', offset: 64, width: 32, bytes: true },
  { name: 'mrSigner', offset: 128, width: 32, bytes: true },
  { name: 'isvProdId', offset: 256, width: 2 },
  { name: 'isvSvn', offset: 258, width: 2 },
  { name: 'reportData', offset: 320, width: 64, bytes: true },
]);

/** Kinds of certification data: 2 bytes, then a size of 4. */
export const CERTIFICATION = { pckChain: 5, qeReport: 6 } as const;

export interface Quote {
  readonly version: number;
  /** What the quoting enclave's key signed: everything before the size of the signature data. */
  readonly signed: Uint8Array;
  readonly body: Uint8Array;
  readonly isBody15: boolean;
  readonly signature: Uint8Array;
  readonly attestationKey: Uint8Array;
  readonly qeReport: Uint8Array;
  readonly qeReportSignature: Uint8Array;
  readonly qeAuthData: Uint8Array;
  /** PEM: PCK certificate, its authority, the root. */
  readonly pckChain: Uint8Array;
}

/** The parts of a TD's quote, or undefined when it is none or cut off. What follows the signature data is ignored. */
export function readQuote(bytes: Uint8Array): Quote | undefined {
  let at = quoteHeader.size;
  let isShort = false;
  const take = (length: number): Uint8Array => {
    if (at + length > bytes.length) isShort = true;
    at += length;
    return bytes.slice(at - length, at);
  };
  const number = (width: 2 | 4): number => {
    const value = take(width);
    if (isShort) return 0;
    return width === 2 ? u16(value, 0) : u32(value, 0);
  };
  if (!quoteHeader.fits(bytes)) return undefined;
  const { version, teeType, attestationKeyType } = quoteHeader.read(bytes);
  if ((version !== 4 && version !== 5) || teeType !== TEE_TDX || attestationKeyType !== ATTESTATION_KEY_P256)
    return undefined;
  let isBody15 = false;
  if (version === 5) {
    const type = number(2);
    isBody15 = type === BODY_TYPE.td15;
    const size = number(4);
    if (!isBody15 && type !== BODY_TYPE.td10) return undefined;
    if (size !== (isBody15 ? tdBody15.size : tdBody10.size)) return undefined;
  }
  const body = take(isBody15 ? tdBody15.size : tdBody10.size);
  const signed = bytes.slice(0, at);
  number(4);
  const signature = take(64);
  const attestationKey = take(64);
  if (number(2) !== CERTIFICATION.qeReport) return undefined;
  number(4);
  const qeReport = take(enclaveReport.size);
  const qeReportSignature = take(64);
  const qeAuthData = take(number(2));
  if (number(2) !== CERTIFICATION.pckChain) return undefined;
  const pckChain = take(number(4));
  if (isShort) return undefined;
  return {
    version,
    signed,
    body,
    isBody15,
    signature,
    attestationKey,
    qeReport,
    qeReportSignature,
    qeAuthData,
    pckChain,
  };
}
