/**
 * The `tdx` configuration: a TD without a paravisor that starts a Linux kernel. Kernel, initrd, command line and sizes in;
 * launch directives out. Everything that is added is measured; the rest of the memory the start code accepts.
 */
import { E820_TYPE } from '../../abi/boot-params.ts';
import {
  checkDirectives,
  PAGE,
  type Directive,
  type MemoryRange,
  type PagesDirective,
} from '../directives.ts';
import { pageRuns, type Piece } from '../image.ts';
import { linuxImage, type LaunchPart, type LinuxConfig } from '../linux.ts';
import { GIB, LOW, MIB, type MemoryMap } from '../memory-map.ts';
import { fail, hex, size, type Failure } from '../outcome.ts';
import { identityPageTables } from '../page-tables.ts';
import { MAILBOX, RESET_PAGE, START_BASE, START_BYTES, START_DATA, START_TABLES } from './layout.ts';
import { acceptTable, startCode, type AcceptRange } from './start-code.ts';

/** What a guest of a confidential configuration needs to have. */
export const LEAST_CONFIDENTIAL_MEMORY = 256 * MIB;

export interface TdxLaunch {
  readonly directives: readonly Directive[];
  readonly map: MemoryMap;
  readonly kernel: { readonly format: 'bzimage' | 'elf'; readonly version: string; readonly entry: number };
  readonly parts: readonly LaunchPart[];
}

export function launchTdx(config: LinuxConfig): { readonly ok: true; readonly launch: TdxLaunch } | Failure {
  if (config.memoryBytes < LEAST_CONFIDENTIAL_MEMORY) {
    return fail(
      `${size(config.memoryBytes)} of memory are too little for a TD`,
      'memory',
      `give at least ${size(LEAST_CONFIDENTIAL_MEMORY)}`,
    );
  }
  const linux = linuxImage(config, START_BYTES, { reservedType: E820_TYPE.nvs, wakeupMailbox: MAILBOX });
  if (!linux.ok) return linux;
  const { image } = linux;
  const pieces: Piece[] = [
    { name: 'wakeup mailbox', gpa: MAILBOX, bytes: new Uint8Array(PAGE) },
    { name: 'page tables', gpa: START_TABLES, bytes: identityPageTables(START_TABLES, 4 * GIB) },
    { name: 'start code', gpa: RESET_PAGE, bytes: startCode(image.kernel.entry, LOW.bootParams) },
  ];
  // The table is one of the pages that need no acceptance.
  const added: MemoryRange[] = [
    ...image.pages,
    { gpa: START_DATA, length: PAGE },
    ...pieces.map(({ gpa, bytes }) => ({ gpa, length: bytes.length })),
  ];
  const accept = acceptTable(gaps(image.map.regions, added));
  if (accept.length > PAGE)
    return fail('the memory to accept is in too many pieces', 'memory', 'give another size');
  const start = pageRuns([...pieces, { name: 'memory to accept', gpa: START_DATA, bytes: accept }]);
  if (!start.ok)
    return fail(
      `the start code's ${start.first.name} reaches into ${start.second.name} at ${hex(START_BASE)}`,
      'kernel',
      'give another one',
    );
  const pages: PagesDirective[] = [...image.pages, ...start.pages].sort((a, b) => a.gpa - b.gpa);
  const directives: Directive[] = [
    ...image.map.regions,
    { kind: 'region', gpa: RESET_PAGE, length: PAGE, backing: 'ram' },
    ...pages,
  ];
  const checked = checkDirectives(directives);
  if (!checked.ok) return checked;
  return {
    ok: true,
    launch: { directives, map: image.map, kernel: image.kernel, parts: partsOf(image.parts, start.pages) },
  };
}

function partsOf(image: readonly LaunchPart[], start: readonly PagesDirective[]): readonly LaunchPart[] {
  return [...image, ...start.map(({ name, gpa, length }) => ({ name, gpa, length }))].sort(
    (a, b) => a.gpa - b.gpa,
  );
}

/** What of the regions lies in no run of pages. */
function gaps(regions: readonly MemoryRange[], runs: readonly MemoryRange[]): AcceptRange[] {
  const ranges: AcceptRange[] = [];
  const sorted = [...runs].sort((a, b) => a.gpa - b.gpa);
  for (const { gpa, length } of regions) {
    let at = gpa;
    for (const run of sorted) {
      if (run.gpa + run.length <= at || run.gpa >= gpa + length) continue;
      if (run.gpa > at) ranges.push({ gpa: at, length: run.gpa - at });
      at = run.gpa + run.length;
    }
    if (at < gpa + length) ranges.push({ gpa: at, length: gpa + length - at });
  }
  return ranges;
}
