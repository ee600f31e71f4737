/** The way from an L2 VM back to L1: state page and registers (TDX Module 1.5 TD Partitioning, "TDG.VP.ENTER output"). */
import { EXIT_REASON } from '../../abi/tdx/exit-reasons.ts';
import { L2_ENTER_GUEST_STATE } from '../../abi/tdx/l2.ts';
import { status, STATUS } from '../../abi/tdx/status.ts';
import { CPU, CS, SEG, segField } from '../../x86/layout.ts';
import { read64, rflags, write64 } from '../vcpu.ts';
import { toAccessRights } from './l2-fields.ts';
import type { TdxModule } from './module.ts';
import { arrayRegisters, contextRegisters, GPR, type Registers } from './registers.ts';
import type { L2Exit, L2State, VcpuState } from './state.ts';

/** Registers of L1 on a virtual processor. */
export function l1Registers(module: TdxModule, vcpu: VcpuState): Registers {
  return module.l1IsProgram
    ? arrayRegisters(vcpu.l1Gprs)
    : contextRegisters(module.engine, module.engine.cpu(vcpu.index, 0));
}

/** Stores what L1 passes to and from an L2 VM. The page was writable when the VM was entered; a host that took it away loses. */
export function storeState(module: TdxModule, vcpu: VcpuState): void {
  const { engine } = module;
  const l2 = vcpu.l2[vcpu.vm - 1] as L2State;
  const reached = module.reach(BigInt(l2.stateGpa), true);
  if (!reached.ok) return;
  const cpu = engine.cpu(vcpu.index, vcpu.vm);
  const { host } = reached;
  engine.blocks.codeChanged(host, L2_ENTER_GUEST_STATE.size);
  engine.u8.copyWithin(host, cpu + CPU.gpr, cpu + CPU.gpr + 128);
  write64(engine, host + L2_ENTER_GUEST_STATE.offsetOf('rflags'), BigInt(rflags(engine, cpu)));
  write64(engine, host + L2_ENTER_GUEST_STATE.offsetOf('rip'), read64(engine, cpu + CPU.rip));
  engine.view.setUint8(host + L2_ENTER_GUEST_STATE.offsetOf('rvi'), l2.rvi);
  engine.view.setUint8(host + L2_ENTER_GUEST_STATE.offsetOf('svi'), l2.svi);
}

export type L2ExitCause = Pick<L2Exit, 'reason' | 'qualification' | 'kind'> & Partial<L2Exit>;

/** A complete description of an exit. */
export function l2Exit(cause: L2ExitCause): L2Exit {
  return {
    gla: 0n,
    gpa: 0n,
    interruption: 0n,
    vectoring: 0n,
    instruction: 0n,
    extended: 0n,
    ...cause,
  };
}

/** Ends the L2 VM's turn; L1 goes on behind its TDG.VP.ENTER. */
export function returnToL1(
  module: TdxModule,
  vcpu: VcpuState,
  cause: L2ExitCause,
  code: number = STATUS.success,
): void {
  const { engine } = module;
  const exit = l2Exit(cause);
  const cpu = engine.cpu(vcpu.index, vcpu.vm);
  storeState(module, vcpu);
  const word = (offset: number): bigint => BigInt(engine.view.getUint32(cpu + offset, true));
  const selector = word(segField(CS, SEG.selector));
  const rights = BigInt(toAccessRights(engine.view.getUint32(cpu + segField(CS, SEG.attr), true)) & 0xffff);
  const limit = word(segField(CS, SEG.limit));
  const base = read64(engine, cpu + segField(CS, SEG.base));
  const cpl = word(CPU.cpl);
  vcpu.vm = 0;
  vcpu.l2Exit = undefined;
  const registers = l1Registers(module, vcpu);
  registers.set(GPR.rax, status(code, exit.reason));
  registers.set(GPR.rbx, 0n);
  registers.set(GPR.rcx, exit.qualification);
  registers.set(GPR.rdx, exit.gla);
  registers.set(GPR.rsi, selector | (rights << 16n) | (limit << 32n));
  registers.set(GPR.rdi, base);
  registers.set(GPR.r8, exit.gpa);
  registers.set(GPR.r9, exit.interruption);
  registers.set(GPR.r10, exit.vectoring);
  registers.set(GPR.r11, exit.instruction);
  registers.set(GPR.r12, cpl);
  registers.set(GPR.r13, exit.extended);
  registers.set(GPR.r14, 0n);
  registers.set(GPR.r15, 0n);
}

/** An interrupt for L1 has come while an L2 VM ran. */
export function interruptL1(module: TdxModule, vcpu: VcpuState): void {
  returnToL1(
    module,
    vcpu,
    { reason: EXIT_REASON.externalInterrupt, qualification: 0n, kind: 'async' },
    STATUS.l2ExitPendingInterrupt,
  );
}
