/** Control registers, debug registers, MSRs, ports, fast system calls. */
import {
  CONTROL_EXIT,
  CPU,
  CS,
  FLAG,
  GS,
  RAX,
  RCX,
  RDX,
  SEG,
  SPECIAL,
  SS,
  TR,
  VEC,
  segField,
  EXIT,
  FS,
  INTERCEPT,
} from '../layout.ts';
import { CR0, CR4, EFER } from '../registers.ts';
import type { FunctionBuilder } from '../wasm/function.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import type { Library } from '../sem.ts';
import { routine, type Routine } from './library.ts';
import { ATTR, longActive, protectedMode } from './segments.ts';
import { storeEflags } from './events.ts';

const gp0 = (f: FunctionBuilder, lib: Library, cpu: Val): void =>
  f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0));

/** Hardware configuration of AMD's processors. */
const HWCR = 0xc0010015;

/** MSRs that hold what was written and do nothing: machine-check banks, debug control, AMD's configuration registers. */
const KEPT_MSRS: readonly number[] = [
  // PERFEVTSEL0-3 and PERFCTR0-3 of AMD: present on every family, they count nothing here.
  ...Array.from({ length: 8 }, (_, i) => 0xc0010000 + i),
  0x17a,
  0x17b,
  0x1d9,
  HWCR,
  0xc0010010,
  0xc0011029,
  0xc0011022,
  0xc001001f,
  0xc001102a,
  0xc0011020,
  0xc0011023,
];

/** Where it is kept in the CPU structure. */
export const HWCR_OFFSET = CPU.keptMsr + KEPT_MSRS.indexOf(HWCR) * 8;

/** MCi_CTL, STATUS, ADDR, MISC of two banks: CTL takes all zeros or all ones, STATUS only zeros. */
const MACHINE_CHECK_MSRS: readonly number[] = Array.from({ length: 8 }, (_, i) => 0x400 + i);

/** MSRs with a fixed value that ignore or refuse writes. */
const CONSTANT_MSRS: readonly (readonly [number, bigint])[] = [
  // Platform id, microcode revision (written to load an update: ignored), MTRR capabilities (8 variable, fixed, WC),
  // two machine-check banks with MCG_CTL.
  [0x17, 0n],
  [0x8b, 0n],
  [0xfe, 0x508n],
  [0x179, 0x102n],
];

/** MSRs that the processor itself keeps: number, offset, and what a write must satisfy. */
type Rule =
  | 'any'
  | 'constant'
  | 'mc-control'
  | 'mc-value'
  | 'canonical'
  | 'pat'
  | 'efer'
  | 'tsc'
  | 'low32'
  | 'mtrr-type'
  | 'read-only'
  | 'misc'
  | 'pkrs'
  | 'base';
const MSRS: readonly (readonly [number, number, Rule])[] = [
  [0x10, -1, 'tsc'],
  [0x174, CPU.sysenterCs, 'any'],
  [0x175, CPU.sysenterEsp, 'canonical'],
  [0x176, CPU.sysenterEip, 'canonical'],
  [0x1a0, CPU.miscEnable, 'misc'],
  [0x277, CPU.pat, 'pat'],
  [0x2ff, CPU.mtrrDefType, 'mtrr-type'],
  [0x6e1, CPU.pkrs, 'pkrs'],
  [0xc0000080, CPU.efer, 'efer'],
  [0xc0000081, CPU.star, 'any'],
  [0xc0000082, CPU.lstar, 'canonical'],
  [0xc0000083, CPU.cstar, 'canonical'],
  [0xc0000084, CPU.sfmask, 'low32'],
  [0xc0000100, segField(FS, SEG.base), 'base'],
  [0xc0000101, segField(GS, SEG.base), 'base'],
  [0xc0000102, CPU.kernelGsBase, 'canonical'],
  [0xc0000103, CPU.tscAux, 'low32'],
  [0xda0, CPU.xss, 'read-only'],
  ...[0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f].map(
    (n, i): [number, number, Rule] => [n, CPU.mtrrFixed + i * 8, 'any'],
  ),
  ...KEPT_MSRS.map((n, i): [number, number, Rule] => [n, CPU.keptMsr + i * 8, 'any']),
  ...MACHINE_CHECK_MSRS.map((n, i): [number, number, Rule] => [
    n,
    CPU.keptMsr + (KEPT_MSRS.length + i) * 8,
    i % 4 === 0 ? 'mc-control' : i % 4 === 1 ? 'mc-value' : 'any',
  ]),
  ...CONSTANT_MSRS.map(([n]): [number, number, Rule] => [n, 0, 'constant']),
  ...Array.from({ length: 16 }, (_, i): [number, number, Rule] => [
    0x200 + i,
    CPU.mtrrVariable + i * 8,
    'any',
  ]),
];

/** Intel has SYSCALL and SYSRET in 64-bit mode only (SDM volume 2, measured), AMD elsewhere too (APM volume 3). */
function onlyLongOnIntel(f: FunctionBuilder, lib: Library, cpu: Val): void {
  f.if(
    f
      .callValue(lib('in_long_mode'), cpu)
      .eqz()
      .and(f.load('32', cpu, CPU.vendor)),
    () => f.call(lib('raise'), cpu, i32(VEC.UD)),
  );
}

function canonicalMsr(f: FunctionBuilder, cpu: Val, value: Val): Val {
  const unused = f.let(select(f.load('32', cpu, CPU.cr4).and(CR4.LA57), i64(7), i64(16)));
  return value.shl(unused).shrS(unused).eq(value);
}

/** A write to CR0 or CR4 that a hypervisor's mask claims leaves for the outside; when it is answered it is done. */
function intercepted(
  f: FunctionBuilder,
  lib: Library,
  cpu: Val,
  register: 0 | 4,
  value: Val,
  how: Val,
): void {
  const [mask, shadow, current] =
    register === 0 ? [CPU.cr0Mask, CPU.cr0Shadow, CPU.cr0] : [CPU.cr4Mask, CPU.cr4Shadow, CPU.cr4];
  const owned = f.let(f.load('64', cpu, mask));
  f.if(owned.ne(0), () => {
    f.if(
      value
        .xor(f.load('64', cpu, shadow))
        .and(owned)
        .ne(0),
      () => {
        f.call(
          lib('ask'),
          cpu,
          i32(EXIT.intercept),
          how.or(register << 8).zext(),
          value,
          f.load('64', cpu, current),
        );
        f.return();
      },
    );
  });
}

export const systemRoutines: readonly Routine[] = [
  /** What changes when CR0 becomes `value`: checks, LMA, PDPTEs, TLB. SDM vol. 3, 2.5 and 4.1. */
  routine('write_cr0', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    f.if(f.p(1).shrU(32).ne(0), () => gp0(f, lib, cpu));
    intercepted(f, lib, cpu, 0, f.p(1), f.p(2));
    const owned = f.let(f.load('32', cpu, CPU.cr0Mask));
    const value = f.let(
      f
        .p(1)
        .wrap()
        .or(CR0.ET)
        .and(owned.not())
        .or(f.load('32', cpu, CPU.cr0).and(owned)),
    );
    f.if(value.and(CR0.PG).bool().and(value.and(CR0.PE).eqz()), () => gp0(f, lib, cpu));
    f.if(value.and(CR0.NW).bool().and(value.and(CR0.CD).eqz()), () => gp0(f, lib, cpu));
    const old = f.let(f.load('32', cpu, CPU.cr0));
    const efer = f.let(f.load('32', cpu, CPU.efer));
    const cr4 = f.let(f.load('32', cpu, CPU.cr4));
    const turnsOn = f.let(value.and(CR0.PG).bool().and(old.and(CR0.PG).eqz()));
    const turnsOff = f.let(value.and(CR0.PG).eqz().and(old.and(CR0.PG).bool()));
    f.if(turnsOn, () => {
      f.if(
        efer.and(EFER.LME),
        () => {
          f.if(
            cr4
              .and(CR4.PAE)
              .eqz()
              .or(f.load('32', cpu, segField(CS, SEG.attr)).and(ATTR.l).bool()),
            () => gp0(f, lib, cpu),
          );
          // A 16-bit TSS cannot stay.
          f.if(f.load('32', cpu, segField(TR, SEG.attr)).and(0x1d).eq(1), () => gp0(f, lib, cpu));
          f.store('32', cpu, efer.or(EFER.LMA), CPU.efer);
        },
        () => f.if(cr4.and(CR4.PAE), () => f.call(lib('load_pdptes'), cpu, f.load('64', cpu, CPU.cr3))),
      );
    });
    f.if(turnsOff, () => {
      f.if(f.callValue(lib('in_long_mode'), cpu).or(cr4.and(CR4.PCIDE).bool()), () => gp0(f, lib, cpu));
      f.store('32', cpu, efer.and(~EFER.LMA), CPU.efer);
    });
    const kept = 0x8005003f | CR0.CD | CR0.NW;
    const next = f.let(value.and(kept | 0));
    f.store('64', cpu, next.zext(), CPU.cr0);
    // Entering protected mode leaves segments as they are; CPL is 0. Leaving it too.
    // Clearing WP takes no right away; setting it does only from entries that were filled thanks to it.
    const protects = f.let(
      next
        .and(CR0.WP)
        .bool()
        .and(old.and(CR0.WP).eqz())
        .and(f.load('32', cpu, CPU.tlbWpOpen)),
    );
    f.if(
      old
        .xor(next)
        .and(CR0.PG | CR0.PE | 0)
        .bool()
        .or(protects),
      () => f.call(lib('tlb_flush'), cpu),
    );
    f.if(next.and(CR0.PE).eqz(), () => f.store('32', cpu, i32(0), CPU.cpl));
  }),
  routine('load_pdptes', ['i32', 'i64'], [], (f, lib) => {
    const cpu = f.p(0);
    const base = f.let(f.p(1).and(0xffffffe0n));
    const reserved = f.let(
      f
        .load('64', cpu, CPU.physReserved)
        .or(0x1e6n)
        .or(-1n << 63n),
    );
    const values: Val[] = [];
    for (let n = 0; n < 4; n++) {
      const host = f.callValue(lib('physical'), cpu, base.add(n * 8), i32(0));
      const value = f.local('i64', 0);
      f.if(host, () => value.set(f.load('64', host)));
      f.if(value.get.and(1).ne(0).and(value.get.and(reserved).ne(0)), () => gp0(f, lib, cpu));
      values.push(f.let(value.get));
    }
    for (const [n, value] of values.entries()) f.store('64', cpu, value, CPU.pdpte + n * 8);
  }),
  routine('write_cr3', ['i32', 'i64'], [], (f, lib) => {
    const cpu = f.p(0);
    const value = f.local('i64', f.p(1));
    const cr4 = f.let(f.load('32', cpu, CPU.cr4));
    const long = longActive(f, cpu);
    f.if(
      long,
      () => {
        // Bit 63 with PCIDs asks to keep the TLB: flushing more is always right.
        f.if(cr4.and(CR4.PCIDE), () => value.set(value.get.and((1n << 63n) - 1n)));
        f.if(
          value.get
            .and(f.load('64', cpu, CPU.physReserved))
            .ne(0)
            .or(value.get.shrU(52).ne(0)),
          () => gp0(f, lib, cpu),
        );
      },
      () => {
        value.set(value.get.and(0xffffffffn));
        f.if(
          cr4
            .and(CR4.PAE)
            .bool()
            .and(f.load('32', cpu, CPU.cr0).shrU(31)),
          () => f.call(lib('load_pdptes'), cpu, value.get),
        );
      },
    );
    f.store('64', cpu, value.get, CPU.cr3);
    f.call(lib('tlb_flush'), cpu);
  }),
  routine('write_cr4', ['i32', 'i64'], [], (f, lib) => {
    const cpu = f.p(0);
    intercepted(f, lib, cpu, 4, f.p(1), i32(CONTROL_EXIT.mov));
    const owned = f.let(f.load('32', cpu, CPU.cr4Mask));
    const old = f.let(f.load('32', cpu, CPU.cr4));
    const value = f.let(f.p(1).wrap().and(owned.not()).or(old.and(owned)));
    f.if(
      f
        .p(1)
        .and(owned.zext().not())
        .and(f.load('64', cpu, CPU.cr4Allowed).not())
        .ne(0),
      () => gp0(f, lib, cpu),
    );
    const long = longActive(f, cpu);
    const changed = f.let(old.xor(value));
    f.if(long.and(value.and(CR4.PAE).eqz().or(changed.and(CR4.LA57).bool())), () => gp0(f, lib, cpu));
    f.if(value.and(CR4.PCIDE).bool().and(old.and(CR4.PCIDE).eqz()), () => {
      f.if(long.eqz().or(f.load('32', cpu, CPU.cr3).and(0xfff).bool()), () => gp0(f, lib, cpu));
    });
    f.if(
      value
        .and(CR4.PAE)
        .bool()
        .and(f.load('32', cpu, CPU.cr0).shrU(31))
        .and(long.eqz())
        .and(changed.and(CR4.PAE | CR4.PGE | CR4.PSE | CR4.SMEP).bool()),
      () => f.call(lib('load_pdptes'), cpu, f.load('64', cpu, CPU.cr3)),
    );
    f.store('64', cpu, value.zext(), CPU.cr4);
    f.if(
      changed.and(
        CR4.PSE | CR4.PAE | CR4.PGE | CR4.SMEP | CR4.SMAP | CR4.PKE | CR4.PKS | CR4.PCIDE | CR4.LA57,
      ),
      () => f.call(lib('tlb_flush'), cpu),
    );
  }),
  /** #GP unless in protected mode or real mode at CPL 0; virtual-8086 mode faults as CPL 3. */
  routine('read_dr', ['i32', 'i32'], ['i64'], (f, lib) => {
    const cpu = f.p(0);
    const n = f.callValue(lib('debug_register'), cpu, f.p(1), i32(0));
    f.if(n.eq(5), () => f.call(lib('check_intercept'), cpu, i32(INTERCEPT.dr7), i32(0)));
    f.return(f.load('64', cpu.add(n.shl(3)), CPU.dr));
    f.unreachable();
  }),
  /**
   * Index (0-5) of DR0-3, DR6, DR7 after the checks: CPL, CR4.DE for DR4/5, an exit for every MOV DR (info2: number, and write in
   * bit 8), general detect.
   */
  routine('debug_register', ['i32', 'i32', 'i32'], ['i32'], (f, lib) => {
    const cpu = f.p(0);
    const n = f.p(1);
    f.if(n.gtU(7), () => f.call(lib('raise'), cpu, i32(VEC.UD)));
    f.if(
      n
        .and(6)
        .eq(4)
        .and(f.load('32', cpu, CPU.cr4).and(CR4.DE).bool()),
      () => f.call(lib('raise'), cpu, i32(VEC.UD)),
    );
    f.if(f.load('32', cpu, CPU.cpl).bool(), () => gp0(f, lib, cpu));
    f.call(lib('check_intercept'), cpu, i32(INTERCEPT.movDr), n.or(f.p(2).shl(8)));
    f.if(f.load('32', cpu, CPU.dr + 40).and(0x2000), () => {
      f.store('64', cpu, i64(0x2000), CPU.raiseInfo);
      f.call(lib('raise'), cpu, i32(VEC.DB));
    });
    f.return(select(n.ltU(4), n, n.and(1).add(4)));
    f.unreachable();
  }),
  routine('write_dr', ['i32', 'i32', 'i64'], [], (f, lib) => {
    const cpu = f.p(0);
    const value = f.p(2);
    const n = f.callValue(lib('debug_register'), cpu, f.p(1), i32(1));
    f.if(n.geU(4).and(value.shrU(32).ne(0)), () => gp0(f, lib, cpu));
    f.if(n.eq(5), () => f.call(lib('check_intercept'), cpu, i32(INTERCEPT.dr7), i32(1)));
    const fixed = f.let(
      select(
        n.eq(4),
        value.and(0x1e00fn).or(0xffff0ff0n),
        select(n.eq(5), value.and(0xffff2bffn).or(0x400n), value),
      ),
    );
    f.store('64', cpu.add(n.shl(3)), fixed, CPU.dr);
  }),

  /** Leaves when the owner of the intercept table wants this instruction (a bit of INTERCEPT). */
  routine('check_intercept', ['i32', 'i32', 'i32'], [], (f, lib) => {
    f.if(f.load('32', f.p(0), CPU.intercepts).and(f.p(1)), () =>
      f.call(lib('ask'), f.p(0), i32(EXIT.instruction), f.p(1).zext(), f.p(2).zext(), i64(0)),
    );
  }),
  /** TSC as of tick `now`. */
  routine('tsc', ['i32', 'i64'], ['i64'], (f) => {
    const cpu = f.p(0);
    f.return(
      f
        .p(1)
        .mul(f.load('32u', cpu, CPU.tscMultiplier, 'i64'))
        .add(f.load('64', cpu, CPU.tscOffset)),
    );
    f.unreachable();
  }),
  /** #GP when CR4.TSD keeps RDTSC from CPL > 0. */
  routine('check_tsc', ['i32'], [], (f, lib) => {
    const cpu = f.p(0);
    f.if(
      f
        .load('32', cpu, CPU.cr4)
        .and(CR4.TSD)
        .bool()
        .and(f.load('32', cpu, CPU.cpl).bool()),
      () => gp0(f, lib, cpu),
    );
  }),

  /** RDMSR: what the processor keeps, else the outside. `now`: ticks. */
  routine('read_msr', ['i32', 'i32', 'i64'], ['i64'], (f, lib) => {
    const cpu = f.p(0);
    const n = f.p(1);
    f.if(f.callValue(lib('msr_intercepted'), cpu, n, i32(0)).eqz(), () => {
      for (const [number, offset, rule] of MSRS) {
        f.if(n.eq(number | 0), () =>
          f.return(
            rule === 'tsc'
              ? f.callValue(lib('tsc'), cpu, f.p(2))
              : rule === 'constant'
                ? i64(CONSTANT_MSRS.find(([constant]) => constant === number)?.[1] ?? 0n)
                : f.load('64', cpu, offset),
          ),
        );
      }
    });
    f.return(f.load('64', f.callValue(lib('ask'), cpu, i32(EXIT.rdmsr), n.zext(), i64(0), i64(0))));
    f.unreachable();
  }),
  routine('write_msr', ['i32', 'i32', 'i64', 'i64'], [], (f, lib) => {
    const cpu = f.p(0);
    const n = f.p(1);
    const value = f.p(2);
    f.if(f.callValue(lib('msr_intercepted'), cpu, n, i32(1)).eqz(), () => {
      for (const [number, offset, rule] of MSRS) {
        f.if(n.eq(number | 0), () => {
          const put = (what: Val = value): void => f.store('64', cpu, what, offset);
          switch (rule) {
            case 'any':
              put();
              break;
            case 'constant':
              if (number !== 0x8b) gp0(f, lib, cpu);
              break;
            case 'mc-control':
              f.if(value.ne(0).and(value.ne(-1)), () => gp0(f, lib, cpu));
              put();
              break;
            case 'mc-value':
              f.if(value.ne(0), () => gp0(f, lib, cpu));
              put();
              break;
            case 'misc':
              put();
              break;
            case 'read-only':
              f.if(value.ne(0), () => gp0(f, lib, cpu));
              break;
            case 'canonical':
            case 'base':
              // In every mode, unlike the check of an address in use (SDM vol. 2, WRMSR).
              f.if(canonicalMsr(f, cpu, value).eqz(), () => gp0(f, lib, cpu));
              put();
              break;
            case 'low32':
              f.if(value.shrU(32).ne(0), () => gp0(f, lib, cpu));
              put();
              break;
            case 'pkrs':
              f.if(value.shrU(32).ne(0), () => gp0(f, lib, cpu));
              put();
              // Rights were folded into TLB entries when they were filled.
              f.call(lib('tlb_flush'), cpu);
              break;
            case 'mtrr-type':
              f.if(value.and(~0xcffn).ne(0).or(value.wrap().and(0xff).gtU(6)), () => gp0(f, lib, cpu));
              put();
              break;
            case 'pat':
              // Types 0, 1, 4-7.
              for (let k = 0; k < 8; k++) {
                const type = f.let(
                  value
                    .shrU(k * 8)
                    .wrap()
                    .and(0xff),
                );
                f.if(type.gtU(7).or(type.eq(2)).or(type.eq(3)), () => gp0(f, lib, cpu));
              }
              put();
              break;
            case 'efer': {
              f.if(value.and(f.load('64', cpu, CPU.eferAllowed).not()).ne(0), () => gp0(f, lib, cpu));
              const old = f.let(f.load('64', cpu, CPU.efer));
              // LME cannot change while paging is on; LMA is the processor's.
              f.if(
                old
                  .xor(value)
                  .and(EFER.LME)
                  .ne(0)
                  .and(f.load('32', cpu, CPU.cr0).shrU(31).ne(0)),
                () => gp0(f, lib, cpu),
              );
              // SVME is only there for guests of the silicon that sets it, and writes do not change it (APM vol. 2, 15.35.10).
              const kept = BigInt(EFER.LMA | EFER.SVME);
              put(f.let(value.and(~kept).or(old.and(kept))));
              f.if(old.xor(value).and(EFER.NXE).ne(0), () => f.call(lib('tlb_flush'), cpu));
              break;
            }
            case 'tsc':
              f.store(
                '64',
                cpu,
                value.sub(f.p(3).mul(f.load('32u', cpu, CPU.tscMultiplier, 'i64'))),
                CPU.tscOffset,
              );
              break;
          }
          f.return();
        });
      }
    });
    f.call(lib('ask'), cpu, i32(EXIT.wrmsr), n.zext(), value, i64(0));
  }),
  /** Bit of the MSR permission map (APM vol. 2, 15.11), when there is one. */
  routine('msr_intercepted', ['i32', 'i32', 'i32'], ['i32'], (f) => {
    const map = f.let(f.load('32', f.p(0), CPU.msrMap));
    const n = f.p(1);
    // Supervisor protection keys are offered or not.
    f.if(n.eq(0x6e1).and(f.load('32', f.p(0), CPU.cr4Allowed).and(CR4.PKS).eqz()), () => f.return(i32(1)));
    // AMD's own range does not exist elsewhere.
    f.if(
      n
        .shrU(16)
        .eq(0xc001)
        .and(f.load('32', f.p(0), CPU.vendor)),
      () => f.return(i32(1)),
    );
    f.if(map.eqz(), () => f.return(i32(0)));
    const at = (base: number): void => {
      const bit = f.let(n.and(0x1fff).shl(1).add(f.p(2)));
      f.return(
        f
          .load('8u', map.add(base).add(bit.shrU(3)))
          .shrU(bit.and(7))
          .and(1),
      );
    };
    f.if(n.shrU(13).eqz(), () => at(0));
    f.if(n.shrU(13).eq(0xc0000000 >>> 13), () => at(0x800));
    f.if(n.shrU(13).eq(0xc0010000 >>> 13), () => at(0x1000));
    f.return(i32(1));
    f.unreachable();
  }),

  /** #GP unless CPL, IOPL or the TSS's bitmap let `bytes` ports from `port` on be used. */
  routine('check_port', ['i32', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const port = f.p(1);
    f.if(f.load('32', cpu, CPU.cr0).and(CR0.PE).eqz(), () => f.return());
    const eflags = f.let(f.load('32', cpu, CPU.eflags));
    const vm = f.let(eflags.and(FLAG.VM));
    f.if(vm.eqz().and(f.load('32', cpu, CPU.cpl).leU(eflags.shrU(12).and(3))), () => f.return());
    const limit = f.let(f.load('32', cpu, segField(TR, SEG.limit)));
    const base = f.let(f.load('64', cpu, segField(TR, SEG.base)));
    f.if(limit.ltU(0x67).or(f.load('32', cpu, segField(TR, SEG.attr)).and(8).eqz()), () => gp0(f, lib, cpu));
    const map = f.callValue(lib('ld16_sys'), cpu, base.add(0x66));
    const at = f.let(map.add(port.shrU(3)));
    f.if(at.add(1).gtU(limit), () => gp0(f, lib, cpu));
    const bits = f.callValue(lib('ld16_sys'), cpu, base.add(at.zext()));
    f.if(bits.shrU(port.and(7)).and(i32(1).shl(f.p(2)).sub(1)), () => gp0(f, lib, cpu));
  }),

  // SYSCALL and its kin. Flat segments are loaded without descriptors.
  routine('flat_segments', ['i32', 'i32', 'i32', 'i32'], [], (f) => {
    const cpu = f.p(0);
    const cs = f.p(1);
    const cpl = f.p(2);
    const long = f.p(3);
    const put = (index: number, selector: Val, attr: Val): void => {
      f.store('64', cpu, i64(0), segField(index, SEG.base));
      f.store('32', cpu, i32(-1), segField(index, SEG.limit));
      f.store('32', cpu, attr, segField(index, SEG.attr));
      f.store('32', cpu, selector, segField(index, SEG.selector));
    };
    const dpl = f.let(cpl.shl(5));
    put(CS, cs.and(0xfffc).or(cpl), f.let(dpl.or(0x89b).or(select(long, i32(ATTR.l), i32(ATTR.db)))));
    put(SS, f.let(f.load('32', cpu, CPU.scratch).and(0xfffc).or(cpl)), f.let(dpl.or(0xc93)));
    f.store('32', cpu, cpl, CPU.cpl);
  }),
  routine('syscall', ['i32', 'i64'], [], (f, lib) => {
    const cpu = f.p(0);
    onlyLongOnIntel(f, lib, cpu);
    const next = f.p(1);
    f.if(f.load('32', cpu, CPU.efer).and(EFER.SCE).eqz(), () => f.call(lib('raise'), cpu, i32(VEC.UD)));
    const star = f.let(f.load('64', cpu, CPU.star));
    const cs = f.let(star.shrU(32).wrap().and(0xffff));
    const flags = f.let(f.load('32', cpu, CPU.eflags).or(f.callValue(lib('status_flags'), cpu)));
    f.store('32', cpu, cs.add(8), CPU.scratch);
    f.if(
      longActive(f, cpu),
      () => {
        const from64 = f.callValue(lib('in_long_mode'), cpu);
        f.store('64', cpu, next, CPU.gpr + RCX * 8);
        f.store('64', cpu, flags.and(~FLAG.RF).zext(), CPU.gpr + 11 * 8);
        f.store(
          '64',
          cpu,
          select(from64, f.load('64', cpu, CPU.lstar), f.load('64', cpu, CPU.cstar)),
          CPU.rip,
        );
        const mask = f.let(f.load('32', cpu, CPU.sfmask).or(FLAG.RF));
        storeEflags(f, cpu, f.let(flags.and(mask.not())));
        f.call(lib('flat_segments'), cpu, cs, i32(0), i32(1));
      },
      () => {
        f.store('64', cpu, next.and(0xffffffffn), CPU.gpr + RCX * 8);
        f.store('64', cpu, star.and(0xffffffffn), CPU.rip);
        storeEflags(f, cpu, f.let(flags.and(~(FLAG.IF | FLAG.VM | FLAG.RF))));
        f.call(lib('flat_segments'), cpu, cs, i32(0), i32(0));
      },
    );
    // The trap of a single step follows TF as it is now, not as it was.
    f.store('32', cpu, f.load('32', cpu, CPU.eflags).shrU(8).and(1), CPU.stepTf);
  }),
  routine('sysret', ['i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    onlyLongOnIntel(f, lib, cpu);
    f.if(f.load('32', cpu, CPU.efer).and(EFER.SCE).eqz(), () => f.call(lib('raise'), cpu, i32(VEC.UD)));
    f.if(f.load('32', cpu, CPU.cpl).bool().or(protectedMode(f, cpu).eqz()), () => gp0(f, lib, cpu));
    const star = f.let(f.load('64', cpu, CPU.star).shrU(48).wrap());
    f.store('32', cpu, star.add(8), CPU.scratch);
    const rcx = f.let(f.load('64', cpu, CPU.gpr + RCX * 8));
    const wide = f.let(f.p(1).eq(8));
    const long = longActive(f, cpu);
    // AMD looks at the target when the next instruction is fetched, at the new privilege level.
    f.if(wide.and(f.load('32', cpu, CPU.vendor)), () =>
      f.if(f.callValue(lib('canonical'), cpu, rcx).eqz(), () => gp0(f, lib, cpu)),
    );
    f.if(
      long,
      () => storeEflags(f, cpu, f.load('32', cpu, CPU.gpr + 11 * 8).and(0x3c7fd7)),
      () => f.store('32', cpu, f.load('32', cpu, CPU.eflags).or(FLAG.IF), CPU.eflags),
    );
    f.call(lib('flat_segments'), cpu, f.let(select(wide, star.add(16), star)), i32(3), wide);
    f.store('64', cpu, select(wide, rcx, rcx.and(0xffffffffn)), CPU.rip);
    // TF counts as it is at the end of this instruction (SDM vol. 2, SYSRET), also when no step was prepared.
    const tf = f.let(f.load('32', cpu, CPU.eflags).shrU(8).and(1));
    f.store('32', cpu, tf, CPU.stepTf);
    f.if(tf, () => f.store('32', cpu, f.load('32', cpu, CPU.special).or(SPECIAL.stepped), CPU.special));
  }),
  routine('sysenter', ['i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const cs = f.let(f.load('32', cpu, CPU.sysenterCs));
    f.if(f.load('32', cpu, CPU.cr0).and(CR0.PE).eqz().or(cs.and(0xfffc).eqz()), () => gp0(f, lib, cpu));
    const long = longActive(f, cpu);
    const eflags = f.let(f.load('32', cpu, CPU.eflags));
    f.store('32', cpu, eflags.and(~(FLAG.VM | FLAG.IF | FLAG.RF)), CPU.eflags);
    f.store('32', cpu, cs.add(8), CPU.scratch);
    f.call(lib('flat_segments'), cpu, cs, i32(0), long);
    const mask = f.let(select(long, i64(-1), i64(0xffffffff)));
    f.store('64', cpu, f.load('64', cpu, CPU.sysenterEsp).and(mask), CPU.gpr + 32);
    f.store('64', cpu, f.load('64', cpu, CPU.sysenterEip).and(mask), CPU.rip);
  }),
  routine('sysexit', ['i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const cs = f.let(f.load('32', cpu, CPU.sysenterCs));
    f.if(
      f
        .load('32', cpu, CPU.cr0)
        .and(CR0.PE)
        .eqz()
        .or(cs.and(0xfffc).eqz())
        .or(f.load('32', cpu, CPU.cpl).bool()),
      () => gp0(f, lib, cpu),
    );
    const wide = f.let(f.p(1).eq(8));
    const rcx = f.let(f.load('64', cpu, CPU.gpr + RCX * 8));
    const rdx = f.let(f.load('64', cpu, CPU.gpr + RDX * 8));
    f.if(wide, () =>
      f.if(
        f
          .callValue(lib('canonical'), cpu, rcx)
          .and(f.callValue(lib('canonical'), cpu, rdx))
          .eqz(),
        () => gp0(f, lib, cpu),
      ),
    );
    f.store('32', cpu, f.let(select(wide, cs.add(40), cs.add(24))), CPU.scratch);
    f.call(lib('flat_segments'), cpu, f.let(select(wide, cs.add(32), cs.add(16))), i32(3), wide);
    const mask = f.let(select(wide, i64(-1), i64(0xffffffff)));
    f.store('64', cpu, rcx.and(mask), CPU.gpr + 32);
    f.store('64', cpu, rdx.and(mask), CPU.rip);
  }),

  /** INT n: in virtual-8086 mode IOPL 3 is needed, unless VME redirects it to the task's own vectors (SDM vol. 3, 20.3). */
  routine('software_interrupt', ['i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const eflags = f.let(f.load('32', cpu, CPU.eflags));
    f.if(eflags.and(FLAG.VM), () => {
      f.if(f.load('32', cpu, CPU.cr4).and(CR4.VME), () => {
        const base = f.let(f.load('64', cpu, segField(TR, SEG.base)));
        const map = f.callValue(lib('ld16_sys'), cpu, base.add(0x66));
        const byte = f.callValue(lib('ld8_sys'), cpu, base.add(map.sub(32).add(f.p(1).shrU(3)).zext()));
        f.if(byte.shrU(f.p(1).and(7)).and(1).eqz(), () => {
          f.call(lib('redirect_interrupt'), cpu, f.p(1));
          f.return();
        });
      });
      f.if(eflags.and(FLAG.IOPL).ne(FLAG.IOPL), () => gp0(f, lib, cpu));
    });
    f.call(lib('raise_trap'), cpu, f.p(1), i32(3));
  }),
  /** VME: INT n goes through the 8086 program's own vector table. */
  routine('redirect_interrupt', ['i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const entry = f.callValue(lib('ld32'), cpu, f.p(1).shl(2).zext());
    const flags = f.let(f.load('32', cpu, CPU.eflags).or(f.callValue(lib('status_flags'), cpu)));
    const low = f.let(flags.and(FLAG.IOPL).ne(FLAG.IOPL));
    const image = f.let(
      select(low, flags.and(~FLAG.IF).or(flags.and(FLAG.VIF).shrU(10)).or(FLAG.IOPL), flags),
    );
    f.call(lib('push16'), cpu, image);
    f.call(lib('push16'), cpu, f.load('32', cpu, segField(CS, SEG.selector)));
    f.call(lib('push16'), cpu, f.load('32', cpu, CPU.rip));
    f.store(
      '32',
      cpu,
      f.load('32', cpu, CPU.eflags).and(select(low, i32(~(FLAG.TF | FLAG.VIF)), i32(~(FLAG.TF | FLAG.IF)))),
      CPU.eflags,
    );
    f.call(lib('set_real_segment'), cpu, i32(CS), entry.shrU(16));
    f.store('64', cpu, entry.and(0xffff).zext(), CPU.rip);
  }),
  routine('push_segment', ['i32', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    f.if(f.p(2).eq(8), () => {
      f.call(lib('push64'), cpu, f.p(1).zext());
      f.return();
    });
    f.if(f.p(2).eq(2), () => {
      f.call(lib('push16'), cpu, f.p(1));
      f.return();
    });
    const top = f.callValue(lib('stack_pointer'), cpu, f.let(f.load('64', cpu, CPU.gpr + 32).sub(4)));
    const address = f.callValue(lib('stack_linear'), cpu, top, i32(2), i32(1));
    f.call(lib('st16'), cpu, address, f.p(1));
    f.store('64', cpu, top, CPU.gpr + 32);
  }),

  /** Next value of the deterministic entropy source (xorshift64*, whitened by multiplication). */
  routine('entropy', ['i32'], ['i64'], (f) => {
    const cpu = f.p(0);
    const x = f.local('i64', f.load('64', cpu, CPU.entropy));
    x.set(x.get.xor(x.get.shrU(12)));
    x.set(x.get.xor(x.get.shl(25)));
    x.set(x.get.xor(x.get.shrU(27)));
    f.store('64', cpu, x.get, CPU.entropy);
    f.return(x.get.mul(0x2545f4914f6cdd1dn));
    f.unreachable();
  }),
  /** LAR, LSL, VERR, VERW: the raw descriptor when it is visible, with 1 in CPU.scratch, else 0 there. */
  routine('probe_descriptor', ['i32', 'i32'], ['i64'], (f, lib) => {
    const cpu = f.p(0);
    const selector = f.let(f.p(1).and(0xffff));
    f.store('32', cpu, i32(0), CPU.scratch);
    f.if(selector.and(0xfffc).eqz(), () => f.return(i64(0)));
    const local = f.let(selector.and(4));
    f.if(local.bool().and(f.load('32', cpu, segField(6, SEG.attr)).and(ATTR.unusable).bool()), () =>
      f.return(i64(0)),
    );
    const limit = f.let(
      select(local, f.load('32', cpu, segField(6, SEG.limit)), f.load('32', cpu, segField(8, SEG.limit))),
    );
    f.if(selector.or(7).gtU(limit), () => f.return(i64(0)));
    f.store('32', cpu, i32(1), CPU.scratch);
    const base = f.let(
      select(local, f.load('64', cpu, segField(6, SEG.base)), f.load('64', cpu, segField(8, SEG.base))),
    );
    f.return(f.callValue(lib('ld64_sys'), cpu, base.add(selector.and(0xfff8).zext())));
    f.unreachable();
  }),
];
void RAX;
