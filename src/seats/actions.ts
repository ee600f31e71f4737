/** What a host asks of the machine, beside completing an exit. Carried out in order, before any vCPU runs again. */

export type EndReason =
  /** ACPI S5. */
  | 'power-off'
  /** ACPI S4. */
  | 'hibernate'
  /** Reset register, synthetic reset MSR or keyboard controller. */
  | 'reset'
  | 'triple-fault';

/** `pages` pages of 4 KiB from this guest-virtual address on. */
export interface FlushRange {
  readonly lo: number;
  readonly hi: number;
  readonly pages: number;
}

export type HostAction =
  /** INIT signal: the vCPU goes to its reset state and waits for a start. */
  | { readonly kind: 'init'; readonly vp: number }
  /** SIPI accepted: real mode at vector * 0x1000. */
  | { readonly kind: 'startup'; readonly vp: number; readonly vector: number }
  /** HvCallStartVirtualProcessor: the 224 bytes of HvInitialVpContext. */
  | { readonly kind: 'start-context'; readonly vp: number; readonly context: Uint8Array }
  /**
   * Translations of these vCPUs are gone before any of them runs again: those of `ranges`, whatever their address space,
   * or all (`undefined`), except global ones when `keepGlobal`. Flushing more is always correct.
   */
  | {
      readonly kind: 'flush-tlb';
      readonly vps: readonly number[];
      readonly ranges: readonly FlushRange[] | undefined;
      readonly keepGlobal: boolean;
    }
  /** Bytes that a UART sent; `unit` counts from 0 (COM1). */
  | { readonly kind: 'serial'; readonly unit: number; readonly bytes: Uint8Array }
  /** The guest's crash report (CRASH_CTL): P0..P4 and, where it gave one, its message. */
  | {
      readonly kind: 'crash';
      readonly parameters: readonly bigint[];
      readonly message: Uint8Array | undefined;
    }
  /** The guest asked to be ended, or its host cannot let it go on; `what` says why. */
  | { readonly kind: 'terminate'; readonly vp: number; readonly what: string }
  | { readonly kind: 'end'; readonly reason: EndReason };
