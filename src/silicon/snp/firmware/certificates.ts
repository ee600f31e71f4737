/**
 * The development PKI of the platform: ARK, ASK and VCEK in the form of AMD's (document 57230), with subjects that say what
 * they are. Like AMD's, ARK and ASK are RSA-4096 keys that sign with RSASSA-PSS, the VCEK is a P-384 key and carries chip and
 * TCB version in extensions.
 */
import { CERTIFICATE, certificateTable } from '../../../abi/snp/certificate-table.ts';
import { tcbVersion } from '../../../abi/snp/firmware.ts';
import { ascii } from '../../../abi/bytes.ts';
import { ecPublicKeyInfo } from '../../pki/ec.ts';
import { encode, ia5, integer } from '../../pki/der.ts';
import { pem } from '../../pki/pem.ts';
import { rsaKey, rsaPublicKeyInfo, rsaSigner } from '../../pki/rsa.ts';
import { NOT_AFTER, NOT_BEFORE } from '../../pki/validity.ts';
import {
  authorityKeyIdentifier,
  basicConstraints,
  certificate,
  keyUsage,
  revocationList,
  subjectKeyIdentifier,
  type DistinguishedName,
  type Extension,
} from '../../pki/x509.ts';
import type { SnpPlatform } from './platform.ts';

/** DER. */
export interface SnpCertificates {
  readonly ark: Uint8Array;
  readonly ask: Uint8Array;
  readonly vcek: Uint8Array;
  /** The ARK's list of revoked ASKs: empty. */
  readonly crl: Uint8Array;
}

const PRODUCT = 'Milan';

const subject = (commonName: string): DistinguishedName => [
  ['organizationalUnit', 'Development PKI: proves nothing about hardware'],
  ['organizationName', 'Vitrine'],
  ['commonName', commonName],
];

/** Product and security versions under AMD's arc, 1.3.6.1.4.1.3704.1 (57230, table 8). */
function vcekExtensions(platform: SnpPlatform): Extension[] {
  const { bootLoader, tee, snp, microcode } = tcbVersion(platform.tcb);
  const arc = '1.3.6.1.4.1.3704.1';
  const version = (id: string, value: number): Extension => ({
    id: `${arc}.${id}`,
    value: encode(integer(value)),
  });
  return [
    version('1', 0),
    { id: `${arc}.2`, value: encode(ia5(`${PRODUCT}-B1`)) },
    version('3.1', bootLoader),
    version('3.2', tee),
    version('3.4', 0),
    version('3.5', 0),
    version('3.6', 0),
    version('3.7', 0),
    version('3.3', snp),
    version('3.8', microcode),
    // The chip's identity stands there as it is.
    { id: `${arc}.4`, value: platform.chipId },
  ];
}

export function snpCertificates(platform: SnpPlatform): SnpCertificates {
  const arkKey = rsaKey(platform.seed, 'snp ark');
  const askKey = rsaKey(platform.seed, 'snp ask');
  const arkInfo = rsaPublicKeyInfo(arkKey);
  const askInfo = rsaPublicKeyInfo(askKey);
  const arkName = subject(`Vitrine development ARK-${PRODUCT}`);
  const askName = subject(`Vitrine development SEV-${PRODUCT}`);
  const dates = { notBefore: NOT_BEFORE, notAfter: NOT_AFTER };
  const arkSigner = rsaSigner(arkKey);
  return {
    ark: certificate(
      {
        ...dates,
        serial: 0x10000n,
        issuer: arkName,
        subject: arkName,
        publicKey: arkInfo,
        extensions: [
          keyUsage('certificateSign', 'crlSign'),
          subjectKeyIdentifier(arkInfo),
          basicConstraints(true),
        ],
      },
      arkSigner,
    ),
    ask: certificate(
      {
        ...dates,
        serial: 0x10001n,
        issuer: arkName,
        subject: askName,
        publicKey: askInfo,
        extensions: [
          subjectKeyIdentifier(askInfo),
          authorityKeyIdentifier(arkInfo),
          basicConstraints(true, 0),
          keyUsage('certificateSign'),
        ],
      },
      arkSigner,
    ),
    vcek: certificate(
      {
        ...dates,
        serial: 0n,
        issuer: askName,
        subject: subject('Vitrine development SEV-VCEK'),
        publicKey: ecPublicKeyInfo(platform.vcek),
        extensions: vcekExtensions(platform),
      },
      rsaSigner(askKey),
    ),
    crl: revocationList(
      {
        issuer: arkName,
        thisUpdate: NOT_BEFORE,
        nextUpdate: NOT_AFTER,
        number: 1n,
        authority: arkInfo,
        revoked: [],
      },
      arkSigner,
    ),
  };
}

/** What a host has for extended guest requests: VCEK, ASK and ARK. */
export const hostCertificateTable = ({ ark, ask, vcek }: SnpCertificates): Uint8Array =>
  certificateTable([
    { guid: CERTIFICATE.vcek, bytes: vcek },
    { guid: CERTIFICATE.ask, bytes: ask },
    { guid: CERTIFICATE.ark, bytes: ark },
  ]);

/** VCEK, ASK and ARK as one PEM file, leaf first. */
export const certificateChainPem = ({ ark, ask, vcek }: SnpCertificates): Uint8Array =>
  ascii([vcek, ask, ark].map((der) => pem('CERTIFICATE', der)).join(''));
