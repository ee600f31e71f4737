/** A set of interrupt vectors: the 256-bit registers of a local APIC (IRR, ISR, TMR) as eight u32 words. */

export type VectorSet = number[];

export function emptyVectorSet(): VectorSet {
  return [0, 0, 0, 0, 0, 0, 0, 0];
}

export function clearVectors(set: VectorSet): void {
  set.fill(0);
}

export function hasVector(set: VectorSet, vector: number): boolean {
  return (((set[vector >>> 5] ?? 0) >>> (vector & 31)) & 1) !== 0;
}

export function addVector(set: VectorSet, vector: number): void {
  const word = vector >>> 5;
  set[word] = ((set[word] ?? 0) | (1 << (vector & 31))) >>> 0;
}

export function removeVector(set: VectorSet, vector: number): void {
  const word = vector >>> 5;
  set[word] = ((set[word] ?? 0) & ~(1 << (vector & 31))) >>> 0;
}

/** -1 when the set is empty. */
export function highestVector(set: VectorSet): number {
  for (let word = 7; word >= 0; word--) {
    const bits = set[word] ?? 0;
    if (bits !== 0) return word * 32 + 31 - Math.clz32(bits);
  }
  return -1;
}

/** Highest vector of both sets; -1 when there is none. */
export function highestCommonVector(a: VectorSet, b: VectorSet): number {
  for (let word = 7; word >= 0; word--) {
    const bits = ((a[word] ?? 0) & (b[word] ?? 0)) >>> 0;
    if (bits !== 0) return word * 32 + 31 - Math.clz32(bits);
  }
  return -1;
}
