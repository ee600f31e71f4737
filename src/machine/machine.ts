/**
 * Connects a processor with whoever owns the vCPUs, keeps the clock and offers turns. Synchronous: run(budget) says why it
 * returned; nothing here waits, reads a clock or opens a file.
 */
import { EVENT, EVENT_CLASS } from '../abi/events.ts';
import { EXIT_KINDS, EXIT_ROUTES, type ExitKind } from '../abi/exit-kinds.ts';
import type { HostAction } from '../seats/actions.ts';
import type { ContextEntry, InterruptSource, Waiting } from '../seats/entry.ts';
import type { Completion, Exit } from '../seats/exits.ts';
import type { EventSink } from '../seats/events.ts';
import type { HostView } from '../seats/host-view.ts';
import type { Directive, InitialRegisters } from '../seats/launch.ts';
import { plainSilicon } from '../silicon/plain/silicon.ts';
import type { ProgramAt } from './program.ts';
import type { GroundTruth, Routed, Silicon, SiliconKind } from '../silicon/silicon.ts';
import { read64 } from '../silicon/vcpu.ts';
import { x86Defs, x86Routines } from '../x86/all.ts';
import type { CpuModel } from '../x86/cpuid.ts';
import { Engine } from '../x86/engine.ts';
import { CPU, RUN } from '../x86/layout.ts';
import { planMemory } from '../x86/memory-plan.ts';

export type Turn =
  /** `entry`: which context, where there is a choice. */
  | {
      readonly kind: 'run';
      readonly vp: number;
      readonly instructions: number;
      readonly entry?: ContextEntry;
    }
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
  /** Carries the launch out through its view, where the silicon does not do that by itself. Said in a sentence why not. */
  launch?(directives: readonly Directive[], world: World): string | undefined;
  advance(world: World): readonly PlatformAction[];
  nextEvent(): number;
  interrupt(vp: number): Waiting;
  acknowledge(vp: number, world: World): number;
  takeNmi(vp: number): void;
  /** Vector of an interrupt that an 8259A gives. */
  takeExternal?(vp: number, world: World): number;
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
  readonly exitCounts: readonly ExitCount[];
}

/** Exits of one kind that went one way. */
export interface ExitCount {
  readonly kind: ExitKind;
  readonly route: Routed['route'];
  readonly count: number;
}

/** `interpreter`: no code is translated. */
export type EngineKind = 'interpreter' | 'translator';
export const DEFAULT_ENGINE: EngineKind = 'translator';

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
  /** The hardware; without it that of an ordinary VM. */
  readonly silicon?: SiliconKind;
  /** Of the paravisor that the silicon was given. */
  readonly program?: ProgramAt;
  /** Decides only speed. */
  readonly engine?: EngineKind;
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
  /** The guest asked to be ended, or its host cannot let it go on. */
  | { readonly kind: 'terminated'; readonly vp: number; readonly what: string }
  /** The same exit at the same place without progress: the VM is stuck. */
  | { readonly kind: 'stuck'; readonly vp: number; readonly exit: string };

/** Ticks that an exit to the outside costs. */
const EXIT_TICKS = 1000;
/** V8 replaces nothing while run() loops: leave it regularly. */
const QUANTUM = 2_000_000;
const STUCK_LIMIT = 1_000_000;
const ROUTES = EXIT_ROUTES.length;

export class Machine {
  readonly engine: Engine;
  readonly silicon: Silicon;
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
  /** By kind, then route. */
  readonly #exitCounts = new Float64Array(EXIT_KINDS.length * ROUTES);

  constructor(config: MachineConfig) {
    this.config = config;
    const hardware = (config.silicon ?? plainSilicon)(config);
    const plan = planMemory(config.vcpus, hardware.contexts, hardware.frameBytes, hardware.stageBytes);
    this.engine = new Engine({
      plan,
      // First: an instruction of theirs may have a prefix that x86's form of the opcode ignores.
      defs: [...hardware.defs, ...x86Defs],
      features: hardware.features,
      routines: [...x86Routines, ...hardware.routines],
      exports: hardware.exports ?? [],
      translate: (config.engine ?? DEFAULT_ENGINE) === 'translator',
    });
    const now = (): number => this.#now;
    this.silicon = hardware.bind(this.engine, {
      get now() {
        return now();
      },
      step: (cpu) => this.#step(cpu),
    });
  }

  /** What the host sees. */
  get view(): HostView {
    return this.silicon.view;
  }
  /** Memory as it is: for the shell's side only. */
  get truth(): GroundTruth {
    return this.silicon.truth;
  }

  attach(platform: Platform): void {
    this.#platform = platform;
  }

  /** Lets the host carry out the launch, where that is its work. A sentence when it could not. */
  launch(): string | undefined {
    return this.platform.launch?.(this.config.directives, this.#world());
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
      exitCounts: this.exitCounts(),
    };
  }
  setCounters(counters: Counters): void {
    this.#now = counters.now;
    this.#instructions = counters.instructions;
    this.#exits = counters.exits;
    this.#lastExit = counters.lastExit;
    this.#sameExit = counters.sameExit;
    for (const { kind, route, count } of counters.exitCounts)
      this.#exitCounts[EXIT_KINDS.indexOf(kind) * ROUTES + EXIT_ROUTES.indexOf(route)] = count;
  }
  /** Exits so far by kind and route, without those that never were. */
  exitCounts(): readonly ExitCount[] {
    return EXIT_KINDS.flatMap((kind, k) =>
      EXIT_ROUTES.map((route, r) => ({ kind, route, count: this.#exitCounts[k * ROUTES + r] as number })),
    ).filter(({ count }) => count > 0);
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
        turn.entry,
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
    this.engine.stopAfterInstruction(this.silicon.cpu(this.#current));
  }

  #runVp(
    platform: Platform,
    vp: number,
    entry: ContextEntry | undefined,
    instructions: number,
  ): StopReason | undefined {
    this.#current = vp;
    const { silicon } = this;
    const entered = silicon.enter(vp, entry);
    if (entered.kind === 'exit') {
      this.#routed(platform, vp, { route: 'host', cause: 'entry-failed', exit: entered.exit });
      return undefined;
    }
    if (entered.kind === 'program') {
      const { ticks, routed } = entered.run(this.#source(platform, vp));
      this.#now += ticks;
      this.#routed(platform, vp, routed);
      return undefined;
    }
    const left = (entered.until ?? Infinity) - this.#now;
    const end = this.#instructions + Math.max(1, Math.floor(Math.min(instructions, Math.ceil(left))));
    let inHost = false;
    let debug: StopReason | undefined;
    while (!inHost && debug === undefined && this.#instructions < end && this.#end === undefined) {
      const reason = this.#runCode(platform, vp, end - this.#instructions);
      switch (reason) {
        case RUN.budget:
          break;
        case RUN.interrupt:
          if (this.#watchHit < 0) silicon.deliver(vp, this.#source(platform, vp));
          break;
        case RUN.exit:
          inHost = this.#routed(platform, vp, silicon.route(vp));
          break;
        case RUN.breakpoint:
          debug = { kind: 'debug', vp, cause: 'breakpoint', watch: -1 };
          break;
      }
      if (this.#watchHit >= 0 && debug === undefined) {
        debug = { kind: 'debug', vp, cause: 'watch', watch: this.#watchHit };
        this.#watchHit = -1;
      }
      // What the host has to do is looked at between runs, also when a guest never leaves its code by itself.
      if (reason !== RUN.exit) break;
    }
    if (!inHost) silicon.leave(vp);
    return debug;
  }

  #source(platform: Platform, vp: number): InterruptSource {
    return {
      waiting: platform.interrupt(vp),
      more: () => platform.interrupt(vp),
      takeNmi: () => platform.takeNmi(vp),
      takeVector: () =>
        platform.interrupt(vp) === 'external' && platform.takeExternal
          ? platform.takeExternal(vp, this.#world())
          : platform.acknowledge(vp, this.#world()),
    };
  }

  #runCode(platform: Platform, vp: number, instructions: number): number {
    const { engine, silicon } = this;
    const { view } = engine;
    const cpu = silicon.cpu(vp);
    const waiting = view.getUint32(cpu + CPU.answers, true) !== 0;
    view.setUint32(cpu + CPU.pending, waiting ? 0 : silicon.pending(vp, platform.interrupt(vp)), true);
    // A restarted instruction runs by itself: what it did may have raised an interrupt.
    const reason = engine.run(cpu, waiting ? 1 : instructions, this.#now);
    this.#book(cpu);
    return reason;
  }

  #book(cpu: number): void {
    const ran = this.engine.executed(cpu);
    this.#now += ran;
    this.#instructions += ran;
  }

  #step(cpu: number): void {
    this.engine.run(cpu, 1, this.#now);
    this.#book(cpu);
  }

  /** True when the context that ran is left. */
  #routed(platform: Platform, vp: number, routed: Routed): boolean {
    this.#exits++;
    const kind = EXIT_KINDS.indexOf(routed.cause);
    const route = EXIT_ROUTES.indexOf(routed.route);
    const at = kind * ROUTES + route;
    this.#exitCounts[at] = (this.#exitCounts[at] as number) + 1;
    const { sink } = this.config;
    if (sink.mask & EVENT_CLASS.exit) {
      const here = this.silicon.context(vp);
      const [from, to] =
        routed.route === 'context' ? [routed.from, routed.to] : [here, routed.route === 'host' ? -1 : here];
      sink.emit(EVENT.exit, this.#now, vp, kind, route, from, to);
    }
    switch (routed.route) {
      case 'silicon':
      case 'guest':
        return false;
      // What runs now may be a program: it is entered anew.
      case 'context':
        this.#now += EXIT_TICKS;
        return true;
      case 'host':
        this.#answered(platform, vp, routed.exit);
        return true;
    }
  }

  #answered(platform: Platform, vp: number, exit: Exit): void {
    this.#now += EXIT_TICKS;
    this.#watch(vp, exit);
    const { completion, actions } = platform.exit(vp, exit, this.#world());
    this.silicon.complete(vp, exit, completion);
    this.#act(actions);
  }

  /** The same exit at the same instruction for ever ends the run and says which. */
  #watch(vp: number, exit: Exit): void {
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
          exit: `${exit.kind} at 0x${read64(this.engine, this.silicon.cpu(vp) + CPU.rip).toString(16)}`,
        };
      }
    } else {
      this.#lastExit = key;
      this.#sameExit = 0;
    }
  }

  #act(actions: readonly PlatformAction[]): void {
    const { silicon } = this;
    for (const action of actions) {
      switch (action.kind) {
        case 'serial':
          this.onSerial(action.unit, action.bytes);
          break;
        case 'init':
          silicon.init(action.vp);
          break;
        case 'startup':
          silicon.startup(action.vp, action.vector);
          break;
        case 'start-context':
          silicon.startContext(action.vp, action.context);
          break;
        case 'flush-tlb':
          for (const vp of action.vps) silicon.flushTlb(vp);
          break;
        case 'crash':
          this.#end = { kind: 'crash', parameters: action.parameters, message: action.message };
          break;
        case 'terminate':
          this.#end = { kind: 'terminated', vp: action.vp, what: action.what };
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
}

function assertNever(value: never): never {
  throw new Error(`unknown action ${JSON.stringify(value)}`);
}
