/** Descriptors and segment loads (Intel SDM vol. 3 ch. 3 and 5; AMD APM vol. 2 ch. 4). */
import { CPU, CS, DS, ES, FLAG, FS, GDTR, GS, LDTR, SEG, SS, VEC, segField } from '../layout.ts';
import { CR0, EFER } from '../registers.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import { routine, type Routine } from './library.ts';

/** Attribute bits (SEG.attr). */
export const ATTR = {
  accessed: 1,
  writable: 2,
  readable: 2,
  conforming: 4,
  expandDown: 4,
  code: 8,
  s: 0x10,
  dpl: 0x60,
  p: 0x80,
  l: 0x200,
  db: 0x400,
  g: 0x800,
  unusable: 0x10000,
} as const;

export const longActive = (f: FunctionBuilder, cpu: Val): Val =>
  f.let(f.load('32', cpu, CPU.efer).shrU(10).and(1));
export const protectedMode = (f: FunctionBuilder, cpu: Val): Val =>
  f.let(
    f
      .load('32', cpu, CPU.cr0)
      .and(CR0.PE)
      .and(f.load('32', cpu, CPU.eflags).and(FLAG.VM).eqz()),
  );

/** Access byte and flags of a raw descriptor in SEG.attr form. */
export const attrOf = (f: FunctionBuilder, raw: Val): Val =>
  f.let(raw.shrU(40).wrap().and(0xff).or(raw.shrU(44).wrap().and(0xf00)));
export const dplOf = (attr: Val): Val => attr.shrU(5).and(3);

export const segmentRoutines: readonly Routine[] = [
  /** Selector error code: index and TI, with EXT while an event is delivered. */
  routine('raise_selector', ['i32', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    f.call(
      lib('raise_error'),
      cpu,
      f.p(1),
      f
        .p(2)
        .and(0xfffc)
        .or(f.load('32', cpu, CPU.ext)),
    );
  }),
  /** Linear address of the descriptor of `selector`; `vector` when it lies outside its table. */
  routine('descriptor_address', ['i32', 'i32', 'i32'], ['i64'], (f, lib) => {
    const cpu = f.p(0);
    const selector = f.p(1);
    const local = f.let(selector.and(4));
    const fail = (): void => f.call(lib('raise_selector'), cpu, f.p(2), selector);
    f.if(local, () => {
      f.if(f.load('32', cpu, segField(LDTR, SEG.attr)).and(ATTR.unusable), fail);
    });
    const base = f.let(
      select(local, f.load('64', cpu, segField(LDTR, SEG.base)), f.load('64', cpu, segField(GDTR, SEG.base))),
    );
    const limit = f.let(
      select(
        local,
        f.load('32', cpu, segField(LDTR, SEG.limit)),
        f.load('32', cpu, segField(GDTR, SEG.limit)),
      ),
    );
    f.if(selector.or(7).and(0xffff).gtU(limit), fail);
    f.return(base.add(selector.and(0xfff8).zext()));
    f.unreachable();
  }),
  routine('read_descriptor', ['i32', 'i32', 'i32'], ['i64'], (f, lib) => {
    const address = f.callValue(lib('descriptor_address'), f.p(0), f.p(1), f.p(2));
    f.return(f.callValue(lib('ld64_sys'), f.p(0), address));
    f.unreachable();
  }),
  /** Upper half of a 16-byte descriptor of long mode: #GP(selector) when the table ends before it does. */
  routine('descriptor_upper', ['i32', 'i32'], ['i64'], (f, lib) => {
    const [cpu, selector] = [f.p(0), f.p(1)];
    const address = f.callValue(lib('descriptor_address'), cpu, selector, i32(VEC.GP));
    const field = (register: number): Val => f.load('32', cpu, segField(register, SEG.limit));
    const limit = f.let(select(selector.and(4), field(LDTR), field(GDTR)));
    f.if(selector.and(0xfff8).add(15).gtU(limit), () =>
      f.call(lib('raise_selector'), cpu, i32(VEC.GP), selector),
    );
    f.return(f.callValue(lib('ld64_sys'), cpu, address.add(8)));
    f.unreachable();
  }),
  /** Sets the accessed bit of a code or data descriptor in memory; gives the raw descriptor with it. */
  routine('mark_accessed', ['i32', 'i32', 'i64'], ['i64'], (f, lib) => {
    const cpu = f.p(0);
    f.if(f.p(2).shrU(40).wrap().and(1).eqz(), () => {
      const address = f.callValue(lib('descriptor_address'), cpu, f.p(1), i32(VEC.GP));
      f.call(lib('st8_sys'), cpu, address.add(5), f.p(2).shrU(40).wrap().and(0xff).or(1));
    });
    f.return(f.p(2).or(1n << 40n));
    f.unreachable();
  }),
  /** Fills segment register `index` from a raw descriptor. */
  routine('set_segment', ['i32', 'i32', 'i32', 'i64'], [], (f) => {
    const cpu = f.p(0);
    const raw = f.p(3);
    const at = f.let(cpu.add(f.p(1).shl(5)));
    const low = f.let(raw.wrap().and(0xffff).or(raw.shrU(32).wrap().and(0xf0000)));
    f.store('64', at, raw.shrU(16).and(0xffffffn).or(raw.shrU(32).and(0xff000000n)), segField(ES, SEG.base));
    f.store('32', at, select(raw.and(1n << 55n).ne(0), low.shl(12).or(0xfff), low), segField(ES, SEG.limit));
    f.store('32', at, attrOf(f, raw), segField(ES, SEG.attr));
    f.store('32', at, f.p(2).and(0xffff), segField(ES, SEG.selector));
  }),
  /** Real or virtual-8086 mode: base is the selector times 16; limits stay in real mode. */
  routine('set_real_segment', ['i32', 'i32', 'i32'], [], (f) => {
    const cpu = f.p(0);
    const at = f.let(cpu.add(f.p(1).shl(5)));
    f.store('64', at, f.p(2).and(0xffff).shl(4).zext(), segField(ES, SEG.base));
    f.store('32', at, f.p(2).and(0xffff), segField(ES, SEG.selector));
    f.if(
      f.load('32', cpu, CPU.eflags).and(FLAG.VM),
      () => {
        f.store('32', at, i32(0xffff), segField(ES, SEG.limit));
        f.store('32', at, i32(0xf3), segField(ES, SEG.attr));
      },
      () =>
        f.if(f.p(1).eq(CS), () =>
          f.store(
            '32',
            at,
            f.load('32', at, segField(ES, SEG.attr)).and(ATTR.db).or(0x93),
            segField(ES, SEG.attr),
          ),
        ),
    );
  }),
  routine('null_segment', ['i32', 'i32', 'i32'], [], (f) => {
    const at = f.let(f.p(0).add(f.p(1).shl(5)));
    f.store('32', at, f.p(2).and(0xffff), segField(ES, SEG.selector));
    f.store('32', at, i32(ATTR.unusable), segField(ES, SEG.attr));
    f.store('32', at, i32(0), segField(ES, SEG.limit));
    f.store('64', at, i64(0), segField(ES, SEG.base));
  }),
  /** MOV to / POP / LxS of DS ES FS GS SS. */
  routine('load_segment', ['i32', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const index = f.p(1);
    const selector = f.let(f.p(2).and(0xffff));
    f.if(protectedMode(f, cpu).eqz(), () => {
      f.call(lib('set_real_segment'), cpu, index, selector);
      f.return();
    });
    const cpl = f.let(f.load('32', cpu, CPU.cpl));
    const rpl = f.let(selector.and(3));
    f.if(selector.and(0xfffc).eqz(), () => {
      // A null SS is for 64-bit mode at CPL 0-2 with an equal RPL.
      f.if(index.eq(SS), () => {
        f.if(f.callValue(lib('in_long_mode'), cpu).eqz().or(cpl.eq(3)).or(rpl.ne(cpl)), () =>
          f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
        );
      });
      f.call(lib('null_segment'), cpu, index, selector);
      f.return();
    });
    const raw = f.callValue(lib('read_descriptor'), cpu, selector, i32(VEC.GP));
    const attr = attrOf(f, raw);
    const dpl = f.let(dplOf(attr));
    const fail = (): void => f.call(lib('raise_selector'), cpu, i32(VEC.GP), selector);
    f.if(
      index.eq(SS),
      () => {
        f.if(rpl.ne(cpl).or(dpl.ne(cpl)).or(attr.and(0x1a).ne(0x12)), fail);
        f.if(attr.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.SS), selector));
      },
      () => {
        // Data, or readable code; privilege unless conforming code.
        f.if(attr.and(ATTR.s).eqz().or(attr.and(0xa).eq(8)), fail);
        f.if(
          attr
            .and(0xc)
            .ne(0xc)
            .and(rpl.gtU(dpl).or(cpl.gtU(dpl))),
          fail,
        );
        f.if(attr.and(ATTR.p).eqz(), () => f.call(lib('raise_selector'), cpu, i32(VEC.NP), selector));
      },
    );
    f.call(lib('set_segment'), cpu, index, selector, f.callValue(lib('mark_accessed'), cpu, selector, raw));
  }),
  /**
   * Checks a code descriptor for a transfer by JMP/CALL far (`mode` 0) or through a gate / far return (given privilege).
   * Loads CS with RPL `cpl`.
   */
  routine('set_code_segment', ['i32', 'i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const cpl = f.p(3);
    const selector = f.let(f.p(1).and(0xfffc).or(cpl));
    f.call(
      lib('set_segment'),
      cpu,
      i32(CS),
      selector,
      f.callValue(lib('mark_accessed'), cpu, f.p(1), f.p(2)),
    );
    f.store('32', cpu, cpl, CPU.cpl);
  }),
  /** #GP(selector) unless a code segment in long mode has a legal L/D pair. */
  routine('check_code_size', ['i32', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    f.if(
      longActive(f, cpu).and(
        f
          .p(2)
          .and(ATTR.l | ATTR.db)
          .eq(ATTR.l | ATTR.db),
      ),
      () => f.call(lib('raise_selector'), cpu, i32(VEC.GP), f.p(1)),
    );
  }),
  /** Data segment registers that a less privileged level may not keep are cleared (far return, IRET to outer level). */
  routine('drop_privileged_segments', ['i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const cpl = f.let(f.load('32', cpu, CPU.cpl));
    for (const index of [ES, DS, FS, GS]) {
      const attr = f.let(f.load('32', cpu, segField(index, SEG.attr)));
      // The selector becomes null; the base, which 64-bit mode uses for FS and GS, stays.
      f.if(attr.and(ATTR.unusable).eqz().and(attr.and(0xc).ne(0xc)).and(dplOf(attr).ltU(cpl)), () => {
        f.store('32', cpu, i32(0), segField(index, SEG.selector));
        f.store('32', cpu, i32(ATTR.unusable), segField(index, SEG.attr));
      });
    }
  }),
];
void EFER;
