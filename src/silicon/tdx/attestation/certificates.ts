/**
 * The development PKI of the platform in the form of Intel's (SGX PCK Certificate and CRL Profile Specification 1.5): root, PCK
 * authority, PCK certificate with the SGX extensions, TCB signing certificate and CRLs, with subjects that say what they are.
 */
import { ascii, concat } from '../../../abi/bytes.ts';
import { boolean, encode, enumerated, integer, octets, oid, sequence, type Node } from '../../pki/der.ts';
import { ecKey, ecPublicKeyInfo, ecSigner, type EcKey } from '../../pki/ec.ts';
import { pem } from '../../pki/pem.ts';
import { derive } from '../../pki/seed.ts';
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
import type { TdxPlatform } from './platform.ts';

/** DER. */
export interface TdxCertificates {
  readonly root: Uint8Array;
  readonly pckAuthority: Uint8Array;
  readonly pck: Uint8Array;
  readonly tcbSigning: Uint8Array;
  readonly rootCrl: Uint8Array;
  readonly pckCrl: Uint8Array;
}

const subject = (commonName: string): DistinguishedName => [
  ['commonName', `Vitrine development ${commonName}`],
  ['organizationName', 'Vitrine'],
  ['organizationalUnit', 'Development PKI: proves nothing about hardware'],
];
const NAMES = {
  root: subject('SGX Root CA'),
  pckAuthority: subject('SGX PCK Platform CA'),
  pck: subject('SGX PCK Certificate'),
  tcbSigning: subject('SGX TCB Signing'),
} as const;

/** The extension 1.2.840.113741.1.13.1 of a platform with several packages (profile specification, 1.3.5). */
function sgxExtensions(platform: TdxPlatform): Extension {
  const arc = '1.2.840.113741.1.13.1';
  const field = (id: string, value: Node): Node => sequence(oid(`${arc}.${id}`), value);
  const components = Array.from(platform.cpuSvn, (svn, i) => field(`2.${i + 1}`, integer(svn)));
  return {
    id: arc,
    value: encode(
      sequence(
        field('1', octets(platform.ppid)),
        field(
          '2',
          sequence(
            ...components,
            field('2.17', integer(platform.pceSvn)),
            field('2.18', octets(platform.cpuSvn)),
          ),
        ),
        field('3', octets(platform.pceId)),
        field('4', octets(platform.fmspc)),
        // Scalable SGX.
        field('5', enumerated(1)),
        field('6', octets(platform.platformInstance)),
        field(
          '7',
          sequence(
            field('7.1', boolean(true)),
            field('7.2', boolean(false)),
            // No SMT.
            field('7.3', boolean(false)),
          ),
        ),
      ),
    ),
  };
}

/** The key that signs TCB info and QE identity. */
export const tcbSigningKey = (platform: TdxPlatform): EcKey =>
  ecKey('p-256', platform.seed, 'tdx tcb signing');

/** A positive serial number of 20 bytes, as Intel's are. */
function serial(platform: TdxPlatform, what: string): bigint {
  let value = 1n;
  for (const byte of derive(platform.seed, `tdx serial ${what}`, 19)) value = (value << 8n) | BigInt(byte);
  return value;
}

export function tdxCertificates(platform: TdxPlatform): TdxCertificates {
  const rootKey = ecKey('p-256', platform.seed, 'tdx root');
  const authorityKey = ecKey('p-256', platform.seed, 'tdx pck authority');
  const rootInfo = ecPublicKeyInfo(rootKey);
  const make = (
    what: keyof typeof NAMES,
    key: EcKey,
    issuer: { readonly name: keyof typeof NAMES; readonly key: EcKey },
    extensions: readonly Extension[],
  ): Uint8Array =>
    certificate(
      {
        serial: serial(platform, what),
        issuer: NAMES[issuer.name],
        subject: NAMES[what],
        notBefore: NOT_BEFORE,
        notAfter: NOT_AFTER,
        publicKey: ecPublicKeyInfo(key),
        extensions: [
          authorityKeyIdentifier(ecPublicKeyInfo(issuer.key)),
          subjectKeyIdentifier(ecPublicKeyInfo(key)),
          ...extensions,
        ],
      },
      ecSigner(issuer.key),
    );
  const root = { name: 'root', key: rootKey } as const;
  const authority = { name: 'pckAuthority', key: authorityKey } as const;
  const caUsage = keyUsage('certificateSign', 'crlSign');
  const leafUsage = keyUsage('digitalSignature', 'contentCommitment');
  const crl = (issuer: keyof typeof NAMES, key: EcKey, info: Uint8Array): Uint8Array =>
    revocationList(
      {
        issuer: NAMES[issuer],
        thisUpdate: NOT_BEFORE,
        nextUpdate: NOT_AFTER,
        number: 1n,
        authority: info,
        revoked: [],
      },
      ecSigner(key),
    );
  return {
    root: make('root', rootKey, root, [caUsage, basicConstraints(true, 1)]),
    pckAuthority: make('pckAuthority', authorityKey, root, [caUsage, basicConstraints(true, 0)]),
    pck: make('pck', platform.pckKey, authority, [
      leafUsage,
      basicConstraints(false),
      sgxExtensions(platform),
    ]),
    tcbSigning: make('tcbSigning', tcbSigningKey(platform), root, [leafUsage, basicConstraints(false)]),
    rootCrl: crl('root', rootKey, rootInfo),
    pckCrl: crl('pckAuthority', authorityKey, ecPublicKeyInfo(authorityKey)),
  };
}

/** PCK certificate, its authority and the root, as a quote carries them. */
export function pckChainPem(platform: TdxPlatform): Uint8Array {
  const { pck, pckAuthority, root } = tdxCertificates(platform);
  return concat(...[pck, pckAuthority, root].map((der) => ascii(pem('CERTIFICATE', der))));
}
