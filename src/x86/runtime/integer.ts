/** Library routines of the integer instructions. */
import { CPU, CS, FLAG, REC, RBP, RSP, SEG, SHADOW, VEC, segField } from '../layout.ts';
import { CR4 } from '../registers.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import { routine, type Routine } from './library.ts';

/** High 64 bits of an unsigned product, from four 32-bit products. */
function highProduct(f: FunctionBuilder, a: Val, b: Val): Val {
  const low = 0xffffffffn;
  const a0 = f.let(a.and(low));
  const a1 = f.let(a.shrU(32));
  const b0 = f.let(b.and(low));
  const b1 = f.let(b.shrU(32));
  const p01 = f.let(a0.mul(b1));
  const p10 = f.let(a1.mul(b0));
  const middle = f.let(a0.mul(b0).shrU(32).add(p01.and(low)).add(p10.and(low)));
  return f.let(a1.mul(b1).add(p01.shrU(32)).add(p10.shrU(32)).add(middle.shrU(32)));
}

export const integerRoutines: readonly Routine[] = [
  routine('mul_high_u', ['i64', 'i64'], ['i64'], (f) => {
    f.return(highProduct(f, f.p(0), f.p(1)));
    f.unreachable();
  }),
  routine('mul_high_s', ['i64', 'i64'], ['i64'], (f) => {
    const a = f.p(0);
    const b = f.p(1);
    const high = highProduct(f, a, b);
    f.return(high.sub(a.shrS(63).and(b)).sub(b.shrS(63).and(a)));
    f.unreachable();
  }),
  /** (high:low) / divisor; remainder to CPU.wide. #DE when the quotient does not fit. */
  routine('div128_u', ['i32', 'i64', 'i64', 'i64'], ['i64'], (f, lib) => {
    const cpu = f.p(0);
    const high = f.p(1);
    const low = f.p(2);
    const divisor = f.p(3);
    f.if(high.eqz(), () => {
      f.store('64', cpu, low.remU(divisor), CPU.wide);
      f.return(low.divU(divisor));
    });
    f.if(high.geU(divisor), () => f.call(lib('raise'), cpu, i32(VEC.DE)));
    // Knuth's algorithm D with two 32-bit quotient digits, the divisor normalized.
    const shift = f.let(divisor.clz());
    const v = f.let(divisor.shl(shift));
    const v1 = f.let(v.shrU(32));
    const v0 = f.let(v.and(0xffffffffn));
    const un = f.let(select(shift.eqz(), high, high.shl(shift).or(low.shrU(i64(64).sub(shift)))));
    const ul = f.let(low.shl(shift));
    const u1 = f.let(ul.shrU(32));
    const u0 = f.let(ul.and(0xffffffffn));
    const digit = (top: Val, next: Val): Val => {
      const q = f.local('i64', top.divU(v1));
      const r = f.local('i64', top.sub(q.get.mul(v1)));
      f.block((end) => {
        f.loop((again) => {
          const tooBig = f.let(q.get.geU(0x100000000n).or(q.get.mul(v0).gtU(r.get.shl(32).or(next))));
          f.brIf(end, tooBig.eqz());
          q.set(q.get.sub(1));
          r.set(r.get.add(v1));
          f.brIf(again, r.get.ltU(0x100000000n));
        });
      });
      return f.let(q.get);
    };
    const q1 = digit(un, u1);
    const rest = f.let(un.shl(32).or(u1).sub(q1.mul(v)));
    const q0 = digit(rest, u0);
    f.store('64', cpu, rest.shl(32).or(u0).sub(q0.mul(v)).shrU(shift), CPU.wide);
    f.return(q1.shl(32).add(q0));
    f.unreachable();
  }),
  routine('div128_s', ['i32', 'i64', 'i64', 'i64'], ['i64'], (f, lib) => {
    const cpu = f.p(0);
    const high = f.p(1);
    const low = f.p(2);
    const divisor = f.p(3);
    const negative = f.let(high.ltS(0));
    const absLow = f.let(select(negative, low.neg(), low));
    const absHigh = f.let(select(negative, high.not().add(low.eqz().zext()), high));
    const absDivisor = f.let(select(divisor.ltS(0), divisor.neg(), divisor));
    const q = f.callValue(lib('div128_u'), cpu, absHigh, absLow, absDivisor);
    const minus = f.let(negative.ne(divisor.ltS(0)));
    // Range: up to 2^63 - 1, or 2^63 when the quotient is negative.
    f.if(q.gtU(f.let(i64((1n << 63n) - 1n).add(minus.zext()))), () => f.call(lib('raise'), cpu, i32(VEC.DE)));
    const r = f.let(f.load('64', cpu, CPU.wide));
    f.store('64', cpu, select(negative, r.neg(), r), CPU.wide);
    f.return(select(minus, q.neg(), q));
    f.unreachable();
  }),
  routine('parallel_extract', ['i64', 'i64'], ['i64'], (f) => {
    const result = f.local('i64', 0);
    const mask = f.local('i64', f.p(1));
    const at = f.local('i64', 0);
    f.while(
      () => mask.get.ne(0),
      () => {
        const bit = f.let(mask.get.ctz());
        result.set(result.get.or(f.p(0).shrU(bit).and(1).shl(at.get)));
        at.set(at.get.add(1));
        mask.set(mask.get.and(mask.get.sub(1)));
      },
    );
    f.return(result.get);
    f.unreachable();
  }),
  routine('parallel_deposit', ['i64', 'i64'], ['i64'], (f) => {
    const result = f.local('i64', 0);
    const mask = f.local('i64', f.p(1));
    const source = f.local('i64', f.p(0));
    f.while(
      () => mask.get.ne(0),
      () => {
        result.set(result.get.or(source.get.and(1).shl(mask.get.ctz())));
        source.set(source.get.shrU(1));
        mask.set(mask.get.and(mask.get.sub(1)));
      },
    );
    f.return(result.get);
    f.unreachable();
  }),
  /** Address of the operand-sized cell that a bit string's bit lies in. */
  routine('bit_string_address', ['i32', 'i32', 'i64', 'i32', 'i32'], ['i64'], (f, lib) => {
    const cpu = f.p(0);
    const record = f.p(1);
    const bytes = f.p(3);
    const shift = f.let(bytes.ctz().add(3).zext());
    const cells = f.let(f.p(2).shrS(shift).shl(bytes.ctz().zext()));
    const offset = f.callValue(
      lib('cut_address'),
      f.callValue(lib('effective'), cpu, record).add(cells),
      f.load('8u', record, REC.addressSize),
    );
    f.return(f.callValue(lib('string_linear'), cpu, record, offset, bytes, f.p(4)));
    f.unreachable();
  }),
  /** An offset cut to an address size of 2, 4 or 8 bytes. */
  routine('cut_address', ['i64', 'i32'], ['i64'], (f) => {
    f.if(f.p(1).eq(8), () => f.return(f.p(0)));
    f.return(f.p(0).and(select(f.p(1).eq(4), i64(0xffffffff), i64(0xffff))));
    f.unreachable();
  }),
  /** A register's new value when its low `size` bytes become `value`: 32-bit writes clear the upper half. */
  routine('merge_address', ['i64', 'i64', 'i32'], ['i64'], (f) => {
    f.if(f.p(2).eq(8), () => f.return(f.p(1)));
    f.if(f.p(2).eq(4), () => f.return(f.p(1).and(0xffffffffn)));
    f.return(f.p(0).and(-65536n).or(f.p(1).and(0xffffn)));
    f.unreachable();
  }),
  /** Linear address of offset `offset` in the record's segment. */
  routine('string_linear', ['i32', 'i32', 'i64', 'i32', 'i32'], ['i64'], (f, lib) => {
    const cpu = f.p(0);
    const record = f.p(1);
    f.if(f.callValue(lib('in_long_mode'), cpu), () =>
      f.return(f.p(2).add(f.load('64', cpu.add(f.load('16u', record, REC.segBase))))),
    );
    f.return(
      f.callValue(lib('segment_linear'), cpu, f.load('8u', record, REC.segment), f.p(2), f.p(3), f.p(4)),
    );
    f.unreachable();
  }),
  /** #GP(0) when a near branch to `target` would fault. */
  routine('check_target', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    f.if(f.callValue(lib('in_long_mode'), cpu), () => {
      f.if(f.callValue(lib('canonical'), cpu, f.p(1)).eqz(), () =>
        f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
      );
      f.return();
    });
    const target = f.let(
      f
        .p(1)
        .wrap()
        .and(select(f.p(2).eq(2), i32(0xffff), i32(-1))),
    );
    f.if(target.gtU(f.load('32', cpu, segField(CS, SEG.limit))), () =>
      f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
    );
  }),
  routine('enter', ['i32', 'i32', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const level = f.let(f.p(2).and(31));
    const size = f.p(3);
    const rbp = f.let(f.load('64', cpu, CPU.gpr + RBP * 8));
    const rsp = f.let(f.load('64', cpu, CPU.gpr + RSP * 8));
    const at = f.local('i64', rsp);
    const put = (value: Val): void => {
      at.set(f.callValue(lib('stack_pointer'), cpu, at.get.sub(size.zext())));
      const address = f.callValue(lib('stack_linear'), cpu, at.get, size, i32(1));
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
    };
    put(rbp);
    const frame = f.let(at.get);
    f.if(level.gtU(1), () => {
      const from = f.local('i64', rbp);
      const n = f.local('i32', 1);
      f.while(
        () => n.get.ltU(level),
        () => {
          from.set(from.get.sub(size.zext()));
          const address = f.callValue(
            lib('stack_linear'),
            cpu,
            f.callValue(lib('stack_pointer'), cpu, from.get),
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
          put(value.get);
          n.set(n.get.add(1));
        },
      );
    });
    f.if(level, () => put(frame));
    at.set(f.callValue(lib('stack_pointer'), cpu, at.get.sub(f.p(1).zext())));
    // The new top must be writable: ENTER probes it.
    const top = f.callValue(lib('stack_linear'), cpu, at.get, size, i32(1));
    f.call(lib('probe_write'), cpu, top, size);
    f.store('64', cpu, at.get, CPU.gpr + RSP * 8);
    const merged = f.callValue(lib('merge_address'), rbp, frame, size);
    f.store('64', cpu, select(size.eq(8), frame, merged), CPU.gpr + RBP * 8);
  }),

  // EFLAGS access under IOPL, virtual-8086 mode and VME/PVI (SDM vol. 3, 20.3; vol. 2, CLI, STI, POPF).
  /** #GP for PUSHF, POPF (and INT n, IRET) in virtual-8086 mode with IOPL < 3, unless VME serves a 16-bit form. */
  routine('check_flags_access', ['i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const eflags = f.let(f.load('32', cpu, CPU.eflags));
    f.if(eflags.and(FLAG.VM).eqz(), () => f.return());
    f.if(eflags.and(FLAG.IOPL).eq(FLAG.IOPL), () => f.return());
    f.if(f.load('32', cpu, CPU.cr4).and(CR4.VME).bool().and(f.p(1).eq(2)), () => f.return());
    f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0));
  }),
  /** What PUSHF pushes: under VME with IOPL < 3, IF shows VIF and IOPL shows 3. */
  routine('flags_image', ['i32', 'i32', 'i32'], ['i32'], (f) => {
    const cpu = f.p(0);
    const flags = f.p(1);
    const virtual = f.let(
      f.load('32', cpu, CPU.eflags).and(FLAG.VM).bool().and(flags.and(FLAG.IOPL).ne(FLAG.IOPL)),
    );
    f.if(virtual, () => f.return(flags.and(~FLAG.IF).or(flags.and(FLAG.VIF).shrU(10)).or(FLAG.IOPL)));
    f.return(flags);
    f.unreachable();
  }),
  /** POPF: which flags change depends on CPL, IOPL, mode and operand size. */
  routine('load_flags', ['i32', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const value = f.p(1);
    const size = f.p(2);
    const eflags = f.let(f.load('32', cpu, CPU.eflags));
    const cpl = f.let(f.load('32', cpu, CPU.cpl));
    const iopl = f.let(eflags.shrU(12).and(3));
    const mask = f.local('i32', FLAG.TF | FLAG.DF | FLAG.NT | FLAG.AC | FLAG.ID);
    f.if(
      eflags.and(FLAG.VM).bool().and(iopl.ne(3)),
      () => {
        // VME, 16-bit operand: IF goes to VIF; TF, or IF while VIP waits, faults.
        f.if(
          value
            .and(FLAG.TF)
            .bool()
            .or(value.and(FLAG.IF).bool().and(eflags.and(FLAG.VIP).bool())),
          () => f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
        );
        f.store(
          '32',
          cpu,
          f.load('32', cpu, CPU.eflags).and(~FLAG.VIF).or(value.and(FLAG.IF).shl(10)),
          CPU.eflags,
        );
      },
      () => {
        f.if(cpl.leU(iopl), () => mask.set(mask.get.or(FLAG.IF)));
        f.if(cpl.eqz(), () => mask.set(mask.get.or(FLAG.IOPL)));
      },
    );
    f.if(size.eq(2), () => mask.set(mask.get.and(0xffff)));
    // POPF clears RF (set by nothing that it loads) and keeps VM, VIF, VIP.
    const now = f.let(f.load('32', cpu, CPU.eflags));
    f.store(
      '32',
      cpu,
      now
        .and(mask.get.not())
        .or(value.and(mask.get))
        .and(~(FLAG.RF | 0x8d5))
        .or(2),
      CPU.eflags,
    );
    f.store('32', cpu, i32(0), CPU.flagKind);
    f.store('64', cpu, value.and(0x8d5).zext(), CPU.flagR);
  }),
  routine('clear_interrupts', ['i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const eflags = f.let(f.load('32', cpu, CPU.eflags));
    const cpl = f.let(f.load('32', cpu, CPU.cpl));
    const allowed = f.let(cpl.leU(eflags.shrU(12).and(3)));
    f.if(allowed, () => {
      f.store('32', cpu, eflags.and(~FLAG.IF), CPU.eflags);
      f.return();
    });
    const cr4 = f.let(f.load('32', cpu, CPU.cr4));
    const vm = f.let(eflags.and(FLAG.VM).bool());
    const virtual = f.let(select(vm, cr4.and(CR4.VME), cr4.and(CR4.PVI)).bool().and(cpl.eq(3)));
    f.if(virtual.eqz(), () => f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)));
    f.store('32', cpu, eflags.and(~FLAG.VIF), CPU.eflags);
  }),
  routine('set_interrupts', ['i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const eflags = f.let(f.load('32', cpu, CPU.eflags));
    const cpl = f.let(f.load('32', cpu, CPU.cpl));
    const allowed = f.let(cpl.leU(eflags.shrU(12).and(3)));
    f.if(allowed, () => {
      // Interrupts stay shut for one more instruction, when they were.
      f.if(eflags.and(FLAG.IF).eqz(), () =>
        f.store('32', cpu, f.load('32', cpu, CPU.shadow).or(SHADOW.sti), CPU.shadow),
      );
      f.store('32', cpu, eflags.or(FLAG.IF), CPU.eflags);
      f.return();
    });
    const cr4 = f.let(f.load('32', cpu, CPU.cr4));
    const vm = f.let(eflags.and(FLAG.VM).bool());
    const virtual = f.let(select(vm, cr4.and(CR4.VME), cr4.and(CR4.PVI)).bool().and(cpl.eq(3)));
    f.if(virtual.eqz().or(eflags.and(FLAG.VIP).bool()), () =>
      f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
    );
    f.store('32', cpu, eflags.or(FLAG.VIF), CPU.eflags);
  }),
];
