/**
 * The silicon of an SEV-SNP system: a context for each VMPL of a virtual processor, registers in VMSA pages, and the
 * decision where an exit goes. AMD APM vol. 2, 15.34 to 15.36.
 */
import {
  EVENT,
  EVENT_CLASS,
  HOST_ACCESS,
  INJECTION_OUTCOME,
  PRIVILEGED_OPERATION,
} from '../../abi/events.ts';
import type { ExitKind } from '../../abi/exit-kinds.ts';
import { IOIO, SVM_EXIT } from '../../abi/snp/exit-codes.ts';
import { EVENT_INJECTION, SEV_FEATURE, VINTR, vmsa } from '../../abi/snp/vmsa.ts';
import type { ContextEntry, InterruptSource, Waiting } from '../../seats/entry.ts';
import type { Completion, Exit } from '../../seats/exits.ts';
import type { Vmpl0Program } from '../../seats/program.ts';
import { SVM_INTERCEPT, type Halves, type SnpHostView, type Vmcb } from '../../seats/snp.ts';
import type { Engine } from '../../x86/engine.ts';
import { CPU, EXIT, FLAG, INTERCEPT, PENDING, RAISE, REC, VEC } from '../../x86/layout.ts';
import { EFER } from '../../x86/registers.ts';
import type {
  Clock,
  Entered,
  GroundTruth,
  Routed,
  Silicon,
  SiliconKind,
  SiliconPlan,
  SiliconSetup,
} from '../silicon.ts';
import {
  complete,
  configureVcpu,
  eventClass,
  inject,
  pushAnswer,
  setRegisters,
  vcpuSeed,
  rflags,
} from '../vcpu.ts';
import { clearFrames } from './clear.ts';
import { snpCpuid, type SnpCpuid } from './cpuid.ts';
import { createSnpHostView } from './host-view.ts';
import { snpDefs } from './instructions.ts';
import { C_BIT, CONTEXT, SNP_EXIT, snpStageBytes } from './layout.ts';
import { fillMsrMap, ownMsr } from './msrs.ts';
import { pvalidate, rmpadjust, rmpquery, type OperationOutcome } from './page-operations.ts';
import { createSeat } from './seat.ts';
import { secondStageSnp } from './second-stage.ts';
import { SecureProcessor } from './secure-processor.ts';
import { SnpSystem } from './system.ts';
import { checkEntry, isVmsaPage } from './vmrun.ts';
import { vmsaRoutines } from './vmsa-copy.ts';

const PAGE = 4096;
const BLOCK = 2 << 20;
const VMPLS = 4;
const C_BIT_VALUE = 2 ** C_BIT;
/** System memory that no guest has, for a host's own pages. */
const HOST_RESERVE = 2 * BLOCK;

export interface SnpOptions {
  /** What runs at VMPL0 instead of machine code. */
  readonly program?: Vmpl0Program;
}

export function snpSilicon(options: SnpOptions = {}): SiliconKind {
  return (setup) => plan(setup, options);
}

function plan(setup: SiliconSetup, options: SnpOptions): SiliconPlan {
  let top = 0;
  let memory = 0;
  for (const directive of setup.directives) {
    if (directive.kind !== 'region') continue;
    const end = Math.ceil((directive.gpa + directive.length) / BLOCK) * BLOCK;
    const start = Math.floor(directive.gpa / BLOCK) * BLOCK;
    memory += end - start;
    top = Math.max(top, end);
  }
  const frameBytes = memory + HOST_RESERVE;
  return {
    contexts: VMPLS,
    defs: snpDefs,
    features: setup.model.features,
    routines: [secondStageSnp, clearFrames, ...vmsaRoutines],
    exports: ['vmsa_load', 'vmsa_save', 'clear_frames'],
    frameBytes,
    stageBytes: snpStageBytes(top, frameBytes),
    bind: (engine, clock) => new SnpSilicon(setup, options, engine, clock, top),
  };
}

/** What runs, or ran last, on a virtual processor. */
interface Stay {
  vmpl: number;
  vmcb: Vmcb | undefined;
  /** Host address of the VMSA page; 0: none yet. */
  page: number;
  running: boolean;
}

export class SnpSilicon implements Silicon {
  readonly kind = 'snp';
  readonly contexts = VMPLS;
  readonly view: SnpHostView;
  readonly truth: GroundTruth;
  readonly processor: SecureProcessor;
  readonly system: SnpSystem;
  readonly #setup: SiliconSetup;
  readonly #options: SnpOptions;
  readonly #engine: Engine;
  readonly #clock: Clock;
  readonly #cpuid: SnpCpuid;
  readonly #load: (cpu: number, page: number, debugSwap: number) => void;
  readonly #save: (cpu: number, page: number, debugSwap: number) => void;
  readonly #stays: Stay[];
  /** VMSA whose registers each context's CPU structure last held: system page, -1 for none. */
  readonly #held: Int32Array;

  constructor(setup: SiliconSetup, options: SnpOptions, engine: Engine, clock: Clock, top: number) {
    this.#setup = setup;
    this.#options = options;
    this.#engine = engine;
    this.#clock = clock;
    this.#cpuid = snpCpuid(setup.model);
    this.system = new SnpSystem(engine, top, setup.seed);
    this.processor = new SecureProcessor(
      setup.seed,
      setup.model.signature,
      setup.tscHz / 1000,
      (leaf, subleaf) => this.#cpuid(leaf, subleaf, { cr4: 0, xcr0: 1, xss: 0 }),
    );
    this.view = createSnpHostView(this.system, this.processor, this.#cpuid, (spa, length, write, refused) =>
      this.#hostAccess(spa, length, write, refused),
    );
    this.#load = engine.routine('vmsa_load');
    this.#save = engine.routine('vmsa_save');
    fillMsrMap(engine.u8, this.system.layout.msrMap);
    this.#stays = Array.from({ length: setup.vcpus }, () => ({
      vmpl: 0,
      vmcb: undefined,
      page: 0,
      running: false,
    }));
    this.#held = new Int32Array(setup.vcpus * VMPLS).fill(-1);
    for (let vp = 0; vp < setup.vcpus; vp++)
      for (let vmpl = 0; vmpl < VMPLS; vmpl++) {
        const cpu = engine.cpu(vp, vmpl);
        configureVcpu(engine, cpu, setup, vcpuSeed(setup.seed, vp * VMPLS + vmpl));
        setRegisters(engine, cpu, setup.initRegisters);
        const { view } = engine;
        view.setUint32(cpu + CPU.msrMap, this.system.layout.msrMap, true);
        const allowed = view.getUint32(cpu + CPU.eferAllowed, true);
        view.setUint32(cpu + CPU.eferAllowed, allowed | EFER.SVME, true);
      }
    this.truth = this.#groundTruth();
  }

  #groundTruth(): GroundTruth {
    const { system } = this;
    const engine = this.#engine;
    const { u8, plan } = engine;
    const host = (gpa: number): number | undefined => {
      const mapping = system.mapping(gpa >= C_BIT_VALUE ? gpa - C_BIT_VALUE : gpa);
      return mapping.kind === 'page' ? system.host(mapping.spa) + (gpa % PAGE) : undefined;
    };
    const eachPiece = (
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
    return {
      host,
      read(gpa, length) {
        const out = new Uint8Array(length);
        const ok = eachPiece(gpa, length, (at, offset, bytes) =>
          out.set(u8.subarray(at, at + bytes), offset),
        );
        return ok ? out : undefined;
      },
      write: (gpa, bytes) =>
        eachPiece(gpa, bytes.length, (at, offset, count) => {
          engine.blocks.codeChanged(at, count);
          u8.set(bytes.subarray(offset, offset + count), at);
        }),
      eachPage(visit) {
        for (let page = 0; page < system.bytes / PAGE; page++) visit(page, plan.frames + page * PAGE);
      },
      page: (page) => (page < system.bytes / PAGE ? plan.frames + page * PAGE : undefined),
      reverse: () => (at) => (at >= plan.frames && at < plan.framesEnd ? at - plan.frames : -1),
    };
  }

  #stay(vp: number): Stay {
    return this.#stays[vp] as Stay;
  }
  cpu(vp: number): number {
    return this.#engine.cpu(vp, this.#stay(vp).vmpl);
  }
  context(vp: number): number {
    return this.#stay(vp).vmpl;
  }
  #features(cpu: number): number {
    return this.#engine.view.getUint32(cpu + CONTEXT.features, true);
  }
  /** The bytes of a VMSA page in place. */
  #bytes(page: number): Uint8Array {
    return this.#engine.u8.subarray(page, page + PAGE);
  }

  // Entry and exit.

  enter(vp: number, entry: ContextEntry | undefined): Entered {
    if (entry?.kind !== 'vmrun') throw new Error(`VP ${vp} of an SNP system was given no VMCB`);
    const { vmcb } = entry;
    const { system } = this;
    system.live = true;
    const refuse = (code: number): Entered => {
      vmcb.exitCode = code;
      return { kind: 'exit', exit: { kind: 'entry-failed', code } };
    };
    if (!isVmsaPage(system, vmcb)) return refuse(SVM_EXIT.invalid);
    system.changeKey(vmcb.vmsa / PAGE, vmcb.asid);
    const page = system.host(vmcb.vmsa);
    const bytes = this.#bytes(page);
    const failed = checkEntry(system, vmcb, bytes);
    if (failed !== undefined) return refuse(failed);
    const stay = this.#stay(vp);
    stay.vmpl = vmsa.get(bytes, 'vmpl');
    stay.vmcb = vmcb;
    stay.page = page;
    stay.running = true;
    const { program } = this.#options;
    if (program !== undefined && stay.vmpl === 0)
      return { kind: 'program', run: () => this.#runProgram(vp, program) };
    this.#loadContext(vp, stay, bytes);
    return { kind: 'code', cpu: this.cpu(vp) };
  }

  #loadContext(vp: number, stay: Stay, bytes: Uint8Array): void {
    const engine = this.#engine;
    const { view } = engine;
    const cpu = this.cpu(vp);
    const vmcb = stay.vmcb as Vmcb;
    const features = vmsa.low(bytes, 'sevFeatures');
    const slot = vp * VMPLS + stay.vmpl;
    const spaPage = vmcb.vmsa / PAGE;
    const vtom = (features & SEV_FEATURE.vTom) !== 0;
    const flush =
      this.#held[slot] !== spaPage ||
      vmsa.low(bytes, 'pcpuId') !== vp + 1 ||
      TRANSLATION.some(
        ([name, field]) =>
          vmsa.low(bytes, name) !== view.getUint32(cpu + field, true) ||
          vmsa.high(bytes, name) !== view.getUint32(cpu + field + 4, true),
      ) ||
      view.getUint32(cpu + CPU.pkru, true) !== vmsa.get(bytes, 'pkru');
    if (this.#held[slot] !== spaPage) {
      for (const field of [
        CPU.shadow,
        CPU.special,
        CPU.answers,
        CPU.answersUsed,
        CPU.deliver,
        CPU.delivering,
      ])
        view.setUint32(cpu + field, 0, true);
      this.#held[slot] = spaPage;
    }
    view.setUint32(cpu + CONTEXT.asid, vmcb.asid, true);
    view.setUint32(cpu + CONTEXT.vmpl, stay.vmpl, true);
    view.setUint32(cpu + CONTEXT.features, features, true);
    view.setUint32(cpu + CONTEXT.virtualTom, vmsa.low(bytes, 'virtualTom') & ~0x1fffff, true);
    view.setUint32(cpu + CONTEXT.virtualTom + 4, vmsa.high(bytes, 'virtualTom') & 0xfffff, true);
    // The C-bit is an address bit of page tables but with vTOM, where it is reserved (15.36.8).
    const reserved = ((1n << 52n) - 1n) & ~((1n << BigInt(this.#setup.model.physicalAddressBits)) - 1n);
    view.setBigUint64(cpu + CPU.physReserved, vtom ? reserved : reserved & ~(1n << BigInt(C_BIT)), true);
    const debugSwap = (features & SEV_FEATURE.debugSwap) !== 0;
    const { intercepts } = vmcb;
    view.setUint32(
      cpu + CPU.intercepts,
      (intercepts & SVM_INTERCEPT.rdtsc ? INTERCEPT.rdtsc : 0) |
        (intercepts & SVM_INTERCEPT.rdtscp ? INTERCEPT.rdtscp : 0) |
        (intercepts & SVM_INTERCEPT.rdpmc ? INTERCEPT.rdpmc : 0) |
        (intercepts & SVM_INTERCEPT.dr7 && !debugSwap ? INTERCEPT.dr7 : 0),
      true,
    );
    this.#load(cpu, stay.page, debugSwap ? 1 : 0);
    if (flush) {
      engine.tlbFlush(cpu);
      vmsa.setHalves(bytes, 'pcpuId', vp + 1, 0);
    }
    this.#secureTsc(cpu, features, bytes);
    const alternate = (features & SEV_FEATURE.alternateInjection) !== 0;
    if (vmcb.eventInj.lo & EVENT_INJECTION.valid) {
      if (alternate) this.#refusedInjection(vp, vmcb.eventInj.lo);
      else this.#injectEvent(cpu, vmcb.eventInj);
      vmcb.eventInj = { lo: 0, hi: 0 };
    }
    if (alternate) this.#alternateEntry(cpu, bytes);
    engine.updateMode(cpu);
  }

  /** With alternate injection the processor does not look at what the host put into its VMCB. */
  #refusedInjection(vp: number, event: number): void {
    const { sink } = this.#setup;
    if ((sink.mask & EVENT_CLASS.exception) === 0) return;
    const type = (event >>> EVENT_INJECTION.typeShift) & EVENT_INJECTION.typeMask;
    const { vmpl } = this.#stay(vp);
    const vector = event & EVENT_INJECTION.vector;
    sink.emit(EVENT.injection, this.#clock.now, vp, vector, type, INJECTION_OUTCOME.refused, vmpl);
  }

  /** Scale is 8.32 fixed point over the clock that an ordinary guest's TSC follows (15.36.18). */
  #secureTsc(cpu: number, features: number, bytes: Uint8Array): void {
    const { view } = this.#engine;
    const plain = Math.round(this.#setup.tscHz / 1e9);
    if ((features & SEV_FEATURE.secureTsc) === 0) {
      view.setUint32(cpu + CPU.tscMultiplier, plain, true);
      view.setBigUint64(cpu + CPU.tscOffset, this.#setup.tscAtZero, true);
      return;
    }
    const scale = vmsa.get(bytes, 'tscScale');
    view.setUint32(cpu + CPU.tscMultiplier, Number((scale * BigInt(plain)) >> 32n), true);
    view.setBigUint64(cpu + CPU.tscOffset, vmsa.get(bytes, 'tscOffset'), true);
  }

  /** EVENTINJ, interrupt shadow and NMI mask come from the VMSA (15.36.16). */
  #alternateEntry(cpu: number, bytes: Uint8Array): void {
    const { view } = this.#engine;
    const control = vmsa.low(bytes, 'vintrControl');
    view.setUint32(
      cpu + CPU.shadow,
      (control & VINTR.shadow ? 1 : 0) | (control & VINTR.nmiMask ? 4 : 0),
      true,
    );
    const event = { lo: vmsa.low(bytes, 'eventInj'), hi: vmsa.high(bytes, 'eventInj') };
    if (event.lo & EVENT_INJECTION.valid) {
      this.#injectEvent(cpu, event);
      vmsa.setHalves(bytes, 'eventInj', 0, 0);
    }
  }

  /** Whatever IF, a shadow or the task priority say: the processor delivers what EVENTINJ holds. */
  #injectEvent(cpu: number, { lo, hi }: Halves): void {
    const { view } = this.#engine;
    const vector = lo & EVENT_INJECTION.vector;
    const type = (lo >>> EVENT_INJECTION.typeShift) & EVENT_INJECTION.typeMask;
    const { sink } = this.#setup;
    if (sink.mask & EVENT_CLASS.exception) {
      const vp = view.getUint32(cpu + CPU.index, true);
      const masked =
        (view.getUint32(cpu + CPU.eflags, true) & FLAG.IF) === 0 ||
        (view.getUint32(cpu + CPU.shadow, true) & 3) !== 0;
      const illegal = type === EVENT_INJECTION.external && masked;
      const outcome = illegal ? INJECTION_OUTCOME.illegal : INJECTION_OUTCOME.delivered;
      sink.emit(EVENT.injection, this.#clock.now, vp, vector, type, outcome, this.#stay(vp).vmpl);
    }
    const kind =
      type === EVENT_INJECTION.exception
        ? RAISE.fault
        : type === EVENT_INJECTION.software
          ? RAISE.software
          : RAISE.external;
    view.setUint32(cpu + CPU.raiseKind, kind, true);
    view.setUint32(cpu + CPU.raiseVector, type === EVENT_INJECTION.nmi ? 2 : vector, true);
    view.setUint32(cpu + CPU.raiseHasError, lo & EVENT_INJECTION.hasError ? 1 : 0, true);
    view.setUint32(cpu + CPU.raiseError, hi, true);
    // What a repeated delivery leaves as it is: CR2 of a page fault, DR6 of a debug exception.
    const info =
      vector === VEC.DB
        ? view.getBigUint64(cpu + CPU.dr + 32, true) & 0xe00fn
        : view.getBigUint64(cpu + CPU.cr2, true);
    view.setBigUint64(cpu + CPU.raiseInfo, info, true);
    view.setUint32(cpu + CPU.deliver, 1, true);
    view.setUint32(cpu + CPU.delivering, vector + 1, true);
    view.setUint32(cpu + CPU.deliveringClass, kind === RAISE.fault ? eventClass(vector) : 0, true);
    view.setUint32(cpu + CPU.answers, 0, true);
  }

  leave(vp: number): void {
    const stay = this.#stay(vp);
    if (!stay.running) return;
    const cpu = this.cpu(vp);
    const { view } = this.#engine;
    // The host's own interrupt comes between instructions, so an event that was about to be delivered is delivered.
    if (view.getUint32(cpu + CPU.deliver, true) !== 0) {
      this.#clock.step(cpu);
      this.#forgetStage(cpu);
    }
    this.#exit(vp, SVM_EXIT.interrupt);
  }

  /** An automatic exit: registers into the VMSA, and there and in the VMCB why (15.35.4, 15.36.9). */
  #exit(vp: number, code: number, info1: Halves = NONE, info2: Halves = NONE): void {
    const stay = this.#stay(vp);
    const cpu = this.cpu(vp);
    const { view } = this.#engine;
    const vmcb = stay.vmcb as Vmcb;
    const features = this.#features(cpu);
    const bytes = this.#bytes(stay.page);
    const event = this.#takeEvent(cpu);
    if (view.getUint8(this.#engine.plan.pageFlags + ((stay.page - this.#engine.plan.frames) >>> 12)) !== 0)
      this.#engine.blocks.codeChanged(stay.page, PAGE);
    this.#save(cpu, stay.page, features & SEV_FEATURE.debugSwap ? 1 : 0);
    const record = view.getUint32(cpu + CPU.record, true);
    vmsa.setHalves(bytes, 'exitCode', code >>> 0, code < 0 ? 0xffff_ffff : 0);
    vmsa.setHalves(bytes, 'exitInfo1', info1.lo, info1.hi);
    vmsa.setHalves(bytes, 'exitInfo2', info2.lo, info2.hi);
    vmsa.setHalves(bytes, 'exitIntInfo', event.lo, event.hi);
    if (record !== 0)
      vmsa.setHalves(
        bytes,
        'nextRip',
        view.getUint32(record + REC.next, true),
        view.getUint32(record + REC.next + 4, true),
      );
    if (features & SEV_FEATURE.alternateInjection) {
      const shadow = view.getUint32(cpu + CPU.shadow, true);
      const control = vmsa.low(bytes, 'vintrControl') & ~(VINTR.shadow | VINTR.nmiMask);
      const busy = event.lo & EVENT_INJECTION.valid ? VINTR.highBusy : 0;
      vmsa.setHalves(
        bytes,
        'vintrControl',
        (control | (shadow & 3 ? VINTR.shadow : 0) | (shadow & 4 ? VINTR.nmiMask : 0)) >>> 0,
        (vmsa.high(bytes, 'vintrControl') | busy) >>> 0,
      );
    }
    vmcb.exitCode = code;
    // With ReflectVC the host does not learn what only VMPL0 is to know.
    vmcb.exitInfo1 = { ...info1 };
    vmcb.exitInfo2 = { ...info2 };
    vmcb.exitIntInfo = features & SEV_FEATURE.alternateInjection ? { ...NONE } : event;
    stay.running = false;
  }

  /** The event whose delivery did not finish, in the form of EXITINTINFO. */
  #takeEvent(cpu: number): Halves {
    const { view } = this.#engine;
    if (view.getUint32(cpu + CPU.deliver, true) === 0) return { lo: 0, hi: 0 };
    const kind = view.getUint32(cpu + CPU.raiseKind, true);
    const vector = view.getUint32(cpu + CPU.raiseVector, true);
    const type =
      kind === RAISE.software
        ? EVENT_INJECTION.software
        : kind === RAISE.external
          ? vector === VEC.NMI
            ? EVENT_INJECTION.nmi
            : EVENT_INJECTION.external
          : EVENT_INJECTION.exception;
    const hasError = view.getUint32(cpu + CPU.raiseHasError, true) !== 0;
    for (const field of [CPU.deliver, CPU.delivering, CPU.deliveringClass])
      view.setUint32(cpu + field, 0, true);
    return {
      lo:
        (vector |
          (type << EVENT_INJECTION.typeShift) |
          (hasError ? EVENT_INJECTION.hasError : 0) |
          EVENT_INJECTION.valid) >>>
        0,
      hi: hasError ? view.getUint32(cpu + CPU.raiseError, true) : 0,
    };
  }

  /** A second-stage exit is over: the raise fields describe the event under delivery again. Its code, 0 for none. */
  #forgetStage(cpu: number): number {
    const { view } = this.#engine;
    const code = view.getUint32(cpu + CPU.stageExit, true);
    if (code === 0) return 0;
    view.setUint32(cpu + CPU.stageExit, 0, true);
    view.setUint32(cpu + CPU.raiseKind, view.getUint32(cpu + CPU.stageKind, true), true);
    return code;
  }

  // Events for the context.

  pending(vp: number, waiting: Waiting): number {
    const stay = this.#stay(vp);
    const features = this.#features(this.cpu(vp));
    if (features & SEV_FEATURE.restrictedInjection) return 0;
    if (features & SEV_FEATURE.alternateInjection) {
      const control = vmsa.low(this.#bytes(stay.page), 'vintrControl');
      const priority = (control >>> VINTR.priorityShift) & 0xf;
      const open = (control & VINTR.ignoreTpr) !== 0 || priority > (control & 0xff);
      return (
        (control & VINTR.irq && open ? PENDING.interrupt : 0) |
        (control & VINTR.nmi && (control & VINTR.nmiMask) === 0 ? PENDING.nmi : 0)
      );
    }
    return waiting === 'none' ? 0 : waiting === 'nmi' ? PENDING.nmi : PENDING.interrupt;
  }
  deliver(vp: number, source: InterruptSource): void {
    const engine = this.#engine;
    const cpu = this.cpu(vp);
    if (this.#features(cpu) & SEV_FEATURE.alternateInjection) {
      const bytes = this.#bytes(this.#stay(vp).page);
      const control = vmsa.low(bytes, 'vintrControl');
      const high = vmsa.high(bytes, 'vintrControl');
      if (control & VINTR.nmi && (control & VINTR.nmiMask) === 0) {
        vmsa.setHalves(bytes, 'vintrControl', (control & ~VINTR.nmi) >>> 0, high);
        this.#delivered(vp, VEC.NMI, EVENT_INJECTION.nmi);
        inject(engine, cpu, VEC.NMI);
      } else if (control & VINTR.irq) {
        vmsa.setHalves(bytes, 'vintrControl', (control & ~VINTR.irq) >>> 0, high);
        this.#delivered(vp, high & VINTR.highVector, EVENT_INJECTION.external);
        inject(engine, cpu, high & VINTR.highVector);
      }
      return;
    }
    if (source.waiting === 'none') return;
    if (source.waiting === 'nmi') {
      source.takeNmi();
      this.#delivered(vp, VEC.NMI, EVENT_INJECTION.nmi);
      inject(engine, cpu, VEC.NMI);
      return;
    }
    const vector = source.takeVector();
    this.#delivered(vp, vector, EVENT_INJECTION.external);
    inject(engine, cpu, vector);
  }

  /** An event goes through the IDT of the running context at a time when the architecture lets it. */
  #delivered(vp: number, vector: number, type: number): void {
    const { sink } = this.#setup;
    if (sink.mask & EVENT_CLASS.exception)
      sink.emit(
        EVENT.injection,
        this.#clock.now,
        vp,
        vector,
        type,
        INJECTION_OUTCOME.delivered,
        this.#stay(vp).vmpl,
      );
  }

  // Routes.

  route(vp: number): Routed {
    const cpu = this.cpu(vp);
    const { view } = this.#engine;
    const stage = this.#forgetStage(cpu);
    if (stage !== 0) return this.#stageExit(vp, cpu, stage);
    const info = view.getUint32(cpu + CPU.raiseInfo, true);
    const info2 = view.getUint32(cpu + CPU.raiseInfo2, true);
    const { intercepts } = this.#stay(vp).vmcb as Vmcb;
    const vc = (cause: ExitKind, code: number, info1: Halves = NONE): Routed =>
      this.#communicate(vp, cpu, cause, code, info1, this.#nextRip(cpu));
    switch (view.getUint32(cpu + CPU.raiseVector, true)) {
      case EXIT.cpuid:
        return vc('cpuid', SVM_EXIT.cpuid);
      case EXIT.io:
        return vc('io', SVM_EXIT.io, { lo: ioWord(info, info2), hi: 0 });
      case EXIT.rdmsr:
      case EXIT.wrmsr:
        return this.#msr(vp, cpu, info);
      case EXIT.vmmcall:
        if (intercepts & SVM_INTERCEPT.vmmcall) return vc('hypercall', SVM_EXIT.vmmcall);
        return this.#fault(vp, cpu, 'hypercall', VEC.UD);
      case EXIT.wbinvd:
        if (intercepts & SVM_INTERCEPT.cache)
          return vc('cache', info === 0 ? SVM_EXIT.invd : SVM_EXIT.wbinvd);
        return this.#nothing(cpu, 'cache');
      case EXIT.monitor:
      case EXIT.mwait: {
        const isMonitor = view.getUint32(cpu + CPU.raiseVector, true) === EXIT.monitor;
        if (intercepts & SVM_INTERCEPT.monitor)
          return vc('monitor', isMonitor ? SVM_EXIT.monitor : SVM_EXIT.mwait);
        return this.#nothing(cpu, 'monitor');
      }
      case EXIT.pause:
        return this.#nothing(cpu, 'pause');
      case EXIT.instruction:
        return this.#instruction(vp, cpu, info, info2);
      case EXIT.readCr8:
      case EXIT.writeCr8:
        return this.#taskPriority(vp, cpu, info);
      case EXIT.hlt:
        if ((intercepts & SVM_INTERCEPT.hlt) === 0) return this.#nothing(cpu, 'hlt');
        this.#finish(cpu);
        this.#exit(vp, SVM_EXIT.hlt);
        return { route: 'host', cause: 'hlt', exit: { kind: 'hlt' } };
      case SNP_EXIT.vmgexit:
        this.#finish(cpu);
        this.#exit(vp, SVM_EXIT.vmgexit);
        return { route: 'host', cause: 'vmgexit', exit: { kind: 'vmgexit' } };
      case EXIT.tripleFault:
        this.#exit(vp, SVM_EXIT.shutdown);
        return { route: 'host', cause: 'triple-fault', exit: { kind: 'triple-fault' } };
      case SNP_EXIT.pvalidate:
      case SNP_EXIT.rmpadjust:
      case SNP_EXIT.rmpquery:
        return this.#pageOperation(vp, cpu);
      case SNP_EXIT.invlpgb:
        this.system.flush();
        return this.#nothing(cpu, 'page-state');
      default:
        throw new Error(
          `an SNP guest left with exit code ${view.getUint32(cpu + CPU.raiseVector, true)}, which nobody handles`,
        );
    }
  }

  /** The instruction is done without anybody's help. */
  #nothing(cpu: number, cause: ExitKind): Routed {
    complete(this.#engine, cpu, { kind: 'done' });
    return { route: 'silicon', cause };
  }
  /** Exits of the trap kind leave with RIP behind the instruction (table 15-35). */
  #finish(cpu: number): void {
    complete(this.#engine, cpu, { kind: 'done' });
    this.#clock.step(cpu);
  }
  #nextRip(cpu: number): Halves {
    const { view } = this.#engine;
    const record = view.getUint32(cpu + CPU.record, true);
    return record === 0
      ? NONE
      : { lo: view.getUint32(record + REC.next, true), hi: view.getUint32(record + REC.next + 4, true) };
  }

  /** A non-automatic exit: #VC with this error code, or with ReflectVC an exit that says it in the VMSA (15.36.9). */
  #communicate(
    vp: number,
    cpu: number,
    cause: ExitKind,
    code: number,
    info1: Halves = NONE,
    info2: Halves = NONE,
  ): Routed {
    if (this.#features(cpu) & SEV_FEATURE.reflectVc) {
      this.#exit(vp, code, info1, info2);
      const vmcb = this.#stay(vp).vmcb as Vmcb;
      vmcb.exitCode = SVM_EXIT.reflected;
      vmcb.exitInfo1 = { ...NONE };
      vmcb.exitInfo2 = { ...NONE };
      return { route: 'host', cause, exit: { kind: 'reflected' } };
    }
    const { sink } = this.#setup;
    if (sink.mask & EVENT_CLASS.exception)
      sink.emit(EVENT.confidentialException, this.#clock.now, vp, VEC.VC, code, this.#stay(vp).vmpl, 0);
    return this.#fault(vp, cpu, cause, VEC.VC, code);
  }

  /** An exception for the context's own handler. */
  #fault(vp: number, cpu: number, cause: ExitKind, vector: number, error?: number): Routed {
    const { view } = this.#engine;
    view.setUint32(cpu + CPU.raiseKind, RAISE.fault, true);
    view.setUint32(cpu + CPU.raiseVector, vector, true);
    view.setUint32(cpu + CPU.raiseHasError, error === undefined ? 0 : 1, true);
    view.setUint32(cpu + CPU.raiseError, error ?? 0, true);
    if (!this.#engine.raiseNext(cpu)) return { route: 'guest', cause };
    this.#exit(vp, SVM_EXIT.shutdown);
    return { route: 'host', cause: 'triple-fault', exit: { kind: 'triple-fault' } };
  }

  #stageExit(vp: number, cpu: number, code: number): Routed {
    const { view } = this.#engine;
    const low = (field: number): number => view.getUint32(cpu + field, true);
    const gpaLow = low(CPU.stageExitGpa);
    const gpa = gpaLow + low(CPU.stageExitGpa + 4) * 0x100000000;
    const info = { lo: low(CPU.stageExitInfo), hi: low(CPU.stageExitInfo + 4) };
    const address = { lo: gpaLow, hi: low(CPU.stageExitGpa + 4) };
    switch (code) {
      case SNP_EXIT.keyChange: {
        const page = (gpa - this.#engine.plan.frames) / PAGE;
        this.system.changeKey(page, info.lo);
        return { route: 'silicon', cause: 'key-change' };
      }
      case SNP_EXIT.mmio: {
        const { sink } = this.#setup;
        // With ReflectVC whoever deals with it says where it went.
        const reflected = (this.#features(cpu) & SEV_FEATURE.reflectVc) !== 0;
        if (!reflected && sink.mask & EVENT_CLASS.io)
          sink.emit(
            EVENT.mmioRoute,
            this.#clock.now,
            vp,
            gpa,
            (info.hi >>> 2) & 1,
            (info.lo >>> 1) & 1,
            this.#stay(vp).vmpl,
          );
        return this.#communicate(vp, cpu, 'mmio', SVM_EXIT.nestedPageFault, info, address);
      }
      case SNP_EXIT.notValidated: {
        view.setBigUint64(cpu + CPU.cr2, view.getBigUint64(cpu + CPU.walkAddress, true), true);
        return this.#communicate(vp, cpu, 'not-validated', SVM_EXIT.notValidated, info, address);
      }
      default:
        return this.#nestedFault(vp, gpa, info, address);
    }
  }

  #nestedFault(vp: number, gpa: number, info: Halves, address: Halves): Routed {
    // Which VMPL is not the host's secret: bits 39-36 would hold a number; the manual has one bit for the reason.
    this.#exit(vp, SVM_EXIT.nestedPageFault, info, address);
    return {
      route: 'host',
      cause: 'nested-fault',
      exit: { kind: 'nested-fault', gpa, lo: info.lo, hi: info.hi },
    };
  }

  #msr(vp: number, cpu: number, index: number): Routed {
    const { view } = this.#engine;
    const write = view.getUint32(cpu + CPU.raiseVector, true) === EXIT.wrmsr;
    const value = {
      lo: view.getUint32(cpu + CPU.raiseInfo2, true),
      hi: view.getUint32(cpu + CPU.raiseInfo2 + 4, true),
    };
    const stay = this.#stay(vp);
    const outcome = ownMsr(index, write ? value : undefined, {
      features: this.#features(cpu),
      vmcb: stay.vmcb as Vmcb,
      vmsa: this.#bytes(stay.page),
      tscMegahertz: Math.round(this.#setup.tscHz / 1e6),
    });
    switch (outcome.kind) {
      case 'value':
        pushAnswer(this.#engine, cpu, outcome.lo, outcome.hi, 0, 0);
        return { route: 'silicon', cause: 'msr' };
      case 'virtual-tom':
        view.setUint32(cpu + CONTEXT.virtualTom, outcome.lo, true);
        view.setUint32(cpu + CONTEXT.virtualTom + 4, outcome.hi, true);
        this.system.flush();
        return this.#nothing(cpu, 'msr');
      case 'done':
        return this.#nothing(cpu, 'msr');
      case 'fault':
        return this.#fault(vp, cpu, 'msr', VEC.GP, 0);
      case 'none':
        return this.#communicate(
          vp,
          cpu,
          'msr',
          SVM_EXIT.msr,
          { lo: write ? 1 : 0, hi: 0 },
          this.#nextRip(cpu),
        );
    }
  }

  #instruction(vp: number, cpu: number, bit: number, write: number): Routed {
    const [cause, code] = ((): [ExitKind, number] => {
      switch (bit) {
        case INTERCEPT.rdtsc:
          return ['tsc', SVM_EXIT.readTsc];
        case INTERCEPT.rdtscp:
          return ['tsc', SVM_EXIT.readTscp];
        case INTERCEPT.rdpmc:
          return ['pmc', SVM_EXIT.readPmc];
        default:
          return ['debug-register', write ? SVM_EXIT.writeDr7 : SVM_EXIT.readDr7];
      }
    })();
    return this.#communicate(vp, cpu, cause, code, NONE, this.#nextRip(cpu));
  }

  /** CR8 is V_TPR: of the VMCB, or of the VMSA with alternate injection. Nobody is asked. */
  #taskPriority(vp: number, cpu: number, value: number): Routed {
    const { view } = this.#engine;
    const stay = this.#stay(vp);
    const vmcb = stay.vmcb as Vmcb;
    const alternate = (this.#features(cpu) & SEV_FEATURE.alternateInjection) !== 0;
    const bytes = this.#bytes(stay.page);
    if (view.getUint32(cpu + CPU.raiseVector, true) === EXIT.readCr8) {
      const priority = alternate ? vmsa.low(bytes, 'vintrControl') & 0xf : vmcb.virtualTpr;
      pushAnswer(this.#engine, cpu, priority, 0, 0, 0);
      return { route: 'silicon', cause: 'cr8' };
    }
    if (alternate) {
      const control = vmsa.low(bytes, 'vintrControl');
      vmsa.setHalves(
        bytes,
        'vintrControl',
        ((control & ~VINTR.tpr) | value) >>> 0,
        vmsa.high(bytes, 'vintrControl'),
      );
    } else vmcb.virtualTpr = value;
    return this.#nothing(cpu, 'cr8');
  }

  #pageOperation(vp: number, cpu: number): Routed {
    const { view } = this.#engine;
    const stay = this.#stay(vp);
    const low = (field: number): number => view.getUint32(cpu + field, true);
    const gpaLow = low(CPU.raiseInfo);
    // Without the C-bit.
    const gpa = gpaLow + (low(CPU.raiseInfo + 4) & 0x7ffff) * 0x100000000;
    const caller = { asid: (stay.vmcb as Vmcb).asid, vmpl: stay.vmpl };
    const how = low(CPU.raiseInfo2);
    const rdx = low(CPU.raiseInfo3);
    const { system } = this;
    let outcome: OperationOutcome;
    let operation: number;
    const code = low(CPU.raiseVector);
    if (code !== SNP_EXIT.rmpquery) system.rmp.inUse.add((stay.vmcb as Vmcb).vmsa / PAGE);
    switch (code) {
      case SNP_EXIT.pvalidate:
        operation = PRIVILEGED_OPERATION.pvalidate;
        outcome = pvalidate(system, caller, gpa, (how & 1) !== 0, (how & 0x100) !== 0);
        break;
      case SNP_EXIT.rmpadjust:
        operation = PRIVILEGED_OPERATION.rmpadjust;
        outcome = rmpadjust(system, caller, gpa, (how & 1) !== 0, rdx);
        break;
      default:
        operation = PRIVILEGED_OPERATION.rmpquery;
        outcome = rmpquery(system, caller, gpa, how & 0xff);
    }
    system.rmp.inUse.delete((stay.vmcb as Vmcb).vmsa / PAGE);
    const { sink } = this.#setup;
    if (sink.mask & EVENT_CLASS.privileged)
      sink.emit(
        EVENT.privilegedOperation,
        this.#clock.now,
        vp,
        operation,
        gpa,
        outcome.kind === 'done' ? outcome.eax : -1,
        stay.vmpl,
      );
    switch (outcome.kind) {
      case 'done':
        pushAnswer(
          this.#engine,
          cpu,
          outcome.eax,
          code === SNP_EXIT.pvalidate ? Number(outcome.unchanged) : outcome.rdx,
          outcome.rcx,
          0,
        );
        return { route: 'silicon', cause: 'page-state' };
      case 'nested-fault':
        return this.#nestedFault(vp, gpa, outcome, { lo: gpaLow, hi: Math.floor(gpa / 0x100000000) });
      case 'mmio':
        return this.#communicate(vp, cpu, 'mmio', SVM_EXIT.nestedPageFault);
      case 'not-validated':
        view.setBigUint64(cpu + CPU.cr2, view.getBigUint64(cpu + CPU.walkAddress, true), true);
        return this.#communicate(vp, cpu, 'not-validated', SVM_EXIT.notValidated);
    }
  }

  /** The host has answered; what the guest learns of it lies in its GHCB, VMCB or VMSA. */
  complete(_vp: number, _exit: Exit, _completion: Completion): void {
    // Nothing waits inside the processor: exits of this silicon leave no half-done instruction behind.
  }

  // Programs.

  #runProgram(vp: number, program: Vmpl0Program): { readonly ticks: number; readonly routed: Routed } {
    const stay = this.#stay(vp);
    const vmcb = stay.vmcb as Vmcb;
    const seat = createSeat(
      {
        system: this.system,
        sink: this.#setup.sink,
        now: this.#clock.now,
        random: () => this.#random(vp),
      },
      vp,
      vmcb,
    );
    const { exit, ticks } = program.run(seat);
    vmcb.exitCode = exit.kind === 'hlt' ? SVM_EXIT.hlt : SVM_EXIT.vmgexit;
    vmcb.exitInfo1 = { ...NONE };
    vmcb.exitInfo2 = { ...NONE };
    vmcb.exitIntInfo = { ...NONE };
    stay.running = false;
    return {
      ticks,
      routed:
        exit.kind === 'hlt'
          ? { route: 'host', cause: 'hlt', exit: { kind: 'hlt' } }
          : { route: 'host', cause: 'vmgexit', exit: { kind: 'vmgexit' } },
    };
  }
  /** The entropy source of VMPL0, as RDRAND would draw from it (xorshift64*). */
  #random(vp: number): readonly [number, number] {
    const { view } = this.#engine;
    const at = this.#engine.cpu(vp, 0) + CPU.entropy;
    let x = view.getBigUint64(at, true);
    x ^= x >> 12n;
    x = BigInt.asUintN(64, x ^ (x << 25n));
    x ^= x >> 27n;
    view.setBigUint64(at, x, true);
    const value = BigInt.asUintN(64, x * 0x2545f4914f6cdd1dn);
    return [Number(value & 0xffffffffn), Number(value >> 32n)];
  }

  #hostAccess(spa: number, length: number, write: boolean, refused: boolean): void {
    const { sink } = this.#setup;
    if ((sink.mask & EVENT_CLASS.page) === 0) return;
    const page = Math.floor(spa / PAGE);
    const outcome = refused
      ? HOST_ACCESS.refused
      : this.system.domain(page) === 0
        ? HOST_ACCESS.clear
        : HOST_ACCESS.ciphertext;
    sink.emit(EVENT.hostAccess, this.#clock.now, 0, spa, length, write ? 1 : 0, outcome);
  }

  // A host cannot set registers of this guest: INIT, SIPI and start contexts are not in its power.
  init(): void {
    // See above.
  }
  startup(): void {
    // See above.
  }
  startContext(): void {
    // See above.
  }
  flushTlb(vp: number): void {
    for (let vmpl = 0; vmpl < VMPLS; vmpl++) this.#engine.tlbFlush(this.#engine.cpu(vp, vmpl));
  }

  save(): unknown {
    return {
      system: this.system.save(),
      processor: this.processor.save(),
      held: this.#held.slice(),
      vmpls: this.#stays.map(({ vmpl }) => vmpl),
      pages: this.#stays.map(({ page }) => (page === 0 ? -1 : page - this.#engine.plan.frames)),
      program: this.#options.program?.state,
    };
  }
  load(state: unknown): void {
    const saved = state as {
      system: unknown;
      processor: unknown;
      held: Int32Array;
      vmpls: number[];
      pages: number[];
      program: unknown;
    };
    this.system.load(saved.system);
    this.system.live = true;
    this.processor.load(saved.processor);
    this.#held.set(saved.held);
    for (const [vp, stay] of this.#stays.entries()) {
      stay.vmpl = saved.vmpls[vp] as number;
      const page = saved.pages[vp] as number;
      stay.page = page < 0 ? 0 : page + this.#engine.plan.frames;
    }
    this.#options.program?.load(saved.program);
  }
}

const NONE: Halves = { lo: 0, hi: 0 };
/** Registers on which translations depend. */
const TRANSLATION: readonly (readonly ['cr0' | 'cr3' | 'cr4' | 'efer', number])[] = [
  ['cr0', CPU.cr0],
  ['cr3', CPU.cr3],
  ['cr4', CPU.cr4],
  ['efer', CPU.efer],
];

/** EXITINFO1 of an I/O intercept (15.10.2) from the processor's exit. */
function ioWord(port: number, info: number): number {
  const size = info & 0xff;
  return (
    ((port << 16) |
      (info & 0x100 ? 0 : IOIO.in) |
      (info & 0x200 ? IOIO.string : 0) |
      (info & 0x400 ? IOIO.rep : 0) |
      (size === 1 ? IOIO.size8 : size === 2 ? IOIO.size16 : IOIO.size32) |
      IOIO.address64) >>>
    0
  );
}
