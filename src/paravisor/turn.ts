/** What a turn of the paravisor does in the same way on both processors: ask the host, take its answer, set up what it has at the host. */

import { EVENT, EVENT_CLASS } from '../abi/events.ts';
import { EXIT_KINDS, EXIT_ROUTES } from '../abi/exit-kinds.ts';
import { IOAPIC_PAGE } from '../chipset/partition/interrupts.ts';
import { UNITS } from '../chipset/partition/serial.ts';
import type { Seat } from '../seats/program.ts';
import type { ParavisorConfig } from './config.ts';
import { guestVp, hostAnswered, KIND_OF, type ParavisorWorld } from './core.ts';
import type { GuestCompletion, GuestExit } from './exits.ts';
import { hasPart } from './parts.ts';
import { FAILURE, type HostAnswer, type HostRequest } from './requests.ts';
import { ask, type GuestVp, type ParavisorState } from './state.ts';

/** How requests of one virtual processor travel. `done`: pages of a page-state change that the host has changed already. */
export interface Line<Exit> {
  send(request: HostRequest, done: number): Exit;
  receive(request: HostRequest, done: number): HostAnswer & { readonly done?: number };
  /** Until the host has something. */
  wait(): Exit;
}

export interface Asking {
  /** Of the page-state change that is under way: pages that are done. */
  done: number;
}

/** Sends the first request, or waits when there is none. */
export function sendFirst<Exit>(guest: GuestVp, asking: Asking, line: Line<Exit>): Exit {
  const first = guest.outbox[0];
  if (first === undefined) return line.wait();
  guest.asked = true;
  return line.send(first.request, asking.done);
}

export const failed = <Exit>(line: Line<Exit>, reason: number): Exit =>
  line.send({ kind: 'fail', reason }, 0);

/** The host has answered. An exit: there is more of the same request, or no way to go on. */
export function takeAnswer<Exit>(
  core: ParavisorState,
  vp: number,
  asking: Asking,
  line: Line<Exit>,
  world: ParavisorWorld,
  complete: (exit: GuestExit, completion: GuestCompletion) => void,
): Exit | undefined {
  const guest = guestVp(core, vp);
  const first = guest.outbox[0];
  if (first === undefined) throw new Error('an answer to nothing');
  const { request, purpose } = first;
  const answer = line.receive(request, asking.done);
  if (request.kind === 'page-state' && answer.ok) {
    asking.done += answer.done ?? 0;
    if (asking.done < request.gpas.length) return sendFirst(guest, asking, line);
  }
  asking.done = 0;
  if (purpose === 'setup') {
    guest.asked = false;
    guest.outbox.shift();
    return answer.ok ? undefined : failed(line, FAILURE.host);
  }
  const { exit } = guest;
  const completion = hostAnswered(core, vp, answer, world);
  if (completion !== undefined && exit !== undefined) complete(exit, completion);
  return undefined;
}

/** The host has only seen that the guest stopped, if that; what it was came here. `context`: of the guest. */
export function traceGuestExit({ sink, now, vp }: Seat, exit: GuestExit, context: number): void {
  if ((sink.mask & EVENT_CLASS.exit) === 0) return;
  const kind = EXIT_KINDS.indexOf(KIND_OF[exit.kind]);
  sink.emit(EVENT.exit, now, vp, kind, EXIT_ROUTES.indexOf('context'), context, 0);
}

/**
 * The paravisor's own interrupts: paravisors on different VPs wake each other, its timer, received bytes. The highest: a guest whose
 * local APIC or IO-APIC is the host's has lower ones in service.
 */
export const OWN_VECTOR = { wake: 0xff, timer: 0xfe, console: 0xfd } as const;

const X2APIC_SVR = 0x80f;
const X2APIC_LVT_TIMER = 0x832;
const TSC_DEADLINE_MODE = 2 << 17;
const UART_IER = 1;
const UART_FCR = 2;
const UART_LCR = 3;
const UART_MCR = 4;

/**
 * The paravisor's own local APIC at the host: on, with the timer as a TSC deadline. On VP 0 also the UARTs: received bytes
 * interrupt, and the line goes to VP 0, edge-triggered, whoever's the UARTs are.
 */
export function setUpAtHost(guest: GuestVp, { parts, uarts }: ParavisorConfig): void {
  const setup = (request: HostRequest): void => ask(guest, request, 'setup');
  const msr = (index: number, lo: number): void => setup({ kind: 'msr', index, write: true, lo, hi: 0 });
  msr(X2APIC_SVR, 0x1ff);
  // Without it the APIC is the guest's, and nothing here needs a timer.
  if (!hasPart(parts, 'irq.apic')) return;
  msr(X2APIC_LVT_TIMER, OWN_VECTOR.timer | TSC_DEADLINE_MODE);
  if (guest.index !== 0 || !hasPart(parts, 'dev.ioapic')) return;
  for (const { port, pin } of UNITS.slice(0, uarts)) {
    const out = (register: number, value: number): void =>
      setup({ kind: 'io', port: port + register, size: 1, write: true, value });
    if (hasPart(parts, 'dev.legacy')) {
      out(UART_LCR, 3);
      out(UART_FCR, 7);
      out(UART_MCR, 0x0b);
      out(UART_IER, 1);
    }
    const io = (offset: number, value: number): void =>
      setup({ kind: 'mmio', gpa: IOAPIC_PAGE + offset, size: 4, write: true, lo: value, hi: 0 });
    io(0, 0x10 + 2 * pin);
    io(0x10, OWN_VECTOR.console);
    io(0, 0x11 + 2 * pin);
    io(0x10, 0);
  }
}
