/** The processor with a paravisor of ours at VMPL0 or L1. */
import { snpParavisor } from '../paravisor/snp/program.ts';
import { tdxParavisor } from '../paravisor/tdx/program.ts';
import type { SiliconKind } from '../silicon/silicon.ts';
import { snpSilicon } from '../silicon/snp/silicon.ts';
import { tdxSilicon } from '../silicon/tdx/silicon.ts';
import { x86Defs } from '../x86/all.ts';
import { buildOpcodeTable } from '../x86/encoding.ts';

/** Which program it is and where its measured page lies: all that it needs is there. Plain data, part of a snapshot. */
export interface ProgramAt {
  readonly kind: 'snp' | 'tdx';
  readonly page: number;
  /** SHA-384 of its code. */
  readonly build: Uint8Array;
}

export function programSilicon({ kind, page, build }: ProgramAt): SiliconKind {
  const parts = { page, build, opcodes: buildOpcodeTable(x86Defs) };
  return kind === 'snp'
    ? snpSilicon({ program: snpParavisor(parts) })
    : tdxSilicon({ l2Vms: 1, l1: tdxParavisor(parts) });
}
