/** What TDG.VP.RD and TDG.VP.WR reach of an L2 VM. */
import type { LeafOutcome } from './module.ts';
import type { Caller } from './tdcall.ts';

export function readL2Field(_caller: Caller): LeafOutcome | undefined {
  return undefined;
}
export function writeL2Field(_caller: Caller): LeafOutcome | undefined {
  return undefined;
}
