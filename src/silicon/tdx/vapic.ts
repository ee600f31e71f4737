/**
 * The virtual APIC of a TD's virtual processor: the part of the local APIC that the module and the processor have, not the
 * host. Vectors come by posted interrupts; TPR, EOI and SELF_IPI are the guest's own (Intel SDM vol. 3, 30.1 and 30.6).
 */
import { addVector, highestVector, removeVector } from '../../chipset/vector-set.ts';
import type { VcpuState } from './state.ts';

type Vapic = Pick<VcpuState, 'tpr' | 'irr' | 'isr'>;

/** Posting of vectors 0 to 30 is ignored (TDX Module Base Architecture, "Virtual interrupt"). */
export const FIRST_POSTED_VECTOR = 31;

/** False: the module drops it. */
export function post(vapic: Vapic, vector: number): boolean {
  if (vector < FIRST_POSTED_VECTOR || vector > 255) return false;
  addVector(vapic.irr, vector);
  return true;
}

/** Processor priority: the class that must be exceeded. */
export function processorPriority({ tpr, isr }: Vapic): number {
  const serviced = Math.max(highestVector(isr), 0);
  return tpr >>> 4 >= serviced >>> 4 ? tpr : serviced & 0xf0;
}

/** Vector that can be delivered now but for RFLAGS.IF; -1: none. */
export function deliverable(vapic: Vapic): number {
  const vector = highestVector(vapic.irr);
  return vector >= 0 && vector >>> 4 > processorPriority(vapic) >>> 4 ? vector : -1;
}

/** Virtual-interrupt delivery of a vector that `deliverable` gave. */
export function accept(vapic: Vapic, vector: number): void {
  removeVector(vapic.irr, vector);
  addVector(vapic.isr, vector);
}

export function endOfInterrupt(vapic: Vapic): void {
  const vector = highestVector(vapic.isr);
  if (vector >= 0) removeVector(vapic.isr, vector);
}
