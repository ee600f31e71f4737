/** Carries the directives of a launch out: memory to the guest, page by page through the AMD-SP, and its first VMSA. */
import { PAGE_TYPE, STATUS } from '../../abi/snp/firmware.ts';
import { eachPage } from '../../abi/page-runs.ts';
import { vmsa } from '../../abi/snp/vmsa.ts';
import type { Directive, PagesDirective } from '../../seats/launch.ts';
import { RMP_STATUS, type LaunchFinish, type SnpHostView } from '../../seats/snp.ts';
import { ASID, BLOCK, PAGE, PAGE_KIND, spaOf, type SnpHost } from './state.ts';

/** SMT allowed, and the bit that must be one: what Hyper-V asks for its directly started guests. */
const POLICY = { lo: 0x3_0000, hi: 0 };

const TYPES: Readonly<Record<Exclude<PagesDirective['type'], 'shared'>, number>> = {
  normal: PAGE_TYPE.normal,
  zero: PAGE_TYPE.zero,
  vmsa: PAGE_TYPE.vmsa,
  secrets: PAGE_TYPE.secrets,
  cpuid: PAGE_TYPE.cpuid,
};

/** A sentence when it did not work. */
export function launchGuest(
  snp: SnpHost,
  view: SnpHostView,
  directives: readonly Directive[],
  finish: LaunchFinish = {},
): string | undefined {
  const started = view.launchStart(POLICY);
  if (started !== STATUS.success) return `the AMD-SP refused the launch with status ${started}`;
  mapMemory(snp, view, directives);
  const ended =
    forEachPage(directives, (run, gpa, contents) => importPage(snp, view, run, gpa, contents)) ??
    assignRest(snp, view);
  if (ended !== undefined) return ended;
  const finished = view.launchFinish(finish);
  if (finished !== STATUS.success) return `the AMD-SP refused to finish the launch with status ${finished}`;
  joinBlocks(snp, view);
  const first = directives.find((entry) => entry.kind === 'context' && entry.vp === 0);
  if (first?.kind === 'context' && first.gpa !== undefined) setContext(snp, view, 0, first.gpa);
  else firstContexts(snp, view, directives);
  return undefined;
}

/** Contexts without a directive: VMSA pages belong to the processors in the order in which they come. */
function firstContexts(snp: SnpHost, view: SnpHostView, directives: readonly Directive[]): void {
  let vp = 0;
  for (const entry of directives) {
    if (entry.kind !== 'pages' || entry.type !== 'vmsa') continue;
    for (let at = 0; at < entry.length && vp < snp.vps.length; at += PAGE)
      setContext(snp, view, vp++, entry.gpa + at, entry.data);
  }
}

function setContext(snp: SnpHost, view: SnpHostView, vp: number, gpa: number, data?: Uint8Array): void {
  const target = snp.vps[vp];
  const spa = spaOf(view, gpa);
  if (target === undefined || spa === undefined) return;
  // The host wrote the page and knows which VMPL it is for.
  target.vmpl = data === undefined ? 0 : vmsa.get(data, 'vmpl');
  target.vmsas[target.vmpl] = spa;
  target.vmcb.vmsa = spa;
}

/** Guest memory block by block, in ascending order of system addresses; nested entries of 4 KiB for now. */
function mapMemory(snp: SnpHost, view: SnpHostView, directives: readonly Directive[]): void {
  const blocks = new Set<number>();
  let top = 0;
  for (const entry of directives) {
    if (entry.kind !== 'region') continue;
    for (let at = entry.gpa - (entry.gpa % BLOCK); at < entry.gpa + entry.length; at += BLOCK) blocks.add(at);
    top = Math.max(top, entry.gpa + entry.length);
  }
  snp.pages = new Uint8Array(Math.ceil(top / BLOCK) * (BLOCK / PAGE));
  let spa = 0;
  for (const gpa of [...blocks].sort((a, b) => a - b)) {
    for (let at = 0; at < BLOCK; at += PAGE)
      view.map(gpa + at, { kind: 'page', spa: spa + at, large: false, writable: true });
    if (snp.aliasBit !== 0)
      view.map(gpa + 2 ** snp.aliasBit, { kind: 'page', spa, large: true, writable: true });
    spa += BLOCK;
  }
}

function forEachPage(
  directives: readonly Directive[],
  visit: (run: PagesDirective, gpa: number, contents: Uint8Array) => string | undefined,
): string | undefined {
  let failure: string | undefined;
  for (const run of directives) {
    if (run.kind !== 'pages') continue;
    eachPage(run, (gpa, contents) => (failure ??= visit(run, gpa, contents)));
    if (failure !== undefined) return failure;
  }
  return undefined;
}

function importPage(
  snp: SnpHost,
  view: SnpHostView,
  run: PagesDirective,
  gpa: number,
  contents: Uint8Array,
): string | undefined {
  const spa = spaOf(view, gpa);
  if (spa === undefined) return `the page at 0x${gpa.toString(16)} of '${run.name}' is in no region`;
  const { type } = run;
  if (type !== 'zero') view.writeSystem(spa, contents);
  if (type === 'shared') {
    snp.pages[gpa / PAGE] = PAGE_KIND.shared;
    return undefined;
  }
  const entry = { assigned: true, large: false, immutable: true, gpa, asid: ASID };
  if (view.rmpupdate(spa, entry) !== RMP_STATUS.success)
    return `RMPUPDATE refused the page at 0x${gpa.toString(16)}`;
  const firmwareType = type === 'normal' && !run.measured ? PAGE_TYPE.unmeasured : TYPES[type];
  let result = view.launchUpdate(spa, firmwareType);
  // A CPUID page that claims more than the processor has: the firmware has corrected it, and the host takes that.
  if (type === 'cpuid' && result.contents !== undefined) result = view.launchUpdate(spa, firmwareType);
  if (result.status !== STATUS.success)
    return `the AMD-SP refused the page at 0x${gpa.toString(16)} of '${run.name}' with status ${result.status}`;
  snp.pages[gpa / PAGE] = PAGE_KIND.private;
  return undefined;
}

/** Memory that the launch does not fill is the guest's too; it must validate it itself. */
function assignRest(snp: SnpHost, view: SnpHostView): string | undefined {
  for (let page = 0; page < snp.pages.length; page += BLOCK / PAGE) {
    const gpa = page * PAGE;
    const spa = spaOf(view, gpa);
    if (spa === undefined) continue;
    const isWhole = snp.pages.subarray(page, page + BLOCK / PAGE).every((kind) => kind === PAGE_KIND.none);
    const step = isWhole ? BLOCK : PAGE;
    if (isWhole) view.map(gpa, { kind: 'page', spa, large: true, writable: true });
    for (let at = 0; at < BLOCK; at += step) {
      if (snp.pages[(gpa + at) / PAGE] !== PAGE_KIND.none) continue;
      const entry = { assigned: true, large: isWhole, immutable: false, gpa: gpa + at, asid: ASID };
      if (view.rmpupdate(spa + at, entry) !== RMP_STATUS.success)
        return `RMPUPDATE refused the memory at 0x${(gpa + at).toString(16)}`;
      snp.pages.fill(
        isWhole ? PAGE_KIND.privateLarge : PAGE_KIND.private,
        (gpa + at) / PAGE,
        (gpa + at + step) / PAGE,
      );
    }
  }
  return undefined;
}

/** Blocks that are alike become one entry, so that the guest's large pages are large in every table. */
function joinBlocks(snp: SnpHost, view: SnpHostView): void {
  for (let page = 0; page < snp.pages.length; page += BLOCK / PAGE) {
    const gpa = page * PAGE;
    const spa = spaOf(view, gpa);
    if (spa === undefined || view.unsmash(spa) !== STATUS.success) continue;
    view.map(gpa, { kind: 'page', spa, large: true, writable: true });
    snp.pages.fill(PAGE_KIND.privateLarge, page, page + BLOCK / PAGE);
  }
}
