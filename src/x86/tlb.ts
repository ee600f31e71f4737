/** Looks at a TLB from outside. */
import { TLB, TLBUSE } from './layout.ts';

/**
 * Visits the addresses of the data entries of the TLB at `area` that may have been filled since the last flush. What it visits
 * may have been dropped, and it may visit an entry twice.
 */
export function eachFilledEntry(
  words: ArrayLike<number>,
  area: number,
  visit: (entry: number) => void,
): void {
  const use = area + TLB.use;
  const filled = (words[(use + TLBUSE.filled) >> 2] as number) >>> 0;
  if (filled < TLBUSE.listed) {
    for (let k = 0; k < filled; k++) visit(area + (words[((use + TLBUSE.list) >> 2) + k] as number));
    return;
  }
  const piece = TLB.arrayBytes / 64;
  for (let k = 0; k < 3 * 64; k++) {
    const word = words[(use + TLBUSE.data + (k >> 5) * 4) >> 2] as number;
    if ((word & (1 << (k & 31))) === 0) continue;
    for (let entry = area + k * piece; entry < area + (k + 1) * piece; entry += 32) visit(entry);
  }
}

/** Offsets in the TLB area of the data entries that hold something, in order. */
export function validEntries(words: ArrayLike<number>, area: number): number[] {
  const found = new Set<number>();
  eachFilledEntry(words, area, (entry) => {
    const holds = (tag: number): boolean => (words[(entry + tag) >> 2] as number) >>> 0 !== 0xffffffff;
    if (holds(TLB.read) || holds(TLB.write)) found.add(entry - area);
  });
  return [...found].sort((a, b) => a - b);
}
