/** The guest's request to be ended. */
import { EVENT, EVENT_CLASS } from '../../abi/events.ts';
import { terminationReason } from '../../abi/snp/ghcb.ts';
import type { VpState } from '../../chipset/partition/state.ts';
import type { HostCall } from '../state.ts';

export function terminate(call: HostCall, vp: VpState, set: number, reason: number, detail: bigint): void {
  if (call.sink.mask & EVENT_CLASS.lifecycle)
    call.sink.emit(EVENT.termination, call.now, vp.index, set, reason, 0, 0);
  const features =
    set === 0 && reason === 2 && detail !== 0n ? `, SEV_FEATURES 0x${detail.toString(16)}` : '';
  call.actions.push({
    kind: 'terminate',
    vp: vp.index,
    what: `set ${set}, reason ${reason}: ${terminationReason(set, reason)}${features}`,
  });
}
