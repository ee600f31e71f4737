/** Near jumps, calls, returns, loops. */
import { RCX, VEC } from '../layout.ts';
import type { Sem, Size } from '../sem.ts';
import { i32, type Val } from '../wasm/value.ts';
import type { Def } from './def.ts';

const hex = (n: number): string => n.toString(16).toUpperCase().padStart(2, '0');

const jumps: Def[] = [];
for (let cc = 0; cc < 16; cc++) {
  const suffix = ['o', 'no', 'b', 'ae', 'e', 'ne', 'be', 'a', 's', 'ns', 'p', 'np', 'l', 'ge', 'le', 'g'][
    cc
  ] as string;
  jumps.push({
    name: `j${suffix}`,
    enc: [`${hex(0x70 + cc)} f64 v Jb`, `0F${hex(0x80 + cc)} f64 Jz`],
    ends: 'jump',
    sem: (e) => e.jumpIf(e.condition(cc), e.get(0)),
  });
}

/** rip values of the operand size, as pushed. */
const pushed = (e: Sem): Val => (e.size === 8 ? e.nextRip() : e.f.let(e.trunc(e.nextRip())));

/** Checks a return address before the stack changes, since a fault must leave it. */
function call(e: Sem, target: Val): void {
  e.checkTarget(target);
  e.push(e.size, pushed(e));
  e.jump(target);
}

function countRegister(e: Sem): { value: Val; set: (value: Val) => void } {
  const size = e.addressSize();
  return {
    value: e.callValue('cut_address', e.gpr(RCX), size),
    set: (value) => e.setGpr(RCX, e.callValue('merge_address', e.gpr(RCX), value, size)),
  };
}

function loop(name: string, opcode: string, also: (e: Sem) => Val): Def {
  return {
    name,
    enc: [`${opcode} f64 v Jb`],
    ends: 'jump',
    sem: (e) => {
      const count = countRegister(e);
      const left = e.callValue('cut_address', e.f.let(count.value.sub(1)), e.addressSize());
      const taken = e.f.let(left.ne(0).and(also(e)));
      e.f.if(taken, () => e.checkTarget(e.get(0)));
      count.set(left);
      e.jumpIf(taken, e.get(0));
    },
  };
}

export const controlDefs: readonly Def[] = [
  ...jumps,
  { name: 'jmp', enc: ['EB f64 v Jb', 'E9 f64 Jz'], ends: 'jump', sem: (e) => e.jump(e.get(0)) },
  { name: 'jmp', enc: ['FF /4 f64 Ev'], ends: 'jump', sem: (e) => e.jump(e.f.let(e.get(0).zext())) },
  {
    name: 'call',
    enc: ['E8 f64 Jz'],
    ends: 'jump',
    sem: (e) => call(e, e.get(0)),
  },
  { name: 'call', enc: ['FF /2 f64 Ev'], ends: 'jump', sem: (e) => call(e, e.f.let(e.get(0).zext())) },
  {
    name: 'ret',
    enc: ['C3 f64 v -', 'C2 f64 v Iw'],
    ends: 'jump',
    sem: (e) => {
      const { f } = e;
      const old = e.gpr(4);
      const target = f.let(e.pop(e.size as Size).zext());
      // A target that faults leaves rsp as it was.
      const after = e.gpr(4);
      e.setGpr(4, old);
      e.checkTarget(target);
      const extra = hasImmediate(e)
        ? e.callValue('stack_pointer', e.cpu, f.let(after.add(e.get(0).zext())))
        : after;
      e.setGpr(4, extra);
      e.jump(target);
    },
  },
  {
    name: 'jrcxz',
    enc: ['E3 f64 v Jb'],
    ends: 'jump',
    sem: (e) => e.jumpIf(countRegister(e).value.eqz(), e.get(0)),
  },
  loop('loopne', 'E0', (e) => e.condition(5)),
  loop('loope', 'E1', (e) => e.condition(4)),
  loop('loop', 'E2', () => i32(1)),
  { name: 'ud2', enc: ['0F0B -', '0FB9 /r Ev', '0FFF /r Ev'], ends: 'sync', sem: (e) => e.raise(VEC.UD) },
];

function hasImmediate(e: Sem): boolean {
  try {
    e.sizeOf(0);
    return true;
  } catch {
    return false;
  }
}
