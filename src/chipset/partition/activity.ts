/** When a virtual processor that waits goes on. */

import { hasExternal, hasInterrupt, hasNmi } from './interrupts.ts';
import type { VpState } from './state.ts';

const isInterrupted = (vp: VpState): boolean => hasInterrupt(vp) || hasExternal(vp);

/** Whether the VP would execute if it had its turn. */
export function isRunnable(vp: VpState): boolean {
  switch (vp.activity) {
    case 'running':
      return true;
    case 'halted':
      return hasNmi(vp) || (vp.haltedWithInterrupts && isInterrupted(vp));
    case 'idle':
      return hasNmi(vp) || isInterrupted(vp);
    case 'waiting':
      return false;
  }
}
