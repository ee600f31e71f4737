/**
 * Page states as this host keeps them: which guest pages are private, in the RMP and in the nested table together. A 2 MiB
 * block is one entry in both until a part of it changes.
 */
import { EVENT, EVENT_CLASS, PAGE_STATE } from '../../abi/events.ts';
import { RMP_STATUS, type SnpHostView } from '../../seats/snp.ts';
import { ASID, BLOCK, PAGE, PAGE_KIND, snpView, spaOf, type SnpHost } from './state.ts';
import type { HostCall } from '../state.ts';

const PAGES_OF_BLOCK = BLOCK / PAGE;

export interface PageWorld {
  readonly call: HostCall;
  readonly snp: SnpHost;
  readonly view: SnpHostView;
}

export function pageWorld(call: HostCall): PageWorld {
  const { snp } = call.state;
  if (snp === undefined) throw new Error('no SNP guest');
  return { call, snp, view: snpView(call.view) };
}

const kindOf = ({ snp }: PageWorld, gpa: number): number => snp.pages[gpa / PAGE] ?? PAGE_KIND.none;
const setKind = ({ snp }: PageWorld, gpa: number, pages: number, kind: number): void =>
  void snp.pages.fill(kind, gpa / PAGE, gpa / PAGE + pages);

/** Whether the host may use the page for what the guest shares with it. */
export function isShared(snp: SnpHost, gpa: number, length = 1): boolean {
  for (let page = Math.floor(gpa / PAGE); page * PAGE < gpa + length; page++)
    if (snp.pages[page] !== PAGE_KIND.shared) return false;
  return true;
}

/** The block of `gpa` in 4 KiB entries, in both tables. */
function splitBlock(world: PageWorld, gpa: number): boolean {
  const { view } = world;
  const start = gpa - (gpa % BLOCK);
  if (kindOf(world, start) !== PAGE_KIND.privateLarge) return true;
  const spa = spaOf(view, start);
  if (spa === undefined || view.psmash(spa) !== RMP_STATUS.success) return false;
  setKind(world, start, PAGES_OF_BLOCK, PAGE_KIND.private);
  return true;
}

/** Nested entries of the block of `gpa` as 4 KiB ones: what a private 4 KiB page needs. */
function smallMappings({ view }: PageWorld, gpa: number): void {
  const start = gpa - (gpa % BLOCK);
  const mapping = view.mapping(start);
  if (mapping.kind !== 'page' || !mapping.large) return;
  for (let at = 0; at < BLOCK; at += PAGE)
    view.map(start + at, { kind: 'page', spa: mapping.spa + at, large: false, writable: true });
}

/** A change of one 4 KiB page. False: there is no such memory, or the hardware refused. */
function changeSmall(world: PageWorld, gpa: number, toPrivate: boolean): boolean {
  const kind = kindOf(world, gpa);
  if (kind === PAGE_KIND.none) return false;
  if (!splitBlock(world, gpa)) return false;
  smallMappings(world, gpa);
  const spa = spaOf(world.view, gpa);
  if (spa === undefined) return false;
  const status = world.view.rmpupdate(spa, {
    assigned: toPrivate,
    large: false,
    immutable: false,
    gpa: toPrivate ? gpa : 0,
    asid: toPrivate ? ASID : 0,
  });
  if (status !== RMP_STATUS.success) return false;
  setKind(world, gpa, 1, toPrivate ? PAGE_KIND.private : PAGE_KIND.shared);
  return true;
}

/** A change of a whole block as one entry, when everything in it is alike. */
function changeLarge(world: PageWorld, gpa: number, toPrivate: boolean): boolean {
  const { view } = world;
  const mapping = view.mapping(gpa);
  if (mapping.kind !== 'page' || !mapping.large) return false;
  const wanted = toPrivate ? PAGE_KIND.shared : PAGE_KIND.privateLarge;
  for (let at = 0; at < BLOCK; at += PAGE) if (kindOf(world, gpa + at) !== wanted) return false;
  const status = view.rmpupdate(mapping.spa, {
    assigned: toPrivate,
    large: true,
    immutable: false,
    gpa: toPrivate ? gpa : 0,
    asid: toPrivate ? ASID : 0,
  });
  if (status !== RMP_STATUS.success) return false;
  setKind(world, gpa, PAGES_OF_BLOCK, toPrivate ? PAGE_KIND.privateLarge : PAGE_KIND.shared);
  return true;
}

/** `large`: the 2 MiB block at `gpa`; it may end as 512 small pages. */
export function changePageState(world: PageWorld, gpa: number, large: boolean, toPrivate: boolean): boolean {
  const { call, snp } = world;
  const pages = large ? PAGES_OF_BLOCK : 1;
  if (gpa % (large ? BLOCK : PAGE) !== 0) return false;
  // What is in the wanted state already stays as it is.
  const kinds = snp.pages.subarray(gpa / PAGE, gpa / PAGE + pages);
  const isThere = (kind: number): boolean =>
    toPrivate ? kind === PAGE_KIND.private || kind === PAGE_KIND.privateLarge : kind === PAGE_KIND.shared;
  if (kinds.length === pages && kinds.every(isThere)) return true;
  let ok = true;
  if (!large) ok = changeSmall(world, gpa, toPrivate);
  else if (!changeLarge(world, gpa, toPrivate))
    for (let at = 0; at < BLOCK && ok; at += PAGE) ok = changeSmall(world, gpa + at, toPrivate);
  if (ok && call.sink.mask & EVENT_CLASS.page)
    call.sink.emit(
      EVENT.pageState,
      call.now,
      0,
      gpa,
      pages,
      toPrivate ? PAGE_STATE.pending : PAGE_STATE.shared,
      -1,
    );
  return ok;
}

/** PSMASH on the guest's word (page operation 3), or after a size mismatch. */
export function smashPage(world: PageWorld, gpa: number): boolean {
  if (kindOf(world, gpa) === PAGE_KIND.none || !splitBlock(world, gpa)) return false;
  smallMappings(world, gpa);
  return true;
}
