import { expect, test } from 'vitest';
import { FACS_ADDRESS, TABLES_BASE, WAKING_VECTOR, acpiTables } from './tables.ts';

const PORTS = { event: 0x600, control: 0x604, timer: 0x608 };

function at(image: Uint8Array, gpa: number): DataView {
  return new DataView(image.buffer, gpa - TABLES_BASE);
}

const signature = (image: Uint8Array, gpa: number): string =>
  String.fromCharCode(...image.subarray(gpa - TABLES_BASE, gpa - TABLES_BASE + 4));

function sum(image: Uint8Array, gpa: number, length: number): number {
  return image
    .subarray(gpa - TABLES_BASE, gpa - TABLES_BASE + length)
    .reduce((total, byte) => (total + byte) & 0xff, 0);
}

test.each([1, 4, 64])('the tables of %i processors are found from the RSDP and add up', (cpus) => {
  const image = acpiTables(cpus, PORTS);
  expect(sum(image, TABLES_BASE, 20)).toBe(0);
  const rsdt = at(image, TABLES_BASE).getUint32(16, true);
  expect(signature(image, rsdt)).toBe('RSDT');
  const tables = [36, 40].map((offset) => at(image, rsdt).getUint32(offset, true));
  expect(tables.map((table) => signature(image, table))).toEqual(['FACP', 'APIC']);
  for (const table of [rsdt, ...tables]) {
    expect(sum(image, table, at(image, table).getUint32(4, true))).toBe(0);
  }
});

test('the FADT names the ports and the FACS holds the waking vector', () => {
  const image = acpiTables(1, PORTS);
  const rsdt = at(image, TABLES_BASE).getUint32(16, true);
  const fadt = at(image, at(image, rsdt).getUint32(36, true));
  expect([36, 56, 64, 76].map((offset) => fadt.getUint32(offset, true))).toEqual([
    FACS_ADDRESS,
    0x600,
    0x604,
    0x608,
  ]);
  expect(signature(image, FACS_ADDRESS)).toBe('FACS');
  expect(WAKING_VECTOR - FACS_ADDRESS).toBe(12);
  expect(FACS_ADDRESS % 64).toBe(0);
});
