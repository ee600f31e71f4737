import { describe, expect, it } from 'vitest';
import { TDG } from '../src/abi/tdx/leaves.ts';
import { addVector } from '../src/chipset/vector-set.ts';
import { TDVMCALL } from '../src/abi/tdx/ghci.ts';
import type { TdxHostState } from '../src/host/tdx/host.ts';
import type { L1Program } from '../src/seats/program.ts';
import { NOTE, runTd } from './td.ts';
import { eax } from './asm.ts';

describe('a TD guest program', () => {
  it('runs from the reset vector, calls the module and ends', () => {
    const run = runTd(({ tdcall, a }) => {
      tdcall(TDG.vpInfo, {}, 0);
      a.mov(eax, 0x40000000);
      a.db(0x0f, 0xa2);
    });
    expect(run.reason.kind).toBe('crash');
    expect(run.word(0)).toBe(0n);
    expect(run.word(1)).toBe(48n);
    expect(run.note(NOTE.ve)).toBe(1n);
    expect(run.note(NOTE.veInfo + 8)).toBe(10n);
  });
});

describe('a program at L1', () => {
  it('hears of an interrupt and an NMI of the host when it is entered, with no VM that runs', () => {
    const state = { turns: 0, vectors: [] as number[], nmi: false };
    const vmcall = (code: number): bigint[] =>
      Array.from({ length: 16 }, (_, n) => (n === 1 ? 0xfc00n : n === 11 ? BigInt(code) : 0n));
    const program: L1Program = {
      kind: 'listener',
      state,
      load: () => undefined,
      run(seat) {
        for (let vector = seat.takeInterrupt(); vector >= 0; vector = seat.takeInterrupt())
          state.vectors.push(vector);
        state.nmi ||= seat.takeNmi();
        const code = state.turns++ === 0 ? TDVMCALL.getTdVmCallInfo : TDVMCALL.reportFatalError;
        return { exit: { kind: 'tdvmcall', registers: vmcall(code) }, ticks: 1 };
      },
    };
    const run = runTd(() => undefined, {
      l2Vms: 1,
      l1: program,
      platform: (platform) => ({
        ...platform,
        get state() {
          return platform.state;
        },
        exit(vp, exit, world) {
          const lapic = (platform.state as TdxHostState).vps[0]?.lapic;
          if (lapic !== undefined) {
            addVector(lapic.apic.irr, 0x51);
            lapic.nmi = true;
          }
          return platform.exit(vp, exit, world);
        },
      }),
    });
    expect(run.reason.kind).toBe('crash');
    expect([state.vectors, state.nmi]).toEqual([[0x51], true]);
  });
});
