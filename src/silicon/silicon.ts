/**
 * What a configuration's hardware supplies to the machine. `plain` is the identity implementation, SNP and TDX are the
 * others. The machine runs contexts and asks the silicon where each exit goes; it does not know what a VMPL or an L2 is.
 *
 * A context is a privilege level of one virtual processor: its CPU structure and TLB are apart from those of the others.
 * The host names a context when it lets a virtual processor run (`ContextEntry`); what runs there is machine code, or
 * a program that was given the context's seat.
 */
import type { ExitKind } from '../abi/exit-kinds.ts';
import type { ContextEntry, InterruptSource, Waiting } from '../seats/entry.ts';
import type { EventSink } from '../seats/events.ts';
import type { Completion, Exit } from '../seats/exits.ts';
import type { HostView } from '../seats/host-view.ts';
import type { Directive, InitialRegisters } from '../seats/launch.ts';
import type { CpuModel } from '../x86/cpuid.ts';
import type { Def, Feature } from '../x86/defs/def.ts';
import type { Engine } from '../x86/engine.ts';
import type { Routine } from '../x86/runtime/library.ts';

export interface SiliconSetup {
  readonly model: CpuModel;
  readonly vcpus: number;
  readonly seed: bigint;
  readonly tscHz: number;
  readonly tscAtZero: bigint;
  /** Of the launch: where memory is. */
  readonly directives: readonly Directive[];
  readonly sink: EventSink;
  /** Registers after INIT, for the start of application processors. */
  readonly initRegisters: InitialRegisters;
  /** Permutation of frame blocks, for runs that must not depend on where frames lie. */
  readonly frameOrder?: (count: number) => Uint32Array;
}

/** Silicon before there is an engine: what it adds to it. */
export interface SiliconPlan {
  /** CPU structures of each virtual processor. */
  readonly contexts: number;
  /** Instructions beside those of x86, and CPUID features that they and the mode need. */
  readonly defs: readonly Def[];
  readonly features: ReadonlySet<Feature>;
  /** Library routines, `second_stage` among them. */
  readonly routines: readonly Routine[];
  /** Routines that the silicon itself calls. */
  readonly exports?: readonly string[];
  readonly frameBytes: number;
  readonly stageBytes: number;
  bind(engine: Engine, clock: Clock): Silicon;
}

/** Makes a configuration's silicon. */
export type SiliconKind = (setup: SiliconSetup) => SiliconPlan;

/** The machine's clock, for what silicon does beside running a context. */
export interface Clock {
  /** Virtual time in ns. */
  readonly now: number;
  /** Runs the context at `cpu` for one instruction: a restarted one must be behind itself before its context is left. */
  step(cpu: number): void;
}

export type Entered =
  /** `until`: virtual time in ns at which the silicon itself has something for the context. */
  | { readonly kind: 'code'; readonly cpu: number; readonly until?: number }
  /** `run` takes the program to its next exit; `source` is what waits for it. */
  | {
      readonly kind: 'program';
      run(source: InterruptSource): { readonly ticks: number; readonly routed: Routed };
    }
  /** Nothing ran. */
  | { readonly kind: 'exit'; readonly exit: Exit };

/** Where an exit went. */
export type Routed =
  /** Silicon has dealt with it; the context goes on. */
  | { readonly route: 'silicon'; readonly cause: ExitKind }
  /** To the context's own handler: the event is set up and the context goes on. */
  | { readonly route: 'guest'; readonly cause: ExitKind }
  /** To another context of the same virtual processor, which is the current one now. No host involved. */
  | { readonly route: 'context'; readonly cause: ExitKind; readonly from: number; readonly to: number }
  | { readonly route: 'host'; readonly cause: ExitKind; readonly exit: Exit };

/** Memory as it really is: for snapshots, state hashes and debuggers. No party gets this. */
export interface GroundTruth {
  /** Host address of the byte that the guest has at `gpa` (without C-bit, shared bit or vTOM). */
  host(gpa: number): number | undefined;
  /** Copies of plaintext, and writes that bypass every check; undefined or false where there is no memory. */
  read(gpa: number, length: number): Uint8Array | undefined;
  write(gpa: number, bytes: Uint8Array): boolean;
  /** Every frame in use, by a number that does not depend on where frames lie, ascending. */
  eachPage(visit: (page: number, host: number) => void): void;
  /** Host address of a page of that number, taking a frame for it. */
  page(page: number): number | undefined;
  /** Address by that numbering of a host address; -1 outside of frames. Valid until frames are taken. */
  reverse(): (host: number) => number;
}

export interface Silicon {
  readonly kind: string;
  /** Contexts of a virtual processor. */
  readonly contexts: number;
  /** What the host is given. */
  readonly view: HostView;
  readonly truth: GroundTruth;
  /** The CPU structure that runs, or ran last, on `vp`. */
  cpu(vp: number): number;
  /** The number of that context. */
  context(vp: number): number;

  /** The host lets `vp` run. */
  enter(vp: number, entry: ContextEntry | undefined): Entered;
  /** PENDING bits for the running context when this waits for it. */
  pending(vp: number, waiting: Waiting): number;
  /** The running context can take an event now. */
  deliver(vp: number, source: InterruptSource): void;
  /** The running context left its code (CPU.raiseVector). */
  route(vp: number): Routed;
  /** Its time is over, or `route` gave its exit to the host. */
  leave(vp: number): void;
  /** The host's answer to an exit. */
  complete(vp: number, exit: Exit, completion: Completion): void;

  /** Actions of a host. Silicon under which a host cannot do them ignores them. */
  init(vp: number): void;
  startup(vp: number, vector: number): void;
  startContext(vp: number, context: Uint8Array): void;
  flushTlb(vp: number): void;

  /** Everything beside CPU structures, TLBs and frames, as plain data. */
  save(): unknown;
  load(state: unknown): void;
}
