/**
 * A secret that the guest draws from its random source and never tells: at every exit all that the host can see is searched for
 * it. In `plain` it is found, in `snp` never.
 */
import { expect, test } from 'vitest';
import { DEFAULT_CONFIG } from '../src/host/config.ts';
import { hypervPlatform } from '../src/machine/hyperv-platform.ts';
import { initEntry } from '../src/launch/entry-state.ts';
import { Machine, type Platform } from '../src/machine/machine.ts';
import type { HostView } from '../src/seats/host-view.ts';
import { REGISTER } from '../src/abi/hyperv/registers.ts';
import { stateHash } from '../src/machine/state-hash.ts';
import { restoreSnapshot, takeSnapshot } from '../src/machine/snapshot.ts';
import { at, rax, rbx } from './asm.ts';
import { AT, MEMORY, runSnp, snpDirectives, snpMachine, snpModel, type SnpGuest } from './snp.ts';

const PAGE = 4096;
const WORDS = 4;

/** Draws the secret, keeps it in memory, in a register and on the stack, and then leaves four times. */
function program(guest: SnpGuest): void {
  const { a } = guest;
  for (let k = 0; k < WORDS; k++) {
    a.db(0x48, 0x0f, 0xc7, 0xf0); // rdrand rax
    a.mov(at({ disp: AT.scratch + k * 8 }), rax);
  }
  a.mov(rbx, rax);
  a.push(rax);
  for (let k = 0; k < 4; k++) guest.guarded(`after${k}`, () => a.db(0xe4, 0x80));
  for (let k = 0; k < 3; k++) guest.pageState(BigInt(AT.shared), 2);
}

/** Whether one of the words stands anywhere in `bytes`. */
function holds(bytes: Uint8Array, words: readonly bigint[]): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let k = 0; k + 8 <= bytes.length; k += 8) if (words.includes(view.getBigUint64(k, true))) return true;
  return false;
}

/** Everything: memory by guest address, and registers. */
function visible(view: HostView, words: readonly bigint[]): boolean {
  for (let gpa = 0; gpa < MEMORY; gpa += PAGE) {
    const seen = view.read(gpa, PAGE);
    if (seen.ok && holds(seen.bytes, words)) return true;
  }
  for (let n = 0; n < 16; n++) {
    const register = view.getRegister(0, REGISTER.rax + n);
    if (register === undefined) continue;
    if (words.includes((BigInt(register[1]) << 32n) | BigInt(register[0]))) return true;
  }
  return false;
}

const secretOf = (machine: Machine): bigint[] => {
  const bytes = machine.truth.read(AT.scratch, WORDS * 8) as Uint8Array;
  const view = new DataView(bytes.buffer);
  return Array.from({ length: WORDS }, (_, k) => view.getBigUint64(k * 8, true));
};

test('plain: the host finds the secret', () => {
  const config = { ...DEFAULT_CONFIG, physicalAddressBits: snpModel().physicalAddressBits };
  // The same program without encryption bits.
  const directives = snpDirectives(program, { virtualTom: 1n << 46n });
  const inner = hypervPlatform(config);
  let found = 0;
  const platform: Platform = {
    ...inner,
    exit(vp, exit, world) {
      const words = secretOf(machine);
      if (words.every((word) => word !== 0n) && visible(world.view, words)) found++;
      return inner.exit(vp, exit, world);
    },
  };
  const machine: Machine = new Machine({
    model: snpModel(),
    vcpus: 1,
    seed: 1n,
    tscHz: config.tscHz,
    tscAtZero: 0n,
    directives,
    sink: { mask: 0, emit: () => undefined },
    initRegisters: initEntry(snpModel().signature),
  });
  machine.attach(platform);
  machine.run(2000);
  expect(found).toBeGreaterThan(0);
});

test('snp: at no exit does the host see it, neither in memory, nor in the VMSA, nor in what the hardware tells it', () => {
  let looked = 0;
  const { machine, hand } = snpMachine(program, {
    onExit: ({ view, vmcb }) => {
      const words = secretOf(machine);
      expect(words.every((word) => word !== 0n)).toBe(true);
      looked++;
      expect(visible(view, words)).toBe(false);
      // What no guest address leads to.
      for (let spa = MEMORY; spa < view.systemBytes; spa += PAGE) {
        const seen = view.readSystem(spa, PAGE);
        expect(seen.ok && holds(seen.bytes, words)).toBe(false);
      }
      for (const { lo, hi } of [vmcb.ghcb, vmcb.exitInfo1, vmcb.exitInfo2, vmcb.exitIntInfo])
        expect(words).not.toContain((BigInt(hi) << 32n) | BigInt(lo));
      return false;
    },
  });
  machine.run(20_000);
  expect(looked).toBe(4);
  expect(machine.view).toBe(hand().view);
}, 120_000);

test('two runs are equal to the state hash, also in odd slices and through a snapshot', () => {
  const whole = runSnp(program, { budget: 20_000 });
  const expected = stateHash(whole.machine);
  const { machine } = snpMachine(program);
  for (let k = 0; k < 200; k++) if (machine.run(1 + ((k * 37) % 11)).kind !== 'budget') break;
  machine.run(20_000);
  expect(stateHash(machine)).toBe(expected);
  const { machine: first } = snpMachine(program);
  first.run(60);
  const restored = restoreSnapshot(takeSnapshot(first), { sink: { mask: 0, emit: () => undefined } });
  if (!restored.ok) throw new Error(restored.reason);
  restored.machine.run(20_000);
  expect(stateHash(restored.machine)).toBe(expected);
});
