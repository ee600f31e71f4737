/**
 * The host injects into a running Linux what no device would: system-call vector, exceptions, an NMI between a #VE and its
 * information, an interrupt while IF is clear. What reaches the guest's IDT is in the event stream; what Linux makes of it on its console.
 */
import { expect, test } from 'vitest';
import { EVENT, EVENT_CLASS, INJECTION_OUTCOME } from '../../src/abi/events.ts';
import type { Machine, Platform } from '../../src/machine/machine.ts';
import { TdxSilicon } from '../../src/silicon/tdx/silicon.ts';
import { rflags } from '../../src/silicon/vcpu.ts';
import { FLAG } from '../../src/x86/layout.ts';
import { whyNoKernel } from '../e2e/vitrine.ts';
import { makeLinux } from './linux.ts';

const missing = whyNoKernel();
const reason = missing === undefined ? '' : ` (skipped: no kernel: ${missing})`;

const SPIN = 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done';
const say = (word: string): string => `echo ${word} > /dev/console`;
const COMMAND = [say('ready'), SPIN, say('alive'), SPIN, say('unharmed')].join('; ');

type Event = { readonly kind: 'vector'; readonly vector: number } | { readonly kind: 'nmi' };

/** A host that posts whatever it is told, past its own model of a local APIC. */
function hostile(inner: Platform, queue: Event[]): Platform {
  return {
    ...inner,
    get state() {
      return inner.state;
    },
    interrupt: (vp) =>
      queue[0] === undefined ? inner.interrupt(vp) : queue[0].kind === 'nmi' ? 'nmi' : 'interrupt',
    acknowledge: (vp, world) => {
      const event = queue.shift();
      return event?.kind === 'vector' ? event.vector : inner.acknowledge(vp, world);
    },
    takeNmi: (vp) => {
      if (queue.shift() === undefined) inner.takeNmi(vp);
    },
  };
}

interface Injection {
  readonly vector: number;
  readonly outcome: number;
  readonly context: number;
  /** At the moment of the event: IF of the running context, and whether the information of a #VE waits. */
  readonly open: boolean;
  readonly veWaits: boolean;
}

async function attacked(configuration: string): Promise<{
  readonly guest: Awaited<ReturnType<typeof makeLinux>>;
  readonly queue: Event[];
  readonly seen: Injection[];
  /** Called at each #VE that goes through the guest's IDT. */
  onVe(act: () => void): void;
}> {
  const seen: Injection[] = [];
  const queue: Event[] = [];
  let atVe = (): void => undefined;
  const made: { machine?: Machine } = {};
  const guest = await makeLinux({
    configuration,
    command: COMMAND,
    append: 'ia32_emulation=1',
    sink: {
      mask: EVENT_CLASS.exception,
      emit: (type, _time, _vp, vector, _type, outcome, context) => {
        const { machine } = made;
        if (machine === undefined) return;
        if (type === EVENT.confidentialException) atVe();
        if (type !== EVENT.injection) return;
        const silicon = machine.silicon as TdxSilicon;
        seen.push({
          vector,
          outcome,
          context,
          open: (rflags(machine.engine, silicon.cpu(0)) & FLAG.IF) !== 0,
          veWaits: silicon.module.vcpus[0]?.ve.valid === true,
        });
      },
    },
  });
  made.machine = guest.machine;
  guest.machine.attach(hostile(guest.machine.platform, queue));
  expect(guest.runUntil('ready')).toBe(true);
  return { guest, queue, seen, onVe: (act) => void (atVe = act) };
}

const EXCEPTIONS = [0, 13, 14, 20, 29];
/** No vector of Linux: it says so when one comes. */
const UNUSED = 0x45;
const INT80 = 0x80;

/** Steps until the context that runs has IF clear. */
function untilClosed(machine: Machine): void {
  for (let k = 0; (rflags(machine.engine, machine.silicon.cpu(0)) & FLAG.IF) !== 0; k++) {
    if (k > 5_000_000) throw new Error('interrupts are never off');
    machine.run(1);
  }
}

test.skipIf(missing !== undefined)(
  `tdx: exceptions are refused, an NMI and an interrupt wait for their time, and int 0x80 is recognised and stops the kernel${reason}`,
  async () => {
    const { guest, queue, seen, onVe } = await attacked('tdx');
    const { machine } = guest;
    for (const vector of EXCEPTIONS) queue.push({ kind: 'vector', vector });
    machine.run(1_000_000);
    expect(queue).toEqual([]);
    expect(
      seen.filter(({ outcome }) => outcome === INJECTION_OUTCOME.refused).map(({ vector }) => vector),
    ).toEqual(EXCEPTIONS);
    untilClosed(machine);
    queue.push({ kind: 'vector', vector: UNUSED });
    let nmis = 0;
    onVe(() => {
      if (nmis++ === 0) queue.unshift({ kind: 'nmi' });
    });
    expect(guest.runUntil('alive')).toBe(true);
    const delivered = seen.filter(({ outcome }) => outcome !== INJECTION_OUTCOME.refused);
    expect(delivered.filter(({ vector }) => vector === UNUSED)).toMatchObject([{ open: true, context: 0 }]);
    expect(delivered.filter(({ vector }) => vector === 2)).toMatchObject([{ veWaits: false, context: 0 }]);
    expect(delivered.filter(({ outcome }) => outcome !== INJECTION_OUTCOME.delivered)).toEqual([]);
    expect(delivered.filter(({ vector }) => EXCEPTIONS.includes(vector))).toEqual([]);
    // Its reasons, port 0x61, are all ones: nobody is there.
    expect(guest.console()).toMatch(/NMI: PCI system error .*for reason ff/);
    queue.push({ kind: 'vector', vector: INT80 });
    expect(guest.runUntil('unharmed')).toBe(false);
    expect(guest.console()).toMatch(/Kernel panic.*Unexpected external interrupt 0x80/);
  },
);

test.skipIf(missing !== undefined)(
  `tdx-paravisor: nothing of it reaches the guest, which runs on${reason}`,
  async () => {
    const { guest, queue, seen } = await attacked('tdx-paravisor');
    const { machine } = guest;
    untilClosed(machine);
    for (const vector of [...EXCEPTIONS, UNUSED, INT80]) queue.push({ kind: 'vector', vector });
    queue.push({ kind: 'nmi' });
    expect(guest.runUntil('alive')).toBe(true);
    expect(queue).toEqual([]);
    const of = (wanted: number): readonly number[] =>
      seen.filter(({ outcome }) => outcome === wanted).map(({ vector }) => vector);
    expect(of(INJECTION_OUTCOME.refused)).toEqual(EXCEPTIONS);
    expect([...of(INJECTION_OUTCOME.filtered)].sort((a, b) => a - b)).toEqual([2, UNUSED, INT80]);
    expect(of(INJECTION_OUTCOME.illegal)).toEqual([]);
    for (const vector of [...EXCEPTIONS, UNUSED, INT80, 2])
      expect(of(INJECTION_OUTCOME.delivered)).not.toContain(vector);
    expect(guest.runUntil('unharmed')).toBe(true);
    expect(guest.console()).not.toMatch(/panic|unknown reason|No irq handler/);
  },
);
