import { describe, expect, it } from 'vitest';
import { EXIT_REASON } from '../src/abi/tdx/exit-reasons.ts';
import { statusCode, STATUS } from '../src/abi/tdx/status.ts';
import { rax } from './asm.ts';
import { enterL2, prepareL2, shareWithL2, skipL2 } from './td-l2.ts';
import { AT, runTd } from './td.ts';

const reasonOf = (word: bigint): number => Number(word & 0xffff_ffffn);

describe('TDG.VP.ENTER', () => {
  it('runs an L2 VM to its exits', () => {
    const run = runTd(
      (guest) => {
        const { a } = guest;
        shareWithL2(guest, 'share', 0, 0x3_0000);
        prepareL2(guest, 'l2');
        enterL2(guest, 0);
        skipL2(guest, 2);
        enterL2(guest, 16);
        guest.end();
        a.label('l2');
        a.movabs(rax, 0x1234n);
        a.db(0x0f, 0xa2);
        a.hlt();
      },
      { l2Vms: 1 },
    );
    expect(run.message).toBe('');
    expect(statusCode(run.word(0))).toBe(STATUS.success);
    expect(reasonOf(run.word(0))).toBe(EXIT_REASON.cpuid);
    expect(run.word(5) >> 32n).toBe(2n);
    expect(reasonOf(run.word(16))).toBe(EXIT_REASON.hlt);
    void AT;
  });
});
