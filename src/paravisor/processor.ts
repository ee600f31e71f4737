/**
 * What the two processors do differently, as the paravisor's policy sees it: its guest's memory and registers, and the operations
 * on pages and contexts that only its privilege level may use.
 */

import type { CpuidRegisters } from '../seats/exits.ts';
import type { HostView } from '../seats/host-view.ts';

export interface Processor {
  /**
   * The guest: memory as its private mappings see it, registers of its virtual processors. Segment registers are
   * HV_X64_SEGMENT_REGISTER: base, limit, selector | attributes << 16.
   */
  readonly view: HostView;
  /** CPUID of this virtual processor, from a source that the host does not control. */
  nativeCpuid(vp: number, leaf: number, subleaf: number): CpuidRegisters;
  /** The guest loses the page; afterwards the host may have it. False: it could not be done. */
  release(gpa: number): boolean;
  /** The page, back from the host, is accepted, cleared and given to the guest. */
  claim(gpa: number): boolean;
  /** The guest's translations of these virtual processors are gone when the guest runs next. */
  flush(vps: readonly number[]): void;
  /** Context of a guest's virtual processor after INIT; after SIPI; from HV_INITIAL_VP_CONTEXT. */
  init(vp: number): void;
  startup(vp: number, vector: number): void;
  startContext(vp: number, context: Uint8Array): void;
}
