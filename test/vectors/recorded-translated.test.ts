/** The recorded cases as regions of the translator, and with budgets that lead in and out of regions. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { x86Defs } from '../../src/x86/all.ts';
import { VectorBench, compare, explain } from './compare.ts';
import { type VectorEngineKind, createVectorEngine } from './engine.ts';
import { readRecording } from './format.ts';

/** File, engine, and which cases: one of so many. `scripts/host-vectors.ts --recorded --engine translator` runs them all. */
const runs: readonly (readonly [string, VectorEngineKind, number])[] = [
  ['integer', 'translator', 3],
  ['mmx', 'translator', 3],
  ['sse', 'translator', 3],
  ['x87', 'translator', 3],
  ['random', 'translator', 3],
  ['sequence', 'translator', 1],
  ['sequence', 'mixed', 1],
];

describe('recorded instructions', () => {
  test.each(runs)('%s.vectors.zst on the engine: %s', (name, kind, each) => {
    const bench = new VectorBench(createVectorEngine('EPYC-Milan', x86Defs, false, kind));
    const failures: string[] = [];
    let [seen, total] = [0, 0];
    for (const { case: c, result } of readRecording(
      readFileSync(new URL(`recorded/${name}.vectors.zst`, import.meta.url)),
    )) {
      if (seen++ % each !== 0) continue;
      total++;
      const differences = compare(c, result, bench.run(c));
      if (differences.length > 0) failures.push(explain(c, differences));
    }
    expect(`${failures.length} of ${total} differ\n${failures.slice(0, 5).join('\n\n')}`).toBe(
      `0 of ${total} differ\n`,
    );
    // What the interpreter must do itself, or what only its steps show the end of, is the small part.
    expect(bench.counts.translated).toBeGreaterThan(total / 2);
  });
});
