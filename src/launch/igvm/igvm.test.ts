import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { headersEnd, readIgvm, writeIgvm, type IgvmHeader } from '../../abi/igvm/file.ts';
import {
  errorRange,
  guestPolicy,
  HEADER,
  pageData,
  parameter,
  parameterArea,
  parameterInsert,
  supportedPlatform,
  vpContext,
} from '../../abi/igvm/headers.ts';
import { measureDirectives } from '../../machine/measure/measurement.ts';
import type { Directive, PagesDirective } from '../directives.ts';
import { igvmLaunch, type IgvmLaunch } from './read.ts';
import { hasZeroPages, igvmBytes } from './write.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const pages = (gpa: number, values: Partial<PagesDirective> = {}): PagesDirective => ({
  kind: 'pages',
  gpa,
  length: 0x1000,
  type: 'normal',
  measured: true,
  name: 'igvm',
  data: new Uint8Array(0),
  ...values,
});
const filled = (fill: number, length = 0x1000): Uint8Array => new Uint8Array(length).fill(fill);
function launch(bytes: Uint8Array, platform: 'snp' | 'tdx' = 'snp'): IgvmLaunch {
  const outcome = igvmLaunch(bytes, platform);
  if (!outcome.ok) throw new Error(outcome.error.what);
  return outcome.launch;
}
/** A file with these headers behind platforms SNP (mask 1) and TDX (mask 2), and these pages of data. */
function file(headers: readonly (readonly [number, Uint8Array])[], ...data: Uint8Array[]): Uint8Array {
  const all: IgvmHeader[] = [
    [
      HEADER.supportedPlatform,
      supportedPlatform.write({
        mask: 1,
        platform: 2,
        platformVersion: 1,
        highestVtl: 2,
        sharedGpaBoundary: 1n << 46n,
      }),
    ] as const,
    [
      HEADER.supportedPlatform,
      supportedPlatform.write({ mask: 2, platform: 3, platformVersion: 1 }),
    ] as const,
    ...headers,
  ].map(([type, payload]) => ({ type, optional: false, payload }));
  const dataOffset = headersEnd(1, all);
  return writeIgvm({
    version: 1,
    architecture: 0,
    pageSize: 4096,
    headers: all,
    data: Buffer.concat(data),
    dataOffset,
  });
}
/** Where the data begins in a file of `count` such headers of these payload sizes. */
const dataStart = (...sizes: number[]): number =>
  headersEnd(
    1,
    [16, 16, ...sizes].map((size) => ({ payload: new Uint8Array(size) })),
  );

describe('igvmLaunch', () => {
  it('takes what the mask of the platform says, in order', () => {
    const at = dataStart(16, 24, 24, 24, 24, 20);
    const bytes = file(
      [
        [HEADER.guestPolicy, guestPolicy.write({ policy: 0x3001fn, mask: 1 })],
        [HEADER.pageData, pageData.write({ gpa: 0x1000n, mask: 3, fileOffset: at })],
        [HEADER.pageData, pageData.write({ gpa: 0x2000n, mask: 1, fileOffset: at + 4096 })],
        [HEADER.pageData, pageData.write({ gpa: 0x3000n, mask: 1, type: 1 })],
        [HEADER.pageData, pageData.write({ gpa: 0x4000n, mask: 2, flags: 2 })],
        [HEADER.vpContext, vpContext.write({ gpa: 0x5000n, mask: 1, fileOffset: at })],
      ],
      filled(7),
      filled(8),
    );
    const snp = launch(bytes);
    expect(snp).toMatchObject({ policy: 0x3001fn, highestVtl: 2, sharedGpaBoundary: 1n << 46n });
    expect(
      snp.directives.map((entry) =>
        entry.kind === 'pages' ? [entry.type, entry.gpa, entry.length, entry.measured] : entry,
      ),
    ).toEqual([
      ['normal', 0x1000, 0x2000, true],
      ['secrets', 0x3000, 0x1000, true],
      ['vmsa', 0x5000, 0x1000, true],
    ]);
    const tdx = launch(bytes, 'tdx');
    expect(tdx.policy).toBeUndefined();
    expect(tdx.directives).toEqual([pages(0x1000, { data: filled(7) }), pages(0x4000, { measured: false })]);
  });
  it('knows what the host will write where, also when that is said after the place', () => {
    const bytes = file([
      [HEADER.parameterArea, parameterArea.write({ size: 0x2000n, index: 5 })],
      [HEADER.memoryMap, parameter.write({ index: 5, byteOffset: 0x1000 })],
      [HEADER.parameterInsert, parameterInsert.write({ gpa: 0x9000n, mask: 1, index: 5 })],
      [HEADER.vpCount, parameter.write({ index: 5, byteOffset: 4 })],
      [HEADER.errorRange, errorRange.write({ gpa: 0xb000n, mask: 1, size: 0x1000 })],
    ]);
    expect(launch(bytes).directives).toEqual([
      {
        kind: 'parameter',
        gpa: 0x9000,
        length: 0x2000,
        contents: [
          { parameter: 'memory-map', offset: 0x1000 },
          { parameter: 'vp-count', offset: 4 },
        ],
      },
      pages(0xb000, { type: 'shared', measured: false, name: 'error range' }),
    ]);
  });
  it('reads a page of 2 MiB', () => {
    const at = dataStart(24);
    const large = file(
      [[HEADER.pageData, pageData.write({ gpa: 0x20_0000n, mask: 1, fileOffset: at, flags: 1 })]],
      filled(3, 0x20_0000),
    );
    expect(launch(large).directives).toMatchObject([{ length: 0x20_0000, measured: true }]);
  });
  const page = (values: Parameters<typeof pageData.write>[0]) =>
    file([[HEADER.pageData, pageData.write({ mask: 1, ...values })]], filled(1));
  it.each([
    ['contents behind the end', page({ fileOffset: 0xfff000 })],
    ['contents in the headers', page({ fileOffset: 8 })],
    ['an address inside a page', page({ gpa: 0x10n })],
    ['a 2 MiB page at 4 KiB', page({ gpa: 0x1000n, flags: 1 })],
    ['an unknown page type', page({ type: 9 })],
    ['unknown flags', page({ flags: 8 })],
    ['an unknown header', file([[0x3f0, new Uint8Array(8)]])],
    ['a short header', file([[HEADER.pageData, new Uint8Array(8)]])],
    [
      'an area that is not there',
      file([[HEADER.parameterInsert, parameterInsert.write({ mask: 1, index: 1 })]]),
    ],
    ['an empty area', file([[HEADER.parameterArea, parameterArea.write({})]])],
    [
      'a parameter outside its area',
      file([
        [HEADER.parameterArea, parameterArea.write({ size: 0x1000n })],
        [HEADER.madt, parameter.write({ byteOffset: 0x1000 })],
      ]),
    ],
    ['a context without contents', file([[HEADER.vpContext, vpContext.write({ mask: 1 })]])],
  ])('refuses %s', (_, bytes) => {
    const outcome = igvmLaunch(bytes, 'snp');
    expect(outcome.ok).toBe(false);
    if (!outcome.ok) expect(outcome.error.where).toMatch(/^IGVM file, header 2$|^IGVM file, header 3$/);
  });
  it('refuses a platform that the image is not for, and other files', () => {
    const native = igvmBytes({ platform: 'native', directives: [] });
    expect(igvmLaunch(native, 'snp')).toMatchObject({
      ok: false,
      error: { what: 'the image is for native, not for snp' },
    });
    expect(igvmLaunch(new Uint8Array(3), 'snp')).toMatchObject({
      ok: false,
      error: { what: 'the image is not an IGVM file' },
    });
  });
  it('may ignore what says that it may be ignored', () => {
    const read = readIgvm(file([[0x3f0, new Uint8Array(8)]]));
    if (!read.ok) throw new Error(read.what);
    const headers = read.file.headers.map((header) => ({ ...header, optional: header.type === 0x3f0 }));
    expect(igvmLaunch(writeIgvm({ ...read.file, headers }), 'snp').ok).toBe(true);
  });
});

describe('igvmBytes', () => {
  const list: readonly Directive[] = [
    { kind: 'region', gpa: 0, length: 0x100000, backing: 'ram' },
    pages(0x1000, { length: 0x3000, data: new Uint8Array(0x2004).fill(1) }),
    pages(0x10000, { length: 0x2000, measured: false, data: filled(2, 0x2000) }),
    pages(0x20000, { type: 'secrets' }),
    pages(0x21000, { type: 'cpuid', data: filled(4) }),
    pages(0x22000, { type: 'shared', measured: false }),
    { kind: 'parameter', gpa: 0x30000, length: 0x1000, contents: [{ parameter: 'madt', offset: 8 }] },
    pages(0x40000, { type: 'vmsa', data: filled(9) }),
  ];
  it.each(['snp', 'tdx'] as const)('keeps what %s measures', (platform) => {
    const of =
      platform === 'snp' ? list : list.filter((entry) => entry.kind !== 'pages' || entry.type !== 'vmsa');
    const bytes = igvmBytes({ platform, policy: 0x30000n, directives: of });
    const back = launch(bytes, platform);
    expect(back.policy).toBe(0x30000n);
    expect(back.requiredMemory).toEqual([{ gpa: 0, length: 0x100000 }]);
    expect(hex(measureDirectives(platform, back.directives).value)).toBe(
      hex(measureDirectives(platform, of).value),
    );
  });
  it('gives back every directive of runs that are whole', () => {
    const back = launch(igvmBytes({ platform: 'snp', directives: list }));
    expect(back.directives.filter(({ kind }) => kind === 'parameter')).toEqual(
      list.filter(({ kind }) => kind === 'parameter'),
    );
    const found = back.directives.find((entry) => entry.kind === 'pages' && entry.type === 'cpuid');
    expect(found).toEqual(list[4]);
  });
  it('stores equal pages once and zeros never, and is the same each time', () => {
    const many = [
      pages(0x1000, { length: 0x10000, data: filled(5, 0x10000) }),
      pages(0x20000, { length: 0x10000 }),
    ];
    const bytes = igvmBytes({ platform: 'snp', directives: many });
    const read = readIgvm(bytes);
    expect(read.ok && read.file.data.length).toBe(4096);
    expect(hex(igvmBytes({ platform: 'snp', directives: many }))).toBe(hex(bytes));
  });
  it('keeps the measurement of any list of runs', () => {
    const run = fc.record({
      at: fc.nat(40),
      count: fc.integer({ min: 1, max: 3 }),
      fill: fc.nat(2),
      type: fc.constantFrom('normal', 'secrets', 'cpuid', 'shared', 'vmsa') as fc.Arbitrary<
        PagesDirective['type']
      >,
      measured: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(run, { maxLength: 6 }), (runs) => {
        const directives = runs.map(({ at, count, fill, type, measured }) =>
          pages(0x1000 * at, {
            length: 0x1000 * count,
            type,
            measured: type === 'normal' ? measured : type !== 'shared',
            data: filled(fill, 0x1000 * count - 5),
          }),
        );
        const back = launch(igvmBytes({ platform: 'snp', directives })).directives;
        return hex(measureDirectives('snp', back).value) === hex(measureDirectives('snp', directives).value);
      }),
      { numRuns: 50 },
    );
  });
});

describe('hasZeroPages', () => {
  it('finds the type that the format does not have', () => {
    expect(hasZeroPages([pages(0)])).toBe(false);
    expect(hasZeroPages([pages(0, { type: 'zero' })])).toBe(true);
  });
});
