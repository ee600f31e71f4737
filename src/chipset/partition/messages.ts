/** Moves what SynIC and synthetic timers have to say to the VP: messages into slots, interrupts to its local APIC. */

import { EVENT, EVENT_CLASS } from '../../abi/events.ts';
import {
  synicDeliver,
  synicPost,
  synicSignal,
  synicTimerWaits,
  type PostOutcome,
  type SignalOutcome,
  type SynicInterrupt,
  type SynicMessage,
} from '../synic.ts';
import { timersAdvance } from '../stimer.ts';
import { referenceCount } from '../reference-time.ts';
import { requestInterrupt } from './interrupts.ts';
import type { PartitionCall, VpState } from './state.ts';

/** Delivers what can be delivered; to be called whenever a slot may have become free. */
export function deliverMessages(call: PartitionCall, vp: VpState): void {
  if (vp.synic.queues.every((queue) => queue.length === 0)) return;
  const count = referenceCount(call.state.time, call.now);
  for (const { sint, message, interrupt } of synicDeliver(vp.synic, call.view, count)) {
    if (call.sink.mask & EVENT_CLASS.synic) {
      call.sink.emit(EVENT.message, call.now, vp.index, sint, message.type, message.payload.length, 0);
    }
    if (interrupt !== undefined) raise(call, vp, interrupt);
  }
}

export function postMessage(
  call: PartitionCall,
  vp: VpState,
  sint: number,
  message: SynicMessage,
): PostOutcome {
  const outcome = synicPost(vp.synic, sint, message);
  deliverMessages(call, vp);
  const waiting = vp.synic.queues[sint]?.length ?? 0;
  if (waiting > 0 && call.sink.mask & EVENT_CLASS.synic) {
    call.sink.emit(EVENT.messageQueued, call.now, vp.index, sint, message.type, waiting, 0);
  }
  return outcome;
}

export function signalEvent(call: PartitionCall, vp: VpState, sint: number, flag: number): SignalOutcome {
  const outcome = synicSignal(vp.synic, call.view, sint, flag);
  if (call.sink.mask & EVENT_CLASS.synic) {
    call.sink.emit(EVENT.eventFlag, call.now, vp.index, sint, flag, outcome.kind === 'already' ? 1 : 0, 0);
  }
  if (outcome.kind === 'signalled' && outcome.interrupt !== undefined) raise(call, vp, outcome.interrupt);
  return outcome;
}

export function raise(call: PartitionCall, vp: VpState, interrupt: SynicInterrupt): void {
  if (call.proxy !== undefined) {
    call.proxy(vp, interrupt.vector);
    return;
  }
  requestInterrupt(call, vp, interrupt.vector, { autoEoi: interrupt.autoEoi });
}

/** Lets the VP's synthetic timers expire. */
export function runTimers(call: PartitionCall, vp: VpState): void {
  for (const expiry of timersAdvance(vp.timers, call.state.time, call.now)) {
    if (call.sink.mask & EVENT_CLASS.timer) {
      call.sink.emit(EVENT.timerExpired, call.now, vp.index, expiry.timer, 0, 0, 0);
    }
    if (expiry.kind === 'direct') {
      requestInterrupt(call, vp, expiry.vector, {});
    } else if (!synicTimerWaits(vp.synic, expiry.timer)) {
      // A periodic timer whose last message still waits is not heard twice.
      postMessage(call, vp, expiry.sint, expiry.message);
    }
  }
}
