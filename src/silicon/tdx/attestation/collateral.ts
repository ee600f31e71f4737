/**
 * What a verifier needs besides the quote, in the form of Intel's Provisioning Certification Service, version 4: TCB info, QE
 * identity, each signed over the exact text, and revocation lists.
 */
import { ascii } from '../../../abi/bytes.ts';
import { sign } from '../../pki/ec.ts';
import { pem } from '../../pki/pem.ts';
import { tcbSigningKey, tdxCertificates } from './certificates.ts';
import type { TdxPlatform } from './platform.ts';

export interface TdxCollateral {
  /** DER, the trust anchor. */
  readonly root: Uint8Array;
  /** The body of the response: `{"tcbInfo":...,"signature":"..."}`. */
  readonly tcbInfo: SignedText;
  /** `{"enclaveIdentity":...,"signature":"..."}`. */
  readonly qeIdentity: SignedText;
  /** PEM: TCB signing certificate and root. */
  readonly tcbSigningChain: string;
  /** PEM: PCK authority and root. */
  readonly pckCrlChain: string;
  /** DER. */
  readonly rootCrl: Uint8Array;
  readonly pckCrl: Uint8Array;
}

export interface SignedText {
  /** What is signed. */
  readonly text: string;
  /** R and S, hexadecimal. */
  readonly signature: string;
  readonly response: string;
}

/** Fits pki/validity.ts. */
const ISSUED = '2020-01-01T00:00:00Z';
const NEXT_UPDATE = '2049-12-31T23:59:59Z';

const hex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
const HEX = (bytes: Uint8Array): string => hex(bytes).toUpperCase();
const ones = (length: number): string => 'F'.repeat(2 * length);
const zeros = (length: number): string => '0'.repeat(2 * length);

/** TCB info, version 3, with the platform's own versions as the only level. */
function tcbInfo(platform: TdxPlatform): object {
  const components = (svns: Uint8Array): object[] => Array.from(svns, (svn) => ({ svn }));
  const level = { tcbDate: ISSUED, tcbStatus: 'UpToDate' };
  const [moduleSvn, moduleMajor] = platform.teeTcbSvn;
  // From a major version on, the module's own identity counts instead of the first two components.
  const tdxComponents = Uint8Array.from(platform.teeTcbSvn, (svn, i) => (i < 2 ? 0 : svn));
  const identity = {
    mrsigner: hex(platform.mrSignerSeam).toUpperCase(),
    attributes: zeros(8),
    attributesMask: ones(8),
  };
  return {
    id: 'TDX',
    version: 3,
    issueDate: ISSUED,
    nextUpdate: NEXT_UPDATE,
    fmspc: HEX(platform.fmspc),
    pceId: HEX(platform.pceId),
    tcbType: 0,
    tcbEvaluationDataNumber: 1,
    tdxModule: identity,
    tdxModuleIdentities: [
      {
        id: `TDX_${String(moduleMajor).padStart(2, '0')}`,
        ...identity,
        tcbLevels: [{ tcb: { isvsvn: moduleSvn }, ...level }],
      },
    ],
    tcbLevels: [
      {
        tcb: {
          sgxtcbcomponents: components(platform.cpuSvn),
          pcesvn: platform.pceSvn,
          tdxtcbcomponents: components(tdxComponents),
        },
        ...level,
      },
    ],
  };
}

function qeIdentity({ qe }: TdxPlatform): object {
  return {
    id: 'TD_QE',
    version: 2,
    issueDate: ISSUED,
    nextUpdate: NEXT_UPDATE,
    tcbEvaluationDataNumber: 1,
    miscselect: zeros(4),
    miscselectMask: ones(4),
    attributes: HEX(qe.attributes),
    attributesMask: ones(16),
    mrsigner: HEX(qe.mrSigner),
    isvprodid: qe.isvProdId,
    tcbLevels: [{ tcb: { isvsvn: qe.isvSvn }, tcbDate: ISSUED, tcbStatus: 'UpToDate' }],
  };
}

function signedText(platform: TdxPlatform, name: string, value: object): SignedText {
  const text = JSON.stringify(value);
  const { r, s } = sign(tcbSigningKey(platform), ascii(text));
  const signature = hex(r) + hex(s);
  return { text, signature, response: `{"${name}":${text},"signature":"${signature}"}` };
}

export function tdxCollateral(platform: TdxPlatform): TdxCollateral {
  const { root, pckAuthority, tcbSigning, rootCrl, pckCrl } = tdxCertificates(platform);
  const chain = (...ders: Uint8Array[]): string => ders.map((der) => pem('CERTIFICATE', der)).join('');
  return {
    root,
    tcbInfo: signedText(platform, 'tcbInfo', tcbInfo(platform)),
    qeIdentity: signedText(platform, 'enclaveIdentity', qeIdentity(platform)),
    tcbSigningChain: chain(tcbSigning, root),
    pckCrlChain: chain(pckAuthority, root),
    rootCrl,
    pckCrl,
  };
}
