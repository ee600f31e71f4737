/**
 * SEAMCALL: the leaves that this module offers its host, in one table. TDH.VP.ENTER is not among them: running a virtual
 * processor is the machine's `enter` (vp-enter.ts). TDX Module 1.5 ABI, "Host-side interface functions".
 */
import { TDH } from '../../abi/tdx/leaves.ts';
import { OPERAND, status, STATUS } from '../../abi/tdx/status.ts';
import type { SeamcallInput, SeamcallOutput } from '../../seats/tdx.ts';
import type { TdxModule } from './module.ts';
import * as build from './seamcall-build.ts';
import * as memory from './seamcall-memory.ts';
import * as metadata from './seamcall-metadata.ts';
import { PAGE, PAMT } from './tables.ts';

export interface HostLeaf {
  readonly module: TdxModule;
  readonly version: number;
  /** Operands; a leaf that returns something changes them. */
  rcx: bigint;
  rdx: bigint;
  r8: bigint;
  r9: bigint;
  r10: bigint;
  r11: bigint;
}

/** RAX. */
export type HostLeafFunction = (leaf: HostLeaf) => bigint;

interface LeafRow {
  readonly highestVersion: number;
  readonly serve: HostLeafFunction;
}

const row = (serve: HostLeafFunction, highestVersion = 0): LeafRow => ({ serve, highestVersion });

const LEAVES: ReadonlyMap<number, LeafRow> = new Map([
  [TDH.mngCreate, row(build.mngCreate)],
  [TDH.mngKeyConfig, row(build.mngKeyConfig)],
  [TDH.mngAddcx, row(build.mngAddcx)],
  [TDH.mngInit, row(build.mngInit)],
  [TDH.vpCreate, row(build.vpCreate)],
  [TDH.vpAddcx, row(build.vpAddcx)],
  [TDH.vpInit, row(build.vpInit)],
  [TDH.vpFlush, row(build.vpFlush)],
  [TDH.mngVpflushdone, row(build.mngVpflushdone)],
  [TDH.mngKeyFreeid, row(build.mngKeyFreeid)],
  [TDH.mrExtend, row(build.mrExtend)],
  [TDH.mrFinalize, row(build.mrFinalize)],
  [TDH.memPageAdd, row(memory.memPageAdd)],
  [TDH.memSeptAdd, row(memory.memSeptAdd, 1)],
  [TDH.memSeptRemove, row(memory.memSeptRemove, 1)],
  [TDH.memSeptRd, row(memory.memSeptRd)],
  [TDH.memPageAug, row(memory.memPageAug)],
  [TDH.memRangeBlock, row(memory.memRangeBlock)],
  [TDH.memRangeUnblock, row(memory.memRangeUnblock)],
  [TDH.memTrack, row(memory.memTrack)],
  [TDH.memPageRemove, row(memory.memPageRemove)],
  [TDH.memPagePromote, row(memory.memPagePromote)],
  [TDH.memPageDemote, row(memory.memPageDemote)],
  [TDH.memPageRelocate, row(memory.memPageRelocate)],
  [TDH.memRd, row(memory.memRd)],
  [TDH.memWr, row(memory.memWr)],
  [TDH.phymemPageReclaim, row(memory.phymemPageReclaim)],
  [TDH.phymemPageRdmd, row(memory.phymemPageRdmd)],
  [TDH.phymemPageWbinvd, row(() => status(STATUS.success))],
  [TDH.phymemCacheWb, row(() => status(STATUS.success))],
  [TDH.mngRd, row(metadata.mngRd)],
  [TDH.mngWr, row(metadata.mngWr)],
  [TDH.vpRd, row(metadata.vpRd)],
  [TDH.vpWr, row(metadata.vpWr)],
]);

export const HOST_LEAF_NUMBERS: readonly number[] = [...LEAVES.keys()];

/** `leaf`: as RAX of SEAMCALL: leaf number in bits 15:0, version in 23:16. */
export function seamcall(module: TdxModule, leaf: number, input: SeamcallInput): SeamcallOutput {
  const u64 = (value: bigint | undefined): bigint => BigInt.asUintN(64, value ?? 0n);
  const call: HostLeaf = {
    module,
    version: (leaf >>> 16) & 0xff,
    rcx: u64(input.rcx),
    rdx: u64(input.rdx),
    r8: u64(input.r8),
    r9: u64(input.r9),
    r10: u64(input.r10),
    r11: u64(input.r11),
  };
  const served = LEAVES.get(leaf & 0xffff);
  const valid = served !== undefined && leaf >>> 24 === 0 && call.version <= served.highestVersion;
  const rax = valid ? served.serve(call) : status(STATUS.operandInvalid, OPERAND.rax);
  const { rcx, rdx, r8, r9, r10, r11 } = call;
  return { rax, rcx, rdx, r8, r9, r10, r11 };
}

// What many leaves check.

/** A system page that is an operand: aligned and inside memory; its address. */
export function systemPage(module: TdxModule, operand: bigint, size = PAGE): number | undefined {
  if (operand % BigInt(size) !== 0n || operand >= BigInt(Number.MAX_SAFE_INTEGER)) return undefined;
  const spa = Number(operand);
  return module.tables.isSystem(spa, size) ? spa : undefined;
}

/** A free page becomes one of the TD's control structures. `undefined`: done; else the status. */
export function takePage(
  module: TdxModule,
  operand: bigint,
  operandId: number,
  type: number,
): { readonly spa: number } | { readonly error: bigint } {
  const spa = systemPage(module, operand);
  if (spa === undefined) return { error: status(STATUS.operandInvalid, operandId) };
  const { tables } = module;
  if (tables.pageType(spa) !== PAMT.none) return { error: status(STATUS.pageMetadataIncorrect, operandId) };
  module.engine.blocks.codeChanged(tables.hostOf(spa), PAGE);
  tables.clear(spa);
  tables.setPamt(spa, type);
  dropShared(module);
  return { spa };
}

/** Pages change hands: nobody may go on using an old translation to them. */
export function dropShared(module: TdxModule): void {
  // Before it is finalised no virtual processor of the TD has run.
  if (module.td.operation === 'runnable') module.flushAllTlbs();
}

/** The TD that `operand` names by its TDR, alive and with keys. */
export function checkTd(
  module: TdxModule,
  operand: bigint,
  operandId: number,
  wanted: 'building' | 'initialised' | 'runnable' | 'any',
): bigint | undefined {
  const { td } = module;
  if (td.lifeCycle === 'none' || operand !== BigInt(td.tdr)) {
    const spa = systemPage(module, operand);
    return spa === undefined
      ? status(STATUS.operandInvalid, operandId)
      : status(STATUS.pageMetadataIncorrect, operandId);
  }
  if (td.fatal) return status(STATUS.tdFatal, operandId);
  if (td.lifeCycle === 'hkid-assigned') return status(STATUS.keyStateIncorrect);
  if (td.lifeCycle !== 'keys-configured') return status(STATUS.lifecycleStateIncorrect, operandId);
  switch (wanted) {
    case 'any':
      return undefined;
    case 'building':
      return td.operation === 'uninitialised'
        ? status(STATUS.tdNotInitialized)
        : td.operation === 'runnable'
          ? status(STATUS.tdFinalized)
          : undefined;
    case 'initialised':
      return td.operation === 'uninitialised' ? status(STATUS.tdNotInitialized) : undefined;
    case 'runnable':
      return td.operation === 'runnable' ? undefined : status(STATUS.tdNotFinalized);
  }
}
