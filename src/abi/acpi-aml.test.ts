import { describe, expect, test } from 'vitest';
import * as aml from './acpi-aml.ts';
import { ascii } from './bytes.ts';

const list = (bytes: Uint8Array): number[] => Array.from(bytes);

describe('packageLength (ACPI 6.5, 20.2.4)', () => {
  test.each([
    [0, [0x01]],
    [62, [0x3f]],
    [63, [0x41, 0x04]], // 65 bytes with the two of the length itself
    [0xffd, [0x4f, 0xff]],
    [0xffe, [0x81, 0x00, 0x01]],
    [0xffffc, [0x8f, 0xff, 0xff]],
    [0xffffd, [0xc1, 0x00, 0x00, 0x01]],
  ])('%i bytes of contents', (contents, expected) => {
    expect(list(aml.packageLength(contents))).toEqual(expected);
  });

  test('above 2^28 throws', () => {
    expect(() => aml.packageLength(2 ** 28)).toThrow(RangeError);
  });
});

describe('nameString (20.2.2)', () => {
  test.each([
    ['\\', [0x5c, 0]],
    ['VMOD', list(ascii('VMOD'))],
    ['\\_SB', [0x5c, ...list(ascii('_SB_'))]],
    ['_SB.VMOD', [0x2e, ...list(ascii('_SB_VMOD'))]],
    ['\\_SB.VMOD.VMBS', [0x5c, 0x2f, 3, ...list(ascii('_SB_VMODVMBS'))]],
  ])('%s', (path, expected) => {
    expect(list(aml.nameString(path))).toEqual(expected);
  });

  test.each(['1ABC', 'ABCDE', 'abcd'])('%s throws', (path) => {
    expect(() => aml.nameString(path)).toThrow(RangeError);
  });
});

test.each([
  [0, [0x00]],
  [1, [0x01]],
  [2, [0x0a, 2]],
  [0xff, [0x0a, 0xff]],
  [0x100, [0x0b, 0, 1]],
  [0xffff_ffff, [0x0c, 0xff, 0xff, 0xff, 0xff]],
  [0x1_0000_0000n, [0x0e, 0, 0, 0, 0, 1, 0, 0, 0]],
])('integer %s takes the shortest form', (value, expected) => {
  expect(list(aml.integer(value))).toEqual(expected);
});

test('eisaId PNP0501 is 0x0105d041 little-endian', () => {
  expect(list(aml.eisaId('PNP0501'))).toEqual([0x0c, 0x41, 0xd0, 0x05, 0x01]);
  expect(() => aml.eisaId('VMBUS')).toThrow(RangeError);
});

test('buffer states its length inside its package', () => {
  expect(list(aml.buffer(Uint8Array.of(7, 8)))).toEqual([0x11, 5, 0x0a, 2, 7, 8]);
});

test('resource descriptors are those of ACPI 6.5, 6.4', () => {
  expect(list(aml.ioPorts(0x3f8, 8))).toEqual([0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8]);
  expect(list(aml.edgeInterrupt(4, false))).toEqual([0x89, 6, 0, 3, 1, 4, 0, 0, 0]);
  expect(list(aml.edgeInterrupt(4, true))[3]).toBe(0xb);
  expect(list(aml.memoryWindow(0xf8000000, 0x8000000))).toEqual([
    ...[0x8a, 0x2b, 0, 0, 0x0c, 3],
    ...[0, 0, 0, 0, 0, 0, 0, 0],
    ...[0, 0, 0, 0xf8, 0, 0, 0, 0],
    ...[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
    ...[0, 0, 0, 0, 0, 0, 0, 0],
    ...[0, 0, 0, 8, 0, 0, 0, 0],
  ]);
  expect(list(aml.resourceTemplate())).toEqual([0x11, 5, 0x0a, 2, 0x79, 0]);
});

test('resource descriptors state their own length', () => {
  expect(aml.ioPorts(0x3f8, 8)).toHaveLength(8);
  expect(aml.edgeInterrupt(4, false)).toHaveLength(3 + 6);
  expect(aml.memoryWindow(0xf8000000, 0x8000000)).toHaveLength(3 + 0x2b);
});
