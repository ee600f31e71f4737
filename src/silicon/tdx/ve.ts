/** #VE: the information area, and when #DF comes instead (TDX Module Base Architecture, "Virtualization Exception"). */
import { EVENT, EVENT_CLASS } from '../../abi/events.ts';
import { CPU, REC, VEC } from '../../x86/layout.ts';
import { eventClass, raiseFault } from '../vcpu.ts';
import type { TdxModule } from './module.ts';
import type { VcpuState } from './state.ts';

export interface VeCause {
  readonly reason: number;
  readonly qualification?: bigint;
  readonly gla?: bigint;
  readonly gpa?: bigint;
  readonly information?: number;
}

/** Length of the instruction that left the processor. */
export function instructionLength(module: TdxModule, cpu: number): number {
  const { view } = module.engine;
  const record = view.getUint32(cpu + CPU.record, true);
  return record === 0 ? 0 : view.getUint8(record + REC.length);
}

/** False: the virtual processor is dead (a triple fault). */
export function injectVe(module: TdxModule, vcpu: VcpuState, cpu: number, cause: VeCause): boolean {
  if (vcpu.ve.valid) return raiseNested(module, cpu, VEC.DF, 0);
  vcpu.ve = {
    valid: true,
    reason: cause.reason,
    qualification: cause.qualification ?? 0n,
    gla: cause.gla ?? 0n,
    gpa: cause.gpa ?? 0n,
    length: instructionLength(module, cpu),
    information: cause.information ?? 0,
  };
  const { sink } = module;
  if (sink.mask & EVENT_CLASS.exception)
    sink.emit(EVENT.confidentialException, module.now(), vcpu.index, VEC.VE, cause.reason, vcpu.vm, 0);
  return raiseNested(module, cpu, VEC.VE);
}

/** Raises a fault, perhaps while another event is being delivered (SDM vol. 3, table 6-5). False: triple fault. */
export function raiseNested(module: TdxModule, cpu: number, vector: number, errorCode?: number): boolean {
  const { engine } = module;
  if (engine.view.getUint32(cpu + CPU.delivering, true) !== 0) {
    const before = engine.view.getUint32(cpu + CPU.deliveringClass, true);
    const now = eventClass(vector);
    if (before === 3 && now !== 0) return false;
    if ((before === 1 && now === 1) || (before === 2 && (now === 1 || now === 2))) {
      raiseFault(engine, cpu, VEC.DF, 0);
      return true;
    }
  }
  raiseFault(engine, cpu, vector, errorCode);
  return true;
}
