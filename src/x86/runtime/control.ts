/** What happens between instructions: mode changes, interrupt windows, single steps, jumps. */
import {
  CPU,
  CS,
  FLAG,
  MODE,
  PENDING,
  RAISE,
  SEG,
  SHADOW,
  SPECIAL,
  SS,
  TLB,
  VEC,
  segField,
  RUN,
} from '../layout.ts';
import { CR0, CR4, EFER } from '../registers.ts';
import { i32, i64, select } from '../wasm/value.ts';
import { routine, type Routine } from './library.ts';

export const controlRoutines: readonly Routine[] = [
  /** Recomputes what follows from control registers, CS, SS, CPL and EFLAGS: mode word, TLB choice, stack size. */
  routine('update_mode', ['i32'], [], (f) => {
    const cpu = f.p(0);
    const cr0 = f.let(f.load('32', cpu, CPU.cr0));
    const cr4 = f.let(f.load('32', cpu, CPU.cr4));
    const efer = f.let(f.load('32', cpu, CPU.efer));
    const eflags = f.let(f.load('32', cpu, CPU.eflags));
    const cs = f.let(f.load('32', cpu, segField(CS, SEG.attr)));
    const ss = f.let(f.load('32', cpu, segField(SS, SEG.attr)));
    const cpl = f.let(f.load('32', cpu, CPU.cpl));
    const long = f.let(efer.shrU(10).and(cs.shrU(9)).and(1));
    const code = f.let(
      select(long, i32(MODE.code64), select(cs.and(0x400), i32(MODE.code32), i32(MODE.code16))),
    );
    const limit = f.let(f.load('32', cpu, segField(CS, SEG.limit)));
    const pages = f.let(limit.gtU(0xfffff));
    const limited = f.let(long.eqz().and(limit.ne(-1)));
    const limitBits = f.let(
      select(pages, limit.and(~0xfff), limit.shl(MODE.limitShift))
        .or(pages.mul(MODE.limitPages))
        .or(MODE.limited),
    );
    const real = f.let(cr0.and(CR0.PE).eqz().or(eflags.and(FLAG.VM).bool()));
    f.store(
      '32',
      cpu,
      code
        .or(real.shl(2))
        .or(cr0.and(CR0.EM).shl(1))
        .or(cr0.and(CR0.TS).shl(1))
        .or(cr0.and(CR0.MP).shl(4))
        .or(cr4.and(CR4.OSFXSR).shrU(3))
        .or(select(limited, limitBits, i32(0))),
      CPU.mode,
    );
    f.store('32', cpu, select(long, i32(8), select(ss.and(0x400), i32(4), i32(2))), CPU.stackSize);
    const user = f.let(cpl.eq(3));
    const acOk = f.let(eflags.and(FLAG.AC).bool().or(cr4.and(CR4.SMAP).eqz()));
    const which = f.let(
      select(user, i32(TLB.user), select(acOk, i32(TLB.supervisorAc), i32(TLB.supervisor))),
    );
    const real2 = f.let(f.load('32', cpu, CPU.tlbArea).add(which.mul(TLB.arrayBytes)));
    f.store('32', cpu, real2, CPU.tlbReal);
    const fetch = f
      .load('32', cpu, CPU.tlbArea)
      .add(select(user, i32(TLB.fetch), i32(TLB.fetch + TLB.fetchBytes)));
    f.store('32', cpu, fetch, CPU.tlbFetch);
    // Every access is looked at while alignment checks or data breakpoints are on.
    const aligned = f.let(user.and(cr0.and(CR0.AM).bool()).and(eflags.and(FLAG.AC).bool()));
    const watched = f.let(
      f
        .load('32', cpu, CPU.dr + 40)
        .and(0xff)
        .bool(),
    );
    f.store('32', cpu, select(aligned.or(watched), f.load('32', cpu, CPU.tlbEmpty), real2), CPU.tlbFast);
  }),

  routine('update_special', ['i32'], [], (f) => {
    const cpu = f.p(0);
    const eflags = f.let(f.load('32', cpu, CPU.eflags));
    const pending = f.let(f.load('32', cpu, CPU.pending));
    const shadow = f.let(f.load('32', cpu, CPU.shadow));
    const open = f.let(
      eflags
        .and(FLAG.IF)
        .bool()
        .and(pending.and(PENDING.interrupt).bool())
        .or(pending.and(PENDING.nmi).bool().and(shadow.and(SHADOW.nmiBlocked).eqz()))
        .or(pending.and(PENDING.init | PENDING.smi | PENDING.attention).bool()),
    );
    const blocked = f.let(shadow.and(SHADOW.sti | SHADOW.movSs).bool());
    const debug = f.let(
      eflags
        .and(FLAG.TF | FLAG.RF)
        .bool()
        .or(
          f
            .load('32', cpu, CPU.dr + 40)
            .and(0xff)
            .bool(),
        ),
    );
    const answers = f.let(f.load('32', cpu, CPU.answers).bool());
    f.store(
      '32',
      cpu,
      f
        .load('32', cpu, CPU.special)
        .and(SPECIAL.stepped)
        .or(open)
        .or(blocked.shl(1))
        .or(debug.shl(2))
        .or(answers.shl(3)),
      CPU.special,
    );
  }),

  /**
   * At an instruction boundary with CPU.special set. Returns 0: go on; 1: run one instruction by itself; RUN.interrupt + 16:
   * leave run(). Raises #DB.
   */
  routine('boundary', ['i32'], ['i32'], (f, lib) => {
    const cpu = f.p(0);
    f.if(f.load('32', cpu, CPU.special).and(SPECIAL.stepped), () => {
      f.store('32', cpu, i32(0), CPU.special);
      f.store('32', cpu, i32(0), CPU.answers);
      f.store('32', cpu, i32(0), CPU.answersUsed);
      const hits = f.let(f.load('64', cpu, CPU.debugHits));
      const step = f.let(f.load('32', cpu, CPU.stepTf));
      f.store('32', cpu, i32(0), CPU.stepTf);
      // MOV SS holds back traps until after the next instruction: hits of watchpoints are kept for it.
      f.if(
        hits
          .ne(0)
          .or(step.bool())
          .and(f.load('32', cpu, CPU.shadow).and(SHADOW.movSs).eqz()),
        () => {
          f.store('64', cpu, i64(0), CPU.debugHits);
          f.store('64', cpu, hits.or(select(step, i64(0x4000), i64(0))), CPU.raiseInfo);
          f.call(lib('raise_trap'), cpu, i32(VEC.DB), i32(RAISE.trap));
        },
      );
    });
    f.call(lib('update_special'), cpu);
    const special = f.let(f.load('32', cpu, CPU.special));
    f.if(special.eqz(), () => f.return(i32(0)));
    f.if(
      special.and(SPECIAL.answers),
      () => undefined,
      () => {
        f.if(special.and(SPECIAL.pending).bool().and(special.and(SPECIAL.shadow).eqz()), () =>
          f.return(i32(16 + RUN.interrupt)),
        );
        const eflags = f.let(f.load('32', cpu, CPU.eflags));
        const dr7 = f.let(f.load('32', cpu, CPU.dr + 40));
        f.if(dr7.and(0xff).bool().and(eflags.and(FLAG.RF).eqz()), () => {
          // Instruction breakpoints compare linear addresses (CS base + rip).
          const at = f.let(f.load('64', cpu, CPU.rip).add(f.callValue(lib('code_base'), cpu)));
          const hits = f.local('i32', 0);
          for (let n = 0; n < 4; n++) {
            f.if(
              dr7
                .shrU(n * 2)
                .and(3)
                .bool()
                .and(
                  dr7
                    .shrU(16 + n * 4)
                    .and(3)
                    .eqz(),
                )
                .and(f.load('64', cpu, CPU.dr + n * 8).eq(at)),
              () => hits.set(hits.get.or(1 << n)),
            );
          }
          f.if(hits.get, () => {
            f.store('64', cpu, hits.get.zext(), CPU.raiseInfo);
            f.call(lib('raise'), cpu, i32(VEC.DB));
          });
        });
      },
    );
    const eflags = f.let(f.load('32', cpu, CPU.eflags));
    f.store('32', cpu, eflags.shrU(8).and(1), CPU.stepTf);
    f.store('32', cpu, eflags.and(FLAG.RF), CPU.steppedRf);
    f.store('32', cpu, f.load('32', cpu, CPU.shadow).and(SHADOW.sti | SHADOW.movSs), CPU.steppedShadow);
    f.store('32', cpu, eflags.and(~FLAG.RF), CPU.eflags);
    f.store('32', cpu, f.load('32', cpu, CPU.shadow).and(SHADOW.nmiBlocked), CPU.shadow);
    f.store('32', cpu, i32(SPECIAL.stepped), CPU.special);
    f.return(i32(1));
    f.unreachable();
  }),

  /** Undoes what `boundary` prepared when the instruction does not run after all: it is asked again. */
  routine('unstep', ['i32'], [], (f, lib) => {
    const cpu = f.p(0);
    f.if(f.load('32', cpu, CPU.special).and(SPECIAL.stepped).eqz(), () => f.return());
    f.store('32', cpu, i32(0), CPU.special);
    // The boundary would open the interrupt window again although the shadow was passed: keep it for the restart.
    f.store('32', cpu, f.load('32', cpu, CPU.shadow).or(f.load('32', cpu, CPU.steppedShadow)), CPU.shadow);
    f.store('32', cpu, f.load('32', cpu, CPU.eflags).or(f.load('32', cpu, CPU.steppedRf)), CPU.eflags);
    f.call(lib('update_special'), cpu);
  }),

  /** Base that is added to rip for fetches: CS.base, and 0 in 64-bit mode. */
  routine('code_base', ['i32'], ['i64'], (f, lib) => {
    const cpu = f.p(0);
    f.if(f.callValue(lib('in_long_mode'), cpu), () => f.return(i64(0)));
    f.return(f.load('64', cpu, segField(CS, SEG.base)));
    f.unreachable();
  }),

  /** Near jump with operand size `size`: cuts the target, checks it, sets rip. */
  routine('near_jump', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    f.if(f.callValue(lib('in_long_mode'), cpu), () => {
      f.if(f.callValue(lib('canonical'), cpu, f.p(1)).eqz(), () =>
        f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
      );
      f.store('64', cpu, f.p(1), CPU.rip);
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
    f.store('64', cpu, target.zext(), CPU.rip);
  }),
];
void EFER;
