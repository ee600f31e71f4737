/** Damaged files: every loader answers with a list that can be carried out, or with a sentence, and stays small. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { launchBios } from './bios.ts';
import { checkDirectives, type Directive } from './directives.ts';
import { MIB } from './memory-map.ts';
import { launchMultiboot } from './multiboot.ts';
import { launchPlain } from './plain.ts';
import type { Failure } from './outcome.ts';
import { bzImage, elf32, elf64, multibootElf, multibootHeader } from './test-images.ts';
import { concat } from '../abi/bytes.ts';

/** The same cases in every run: a failure is then always the change under test. */
const RUNS = { numRuns: 2000, seed: 3 };
const MEMORY = 64 * MIB;
/** What a list may hold beyond its input: page tables, ACPI tables and pages that pieces share. */
const SLACK = 256 * 1024;

type Outcome =
  { readonly ok: true; readonly launch: { readonly directives: readonly Directive[] } } | Failure;

function expectSane(outcome: Outcome, input: number): void {
  if (!outcome.ok) {
    const { what, where, advice } = outcome.error;
    expect([what, where, advice].every((part) => part !== '' && /^[\x20-\x7e]+$/.test(part))).toBe(true);
    return;
  }
  expect(checkDirectives(outcome.launch.directives)).toEqual({ ok: true });
  let held = 0;
  for (const entry of outcome.launch.directives) if (entry.kind === 'pages') held += entry.data.length;
  expect(held).toBeLessThanOrEqual(input + SLACK);
}

/** A file with a few bytes changed, mostly in its headers, and perhaps cut or grown. */
function damaged(files: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> {
  const byte = fc.oneof(fc.constantFrom(0, 1, 0x7f, 0x80, 0xff), fc.nat(255));
  const at = fc.oneof({ weight: 3, arbitrary: fc.nat(0x300) }, { weight: 1, arbitrary: fc.nat(0x3000) });
  return fc
    .record({
      file: fc.constantFrom(...files),
      changes: fc.array(fc.tuple(at, byte), { maxLength: 8 }),
      length: fc.option(fc.nat(0x4000), { nil: undefined, freq: 4 }),
    })
    .map(({ file, changes, length }) => {
      const copy = new Uint8Array(length ?? file.length);
      copy.set(file.subarray(0, copy.length));
      for (const [offset, value] of changes) if (offset < copy.length) copy[offset] = value;
      return copy;
    });
}

/** The value that works, most of the time; otherwise any number. */
function anyOr(good: number): fc.Arbitrary<number> {
  return fc.oneof(
    { weight: 2, arbitrary: fc.constant(good) },
    fc.double(),
    fc.integer(),
    fc.nat(2 ** 20).map((pages) => pages * 4096),
  );
}

const page = { paddr: 0x1000000, bytes: new Uint8Array(0x1800) };
const kernels = [
  bzImage(),
  bzImage({ relocatableKernel: 0 }),
  elf64(0x1000000, [page, { paddr: 0x1001800, bytes: new Uint8Array(0x20), memorySize: 0x10000 }]),
];
const flat = {
  headerAddr: 0x200000,
  loadAddr: 0x200000,
  loadEndAddr: 0x200100,
  bssEndAddr: 0x210000,
  entryAddr: 0x200020,
};
const programs = [
  multibootElf(),
  concat(multibootHeader(0x10000, flat), new Uint8Array(0x100)),
  elf32(0x10000c, [{ paddr: 0x100000, bytes: concat(multibootHeader(), new Uint8Array(64)) }, page]),
];

describe('damaged files', () => {
  test('launchPlain', () => {
    fc.assert(
      fc.property(damaged(kernels), fc.nat(0x3000), fc.string(), (kernel, initrdLength, commandLine) => {
        const outcome = launchPlain({
          kernel,
          ...(initrdLength === 0 ? {} : { initrd: new Uint8Array(initrdLength) }),
          commandLine,
          memoryBytes: MEMORY,
          vpCount: 1,
          uarts: 1,
          entropy: new Uint8Array(0),
        });
        expectSane(outcome, kernel.length + initrdLength + commandLine.length);
      }),
      RUNS,
    );
  });

  test('launchMultiboot', () => {
    fc.assert(
      fc.property(damaged(programs), (image) => {
        const outcome = launchMultiboot({
          image,
          commandLine: 'x',
          modules: [{ bytes: new Uint8Array(100), commandLine: 'y' }],
          memoryBytes: MEMORY,
          vpCount: 1,
          boardPieces: [],
        });
        expectSane(outcome, image.length);
      }),
      RUNS,
    );
  });

  test('random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 4096 }), (image) => {
        const common = { memoryBytes: MEMORY, vpCount: 1 };
        expectSane(
          launchPlain({ ...common, kernel: image, commandLine: '', uarts: 0, entropy: new Uint8Array(0) }),
          image.length,
        );
        expectSane(
          launchMultiboot({ ...common, image, commandLine: '', modules: [], boardPieces: [] }),
          image.length,
        );
        expectSane(launchBios({ image, memoryBytes: MEMORY, signature: 0 }), image.length);
      }),
      { ...RUNS, numRuns: 500 },
    );
  });

  test('numbers of all kinds', () => {
    fc.assert(
      fc.property(anyOr(MEMORY), anyOr(3), anyOr(2), (memoryBytes, vpCount, uarts) => {
        const outcome = launchPlain({
          kernel: kernels[0] as Uint8Array,
          commandLine: '',
          memoryBytes,
          vpCount,
          uarts,
          entropy: new Uint8Array(0),
        });
        expectSane(outcome, 0x4000);
      }),
      RUNS,
    );
  });
});
