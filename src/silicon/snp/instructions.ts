/** Instructions of SNP guests (AMD APM vol. 3, and vol. 2, 15.36). What they do to the RMP happens outside generated code. */
import type { Def } from '../../x86/defs/def.ts';
import { CPU, FLAG, RAX, RCX, RDX, VEC } from '../../x86/layout.ts';
import type { Sem } from '../../x86/sem.ts';
import { i32, i64, type Val } from '../../x86/wasm/value.ts';
import { CONTEXT, SNP_EXIT } from './layout.ts';

/** P and RSVD: what a shared mapping gives (unverified: the manual does not say it for PVALIDATE). */
const NOT_PRIVATE = 9;
const C_BIT_VALUE = 1n << 51n;

/** Physical address of the page of rAX as a one-byte read finds it, C-bit and all. */
function translate(e: Sem): Val {
  const address = e.gpr(RAX);
  e.raiseIf(e.callValue('canonical', e.cpu, address).eqz(), VEC.GP, 0);
  e.callValue('walk', e.cpu, address, i32(0), i32(0), i32(1));
  const physical = e.f.let(e.f.load('64', e.cpu, CPU.stageGpa).and(-4096n));
  // In vTOM mode the address says which side it is; the walk has refused a C-bit.
  e.f.if(e.field32(CONTEXT.features).and(2).eqz().and(physical.and(C_BIT_VALUE).eqz()), () =>
    e.call('raise_page_fault', e.cpu, address, i32(NOT_PRIVATE)),
  );
  return physical;
}

export const snpDefs: readonly Def[] = [
  {
    name: 'vmgexit',
    enc: ['F3 0F01 =D9 -', 'F2 0F01 =D9 -'],
    ends: 'sync',
    sem: (e) => void e.ask(SNP_EXIT.vmgexit),
  },
  {
    name: 'pvalidate',
    enc: ['F2 0F01 =FF -'],
    ends: 'sync',
    sem: (e) => {
      e.requireCpl0();
      e.raiseIf(e.field32(CONTEXT.vmpl).bool(), VEC.GP, 0);
      const physical = translate(e);
      const how = e.f.let(e.gpr(RCX, 4).and(1).or(e.gpr(RDX, 4).and(1).shl(8)).zext());
      const answer = e.ask(SNP_EXIT.pvalidate, physical, how);
      e.setGpr(RAX, e.f.let(e.f.load('32u', answer, 0, 'i64')));
      e.setStatus(e.f.let(e.f.load('32', answer, 4).and(FLAG.CF)));
    },
  },
  {
    name: 'rmpadjust',
    enc: ['F3 0F01 =FE o64 -'],
    ends: 'sync',
    sem: (e) => {
      e.requireCpl0();
      const physical = translate(e);
      const answer = e.ask(SNP_EXIT.rmpadjust, physical, e.gpr(RCX, 4).and(1).zext(), e.gpr(RDX));
      result(e, answer);
    },
  },
  {
    name: 'rmpquery',
    enc: ['F3 0F01 =FD o64 -'],
    ends: 'sync',
    sem: (e) => {
      e.requireCpl0();
      const physical = translate(e);
      const answer = e.ask(SNP_EXIT.rmpquery, physical, e.gpr(RDX));
      e.setGpr(RCX, e.f.let(e.f.load('32u', answer, 8, 'i64')));
      e.setGpr(RDX, e.f.let(e.f.load('32u', answer, 4, 'i64')));
      result(e, answer);
    },
  },
  // RMPUPDATE and PSMASH are a hypervisor's: #UD in a guest (APM vol. 3).
  {
    name: 'rmpupdate',
    enc: ['F2 0F01 =FE -'],
    ends: 'sync',
    sem: (e) => e.raise(VEC.UD),
  },
  { name: 'psmash', enc: ['F3 0F01 =FF -'], ends: 'sync', sem: (e) => e.raise(VEC.UD) },
  {
    name: 'invlpgb',
    feature: 'invlpgb',
    enc: ['NP 0F01 =FE -'],
    ends: 'sync',
    sem: (e) => {
      e.requireCpl0();
      e.ask(SNP_EXIT.invlpgb, e.gpr(RAX), e.gpr(RCX, 4).zext(), e.gpr(RDX, 4).zext());
    },
  },
  {
    name: 'tlbsync',
    feature: 'invlpgb',
    enc: ['NP 0F01 =FF -'],
    ends: 'sync',
    sem: (e) => e.requireCpl0(),
  },
];

/** EAX has the code; the status flags follow it as a comparison with zero would. */
function result(e: Sem, answer: Val): void {
  const code = e.f.let(e.f.load('32', answer));
  e.setGpr(RAX, e.f.let(code.zext()));
  e.setStatus(e.f.let(code.eqz().shl(6)));
  void i64;
}
