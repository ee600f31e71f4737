/** Interrupts while an L2 VM runs: those for L1 end its turn; its own come from what L1 asked for. */
import { EXIT_REASON } from '../../abi/tdx/exit-reasons.ts';
import type { Waiting } from '../../seats/entry.ts';
import { CPU, FLAG, PENDING, SHADOW } from '../../x86/layout.ts';
import { inject, read64, rflags } from '../vcpu.ts';
import { deliveredEvent } from './delivered.ts';
import { apicPage, deliverVirtualInterrupt, virtualInterrupt } from './l2-apic.ts';
import { l2Field, PROC, SECONDARY, VMCS } from './l2-fields.ts';
import { interruptL1, returnToL1 } from './l2-return.ts';
import type { TdxModule } from './module.ts';
import { NO_DEADLINE, type L2State, type VcpuState } from './state.ts';
import { deliverable } from './vapic.ts';

function virtualPage(module: TdxModule, vcpu: VcpuState): number | undefined {
  const secondary = Number(l2Field(module, vcpu, vcpu.vm, VMCS.secondaryControls));
  return secondary & SECONDARY.virtualInterrupts ? apicPage(module, vcpu, vcpu.vm) : undefined;
}

/** Virtual time in ns at which TSC_DEADLINE of the VM that runs is reached; Infinity: it has none. */
export function l2Deadline(module: TdxModule, vcpu: VcpuState): number {
  const { tscDeadline } = vcpu.l2[vcpu.vm - 1] as L2State;
  if (tscDeadline === NO_DEADLINE) return Infinity;
  const { engine } = module;
  const cpu = engine.cpu(vcpu.index, vcpu.vm);
  const rate = engine.view.getUint32(cpu + CPU.tscMultiplier, true);
  const now = module.now();
  const tsc = BigInt(Math.floor(now)) * BigInt(rate) + read64(engine, cpu + CPU.tscOffset);
  const left = BigInt.asIntN(64, tscDeadline - tsc);
  return left <= 0n ? now : Math.floor(now) + Math.ceil(Number(left) / rate);
}

/** PENDING bits of the L2 context. */
export function pendingL2(module: TdxModule, vcpu: VcpuState, waiting: Waiting): number {
  const proc = Number(l2Field(module, vcpu, vcpu.vm, VMCS.procControls));
  const l2 = vcpu.l2[vcpu.vm - 1] as L2State;
  const due = l2Deadline(module, vcpu) <= module.now();
  let pending = waiting !== 'none' || deliverable(vcpu) >= 0 || due ? PENDING.attention : 0;
  if (proc & PROC.interruptWindow) pending |= PENDING.interrupt;
  if (proc & PROC.nmiWindow) pending |= PENDING.nmi;
  if (l2.rvi !== 0) {
    const page = virtualPage(module, vcpu);
    if (page !== undefined && virtualInterrupt(module, page, l2) >= 0) pending |= PENDING.interrupt;
  }
  return pending;
}

/** At an instruction boundary, with what the host posted already in L1's virtual APIC. */
export function deliverL2(module: TdxModule, vcpu: VcpuState): void {
  const { engine } = module;
  const cpu = engine.cpu(vcpu.index, vcpu.vm);
  const toL1 = (reason: number): void =>
    returnToL1(module, vcpu, { reason, qualification: 0n, kind: 'async' });
  // The order of SDM vol. 3, 26.2.
  if (l2Deadline(module, vcpu) <= module.now()) return toL1(EXIT_REASON.preemptionTimer);
  if (deliverable(vcpu) >= 0) return interruptL1(module, vcpu);
  const shadow = engine.view.getUint32(cpu + CPU.shadow, true);
  const proc = Number(l2Field(module, vcpu, vcpu.vm, VMCS.procControls));
  const blocked = (shadow & (SHADOW.sti | SHADOW.movSs)) !== 0;
  if (proc & PROC.nmiWindow && !blocked && (shadow & SHADOW.nmiBlocked) === 0)
    return toL1(EXIT_REASON.nmiWindow);
  if (blocked || (rflags(engine, cpu) & FLAG.IF) === 0) return;
  if (proc & PROC.interruptWindow) return toL1(EXIT_REASON.interruptWindow);
  const l2 = vcpu.l2[vcpu.vm - 1] as L2State;
  const page = virtualPage(module, vcpu);
  if (page === undefined || virtualInterrupt(module, page, l2) < 0) return;
  const vector = deliverVirtualInterrupt(module, page, l2);
  deliveredEvent(module, vcpu, vector, 0);
  inject(engine, cpu, vector);
}
