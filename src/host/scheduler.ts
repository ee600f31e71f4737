/**
 * The host's scheduling policy: one VP at a time, round robin in slices of virtual time, VPs that wait are passed
 * over. The machine offers turns; which VP gets one, and for how long, is decided here.
 */

import { isRunnable } from '../chipset/partition/activity.ts';
import type { ContextEntry } from '../seats/entry.ts';
import type { HostState, VpState } from './state.ts';

export type Turn =
  /** Run this VP for at most so many instructions (one takes 1 ns). */
  | {
      readonly kind: 'run';
      readonly vp: number;
      readonly instructions: number;
      readonly entry?: ContextEntry;
    }
  /** Nobody can run before this time in ns; Infinity: nothing will ever happen again. */
  | { readonly kind: 'idle'; readonly until: number };

/** Nanoseconds between two looks at a VP that nobody waits for. */
const LONGEST_TURN = 10_000_000;

/** The next turn. `nextEvent`: time in ns at which the host itself has something to do. */
export function nextTurn(state: HostState, now: number, nextEvent: number): Turn {
  const vp = choose(state, now);
  if (vp === undefined) {
    endTurn(state, now);
    return { kind: 'idle', until: nextEvent };
  }
  vp.activity = 'running';
  const { turn, vps } = state;
  // Alone, a VP needs no slices: whatever makes another one runnable ends its run first.
  const alone = vps.every((other) => other === vp || !isRunnable(other));
  if (!turn.active || turn.vp !== vp.index || (now >= turn.until && !alone)) {
    endTurn(state, now);
    Object.assign(turn, { vp: vp.index, active: true, since: now, until: now + state.config.slice });
  }
  // Nothing of a turn alone is remembered: when it is asked for again depends on the outside, and must not show.
  if (alone) turn.until = 0;
  const until = alone ? now + LONGEST_TURN : turn.until;
  const instructions = Math.max(1, Math.min(until, nextEvent) - now);
  return { kind: 'run', vp: vp.index, instructions };
}

/** The VP of the present turn while it lasts, then the next one that can run, itself last. */
function choose(state: HostState, now: number): VpState | undefined {
  const { vps, turn } = state;
  const current = vps[turn.vp];
  if (current !== undefined && turn.active && now < turn.until && isRunnable(current)) return current;
  for (let step = 1; step <= vps.length; step++) {
    const vp = vps[(turn.vp + step) % vps.length];
    if (vp !== undefined && isRunnable(vp)) return vp;
  }
  return undefined;
}

/** Books the time of the present turn. Time that passes while nobody runs belongs to nobody. */
export function endTurn(state: HostState, now: number): void {
  const { turn } = state;
  const current = state.vps[turn.vp];
  if (turn.active && current !== undefined) current.ranFor += now - turn.since;
  turn.active = false;
}

/** The VP whose turn it is gives way to the others. */
export function yieldTurn(state: HostState, now: number): void {
  state.turn.until = now;
}
