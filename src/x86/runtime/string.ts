/** Bulk forms of REP MOVS and REP STOS: whole runs inside one page with exact counts. */
import { CPU, ES, FLAG, RAX, RCX, RDI, REC, RSI, SEG, TLB, segField } from '../layout.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import { tlbEntry } from './memory.ts';
import { routine, type Routine } from './library.ts';

/**
 * Iterations that can run at once: the count, the budget, and the distance to the end of the page at `va`. Only upwards
 * (DF clear) in 64-bit mode with 64-bit addresses and a whole TLB hit; anything else is 0.
 */
function limitTo(f: FunctionBuilder, va: Val, shift: Val): Val {
  return f.let(i64(0x1000).sub(va.and(0xfff)).shrU(shift));
}

const smaller = (f: FunctionBuilder, a: Val, b: Val): Val => f.let(select(a.ltU(b), a, b));

function common(f: FunctionBuilder): { cpu: Val; record: Val; bytes: Val; shift: Val; count: Val } {
  const cpu = f.p(0);
  const record = f.p(1);
  const bytes = f.p(2);
  f.if(f.load('8u', record, REC.addressSize).ne(8), () => f.return(i32(0)));
  f.if(f.load('32', cpu, CPU.eflags).and(FLAG.DF), () => f.return(i32(0)));
  // Single steps and breakpoints see every iteration.
  f.if(f.load('32', cpu, CPU.special), () => f.return(i32(0)));
  // This iteration is paid for already; more come from what is left of the budget.
  const budget = f.let(f.load('32', cpu, CPU.budget).add(1).zext());
  const count = smaller(f, f.let(f.load('64', cpu, CPU.gpr + RCX * 8)), budget);
  f.if(count.leU(1), () => f.return(i32(0)));
  return { cpu, record, bytes, shift: f.let(bytes.ctz().zext()), count };
}

/** Commits `n` iterations: rCX, the budget, and rip when more are left. */
function commit(f: FunctionBuilder, cpu: Val, record: Val, n: Val): void {
  const left = f.let(f.load('64', cpu, CPU.gpr + RCX * 8).sub(n));
  f.store('64', cpu, left, CPU.gpr + RCX * 8);
  f.store('32', cpu, f.load('32', cpu, CPU.budget).sub(n.wrap()).add(1), CPU.budget);
  f.if(left.ne(0), () =>
    f.store('64', cpu, f.load('64', record, REC.next).sub(f.load('8u', record, REC.length, 'i64')), CPU.rip),
  );
}

/** Host address of `va` when the TLB of the current privilege permits the access without asking; 0 otherwise. */
function hit(f: FunctionBuilder, cpu: Val, va: Val, write: boolean): Val {
  const entry = tlbEntry(f, f.let(f.load('32', cpu, CPU.tlbFast)), va);
  return f.let(
    select(
      f.load('64', entry, write ? TLB.write : TLB.read).eq(va.and(-4096n)),
      f.load('32', entry, TLB.addend).add(va.wrap()),
      i32(0),
    ),
  );
}

export const stringRoutines: readonly Routine[] = [
  routine('es_linear', ['i32', 'i64', 'i32', 'i32'], ['i64'], (f, lib) => {
    const cpu = f.p(0);
    // ES has no base in 64-bit mode.
    f.if(f.callValue(lib('in_long_mode'), cpu), () => f.return(f.p(1)));
    f.return(f.callValue(lib('segment_linear'), cpu, i32(ES), f.p(1), f.p(2), f.p(3)));
    f.unreachable();
  }),
  routine('bulk_stos', ['i32', 'i32', 'i32'], ['i32'], (f) => {
    const { cpu, record, bytes, shift, count } = common(f);
    const to = f.let(f.load('64', cpu, CPU.gpr + RDI * 8));
    const host = hit(f, cpu, to, true);
    const n = smaller(f, count, limitTo(f, to, shift));
    f.if(host.eqz().or(n.leU(1)), () => f.return(i32(0)));
    const value = f.let(f.load('64', cpu, CPU.gpr + RAX * 8));
    const length = f.let(n.shl(shift).wrap());
    // A value whose bytes are all alike is one fill.
    const pattern = f.let(
      select(
        bytes.eq(8),
        value,
        select(
          bytes.eq(4),
          value.and(0xffffffffn).mul(0x100000001n),
          select(
            bytes.eq(2),
            value.and(0xffffn).mul(0x0001000100010001n),
            value.and(0xffn).mul(0x0101010101010101n),
          ),
        ),
      ),
    );
    f.if(
      pattern.eq(f.let(pattern.and(0xffn).mul(0x0101010101010101n))),
      () => f.memoryFill(host, pattern.wrap().and(0xff), length),
      () => {
        const at = f.local('i32', host);
        const end = f.let(host.add(length));
        f.while(
          () => at.get.ltU(end),
          () => {
            f.if(
              bytes.eq(8),
              () => f.store('64', at.get, value),
              () =>
                f.if(
                  bytes.eq(4),
                  () => f.store('32', at.get, value.wrap()),
                  () => f.store('16', at.get, value.wrap()),
                ),
            );
            at.set(at.get.add(bytes));
          },
        );
      },
    );
    f.store('64', cpu, to.add(n.shl(shift)), CPU.gpr + RDI * 8);
    commit(f, cpu, record, n);
    f.return(i32(1));
    f.unreachable();
  }),
  routine('bulk_movs', ['i32', 'i32', 'i32'], ['i32'], (f) => {
    const { cpu, record, bytes, shift, count } = common(f);
    const from = f.let(f.load('64', cpu, CPU.gpr + RSI * 8));
    const to = f.let(f.load('64', cpu, CPU.gpr + RDI * 8));
    const base = f.let(f.load('64', cpu.add(f.load('16u', record, REC.segBase))));
    const linear = f.let(from.add(base));
    const source = hit(f, cpu, linear, false);
    const target = hit(f, cpu, to, true);
    const n = smaller(f, smaller(f, count, limitTo(f, linear, shift)), limitTo(f, to, shift));
    f.if(source.eqz().or(target.eqz()).or(n.leU(1)), () => f.return(i32(0)));
    const length = f.let(n.shl(shift).wrap());
    // An overlap in which the destination follows the source repeats a pattern: not a plain copy.
    f.if(
      target.sub(source).ltU(length),
      () => {
        const done = f.local('i32', 0);
        f.while(
          () => done.get.ltU(length),
          () => {
            const s = f.let(source.add(done.get));
            const t = f.let(target.add(done.get));
            f.if(
              bytes.eq(8),
              () => f.store('64', t, f.load('64', s)),
              () =>
                f.if(
                  bytes.eq(4),
                  () => f.store('32', t, f.load('32', s)),
                  () =>
                    f.if(
                      bytes.eq(2),
                      () => f.store('16', t, f.load('16u', s)),
                      () => f.store('8', t, f.load('8u', s)),
                    ),
                ),
            );
            done.set(done.get.add(bytes));
          },
        );
      },
      () => f.memoryCopy(target, source, length),
    );
    f.store('64', cpu, from.add(n.shl(shift)), CPU.gpr + RSI * 8);
    f.store('64', cpu, to.add(n.shl(shift)), CPU.gpr + RDI * 8);
    commit(f, cpu, record, n);
    f.return(i32(1));
    f.unreachable();
  }),
];
void SEG;
void segField;
