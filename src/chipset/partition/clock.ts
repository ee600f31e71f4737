/** What happens in a partition as time passes: timers of the virtual processors, and the board. */

import { timersNextEvent } from '../stimer.ts';
import { boardAdvance, boardNextEvent } from './board.ts';
import { apicTimerAdvance, apicTimerNextEvent } from './interrupts.ts';
import { runTimers } from './messages.ts';
import type { PartitionCall, PartitionState } from './state.ts';

/** Lets everything happen that is due at `call.now`. */
export function partitionAdvance(call: PartitionCall): void {
  for (const vp of call.state.vps) {
    if (timersNextEvent(vp.timers) <= call.now) runTimers(call, vp);
    apicTimerAdvance(call, vp);
  }
  boardAdvance(call);
}

/** Virtual time in ns at which `partitionAdvance` next has something to do; Infinity: never. */
export function partitionNextEvent(state: PartitionState): number {
  let next = boardNextEvent(state);
  for (const vp of state.vps) next = Math.min(next, timersNextEvent(vp.timers), apicTimerNextEvent(vp));
  return next;
}
