/**
 * What a paravisor asks of its host: plain data, so that a paravisor that waits for an answer can be put into a snapshot. How a
 * request travels (GHCB, TDVMCALL) is the processor's part.
 */

export type HostRequest =
  | {
      readonly kind: 'io';
      readonly port: number;
      readonly size: 1 | 2 | 4;
      readonly write: boolean;
      readonly value: number;
    }
  | {
      readonly kind: 'mmio';
      readonly gpa: number;
      readonly size: 1 | 2 | 4 | 8;
      readonly write: boolean;
      readonly lo: number;
      readonly hi: number;
    }
  | {
      readonly kind: 'msr';
      readonly index: number;
      readonly write: boolean;
      readonly lo: number;
      readonly hi: number;
    }
  | { readonly kind: 'cpuid'; readonly leaf: number; readonly subleaf: number }
  /** Hypercall `code` with this input, to the hypervisor. `reps`: elements of a rep call. */
  | { readonly kind: 'hypercall'; readonly code: number; readonly reps: number; readonly input: Uint8Array }
  /**
   * These pages become the host's to read and write, or the guest's own. Ascending. `large`: of 2 MiB; `split`: such
   * pages become small ones instead.
   */
  | {
      readonly kind: 'page-state';
      readonly gpas: readonly number[];
      readonly shared: boolean;
      readonly large?: boolean;
      readonly split?: boolean;
    }
  /** The paravisor on another VP shall run: there is something for its guest. */
  | { readonly kind: 'wake'; readonly vp: number }
  /** The page by which this VP speaks with the host, and the one in which the host announces events. */
  | { readonly kind: 'register' }
  | { readonly kind: 'doorbell'; readonly gpa: number }
  /** No way to go on. */
  | { readonly kind: 'fail'; readonly reason: number };

/** Who waits for the answer. */
export type Purpose =
  /** Nobody. */
  | 'none'
  /** The guest's exit: it is completed with what the host said. */
  | 'guest'
  /** The guest's exit: it is looked at again. */
  | 'again'
  /** The paravisor itself, which cannot do without. */
  | 'setup'
  /** Whether a UART of the host has a byte; the byte. */
  | { readonly unit: number; readonly byte: boolean };

export interface Outgoing {
  readonly request: HostRequest;
  readonly purpose: Purpose;
}

export interface HostAnswer {
  /** False: the host refused, or what it said makes no sense. */
  readonly ok: boolean;
  readonly lo: number;
  readonly hi: number;
  /** CPUID: EAX, EBX in lo, hi and these. */
  readonly ecx?: number;
  readonly edx?: number;
}

/** Reasons of a paravisor that gives up (GHCB termination, reason set 0x7 is not taken by anybody; TD fatal error). */
export const FAILURE = {
  /** The measured page is not for this program. */
  configuration: 1,
  /** Memory could not be accepted: the host did not give it, or has changed it. */
  memory: 2,
  /** The host refused a page-state change. */
  pageState: 3,
  /** The host changed a page that the guest holds. */
  notValidated: 4,
  /** The host refused what every host serves. */
  host: 5,
  /** The guest's context is not as it was left. */
  context: 6,
  /** The guest stopped for a reason that nobody knows. */
  exit: 7,
} as const;
