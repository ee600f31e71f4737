import { expect, test } from 'vitest';
import { createTestDevice, readTestPort, writeTestPort } from './test-device.ts';

test('the register remembers bytes, words and doublewords at their place', () => {
  const device = createTestDevice();
  writeTestPort(device, 0xe0, 4, 0x89abcdef);
  writeTestPort(device, 0xe1, 1, 0x12);
  writeTestPort(device, 0xe2, 2, 0x5678);
  expect(readTestPort(device, 0xe0, 4)).toEqual({ claimed: true, value: 0x567812ef });
  expect(readTestPort(device, 0xe3, 1)).toEqual({ claimed: true, value: 0x56 });
  expect(readTestPort(device, 0xe0, 2)).toEqual({ claimed: true, value: 0x12ef });
});

test('a write to a line port raises the line for any value but zero', () => {
  const device = createTestDevice();
  expect(writeTestPort(device, 0x200e, 1, 1)).toEqual({ kind: 'line', line: 14, level: true });
  expect(writeTestPort(device, 0x200e, 1, 0)).toEqual({ kind: 'line', line: 14, level: false });
  expect(writeTestPort(device, 0x2018, 1, 1)).toEqual({ kind: 'not-claimed' });
});

test('ports that are not the device are left to others', () => {
  const device = createTestDevice();
  expect(readTestPort(device, 0xdf, 1)).toEqual({ claimed: false });
  expect(readTestPort(device, 0xec, 1)).toEqual({ claimed: false });
  expect(writeTestPort(device, 0xec, 1, 0)).toEqual({ kind: 'not-claimed' });
});
