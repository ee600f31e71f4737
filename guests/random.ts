/** The random choices of property tests: the same every time. */

/** Mulberry32: the same cases every time. */
export function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
}

export interface Source {
  below(n: number): number;
  pick<T>(list: readonly T[]): T;
  /** A word: small, an address, a single bit, or anything. */
  word(interesting: readonly bigint[]): bigint;
}
export function source(seed: number): Source {
  const next = random(seed);
  const below = (n: number): number => next() % n;
  const pick = <T>(list: readonly T[]): T => list[below(list.length)] as T;
  return {
    below,
    pick,
    word(interesting) {
      const any = (): bigint => (BigInt(next()) << 32n) | BigInt(next());
      switch (below(8)) {
        case 0:
          return BigInt(below(32));
        case 1:
          return 1n << BigInt(below(64));
        case 2:
          return any();
        case 3:
          return pick(interesting) | (1n << 47n);
        case 4:
          return pick(interesting) | BigInt(below(8));
        case 5:
          return pick(interesting) + BigInt(below(64)) * 8n;
        default:
          return pick(interesting);
      }
    },
  };
}
