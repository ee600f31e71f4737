/** TDG.MEM.PAGE.ACCEPT, and the attributes that L1 gives L2 VMs (TDX Module 1.5 ABI). */
import { EVENT, EVENT_CLASS, PRIVILEGED_OPERATION } from '../../abi/events.ts';
import { EXTENDED_EPT } from '../../abi/tdx/exit-reasons.ts';
import { PAGE_ATTRIBUTE } from '../../abi/tdx/l2.ts';
import { OPERAND, STATUS } from '../../abi/tdx/status.ts';
import type { LeafOutcome } from './module.ts';
import { GPR } from './registers.ts';
import { septKey } from './sept-pages.ts';
import { ALIAS_VALID, BLOCK, PAGE, SEPT, type SeptEntry } from './tables.ts';
import { ended, invalid, succeeded, type Caller } from './tdcall.ts';

const LEVEL_MASK = 7n;
const LOW_RESERVED = 0xff8n;
const HIGH_RESERVED = ~0xf_ffff_ffff_ffffn & 0xffff_ffff_ffff_ffffn;

/** Page and level of an operand in "EPT mapping info" form; `undefined`: reserved bits, alignment or the shared bit. */
function pageOperand(
  caller: Caller,
  operand: bigint,
): { readonly gpa: number; readonly level: 0 | 1 | 2 } | undefined {
  const level = Number(operand & LEVEL_MASK);
  const gpa = operand & ~0xfffn;
  const { module } = caller;
  if ((operand & LOW_RESERVED) !== 0n || (operand & HIGH_RESERVED) !== 0n || level > 2) return undefined;
  const size = level === 0 ? PAGE : level === 1 ? BLOCK : 512 * BLOCK;
  if (!module.isPrivateGpa(gpa, size)) return undefined;
  return { gpa: Number(gpa), level: level as 0 | 1 | 2 };
}

export function memPageAccept(caller: Caller): LeafOutcome {
  const { module, registers } = caller;
  const { tables, engine } = module;
  const page = pageOperand(caller, registers.get(GPR.rcx));
  if (page === undefined || page.level === 2) return invalid(caller, OPERAND.rcx);
  const { gpa, level } = page;
  const found = tables.entry(gpa);
  const fits = found.level === level;
  if (found.state === SEPT.mapped && found.level >= level)
    return tell(caller, gpa, ended(caller, STATUS.pageAlreadyAccepted, found.level), 1);
  if (level === 1 && found.level === 0)
    return tell(caller, gpa, ended(caller, STATUS.pageSizeMismatch, 1), 1);
  if (!fits || found.state !== SEPT.pending) return acceptViolation(caller, gpa, level, found);
  const bytes = level === 1 ? BLOCK : PAGE;
  engine.blocks.codeChanged(tables.hostOf(found.spa), bytes);
  tables.clear(found.spa, bytes);
  tables.markUsed(found.spa, bytes);
  tables.setState(gpa, SEPT.mapped);
  module.tellPages(gpa, bytes / PAGE, 'private', caller.vcpu.vm, caller.vcpu.index);
  return tell(caller, gpa, succeeded(caller), 0);
}

function tell(caller: Caller, gpa: number, outcome: LeafOutcome, failed: number): LeafOutcome {
  const { module, vcpu } = caller;
  if (module.sink.mask & EVENT_CLASS.privileged)
    module.sink.emit(
      EVENT.privilegedOperation,
      module.now(),
      vcpu.index,
      PRIVILEGED_OPERATION.accept,
      gpa,
      failed,
      vcpu.vm,
    );
  return outcome;
}

/** Architectural state codes of SEPT entries that a host can meet here (ABI, "SEPT entry state"). */
const STATE_CODE: Readonly<Record<number, number>> = {
  [SEPT.free]: 0,
  [SEPT.blocked]: 5,
  [SEPT.pending]: 2,
  [SEPT.pendingBlocked]: 6,
  [SEPT.mapped]: 4,
};

/** The host must add, unblock or split the page first: a TD exit that says what was wanted and what was found. */
function acceptViolation(caller: Caller, gpa: number, level: number, found: SeptEntry): LeafOutcome {
  const leaf = found.state === SEPT.free ? 0 : 1;
  const information =
    BigInt(EXTENDED_EPT.accept) |
    (BigInt(level | (found.level << 3) | ((STATE_CODE[found.state] ?? 0) << 6) | (leaf << 14)) << 32n);
  return { kind: 'exit', exit: caller.module.eptViolation(BigInt(gpa), true, undefined, information) };
}

/** Alias bits of an attribute word. */
const ALIAS_BITS = 0x7f;
const WORD_RESERVED = ~(PAGE_ATTRIBUTE.valid | 0xff) & 0xffff;

export function memPageAttrRd(caller: Caller): LeafOutcome {
  const { module, registers } = caller;
  const operand = registers.get(GPR.rcx);
  if ((operand & 0xfffn) !== 0n || !module.isPrivateGpa(operand, PAGE)) return invalid(caller, OPERAND.rcx);
  const gpa = Number(operand);
  const entry = module.tables.entry(gpa);
  if (entry.state !== SEPT.mapped && entry.state !== SEPT.pending)
    return { kind: 'exit', exit: module.eptViolation(operand, false) };
  const start = entry.level === 1 ? gpa - (gpa % BLOCK) : gpa;
  const pending = entry.state === SEPT.pending ? 1n << 62n : 0n;
  registers.set(GPR.rcx, BigInt(start) | BigInt(entry.level) | pending);
  registers.set(GPR.rdx, attributeWords(caller, gpa));
  return succeeded(caller);
}

/** L1 has all rights to its own pages. */
const L1_WORD = BigInt(
  PAGE_ATTRIBUTE.read |
    PAGE_ATTRIBUTE.write |
    PAGE_ATTRIBUTE.executeSupervisor |
    PAGE_ATTRIBUTE.executeUser |
    PAGE_ATTRIBUTE.valid,
);

function attributeWords({ module }: Caller, gpa: number): bigint {
  let words = L1_WORD;
  for (let vm = 1; vm <= module.td.numL2Vms; vm++) {
    const alias = module.tables.alias(gpa, vm);
    const word = (alias & ALIAS_BITS) | ((alias & ALIAS_VALID) !== 0 ? PAGE_ATTRIBUTE.valid : 0);
    words |= BigInt(word) << BigInt(16 * vm);
  }
  return words;
}

export function memPageAttrWr(caller: Caller): LeafOutcome {
  const { module, registers, vcpu } = caller;
  const { tables, td } = module;
  const page = pageOperand(caller, registers.get(GPR.rcx));
  if (page === undefined) return invalid(caller, OPERAND.rcx);
  const attributes = registers.get(GPR.rdx);
  const flags = registers.get(GPR.r8);
  const word = (from: bigint, vm: number): number => Number((from >> BigInt(16 * vm)) & 0xffffn);
  // VM0 is L1: its word may not ask for a change.
  if (word(flags, 0) !== 0) return invalid(caller, OPERAND.r8);
  for (let vm = 1; vm <= 3; vm++) {
    const change = word(flags, vm);
    if ((change & WORD_RESERVED) !== 0 || (change & PAGE_ATTRIBUTE.suppressVe) !== 0)
      return invalid(caller, OPERAND.r8);
    if (vm > td.numL2Vms && change !== 0) return invalid(caller, OPERAND.r8);
    if ((word(attributes, vm) & (WORD_RESERVED | PAGE_ATTRIBUTE.suppressVe)) !== 0)
      return invalid(caller, OPERAND.rdx);
  }
  const { gpa, level } = page;
  const entry = tables.entry(gpa);
  if (entry.state !== SEPT.mapped && entry.state !== SEPT.pending) {
    return {
      kind: 'exit',
      exit: module.eptViolation(BigInt(gpa), true, undefined, BigInt(EXTENDED_EPT.attributes)),
    };
  }
  if (entry.level !== level) return ended(caller, STATUS.pageSizeMismatch, entry.level);
  const next: number[] = [];
  for (let vm = 1; vm <= td.numL2Vms; vm++) {
    const change = word(flags, vm) & ALIAS_BITS;
    const old = tables.alias(gpa, vm);
    const bits = ((old & ~change) | (word(attributes, vm) & change)) & ALIAS_BITS;
    const readable = (bits & PAGE_ATTRIBUTE.read) !== 0;
    if (!readable && (bits & (PAGE_ATTRIBUTE.write | PAGE_ATTRIBUTE.pagingWrite)) !== 0)
      return ended(caller, STATUS.pageAttrInvalid);
    const rights = PAGE_ATTRIBUTE.read | PAGE_ATTRIBUTE.executeSupervisor | PAGE_ATTRIBUTE.executeUser;
    // The alias needs a table of its own; the host must add it.
    if ((bits & rights) !== 0 && td.septPages[septKey(vm, level + 1, gpa)] === undefined)
      return {
        kind: 'exit',
        exit: module.eptViolation(
          BigInt(gpa),
          true,
          undefined,
          BigInt(EXTENDED_EPT.attributes) | (BigInt(vm) << 52n) | (BigInt(level) << 32n),
        ),
      };
    next.push((bits & rights) !== 0 ? bits | ALIAS_VALID : 0);
  }
  for (const [k, alias] of next.entries()) tables.setAlias(gpa, k + 1, alias);
  for (let vm = 1; vm <= td.numL2Vms; vm++) {
    if ((word(flags, vm) & PAGE_ATTRIBUTE.valid) === 0) continue;
    for (const { index } of module.vcpus) module.engine.tlbFlush(module.engine.cpu(index, vm));
  }
  registers.set(GPR.rcx, BigInt(gpa) | BigInt(level) | (entry.state === SEPT.pending ? 1n << 62n : 0n));
  registers.set(GPR.rdx, attributeWords(caller, gpa));
  if (module.sink.mask & EVENT_CLASS.privileged)
    module.sink.emit(
      EVENT.privilegedOperation,
      module.now(),
      vcpu.index,
      PRIVILEGED_OPERATION.attributeWrite,
      gpa,
      0,
      vcpu.vm,
    );
  return succeeded(caller);
}
