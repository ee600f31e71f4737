/** TDG.VP.ENTER, TDG.VP.INVEPT, TDG.VP.INVGLA. */
import { OPERAND } from '../../abi/tdx/status.ts';
import type { LeafOutcome } from './module.ts';
import { invalid, type Caller } from './tdcall.ts';

export function vpEnter(caller: Caller): LeafOutcome {
  return invalid(caller, OPERAND.rcx);
}
export function vpInvept(caller: Caller): LeafOutcome {
  return invalid(caller, OPERAND.rcx);
}
export function vpInvgla(caller: Caller): LeafOutcome {
  return invalid(caller, OPERAND.rcx);
}
