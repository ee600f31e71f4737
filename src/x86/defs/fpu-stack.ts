/** The x87 register stack as instruction definitions use it. */
import { CPU } from '../layout.ts';
import { FSW } from '../runtime/fpu-values.ts';
import type { Sem } from '../sem.ts';
import { i32, type Val } from '../wasm/value.ts';

export interface Value {
  readonly mant: Val;
  readonly se: Val;
}

export const wide = (e: Sem): Value => ({ mant: e.field64(CPU.wide), se: e.field32(CPU.wide + 8) });

export function st(e: Sem, i: Val | number): Value {
  const at = e.callValue('fpu_st', e.cpu, typeof i === 'number' ? i32(i) : i);
  return { mant: e.f.let(e.f.load('64', at)), se: e.f.let(e.f.load('16u', at, 8)) };
}
export const empty = (e: Sem, i: Val | number): Val =>
  e.callValue('fpu_empty', e.cpu, typeof i === 'number' ? i32(i) : i);
export const write = (e: Sem, i: Val | number, { mant, se }: Value): void =>
  e.call('fpu_write', e.cpu, typeof i === 'number' ? i32(i) : i, mant, se);
export const push = (e: Sem, { mant, se }: Value): void => e.call('fpu_push', e.cpu, mant, se);
export const pop = (e: Sem): void => e.call('fpu_pop', e.cpu);
export const begin = (e: Sem): void => e.call('fpu_begin', e.cpu, e.record());
/** As begin, for what leaves C1 alone unless the stack is at fault. */
export function beginKeepingC1(e: Sem): void {
  const c1 = e.f.let(e.field32(CPU.fsw).and(FSW.C1));
  begin(e);
  e.setField32(CPU.fsw, e.field32(CPU.fsw).or(c1));
}
export const blocked = (e: Sem): Val => e.callValue('fpu_blocked', e.cpu);
/** FDP shows the offset of the operand, not its linear address. */
export const notePointer = (e: Sem): void => e.setField64(CPU.fdp, e.effective());

/** Runs `body` unless one of the registers is empty; then the masked answer is the indefinite in `target` (none: nothing). */
export function withOperands(
  e: Sem,
  registers: readonly (Val | number)[],
  target: Val | number | undefined,
  popAfter: boolean,
  body: () => void,
): void {
  const { f } = e;
  let any = empty(e, registers[0] as Val | number);
  for (const register of registers.slice(1)) any = f.let(any.or(empty(e, register)));
  f.if(
    any,
    () => {
      e.call('fpu_underflow', e.cpu);
      f.if(e.callValue('fpu_masked', e.cpu, i32(FSW.IE)), () => {
        if (target !== undefined) write(e, target, wide(e));
        if (popAfter) pop(e);
      });
    },
    body,
  );
}
