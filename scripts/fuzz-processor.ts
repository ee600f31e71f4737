/**
 * Feeds the processor what no compiler writes: random byte strings as code in each mode, and damaged multiboot images.
 * Each must end in one of the outcomes a guest may have, without an exception, a hang, or memory that grows.
 *
 *     node scripts/fuzz-processor.ts [--count 100000] [--seed 1] [--modes real,long,...] [--no-images]
 *       [--budget 1000] [--from N] [--engine NAME] [--target MODULE] [--hang SECONDS] [--grow MIB]
 *
 * `--engine` is `translator` (what goes round is translated), `interpreter`, or `check`: each case on both, with the same outcome
 * and the same state at its end.
 * The machine under test is a module with `createFuzzTarget(engine): FuzzTarget`. It runs in a worker that announces each
 * case before it starts it, so that a hang is named and stopped. A failure prints the command that repeats it.
 */
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { IDLE_GUEST } from '../guests/compute.ts';
import {
  CODE_MODES,
  type CodeMode,
  FUZZ_ENGINES,
  type FuzzEngine,
  type FuzzTarget,
  OUTCOMES,
  codeCase,
  mutatedImage,
} from './fuzz-cases.ts';

interface Job {
  readonly target: string;
  readonly engine: FuzzEngine;
  readonly seed: number;
  readonly from: number;
  readonly count: number;
  readonly budget: number;
  readonly growMiB: number;
  readonly kinds: readonly (CodeMode | 'image')[];
  /** [index of the kind, index of the case] that runs now. */
  readonly current: Int32Array;
}

type Message =
  | { readonly kind: 'done'; readonly of: string; readonly outcomes: Readonly<Record<string, number>> }
  | { readonly kind: 'failure'; readonly of: string; readonly index: number; readonly text: string };

/** Cases before memory is measured: enough for every lazily made table and for the host's compiler to settle. */
const WARM_UP = 2000;

/** An image that starts soundly needs this much more than a string of bytes to get through its preparations. */
const IMAGE_BUDGET = 10;

async function work(job: Job): Promise<void> {
  const module = (await import(job.target)) as { createFuzzTarget: (engine: FuzzEngine) => FuzzTarget };
  const target = module.createFuzzTarget(job.engine);
  const base = IDLE_GUEST.image(1);
  const send = (message: Message): void => parentPort?.postMessage(message);
  job.kinds.forEach((kind, kindIndex) => {
    const outcomes: Record<string, number> = Object.fromEntries(OUTCOMES.map((outcome) => [outcome, 0]));
    let before = 0;
    for (let index = job.from; index < job.from + job.count; index++) {
      Atomics.store(job.current, 0, kindIndex);
      Atomics.store(job.current, 1, index);
      try {
        const outcome =
          kind === 'image'
            ? target.runImage(mutatedImage(job.seed, base, index), job.budget * IMAGE_BUDGET)
            : target.runCode(codeCase(job.seed, kind, index), job.budget);
        if (!OUTCOMES.includes(outcome))
          send({ kind: 'failure', of: kind, index, text: `outcome ${String(outcome)}` });
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
      } catch (error) {
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
        send({ kind: 'failure', of: kind, index, text });
      }
      if (index === job.from + WARM_UP) before = process.memoryUsage().rss;
    }
    const grown = (process.memoryUsage().rss - before) / 2 ** 20;
    if (before > 0 && grown > job.growMiB) {
      const index = job.from + job.count - 1;
      send({ kind: 'failure', of: kind, index, text: `memory grew by ${grown.toFixed(0)} MiB` });
    }
    send({ kind: 'done', of: kind, outcomes });
  });
}

function main(): void {
  const { values: options } = parseArgs({
    allowNegative: true,
    options: {
      count: { type: 'string', default: '100000' },
      seed: { type: 'string', default: '1' },
      from: { type: 'string', default: '0' },
      budget: { type: 'string', default: '1000' },
      modes: { type: 'string', default: CODE_MODES.join(',') },
      images: { type: 'boolean', default: true },
      engine: { type: 'string', default: 'translator' },
      target: { type: 'string', default: new URL('./fuzz-target.ts', import.meta.url).pathname },
      hang: { type: 'string', default: '20' },
      grow: { type: 'string', default: '256' },
    },
  });
  const modes = options.modes.split(',').filter((mode) => mode !== '');
  const unknown = modes.find((mode) => !CODE_MODES.some((known) => known === mode));
  if (unknown !== undefined) {
    console.error(`fuzz: no mode ${unknown}; the modes are ${CODE_MODES.join(', ')}.`);
    process.exit(2);
  }
  const engine = FUZZ_ENGINES.find((known) => known === options.engine);
  if (engine === undefined) {
    console.error(`fuzz: no engine ${options.engine}; the engines are ${FUZZ_ENGINES.join(', ')}.`);
    process.exit(2);
  }
  const current = new Int32Array(new SharedArrayBuffer(8));
  const job: Job = {
    target: pathToFileURL(resolve(options.target)).href,
    engine,
    seed: Number(options.seed),
    from: Number(options.from),
    count: Number(options.count),
    budget: Number(options.budget),
    growMiB: Number(options.grow),
    kinds: [...(modes as CodeMode[]), ...(options.images ? ['image' as const] : [])],
    current,
  };
  let failures = 0;
  const say = (of: string, index: number, text: string): void => {
    failures++;
    if (failures > 20) return;
    const which = of === 'image' ? '--modes= --images' : `--modes ${of} --no-images`;
    console.log(`FAIL ${of} ${String(index)}: ${text}`);
    console.log(
      `  again: node scripts/fuzz-processor.ts --seed ${options.seed} --from ${String(index)} --count 1 --engine ${engine} ${which}`,
    );
  };

  const worker = new Worker(new URL(import.meta.url), { workerData: job });
  let seen = '';
  let since = performance.now();
  const watch = setInterval(() => {
    const now = `${String(Atomics.load(current, 0))}/${String(Atomics.load(current, 1))}`;
    if (now !== seen) {
      seen = now;
      since = performance.now();
    } else if (performance.now() - since > Number(options.hang) * 1000) {
      say(
        job.kinds[Atomics.load(current, 0)] ?? '',
        Atomics.load(current, 1),
        `no end after ${options.hang} s`,
      );
      process.exit(1);
    }
  }, 500);
  worker.on('message', (message: Message) => {
    if (message.kind === 'failure') {
      say(message.of, message.index, message.text);
      return;
    }
    const counts = Object.entries(message.outcomes).map(([outcome, count]) => `${outcome} ${String(count)}`);
    console.log(`${message.of.padEnd(18)} ${counts.join(', ')}`);
  });
  worker.on('error', (error) => {
    say(job.kinds[Atomics.load(current, 0)] ?? '', Atomics.load(current, 1), String(error.stack));
  });
  worker.on('exit', () => {
    clearInterval(watch);
    console.log(failures === 0 ? 'no failures' : `${String(failures)} failures`);
    process.exit(failures === 0 ? 0 : 1);
  });
}

if (isMainThread) main();
else await work(workerData as Job);
