/** The processor: one linear memory, the generated interpreter, and the vCPU contexts in it. */
import { Blocks } from './blocks.ts';
import { buildOpcodeTable, parseEncoding, type Entry } from './encoding.ts';
import type { Def, Feature } from './defs/def.ts';
import { deviceNotAvailable, tooLong, undefinedOpcode } from './defs/pseudo.ts';
import { buildInterpreter } from './interpreter.ts';
import { CPU, ENGINE, EXIT, PAGEFLAG, PENDING, RAISE, RUN, SPECIAL, TLB } from './layout.ts';
import type { MemoryPlan } from './memory-plan.ts';
import type { Routine } from './runtime/library.ts';
import { canTranslate, REGION_SLOTS, Translator } from './translator/translator.ts';

export interface EngineParts {
  /** Instruction definitions, of x86 and of the platform. */
  readonly defs: readonly Def[];
  /** Library routines: of the definitions, and the platform's `second_stage`. */
  readonly routines: readonly Routine[];
  /** CPUID features that are offered; definitions of others are #UD. */
  readonly features: ReadonlySet<Feature>;
  readonly plan: MemoryPlan;
  /** Of `routines`: those that `Engine.routine` gives. */
  readonly exports?: readonly string[];
  /** Whether hot code is translated; it changes nothing but the speed. */
  readonly translate?: boolean;
}

interface Exports {
  run(cpu: number): number;
  tlb_flush(cpu: number): void;
  tlb_flush_page(cpu: number, va: bigint): void;
  update_mode(cpu: number): void;
  update_special(cpu: number): void;
  status_flags(cpu: number): number;
  begin_delivery(cpu: number): number;
  try_second_page(cpu: number, va: bigint): number;
  try_translate(cpu: number, va: bigint, access: number): number;
  in_long_mode(cpu: number): number;
}

/** Runs of a block after which it is translated. */
const HOT = 6000;

/** What ended Engine.run: see RUN in layout.ts. `decode` is handled inside. */
export type RunReason = typeof RUN.budget | typeof RUN.exit | typeof RUN.interrupt | typeof RUN.breakpoint;

/** An access to a watched range, told while it happens. */
export type WatchListener = (hit: {
  readonly cpu: number;
  readonly host: number;
  readonly bytes: number;
  readonly write: boolean;
  readonly watch: number;
}) => void;

export class Engine {
  readonly memory: WebAssembly.Memory;
  readonly u8: Uint8Array;
  readonly u32: Uint32Array;
  readonly view: DataView;
  readonly plan: MemoryPlan;
  readonly blocks: Blocks;
  readonly translator: Translator | undefined;
  readonly code: { readonly sizes: readonly { name: string; size: number }[]; readonly hotCases: number };
  readonly #exports: Exports;
  #watches: readonly {
    readonly host: number;
    readonly length: number;
    readonly read: boolean;
    readonly write: boolean;
  }[] = [];
  /** Called for each hit of a watch. */
  onWatch: WatchListener = () => undefined;

  constructor(parts: EngineParts) {
    const { plan } = parts;
    this.plan = plan;
    const table = buildOpcodeTable(
      parts.defs.filter((def) => def.feature === undefined || parts.features.has(def.feature)),
    );
    const pseudo = {
      ud: parseEncoding(undefinedOpcode, 'FF -'),
      gp: parseEncoding(tooLong, 'FF -'),
      nm: parseEncoding(deviceNotAvailable, 'FF -'),
    };
    const entries: Entry[] = [...table.entries, pseudo.ud, pseudo.gp, pseudo.nm];
    const code = buildInterpreter({
      table: { ...table, entries },
      routines: parts.routines,
      pages: plan.pages,
      exports: parts.exports ?? [],
    });
    this.code = { sizes: code.sizes, hotCases: code.hotCases };
    this.memory = new WebAssembly.Memory({ initial: plan.pages, maximum: plan.pages });
    const { buffer } = this.memory;
    this.u8 = new Uint8Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.view = new DataView(buffer);
    this.blocks = new Blocks(table, plan, buffer, pseudo);
    const translate = parts.translate === true && canTranslate();
    const handlers = new WebAssembly.Table({
      element: 'anyfunc',
      initial: code.tableSlots + (translate ? REGION_SLOTS : 0),
    });
    const fault = new WebAssembly.Tag({ parameters: [] });
    const instance = new WebAssembly.Instance(new WebAssembly.Module(code.bytes), {
      env: {
        memory: this.memory,
        handlers,
        fault,
        watch_hit: (cpu: number, host: number, bytes: number, write: number) =>
          this.#watchHit(cpu, host >>> 0, bytes, write !== 0),
        code_changed: (host: number, length: number) => this.blocks.codeChanged(host, length),
      },
    });
    this.#exports = instance.exports as unknown as Exports;
    if (translate) {
      this.blocks.heat = HOT;
      this.translator = new Translator({
        memory: this.memory,
        table: handlers,
        tag: fault,
        plan,
        blocks: this.blocks,
        variants: code.variants,
        exports: instance.exports,
        library: code.library,
        firstSlot: code.tableSlots,
      });
    }
    this.#initialise();
  }

  #initialise(): void {
    const { plan, view } = this;
    const engine = plan.engine;
    view.setUint32(engine + ENGINE.framesBase, plan.frames, true);
    view.setUint32(engine + ENGINE.framesEnd, plan.framesEnd, true);
    view.setUint32(engine + ENGINE.pageFlags, plan.pageFlags, true);
    view.setUint32(engine + ENGINE.codeBitmap, plan.codeBitmap, true);
    view.setUint32(engine + ENGINE.jumpCache, plan.jumpCache, true);
    view.setUint32(engine + ENGINE.stage, plan.stage, true);
    this.u8.fill(0xff, plan.tlbEmpty, plan.tlbEmpty + TLB.arrayBytes);
    for (let v = 0; v < plan.vcpus; v++) {
      for (let c = 0; c < plan.contexts; c++) {
        const cpu = this.cpu(v, c);
        view.setUint32(cpu + CPU.engine, engine, true);
        view.setUint32(cpu + CPU.tlbArea, plan.tlbBase + (v * plan.contexts + c) * TLB.areaBytes, true);
        view.setUint32(cpu + CPU.tlbEmpty, plan.tlbEmpty, true);
        view.setUint32(cpu + CPU.index, v, true);
        // Nothing is known of what lies there: the first flush drops all.
        const area = view.getUint32(cpu + CPU.tlbArea, true);
        this.u8.fill(0xff, area + TLB.use, area + TLB.areaBytes);
        this.tlbFlush(cpu);
      }
    }
  }

  /** Replaces the watched ranges (host addresses). Watching changes nothing that a guest or a clock could see. */
  setWatches(
    watches: readonly {
      readonly host: number;
      readonly length: number;
      readonly read: boolean;
      readonly write: boolean;
    }[],
  ): void {
    const { pageFlags, frames } = this.plan;
    const mark = (host: number, length: number, on: boolean): void => {
      for (let page = host >>> 12; page <= (host + length - 1) >>> 12; page++) {
        const at = pageFlags + (page - (frames >>> 12));
        const bits = PAGEFLAG.watchRead | PAGEFLAG.watchWrite;
        this.u8[at] = on ? (this.u8[at] as number) | bits : (this.u8[at] as number) & ~bits;
        if (on) this.blocks.observePage((page << 12) >>> 0, true);
      }
    };
    for (const { host, length } of this.#watches) mark(host, length, false);
    this.#watches = watches;
    for (const { host, length } of watches) mark(host, length, true);
  }

  #watchHit(cpu: number, host: number, bytes: number, write: boolean): void {
    for (const [watch, range] of this.#watches.entries()) {
      if (host >= range.host + range.length || host + bytes <= range.host) continue;
      if (write ? range.write : range.read) this.onWatch({ cpu, host, bytes, write, watch });
    }
  }

  /** From a watch: run() returns RUN.interrupt at the next instruction boundary. */
  stopAfterInstruction(cpu: number): void {
    const { view } = this;
    view.setUint32(cpu + CPU.pending, view.getUint32(cpu + CPU.pending, true) | PENDING.attention, true);
    view.setUint32(cpu + CPU.special, view.getUint32(cpu + CPU.special, true) | SPECIAL.pending, true);
    this.blocks.leaveAfter(view.getUint32(cpu + CPU.record, true));
  }

  /** Base address of the CPU structure of (vCPU, context). */
  cpu(vcpu: number, context = 0): number {
    return this.plan.cpuBase + (vcpu * this.plan.contexts + context) * CPU.size;
  }

  /**
   * Runs the context at `cpu` for at most `budget` instructions from virtual time `clock` (ticks). Afterwards
   * `executed(cpu)` says how many it took.
   */
  run(cpu: number, budget: number, clock: number): RunReason {
    const { view } = this;
    view.setUint32(cpu + CPU.budget, budget, true);
    view.setUint32(cpu + CPU.budgetStart, budget, true);
    view.setUint32(cpu + CPU.clock, clock >>> 0, true);
    view.setUint32(cpu + CPU.clock + 4, Math.floor(clock / 0x100000000), true);
    this.#exports.update_special(cpu);
    for (;;) {
      const reason = this.#exports.run(cpu);
      if (reason === RUN.hot) {
        this.#hot(cpu);
        continue;
      }
      if (reason !== RUN.decode) {
        this.translator?.pause(this.executed(cpu));
        return reason as RunReason;
      }
      const ok = this.blocks.prepare(
        cpu,
        (low, high) => this.#exports.try_second_page(cpu, join(low, high)) >>> 0,
      );
      if (ok) continue;
      // The second page of an instruction is not there: its fault is delivered first.
      if (view.getUint32(cpu + CPU.raiseKind, true) === RAISE.exit) return RUN.exit;
      view.setUint32(cpu + CPU.deliver, 1, true);
    }
  }

  /** Sets how often code runs before it is translated: before the first run, and of no effect on what a guest sees. */
  translateAfter(runs: number): void {
    if (this.translator !== undefined) this.blocks.heat = runs;
  }

  #hot(cpu: number): void {
    const block = this.blocks.current(cpu);
    if (block === undefined) throw new Error('a hot block is not in the jump cache');
    if (this.translator === undefined) this.blocks.cool(block);
    else this.translator.hot(block);
  }

  /** Instructions that the last run() took. */
  executed(cpu: number): number {
    return this.view.getUint32(cpu + CPU.budgetStart, true) - this.view.getInt32(cpu + CPU.budget, true);
  }

  /** A routine of EngineParts.exports. It must not raise. */
  routine(name: string): (...operands: number[]) => number {
    const found = (this.#exports as unknown as Record<string, (...operands: number[]) => number>)[name];
    if (found === undefined) throw new Error(`routine ${name} is not exported`);
    return found;
  }
  updateMode(cpu: number): void {
    this.#exports.update_mode(cpu);
    this.#exports.update_special(cpu);
  }
  tlbFlush(cpu: number): void {
    this.#exports.tlb_flush(cpu);
  }
  tlbFlushPage(cpu: number, va: bigint): void {
    this.#exports.tlb_flush_page(cpu, va);
  }
  /** CF PF AF ZF SF OF as they are now. */
  statusFlags(cpu: number): number {
    return this.#exports.status_flags(cpu);
  }
  /**
   * An exception that the raise fields describe is delivered next, combined with what is under delivery. True: that ends in
   * shutdown, which is the exit now.
   */
  raiseNext(cpu: number): boolean {
    const { view } = this;
    if (this.#exports.begin_delivery(cpu) !== 1) {
      view.setUint32(cpu + CPU.deliver, 1, true);
      return false;
    }
    view.setUint32(cpu + CPU.deliver, 0, true);
    view.setUint32(cpu + CPU.raiseKind, RAISE.exit, true);
    view.setUint32(cpu + CPU.raiseVector, EXIT.tripleFault, true);
    return true;
  }
  /** Guest-physical address of `va` for a supervisor read, or undefined. */
  translate(cpu: number, va: bigint): number | undefined {
    // An event that waits for its delivery keeps its description.
    const kept = this.u8.slice(cpu + CPU.raiseKind, cpu + CPU.delivering);
    const found = this.#exports.try_translate(cpu, va, 0) !== 0;
    this.u8.set(kept, cpu + CPU.raiseKind);
    this.view.setUint32(cpu + CPU.stageExit, 0, true);
    if (!found) return undefined;
    return Number(this.view.getBigUint64(cpu + CPU.stageGpa, true));
  }
}

function join(low: number, high: number): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}
