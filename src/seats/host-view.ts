/**
 * All that a host sees of a guest. The implementation belongs to silicon or machine and keeps its state out of
 * reach; what it returns are copies, and every access is checked again, because the answer can change between two
 * of them (a page may turn private). In `plain` it shows clear text and all registers.
 */

import type { RegisterValue } from '../abi/hyperv/registers.ts';

export type AccessRefusal =
  /** No memory there. */
  | 'unmapped'
  /** The guest keeps this page, or this register, to itself. */
  | 'private'
  /** This view has no such thing. */
  | 'unsupported';

export type ReadOutcome =
  { readonly ok: true; readonly bytes: Uint8Array } | { readonly ok: false; readonly reason: AccessRefusal };

export type WriteOutcome = { readonly ok: true } | { readonly ok: false; readonly reason: AccessRefusal };

export interface HostView {
  /** A copy of guest memory. All of the range or nothing. */
  read(gpa: number, length: number): ReadOutcome;
  write(gpa: number, bytes: Uint8Array): WriteOutcome;

  /**
   * Shows hidden page `slot` of the hypervisor at `gpa` instead of the memory there, or takes it away again
   * (`undefined`). A slot keeps its contents, zeros at first, and is reached through `read` and `write` at the
   * address where it shows. When it is refused nothing has changed; taking away is never refused, unless by
   * `unsupported`: then the host must copy into guest memory instead.
   */
  overlay(slot: number, gpa: number | undefined): WriteOutcome;

  /** A register of a stopped vCPU, by its Hyper-V register name; `undefined` when the view does not show it. */
  getRegister(vp: number, name: number): RegisterValue | undefined;
  /** False when the view does not let it be changed, or the value is not allowed. */
  setRegister(vp: number, name: number, value: RegisterValue): boolean;
}
