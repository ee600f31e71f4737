/** Chains of X.509 certificates, verified with the host's own library and not with what made the development ones. */
import { X509Certificate } from 'node:crypto';
import { elements, octetsOf, oidOf, raw, type Node } from '../../silicon/pki/der.ts';
import { UserError } from '../errors.ts';
import type { Lines } from './lines.ts';

/** All certificates of a PEM file, or the one of a DER file. */
export function readCertificates(bytes: Uint8Array, where: string): X509Certificate[] {
  const text = Buffer.from(bytes).toString('latin1');
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g);
  try {
    return (blocks ?? [bytes]).map((block) => new X509Certificate(block));
  } catch {
    throw new UserError(`${where} holds no X.509 certificate: give PEM or DER`);
  }
}

const shortName = (subject: string): string => /CN=(.*)/.exec(subject)?.[1] ?? subject.replaceAll('\n', ', ');

export const isDevelopment = (certificate: X509Certificate): boolean =>
  certificate.subject.includes('Development PKI');

/**
 * Checks that each certificate is signed by the next, that the last one is `root` or signs itself, and all dates. The chain is
 * given leaf first.
 */
export function checkChain(
  lines: Lines,
  chain: readonly X509Certificate[],
  root: X509Certificate | undefined,
): void {
  const now = Date.now();
  const anchored =
    root === undefined || chain.at(-1)?.fingerprint256 === root.fingerprint256 ? chain : [...chain, root];
  anchored.forEach((certificate, i) => {
    const issuer = anchored[i + 1] ?? certificate;
    const name = shortName(certificate.subject);
    lines.check(
      issuer === certificate ? `${name} signs itself` : `${name} is signed by ${shortName(issuer.subject)}`,
      certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey),
    );
    if (Date.parse(certificate.validFrom) > now || Date.parse(certificate.validTo) < now)
      lines.check(`${name} is valid from ${certificate.validFrom} to ${certificate.validTo}`, false);
  });
  if (root === undefined)
    lines.note('The root is the one that came with the chain: give the one you trust with --root.');
}

/** The value of an extension, undefined when there is none. */
export function extension(certificate: X509Certificate, id: string): Uint8Array | undefined {
  const tbs = elements(elements(raw(certificate.raw))[0] as Node);
  const list = elements(elements(tbs.at(-1) as Node)[0] as Node);
  const found = list.find((entry) => oidOf(elements(entry)[0]) === id);
  return found === undefined ? undefined : octetsOf(elements(found).at(-1));
}
