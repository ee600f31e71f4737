/** MXCSR, saved images of the x87 and SSE state, XCR0; fences and cache-line instructions. */
import { CPU, RAX, RCX, RDX, RECFLAG, VEC } from '../layout.ts';
import { CR4 } from '../registers.ts';
import { MXCSR_MASK } from '../runtime/xsave.ts';
import type { Sem } from '../sem.ts';
import { i32, i64, select } from '../wasm/value.ts';
import type { Def } from './def.ts';

const wide = (e: Sem) => e.recordFlags().and(RECFLAG.rexW);

function requireOsxsave(e: Sem): void {
  e.raiseIf(e.field32(CPU.cr4).and(CR4.OSXSAVE).eqz(), VEC.UD);
}

/** Bytes at the start of an XSAVE area that every form looks at. */
const XSAVE_BYTES = 576;

const saves = [
  ['xsave', 'NP 0FAE /4:m M', 'xsave', 0],
  ['xsaveopt', 'NP 0FAE /6:m M', 'xsaveopt', 1],
  ['xsavec', 'NP 0FC7 /4:m M', 'xsavec', 2],
  ['xsaves', 'NP 0FC7 /5:m M', 'xsaves', 3],
] as const;
const restores = [
  ['xrstor', 'NP 0FAE /5:m M', 'xsave', 0],
  ['xrstors', 'NP 0FC7 /3:m M', 'xsaves', 1],
] as const;

/** A cache-line instruction faults as a load of one byte does, and reads nothing; there is no cache to act on. */
const touch = (e: Sem): void => e.call('probe_read', e.cpu, e.address(0, 1, false), i32(1));

export const simdStateDefs: readonly Def[] = [
  {
    name: 'ldmxcsr',
    enc: ['NP 0FAE /2:m Md'],
    feature: 'sse',
    unit: 'sse',
    sem: (e) => {
      const value = e.get(0);
      e.raiseIf(value.and(~MXCSR_MASK), VEC.GP, 0);
      e.setField32(CPU.mxcsr, value);
    },
  },
  {
    name: 'stmxcsr',
    enc: ['NP 0FAE /3:m Md='],
    feature: 'sse',
    unit: 'sse',
    sem: (e) => e.set(0, e.field32(CPU.mxcsr)),
  },
  {
    name: 'fxsave',
    enc: ['NP 0FAE /0:m M'],
    feature: 'fxsr',
    unit: 'x87',
    sem: (e) => e.call('fxsave', e.cpu, e.address(0, 512, true), wide(e)),
  },
  {
    name: 'fxrstor',
    enc: ['NP 0FAE /1:m M'],
    feature: 'fxsr',
    unit: 'x87',
    sem: (e) => e.call('fxrstor', e.cpu, e.address(0, 512, false), wide(e)),
  },
  ...saves.map(([name, enc, feature, form]): Def => ({
    name,
    enc: [enc],
    feature,
    sem: (e) => {
      e.call('xsave_check', e.cpu);
      if (form === 3) e.requireCpl0();
      e.call('xsave', e.cpu, e.address(0, XSAVE_BYTES, true), wide(e), i32(form));
    },
  })),
  ...restores.map(([name, enc, feature, supervisor]): Def => ({
    name,
    enc: [enc],
    feature,
    ends: 'sync',
    sem: (e) => {
      e.call('xsave_check', e.cpu);
      if (supervisor) e.requireCpl0();
      e.call('xrstor', e.cpu, e.address(0, XSAVE_BYTES, false), wide(e), i32(supervisor));
    },
  })),
  {
    // ECX 0: XCR0. ECX 1: the components of it that are in use.
    name: 'xgetbv',
    enc: ['NP 0F01 =D0 -'],
    feature: 'xsave',
    sem: (e) => {
      requireOsxsave(e);
      const index = e.gpr(RCX, 4);
      e.raiseIf(index.gtU(1), VEC.GP, 0);
      const enabled = e.field64(CPU.xcr0);
      const inUse = e.callValue('xsave_in_use', e.cpu);
      const value = e.f.let(enabled.and(select(index, inUse.zext(), i64(-1))));
      e.setGpr(RAX, value, 4);
      e.setGpr(RDX, value.shrU(32), 4);
    },
  },
  {
    name: 'xsetbv',
    enc: ['NP 0F01 =D1 -'],
    feature: 'xsave',
    ends: 'sync',
    sem: (e) => {
      requireOsxsave(e);
      e.call('xsetbv', e.cpu);
    },
  },

  // Memory accesses are in order already.
  { name: 'lfence', enc: ['NP 0FAE /5:r -'], feature: 'sse2', sem: () => undefined },
  { name: 'mfence', enc: ['NP 0FAE /6:r -'], feature: 'sse2', sem: () => undefined },
  { name: 'sfence', enc: ['NP 0FAE /7:r -'], feature: 'sse', sem: () => undefined },
  { name: 'clflush', enc: ['NP 0FAE /7:m Mb'], feature: 'clflush', sem: touch },
  { name: 'clflushopt', enc: ['66 0FAE /7:m Mb'], feature: 'clflushopt', sem: touch },
  { name: 'clwb', enc: ['66 0FAE /6:m Mb'], feature: 'clwb', sem: touch },
];
