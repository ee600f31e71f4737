/**
 * Plain values as bytes, for snapshots and hashes. One tag byte, then:
 *   u undefined, n null, t true, f false, d float64, i bigint (length, decimal digits), s string (length, UTF-16 units),
 *   b bytes (length, bytes), w typed array (kind, length, bytes), a array (count, values), o object (count, pairs).
 * Lengths are u32, little-endian. Every byte is consumed; what is malformed throws (a snapshot is checked before).
 */

const TYPED = [Uint8Array, Uint16Array, Uint32Array, Int32Array, Float64Array, BigUint64Array] as const;

export function encodeValue(value: unknown): Uint8Array {
  let bytes = new Uint8Array(4096);
  let length = 0;
  const room = (more: number): void => {
    if (length + more <= bytes.length) return;
    const grown = new Uint8Array(Math.max(bytes.length * 2, length + more));
    grown.set(bytes.subarray(0, length));
    bytes = grown;
  };
  const u8 = (byte: number): void => {
    room(1);
    bytes[length++] = byte;
  };
  const u32 = (word: number): void => {
    room(4);
    new DataView(bytes.buffer).setUint32(length, word, true);
    length += 4;
  };
  const text = (tag: string, content: string): void => {
    u8(tag.charCodeAt(0));
    u32(content.length);
    room(content.length * 2);
    for (let k = 0; k < content.length; k++) {
      const unit = content.charCodeAt(k);
      bytes[length++] = unit & 0xff;
      bytes[length++] = unit >> 8;
    }
  };
  const write = (item: unknown): void => {
    if (item === undefined) return u8(0x75);
    if (item === null) return u8(0x6e);
    switch (typeof item) {
      case 'boolean':
        return u8(item ? 0x74 : 0x66);
      case 'number':
        u8(0x64);
        room(8);
        new DataView(bytes.buffer).setFloat64(length, item, true);
        length += 8;
        return;
      case 'bigint':
        return text('i', item.toString());
      case 'string':
        return text('s', item);
      case 'object':
        break;
      default:
        throw new TypeError(`a ${typeof item} is not plain data`);
    }
    const kind = TYPED.findIndex((type) => item instanceof type);
    if (kind >= 0) {
      const array = item as Uint8Array;
      u8(0x77);
      u8(kind);
      u32(array.length);
      const raw = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
      room(raw.length);
      bytes.set(raw, length);
      length += raw.length;
      return;
    }
    if (Array.isArray(item)) {
      u8(0x61);
      u32(item.length);
      item.forEach(write);
      return;
    }
    const entries = Object.entries(item as object);
    u8(0x6f);
    u32(entries.length);
    for (const [name, field] of entries) {
      text('s', name);
      write(field);
    }
  };
  write(value);
  return bytes.slice(0, length);
}

export function decodeValue(bytes: Uint8Array): unknown {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const u32 = (): number => {
    const word = view.getUint32(at, true);
    at += 4;
    return word;
  };
  const text = (): string => {
    const count = u32();
    let content = '';
    for (let k = 0; k < count; k++, at += 2) content += String.fromCharCode(view.getUint16(at, true));
    return content;
  };
  const read = (): unknown => {
    const tag = view.getUint8(at++);
    switch (tag) {
      case 0x75:
        return undefined;
      case 0x6e:
        return null;
      case 0x74:
        return true;
      case 0x66:
        return false;
      case 0x64: {
        const value = view.getFloat64(at, true);
        at += 8;
        return value;
      }
      case 0x69:
        return BigInt(text());
      case 0x73:
        return text();
      case 0x77: {
        const Type = TYPED[view.getUint8(at++)];
        if (Type === undefined) throw new RangeError('unknown kind of typed array');
        const count = u32();
        // Not bytes.slice: a Node Buffer's shares its memory.
        const raw = Uint8Array.prototype.slice.call(bytes, at, at + count * Type.BYTES_PER_ELEMENT);
        if (raw.length !== count * Type.BYTES_PER_ELEMENT) throw new RangeError('cut off');
        at += raw.length;
        return new Type(raw.buffer);
      }
      case 0x61:
        return Array.from({ length: u32() }, read);
      case 0x6f: {
        const count = u32();
        const object: Record<string, unknown> = {};
        for (let k = 0; k < count; k++) {
          at++;
          const name = text();
          object[name] = read();
        }
        return object;
      }
      default:
        throw new RangeError(`unknown tag ${tag} at byte ${at - 1}`);
    }
  };
  const value = read();
  if (at !== bytes.length) throw new RangeError(`${bytes.length - at} bytes left over`);
  return value;
}
