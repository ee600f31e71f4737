/** Images of FXSAVE and XSAVE (SDM vol. 1, 10.5 and ch. 13): x87 and MMX, SSE, PKRU. */
import { CPU, TLB, VEC } from '../layout.ts';
import { CR4, EFER } from '../registers.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { SIMD, ZERO128 } from '../wasm/simd.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import { routine, type Routine } from './library.ts';
import type { Library } from '../sem.ts';

/** State components (SDM vol. 1, 13.1). */
export const XSTATE = { x87: 1, sse: 2, avx: 4, pkru: 0x200 } as const;

/** MXCSR bits that exist; as MXCSR_MASK in images. Misaligned SSE mode (bit 17) is not offered. */
export const MXCSR_MASK = 0xffff;
const MXCSR_DEFAULT = 0x1f80;
const FCW_DEFAULT = 0x37f;

/** Offsets in the image. */
const IMAGE = {
  mxcsr: 24,
  mxcsrMask: 28,
  st: 32,
  xmm: 160,
  header: 512,
  xcomp: 520,
  extended: 576,
  legacy: 512,
} as const;
/** Where PKRU lies in the standard format: CPUID leaf 0xd, subleaf 9. In the compacted one it is first. */
export const PKRU_OFFSET = 0xa80;

interface Memory {
  load64(offset: number): Val;
  load32(offset: number): Val;
  store64(offset: number, value: Val): void;
  store32(offset: number, value: Val): void;
}

function memory(f: FunctionBuilder, lib: Library): Memory {
  const cpu = f.p(0);
  const at = (offset: number): Val => f.p(1).add(offset);
  return {
    load64: (offset) => f.callValue(lib('ld64'), cpu, at(offset)),
    load32: (offset) => f.callValue(lib('ld32'), cpu, at(offset)),
    store64: (offset, value) => f.call(lib('st64'), cpu, at(offset), value),
    store32: (offset, value) => f.call(lib('st32'), cpu, at(offset), value),
  };
}

/** #GP(0). */
const protect = (f: FunctionBuilder, lib: Library, condition: Val): void =>
  f.if(condition, () => f.call(lib('raise_error'), f.p(0), i32(VEC.GP), i32(0)));

/** #GP(0) for an area at p(1) that is not aligned. Intel raises #AC for the low two bits when alignment is checked (measured). */
function protectAlignment(f: FunctionBuilder, lib: Library, mask: number): void {
  f.if(f.p(1).wrap().and(mask), () => {
    f.if(f.load('32', f.p(0), CPU.vendor), () => f.call(lib('check_alignment'), f.p(0), f.p(1), i32(4)));
    protect(f, lib, i32(1));
  });
}

/** Address of x87 register ST(i). */
function stackRegister(f: FunctionBuilder, i: number): Val {
  const cpu = f.p(0);
  return f.let(cpu.add(CPU.st).add(f.load('32', cpu, CPU.ftop).add(i).and(7).shl(4)));
}

export const xsaveRoutines: readonly Routine[] = [
  /**
   * (cpu, va, bytes, write): the whole range may be read or written. Images do not go to devices: what is not memory is #GP(0),
   * since an instruction can ask the outside only a few times.
   */
  routine('probe_image', ['i32', 'i64', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    f.if(
      f.p(3),
      () => f.call(lib('probe_write'), cpu, f.p(1), f.p(2)),
      () => f.call(lib('probe_read'), cpu, f.p(1), f.p(2)),
    );
    const tlb = f.let(
      f
        .load('32', cpu, CPU.tlbReal)
        .sub(f.load('32', cpu, CPU.tlbArea))
        .divU(TLB.arrayBytes),
    );
    for (const end of [f.p(1), f.p(1).add(f.p(2).sub(1).zext())]) {
      protect(f, lib, f.callValue(lib('translate'), cpu, end, f.p(3), tlb).eqz());
    }
  }),

  /** (cpu, va, REX.W): the x87 part, bytes 0-23 and 32-159. */
  routine('fx_save_x87', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const m = memory(f, lib);
    const fsw = f.let(f.load('32', cpu, CPU.fsw).or(f.load('32', cpu, CPU.ftop).shl(11)));
    // AMD saves FOP, FIP and FDP as zero unless an x87 exception is pending (measured).
    const hidden = f.let(f.load('32', cpu, CPU.vendor).eqz().and(fsw.and(0x80).eqz()));
    const fop = select(hidden, i32(0), f.load('32', cpu, CPU.fop));
    const word = f.load('32', cpu, CPU.fcw).and(0xffff).or(fsw.shl(16)).zext();
    m.store64(0, word.or(f.load('32', cpu, CPU.ftw).or(fop.shl(16)).zext().shl(32)));
    const pointer = (offset: number, field: number, selector: number): void => {
      const wide = f.load('64', cpu, field);
      const narrow = f.load('32u', cpu, field, 'i64').or(f.load('16u', cpu, selector, 'i64').shl(32));
      m.store64(offset, select(hidden, i64(0), select(f.p(2), wide, narrow)));
    };
    pointer(8, CPU.fip, CPU.fcs);
    pointer(16, CPU.fdp, CPU.fds);
    for (let n = 0; n < 8; n++) {
      const register = stackRegister(f, n);
      m.store64(IMAGE.st + n * 16, f.load('64', register));
      m.store64(IMAGE.st + n * 16 + 8, f.load('16u', register, 8, 'i64'));
    }
  }),
  routine('fx_save_mxcsr', ['i32', 'i64'], [], (f, lib) => {
    memory(f, lib).store64(
      IMAGE.mxcsr,
      f.load('32u', f.p(0), CPU.mxcsr, 'i64').or(BigInt(MXCSR_MASK) << 32n),
    );
  }),
  /** XMM0-7, and XMM8-15 in 64-bit mode. */
  routine('fx_save_xmm', ['i32', 'i64'], [], (f, lib) => {
    const cpu = f.p(0);
    const save = (from: number): void => {
      for (let n = from; n < from + 8; n++) {
        f.call(lib('st128'), cpu, f.p(1).add(IMAGE.xmm + n * 16), f.load('v128', cpu, CPU.xmm + n * 32));
      }
    };
    save(0);
    f.if(f.callValue(lib('in_long_mode'), cpu), () => save(8));
  }),

  routine('fx_load_x87', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const m = memory(f, lib);
    const word = m.load64(0);
    const part = (shift: number, mask: number): Val => word.shrU(shift).wrap().and(mask);
    // Bit 6 is always set; infinity control and the reserved bits stay as loaded.
    f.store('32', cpu, part(0, 0x1f7f).or(0x40), CPU.fcw);
    f.store('32', cpu, part(16, 0xc7ff), CPU.fsw);
    f.store('32', cpu, part(27, 7), CPU.ftop);
    f.store('32', cpu, part(32, 0xff), CPU.ftw);
    f.store('32', cpu, part(48, 0x7ff), CPU.fop);
    // ES and B follow from the exceptions that are pending and not masked.
    const pending = f.let(part(16, 0x3f).and(part(0, 0x3f).not()).bool());
    const fsw = f.load('32', cpu, CPU.fsw).and(0x477f);
    f.store('32', cpu, fsw.or(select(pending, i32(0x8080), i32(0))), CPU.fsw);
    const pointer = (offset: number, field: number, selector: number): void => {
      const value = m.load64(offset);
      f.if(
        f.p(2),
        () => {
          f.store('64', cpu, value, field);
          f.store('32', cpu, i32(0), selector);
        },
        () => {
          f.store('64', cpu, value.and(0xffffffffn), field);
          f.store('32', cpu, value.shrU(32).wrap().and(0xffff), selector);
        },
      );
    };
    pointer(8, CPU.fip, CPU.fcs);
    pointer(16, CPU.fdp, CPU.fds);
    for (let n = 0; n < 8; n++) {
      const register = stackRegister(f, n);
      f.store('64', register, m.load64(IMAGE.st + n * 16));
      f.store('16', register, f.callValue(lib('ld16'), cpu, f.p(1).add(IMAGE.st + n * 16 + 8)), 8);
    }
  }),
  routine('fx_load_xmm', ['i32', 'i64'], [], (f, lib) => {
    const cpu = f.p(0);
    const load = (from: number): void => {
      for (let n = from; n < from + 8; n++) {
        f.store(
          'v128',
          cpu,
          f.callValue(lib('ld128'), cpu, f.p(1).add(IMAGE.xmm + n * 16)),
          CPU.xmm + n * 32,
        );
      }
    };
    load(0);
    f.if(f.callValue(lib('in_long_mode'), cpu), () => load(8));
  }),

  /** FXSAVE and FXRSTOR look at a canonical address before its alignment (measured), unlike XSAVE and MOVAPS. */
  routine('fx_align', ['i32', 'i64'], [], (f, lib) => {
    const cpu = f.p(0);
    f.if(f.p(1).wrap().and(15).eqz(), () => f.return());
    f.if(f.callValue(lib('canonical'), cpu, f.p(1)).eqz(), () =>
      f.call(lib('check_address'), cpu, f.p(1), i32(IMAGE.legacy)),
    );
    protectAlignment(f, lib, 15);
  }),
  /** FXSAVE's XMM registers: AMD's fast FXSAVE leaves them out at CPL 0 in 64-bit mode. */
  routine('fx_wants_xmm', ['i32'], ['i32'], (f, lib) => {
    const cpu = f.p(0);
    const fast = f
      .load('32', cpu, CPU.efer)
      .and(EFER.FFXSR)
      .bool()
      .and(f.load('32', cpu, CPU.cpl).eqz());
    f.return(fast.and(f.callValue(lib('in_long_mode'), cpu)).eqz());
    f.unreachable();
  }),
  routine('fxsave', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    f.call(lib('fx_align'), cpu, f.p(1));
    f.call(lib('probe_image'), cpu, f.p(1), i32(IMAGE.legacy), i32(1));
    f.call(lib('fx_save_x87'), cpu, f.p(1), f.p(2));
    f.call(lib('fx_save_mxcsr'), cpu, f.p(1));
    f.if(f.callValue(lib('fx_wants_xmm'), cpu), () => f.call(lib('fx_save_xmm'), cpu, f.p(1)));
  }),
  routine('fxrstor', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    f.call(lib('fx_align'), cpu, f.p(1));
    f.call(lib('probe_image'), cpu, f.p(1), i32(IMAGE.legacy), i32(0));
    const mxcsr = memory(f, lib).load32(IMAGE.mxcsr);
    protect(f, lib, mxcsr.and(~MXCSR_MASK));
    f.store('32', cpu, mxcsr, CPU.mxcsr);
    f.call(lib('fx_load_x87'), cpu, f.p(1), f.p(2));
    f.if(f.callValue(lib('fx_wants_xmm'), cpu), () => f.call(lib('fx_load_xmm'), cpu, f.p(1)));
  }),

  /** What the XSAVE instructions check before all else: #UD without CR4.OSXSAVE, #NM with CR0.TS. */
  routine('xsave_check', ['i32'], [], (f, lib) => {
    const cpu = f.p(0);
    f.if(f.load('32', cpu, CPU.cr4).and(CR4.OSXSAVE).eqz(), () => f.call(lib('raise'), cpu, i32(VEC.UD)));
    f.if(f.load('32', cpu, CPU.cr0).and(8), () => f.call(lib('raise'), cpu, i32(VEC.NM)));
  }),
  /** Requested components: EDX:EAX and XCR0 (and XSS). */
  routine('xsave_requested', ['i32', 'i32'], ['i32'], (f) => {
    const cpu = f.p(0);
    const enabled = f.load('32', cpu, CPU.xcr0).or(select(f.p(1), f.load('32', cpu, CPU.xss), i32(0)));
    f.return(enabled.and(f.load('32', cpu, CPU.gpr)));
    f.unreachable();
  }),
  /** XINUSE: components that differ from their initial state. */
  routine('xsave_in_use', ['i32'], ['i32'], (f) => {
    const cpu = f.p(0);
    const x87 = f.local('i64', f.load('32u', cpu, CPU.fcw, 'i64').xor(BigInt(FCW_DEFAULT)));
    for (const field of [CPU.fsw, CPU.ftop, CPU.ftw, CPU.fop, CPU.fcs, CPU.fds]) {
      x87.set(x87.get.or(f.load('32u', cpu, field, 'i64')));
    }
    x87.set(x87.get.or(f.load('64', cpu, CPU.fip)).or(f.load('64', cpu, CPU.fdp)));
    for (let n = 0; n < 8; n++) {
      x87.set(
        x87.get.or(f.load('64', cpu, CPU.st + n * 16)).or(f.load('16u', cpu, CPU.st + n * 16 + 8, 'i64')),
      );
    }
    const sse = f.local('v128', ZERO128);
    for (let n = 0; n < 16; n++) sse.set(sse.get.simd2(f.load('v128', cpu, CPU.xmm + n * 32), SIMD.or));
    f.return(
      x87.get
        .ne(0)
        .or(sse.get.simd1(SIMD.anyTrue, 'i32').shl(1))
        .or(f.load('32', cpu, CPU.pkru).bool().shl(9)),
    );
    f.unreachable();
  }),

  /**
   * (cpu, va, REX.W, form): XSAVE (0), XSAVEOPT (1), XSAVEC (2), XSAVES (3). All but XSAVE leave out what is in its initial
   * state; the modified optimization is not used.
   */
  routine('xsave', ['i32', 'i64', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const form = f.p(3);
    const m = memory(f, lib);
    const compact = f.let(form.geU(2));
    protectAlignment(f, lib, 63);
    const requested = f.callValue(lib('xsave_requested'), cpu, form.eq(3));
    const inUse = f.callValue(lib('xsave_in_use'), cpu);
    // In the compacted format MXCSR belongs to SSE, and keeps it in use.
    const special = compact.and(f.load('32', cpu, CPU.mxcsr).ne(MXCSR_DEFAULT)).shl(1);
    const used = f.let(requested.and(inUse.or(special)));
    const written = f.let(select(form.eqz(), requested, used));
    const pkru = f.let(select(compact, i64(IMAGE.extended), i64(PKRU_OFFSET)));
    f.call(lib('probe_image'), cpu, f.p(1), i32(IMAGE.extended), i32(1));
    f.if(requested.and(XSTATE.pkru), () => f.call(lib('probe_image'), cpu, f.p(1).add(pkru), i32(8), i32(1)));
    f.if(written.and(XSTATE.x87), () => f.call(lib('fx_save_x87'), cpu, f.p(1), f.p(2)));
    const wantsMxcsr = select(compact, written.and(XSTATE.sse), requested.and(XSTATE.sse | XSTATE.avx));
    f.if(wantsMxcsr, () => f.call(lib('fx_save_mxcsr'), cpu, f.p(1)));
    f.if(written.and(XSTATE.sse), () => f.call(lib('fx_save_xmm'), cpu, f.p(1)));
    f.if(written.and(XSTATE.pkru), () =>
      f.call(lib('st64'), cpu, f.p(1).add(pkru), f.load('32u', cpu, CPU.pkru, 'i64')),
    );
    f.if(
      compact,
      () => {
        m.store64(IMAGE.header, used.zext());
        m.store64(IMAGE.xcomp, requested.zext().or(1n << 63n));
      },
      () => {
        const old = m.load64(IMAGE.header);
        m.store64(IMAGE.header, old.and(requested.zext().not()).or(used.zext()));
      },
    );
  }),

  /** (cpu, va, REX.W, whether XRSTORS). Every #GP comes before the first change. */
  routine('xrstor', ['i32', 'i64', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const m = memory(f, lib);
    protectAlignment(f, lib, 63);
    f.call(lib('probe_image'), cpu, f.p(1), i32(IMAGE.extended), i32(0));
    const requested = f.callValue(lib('xsave_requested'), cpu, f.p(3));
    const enabled = f.let(f.load('64', cpu, CPU.xcr0).or(select(f.p(3), f.load('64', cpu, CPU.xss), i64(0))));
    const present = m.load64(IMAGE.header);
    const xcomp = m.load64(IMAGE.xcomp);
    const compact = f.let(xcomp.ltS(0));
    const bytes16 = m.load64(IMAGE.header + 16);
    f.if(
      compact,
      () => {
        let rest = bytes16;
        for (let offset = 24; offset < 64; offset += 8)
          rest = f.let(rest.or(m.load64(IMAGE.header + offset)));
        const layout = f.let(xcomp.and((1n << 63n) - 1n));
        protect(f, lib, layout.and(enabled.not()).ne(0).or(present.and(layout.not()).ne(0)).or(rest.ne(0)));
      },
      () => {
        protect(f, lib, f.p(3));
        protect(f, lib, present.and(enabled.not()).or(xcomp).or(bytes16).ne(0));
      },
    );
    const given = f.let(requested.and(present.wrap()));
    const initial = f.let(requested.and(present.wrap().not()));
    // Standard format: MXCSR is loaded when SSE or AVX is asked for, in use or not. Compacted: it is part of SSE.
    const loadsMxcsr = f.let(
      select(compact, given.and(XSTATE.sse), requested.and(XSTATE.sse | XSTATE.avx)).bool(),
    );
    const mxcsr = f.local('i32', MXCSR_DEFAULT);
    f.if(loadsMxcsr, () => {
      mxcsr.set(m.load32(IMAGE.mxcsr));
      protect(f, lib, mxcsr.get.and(~MXCSR_MASK));
    });
    const pkru = f.local('i64', 0);
    f.if(given.and(XSTATE.pkru), () => {
      pkru.set(
        f.callValue(lib('ld64'), cpu, f.p(1).add(select(compact, i64(IMAGE.extended), i64(PKRU_OFFSET)))),
      );
    });
    f.if(loadsMxcsr.or(compact.and(initial.and(XSTATE.sse).bool())), () =>
      f.store('32', cpu, mxcsr.get, CPU.mxcsr),
    );
    f.if(given.and(XSTATE.x87), () => f.call(lib('fx_load_x87'), cpu, f.p(1), f.p(2)));
    f.if(initial.and(XSTATE.x87), () => {
      f.store('32', cpu, i32(FCW_DEFAULT), CPU.fcw);
      for (const field of [CPU.fsw, CPU.ftop, CPU.ftw, CPU.fop, CPU.fcs, CPU.fds])
        f.store('32', cpu, i32(0), field);
      f.store('64', cpu, i64(0), CPU.fip);
      f.store('64', cpu, i64(0), CPU.fdp);
      for (let n = 0; n < 8; n++) f.store('v128', cpu, ZERO128, CPU.st + n * 16);
    });
    f.if(given.and(XSTATE.sse), () => f.call(lib('fx_load_xmm'), cpu, f.p(1)));
    f.if(initial.and(XSTATE.sse), () => {
      for (let n = 0; n < 8; n++) f.store('v128', cpu, ZERO128, CPU.xmm + n * 32);
      f.if(f.callValue(lib('in_long_mode'), cpu), () => {
        for (let n = 8; n < 16; n++) f.store('v128', cpu, ZERO128, CPU.xmm + n * 32);
      });
    });
    f.if(requested.and(XSTATE.pkru), () => {
      f.store('32', cpu, pkru.get.wrap(), CPU.pkru);
      // Rights were folded into TLB entries when they were filled.
      f.call(lib('tlb_flush'), cpu);
    });
  }),

  /** XSETBV of XCR0: x87 always, AVX only with SSE, nothing that the model does not have. */
  routine('xsetbv', ['i32'], [], (f, lib) => {
    const cpu = f.p(0);
    protect(
      f,
      lib,
      f
        .load('32', cpu, CPU.cpl)
        .bool()
        .or(f.load('32', cpu, CPU.gpr + 8).bool()),
    );
    const value = f.let(
      f.load('32u', cpu, CPU.gpr, 'i64').or(f.load('32u', cpu, CPU.gpr + 16, 'i64').shl(32)),
    );
    protect(
      f,
      lib,
      value
        .and(f.load('64', cpu, CPU.xcr0Allowed).not())
        .ne(0)
        .or(value.wrap().and(1).eqz()),
    );
    protect(
      f,
      lib,
      value
        .wrap()
        .and(XSTATE.sse | XSTATE.avx)
        .eq(XSTATE.avx),
    );
    f.store('64', cpu, value, CPU.xcr0);
  }),
];
