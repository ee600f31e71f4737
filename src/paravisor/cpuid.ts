/** CPUID leaves that say how the guest is isolated: hidden, so that the guest does not try to manage it itself. */

import type { Completion } from '../seats/exits.ts';

/** SEV (AMD APM vol. 3, E.4.17) and TDX (Intel TDX Module Base Architecture, "CPUID virtualization"). */
const HIDDEN: readonly number[] = [0x8000_001f, 0x21];

const NOTHING: Completion = { kind: 'registers', eax: 0, ebx: 0, ecx: 0, edx: 0 };

export function hiddenLeaf(leaf: number): Completion | undefined {
  return HIDDEN.includes(leaf) ? NOTHING : undefined;
}
