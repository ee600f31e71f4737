/**
 * A small AML assembler: terms are byte arrays, put together by functions.
 * ACPI Specification 6.5, chapter 20 (encoding) and 6.4 (resource descriptors).
 */

import { ascii, concat } from './bytes.ts';

export type Aml = Uint8Array;

function little(value: bigint, width: number): Uint8Array {
  return Uint8Array.from({ length: width }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn));
}

/** PkgLength counts itself (20.2.4). */
export function packageLength(contents: number): Uint8Array {
  if (contents + 1 < 0x40) return concat(contents + 1);
  for (let extra = 1; extra <= 3; extra++) {
    const total = contents + 1 + extra;
    if (total < 2 ** (4 + 8 * extra)) {
      const rest = Array.from({ length: extra }, (_, i) => (total >>> (4 + 8 * i)) & 0xff);
      return concat((extra << 6) | (total & 0xf), ...rest);
    }
  }
  throw new RangeError(`AML package of ${contents} bytes is above the format's 2^28`);
}

function segment(name: string): Uint8Array {
  if (!/^[A-Z_][A-Z0-9_]{0,3}$/.test(name)) throw new RangeError(`'${name}' is no AML name segment`);
  return ascii(name.padEnd(4, '_'));
}

/** `\_SB.VMOD` and the like (20.2.2). */
export function nameString(path: string): Uint8Array {
  const root = path.startsWith('\\');
  const names = (root ? path.slice(1) : path).split('.').filter((name) => name !== '');
  const head = root ? concat(0x5c) : concat();
  const segments = names.map(segment);
  if (segments.length === 0) return concat(head, 0);
  if (segments.length === 1) return concat(head, ...segments);
  if (segments.length === 2) return concat(head, 0x2e, ...segments);
  return concat(head, 0x2f, segments.length, ...segments);
}

export function integer(value: number | bigint): Aml {
  const wide = BigInt(value);
  if (wide === 0n) return concat(0x00);
  if (wide === 1n) return concat(0x01);
  if (wide < 0x100n) return concat(0x0a, little(wide, 1));
  if (wide < 0x10000n) return concat(0x0b, little(wide, 2));
  if (wide < 0x1_0000_0000n) return concat(0x0c, little(wide, 4));
  return concat(0x0e, little(wide, 8));
}

export function string(text: string): Aml {
  return concat(0x0d, ascii(text), 0);
}

/** An EISA id such as PNP0501, compressed (19.3.4, "EISAID"). */
export function eisaId(id: string): Aml {
  if (!/^[A-Z]{3}[0-9A-F]{4}$/.test(id)) throw new RangeError(`'${id}' is no EISA id`);
  const letter = (i: number): number => id.charCodeAt(i) - 0x40;
  const vendor = (letter(0) << 10) | (letter(1) << 5) | letter(2);
  const product = Number.parseInt(id.slice(3), 16);
  return concat(0x0c, vendor >>> 8, vendor & 0xff, product >>> 8, product & 0xff);
}

export function buffer(contents: Uint8Array): Aml {
  const body = concat(integer(contents.length), contents);
  return concat(0x11, packageLength(body.length), body);
}

export function packageOf(...elements: readonly Aml[]): Aml {
  const body = concat(elements.length, ...elements);
  return concat(0x12, packageLength(body.length), body);
}

export function name(path: string, value: Aml): Aml {
  return concat(0x08, nameString(path), value);
}

export function scope(path: string, ...terms: readonly Aml[]): Aml {
  const body = concat(nameString(path), ...terms);
  return concat(0x10, packageLength(body.length), body);
}

export function device(path: string, ...terms: readonly Aml[]): Aml {
  const body = concat(nameString(path), ...terms);
  return concat(0x5b, 0x82, packageLength(body.length), body);
}

/** A _CRS buffer: the descriptors and the end tag, whose checksum 0 means "not checked" (6.4.2.9). */
export function resourceTemplate(...descriptors: readonly Uint8Array[]): Aml {
  return buffer(concat(...descriptors, 0x79, 0x00));
}

/** I/O ports with 16 address bits decoded (6.4.2.5). */
export function ioPorts(base: number, count: number): Uint8Array {
  return concat(0x47, 0x01, little(BigInt(base), 2), little(BigInt(base), 2), 0x01, count);
}

/** Edge-triggered, active-high interrupt by its GSI (6.4.3.6). */
export function edgeInterrupt(gsi: number, shared: boolean): Uint8Array {
  return concat(0x89, 6, 0, 0x03 | (shared ? 0x08 : 0), 1, little(BigInt(gsi), 4));
}

/** A window of memory that the device hands on to its children, read-write and cacheable: QWord (6.4.3.5.1). */
export function memoryWindow(base: number, length: number): Uint8Array {
  const first = BigInt(base);
  const size = BigInt(length);
  return concat(
    0x8a,
    0x2b,
    0x00,
    0x00, // memory range
    0x0c, // producer, positive decode, minimum and maximum are fixed
    0x03, // read-write, cacheable
    little(0n, 8),
    little(first, 8),
    little(first + size - 1n, 8),
    little(0n, 8),
    little(size, 8),
  );
}
