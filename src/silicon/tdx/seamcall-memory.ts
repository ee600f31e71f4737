/**
 * The host's side of a TD's memory: tables and pages go in, are blocked, tracked, taken out, joined and split (TDX Module 1.5
 * ABI, TDH.MEM.* and TDH.PHYMEM.*).
 */
import { TD_ATTRIBUTE } from '../../abi/tdx/td-params.ts';
import { OPERAND, status, STATUS } from '../../abi/tdx/status.ts';
import { measurePageAdd } from './attestation/mrtd.ts';
import type { TdxModule } from './module.ts';
import { checkTd, dropShared, systemPage, takePage, type HostLeaf } from './seamcall.ts';
import { septKey, septSpan } from './sept-pages.ts';
import { BLOCK, PAGE, PAMT, SEPT } from './tables.ts';

const OK = status(STATUS.success);
const PAGES = BLOCK / PAGE;

/** Level and address of an operand; `undefined`: level, alignment, shared bit or width. */
function mapping(
  module: TdxModule,
  operand: bigint,
  highest: number,
): { readonly gpa: number; readonly level: number } | undefined {
  const level = Number(operand & 7n);
  const gpa = operand & ~0xfffn;
  if ((operand & 0xff8n) !== 0n || level > highest) return undefined;
  const size = level === 0 ? PAGE : septSpan(level);
  return module.isPrivateGpa(gpa, size) ? { gpa: Number(gpa), level } : undefined;
}

/** Whether every table above an entry of `level` is there. */
function walk(module: TdxModule, vm: number, level: number, gpa: number): boolean {
  for (let table = 3; table > level; table--)
    if (module.td.septPages[septKey(vm, table, gpa)] === undefined) return false;
  return module.tables.covers(gpa);
}

const NO_PAGE = 0xffff_ffff_ffff_ffffn;

/**
 * A table below the entry of `level` (1: for 4 KiB pages). Version 1 takes tables of L2 VMs in R9 to R11; all ones in R8 or
 * there: none.
 */
export function memSeptAdd(leaf: HostLeaf): bigint {
  const { module, rcx, rdx } = leaf;
  const error = checkTd(module, rdx, OPERAND.rdx, 'initialised');
  if (error !== undefined) return error;
  const at = mapping(module, rcx, 3);
  if (at === undefined || at.level === 0) return status(STATUS.operandInvalid, OPERAND.rcx);
  const { td, tables } = module;
  const { gpa, level } = at;
  if (!tables.covers(gpa)) return status(STATUS.eptWalkFailed, OPERAND.rcx);
  const operands = leaf.version === 0 ? [leaf.r8] : [leaf.r8, leaf.r9, leaf.r10, leaf.r11];
  for (const [vm, operand] of operands.entries()) {
    if (operand === NO_PAGE) continue;
    const operandId = OPERAND.r8 + vm;
    if (vm > td.numL2Vms) return status(STATUS.operandInvalid, operandId);
    if (!walk(module, vm, level, gpa))
      return status(vm === 0 ? STATUS.eptWalkFailed : STATUS.l2SeptWalkFailed, OPERAND.rcx);
    const key = septKey(vm, level, gpa);
    if (td.septPages[key] !== undefined)
      return status(vm === 0 ? STATUS.eptEntryNotFree : STATUS.l2SeptEntryNotFree, OPERAND.rcx);
    if (vm === 0 && level === 1 && tables.blockState(gpa) !== SEPT.free)
      return status(STATUS.eptEntryNotFree, OPERAND.rcx);
    const page = takePage(module, operand, operandId, PAMT.sept);
    if ('error' in page) return page.error;
    td.septPages[key] = page.spa;
    td.children++;
    if (vm === 0 && level === 1) tables.setEntry(gpa, 1, SEPT.split);
  }
  return OK;
}

/** Takes an empty table out. Version 1: of the L2 VM in bits 53:52 of RCX. */
export function memSeptRemove(leaf: HostLeaf): bigint {
  const { module, rdx, version } = leaf;
  const error = checkTd(module, rdx, OPERAND.rdx, 'initialised');
  if (error !== undefined) return error;
  const vm = version === 0 ? 0 : Number((leaf.rcx >> 52n) & 3n);
  const at = mapping(module, version === 0 ? leaf.rcx : leaf.rcx & ~(3n << 52n), 3);
  if (at === undefined || at.level === 0) return status(STATUS.operandInvalid, OPERAND.rcx);
  const { td, tables } = module;
  const { gpa, level } = at;
  const key = septKey(vm, level, gpa);
  const spa = td.septPages[key];
  if (spa === undefined) return status(STATUS.eptWalkFailed, OPERAND.rcx);
  if (level > 1 && Object.keys(td.septPages).some((other) => isBelow(other, vm, level, gpa)))
    return status(STATUS.eptEntryStateIncorrect, OPERAND.rcx);
  if (level === 1 && vm === 0) {
    for (let page = gpa; page < gpa + BLOCK; page += PAGE)
      if (tables.entry(page).state !== SEPT.free) return status(STATUS.eptEntryStateIncorrect, OPERAND.rcx);
    tables.setEntry(gpa, 1, SEPT.free);
  }
  if (level === 1 && vm > 0)
    for (let page = gpa; page < gpa + BLOCK; page += PAGE)
      if (tables.alias(page, vm) !== 0) return status(STATUS.eptEntryStateIncorrect, OPERAND.rcx);
  delete td.septPages[key];
  releasePage(module, spa);
  return OK;
}

function isBelow(key: string, vm: number, level: number, gpa: number): boolean {
  const [keyVm, keyLevel, index] = key.split(' ').map(Number) as [number, number, number];
  if (keyVm !== vm || keyLevel >= level) return false;
  const at = index * septSpan(keyLevel);
  return at >= gpa && at < gpa + septSpan(level);
}

/** A control page goes back to the host, with nothing in it. */
function releasePage(module: TdxModule, spa: number): void {
  module.tables.setPageType(spa, PAMT.none);
  module.td.children--;
}

/** A page with contents from the host, while the TD is being built: the address enters the measurement. */
export function memPageAdd({ module, rcx, rdx, r8, r9 }: HostLeaf): bigint {
  const error = checkTd(module, rdx, OPERAND.rdx, 'building');
  if (error !== undefined) return error;
  const { td, tables } = module;
  const at = mapping(module, rcx, 0);
  if (at === undefined) return status(STATUS.operandInvalid, OPERAND.rcx);
  const source = systemPage(module, r9);
  if (source === undefined || tables.pageType(source) !== PAMT.none)
    return status(STATUS.operandInvalid, OPERAND.r9);
  if (!walk(module, 0, 0, at.gpa)) return status(STATUS.eptWalkFailed, OPERAND.rcx);
  if (tables.entry(at.gpa).state !== SEPT.free) return status(STATUS.eptEntryNotFree, OPERAND.rcx);
  const page = systemPage(module, r8);
  if (page === undefined) return status(STATUS.operandInvalid, OPERAND.r8);
  if (tables.pageType(page) !== PAMT.none) return status(STATUS.pageMetadataIncorrect, OPERAND.r8);
  if (td.measurement === undefined) return status(STATUS.opStateIncorrect, OPERAND.rdx);
  const contents = module.readHost(tables.hostOf(source), PAGE);
  claim(module, page, PAGE);
  module.writeHost(tables.hostOf(page), contents);
  tables.setEntry(at.gpa, 0, SEPT.mapped, page);
  tables.setAliases(at.gpa, 0, 0);
  td.children++;
  measurePageAdd(td.measurement, at.gpa);
  module.tellPages(at.gpa, 1, 'private', -1);
  return OK;
}

/** Free pages become private; the host's translations to them end. */
function claim(module: TdxModule, spa: number, bytes: number): void {
  const { tables, engine } = module;
  const flags = PAMT.private | (bytes === BLOCK ? PAMT.large : 0);
  for (let at = spa; at < spa + bytes; at += PAGE) tables.setPamt(at, (tables.pamt(at) & PAMT.used) | flags);
  engine.blocks.codeChanged(tables.hostOf(spa), bytes);
  dropShared(module);
}

/** A page of 4 KiB or 2 MiB that the guest must accept. */
export function memPageAug({ module, rcx, rdx, r8 }: HostLeaf): bigint {
  const error = checkTd(module, rdx, OPERAND.rdx, 'runnable');
  if (error !== undefined) return error;
  const { tables, td } = module;
  const at = mapping(module, rcx, 1);
  if (at === undefined) return status(STATUS.operandInvalid, OPERAND.rcx);
  const level = at.level as 0 | 1;
  const bytes = level === 1 ? BLOCK : PAGE;
  const spa = systemPage(module, r8, bytes);
  if (spa === undefined) return status(STATUS.operandInvalid, OPERAND.r8);
  for (let page = spa; page < spa + bytes; page += PAGE)
    if (tables.pageType(page) !== PAMT.none) return status(STATUS.pageMetadataIncorrect, OPERAND.r8);
  if (!walk(module, 0, level, at.gpa)) return status(STATUS.eptWalkFailed, OPERAND.rcx);
  const state = level === 1 ? tables.blockState(at.gpa) : tables.entry(at.gpa).state;
  if (state !== SEPT.free) return status(STATUS.eptEntryNotFree, OPERAND.rcx);
  claim(module, spa, bytes);
  tables.setEntry(at.gpa, level, SEPT.pending, spa);
  tables.setAliases(at.gpa, level, 0);
  td.children += bytes / PAGE;
  module.tellPages(at.gpa, bytes / PAGE, 'pending', -1);
  return OK;
}

/** The entry that RCX names, of exactly that level. */
function leafOf({
  module,
  rcx,
  rdx,
}: HostLeaf):
  | { readonly gpa: number; readonly level: 0 | 1; readonly state: number; readonly spa: number }
  | { readonly error: bigint } {
  const error = checkTd(module, rdx, OPERAND.rdx, 'initialised');
  if (error !== undefined) return { error };
  const at = mapping(module, rcx, 1);
  if (at === undefined) return { error: status(STATUS.operandInvalid, OPERAND.rcx) };
  if (!module.tables.covers(at.gpa)) return { error: status(STATUS.eptWalkFailed, OPERAND.rcx) };
  const entry = module.tables.entry(at.gpa);
  if (entry.state === SEPT.free) return { error: status(STATUS.eptEntryFree, OPERAND.rcx) };
  if (entry.level !== at.level)
    return { error: status(at.level === 1 ? STATUS.eptEntryNotLeaf : STATUS.eptWalkFailed, OPERAND.rcx) };
  return { gpa: at.gpa, level: entry.level, state: entry.state, spa: entry.spa };
}

export function memRangeBlock(leaf: HostLeaf): bigint {
  const at = leafOf(leaf);
  if ('error' in at) return at.error;
  const { module } = leaf;
  const { tables, td } = module;
  if (at.state === SEPT.blocked || at.state === SEPT.pendingBlocked)
    return status(STATUS.gpaRangeAlreadyBlocked, OPERAND.rcx);
  tables.setState(at.gpa, at.state === SEPT.mapped ? SEPT.blocked : SEPT.pendingBlocked);
  td.blockedIn[at.gpa] = td.epoch;
  module.tellPages(at.gpa, at.level === 1 ? PAGES : 1, 'none', -1);
  return OK;
}

export function memRangeUnblock(leaf: HostLeaf): bigint {
  const at = leafOf(leaf);
  if ('error' in at) return at.error;
  const { module } = leaf;
  if (at.state !== SEPT.blocked && at.state !== SEPT.pendingBlocked)
    return status(STATUS.gpaRangeNotBlocked, OPERAND.rcx);
  if (!tracked(module, at.gpa)) return status(STATUS.tlbTrackingNotDone, OPERAND.rcx);
  module.tables.setState(at.gpa, at.state === SEPT.blocked ? SEPT.mapped : SEPT.pending);
  delete module.td.blockedIn[at.gpa];
  module.tellPages(at.gpa, at.level === 1 ? PAGES : 1, at.state === SEPT.blocked ? 'private' : 'pending', -1);
  return OK;
}

/** A new TLB epoch: every virtual processor drops its translations with its next entry. */
export function memTrack({ module, rcx }: HostLeaf): bigint {
  const error = checkTd(module, rcx, OPERAND.rcx, 'initialised');
  if (error !== undefined) return error;
  module.td.epoch++;
  return OK;
}

/** No virtual processor runs while the host does, so a later epoch is enough. */
function tracked({ td }: TdxModule, gpa: number): boolean {
  const blocked = td.blockedIn[gpa];
  return blocked !== undefined && blocked < td.epoch;
}

/** Takes a blocked page out; its contents are lost. */
export function memPageRemove(leaf: HostLeaf): bigint {
  const at = leafOf(leaf);
  if ('error' in at) return at.error;
  const { module } = leaf;
  const { tables, td } = module;
  if (at.state !== SEPT.blocked && at.state !== SEPT.pendingBlocked)
    return status(STATUS.gpaRangeNotBlocked, OPERAND.rcx);
  // While it is being built nobody can have a translation.
  if (td.operation === 'runnable' && !tracked(module, at.gpa))
    return status(STATUS.tlbTrackingNotDone, OPERAND.rcx);
  const bytes = at.level === 1 ? BLOCK : PAGE;
  tables.setAliases(at.gpa, at.level, 0);
  tables.setEntry(at.gpa, at.level, SEPT.free);
  delete td.blockedIn[at.gpa];
  release(module, at.spa, bytes);
  td.children -= bytes / PAGE;
  leaf.rcx = BigInt(at.gpa) | BigInt(at.level);
  module.tellPages(at.gpa, bytes / PAGE, 'none', -1);
  return OK;
}

/** Private pages become the host's: what it reads there is zeros, since the key is another one. */
function release(module: TdxModule, spa: number, bytes: number): void {
  const { tables, engine } = module;
  engine.blocks.codeChanged(tables.hostOf(spa), bytes);
  tables.clear(spa, bytes);
  for (let at = spa; at < spa + bytes; at += PAGE) tables.setPamt(at, PAMT.none);
  dropShared(module);
}

/** 512 mapped pages that lie in one aligned piece of system memory become one entry; gives their table back in RCX. */
export function memPagePromote(leaf: HostLeaf): bigint {
  const { module, rcx, rdx } = leaf;
  const error = checkTd(module, rdx, OPERAND.rdx, 'runnable');
  if (error !== undefined) return error;
  const { tables, td } = module;
  const at = mapping(module, rcx, 1);
  if (at === undefined || at.level !== 1) return status(STATUS.operandInvalid, OPERAND.rcx);
  if (!tables.covers(at.gpa) || tables.blockState(at.gpa) !== SEPT.split)
    return status(STATUS.eptEntryLeaf, OPERAND.rcx);
  const first = tables.entry(at.gpa);
  for (let k = 0; k < PAGES; k++) {
    const entry = tables.entry(at.gpa + k * PAGE);
    const same = tables.aliases(at.gpa + k * PAGE) === tables.aliases(at.gpa);
    if (entry.state !== first.state || entry.spa !== first.spa + k * PAGE || !same)
      return status(STATUS.eptInvalidPromoteConditions, OPERAND.rcx);
  }
  if (first.spa % BLOCK !== 0 || (first.state !== SEPT.mapped && first.state !== SEPT.pending))
    return status(STATUS.eptInvalidPromoteConditions, OPERAND.rcx);
  const aliases = tables.aliases(at.gpa);
  for (let k = 0; k < PAGES; k++) {
    const gpa = at.gpa + k * PAGE;
    tables.setEntry(gpa, 0, SEPT.free);
    tables.setAliases(gpa, 0, 0);
    const spa = first.spa + k * PAGE;
    tables.setPamt(spa, tables.pamt(spa) | PAMT.large);
  }
  tables.setEntry(at.gpa, 1, first.state, first.spa);
  tables.setAliases(at.gpa, 1, aliases);
  for (let vm = 0; vm <= td.numL2Vms; vm++) {
    const key = septKey(vm, 1, at.gpa);
    const spa = td.septPages[key];
    if (spa === undefined) continue;
    delete td.septPages[key];
    releasePage(module, spa);
    if (vm === 0) leaf.rcx = BigInt(spa);
  }
  return OK;
}

/** One entry of 2 MiB becomes 512 of 4 KiB, in the table that R8 gives; contents and rights stay. */
export function memPageDemote(leaf: HostLeaf): bigint {
  const at = leafOf(leaf);
  if ('error' in at) return at.error;
  const { module, r8 } = leaf;
  const { tables, td } = module;
  if (at.level !== 1) return status(STATUS.operandInvalid, OPERAND.rcx);
  if (at.state !== SEPT.blocked && at.state !== SEPT.pendingBlocked)
    return status(STATUS.gpaRangeNotBlocked, OPERAND.rcx);
  if (!tracked(module, at.gpa)) return status(STATUS.tlbTrackingNotDone, OPERAND.rcx);
  const aliases = tables.aliases(at.gpa);
  // An L2 VM with an alias needs a table of its own.
  const operands = [r8, leaf.r9, leaf.r10, leaf.r11].slice(0, 1 + td.numL2Vms);
  for (let vm = 1; vm <= td.numL2Vms; vm++)
    if (tables.alias(at.gpa, vm) !== 0 && operands[vm] === 0n)
      return status(STATUS.l2SeptPageNotProvided, OPERAND.r8 + vm);
  for (const [vm, operand] of operands.entries()) {
    if (vm > 0 && operand === 0n) continue;
    const page = takePage(module, operand, OPERAND.r8 + vm, PAMT.sept);
    if ('error' in page) return page.error;
    td.septPages[septKey(vm, 1, at.gpa)] = page.spa;
    td.children++;
  }
  const state = at.state === SEPT.blocked ? SEPT.mapped : SEPT.pending;
  tables.setAliases(at.gpa, 1, 0);
  tables.setEntry(at.gpa, 1, SEPT.split);
  for (let k = 0; k < PAGES; k++) {
    const gpa = at.gpa + k * PAGE;
    const spa = at.spa + k * PAGE;
    tables.setEntry(gpa, 0, state, spa);
    tables.setAliases(gpa, 0, aliases);
    tables.setPamt(spa, tables.pamt(spa) & ~PAMT.large);
  }
  delete td.blockedIn[at.gpa];
  module.tellPages(at.gpa, PAGES, state === SEPT.mapped ? 'private' : 'pending', -1);
  return OK;
}

/** A blocked page moves to another system page, contents and all. */
export function memPageRelocate(leaf: HostLeaf): bigint {
  const at = leafOf(leaf);
  if ('error' in at) return at.error;
  const { module, r8 } = leaf;
  const { tables } = module;
  if (at.level !== 0) return status(STATUS.operandInvalid, OPERAND.rcx);
  if (at.state !== SEPT.blocked && at.state !== SEPT.pendingBlocked)
    return status(STATUS.gpaRangeNotBlocked, OPERAND.rcx);
  if (!tracked(module, at.gpa)) return status(STATUS.tlbTrackingNotDone, OPERAND.rcx);
  const target = systemPage(module, r8);
  if (target === undefined) return status(STATUS.operandInvalid, OPERAND.r8);
  if (tables.pageType(target) !== PAMT.none) return status(STATUS.pageMetadataIncorrect, OPERAND.r8);
  const poisoned = tables.pamt(at.spa) & PAMT.poisoned;
  const contents = module.readHost(tables.hostOf(at.spa), PAGE);
  claim(module, target, PAGE);
  module.writeHost(tables.hostOf(target), contents);
  tables.setPamt(target, tables.pamt(target) | poisoned);
  tables.setEntry(at.gpa, 0, at.state === SEPT.blocked ? SEPT.mapped : SEPT.pending, target);
  delete module.td.blockedIn[at.gpa];
  release(module, at.spa, PAGE);
  module.tellPages(at.gpa, 1, at.state === SEPT.blocked ? 'private' : 'pending', -1);
  return OK;
}

/** Entry and state at an address: RCX as an EPT entry (rights and page), RDX level and state. */
export function memSeptRd(leaf: HostLeaf): bigint {
  const { module, rcx, rdx } = leaf;
  const error = checkTd(module, rdx, OPERAND.rdx, 'initialised');
  if (error !== undefined) return error;
  const at = mapping(module, rcx, 3);
  if (at === undefined) return status(STATUS.operandInvalid, OPERAND.rcx);
  const entry = module.tables.entry(at.gpa);
  const rights = entry.state === SEPT.mapped ? 7n : 0n;
  leaf.rcx = entry.state === SEPT.free ? 0n : BigInt(entry.spa) | rights;
  leaf.rdx = BigInt(entry.level) | (BigInt(entry.state) << 8n);
  return OK;
}

/** Private memory of a TD that is debuggable, eight bytes at a time. */
function debugMemory(
  { module, rcx, rdx }: HostLeaf,
  write: boolean,
): { readonly host: number } | { readonly error: bigint } {
  const error = checkTd(module, rdx, OPERAND.rdx, 'initialised');
  if (error !== undefined) return { error };
  if ((module.td.attributes & TD_ATTRIBUTE.debug) === 0n) return { error: status(STATUS.tdNonDebug) };
  if (!module.isPrivateGpa(rcx, 8)) return { error: status(STATUS.operandInvalid, OPERAND.rcx) };
  const reached = module.reach(rcx, write);
  return reached.ok ? { host: reached.host } : { error: status(STATUS.eptWalkFailed, OPERAND.rcx) };
}

export function memRd(leaf: HostLeaf): bigint {
  const at = debugMemory(leaf, false);
  if ('error' in at) return at.error;
  leaf.r8 = leaf.module.engine.view.getBigUint64(at.host, true);
  return OK;
}

export function memWr(leaf: HostLeaf): bigint {
  const at = debugMemory(leaf, true);
  if ('error' in at) return at.error;
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, leaf.r8, true);
  leaf.r8 = leaf.module.engine.view.getBigUint64(at.host, true);
  leaf.module.writeHost(at.host, bytes);
  return OK;
}

/** Pages of a TD that is being torn down go back to the host; the TDR last. */
export function phymemPageReclaim(leaf: HostLeaf): bigint {
  const { module, rcx } = leaf;
  const { tables, td } = module;
  const spa = systemPage(module, rcx);
  if (spa === undefined) return status(STATUS.operandInvalid, OPERAND.rcx);
  const type = tables.pageType(spa);
  if (type === PAMT.none) return status(STATUS.pageMetadataIncorrect, OPERAND.rcx);
  if (td.lifeCycle !== 'teardown') return status(STATUS.lifecycleStateIncorrect, OPERAND.rcx);
  if (type === PAMT.tdr && td.children > 0) return status(STATUS.tdAssociatedPagesExist, OPERAND.rcx);
  leaf.rcx = BigInt(type);
  leaf.rdx = BigInt(td.tdr);
  release(module, spa, PAGE);
  if (type === PAMT.tdr) td.lifeCycle = 'none';
  else td.children--;
  return OK;
}

/** What the PAMT says of a page: type, owner, size. */
export function phymemPageRdmd(leaf: HostLeaf): bigint {
  const { module, rcx } = leaf;
  const spa = systemPage(module, rcx);
  if (spa === undefined) return status(STATUS.operandInvalid, OPERAND.rcx);
  const flags = module.tables.pamt(spa);
  const type = flags & PAMT.typeMask;
  leaf.rcx = BigInt(type);
  leaf.rdx = type === PAMT.none ? 0n : BigInt(module.td.tdr);
  leaf.r8 = flags & PAMT.large ? 1n : 0n;
  return OK;
}
