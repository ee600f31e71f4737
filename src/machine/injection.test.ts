/**
 * The same events, injected by the host into a guest at VMPL0 and into one below a paravisor. The guest loops and has no IDT: an event
 * that is delivered ends it.
 */
import { expect, test } from 'vitest';
import { EVENT, INJECTION_OUTCOME } from '../abi/events.ts';
import { EVENT_INJECTION } from '../abi/snp/vmsa.ts';
import type { HostState } from '../host/host.ts';
import { elf64 } from '../launch/test-images.ts';
import type { Machine } from './machine.ts';
import { testMachine } from './test-machine.ts';

const ENTRY = 0x100_0000;
/** STI; JMP to itself. */
const OPEN = [0xfb, 0xeb, 0xfe];
/** CLI; JMP to itself. */
const CLOSED = [0xfa, 0xeb, 0xfe];

interface Made {
  readonly machine: Machine;
  readonly injections: number[][];
}

function make(name: string, code: readonly number[]): Made {
  const injections: number[][] = [];
  const machine = testMachine(name, 'EPYC-Milan', {
    kernel: elf64(ENTRY, [{ paddr: ENTRY, bytes: Uint8Array.from(code) }]),
    memoryBytes: 256 << 20,
    sink: {
      mask: 0xffff_ffff,
      emit: (...record) => void (record[0] === EVENT.injection && injections.push(record)),
    },
  });
  return { machine, injections };
}

const SLICE = 300_000;

/** The host puts the event into the VMCB of the context that runs the guest. */
function inject(
  { machine }: Made,
  type: number,
  vector: number,
  errorCode = false,
): ReturnType<Machine['run']> {
  const guestVmpl = machine.platform.kind === 'hyperv' && isBelow(machine) ? 2 : 0;
  const state = machine.platform.state as HostState;
  const target = state.snp?.vps[0];
  if (target === undefined) throw new Error('no SNP guest');
  for (let tries = 0; target.vmpl !== guestVmpl && tries < 100; tries++) machine.run(1000);
  expect(target.vmpl).toBe(guestVmpl);
  const lo =
    (vector |
      (type << EVENT_INJECTION.typeShift) |
      (errorCode ? EVENT_INJECTION.hasError : 0) |
      EVENT_INJECTION.valid) >>>
    0;
  target.vmcb.eventInj = { lo, hi: 0 };
  return machine.run(SLICE);
}

const isBelow = (machine: Machine): boolean => {
  const { isolation } = (machine.platform.state as HostState).config;
  return isolation.kind === 'snp' && isolation.aliasBit !== 0;
};

const EVENTS = [
  ['int 0x80 as an external interrupt', OPEN, EVENT_INJECTION.external, 0x80, INJECTION_OUTCOME.delivered],
  ['an interrupt while IF = 0', CLOSED, EVENT_INJECTION.external, 0x40, INJECTION_OUTCOME.illegal],
  ['#DE', OPEN, EVENT_INJECTION.exception, 0, INJECTION_OUTCOME.delivered],
  ['#VC', OPEN, EVENT_INJECTION.exception, 29, INJECTION_OUTCOME.delivered],
  ['NMI', OPEN, EVENT_INJECTION.nmi, 2, INJECTION_OUTCOME.delivered],
] as const;

// EVENTINJ is the host's only way in that needs no doorbell page: APM vol. 2, 15.20 and 15.36.16.
test('snp: every event reaches the guest', { timeout: 300_000 }, () => {
  for (const [name, code, type, vector, outcome] of EVENTS) {
    const made = make('snp', code);
    made.machine.run(SLICE);
    expect(inject(made, type, vector, vector === 29), name).toMatchObject({
      kind: 'end',
      reason: 'triple-fault',
    });
    expect(
      made.injections.map((record) => record.slice(3, 7)),
      name,
    ).toEqual([[vector, type, outcome, 0]]);
  }
});

test('snp-paravisor: none of them does', { timeout: 300_000 }, () => {
  // Nothing arrives, so one guest is enough for all.
  const made = make('snp-paravisor', CLOSED);
  made.machine.run(SLICE);
  for (const [name, , type, vector] of EVENTS)
    expect(inject(made, type, vector, vector === 29), name).toMatchObject({ kind: 'budget' });
  expect(made.injections.map((record) => record.slice(3, 7))).toEqual(
    EVENTS.map(([, , type, vector]) => [vector, type, INJECTION_OUTCOME.refused, 2]),
  );
});
