import { describe, expect, it } from 'vitest';
import { TDG } from '../src/abi/tdx/leaves.ts';
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
