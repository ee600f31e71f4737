/** An IGVM file of launch directives, for one platform. The same directives give the same bytes. */
import { crc32 } from '../../abi/igvm/crc32.ts';
import { headersEnd, writeIgvm, type IgvmHeader } from '../../abi/igvm/file.ts';
import {
  ARCHITECTURE_X64,
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
import { eachPage, PAGE, type Directive, type PagesDirective } from '../directives.ts';
import { PARAMETERS, type IgvmPlatform } from './platforms.ts';

export interface IgvmImage {
  readonly platform: IgvmPlatform;
  readonly policy?: bigint;
  readonly highestVtl?: number;
  readonly sharedGpaBoundary?: bigint;
  readonly directives: readonly Directive[];
}

/** The only platform of the file. */
const MASK = 1;
const MOST_MEMORY = 0xffff_f000;

/** Contents of pages, each stored once; a place is counted from the first page of data. */
class Contents {
  readonly #places = new Map<number, number[]>();
  readonly #pages: Uint8Array[] = [];

  /** Undefined for zeros, which need no data. */
  unlessZero(page: Uint8Array): number | undefined {
    return page.every((byte) => byte === 0) ? undefined : this.add(page);
  }

  add(page: Uint8Array): number {
    const key = crc32(page);
    const places = this.#places.get(key) ?? [];
    const known = places.find((place) => this.#pages[place]?.every((byte, i) => byte === page[i]));
    if (known !== undefined) return known;
    this.#places.set(key, [...places, this.#pages.length]);
    return this.#pages.push(new Uint8Array(page)) - 1;
  }

  bytes(): Uint8Array {
    const all = new Uint8Array(PAGE * this.#pages.length);
    this.#pages.forEach((page, i) => all.set(page, PAGE * i));
    return all;
  }
}

/** IGVM has no page type for zeros: they become normal pages, which SNP firmware measures otherwise. */
export function hasZeroPages(directives: readonly Directive[]): boolean {
  return directives.some((entry) => entry.kind === 'pages' && entry.type === 'zero');
}

export function igvmBytes(image: IgvmImage): Uint8Array {
  const contents = new Contents();
  /** Headers whose `fileOffset`, at the given byte, is the place of a page. */
  const pointing: { readonly payload: Uint8Array; readonly at: number; readonly place: number }[] = [];
  const headers: IgvmHeader[] = [];
  const put = (type: number, payload: Uint8Array): Uint8Array => {
    headers.push({ type, optional: false, payload });
    return payload;
  };
  const point = (payload: Uint8Array, at: number, place: number | undefined): void => {
    if (place !== undefined) pointing.push({ payload, at, place });
  };

  put(
    HEADER.supportedPlatform,
    supportedPlatform.write({
      mask: MASK,
      highestVtl: image.highestVtl ?? 0,
      platform: PLATFORM[image.platform],
      platformVersion: 1,
      sharedGpaBoundary: image.sharedGpaBoundary ?? 0n,
    }),
  );
  if (image.policy !== undefined)
    put(HEADER.guestPolicy, guestPolicy.write({ policy: image.policy, mask: MASK }));
  let area = 0;
  let vp = 0;
  for (const entry of image.directives) {
    switch (entry.kind) {
      case 'region':
        // A size has 32 bits.
        for (let at = 0; at < entry.length && entry.backing === 'ram'; at += MOST_MEMORY)
          put(
            HEADER.requiredMemory,
            requiredMemory.write({
              gpa: BigInt(entry.gpa + at),
              mask: MASK,
              size: Math.min(MOST_MEMORY, entry.length - at),
            }),
          );
        break;
      case 'pages':
        if (entry.type === 'vmsa')
          eachPage(entry, (gpa, bytes) => {
            const payload = put(
              HEADER.vpContext,
              vpContext.write({ gpa: BigInt(gpa), mask: MASK, vp: vp++ }),
            );
            point(payload, vpContext.offsetOf('fileOffset'), contents.add(bytes));
          });
        else
          eachPage(entry, (gpa, bytes) => {
            const payload = put(HEADER.pageData, pageHeader(entry, gpa));
            // Secrets and CPUID values are the firmware's and the host's.
            point(payload, pageData.offsetOf('fileOffset'), contents.unlessZero(bytes));
          });
        break;
      case 'parameter': {
        const index = area++;
        put(HEADER.parameterArea, parameterArea.write({ size: BigInt(entry.length), index }));
        for (const { parameter: name, offset } of entry.contents)
          put(PARAMETERS[name], parameter.write({ index, byteOffset: offset }));
        put(HEADER.parameterInsert, parameterInsert.write({ gpa: BigInt(entry.gpa), mask: MASK, index }));
        break;
      }
      case 'context':
        // In the file as the page of its VMSA, or architectural.
        break;
    }
  }
  const version = 1;
  const dataOffset = headersEnd(version, headers);
  for (const { payload, at, place } of pointing)
    new DataView(payload.buffer, payload.byteOffset).setUint32(at, dataOffset + PAGE * place, true);
  return writeIgvm({
    version,
    architecture: ARCHITECTURE_X64,
    pageSize: PAGE,
    headers,
    data: contents.bytes(),
    dataOffset,
  });
}

function pageHeader({ type, measured }: PagesDirective, gpa: number): Uint8Array {
  const kinds: Partial<Record<PagesDirective['type'], number>> = {
    secrets: PAGE_DATA.secrets,
    cpuid: PAGE_DATA.cpuid,
  };
  const flags = type === 'shared' ? PAGE_FLAG.shared : measured ? 0 : PAGE_FLAG.unmeasured;
  return pageData.write({ gpa: BigInt(gpa), mask: MASK, flags, type: kinds[type] ?? PAGE_DATA.normal });
}
