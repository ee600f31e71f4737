/**
 * The paravisor as a program at L1 of a TD: each entry runs it to its next TDG.VP.VMCALL or TDG.VP.ENTER. Policy and models are the
 * same as at VMPL0 of an SNP guest.
 */

import { EVENT, EVENT_CLASS } from '../../abi/events.ts';
import { EXIT_KINDS, EXIT_ROUTES } from '../../abi/exit-kinds.ts';
import { PAGE_SIZE } from '../../abi/hyperv/pages.ts';
import { ENTER_INVALIDATE } from '../../abi/tdx/l2.ts';
import { IOAPIC_PAGE } from '../../chipset/partition/interrupts.ts';
import { UNITS } from '../../chipset/partition/serial.ts';
import type { L1Exit, L1Program, L1Seat } from '../../seats/program.ts';
import { readConfig, type ParavisorConfig } from '../config.ts';
import {
  guestExited,
  guestVp,
  hostAnswered,
  hostConsole,
  hostEventRefused,
  hostInterrupted,
  interruptTaken,
  KIND_OF,
  nextStep,
  type ParavisorWorld,
} from '../core.ts';
import type { OpcodeTable } from '../emulate.ts';
import type { GuestCompletion, GuestExit } from '../exits.ts';
import { toAccept } from '../memory.ts';
import { hasPart } from '../parts.ts';
import { FAILURE, type HostRequest } from '../requests.ts';
import { ask, createParavisorState, type GuestVp, type ParavisorState } from '../state.ts';
import { decode, encode, HALT, SYNIC_PAGES, WAKE_VECTOR } from './communication.ts';
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
const TIMER_VECTOR = 0x41;
const CONSOLE_VECTOR = 0x43;
/** Of an injection event. */
const NMI_TYPE = 2;
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
        if (config === undefined) {
          const registers = encode({ kind: 'fail', reason: FAILURE.configuration }, 0, 0n);
          return { exit: { kind: 'tdvmcall', registers }, ticks: TURN_TICKS };
        }
        state.core = createParavisorState(config);
        for (let vp = 0; vp < config.vpCount; vp++)
          state.vps.push({ phase: 'new', done: 0, report: undefined, start: undefined, stale: false });
      }
      return new Turn(seat, state, state.core, options.opcodes).run();
    },
  };
}

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
        return { kind: 'tdvmcall', registers: HALT };
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

  #sharedBit(): bigint {
    return 1n << BigInt(this.#config.boundaryBits);
  }

  #send(): L1Exit {
    const first = this.#guest.outbox[0];
    if (first === undefined) return { kind: 'tdvmcall', registers: HALT };
    this.#guest.asked = true;
    return {
      kind: 'tdvmcall',
      registers: encode(first.request, this.#own().done, this.#sharedBit()),
    };
  }

  #fail(reason: number): L1Exit {
    return { kind: 'tdvmcall', registers: encode({ kind: 'fail', reason }, 0, 0n) };
  }

  #answered(): L1Exit | undefined {
    const own = this.#own();
    const first = this.#guest.outbox[0];
    if (first === undefined) throw new Error('an answer to nothing');
    const { request, purpose } = first;
    const answer = decode(request, this.#seat.registers, own.done);
    if (request.kind === 'page-state' && answer.ok) {
      own.done += answer.done ?? 0;
      if (own.done < request.gpas.length) return this.#send();
    }
    own.done = 0;
    if (purpose === 'setup') {
      this.#guest.asked = false;
      this.#guest.outbox.shift();
      return answer.ok ? undefined : this.#fail(FAILURE.host);
    }
    const { exit } = this.#guest;
    const completion = hostAnswered(this.#core, this.#seat.vp, answer, this.#world);
    if (completion !== undefined && exit !== undefined) this.#complete(exit, completion);
    return undefined;
  }

  #guestStopped(): L1Exit | undefined {
    const { vp, sink, now } = this.#seat;
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
      case 'unknown':
        return this.#fail(FAILURE.exit);
      default: {
        if (sink.mask & EVENT_CLASS.exit) {
          const kind = EXIT_KINDS.indexOf(KIND_OF[outcome.kind]);
          sink.emit(EVENT.exit, now, vp, kind, EXIT_ROUTES.indexOf('context'), 1, 0);
        }
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
    for (let vector = this.#seat.takeInterrupt(); vector >= 0; vector = this.#seat.takeInterrupt()) {
      if (vector === TIMER_VECTOR || vector === WAKE_VECTOR) continue;
      if (vector === CONSOLE_VECTOR) hostConsole(this.#core, this.#seat.vp);
      else hostInterrupted(this.#core, this.#seat.vp, vector, this.#world);
    }
  }

  #setUp(): boolean {
    const { vp } = this.#seat;
    const { pages, uarts } = this.#config;
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
    // Its own local APIC at the host: on, with the timer as a TSC deadline.
    msr(X2APIC_SVR, 0x1ff);
    msr(X2APIC_LVT_TIMER, TIMER_VECTOR | (2 << 17));
    if (vp === 0 && hasPart(this.#config.parts, 'dev.legacy')) {
      for (const { port, pin } of UNITS.slice(0, uarts)) {
        const out = (register: number, value: number): void =>
          setup({ kind: 'io', port: port + register, size: 1, write: true, value });
        out(3, 3);
        out(2, 7);
        out(4, 0x0b);
        out(1, 1);
        const io = (offset: number, value: number): void =>
          setup({ kind: 'mmio', gpa: IOAPIC_PAGE + offset, size: 4, write: true, lo: value, hi: 0 });
        io(0, 0x10 + 2 * pin);
        io(0x10, CONSOLE_VECTOR);
        io(0, 0x11 + 2 * pin);
        io(0x10, 0);
      }
    }
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
const X2APIC_SVR = 0x80f;
const X2APIC_LVT_TIMER = 0x832;
