/**
 * Delivery of exceptions and interrupts, and IRET (Intel SDM vol. 3 ch. 6, AMD APM vol. 2 ch. 8). An event is described by
 * the raise fields of the CPU structure; rip is already what the handler shall see.
 */
import {
  CPU,
  CS,
  DS,
  ES,
  FLAG,
  FS,
  GS,
  IDTR,
  RAISE,
  RSP,
  SEG,
  SHADOW,
  SPECIAL,
  SS,
  TR,
  VEC,
  segField,
} from '../layout.ts';
import { EFER } from '../registers.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import { routine, type Routine } from './library.ts';
import type { Library } from '../sem.ts';
import { ATTR, attrOf, dplOf, longActive, protectedMode } from './segments.ts';

/** Vectors that carry the class "contributory" (SDM table 6-5), and the page-fault class. */
const CONTRIBUTORY =
  (1 << VEC.DE) | (1 << VEC.TS) | (1 << VEC.NP) | (1 << VEC.SS) | (1 << VEC.GP) | (1 << VEC.VC);

/** What describes an event: where it is raised, and where it is kept during delivery. */
const EVENT_FIELDS: readonly (readonly [number, number])[] = [
  [CPU.raiseKind, CPU.eventKind],
  [CPU.raiseVector, CPU.eventVector],
  [CPU.raiseError, CPU.eventError],
  [CPU.raiseHasError, CPU.eventHasError],
  [CPU.raiseInfo, CPU.eventInfo],
  [CPU.raiseInfo + 4, CPU.eventInfo + 4],
];

function setEflags(f: FunctionBuilder, cpu: Val, value: Val): void {
  f.store('32', cpu, value.and(~0x8d5).or(2), CPU.eflags);
}

/** Whole EFLAGS image into the lazy flags and the rest. */
export function storeEflags(f: FunctionBuilder, cpu: Val, flags: Val): void {
  const image = f.let(flags);
  f.store('32', cpu, i32(0), CPU.flagKind);
  f.store('64', cpu, image.and(0x8d5).zext(), CPU.flagR);
  setEflags(f, cpu, image);
}

/** An interrupt's stack under construction: an offset that goes down, and its segment. */
interface Stack {
  push(value: Val, bytes: 2 | 4): void;
  top(): Val;
}

/** Pushes of `bytes` by linear addresses base + (esp & mask), checked against the limit of `attr`/`limit`. */
function protectedStack(
  f: FunctionBuilder,
  lib: Library,
  cpu: Val,
  base: Val,
  limit: Val,
  attr: Val,
  esp: Val,
  selector: Val,
  user: Val,
): Stack {
  const at = f.local('i32', esp);
  const mask = f.let(select(attr.and(ATTR.db), i32(-1), i32(0xffff)));
  return {
    push: (value, bytes) => {
      at.set(at.get.sub(bytes).and(mask).or(at.get.and(mask.not())));
      const offset = f.let(at.get.and(mask));
      const last = f.let(offset.add(bytes - 1));
      const down = f.let(attr.and(ATTR.expandDown).bool());
      const bad = f.let(
        select(down, offset.leU(limit).or(last.gtU(mask)), last.gtU(limit).or(last.ltU(offset))),
      );
      f.if(bad, () => f.call(lib('raise_selector'), cpu, i32(VEC.SS), selector));
      const address = f.let(base.add(offset.zext()).and(0xffffffffn));
      const suffix = bytes === 2 ? 'st16' : 'st32';
      f.if(
        user,
        () => f.call(lib(suffix), cpu, address, value),
        () => f.call(lib(`${suffix}_sys`), cpu, address, value),
      );
    },
    top: () => f.let(at.get),
  };
}

export const eventRoutines: readonly Routine[] = [
  /**
   * A new event was raised: decides what is to be delivered if one was already under way (double faults). Returns 1 for
   * shutdown, 2 when a hypervisor intercepts the exception: it sees what was under way in CPU.delivering.
   */
  routine('begin_delivery', ['i32'], ['i32'], (f, lib) => {
    const cpu = f.p(0);
    // A stepped instruction that faults is over: its answers and its trap with it.
    f.store('32', cpu, i32(0), CPU.special);
    f.store('32', cpu, i32(0), CPU.answers);
    f.store('32', cpu, i32(0), CPU.answersUsed);
    // A watchpoint that MOV SS held back traps in front of the handler of INT n or INT3 (SDM vol. 3, 6.8.3).
    f.if(
      f
        .load('32', cpu, CPU.raiseKind)
        .eq(RAISE.software)
        .and(f.load('64', cpu, CPU.debugHits).ne(0)),
      () => f.store('32', cpu, i32(SPECIAL.stepped), CPU.special),
      () => f.store('64', cpu, i64(0), CPU.debugHits),
    );
    f.store('32', cpu, i32(0), CPU.stepTf);
    const first = f.let(f.load('32', cpu, CPU.delivering));
    const vector = f.let(f.load('32', cpu, CPU.raiseVector));
    const kind = f.let(f.load('32', cpu, CPU.raiseKind));
    const bitmap = f.let(f.load('32', cpu, CPU.exceptionBitmap));
    f.if(vector.ltU(32).and(kind.ne(RAISE.external)).and(bitmap.shrU(vector)).and(1), () => f.return(i32(2)));
    // 0 benign, 1 contributory, 2 page fault (#VE too). Interrupts and software interrupts are benign.
    const isFault = f.let(kind.eq(RAISE.fault));
    const cls = f.let(
      select(
        isFault.and(vector.eq(VEC.PF).or(vector.eq(VEC.VE))),
        i32(2),
        isFault.and(vector.ltU(32)).and(i32(CONTRIBUTORY).shrU(vector).and(1)),
      ),
    );
    f.if(first, () => {
      const before = f.let(f.load('32', cpu, CPU.deliveringClass));
      f.if(
        first
          .eq(VEC.DF + 1)
          .and(before.eq(3))
          .and(cls.bool()),
        () => f.return(i32(1)),
      );
      const double = f.let(before.eq(1).and(cls.eq(1)).or(before.eq(2).and(cls.bool())));
      f.if(double, () => {
        f.store('32', cpu, i32(VEC.DF), CPU.raiseVector);
        f.store('32', cpu, i32(RAISE.fault), CPU.raiseKind);
        f.store('32', cpu, i32(1), CPU.raiseHasError);
        f.store('32', cpu, i32(0), CPU.raiseError);
        f.store('32', cpu, i32(VEC.DF + 1), CPU.delivering);
        f.store('32', cpu, i32(3), CPU.deliveringClass);
        f.return(bitmap.shrU(VEC.DF).and(1).shl(1));
      });
    });
    f.store('32', cpu, vector.add(1), CPU.delivering);
    f.store('32', cpu, cls, CPU.deliveringClass);
    f.return(i32(0));
    f.unreachable();
    void lib;
  }),

  routine('deliver_event', ['i32'], [], (f, lib) => {
    const cpu = f.p(0);
    // An access to what is not memory leaves for an answer and comes back here: the event is kept apart meanwhile.
    const again = f.let(f.load('32', cpu, CPU.deliver).eq(2));
    const copy = (from: number, to: number): void => f.store('32', cpu, f.load('32', cpu, from), to);
    f.if(
      again,
      () => EVENT_FIELDS.forEach(([raised, kept]) => copy(kept, raised)),
      () => EVENT_FIELDS.forEach(([raised, kept]) => copy(raised, kept)),
    );
    f.store('32', cpu, i32(2), CPU.deliver);
    const vector = f.let(f.load('32', cpu, CPU.raiseVector));
    const kind = f.let(f.load('32', cpu, CPU.raiseKind));
    const software = f.let(kind.eq(RAISE.software));
    const hasError = f.let(f.load('32', cpu, CPU.raiseHasError));
    const error = f.let(f.load('32', cpu, CPU.raiseError));
    f.store('32', cpu, software.xor(1), CPU.ext);
    f.if(kind.eq(RAISE.fault).and(vector.eq(VEC.PF)), () =>
      f.store('64', cpu, f.load('64', cpu, CPU.raiseInfo), CPU.cr2),
    );
    const instructionBreakpoint = f.let(kind.eq(RAISE.fault).and(vector.eq(VEC.DB)));
    f.if(vector.eq(VEC.DB).and(software.eqz()), () => {
      const dr6 = CPU.dr + 32;
      f.store(
        '64',
        cpu,
        f
          .load('64', cpu, dr6)
          .and(~0xfn)
          .or(f.load('64', cpu, CPU.raiseInfo)),
        dr6,
      );
      // General detect is for one exception only.
      f.store('64', cpu, f.load('64', cpu, CPU.dr + 40).and(~0x2000n), CPU.dr + 40);
    });
    const flags = f.let(f.load('32', cpu, CPU.eflags).or(f.callValue(lib('status_flags'), cpu)));
    // RF is set in the image of a fault, so that an instruction breakpoint does not hit again.
    const image = f.let(
      flags.or(select(kind.eq(RAISE.fault).and(instructionBreakpoint.eqz()), i32(FLAG.RF), i32(0))),
    );
    f.if(
      longActive(f, cpu),
      () => {
        f.call(lib('deliver_long'), cpu, vector, software, hasError, error, image);
      },
      () => {
        f.if(
          f.load('32', cpu, CPU.cr0).and(1),
          () => f.call(lib('deliver_protected'), cpu, vector, software, hasError, error, image),
          () => f.call(lib('deliver_real'), cpu, vector, flags),
        );
      },
    );
    f.if(vector.eq(VEC.NMI).and(kind.eq(RAISE.external)), () =>
      f.store('32', cpu, f.load('32', cpu, CPU.shadow).or(SHADOW.nmiBlocked), CPU.shadow),
    );
    f.store('32', cpu, f.load('32', cpu, CPU.shadow).and(SHADOW.nmiBlocked), CPU.shadow);
    for (const field of [CPU.delivering, CPU.deliveringClass, CPU.ext, CPU.answers, CPU.answersUsed])
      f.store('32', cpu, i32(0), field);
  }),

  /** Interrupt vector table of real mode (SDM vol. 3, 20.1.4). */
  routine('deliver_real', ['i32', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const vector = f.p(1);
    f.if(
      vector
        .shl(2)
        .add(3)
        .gtU(f.load('32', cpu, segField(IDTR, SEG.limit))),
      () => f.call(lib('raise'), cpu, i32(VEC.GP)),
    );
    const entry = f.callValue(
      lib('ld32_sys'),
      cpu,
      f.load('64', cpu, segField(IDTR, SEG.base)).add(vector.shl(2).zext()),
    );
    const rsp = f.let(f.load('64', cpu, CPU.gpr + RSP * 8));
    const at = f.local('i64', rsp);
    for (const value of [f.p(2), f.load('32', cpu, segField(CS, SEG.selector)), f.load('32', cpu, CPU.rip)]) {
      at.set(f.callValue(lib('stack_pointer'), cpu, at.get.sub(2)));
      const address = f.callValue(lib('stack_linear'), cpu, at.get, i32(2), i32(1));
      f.call(lib('st16'), cpu, address, value);
    }
    f.store('64', cpu, at.get, CPU.gpr + RSP * 8);
    setEflags(f, cpu, f.load('32', cpu, CPU.eflags).and(~(FLAG.IF | FLAG.TF | FLAG.AC | FLAG.RF)));
    f.call(lib('set_real_segment'), cpu, i32(CS), entry.shrU(16));
    f.store('64', cpu, entry.and(0xffff).zext(), CPU.rip);
  }),

  /** Long mode: 16-byte gates, 64-bit handlers. */
  routine('deliver_long', ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const vector = f.p(1);
    const software = f.p(2);
    const gateError = f.let(vector.shl(3).or(2));
    const fail = (code: number): void =>
      f.call(lib('raise_error'), cpu, i32(code), gateError.or(f.load('32', cpu, CPU.ext)));
    f.if(
      vector
        .shl(4)
        .add(15)
        .gtU(f.load('32', cpu, segField(IDTR, SEG.limit))),
      () => fail(VEC.GP),
    );
    const gateAddress = f.let(f.load('64', cpu, segField(IDTR, SEG.base)).add(vector.shl(4).zext()));
    const low = f.callValue(lib('ld64_sys'), cpu, gateAddress);
    const high = f.callValue(lib('ld64_sys'), cpu, gateAddress.add(8));
    const type = f.let(low.shrU(40).wrap().and(0x1f));
    f.if(type.ne(0xe).and(type.ne(0xf)).or(high.shrU(40).wrap().and(0x1f).ne(0)), () => fail(VEC.GP));
    const cpl = f.let(f.load('32', cpu, CPU.cpl));
    f.if(software.and(low.shrU(45).wrap().and(3).ltU(cpl)), () => fail(VEC.GP));
    f.if(low.and(1n << 47n).eqz(), () => fail(VEC.NP));
    const selector = f.let(low.shrU(16).wrap().and(0xffff));
    f.if(selector.and(0xfffc).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.GP), i32(0)));
    const raw = f.callValue(lib('read_descriptor'), cpu, selector, i32(VEC.GP));
    const attr = attrOf(f, raw);
    const dpl = f.let(dplOf(attr));
    f.if(
      attr
        .and(0x18)
        .ne(0x18)
        .or(attr.and(ATTR.l | ATTR.db).ne(ATTR.l))
        .or(dpl.gtU(cpl)),
      () => f.call(lib('raise_selector'), cpu, i32(VEC.GP), selector),
    );
    f.if(attr.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.NP), selector));
    const conforming = f.let(attr.and(ATTR.conforming).bool());
    const newCpl = f.let(select(conforming, cpl, dpl));
    const inner = f.let(newCpl.ltU(cpl));
    const ist = f.let(low.shrU(32).wrap().and(7));
    const rsp = f.local('i64', f.load('64', cpu, CPU.gpr + RSP * 8));
    f.if(ist.bool().or(inner), () => {
      const offset = f.let(select(ist, ist.shl(3).add(0x1c), newCpl.shl(3).add(4)));
      f.if(offset.add(7).gtU(f.load('32', cpu, segField(TR, SEG.limit))), () =>
        f.call(lib('raise_selector'), cpu, i32(VEC.TS), f.load('32', cpu, segField(TR, SEG.selector))),
      );
      rsp.set(
        f.callValue(lib('ld64_sys'), cpu, f.load('64', cpu, segField(TR, SEG.base)).add(offset.zext())),
      );
    });
    const target = f.let(low.and(0xffffn).or(low.shrU(32).and(0xffff0000n)).or(high.shl(32)));
    f.if(f.callValue(lib('canonical'), cpu, target).eqz(), () =>
      f.call(lib('raise_error'), cpu, i32(VEC.GP), f.load('32', cpu, CPU.ext)),
    );
    const at = f.local('i64', rsp.get.and(-16n));
    const user = f.let(newCpl.eq(3));
    const push = (value: Val): void => {
      at.set(at.get.sub(8));
      f.if(f.callValue(lib('canonical'), cpu, at.get).eqz(), () =>
        f.call(lib('raise_error'), cpu, i32(VEC.SS), f.load('32', cpu, CPU.ext)),
      );
      f.if(
        user,
        () => f.call(lib('st64'), cpu, at.get, value),
        () => f.call(lib('st64_sys'), cpu, at.get, value),
      );
    };
    push(f.let(f.load('32u', cpu, segField(SS, SEG.selector), 'i64')));
    push(f.let(f.load('64', cpu, CPU.gpr + RSP * 8)));
    push(f.let(f.p(5).zext()));
    push(f.let(f.load('32u', cpu, segField(CS, SEG.selector), 'i64')));
    push(f.let(f.load('64', cpu, CPU.rip)));
    f.if(f.p(3), () => push(f.let(f.p(4).zext())));
    // All stores are done.
    f.call(lib('set_code_segment'), cpu, selector, raw, newCpl);
    f.if(inner, () => f.call(lib('null_segment'), cpu, i32(SS), newCpl));
    f.store('64', cpu, at.get, CPU.gpr + RSP * 8);
    f.store('64', cpu, target, CPU.rip);
    const cleared = f.let(
      i32(FLAG.TF | FLAG.NT | FLAG.RF | FLAG.VM).or(select(type.eq(0xe), i32(FLAG.IF), i32(0))),
    );
    setEflags(f, cpu, f.load('32', cpu, CPU.eflags).and(cleared.not()));
    void EFER;
  }),

  /** Legacy protected mode and virtual-8086 mode. */
  routine('deliver_protected', ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const vector = f.p(1);
    const software = f.p(2);
    const hasError = f.p(3);
    const error = f.p(4);
    const image = f.p(5);
    const gateError = f.let(vector.shl(3).or(2));
    const ext = f.let(f.load('32', cpu, CPU.ext));
    const fail = (code: number): void => f.call(lib('raise_error'), cpu, i32(code), gateError.or(ext));
    f.if(
      vector
        .shl(3)
        .add(7)
        .gtU(f.load('32', cpu, segField(IDTR, SEG.limit))),
      () => fail(VEC.GP),
    );
    const gate = f.callValue(
      lib('ld64_sys'),
      cpu,
      f.load('64', cpu, segField(IDTR, SEG.base)).add(vector.shl(3).zext()),
    );
    const type = f.let(gate.shrU(40).wrap().and(0x1f));
    f.if(type.ne(5).and(type.ne(6)).and(type.ne(7)).and(type.ne(0xe)).and(type.ne(0xf)), () => fail(VEC.GP));
    const cpl = f.let(f.load('32', cpu, CPU.cpl));
    f.if(software.and(gate.shrU(45).wrap().and(3).ltU(cpl)), () => fail(VEC.GP));
    f.if(gate.and(1n << 47n).eqz(), () => fail(VEC.NP));
    const selector = f.let(gate.shrU(16).wrap().and(0xffff));
    f.if(type.eq(5), () => {
      f.call(lib('task_switch'), cpu, selector, i32(3), hasError, error);
      f.return();
    });
    f.if(selector.and(0xfffc).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.GP), i32(0)));
    const raw = f.callValue(lib('read_descriptor'), cpu, selector, i32(VEC.GP));
    const attr = attrOf(f, raw);
    const dpl = f.let(dplOf(attr));
    f.if(attr.and(0x18).ne(0x18).or(dpl.gtU(cpl)), () =>
      f.call(lib('raise_selector'), cpu, i32(VEC.GP), selector),
    );
    f.if(attr.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.NP), selector));
    const vm = f.let(f.load('32', cpu, CPU.eflags).and(FLAG.VM).bool());
    const newCpl = f.let(select(attr.and(ATTR.conforming), cpl, dpl));
    f.if(vm.and(newCpl.ne(0)), () => f.call(lib('raise_selector'), cpu, i32(VEC.GP), selector));
    const inner = f.let(newCpl.ltU(cpl));
    const ss = f.local('i32', f.load('32', cpu, segField(SS, SEG.selector)));
    const esp = f.local('i32', f.load('32', cpu, CPU.gpr + RSP * 8));
    const base = f.local('i64', f.load('64', cpu, segField(SS, SEG.base)));
    const limit = f.local('i32', f.load('32', cpu, segField(SS, SEG.limit)));
    const stackAttr = f.local('i32', f.load('32', cpu, segField(SS, SEG.attr)));
    const ssRaw = f.local('i64', 0);
    const oldSs = f.let(ss.get);
    const oldEsp = f.let(esp.get);
    f.if(inner, () => {
      f.call(lib('inner_stack'), cpu, newCpl);
      ss.set(f.load('32', cpu, CPU.wide));
      esp.set(f.load('32', cpu, CPU.wide + 4));
      ssRaw.set(f.load('64', cpu, CPU.wide + 8));
      const a = attrOf(f, ssRaw.get);
      stackAttr.set(a);
      base.set(ssRaw.get.shrU(16).and(0xffffffn).or(ssRaw.get.shrU(32).and(0xff000000n)));
      const raw20 = f.let(ssRaw.get.wrap().and(0xffff).or(ssRaw.get.shrU(32).wrap().and(0xf0000)));
      limit.set(select(a.and(ATTR.g), raw20.shl(12).or(0xfff), raw20));
    });
    const wide = f.let(type.geU(0xe));
    const user = f.let(newCpl.eq(3));
    const stack = protectedStack(
      f,
      lib,
      cpu,
      base.get,
      limit.get,
      stackAttr.get,
      esp.get,
      f.let(select(inner, ss.get, i32(0))),
      user,
    );
    const frame = (bytes: 2 | 4): void => {
      f.if(vm, () => {
        for (const index of [GS, FS, DS, ES])
          stack.push(f.let(f.load('32', cpu, segField(index, SEG.selector))), bytes);
      });
      f.if(inner, () => {
        stack.push(oldSs, bytes);
        stack.push(oldEsp, bytes);
      });
      stack.push(image, bytes);
      stack.push(f.let(f.load('32', cpu, segField(CS, SEG.selector))), bytes);
      stack.push(f.let(f.load('32', cpu, CPU.rip)), bytes);
      f.if(hasError, () => stack.push(error, bytes));
    };
    f.if(
      wide,
      () => frame(4),
      () => frame(2),
    );
    const offset = f.let(
      gate
        .wrap()
        .and(0xffff)
        .or(
          select(
            wide,
            gate
              .shrU(32)
              .wrap()
              .and(0xffff0000 | 0),
            i32(0),
          ),
        ),
    );
    const codeLimit = f.let(raw.wrap().and(0xffff).or(raw.shrU(32).wrap().and(0xf0000)));
    f.if(offset.gtU(select(attr.and(ATTR.g), codeLimit.shl(12).or(0xfff), codeLimit)), () =>
      f.call(lib('raise_error'), cpu, i32(VEC.GP), ext),
    );
    f.if(inner, () =>
      f.call(
        lib('set_segment'),
        cpu,
        i32(SS),
        ss.get,
        f.callValue(lib('mark_accessed'), cpu, ss.get, ssRaw.get),
      ),
    );
    const keep = f.let(
      select(stackAttr.get.and(ATTR.db), i64(0), f.load('64', cpu, CPU.gpr + RSP * 8).and(0xffff0000n)),
    );
    const top = f.let(stack.top());
    f.store(
      '64',
      cpu,
      select(stackAttr.get.and(ATTR.db), top.zext(), keep.or(top.and(0xffff).zext())),
      CPU.gpr + RSP * 8,
    );
    const flags = f.let(f.load('32', cpu, CPU.eflags));
    const cleared = f.let(
      i32(FLAG.TF | FLAG.NT | FLAG.RF | FLAG.VM).or(select(type.and(1), i32(0), i32(FLAG.IF))),
    );
    setEflags(f, cpu, flags.and(cleared.not()));
    f.call(lib('set_code_segment'), cpu, selector, raw, newCpl);
    f.if(vm, () => {
      for (const index of [ES, DS, FS, GS]) f.call(lib('null_segment'), cpu, i32(index), i32(0));
    });
    f.store('64', cpu, offset.zext(), CPU.rip);
  }),

  /** Stack of level `cpl` from the TSS: selector, esp and raw descriptor into CPU.wide. #TS, #SS by SDM vol. 3, 6.12.1. */
  routine('inner_stack', ['i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const level = f.p(1);
    const tss = f.let(f.load('64', cpu, segField(TR, SEG.base)));
    const limit = f.let(f.load('32', cpu, segField(TR, SEG.limit)));
    const wide = f.let(f.load('32', cpu, segField(TR, SEG.attr)).and(8));
    const offset = f.let(select(wide, level.shl(3).add(4), level.shl(2).add(2)));
    f.if(offset.add(select(wide, i32(5), i32(3))).gtU(limit), () =>
      f.call(lib('raise_selector'), cpu, i32(VEC.TS), f.load('32', cpu, segField(TR, SEG.selector))),
    );
    const at = f.let(tss.add(offset.zext()));
    const esp = f.local('i32');
    const ss = f.local('i32');
    f.if(
      wide,
      () => {
        esp.set(f.callValue(lib('ld32_sys'), cpu, at));
        ss.set(f.callValue(lib('ld16_sys'), cpu, at.add(4)));
      },
      () => {
        esp.set(f.callValue(lib('ld16_sys'), cpu, at));
        ss.set(f.callValue(lib('ld16_sys'), cpu, at.add(2)));
      },
    );
    const fail = (): void => f.call(lib('raise_selector'), cpu, i32(VEC.TS), ss.get);
    f.if(ss.get.and(0xfffc).eqz(), fail);
    const raw = f.callValue(lib('read_descriptor'), cpu, ss.get, i32(VEC.TS));
    const attr = attrOf(f, raw);
    f.if(ss.get.and(3).ne(level).or(dplOf(attr).ne(level)).or(attr.and(0x1a).ne(0x12)), fail);
    f.if(attr.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.SS), ss.get));
    f.store('32', cpu, ss.get, CPU.wide);
    f.store('32', cpu, esp.get, CPU.wide + 4);
    f.store('64', cpu, raw, CPU.wide + 8);
  }),

  /** IRET with operand size `size`. */
  routine('iret', ['i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const size = f.p(1);
    const old = f.let(f.load('32', cpu, CPU.eflags));
    const at = f.local('i64', f.load('64', cpu, CPU.gpr + RSP * 8));
    const pop = (): Val => {
      const address = f.callValue(
        lib('stack_linear'),
        cpu,
        f.callValue(lib('stack_pointer'), cpu, at.get),
        size,
        i32(0),
      );
      const value = f.local('i64');
      f.if(
        size.eq(8),
        () => value.set(f.callValue(lib('ld64'), cpu, address)),
        () =>
          f.if(
            size.eq(4),
            () => value.set(f.callValue(lib('ld32'), cpu, address).zext()),
            () => value.set(f.callValue(lib('ld16'), cpu, address).zext()),
          ),
      );
      at.set(at.get.add(size.zext()));
      return f.let(value.get);
    };
    const commitRsp = (): void =>
      f.store('64', cpu, f.callValue(lib('stack_pointer'), cpu, at.get), CPU.gpr + RSP * 8);
    const unblockNmi = (): void =>
      f.store('32', cpu, f.load('32', cpu, CPU.shadow).and(~SHADOW.nmiBlocked), CPU.shadow);
    const mask16 = f.let(select(size.eq(2), i32(0xffff), i32(-1)));

    f.if(protectedMode(f, cpu).eqz(), () => {
      const vm = f.let(old.and(FLAG.VM));
      f.if(vm, () => f.call(lib('check_flags_access'), cpu, size));
      const ip = pop();
      const cs = pop();
      const image = f.let(pop().wrap());
      f.if(ip.gtU(0xffffn), () => f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)));
      // Virtual-8086 mode keeps IOPL; real mode loads it.
      f.if(
        vm.bool().and(old.and(FLAG.IOPL).ne(FLAG.IOPL)),
        () => {
          // VME: IF goes to VIF.
          f.if(
            image
              .and(FLAG.TF)
              .bool()
              .or(image.and(FLAG.IF).bool().and(old.and(FLAG.VIP).bool())),
            () => f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
          );
          const kept = f.let(old.and(FLAG.IF | FLAG.IOPL | FLAG.VM | FLAG.VIP | (0xffff0000 & ~FLAG.VIF)));
          commitRsp();
          storeEflags(
            f,
            cpu,
            f.let(kept.or(image.and(0xffff & ~(FLAG.IF | FLAG.IOPL))).or(image.and(FLAG.IF).shl(10))),
          );
        },
        () => {
          const change = f.let(
            i32(0x257fd5)
              .and(mask16)
              .and(select(vm, i32(~FLAG.IOPL), i32(-1)))
              .and(~(FLAG.VM | FLAG.VIF | FLAG.VIP)),
          );
          commitRsp();
          storeEflags(f, cpu, f.let(old.or(0).and(change.not()).or(image.and(change))));
        },
      );
      f.call(lib('set_real_segment'), cpu, i32(CS), cs.wrap());
      f.store('64', cpu, ip, CPU.rip);
      unblockNmi();
      f.return();
    });
    const long = longActive(f, cpu);
    f.if(old.and(FLAG.NT), () => {
      f.if(long, () => f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)));
      const link = f.callValue(lib('ld16_sys'), cpu, f.load('64', cpu, segField(TR, SEG.base)));
      f.call(lib('task_switch'), cpu, link, i32(2), i32(0), i32(0));
      unblockNmi();
      f.return();
    });
    const rip = pop();
    const csSelector = f.let(pop().wrap().and(0xffff));
    const image = f.let(pop().wrap());
    const cpl = f.let(f.load('32', cpu, CPU.cpl));
    // Return to virtual-8086 mode.
    f.if(image.and(FLAG.VM).bool().and(size.eq(4)).and(cpl.eqz()).and(long.eqz()), () => {
      // Intel refuses an EIP above 64 KiB (SDM vol. 2, IRET), AMD cuts it (APM vol. 3, IRET).
      f.if(rip.gtU(0xffffn).and(f.load('32', cpu, CPU.vendor)), () =>
        f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
      );
      const esp = pop();
      const ss = pop();
      const es = pop();
      const ds = pop();
      const fs = pop();
      const gs = pop();
      storeEflags(f, cpu, image.and(0x3f7fd7));
      f.store('32', cpu, i32(3), CPU.cpl);
      for (const [index, value] of [
        [CS, csSelector.zext()],
        [SS, ss],
        [ES, es],
        [DS, ds],
        [FS, fs],
        [GS, gs],
      ] as const) {
        f.call(lib('set_real_segment'), cpu, i32(index), value.wrap());
      }
      f.store('64', cpu, esp.and(0xffffffffn), CPU.gpr + RSP * 8);
      f.store('64', cpu, rip.and(0xffffn), CPU.rip);
      unblockNmi();
      f.return();
    });
    const fail = (): void => f.call(lib('raise_selector'), cpu, i32(VEC.GP), csSelector);
    f.if(csSelector.and(0xfffc).eqz(), () => f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)));
    const raw = f.callValue(lib('read_descriptor'), cpu, csSelector, i32(VEC.GP));
    const attr = attrOf(f, raw);
    const dpl = f.let(dplOf(attr));
    const rpl = f.let(csSelector.and(3));
    f.if(attr.and(0x18).ne(0x18).or(rpl.ltU(cpl)), fail);
    f.if(select(attr.and(ATTR.conforming), dpl.gtU(rpl), dpl.ne(rpl)), fail);
    f.call(lib('check_code_size'), cpu, csSelector, attr);
    f.if(attr.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.NP), csSelector));
    const outer = f.let(rpl.gtU(cpl));
    const to64 = f.let(long.and(attr.shrU(9)).and(1));
    const fullFrame = f.let(outer.or(size.eq(8)));
    const newRsp = f.local('i64', 0);
    const ssSelector = f.local('i32', 0);
    const ssRaw = f.local('i64', 0);
    f.if(fullFrame, () => {
      newRsp.set(pop());
      ssSelector.set(pop().wrap().and(0xffff));
      f.if(
        ssSelector.get.and(0xfffc).eqz(),
        () => {
          // Null: only into 64-bit code that is not CPL 3, with an equal RPL.
          f.if(to64.eqz().or(rpl.eq(3)).or(ssSelector.get.and(3).ne(rpl)), () =>
            f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
          );
        },
        () => {
          const bad = (): void => f.call(lib('raise_selector'), cpu, i32(VEC.GP), ssSelector.get);
          ssRaw.set(f.callValue(lib('read_descriptor'), cpu, ssSelector.get, i32(VEC.GP)));
          const a = attrOf(f, ssRaw.get);
          f.if(ssSelector.get.and(3).ne(rpl).or(dplOf(a).ne(rpl)).or(a.and(0x1a).ne(0x12)), bad);
          f.if(a.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.SS), ssSelector.get));
        },
      );
    });
    // Target: canonical, or inside the limit.
    f.if(
      to64,
      () =>
        f.if(f.callValue(lib('canonical'), cpu, rip).eqz(), () =>
          f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
        ),
      () => {
        const low = f.let(raw.wrap().and(0xffff).or(raw.shrU(32).wrap().and(0xf0000)));
        f.if(rip.wrap().gtU(select(attr.and(ATTR.g), low.shl(12).or(0xfff), low)), () =>
          f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
        );
      },
    );
    // What may change: IF by IOPL, IOPL at CPL 0, VIF/VIP at CPL 0.
    const change = f.local('i32', 0x254dd5 & ~FLAG.IOPL & ~FLAG.VM);
    f.if(cpl.leU(old.shrU(12).and(3)), () => change.set(change.get.or(FLAG.IF)));
    f.if(cpl.eqz(), () => change.set(change.get.or(FLAG.IOPL | FLAG.VIF | FLAG.VIP)));
    const mask = f.let(change.get.and(mask16));
    const current = f.let(old.or(f.callValue(lib('status_flags'), cpu)));
    f.if(fullFrame.eqz(), commitRsp);
    storeEflags(f, cpu, f.let(current.and(mask.not()).or(image.and(mask))));
    f.call(lib('set_code_segment'), cpu, csSelector, raw, rpl);
    f.if(fullFrame, () => {
      f.if(
        ssSelector.get.and(0xfffc).eqz(),
        () => f.call(lib('null_segment'), cpu, i32(SS), ssSelector.get),
        () =>
          f.call(
            lib('set_segment'),
            cpu,
            i32(SS),
            ssSelector.get,
            f.callValue(lib('mark_accessed'), cpu, ssSelector.get, ssRaw.get),
          ),
      );
      const ssBig = f.let(f.load('32', cpu, segField(SS, SEG.attr)).and(ATTR.db).bool());
      const keep = f.let(
        f
          .load('64', cpu, CPU.gpr + RSP * 8)
          .and(-65536n)
          .or(newRsp.get.and(0xffffn)),
      );
      f.store(
        '64',
        cpu,
        select(to64.or(size.eq(8)), newRsp.get, select(ssBig, newRsp.get.and(0xffffffffn), keep)),
        CPU.gpr + RSP * 8,
      );
    });
    f.if(outer, () => f.call(lib('drop_privileged_segments'), cpu));
    f.store('64', cpu, select(to64, rip, rip.and(0xffffffffn)), CPU.rip);
    unblockNmi();
  }),
];
