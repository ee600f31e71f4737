/**
 * `npm run bench:tracing`: what it costs that a boot can be traced. The same instructions of one boot with nobody listening, with
 * the flight recorder that every boot has, and with every event written to a file; processor time, in turns, medians. Each
 * round begins with another of the three, because the first after a pause pays for the memory of the last.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeMachine, findConfiguration, type Configuration } from '../src/machine/configurations.ts';
import { Apt } from '../src/node/apt.ts';
import { prepare } from '../src/node/build.ts';
import { Cache } from '../src/node/cache.ts';
import { defaultCacheDir } from '../src/node/cache-folder.ts';
import { EventLog } from '../src/node/event-log.ts';
import { FlightRecorder } from '../src/node/flight-recorder.ts';
import { bootsOf } from '../src/node/matrix/whole.ts';
import { DEFAULTS } from '../src/node/matrix/defaults.ts';
import type { EventSink } from '../src/seats/events.ts';
import { median } from './statistics.ts';

const ROUNDS = 6;
const INSTRUCTIONS = 1_400_000_000;

const folder = mkdtempSync(join(tmpdir(), 'vitrine-tracing-'));
const cache = new Cache(defaultCacheDir());
const source = { cache, apt: new Apt(cache), offline: false, say: () => undefined };
const [boot] = bootsOf({ ...DEFAULTS, cacheDir: defaultCacheDir() }, ['plain']);
if (boot === undefined) throw new Error('there is no plain configuration');

const NOBODY: EventSink = { mask: 0, emit: () => undefined };
const WAYS: readonly (readonly [name: string, sink: () => EventSink & { close?(): void }])[] = [
  ['nobody listens', () => NOBODY],
  ['flight recorder', () => new FlightRecorder()],
  ['--trace', () => new EventLog(join(folder, 'trace.jsonl'))],
];

async function seconds(sink: EventSink & { close?(): void }): Promise<number> {
  const { request } = await prepare((boot as NonNullable<typeof boot>).options, source, sink);
  const made = makeMachine(findConfiguration('plain') as Configuration, request);
  if (!made.ok) throw new Error(made.error.what);
  const before = process.cpuUsage();
  while (made.machine.instructions < INSTRUCTIONS)
    if (made.machine.run(INSTRUCTIONS - made.machine.instructions).kind !== 'budget') break;
  sink.close?.();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

try {
  const times = WAYS.map((): number[] => []);
  await seconds(NOBODY);
  for (let round = 0; round < ROUNDS; round++)
    for (let turn = 0; turn < WAYS.length; turn++) {
      const k = (round + turn) % WAYS.length;
      times[k]?.push(await seconds((WAYS[k] as (typeof WAYS)[number])[1]()));
    }
  const base = median(times[0] ?? []);
  for (const [k, [name]] of WAYS.entries()) {
    const value = median(times[k] ?? []);
    console.log(
      `${name.padEnd(18)}${value.toFixed(2).padStart(7)} s ${(value / base).toFixed(3).padStart(7)}`,
    );
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
