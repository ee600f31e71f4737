/** Launch directives of an IGVM file for one platform, in the file's order. */
import { readIgvm, type IgvmFile, type IgvmHeader } from '../../abi/igvm/file.ts';
import {
  ARCHITECTURE_X64,
  errorRange,
  guestPolicy,
  HEADER,
  PAGE_DATA,
  PAGE_FLAG,
  pageData,
  parameter,
  parameterArea,
  parameterInsert,
  PLATFORM,
  requiredMemory,
  supportedPlatform,
  vpContext,
} from '../../abi/igvm/headers.ts';
import type { Layout, Field } from '../../abi/record.ts';
import {
  PAGE,
  type Directive,
  type PagesDirective,
  type PageType,
  type ParameterDirective,
  type ParameterName,
} from '../directives.ts';
import { fail, hex, type Failure } from '../outcome.ts';
import { parameterOf, platformName, type IgvmPlatform } from './platforms.ts';

export interface IgvmLaunch {
  /** Guest policy in the platform's own form; none: the file has none. */
  readonly policy: bigint | undefined;
  readonly highestVtl: number;
  /** The first shared address; 0: none. */
  readonly sharedGpaBoundary: bigint;
  /** Pages and rooms for parameters, in order. Regions are the host's to add. */
  readonly directives: readonly Directive[];
  /** Where the image expects memory. */
  readonly requiredMemory: readonly { readonly gpa: number; readonly length: number }[];
}

export type IgvmLaunchOutcome = { readonly ok: true; readonly launch: IgvmLaunch } | Failure;

const LARGE_PAGE = 0x20_0000;
const ADVICE = 'give a whole image for this platform';

/** `fail` with the number of the header that is wrong. */
class Broken {
  readonly what: string;
  readonly header: number;
  constructor(what: string, header: number) {
    this.what = what;
    this.header = header;
  }
}

export function igvmLaunch(bytes: Uint8Array, platform: IgvmPlatform): IgvmLaunchOutcome {
  const read = readIgvm(bytes);
  if (!read.ok)
    return fail(`the image ${read.what}`, `IGVM file, byte ${hex(read.at)}`, 'give a whole IGVM file');
  const { file } = read;
  if (file.architecture !== ARCHITECTURE_X64) return fail('the image is not for x86-64', 'IGVM file', ADVICE);
  if (file.pageSize !== PAGE)
    return fail(`the image has pages of ${file.pageSize} bytes`, 'IGVM file', 'give one with pages of 4096');
  const rows = file.headers
    .filter(({ type, payload }) => type === HEADER.supportedPlatform && supportedPlatform.fits(payload))
    .map(({ payload }) => supportedPlatform.read(payload));
  const row = rows.find((candidate) => candidate.platform === PLATFORM[platform]);
  if (row === undefined) {
    const names = rows.map((candidate) => platformName(candidate.platform)).join(', ');
    return fail(
      `the image is for ${names === '' ? 'nothing' : names}, not for ${platform}`,
      'IGVM file',
      ADVICE,
    );
  }
  const result = collect(file, row.mask, platform);
  if (result instanceof Broken)
    return fail(`the image ${result.what}`, `IGVM file, header ${result.header}`, ADVICE);
  return {
    ok: true,
    launch: { ...result, highestVtl: row.highestVtl, sharedGpaBoundary: row.sharedGpaBoundary },
  };
}

type Collected = Omit<IgvmLaunch, 'highestVtl' | 'sharedGpaBoundary'>;

interface Area {
  readonly size: number;
  readonly contents: { parameter: ParameterName; offset: number }[];
  isInserted: boolean;
}

function collect(file: IgvmFile, mask: number, platform: IgvmPlatform): Collected | Broken {
  let policy: bigint | undefined;
  const directives: Directive[] = [];
  const required: { gpa: number; length: number }[] = [];
  const areas = new Map<number, Area>();
  const inserts: { area: Area; directive: number; gpa: number }[] = [];

  for (const [number, header] of file.headers.entries()) {
    const { payload } = header;
    const short = tooShort(header);
    if (short !== undefined) return new Broken(short, number);
    switch (header.type) {
      case HEADER.guestPolicy: {
        const { policy: value, mask: of } = guestPolicy.read(payload);
        if ((of & mask) !== 0) policy = value;
        break;
      }
      case HEADER.parameterArea: {
        const { size, index } = parameterArea.read(payload);
        if (size === 0n || size % BigInt(PAGE) !== 0n || size > 0xffff_ffffn)
          return new Broken(`has a parameter area of ${hex(size)} bytes`, number);
        if (areas.has(index)) return new Broken(`has parameter area ${index} twice`, number);
        areas.set(index, { size: Number(size), contents: [], isInserted: false });
        break;
      }
      case HEADER.parameterInsert: {
        const { gpa, mask: of, index } = parameterInsert.read(payload);
        if ((of & mask) === 0) break;
        const area = areas.get(index);
        if (area === undefined)
          return new Broken(`inserts parameter area ${index}, which it does not have`, number);
        if (area.isInserted) return new Broken(`inserts parameter area ${index} twice`, number);
        if (!isPage(gpa)) return new Broken(`inserts parameters at ${hex(gpa)}`, number);
        area.isInserted = true;
        inserts.push({ area, directive: directives.length, gpa: Number(gpa) });
        // Its place in the order counts; what the host writes there may be said later.
        directives.push({ kind: 'parameter', gpa: Number(gpa), length: area.size, contents: [] });
        break;
      }
      case HEADER.pageData: {
        const page = pageData.read(payload);
        if ((page.mask & mask) === 0) break;
        const made = pagesOf(file, page);
        if (typeof made === 'string') return new Broken(made, number);
        append(directives, made, file.data);
        break;
      }
      case HEADER.vpContext: {
        const context = vpContext.read(payload);
        if ((context.mask & mask) === 0) break;
        // Elsewhere the state is architectural or the hypervisor's own form, and no page of the guest.
        if (platform !== 'snp') break;
        const data = dataAt(file, context.fileOffset, PAGE);
        if (data === undefined || !isPage(context.gpa))
          return new Broken(`has the context of VP ${context.vp} outside`, number);
        directives.push({
          kind: 'pages',
          gpa: Number(context.gpa),
          length: PAGE,
          type: 'vmsa',
          measured: true,
          name: `context of VP ${context.vp}`,
          data,
        });
        break;
      }
      case HEADER.requiredMemory: {
        const { gpa, mask: of, size } = requiredMemory.read(payload);
        if ((of & mask) === 0) break;
        if (!isPage(gpa) || size % PAGE !== 0)
          return new Broken(`requires ${hex(size)} bytes at ${hex(gpa)}`, number);
        required.push({ gpa: Number(gpa), length: size });
        break;
      }
      case HEADER.errorRange: {
        const { gpa, mask: of, size } = errorRange.read(payload);
        if ((of & mask) === 0) break;
        if (!isPage(gpa) || size === 0 || size % PAGE !== 0)
          return new Broken(`has an error range of ${hex(size)} bytes at ${hex(gpa)}`, number);
        directives.push({
          kind: 'pages',
          gpa: Number(gpa),
          length: size,
          type: 'shared',
          measured: false,
          name: 'error range',
          data: new Uint8Array(0),
        });
        break;
      }
      default: {
        const name = parameterOf(header.type);
        if (name === undefined) break;
        const { index, byteOffset } = parameter.read(payload);
        const area = areas.get(index);
        if (area === undefined || byteOffset >= area.size)
          return new Broken(`wants ${name} in parameter area ${index} at ${hex(byteOffset)}`, number);
        area.contents.push({ parameter: name, offset: byteOffset });
      }
    }
  }
  for (const { area, directive, gpa } of inserts)
    directives[directive] = {
      kind: 'parameter',
      gpa,
      length: area.size,
      contents: area.contents,
    } satisfies ParameterDirective;
  return { policy, directives, requiredMemory: required };
}

const isPage = (gpa: bigint): boolean => gpa % BigInt(PAGE) === 0n && gpa <= 0x000f_ffff_ffff_f000n;

const LAYOUTS: ReadonlyMap<number, Pick<Layout<readonly Field[]>, 'size' | 'name'>> = new Map<
  number,
  Pick<Layout<readonly Field[]>, 'size' | 'name'>
>([
  [HEADER.supportedPlatform, supportedPlatform],
  [HEADER.guestPolicy, guestPolicy],
  [HEADER.parameterArea, parameterArea],
  [HEADER.pageData, pageData],
  [HEADER.parameterInsert, parameterInsert],
  [HEADER.vpContext, vpContext],
  [HEADER.requiredMemory, requiredMemory],
  [HEADER.errorRange, errorRange],
]);

/** Types that change what is launched and that are not carried out. */
const NOT_SERVED: ReadonlySet<number> = new Set([HEADER.relocatableRegion, HEADER.pageTableRelocation]);
/** What says nothing about the launch itself, or is for other platforms. */
const WITHOUT_EFFECT: ReadonlySet<number> = new Set([
  HEADER.corimDocument,
  HEADER.corimSignature,
  HEADER.ccaPolicy,
  HEADER.snpIdBlock,
  HEADER.vbsMeasurement,
  // A host may move an image, and need not.
  ...NOT_SERVED,
]);

/** Why a header cannot be used: too short for its type, or of a type that nobody may ignore. */
function tooShort({ type, optional, payload }: IgvmHeader): string | undefined {
  const layout = LAYOUTS.get(type) ?? (parameterOf(type) === undefined ? undefined : parameter);
  if (layout !== undefined) {
    return payload.length < layout.size ? `has ${payload.length} bytes for ${layout.name}` : undefined;
  }
  return optional || WITHOUT_EFFECT.has(type) ? undefined : `has a header of unknown type ${hex(type)}`;
}

const PAGE_TYPES: Readonly<Record<number, PageType>> = {
  [PAGE_DATA.normal]: 'normal',
  [PAGE_DATA.secrets]: 'secrets',
  [PAGE_DATA.cpuid]: 'cpuid',
  [PAGE_DATA.cpuidExtendedState]: 'cpuid',
};

function pagesOf(file: IgvmFile, page: ReturnType<typeof pageData.read>): PagesDirective | string {
  const length = page.flags & PAGE_FLAG.large ? LARGE_PAGE : PAGE;
  const type = PAGE_TYPES[page.type];
  if (type === undefined) return `has a page of unknown type ${page.type}`;
  if (page.flags >>> 3 !== 0) return `has a page with unknown flags ${hex(page.flags)}`;
  if (!isPage(page.gpa) || Number(page.gpa) % length !== 0) return `has a page at ${hex(page.gpa)}`;
  const data = page.fileOffset === 0 ? new Uint8Array(0) : dataAt(file, page.fileOffset, length);
  if (data === undefined) return `has the contents of the page at ${hex(page.gpa)} outside`;
  const isShared = (page.flags & PAGE_FLAG.shared) !== 0;
  return {
    kind: 'pages',
    gpa: Number(page.gpa),
    length,
    type: isShared ? 'shared' : type,
    measured: !isShared && (page.flags & PAGE_FLAG.unmeasured) === 0,
    name: 'igvm',
    data,
  };
}

/** A view of the file's data; undefined when it lies outside. */
function dataAt({ data, dataOffset }: IgvmFile, fileOffset: number, length: number): Uint8Array | undefined {
  const at = fileOffset - dataOffset;
  return at < 0 || at + length > data.length ? undefined : data.subarray(at, at + length);
}

/** Makes one run of pages that follow each other in the guest and, when they have contents, in the file. */
function append(directives: Directive[], next: PagesDirective, data: Uint8Array): void {
  const last = directives.at(-1);
  const fits =
    last?.kind === 'pages' &&
    last.type === next.type &&
    last.measured === next.measured &&
    last.name === next.name &&
    last.gpa + last.length === next.gpa;
  if (fits && last.data.length === 0 && next.data.length === 0) {
    directives[directives.length - 1] = { ...last, length: last.length + next.length };
    return;
  }
  const isBehind =
    fits &&
    last.data.length === last.length &&
    next.data.length > 0 &&
    last.data.byteOffset + last.data.length === next.data.byteOffset;
  if (isBehind) {
    const from = last.data.byteOffset - data.byteOffset;
    const length = last.length + next.length;
    directives[directives.length - 1] = { ...last, length, data: data.subarray(from, from + length) };
    return;
  }
  directives.push(next);
}
