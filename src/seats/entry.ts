/** What a host names when it lets a virtual processor run: the context, as its silicon knows it. */
import type { Vmcb } from './snp.ts';

export type ContextEntry =
  /** VMRUN. The host's control block; fields that the silicon returns are written back into it, as into a real VMCB. */
  | { readonly kind: 'vmrun'; readonly vmcb: Vmcb }
  /** TDH.VP.ENTER of the TD's virtual processor. */
  | { readonly kind: 'tdh-vp-enter'; readonly vcpu: number };

/** What waits for a virtual processor at the host's model of its APIC. */
export type Waiting = 'none' | 'interrupt' | 'external' | 'nmi';

/** How silicon takes what waits. */
export interface InterruptSource {
  readonly waiting: Waiting;
  takeNmi(): void;
  /** Acknowledges; gives the vector. */
  takeVector(): number;
  /** What waits after something was taken. */
  more?(): Waiting;
}
