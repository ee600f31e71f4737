/**
 * Instruction cases on the processor of this machine (x86-64 Linux with a C compiler).
 *
 *     node scripts/host-vectors.ts --record [--each N] [--random N] [--sequences N] [--seed S]
 *     node scripts/host-vectors.ts --fresh N [--seed S] [--kind form|random|compatibility|alignment|segments|sequence|program] [--only NAME,...]
 *       [--engine NAME,...] [--native-only] [--show N]
 *     node scripts/host-vectors.ts --recorded [--only NAME,...] [--engine NAME,...]  the recorded cases
 *     node scripts/host-vectors.ts --counts                      the table of recorded cases, as Markdown
 *
 * `--fresh` makes N cases, runs them on the processor and on each engine (interpreter, translator, mixed; the first when none
 * is named) and prints the differences. Locked accesses
 * across cache lines are left out where the kernel stops processes that make them. The exit status is 1
 * when there is one.
 */
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { x86Defs } from '../src/x86/all.ts';
import { VectorBench, type VectorEngine, compare, explain } from '../test/vectors/compare.ts';
import { describeUncovered } from '../test/vectors/coverage.ts';
import { type VectorEngineKind, createVectorEngine } from '../test/vectors/engine.ts';
import { type Form, FORMS } from '../test/vectors/forms.ts';
import { type Indexed, readRecording, writeRecording } from '../test/vectors/format.ts';
import { generateCase } from '../test/vectors/generate.ts';
import { describeRules, splitForm } from '../test/vectors/masks.ts';
import { runNative } from '../test/vectors/native.ts';
import { programCase } from '../test/vectors/program.ts';
import { decode, randomCase, randomCompatibilityCase, randomKind } from '../test/vectors/random.ts';
import { isSplitLock } from '../test/vectors/split-lock.ts';
import { segmentCase } from '../test/vectors/segments.ts';
import { sequenceCase } from '../test/vectors/sequence.ts';
import { type VectorCase, type VectorResult, RFLAGS, mix, view } from '../test/vectors/state.ts';
import { Formatter, FormatterSyntax } from 'iced-x86';

const { values: options } = parseArgs({
  options: {
    record: { type: 'boolean', default: false },
    recorded: { type: 'boolean', default: false },
    counts: { type: 'boolean', default: false },
    fresh: { type: 'string' },
    each: { type: 'string', default: '24' },
    random: { type: 'string' },
    sequences: { type: 'string' },
    kind: { type: 'string', default: 'form' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
    show: { type: 'string', default: '10' },
    engine: { type: 'string', default: 'interpreter' },
    'native-only': { type: 'boolean', default: false },
  },
});

const FOLDER = fileURLToPath(new URL('../test/vectors/recorded/', import.meta.url));

function refuse(message: string): never {
  console.error(`host-vectors: ${message}`);
  process.exit(2);
}

function whole(text: string | undefined, name: string): number {
  const value = Number(text ?? 0);
  if (!Number.isInteger(value) || value < 0) refuse(`--${name} wants a whole number, not ${text}`);
  return value;
}

const formatter = new Formatter(FormatterSyntax.Intel);
const disassemble = (code: Uint8Array, rip: bigint, bits: 16 | 32 | 64): string => {
  const instruction = decode(code, rip, bits);
  const text = formatter.format(instruction);
  instruction.free();
  return text;
};

const KINDS = ['interpreter', 'translator', 'mixed'] as const;
const engineKinds = (): VectorEngineKind[] =>
  options.engine.split(',').map((name) => {
    const kind = KINDS.find((known) => known === name);
    return kind ?? refuse(`--engine is a list of ${KINDS.join(', ')}, not ${name}`);
  });

/** The engines as the model of this machine's vendor, with what its kernel has switched on. */
function hostEngines(): VectorEngine[] {
  const info = readFileSync('/proc/cpuinfo', 'utf8');
  const model = info.includes('GenuineIntel') ? 'SapphireRapids' : 'EPYC-Milan';
  const keys = /^flags\s*:.* ospke\b/m.test(info);
  return engineKinds().map((kind) => createVectorEngine(model, x86Defs, keys, kind));
}

interface Made {
  readonly case: VectorCase;
  readonly kind: Indexed['kind'];
  readonly index: number;
}

const seed = whole(options.seed, 'seed');
const matches = (name: string): boolean =>
  options.only === undefined ||
  options.only.split(',').some((part) => name === part || splitForm(name).mnemonic === part);

/** Counts failed forms and shows the first cases. */
class Report {
  failures = 0;
  total = 0;
  readonly byForm = new Map<string, number>();
  readonly #bench: VectorBench;
  readonly #name: string;
  #shown = 0;
  readonly #limit = whole(options.show, 'show');

  constructor(engine: VectorEngine) {
    this.#bench = new VectorBench(engine);
    this.#name = engine.name;
  }

  check(c: VectorCase, expected: VectorResult): void {
    this.total++;
    const actual = this.#bench.run(c);
    const differences = compare(c, expected, actual);
    if (differences.length === 0) return;
    this.failures++;
    const seen = this.byForm.get(c.form) ?? 0;
    this.byForm.set(c.form, seen + 1);
    if (seen < 2 && this.#shown < this.#limit) {
      this.#shown++;
      console.log(explain(c, differences, disassemble), '\n');
    }
  }

  end(): void {
    const { translated, untranslated, executed, interpreted } = this.#bench.counts;
    if (translated > 0) {
      console.log(`${translated} cases began in a region, ${untranslated} cannot, the others are stepped`);
      const share = (100 * (1 - interpreted / executed)).toFixed(1);
      console.log(`${executed} instructions of them, ${share} % in regions`);
    }
    const forms = [...this.byForm].sort((a, b) => b[1] - a[1]);
    for (const [form, count] of forms.slice(0, 400)) console.log(`${String(count).padStart(6)}  ${form}`);
    console.log(`${this.total} cases on ${this.#name}: ${this.failures} differ, in ${forms.length} forms`);
    if (this.failures > 0) process.exitCode = 1;
  }
}

/** A WRPKRU that succeeds and takes key 0 away: the process then cannot write down what happened. */
function closesOwnMemory({ form, state }: VectorCase): boolean {
  const [eax, ecx, edx] = [0, 8, 16].map((at) => view(state).getUint32(at, true));
  return form === 'wrpkru' && ecx === 0 && edx === 0 && ((eax ?? 0) & 3) !== 0;
}

const WEIGHTED: readonly Form[] = FORMS.flatMap((form) => Array<Form>(form.weight).fill(form));

const FRESH_KINDS = [
  'form',
  'random',
  'compatibility',
  'alignment',
  'segments',
  'sequence',
  'program',
] as const;
type Kind = (typeof FRESH_KINDS)[number];

function make(index: number, fileSeed: number, kind: Kind, form: Form): Made {
  const caseSeed = mix(fileSeed, index);
  if (kind === 'random') return { case: randomCase(caseSeed), kind: randomKind(caseSeed), index };
  if (kind === 'compatibility')
    return { case: randomCompatibilityCase(caseSeed), kind: randomKind(caseSeed), index };
  if (kind === 'alignment') {
    // EFLAGS.AC over the other kinds of single instructions.
    const made = make(
      index,
      fileSeed,
      (['form', 'random', 'compatibility'] as const)[index % 3] ?? 'form',
      form,
    );
    const v = view(made.case.state);
    v.setUint32(RFLAGS, v.getUint32(RFLAGS, true) | 0x40000, true);
    return made;
  }
  if (kind === 'segments') return { case: segmentCase(caseSeed), kind: 'int', index };
  if (kind === 'sequence') return { case: sequenceCase(caseSeed), kind: 'f32', index };
  if (kind === 'program') return { case: programCase(caseSeed), kind: 'f32', index };
  return { case: generateCase(form, caseSeed), kind: form.kind, index };
}

function withResults(made: readonly Made[]): Indexed[] {
  const results = runNative(made.map((m) => m.case));
  return made.flatMap((m, i) => {
    const result = results[i];
    return result === undefined ? [] : [{ ...m, result }];
  });
}

function record(): void {
  const each = whole(options.each, 'each');
  mkdirSync(FOLDER, { recursive: true });
  const group = (form: Form): string =>
    form.kind === 'x87' || form.mnemonic.startsWith('fx')
      ? 'x87'
      : form.operands.some((o) => 'PQN'.includes(o.letter)) || form.mnemonic === 'emms'
        ? 'mmx'
        : form.kind !== 'int' || form.operands.some((o) => 'VWU'.includes(o.letter))
          ? 'sse'
          : 'integer';
  const write = (name: string, fileSeed: number, made: readonly Made[]): void => {
    const file = writeRecording(fileSeed, withResults(made));
    writeFileSync(`${FOLDER}${name}.vectors.zst`, file);
    console.log(`${name}: ${made.length} cases, ${file.length} bytes`);
  };
  ['integer', 'x87', 'mmx', 'sse'].forEach((name, g) => {
    const fileSeed = mix(seed, g + 1);
    let index = 0;
    const made = FORMS.filter((form) => group(form) === name).flatMap((form) =>
      // More where values matter more than encodings.
      Array.from({ length: each * form.weight * (form.kind === 'int' || form.kind === 'mmx' ? 1 : 2) }, () =>
        make(index++, fileSeed, 'form', form),
      ),
    );
    write(name, fileSeed, made);
  });
  const extra = (name: 'random' | 'sequence', count: number, fileSeed: number): void =>
    write(
      name,
      fileSeed,
      Array.from({ length: count }, (_, i) => make(i, fileSeed, name, FORMS[0] as Form)),
    );
  extra('random', whole(options.random ?? '10000', 'random'), mix(seed, 11));
  extra('sequence', whole(options.sequences ?? '1500', 'sequences'), mix(seed, 12));
}

const recordedFiles = (): string[] =>
  readdirSync(FOLDER)
    .filter((name) => name.endsWith('.zst'))
    .sort();

function counts(): void {
  const table = new Map<string, Map<string, { total: number; faults: number }>>();
  let total = 0;
  for (const file of recordedFiles()) {
    for (const { case: c, result } of readRecording(readFileSync(FOLDER + file))) {
      total++;
      const section = file.replace('.vectors.zst', '');
      const name = section === 'random' || section === 'sequence' ? '*' : c.form;
      const forms = table.get(section) ?? new Map<string, { total: number; faults: number }>();
      table.set(section, forms);
      const entry = forms.get(name) ?? { total: 0, faults: 0 };
      entry.total++;
      if (result.vector !== undefined) entry.faults++;
      forms.set(name, entry);
    }
  }
  console.log('# Recorded instruction vectors\n');
  console.log(
    'What `test/vectors/recorded` holds, by mnemonic and form, and what the comparison may ignore.',
  );
  console.log('Written by `node scripts/host-vectors.ts --counts`.\n');
  console.log(
    `${total} cases, recorded on an AMD processor of family 26. In brackets: how many end in an exception.`,
  );
  for (const [section, forms] of table) {
    const sum = [...forms.values()].reduce((a, b) => a + b.total, 0);
    console.log(`\n## ${section}: ${sum} cases, ${forms.size} forms\n`);
    const byMnemonic = new Map<string, string[]>();
    for (const [form, { total: n, faults }] of forms) {
      const { mnemonic } = splitForm(form);
      const list = byMnemonic.get(mnemonic) ?? [];
      byMnemonic.set(mnemonic, list);
      list.push(
        `${form.replace(mnemonic, '').replace(/ +/g, ' ').trim() || 'plain'} ${n}${faults > 0 ? ` (${faults})` : ''}`,
      );
    }
    for (const [mnemonic, list] of byMnemonic)
      console.log(`- ${mnemonic === '*' ? 'all' : mnemonic}: ${list.join('; ')}`);
  }
  console.log('\n## What is not recorded\n');
  console.log(describeUncovered());
  console.log('\n## What is not compared\n');
  console.log(describeRules());
}

function fresh(count: number): void {
  const kind =
    FRESH_KINDS.find((known) => known === options.kind) ??
    refuse(`--kind is one of ${FRESH_KINDS.join(', ')}, not ${options.kind}`);
  const forms = WEIGHTED.filter((form) => matches(form.name));
  if (forms.length === 0) refuse(`no form matches ${options.only}`);
  const reports = options['native-only'] ? [] : hostEngines().map((engine) => new Report(engine));
  const BLOCK = 40000;
  let vectors = 0;
  const detected = /^flags\s*:.* (split|bus)_lock_detect\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'));
  let splits = 0;
  for (let from = 0; from < count; from += BLOCK) {
    const fileSeed = mix(seed, 1000 + from / BLOCK);
    const made = Array.from({ length: Math.min(BLOCK, count - from) }, (_, i) =>
      make(from + i, fileSeed, kind, forms[(from + i) % forms.length] as Form),
    ).filter((m) => {
      if (closesOwnMemory(m.case)) return false;
      const left = detected && isSplitLock(m.case);
      if (left) splits++;
      return !left;
    });
    for (const entry of withResults(made)) {
      vectors += entry.result.vector === undefined ? 0 : 1;
      for (const report of reports) report.check(entry.case, entry.result);
    }
  }
  if (splits > 0)
    console.log(`${splits} locked accesses across cache lines left out: this kernel stops them`);
  console.log(`${count - splits} cases on this processor, ${vectors} with an exception`);
  for (const report of reports) report.end();
}

function recorded(): void {
  const reports = engineKinds().map(
    (kind) => new Report(createVectorEngine('EPYC-Milan', x86Defs, false, kind)),
  );
  for (const file of recordedFiles()) {
    for (const { case: c, result } of readRecording(readFileSync(FOLDER + file)))
      if (matches(c.form)) for (const report of reports) report.check(c, result);
  }
  for (const report of reports) report.end();
}

if (options.record) record();
else if (options.counts) counts();
else if (options.recorded) recorded();
else if (options.fresh !== undefined) fresh(whole(options.fresh, 'fresh'));
else refuse('say --record, --recorded, --counts or --fresh N');
