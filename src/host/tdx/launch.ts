/** Makes the TD from launch directives: control structures, measured pages, virtual processors (TDX Module ABI, "TD build"). */
import { TDH } from '../../abi/tdx/leaves.ts';
import {
  EPTP_LEVELS_4,
  EPTP_LEVELS_5,
  CONFIG_FLAG,
  TD_PARAMS,
  TSC_UNIT_HZ,
} from '../../abi/tdx/td-params.ts';
import { isError } from '../../abi/tdx/status.ts';
import { eachPage } from '../../abi/page-runs.ts';
import type { Directive, PagesDirective } from '../../seats/launch.ts';
import type { TdxHostView } from '../../seats/tdx.ts';
import {
  addTables,
  augment,
  BLOCK,
  PAGE,
  backingOf,
  entryOf,
  isShared,
  must,
  share,
  takePage,
  type TdMemory,
} from './memory.ts';
import type { TdxHostState } from './state.ts';

const TDCS_PAGES = 9;
const TDVPS_CHILDREN = 5;
const HKID = 1n;
const EXTEND_BYTES = 256;

/** A sentence when it could not. */
export function launchTd(
  state: TdxHostState,
  directives: readonly Directive[],
  view: TdxHostView,
): string | undefined {
  const { td, config } = state;
  const memory: TdMemory = { view, td };
  const regions = directives.flatMap((directive) => (directive.kind === 'region' ? [directive] : []));
  td.regions = regions.map(({ gpa, length }) => ({ gpa, length }));
  for (const { gpa, length } of regions) {
    for (let block = Math.floor(gpa / BLOCK); block * BLOCK < gpa + length; block++) {
      if (td.backing[block] !== undefined) continue;
      td.backing[block] = td.nextPage;
      td.nextPage += BLOCK;
    }
  }
  const create = (leaf: number, rcx: number, rdx: bigint): void =>
    void must(memory, leaf, { rcx: BigInt(rcx), rdx });
  td.tdr = takePage(memory);
  const tdr = BigInt(td.tdr);
  create(TDH.mngCreate, td.tdr, HKID);
  must(memory, TDH.mngKeyConfig, { rcx: tdr });
  for (let k = 0; k < TDCS_PAGES; k++) create(TDH.mngAddcx, takePage(memory), tdr);
  const wide = (config.td.configFlags & CONFIG_FLAG.gpaw52) !== 0n;
  const buffer = takePage(memory);
  view.writeSystem(
    buffer,
    TD_PARAMS.write({
      attributes: config.td.attributes,
      xfam: config.td.xfam,
      maxVcpus: config.vpCount,
      numL2Vms: config.td.numL2Vms,
      configFlags: config.td.configFlags,
      eptpControls: wide ? EPTP_LEVELS_5 : EPTP_LEVELS_4,
      tscFrequency: config.tscHz / TSC_UNIT_HZ,
      mrConfigId: config.td.mrConfigId,
      mrOwner: config.td.mrOwner,
      mrOwnerConfig: config.td.mrOwnerConfig,
    }),
  );
  const { rax } = view.seamcall(TDH.mngInit, { rcx: tdr, rdx: BigInt(buffer) });
  if (isError(rax))
    return `the TDX module refuses the TD's configuration with status 0x${rax.toString(16)}: give other attributes`;
  for (let vp = 0; vp < config.vpCount; vp++) {
    const tdvpr = takePage(memory);
    td.tdvpr.push(tdvpr);
    create(TDH.vpCreate, tdvpr, tdr);
    for (let k = 0; k < TDVPS_CHILDREN; k++) create(TDH.vpAddcx, takePage(memory), BigInt(tdvpr));
    create(TDH.vpInit, tdvpr, BigInt(config.td.launchParameter));
  }
  for (const directive of directives) {
    if (directive.kind !== 'pages') continue;
    if (directive.type === 'shared') sharePages(memory, directive);
    else addPages(memory, directive, buffer);
  }
  must(memory, TDH.mrFinalize, { rcx: tdr });
  // A program at L1 is not asked for each page: it finds all of its memory waiting to be accepted.
  if (config.td.numL2Vms > 0) for (const { gpa, length } of td.regions) offer(memory, gpa, gpa + length);
  td.freePages.push(buffer);
  return undefined;
}

/** Adds what is not there of a range of the guest's memory. */
function offer(memory: TdMemory, start: number, end: number): void {
  for (let gpa = start; gpa < end;) {
    // What the launch has shared stays so.
    if (isShared(memory, gpa)) {
      gpa += PAGE;
      continue;
    }
    const entry = entryOf(memory, gpa);
    const whole = gpa % BLOCK === 0 && gpa + BLOCK <= end;
    if (whole && entry.level === 1 && entry.state === 'free' && augment(memory, gpa, 1)) {
      gpa += BLOCK;
      continue;
    }
    if (entry.state === 'free') augment(memory, gpa, 0);
    gpa += PAGE;
  }
}

function addPages(memory: TdMemory, run: PagesDirective, buffer: number): void {
  const { view, td } = memory;
  const tdr = BigInt(td.tdr);
  let table = -1;
  eachPage(run, (gpa, contents) => {
    const block = Math.floor(gpa / BLOCK);
    if (block !== table) {
      addTables(memory, gpa, 1);
      table = block;
    }
    view.writeSystem(buffer, contents);
    must(memory, TDH.memPageAdd, {
      rcx: BigInt(gpa),
      rdx: tdr,
      r8: BigInt(backingOf(td, gpa) as number),
      r9: BigInt(buffer),
    });
    if (!run.measured) return;
    for (let at = 0; at < PAGE; at += EXTEND_BYTES)
      must(memory, TDH.mrExtend, { rcx: BigInt(gpa + at), rdx: tdr });
  });
}

function sharePages(memory: TdMemory, run: PagesDirective): void {
  eachPage(run, (gpa, contents) => {
    share(memory, gpa);
    memory.view.write(gpa, contents);
  });
}
