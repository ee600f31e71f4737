/**
 * The second stage of a TD: secure EPT below the shared bit, shared EPT above it, and the alias of an L2 VM with its own
 * rights. What is not allowed leaves by `stage_exit`; who hears of it is decided in exits.ts.
 */
import { CPU, ENGINE, SECOND } from '../../x86/layout.ts';
import { FETCH, WRITE } from '../../x86/runtime/paging.ts';
import { routine, type Routine } from '../../x86/runtime/library.ts';
import { i32, select } from '../../x86/wasm/value.ts';
import { PAGE_ATTRIBUTE } from '../../abi/tdx/l2.ts';
import { EXIT_TDX, PLATFORM } from './layout.ts';
import { ALIAS_VALID, PAMT, SEPT, SHARED, STAGE } from './tables.ts';

export const secondStageTdx: Routine = routine('second_stage', ['i32', 'i64', 'i32'], ['i32'], (f, lib) => {
  const cpu = f.p(0);
  const gpa = f.p(1);
  const access = f.p(2);
  const engine = f.let(f.load('32', cpu, CPU.engine));
  const stage = f.let(f.load('32', engine, ENGINE.stage));
  const vm = f.let(f.load('32', cpu, PLATFORM.vm));
  f.store('64', cpu, gpa, CPU.stageGpa);
  f.store('32', cpu, i32(0), CPU.stageFlags);
  const leave = (code: number): void => f.call(lib('stage_exit'), cpu, i32(code), gpa, access.zext());
  const sharedBit = f.let(f.load('64', stage, STAGE.sharedBit));
  f.if(gpa.and(sharedBit.shl(1).sub(1).not()).ne(0), () => leave(EXIT_TDX.reservedAddress));
  const pages = f.let(f.load('32u', stage, STAGE.pages, 'i64'));
  const pamtOf = (host: ReturnType<typeof i32>): ReturnType<typeof i32> =>
    f.let(
      f.load(
        '8u',
        f.load('32', stage, STAGE.pamt).add(host.sub(f.load('32', engine, ENGINE.framesBase)).shrU(12)),
      ),
    );

  f.if(gpa.and(sharedBit).ne(0), () => {
    f.if(vm.bool().and(f.load('32', cpu, PLATFORM.sharedEpt).eqz()), () => leave(EXIT_TDX.eptViolation));
    const page = f.let(gpa.xor(sharedBit).shrU(12));
    f.if(page.geU(pages).or(access.and(FETCH).bool()), () => leave(EXIT_TDX.eptViolation));
    const word = f.let(f.load('32', f.load('32', stage, STAGE.shared).add(page.wrap().shl(2))));
    const writable = f.let(word.and(SHARED.writable).bool());
    f.if(word.and(SHARED.present).eqz().or(access.and(WRITE).bool().and(writable.eqz())), () =>
      leave(EXIT_TDX.eptViolation),
    );
    const host = f.let(word.and(-4096));
    // Another key than the page's: its integrity check fails.
    f.if(pamtOf(host).and(PAMT.typeMask), () => leave(EXIT_TDX.integrity));
    f.store('32', cpu, select(writable, i32(0), i32(SECOND.noWrite)), CPU.stageFlags);
    f.return(host);
  });

  f.if(gpa.shrU(12).geU(pages), () => leave(EXIT_TDX.eptViolation));
  const entry = f.local('i32', f.load('32', stage, STAGE.blocks).add(gpa.shrU(21).wrap().shl(3)));
  const word = f.local('i32', f.load('32', entry.get));
  const host = f.local('i32', word.get.and(-4096).add(gpa.wrap().and(0x1ff000)));
  const flags = f.local('i32', SECOND.uniform);
  f.if(word.get.and(SEPT.mask).eq(SEPT.split), () => {
    entry.set(f.load('32', stage, STAGE.entries).add(gpa.shrU(12).wrap().shl(3)));
    word.set(f.load('32', entry.get));
    host.set(word.get.and(-4096));
    flags.set(0);
  });
  f.if(word.get.and(SEPT.mask).ne(SEPT.mapped), () => leave(EXIT_TDX.eptViolation));
  f.if(pamtOf(host.get).and(PAMT.poisoned), () => leave(EXIT_TDX.integrity));
  f.if(vm, () => {
    const rights = f.let(f.load('8u', entry.get.add(4).add(vm)));
    const user = f.let(
      f
        .load('32', cpu, CPU.cpl)
        .eq(3)
        .and(f.load('32', cpu, PLATFORM.modeBasedExecute)),
    );
    const execute = f.let(
      rights.and(select(user, i32(PAGE_ATTRIBUTE.executeUser), i32(PAGE_ATTRIBUTE.executeSupervisor))).bool(),
    );
    const write = f.let(rights.and(PAGE_ATTRIBUTE.write).bool());
    const allowed = f.let(
      select(
        access.and(FETCH),
        execute,
        select(access.and(WRITE), write, rights.and(PAGE_ATTRIBUTE.read).bool()),
      ),
    );
    f.if(rights.and(ALIAS_VALID).eqz().or(allowed.eqz()), () => leave(EXIT_TDX.eptViolation));
    f.if(write.eqz(), () => flags.set(flags.get.or(SECOND.noWrite)));
  });
  f.store('32', cpu, flags.get, CPU.stageFlags);
  f.return(host.get);
  f.unreachable();
});
