/** Nothing outside shows in a TD's run: slices, where frames lie, and snapshots in between. */
import { describe, expect, it } from 'vitest';
import { TDVMCALL } from '../src/abi/tdx/ghci.ts';
import { TDG } from '../src/abi/tdx/leaves.ts';
import type { Machine } from '../src/machine/machine.ts';
import { restoreSnapshot, takeSnapshot } from '../src/machine/snapshot.ts';
import { stateHash } from '../src/machine/state-hash.ts';
import { at, eax, ecx, edx, r10, r11, r12, r13, rax, rbx, rcx } from './asm.ts';
import { enterL2, prepareL2, shareWithL2, skipL2 } from './td-l2.ts';
import { AT, tdMachine, tdPages, TDCALL_BYTES, type TdGuest, type TdOptions } from './td.ts';

const FREE = BigInt(AT.free);
const SHARED = 1n << 47n;
const LENGTH = 120_000;

/** Accepts, converts, takes interrupts, asks for randomness and time, for ever. */
function busy({ a }: TdGuest): void {
  const call = (): void => a.db(...TDCALL_BYTES);
  a.db(0xfb);
  a.label('round');
  a.movabs(rax, BigInt(TDG.memPageAccept));
  a.movabs(rcx, FREE | 1n);
  call();
  a.movabs(rax, BigInt(TDG.memPageAccept));
  a.movabs(rcx, FREE + 0x3000n);
  call();
  a.mov(ecx, 2000);
  a.movabs(rbx, FREE);
  a.label('fill');
  a.db(0x0f, 0xc7, 0xf0); // rdrand eax
  a.alu('xor', at({ base: rbx, disp: 8 }), rax);
  a.alu('add', at({ base: rbx, index: rcx, scale: 8, disp: 0x4000 }), rax);
  a.dec(ecx);
  a.jcc('ne', 'fill');
  a.mov(ecx, 0x83f);
  a.mov(eax, 0x55);
  a.alu('xor', edx, edx);
  a.wrmsr();
  a.mov(eax, 0x4000_0001);
  a.db(0x0f, 0xa2); // cpuid
  for (const start of [(FREE + 0x3000n) | SHARED, FREE + 0x3000n]) {
    a.movabs(r10, 0n);
    a.movabs(r11, BigInt(TDVMCALL.mapGpa));
    a.movabs(r12, start);
    a.movabs(r13, 0x1000n);
    a.movabs(rcx, 0x3c00n);
    a.movabs(rax, 0n);
    call();
  }
  a.db(0x0f, 0x31); // rdtsc
  a.mov(at({ disp: AT.results }), rax);
  a.jmp('round');
}

/** L1 and an L2 VM that leaves again and again. */
function nested(guest: TdGuest): void {
  const { a } = guest;
  shareWithL2(guest, 'share', 0, 0x3_0000);
  prepareL2(guest, 'l2');
  a.label('again');
  enterL2(guest, 0);
  skipL2(guest, 2);
  a.jmp('again');
  a.label('l2');
  a.mov(ecx, 300);
  a.label('work');
  a.db(0x0f, 0xc7, 0xf0);
  a.alu('xor', at({ disp: AT.scratch + 0x5000 }), rax);
  a.dec(ecx);
  a.jcc('ne', 'work');
  a.db(0x0f, 0xa2);
  a.jmp('l2');
}

function shuffled(count: number): Uint32Array {
  return Uint32Array.from({ length: count }, (_, k) => count - 1 - k);
}

function runTo(machine: Machine, count: number): void {
  while (machine.instructions < count) {
    const reason = machine.run(count - machine.instructions);
    if (reason.kind !== 'budget') throw new Error(`ended early: ${reason.kind}`);
  }
}

describe.each<readonly [string, (guest: TdGuest) => void, TdOptions]>([
  ['an L1 TD', busy, { vcpus: 2 }],
  ['an L1 TD with an L2 VM', nested, { l2Vms: 1 }],
])('%s', (_name, program, options) => {
  const pages = tdPages(program);
  const whole = (): Machine => {
    const machine = tdMachine(pages, options);
    runTo(machine, LENGTH);
    return machine;
  };
  const expected = stateHash(whole());

  it('runs the same in odd slices and with other frames', () => {
    const machine = tdMachine(pages, { ...options, frameOrder: shuffled });
    for (let count = 0, step = 1; count < LENGTH; count += step, step = (step * 7 + 3) % 997)
      runTo(machine, Math.min(LENGTH, count + step));
    runTo(machine, LENGTH);
    expect(stateHash(machine)).toBe(expected);
  });

  it('runs the same through snapshots', () => {
    let machine = tdMachine(pages, options);
    for (const count of [3_001, 17_777, 40_404, 77_003, 99_999]) {
      runTo(machine, count);
      const outcome = restoreSnapshot(takeSnapshot(machine), {
        sink: { mask: 0, emit: () => undefined },
        frameOrder: shuffled,
      });
      if (!outcome.ok) throw new Error(outcome.reason);
      machine = outcome.machine;
    }
    runTo(machine, LENGTH);
    expect(stateHash(machine)).toBe(expected);
  });

  it('runs the same on the interpreter', () => {
    const machine = tdMachine(pages, { ...options, engine: 'interpreter' });
    runTo(machine, LENGTH);
    expect(stateHash(machine)).toBe(expected);
  });

  it('another seed gives another state', () => {
    const machine = tdMachine(pages, { ...options, seed: 2n });
    runTo(machine, LENGTH);
    expect(stateHash(machine)).not.toBe(expected);
  });
});
