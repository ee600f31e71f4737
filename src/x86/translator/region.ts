/** Which blocks make a region: what is reached from a hot block by direct branches inside one guest translation. */
import { MAX_BLOCK, type Block, type Blocks } from '../blocks.ts';
import { CASE, HEAD, MODE, REC } from '../layout.ts';
import type { Variant } from '../interpreter.ts';
import { Record, type RecordMemory } from './record.ts';
import type { Facts } from './region-sem.ts';

/** Limits that keep a function inside what V8's optimizing tier compiles in a moment; see docs/engine.md. */
export const LIMIT = { blocks: 128, instructions: 480, bytes: 48 << 10 } as const;
/** Instructions of blocks that are in other regions already: copies of them are compiled, and warm up, again. */
const COPIES = 40;

export interface Instruction {
  readonly record: Record;
  readonly variant: Variant;
  /** In line, by its out-of-line handler, or outside: by its handler when the region has been left. */
  readonly how: 'inline' | 'handler' | 'outside';
  readonly facts: Facts;
}

/** What the translator knows about instruction variants. */
export interface Classifier {
  classify(record: Record): Instruction;
}

export interface RegionBlock {
  readonly block: Block;
  readonly rip: bigint;
  readonly instructions: Instruction[];
  /** Instructions of the whole block, which its entry charges. */
  readonly length: number;
  /** rip behind the last instruction when the block does not end with a jump. */
  readonly fall: bigint | undefined;
  /** Rip values that direct branches of the last instruction name: taken, next. */
  readonly targets: readonly bigint[];
  /** The last instruction is a call: its return address. */
  readonly returns: bigint | undefined;
  /** The last instruction is a jump or call through a register or memory. */
  readonly indirect: boolean;
}

export interface Region {
  /** In the order in which they are written: mostly forward edges. The first is the root. */
  readonly blocks: readonly RegionBlock[];
  readonly index: ReadonlyMap<bigint, number>;
  readonly instructions: number;
  /** Rip values of blocks that only indirect jumps may reach. */
  readonly landings: ReadonlySet<bigint>;
  /** Known blocks outside it that its direct branches lead to. */
  readonly exits: ReadonlyMap<bigint, Block>;
}

const rip64 = (low: number, high: number): bigint => (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);

/** Reads a block's records; undefined when it cannot be part of a region. */
function readBlock(block: Block, memory: RecordMemory, classifier: Classifier): RegionBlock | undefined {
  // A block that goes on in another window has one instruction; small pages only.
  if (block.stale || (block.secondHost !== 0 && (block.mode & MODE.large) !== 0)) return undefined;
  if ((block.mode & (MODE.codeMask | MODE.single | MODE.real)) !== MODE.code64) return undefined;
  const instructions: Instruction[] = [];
  let fall: bigint | undefined;
  let targets: bigint[] = [];
  let returns: bigint | undefined;
  let indirect = false;
  const length = (memory.i32[(block.record + REC.after) >> 2] as number) + 1;
  for (let at = block.record, k = 0; k <= MAX_BLOCK; at += REC.size, k++) {
    const record = new Record(memory, at);
    const handler = record.half(REC.handler);
    if (handler === CASE.stop || handler === CASE.stale) return undefined;
    if (handler === CASE.end) {
      fall = BigInt.asUintN(64, record.long(REC.next));
      break;
    }
    const instruction = classifier.classify(record);
    instructions.push(instruction);
    const { def, operands } = instruction.variant.entry;
    const next = BigInt.asUintN(64, record.long(REC.next));
    if (record.word(REC.after) === 0 && (def.ends ?? 'no') !== 'no') {
      if (instruction.how === 'inline' && operands[0]?.kind === 'J') {
        const taken = BigInt.asUintN(64, record.long(REC.imm));
        targets = def.name === 'jmp' || def.name === 'call' ? [taken] : [taken, next];
      }
      if (def.name === 'call') returns = next;
      if (def.name !== 'ret' && operands[0]?.kind !== 'J') indirect = instruction.how === 'inline';
      break;
    }
  }
  if (instructions.length === 0) return undefined;
  return {
    block,
    rip: rip64(block.ripLow, block.ripHigh),
    instructions,
    length,
    fall,
    targets,
    returns,
    indirect,
  };
}

/** Cuts what another block of the region starts with: it goes on there. */
function truncate(block: RegionBlock, starts: ReadonlyMap<bigint, unknown>): RegionBlock {
  for (let k = 0; k + 1 < block.instructions.length; k++) {
    const { record } = block.instructions[k] as Instruction;
    const next = BigInt.asUintN(64, record.long(REC.next));
    if (!starts.has(next)) continue;
    return {
      ...block,
      instructions: block.instructions.slice(0, k + 1),
      fall: next,
      targets: [],
      returns: undefined,
      indirect: false,
    };
  }
  return block;
}

export class RegionFinder {
  readonly #blocks: Blocks;
  readonly #memory: RecordMemory;
  readonly #classifier: Classifier;
  /** Whether a block is part of a region. */
  readonly #used: (block: Block) => boolean;
  /** Whether a block is hot and waits for its region. */
  readonly #waits: (block: Block) => boolean;

  constructor(
    blocks: Blocks,
    memory: RecordMemory,
    classifier: Classifier,
    used: (block: Block) => boolean,
    waits: (block: Block) => boolean,
  ) {
    this.#used = used;
    this.#waits = waits;
    this.#blocks = blocks;
    this.#memory = memory;
    this.#classifier = classifier;
  }

  #executed(block: Block): number {
    const heat = this.#memory.i32[(block.record - HEAD.size + HEAD.heat) >> 2] as number;
    if (this.#waits(block)) return this.#blocks.heat;
    // A cold block counts down from COLD.
    return Math.max(0, this.#blocks.heat - heat);
  }

  /** The region of a hot block, of at most `most` instructions or one block; undefined when there is nothing to translate. */
  find(root: Block, most: number): Region | undefined {
    // Nothing looks at the second page when a region is entered from outside.
    if (root.secondHost !== 0) return undefined;
    const first = readBlock(root, this.#memory, this.#classifier);
    if (first === undefined) return undefined;
    const window = (root.mode & MODE.large) !== 0 ? 0x200000n : 0x1000n;
    const rip = first.rip;
    /** Where the fetch windows of the region lie: linear base to host address. */
    const windows = new Map<bigint, number>();
    const settle = (block: Block, at: bigint): void =>
      void windows.set(at & -window, block.host - Number(at & (window - 1n)));
    settle(root, rip);
    const locate = (target: bigint): Block | undefined => {
      const low = Number(BigInt.asIntN(32, target));
      const high = Number(target >> 32n) | 0;
      const origin = windows.get(target & -window);
      if (origin === undefined) return this.#blocks.lately(root.mode, low, high);
      const host = origin + Number(target & (window - 1n));
      return (
        this.#blocks.find(host, root.mode, low, high) ?? this.#blocks.findSplit(host, root.mode, low, high)
      );
    };
    const worth = Math.max(2, this.#blocks.heat >> 5);
    const found = new Map<bigint, RegionBlock>([[rip, first]]);
    let instructions = first.length;
    let copies = 0;
    const landings = new Set<bigint>();
    const exits = new Map<bigint, Block>();
    const searched = new Set<number>();
    const queue = [first];
    const add = (block: Block, target: bigint): boolean => {
      if (found.size >= LIMIT.blocks || this.#executed(block) < worth) return false;
      const read = readBlock(block, this.#memory, this.#classifier);
      if (read === undefined || instructions + read.length > most) return false;
      if (this.#used(block)) {
        if (copies + read.length > COPIES) return false;
        copies += read.length;
      }
      instructions += read.length;
      found.set(target, read);
      settle(block, target);
      queue.push(read);
      return true;
    };
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const successors = [...next.targets];
      if (next.fall !== undefined) successors.push(next.fall);
      if (next.returns !== undefined) successors.push(next.returns);
      for (const target of successors) {
        if (found.has(target)) continue;
        const block = locate(target);
        if (block !== undefined && !add(block, target)) exits.set(target, block);
      }
      // Where an indirect jump goes is not known, but what is hot in its page is likely to be where.
      const frame = next.block.host >>> 12;
      if (!next.indirect || searched.has(frame)) continue;
      searched.add(frame);
      for (const block of this.#blocks.inFrame(frame)) {
        const target = rip64(block.ripLow, block.ripHigh);
        const same = block.mode === root.mode && Number(target - next.rip) === block.host - next.block.host;
        if (same && block.secondHost === 0 && !found.has(target) && !this.#used(block) && add(block, target))
          landings.add(target);
      }
    }
    const cut = new Map([...found].map(([at, block]) => [at, truncate(block, found)]));
    const order = reversePostorder([rip, ...landings], cut);
    return {
      blocks: order,
      index: new Map(order.map((block, k) => [block.rip, k])),
      instructions,
      landings,
      exits,
    };
  }
}

function reversePostorder(roots: readonly bigint[], blocks: ReadonlyMap<bigint, RegionBlock>): RegionBlock[] {
  const order: RegionBlock[] = [];
  const seen = new Set<bigint>();
  for (const root of roots) {
    const done: RegionBlock[] = [];
    const visit = (at: bigint): void => {
      const block = blocks.get(at);
      if (block === undefined || seen.has(at)) return;
      seen.add(at);
      // What is visited last comes first: a call's target before what it returns to, the next block before a jump's.
      if (block.returns !== undefined) visit(block.returns);
      for (const target of block.targets) visit(target);
      if (block.fall !== undefined) visit(block.fall);
      done.push(block);
    };
    visit(root);
    order.push(...done.reverse());
  }
  return order;
}
