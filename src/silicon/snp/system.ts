/**
 * The memory of an SNP system: frames by system-physical address, the nested tables, the RMP and key domains, in the
 * tables that `second-stage.ts` reads. A change that a TLB entry could contradict drops translations.
 */
import type { NestedMapping, RmpUpdate } from '../../seats/snp.ts';
import type { Engine } from '../../x86/engine.ts';
import { MemoryKeys } from './keys.ts';
import { ALIAS_BIT, NESTED, SNP_STAGE, snpLayout, type SnpLayout } from './layout.ts';
import { ReverseMap } from './rmp.ts';

const PAGE = 4096;
const BLOCK = 2 << 20;
const BLOCK_PAGES = BLOCK / PAGE;
const ALIAS = 2 ** ALIAS_BIT;

export class SnpSystem {
  readonly engine: Engine;
  readonly keys: MemoryKeys;
  readonly rmp: ReverseMap;
  /** Bytes of system memory. */
  readonly bytes: number;
  readonly layout: SnpLayout;
  readonly #u8: Uint8Array;
  readonly #u32: Uint32Array;
  /** Pages that something was written to before the first context ran: all others were zero until then. */
  readonly #filled: Uint8Array;
  readonly #clear: (host: number, bytes: number) => void;

  constructor(engine: Engine, top: number, seed: bigint) {
    this.engine = engine;
    const { plan } = engine;
    this.bytes = plan.framesEnd - plan.frames;
    this.keys = new MemoryKeys(seed);
    this.layout = snpLayout(plan.stage, top, this.bytes);
    this.#u8 = engine.u8;
    this.#u32 = engine.u32;
    this.#clear = engine.routine('clear_frames');
    this.#filled = new Uint8Array(this.bytes / PAGE);
    this.rmp = new ReverseMap(engine.memory.buffer, this.layout.rmp, this.bytes / PAGE);
    const { nested, nestedPages, rmp, domains, mixed, msrMap } = this.layout;
    for (const [offset, value] of [
      [SNP_STAGE.nested, nested],
      [SNP_STAGE.nestedPages, nestedPages],
      [SNP_STAGE.rmp, rmp],
      [SNP_STAGE.domains, domains],
      [SNP_STAGE.mixed, mixed],
      [SNP_STAGE.outside, NESTED.mmio],
      [SNP_STAGE.framesBase, plan.frames],
      [SNP_STAGE.msrMap, msrMap],
    ] as const)
      engine.view.setUint32(plan.stage + offset, value, true);
  }

  host(spa: number): number {
    return this.engine.plan.frames + spa;
  }
  isInside(spa: number, length: number): boolean {
    return spa >= 0 && length >= 0 && spa + length <= this.bytes;
  }

  /** Address in linear memory of the nested entry of `gpa`; undefined beyond the tables. */
  #entry(gpa: number): number | undefined {
    const alias = gpa >= ALIAS;
    const page = Math.floor((alias ? gpa - ALIAS : gpa) / PAGE);
    const { nested, nestedPages } = this.layout;
    if (page < 0 || page >= nestedPages) return undefined;
    return (nested >>> 2) + page + (alias ? nestedPages : 0);
  }
  map(gpa: number, mapping: NestedMapping): void {
    const count = mapping.kind === 'page' && mapping.large ? BLOCK / PAGE : 1;
    for (let k = 0; k < count; k++) {
      const at = this.#entry(gpa + k * PAGE);
      if (at === undefined) continue;
      this.#u32[at] =
        mapping.kind === 'absent'
          ? 0
          : mapping.kind === 'mmio'
            ? NESTED.mmio
            : (this.host(mapping.spa + k * PAGE) |
                NESTED.present |
                (mapping.writable ? NESTED.writable : 0) |
                (mapping.large ? NESTED.large : 0)) >>>
              0;
    }
    this.flush();
  }
  mapping(gpa: number): NestedMapping {
    const at = this.#entry(gpa);
    const entry = at === undefined ? NESTED.mmio : (this.#u32[at] as number);
    if (entry & NESTED.present)
      return {
        kind: 'page',
        spa: ((entry & -PAGE) >>> 0) - this.engine.plan.frames,
        large: (entry & NESTED.large) !== 0,
        writable: (entry & NESTED.writable) !== 0,
      };
    return entry & NESTED.mmio ? { kind: 'mmio' } : { kind: 'absent' };
  }

  rmpupdate(spa: number, entry: RmpUpdate): number {
    return this.rmp.update(spa, entry, () => this.flush());
  }
  psmash(spa: number): number {
    const status = this.rmp.smash(spa);
    this.flush();
    return status;
  }

  domain(page: number): number {
    return this.#u8[this.layout.domains + page] as number;
  }
  /** The frame's content as `domain` sees it from now on. */
  changeKey(page: number, domain: number): void {
    const before = this.domain(page);
    if (before === domain) return;
    const host = this.host(page * PAGE);
    this.#u8.set(this.keys.convert(this.#u8.subarray(host, host + PAGE), page, before, domain), host);
    if (!this.live) this.#filled[page] = 1;
    this.#u8[this.layout.domains + page] = domain;
    this.settleBlocks(page, 1);
    this.engine.blocks.codeChanged(host, PAGE);
    this.flush();
  }
  /** New content of whole pages under `domain`: what they held before is nobody's any more, so nothing is converted. */
  fill(page: number, domain: number, contents: Uint8Array): void {
    this.#u8.set(contents, this.host(page * PAGE));
    if (!this.live) this.#filled.fill(1, page, page + contents.length / PAGE);
    this.#replaced(page, contents.length / PAGE, domain);
  }

  /** Zeros under `domain`. */
  clear(page: number, count: number, domain: number): void {
    if (this.live || this.#filled.subarray(page, page + count).includes(1))
      this.#clear(this.host(page * PAGE), count * PAGE);
    this.#replaced(page, count, domain);
  }

  #replaced(page: number, count: number, domain: number): void {
    const { domains } = this.layout;
    let changed = false;
    for (let at = page; at < page + count && !changed; at++) changed = this.domain(at) !== domain;
    this.engine.blocks.codeChanged(this.host(page * PAGE), count * PAGE);
    if (!changed) return;
    this.#u8.fill(domain, domains + page, domains + page + count);
    this.settleBlocks(page, count);
    this.flush();
  }

  /** Notes of the 2 MiB blocks around these pages whether all of each is under one key. */
  settleBlocks(page: number, count: number): void {
    const { domains, mixed } = this.layout;
    for (let block = page >>> 9; block <= (page + count - 1) >>> 9; block++) {
      const first = domains + block * BLOCK_PAGES;
      const domain = this.#u8[first];
      let at = 1;
      while (at < BLOCK_PAGES && this.#u8[first + at] === domain) at++;
      this.#u8[mixed + block] = at < BLOCK_PAGES ? 1 : 0;
    }
  }

  /** What an access from `domain` finds, without changing what the frame holds. */
  peek(spa: number, length: number, domain: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length;) {
      const page = Math.floor((spa + at) / PAGE);
      const offset = (spa + at) % PAGE;
      const count = Math.min(length - at, PAGE - offset);
      const host = this.host(page * PAGE);
      const own = this.#u8.subarray(host, host + PAGE);
      const before = this.domain(page);
      const seen = before === domain ? own : this.keys.convert(own, page, before, domain);
      bytes.set(seen.subarray(offset, offset + count), at);
      at += count;
    }
    return bytes;
  }
  /** Writes from `domain`, all of it; whether that is allowed is the caller's question. */
  poke(spa: number, bytes: Uint8Array, domain: number): void {
    for (let at = 0; at < bytes.length;) {
      const page = Math.floor((spa + at) / PAGE);
      const whole = (spa + at) % PAGE === 0 ? Math.floor((bytes.length - at) / PAGE) : 0;
      if (whole > 0) {
        this.fill(page, domain, bytes.subarray(at, at + whole * PAGE));
        at += whole * PAGE;
        continue;
      }
      const count = Math.min(bytes.length - at, PAGE - ((spa + at) % PAGE));
      this.changeKey(page, domain);
      if (!this.live) this.#filled[page] = 1;
      const host = this.host(spa + at);
      this.engine.blocks.codeChanged(host, count);
      this.#u8.set(bytes.subarray(at, at + count), host);
      at += count;
    }
  }
  /** Whether anybody but a guest may write there. */
  isHypervisorOwned(spa: number, length: number): boolean {
    for (let page = Math.floor(spa / PAGE); page * PAGE < spa + length; page++)
      if (this.rmp.isAssigned(page)) return false;
    return true;
  }

  /** Set when the first context runs: before there are no translations. */
  live = false;

  /** Drops the translations of every context. */
  flush(): void {
    if (!this.live) return;
    const { vcpus, contexts } = this.engine.plan;
    for (let slot = 0; slot < vcpus * contexts; slot++) this.engine.tlbFlush(this.engine.cpu(0, slot));
  }

  save(): unknown {
    const { layout } = this;
    const nested = this.#u32.slice(layout.nested >>> 2, (layout.nested >>> 2) + layout.nestedPages * 2);
    for (let k = 0; k < nested.length; k++) {
      const entry = nested[k] as number;
      if (entry & NESTED.present) nested[k] = entry - this.engine.plan.frames;
    }
    return {
      nested,
      rmp: this.rmp.save(),
      domains: this.#u8.slice(layout.domains, layout.domains + this.bytes / PAGE),
      mixed: this.#u8.slice(layout.mixed, layout.mixed + this.bytes / BLOCK),
    };
  }
  load(state: unknown): void {
    const { nested, rmp, domains, mixed } = state as {
      nested: Uint32Array;
      rmp: Float64Array;
      domains: Uint8Array;
      mixed: Uint8Array;
    };
    const { layout } = this;
    for (let k = 0; k < nested.length; k++) {
      const entry = nested[k] as number;
      this.#u32[(layout.nested >>> 2) + k] = entry & NESTED.present ? entry + this.engine.plan.frames : entry;
    }
    this.rmp.load(rmp);
    this.#u8.set(domains, layout.domains);
    this.#u8.set(mixed, layout.mixed);
  }
}
