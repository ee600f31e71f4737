/**
 * Connects a processor with whoever owns the vCPUs, keeps the clock and offers turns. Synchronous: run(budget) says why it
 * returned; nothing here waits, reads a clock or opens a file.
 */
import type { Directive, InitialRegisters } from '../launch/directives.ts';
import { eachPage } from '../launch/directives.ts';
import type { HostAction } from '../seats/actions.ts';
import type { Completion, Exit } from '../seats/exits.ts';
import type { EventSink } from '../seats/events.ts';
import type { HostView } from '../seats/host-view.ts';
import { Frames, frameBytesFor, stageBytes, type MemoryRegion } from '../silicon/plain/frames.ts';
import { secondStagePlain } from '../silicon/plain/second-stage.ts';
import { x86Defs, x86Routines } from '../x86/all.ts';
import type { CpuModel } from '../x86/cpuid.ts';
import { Engine } from '../x86/engine.ts';
import { CPU, CS, EXIT, PENDING, RUN, SEG, segField } from '../x86/layout.ts';
import { planMemory } from '../x86/memory-plan.ts';
import { createHostView } from './host-view.ts';
import {
  complete,
  configureVcpu,
  inject,
  readExit,
  read64,
  setRegisters,
  startRegisters,
  write64,
} from './vcpu.ts';

export type Turn =
  | { readonly kind: 'run'; readonly vp: number; readonly instructions: number }
  | { readonly kind: 'idle'; readonly until: number };

export interface World {
  readonly view: HostView;
  readonly sink: EventSink;
  /** Virtual time in ns. */
  readonly now: number;
}

/** Asked of the machine by the platform; a test board may also end the run with a status. */
export type PlatformAction = HostAction | { readonly kind: 'exit'; readonly status: number };

/** Whoever owns the vCPUs: the Hyper-V host, or the test board. Functions over its own plain state. */
export interface Platform {
  turn(now: number): Turn;
  exit(
    vp: number,
    exit: Exit,
    world: World,
  ): { readonly completion: Completion; readonly actions: readonly PlatformAction[] };
  advance(world: World): readonly PlatformAction[];
  nextEvent(): number;
  interrupt(vp: number): 'none' | 'interrupt' | 'external' | 'nmi';
  acknowledge(vp: number, world: World): number;
  takeNmi(vp: number): void;
  /** Vector of an interrupt that an 8259A gives. */
  takeExternal?(vp: number): number;
  serialInput(
    unit: number,
    bytes: Uint8Array,
    world: World,
  ): { readonly taken: number; readonly actions: readonly PlatformAction[] };
  /** Which platform it is, how it was made, and all of its state, as plain data for snapshots. */
  readonly kind: string;
  readonly config: unknown;
  readonly state: unknown;
  load(state: unknown): void;
}

/** What the machine itself remembers. */
export interface Counters {
  readonly now: number;
  readonly instructions: number;
  readonly exits: number;
  readonly lastExit: string;
  readonly sameExit: number;
}

export interface MachineConfig {
  readonly model: CpuModel;
  readonly vcpus: number;
  readonly seed: bigint;
  readonly tscHz: number;
  readonly tscAtZero: bigint;
  readonly directives: readonly Directive[];
  readonly sink: EventSink;
  /** Permutation of frame blocks, see Frames. */
  readonly frameOrder?: (count: number) => Uint32Array;
  /** Registers after INIT, for the start of application processors. */
  readonly initRegisters: InitialRegisters;
}

export type StopReason =
  | { readonly kind: 'budget' }
  /** Nothing can happen before virtual time `until` (Infinity: ever). */
  | { readonly kind: 'idle'; readonly until: number }
  | { readonly kind: 'end'; readonly reason: 'power-off' | 'hibernate' | 'reset' | 'triple-fault' }
  | {
      readonly kind: 'crash';
      readonly parameters: readonly bigint[];
      readonly message: Uint8Array | undefined;
    }
  | { readonly kind: 'exit'; readonly status: number }
  /** A debugger's breakpoint or watchpoint at virtual processor `vp`. */
  | {
      readonly kind: 'debug';
      readonly vp: number;
      readonly cause: 'breakpoint' | 'watch';
      readonly watch: number;
    }
  /** The same exit at the same place without progress: the VM is stuck. */
  | { readonly kind: 'stuck'; readonly vp: number; readonly exit: string };

/** Ticks that an exit to the outside costs. */
const EXIT_TICKS = 1000;
/** V8 replaces nothing while run() loops: leave it regularly. */
const QUANTUM = 2_000_000;
const STUCK_LIMIT = 1_000_000;
const CS_SELECTOR = segField(CS, SEG.selector);
const CS_BASE = segField(CS, SEG.base);

export class Machine {
  readonly engine: Engine;
  readonly frames: Frames;
  readonly view: HostView;
  readonly config: MachineConfig;
  /** Bytes that the guest's UARTs sent; replaced by the shell. */
  onSerial: (unit: number, bytes: Uint8Array) => void = () => undefined;
  #platform: Platform | undefined;
  #now = 0;
  #instructions = 0;
  #exits = 0;
  #end: StopReason | undefined;
  #lastExit = '';
  #sameExit = 0;
  #current = 0;
  #watchHit = -1;

  constructor(config: MachineConfig) {
    this.config = config;
    const regions: MemoryRegion[] = config.directives.flatMap((directive) =>
      directive.kind === 'region'
        ? [{ gpa: directive.gpa, length: directive.length, readOnly: directive.backing === 'rom' }]
        : [],
    );
    const frameBytes = frameBytesFor(regions);
    const top = Math.max(0, ...regions.map(({ gpa, length }) => gpa + length));
    const plan = planMemory(config.vcpus, 1, frameBytes, stageBytes(top, frameBytes));
    this.engine = new Engine({
      plan,
      defs: x86Defs,
      features: config.model.features,
      routines: [...x86Routines, secondStagePlain],
    });
    this.frames = new Frames(this.engine.memory.buffer, plan, regions, config.frameOrder);
    this.view = createHostView(this.engine, this.frames);
    for (let v = 0; v < config.vcpus; v++) {
      configureVcpu(
        this.engine,
        this.engine.cpu(v),
        config.model,
        (config.seed ^ (BigInt(v + 1) * 0x9e3779b97f4a7c15n)) & ((1n << 64n) - 1n),
        config.tscAtZero,
        Math.round(config.tscHz / 1e9),
      );
      setRegisters(this.engine, this.engine.cpu(v), config.initRegisters);
    }
    for (const directive of config.directives) {
      if (directive.kind === 'pages') {
        if (directive.data.length > 0)
          eachPage(directive, (gpa, contents) => void this.frames.write(gpa, contents, () => undefined));
      } else if (directive.kind === 'context')
        setRegisters(this.engine, this.engine.cpu(directive.vp), directive.registers);
    }
  }

  attach(platform: Platform): void {
    this.#platform = platform;
  }

  get platform(): Platform {
    if (this.#platform === undefined) throw new Error('no platform is attached');
    return this.#platform;
  }

  counters(): Counters {
    return {
      now: this.#now,
      instructions: this.#instructions,
      exits: this.#exits,
      lastExit: this.#lastExit,
      sameExit: this.#sameExit,
    };
  }
  setCounters(counters: Counters): void {
    this.#now = counters.now;
    this.#instructions = counters.instructions;
    this.#exits = counters.exits;
    this.#lastExit = counters.lastExit;
    this.#sameExit = counters.sameExit;
  }

  /** Virtual time in ns. */
  get now(): number {
    return this.#now;
  }
  /** Instructions of all vCPUs. */
  get instructions(): number {
    return this.#instructions;
  }
  get exits(): number {
    return this.#exits;
  }

  #world(): World {
    return { view: this.view, sink: this.config.sink, now: this.#now };
  }

  /** Bytes for a UART; returns how many it took. */
  serialInput(unit: number, bytes: Uint8Array): number {
    const { taken, actions } = this.platform.serialInput(unit, bytes, this.#world());
    this.#act(actions);
    return taken;
  }

  /** Runs for about `budget` instructions. `idleTo`: virtual time up to which an idle VM may skip. */
  run(budget: number, idleTo = Infinity): StopReason {
    const platform = this.platform;
    const stopAt = this.#instructions + budget;
    while (this.#end === undefined) {
      if (this.#instructions >= stopAt) return { kind: 'budget' };
      if (platform.nextEvent() <= this.#now) this.#act(platform.advance(this.#world()));
      if (this.#end !== undefined) break;
      const turn = platform.turn(this.#now);
      if (turn.kind === 'idle') {
        if (turn.until > idleTo || turn.until === Infinity) return { kind: 'idle', until: turn.until };
        this.#now = Math.max(this.#now, turn.until);
        continue;
      }
      const debug = this.#runVp(
        platform,
        turn.vp,
        Math.min(turn.instructions, QUANTUM, Math.max(1, stopAt - this.#instructions)),
      );
      if (debug !== undefined) return debug;
    }
    return this.#end;
  }

  /** Virtual processor that ran last. */
  get current(): number {
    return this.#current;
  }

  /** From Engine.onWatch: ends run() after the instruction that hit watch `watch`. */
  stopForWatch(watch: number): void {
    this.#watchHit = watch;
    this.engine.stopAfterInstruction(this.engine.cpu(this.#current));
  }

  #runVp(platform: Platform, vp: number, instructions: number): StopReason | undefined {
    this.#current = vp;
    const { engine } = this;
    const { view } = engine;
    const cpu = engine.cpu(vp);
    const waiting = view.getUint32(cpu + CPU.answers, true) !== 0;
    const kind = waiting ? 'none' : platform.interrupt(vp);
    view.setUint32(
      cpu + CPU.pending,
      kind === 'none' ? 0 : kind === 'nmi' ? PENDING.nmi : PENDING.interrupt,
      true,
    );
    // A restarted instruction runs by itself: what it did may have raised an interrupt.
    const reason = engine.run(cpu, waiting ? 1 : Math.max(1, Math.floor(instructions)), this.#now);
    const ran = engine.executed(cpu);
    this.#now += ran;
    this.#instructions += ran;
    switch (reason) {
      case RUN.budget:
        break;
      case RUN.interrupt:
        if (this.#watchHit < 0) this.#deliver(platform, vp, cpu);
        break;
      case RUN.exit:
        this.#handleExit(platform, vp, cpu);
        break;
      case RUN.breakpoint:
        return { kind: 'debug', vp, cause: 'breakpoint', watch: -1 };
    }
    if (this.#watchHit < 0) return undefined;
    const watch = this.#watchHit;
    this.#watchHit = -1;
    return { kind: 'debug', vp, cause: 'watch', watch };
  }

  #deliver(platform: Platform, vp: number, cpu: number): void {
    const kind = platform.interrupt(vp);
    if (kind === 'nmi') {
      platform.takeNmi(vp);
      inject(this.engine, cpu, 2);
      return;
    }
    if (kind === 'none') return;
    const vector =
      kind === 'external' && platform.takeExternal
        ? platform.takeExternal(vp)
        : platform.acknowledge(vp, this.#world());
    inject(this.engine, cpu, vector);
  }

  #handleExit(platform: Platform, vp: number, cpu: number): void {
    const { engine } = this;
    const code = engine.view.getUint32(cpu + CPU.raiseVector, true);
    this.#exits++;
    if (code === EXIT.wbinvd || code === EXIT.monitor || code === EXIT.pause) {
      complete(engine, cpu, { kind: 'done' });
      return;
    }
    this.#now += EXIT_TICKS;
    const exit = readExit(engine, cpu, this.config.model);
    this.#watch(vp, cpu, exit);
    const { completion, actions } = platform.exit(vp, exit, this.#world());
    if (exit.kind === 'hypercall' && completion.kind === 'value') {
      if (exit.long) write64(engine, cpu + CPU.gpr, (BigInt(completion.hi) << 32n) | BigInt(completion.lo));
      else {
        write64(engine, cpu + CPU.gpr, BigInt(completion.lo));
        write64(engine, cpu + CPU.gpr + 16, BigInt(completion.hi));
      }
      complete(engine, cpu, { kind: 'done' });
    } else complete(engine, cpu, completion);
    if (exit.kind === 'hlt') this.#finish(cpu);
    this.#act(actions);
  }

  /** Lets the restarted instruction finish now: a vCPU that halts must be behind its HLT when it is woken. */
  #finish(cpu: number): void {
    this.engine.run(cpu, 1, this.#now);
    const ran = this.engine.executed(cpu);
    this.#now += ran;
    this.#instructions += ran;
  }

  /** The same exit at the same instruction for ever ends the run and says which. */
  #watch(vp: number, cpu: number, exit: Exit): void {
    if (exit.kind === 'hlt' || exit.kind === 'budget') {
      this.#sameExit = 0;
      return;
    }
    const key = `${vp} ${exit.kind} ${this.#instructions}`;
    if (key === this.#lastExit) {
      if (++this.#sameExit > STUCK_LIMIT) {
        this.#end = {
          kind: 'stuck',
          vp,
          exit: `${exit.kind} at 0x${read64(this.engine, cpu + CPU.rip).toString(16)}`,
        };
      }
    } else {
      this.#lastExit = key;
      this.#sameExit = 0;
    }
  }

  #act(actions: readonly PlatformAction[]): void {
    const { engine } = this;
    for (const action of actions) {
      switch (action.kind) {
        case 'serial':
          this.onSerial(action.unit, action.bytes);
          break;
        case 'init':
          this.#initVp(action.vp);
          break;
        case 'startup': {
          const cpu = engine.cpu(action.vp);
          this.#initVp(action.vp);
          write64(engine, cpu + CPU.rip, 0n);
          const code = engine.view;
          code.setUint32(cpu + CS_SELECTOR, action.vector << 8, true);
          write64(engine, cpu + CS_BASE, BigInt(action.vector) << 12n);
          engine.updateMode(cpu);
          break;
        }
        case 'start-context':
          setRegisters(
            engine,
            engine.cpu(action.vp),
            startRegisters(action.context, this.config.initRegisters),
          );
          break;
        case 'flush-tlb':
          for (const vp of action.vps) engine.tlbFlush(engine.cpu(vp));
          break;
        case 'crash':
          this.#end = { kind: 'crash', parameters: action.parameters, message: action.message };
          break;
        case 'end':
          this.#end = { kind: 'end', reason: action.reason };
          break;
        case 'exit':
          this.#end = { kind: 'exit', status: action.status };
          break;
        default:
          assertNever(action);
      }
    }
  }

  #initVp(vp: number): void {
    const { engine } = this;
    const cpu = engine.cpu(vp);
    // INIT keeps caches, MTRRs, MSRs and x87/SSE state (SDM vol. 3, table 10-1); here: what setRegisters does not write.
    const mtrr = engine.u8.slice(cpu + CPU.mtrrDefType, cpu + CPU.specCtrl);
    setRegisters(engine, cpu, this.config.initRegisters);
    engine.u8.set(mtrr, cpu + CPU.mtrrDefType);
  }
}

function assertNever(value: never): never {
  throw new Error(`unknown action ${JSON.stringify(value)}`);
}
