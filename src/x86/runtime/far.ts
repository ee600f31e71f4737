/** Far jumps, calls and returns, call gates, task switches (Intel SDM vol. 3, 5.8 and ch. 7). */
import { CPU, CS, DS, ES, FLAG, FS, GS, LDTR, RSP, SEG, SS, TR, VEC, segField } from '../layout.ts';
import { CR0 } from '../registers.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import type { Library } from '../sem.ts';
import { routine, type Routine } from './library.ts';
import { ATTR, attrOf, dplOf, longActive, protectedMode } from './segments.ts';
import { storeEflags } from './events.ts';

/** A value of `size` bytes pushed at the offset in `at`, which goes down. */
function pushTo(
  f: FunctionBuilder,
  lib: Library,
  cpu: Val,
  at: { get: Val; set(v: Val): void },
  size: Val,
  value: Val,
): void {
  at.set(f.callValue(lib('stack_pointer'), cpu, at.get.sub(size.zext())));
  storeSized(f, lib, cpu, f.callValue(lib('stack_linear'), cpu, at.get, size, i32(1)), size, value);
}

function storeSized(f: FunctionBuilder, lib: Library, cpu: Val, address: Val, size: Val, value: Val): void {
  f.if(
    size.eq(8),
    () => f.call(lib('st64'), cpu, address, value),
    () =>
      f.if(
        size.eq(4),
        () => f.call(lib('st32'), cpu, address, value.wrap()),
        () => f.call(lib('st16'), cpu, address, value.wrap()),
      ),
  );
}

const limitOf = (f: FunctionBuilder, raw: Val): Val => {
  const low = f.let(raw.wrap().and(0xffff).or(raw.shrU(32).wrap().and(0xf0000)));
  return f.let(select(raw.and(1n << 55n).ne(0), low.shl(12).or(0xfff), low));
};

/** Reads `size` bytes (2, 4, 8) at a linear address. */
function readSized(f: FunctionBuilder, lib: Library, cpu: Val, address: Val, size: Val, suffix = ''): Val {
  const value = f.local('i64');
  f.if(
    size.eq(8),
    () => value.set(f.callValue(lib(`ld64${suffix}`), cpu, address)),
    () =>
      f.if(
        size.eq(4),
        () => value.set(f.callValue(lib(`ld32${suffix}`), cpu, address).zext()),
        () => value.set(f.callValue(lib(`ld16${suffix}`), cpu, address).zext()),
      ),
  );
  return f.let(value.get);
}

export const farRoutines: readonly Routine[] = [
  /** JMP far (call = 0) or CALL far (call = 1) to selector:offset; rip is the next instruction's. */
  routine('far_transfer', ['i32', 'i32', 'i64', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const selector = f.p(1);
    const offset = f.p(2);
    const size = f.p(3);
    const call = f.p(4);
    const nextRip = f.let(f.load('64', cpu, CPU.rip));
    const oldCs = f.let(f.load('32u', cpu, segField(CS, SEG.selector), 'i64'));
    const at = f.local('i64', f.load('64', cpu, CPU.gpr + RSP * 8));
    const commitRsp = (): void => f.store('64', cpu, at.get, CPU.gpr + RSP * 8);
    f.if(protectedMode(f, cpu).eqz(), () => {
      f.if(offset.gtU(f.load('32u', cpu, segField(CS, SEG.limit), 'i64')), () =>
        f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
      );
      f.if(call, () => {
        pushTo(f, lib, cpu, at, size, oldCs);
        pushTo(f, lib, cpu, at, size, nextRip);
        commitRsp();
      });
      f.call(lib('set_real_segment'), cpu, i32(CS), selector);
      f.store('64', cpu, offset, CPU.rip);
      f.return();
    });
    const fail = (): void => f.call(lib('raise_selector'), cpu, i32(VEC.GP), selector);
    f.if(selector.and(0xfffc).eqz(), () => f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)));
    const raw = f.callValue(lib('read_descriptor'), cpu, selector, i32(VEC.GP));
    const attr = attrOf(f, raw);
    const dpl = f.let(dplOf(attr));
    const rpl = f.let(selector.and(3));
    const cpl = f.let(f.load('32', cpu, CPU.cpl));
    f.if(attr.and(ATTR.s), () => {
      f.if(attr.and(ATTR.code).eqz(), fail);
      f.if(
        attr.and(ATTR.conforming),
        () => f.if(dpl.gtU(cpl), fail),
        () => f.if(rpl.gtU(cpl).or(dpl.ne(cpl)), fail),
      );
      f.call(lib('check_code_size'), cpu, selector, attr);
      f.if(attr.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.NP), selector));
      const to64 = f.let(longActive(f, cpu).and(attr.shrU(9)).and(1));
      f.if(
        to64,
        () =>
          f.if(f.callValue(lib('canonical'), cpu, offset).eqz(), () =>
            f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
          ),
        () =>
          f.if(offset.gtU(limitOf(f, raw).zext()), () =>
            f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
          ),
      );
      f.if(call, () => {
        const pushed = [oldCs, nextRip];
        // From compatibility mode to 64-bit mode: the stack is already the new mode's, without a base (measured).
        f.if(
          to64.and(f.callValue(lib('in_long_mode'), cpu).eqz()),
          () => {
            for (const value of pushed) {
              at.set(at.get.sub(size.zext()));
              storeSized(f, lib, cpu, at.get, size, value);
            }
          },
          () => {
            for (const value of pushed) pushTo(f, lib, cpu, at, size, value);
          },
        );
        commitRsp();
      });
      f.call(lib('set_code_segment'), cpu, selector, raw, cpl);
      f.store('64', cpu, offset, CPU.rip);
      f.return();
    });
    const type = f.let(attr.and(15));
    const long = longActive(f, cpu);
    // In long mode only 64-bit call gates are left.
    f.if(long.and(type.ne(12)), fail);
    f.if(type.eq(4).or(type.eq(12)), () => {
      f.if(dpl.ltU(cpl).or(dpl.ltU(rpl)), fail);
      f.if(attr.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.NP), selector));
      f.call(lib('call_gate'), cpu, selector, raw, call);
      f.return();
    });
    // Task gate, or an available TSS.
    f.if(type.eq(5), () => {
      f.if(dpl.ltU(cpl).or(dpl.ltU(rpl)), fail);
      f.if(attr.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.NP), selector));
      f.call(lib('task_switch'), cpu, raw.shrU(16).wrap().and(0xffff), call, i32(0), i32(0));
      f.return();
    });
    f.if(type.eq(1).or(type.eq(9)), () => {
      f.if(dpl.ltU(cpl).or(dpl.ltU(rpl)), fail);
      f.call(lib('task_switch'), cpu, selector, call, i32(0), i32(0));
      f.return();
    });
    fail();
  }),

  routine('call_gate', ['i32', 'i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const gate = f.p(2);
    const call = f.p(3);
    const long = longActive(f, cpu);
    const cpl = f.let(f.load('32', cpu, CPU.cpl));
    const wide = f.let(gate.and(1n << 43n).ne(0));
    const size = f.let(select(long, i32(8), select(wide, i32(4), i32(2))));
    const high = f.local('i64', 0);
    f.if(long, () => {
      high.set(f.callValue(lib('descriptor_upper'), cpu, f.p(1)));
      f.if(high.get.shrU(40).wrap().and(0x1f).ne(0), () =>
        f.call(lib('raise_selector'), cpu, i32(VEC.GP), f.p(1)),
      );
    });
    const selector = f.let(gate.shrU(16).wrap().and(0xffff));
    f.if(selector.and(0xfffc).eqz(), () => f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)));
    const raw = f.callValue(lib('read_descriptor'), cpu, selector, i32(VEC.GP));
    const attr = attrOf(f, raw);
    const dpl = f.let(dplOf(attr));
    const fail = (): void => f.call(lib('raise_selector'), cpu, i32(VEC.GP), selector);
    f.if(attr.and(0x18).ne(0x18).or(dpl.gtU(cpl)), fail);
    f.if(long.and(attr.and(ATTR.l | ATTR.db).ne(ATTR.l)), fail);
    const conforming = f.let(attr.and(ATTR.conforming).bool());
    f.if(call.eqz().and(conforming.eqz()).and(dpl.ne(cpl)), fail);
    f.if(attr.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.NP), selector));
    const offset = f.let(
      gate
        .and(0xffffn)
        .or(select(wide, gate.shrU(32).and(0xffff0000n), i64(0)))
        .or(high.get.shl(32)),
    );
    f.if(
      long,
      () =>
        f.if(f.callValue(lib('canonical'), cpu, offset).eqz(), () =>
          f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
        ),
      () =>
        f.if(offset.gtU(limitOf(f, raw).zext()), () => f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0))),
    );
    const nextRip = f.let(f.load('64', cpu, CPU.rip));
    const oldCs = f.let(f.load('32u', cpu, segField(CS, SEG.selector), 'i64'));
    const oldRsp = f.let(f.load('64', cpu, CPU.gpr + RSP * 8));
    const oldSs = f.let(f.load('32u', cpu, segField(SS, SEG.selector), 'i64'));
    const inner = f.let(call.bool().and(conforming.eqz()).and(dpl.ltU(cpl)));
    f.if(inner, () => {
      f.if(long, () => {
        const at = f.local('i64');
        const slot = f.let(dpl.shl(3).add(4));
        f.if(slot.add(7).gtU(f.load('32', cpu, segField(TR, SEG.limit))), () =>
          f.call(lib('raise_selector'), cpu, i32(VEC.TS), f.load('32', cpu, segField(TR, SEG.selector))),
        );
        at.set(f.callValue(lib('ld64_sys'), cpu, f.load('64', cpu, segField(TR, SEG.base)).add(slot.zext())));
        for (const value of [oldSs, oldRsp, oldCs, nextRip]) {
          at.set(at.get.sub(8));
          f.if(f.callValue(lib('canonical'), cpu, at.get).eqz(), () =>
            f.call(lib('raise_error'), cpu, i32(VEC.SS), i32(0)),
          );
          f.call(lib('st64_sys'), cpu, at.get, value);
        }
        f.call(lib('set_code_segment'), cpu, selector, raw, dpl);
        f.call(lib('null_segment'), cpu, i32(SS), dpl);
        f.store('64', cpu, at.get, CPU.gpr + RSP * 8);
        f.store('64', cpu, offset, CPU.rip);
        f.return();
      });
      f.call(lib('inner_stack'), cpu, dpl);
      const ss = f.let(f.load('32', cpu, CPU.wide));
      const esp = f.local('i32', f.load('32', cpu, CPU.wide + 4));
      const ssRaw = f.let(f.load('64', cpu, CPU.wide + 8));
      const ssAttr = attrOf(f, ssRaw);
      const base = f.let(ssRaw.shrU(16).and(0xffffffn).or(ssRaw.shrU(32).and(0xff000000n)));
      const limit = limitOf(f, ssRaw);
      const mask = f.let(select(ssAttr.and(ATTR.db), i32(-1), i32(0xffff)));
      const put = (value: Val): void => {
        esp.set(esp.get.sub(size).and(mask).or(esp.get.and(mask.not())));
        const low = f.let(esp.get.and(mask));
        const last = f.let(low.add(size).sub(1));
        const bad = f.let(select(ssAttr.and(ATTR.expandDown), low.leU(limit), last.gtU(limit)));
        f.if(bad, () => f.call(lib('raise_selector'), cpu, i32(VEC.SS), ss));
        const address = f.let(base.add(low.zext()).and(0xffffffffn));
        f.if(
          size.eq(4),
          () => f.call(lib('st32_sys'), cpu, address, value.wrap()),
          () => f.call(lib('st16_sys'), cpu, address, value.wrap()),
        );
      };
      put(oldSs);
      put(oldRsp);
      // Parameters, copied from the caller's stack, highest first.
      const count = f.local('i32', gate.shrU(32).wrap().and(31));
      f.while(
        () => count.get.bool(),
        () => {
          count.set(count.get.sub(1));
          const from = f.callValue(
            lib('stack_linear'),
            cpu,
            f.callValue(lib('stack_pointer'), cpu, oldRsp.add(count.get.mul(size).zext())),
            size,
            i32(0),
          );
          put(readSized(f, lib, cpu, from, size));
        },
      );
      put(oldCs);
      put(nextRip);
      f.call(lib('set_segment'), cpu, i32(SS), ss, f.callValue(lib('mark_accessed'), cpu, ss, ssRaw));
      f.call(lib('set_code_segment'), cpu, selector, raw, dpl);
      const keep = f.let(
        f
          .load('64', cpu, CPU.gpr + RSP * 8)
          .and(-65536n)
          .or(esp.get.and(0xffff).zext()),
      );
      f.store('64', cpu, select(ssAttr.and(ATTR.db), esp.get.zext(), keep), CPU.gpr + RSP * 8);
      f.store('64', cpu, offset, CPU.rip);
      f.return();
    });
    f.if(call, () => {
      const at = f.local('i64', oldRsp);
      pushTo(f, lib, cpu, at, size, oldCs);
      pushTo(f, lib, cpu, at, size, nextRip);
      f.store('64', cpu, at.get, CPU.gpr + RSP * 8);
    });
    f.call(lib('set_code_segment'), cpu, selector, raw, cpl);
    f.store('64', cpu, offset, CPU.rip);
  }),

  /** RETF, releasing `extra` bytes of parameters. */
  routine('far_return', ['i32', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const size = f.p(1);
    const extra = f.let(f.p(2).zext());
    const at = f.local('i64', f.load('64', cpu, CPU.gpr + RSP * 8));
    const pop = (): Val => {
      const address = f.callValue(
        lib('stack_linear'),
        cpu,
        f.callValue(lib('stack_pointer'), cpu, at.get),
        size,
        i32(0),
      );
      const value = readSized(f, lib, cpu, address, size);
      at.set(at.get.add(size.zext()));
      return value;
    };
    const rip = pop();
    const selector = f.let(pop().wrap().and(0xffff));
    const commit = (): void =>
      f.store('64', cpu, f.callValue(lib('stack_pointer'), cpu, at.get.add(extra)), CPU.gpr + RSP * 8);
    f.if(protectedMode(f, cpu).eqz(), () => {
      f.if(rip.gtU(f.load('32u', cpu, segField(CS, SEG.limit), 'i64')), () =>
        f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
      );
      commit();
      f.call(lib('set_real_segment'), cpu, i32(CS), selector);
      f.store('64', cpu, rip, CPU.rip);
      f.return();
    });
    const cpl = f.let(f.load('32', cpu, CPU.cpl));
    const fail = (): void => f.call(lib('raise_selector'), cpu, i32(VEC.GP), selector);
    f.if(selector.and(0xfffc).eqz(), () => f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)));
    const raw = f.callValue(lib('read_descriptor'), cpu, selector, i32(VEC.GP));
    const attr = attrOf(f, raw);
    const rpl = f.let(selector.and(3));
    const dpl = f.let(dplOf(attr));
    f.if(attr.and(0x18).ne(0x18).or(rpl.ltU(cpl)), fail);
    f.if(select(attr.and(ATTR.conforming), dpl.gtU(rpl), dpl.ne(rpl)), fail);
    f.call(lib('check_code_size'), cpu, selector, attr);
    f.if(attr.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.NP), selector));
    const to64 = f.let(longActive(f, cpu).and(attr.shrU(9)).and(1));
    const checkTarget = (): void =>
      f.if(
        to64,
        () =>
          f.if(f.callValue(lib('canonical'), cpu, rip).eqz(), () =>
            f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
          ),
        () =>
          f.if(rip.gtU(limitOf(f, raw).zext()), () => f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0))),
      );
    f.if(rpl.eq(cpl), () => {
      checkTarget();
      commit();
      f.call(lib('set_code_segment'), cpu, selector, raw, cpl);
      f.store('64', cpu, rip, CPU.rip);
      f.return();
    });
    at.set(at.get.add(extra));
    const newRsp = pop();
    const ss = f.let(pop().wrap().and(0xffff));
    const ssRaw = f.local('i64', 0);
    f.if(
      ss.and(0xfffc).eqz(),
      () => {
        f.if(to64.eqz().or(rpl.eq(3)).or(ss.and(3).ne(rpl)), () =>
          f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
        );
      },
      () => {
        ssRaw.set(f.callValue(lib('read_descriptor'), cpu, ss, i32(VEC.GP)));
        const a = attrOf(f, ssRaw.get);
        f.if(ss.and(3).ne(rpl).or(dplOf(a).ne(rpl)).or(a.and(0x1a).ne(0x12)), () =>
          f.call(lib('raise_selector'), cpu, i32(VEC.GP), ss),
        );
        f.if(a.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.SS), ss));
      },
    );
    checkTarget();
    f.call(lib('set_code_segment'), cpu, selector, raw, rpl);
    f.if(
      ss.and(0xfffc).eqz(),
      () => f.call(lib('null_segment'), cpu, i32(SS), ss),
      () =>
        f.call(lib('set_segment'), cpu, i32(SS), ss, f.callValue(lib('mark_accessed'), cpu, ss, ssRaw.get)),
    );
    const sum = f.let(newRsp.add(extra));
    const big = f.let(f.load('32', cpu, segField(SS, SEG.attr)).and(ATTR.db));
    f.store(
      '64',
      cpu,
      select(
        to64,
        sum,
        select(
          big,
          sum.and(0xffffffffn),
          f
            .load('64', cpu, CPU.gpr + RSP * 8)
            .and(-65536n)
            .or(sum.and(0xffffn)),
        ),
      ),
      CPU.gpr + RSP * 8,
    );
    f.call(lib('drop_privileged_segments'), cpu);
    f.store('64', cpu, rip, CPU.rip);
  }),

  /**
   * Task switch to the TSS `selector`. reason: 0 JMP, 1 CALL, 2 IRET, 3 interrupt or exception (then with an error code to
   * push when hasError). SDM vol. 3, 7.3. rip is what is saved.
   */
  routine('task_switch', ['i32', 'i32', 'i32', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const selector = f.p(1);
    const reason = f.p(2);
    const iret = f.let(reason.eq(2));
    const badVector = f.let(select(iret, i32(VEC.TS), i32(VEC.GP)));
    f.if(selector.and(4), () => f.call(lib('raise_selector'), cpu, badVector, selector));
    const address = f.callValue(lib('descriptor_address'), cpu, selector, badVector);
    const raw = f.callValue(lib('ld64_sys'), cpu, address);
    const attr = attrOf(f, raw);
    const type = f.let(attr.and(0x1f));
    // Available for JMP, CALL and interrupts; busy for IRET.
    f.if(select(iret, type.and(0x17).ne(3), type.and(0x17).ne(1)), () =>
      f.call(lib('raise_selector'), cpu, badVector, selector),
    );
    f.if(attr.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.NP), selector));
    const wide = f.let(type.and(8).bool());
    const limit = limitOf(f, raw);
    f.if(limit.ltU(select(wide, i32(0x67), i32(0x2b))), () =>
      f.call(lib('raise_selector'), cpu, i32(VEC.TS), selector),
    );
    const next = f.let(raw.shrU(16).and(0xffffffn).or(raw.shrU(32).and(0xff000000n)));
    const oldBase = f.let(f.load('64', cpu, segField(TR, SEG.base)));
    const oldSelector = f.let(f.load('32', cpu, segField(TR, SEG.selector)));
    const oldWide = f.let(f.load('32', cpu, segField(TR, SEG.attr)).and(8).bool());
    // Both TSSs must be there before anything changes.
    const image = f.local('i32', f.load('32', cpu, CPU.eflags).or(f.callValue(lib('status_flags'), cpu)));
    f.if(iret, () => image.set(image.get.and(~FLAG.NT)));
    const rip = f.let(f.load('32', cpu, CPU.rip));
    const save = (base: Val, offset: number, bytes: 2 | 4, value: Val): void =>
      f.call(lib(bytes === 2 ? 'st16_sys' : 'st32_sys'), cpu, base.add(offset), value);
    f.if(
      oldWide,
      () => {
        save(oldBase, 0x20, 4, rip);
        save(oldBase, 0x24, 4, image.get);
        for (let n = 0; n < 8; n++) save(oldBase, 0x28 + n * 4, 4, f.load('32', cpu, CPU.gpr + n * 8));
        for (let n = 0; n < 6; n++)
          save(oldBase, 0x48 + n * 4, 2, f.load('32', cpu, segField(n, SEG.selector)));
      },
      () => {
        save(oldBase, 0x0e, 2, rip);
        save(oldBase, 0x10, 2, image.get);
        for (let n = 0; n < 8; n++) save(oldBase, 0x12 + n * 2, 2, f.load('32', cpu, CPU.gpr + n * 8));
        for (let n = 0; n < 4; n++)
          save(oldBase, 0x22 + n * 2, 2, f.load('32', cpu, segField(n, SEG.selector)));
      },
    );
    // Read the new task.
    const read = (wideOffset: number, wideBytes: 2 | 4, offset: number): Val =>
      f.ifValue(
        wide,
        () => f.callValue(lib(wideBytes === 2 ? 'ld16_sys' : 'ld32_sys'), cpu, next.add(wideOffset)),
        () =>
          offset < 0
            ? i32(0).add(f.load('32', cpu, CPU.zero))
            : f.callValue(lib('ld16_sys'), cpu, next.add(offset)),
      );
    const newCr3 = read(0x1c, 4, -1);
    const newEip = read(0x20, 4, 0x0e);
    const newFlags = read(0x24, 4, 0x10);
    const newGpr: Val[] = [];
    // A 16-bit TSS has the low halves only. The manuals leave the others open; the 80386 makes them
    // ones, which test386 checks.
    const high = f.let(select(wide, i32(0), i32(0xffff0000 | 0)));
    for (let n = 0; n < 8; n++) newGpr.push(f.let(read(0x28 + n * 4, 4, 0x12 + n * 2).or(high)));
    const newSeg: Val[] = [];
    for (let n = 0; n < 4; n++) newSeg.push(read(0x48 + n * 4, 2, 0x22 + n * 2));
    const newFs = read(0x58, 2, -1);
    const newGs = read(0x5c, 2, -1);
    const newLdt = read(0x60, 2, 0x2a);
    const newTrap = read(0x64, 2, -1);
    // The link, and the busy bits.
    f.if(reason.eq(1).or(reason.eq(3)), () => f.call(lib('st16_sys'), cpu, next, oldSelector));
    const setBusy = (which: Val, busy: boolean): void => {
      const at = f.callValue(lib('descriptor_address'), cpu, which, i32(VEC.TS));
      const byte = f.callValue(lib('ld8_sys'), cpu, at.add(5));
      f.call(
        lib('st8_sys'),
        cpu,
        f.callValue(lib('descriptor_address'), cpu, which, i32(VEC.TS)).add(5),
        busy ? byte.or(2) : byte.and(~2),
      );
    };
    f.if(reason.eq(0).or(iret), () => setBusy(oldSelector, false));
    f.if(iret.eqz(), () => setBusy(selector, true));
    f.call(lib('set_segment'), cpu, i32(TR), selector, raw.or(1n << 41n));
    f.store('64', cpu, f.load('64', cpu, CPU.cr0).or(CR0.TS), CPU.cr0);
    const nested = f.let(reason.eq(1).or(reason.eq(3)));
    const flags = f.let(newFlags.or(select(nested, i32(FLAG.NT), i32(0))).or(2));
    f.if(wide.and(f.load('32', cpu, CPU.cr0).shrU(31)), () => {
      f.store('64', cpu, newCr3.zext(), CPU.cr3);
      f.call(lib('tlb_flush'), cpu);
    });
    storeEflags(f, cpu, f.let(flags.and(0x3f7fd7)));
    f.store('64', cpu, newEip.zext(), CPU.rip);
    for (const [n, value] of newGpr.entries()) f.store('64', cpu, value.zext(), CPU.gpr + n * 8);
    f.store('64', cpu, f.load('64', cpu, CPU.dr + 40).and(~0x155n), CPU.dr + 40);
    // From here faults belong to the new task. LDT first.
    f.if(
      newLdt.and(0xfffc).eqz(),
      () => f.call(lib('null_segment'), cpu, i32(LDTR), newLdt),
      () => {
        const bad = (): void => f.call(lib('raise_selector'), cpu, i32(VEC.TS), newLdt);
        f.if(newLdt.and(4), bad);
        f.call(lib('null_segment'), cpu, i32(LDTR), newLdt);
        const ldt = f.callValue(lib('read_descriptor'), cpu, newLdt, i32(VEC.TS));
        const ldtAttr = attrOf(f, ldt);
        f.if(ldtAttr.and(0x1f).ne(2).or(ldtAttr.and(ATTR.p).eqz()), bad);
        f.call(lib('set_segment'), cpu, i32(LDTR), newLdt, ldt);
      },
    );
    const [es, cs, ss, ds] = newSeg as [Val, Val, Val, Val];
    f.if(
      flags.and(FLAG.VM),
      () => {
        f.store('32', cpu, i32(3), CPU.cpl);
        for (const [index, value] of [
          [CS, cs],
          [SS, ss],
          [ES, es],
          [DS, ds],
          [FS, newFs],
          [GS, newGs],
        ] as const)
          f.call(lib('set_real_segment'), cpu, i32(index), value);
      },
      () => {
        const cpl = f.let(cs.and(3));
        f.store('32', cpu, cpl, CPU.cpl);
        for (const [index, value] of [
          [SS, ss],
          [ES, es],
          [DS, ds],
          [FS, newFs],
          [GS, newGs],
        ] as const)
          f.call(lib('null_segment'), cpu, i32(index), value);
        // CS.
        const badCs = (): void => f.call(lib('raise_selector'), cpu, i32(VEC.TS), cs);
        f.if(cs.and(0xfffc).eqz(), badCs);
        const csRaw = f.callValue(lib('read_descriptor'), cpu, cs, i32(VEC.TS));
        const csAttr = attrOf(f, csRaw);
        f.if(csAttr.and(0x18).ne(0x18), badCs);
        f.if(select(csAttr.and(ATTR.conforming), dplOf(csAttr).gtU(cpl), dplOf(csAttr).ne(cpl)), badCs);
        f.if(csAttr.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.NP), cs));
        f.call(lib('set_code_segment'), cpu, cs, csRaw, cpl);
        // SS.
        const badSs = (): void => f.call(lib('raise_selector'), cpu, i32(VEC.TS), ss);
        f.if(ss.and(0xfffc).eqz(), badSs);
        const ssRaw = f.callValue(lib('read_descriptor'), cpu, ss, i32(VEC.TS));
        const ssAttr = attrOf(f, ssRaw);
        f.if(ss.and(3).ne(cpl).or(dplOf(ssAttr).ne(cpl)).or(ssAttr.and(0x1a).ne(0x12)), badSs);
        f.if(ssAttr.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.SS), ss));
        f.call(lib('set_segment'), cpu, i32(SS), ss, f.callValue(lib('mark_accessed'), cpu, ss, ssRaw));
        for (const [index, value] of [
          [ES, es],
          [DS, ds],
          [FS, newFs],
          [GS, newGs],
        ] as const)
          f.call(lib('load_task_segment'), cpu, i32(index), value);
      },
    );
    f.call(lib('update_mode'), cpu);
    f.if(f.p(3), () =>
      f.if(
        wide,
        () => f.call(lib('push32'), cpu, f.p(4)),
        () => f.call(lib('push16'), cpu, f.p(4)),
      ),
    );
    f.if(
      wide.eqz(),
      () => undefined,
      () => {
        f.if(newEip.gtU(f.load('32', cpu, segField(CS, SEG.limit))), () =>
          f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
        );
      },
    );
    f.if(newTrap.and(1), () => {
      f.store('64', cpu, i64(0x8000), CPU.raiseInfo);
      f.call(lib('raise_trap'), cpu, i32(VEC.DB), i32(1));
    });
  }),
  /** Data segments of a new task: as a load, with #TS for what is not a fault of presence. */
  routine('load_task_segment', ['i32', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const selector = f.p(2);
    f.if(selector.and(0xfffc).eqz(), () => f.return());
    const cpl = f.let(f.load('32', cpu, CPU.cpl));
    const raw = f.callValue(lib('read_descriptor'), cpu, selector, i32(VEC.TS));
    const attr = attrOf(f, raw);
    const dpl = f.let(dplOf(attr));
    const fail = (): void => f.call(lib('raise_selector'), cpu, i32(VEC.TS), selector);
    f.if(attr.and(ATTR.s).eqz().or(attr.and(0xa).eq(8)), fail);
    f.if(
      attr
        .and(0xc)
        .ne(0xc)
        .and(selector.and(3).gtU(dpl).or(cpl.gtU(dpl))),
      fail,
    );
    f.if(attr.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.NP), selector));
    f.call(lib('set_segment'), cpu, f.p(1), selector, f.callValue(lib('mark_accessed'), cpu, selector, raw));
  }),
];
