import { createHash, createPublicKey, verify as nativeVerify, constants, X509Certificate } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { ecKey, ecPublicKeyInfo, ecSigner, sign, verify } from './ec.ts';
import { encode, time } from './der.ts';
import { pem } from './pem.ts';
import { MODULUS_BYTES, rsaKey, rsaPublicKeyInfo, rsaSigner, signPss } from './rsa.ts';
import { derive } from './seed.ts';
import { basicConstraints, certificate, keyIdentifier, keyUsage, subjectKeyIdentifier } from './x509.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const message = new TextEncoder().encode('a message');

describe('derive', () => {
  it('depends on seed and purpose and on nothing else', () => {
    expect(hex(derive(1n, 'a', 16))).toBe(hex(derive(1n, 'a', 16)));
    expect(hex(derive(1n, 'a', 16))).not.toBe(hex(derive(2n, 'a', 16)));
    expect(hex(derive(1n, 'a', 16))).not.toBe(hex(derive(1n, 'b', 16)));
  });
});

describe('sign', () => {
  it.each(['p-256', 'p-384'] as const)(
    '%s: another implementation accepts it, and not for another message',
    (curve) => {
      const key = ecKey(curve, 7n, 'test');
      const { r, s } = sign(key, message);
      const publicKey = createPublicKey({
        key: Buffer.from(ecPublicKeyInfo(key)),
        format: 'der',
        type: 'spki',
      });
      const check = (text: Uint8Array): boolean =>
        nativeVerify(
          curve === 'p-256' ? 'sha256' : 'sha384',
          text,
          { key: publicKey, dsaEncoding: 'ieee-p1363' },
          Buffer.concat([r, s]),
        );
      expect(check(message)).toBe(true);
      expect(check(new Uint8Array(3))).toBe(false);
      expect(verify(curve, key.x, key.y, message, r, s)).toBe(true);
      expect(verify(curve, key.x, key.y, new Uint8Array(3), r, s)).toBe(false);
      expect(verify(curve, key.x, key.y, message, new Uint8Array(r.length), s)).toBe(false);
      expect(verify(curve, key.y, key.x, message, r, s)).toBe(false);
    },
  );
  it('is the signature of RFC 6979, A.2.6, for its key and message', () => {
    const secret = Buffer.from(
      '6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5',
      'hex',
    );
    const { r, s } = sign(
      { curve: 'p-384', secret, x: secret, y: secret },
      new TextEncoder().encode('sample'),
    );
    expect(hex(r)).toBe(
      '94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46',
    );
    expect(hex(s)).toBe(
      '99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8',
    );
  });
});

describe('rsaKey', () => {
  const key = rsaKey(3n, 'test');
  it('has 4096 bits', () => {
    expect(key.modulus.toString(2).length).toBe(8 * MODULUS_BYTES);
  });
  it('signs so that another implementation accepts it, the same each time', () => {
    const publicKey = createPublicKey({
      key: Buffer.from(rsaPublicKeyInfo(key)),
      format: 'der',
      type: 'spki',
    });
    const signature = signPss(key, message);
    expect(hex(signPss(rsaKey(3n, 'test'), message))).toBe(hex(signature));
    const check = (text: Uint8Array): boolean =>
      nativeVerify(
        'sha384',
        text,
        { key: publicKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 48 },
        signature,
      );
    expect(check(message)).toBe(true);
    expect(check(new Uint8Array(1))).toBe(false);
  });
});

describe('certificate', () => {
  const root = rsaKey(3n, 'test');
  const leaf = ecKey('p-384', 3n, 'leaf');
  const name = [
    ['countryName', 'XX'],
    ['commonName', 'a root'],
  ] as const;
  const parts = { serial: 200n, issuer: name, notBefore: 1_700_000_000, notAfter: 2_600_000_000 };
  const rootDer = certificate(
    {
      ...parts,
      subject: name,
      publicKey: rsaPublicKeyInfo(root),
      extensions: [
        basicConstraints(true, 1),
        keyUsage('certificateSign', 'crlSign'),
        subjectKeyIdentifier(rsaPublicKeyInfo(root)),
      ],
    },
    rsaSigner(root),
  );
  it('is read and verified by another implementation', () => {
    const leafDer = certificate(
      {
        ...parts,
        subject: [['commonName', 'a leaf']],
        publicKey: ecPublicKeyInfo(leaf),
        extensions: [basicConstraints(false)],
      },
      rsaSigner(root),
    );
    const readRoot = new X509Certificate(rootDer);
    const readLeaf = new X509Certificate(pem('CERTIFICATE', leafDer));
    expect(readRoot.ca).toBe(true);
    expect(readRoot.verify(readRoot.publicKey)).toBe(true);
    expect(readLeaf.verify(readRoot.publicKey)).toBe(true);
    expect(readLeaf.checkIssued(readRoot)).toBe(true);
    expect(readLeaf.serialNumber).toBe('C8');
    expect(readLeaf.validFrom).toBe('Nov 14 22:13:20 2023 GMT');
    expect(readLeaf.validTo).toBe('May 22 14:13:20 2052 GMT');
  });
  it('signed by an elliptic-curve key verifies as well', () => {
    const signer = ecKey('p-256', 3n, 'signer');
    const der = certificate(
      { ...parts, subject: name, publicKey: ecPublicKeyInfo(signer), extensions: [] },
      ecSigner(signer),
    );
    const read = new X509Certificate(der);
    expect(read.verify(read.publicKey)).toBe(true);
  });
  it('identifies a key by the SHA-1 of its bits', () => {
    const info = ecPublicKeyInfo(leaf);
    expect(hex(keyIdentifier(info))).toBe(createHash('sha1').update(info.subarray(-97)).digest('hex'));
  });
});

describe('time', () => {
  it('is a UTCTime until 2049 and a GeneralizedTime after', () => {
    expect(Buffer.from(encode(time(0))).toString('latin1')).toBe('\x17\x0d700101000000Z');
    expect(Buffer.from(encode(time(2_524_607_999))).toString('latin1')).toBe('\x17\x0d491231235959Z');
    expect(Buffer.from(encode(time(2_524_608_000))).toString('latin1')).toBe('\x18\x0f20500101000000Z');
  });
});
