/** TDCALL: which leaves there are, and what all of them check first (TDX Module 1.5 ABI, "Guest-side interface functions"). */
import { HIGHEST_VERSION, TDG } from '../../abi/tdx/leaves.ts';
import { OPERAND, status, STATUS } from '../../abi/tdx/status.ts';
import { VMCALL_MASK } from '../../abi/tdx/ghci.ts';
import { CONFIG_FLAG } from '../../abi/tdx/td-params.ts';
import type { LeafOutcome, TdxModule } from './module.ts';
import { GPR, type Registers } from './registers.ts';
import type { VcpuState } from './state.ts';
import { memPageAccept, memPageAttrRd, memPageAttrWr } from './tdcall-memory.ts';
import { sysRd, sysRdall, vmRd, vmWr, vpRd, vpWr } from './tdcall-metadata.ts';
import { mrReport, mrRtmrExtend, mrVerifyReport } from './tdcall-measurement.ts';
import { vpEnter, vpInvept, vpInvgla } from './tdcall-partitioning.ts';

/** Who calls: L1 of one virtual processor. */
export interface Caller {
  readonly module: TdxModule;
  readonly vcpu: VcpuState;
  readonly registers: Registers;
  /** Privileged CPU structure of the caller; -1 for a program. */
  readonly cpu: number;
}

export type Leaf = (caller: Caller) => LeafOutcome;

export function ended(caller: Caller, code: number, detail = 0): LeafOutcome {
  caller.registers.set(GPR.rax, status(code, detail));
  return { kind: 'done' };
}
export const succeeded = (caller: Caller): LeafOutcome => ended(caller, STATUS.success);
export const invalid = (caller: Caller, operand: number): LeafOutcome =>
  ended(caller, STATUS.operandInvalid, operand);

const LEAVES: ReadonlyMap<number, Leaf> = new Map<number, Leaf>([
  [TDG.vpVmcall, vpVmcall],
  [TDG.vpInfo, vpInfo],
  [TDG.mrRtmrExtend, mrRtmrExtend],
  [TDG.vpVeinfoGet, vpVeinfoGet],
  [TDG.mrReport, mrReport],
  [TDG.vpCpuidveSet, vpCpuidveSet],
  [TDG.memPageAccept, memPageAccept],
  [TDG.vmRd, vmRd],
  [TDG.vmWr, vmWr],
  [TDG.vpRd, vpRd],
  [TDG.vpWr, vpWr],
  [TDG.sysRd, sysRd],
  [TDG.sysRdall, sysRdall],
  [TDG.mrVerifyReport, mrVerifyReport],
  [TDG.memPageAttrRd, memPageAttrRd],
  [TDG.memPageAttrWr, memPageAttrWr],
  [TDG.vpEnter, vpEnter],
  [TDG.vpInvept, vpInvept],
  [TDG.vpInvgla, vpInvgla],
]);

/** Leaves of this module, for tests and reports. */
export const LEAF_NUMBERS: readonly number[] = [...LEAVES.keys()];

export function tdcall(caller: Caller): LeafOutcome {
  const rax = caller.registers.get(GPR.rax);
  const number = Number(rax & 0xffffn);
  const version = Number((rax >> 16n) & 0xffn);
  const leaf = LEAVES.get(number);
  if (leaf === undefined || rax >> 24n !== 0n || version > (HIGHEST_VERSION.get(number) ?? 0))
    return invalid(caller, OPERAND.rax);
  return leaf(caller);
}

/** RCX selects what the host sees and may change; RAX, RCX and RSP never, RBP not with NO_RBP_MOD. */
function vpVmcall(caller: Caller): LeafOutcome {
  const { module, registers, vcpu } = caller;
  const mask = registers.get(GPR.rcx);
  const forbidden =
    VMCALL_MASK.forbidden | ((module.td.configFlags & CONFIG_FLAG.noRbpMod) !== 0n ? VMCALL_MASK.rbp : 0);
  if (mask > VMCALL_MASK.known || (Number(mask & 0xffffn) & forbidden) !== 0)
    return invalid(caller, OPERAND.rcx);
  vcpu.vmcall = Number(mask);
  return { kind: 'vmcall' };
}

function vpInfo(caller: Caller): LeafOutcome {
  const { registers, vcpu } = caller;
  const { td } = caller.module;
  registers.set(GPR.rcx, BigInt(td.gpaw));
  registers.set(GPR.rdx, td.attributes);
  registers.set(GPR.r8, BigInt(td.numVcpus) | (BigInt(td.maxVcpus) << 32n));
  registers.set(GPR.r9, BigInt(vcpu.index));
  // TDG.SYS.RD is there.
  registers.set(GPR.r10, 1n);
  registers.set(GPR.r11, 0n);
  return succeeded(caller);
}

function vpVeinfoGet(caller: Caller): LeafOutcome {
  const { registers, vcpu } = caller;
  const { ve } = vcpu;
  const valid = ve.valid;
  registers.set(GPR.rcx, valid ? BigInt(ve.reason) : 0n);
  registers.set(GPR.rdx, valid ? ve.qualification : 0n);
  registers.set(GPR.r8, valid ? ve.gla : 0n);
  registers.set(GPR.r9, valid ? ve.gpa : 0n);
  registers.set(GPR.r10, valid ? BigInt(ve.length) | (BigInt(ve.information >>> 0) << 32n) : 0n);
  if (!valid) return ended(caller, STATUS.noValidVeInfo);
  ve.valid = false;
  return succeeded(caller);
}

function vpCpuidveSet(caller: Caller): LeafOutcome {
  const { registers, vcpu } = caller;
  const flags = registers.get(GPR.rcx);
  if (flags > 3n) return invalid(caller, OPERAND.rcx);
  vcpu.cpuidSupervisorVe = (flags & 1n) !== 0n;
  vcpu.cpuidUserVe = (flags & 2n) !== 0n;
  return succeeded(caller);
}
