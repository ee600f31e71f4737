/**
 * How a VM is launched: an ordered list of directives, the form that an IGVM file has. A loader makes it, a
 * measurement hashes it, the host carries it out. Plain data.
 */
import { PAGE_SIZE } from '../abi/hyperv/pages.ts';
import type { Directive, PagesDirective, ParameterDirective, RegionDirective } from '../seats/launch.ts';
import { fail, hex, type Failure } from './outcome.ts';

export type {
  ContextDirective,
  Directive,
  InitialRegisters,
  MemoryRange,
  PagesDirective,
  PageType,
  ParameterDirective,
  ParameterName,
  RegionDirective,
  SegmentRegister,
  TableRegister,
} from '../seats/launch.ts';
export { eachPage } from '../abi/page-runs.ts';

export const PAGE = PAGE_SIZE;

/**
 * What a host must check before it carries a list out: aligned and inside its regions, no byte given twice, one
 * context for a VP.
 */
export function checkDirectives(list: readonly Directive[]): { readonly ok: true } | Failure {
  const regions = list.filter((entry) => entry.kind === 'region');
  const contents = list.filter((entry) => entry.kind === 'pages' || entry.kind === 'parameter');
  for (const range of [...regions, ...contents]) {
    const whole = range.gpa % PAGE === 0 && range.length % PAGE === 0 && range.gpa >= 0 && range.length > 0;
    if (!whole || !Number.isSafeInteger(range.gpa + range.length)) {
      return refuse(range, 'is not a run of whole pages');
    }
    if (range.kind === 'pages' && range.data.length > range.length) {
      return refuse(range, `has ${range.data.length} bytes for ${range.length}`);
    }
  }
  const overlapping = firstOverlap(regions) ?? firstOverlap(contents);
  if (overlapping !== undefined) return refuse(overlapping, 'overlaps another one');
  for (const range of contents) {
    const inside = regions.some(
      (region) => range.gpa >= region.gpa && range.gpa + range.length <= region.gpa + region.length,
    );
    if (!inside) return refuse(range, 'lies in no region');
  }
  const vps = new Set<number>();
  for (const entry of list) {
    if (entry.kind !== 'context') continue;
    if (vps.has(entry.vp)) return fail(`VP ${entry.vp} has two contexts`, 'launch directives', 'give one');
    vps.add(entry.vp);
  }
  return { ok: true };
}

type Range = RegionDirective | PagesDirective | ParameterDirective;

function firstOverlap(ranges: readonly Range[]): Range | undefined {
  const sorted = [...ranges].sort((a, b) => a.gpa - b.gpa);
  return sorted.find((range, i) => {
    const before = sorted[i - 1];
    return before !== undefined && before.gpa + before.length > range.gpa;
  });
}

function refuse(range: Range, why: string): Failure {
  const label = range.kind === 'pages' ? `pages '${range.name}'` : range.kind;
  return fail(
    `${label} at ${hex(range.gpa)}, length ${hex(range.length)}, ${why}`,
    'launch directives',
    'give runs of whole pages that lie in regions and do not overlap',
  );
}
