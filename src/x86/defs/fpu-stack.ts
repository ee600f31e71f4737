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

/** Number of the physical register that is ST(i). */
function physical(e: Sem, i: Val | number): Val {
  const top = e.f.load('32', e.cpu, CPU.ftop);
  return typeof i === 'number' && i === 0 ? e.f.let(top) : e.f.let(top.add(i).and(7));
}
export function st(e: Sem, i: Val | number): Value {
  const at = e.f.let(e.cpu.add(physical(e, i).shl(4)));
  return { mant: e.f.let(e.f.load('64', at, CPU.st)), se: e.f.let(e.f.load('16u', at, CPU.st + 8)) };
}
export const empty = (e: Sem, i: Val | number): Val =>
  e.f.let(e.f.load('32', e.cpu, CPU.ftw).shrU(physical(e, i)).and(1).xor(1));
export function write(e: Sem, i: Val | number, { mant, se }: Value): void {
  const { f, cpu } = e;
  const register = physical(e, i);
  const at = f.let(cpu.add(register.shl(4)));
  f.store('64', at, mant, CPU.st);
  f.store('64', at, se.and(0xffff).zext(), CPU.st + 8);
  f.store('32', cpu, f.load('32', cpu, CPU.ftw).or(i32(1).shl(register)), CPU.ftw);
}
export const push = (e: Sem, { mant, se }: Value): void => e.call('fpu_push', e.cpu, mant, se);
export function pop(e: Sem): void {
  const { f, cpu } = e;
  const top = physical(e, 0);
  f.store('32', cpu, f.load('32', cpu, CPU.ftw).and(i32(1).shl(top).not()), CPU.ftw);
  f.store('32', cpu, top.add(1).and(7), CPU.ftop);
}
export const begin = (e: Sem): void => e.call('fpu_begin', e.cpu, e.record());
/** As begin, for what leaves C1 alone unless the stack is at fault. */
export function beginKeepingC1(e: Sem): void {
  const c1 = e.f.let(e.field32(CPU.fsw).and(FSW.C1));
  begin(e);
  e.setField32(CPU.fsw, e.field32(CPU.fsw).or(c1));
}
/** Whether an unmasked invalid operation, denormal operand or division by zero leaves the destination alone. */
export const blocked = (e: Sem): Val =>
  e.f.let(
    e
      .field32(CPU.floatFlags)
      .and(e.field32(CPU.fcw).not())
      .and(FSW.IE | FSW.DE | FSW.ZE)
      .bool(),
  );
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
