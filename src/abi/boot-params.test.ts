import { describe, expect, test } from 'vitest';
import { E820_ENTRY, SETUP_DATA, SETUP_HEADER, ZERO_PAGE } from './boot-params.ts';

describe('SETUP_HEADER lies where boot.rst says', () => {
  test.each([
    ['setupSects', 0x1f1],
    ['sysSize', 0x1f4],
    ['bootFlag', 0x1fe],
    ['header', 0x202],
    ['version', 0x206],
    ['kernelVersion', 0x20e],
    ['typeOfLoader', 0x210],
    ['loadFlags', 0x211],
    ['ramdiskImage', 0x218],
    ['ramdiskSize', 0x21c],
    ['cmdLinePtr', 0x228],
    ['initrdAddrMax', 0x22c],
    ['kernelAlignment', 0x230],
    ['relocatableKernel', 0x234],
    ['xloadFlags', 0x236],
    ['cmdlineSize', 0x238],
    ['hardwareSubarch', 0x23c],
    ['payloadOffset', 0x248],
    ['payloadLength', 0x24c],
    ['setupData', 0x250],
    ['prefAddress', 0x258],
    ['initSize', 0x260],
  ] as const)('%s', (name, offset) => {
    expect(SETUP_HEADER.offsetOf(name)).toBe(offset);
  });
});

test('ZERO_PAGE lies where zero-page.rst says', () => {
  expect(ZERO_PAGE.size).toBe(4096);
  expect(ZERO_PAGE.offsetOf('acpiRsdpAddr')).toBe(0x70);
  expect(ZERO_PAGE.offsetOf('extRamdiskImage')).toBe(0xc0);
  expect(ZERO_PAGE.offsetOf('extCmdLinePtr')).toBe(0xc8);
  expect(ZERO_PAGE.offsetOf('ccBlobAddress')).toBe(0x13c);
  expect(ZERO_PAGE.offsetOf('efiInfo')).toBe(0x1c0);
  expect(ZERO_PAGE.offsetOf('e820Entries')).toBe(0x1e8);
  expect(ZERO_PAGE.offsetOf('sentinel')).toBe(0x1ef);
  expect(ZERO_PAGE.offsetOf('e820Table')).toBe(0x2d0);
  expect([E820_ENTRY.size, SETUP_DATA.size]).toEqual([20, 16]);
});
