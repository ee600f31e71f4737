/**
 * Little-endian records as tables.
 *
 * A wire format is declared once, as rows of {name, offset, width}; reader, writer, dump and offset test all
 * come from that declaration. `width` is in bytes. A row with `bytes: true` is an opaque run of bytes (also
 * for arrays, whose elements are records of their own). Rows need not cover the whole record: what no row
 * names is reserved, reads as nothing and is written as zero.
 *
 * Values: 1, 2 and 4 byte fields are unsigned numbers, 8 byte fields are bigint. Hot paths use `low`/`high` and
 * `setHalves`, which give the two halves of an 8 byte field as unsigned numbers and allocate nothing.
 */

export interface NumberField {
  readonly name: string;
  readonly offset: number;
  readonly width: 1 | 2 | 4 | 8;
  readonly bytes?: false;
}

export interface BytesField {
  readonly name: string;
  readonly offset: number;
  readonly width: number;
  readonly bytes: true;
}

export type Field = NumberField | BytesField;

type ValueOf<F extends Field> = F extends BytesField ? Uint8Array : F extends { width: 8 } ? bigint : number;

export type ValuesOf<Fields extends readonly Field[]> = {
  [F in Fields[number] as F['name']]: ValueOf<F>;
};

type NameOf<Fields extends readonly Field[]> = Fields[number]['name'];

export interface Layout<Fields extends readonly Field[]> {
  readonly name: string;
  /** Bytes that the record occupies. */
  readonly size: number;
  /** Document and section that define it. */
  readonly source: string;
  readonly fields: Fields;

  /** True when the whole record lies inside `from`. */
  fits(from: Uint8Array, at?: number): boolean;
  /** All fields. The record must fit: a caller that reads foreign data asks `fits` first. */
  read(from: Uint8Array, at?: number): ValuesOf<Fields>;
  /** Writes the given fields over `into` (a fresh zeroed record when absent) and returns it. */
  write(values: Partial<ValuesOf<Fields>>, into?: Uint8Array, at?: number): Uint8Array;
  get<N extends NameOf<Fields>>(from: Uint8Array, name: N, at?: number): ValuesOf<Fields>[N];
  set<N extends NameOf<Fields>>(into: Uint8Array, name: N, value: ValuesOf<Fields>[N], at?: number): void;
  /** Low and high 32 bits of a field; the high half of a field narrower than 8 bytes is 0. */
  low(from: Uint8Array, name: NameOf<Fields>, at?: number): number;
  high(from: Uint8Array, name: NameOf<Fields>, at?: number): number;
  setHalves(into: Uint8Array, name: NameOf<Fields>, low: number, high: number, at?: number): void;
  offsetOf(name: NameOf<Fields>): number;
  /** One line per field, `+offset name value`, for traces and error messages. */
  dump(from: Uint8Array, at?: number): string;
}

/** Little-endian u16 at `at`. */
export function u16(from: Uint8Array, at: number): number {
  return byte(from, at) | (byte(from, at + 1) << 8);
}

/** Little-endian unsigned u32 at `at`. */
export function u32(from: Uint8Array, at: number): number {
  return (u16(from, at) | (u16(from, at + 2) << 16)) >>> 0;
}

export function setU16(into: Uint8Array, at: number, value: number): void {
  checkRange(into, at, 2);
  into[at] = value;
  into[at + 1] = value >>> 8;
}

export function setU32(into: Uint8Array, at: number, value: number): void {
  checkRange(into, at, 4);
  into[at] = value;
  into[at + 1] = value >>> 8;
  into[at + 2] = value >>> 16;
  into[at + 3] = value >>> 24;
}

/** Unsigned 64-bit value from its halves. */
export function join(low: number, high: number): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}

export function lowHalf(value: bigint): number {
  return Number(BigInt.asUintN(32, value));
}

export function highHalf(value: bigint): number {
  return Number(BigInt.asUintN(32, value >> 32n));
}

/** A number that holds the 64-bit value exactly, or `undefined` when it is above 2^53 - 1. */
export function exact(low: number, high: number): number | undefined {
  return high < 0x20_0000 ? high * 0x1_0000_0000 + low : undefined;
}

function byte(from: Uint8Array, at: number): number {
  const value = from[at];
  if (value === undefined) throw outside(from, at, 1);
  return value;
}

function checkRange(bytes: Uint8Array, at: number, width: number): void {
  if (at < 0 || at + width > bytes.length) throw outside(bytes, at, width);
}

function outside(bytes: Uint8Array, at: number, width: number): RangeError {
  return new RangeError(
    `record access of ${width} bytes at ${at} lies outside a buffer of ${bytes.length} bytes`,
  );
}

/**
 * Declares a record. Throws when the rows overlap, leave the record or repeat a name: a layout that contradicts
 * itself is a bug in the table, found when the module loads.
 */
export function record<const Fields extends readonly Field[]>(
  name: string,
  source: string,
  size: number,
  fields: Fields,
): Layout<Fields> {
  const byName = new Map<string, Field>();
  let end = 0;
  for (const field of fields) {
    if (byName.has(field.name)) throw new RangeError(`${name}: field ${field.name} is declared twice`);
    if (field.offset < end) {
      throw new RangeError(
        `${name}: field ${field.name} at ${field.offset} starts before the end of its predecessor, ${end}`,
      );
    }
    end = field.offset + field.width;
    if (end > size)
      throw new RangeError(`${name}: field ${field.name} ends at ${end}, record size is ${size}`);
    byName.set(field.name, field);
  }

  function find(fieldName: string): Field {
    const field = byName.get(fieldName);
    if (field === undefined) throw new RangeError(`${name} has no field ${fieldName}`);
    return field;
  }

  function low(from: Uint8Array, fieldName: string, at = 0): number {
    const field = find(fieldName);
    const start = at + field.offset;
    if (field.width >= 4) return u32(from, start);
    return field.width === 2 ? u16(from, start) : byte(from, start);
  }

  function high(from: Uint8Array, fieldName: string, at = 0): number {
    const field = find(fieldName);
    return field.width === 8 ? u32(from, at + field.offset + 4) : 0;
  }

  function setHalves(into: Uint8Array, fieldName: string, lowValue: number, highValue: number, at = 0): void {
    const field = find(fieldName);
    const start = at + field.offset;
    if (field.width >= 4) {
      setU32(into, start, lowValue);
      if (field.width === 8) setU32(into, start + 4, highValue);
    } else if (field.width === 2) {
      setU16(into, start, lowValue);
    } else {
      checkRange(into, start, 1);
      into[start] = lowValue;
    }
  }

  function getAny(from: Uint8Array, fieldName: string, at: number): number | bigint | Uint8Array {
    const field = find(fieldName);
    if (field.bytes === true) {
      checkRange(from, at + field.offset, field.width);
      return from.slice(at + field.offset, at + field.offset + field.width);
    }
    if (field.width === 8) return join(low(from, fieldName, at), high(from, fieldName, at));
    return low(from, fieldName, at);
  }

  function setAny(into: Uint8Array, fieldName: string, value: unknown, at: number): void {
    const field = find(fieldName);
    if (value instanceof Uint8Array) {
      if (field.bytes !== true) throw new TypeError(`${name}.${fieldName} takes a number, not bytes`);
      if (value.length > field.width) {
        throw new RangeError(`${name}.${fieldName} takes ${field.width} bytes, not ${value.length}`);
      }
      checkRange(into, at + field.offset, field.width);
      into.fill(0, at + field.offset, at + field.offset + field.width);
      into.set(value, at + field.offset);
    } else if (typeof value === 'bigint' && field.width === 8) {
      setHalves(into, fieldName, lowHalf(value), highHalf(value), at);
    } else if (typeof value === 'number' && field.width < 8 && field.bytes !== true) {
      setHalves(into, fieldName, value, 0, at);
    } else {
      throw new TypeError(`${name}.${fieldName} of ${field.width} bytes cannot take a ${typeof value}`);
    }
  }

  return {
    name,
    size,
    source,
    fields,
    fits: (from, at = 0) => at >= 0 && at + size <= from.length,
    read(from, at = 0) {
      const values: Record<string, unknown> = {};
      for (const field of fields) values[field.name] = getAny(from, field.name, at);
      return values as ValuesOf<Fields>;
    },
    write(values, into = new Uint8Array(size), at = 0) {
      for (const [fieldName, value] of Object.entries(values)) {
        if (value !== undefined) setAny(into, fieldName, value, at);
      }
      return into;
    },
    get: (from, fieldName, at = 0) => getAny(from, fieldName, at) as ValuesOf<Fields>[typeof fieldName],
    set: (into, fieldName, value, at = 0) => setAny(into, fieldName, value, at),
    low,
    high,
    setHalves,
    offsetOf: (fieldName) => find(fieldName).offset,
    dump(from, at = 0) {
      return fields
        .map((field) => `+${field.offset} ${field.name} ${show(getAny(from, field.name, at))}`)
        .join('\n');
    },
  };
}

function show(value: number | bigint | Uint8Array): string {
  if (value instanceof Uint8Array) return Array.from(value, (b) => b.toString(16).padStart(2, '0')).join('');
  return `0x${value.toString(16)}`;
}
