import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { x86Defs } from '../../src/x86/all.ts';
import { VectorBench } from './compare.ts';
import { createVectorEngine } from './engine.ts';
import { KNOWN, type Known, registerOffset } from './known.ts';
import { hasSegments, runNative } from './native.ts';
import { DATA, FSW, MXCSR, RFLAGS, RIP, ST, type VectorResult, XMM, view, windowContent } from './state.ts';

function check(known: Known, result: VectorResult): void {
  const v = view(result.state);
  expect(result.vector).toBe(known.vector);
  if (known.errorCode !== undefined) expect(result.errorCode).toBe(known.errorCode);
  if (known.cr2 !== undefined) expect(result.cr2).toBe(known.cr2);
  for (const [name, value] of Object.entries(known.registers ?? {})) {
    expect(v.getBigUint64(registerOffset(name), true), name).toBe(value);
  }
  if (known.flags !== undefined)
    expect(v.getUint32(RFLAGS, true) & known.flags[0], 'rflags').toBe(known.flags[1]);
  if (known.rip !== undefined) expect(Number(v.getBigUint64(RIP, true)), 'rip').toBe(known.rip);
  if (known.xmm0 !== undefined) {
    expect([v.getBigUint64(XMM + 8, true), v.getBigUint64(XMM, true)], 'xmm0').toEqual(known.xmm0);
  }
  if (known.mxcsr !== undefined) expect(v.getUint32(MXCSR, true), 'mxcsr').toBe(known.mxcsr);
  if (known.st0 !== undefined)
    expect([v.getUint16(ST + 8, true), v.getBigUint64(ST, true)], 'st0').toEqual(known.st0);
  if (known.fsw !== undefined) expect(v.getUint16(FSW, true) & known.fsw[0], 'fsw').toBe(known.fsw[1]);
  if (known.memory !== undefined) {
    const memory = windowContent().data;
    for (const list of [known.case.patches, result.changes])
      for (const p of list) memory.set(p.bytes, p.address - DATA);
    expect(view(memory).getBigUint64(known.memory[0] - DATA, true), 'memory').toBe(known.memory[1]);
  }
}

/** Why this machine's processor cannot be asked, or undefined. */
function unable(): string | undefined {
  if (process.platform !== 'linux' || process.arch !== 'x64') return 'needs x86-64 Linux';
  if (!readFileSync('/proc/cpuinfo', 'utf8').includes(' fsgsbase')) return 'needs FSGSBASE';
  if (spawnSync('cc', ['--version']).status !== 0) return 'needs a C compiler';
  return undefined;
}

describe('cases worked out by hand', () => {
  const reason = unable();
  test.skipIf(reason !== undefined)(
    `on this machine's processor${reason === undefined ? '' : `: ${reason}`}`,
    () => {
      const segments = hasSegments();
      const cases = KNOWN.filter((known) => segments || known.case.segments === undefined);
      const results = runNative(cases.map((known) => known.case));
      for (const [i, known] of cases.entries()) {
        const result = results[i];
        if (result === undefined) throw new Error(`${known.name}: no result`);
        try {
          check(known, result);
        } catch (error) {
          throw new Error(known.name, { cause: error });
        }
      }
    },
  );

  const bench = new VectorBench(createVectorEngine());
  const x87 = x86Defs.some((def) => def.name === 'fadd');
  for (const known of KNOWN) {
    const needs = known.st0 !== undefined || known.fsw !== undefined;
    test.skipIf(needs && !x87)(`on the interpreter: ${known.name}`, () =>
      check(known, bench.run(known.case)),
    );
  }
});
