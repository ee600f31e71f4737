/** Random operands for the module and for the host: every case has a defined outcome, and no private page changes silently. */
import { describe, expect, it } from 'vitest';
import { TDVMCALL, TDVMCALL_NAMES, TDVMCALL_STATUS } from '../src/abi/tdx/ghci.ts';
import { TDH } from '../src/abi/tdx/leaves.ts';
import { EXIT_REASON } from '../src/abi/tdx/exit-reasons.ts';
import { status, STATUS, statusCode } from '../src/abi/tdx/status.ts';
import type { Machine } from '../src/machine/machine.ts';
import type { TdxHostView } from '../src/seats/tdx.ts';
import { TdxSilicon } from '../src/silicon/tdx/silicon.ts';
import { HOST_LEAF_NUMBERS } from '../src/silicon/tdx/seamcall.ts';
import { arrayRegisters } from '../src/silicon/tdx/registers.ts';
import { PAMT, SEPT } from '../src/silicon/tdx/tables.ts';
import { LEAF_NUMBERS, tdcall } from '../src/silicon/tdx/tdcall.ts';
import { source } from './random.ts';
import { r10, r11, r12, r13, r14, rax, rcx } from './asm.ts';
import { AT, MEMORY, TDCALL_BYTES, tdMachine, tdPages, type TdGuest, type TdOptions } from './td.ts';

const KNOWN = new Set<number>(Object.values(STATUS));
/** Pages with contents that nobody else has; no case is given them to write to. */
const SECRETS = [AT.scratch + 0x5000, AT.scratch + 0x6000];
const MARK = Uint8Array.from({ length: 4096 }, (_, i) => (i * 7 + 0x5e) & 0xff);

function world(options: TdOptions = {}): {
  readonly machine: Machine;
  readonly silicon: TdxSilicon;
  readonly view: TdxHostView;
  secretsAreSafe(): void;
} {
  const machine = tdMachine(
    tdPages((guest) => guest.end()),
    options,
  );
  const silicon = machine.silicon as TdxSilicon;
  for (const gpa of SECRETS) machine.truth.write(gpa, MARK);
  const { tables } = silicon.module;
  return {
    machine,
    silicon,
    view: silicon.view,
    secretsAreSafe() {
      for (const gpa of SECRETS) {
        const entry = tables.entry(gpa);
        // Blocked, removed, or of a TD that is being torn down and runs no more: it is not read at all.
        if (entry.state !== SEPT.mapped || silicon.module.td.lifeCycle !== 'keys-configured') continue;
        expect(machine.truth.read(gpa, 4096)).toEqual(MARK);
      }
      // What the host can read has nothing of it.
      for (let spa = 0; spa < silicon.view.systemBytes; spa += 4096) {
        if ((tables.pamt(spa) & PAMT.used) === 0) continue;
        const page = silicon.view.readSystem(spa, 16);
        if (page.ok) expect(page.bytes).not.toEqual(MARK.slice(0, 16));
      }
    },
  };
}

/** Asks the host for everything, for ever. */
function caller({ a }: TdGuest): void {
  a.label('again');
  for (const code of TDVMCALL_NAMES.keys()) {
    if (code === TDVMCALL.reportFatalError) continue;
    a.movabs(r10, 0n);
    a.movabs(r11, BigInt(code));
    for (const [k, register] of [r12, r13, r14].entries()) a.movabs(register, k === 0 ? BigInt(AT.free) : 4n);
    a.movabs(rcx, 0xfcccn);
    a.movabs(rax, 0n);
    a.db(...TDCALL_BYTES);
  }
  a.jmp('again');
}

const CASES = 100_000;

describe('random operands', () => {
  it.each([0, 3])(`${CASES} register files of TDCALL, with %i L2 VMs`, (l2Vms) => {
    const { silicon, secretsAreSafe } = world({ l2Vms });
    const { module } = silicon;
    const vcpu = module.vcpus[0] as (typeof module.vcpus)[number];
    const r = source(1 + l2Vms);
    const interesting = [
      0n,
      BigInt(AT.scratch),
      BigInt(AT.scratch + 0x1000),
      BigInt(AT.free),
      BigInt(MEMORY),
      0x1110_0003_0000_0017n,
      0x2420_0003_0000_6802n,
      0x2520_0003_0000_0010n,
      0xa020_0003_0000_0051n,
      1n << 52n,
    ];
    const kinds = new Map<string, number>();
    for (let n = 0; n < CASES; n++) {
      const values = Array.from({ length: 16 }, () => r.word(interesting));
      const leaf = r.below(8) === 0 ? BigInt(r.below(64)) : BigInt(r.pick(LEAF_NUMBERS));
      values[0] = leaf | (r.below(16) === 0 ? r.word(interesting) << 16n : 0n);
      values[0] = BigInt.asUintN(64, values[0]);
      const outcome = tdcall({ module, vcpu, registers: arrayRegisters(values), cpu: -1 });
      kinds.set(outcome.kind, (kinds.get(outcome.kind) ?? 0) + 1);
      if (outcome.kind === 'done' && !KNOWN.has(statusCode(values[0] as bigint)))
        throw new Error(`leaf ${leaf} ended with 0x${(values[0] as bigint).toString(16)}`);
      vcpu.vmcall = undefined;
      // An L2 VM that was entered has its turn taken away.
      vcpu.vm = 0;
    }
    expect(kinds.get('done')).toBeGreaterThan(CASES / 2);
    expect([...kinds.keys()].every((kind) => ['done', 'vmcall', 'exit', 'enter-l2'].includes(kind))).toBe(
      true,
    );
    secretsAreSafe();
  });

  it(`${CASES} register files of TDG.VP.VMCALL`, () => {
    const { machine, secretsAreSafe } = world();
    const r = source(7);
    const interesting = [0n, 0x4000_0000n, BigInt(AT.free), 0xfec0_0000n, 0x3f8n, 0x1000n, 0x830n, 0x1_005dn];
    const functions = [...TDVMCALL_NAMES.keys()].map(BigInt);
    const answers = new Set<bigint>();
    const counts = machine.counters();
    for (let n = 0; n < CASES; n++) {
      const registers = Array.from({ length: 16 }, () => r.word(interesting));
      registers[0] = status(STATUS.success, EXIT_REASON.tdcall);
      if (r.below(4) !== 0) registers[10] = 0n;
      if (r.below(8) !== 0) registers[11] = r.pick(functions);
      // Ranges of many MiB take their time, and show nothing new.
      if (registers[11] === 0x10001n) registers[13] = BigInt(r.below(64)) * 0x800n;
      const step = machine.platform.exit(
        0,
        { kind: 'td-exit', registers },
        { view: machine.view, sink: machine.config.sink, now: counts.now + n },
      );
      if (step.completion.kind !== 'td-enter') throw new Error(step.completion.kind);
      if (registers[10] === 0n) answers.add(step.completion.registers[10] as bigint);
    }
    const known: readonly bigint[] = Object.values(TDVMCALL_STATUS);
    expect([...answers].every((answer) => known.includes(answer))).toBe(true);
    expect(answers.size).toBeGreaterThan(3);
    secretsAreSafe();
  });

  it('every other exit that a hostile L1 or L2 can make reaches a host that answers it', () => {
    const { machine, secretsAreSafe } = world({ l2Vms: 1 });
    const r = source(11);
    const interesting = [0n, BigInt(AT.free), BigInt(AT.scratch), 0xfec0_0000n, BigInt(MEMORY)];
    const reasons = Object.values(EXIT_REASON);
    for (let n = 0; n < 20_000; n++) {
      const registers = Array.from({ length: 16 }, () => r.word(interesting));
      registers[0] = status(STATUS.success, r.below(2) === 0 ? EXIT_REASON.eptViolation : r.pick(reasons));
      registers[10] = BigInt(r.below(2)) << 32n;
      const step = machine.platform.exit(
        0,
        { kind: 'td-exit', registers },
        { view: machine.view, sink: machine.config.sink, now: n },
      );
      expect(step.completion.kind).toBe('td-enter');
    }
    secretsAreSafe();
  });

  it(`a guest under a host that gives ${CASES} answers at random keeps its private memory`, () => {
    const ends = new Map<string, number>();
    let answers = 0;
    for (let round = 0; answers < CASES; round++) {
      const r = source(50 + round);
      const machine = tdMachine(tdPages(caller), {
        platform: (platform) => ({
          ...platform,
          get state() {
            return platform.state;
          },
          exit(vp, exit, where) {
            const step = platform.exit(vp, exit, where);
            if (step.completion.kind !== 'td-enter') return step;
            answers++;
            const registers = step.completion.registers.map((value) =>
              r.below(2) === 0 ? value : r.word([0n, 1n, BigInt(AT.scratch)]),
            );
            const resumeL1 = r.below(4) === 0;
            return { ...step, completion: { ...step.completion, registers, resumeL1 } };
          },
        }),
      });
      for (const gpa of SECRETS) machine.truth.write(gpa, MARK);
      const { kind } = machine.run(600_000);
      ends.set(kind, (ends.get(kind) ?? 0) + 1);
      expect(['budget', 'crash']).toContain(kind);
      for (const gpa of SECRETS) expect(machine.truth.read(gpa, 4096)).toEqual(MARK);
    }
    console.info(`${answers} answers; runs by their end: ${JSON.stringify([...ends])}`);
  }, 240_000);

  it('random SEAMCALLs of a host', () => {
    const known = new Set<number>();
    const { silicon, view, secretsAreSafe } = world({ l2Vms: 1 });
    const ending: readonly number[] = [TDH.mngVpflushdone, TDH.mngKeyFreeid, TDH.phymemPageReclaim];
    const living = HOST_LEAF_NUMBERS.filter((leaf) => !ending.includes(leaf));
    for (let round = 0; round < 40; round++) {
      const leaves = round < 36 ? living : HOST_LEAF_NUMBERS;
      const { td } = silicon.module;
      const r = source(100 + round);
      const tdr = BigInt(td.tdr);
      const interesting = [
        tdr,
        tdr,
        BigInt(AT.scratch + 0x5000),
        BigInt(AT.scratch + 0x6000),
        BigInt(AT.free),
        BigInt(AT.code),
        BigInt(view.systemBytes - 4096),
        BigInt(view.systemBytes - (2 << 20)),
        0n,
      ];
      for (let n = 0; n < 2500; n++) {
        const leaf = r.below(16) === 0 && round >= 36 ? r.below(64) : r.pick(leaves);
        const { rax } = view.seamcall(leaf | (r.below(8) === 0 ? 1 << 16 : 0), {
          rcx: r.word(interesting),
          rdx: r.below(3) === 0 ? r.word(interesting) : tdr,
          r8: r.word(interesting),
          r9: r.word(interesting),
          r10: r.word(interesting),
          r11: r.word(interesting),
        });
        if (!KNOWN.has(statusCode(rax))) throw new Error(`leaf ${leaf}: 0x${rax.toString(16)}`);
        known.add(statusCode(rax));
        if (r.below(64) === 0)
          view.mapShared(r.below(MEMORY), {
            kind: 'page',
            spa: r.below(view.systemBytes / 4096) * 4096,
            writable: true,
          });
      }
      secretsAreSafe();
    }
    expect(known.size).toBeGreaterThan(12);
  });
});
