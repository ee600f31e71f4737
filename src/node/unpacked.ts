/**
 * What was taken out of a package, kept in the cache: unpacking costs more than everything else before the first instruction.
 * An entry is named by the package's SHA-256 and verified like every other one; a cache that cannot be written keeps nothing.
 */
import { decodeValue, encodeValue } from '../machine/codec.ts';
import type { Cache } from './cache.ts';
import { UserError } from './errors.ts';

const PREFIX = 'unpacked-';
/** Older ones go when there are more: a package that was updated leaves one behind. */
const MOST_KEPT = 8;

/** `kind` names what is taken and how: with another way of taking it, the name is another. */
export class Unpacked<T> {
  readonly #kind: string;

  constructor(kind: string) {
    this.#kind = `${PREFIX}${kind}-`;
  }

  kept(cache: Cache, packageSha256: string): T | undefined {
    for (const entry of cache.find((name) => name === this.#kind + packageSha256)) {
      const bytes = cache.read(entry);
      if (bytes !== undefined) return decodeValue(bytes) as T;
    }
    return undefined;
  }

  keep(cache: Cache, packageSha256: string, value: T): void {
    try {
      cache.write(this.#kind + packageSha256, encodeValue(value));
      cache.removeOldest((name) => name.startsWith(PREFIX), MOST_KEPT);
    } catch (error) {
      // It only saves time.
      if (!(error instanceof UserError)) throw error;
    }
  }
}
