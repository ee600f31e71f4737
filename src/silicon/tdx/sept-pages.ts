/**
 * System pages that the host has given for tables of the secure EPT. Level 1 holds 4 KiB entries (2 MiB of addresses), level 2
 * those of 2 MiB (1 GiB), level 3 those of 1 GiB (512 GiB); the root came with the TD. VM 0 is L1; an L2 VM has its own.
 */
import { BLOCK } from './tables.ts';

const SPAN = [0, BLOCK, 512 * BLOCK, 512 * 512 * BLOCK] as const;

/** Guest-physical bytes below one table of this level. */
export function septSpan(level: number): number {
  return SPAN[level] ?? Infinity;
}

export function septKey(vm: number, level: number, gpa: number): string {
  return `${vm} ${level} ${Math.floor(gpa / septSpan(level))}`;
}
