/** The WebAssembly binary format, as much of it as Vitrine emits (WebAssembly Core Specification 3.0, ch. 5). */

export type WasmType = 'i32' | 'i64' | 'f32' | 'f64' | 'v128';

export const TYPE_CODE: Readonly<Record<WasmType, number>> = {
  i32: 0x7f,
  i64: 0x7e,
  f32: 0x7d,
  f64: 0x7c,
  v128: 0x7b,
};

/** A growing byte buffer with the LEB128 forms of the binary format. */
export class Bytes {
  #data = new Uint8Array(256);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#data.length) return;
    const grown = new Uint8Array(Math.max(this.#data.length * 2, this.#length + more));
    grown.set(this.#data.subarray(0, this.#length));
    this.#data = grown;
  }

  u8(...values: readonly number[]): void {
    this.#reserve(values.length);
    for (const value of values) this.#data[this.#length++] = value;
  }

  bytes(other: Uint8Array): void {
    this.#reserve(other.length);
    this.#data.set(other, this.#length);
    this.#length += other.length;
  }

  /** Unsigned LEB128 of a u32. */
  u32(value: number): void {
    let rest = value >>> 0;
    while (rest > 0x7f) {
      this.u8((rest & 0x7f) | 0x80);
      rest >>>= 7;
    }
    this.u8(rest);
  }

  /** Signed LEB128 of an i32. */
  s32(value: number): void {
    let rest = value | 0;
    for (;;) {
      const low = rest & 0x7f;
      rest >>= 7;
      if ((rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0)) {
        this.u8(low);
        return;
      }
      this.u8(low | 0x80);
    }
  }

  /** Signed LEB128 of an i64. */
  s64(value: bigint): void {
    const signed = BigInt.asIntN(64, value);
    if (signed >= -0x80000000n && signed <= 0x7fffffffn) {
      this.s32(Number(signed));
      return;
    }
    let rest = signed;
    for (;;) {
      const low = Number(rest & 0x7fn);
      rest >>= 7n;
      if ((rest === 0n && (low & 0x40) === 0) || (rest === -1n && (low & 0x40) !== 0)) {
        this.u8(low);
        return;
      }
      this.u8(low | 0x80);
    }
  }

  f64(value: number): void {
    this.bytes(new Uint8Array(new Float64Array([value]).buffer));
  }

  name(text: string): void {
    const encoded = Uint8Array.from(text, (char) => char.charCodeAt(0) & 0x7f);
    this.u32(encoded.length);
    this.bytes(encoded);
  }

  /** The bytes written so far, as a copy. */
  finish(): Uint8Array {
    return this.#data.slice(0, this.#length);
  }
}
