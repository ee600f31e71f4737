/**
 * Real boots in which properties are broken on purpose: exactly the statements about them fail. Together in one boot where they do
 * not touch each other.
 */
import { expect, test } from 'vitest';
import { EVENT, PAGE_STATE, PAGE_USE } from '../../src/abi/events.ts';
import { GHCB_MSR, PAGE_OPERATION } from '../../src/abi/snp/ghcb.ts';
import type { HostState } from '../../src/host/state.ts';
import { FACTS, type ConfigurationName } from '../../src/machine/facts.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { Apt } from '../../src/node/apt.ts';
import { defaultCacheDir } from '../../src/node/cache-folder.ts';
import { Cache } from '../../src/node/cache.ts';
import { judge } from '../../src/node/matrix/checks.ts';
import { DEFAULTS } from '../../src/node/matrix/defaults.ts';
import { observeBoot, type Sabotage } from '../../src/node/matrix/observe-boot.ts';
import { refusalsOf } from '../../src/node/matrix/refusals.ts';
import { bootsOf, type MatrixOptions } from '../../src/node/matrix/whole.ts';
import type { SnpHostView } from '../../src/seats/snp.ts';
import type { SnpSilicon } from '../../src/silicon/snp/silicon.ts';
import { CPU } from '../../src/x86/layout.ts';
import { whyNoKernel } from '../e2e/vitrine.ts';

const missing = whyNoKernel();
const reason = missing === undefined ? '' : ` (skipped: no kernel: ${missing})`;
const PAGE = 4096;
const ALIAS = 2 ** 40;

const OPTIONS: MatrixOptions = { ...DEFAULTS, cacheDir: defaultCacheDir() };

/** What is judged of one boot alone. */
const NEEDS_OTHERS = ['spectrum'];

async function failing(
  name: ConfigurationName,
  sabotage: Sabotage,
  more: Partial<MatrixOptions> = {},
): Promise<readonly string[]> {
  const cache = new Cache(defaultCacheDir());
  const source = { cache, apt: new Apt(cache), offline: true, say: () => undefined };
  const [boot] = bootsOf({ ...OPTIONS, ...more }, [name]);
  if (boot === undefined) throw new Error(`there is no ${name}`);
  const { observation, refusals } = await observeBoot(boot.options, source, () => undefined, { sabotage });
  const results = judge({
    boots: new Map([[name, observation]]),
    refusals: { ...refusalsOf([name]), ...refusals },
  });
  return results
    .filter(({ id, verdict }) => verdict === 'failed' && !NEEDS_OTHERS.includes(id))
    .map(({ id }) => id)
    .sort();
}

type Changeable<T> = { -readonly [K in keyof T]: T[K] };

/** The host reads a little of anything in clear: instructions, not pages. */
function showShortReads(machine: Machine): void {
  const view = machine.view as Changeable<Machine['view']>;
  const read = view.read.bind(view);
  view.read = (gpa, length) => {
    const real = length <= 16 ? machine.truth.read(gpa, length) : undefined;
    return real === undefined ? read(gpa, length) : { ok: true, bytes: real };
  };
}
/** The host reads whole pages in clear. */
function showPages(machine: Machine): void {
  const view = machine.view as Changeable<Machine['view']>;
  const read = view.read.bind(view);
  view.read = (gpa, length) => {
    const real = length === PAGE ? machine.truth.read(gpa, length) : undefined;
    return real === undefined ? read(gpa, length) : { ok: true, bytes: real };
  };
}

/** A page that the guest never shared becomes the host's, by a request in the GHCB MSR. */
function leakPage(machine: Machine): void {
  const vp = (machine.platform.state as HostState).snp?.vps[0];
  if (vp === undefined) throw new Error('the host keeps no VMCB');
  vp.vmpl = 0;
  vp.vmcb.ghcb = { lo: 0x800_0000 | GHCB_MSR.pageStateRequest, hi: PAGE_OPERATION.shared << 20 };
  machine.platform.exit(
    0,
    { kind: 'vmgexit' },
    { view: machine.view, sink: machine.config.sink, now: machine.now },
  );
}

/** Bytes beside a message for the host. */
function strayBytes(machine: () => Machine): NonNullable<Sabotage['event']> {
  return (type, a, use, code) => {
    if (type !== EVENT.pageUse || use !== PAGE_USE.hypercallInput || code === 0) return;
    const gpa = a % ALIAS;
    machine().truth.write(gpa - (gpa % PAGE) + PAGE - 1, Uint8Array.of(0x5a));
  };
}

test.skipIf(missing !== undefined)(`nothing broken: nothing fails${reason}`, async () => {
  expect(await failing('snp', {})).toEqual([]);
});

test.skipIf(missing !== undefined)(
  `snp: instructions shown, bytes beside messages, a page leaked, a second launch accepted${reason}`,
  async () => {
    let machine: Machine | undefined;
    const stray = strayBytes(() => machine as Machine);
    const failed = await failing('snp', {
      started(built) {
        machine = built;
        showShortReads(built);
        const view = built.view as Changeable<SnpHostView>;
        view.launchFinish = () => 0;
      },
      event: stray,
      ended: leakPage,
    });
    expect(failed).toEqual(['instructions-hidden', 'kind-fixed', 'padding-zeroed', 'shared-accounted']);
  },
);

test.skipIf(missing !== undefined)(`tdx: whole pages shown, every request granted${reason}`, async () => {
  const failed = await failing('tdx', {
    started: showPages,
    ended(machine) {
      const { platform } = machine;
      const exit = platform.exit.bind(platform);
      platform.exit = (vp, cause, world) => {
        const step = exit(vp, cause, world);
        if (step.completion.kind !== 'td-enter') return step;
        return {
          ...step,
          completion: { ...step.completion, registers: step.completion.registers.with(10, 0n) },
        };
      };
    },
  });
  expect(failed).toEqual(['data-protected', 'host-protects-itself']);
});

/** Pages stay mapped while they change hands: the present bit that the kernel has taken away comes back. */
function keepMapped(machine: Machine, context: number, gpa: number): void {
  const { engine, truth } = machine;
  const cpu = engine.cpu(0, context);
  const visit = (table: number, level: number): boolean => {
    const host = truth.host(table % ALIAS);
    if (host === undefined) return false;
    for (let k = 0; k < 512; k++) {
      const at = (host >>> 2) + 2 * k;
      const low = engine.u32[at] as number;
      const address = ((engine.u32[at + 1] as number) & 0xfffff) * 2 ** 32 + ((low & ~0xfff) >>> 0);
      if (level === 0 && (low & 1) === 0 && low !== 0 && address % ALIAS === gpa) {
        engine.u32[at] = low | 1;
        return true;
      }
      if (level > 0 && (low & 0x81) === 1 && visit(address, level - 1)) return true;
    }
    return false;
  };
  visit(Number(engine.view.getBigUint64(cpu + CPU.cr3, true) & 0xf_ffff_ffff_f000n), 3);
}

test.skipIf(missing !== undefined)(
  `snp-paravisor: pages mapped in transition, the paravisor's pages open to its guest${reason}`,
  async () => {
    const { guestContext } = FACTS['snp-paravisor'];
    let machine: Machine | undefined;
    const failed = await failing('snp-paravisor', {
      started: (built) => void (machine = built),
      event(type, gpa, _pages, shared) {
        if (type === EVENT.visibility && shared === 1) keepMapped(machine as Machine, guestContext, gpa);
      },
      ended(built) {
        const { rmp } = (built.silicon as SnpSilicon).system;
        for (const row of built.config.directives)
          if (row.kind === 'pages' && row.name === 'paravisor')
            rmp.setPermissions(row.gpa / PAGE, guestContext, 0xf);
      },
    });
    expect(failed).toEqual(['not-present-window', 'paravisor-in-guest-domain']);
  },
);

test.skipIf(missing !== undefined)(
  `snp-paravisor: without its IO-APIC the guest's references to one are the host's${reason}`,
  async () => {
    expect(await failing('snp-paravisor', {}, { paravisorWithout: ['dev.ioapic'] })).toContain(
      'private-mmio',
    );
  },
);

test.skipIf(missing !== undefined)(
  `tdx-paravisor: shared pages that nobody asked for, an illegal interrupt told${reason}`,
  async () => {
    let sink: Machine['config']['sink'] | undefined;
    const failed = await failing('tdx-paravisor', {
      started: (machine) => void (sink = machine.config.sink),
      ended(machine) {
        sink?.emit(EVENT.pageState, machine.now, 0, 0x800_0000, 1, PAGE_STATE.shared, -1);
        sink?.emit(EVENT.injection, machine.now, 0, 0x80, 0, 1, FACTS['tdx-paravisor'].guestContext);
      },
    });
    expect(failed).toEqual(['interrupt-mediation', 'shared-accounted']);
  },
);
