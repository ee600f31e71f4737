/**
 * The configurations with a paravisor: at VMPL0 or L1 a program of ours, and below it the same Linux as in `plain`, which finds all of
 * its memory accepted and knows nothing of encryption bits.
 *
 * Behind the ACPI tables, for each VP: what the paravisor keeps to itself, and what is shared with the host from the start.
 */
import {
  LOADED_OFFSET,
  MOST_LOADED,
  MOST_RANGES,
  PARAVISOR_FLAG,
  PARAVISOR_MAGIC,
  paravisorPage,
  paravisorRange,
  RANGES_OFFSET,
} from '../abi/paravisor-page.ts';
import { SEV_FEATURE } from '../abi/snp/vmsa.ts';
import { PAGE, type Directive, type PagesDirective, type PageType } from './directives.ts';
import { longModeEntry } from './entry-state.ts';
import { roundUp } from './image.ts';
import { linuxImage, type LinuxConfig } from './linux.ts';
import { ACPI_END, MIB, type MemoryRange } from './memory-map.ts';
import { fail, type Failure } from './outcome.ts';
import { cpuidTable, type CpuidEntry } from './snp.ts';
import { launchOf, type Launch } from './plain.ts';
import { vmsaPage } from './vmsa-page.ts';

export interface ParavisorLaunchConfig extends LinuxConfig {
  /** SHA-384 of the paravisor's code. */
  readonly build: Uint8Array;
  /** Bits of its parts. */
  readonly parts: number;
  readonly hideIsolation: boolean;
  readonly invariantTsc: boolean;
  readonly tscHz: number;
  readonly apicHz: number;
  readonly startDate: number;
  readonly physicalAddressBits: number;
  /** `snp`: answers for the CPUID page. */
  readonly technology:
    { readonly kind: 'snp'; readonly cpuid: readonly CpuidEntry[] } | { readonly kind: 'tdx' };
}

export interface ParavisorLaunch extends Launch {
  /** Address of the paravisor's measured page. */
  readonly page: number;
}

/** Shared addresses begin here: with vTOM at bit 46, as on Azure; with TDX at the shared bit of a 48-bit TD. */
export const BOUNDARY_BITS = { snp: 46, tdx: 47 } as const;

/** What VMPL0 runs with: no interrupt of the host's choice, its own debug registers. */
const PARAVISOR_FEATURES = SEV_FEATURE.snp | SEV_FEATURE.restrictedInjection | SEV_FEATURE.debugSwap;
/** The paravisor sets the rest according to its parts. */
const GUEST_FEATURES = SEV_FEATURE.snp | SEV_FEATURE.vTom;
const GUEST_VMPL = 2;

interface Layout {
  readonly page: number;
  readonly cpuid: number;
  readonly secrets: number;
  readonly ownContext: number;
  readonly context: number;
  readonly communication: number;
  readonly doorbell: number;
  readonly ownEnd: number;
  readonly guestCommunication: number;
  readonly guestMessages: number;
  readonly guestEventFlags: number;
  readonly end: number;
}

function layOut(vpCount: number): Layout {
  let next = ACPI_END;
  const take = (pages: number): number => {
    const at = next;
    next += pages * PAGE;
    return at;
  };
  const page = take(1);
  const cpuid = take(1);
  const secrets = take(1);
  const ownContext = take(vpCount);
  const context = take(vpCount);
  const communication = take(vpCount);
  const doorbell = take(vpCount);
  const ownEnd = next;
  const guestCommunication = take(vpCount);
  const guestMessages = take(vpCount);
  const guestEventFlags = take(vpCount);
  return {
    page,
    cpuid,
    secrets,
    ownContext,
    context,
    communication,
    doorbell,
    ownEnd,
    guestCommunication,
    guestMessages,
    guestEventFlags,
    end: roundUp(next, 2 * MIB),
  };
}

export function launchParavisor(
  config: ParavisorLaunchConfig,
): { readonly ok: true; readonly launch: ParavisorLaunch } | Failure {
  const { vpCount } = config;
  const at = layOut(vpCount);
  const linux = linuxImage(config, at.end - ACPI_END);
  if (!linux.ok) return linux;
  const { image } = linux;
  const loaded = merged(image.pages);
  const ram = image.map.regions.flatMap(({ gpa, length }) => around({ gpa, length }, at));
  if (loaded.length > MOST_LOADED || ram.length > MOST_RANGES)
    return fail('the image lies in too many pieces', 'kernel', 'give one with fewer segments');
  const own = (
    name: string,
    gpa: number,
    pages: number,
    type: PageType,
    data: Uint8Array = new Uint8Array(0),
  ): PagesDirective => ({
    kind: 'pages',
    gpa,
    length: pages * PAGE,
    type,
    measured: type !== 'shared',
    name,
    data,
  });
  const guestContext = vmsaPage(image.registers, {
    vmpl: GUEST_VMPL,
    features: GUEST_FEATURES,
    virtualTom: 1n << BigInt(BOUNDARY_BITS.snp),
  });
  const { technology } = config;
  const both: Directive[] = [
    own('paravisor', at.page, 1, 'normal', measuredPage(config, at, ram, loaded)),
    // The first registers of VP 0's guest, in the form of a VMSA also where there are none.
    own('guest contexts', at.context, vpCount, 'normal', guestContext),
    own('guest communication', at.guestCommunication, 3 * vpCount, 'shared'),
    ...image.pages,
  ];
  const directives: Directive[] =
    technology.kind === 'snp'
      ? [
          ...image.map.regions,
          ...both,
          own('cpuid', at.cpuid, 1, 'cpuid', cpuidTable(technology.cpuid)),
          own('secrets', at.secrets, 1, 'secrets'),
          own('paravisor communication', at.communication, 2 * vpCount, 'shared'),
          ...Array.from({ length: vpCount }, (_, vp): Directive => {
            const gpa = at.ownContext + PAGE * vp;
            // Its registers mean nothing to a program; what counts is the VMPL and the features.
            const registers = longModeEntry({ rip: at.page, rsi: 0, cr3: 0n, gdt: 0 });
            const data = vmsaPage(registers, { vmpl: 0, features: PARAVISOR_FEATURES, virtualTom: 0n });
            return own('paravisor context', gpa, 1, 'vmsa', data);
          }),
        ]
      : [
          ...image.map.regions,
          // State pages and virtual APICs of the L2 VM: L1 speaks with the module through them, not with the host.
          ...[...both, own('guest state', at.communication, 2 * vpCount, 'normal')].sort((a, b) =>
            a.kind === 'pages' && b.kind === 'pages' ? a.gpa - b.gpa : 0,
          ),
        ];
  const launch = launchOf(image, directives);
  return launch.ok ? { ok: true, launch: { ...launch.launch, page: at.page } } : launch;
}

/** A RAM range without the block that is laid out behind the ACPI tables. */
function around(range: MemoryRange, at: Layout): MemoryRange[] {
  const end = range.gpa + range.length;
  if (end <= ACPI_END || range.gpa >= at.end) return [range];
  return [
    { gpa: range.gpa, length: ACPI_END - range.gpa },
    { gpa: at.end, length: end - at.end },
  ].filter(({ length }) => length > 0);
}

/** Runs of pages, ascending, with those that touch made one. */
function merged(pages: readonly PagesDirective[]): MemoryRange[] {
  const ranges: { gpa: number; length: number }[] = [];
  for (const { gpa, length } of [...pages].sort((a, b) => a.gpa - b.gpa)) {
    const last = ranges.at(-1);
    if (last !== undefined && last.gpa + last.length === gpa) last.length += length;
    else ranges.push({ gpa, length });
  }
  return ranges;
}

function measuredPage(
  config: ParavisorLaunchConfig,
  at: Layout,
  ram: readonly MemoryRange[],
  loaded: readonly MemoryRange[],
): Uint8Array {
  const page = paravisorPage.write({
    magic: PARAVISOR_MAGIC,
    build: config.build,
    parts: config.parts,
    flags:
      (config.hideIsolation ? PARAVISOR_FLAG.hideIsolation : 0) |
      (config.invariantTsc ? PARAVISOR_FLAG.invariantTsc : 0) |
      PARAVISOR_FLAG.x2apic |
      PARAVISOR_FLAG.tscDeadline,
    vpCount: config.vpCount,
    boundaryBits: BOUNDARY_BITS[config.technology.kind],
    uarts: config.uarts,
    physicalAddressBits: config.physicalAddressBits,
    tscHz: BigInt(config.tscHz),
    apicHz: BigInt(config.apicHz),
    startDate: BigInt(config.startDate),
    communication: BigInt(at.communication),
    doorbell: BigInt(at.doorbell),
    context: BigInt(at.context),
    guestCommunication: BigInt(at.guestCommunication),
    guestMessages: BigInt(at.guestMessages),
    guestEventFlags: BigInt(at.guestEventFlags),
    cpuid: BigInt(at.cpuid),
    ownStart: BigInt(at.page),
    ownEnd: BigInt(at.ownEnd),
    rangeCount: ram.length,
    loadedCount: loaded.length,
    vendor: config.technology.kind === 'snp' ? 0 : 1,
  });
  const put = (first: number, ranges: readonly MemoryRange[]): void => {
    for (const [i, { gpa, length }] of ranges.entries())
      paravisorRange.write(
        { gpa: BigInt(gpa), length: BigInt(length) },
        page,
        first + paravisorRange.size * i,
      );
  };
  put(RANGES_OFFSET, ram);
  put(LOADED_OFFSET, loaded);
  return page;
}
