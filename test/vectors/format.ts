/**
 * The file of recorded cases: zstd over a byte stream.
 *
 *     "VTV1", u32 seed, varint forms, each (varint length, UTF-8), varint cases, then for each case
 *       varint form, varint step of the case index since the case before, u8 kind, bytes code, varint stop (0 none, else
 *       1 + offset in the code pages), delta from initialState(kind, mix(seed, index)), patches,
 *       varint vector (0 none, else 1 + vector), for an exception: varint error code, for #PF: u64 CR2,
 *       delta from the state before (with rip after the code unless an exception came), patches
 *
 * A varint has 7 bits a byte, low first. bytes: varint length and content. A delta: (varint gap, bytes) until an empty
 * one. patches: varint count, each varint address - DATA (zigzag), bytes.
 */
import { zstdCompressSync, zstdDecompressSync, constants } from 'node:zlib';
import {
  CODE,
  DATA,
  type Patch,
  RIP,
  STATE_BYTES,
  type VectorCase,
  type VectorResult,
  mix,
  view,
} from './state.ts';
import { KINDS, initialState } from './values.ts';

export interface Recorded {
  readonly case: VectorCase;
  readonly result: VectorResult;
}

/** What the writer needs beyond the case: where its initial state came from. */
export interface Indexed extends Recorded {
  readonly kind: (typeof KINDS)[number];
  readonly index: number;
}

class Writer {
  #bytes = new Uint8Array(1 << 20);
  #length = 0;

  byte(value: number): void {
    if (this.#length === this.#bytes.length) {
      const larger = new Uint8Array(this.#bytes.length * 2);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes[this.#length++] = value;
  }

  varint(value: number): void {
    let rest = value;
    while (rest >= 0x80) {
      this.byte((rest % 0x80) | 0x80);
      rest = Math.floor(rest / 0x80);
    }
    this.byte(rest);
  }

  bytes(content: Uint8Array): void {
    this.varint(content.length);
    for (const value of content) this.byte(value);
  }

  u64(value: bigint): void {
    for (let i = 0n; i < 64n; i += 8n) this.byte(Number((value >> i) & 0xffn));
  }

  delta(from: Uint8Array, to: Uint8Array): void {
    let last = 0;
    let at = 0;
    while (at < STATE_BYTES) {
      if (from[at] === to[at]) {
        at++;
        continue;
      }
      let end = at + 1;
      while (end < STATE_BYTES && from[end] !== to[end]) end++;
      this.varint(at - last);
      this.bytes(to.subarray(at, end));
      last = end;
      at = end;
    }
    this.varint(0);
    this.varint(0);
  }

  patches(list: readonly Patch[]): void {
    this.varint(list.length);
    for (const patch of list) {
      const offset = patch.address - DATA;
      this.varint(offset < 0 ? -offset * 2 - 1 : offset * 2);
      this.bytes(patch.bytes);
    }
  }

  content(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }
}

class Reader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  byte(): number {
    const value = this.#bytes[this.#at++];
    if (value === undefined) throw new Error('the vector file ends early');
    return value;
  }

  varint(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      const byte = this.byte();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  }

  bytes(): Uint8Array {
    const length = this.varint();
    if (this.#at + length > this.#bytes.length) throw new Error('the vector file ends early');
    this.#at += length;
    return this.#bytes.slice(this.#at - length, this.#at);
  }

  u64(): bigint {
    let value = 0n;
    for (let i = 0n; i < 64n; i += 8n) value |= BigInt(this.byte()) << i;
    return value;
  }

  delta(state: Uint8Array): void {
    let at = 0;
    for (;;) {
      at += this.varint();
      const run = this.bytes();
      if (run.length === 0) return;
      state.set(run, at);
      at += run.length;
    }
  }

  patches(): Patch[] {
    return Array.from({ length: this.varint() }, () => {
      const zigzag = this.varint();
      const offset = zigzag % 2 === 1 ? -(zigzag + 1) / 2 : zigzag / 2;
      return { address: DATA + offset, bytes: this.bytes() };
    });
  }

  done(): boolean {
    return this.#at === this.#bytes.length;
  }
}

/** The state that the result's delta counts from: the one before, with rip after the instruction. */
function predicted(c: VectorCase, completed: boolean): Uint8Array {
  const state = c.state.slice();
  const v = view(state);
  if (c.stop !== undefined) v.setBigUint64(RIP, BigInt(c.stop), true);
  else if (completed)
    v.setBigUint64(RIP, BigInt.asUintN(64, v.getBigUint64(RIP, true) + BigInt(c.code.length)), true);
  return state;
}

export function writeRecording(seed: number, cases: readonly Indexed[]): Uint8Array {
  const out = new Writer();
  for (const value of new TextEncoder().encode('VTV1')) out.byte(value);
  for (let i = 0; i < 32; i += 8) out.byte((seed >>> i) & 0xff);
  const forms = [...new Set(cases.map((entry) => entry.case.form))];
  const indices = new Map(forms.map((form, i) => [form, i]));
  out.varint(forms.length);
  for (const form of forms) out.bytes(new TextEncoder().encode(form));
  out.varint(cases.length);
  let last = 0;
  for (const { case: c, result, kind, index } of cases) {
    out.varint(indices.get(c.form) as number);
    out.varint(index - last);
    last = index;
    out.byte(KINDS.indexOf(kind));
    out.bytes(c.code);
    out.varint(c.stop === undefined ? 0 : 1 + c.stop - CODE);
    out.delta(initialState(kind, mix(seed, index)), c.state);
    out.patches(c.patches);
    out.varint(result.vector === undefined ? 0 : 1 + result.vector);
    if (result.vector !== undefined) out.varint(result.errorCode);
    if (result.vector === 14) out.u64(result.cr2);
    out.delta(predicted(c, result.vector === undefined), result.state);
    out.patches(result.changes);
  }
  return zstdCompressSync(out.content(), {
    params: {
      [constants.ZSTD_c_compressionLevel]: 19,
      [constants.ZSTD_c_windowLog]: 24,
      [constants.ZSTD_c_checksumFlag]: 1,
    },
  });
}

export function* readRecording(file: Uint8Array): Generator<Recorded> {
  const content = zstdDecompressSync(file, { maxOutputLength: 1 << 28 });
  const input = new Reader(new Uint8Array(content.buffer, content.byteOffset, content.byteLength));
  if (String.fromCharCode(input.byte(), input.byte(), input.byte(), input.byte()) !== 'VTV1') {
    throw new Error('not a file of recorded vectors, or of another version');
  }
  let seed = 0;
  for (let i = 0; i < 32; i += 8) seed = (seed | (input.byte() << i)) >>> 0;
  const decoder = new TextDecoder();
  const forms = Array.from({ length: input.varint() }, () => decoder.decode(input.bytes()));
  const count = input.varint();
  let index = 0;
  for (let i = 0; i < count; i++) {
    const form = forms[input.varint()] ?? '';
    index += input.varint();
    const kind = KINDS[input.byte()] ?? 'int';
    const code = input.bytes();
    const stop = input.varint();
    const state = initialState(kind, mix(seed, index));
    input.delta(state);
    const patches = input.patches();
    const c: VectorCase = { form, code, state, patches, stop: stop === 0 ? undefined : stop - 1 + CODE };
    const vector = input.varint();
    const errorCode = vector === 0 ? 0 : input.varint();
    const cr2 = vector === 15 ? input.u64() : 0n;
    const after = predicted(c, vector === 0);
    input.delta(after);
    yield {
      case: c,
      result: {
        vector: vector === 0 ? undefined : vector - 1,
        errorCode,
        cr2,
        state: after,
        changes: input.patches(),
      },
    };
  }
  if (!input.done()) throw new Error('the vector file has bytes after its last case');
}
