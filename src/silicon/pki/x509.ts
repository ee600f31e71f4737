/** X.509 certificates and revocation lists (RFC 5280). */
import { sha1 } from '@noble/hashes/legacy.js';
import {
  bits,
  bitsOf,
  boolean,
  elements,
  encode,
  explicit,
  implicit,
  integer,
  oid,
  octets,
  printable,
  raw,
  sequence,
  setOf,
  time,
  utf8,
  type Node,
} from './der.ts';

export interface Signer {
  /** A new AlgorithmIdentifier. */
  readonly algorithm: () => Node;
  /** The contents of the signature's bit string. */
  readonly sign: (message: Uint8Array) => Uint8Array;
}

const ATTRIBUTES = {
  commonName: '2.5.4.3',
  countryName: '2.5.4.6',
  localityName: '2.5.4.7',
  stateName: '2.5.4.8',
  organizationName: '2.5.4.10',
  organizationalUnit: '2.5.4.11',
} as const;

/** Relative distinguished names in order. */
export type DistinguishedName = readonly (readonly [keyof typeof ATTRIBUTES, string])[];

export interface Extension {
  readonly id: string;
  readonly critical?: boolean;
  /** The DER value, or what the issuer puts there instead of one. */
  readonly value: Uint8Array;
}

export interface CertificateParts {
  readonly serial: bigint;
  readonly issuer: DistinguishedName;
  readonly subject: DistinguishedName;
  /** Seconds since 1970. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** SubjectPublicKeyInfo. */
  readonly publicKey: Uint8Array;
  readonly extensions: readonly Extension[];
}

function name(parts: DistinguishedName): Node {
  return sequence(
    ...parts.map(([attribute, value]) =>
      setOf(
        sequence(
          oid(ATTRIBUTES[attribute]),
          // Appendix A.1: countryName is a PrintableString.
          attribute === 'countryName' ? printable(value) : utf8(value),
        ),
      ),
    ),
  );
}

function extensionList(list: readonly Extension[]): Node {
  return sequence(
    ...list.map(({ id, critical, value }) =>
      sequence(oid(id), ...(critical === true ? [boolean(true)] : []), octets(value)),
    ),
  );
}

function signed(body: Node, signer: Signer): Uint8Array {
  const message = encode(body);
  return encode(sequence(body, signer.algorithm(), bits(signer.sign(message))));
}

export function certificate(parts: CertificateParts, signer: Signer): Uint8Array {
  return signed(
    sequence(
      explicit(0, integer(2)),
      integer(parts.serial),
      signer.algorithm(),
      name(parts.issuer),
      sequence(time(parts.notBefore), time(parts.notAfter)),
      name(parts.subject),
      raw(parts.publicKey),
      explicit(3, extensionList(parts.extensions)),
    ),
    signer,
  );
}

export interface RevocationParts {
  readonly issuer: DistinguishedName;
  readonly thisUpdate: number;
  readonly nextUpdate: number;
  readonly number: bigint;
  readonly authority: Uint8Array;
  readonly revoked: readonly { readonly serial: bigint; readonly at: number }[];
}

export function revocationList(parts: RevocationParts, signer: Signer): Uint8Array {
  const revoked = parts.revoked.map(({ serial, at }) => sequence(integer(serial), time(at)));
  return signed(
    sequence(
      integer(1),
      signer.algorithm(),
      name(parts.issuer),
      time(parts.thisUpdate),
      time(parts.nextUpdate),
      ...(revoked.length > 0 ? [sequence(...revoked)] : []),
      explicit(
        0,
        extensionList([
          { id: '2.5.29.20', value: encode(integer(parts.number)) },
          authorityKeyIdentifier(parts.authority),
        ]),
      ),
    ),
    signer,
  );
}

/** RFC 5280, 4.2.1.2, method 1: SHA-1 of the public key's bit string. */
export const keyIdentifier = (publicKey: Uint8Array): Uint8Array => sha1(bitsOf(elements(raw(publicKey))[1]));

export const subjectKeyIdentifier = (publicKey: Uint8Array): Extension => ({
  id: '2.5.29.14',
  value: encode(octets(keyIdentifier(publicKey))),
});

export const authorityKeyIdentifier = (publicKey: Uint8Array): Extension => ({
  id: '2.5.29.35',
  value: encode(sequence(implicit(0, keyIdentifier(publicKey)))),
});

export const basicConstraints = (isAuthority: boolean, pathLength?: number): Extension => ({
  id: '2.5.29.19',
  critical: true,
  value: encode(
    isAuthority
      ? sequence(boolean(true), ...(pathLength === undefined ? [] : [integer(pathLength)]))
      : sequence(),
  ),
});

const USAGES = { digitalSignature: 0, contentCommitment: 1, certificateSign: 5, crlSign: 6 } as const;

export function keyUsage(...usages: readonly (keyof typeof USAGES)[]): Extension {
  let value = 0;
  for (const usage of usages) value |= 0x80 >> USAGES[usage];
  const unused = 7 - Math.max(...usages.map((usage) => USAGES[usage]));
  return { id: '2.5.29.15', critical: true, value: encode(bits(Uint8Array.of(value), unused)) };
}

/** CRLDistributionPoints with one URI. */
export const crlDistribution = (uri: string): Extension => ({
  id: '2.5.29.31',
  value: encode(
    sequence(
      sequence(
        explicit(
          0,
          explicit(
            0,
            implicit(
              6,
              Uint8Array.from(uri, (character) => character.charCodeAt(0)),
            ),
          ),
        ),
      ),
    ),
  ),
});
