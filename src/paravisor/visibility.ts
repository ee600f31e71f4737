/**
 * HvCallModifySparseGpaPageHostVisibility: the one call by which the guest shares pages with the host and takes them back (TLFS;
 * Linux 6.12 ivm.c hv_mark_gpa_visibility). The paravisor does the processor's part on both sides of the host's.
 */

import { CALL, STATUS } from '../abi/hyperv/hypercall.ts';
import { hostVisibilityInput, PARTITION_SELF } from '../abi/hyperv/inputs.ts';
import { PRIVILEGE_HIGH } from '../abi/hyperv/cpuid.ts';
import { EVENT, EVENT_CLASS } from '../abi/events.ts';
import { exact, u32 } from '../abi/record.ts';
import type { Hypercall, HypercallAnswer, HypercallRow } from '../chipset/hypercall.ts';
import { hasPart } from './parts.ts';
import { FAILURE } from './requests.ts';
import {
  ask,
  isGuestRam,
  isShared,
  LARGE_PAGE,
  setShared,
  type GuestCaller,
  type ParavisorCall,
} from './state.ts';

/** Visibility 0: the guest's own; 3: the host reads and writes. Read-only (1) is not offered. */
const PRIVATE = 0;
const READ_WRITE = 3;
const PAGE = 4096;

export const visibilityRow: HypercallRow<GuestCaller> = {
  name: 'HvCallModifySparseGpaPageHostVisibility',
  code: CALL.modifySparseGpaPageHostVisibility,
  input: hostVisibilityInput.size,
  output: 0,
  rep: { input: 8, output: 0 },
  privilege: PRIVILEGE_HIGH.isolation,
  serve: modifyVisibility,
};

function modifyVisibility(caller: GuestCaller, hypercall: Hypercall): HypercallAnswer {
  const { call, guest } = caller;
  const { control, input, elementsAt } = hypercall;
  const refuse = (status: number): HypercallAnswer => ({ status, reps: control.repStart });
  if (guest.change !== undefined) return goOn(caller, hypercall);
  if (!hasPart(call.state.config.parts, 'mem.visibility-call')) return refuse(STATUS.invalidHypercallCode);
  const { partitionId, visibility } = hostVisibilityInput.read(input);
  if (partitionId !== PARTITION_SELF) return refuse(STATUS.accessDenied);
  if (visibility !== PRIVATE && visibility !== READ_WRITE) return refuse(STATUS.invalidParameter);
  const shared = visibility === READ_WRITE;
  const gpas: number[] = [];
  for (let rep = control.repStart; rep < control.repCount; rep++) {
    const at = elementsAt + 8 * rep;
    const page = exact(u32(input, at), u32(input, at + 4));
    const gpa = page === undefined ? Infinity : page * PAGE;
    if (!isGuestRam(call.state, gpa))
      return report(call, caller, gpa, 0, shared, STATUS.operationDenied, rep);
    if (isShared(call.state, gpa) !== shared && !gpas.includes(gpa)) gpas.push(gpa);
  }
  // Pages of an overlay are where the guest put them; the host must not get the paravisor's page.
  for (const { gpa } of Object.values(call.state.overlays)) {
    if (gpa !== undefined && gpas.includes(gpa))
      return report(call, caller, gpa, 0, shared, STATUS.operationDenied, control.repStart);
  }
  if (gpas.length === 0) return { status: STATUS.success, reps: control.repCount };
  gpas.sort((a, b) => a - b);
  const blocks = [...new Set(gpas.map((gpa) => gpa - (gpa % LARGE_PAGE)))].filter(
    (block) => call.state.large[block / LARGE_PAGE] === 1,
  );
  if (blocks.length === 0) return change(caller, hypercall, gpas, shared);
  guest.change = { gpas, shared, stage: 'split', answered: false };
  ask(guest, { kind: 'page-state', gpas: blocks, shared: false, split: true }, 'again');
  return { status: STATUS.success, reps: control.repStart, unfinished: true };
}

/** The pages are small ones: the processor's part before the host's, and the host is asked for its own. */
function change(
  caller: GuestCaller,
  { control }: Hypercall,
  gpas: readonly number[],
  shared: boolean,
): HypercallAnswer {
  const { call, guest } = caller;
  guest.change = undefined;
  if (shared) {
    for (const gpa of gpas) if (!call.processor.release(gpa)) return fail(caller, FAILURE.memory);
  }
  guest.change = { gpas, shared, stage: 'change', answered: false };
  ask(guest, { kind: 'page-state', gpas, shared }, 'again');
  return { status: STATUS.success, reps: control.repStart, unfinished: true };
}

/** The host has answered. */
function goOn(caller: GuestCaller, hypercall: Hypercall): HypercallAnswer {
  const { call, guest } = caller;
  const under = guest.change;
  if (under === undefined) throw new Error('no change of visibility is under way');
  if (under.stage === 'change') return finish(call, caller, hypercall);
  if (!under.answered) {
    guest.change = undefined;
    return fail(caller, FAILURE.pageState);
  }
  for (const gpa of under.gpas) call.state.large[Math.floor(gpa / LARGE_PAGE)] = 0;
  return change(caller, hypercall, under.gpas, under.shared);
}

/** The host has answered. What the guest has written over its list meanwhile does not count. */
function finish(call: ParavisorCall, caller: GuestCaller, { control }: Hypercall): HypercallAnswer {
  const { guest } = caller;
  const { change } = guest;
  if (change === undefined) throw new Error('no change of visibility is under way');
  guest.change = undefined;
  // Half of the pages may be the host's now: a guest that went on could not know which.
  if (!change.answered) return fail(caller, FAILURE.pageState);
  for (const gpa of change.gpas) {
    if (!change.shared && !call.processor.claim(gpa)) return fail(caller, FAILURE.memory);
    setShared(call.state, gpa, change.shared);
  }
  call.processor.flush(call.state.vps.map(({ index }) => index));
  for (let at = 0; at < change.gpas.length;) {
    const pages = runLength(change.gpas, at);
    report(call, caller, change.gpas[at] ?? 0, pages, change.shared, STATUS.success, 0);
    at += pages;
  }
  return { status: STATUS.success, reps: control.repCount };
}

/** Pages in a row from the `from`-th on. */
export function runLength(gpas: readonly number[], from: number): number {
  let count = 1;
  while (from + count < gpas.length && gpas[from + count] === (gpas[from] ?? 0) + count * PAGE) count++;
  return count;
}

function fail({ guest }: GuestCaller, reason: number): HypercallAnswer {
  ask(guest, { kind: 'fail', reason });
  return { status: STATUS.operationDenied, reps: 0 };
}

function report(
  call: ParavisorCall,
  { vp }: GuestCaller,
  gpa: number,
  pages: number,
  shared: boolean,
  status: number,
  reps: number,
): HypercallAnswer {
  if (call.sink.mask & EVENT_CLASS.page) {
    call.sink.emit(EVENT.visibility, call.now, vp.index, gpa, pages, shared ? 1 : 0, status);
  }
  return { status, reps };
}
