/**
 * Memory encryption. A frame holds plaintext and the number of the key that it is plaintext under (its domain; 0: none).
 * Towards any other domain it is what XTS-AES-128 (IEEE 1619) with the frame's system-physical page as data unit makes of
 * it: the same plaintext at the same place gives the same ciphertext, and elsewhere another. AMD does not publish the
 * tweak function of its memory controllers; this one has the properties that APM vol. 2, 7.10 and 15.34 describe.
 */
import { ecb } from '@noble/ciphers/aes.js';
import { derive } from '../pki/seed.ts';

const PAGE = 4096;
const WORDS = PAGE / 4;

interface Keys {
  readonly data: Uint8Array;
  readonly tweak: Uint8Array;
}

export class MemoryKeys {
  readonly #seed: bigint;
  readonly #keys = new Map<number, Keys>();
  readonly #tweaks = new Uint32Array(WORDS);

  constructor(seed: bigint) {
    this.#seed = seed;
  }

  #of(domain: number): Keys {
    let keys = this.#keys.get(domain);
    if (keys === undefined) {
      const bytes = derive(this.#seed, `memory key ${domain}`, 32);
      keys = { data: bytes.slice(0, 16), tweak: bytes.slice(16) };
      this.#keys.set(domain, keys);
    }
    return keys;
  }

  /** Tweaks of the 256 blocks of data unit `page`, each the one before times x in GF(2^128). */
  #fillTweaks(keys: Keys, page: number): Uint32Array {
    const unit = new Uint8Array(16);
    new DataView(unit.buffer).setUint32(0, page, true);
    const first = ecb(keys.tweak, { disablePadding: true }).encrypt(unit);
    const view = new DataView(first.buffer, first.byteOffset, 16);
    const tweaks = this.#tweaks;
    let [a, b, c, d] = [0, 4, 8, 12].map((at) => view.getUint32(at, true)) as [
      number,
      number,
      number,
      number,
    ];
    for (let k = 0; k < WORDS; k += 4) {
      tweaks[k] = a;
      tweaks[k + 1] = b;
      tweaks[k + 2] = c;
      tweaks[k + 3] = d;
      const carry = d >>> 31;
      d = (d << 1) | (c >>> 31);
      c = (c << 1) | (b >>> 31);
      b = (b << 1) | (a >>> 31);
      a = (a << 1) ^ (carry * 0x87);
    }
    return tweaks;
  }

  #apply(domain: number, page: number, bytes: Uint8Array, direction: 'encrypt' | 'decrypt'): Uint8Array {
    const keys = this.#of(domain);
    const tweaks = this.#fillTweaks(keys, page);
    const work = bytes.slice();
    const words = new Uint32Array(work.buffer);
    for (let k = 0; k < WORDS; k++) words[k] = (words[k] as number) ^ (tweaks[k] as number);
    const cipher = ecb(keys.data, { disablePadding: true });
    const out = direction === 'encrypt' ? cipher.encrypt(work) : cipher.decrypt(work);
    const result = new Uint8Array(PAGE);
    result.set(out);
    const outWords = new Uint32Array(result.buffer);
    for (let k = 0; k < WORDS; k++) outWords[k] = (outWords[k] as number) ^ (tweaks[k] as number);
    return result;
  }

  /** What plaintext `bytes` of domain `from` in system page `page` is in domain `to`. */
  convert(bytes: Uint8Array, page: number, from: number, to: number): Uint8Array {
    if (from === to) return bytes.slice();
    const stored = from === 0 ? bytes.slice() : this.#apply(from, page, bytes, 'encrypt');
    return to === 0 ? stored : this.#apply(to, page, stored, 'decrypt');
  }
}
