/**
 * Writes a region as one WebAssembly function.
 *
 *   (cpu, budget, entry) -> budget left, or REGION_FAULT
 *
 * Its blocks lie one behind the other, forward edges are branches, and the guest's loops are loops (loops.ts). All of it is
 * inside one more loop that starts with a br_table over the entries, for what goes elsewhere. There is one way out for
 * everything, which writes the locals back and goes on in the region of the new rip when there is one. A fault tag that is
 * thrown inside takes the same way.
 */
import { CPU, ENGINE, HEAD, JUMP, MODE, REC, TLB } from '../layout.ts';
import type { Block } from '../blocks.ts';
import { REGION_FAULT, REGION_PARAMS, REP, jumpEntry } from '../interpreter.ts';
import type { Library } from '../sem.ts';
import { FunctionBuilder, type Label, type TagRef, type Var } from '../wasm/function.ts';
import { i32, i64, type Val } from '../wasm/value.ts';
import { has, LoopNest, type Edge, type Loop } from './loops.ts';
import type { Instruction, Region, RegionBlock } from './region.ts';
import { current, RegionSem, type RegionState } from './region-sem.ts';

/** Type numbers of a translator's module: see translator.ts. */
export const TYPES = { region: 0, handler: 1 } as const;

/** In `next`: nothing is to be dispatched. */
const ARRIVED = -1;

/** Return addresses that RET compares with before it looks further. */
const RETURN_GUESSES = 6;

export interface EmittedRegion {
  readonly f: FunctionBuilder;
  /** Blocks that can be entered from outside, by entry number. */
  readonly entries: readonly RegionBlock[];
}

class Locals implements RegionState {
  readonly f: FunctionBuilder;
  readonly tlb: Var;
  readonly budget: Var;
  readonly #flags: RegionState['flags'];
  #usesFlags = false;
  flagKind: number | undefined;
  depth = 0;
  readonly #gpr: (Var | undefined)[] = [];
  readonly #xmm: (Var | undefined)[] = [];
  readonly #written = new Set<Var>();
  jump: RegionState['jump'] = () => undefined;
  jumpIf: RegionState['jumpIf'] = () => undefined;

  /** `before`: the locals of an earlier writing of the same region, whose registers are all in use from the start. */
  constructor(f: FunctionBuilder, budget: Var, before?: Locals) {
    this.f = f;
    this.budget = budget;
    if (before) {
      this.#usesFlags = before.#usesFlags;
      for (const [n, register] of before.#gpr.entries())
        if (register) this.gpr(n, before.#written.has(register));
      for (const [n, register] of before.#xmm.entries())
        if (register) this.xmm(n, before.#written.has(register));
    }
    this.tlb = f.persistent('i32');
    this.#flags = {
      kind: f.persistent('i32'),
      a: f.persistent('i64'),
      b: f.persistent('i64'),
      r: f.persistent('i64'),
    };
  }
  /** Asked for by what reads or writes them: a region where nothing does leaves them where they are. */
  get flags(): RegionState['flags'] {
    this.#usesFlags = true;
    return this.#flags;
  }
  gpr(index: number, write: boolean): Var {
    const register = (this.#gpr[index] ??= this.f.persistent('i64'));
    if (write) this.#written.add(register);
    return register;
  }
  xmm(index: number, write: boolean): Var {
    const register = (this.#xmm[index] ??= this.f.persistent('v128'));
    if (write) this.#written.add(register);
    return register;
  }
  #each(visit: (register: Var, width: '64' | 'v128', offset: number) => void): void {
    for (const [n, register] of this.#gpr.entries()) if (register) visit(register, '64', CPU.gpr + n * 8);
    for (const [n, register] of this.#xmm.entries()) if (register) visit(register, 'v128', CPU.xmm + n * 32);
  }
  /** Reads what the region uses. */
  fill(cpu: Val): void {
    const { f } = this;
    const flags = this.#flags;
    this.#each((register, width, offset) => register.set(f.load(width, cpu, offset)));
    if (!this.#usesFlags) return;
    flags.kind.set(f.load('32', cpu, CPU.flagKind));
    flags.a.set(f.load('64', cpu, CPU.flagA));
    flags.b.set(f.load('64', cpu, CPU.flagB));
    flags.r.set(f.load('64', cpu, CPU.flagR));
  }
  /** Writes back what the region changes; flags as regions have them. */
  spill(cpu: Val): void {
    const { f } = this;
    this.#each((register, width, offset) => {
      if (this.#written.has(register)) f.store(width, cpu, register.get, offset);
    });
    if (!this.#usesFlags) return;
    const flags = current(this.#flags);
    f.store('32', cpu, flags.kind, CPU.flagKind);
    f.store('64', cpu, flags.a, CPU.flagA);
    f.store('64', cpu, flags.b, CPU.flagB);
    f.store('64', cpu, flags.r, CPU.flagR);
  }
}

/** Flags in the CPU structure as regions leave them become plain, for everybody else. */
function makePlain(f: FunctionBuilder, cpu: Val, lib: Library): void {
  f.if(f.load('32', cpu, CPU.flagKind).gtU(0xff), () => f.call(lib('plain_flags'), cpu));
}

/** For each instruction whether the flags that it sets are overwritten before anything can see them. */
function deadFlags(instructions: readonly Instruction[]): boolean[] {
  const dead: boolean[] = [];
  let overwritten = false;
  for (let k = instructions.length - 1; k >= 0; k--) {
    const { facts, how } = instructions[k] as Instruction;
    dead[k] = overwritten;
    const reads = overwritten ? facts.readsDeadFlags : facts.readsFlags;
    if (how !== 'inline' || facts.faults || reads) overwritten = false;
    else if (facts.writesFlags) overwritten = true;
  }
  return dead;
}

const nameOfLast = ({ instructions }: RegionBlock): string =>
  (instructions[instructions.length - 1] as Instruction).variant.entry.def.name;

const unsigned = (rip: bigint): bigint => BigInt.asUintN(64, rip);

/** Where a region will lie: its slot in the function table, and the jump cache. */
export interface Placement {
  readonly slot: number;
  readonly jumpCache: number;
}

export function emitRegion(
  name: string,
  region: Region,
  lib: Library,
  tag: TagRef,
  place: Placement,
): EmittedRegion {
  const { emitted, state } = write(name, region, lib, tag, place);
  // Where a handler is called all registers of the region are written back and read again: also those that come later.
  const calls = region.blocks.some(({ instructions }) => instructions.some(({ how }) => how === 'handler'));
  return calls ? write(name, region, lib, tag, place, state).emitted : emitted;
}

function write(
  name: string,
  region: Region,
  lib: Library,
  tag: TagRef,
  place: Placement,
  before?: Locals,
): { readonly emitted: EmittedRegion; readonly state: Locals } {
  const f = new FunctionBuilder(name, REGION_PARAMS, ['i32']);
  const cpu = f.p(0);
  const [, budget, next] = f.params as [Var, Var, Var];
  const state = new Locals(f, budget, before);
  const rip = f.persistent('i64');
  const fault = f.persistent('i32');
  /** Record of the instruction that is done on the way out, 0: none; and whether it is one that only jumps. */
  const last = f.persistent('i32');
  /** Header of the block that is next, when a direct branch says which it is; 0: look for it. */
  const link = f.persistent('i32');
  const jumps = f.persistent('i32');
  const { blocks, index } = region;

  const outside = blocks.some(({ instructions }) => instructions.some(({ how }) => how === 'outside'));

  // Entries: the root, what calls return to, heads of loops, and what follows an instruction outside.
  const returnPoints = blocks.flatMap(({ returns }) => (returns === undefined ? [] : [returns]));
  const isEntry = blocks.map(({ rip: at }, k) => k === 0 || region.landings.has(at));
  for (const target of returnPoints) {
    const at = index.get(target);
    if (at !== undefined) isEntry[at] = true;
  }
  const edges: Edge[] = blocks.flatMap(({ targets, fall }, from) =>
    [...targets, ...(fall === undefined ? [] : [fall])].flatMap((target) => {
      const to = index.get(target);
      return to === undefined ? [] : [{ from, to }];
    }),
  );
  for (const { from, to } of edges) if (to <= from) isEntry[to] = true;
  const entryNumber = new Map<number, number>();
  const entries: RegionBlock[] = [];
  for (const [k, block] of blocks.entries()) {
    if (isEntry[k] !== true) continue;
    entryNumber.set(k, entries.length);
    entries.push(block);
  }
  const guesses = returnPoints.slice(0, RETURN_GUESSES).filter((target) => index.has(target));
  const nest = new LoopNest(blocks.length, edges);
  // What a dispatch leads to beside the entries.
  const returning = blocks.flatMap((block, from) =>
    nameOfLast(block) === 'ret' ? guesses.map((target) => ({ from, to: index.get(target) as number })) : [],
  );
  for (const { from, to } of [...edges, ...returning]) {
    const { kind } = nest.route(from, to);
    if ((kind === 'into' || kind === 'round') && !entryNumber.has(to)) entryNumber.set(to, entryNumber.size);
  }
  const dispatches = (loop: Loop): boolean =>
    [...entryNumber.keys()].some((block) => block !== loop.head && has(loop, block));
  const dispatching = blocks.some((_, k) => {
    const loop = nest.at(k);
    return loop !== undefined && dispatches(loop);
  });
  // A region may span several fetch windows: an edge to another one looks whether it is still where it was.
  const window = ((blocks[0] as RegionBlock).block.mode & MODE.large) !== 0 ? LARGE : SMALL;
  const sameWindow = (a: RegionBlock, rip: bigint): boolean => a.rip >> window.shift === rip >> window.shift;
  const oneWindow = blocks.every(({ rip }) => sameWindow(blocks[0] as RegionBlock, rip));
  const kinds: (number | undefined | 'none')[] = blocks.map(() => 'none');
  const noteKind = (k: number): void => {
    const known = kinds[k];
    kinds[k] = known === 'none' || known === state.flagKind ? state.flagKind : undefined;
  };
  const labels: Label[] = [];
  const again = new Map<Loop | undefined, Label>();
  let out: Label;

  const emitBlock = (k: number): void => {
    const block = blocks[k] as RegionBlock;
    const kind = kinds[k];
    state.flagKind = entryNumber.has(k) || kind === 'none' ? undefined : kind;
    if (dispatching && entryNumber.has(k)) next.set(ARRIVED);
    const leave = (target: Val): void => {
      rip.set(target);
      f.br(out);
    };
    if (block.block.secondHost !== 0) {
      // The instruction goes on in the next page: it is this one only while that is where it was.
      f.scope(() => {
        const { tag, base, host } = fetchEntry(f, cpu, SMALL, i64((block.rip | 0xfffn) + 1n));
        const moved = tag.ne(base).or(host.ne(block.block.secondHost | 0));
        f.if(moved, () => leave(i64(block.rip)), undefined, false);
      });
    }
    budget.set(budget.get.sub(block.length));
    state.depth = f.depth;
    /** Out of the region, where `target` is constant. */
    const exit = (target: bigint): void => {
      const known = region.exits.get(unsigned(target));
      if (known !== undefined && !known.stale && known.secondHost === 0) {
        const found = (): void => link.set(known.record - HEAD.size);
        if (sameWindow(block, unsigned(target))) found();
        else
          f.scope(() => {
            const there = fetchEntry(f, cpu, window, i64(target));
            const host = windowHost(window, known, unsigned(target));
            f.if(there.tag.eq(there.base).and(there.host.eq(host)), () => {
              setWindow(f, cpu, there);
              found();
            });
          });
      }
      leave(i64(target));
    };
    /** To `target`: inside the region when it lies there. `last`: nothing is written behind it. */
    const goto = (target: bigint, last: boolean): void => {
      const at = index.get(unsigned(target));
      if (at === undefined) {
        exit(target);
        return;
      }
      const other = blocks[at] as RegionBlock;
      const crosses = !oneWindow && !sameWindow(block, other.rip);
      const route = nest.route(k, at);
      if (at <= k) f.if(budget.get.ltS(region.instructions), () => leave(i64(target)), undefined, false);
      if (crosses) enterWindow(f, cpu, window, other, () => leave(i64(target)));
      switch (route.kind) {
        case 'forward':
          noteKind(at);
          if (!last || at !== k + 1) f.br(labels[at] as Label);
          return;
        case 'again':
          f.br(again.get(route.loop) as Label);
          return;
        case 'into':
          next.set(entryNumber.get(at) as number);
          f.br(labels[route.head] as Label);
          return;
        case 'round':
          next.set(entryNumber.get(at) as number);
          f.br(again.get(route.loop) as Label);
      }
    };
    const gotoIf = (condition: Val, target: bigint): void => {
      const at = index.get(unsigned(target));
      const near = at !== undefined && (oneWindow || sameWindow(block, (blocks[at] as RegionBlock).rip));
      if (near && nest.route(k, at).kind === 'forward') {
        noteKind(at);
        f.brIf(labels[at] as Label, condition);
      } else f.if(condition, () => goto(target, false));
    };
    state.jump = (target) => {
      if (target.c !== undefined) {
        goto(BigInt(target.c), true);
        return;
      }
      if (nameOfLast(block) === 'ret') for (const guess of guesses) gotoIf(target.eq(guess), guess);
      if (entries.length > 1) jumpInside(target);
      leave(target);
    };
    state.jumpIf = (condition, target, after) => {
      if (target.c === undefined) throw new Error('a conditional jump has a constant target');
      gotoIf(condition, BigInt(target.c));
      goto(after, true);
    };

    const dead = deadFlags(block.instructions);
    for (const [n, instruction] of block.instructions.entries()) {
      const { record, variant, how } = instruction;
      if (how === 'outside') {
        last.set(record.address);
        if (variant.entry.def.ends === 'jump') jumps.set(1);
        f.br(out);
        return;
      }
      if (how === 'handler') {
        f.scope(() => callHandler(instruction, leave));
        continue;
      }
      f.scope(() => {
        const form = { size: variant.size, mem: variant.mem, rep: REP[variant.rep] };
        const sem = new RegionSem(f, cpu, lib, variant.entry, form, record, state, dead[n]);
        variant.entry.def.sem(sem);
      });
      if ((variant.entry.def.ends ?? 'no') !== 'no') return;
    }
    const end = (block.instructions[block.instructions.length - 1] as Instruction).record;
    const rest = end.word(REC.after);
    if (rest > 0) budget.set(budget.get.add(rest));
    goto(block.fall as bigint, true);
  };

  /** To `target` without leaving, when the jump cache knows it as an entry of this region. */
  const jumpInside = (target: Val): void => {
    const key = i32((blocks[0] as RegionBlock).block.mode);
    const at = jumpEntry(f, i32(place.jumpCache), target, key);
    f.if(
      f
        .load('64', at, JUMP.rip)
        .eq(target)
        .and(f.load('32', at, JUMP.mode).eq(key)),
      () => {
        const head = f.let(f.load('32', at, JUMP.record).sub(HEAD.size));
        const here = f.load('32', head, HEAD.slot).eq(place.slot).and(budget.get.geS(region.instructions));
        const enter = (): void => {
          next.set(f.load('32', head, HEAD.entry));
          f.br(again.get(undefined) as Label);
        };
        f.if(here, () => {
          if (oneWindow) enter();
          else {
            const found = fetchEntry(f, cpu, window, target);
            const inside = target.wrap().and(Number(window.size) - 1);
            const same = found.host.add(inside).eq(f.load('32', at, JUMP.host));
            f.if(found.tag.eq(found.base).and(same), () => {
              setWindow(f, cpu, found);
              enter();
            });
          }
        });
      },
    );
  };

  /** By the interpreter's handler, which works on the CPU structure. */
  const callHandler = ({ record }: Instruction, leave: (target: Val) => void): void => {
    state.spill(cpu);
    makePlain(f, cpu, lib);
    f.store('32', cpu, i32(record.address), CPU.record);
    f.store('32', cpu, budget.get, CPU.budget);
    f.callIndirect(TYPES.handler, i32(record.half(REC.slot)), [], cpu, i32(record.address));
    state.fill(cpu);
    state.flagKind = undefined;
    // It may have changed this very code.
    const engine = f.let(f.load('32', cpu, CPU.engine));
    f.if(f.load('32', engine, ENGINE.dropped), () => {
      f.store('32', engine, i32(0), ENGINE.dropped);
      budget.set(budget.get.add(record.word(REC.after)));
      leave(i64(record.long(REC.next)));
    });
  };

  /** To the blocks that a dispatch leads to, each by its number; what is not in `level` goes to `otherwise`. */
  const dispatch = (level: Loop | undefined, otherwise: Label): void =>
    f.brTable(
      next.get,
      [...entryNumber.keys()].map((at) =>
        level !== undefined && !has(level, at)
          ? otherwise
          : (labels[nest.below(level, at)?.head ?? at] as Label),
      ),
      otherwise,
    );
  /** The blocks `from` to `end`, of which those of an inner loop are one piece. */
  const emitRun = (level: Loop | undefined, from: number, end: number): void => {
    const pieces: number[] = [];
    for (let k = from; k <= end; k = (nest.below(level, k)?.end ?? k) + 1) pieces.push(k);
    const open = (n: number): void => {
      const first = pieces[n] as number;
      f.block((label) => {
        labels[first] = label;
        if (n > 0) open(n - 1);
        else if (level === undefined) dispatch(level, label);
        else if (dispatches(level))
          f.if(next.get.ne(ARRIVED), () => dispatch(level, label), undefined, false);
      });
      const inner = nest.below(level, first);
      if (inner === undefined) emitBlock(first);
      else
        f.loop((label) => {
          again.set(inner, label);
          emitRun(inner, inner.head, inner.end);
        });
    };
    open(pieces.length - 1);
  };
  f.block((label) => {
    out = label;
    f.tryCatch(
      tag,
      () => {
        f.loop((label) => {
          again.set(undefined, label);
          emitRun(undefined, 0, blocks.length - 1);
        });
        f.unreachable();
      },
      () => fault.set(1),
    );
  });
  state.spill(cpu);
  f.if(
    fault.get,
    () => {
      makePlain(f, cpu, lib);
      f.store('32', cpu, budget.get, CPU.budget);
      f.return(i32(REGION_FAULT));
    },
    undefined,
    false,
  );
  const key = (blocks[0] as RegionBlock).block.mode;
  if (outside) {
    f.if(last.get, () => {
      makePlain(f, cpu, lib);
      writeLast(f, lib, cpu, budget, rip, last.get, jumps.get);
      writeSearch(f, lib, cpu, budget, rip.get);
    });
  }
  f.store('64', cpu, rip.get, CPU.rip);
  f.if(link.get, () => enterRegion(f, cpu, budget, link.get));
  writeChain(f, cpu, budget, rip.get, window, key, place.jumpCache);
  makePlain(f, cpu, lib);
  writeSearch(f, lib, cpu, budget, rip.get);
  f.prefix(() => {
    state.fill(cpu);
    state.tlb.set(f.load('32', cpu, CPU.tlbFast));
  });
  return { emitted: { f, entries }, state };
}

/**
 * An instruction that ends its block and that no region has in line, by its handler, as run() does it. What it throws is
 * run()'s to catch: everything is in the CPU structure.
 */
function writeLast(
  f: FunctionBuilder,
  lib: Library,
  cpu: Val,
  budget: Var,
  rip: Var,
  record: Val,
  jumps: Val,
): void {
  f.store('32', cpu, record, CPU.record);
  f.store('32', cpu, budget.get, CPU.budget);
  f.callIndirect(TYPES.handler, f.load('16u', record, REC.slot), [], cpu, record);
  f.if(
    jumps,
    // String operations take more than the instruction that the block was charged for.
    () => budget.set(f.load('32', cpu, CPU.budget)),
    () => {
      f.call(lib('update_mode'), cpu);
      f.call(lib('update_special'), cpu);
      const code64 = f.load('32', cpu, CPU.mode).and(MODE.codeMask).eq(MODE.code64);
      f.if(f.load('32', cpu, CPU.special).bool().or(code64.eqz()), () => f.return(budget.get));
    },
  );
  rip.set(f.load('64', cpu, CPU.rip));
}

/** A kind of fetch window: its size, and its entries behind CPU.tlbFetch. */
interface Window {
  readonly shift: bigint;
  readonly size: bigint;
  readonly entries: number;
  readonly at: number;
}
const SMALL: Window = { shift: 12n, size: 0x1000n, entries: TLB.fetchSmall, at: 0 };
const LARGE: Window = { shift: 21n, size: 0x200000n, entries: TLB.fetchLarge, at: TLB.fetchSmall * 16 };

/** What the fetch TLB may have for a window. */
interface Fetched {
  readonly tag: Val;
  readonly base: Val;
  readonly host: Val;
}

/** The entry of the window of `target`: it is there when tag and base are equal. */
function fetchEntry(f: FunctionBuilder, cpu: Val, window: Window, target: Val): Fetched {
  const index = target
    .shrU(Number(window.shift) - 4)
    .wrap()
    .and((window.entries - 1) << 4);
  const entry = f.let(f.load('32', cpu, CPU.tlbFetch).add(index));
  return {
    tag: f.load('64', entry, window.at),
    base: f.let(target.and(-window.size)),
    host: f.let(f.load('32', entry, window.at + 8)),
  };
}

/** Host address of the window that `block` at `rip` lies in. */
const windowHost = (window: Window, block: Block, rip: bigint): number =>
  (block.host - Number(rip & (window.size - 1n))) | 0;

/** What fetch_window does when the entry is there, but for the mask. */
function setWindow(f: FunctionBuilder, cpu: Val, { base, host }: Fetched): void {
  f.store('64', cpu, base, CPU.windowBase);
  f.store('32', cpu, host, CPU.windowHost);
}

/** On the way to `block`, which lies in another window: `miss` leaves when the fetch TLB does not lead to it. */
function enterWindow(
  f: FunctionBuilder,
  cpu: Val,
  window: Window,
  { block, rip }: RegionBlock,
  miss: () => void,
): void {
  f.scope(() => {
    const found = fetchEntry(f, cpu, window, i64(rip));
    const host = windowHost(window, block, rip);
    f.if(found.tag.ne(found.base).or(found.host.ne(host)), miss, undefined, false);
    setWindow(f, cpu, found);
  });
}

/** Goes on in the region that the block with header `head` is an entry of, if there is one and the budget lasts for it. */
function enterRegion(f: FunctionBuilder, cpu: Val, budget: Var, head: Val): void {
  const slot = f.let(f.load('32', head, HEAD.slot));
  f.if(slot.bool().and(f.load('32', head, HEAD.need).leS(budget.get)), () =>
    f.returnCallIndirect(TYPES.region, slot, cpu, budget.get, f.load('32', head, HEAD.entry)),
  );
}

/** Goes on in the region of `rip` when fetch TLB and jump cache have it, in a window of the same kind and in the same mode. */
function writeChain(
  f: FunctionBuilder,
  cpu: Val,
  budget: Var,
  rip: Val,
  window: Window,
  key: number,
  jumpCache: number,
): void {
  const found = fetchEntry(f, cpu, window, rip);
  const at = jumpEntry(f, i32(jumpCache), rip, i32(key));
  const inside = rip.wrap().and(Number(window.size) - 1);
  const known = f
    .load('64', at, JUMP.rip)
    .eq(rip)
    .and(found.tag.eq(found.base))
    .and(f.load('32', at, JUMP.host).eq(found.host.add(inside)))
    .and(f.load('32', at, JUMP.mode).eq(key));
  f.if(known, () => {
    const head = f.let(f.load('32', at, JUMP.record).sub(HEAD.size));
    const slot = f.let(f.load('32', head, HEAD.slot));
    f.if(slot.bool().and(f.load('32', head, HEAD.need).leS(budget.get)), () => {
      setWindow(f, cpu, found);
      f.returnCallIndirect(TYPES.region, slot, cpu, budget.get, f.load('32', head, HEAD.entry));
    });
  });
}

/** Goes on in the region of `rip`, wherever it is, or returns to run(). */
function writeSearch(f: FunctionBuilder, lib: Library, cpu: Val, budget: Var, rip: Val): void {
  // Without budget nothing more is fetched.
  f.if(budget.get.gtS(0), () => {
    const head = f.callValue(lib('find_region'), cpu, budget.get, rip);
    f.if(head, () =>
      f.returnCallIndirect(
        TYPES.region,
        f.load('32', head, HEAD.slot),
        cpu,
        budget.get,
        f.load('32', head, HEAD.entry),
      ),
    );
  });
  f.return(budget.get);
}
