/** Says that an event goes through the IDT of the running VM at a time when the architecture lets it. */
import { EVENT, EVENT_CLASS, INJECTION_OUTCOME } from '../../abi/events.ts';
import type { TdxModule } from './module.ts';
import type { VcpuState } from './state.ts';

/** `type`: 0 interrupt, 2 NMI, 3 exception and so on (SDM vol. 3, table 25-17; the same as APM vol. 2, 15.20 for these). */
export function deliveredEvent(module: TdxModule, vcpu: VcpuState, vector: number, type: number): void {
  const { sink } = module;
  if (sink.mask & EVENT_CLASS.exception)
    sink.emit(EVENT.injection, module.now(), vcpu.index, vector, type, INJECTION_OUTCOME.delivered, vcpu.vm);
}
