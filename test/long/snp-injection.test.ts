/**
 * The host puts into EVENTINJ of a running Linux what no device would: the vector of int 0x80, exceptions, an NMI at the start of
 * a #VC handler, an interrupt while IF is clear. What reaches the guest's IDT is in the event stream; what comes of it on its console.
 */
import { expect, test } from 'vitest';
import { EVENT, EVENT_CLASS, INJECTION_OUTCOME } from '../../src/abi/events.ts';
import { EVENT_INJECTION } from '../../src/abi/snp/vmsa.ts';
import { proxyInterrupt } from '../../src/host/snp/vtl.ts';
import type { HostState } from '../../src/host/state.ts';
import type { Machine, Platform, StopReason } from '../../src/machine/machine.ts';
import { read64, rflags } from '../../src/silicon/vcpu.ts';
import { CPU, FLAG } from '../../src/x86/layout.ts';
import { whyNoKernel } from '../e2e/vitrine.ts';
import { makeLinux, type Linux } from './linux.ts';

const missing = whyNoKernel();
const reason = missing === undefined ? '' : ` (skipped: no kernel: ${missing})`;

/** Victims, one after the other, each a shell that counts. */
const COMMAND = [
  'echo ready > /dev/console',
  'for k in 1 2 3 4; do sh -c "i=0; while [ \\$i -lt 20000 ]; do i=\\$((i+1)); done" 2>/dev/null; echo "victim $k: $?" > /dev/console; done',
  'echo unharmed > /dev/console',
].join('; ');

const INT80 = 0x80;
const DE = 0;
const VC = 29;
/** No vector of Linux: it says so when one comes. */
const UNUSED = 0x45;
const CPUID_CODE = 0x72;
const ENOSYS = 38n;
/** 128 and the numbers of SIGFPE and SIGBUS. */
const DIED = { divide: 136, bus: 135 } as const;

type Event = readonly [vector: number, type: number, error?: number];
const interrupt = (vector: number): Event => [vector, EVENT_INJECTION.external];
const NMI: Event = [2, EVENT_INJECTION.nmi];
const DIVIDE: Event = [DE, EVENT_INJECTION.exception];
const FORGED: Event = [VC, EVENT_INJECTION.exception, CPUID_CODE];

interface Injection {
  readonly vector: number;
  readonly outcome: number;
  readonly context: number;
}

/** Linux under a host that injects past every model of a local APIC, always into the level at which Linux runs. */
class Attack {
  readonly guest: Linux;
  readonly machine: Machine;
  readonly seen: Injection[];
  readonly #host: Platform;
  readonly #level: number;
  #next: Event | undefined;
  /** #VC that went through the guest's IDT so far. */
  communications = 0;

  private constructor(guest: Linux, seen: Injection[], level: number) {
    this.guest = guest;
    this.machine = guest.machine;
    this.seen = seen;
    this.#host = guest.machine.platform;
    this.#level = level;
    const host = this.#host;
    this.machine.attach({
      ...host,
      get state() {
        return host.state;
      },
      turn: (now) => {
        const turn = host.turn(now);
        if (
          this.#next !== undefined &&
          turn.kind === 'run' &&
          turn.entry?.kind === 'vmrun' &&
          this.#isLinux()
        ) {
          const [vector, type, error] = this.#next;
          const word =
            vector |
            (type << EVENT_INJECTION.typeShift) |
            (error === undefined ? 0 : EVENT_INJECTION.hasError) |
            EVENT_INJECTION.valid;
          turn.entry.vmcb.eventInj = { lo: word >>> 0, hi: error ?? 0 };
          this.#next = undefined;
        }
        return turn;
      },
    });
  }

  static async start(configuration: string, level: number): Promise<Attack> {
    const seen: Injection[] = [];
    const made: { attack?: Attack } = {};
    const guest = await makeLinux({
      configuration,
      command: COMMAND,
      append: 'ia32_emulation=1',
      sink: {
        mask: EVENT_CLASS.exception,
        emit: (type, _time, _vp, vector, _type, outcome, context) => {
          if (type === EVENT.confidentialException && made.attack !== undefined) made.attack.communications++;
          if (type === EVENT.injection) seen.push({ vector, outcome, context });
        },
      },
    });
    made.attack = new Attack(guest, seen, level);
    expect(guest.runUntil('ready')).toBe(true);
    return made.attack;
  }

  #isLinux(): boolean {
    return (this.#host.state as HostState).snp?.vps[0]?.vmpl === this.#level;
  }
  get #cpu(): number {
    return this.machine.engine.cpu(0, this.#level);
  }
  get cpl(): number {
    return this.machine.engine.view.getUint32(this.#cpu + CPU.cpl, true);
  }
  get open(): boolean {
    return (rflags(this.machine.engine, this.#cpu) & FLAG.IF) !== 0;
  }
  get rip(): bigint {
    return read64(this.machine.engine, this.#cpu + CPU.rip);
  }
  get rax(): bigint {
    return read64(this.machine.engine, this.#cpu + CPU.gpr);
  }

  /** One instruction at a time until `there`. */
  stepUntil(what: string, there: () => boolean): void {
    for (let k = 0; !(this.#isLinux() && there()); k++) {
      if (k > 3_000_000) throw new Error(`never: ${what}`);
      this.machine.run(1);
    }
  }
  inUser(): void {
    this.stepUntil('user mode', () => this.cpl === 3);
  }

  /** The host injects at the guest's next entry; what the event stream says of it. */
  inject(event: Event): Injection | undefined {
    const before = this.seen.length;
    this.#next = event;
    for (let k = 0; this.#next !== undefined && k < 1000; k++) this.machine.run(1);
    return this.seen.slice(before).find(({ vector }) => vector === event[0]);
  }

  /** The same by way of the doorbell page, where a host asks a paravisor for interrupts of its guest. */
  ask(vector: number): Injection | undefined {
    const before = this.seen.length;
    const state = this.#host.state as HostState;
    const { view, now } = this.machine;
    const sink = { mask: 0, emit: () => undefined };
    proxyInterrupt({ state, view, sink, now, actions: [] }, state.vps[0] as HostState['vps'][number], vector);
    for (let k = 0; k < 1000 && this.seen.length === before; k++) this.machine.run(1);
    return this.seen.slice(before).find((row) => row.vector === vector);
  }
}

const has = (text: string, pattern: RegExp): void => expect(text).toMatch(pattern);

test.skipIf(missing !== undefined)(
  `snp: every event goes through the guest's IDT at once, whatever IF says; int 0x80 runs a system call, #DE kills a program, a forged #VC is found out${reason}`,
  async () => {
    const attack = await Attack.start('snp', 0);
    const { guest } = attack;

    // A1: a system call in a program that has made none. A number that does not exist shows it without harm.
    attack.inUser();
    attack.stepUntil(
      'a number that is no system call',
      () => attack.cpl === 3 && (attack.rax & 0xffff_ffffn) > 1000n,
    );
    const { rip } = attack;
    expect(attack.inject(interrupt(INT80))).toEqual({
      vector: INT80,
      outcome: INJECTION_OUTCOME.delivered,
      context: 0,
    });
    attack.stepUntil('the return', () => attack.cpl === 3 && attack.rip === rip);
    expect(BigInt.asIntN(64, attack.rax)).toBe(-ENOSYS);
    expect(guest.runUntil('victim 1')).toBe(true);

    // A2.
    attack.inUser();
    expect(attack.inject(DIVIDE)).toEqual({ vector: DE, outcome: INJECTION_OUTCOME.delivered, context: 0 });
    expect(guest.runUntil('victim 2')).toBe(true);
    has(guest.console(), new RegExp(`victim 2: ${DIED.divide}`));

    // A3 in user mode: the instruction is no CPUID, so the program is ended and the kernel says why.
    attack.inUser();
    expect(attack.inject(FORGED)).toEqual({ vector: VC, outcome: INJECTION_OUTCOME.delivered, context: 0 });
    expect(guest.runUntil('victim 3')).toBe(true);
    has(guest.console(), new RegExp(`victim 3: ${DIED.bus}`));

    // An interrupt where the architecture has none.
    attack.stepUntil('a place with IF clear', () => attack.cpl === 0 && !attack.open);
    expect(attack.inject(interrupt(UNUSED))).toEqual({
      vector: UNUSED,
      outcome: INJECTION_OUTCOME.illegal,
      context: 0,
    });
    // An NMI at the first instruction of a #VC handler.
    const { communications } = attack;
    attack.stepUntil('a #VC', () => attack.communications > communications);
    expect(attack.inject(NMI)).toEqual({ vector: 2, outcome: INJECTION_OUTCOME.delivered, context: 0 });
    expect(guest.runUntil('unharmed')).toBe(true);
    has(guest.console(), /No irq handler for 0\.69/);
    has(guest.console(), /NMI: .* on CPU 0\./);

    // A3 in the kernel: it ends itself.
    attack.stepUntil('the kernel', () => attack.cpl === 0 && attack.open);
    attack.inject(FORGED);
    let end: StopReason = { kind: 'budget' };
    for (let k = 0; k < 100 && end.kind === 'budget'; k++) end = attack.machine.run(1_000_000);
    console.log(`a forged #VC in the kernel: ${JSON.stringify(end)}`);
    expect(['terminated', 'crash', 'end']).toContain(end.kind);
    has(guest.console(), /Wrong\/unhandled opcode bytes|Unsupported exit-code|#VC/);
  },
);

test.skipIf(missing !== undefined)(
  `snp-paravisor: nothing of it reaches the guest, which runs on${reason}`,
  async () => {
    const attack = await Attack.start('snp-paravisor', 2);
    const { guest } = attack;
    const refused = (vector: number): Injection => ({
      vector,
      outcome: INJECTION_OUTCOME.refused,
      context: 2,
    });
    attack.inUser();
    for (const event of [interrupt(INT80), DIVIDE, FORGED])
      expect(attack.inject(event)).toEqual(refused(event[0]));
    attack.stepUntil('a place with IF clear', () => attack.cpl === 0 && !attack.open);
    for (const event of [interrupt(UNUSED), NMI, DIVIDE, FORGED])
      expect(attack.inject(event)).toEqual(refused(event[0]));
    for (const vector of [INT80, UNUSED])
      expect(attack.ask(vector)).toEqual({ vector, outcome: INJECTION_OUTCOME.filtered, context: 2 });
    expect(guest.runUntil('unharmed')).toBe(true);
    const delivered = attack.seen.filter(({ outcome }) => outcome === INJECTION_OUTCOME.delivered);
    for (const vector of [INT80, UNUSED, DE, VC, 2])
      expect(delivered.map((row) => row.vector)).not.toContain(vector);
    expect(attack.seen.filter(({ outcome }) => outcome === INJECTION_OUTCOME.illegal)).toEqual([]);
    for (const k of [1, 2, 3, 4]) has(guest.console(), new RegExp(`victim ${k}: 0`));
    expect(guest.console()).not.toMatch(/NMI: |No irq handler/);
  },
);
