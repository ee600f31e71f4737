/** Turns hot blocks into regions, a batch of them per module, and drops regions whose code changes. */
import type { Block, BlockObserver, Blocks } from '../blocks.ts';
import { HANDLER_PARAMS, REGION_PARAMS, REP, type Variant } from '../interpreter.ts';
import { COLD, HEAD, REC } from '../layout.ts';
import type { MemoryPlan } from '../memory-plan.ts';
import type { Library } from '../sem.ts';
import { FunctionBuilder, type FunctionRef } from '../wasm/function.ts';
import { ModuleBuilder } from '../wasm/module.ts';
import { emitRegion, type EmittedRegion } from './emit.ts';
import { Record, RecordMemory } from './record.ts';
import { NotInline, RegionSem, type Facts, type RegionState } from './region-sem.ts';
import { LIMIT, RegionFinder, type Classifier, type Instruction, type Region } from './region.ts';

/** Regions that are compiled together. */
const BATCH = 24;
/** Instructions after which a smaller batch is compiled too, for each run that makes a block hot. */
const PATIENCE = 250;
/** Slots of the function table for regions; when they are used up everything is dropped (a generation). */
export const REGION_SLOTS = 12_000;
/** Drops of translated code on one frame after which what lies there is interpreted for long. */
const CHANGES = 8;

export interface TranslatorParts {
  readonly memory: WebAssembly.Memory;
  readonly table: WebAssembly.Table;
  readonly tag: WebAssembly.Tag;
  readonly plan: MemoryPlan;
  readonly blocks: Blocks;
  readonly variants: readonly Variant[];
  /** The functions of the interpreter's module by name. */
  readonly exports: { readonly [name: string]: unknown };
  /** Signatures of the library's routines. */
  readonly library: Library;
  /** First free slot of the table. */
  readonly firstSlot: number;
}

const CLEAN: Facts = {
  writesFlags: false,
  readsFlags: false,
  readsDeadFlags: false,
  faults: true,
  stores: 0,
};

/** Whether the host has the tail calls that lead from region to region. */
export function canTranslate(): boolean {
  const module = new ModuleBuilder(1);
  const self = module.declare('self', [], []);
  module.define(self, (f) => f.tailCall(self));
  try {
    return new WebAssembly.Module(module.finish()) !== undefined;
  } catch {
    return false;
  }
}

export class Translator implements BlockObserver {
  readonly #parts: TranslatorParts;
  readonly #memory: RecordMemory;
  readonly #finder: RegionFinder;
  readonly #known = new Map<number, Pick<Instruction, 'how' | 'facts'>>();
  #queue = new Set<Block>();
  #waited = 0;
  #nextSlot: number;
  /** Slots of the regions that hold code of a block. */
  readonly #users = new Map<Block, number[]>();
  readonly #regions = new Map<
    number,
    { readonly blocks: readonly Block[]; readonly entries: readonly Block[] }
  >();
  readonly #changes = new Map<number, number>();
  /** For inspection. */
  readonly counts = {
    regions: 0,
    modules: 0,
    instructions: 0,
    bytes: 0,
    drops: 0,
    generations: 0,
    refused: 0,
  };
  /** Called with each function's body size, for the test of V8's limits. */
  onFunction: (size: number, region: Region) => void = () => undefined;

  constructor(parts: TranslatorParts) {
    this.#parts = parts;
    this.#memory = new RecordMemory(parts.memory.buffer);
    this.#nextSlot = parts.firstSlot;
    const classifier: Classifier = { classify: (record) => this.#classify(record) };
    this.#finder = new RegionFinder(
      parts.blocks,
      this.#memory,
      classifier,
      (block) => this.#users.has(block),
      (block) => this.#queue.has(block) || this.#hotSplit(block),
    );
    parts.blocks.observer = this;
  }

  #setHead(block: Block, heat: number, slot: number, entry: number, need: number): void {
    const at = (block.record - HEAD.size) >> 2;
    const { i32: words } = this.#memory;
    words[at + (HEAD.heat >> 2)] = heat;
    words[at + (HEAD.slot >> 2)] = slot;
    words[at + (HEAD.entry >> 2)] = entry;
    words[at + (HEAD.need >> 2)] = need;
  }
  #slotOf(block: Block): number {
    return this.#memory.i32[(block.record - HEAD.size + HEAD.slot) >> 2] as number;
  }

  /** The block is hot: it is translated soon. */
  hot(block: Block): void {
    this.#setHead(block, COLD, 0, 0, 0);
    if ((this.#changes.get(block.host >>> 12) ?? 0) > CHANGES) return;
    this.#queue.add(block);
    if (this.#queue.size >= BATCH) this.compile();
  }

  /** An instruction in two pages is the root of no region, but part of those around it. */
  #hotSplit(block: Block): boolean {
    if (block.secondHost === 0) return false;
    const heat = this.#memory.i32[(block.record - HEAD.size + HEAD.heat) >> 2] as number;
    const steady = (host: number): boolean => (this.#changes.get(host >>> 12) ?? 0) <= CHANGES;
    return heat > this.#parts.blocks.heat && steady(block.host) && steady(block.secondHost);
  }

  /** Between runs: `executed` instructions later. */
  pause(executed: number): void {
    if (this.#queue.size > 0 && (this.#waited += executed) > PATIENCE * this.#parts.blocks.heat)
      this.compile();
  }

  compile(): void {
    this.#waited = 0;
    const queue = [...this.#queue];
    const { blocks, table, tag, memory, exports } = this.#parts;
    if (this.#nextSlot + queue.length > this.#parts.firstSlot + REGION_SLOTS) {
      this.counts.generations++;
      this.#queue.clear();
      blocks.flush();
      return;
    }
    const imports: FunctionRef[] = [];
    const byName = new Map<string, FunctionRef>();
    const lib: Library = (name) => {
      let ref = byName.get(name);
      if (ref === undefined) {
        const { params, results } = this.#parts.library(name);
        ref = { name, index: imports.length, params, results };
        imports.push(ref);
        byName.set(name, ref);
      }
      return ref;
    };
    const made: { region: Region; emitted: EmittedRegion }[] = [];
    for (const block of queue) {
      if (block.stale || this.#slotOf(block) !== 0) continue;
      if (this.#users.get(block)?.some((slot) => slot >= this.#nextSlot) === true) {
        // In the middle of a region of this batch: it waits whether it is reached from elsewhere, too.
        this.#setHead(block, blocks.heat, 0, 0, 0);
        continue;
      }
      const slot = this.#nextSlot + made.length;
      const written = this.#write(block, lib, slot);
      if (written === undefined) {
        this.counts.refused++;
        continue;
      }
      this.#install(written.region, written.emitted, slot);
      made.push(written);
    }
    this.#queue.clear();
    if (made.length === 0) return;
    const module = new ModuleBuilder(this.#parts.plan.pages);
    module.type(REGION_PARAMS, ['i32']);
    module.type(HANDLER_PARAMS, []);
    for (const { name, params, results } of imports) module.importFunction('lib', name, params, results);
    module.importTag('env', 'fault');
    for (const { region, emitted } of made) {
      const size = emitted.f.out.length;
      module.tableSlot(module.add(emitted.f));
      this.counts.regions++;
      this.counts.instructions += region.instructions;
      this.counts.bytes += size;
      this.onFunction(size, region);
    }
    module.importTable({ module: 'env', name: 'handlers', minimum: 1 }, this.#nextSlot);
    this.#nextSlot += made.length;
    this.counts.modules++;
    new WebAssembly.Instance(new WebAssembly.Module(module.finish()), {
      env: { memory, handlers: table, fault: tag },
      lib: exports,
    });
  }

  /** The region of a block as a function that the optimizing tier likes; undefined when there is nothing to translate. */
  #write(block: Block, lib: Library, slot: number): { region: Region; emitted: EmittedRegion } | undefined {
    for (let most = LIMIT.instructions; ; most >>= 1) {
      const region = this.#finder.find(block, most);
      if (region === undefined) return undefined;
      const place = { slot, jumpCache: this.#parts.plan.jumpCache };
      const emitted = emitRegion(`r${block.ripLow.toString(16)}`, region, lib, { index: 0 }, place);
      if (emitted.f.out.length <= LIMIT.bytes || region.blocks.length === 1) return { region, emitted };
    }
  }

  /** From here on dispatch enters the region. */
  #install(region: Region, { entries }: EmittedRegion, slot: number): void {
    this.#regions.set(slot, {
      blocks: region.blocks.map(({ block }) => block),
      entries: entries.map(({ block }) => block),
    });
    for (const { block } of region.blocks) {
      const users = this.#users.get(block);
      if (users) users.push(slot);
      else this.#users.set(block, [slot]);
    }
    for (const [k, { block }] of entries.entries())
      if (block.secondHost === 0 && (k === 0 || this.#slotOf(block) === 0))
        this.#setHead(block, 0, slot, k, region.instructions);
  }

  dropped(block: Block): void {
    const users = this.#users.get(block);
    this.#users.delete(block);
    if (users === undefined) return;
    const frame = block.host >>> 12;
    this.#changes.set(frame, (this.#changes.get(frame) ?? 0) + 1);
    for (const slot of users) this.#dropRegion(slot);
  }

  #dropRegion(slot: number): void {
    const known = this.#regions.get(slot);
    if (known === undefined) return;
    this.#regions.delete(slot);
    this.counts.drops++;
    for (const block of known.entries)
      if (this.#slotOf(block) === slot) this.#setHead(block, this.#parts.blocks.heat, 0, 0, 0);
    for (const block of known.blocks) {
      const users = this.#users.get(block);
      if (users)
        this.#users.set(
          block,
          users.filter((user) => user !== slot),
        );
    }
    this.#parts.table.set(slot, null);
  }

  flushed(): void {
    for (const slot of this.#regions.keys()) this.#parts.table.set(slot, null);
    this.#regions.clear();
    this.#users.clear();
    this.#queue.clear();
    this.#changes.clear();
    this.#nextSlot = this.#parts.firstSlot;
  }

  /** Whether a record's instruction can be in line, found out by writing it once. */
  #classify(record: Record): Instruction {
    const slot = record.half(REC.slot);
    const variant = this.#parts.variants[slot];
    if (variant === undefined) throw new Error(`table slot ${slot} has no instruction variant`);
    // An immediate shift count of zero changes which flags are written.
    const zero = (record.word(REC.imm) & (variant.size === 8 ? 63 : 31)) === 0;
    const key = slot * 4 + (zero ? 1 : 0) + (record.byte(REC.addressSize) === 8 ? 0 : 2);
    let known = this.#known.get(key);
    if (known === undefined) {
      known = this.#tryVariant(record, variant);
      this.#known.set(key, known);
    }
    return { record, variant, ...known };
  }

  #tryVariant(record: Record, variant: Variant): Pick<Instruction, 'how' | 'facts'> {
    const { entry, size, mem, rep } = variant;
    const ends = entry.def.ends ?? 'no';
    const out = { how: ends === 'no' ? 'handler' : 'outside', facts: CLEAN } as const;
    if (ends === 'sync' || (mem && record.byte(REC.addressSize) !== 8)) return out;
    const probe = (dead: boolean): Facts => {
      const f = new FunctionBuilder('probe', REGION_PARAMS, ['i32']);
      const form = { size, mem, rep: REP[rep] };
      const sem = new RegionSem(f, f.p(0), this.#parts.library, entry, form, record, probeState(f), dead);
      f.scope(() => entry.def.sem(sem));
      return sem.facts;
    };
    let facts: Facts;
    try {
      facts = { ...probe(false), readsDeadFlags: probe(true).readsFlags };
    } catch (error) {
      if (error instanceof NotInline) return out;
      throw error;
    }
    // A store that must be left to the interpreter is found before it is done: there can be only one.
    if (facts.stores > 1) return out;
    return { how: 'inline', facts };
  }
}

function probeState(f: FunctionBuilder): RegionState {
  const local = (type: 'i32' | 'i64' | 'v128') => f.persistent(type);
  const gpr = local('i64');
  const xmm = local('v128');
  return {
    tlb: local('i32'),
    budget: local('i32'),
    flags: { kind: local('i32'), a: local('i64'), b: local('i64'), r: local('i64') },
    gpr: () => gpr,
    xmm: () => xmm,
    flagKind: undefined,
    depth: f.depth,
    jump: () => undefined,
    jumpIf: (condition) => void f.let(condition),
  };
}
