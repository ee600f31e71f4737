/** ECDSA keys and signatures on the NIST curves P-256 and P-384, deterministic by RFC 6979. */
import { p256, p384 } from '@noble/curves/nist.js';
import { bits, encode, oid, sequence } from './der.ts';
import { derive } from './seed.ts';
import type { Signer } from './x509.ts';

/** Curve, hash and the names of RFC 5480 and RFC 5758. */
const CURVES = {
  'p-256': { curve: p256, size: 32, name: '1.2.840.10045.3.1.7', signature: '1.2.840.10045.4.3.2' },
  'p-384': { curve: p384, size: 48, name: '1.3.132.0.34', signature: '1.2.840.10045.4.3.3' },
} as const;

export type CurveName = keyof typeof CURVES;

export interface EcKey {
  readonly curve: CurveName;
  readonly secret: Uint8Array;
  /** X and Y, big-endian, each of the size of the field. */
  readonly x: Uint8Array;
  readonly y: Uint8Array;
}

export function ecKey(curve: CurveName, seed: bigint, purpose: string): EcKey {
  const { curve: point, size } = CURVES[curve];
  const { secretKey } = point.keygen(derive(seed, purpose, size + size / 2));
  const both = point.getPublicKey(secretKey, false);
  return { curve, secret: secretKey, x: both.slice(1, 1 + size), y: both.slice(1 + size) };
}

/** R and S, big-endian, over the curve's SHA-2 digest of `message`. */
export function sign(key: EcKey, message: Uint8Array): { readonly r: Uint8Array; readonly s: Uint8Array } {
  const { curve, size } = CURVES[key.curve];
  const both = curve.sign(message, key.secret, { lowS: false });
  return { r: both.slice(0, size), s: both.slice(size) };
}

/** Whether `r` and `s` sign `message`. Coordinates and values are big-endian; anything out of range is no signature. */
export function verify(
  curve: CurveName,
  x: Uint8Array,
  y: Uint8Array,
  message: Uint8Array,
  r: Uint8Array,
  s: Uint8Array,
): boolean {
  const { curve: point, size } = CURVES[curve];
  const key = new Uint8Array(1 + 2 * size);
  key[0] = 4;
  key.set(x, 1);
  key.set(y, 1 + size);
  const both = new Uint8Array(2 * size);
  both.set(r);
  both.set(s, size);
  if (!point.utils.isValidPublicKey(key, false)) return false;
  try {
    return point.verify(both, message, key, { lowS: false });
  } catch {
    // The library throws at an R or S of zero or above the order.
    return false;
  }
}

/** SubjectPublicKeyInfo of RFC 5480. */
export function ecPublicKeyInfo(key: EcKey): Uint8Array {
  const point = new Uint8Array(1 + key.x.length + key.y.length);
  point[0] = 4;
  point.set(key.x, 1);
  point.set(key.y, 1 + key.x.length);
  return encode(sequence(sequence(oid('1.2.840.10045.2.1'), oid(CURVES[key.curve].name)), bits(point)));
}

export function ecSigner(key: EcKey): Signer {
  const { curve, signature } = CURVES[key.curve];
  return {
    algorithm: () => sequence(oid(signature)),
    sign: (message) => curve.sign(message, key.secret, { lowS: false, format: 'der' }),
  };
}
