/**
 * A 64-bit hash of everything that a guest could ever observe: registers, memory, the platform's state, the clock. It does
 * not depend on where frames lie, which engine ran or who watched. Not cryptographic.
 */
import { CPU } from '../x86/layout.ts';
import { encodeValue } from './codec.ts';
import type { Machine } from './machine.ts';
import { pageHash } from './page-hash.ts';
import { rflags } from '../silicon/vcpu.ts';

/** Ranges of the CPU structure that are architectural state and hold no address of ours. */
const RANGES: readonly (readonly [number, number])[] = [
  [CPU.gpr, CPU.rip + 8],
  [CPU.eflags, CPU.mode + 4],
  [CPU.cpl, CPU.cpl + 4],
  [CPU.shadow, CPU.shadow + 4],
  [CPU.seg, CPU.cr4Allowed],
  [CPU.entropy, CPU.entropy + 8],
  [CPU.pdpte, CPU.pdpte + 32],
  [CPU.st, CPU.xmm + 512],
  [CPU.keptMsr, CPU.keptMsr + 0x300],
];

/** FNV-1a over 32-bit words in two halves: enough to tell states apart, and quick in plain numbers. */
class Mixer {
  #a = 0x811c9dc5;
  #b = 0x9747b28c;
  word(value: number): void {
    this.#a = Math.imul(this.#a ^ value, 0x01000193);
    this.#b = Math.imul(this.#b ^ ((value << 13) | (value >>> 19)), 0x5bd1e995) ^ (this.#a >>> 15);
  }
  bytes(bytes: Uint8Array): void {
    for (const byte of bytes) this.word(byte);
  }
  get value(): bigint {
    return (BigInt(this.#b >>> 0) << 32n) | BigInt(this.#a >>> 0);
  }
}

export function stateHash(machine: Machine): string {
  const { engine, truth, silicon } = machine;
  const mixer = new Mixer();
  mixer.word(machine.instructions % 0x100000000);
  mixer.word(machine.now % 0x100000000);
  for (let vp = 0; vp < machine.config.vcpus; vp++) {
    for (let context = 0; context < silicon.contexts; context++) {
      const cpu = engine.cpu(vp, context);
      for (const [from, to] of RANGES)
        for (let at = cpu + from; at < cpu + to; at += 4) mixer.word(engine.u32[at >>> 2] as number);
      mixer.word(rflags(engine, cpu));
    }
  }
  const mix = pageHash(engine.memory, engine.plan.pages);
  let pages = 0n;
  truth.eachPage((page, host) => void (pages = mix(pages, page, host)));
  mixer.word(Number(BigInt.asIntN(32, pages)));
  mixer.word(Number(BigInt.asIntN(32, pages >> 32n)));
  mixer.bytes(encodeValue(silicon.save()));
  mixer.bytes(encodeValue(machine.platform.state));
  return mixer.value.toString(16).padStart(16, '0');
}
