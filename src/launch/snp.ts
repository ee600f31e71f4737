/**
 * The `snp` configuration: the unmodified kernel at VMPL0, all memory accepted at launch, page tables with the C-bit.
 *
 * Behind the ACPI tables lie the pages that the firmware and the kernel share: secrets, CPUID, the blob that points to both, and
 * the first processor's VMSA. They are no RAM to the kernel, which maps them itself. The setup_data node that points to the blob
 * is RAM: what is not, Linux would later map without the C-bit (memremap in boot_params_ksysfs_init).
 */
import { setU32 } from '../abi/record.ts';
import { CC_BLOB_MAGIC, ccBlob, SETUP_CC_BLOB } from '../abi/snp/cc-blob.ts';
import { CPUID_FUNCTIONS, cpuidFunction, cpuidPage } from '../abi/snp/launch.ts';
import { SEV_FEATURE } from '../abi/snp/vmsa.ts';
import { setupDataChain } from './boot-params.ts';
import { PAGE, type Directive, type PagesDirective, type PageType } from './directives.ts';
import { linuxImage, type LinuxConfig } from './linux.ts';
import { ACPI_END, LOW, MIB, type MemoryRange } from './memory-map.ts';
import { fail, size, type Failure } from './outcome.ts';
import { launchOf, type Launch } from './plain.ts';
import { vmsaPage } from './vmsa-page.ts';

/** One answer of the CPUID page. */
export interface CpuidEntry {
  readonly leaf: number;
  readonly subleaf: number;
  readonly xcr0: number;
  readonly xss: number;
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

export interface SnpLaunchConfig extends LinuxConfig {
  readonly cpuid: readonly CpuidEntry[];
  /** Position of the C-bit. */
  readonly cBit: number;
}

/** Linux takes 64 MiB for its bounce buffers alone. */
export const LEAST_COCO_MEMORY = 256 * MIB;

const RESERVED = 0x1_0000;
const AT = {
  secrets: ACPI_END,
  cpuid: ACPI_END + PAGE,
  blob: ACPI_END + 2 * PAGE,
  vmsa: ACPI_END + 3 * PAGE,
  setupData: LOW.setupData,
} as const;

export function launchSnp(config: SnpLaunchConfig): { readonly ok: true; readonly launch: Launch } | Failure {
  if (config.memoryBytes < LEAST_COCO_MEMORY)
    return fail(
      `${size(config.memoryBytes)} of memory are too little for a confidential VM`,
      'memory',
      `give at least ${size(LEAST_COCO_MEMORY)}`,
    );
  if (config.cpuid.length > CPUID_FUNCTIONS)
    throw new RangeError(`${config.cpuid.length} CPUID answers do not fit`);
  const encryption = 1n << BigInt(config.cBit);
  const linux = linuxImage(config, RESERVED, { encryption, setupData: AT.setupData });
  if (!linux.ok) return linux;
  const { image } = linux;
  const page = (name: string, gpa: number, type: PageType, data: Uint8Array): PagesDirective => ({
    kind: 'pages',
    gpa,
    length: PAGE,
    type,
    measured: true,
    name,
    data,
  });
  const context = vmsaPage(image.registers, { vmpl: 0, features: SEV_FEATURE.snp, virtualTom: 0n });
  const contents: PagesDirective[] = [
    ...image.pages,
    page('secrets', AT.secrets, 'secrets', new Uint8Array(0)),
    page('cpuid', AT.cpuid, 'cpuid', cpuidTable(config.cpuid)),
    page('cc blob', AT.blob, 'normal', blob()),
    page('setup data', AT.setupData, 'normal', setupData()),
  ].sort((a, b) => a.gpa - b.gpa);
  const zeros = gaps(
    image.map.regions,
    [...contents, { gpa: AT.vmsa, length: PAGE }].sort((a, b) => a.gpa - b.gpa),
  ).map(({ gpa, length }): PagesDirective => ({
    kind: 'pages',
    gpa,
    length,
    type: 'zero',
    measured: true,
    name: 'zero',
    data: new Uint8Array(0),
  }));
  const directives: Directive[] = [
    ...image.map.regions,
    ...[...contents, ...zeros].sort((a, b) => a.gpa - b.gpa),
    // Last, like every VMM that launches SNP guests.
    page('context', AT.vmsa, 'vmsa', context),
    { kind: 'context', vp: 0, activity: 'running', gpa: AT.vmsa, registers: image.registers },
  ];
  return launchOf(image, directives);
}

export function cpuidTable(entries: readonly CpuidEntry[]): Uint8Array {
  const table = new Uint8Array(PAGE);
  cpuidPage.set(table, 'count', entries.length);
  entries.forEach(({ leaf, subleaf, xcr0, xss, eax, ebx, ecx, edx }, i) =>
    cpuidFunction.write(
      { eaxIn: leaf, ecxIn: subleaf, xcr0In: BigInt(xcr0), xssIn: BigInt(xss), eax, ebx, ecx, edx },
      table,
      cpuidPage.size + i * cpuidFunction.size,
    ),
  );
  return table;
}

function blob(): Uint8Array {
  return ccBlob.write({
    magic: CC_BLOB_MAGIC,
    secrets: BigInt(AT.secrets),
    secretsLength: PAGE,
    cpuid: BigInt(AT.cpuid),
    cpuidLength: PAGE,
  });
}

function setupData(): Uint8Array {
  const payload = new Uint8Array(4);
  setU32(payload, 0, AT.blob);
  return setupDataChain(AT.setupData, [{ type: SETUP_CC_BLOB, payload }]);
}

/** What of the regions no range covers. Both ascending. */
function gaps(regions: readonly MemoryRange[], taken: readonly MemoryRange[]): MemoryRange[] {
  const free: MemoryRange[] = [];
  for (const region of regions) {
    let at = region.gpa;
    const end = region.gpa + region.length;
    for (const { gpa, length } of taken) {
      if (gpa < region.gpa || gpa >= end) continue;
      if (gpa > at) free.push({ gpa: at, length: gpa - at });
      at = Math.max(at, gpa + length);
    }
    if (at < end) free.push({ gpa: at, length: end - at });
  }
  return free;
}
