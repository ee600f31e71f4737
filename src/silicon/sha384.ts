/**
 * SHA-384 (FIPS 180-4, 6.5) for launch measurements, as WebAssembly: a boot hashes tens of megabytes, and 64-bit arithmetic in
 * JavaScript takes ten times as long. The state between blocks is plain data, because a TD's measurement may stand half done in
 * a snapshot.
 */
import { ModuleBuilder } from '../x86/wasm/module.ts';
import type { FunctionBuilder, Var } from '../x86/wasm/function.ts';
import { i32, i64, type Val } from '../x86/wasm/value.ts';

export const BLOCK = 128;
const STATE = 0;
const INPUT = 256;
const MEMORY = 0x1_0000;
const ROOM = Math.floor((MEMORY - INPUT) / BLOCK) * BLOCK;

/** First 64 bits of the fractional parts of a root of the first primes (FIPS 180-4, 4.2.3 and 5.3.4), by integer roots. */
function fractions(root: 2n | 3n, count: number, from: number): bigint[] {
  const found: bigint[] = [];
  for (let n = 2; found.length < from + count; n++) {
    let prime = true;
    for (let d = 2; d * d <= n; d++) if (n % d === 0) prime = false;
    if (!prime) continue;
    const scaled = BigInt(n) << (64n * root);
    let low = 0n;
    let high = 1n << 72n;
    while (high - low > 1n) {
      const middle = (low + high) >> 1n;
      if (middle ** root <= scaled) low = middle;
      else high = middle;
    }
    found.push(BigInt.asUintN(64, low));
  }
  return found.slice(from);
}

/** From the ninth to sixteenth prime. */
const INITIAL = new Uint8Array(BigUint64Array.from(fractions(2n, 8, 8)).buffer);

function byteSwap(f: FunctionBuilder, value: Val): Val {
  const bytes = f.let(value);
  const pairs = f.let(bytes.and(0x00ff00ff00ff00ffn).shl(8).or(bytes.shrU(8).and(0x00ff00ff00ff00ffn)));
  return pairs.and(0x0000ffff0000ffffn).shl(16).or(pairs.shrU(16).and(0x0000ffff0000ffffn)).rotl(32);
}

/** `blocks(count)`: folds `count` blocks at INPUT into the state. */
function compress(f: FunctionBuilder): void {
  const constants = fractions(3n, 80, 0);
  const at = f.local('i32', i32(INPUT));
  const end = f.let(f.p(0).mul(BLOCK).add(INPUT));
  const words = Array.from({ length: 16 }, () => f.local('i64'));
  const word = (i: number): Var => words[i & 15] as Var;
  f.while(
    () => at.get.ltU(end),
    () => {
      words.forEach((w, i) => f.scope(() => w.set(byteSwap(f, f.load('64', at.get, 8 * i)))));
      let v = Array.from({ length: 8 }, (_, i) => f.local('i64', f.load('64', i32(STATE), 8 * i)));
      for (let t = 0; t < 80; t++) {
        f.scope(() => {
          if (t >= 16) {
            const near = word(t - 2).get;
            const far = word(t - 15).get;
            word(t).set(
              near
                .rotr(19)
                .xor(near.rotr(61))
                .xor(near.shrU(6))
                .add(word(t - 7).get)
                .add(far.rotr(1).xor(far.rotr(8)).xor(far.shrU(7)))
                .add(word(t).get),
            );
          }
          const [a, b, c, d, e, fv, g, h] = v as [Var, Var, Var, Var, Var, Var, Var, Var];
          const first = f.let(
            h.get
              .add(e.get.rotr(14).xor(e.get.rotr(18)).xor(e.get.rotr(41)))
              .add(fv.get.xor(g.get).and(e.get).xor(g.get))
              .add(i64(constants[t] as bigint))
              .add(word(t).get),
          );
          d.set(d.get.add(first));
          h.set(
            first
              .add(a.get.rotr(28).xor(a.get.rotr(34)).xor(a.get.rotr(39)))
              .add(a.get.and(b.get).or(a.get.or(b.get).and(c.get))),
          );
          v = [h, a, b, c, d, e, fv, g];
        });
      }
      v.forEach((w, i) => f.store('64', i32(STATE), w.get.add(f.load('64', i32(STATE), 8 * i)), 8 * i));
      at.set(at.get.add(BLOCK));
    },
  );
}

interface Engine {
  readonly memory: Uint8Array;
  readonly blocks: (count: number) => void;
}
let built: Engine | undefined;

function engine(): Engine {
  if (built !== undefined) return built;
  const module = new ModuleBuilder(MEMORY / 0x1_0000);
  module.export(module.func('blocks', ['i32'], [], compress));
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  const instance = new WebAssembly.Instance(new WebAssembly.Module(module.finish()), { env: { memory } });
  built = {
    memory: new Uint8Array(memory.buffer),
    blocks: instance.exports['blocks'] as (count: number) => void,
  };
  return built;
}

/** A hash in progress that stands between two blocks: plain data. */
export interface Sha384State {
  /** H0 to H7, each little-endian. */
  readonly words: Uint8Array;
  /** Bytes hashed so far, a multiple of BLOCK. */
  length: number;
}

export function start(): Sha384State {
  return { words: INITIAL.slice(), length: 0 };
}

/** Adds whole blocks. */
export function addBlocks(state: Sha384State, data: Uint8Array): void {
  if (data.length % BLOCK !== 0) throw new RangeError(`${data.length} bytes are not whole SHA-384 blocks`);
  const { memory } = engine();
  memory.set(state.words, STATE);
  fold(data);
  state.words.set(memory.subarray(STATE, STATE + 64));
  state.length += data.length;
}

/** The digest of what was added and of `rest`; the state may go on without `rest`. */
export function finish(state: Sha384State, rest: Uint8Array = new Uint8Array(0)): Uint8Array {
  const { memory, blocks } = engine();
  memory.set(state.words, STATE);
  const tail = rest.length % BLOCK;
  const whole = rest.length - tail;
  fold(rest.subarray(0, whole));
  const size = tail < BLOCK - 16 ? BLOCK : 2 * BLOCK;
  memory.fill(0, INPUT, INPUT + size);
  memory.set(rest.subarray(whole), INPUT);
  memory[INPUT + tail] = 0x80;
  // The length in bits; 2^53 bits are enough.
  let bits = (state.length + rest.length) * 8;
  for (let at = INPUT + size - 1; bits > 0; at--, bits = Math.floor(bits / 256)) memory[at] = bits % 256;
  blocks(size / BLOCK);
  const digest = new Uint8Array(48);
  for (let i = 0; i < 48; i++) digest[i] = memory[STATE + (i ^ 7)] as number;
  return digest;
}

export function sha384(data: Uint8Array): Uint8Array {
  return finish(start(), data);
}

function fold(data: Uint8Array): void {
  const { memory, blocks } = engine();
  for (let at = 0; at < data.length; at += ROOM) {
    const part = data.subarray(at, at + ROOM);
    memory.set(part, INPUT);
    blocks(part.length / BLOCK);
  }
}
