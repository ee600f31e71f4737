/**
 * Generates the interpreter: library routines, one out-of-line handler per instruction variant, and run(), one function
 * with a br_table over the hot variants. See docs/how-it-works.md.
 */
import type { Entry, OpcodeTable } from './encoding.ts';
import { variantKey } from './encoding.ts';
import { HOT_FORMS } from './hot.ts';
import { InterpSem } from './interp-sem.ts';
import {
  CASE,
  CPU,
  CS,
  ENGINE,
  EXIT,
  HEAD,
  JUMP,
  MODE,
  RAISE,
  REC,
  RUN,
  SEG,
  SPECIAL,
  segField,
} from './layout.ts';
import { controlRoutines } from './runtime/control.ts';
import { flagRoutines } from './runtime/flags.ts';
import { declareRoutines, routine, type Routine } from './runtime/library.ts';
import { memoryRoutines, raiseRoutines } from './runtime/memory.ts';
import { pagingRoutines } from './runtime/paging.ts';
import { REGION_ROUTINES } from './translator/inline.ts';
import type { Library, Size } from './sem.ts';
import type { FunctionBuilder, Label, TagRef } from './wasm/function.ts';
import { ModuleBuilder } from './wasm/module.ts';
import { i32, i64, type Val } from './wasm/value.ts';

const segCsBase = segField(CS, SEG.base);

export interface InterpreterParts {
  readonly table: OpcodeTable;
  /** Routines of the instruction definitions (float, segmentation, events...) and the second stage. */
  readonly routines: readonly Routine[];
  /** Fixed size of the linear memory, in 64 KiB pages. */
  readonly pages: number;
  /** Routines that the outside calls beside those of every engine. */
  readonly exports: readonly string[];
}

export interface InterpreterCode {
  readonly bytes: Uint8Array;
  /** Bytes of each function's body. */
  readonly sizes: readonly { readonly name: string; readonly size: number }[];
  readonly hotCases: number;
  /** The variant whose out-of-line handler has each table slot. */
  readonly variants: readonly Variant[];
  /** Signatures of the library routines, which are exported by name. */
  readonly library: Library;
  /** Slots of the function table that handlers use, from 0 on. */
  readonly tableSlots: number;
}

/** Parameters and result of a translated region: cpu, budget, number of the entry; budget left or REGION_FAULT. */
export const REGION_PARAMS = ['i32', 'i32', 'i32'] as const;
/** The fault tag was thrown inside: CPU.record and CPU.budget say where. */
export const REGION_FAULT = -1;
export const HANDLER_PARAMS = ['i32', 'i32'] as const;

export interface Variant {
  readonly entry: Entry;
  readonly size: Size;
  readonly mem: boolean;
  readonly rep: 0 | 1 | 2;
  readonly deadFlags?: boolean;
}

export const REP = ['none', 'repe', 'repne'] as const;

function variantsOf(entry: Entry): Variant[] {
  const list: Variant[] = [];
  const forms = !entry.modrm
    ? [false]
    : entry.form === 'mem'
      ? [true]
      : entry.form === 'reg'
        ? [false]
        : [false, true];
  for (const size of entry.sizes) {
    if (size === 8 && entry.no64) continue;
    for (const mem of forms)
      for (const rep of entry.rep ? ([0, 1, 2] as const) : ([0] as const))
        list.push({ entry, size, mem, rep });
  }
  return list;
}

/**
 * Instructions that are worth a copy without flags: in compiled code most flags are dead. blocks.ts decides where.
 */
const FLAG_WRITERS = new Set([
  'add',
  'or',
  'and',
  'sub',
  'xor',
  'inc',
  'dec',
  'neg',
  'imul',
  'shl',
  'shr',
  'sar',
  'rol',
  'ror',
]);

/** Name of a variant as hot.ts lists it: mnemonic, opcode text, size, r or m. */
function variantName({ entry, size, mem, rep }: Variant): string {
  return `${entry.def.name} ${entry.text} ${size}${entry.modrm ? (mem ? 'm' : 'r') : ''}${rep ? REP[rep] : ''}`;
}

export function buildInterpreter({ table, routines, pages, exports }: InterpreterParts): InterpreterCode {
  const module = new ModuleBuilder(pages);
  const codeChanged = module.importFunction('env', 'code_changed', ['i32', 'i32'], []);
  const watchHit = module.importFunction('env', 'watch_hit', ['i32', 'i32', 'i32', 'i32'], []);
  const tag = module.importTag('env', 'fault');
  const { lib, define } = declareRoutines(
    module,
    [
      ...raiseRoutines(tag),
      ...memoryRoutines(codeChanged, watchHit),
      ...pagingRoutines,
      ...flagRoutines,
      ...controlRoutines,
      ...guardedRoutines(tag),
      ...routines,
    ],
    new Map(),
  );
  define();

  const handlerType = module.type(HANDLER_PARAMS, []);
  const regionType = module.type(REGION_PARAMS, ['i32']);
  const variants: Variant[] = [];
  const hot: Variant[] = [];
  const wanted = new Set(HOT_FORMS);
  for (const entry of table.entries) {
    for (const variant of variantsOf(entry)) {
      const { size, mem, rep } = variant;
      const ref = module.func(`${variantName(variant)}`, ['i32', 'i32'], [], (f) => {
        const sem = new InterpSem(f, f.p(0), f.p(1), lib, entry, size, mem, REP[rep]);
        if (entry.def.ends === 'jump' || entry.def.ends === 'sync')
          f.store('64', f.p(0), f.load('64', f.p(1), REC.next), CPU.rip);
        entry.def.sem(sem);
      });
      const slot = module.tableSlot(ref);
      variants[slot] = variant;
      const ends = entry.def.ends ?? 'no';
      let handler: number = ends === 'no' ? CASE.cold : ends === 'jump' ? CASE.coldJump : CASE.coldSync;
      if (wanted.has(variantName(variant)) && ends !== 'sync') {
        handler = CASE.hot + hot.length;
        hot.push(variant);
      }
      const known: Entry['handlers'][number] = { handler, slot };
      if (handler >= CASE.hot && entry.modrm && !mem && FLAG_WRITERS.has(entry.def.name)) {
        known.deadFlags = CASE.hot + hot.length;
        hot.push({ ...variant, deadFlags: true });
      }
      entry.handlers[variantKey(size, mem, rep)] = known;
    }
  }
  module.importTable({ module: 'env', name: 'handlers', minimum: module.tableSlots });

  const run = module.func('run', ['i32'], ['i32'], (f) =>
    writeRun(f, lib, tag, handlerType, regionType, hot),
  );
  module.export(run);
  for (const name of new Set([
    'tlb_flush',
    'tlb_flush_page',
    'update_mode',
    'update_special',
    'status_flags',
    'begin_delivery',
    'try_second_page',
    'try_translate',
    'in_long_mode',
    ...exports,
    ...REGION_ROUTINES,
  ]))
    module.export(lib(name));
  return {
    bytes: module.finish(),
    sizes: module.sizes(),
    hotCases: hot.length,
    variants,
    library: lib,
    tableSlots: module.tableSlots,
  };
}

/** Entry points for the outside, which must not see the fault tag thrown. */
function guardedRoutines(tag: TagRef): readonly Routine[] {
  return [
    /** Host address of the page of `va` for fetching, keeping the fetch window; 0 when it faults (raise fields say how). */
    routine('try_second_page', ['i32', 'i64'], ['i32'], (f, lib) => {
      const cpu = f.p(0);
      const result = f.local('i32', 0);
      f.tryCatch(
        tag,
        () => result.set(f.callValue(lib('second_page'), cpu, f.p(1))),
        () => undefined,
      );
      f.return(result.get);
      f.unreachable();
    }),
    routine('second_page', ['i32', 'i64'], ['i32'], (f, lib) => {
      const cpu = f.p(0);
      const base = f.let(f.load('64', cpu, CPU.windowBase));
      const mask = f.let(f.load('64', cpu, CPU.windowMask));
      const host = f.let(f.load('32', cpu, CPU.windowHost));
      f.call(lib('fetch_window'), cpu, f.p(1));
      const page = f.let(
        f.load('32', cpu, CPU.windowHost).add(
          f
            .p(1)
            .and(-4096n)
            .sub(f.load('64', cpu, CPU.windowBase))
            .wrap(),
        ),
      );
      f.store('64', cpu, base, CPU.windowBase);
      f.store('64', cpu, mask, CPU.windowMask);
      f.store('32', cpu, host, CPU.windowHost);
      f.return(page);
      f.unreachable();
    }),
    /**
     * The header of the block at `rip` (64-bit code) when it is an entry of a region that `budget` lasts for, else 0. Fetches as
     * run() does in front of a block.
     */
    routine('find_region', ['i32', 'i32', 'i64'], ['i32'], (f, lib) => {
      const cpu = f.p(0);
      const budget = f.p(1);
      const rip = f.p(2);
      f.if(rip.and(f.load('64', cpu, CPU.windowMask)).ne(f.load('64', cpu, CPU.windowBase)), () => {
        f.store('32', cpu, i32(0), CPU.record);
        f.store('32', cpu, budget, CPU.budget);
        f.call(lib('fetch_window'), cpu, rip);
      });
      const key = f.let(f.load('32', cpu, CPU.mode).or(windowKey(f, cpu)));
      const host = f.load('32', cpu, CPU.windowHost).add(rip.sub(f.load('64', cpu, CPU.windowBase)).wrap());
      const jumps = f.load('32', f.load('32', cpu, CPU.engine), ENGINE.jumpCache);
      const entry = jumpEntry(f, jumps, rip, key);
      const known = f
        .load('64', entry, JUMP.rip)
        .eq(rip)
        .and(f.load('32', entry, JUMP.host).eq(host))
        .and(f.load('32', entry, JUMP.mode).eq(key));
      f.if(known, () => {
        const head = f.let(f.load('32', entry, JUMP.record).sub(HEAD.size));
        const enters = f
          .load('32', head, HEAD.slot)
          .bool()
          .and(f.load('32', head, HEAD.need).leS(budget));
        f.if(enters, () => f.return(head));
      });
      f.return(i32(0));
      f.unreachable();
    }),
    /** For debuggers: guest-physical address of `va` in CPU.stageGpa and 1, or 0; changes nothing that a guest sees but A bits. */
    routine('try_translate', ['i32', 'i64', 'i32'], ['i32'], (f, lib) => {
      const cpu = f.p(0);
      const result = f.local('i32', 0);
      f.tryCatch(
        tag,
        () => {
          f.call(lib('walk'), cpu, f.p(1), f.p(2), i32(0), i32(1));
          result.set(1);
        },
        () => undefined,
      );
      f.return(result.get);
      f.unreachable();
    }),
  ];
}

/** MODE.large when the fetch window is a large one. */
export const windowKey = (f: FunctionBuilder, cpu: Val): Val =>
  f.load('64', cpu, CPU.windowMask).eq(-0x200000n).mul(MODE.large);

/** Slot of `rip` with block key `key` in the jump cache at `base`. */
export function jumpEntry(f: FunctionBuilder, base: Val, rip: Val, key: Val): Val {
  return f.let(
    base.add(
      rip
        .wrap()
        .xor(rip.shrU(15).wrap())
        .xor(key.shl(3))
        .and(JUMP.entries - 1)
        .shl(JUMP.shift),
    ),
  );
}

/**
 * run(cpu) executes until the budget is used up or the outside is needed; returns a RUN code. CPU.budget and CPU.clock are
 * set before; afterwards CPU.budget says what is left.
 */
function writeRun(
  f: FunctionBuilder,
  lib: Library,
  tag: TagRef,
  handlerType: number,
  regionType: number,
  hot: readonly Variant[],
): void {
  const cpu = f.p(0);
  const ip = f.local('i32', 0);
  const budget = f.local('i32', f.load('32', cpu, CPU.budget));
  /** Address of the link field through which the current block was or will be reached, 0: none. */
  const slot = f.local('i32', 0);
  /** 1 while a delivery that took time from the budget is under way: it gives that back when it is interrupted. */
  const charged = f.local('i32', 0);
  const single = f.local('i32', 0);
  /** The next instruction is not to be run by a region. */
  const interpret = f.local('i32', 0);
  const engine = f.let(f.load('32', cpu, CPU.engine));
  const jumps = f.let(f.load('32', engine, ENGINE.jumpCache));

  const leave = (code: Val | number): void => {
    f.store('32', cpu, budget.get, CPU.budget);
    f.return(typeof code === 'number' ? i32(code) : code);
  };

  f.loop((restart) => {
    f.tryCatch(
      tag,
      (caught) => {
        f.if(f.load('32', cpu, CPU.deliver), () => {
          // Delivering an event takes the time of one instruction.
          ip.set(0);
          f.store('32', cpu, i32(0), CPU.record);
          charged.set(budget.get.gtS(0));
          budget.set(budget.get.sub(charged.get));
          f.store('32', cpu, budget.get, CPU.budget);
          f.call(lib('deliver_event'), cpu);
          charged.set(0);
          f.store('32', cpu, i32(0), CPU.eventLength);
          f.store('32', cpu, i32(0), CPU.deliver);
          f.call(lib('update_mode'), cpu);
          f.call(lib('update_special'), cpu);
        });
        f.loop((dispatch) => {
          ip.set(0);
          f.store('32', cpu, i32(0), CPU.record);
          f.store('32', cpu, budget.get, CPU.budget);
          single.set(0);
          // Before the boundary: a breakpoint on the handler of #DB raises #DB without an end.
          f.if(budget.get.leS(0), () => {
            // A restarted instruction is over: nothing may think that it still waits. Its trap is the next run's.
            f.if(f.load('32', cpu, CPU.special).and(SPECIAL.stepped), () => {
              f.store('32', cpu, i32(0), CPU.answers);
              f.store('32', cpu, i32(0), CPU.answersUsed);
            });
            leave(RUN.budget);
          });
          f.if(f.load('32', cpu, CPU.special), () => {
            const what = f.callValue(lib('boundary'), cpu);
            f.if(what.geU(16), () => leave(what.and(15)));
            single.set(what);
            slot.set(0);
          });
          const rip = f.let(f.load('64', cpu, CPU.rip));
          const linear = f.local('i64');
          linear.set(rip);
          const mode = f.local('i32', f.load('32', cpu, CPU.mode));
          f.if(mode.get.and(MODE.codeMask).ne(MODE.code64), () =>
            linear.set(rip.add(f.load('64', cpu, segCsBase)).and(0xffffffffn)),
          );
          f.if(linear.get.and(f.load('64', cpu, CPU.windowMask)).ne(f.load('64', cpu, CPU.windowBase)), () =>
            f.call(lib('fetch_window'), cpu, linear.get),
          );
          mode.set(mode.get.or(windowKey(f, cpu)));
          const host = f.let(
            f.load('32', cpu, CPU.windowHost).add(linear.get.sub(f.load('64', cpu, CPU.windowBase)).wrap()),
          );
          const probe = (key: Val): Val => {
            const entry = jumpEntry(f, jumps, rip, key);
            const found = f.local('i32', 0);
            f.if(
              f
                .load('64', entry, JUMP.rip)
                .eq(rip)
                .and(f.load('32', entry, JUMP.host).eq(host))
                .and(f.load('32', entry, JUMP.mode).eq(key)),
              () => {
                found.set(f.load('32', entry, JUMP.record));
                const second = f.let(f.load('32', entry, JUMP.second));
                f.if(second, () => {
                  // The instruction goes on in the next page: it is this block only while that page is the same, which is asked
                  // each time.
                  slot.set(0);
                  f.if(f.callValue(lib('second_page'), cpu, linear.get.or(0xfffn).add(1)).ne(second), () =>
                    found.set(0),
                  );
                });
              },
            );
            return found.get;
          };
          const need = (one: number): void => {
            f.store('32', cpu, i32(one), CPU.wantSingle);
            f.if(single.get, () => f.call(lib('unstep'), cpu));
            leave(RUN.decode);
          };
          f.if(single.get.eqz(), () => {
            const found = f.let(probe(mode.get));
            f.if(found.eqz(), () => need(0));
            const head = f.let(found.sub(HEAD.size));
            const heat = f.let(f.load('32', head, HEAD.heat));
            f.if(
              heat,
              () => f.store('32', head, heat.sub(1), HEAD.heat),
              () => {
                const region = f.let(f.load('32', head, HEAD.slot));
                f.if(region.eqz(), () => leave(RUN.hot));
                f.if(f.load('32', head, HEAD.need).leS(budget.get).and(interpret.get.eqz()), () => {
                  const left = f.callIndirectValue(
                    regionType,
                    region,
                    'i32',
                    cpu,
                    budget.get,
                    f.load('32', head, HEAD.entry),
                  );
                  f.if(left.eq(REGION_FAULT), () => {
                    ip.set(f.load('32', cpu, CPU.record));
                    budget.set(f.load('32', cpu, CPU.budget));
                    f.br(caught);
                  });
                  budget.set(left);
                  slot.set(0);
                  f.br(dispatch);
                });
              },
            );
            interpret.set(0);
            f.if(
              f.load('32', found, REC.after).ltS(budget.get),
              () => ip.set(found),
              () => single.set(1),
            );
          });
          f.if(ip.get.eqz(), () => {
            slot.set(0);
            const found = f.let(probe(f.let(mode.get.or(MODE.single))));
            f.if(found.eqz(), () => need(1));
            ip.set(found);
          });
          // Link from the block before, when both lie in one page.
          f.if(slot.get, () => {
            f.store('32', slot.get, ip.get);
          });
          budget.set(budget.get.sub(f.load('32', ip.get, REC.after)).sub(1));
          f.store('32', cpu, budget.get, CPU.budget);

          f.loop((next) => {
            const enter = (target: Val): void => {
              const length = f.let(f.load('32', target, REC.after).add(1));
              const head = f.let(target.sub(HEAD.size));
              const heat = f.let(f.load('32', head, HEAD.heat));
              f.if(length.leS(budget.get).and(heat.bool()), () => {
                f.store('32', head, heat.sub(1), HEAD.heat);
                budget.set(budget.get.sub(length));
                f.store('32', cpu, budget.get, CPU.budget);
                ip.set(target);
                f.br(next);
              });
            };
            const follow = (target: Val, field: number | null): void => {
              if (field !== null) {
                const linked = f.let(f.load('32', ip.get, field));
                slot.set(ip.get.add(field));
                f.if(linked.gtU(1), () => enter(linked));
                // 0: may be linked once the block is known; 1: never (another page).
                f.if(linked.eq(1), () => slot.set(0));
              } else slot.set(0);
              f.store('64', cpu, target, CPU.rip);
              f.br(dispatch);
            };
            const cold = (): void => {
              f.store('32', cpu, ip.get, CPU.record);
              f.callIndirect(handlerType, f.load('16u', ip.get, REC.slot), [], cpu, ip.get);
            };
            const advance = (): void => {
              ip.set(ip.get.add(REC.size));
              f.br(next);
            };
            const cases: (() => void)[] = [];
            cases[CASE.cold] = () => {
              cold();
              advance();
            };
            cases[CASE.coldJump] = () => {
              cold();
              // Bulk string operations take more than the instruction that the block was charged for.
              budget.set(f.load('32', cpu, CPU.budget));
              slot.set(0);
              f.br(dispatch);
            };
            cases[CASE.coldSync] = () => {
              cold();
              slot.set(0);
              f.call(lib('update_mode'), cpu);
              f.call(lib('update_special'), cpu);
              f.br(dispatch);
            };
            // The block ends without a jump: not an instruction.
            cases[CASE.end] = () => follow(f.load('64', ip.get, REC.next), REC.fallthrough);
            // The block was dropped: give the rest of its budget back and find what is there now.
            cases[CASE.stale] = () => {
              budget.set(budget.get.add(f.load('32', ip.get, REC.after)).add(1));
              f.store(
                '64',
                cpu,
                f.load('64', ip.get, REC.next).sub(f.load('8u', ip.get, REC.length, 'i64')),
                CPU.rip,
              );
              f.if(slot.get, () => f.if(f.load('32', slot.get).ne(ip.get), () => slot.set(0)));
              f.br(dispatch);
            };
            // A breakpoint: nothing of the instruction happens.
            cases[CASE.stop] = () => {
              budget.set(budget.get.add(1));
              f.store('64', cpu, f.load('64', ip.get, REC.next), CPU.rip);
              f.if(single.get, () => f.call(lib('unstep'), cpu));
              leave(RUN.breakpoint);
            };
            for (const variant of hot) {
              cases.push(() => {
                const { entry, size, mem, rep, deadFlags } = variant;
                const sem = new InterpSem(
                  f,
                  cpu,
                  ip.get,
                  lib,
                  entry,
                  size,
                  mem,
                  REP[rep],
                  { jump: follow },
                  deadFlags,
                );
                entry.def.sem(sem);
                if ((entry.def.ends ?? 'no') === 'no') advance();
              });
            }
            f.switch(f.load('16u', ip.get, REC.handler), cases, () => f.unreachable());
          });
        });
      },
      () => {
        const kind = f.let(f.load('32', cpu, CPU.raiseKind));
        slot.set(0);
        // Between instructions, or on the way out of a region (the record says in which): it may have used budget before.
        f.if(ip.get.eqz(), () => {
          budget.set(f.load('32', cpu, CPU.budget));
          ip.set(f.load('32', cpu, CPU.record));
        });
        f.if(ip.get, () => {
          const after = f.let(f.load('32', ip.get, REC.after));
          const nextRip = f.let(f.load('64', ip.get, REC.next));
          budget.set(budget.get.add(after));
          const done = f.let(kind.eq(RAISE.trap).or(kind.eq(RAISE.software)));
          f.if(kind.eq(RAISE.software), () =>
            f.store('32', cpu, f.load('8u', ip.get, REC.length), CPU.eventLength),
          );
          f.if(
            done,
            () => f.store('64', cpu, nextRip, CPU.rip),
            () => f.store('64', cpu, nextRip.sub(f.load('8u', ip.get, REC.length, 'i64')), CPU.rip),
          );
          // Delivery takes an instruction's time; the instruction itself, when it is done, has its own.
          f.if(done.eqz(), () => budget.set(budget.get.add(1)));
        });
        f.if(kind.eq(RAISE.exit), () => {
          // It will be restarted: what a stepped instruction owes stays due.
          f.store('32', cpu, i32(0), CPU.answersUsed);
          f.if(ip.get, () => f.call(lib('unstep'), cpu));
          budget.set(budget.get.add(charged.get));
          leave(RUN.exit);
        });
        f.if(kind.eq(RAISE.interpret), () => {
          interpret.set(1);
          f.br(restart);
        });
        charged.set(0);
        // In the delivery of a software interrupt.
        f.if(
          f
            .load('32', cpu, CPU.deliver)
            .bool()
            .and(f.load('32', cpu, CPU.eventLength).bool()),
          () => {
            const rip = f.let(f.load('64', cpu, CPU.rip));
            f.store('64', cpu, rip.sub(f.load('32u', cpu, CPU.eventLength, 'i64')), CPU.rip);
            f.store('32', cpu, i32(0), CPU.eventLength);
          },
        );
        f.store('32', cpu, i32(1), CPU.deliver);
        const outcome = f.callValue(lib('begin_delivery'), cpu);
        f.if(outcome.eq(2), () => {
          // Intercepted, like a fault: RIP of a software exception is that of its instruction (SDM vol. 3, 29.1).
          f.store('32', cpu, i32(0), CPU.deliver);
          f.store('32', cpu, i32(EXIT.exception), CPU.stageExit);
          f.store('32', cpu, kind, CPU.stageKind);
          f.store('32', cpu, i32(RAISE.exit), CPU.raiseKind);
          f.if(ip.get.bool().and(kind.eq(RAISE.software)), () =>
            f.store(
              '64',
              cpu,
              f.load('64', ip.get, REC.next).sub(f.load('8u', ip.get, REC.length, 'i64')),
              CPU.rip,
            ),
          );
          leave(RUN.exit);
        });
        f.if(outcome, () => {
          // A fault while a double fault is delivered: shutdown.
          f.store('32', cpu, i32(RAISE.exit), CPU.raiseKind);
          f.store('32', cpu, i32(EXIT.tripleFault), CPU.raiseVector);
          f.store('32', cpu, i32(0), CPU.deliver);
          leave(RUN.exit);
        });
        f.br(restart);
      },
    );
    f.unreachable();
  });
  f.unreachable();
  void i64;
}
