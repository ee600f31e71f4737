/**
 * Overlay pages (Hyper-V TLFS 5.2.1): while a page register is enabled, a page of the hypervisor shows at the address
 * that it names; moving the register moves the page with its contents, disabling it brings the memory back.
 *
 * Where the view cannot show hidden pages, the contents are copied into guest memory instead, and saved when the
 * page goes away; what lay there before is then lost, which a guest may not rely on anyway.
 */

import { PAGE_SIZE } from '../../abi/hyperv/pages.ts';
import { EVENT, EVENT_CLASS } from '../../abi/events.ts';
import type { PartitionCall } from './state.ts';

export interface OverlayPage {
  /** Where it shows. */
  gpa: number | undefined;
  /** Contents while it does not show, of pages that are copied. */
  saved: Uint8Array | undefined;
}

/** Slots: two of the partition, then three for each VP. */
export const HYPERCALL_SLOT = 0;
export const REFERENCE_TSC_SLOT = 1;
export const assistSlot = (vp: number): number => 2 + 3 * vp;
export const messageSlot = (vp: number): number => 3 + 3 * vp;
export const flagsSlot = (vp: number): number => 4 + 3 * vp;

/**
 * Shows page `slot` at `gpa`, with `contents` if given, or hides it. False: there is no memory at that address, and
 * nothing has changed.
 */
export function showOverlay(
  call: PartitionCall,
  slot: number,
  gpa: number | undefined,
  contents?: Uint8Array,
): boolean {
  const { state, view } = call;
  const page = (state.overlays[slot] ??= { gpa: undefined, saved: undefined });
  const moved = page.gpa !== gpa;
  if (moved) {
    const outcome = view.overlay(slot, gpa);
    if (!outcome.ok) {
      if (outcome.reason !== 'unsupported') return false;
      const old = page.gpa === undefined ? undefined : view.read(page.gpa, PAGE_SIZE);
      const kept = old?.ok === true ? old.bytes : page.saved;
      const shown = contents ?? kept ?? new Uint8Array(PAGE_SIZE);
      if (gpa !== undefined && !view.write(gpa, shown).ok) return false;
      page.saved = kept;
    }
    page.gpa = gpa;
    if (call.sink.mask & EVENT_CLASS.memory) {
      call.sink.emit(EVENT.overlay, call.now, 0, slot, gpa ?? 0, gpa === undefined ? 0 : 1, 0);
    }
  }
  if (gpa === undefined || contents === undefined) return true;
  return view.write(gpa, contents).ok;
}
