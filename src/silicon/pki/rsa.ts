/**
 * RSA-4096 keys from the seed and RSASSA-PSS with SHA-384 (RFC 8017), which AMD's root keys use. No library signs with a given
 * salt, so the encoding is here; the test for primes and the arithmetic are libraries'. A key has eight primes of 512 bits (RFC
 * 8017, 3.2): a verifier sees no difference, and the key is found in a fraction of a second instead of half a minute. Whoever
 * knows the seed knows the key anyway.
 */
import { pow, invert } from '@noble/curves/abstract/modular.js';
import { isProbablePrimeRSA } from 'micro-rsa-dsa-dh/primality.js';
import { mgf1 } from 'micro-rsa-dsa-dh/rsa.js';
import { sha384 } from '@noble/hashes/sha2.js';
import { concat } from '../../abi/bytes.ts';
import { bits, encode, explicit, integer, nothing, oid, sequence, type Node } from './der.ts';
import { derive } from './seed.ts';
import type { Signer } from './x509.ts';

const PRIMES = 8;
const PRIME_BYTES = 64;
export const MODULUS_BYTES = PRIMES * PRIME_BYTES;
const EXPONENT = 65537n;
const SALT = 48;
const HASH = 48;

export interface RsaKey {
  readonly modulus: bigint;
  readonly exponent: bigint;
  readonly primes: readonly bigint[];
  /** Makes salts: as unpredictable as the key. */
  readonly salting: Uint8Array;
}

export function rsaKey(seed: bigint, purpose: string): RsaKey {
  const primes = Array.from({ length: PRIMES }, (_, i) => prime(seed, `${purpose} prime ${i}`));
  return {
    modulus: primes.reduce((product, p) => product * p, 1n),
    exponent: EXPONENT,
    primes,
    salting: derive(seed, `${purpose} salt`, HASH),
  };
}

/** Odd primes below 2^13. */
const SMALL = Array.from({ length: 4096 }, (_, i) => 2 * i + 3).filter((n) => {
  for (let d = 3; d * d <= n; d += 2) if (n % d === 0) return false;
  return true;
});

/**
 * The first prime p with gcd(p - 1, e) = 1 from a derived start. The top bits of the start are set so high that the product of
 * eight has its full length.
 */
function prime(seed: bigint, purpose: string): bigint {
  const start = derive(seed, purpose, PRIME_BYTES);
  start[0] = 0xf0 | (start[0] as number);
  const least = integerOf(start) | 1n;
  const residues = SMALL.map((divisor) => Number(least % BigInt(divisor)));
  let round = 0;
  const bases = (length?: number): Uint8Array => derive(seed, `${purpose} base ${round++}`, length ?? 32);
  for (let step = 0; ; step += 2) {
    if (SMALL.some((divisor, i) => ((residues[i] as number) + step) % divisor === 0)) continue;
    const candidate = least + BigInt(step);
    if ((candidate - 1n) % EXPONENT !== 0n && isProbablePrimeRSA(candidate, bases)) return candidate;
  }
}

/** RSASP1 with the Chinese remainder theorem. */
function power(key: RsaKey, message: bigint): bigint {
  let result = 0n;
  let product = 1n;
  for (const p of key.primes) {
    const part = pow(message % p, invert(EXPONENT, p - 1n), p);
    const step = ((part - result) * invert(product % p, p)) % p;
    result += product * (step < 0n ? step + p : step);
    product *= p;
  }
  return result;
}

/** EMSA-PSS-ENCODE (RFC 8017, 9.1.1) for a modulus whose top bit is set, with a salt that the message determines. */
function encodePss(key: RsaKey, message: Uint8Array): Uint8Array {
  const hash = sha384(message);
  const salt = sha384(concat(key.salting, hash));
  const seal = sha384(concat(new Uint8Array(8), hash, salt));
  const block = new Uint8Array(MODULUS_BYTES - HASH - 1);
  block[block.length - SALT - 1] = 1;
  block.set(salt, block.length - SALT);
  const mask = mgf1(sha384)(seal, { dkLen: block.length });
  for (let i = 0; i < block.length; i++) block[i] = (block[i] as number) ^ (mask[i] as number);
  block[0] = (block[0] as number) & 0x7f;
  return concat(block, seal, 0xbc);
}

export function signPss(key: RsaKey, message: Uint8Array): Uint8Array {
  return bytesOf(power(key, integerOf(encodePss(key, message))), MODULUS_BYTES);
}

/** RSASSA-PSS-params (RFC 4055, 3.1); all that differs from the defaults, and the trailer as AMD's certificates have it. */
function pssAlgorithm(): Node {
  const hash = (): Node => sequence(oid('2.16.840.1.101.3.4.2.2'), nothing());
  return sequence(
    oid('1.2.840.113549.1.1.10'),
    sequence(
      explicit(0, hash()),
      explicit(1, sequence(oid('1.2.840.113549.1.1.8'), hash())),
      explicit(2, integer(SALT)),
      explicit(3, integer(1)),
    ),
  );
}

export function rsaSigner(key: RsaKey): Signer {
  return { algorithm: pssAlgorithm, sign: (message) => signPss(key, message) };
}

/** SubjectPublicKeyInfo with rsaEncryption (RFC 3279, 2.3.1), as AMD's certificates have it. */
export function rsaPublicKeyInfo(key: RsaKey): Uint8Array {
  return encode(
    sequence(
      sequence(oid('1.2.840.113549.1.1.1'), nothing()),
      bits(encode(sequence(integer(key.modulus), integer(key.exponent)))),
    ),
  );
}

function integerOf(bytes: Uint8Array): bigint {
  let text = '0x';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return BigInt(text);
}

function bytesOf(value: bigint, length: number): Uint8Array {
  const text = value.toString(16).padStart(2 * length, '0');
  return Uint8Array.from({ length }, (_, i) => parseInt(text.slice(2 * i, 2 * i + 2), 16));
}
