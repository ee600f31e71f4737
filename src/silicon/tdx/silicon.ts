/** Intel TDX: one L1 context for each virtual processor, and one for each L2 VM of a partitioned TD. */
import { EVENT, EVENT_CLASS, INJECTION_OUTCOME } from '../../abi/events.ts';
import { status, STATUS } from '../../abi/tdx/status.ts';
import type { ContextEntry, InterruptSource, Waiting } from '../../seats/entry.ts';
import type { L1Program } from '../../seats/program.ts';
import type { Completion, Exit } from '../../seats/exits.ts';
import { CPU, FLAG, PENDING, SHADOW } from '../../x86/layout.ts';
import type { Engine } from '../../x86/engine.ts';
import type { Clock, Entered, Routed, Silicon, SiliconPlan, SiliconSetup } from '../silicon.ts';
import { inject, rflags } from '../vcpu.ts';
import { tdxDefs } from './instructions.ts';
import { deliveredEvent } from './delivered.ts';
import { routeL1, vmcallRegisters, type Destination } from './l1-exits.ts';
import { programLeaf, runL1, takeRegisters } from './l1-program.ts';
import { deliverL2, l2Deadline, pendingL2 } from './l2-events.ts';
import { routeL2 } from './l2-exits.ts';
import { applyMsrBitmaps } from './l2-fields.ts';
import { l1Registers, returnToL1, storeState } from './l2-return.ts';
import { contextRegisters } from './registers.ts';
import { entryFailure, injectAtEntry, isStateValid } from './tdcall-partitioning.ts';
import { PLATFORM } from './layout.ts';
import { exitRegisters, TdxModule, type TdExitRegisters } from './module.ts';
import { nativeMsrMap } from './msr.ts';
import { platformAttestation } from './platform-attestation.ts';
import { loadModule, saveModule } from './saved.ts';
import { secondStageTdx } from './second-stage.ts';
import { BLOCK, PAGE, planTables, SEPT, SHARED, Tables } from './tables.ts';
import { accept, deliverable, post } from './vapic.ts';
import type { VcpuState } from './state.ts';
import { createTdxView } from './view.ts';

export interface TdxOptions {
  /** L2 VMs that the module makes room for: 0 to 3. */
  readonly l2Vms: number;
  /** What sits at L1 in the place of machine code. */
  readonly l1?: L1Program;
}

const MSR_MAP_BYTES = 0x2000;
/** Of an injection event. */
const NMI_TYPE = 2;
const L2_CONTEXTS = 3;
/** Control structures, tables of the secure EPT, and pages that the host keeps beside the guest's memory. */
const SPARE_BYTES = 16 << 20;
const VCPU_BYTES = 64 << 10;

export function tdxSilicon(options: TdxOptions): (setup: SiliconSetup) => SiliconPlan {
  return (setup) => {
    const regions = setup.directives.flatMap((directive) => (directive.kind === 'region' ? [directive] : []));
    const top = Math.max(BLOCK, ...regions.map(({ gpa, length }) => gpa + length));
    const memory = regions.reduce((sum, { length }) => sum + Math.ceil(length / BLOCK) * BLOCK, 0);
    const frameBytes = Math.ceil((memory + SPARE_BYTES + setup.vcpus * VCPU_BYTES) / BLOCK) * BLOCK;
    const plan = planTables(top, frameBytes);
    const maps = 1 + setup.vcpus * Math.min(options.l2Vms, L2_CONTEXTS);
    return {
      contexts: 1 + options.l2Vms,
      defs: tdxDefs,
      features: setup.model.features,
      routines: [secondStageTdx],
      frameBytes,
      stageBytes: plan.stageBytes + maps * MSR_MAP_BYTES,
      bind: (engine, clock) => {
        const { stage, frames } = engine.plan;
        const tables = new Tables(engine.memory.buffer, { stage, frames }, plan, 1n << 47n, setup.frameOrder);
        const mapBase = stage + plan.stageBytes;
        engine.u8.set(nativeMsrMap(), mapBase);
        const module = new TdxModule({
          engine,
          tables,
          model: setup.model,
          vcpus: setup.vcpus,
          seed: setup.seed,
          sink: setup.sink,
          attestation: platformAttestation(setup.seed),
          msrMapOf: (vcpu, vm) =>
            vm === 0 ? mapBase : mapBase + (1 + vcpu * options.l2Vms + vm - 1) * MSR_MAP_BYTES,
          now: () => clock.now,
        });
        return new TdxSilicon(engine, clock, module, options);
      },
    };
  };
}

/** Name in snapshots. */
export const tdxKind = (l2Vms: number): string => (l2Vms === 0 ? 'tdx' : `tdx with ${l2Vms} L2 VMs`);

export class TdxSilicon implements Silicon {
  readonly kind: string;
  readonly contexts: number;
  readonly view;
  readonly truth;
  readonly #engine: Engine;
  readonly #clock: Clock;
  /** For tests of the module by itself. */
  readonly module: TdxModule;
  readonly #l1: L1Program | undefined;

  constructor(engine: Engine, clock: Clock, module: TdxModule, options: TdxOptions) {
    this.kind = tdxKind(options.l2Vms);
    this.contexts = 1 + options.l2Vms;
    this.#engine = engine;
    this.#clock = clock;
    this.module = module;
    this.#l1 = options.l1;
    module.l1IsProgram = options.l1 !== undefined;
    this.view = createTdxView(module);
    const { tables } = module;
    /** The private page if there is one, else the shared one. */
    const host = (gpa: number): number | undefined => {
      const at = gpa % 2 ** (module.td.gpaw - 1);
      if (!tables.covers(at)) return undefined;
      const entry = tables.entry(at);
      const isShared = gpa !== at;
      if (!isShared && entry.state === SEPT.mapped)
        return tables.hostOf(entry.spa + (entry.level === 1 ? at % BLOCK : at % PAGE));
      const { flags, spa } = tables.sharedEntry(at);
      return flags & SHARED.present ? tables.hostOf(spa) + (at % PAGE) : undefined;
    };
    const pieces = (
      gpa: number,
      length: number,
      visit: (at: number, offset: number, bytes: number) => void,
    ): boolean => {
      for (let at = 0; at < length;) {
        const bytes = Math.min(length - at, PAGE - ((gpa + at) % PAGE));
        const where = host(gpa + at);
        if (where === undefined) return false;
        visit(where, at, bytes);
        at += bytes;
      }
      return true;
    };
    this.truth = {
      host,
      read: (gpa: number, length: number) => {
        const bytes = new Uint8Array(length);
        return pieces(gpa, length, (at, offset, count) =>
          bytes.set(engine.u8.subarray(at, at + count), offset),
        )
          ? bytes
          : undefined;
      },
      write: (gpa: number, bytes: Uint8Array) =>
        pieces(gpa, bytes.length, () => undefined) &&
        pieces(gpa, bytes.length, (at, offset, count) => {
          engine.blocks.codeChanged(at, count);
          engine.u8.set(bytes.subarray(offset, offset + count), at);
        }),
      eachPage: (visit: (page: number, at: number) => void) => tables.eachUsed(visit),
      page: (page: number) => {
        if (!tables.isSystem(page * PAGE, PAGE)) return undefined;
        tables.markUsed(page * PAGE);
        return tables.hostOf(page * PAGE);
      },
      reverse: () => (at: number) =>
        at >= engine.plan.frames && at < engine.plan.framesEnd ? tables.spaOf(at) : -1,
    };
  }

  #vcpu(vp: number): VcpuState {
    return this.module.vcpus[vp] as VcpuState;
  }
  cpu(vp: number): number {
    return this.#engine.cpu(vp, this.#vcpu(vp).vm);
  }
  context(vp: number): number {
    return this.#vcpu(vp).vm;
  }

  /** TDH.VP.ENTER. */
  enter(vp: number, entry: ContextEntry | undefined): Entered {
    const module = this.module;
    const index = entry?.kind === 'tdh-vp-enter' ? entry.vcpu : vp;
    const vcpu = module.vcpus[index];
    const refuse = (code: number): Entered => ({
      kind: 'exit',
      exit: { kind: 'td-exit', registers: failed(code) },
    });
    if (vcpu === undefined || index !== vp) return refuse(STATUS.operandInvalid);
    const { td } = module;
    if (td.fatal) return refuse(STATUS.tdFatal);
    if (td.operation !== 'runnable') return refuse(STATUS.tdNotFinalized);
    if (td.lifeCycle !== 'keys-configured') return refuse(STATUS.lifecycleStateIncorrect);
    if (vcpu.state !== 'ready') return refuse(STATUS.vcpuStateIncorrect);
    if (vcpu.epoch !== td.epoch) {
      module.flushTlb(vp);
      vcpu.epoch = td.epoch;
    }
    const program = this.#l1;
    if (vcpu.vm === 0 && program !== undefined)
      return {
        kind: 'program',
        run: (source) => {
          this.#merge(vp, vcpu, source);
          return this.#runL1(program, vp, vcpu);
        },
      };
    const cpu = this.cpu(vp);
    return vcpu.vm === 0 ? { kind: 'code', cpu } : { kind: 'code', cpu, until: l2Deadline(module, vcpu) };
  }

  /** One step of the program at L1, or of the leaf that waited for the host. */
  #runL1(program: L1Program, vp: number, vcpu: VcpuState): { ticks: number; routed: Routed } {
    const module = this.module;
    let ticks = 0;
    if (!vcpu.l1Waits) {
      const step = runL1(program, module, vcpu);
      ticks = step.ticks;
      takeRegisters(vcpu, step.exit);
    }
    vcpu.l1Waits = false;
    const outcome = programLeaf(module, vcpu);
    switch (outcome.kind) {
      case 'done':
      case 'fault':
        return { ticks, routed: { route: 'silicon', cause: 'tdcall' } };
      case 'exit':
        vcpu.l1Waits = true;
        return {
          ticks,
          routed: { route: 'host', cause: 'nested-fault', exit: this.#exit(vcpu, outcome.exit) },
        };
      case 'vmcall':
        return {
          ticks,
          routed: {
            route: 'host',
            cause: 'tdvmcall',
            exit: this.#exit(vcpu, vmcallRegisters(vcpu, l1Registers(module, vcpu))),
          },
        };
      case 'enter-l2':
        return { ticks, routed: this.#entered(vp, vcpu, outcome.vm) };
    }
  }

  /** The L2 VM runs, unless its state is none that a processor takes. */
  #entered(_vp: number, vcpu: VcpuState, vm: number): Routed {
    if (isStateValid(this.module, vcpu, vm)) {
      injectAtEntry(this.module, vcpu, vm);
      return { route: 'context', cause: 'context-entry', from: 0, to: vm };
    }
    entryFailure(this.module, vcpu);
    return { route: 'silicon', cause: 'entry-failed' };
  }
  leave(): void {
    // The CPU structures are the state.
  }

  pending(vp: number, waiting: Waiting): number {
    const vcpu = this.#vcpu(vp);
    if (vcpu.vm !== 0) return pendingL2(this.module, vcpu, waiting);
    return (
      // What the host has posted is merged at the next instruction boundary, whatever RFLAGS.IF.
      (waiting === 'none' ? 0 : PENDING.attention) |
      (deliverable(vcpu) >= 0 ? PENDING.interrupt : 0) |
      (vcpu.pendingNmi && !vcpu.ve.valid ? PENDING.nmi : 0)
    );
  }

  deliver(vp: number, source: InterruptSource): void {
    const vcpu = this.#vcpu(vp);
    const engine = this.#engine;
    this.#merge(vp, vcpu, source);
    if (vcpu.vm !== 0) {
      deliverL2(this.module, vcpu);
      return;
    }
    const cpu = this.cpu(vp);
    const shadow = engine.view.getUint32(cpu + CPU.shadow, true);
    if (shadow & (SHADOW.sti | SHADOW.movSs)) return;
    if (vcpu.pendingNmi && !vcpu.ve.valid && (shadow & SHADOW.nmiBlocked) === 0) {
      vcpu.pendingNmi = false;
      deliveredEvent(this.module, vcpu, 2, NMI_TYPE);
      inject(engine, cpu, 2);
      return;
    }
    const vector = deliverable(vcpu);
    if (vector < 0 || (rflags(engine, cpu) & FLAG.IF) === 0) return;
    accept(vcpu, vector);
    deliveredEvent(this.module, vcpu, vector, 0);
    inject(engine, cpu, vector);
  }

  /** Posted-interrupt processing: everything that waits moves into the virtual APIC. */
  #merge(vp: number, vcpu: VcpuState, source: InterruptSource): void {
    const { sink } = this.module;
    let { waiting } = source;
    for (let k = 0; k < 256 && waiting !== 'none'; k++) {
      if (waiting === 'nmi') {
        source.takeNmi();
        vcpu.pendingNmi = true;
      } else {
        const vector = source.takeVector();
        const taken = post(vcpu, vector);
        if (!taken && sink.mask & EVENT_CLASS.exception)
          sink.emit(
            EVENT.injection,
            this.#clock.now,
            vp,
            vector,
            vector < 32 ? 3 : 0,
            INJECTION_OUTCOME.refused,
            vcpu.vm,
          );
      }
      waiting = source.more?.() ?? 'none';
    }
  }

  route(vp: number): Routed {
    const vcpu = this.#vcpu(vp);
    const where = vcpu.vm === 0 ? routeL1(this.module, vcpu, this.cpu(vp)) : routeL2(this.module, vcpu);
    return this.#routed(vp, vcpu, where);
  }

  #routed(vp: number, vcpu: VcpuState, where: Destination): Routed {
    switch (where.to) {
      case 'silicon':
      case 'guest':
        return { route: where.to, cause: where.cause };
      case 'l2':
        this.#clock.step(this.#engine.cpu(vp, 0));
        return this.#entered(vp, vcpu, where.vm);
      case 'l1':
        return { route: 'context', cause: where.cause, from: where.from, to: 0 };
      case 'l1-after': {
        const from = vcpu.vm;
        this.#clock.step(this.cpu(vp));
        returnToL1(this.module, vcpu, where.exit);
        return { route: 'context', cause: where.cause, from, to: 0 };
      }
      case 'host': {
        // The instruction that called is behind itself before the host looks.
        if (vcpu.vmcall !== undefined) this.#clock.step(this.cpu(vp));
        else if (vcpu.vm !== 0) storeState(this.module, vcpu);
        return { route: 'host', cause: where.cause, exit: this.#exit(vcpu, where.exit) };
      }
    }
  }

  #exit(vcpu: VcpuState, registers: TdExitRegisters): Exit {
    const mask = (vcpu.vmcall ?? 0) >>> 16;
    if (mask === 0) return { kind: 'td-exit', registers };
    const xmm = new Uint8Array(256);
    const cpu = this.cpu(vcpu.index);
    for (let n = 0; n < 16; n++) {
      if (((mask >>> n) & 1) === 0) continue;
      const at = cpu + CPU.xmm + n * 32;
      xmm.set(this.#engine.u8.subarray(at, at + 16), n * 16);
    }
    return { kind: 'td-exit', registers, xmm };
  }

  /** The host enters again: it can change what the guest selected, and nothing else. */
  complete(vp: number, _exit: Exit, completion: Completion): void {
    const vcpu = this.#vcpu(vp);
    if (completion.kind !== 'td-enter') return;
    const mask = vcpu.vmcall;
    if (mask !== undefined) this.#answer(vcpu, mask, completion);
    vcpu.vmcall = undefined;
    const { l2Exit } = vcpu;
    vcpu.l2Exit = undefined;
    if (completion.resumeL1 !== true || vcpu.vm === 0 || l2Exit === undefined) return;
    const code = l2Exit.kind === 'tdvmcall' ? STATUS.l2ExitHostRoutedTdvmcall : STATUS.l2ExitHostRoutedAsync;
    this.#engine.view.setUint32(this.cpu(vp) + CPU.deliver, 0, true);
    returnToL1(this.module, vcpu, l2Exit, code);
  }

  #answer(vcpu: VcpuState, mask: number, completion: Extract<Completion, { kind: 'td-enter' }>): void {
    const engine = this.#engine;
    const cpu = this.cpu(vcpu.index);
    const registers = vcpu.vm === 0 ? l1Registers(this.module, vcpu) : contextRegisters(engine, cpu);
    registers.set(0, 0n);
    for (let n = 2; n < 16; n++) if ((mask >>> n) & 1) registers.set(n, completion.registers[n] ?? 0n);
    for (let n = 0; n < 16; n++) {
      if ((mask >>> (16 + n)) & 1) {
        const value = completion.xmm?.subarray(n * 16, n * 16 + 16) ?? new Uint8Array(16);
        engine.u8.set(value, cpu + CPU.xmm + n * 32);
      }
    }
  }

  // A host cannot do these to a TD.
  init(): void {
    // No INIT.
  }
  startup(): void {
    // No SIPI.
  }
  startContext(): void {
    // No context but the module's.
  }
  flushTlb(vp: number): void {
    this.module.flushTlb(vp);
  }

  save(): unknown {
    return { module: saveModule(this.module), l1: this.#l1?.state };
  }
  load(state: unknown): void {
    const saved = state as { readonly module: unknown; readonly l1: unknown };
    loadModule(this.module, saved.module);
    this.#l1?.load(saved.l1);
    for (const { index } of this.module.vcpus)
      for (let vm = 0; vm < this.contexts; vm++) {
        const cpu = this.#engine.cpu(index, vm);
        this.#engine.view.setUint32(cpu + CPU.msrMap, this.module.msrMapOf(index, vm), true);
        this.#engine.view.setUint32(cpu + PLATFORM.vm, vm, true);
        if (vm > 0) applyMsrBitmaps(this.module, this.#vcpu(index), vm);
      }
  }
}

/** TDH.VP.ENTER that did not enter. */
function failed(code: number): readonly bigint[] {
  const registers = [...exitRegisters(0)];
  registers[0] = status(code);
  return registers;
}
