/** Hashes pages where they lie, in WebAssembly: a hash of the whole state reads every page of the guest each time. */
import { ModuleBuilder } from '../x86/wasm/module.ts';
import type { Val } from '../x86/wasm/value.ts';

/** Odd, with well spread bits; and what the four lanes start with. */
const FACTOR = 0x9e3779b97f4a7c15n;
const SPREAD = 0xd6e8feb86659fd93n;
const LANES = [0xcbf29ce484222325n, 0x84222325cbf29ce4n, 0x2545f4914f6cdd1dn, 0x369dea0f31a53f85n] as const;
const PAGE = 4096;

/** `hash` with the page at host address `host` mixed in under its number; `hash` itself for a page of zeros. */
export type PageHash = (hash: bigint, page: number, host: number) => bigint;

function build(pages: number): Uint8Array {
  const module = new ModuleBuilder(pages);
  const mixed = (hash: Val, value: Val, turn: number): Val =>
    // Spread first: a bit that went through the rotation could else be taken for another one of the next word.
    hash.add(value.mul(SPREAD)).rotl(BigInt(turn)).mul(FACTOR);
  const ref = module.func('page_hash', ['i64', 'i32', 'i32'], ['i64'], (f) => {
    const at = f.local('i32', f.p(2));
    const end = f.let(f.p(2).add(PAGE));
    const lanes = LANES.map((start) => f.local('i64', start));
    const any = f.local('i64', 0n);
    f.loop((again) => {
      lanes.forEach((lane, n) => {
        const word = f.let(f.load('64', at.get, n * 8));
        any.set(any.get.or(word));
        lane.set(mixed(lane.get, word, 29));
      });
      at.set(at.get.add(LANES.length * 8));
      f.brIf(again, at.get.ltU(end));
    });
    f.if(any.get.eqz(), () => f.return(f.p(0)));
    let hash = mixed(f.p(0), f.p(1).zext(), 31);
    for (const lane of lanes) hash = mixed(hash, lane.get, 31);
    f.return(hash);
    f.unreachable();
  });
  module.export(ref);
  return module.finish();
}

const known = new WeakMap<WebAssembly.Memory, PageHash>();

/** `pages`: size of the memory in 64 KiB. */
export function pageHash(memory: WebAssembly.Memory, pages: number): PageHash {
  let hash = known.get(memory);
  if (hash === undefined) {
    const instance = new WebAssembly.Instance(new WebAssembly.Module(build(pages)), { env: { memory } });
    hash = instance.exports['page_hash'] as PageHash;
    known.set(memory, hash);
  }
  return hash;
}
