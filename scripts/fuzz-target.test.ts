import { beforeAll, describe, expect, test } from 'vitest';
import { IDLE_GUEST } from '../guests/compute.ts';
import { CODE_MODES, OUTCOMES, codeCase, mutatedImage, type FuzzTarget } from './fuzz-cases.ts';
import { createFuzzTarget } from './fuzz-target.ts';

let target: FuzzTarget;
beforeAll(() => {
  target = createFuzzTarget('check');
});

/** A register with this value lies behind memory: a device's space. */
const DEVICE = 0xf000_0000n;
const registers = (rbx: bigint): BigUint64Array => {
  const values = new BigUint64Array(16);
  values[0] = 1n;
  values[3] = rbx;
  return values;
};

describe('fuzz target', () => {
  test.each([
    ['frstor [rbx]', [0xdd, 0x23]],
    ['fnsave [rbx]', [0xdd, 0x33]],
    ['fxrstor [rbx]', [0x0f, 0xae, 0x0b]],
    ['fxsave [rbx]', [0x0f, 0xae, 0x03]],
    ['enter 0, 31 with RBP and RSP there', [0x89, 0xdc, 0x89, 0xdd, 0xc8, 0, 0, 31]],
  ])('%s asks a device many times and ends', (_name, code) => {
    const outcome = target.runCode(
      { mode: 'protected-32', code: Uint8Array.from(code), registers: registers(DEVICE) },
      1000,
    );
    expect(['halted', 'shutdown']).toContain(outcome);
    // What the answers could have overwritten still works.
    const next = { mode: 'long' as const, code: Uint8Array.of(0x90), registers: registers(0n) };
    expect(target.runCode(next, 1000)).toBe('halted');
  });

  test('a breakpoint on the handler of #DB ends with the budget', () => {
    // MOV DR0, EBX; MOV DR7, ECX; ICEBP: the handler's first instruction is a breakpoint, in real mode with RF clear.
    const code = Uint8Array.of(0x66, 0x0f, 0x23, 0xc3, 0x66, 0x0f, 0x23, 0xf9, 0xf1);
    const values = registers(0x3000n);
    values[1] = 0x402n;
    values[0] = 4n;
    expect(target.runCode({ mode: 'real', code, registers: values }, 500)).toBe('budget');
  });

  test('a case does not depend on those before it', () => {
    const cases = CODE_MODES.flatMap((mode) => Array.from({ length: 40 }, (_, i) => codeCase(7, mode, i)));
    const run = (list: typeof cases): string[] => list.map((c) => target.runCode(c, 300));
    const forward = run(cases);
    expect(run([...cases].reverse()).reverse()).toEqual(forward);
    expect(new Set(forward).size).toBeGreaterThan(1);
    for (const outcome of forward) expect(OUTCOMES).toContain(outcome);
  });

  test('damaged images end in one of the outcomes', () => {
    const base = IDLE_GUEST.image(1);
    const seen = new Set(
      Array.from({ length: 60 }, (_, i) => target.runImage(mutatedImage(3, base, i), 3000)),
    );
    expect([...seen].filter((outcome) => !OUTCOMES.includes(outcome))).toEqual([]);
    expect(seen.size).toBeGreaterThan(1);
  });
});
