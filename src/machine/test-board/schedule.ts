/** Which VP runs next: round robin in slices of virtual time, VPs that wait are passed over. */
import { DELIVERY } from '../../chipset/apic-message.ts';
import { hasInterrupt } from './interrupts.ts';
import type { BoardVp, TestBoard } from './state.ts';

export type Turn =
  /** Run this VP for at most so many instructions (one takes 1 ns). */
  | { readonly kind: 'run'; readonly vp: number; readonly instructions: number }
  /** Nobody can run before this time in ns; Infinity: nothing will ever happen again. */
  | { readonly kind: 'idle'; readonly until: number };

/** Whether the VP would execute if it had its turn. */
function isRunnable(vp: BoardVp): boolean {
  switch (vp.activity) {
    case 'running':
      return true;
    case 'halted':
      return vp.nmis > 0 || (vp.haltedWithInterrupts && hasInterrupt(vp));
    case 'waiting':
      return false;
  }
}

/** Of redirection entries and LVT alike: the mask, and the delivery modes that interrupts off keep out. */
const MASKED = 1 << 16;
const MASKABLE: readonly number[] = [DELIVERY.fixed, DELIVERY.lowestPriority, DELIVERY.extInt];

/** Instructions between two looks at the world outside. */
const LONGEST_TURN = 10_000_000;

/** `nextEvent`: time in ns at which the board itself has something to do. */
export function nextTurn(board: TestBoard, now: number, nextEvent: number): Turn {
  const { turn, vps, config } = board;
  const current = vps[turn.vp];
  if (current === undefined || now >= turn.until || !isRunnable(current)) {
    const next = after(vps, turn.vp);
    if (next === undefined) return { kind: 'idle', until: isDead(board) ? Infinity : nextEvent };
    turn.vp = next.index;
    turn.until = now + config.slice;
  }
  const vp = vps[turn.vp];
  if (vp !== undefined) vp.activity = 'running';
  // Alone, a VP needs no slices: whatever makes another one runnable ends its run first.
  const alone = vps.every((other) => other === vp || !isRunnable(other));
  // Nothing of a turn alone is remembered: when it is asked for again depends on the outside, and must not show.
  const until = alone ? now + LONGEST_TURN : turn.until;
  if (alone) turn.until = 0;
  return { kind: 'run', vp: turn.vp, instructions: Math.max(1, Math.min(until, nextEvent) - now) };
}

/** Nobody can be woken: all have halted with interrupts off, or wait for a start, and no device may send an NMI. */
function isDead({ vps, ioapic, asleep }: TestBoard): boolean {
  if (asleep || vps.some((vp) => vp.activity === 'halted' && vp.haltedWithInterrupts)) return false;
  const entries = [...ioapic.entriesLo, ...vps.flatMap(({ apic }) => apic.lvt)];
  return entries.every((entry) => (entry & MASKED) !== 0 || MASKABLE.includes((entry >>> 8) & 7));
}

/** The next VP that can run, the present one last. */
function after(vps: readonly BoardVp[], index: number): BoardVp | undefined {
  for (let step = 1; step <= vps.length; step++) {
    const vp = vps[(index + step) % vps.length];
    if (vp !== undefined && isRunnable(vp)) return vp;
  }
  return undefined;
}
