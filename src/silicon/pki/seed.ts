/**
 * Secrets of a development platform, all derived from the machine's seed: two machines with one seed have the same chip, keys
 * and certificates. Nothing here is secret from somebody who knows the seed.
 */
import { hkdf } from '@noble/hashes/hkdf.js';
import { sha512 } from '@noble/hashes/sha2.js';
import { ascii } from '../../abi/bytes.ts';

/** `length` bytes (at most 16320) that depend on the seed and on what they are for. */
export function derive(seed: bigint, purpose: string, length: number): Uint8Array {
  const key = new Uint8Array(8);
  new DataView(key.buffer).setBigUint64(0, BigInt.asUintN(64, seed), true);
  return hkdf(sha512, key, ascii('vitrine development platform'), ascii(purpose), length);
}
