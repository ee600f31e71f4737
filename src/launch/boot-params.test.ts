import { describe, expect, test } from 'vitest';
import { SETUP_DATA, SETUP_HEADER, ZERO_PAGE } from '../abi/boot-params.ts';
import { bootParams, commandLineBytes, readE820, setupDataChain } from './boot-params.ts';
import { bzImage } from './test-images.ts';

const e820 = [
  { gpa: 0, length: 0xa0000, type: 1 },
  { gpa: 0x1_0000_0000, length: 0x1_8000_0000, type: 1 },
];

describe('bootParams', () => {
  const page = bootParams({
    header: bzImage({ vidMode: 0x1234 }).slice(0x1f1, 0x26c),
    commandLine: 0x3000,
    initrd: { gpa: 0x1_2345_6000, length: 0x1_0000_0001 },
    e820,
    rsdp: 0xe0000,
    setupData: 0x5000,
  });

  test('keeps the header of the file', () => {
    expect(SETUP_HEADER.low(page, 'vidMode')).toBe(0x1234);
    expect(SETUP_HEADER.low(page, 'version')).toBe(0x20f);
    expect(SETUP_HEADER.get(page, 'prefAddress')).toBe(0x1000000n);
  });

  test('says who loaded it, and where things are, high halves apart', () => {
    expect(SETUP_HEADER.low(page, 'typeOfLoader')).toBe(0xff);
    expect(SETUP_HEADER.low(page, 'ramdiskImage')).toBe(0x2345_6000);
    expect(ZERO_PAGE.low(page, 'extRamdiskImage')).toBe(1);
    expect(SETUP_HEADER.low(page, 'ramdiskSize')).toBe(1);
    expect(ZERO_PAGE.low(page, 'extRamdiskSize')).toBe(1);
    expect(SETUP_HEADER.low(page, 'cmdLinePtr')).toBe(0x3000);
    expect(ZERO_PAGE.low(page, 'acpiRsdpAddr')).toBe(0xe0000);
    expect(SETUP_HEADER.get(page, 'setupData')).toBe(0x5000n);
  });

  test('has the memory map, and no sentinel', () => {
    expect(readE820(page)).toEqual(e820);
    expect(ZERO_PAGE.low(page, 'sentinel')).toBe(0);
  });

  test('an ELF kernel gets the marks of a setup header', () => {
    const plain = bootParams({ commandLine: 0x3000, initrd: undefined, e820, rsdp: 0, setupData: 0 });
    expect(SETUP_HEADER.low(plain, 'bootFlag')).toBe(0xaa55);
    expect(SETUP_HEADER.low(plain, 'header')).toBe(0x53726448);
    expect(SETUP_HEADER.low(plain, 'ramdiskSize')).toBe(0);
  });
});

test('setupDataChain links its nodes', () => {
  const chain = setupDataChain(0x8000, [
    { type: 7, payload: Uint8Array.of(1, 2, 3, 4) },
    { type: 9, payload: new Uint8Array(32).fill(5) },
  ]);
  const first = SETUP_DATA.read(chain);
  expect(first).toEqual({ next: 0x8018n, type: 7, length: 4 });
  expect(SETUP_DATA.read(chain, 0x18)).toEqual({ next: 0n, type: 9, length: 32 });
  expect(Array.from(chain.subarray(16, 20))).toEqual([1, 2, 3, 4]);
  expect(chain).toHaveLength(0x18 + 48);
});

describe('commandLineBytes', () => {
  test('ends in NUL', () => {
    expect(commandLineBytes('a b', 3)).toEqual({ ok: true, bytes: Uint8Array.of(0x61, 0x20, 0x62, 0) });
  });

  test.each([
    ['too long', 'abcd'],
    ['a NUL', 'a\0b'],
    ['a line end', 'a\nb'],
    ['no ASCII', 'aé'],
  ])('refuses %s', (_, line) => {
    expect(commandLineBytes(line, 3).ok).toBe(false);
  });
});
