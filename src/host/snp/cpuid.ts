/** CPUID for a guest that asks by its GHCB: what the host would show an ordinary VM, from the processor that it runs on itself. */
import { EVENT, EVENT_CLASS } from '../../abi/events.ts';
import { cpuidOf } from '../../chipset/partition/cpuid.ts';
import { isApicEnabled } from '../../chipset/partition/interrupts.ts';
import type { VpState } from '../../chipset/partition/state.ts';
import type { CpuidRegisters } from '../../seats/exits.ts';
import { snpView } from './state.ts';
import type { HostCall } from '../state.ts';

export function cpuidForGuest(
  call: HostCall,
  vp: VpState,
  leaf: number,
  subleaf: number,
  xcr0: number,
  xss: number,
): CpuidRegisters {
  const { config, offer } = call.state;
  // The guest cannot be shown the bit later: its table is fixed at launch.
  const subject = {
    config,
    offer,
    apicId: vp.index,
    apicEnabled: isApicEnabled(vp),
    tscInvariantExposed: config.invariantTsc,
  };
  const registers = cpuidOf(subject, leaf, subleaf, snpView(call.view).cpuid(leaf, subleaf, xcr0, xss));
  if (call.sink.mask & EVENT_CLASS.cpuid)
    call.sink.emit(EVENT.cpuid, call.now, vp.index, leaf, subleaf, registers.eax, registers.ebx);
  return registers;
}
