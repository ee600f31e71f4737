/**
 * How a VM is launched: an ordered list of directives, the form that an IGVM file has. A loader makes it, a
 * measurement hashes it, the host carries it out. Plain data.
 */
import { fail, hex, type Failure } from './outcome.ts';

export const PAGE = 4096;

/** What stands behind a range of guest-physical addresses. */
export interface RegionDirective {
  readonly kind: 'region';
  readonly gpa: number;
  readonly length: number;
  /** `rom`: contents come from page directives, the guest's writes are dropped. */
  readonly backing: 'ram' | 'rom';
}

/** Page types of the SNP launch and of IGVM: what the hardware makes of the page, and how it is measured. */
export type PageType = 'normal' | 'zero' | 'vmsa' | 'secrets' | 'cpuid' | 'shared';

/**
 * A run of whole pages, imported in ascending order. `data` may be shorter than the run: the rest is zero. It is a
 * view of the file where that is possible, so nobody may write to it.
 */
export interface PagesDirective {
  readonly kind: 'pages';
  readonly gpa: number;
  readonly length: number;
  readonly type: PageType;
  /** Whether the contents enter the launch digest. */
  readonly measured: boolean;
  /** What it is, for reports: `kernel`, `initrd`. */
  readonly name: string;
  readonly data: Uint8Array;
}

/** The registers that a VP starts with. `gpa` is the place of the context page where there is one (VMSA). */
export interface ContextDirective {
  readonly kind: 'context';
  readonly vp: number;
  /** An application processor waits for INIT and SIPI, which leave MTRRs and the like as they are here. */
  readonly activity: 'running' | 'wait-for-sipi';
  readonly gpa?: number;
  readonly registers: InitialRegisters;
}

/** Room for data that the host chooses at launch. Never measured: its reader trusts nothing in it. */
export interface ParameterDirective {
  readonly kind: 'parameter';
  readonly parameter:
    'memory-map' | 'vp-count' | 'madt' | 'srat' | 'mmio-ranges' | 'command-line' | 'environment';
  readonly gpa: number;
  readonly length: number;
}

export type Directive = RegionDirective | PagesDirective | ContextDirective | ParameterDirective;

/**
 * A segment register with its hidden part. Attributes as in a VMCB or VMSA (AMD APM vol. 2, 15.5.1): descriptor
 * bits 40-47 in bits 0-7 and bits 52-55 (AVL, L, D/B, G) in bits 8-11. The limit is in bytes.
 */
export interface SegmentRegister {
  readonly selector: number;
  readonly base: bigint;
  readonly limit: number;
  readonly attributes: number;
}

export interface TableRegister {
  readonly base: bigint;
  readonly limit: number;
}

/** Everything that a VP's first instruction can observe; values of the manuals' register names. */
export interface InitialRegisters {
  /** RAX RCX RDX RBX RSP RBP RSI RDI R8-R15, in encoding order. */
  readonly gprs: readonly bigint[];
  readonly rip: bigint;
  readonly rflags: bigint;
  readonly es: SegmentRegister;
  readonly cs: SegmentRegister;
  readonly ss: SegmentRegister;
  readonly ds: SegmentRegister;
  readonly fs: SegmentRegister;
  readonly gs: SegmentRegister;
  readonly ldtr: SegmentRegister;
  readonly tr: SegmentRegister;
  readonly gdtr: TableRegister;
  readonly idtr: TableRegister;
  readonly cr0: bigint;
  readonly cr2: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  readonly efer: bigint;
  readonly xcr0: bigint;
  readonly pat: bigint;
  readonly dr6: bigint;
  readonly dr7: bigint;
  readonly mxcsr: number;
  readonly fcw: number;
  readonly mtrrDefType: bigint;
  /** MTRRfix64K_00000, fix16K_80000, fix16K_A0000, fix4K_C0000 to fix4K_F8000. */
  readonly mtrrFixed: readonly bigint[];
}

/** Calls `visit` for every page of a run, with its bytes padded to the page. The bytes are valid during the call. */
export function eachPage(run: PagesDirective, visit: (gpa: number, contents: Uint8Array) => void): void {
  const page = new Uint8Array(PAGE);
  for (let at = 0; at < run.length; at += PAGE) {
    const contents = run.data.subarray(at, at + PAGE);
    if (contents.length === PAGE) visit(run.gpa + at, contents);
    else {
      page.fill(0);
      page.set(contents);
      visit(run.gpa + at, page);
    }
  }
}

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
