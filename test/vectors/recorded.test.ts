import { readFileSync, readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { x86Defs } from '../../src/x86/all.ts';
import { VectorBench, compare, explain } from './compare.ts';
import { createVectorEngine } from './engine.ts';
import { FORMS } from './forms.ts';
import { readRecording } from './format.ts';
import { FAULT_RULES, RULES, splitForm } from './masks.ts';

const FOLDER = new URL('recorded/', import.meta.url);
const files = readdirSync(FOLDER)
  .filter((name) => name.endsWith('.zst'))
  .sort();
const read = (file: string): ReturnType<typeof readRecording> =>
  readRecording(readFileSync(new URL(file, FOLDER)));

describe('recorded instructions', () => {
  for (const file of files) {
    test(`${file} on the interpreter`, () => {
      const bench = new VectorBench(createVectorEngine());
      const failures: string[] = [];
      let total = 0;
      for (const { case: c, result } of read(file)) {
        total++;
        const differences = compare(c, result, bench.run(c));
        if (differences.length > 0) failures.push(explain(c, differences));
      }
      expect(`${failures.length} of ${total} differ\n${failures.slice(0, 5).join('\n\n')}`).toBe(
        `0 of ${total} differ\n`,
      );
    });
  }

  test('hold every form of the opcode map, mostly completed', () => {
    const completed = new Map<string, number>();
    for (const file of files.filter((name) => !/^(random|sequence)/.test(name))) {
      for (const { case: c, result } of read(file)) {
        completed.set(c.form, (completed.get(c.form) ?? 0) + (result.vector === undefined ? 1 : 0));
      }
    }
    const forms = new Set(FORMS.map((form) => form.name));
    expect([...forms].filter((form) => !completed.has(form))).toEqual([]);
    const never = [...completed].filter(([, count]) => count === 0).map(([form]) => splitForm(form).mnemonic);
    // Only what user code may not do, and what does not exist.
    expect([...new Set(never)].filter((name) => !/^ud/.test(name)).sort()).toEqual(PRIVILEGED);
  });

  test('fail when one definition sets a wrong flag', () => {
    const stc = x86Defs.find((def) => def.name === 'stc');
    if (stc === undefined) throw new Error('no definition of STC');
    const defs = x86Defs.map((def) => (def.name === 'cmc' ? { ...def, sem: stc.sem } : def));
    const bench = new VectorBench(createVectorEngine('EPYC-Milan', defs));
    let differences = 0;
    for (const { case: c, result } of read('integer.vectors.zst')) {
      if (/^(cmc|clc)/.test(c.form) && compare(c, result, bench.run(c)).length > 0) {
        expect(c.form).toBe('cmc');
        differences++;
      }
    }
    expect(differences).toBeGreaterThan(0);
  });

  test('every rule of the table of masks names instructions that exist', () => {
    // Not in 64-bit mode, in which the forms are.
    const others = ['aaa', 'aas', 'aad', 'aam', 'daa', 'das', 'callf', 'popa', 'popad'];
    const mnemonics = new Set([...FORMS.map((form) => form.mnemonic), ...others]);
    expect(
      [...RULES, ...FAULT_RULES].flatMap((rule) => rule.mnemonics).filter((name) => !mnemonics.has(name)),
    ).toEqual([]);
  });
});

const PRIVILEGED = [
  'clac',
  'cli',
  'clts',
  'hlt',
  'in',
  'insb',
  'insd',
  'int3',
  'invd',
  'invlpg',
  'invpcid',
  'lgdt',
  'lidt',
  'lldt',
  'lmsw',
  'ltr',
  'mov',
  'out',
  'outsb',
  'outsd',
  'rdmsr',
  'rdpkru',
  'stac',
  'sti',
  'swapgs',
  'sysret',
  'wbinvd',
  'wbnoinvd',
  'wrmsr',
  'wrpkru',
  'xrstors',
  'xsaves',
  'xsetbv',
];
