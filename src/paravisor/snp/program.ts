/**
 * The paravisor as a program at VMPL0: each entry of its VMSA runs it to its next exit, which is a request to the host, or the
 * guest's turn. It holds nothing between turns but plain data and what lies in guest memory.
 */

import { CALL } from '../../abi/hyperv/hypercall.ts';
import {
  getVpRegistersInput,
  PARTITION_SELF,
  setVpRegistersElement,
  VP_SELF,
} from '../../abi/hyperv/inputs.ts';
import { PAGE_SIZE } from '../../abi/hyperv/pages.ts';
import { REGISTER } from '../../abi/hyperv/registers.ts';
import { setU32, u32 } from '../../abi/record.ts';
import {
  DOORBELL_FLAG,
  FIRST_REQUESTED,
  REQUESTED_WORDS,
  vmplOffset,
  VMPL_STATUS,
} from '../../abi/snp/doorbell.ts';
import { apicReadCr8, apicWriteCr8 } from '../../chipset/partition/interrupts.ts';
import { partitionVp } from '../../chipset/partition/state.ts';
import type { Vmpl0Exit, Vmpl0Program, Vmpl0Seat } from '../../seats/program.ts';
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
import { ask, createParavisorState, LARGE_PAGE, type GuestVp, type ParavisorState } from '../state.ts';
import {
  failed,
  OWN_VECTOR,
  sendFirst,
  setUpAtHost,
  takeAnswer,
  traceGuestExit,
  type Line,
} from '../turn.ts';
import { Communication } from './communication.ts';
import { Contexts, type Context } from './context.ts';
import { clearExit, complete, offerInterrupt, readExit, taskPriority, wasTaken } from './exits.ts';
import {
  GUEST_VMPL,
  guestFeatures,
  makeVmsa,
  pageOutcome,
  resetContext,
  setRangeRights,
  SnpProcessor,
} from './processor.ts';

export interface ParavisorOptions {
  /** Guest-physical address of its measured page. */
  readonly page: number;
  /** SHA-384 of the program's code: the page must have it. */
  readonly build: Uint8Array;
  readonly opcodes: OpcodeTable;
}

/** How far a VP's paravisor is. */
type Phase = 'new' | 'setup' | 'memory' | 'running';

interface SnpState {
  core: ParavisorState | undefined;
  readonly vps: { phase: Phase; /** Of a page-state change: pages that are done. */ done: number }[];
}

/** Virtual time of one turn, and of accepting a page, in ticks. */
const TURN_TICKS = 400;
const ACCEPT_TICKS = 100;
const VMGEXIT: Vmpl0Exit = { kind: 'vmgexit' };

export function snpParavisor(options: ParavisorOptions): Vmpl0Program {
  let state: SnpState = { core: undefined, vps: [] };
  return {
    kind: 'paravisor',
    get state() {
      return state;
    },
    load: (saved) => {
      state = saved as SnpState;
    },
    run: (seat) => {
      if (state.core === undefined) {
        const page = seat.read(options.page, PAGE_SIZE, false);
        const config = page.ok ? readConfig(page.bytes, options.build) : undefined;
        // There is no page to speak through yet, so the MSR says it.
        if (config === undefined) {
          const exit = failed(lineOf(new Communication(seat, 0)), FAILURE.configuration);
          return { exit, ticks: TURN_TICKS };
        }
        state.core = createParavisorState(config);
        for (let vp = 0; vp < config.vpCount; vp++) state.vps.push({ phase: 'new', done: 0 });
      }
      return new Turn(seat, state, state.core, options.opcodes).run();
    },
  };
}

const lineOf = (communication: Communication): Line<Vmpl0Exit> => ({
  send: (request, done) => {
    communication.send(request, done);
    return VMGEXIT;
  },
  receive: (request, done) => communication.receive(request, done),
  wait: () => ({ kind: 'hlt' }),
});

class Turn {
  readonly #seat: Vmpl0Seat;
  readonly #state: SnpState;
  readonly #core: ParavisorState;
  readonly #config: ParavisorConfig;
  readonly #guest: GuestVp;
  readonly #contexts: Contexts;
  readonly #processor: SnpProcessor;
  readonly #communication: Communication;
  readonly #world: ParavisorWorld;
  readonly #boundary: number;
  readonly #line: Line<Vmpl0Exit>;
  #ticks = TURN_TICKS;

  constructor(seat: Vmpl0Seat, state: SnpState, core: ParavisorState, opcodes: OpcodeTable) {
    const { config } = core;
    this.#seat = seat;
    this.#state = state;
    this.#core = core;
    this.#config = config;
    this.#guest = guestVp(core, seat.vp);
    this.#contexts = new Contexts(seat, config.pages.context);
    this.#processor = new SnpProcessor(seat, this.#contexts, config);
    this.#communication = new Communication(seat, config.pages.communication + PAGE_SIZE * seat.vp);
    this.#world = { processor: this.#processor, sink: seat.sink, now: seat.now, opcodes };
    this.#boundary = 2 ** config.boundaryBits;
    this.#line = lineOf(this.#communication);
  }

  run(): { readonly exit: Vmpl0Exit; readonly ticks: number } {
    let exit = this.#turn();
    if (!this.#contexts.close()) exit = this.#fail(FAILURE.context);
    return { exit, ticks: this.#ticks };
  }

  #turn(): Vmpl0Exit {
    const own = this.#own();
    if (this.#guest.asked) {
      const more = this.#answered();
      if (more !== undefined) return more;
    } else if (this.#guest.entered) {
      const failure = this.#guestStopped();
      if (failure !== undefined) return failure;
    }
    if (own.phase === 'new') this.#setUp();
    else this.#doorbell();
    if (own.phase === 'setup' && this.#guest.outbox.length === 0) {
      if (this.#seat.vp === 0) this.#acceptMemory();
      else own.phase = 'running';
    }
    if (own.phase === 'memory' && this.#guest.outbox.length === 0) {
      if (!this.#finishMemory()) return this.#fail(FAILURE.memory);
      own.phase = 'running';
      this.#core.ready = true;
    }
    return own.phase === 'running' ? this.#next() : this.#send();
  }

  #own(): SnpState['vps'][number] {
    const own = this.#state.vps[this.#seat.vp];
    if (own === undefined) throw new RangeError(`VP ${this.#seat.vp} of ${this.#state.vps.length}`);
    return own;
  }

  #next(): Vmpl0Exit {
    const { vp } = this.#seat;
    const step = nextStep(this.#core, vp, this.#world);
    switch (step.kind) {
      case 'ask':
        return this.#send();
      case 'wait':
        return this.#line.wait();
      case 'enter': {
        const context = this.#contexts.of(vp);
        if (context === undefined) return this.#fail(FAILURE.context);
        clearExit(context);
        offerInterrupt(context, step.vector, step.nmi, apicReadCr8(partitionVp(this.#core, vp)));
        this.#communication.enterGuest();
        return VMGEXIT;
      }
    }
  }

  #send(): Vmpl0Exit {
    return sendFirst(this.#guest, this.#own(), this.#line);
  }

  #fail(reason: number): Vmpl0Exit {
    return failed(this.#line, reason);
  }

  #answered(): Vmpl0Exit | undefined {
    return takeAnswer(this.#core, this.#seat.vp, this.#own(), this.#line, this.#world, (exit, completion) =>
      this.#complete(exit, completion),
    );
  }

  /** The guest's context is back. */
  #guestStopped(): Vmpl0Exit | undefined {
    const { vp } = this.#seat;
    this.#guest.entered = false;
    const context = this.#contexts.of(vp);
    if (context === undefined) return this.#fail(FAILURE.context);
    if (this.#guest.offered >= 0 && wasTaken(context)) interruptTaken(this.#core, vp);
    this.#guest.offered = -1;
    const local = partitionVp(this.#core, vp);
    if (apicReadCr8(local) !== taskPriority(context)) apicWriteCr8(local, taskPriority(context));
    const exit = readExit(context, this.#boundary, (leaf, subleaf) =>
      this.#processor.nativeCpuid(vp, leaf, subleaf),
    );
    switch (exit.kind) {
      case 'nothing':
        return undefined;
      case 'not-validated':
        return this.#fail(FAILURE.notValidated);
      case 'unknown':
        return this.#fail(FAILURE.exit);
      default: {
        traceGuestExit(this.#seat, exit, GUEST_VMPL);
        const completion = guestExited(this.#core, vp, exit, this.#world);
        if (completion !== undefined) this.#complete(exit, completion);
        return undefined;
      }
    }
  }

  #complete(exit: GuestExit, completion: GuestCompletion): void {
    const context = this.#contexts.of(this.#seat.vp);
    if (context !== undefined) complete(context, exit, completion);
  }

  /** What the host announces. Every bit of it is a suggestion. */
  #doorbell(): void {
    const { vp } = this.#seat;
    const at = this.#config.pages.doorbell + PAGE_SIZE * vp;
    const read = this.#seat.read(at, vmplOffset(2) + 64, true);
    if (!read.ok) return;
    const page = read.bytes;
    const vector = page[0] ?? 0;
    const flags = page[1] ?? 0;
    if (vector !== 0 || flags !== 0) {
      this.#seat.write(at, new Uint8Array(4), true);
      if (vector !== 0) this.#hostVector(vector, (page[2] ?? 0) !== 0);
      if ((flags & DOORBELL_FLAG.nmi) !== 0) hostEventRefused(this.#core, vp, 2, NMI_TYPE, this.#world);
    }
    this.#forGuest(at + vmplOffset(2), page.subarray(vmplOffset(2)));
  }

  /** `over`: the host has ended the interrupt itself. */
  #hostVector(vector: number, over: boolean): void {
    const owned = hasPart(this.#config.parts, 'irq.apic');
    // Where the APIC is the host's, the guest ends what the guest gets.
    if ((owned || vector === OWN_VECTOR.wake) && !over) ask(this.#guest, END_OF_INTERRUPT);
    if (vector === OWN_VECTOR.wake || (owned && vector === OWN_VECTOR.timer)) return;
    if (owned && vector === OWN_VECTOR.console) hostConsole(this.#core, this.#seat.vp, this.#world);
    else this.#interrupt(vector);
  }

  #forGuest(at: number, part: Uint8Array): void {
    let any = 0;
    for (let word = 0; word <= REQUESTED_WORDS; word++) any |= u32(part, 4 * word);
    if (any === 0) return;
    const { vp } = this.#seat;
    this.#seat.write(at, new Uint8Array(4 + 4 * REQUESTED_WORDS), true);
    const status = u32(part, 0);
    if ((status & VMPL_STATUS.nmi) !== 0) hostEventRefused(this.#core, vp, 2, NMI_TYPE, this.#world);
    const single = status & VMPL_STATUS.vector;
    if (single !== 0) this.#interrupt(single);
    for (let word = 0; word < REQUESTED_WORDS; word++) {
      const bits = u32(part, 4 + 4 * word);
      for (let bit = 0; bit < 32; bit++) {
        if (((bits >>> bit) & 1) !== 0) this.#interrupt(FIRST_REQUESTED + 32 * word + bit);
      }
    }
  }

  #interrupt(vector: number): void {
    hostInterrupted(this.#core, this.#seat.vp, vector, this.#world);
  }

  /** This VP's pages, registers and interrupts at the host. */
  #setUp(): void {
    const { vp } = this.#seat;
    const { pages } = this.#config;
    const setup = (request: HostRequest): void => ask(this.#guest, request, 'setup');
    setup({ kind: 'register' });
    setup({ kind: 'doorbell', gpa: pages.doorbell + PAGE_SIZE * vp });
    setup({
      kind: 'hypercall',
      code: CALL.setVpRegisters,
      reps: 4,
      input: vtl0Registers([
        [REGISTER.sevControl, pages.context + PAGE_SIZE * vp + 1],
        [REGISTER.ghcb, pages.guestCommunication + PAGE_SIZE * vp + 0x12],
        [REGISTER.simp, pages.guestMessages + PAGE_SIZE * vp],
        [REGISTER.siefp, pages.guestEventFlags + PAGE_SIZE * vp],
      ]),
    });
    setup({ kind: 'msr', index: APIC_BASE, write: true, lo: 0xfee0_0c00 | (vp === 0 ? 0x100 : 0), hi: 0 });
    setUpAtHost(this.#guest, this.#config);
    this.#own().phase = 'setup';
  }

  #acceptMemory(): void {
    const own = this.#own();
    own.phase = 'memory';
    if (!hasPart(this.#config.parts, 'mem.preaccepted')) return;
    const { large, small } = toAccept(this.#config);
    if (large.length > 0)
      ask(this.#guest, { kind: 'page-state', gpas: large, shared: false, large: true }, 'setup');
    if (small.length > 0) ask(this.#guest, { kind: 'page-state', gpas: small, shared: false }, 'setup');
  }

  /** The host has given all memory: accept it, give it to the guest, and make the guest's contexts. */
  #finishMemory(): boolean {
    const { large, small } = hasPart(this.#config.parts, 'mem.preaccepted')
      ? toAccept(this.#config)
      : { large: [], small: [] };
    for (const gpa of large) if (!this.#accept(gpa, LARGE_PAGE)) return false;
    for (const gpa of small) if (!this.#accept(gpa, PAGE_SIZE)) return false;
    this.#ticks += ACCEPT_TICKS * (large.length + small.length);
    const { ram, loaded, own, pages, vpCount } = this.#config;
    const isLarge = (gpa: number): void => void (this.#core.large[gpa / LARGE_PAGE] = 1);
    const preaccepted = hasPart(this.#config.parts, 'mem.preaccepted');
    for (const range of preaccepted ? ram : loaded) {
      const end = range.gpa + range.length;
      const before = Math.min(end, own.start);
      const after = Math.max(range.gpa, own.end);
      if (range.gpa < before && !setRangeRights(this.#seat, range.gpa, before, isLarge)) return false;
      if (after < end && !setRangeRights(this.#seat, after, end, isLarge)) return false;
    }
    for (let vp = 0; vp < vpCount; vp++) {
      const context = this.#contexts.of(vp);
      if (context === undefined) return false;
      // The boot processor's context was loaded and measured; the others wait for INIT and SIPI.
      if (vp > 0) resetContext(context, guestFeatures(this.#config), 2n ** BigInt(this.#config.boundaryBits));
      else this.#firstContext(context);
      if (!makeVmsa(this.#seat, pages.context + PAGE_SIZE * vp)) return false;
    }
    return true;
  }

  #firstContext(context: Context): void {
    context.set('sevFeatures', guestFeatures(this.#config), 0);
    context.setWide('virtualTom', 2n ** BigInt(this.#config.boundaryBits));
  }

  #accept(gpa: number, length: number): boolean {
    const large = length === LARGE_PAGE;
    const outcome = pageOutcome(this.#seat.pvalidate(gpa, large, true));
    if (outcome === 'size' && large) {
      for (let at = gpa; at < gpa + length; at += PAGE_SIZE) if (!this.#accept(at, PAGE_SIZE)) return false;
      return true;
    }
    if (outcome !== 'done') return false;
    // What the host had put there is not for the guest to see.
    return this.#seat.clear(gpa, length).ok;
  }
}

const NMI_TYPE = 2;
const APIC_BASE = 0x1b;
const X2APIC_EOI = 0x80b;
const END_OF_INTERRUPT: HostRequest = { kind: 'msr', index: X2APIC_EOI, write: true, lo: 0, hi: 0 };

/** Input of HvCallSetVpRegisters for VTL 0 of the calling VP. */
function vtl0Registers(values: readonly (readonly [name: number, value: number])[]): Uint8Array {
  const header = getVpRegistersInput.size;
  const bytes = new Uint8Array(header + setVpRegistersElement.size * values.length);
  getVpRegistersInput.write({ partitionId: PARTITION_SELF, vpIndex: VP_SELF, vtl: USE_VTL0 }, bytes);
  for (const [i, [name, value]] of values.entries()) {
    const at = header + setVpRegistersElement.size * i;
    setU32(bytes, at, name);
    setU32(bytes, at + 16, value % 0x1_0000_0000);
    setU32(bytes, at + 20, Math.floor(value / 0x1_0000_0000));
  }
  return bytes;
}
/** HV_INPUT_VTL: use the VTL in bits 3:0. */
const USE_VTL0 = 0x10;
