/**
 * The paravisor as a program at L1 of a TD: each entry runs it to its next TDG.VP.VMCALL or TDG.VP.ENTER. Policy and models are the
 * same as at VMPL0 of an SNP guest.
 */

import { PAGE_SIZE } from '../../abi/hyperv/pages.ts';
import { ENTER_INVALIDATE } from '../../abi/tdx/l2.ts';
import type { L1Exit, L1Program, L1Seat } from '../../seats/program.ts';
import { readConfig, type ParavisorConfig } from '../config.ts';
import {
  guestExited,
  guestVp,
  hostConsole,
  hostEventRefused,
  hostInterrupted,
  interruptTaken,
  nextStep,
  type ParavisorWorld,
} from '../core.ts';
import type { OpcodeTable } from '../emulate.ts';
import type { GuestCompletion, GuestExit } from '../exits.ts';
import { toAccept } from '../memory.ts';
import { hasPart } from '../parts.ts';
import { FAILURE, type HostRequest } from '../requests.ts';
import { ask, createParavisorState, type GuestVp, type ParavisorState } from '../state.ts';
import {
  failed,
  OWN_VECTOR,
  sendFirst,
  setUpAtHost,
  takeAnswer,
  traceGuestExit,
  type Line,
} from '../turn.ts';
import { decode, encode, HALT, SYNIC_PAGES } from './communication.ts';
import {
  classify,
  complete,
  injectAgain,
  injectFault,
  injectInterrupt,
  isInjecting,
  isOpen,
  readReport,
  skip,
  type L2Report,
} from './exits.ts';
import { FIELD, INTERRUPT_WINDOW } from './fields.ts';
import { accept, eachPage, Guest, setRights, TdxProcessor, type TdxVp } from './processor.ts';
import { carryOutStart, setUpVm, startLoaded } from './start.ts';

export interface L1ParavisorOptions {
  /** Guest-physical address of its measured page. */
  readonly page: number;
  /** SHA-384 of the program's code: the page must have it. */
  readonly build: Uint8Array;
  readonly opcodes: OpcodeTable;
}

type Phase = 'new' | 'setup' | 'running';

interface TdxVpState extends TdxVp {
  phase: Phase;
  /** Of a page-state change: pages that are done. */
  done: number;
  /** The exit that waits for the host. */
  report: L2Report | undefined;
}

interface TdxState {
  core: ParavisorState | undefined;
  readonly vps: TdxVpState[];
}

const TURN_TICKS = 400;
const ACCEPT_TICKS = 100;
/** Of an injection event. */
const NMI_TYPE = 2;
/** The guest is VM 1. */
const GUEST_CONTEXT = 1;
const RFLAGS_IF = 0x200n;
const VM1 = 1n << 52n;
const PROCEDURE_CONTROLS = 0x9122_0088;

export function tdxParavisor(options: L1ParavisorOptions): L1Program {
  let state: TdxState = { core: undefined, vps: [] };
  return {
    kind: 'paravisor',
    get state() {
      return state;
    },
    load: (saved) => {
      state = saved as TdxState;
    },
    run: (seat) => {
      if (state.core === undefined) {
        const page = seat.read(options.page, PAGE_SIZE, false);
        const config = page.ok ? readConfig(page.bytes, options.build) : undefined;
        if (config === undefined)
          return { exit: failed(lineOf(seat, 0n), FAILURE.configuration), ticks: TURN_TICKS };
        state.core = createParavisorState(config);
        for (let vp = 0; vp < config.vpCount; vp++)
          state.vps.push({ phase: 'new', done: 0, report: undefined, start: undefined, stale: false });
      }
      return new Turn(seat, state, state.core, options.opcodes).run();
    },
  };
}

const lineOf = (seat: L1Seat, sharedBit: bigint): Line<L1Exit> => ({
  send: (request, done) => ({ kind: 'tdvmcall', registers: encode(request, done, sharedBit) }),
  receive: (request, done) => decode(request, seat.registers, done),
  wait: () => ({ kind: 'tdvmcall', registers: HALT }),
});

class Turn {
  readonly #seat: L1Seat;
  readonly #state: TdxState;
  readonly #core: ParavisorState;
  readonly #config: ParavisorConfig;
  readonly #guest: GuestVp;
  readonly #vm: Guest;
  readonly #processor: TdxProcessor;
  readonly #world: ParavisorWorld;
  readonly #boundary: number;
  readonly #line: Line<L1Exit>;
  #ticks = TURN_TICKS;

  constructor(seat: L1Seat, state: TdxState, core: ParavisorState, opcodes: OpcodeTable) {
    const { config } = core;
    this.#seat = seat;
    this.#state = state;
    this.#core = core;
    this.#config = config;
    this.#guest = guestVp(core, seat.vp);
    this.#vm = new Guest(seat, this.#statePage());
    this.#processor = new TdxProcessor(seat, this.#vm, state.vps);
    this.#world = { processor: this.#processor, sink: seat.sink, now: seat.now, opcodes };
    this.#boundary = 2 ** config.boundaryBits;
    this.#line = lineOf(seat, 1n << BigInt(config.boundaryBits));
  }

  /** The state page lies behind the page that holds the guest's first registers. */
  #statePage(): number {
    return this.#config.pages.communication + PAGE_SIZE * this.#seat.vp;
  }

  run(): { readonly exit: L1Exit; readonly ticks: number } {
    const exit = this.#turn();
    return { exit: this.#vm.close() ? exit : this.#fail(FAILURE.context), ticks: this.#ticks };
  }

  #own(): TdxVpState {
    const own = this.#state.vps[this.#seat.vp];
    if (own === undefined) throw new RangeError(`VP ${this.#seat.vp} of ${this.#state.vps.length}`);
    return own;
  }

  #turn(): L1Exit {
    const own = this.#own();
    if (this.#guest.asked) {
      const more = this.#answered();
      if (more !== undefined) return more;
    } else if (this.#guest.entered) {
      const failure = this.#guestStopped();
      if (failure !== undefined) return failure;
    }
    this.#interrupts();
    if (own.phase === 'new') {
      if (!this.#setUp()) return this.#fail(FAILURE.context);
      own.phase = 'setup';
    }
    if (own.phase === 'setup') {
      if (this.#guest.outbox.length > 0) return this.#send();
      if (this.#seat.vp === 0) {
        if (!this.#acceptMemory()) return this.#fail(FAILURE.memory);
        this.#core.ready = true;
      }
      own.phase = 'running';
    }
    return this.#next();
  }

  #next(): L1Exit {
    const own = this.#own();
    const step = nextStep(this.#core, this.#seat.vp, this.#world);
    if (own.start !== undefined) {
      carryOutStart(this.#vm, own.start, this.#processor.nativeCpuid(this.#seat.vp, 1, 0).eax);
      own.start = undefined;
    }
    switch (step.kind) {
      case 'ask':
        return this.#send();
      case 'wait':
        return this.#line.wait();
      case 'enter':
        return this.#enter(step.vector, step.nmi);
    }
  }

  #enter(vector: number, nmi: boolean): L1Exit {
    const own = this.#own();
    let controls = PROCEDURE_CONTROLS;
    if (nmi && !isInjecting(this.#vm)) this.#vm.setField(FIELD.entryInterruption, 0x8000_0202n);
    if (vector >= 0) {
      if (isOpen(this.#vm, RFLAGS_IF)) {
        injectInterrupt(this.#vm, vector);
        interruptTaken(this.#core, this.#seat.vp);
      } else controls |= INTERRUPT_WINDOW;
    }
    this.#vm.setField(FIELD.procControls, BigInt(controls));
    const invalidate = own.stale ? ENTER_INVALIDATE.all : ENTER_INVALIDATE.none;
    own.stale = false;
    const rcx = VM1 | BigInt(invalidate);
    return {
      kind: 'vp-enter',
      registers: [25n, rcx, BigInt(this.#statePage()), 0n, 0n, 0n, 0n, 0n, 0n],
    };
  }

  #send(): L1Exit {
    return sendFirst(this.#guest, this.#own(), this.#line);
  }

  #fail(reason: number): L1Exit {
    return failed(this.#line, reason);
  }

  #answered(): L1Exit | undefined {
    return takeAnswer(this.#core, this.#seat.vp, this.#own(), this.#line, this.#world, (exit, completion) =>
      this.#complete(exit, completion),
    );
  }

  #guestStopped(): L1Exit | undefined {
    const { vp } = this.#seat;
    this.#guest.entered = false;
    this.#guest.offered = -1;
    const report = readReport(this.#seat.registers);
    if (report === undefined) return undefined;
    this.#own().report = report;
    const outcome = classify(report, this.#vm, this.#boundary, (leaf, subleaf) =>
      this.#processor.nativeCpuid(vp, leaf, subleaf),
    );
    switch (outcome.kind) {
      case 'nothing':
        injectAgain(this.#vm, report);
        return undefined;
      case 'handled':
        skip(this.#vm, report);
        return undefined;
      case 'fault':
        injectFault(this.#vm, outcome.vector, outcome.errorCode);
        return undefined;
      case 'not-validated':
        return this.#fail(FAILURE.notValidated);
      case 'unknown':
        return this.#fail(FAILURE.exit);
      default: {
        traceGuestExit(this.#seat, outcome, GUEST_CONTEXT);
        const completion = guestExited(this.#core, vp, outcome, this.#world);
        if (completion !== undefined) this.#complete(outcome, completion);
        return undefined;
      }
    }
  }

  #complete(exit: GuestExit, completion: GuestCompletion): void {
    const { report } = this.#own();
    if (report !== undefined) complete(this.#vm, report, exit, completion);
  }

  /** What waits in L1's virtual APIC: its own interrupts, and those that the host has for the guest. */
  #interrupts(): void {
    if (this.#seat.takeNmi()) hostEventRefused(this.#core, this.#seat.vp, 2, NMI_TYPE, this.#world);
    const owned = hasPart(this.#config.parts, 'irq.apic');
    for (let vector = this.#seat.takeInterrupt(); vector >= 0; vector = this.#seat.takeInterrupt()) {
      if (vector === OWN_VECTOR.wake || (owned && vector === OWN_VECTOR.timer)) continue;
      if (owned && vector === OWN_VECTOR.console) hostConsole(this.#core, this.#seat.vp, this.#world);
      else hostInterrupted(this.#core, this.#seat.vp, vector, this.#world);
    }
  }

  #setUp(): boolean {
    const { vp } = this.#seat;
    const { pages } = this.#config;
    const setup = (request: HostRequest): void => ask(this.#guest, request, 'setup');
    const msr = (index: number, lo: number, hi = 0): void =>
      setup({ kind: 'msr', index, write: true, lo, hi });
    if (!setUpVm(this.#vm, this.#config, pages.doorbell + PAGE_SIZE * vp)) return false;
    if (vp === 0) {
      const first = this.#seat.read(pages.context, PAGE_SIZE, false);
      if (!first.ok) return false;
      startLoaded(this.#vm, first.bytes);
    }
    msr(SYNIC_PAGES.messages, pages.guestMessages + PAGE_SIZE * vp);
    msr(SYNIC_PAGES.eventFlags, pages.guestEventFlags + PAGE_SIZE * vp);
    setUpAtHost(this.#guest, this.#config);
    return true;
  }

  #acceptMemory(): boolean {
    const { ram, loaded } = this.#config;
    const preaccepted = hasPart(this.#config.parts, 'mem.preaccepted');
    const { large, small } = preaccepted ? toAccept(this.#config) : { large: [], small: [] };
    for (const gpa of large)
      if (!eachPage(gpa, gpa + LARGE_PAGE, (at, isLarge) => accept(this.#seat, at, isLarge))) return false;
    for (const gpa of small) if (accept(this.#seat, gpa, false) !== 'done') return false;
    this.#ticks += ACCEPT_TICKS * (large.length + small.length);
    for (const { gpa, length } of preaccepted ? ram : loaded)
      if (!eachPage(gpa, gpa + length, (at, isLarge) => setRights(this.#seat, at, isLarge, true)))
        return false;
    return true;
  }
}

const LARGE_PAGE = 0x20_0000;
