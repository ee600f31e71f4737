/** Data accesses out of line: the fast path as a function, and what follows when it misses. */
import {
  ALIGN,
  CPU,
  EXIT,
  FLAG,
  ANSWERS,
  PAGEFLAG,
  ENGINE,
  RAISE,
  REC,
  RECFLAG,
  SEG,
  SS,
  TLB,
  VEC,
  segField,
  ES,
  CS,
} from '../layout.ts';
import { CR0, EFER } from '../registers.ts';
import type { FunctionBuilder, FunctionRef, TagRef } from '../wasm/function.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import { routine, type Routine } from './library.ts';
import type { Library, Size } from '../sem.ts';

const SIZES: readonly Size[] = [1, 2, 4, 8];
const WIDTH = { 1: '8u', 2: '16u', 4: '32', 8: '64' } as const;
const STORE = { 1: '8', 2: '16', 4: '32', 8: '64' } as const;

/** Which TLB array accesses of the current privilege use (0 user, 1 supervisor, 2 supervisor with AC). */
function currentArray(f: FunctionBuilder, cpu: Val): Val {
  return f.let(
    f
      .load('32', cpu, CPU.tlbReal)
      .sub(f.load('32', cpu, CPU.tlbArea))
      .divU(TLB.arrayBytes),
  );
}

/** Address of the entry of `va` in the TLB at `base`. */
export function tlbEntry(f: FunctionBuilder, base: Val, va: Val): Val {
  return f.let(
    base.add(
      va
        .shrU(12)
        .wrap()
        .and(TLB.entries - 1)
        .shl(TLB.entryShift),
    ),
  );
}

/** Page compare of the inlined fast path: one compare for presence, right, context and page crossing. */
export function tlbHit(f: FunctionBuilder, entry: Val, va: Val, bytes: number, write: boolean): Val {
  const last = bytes === 1 ? va : va.add(bytes - 1);
  // An unaligned access within the page is fine; one that crosses it has the next page's number and misses, unless
  // the entry of the first page is asked: so compare the last byte's page with the first byte's entry.
  return f.load('64', entry, write ? TLB.write : TLB.read).eq(last.and(-4096n));
}

/** ask() for an access to what is not memory; `gpa` i64. */
function mmioRead(f: FunctionBuilder, lib: Library, cpu: Val, gpa: Val, bytes: Val): Val {
  const answer = f.callValue(lib('ask'), cpu, i32(EXIT.mmioRead), gpa, bytes.zext(), i64(0));
  return f.let(f.load('64', answer));
}

/** Raises and asks, given the fault tag. */
export function raiseRoutines(tag: TagRef): readonly Routine[] {
  return [
    routine('raise', ['i32', 'i32'], [], (f) => {
      const cpu = f.p(0);
      f.store('32', cpu, i32(RAISE.fault), CPU.raiseKind);
      f.store('32', cpu, f.p(1), CPU.raiseVector);
      f.store('32', cpu, i32(0), CPU.raiseHasError);
      f.throw(tag);
    }),
    routine('raise_error', ['i32', 'i32', 'i32'], [], (f) => {
      const cpu = f.p(0);
      f.store('32', cpu, i32(RAISE.fault), CPU.raiseKind);
      f.store('32', cpu, f.p(1), CPU.raiseVector);
      f.store('32', cpu, i32(1), CPU.raiseHasError);
      f.store('32', cpu, f.p(2), CPU.raiseError);
      f.throw(tag);
    }),
    /** An exception that reports the next instruction (RAISE.trap), or a software interrupt (RAISE.software). */
    routine('raise_trap', ['i32', 'i32', 'i32'], [], (f) => {
      const cpu = f.p(0);
      f.store('32', cpu, f.p(2), CPU.raiseKind);
      f.store('32', cpu, f.p(1), CPU.raiseVector);
      f.store('32', cpu, i32(0), CPU.raiseHasError);
      f.throw(tag);
    }),
    routine('raise_page_fault', ['i32', 'i64', 'i32'], [], (f) => {
      const cpu = f.p(0);
      f.store('32', cpu, i32(RAISE.fault), CPU.raiseKind);
      f.store('32', cpu, i32(VEC.PF), CPU.raiseVector);
      f.store('32', cpu, i32(1), CPU.raiseHasError);
      f.store('32', cpu, f.p(2), CPU.raiseError);
      f.store('64', cpu, f.p(1), CPU.raiseInfo);
      f.throw(tag);
    }),
    /** Leaves for the outside because of a guest-physical access: code, address, information. See CPU.stageExit. */
    routine('stage_exit', ['i32', 'i32', 'i64', 'i64'], [], (f) => {
      const cpu = f.p(0);
      f.store('32', cpu, f.p(1), CPU.stageExit);
      f.store('64', cpu, f.p(2), CPU.stageExitGpa);
      f.store('64', cpu, f.p(3), CPU.stageExitInfo);
      f.store('32', cpu, f.load('32', cpu, CPU.raiseKind), CPU.stageKind);
      f.store('32', cpu, i32(RAISE.exit), CPU.raiseKind);
      f.throw(tag);
    }),
    /** Leaves a region in front of the instruction, which the interpreter is to execute. */
    routine('raise_interpret', ['i32'], [], (f) => {
      f.store('32', f.p(0), i32(RAISE.interpret), CPU.raiseKind);
      f.throw(tag);
    }),
    /** See Sem.ask: gives the address of the answer, or leaves with EXIT code `code`. */
    routine('ask', ['i32', 'i32', 'i64', 'i64', 'i64'], ['i32'], (f) => {
      const cpu = f.p(0);
      const used = f.let(f.load('32', cpu, CPU.answersUsed));
      f.if(used.ltU(f.load('32', cpu, CPU.answers)), () => {
        f.store('32', cpu, used.add(1), CPU.answersUsed);
        f.return(cpu.add(CPU.answer).add(used.shl(4)));
      });
      f.if(used.geU(ANSWERS), () => {
        // No instruction asks so much: shut down rather than write behind the answers.
        f.store('32', cpu, i32(RAISE.exit), CPU.raiseKind);
        f.store('32', cpu, i32(EXIT.tripleFault), CPU.raiseVector);
        f.throw(tag);
      });
      f.store('32', cpu, i32(RAISE.exit), CPU.raiseKind);
      f.store('32', cpu, f.p(1), CPU.raiseVector);
      f.store('64', cpu, f.p(2), CPU.raiseInfo);
      f.store('64', cpu, f.p(3), CPU.raiseInfo2);
      f.store('64', cpu, f.p(4), CPU.raiseInfo3);
      f.throw(tag);
    }),
  ];
}

/**
 * `code_changed` and `watch_hit` are the calls out: the first (host address, length) of a store that hit decoded code; the outside drops what
 * was decoded from it. `watch_hit` (cpu, host address, length, write) tells of an access to a watched page.
 */
export function memoryRoutines(codeChanged: FunctionRef, watchHit: FunctionRef): readonly Routine[] {
  const list: Routine[] = [];

  /** Whether a store of `bytes` at host address `host` may change decoded code. */
  list.push(
    routine('code_hit', ['i32', 'i32', 'i32'], ['i32'], (f, lib) => {
      const cpu = f.p(0);
      const host = f.p(1);
      const flags = f.callValue(lib('page_flags'), cpu, host);
      f.if(flags.and(PAGEFLAG.code).eqz(), () => f.return(i32(0)));
      const engine = f.let(f.load('32', cpu, CPU.engine));
      const bitmap = f.let(f.load('32', engine, ENGINE.codeBitmap));
      const base = f.let(f.load('32', engine, ENGINE.framesBase));
      const first = f.let(host.sub(base).shrU(6));
      const last = f.let(host.add(f.p(2)).sub(1).sub(base).shrU(6));
      const bit = (line: Val): Val =>
        f
          .load('8u', bitmap.add(line.shrU(3)))
          .shrU(line.and(7))
          .and(1);
      f.return(bit(first).or(bit(last)));
      f.unreachable();
    }),
  );
  /** Called before a store of `bytes` at host address `host`: drops decoded code that it changes. */
  list.push(
    routine('code_write', ['i32', 'i32', 'i32'], [], (f, lib) => {
      f.if(f.callValue(lib('code_hit'), f.p(0), f.p(1), f.p(2)), () => f.call(codeChanged, f.p(1), f.p(2)));
    }),
  );
  /** A region does not touch a watched page: the interpreter does, and can stop behind the very instruction. */
  list.push(
    routine('leave_watched', ['i32', 'i32'], [], (f, lib) => {
      const flags = f.callValue(lib('page_flags'), f.p(0), f.p(1));
      f.if(flags.and(PAGEFLAG.watchRead | PAGEFLAG.watchWrite), () => f.call(lib('raise_interpret'), f.p(0)));
    }),
  );
  /** A region's store that misses the TLB's fast path. One that changes code is left to the interpreter. */
  list.push(
    routine('store_region', ['i32', 'i64', 'i32', 'i64'], [], (f, lib) => {
      const cpu = f.p(0);
      const va = f.p(1);
      const bytes = f.let(f.p(2).and(0xffff));
      f.call(lib('check_address'), cpu, va, f.p(2));
      const which = currentArray(f, cpu);
      const check = (address: Val, size: Val): void => {
        const host = f.callValue(lib('translate'), cpu, address, i32(1), which);
        f.if(host, () => {
          f.call(lib('leave_watched'), cpu, host);
          f.if(f.callValue(lib('code_hit'), cpu, host, size), () => f.call(lib('raise_interpret'), cpu));
        });
      };
      const inPage = f.let(i32(0x1000).sub(va.wrap().and(0xfff)));
      f.if(
        bytes.leU(inPage),
        () => check(va, bytes),
        () => {
          check(va, inPage);
          check(f.let(va.add(inPage.zext())), f.let(bytes.sub(inPage)));
        },
      );
      f.call(lib('store_slow'), cpu, va, f.p(2), f.p(3));
    }),
  );
  list.push(
    routine('store_region128', ['i32', 'i64', 'v128'], [], (f, lib) => {
      const cpu = f.p(0);
      const va = f.p(1);
      f.call(lib('probe_write'), cpu, va, i32(16 | ALIGN.any));
      f.call(lib('store_region'), cpu, va, i32(8 | ALIGN.any), f.p(2).lane(0x1d, 0, 'i64'));
      f.call(lib('store_region'), cpu, va.add(8), i32(8 | ALIGN.any), f.p(2).lane(0x1d, 1, 'i64'));
    }),
  );
  /** Faults that an access raises before translation: not canonical, #AC. `bytes` may hold an alignment, see ALIGN. */
  list.push(
    routine('check_address', ['i32', 'i64', 'i32'], [], (f, lib) => {
      const cpu = f.p(0);
      const va = f.p(1);
      const bytes = f.let(f.p(2).and(0xffff));
      const canonical = (address: Val): void =>
        f.if(f.callValue(lib('canonical'), cpu, address).eqz(), () => {
          // #SS for stack references, #GP for the others: the record says which segment the operand used.
          const record = f.let(f.load('32', cpu, CPU.record));
          const stack = f.let(record.bool().and(f.load('8u', record, REC.segment).eq(SS)));
          f.call(lib('raise_error'), cpu, select(stack, i32(VEC.SS), i32(VEC.GP)), i32(0));
        });
      canonical(va);
      // The alignment is looked at before the last byte is (measured).
      f.if(f.load('32', cpu, CPU.eflags).and(FLAG.AC), () => {
        const other = f.let(f.p(2).shrU(16));
        const alignment = f.let(select(other, other, select(bytes.gtU(8), i32(8), bytes)));
        f.call(lib('check_alignment'), cpu, va, alignment);
      });
      canonical(f.let(va.add(bytes.zext()).sub(1)));
    }),
  );
  /** #AC(0) when the guest wants alignment checked and `va` has not this one, a power of two. */
  list.push(
    routine('check_alignment', ['i32', 'i64', 'i32'], [], (f, lib) => {
      const cpu = f.p(0);
      const check = f.let(
        f
          .load('32', cpu, CPU.cr0)
          .and(CR0.AM)
          .bool()
          .and(f.load('32', cpu, CPU.eflags).and(FLAG.AC).bool())
          .and(f.load('32', cpu, CPU.cpl).eq(3)),
      );
      f.if(check.and(f.p(1).wrap().and(f.p(2).sub(1)).bool()), () =>
        f.call(lib('raise_error'), cpu, i32(VEC.AC), i32(0)),
      );
    }),
  );

  const defineLoad = (
    name: string,
    array: (f: FunctionBuilder, cpu: Val) => Val,
    system: boolean,
    region: boolean,
  ): void => {
    list.push(
      routine(name, ['i32', 'i64', 'i32'], ['i64'], (f, lib) => {
        const cpu = f.p(0);
        const va = f.p(1);
        const bytes = f.let(f.p(2).and(0xffff));
        if (!system) f.call(lib('check_address'), cpu, va, f.p(2));
        const which = array(f, cpu);
        const one = (address: Val, size: Val): Val => {
          const host = f.callValue(lib('translate'), cpu, address, i32(0), which);
          return f.ifValue(
            host,
            () => {
              if (region) f.call(lib('leave_watched'), cpu, host);
              else f.call(lib('observe'), cpu, address, host, size, i32(0));
              const result = f.local('i64');
              f.if(
                size.eq(8),
                () => result.set(f.load('64', host)),
                () =>
                  f.if(
                    size.eq(4),
                    () => result.set(f.load('32u', host, 0, 'i64')),
                    () =>
                      f.if(
                        size.eq(2),
                        () => result.set(f.load('16u', host, 0, 'i64')),
                        () => result.set(f.load('8u', host, 0, 'i64')),
                      ),
                  ),
              );
              return result.get;
            },
            () => mmioRead(f, lib, cpu, f.let(f.load('64', cpu, CPU.stageGpa)), size),
          );
        };
        const inPage = f.let(i32(0x1000).sub(va.wrap().and(0xfff)));
        f.if(bytes.leU(inPage), () => f.return(one(va, bytes)));
        // Across pages: both are checked before either is read.
        f.call(lib('translate'), cpu, va, i32(0), which);
        f.call(lib('translate'), cpu, va.add(inPage.zext()), i32(0), which);
        const result = f.local('i64', 0);
        const index = f.local('i32', 0);
        f.loop((again) => {
          const byte = one(f.let(va.add(index.get.zext())), i32(1));
          result.set(result.get.or(byte.and(0xff).shl(index.get.zext().shl(3))));
          index.set(index.get.add(1));
          f.brIf(again, index.get.ltU(bytes));
        });
        f.return(result.get);
        f.unreachable();
      }),
    );
  };
  const defineAccess = (
    suffix: string,
    array: (f: FunctionBuilder, cpu: Val) => Val,
    system: boolean,
  ): void => {
    defineLoad(`load_slow${suffix}`, array, system, false);
    list.push(
      routine(`store_slow${suffix}`, ['i32', 'i64', 'i32', 'i64'], [], (f, lib) => {
        const cpu = f.p(0);
        const va = f.p(1);
        const bytes = f.let(f.p(2).and(0xffff));
        const value = f.p(3);
        if (!system) f.call(lib('check_address'), cpu, va, f.p(2));
        const which = array(f, cpu);
        const one = (address: Val, size: Val, data: Val): void => {
          const host = f.callValue(lib('translate'), cpu, address, i32(1), which);
          f.if(
            host,
            () => {
              f.call(lib('observe'), cpu, address, host, size, i32(1));
              f.call(lib('code_write'), cpu, host, size);
              f.if(
                size.eq(8),
                () => f.store('64', host, data),
                () =>
                  f.if(
                    size.eq(4),
                    () => f.store('32', host, data),
                    () =>
                      f.if(
                        size.eq(2),
                        () => f.store('16', host, data),
                        () => f.store('8', host, data),
                      ),
                  ),
              );
            },
            () =>
              f.call(
                lib('ask'),
                cpu,
                i32(EXIT.mmioWrite),
                f.load('64', cpu, CPU.stageGpa),
                size.zext(),
                data,
              ),
          );
        };
        const inPage = f.let(i32(0x1000).sub(va.wrap().and(0xfff)));
        f.if(bytes.leU(inPage), () => {
          one(va, bytes, value);
          f.return();
        });
        f.call(lib('translate'), cpu, va, i32(1), which);
        f.call(lib('translate'), cpu, va.add(inPage.zext()), i32(1), which);
        const index = f.local('i32', 0);
        f.loop((again) => {
          one(f.let(va.add(index.get.zext())), i32(1), f.let(value.shrU(index.get.zext().shl(3))));
          index.set(index.get.add(1));
          f.brIf(again, index.get.ltU(bytes));
        });
      }),
    );
    for (const size of SIZES) {
      const type = size === 8 ? 'i64' : 'i32';
      list.push(
        routine(`ld${size * 8}${suffix}`, ['i32', 'i64'], [type], (f, lib) => {
          const cpu = f.p(0);
          const va = f.p(1);
          const base = system
            ? f.load('32', cpu, CPU.tlbArea).add(TLB.supervisor * TLB.arrayBytes)
            : f.load('32', cpu, CPU.tlbFast);
          const entry = tlbEntry(f, f.let(base), va);
          f.if(tlbHit(f, entry, va, size, false), () =>
            f.return(f.load(WIDTH[size], f.load('32', entry, TLB.addend).add(va.wrap()), 0, type)),
          );
          const slow = f.callValue(lib(`load_slow${suffix}`), cpu, va, i32(size));
          f.return(size === 8 ? slow : slow.wrap());
          f.unreachable();
        }),
      );
      list.push(
        routine(`st${size * 8}${suffix}`, ['i32', 'i64', type], [], (f, lib) => {
          const cpu = f.p(0);
          const va = f.p(1);
          const base = system
            ? f.load('32', cpu, CPU.tlbArea).add(TLB.supervisor * TLB.arrayBytes)
            : f.load('32', cpu, CPU.tlbFast);
          const entry = tlbEntry(f, f.let(base), va);
          f.if(tlbHit(f, entry, va, size, true), () => {
            f.store(STORE[size], f.load('32', entry, TLB.addend).add(va.wrap()), f.p(2));
            f.return();
          });
          f.call(lib(`store_slow${suffix}`), cpu, va, i32(size), f.p(2).zext());
        }),
      );
    }
  };
  defineAccess('', currentArray, false);
  defineLoad('load_region', currentArray, false, true);
  // Implicit supervisor accesses: descriptor tables, TSS. SMAP applies to them whatever EFLAGS.AC says.
  defineAccess('_sys', () => i32(TLB.supervisor), true);

  /** Checks that [va, va + bytes) may be written, without writing: before the load of a read-modify-write. */
  list.push(
    routine('probe_write', ['i32', 'i64', 'i32'], [], (f, lib) => {
      const cpu = f.p(0);
      const va = f.p(1);
      const bytes = f.let(f.p(2).and(0xffff));
      f.call(lib('check_address'), cpu, va, f.p(2));
      const which = currentArray(f, cpu);
      f.call(lib('translate'), cpu, va, i32(1), which);
      const last = f.let(va.add(bytes.zext()).sub(1));
      f.if(last.xor(va).and(-4096n).ne(0), () =>
        f.call(lib('translate'), cpu, last.and(-4096n), i32(1), which),
      );
    }),
  );
  list.push(
    routine('probe_read', ['i32', 'i64', 'i32'], [], (f, lib) => {
      const cpu = f.p(0);
      const va = f.p(1);
      const bytes = f.let(f.p(2).and(0xffff));
      f.call(lib('check_address'), cpu, va, f.p(2));
      const which = currentArray(f, cpu);
      f.call(lib('translate'), cpu, va, i32(0), which);
      const last = f.let(va.add(bytes.zext()).sub(1));
      f.if(last.xor(va).and(-4096n).ne(0), () =>
        f.call(lib('translate'), cpu, last.and(-4096n), i32(0), which),
      );
    }),
  );
  list.push(
    routine('ld128', ['i32', 'i64'], ['v128'], (f, lib) => {
      const cpu = f.p(0);
      const va = f.p(1);
      const entry = tlbEntry(f, f.let(f.load('32', cpu, CPU.tlbFast)), va);
      f.if(tlbHit(f, entry, va, 16, false), () =>
        f.return(f.load('v128', f.load('32', entry, TLB.addend).add(va.wrap()))),
      );
      f.call(lib('probe_read'), cpu, va, i32(16 | ALIGN.any));
      const low = f.callValue(lib('load_slow'), cpu, va, i32(8 | ALIGN.any));
      const high = f.callValue(lib('load_slow'), cpu, va.add(8), i32(8 | ALIGN.any));
      f.return(low.op1([0xfd, 0x12], 'v128').withLane(0x1e, 1, high));
      f.unreachable();
    }),
  );
  list.push(
    routine('load_region128', ['i32', 'i64'], ['v128'], (f, lib) => {
      const cpu = f.p(0);
      const va = f.p(1);
      f.call(lib('probe_read'), cpu, va, i32(16 | ALIGN.any));
      const low = f.callValue(lib('load_region'), cpu, va, i32(8 | ALIGN.any));
      const high = f.callValue(lib('load_region'), cpu, va.add(8), i32(8 | ALIGN.any));
      f.return(low.op1([0xfd, 0x12], 'v128').withLane(0x1e, 1, high));
      f.unreachable();
    }),
  );
  list.push(
    routine('st128', ['i32', 'i64', 'v128'], [], (f, lib) => {
      const cpu = f.p(0);
      const va = f.p(1);
      const entry = tlbEntry(f, f.let(f.load('32', cpu, CPU.tlbFast)), va);
      f.if(tlbHit(f, entry, va, 16, true), () => {
        f.store('v128', f.load('32', entry, TLB.addend).add(va.wrap()), f.p(2));
        f.return();
      });
      f.call(lib('probe_write'), cpu, va, i32(16 | ALIGN.any));
      f.call(lib('store_slow'), cpu, va, i32(8 | ALIGN.any), f.p(2).lane(0x1d, 0, 'i64'));
      f.call(lib('store_slow'), cpu, va.add(8), i32(8 | ALIGN.any), f.p(2).lane(0x1d, 1, 'i64'));
    }),
  );

  /** Data breakpoints (DR0-DR3) and watchpoints; called on slow accesses to memory. */
  list.push(
    routine('observe', ['i32', 'i64', 'i32', 'i32', 'i32'], [], (f, lib) => {
      const cpu = f.p(0);
      const va = f.p(1);
      const bytes = f.p(3);
      const write = f.p(4);
      const watched = f.let(
        f.callValue(lib('page_flags'), cpu, f.p(2)).and(PAGEFLAG.watchRead | PAGEFLAG.watchWrite),
      );
      f.if(watched, () => f.call(watchHit, cpu, f.p(2), bytes, write));
      const dr7 = f.let(f.load('32', cpu, CPU.dr + 5 * 8));
      f.if(dr7.and(0xff).eqz(), () => f.return());
      for (let n = 0; n < 4; n++) {
        const type = f.let(dr7.shrU(16 + n * 4).and(3));
        const length = f.let(dr7.shrU(18 + n * 4).and(3));
        // LEN 00 1 byte, 01 2, 11 4, 10 8.
        const size = f.let(select(length.eq(2), i32(8), length.add(1)));
        const base = f.let(f.load('64', cpu, CPU.dr + n * 8).and(size.sub(1).not().sext()));
        const overlap = f.let(va.ltU(base.add(size.zext())).and(base.ltU(va.add(bytes.zext()))));
        const enabled = f.let(
          dr7
            .shrU(n * 2)
            .and(3)
            .bool(),
        );
        f.if(enabled.and(overlap).and(type.eq(3).or(type.eq(1).and(write))), () =>
          f.store('64', cpu, f.load('64', cpu, CPU.debugHits).or(BigInt(1 << n)), CPU.debugHits),
        );
      }
    }),
  );

  /**
   * Linear address of offset `offset` in segment `segment` for an access of `bytes`: with limit, type and null checks
   * outside 64-bit mode. SDM vol. 3, 5.3-5.5.
   */
  list.push(
    routine('segment_linear', ['i32', 'i32', 'i64', 'i32', 'i32'], ['i64'], (f, lib) => {
      const cpu = f.p(0);
      const segment = f.p(1);
      const offset = f.p(2);
      const bytes = f.p(3);
      const write = f.p(4);
      const descriptor = f.let(cpu.add(segment.shl(5)));
      const at = (field: number): number => segField(ES, field);
      const base = f.let(f.load('64', descriptor, at(SEG.base)));
      f.if(f.callValue(lib('in_long_mode'), cpu), () => f.return(offset.add(base)));
      const attr = f.let(f.load('32', descriptor, at(SEG.attr)));
      const fail = (): void =>
        f.call(lib('raise_error'), cpu, select(segment.eq(SS), i32(VEC.SS), i32(VEC.GP)), i32(0));
      f.if(attr.and(0x10000), fail);
      const low = f.let(offset.wrap());
      const code = f.let(attr.and(8).bool());
      const bit1 = f.let(attr.and(2).bool());
      // Real and virtual-8086 mode have data attributes in CS as well; writes through CS are fine there.
      const protectedMode = f.callValue(lib('in_protected_mode'), cpu);
      f.if(protectedMode, () => {
        f.if(write.and(code.or(bit1.eqz())), fail);
        f.if(write.eqz().and(code).and(bit1.eqz()), fail);
      });
      const limit = f.let(f.load('32', descriptor, at(SEG.limit)));
      const last = f.let(low.add(bytes).sub(1));
      const wraps = f.let(last.ltU(low));
      f.if(
        code.eqz().and(attr.and(4).bool()),
        () => {
          // Expand-down: valid above the limit, up to 64 KiB or 4 GiB by the B bit.
          const top = f.let(select(attr.and(0x400), i32(-1), i32(0xffff)));
          f.if(low.leU(limit).or(last.gtU(top)).or(wraps), fail);
        },
        () => f.if(last.gtU(limit).or(wraps), fail),
      );
      f.return(base.add(low.zext()).and(0xffffffffn));
      f.unreachable();
    }),
  );
  list.push(
    routine('in_long_mode', ['i32'], ['i32'], (f) => {
      // 64-bit mode: EFER.LMA and CS.L.
      const cpu = f.p(0);
      f.return(
        f
          .load('32', cpu, CPU.efer)
          .shrU(10)
          .and(f.load('32', cpu, segField(CS, SEG.attr)).shrU(9))
          .and(1),
      );
      f.unreachable();
    }),
  );
  list.push(
    routine('in_protected_mode', ['i32'], ['i32'], (f) => {
      const cpu = f.p(0);
      f.return(
        f
          .load('32', cpu, CPU.cr0)
          .and(CR0.PE)
          .and(f.load('32', cpu, CPU.eflags).and(FLAG.VM).eqz()),
      );
      f.unreachable();
    }),
  );

  /** Effective address of a record's memory operand, cut to the address size. */
  list.push(
    routine('effective', ['i32', 'i32'], ['i64'], (f) => {
      const cpu = f.p(0);
      const record = f.p(1);
      const base = f.load('64', cpu.add(f.load('16u', record, REC.base)));
      const index = f.load('64', cpu.add(f.load('16u', record, REC.index)));
      const scale = f.load('8u', record, REC.scale, 'i64');
      const sum = f.let(base.add(index.shl(scale)).add(f.load('64', record, REC.disp)));
      const size = f.let(f.load('8u', record, REC.addressSize));
      f.if(size.eq(8), () => f.return(sum));
      f.if(size.eq(4), () => f.return(sum.and(0xffffffffn)));
      f.return(sum.and(0xffffn));
      f.unreachable();
    }),
  );
  /** Linear address of a record's memory operand. */
  list.push(
    routine('operand_address', ['i32', 'i32', 'i32', 'i32'], ['i64'], (f, lib) => {
      const cpu = f.p(0);
      const record = f.p(1);
      const offset = f.callValue(lib('effective'), cpu, record);
      f.if(f.load('32', record, REC.flags).and(RECFLAG.long), () =>
        f.return(offset.add(f.load('64', cpu.add(f.load('16u', record, REC.segBase))))),
      );
      f.return(
        f.callValue(lib('segment_linear'), cpu, f.load('8u', record, REC.segment), offset, f.p(2), f.p(3)),
      );
      f.unreachable();
    }),
  );

  /** As `operand_address`, #GP(0) when it is not aligned to 16 bytes: before the segment is looked at (measured). */
  list.push(
    routine('operand_address_aligned', ['i32', 'i32', 'i32', 'i32'], ['i64'], (f, lib) => {
      const [cpu, record] = [f.p(0), f.p(1)];
      const offset = f.callValue(lib('effective'), cpu, record);
      const linear = f.let(offset.add(f.load('64', cpu.add(f.load('16u', record, REC.segBase)))));
      f.if(linear.wrap().and(15), () => f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)));
      f.if(f.load('32', record, REC.flags).and(RECFLAG.long), () => f.return(linear));
      f.return(
        f.callValue(lib('segment_linear'), cpu, f.load('8u', record, REC.segment), offset, f.p(2), f.p(3)),
      );
      f.unreachable();
    }),
  );

  /** rsp with `value` in its low 2, 4 or 8 bytes by the stack size. */
  list.push(
    routine('stack_pointer', ['i32', 'i64'], ['i64'], (f) => {
      const cpu = f.p(0);
      const size = f.let(f.load('32', cpu, CPU.stackSize));
      f.if(size.eq(8), () => f.return(f.p(1)));
      f.if(size.eq(4), () => f.return(f.p(1).and(0xffffffffn)));
      f.return(
        f
          .load('64', cpu, CPU.gpr + 32)
          .and(-65536n)
          .or(f.p(1).and(0xffffn)),
      );
      f.unreachable();
    }),
  );
  /** Linear address of stack offset rsp + delta for `bytes`. */
  list.push(
    routine('stack_linear', ['i32', 'i64', 'i32', 'i32'], ['i64'], (f, lib) => {
      const cpu = f.p(0);
      const size = f.let(f.load('32', cpu, CPU.stackSize));
      f.if(size.eq(8), () => {
        f.if(
          f
            .callValue(lib('canonical'), cpu, f.p(1))
            .eqz()
            .or(f.callValue(lib('canonical'), cpu, f.p(1).add(f.p(2).zext()).sub(1)).eqz()),
          () => f.call(lib('raise_error'), cpu, i32(VEC.SS), i32(0)),
        );
        f.return(f.p(1));
      });
      const offset = f.let(f.p(1).and(select(size.eq(4), i64(0xffffffff), i64(0xffff))));
      f.return(f.callValue(lib('segment_linear'), cpu, i32(SS), offset, f.p(2), f.p(3)));
      f.unreachable();
    }),
  );
  for (const size of [2, 4, 8] as const) {
    const type = size === 8 ? 'i64' : 'i32';
    list.push(
      routine(`push${size * 8}`, ['i32', type], [], (f, lib) => {
        const cpu = f.p(0);
        const top = f.callValue(lib('stack_pointer'), cpu, f.let(f.load('64', cpu, CPU.gpr + 32).sub(size)));
        const address = f.callValue(lib('stack_linear'), cpu, top, i32(size), i32(1));
        f.call(lib(`st${size * 8}`), cpu, address, f.p(1));
        f.store('64', cpu, top, CPU.gpr + 32);
      }),
    );
    list.push(
      routine(`pop${size * 8}`, ['i32'], [type], (f, lib) => {
        const cpu = f.p(0);
        const top = f.let(f.load('64', cpu, CPU.gpr + 32));
        const address = f.callValue(lib('stack_linear'), cpu, top, i32(size), i32(0));
        const value = f.callValue(lib(`ld${size * 8}`), cpu, address);
        f.store('64', cpu, f.callValue(lib('stack_pointer'), cpu, top.add(size)), CPU.gpr + 32);
        f.return(value);
        f.unreachable();
      }),
    );
  }
  return list;
}
void EFER;
