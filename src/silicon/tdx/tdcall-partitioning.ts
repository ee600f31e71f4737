/** TDG.VP.ENTER, TDG.VP.INVEPT, TDG.VP.INVGLA (TDX Module 1.5 TD Partitioning). */
import {
  ENTER_INVALIDATE,
  L2_CTL,
  L2_ENTER_GUEST_STATE,
  L2_ENTER_STATE_ALIGNMENT,
} from '../../abi/tdx/l2.ts';
import { OPERAND, STATUS } from '../../abi/tdx/status.ts';
import { ENTRY_FAILURE, EXIT_REASON } from '../../abi/tdx/exit-reasons.ts';
import { CPU, FLAG, INTERCEPT, RAISE, SHADOW } from '../../x86/layout.ts';
import { CR0, EFER } from '../../x86/registers.ts';
import { eventClass, read64, setRflags, write64 } from '../vcpu.ts';
import { ENTRY_IA32E, l2Field, PROC, SECONDARY, setL2Field, VMCS } from './l2-fields.ts';
import { returnToL1 } from './l2-return.ts';
import { PLATFORM } from './layout.ts';
import type { LeafOutcome, TdxModule } from './module.ts';
import { GPR } from './registers.ts';
import type { L2State, VcpuState } from './state.ts';
import { ended, invalid, succeeded, type Caller } from './tdcall.ts';
import { deliverable } from './vapic.ts';
import { deliveredEvent } from './delivered.ts';

const VM_SHIFT = 52n;
const ENTER_FLAGS = 3n;

export function vpEnter(caller: Caller): LeafOutcome {
  const { module, vcpu, registers } = caller;
  const stateGpa = registers.get(GPR.rdx);
  if (!module.isPrivateGpa(stateGpa, L2_ENTER_STATE_ALIGNMENT)) return invalid(caller, OPERAND.rdx);
  const rcx = registers.get(GPR.rcx);
  const vm = Number((rcx >> VM_SHIFT) & 3n);
  if (rcx >> 54n !== 0n || (rcx & ~(3n << VM_SHIFT) & ~ENTER_FLAGS) !== 0n)
    return invalid(caller, OPERAND.rcx);
  if (vm === 0 || vm > module.td.numL2Vms) return invalid(caller, OPERAND.rcx);
  const apic = l2Field(module, vcpu, vm, VMCS.virtualApic);
  if (!module.isPrivateGpa(apic, 4096)) return invalid(caller, OPERAND.l2VapicGpa);
  // An interrupt for L1 comes first.
  if (deliverable(vcpu) >= 0) return ended(caller, STATUS.pendingInterrupt);
  const state = module.reach(stateGpa, true);
  if (!state.ok) return { kind: 'exit', exit: state.exit };
  const page = module.reach(apic, true);
  if (!page.ok) return { kind: 'exit', exit: page.exit };
  load(module, vcpu, vm, Number(stateGpa), state.host, Number(rcx & ENTER_FLAGS));
  return { kind: 'enter-l2', vm };
}

/** Registers from the state page; everything else is where TDG.VP.WR has put it. */
function load(
  module: TdxModule,
  vcpu: VcpuState,
  vm: number,
  stateGpa: number,
  host: number,
  invalidate: number,
): void {
  const { engine } = module;
  const { view } = engine;
  const cpu = engine.cpu(vcpu.index, vm);
  const l2 = vcpu.l2[vm - 1] as L2State;
  l2.stateGpa = stateGpa;
  engine.u8.copyWithin(cpu + CPU.gpr, host, host + 128);
  setRflags(engine, cpu, view.getUint32(host + L2_ENTER_GUEST_STATE.offsetOf('rflags'), true));
  write64(engine, cpu + CPU.rip, read64(engine, host + L2_ENTER_GUEST_STATE.offsetOf('rip')));
  l2.rvi = view.getUint8(host + L2_ENTER_GUEST_STATE.offsetOf('rvi'));
  l2.svi = view.getUint8(host + L2_ENTER_GUEST_STATE.offsetOf('svi'));
  const field = (encoding: number): bigint => l2Field(module, vcpu, vm, encoding);
  const proc = Number(field(VMCS.procControls));
  const secondary = Number(field(VMCS.secondaryControls));
  const entry = Number(field(VMCS.entryControls));
  view.setUint32(cpu + PLATFORM.sharedEpt, (l2.ctls & L2_CTL.enableSharedEptp) !== 0n ? 1 : 0, true);
  view.setUint32(cpu + PLATFORM.modeBasedExecute, secondary & SECONDARY.modeBasedExecute ? 1 : 0, true);
  write64(
    engine,
    cpu + CPU.intercepts,
    BigInt(
      (proc & PROC.rdtsc ? INTERCEPT.rdtsc | INTERCEPT.rdtscp : 0) |
        (proc & PROC.rdpmc ? INTERCEPT.rdpmc : 0) |
        (proc & PROC.drAccess ? INTERCEPT.movDr : 0),
    ),
  );
  view.setUint32(cpu + CPU.exceptionBitmap, Number(field(VMCS.exceptionBitmap)) & ~(1 << 18), true);
  // NE is set in the real CR0, MCE in the real CR4, whoever shadows them.
  write64(engine, cpu + CPU.cr0Mask, field(VMCS.cr0Mask) | BigInt(CR0.NE | CR0.CD | CR0.NW));
  write64(
    engine,
    cpu + CPU.cr0Shadow,
    shadowOf(field(VMCS.cr0Mask), field(VMCS.cr0Shadow), read64(engine, cpu + CPU.cr0)),
  );
  write64(engine, cpu + CPU.cr4Mask, field(VMCS.cr4Mask) | CR4_FIXED);
  write64(
    engine,
    cpu + CPU.cr4Shadow,
    shadowOf(field(VMCS.cr4Mask), field(VMCS.cr4Shadow), read64(engine, cpu + CPU.cr4)),
  );
  const efer = read64(engine, cpu + CPU.efer);
  const long = (entry & ENTRY_IA32E) !== 0;
  const next = long ? efer | BigInt(EFER.LMA) : efer & ~BigInt(EFER.LMA);
  write64(engine, cpu + CPU.efer, next);
  const cr0 = view.getUint32(cpu + CPU.cr0, true);
  view.setUint32(cpu + CPU.cpl, cr0 & CR0.PE ? cplOf(module, cpu) : 0, true);
  if (invalidate !== ENTER_INVALIDATE.none || l2.stale || next !== efer) engine.tlbFlush(cpu);
  l2.stale = false;
  for (const at of [CPU.answers, CPU.answersUsed, CPU.deliver, CPU.delivering, CPU.stageExit])
    view.setUint32(cpu + at, 0, true);
  vcpu.vm = vm;
  engine.updateMode(cpu);
}

/** MCE, VMXE, SMXE. */
const CR4_FIXED = 0x6040n;
/** L1's shadow where L1 owns a bit, the register itself where only the module does. */
const shadowOf = (mask: bigint, shadow: bigint, real: bigint): bigint => (shadow & mask) | (real & ~mask);

/** CPL is the DPL of SS, 3 in virtual-8086 mode. */
function cplOf(module: TdxModule, cpu: number): number {
  const { view } = module.engine;
  if (view.getUint32(cpu + CPU.eflags, true) & FLAG.VM) return 3;
  return (view.getUint32(cpu + SS_ATTR, true) >>> 5) & 3;
}
const SS_ATTR = CPU.seg + 2 * 32 + 12;

/** Guest state that no processor would enter (SDM vol. 3, 27.3.1), as far as L1 can make it. */
export function isStateValid(module: TdxModule, vcpu: VcpuState, vm: number): boolean {
  const { engine } = module;
  const cpu = engine.cpu(vcpu.index, vm);
  const cr0 = engine.view.getUint32(cpu + CPU.cr0, true);
  const cr4 = engine.view.getUint32(cpu + CPU.cr4, true);
  const efer = engine.view.getUint32(cpu + CPU.efer, true);
  const flags = engine.view.getUint32(cpu + CPU.eflags, true);
  const long = (efer & EFER.LMA) !== 0;
  const paging = (cr0 & CR0.PG) !== 0;
  if (paging && (cr0 & CR0.PE) === 0) return false;
  if (long && (!paging || (cr4 & 0x20) === 0)) return false;
  // With paging LMA and LME are the same.
  if (paging && long !== ((efer & EFER.LME) !== 0)) return false;
  if (long && flags & FLAG.VM) return false;
  if ((cr0 & CR0.PE) === 0 && flags & FLAG.VM) return false;
  return isInterruptibilityValid(module, vcpu, vm, flags);
}

/** The event that is injected must be one that the guest could take now (SDM vol. 3, 27.3.1.4 and 27.3.1.5). */
function isInterruptibilityValid(module: TdxModule, vcpu: VcpuState, vm: number, flags: number): boolean {
  const shadow = module.engine.view.getUint32(module.engine.cpu(vcpu.index, vm) + CPU.shadow, true);
  const sti = (shadow & SHADOW.sti) !== 0;
  const movSs = (shadow & SHADOW.movSs) !== 0;
  if (sti && (movSs || (flags & FLAG.IF) === 0)) return false;
  const info = Number(l2Field(module, vcpu, vm, VMCS.entryInterruption));
  if ((info & VALID) === 0) return true;
  switch ((info >>> INFO_TYPE_SHIFT) & 7) {
    case TYPE.external:
      return (flags & FLAG.IF) !== 0 && !sti && !movSs;
    case TYPE.nmi:
      // With virtual NMIs, which are always on.
      return !movSs && (shadow & SHADOW.nmiBlocked) === 0;
    default:
      return true;
  }
}

export function entryFailure(module: TdxModule, vcpu: VcpuState): void {
  returnToL1(module, vcpu, {
    reason: ENTRY_FAILURE + EXIT_REASON.entryFailureState,
    qualification: 0n,
    kind: 'async',
  });
}

const VALID = 0x8000_0000 | 0;

/**
 * Event injection (SDM vol. 3, 27.6), once the state was found valid: the event goes through the L2's IDT before its first
 * instruction.
 */
export function injectAtEntry(module: TdxModule, vcpu: VcpuState, vm: number): void {
  const info = Number(l2Field(module, vcpu, vm, VMCS.entryInterruption));
  if ((info & VALID) === 0) return;
  const { view } = module.engine;
  const cpu = module.engine.cpu(vcpu.index, vm);
  const vector = info & 0xff;
  const type = (info >>> INFO_TYPE_SHIFT) & 7;
  deliveredEvent(module, vcpu, vector, type);
  const kind = KINDS[type] ?? RAISE.external;
  const hasError = (info & 0x800) !== 0;
  view.setUint32(cpu + CPU.raiseKind, kind, true);
  view.setUint32(cpu + CPU.raiseVector, vector, true);
  view.setUint32(cpu + CPU.raiseHasError, hasError ? 1 : 0, true);
  view.setUint32(
    cpu + CPU.raiseError,
    hasError ? Number(l2Field(module, vcpu, vm, VMCS.entryErrorCode)) : 0,
    true,
  );
  // A page fault's address is in CR2 already; other exceptions take no information.
  write64(module.engine, cpu + CPU.raiseInfo, vector === 14 ? read64(module.engine, cpu + CPU.cr2) : 0n);
  view.setUint32(cpu + CPU.deliver, 1, true);
  view.setUint32(cpu + CPU.delivering, vector + 1, true);
  view.setUint32(cpu + CPU.deliveringClass, kind === RAISE.fault ? eventClass(vector) : 0, true);
  // Software events push the address of the next instruction.
  if (kind === RAISE.software)
    write64(
      module.engine,
      cpu + CPU.rip,
      read64(module.engine, cpu + CPU.rip) + l2Field(module, vcpu, vm, VMCS.entryLength),
    );
  setL2Field(module, vcpu, vm, VMCS.entryInterruption, BigInt.asUintN(32, BigInt(info & ~VALID)));
}

/** Interruption types (SDM vol. 3, table 25-17). */
const TYPE = { external: 0, nmi: 2, exception: 3 } as const;
const INFO_TYPE_SHIFT = 8;
/** 4 to 6: software interrupt, privileged and other software exceptions. */
const KINDS: Readonly<Record<number, number>> = {
  [TYPE.external]: RAISE.external,
  [TYPE.nmi]: RAISE.external,
  [TYPE.exception]: RAISE.fault,
  4: RAISE.software,
  5: RAISE.software,
  6: RAISE.software,
};

/** Drops all translations of the VMs in the mask. */
export function vpInvept(caller: Caller): LeafOutcome {
  const { module, registers } = caller;
  const mask = registers.get(GPR.rcx);
  if ((mask & 1n) !== 0n || mask >> BigInt(module.td.numL2Vms + 1) !== 0n)
    return invalid(caller, OPERAND.rcx);
  for (let vm = 1; vm <= module.td.numL2Vms; vm++)
    if ((mask >> BigInt(vm)) & 1n)
      for (const { index } of module.vcpus) module.engine.tlbFlush(module.engine.cpu(index, vm));
  return succeeded(caller);
}

const isCanonical = (gla: bigint): boolean => BigInt.asIntN(48, gla) === BigInt.asIntN(64, gla);

/** Linear addresses of an L2 VM on this virtual processor: one range in RDX, or a list. */
export function vpInvgla(caller: Caller): LeafOutcome {
  const { module, registers, vcpu } = caller;
  const rcx = registers.get(GPR.rcx);
  const vm = Number((rcx >> VM_SHIFT) & 3n);
  if ((rcx & ~(3n << VM_SHIFT) & ~1n) !== 0n || vm === 0 || vm > module.td.numL2Vms)
    return invalid(caller, OPERAND.rcx);
  const cpu = module.engine.cpu(vcpu.index, vm);
  const drop = (entry: bigint): boolean => {
    const gla = entry & ~0xfffn;
    if (!isCanonical(gla)) return false;
    const pages = Number(entry & 0xfffn) + 1;
    if (pages > 64) module.engine.tlbFlush(cpu);
    else
      for (let page = 0; page < pages; page++)
        module.engine.tlbFlushPage(cpu, BigInt.asUintN(64, gla + BigInt(page * 4096)));
    return true;
  };
  const rdx = registers.get(GPR.rdx);
  if ((rcx & 1n) === 0n) {
    if (!drop(rdx)) return ended(caller, STATUS.glaNotCanonical, OPERAND.rdx);
    return succeeded(caller);
  }
  const list = rdx & 0xf_ffff_ffff_f000n;
  let first = Number(rdx & 0x1ffn);
  const count = Number(rdx >> VM_SHIFT);
  if ((rdx & 0xe00n) !== 0n || !module.isPrivateGpa(list, 4096) || first + count > 512)
    return invalid(caller, OPERAND.rdx);
  const reached = module.reach(list, false);
  if (!reached.ok) return { kind: 'exit', exit: reached.exit };
  for (let left = count; left > 0; left--, first++) {
    const entry = read64(module.engine, reached.host + first * 8);
    if (drop(entry)) continue;
    registers.set(GPR.rdx, list | BigInt(first & 0x1ff) | (BigInt(left) << VM_SHIFT));
    return ended(caller, STATUS.glaNotCanonical, OPERAND.rdx);
  }
  registers.set(GPR.rdx, list | BigInt(first & 0x1ff));
  return succeeded(caller);
}
