/** The silicon of an ordinary VM: one context per virtual processor, every exit is the host's. */
import { eachPage } from '../../abi/page-runs.ts';
import type { ExitKind } from '../../abi/exit-kinds.ts';
import type { InterruptSource, Waiting } from '../../seats/entry.ts';
import type { Completion, Exit } from '../../seats/exits.ts';
import { CPU, CS, EXIT, PENDING, SEG, segField } from '../../x86/layout.ts';
import type { Engine } from '../../x86/engine.ts';
import type { Clock, Entered, Routed, Silicon, SiliconPlan, SiliconSetup } from '../silicon.ts';
import {
  complete,
  completeHypercall,
  configureVcpu,
  inject,
  readExit,
  setRegisters,
  startRegisters,
  vcpuSeed,
  write64,
} from '../vcpu.ts';
import { Frames, type FrameState, frameBytesFor, stageBytes, type MemoryRegion } from './frames.ts';
import { createHostView } from './host-view.ts';
import { secondStagePlain } from './second-stage.ts';

export function plainSilicon(setup: SiliconSetup): SiliconPlan {
  const regions: MemoryRegion[] = setup.directives.flatMap((directive) =>
    directive.kind === 'region'
      ? [{ gpa: directive.gpa, length: directive.length, readOnly: directive.backing === 'rom' }]
      : [],
  );
  const frameBytes = frameBytesFor(regions);
  const top = Math.max(0, ...regions.map(({ gpa, length }) => gpa + length));
  return {
    contexts: 1,
    defs: [],
    features: setup.model.features,
    routines: [secondStagePlain],
    frameBytes,
    stageBytes: stageBytes(top, frameBytes),
    bind: (engine, clock) => new PlainSilicon(setup, engine, clock, regions),
  };
}

/** Waiting or no answer needed: the processor does nothing that a guest could see. */
const IDLE_EXITS: ReadonlyMap<number, ExitKind> = new Map([
  [EXIT.wbinvd, 'cache'],
  [EXIT.monitor, 'monitor'],
  [EXIT.pause, 'pause'],
]);

class PlainSilicon implements Silicon {
  readonly kind = 'plain';
  readonly contexts = 1;
  readonly view;
  readonly truth;
  readonly #setup: SiliconSetup;
  readonly #engine: Engine;
  readonly #clock: Clock;
  readonly #entered: readonly Entered[];
  readonly #frames: Frames;

  constructor(setup: SiliconSetup, engine: Engine, clock: Clock, regions: readonly MemoryRegion[]) {
    const frames = new Frames(engine.memory.buffer, engine.plan, regions, setup.frameOrder);
    this.#setup = setup;
    this.#frames = frames;
    this.#engine = engine;
    this.#clock = clock;
    this.view = createHostView(engine, frames, setup.vcpus);
    this.truth = {
      host: (gpa: number) => frames.host(gpa),
      read: (gpa: number, length: number) => frames.read(gpa, length),
      write: (gpa: number, bytes: Uint8Array) =>
        frames.write(gpa, bytes, (host, length) => engine.blocks.codeChanged(host, length)),
      eachPage: (visit: (page: number, host: number) => void) =>
        frames.eachTouchedPage((gpa, host) => visit(gpa / 4096, host)),
      page: (page: number) => frames.page(page),
      reverse: () => frames.reverse(),
    };
    this.#entered = Array.from({ length: setup.vcpus }, (_, vp) => ({ kind: 'code', cpu: engine.cpu(vp) }));
    for (let vp = 0; vp < setup.vcpus; vp++) {
      configureVcpu(engine, engine.cpu(vp), setup, vcpuSeed(setup.seed, vp));
      setRegisters(engine, engine.cpu(vp), setup.initRegisters);
    }
    for (const directive of setup.directives) {
      if (directive.kind === 'pages') {
        if (directive.data.length > 0)
          eachPage(directive, (gpa, contents) => void frames.write(gpa, contents, () => undefined));
      } else if (directive.kind === 'context')
        setRegisters(engine, engine.cpu(directive.vp), directive.registers);
    }
  }

  cpu(vp: number): number {
    return this.#engine.cpu(vp);
  }
  context(): number {
    return 0;
  }
  enter(vp: number): Entered {
    return this.#entered[vp] as Entered;
  }
  leave(): void {
    // The CPU structure is the only place of the state.
  }

  pending(_vp: number, waiting: Waiting): number {
    return waiting === 'none' ? 0 : waiting === 'nmi' ? PENDING.nmi : PENDING.interrupt;
  }
  deliver(vp: number, source: InterruptSource): void {
    if (source.waiting === 'none') return;
    if (source.waiting === 'nmi') {
      source.takeNmi();
      inject(this.#engine, this.cpu(vp), 2);
    } else inject(this.#engine, this.cpu(vp), source.takeVector());
  }

  route(vp: number): Routed {
    const engine = this.#engine;
    const cpu = this.cpu(vp);
    const idle = IDLE_EXITS.get(engine.view.getUint32(cpu + CPU.raiseVector, true));
    if (idle !== undefined) {
      complete(engine, cpu, { kind: 'done' });
      return { route: 'silicon', cause: idle };
    }
    const exit = readExit(engine, cpu, this.#setup.model);
    return { route: 'host', cause: exit.kind, exit };
  }
  complete(vp: number, exit: Exit, completion: Completion): void {
    const engine = this.#engine;
    const cpu = this.cpu(vp);
    if (exit.kind === 'hypercall' && completion.kind === 'value')
      completeHypercall(engine, cpu, exit.long, completion);
    else complete(engine, cpu, completion);
    // A processor that halts must be behind its HLT when it is woken.
    if (exit.kind === 'hlt') this.#clock.step(cpu);
  }

  init(vp: number): void {
    const engine = this.#engine;
    const cpu = this.cpu(vp);
    // INIT keeps caches, MTRRs, MSRs and x87/SSE state (SDM vol. 3, table 10-1); here: what setRegisters does not write.
    const mtrr = engine.u8.slice(cpu + CPU.mtrrDefType, cpu + CPU.specCtrl);
    setRegisters(engine, cpu, this.#setup.initRegisters);
    engine.u8.set(mtrr, cpu + CPU.mtrrDefType);
  }
  startup(vp: number, vector: number): void {
    const engine = this.#engine;
    const cpu = this.cpu(vp);
    this.init(vp);
    write64(engine, cpu + CPU.rip, 0n);
    engine.view.setUint32(cpu + segField(CS, SEG.selector), vector << 8, true);
    write64(engine, cpu + segField(CS, SEG.base), BigInt(vector) << 12n);
    engine.updateMode(cpu);
  }
  startContext(vp: number, context: Uint8Array): void {
    setRegisters(this.#engine, this.cpu(vp), startRegisters(context, this.#setup.initRegisters));
  }
  flushTlb(vp: number): void {
    this.#engine.tlbFlush(this.cpu(vp));
  }

  save(): unknown {
    return this.#frames.save();
  }
  load(state: unknown): void {
    this.#frames.load(state as FrameState);
  }
}
