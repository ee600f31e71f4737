/** The trace of a real boot in both forms: what the Chrome format asks of each record, and the same events in both. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { vitrine, whyNoKernel } from './vitrine.ts';

const missing = whyNoKernel();
const folder = mkdtempSync(join(tmpdir(), 'vitrine-trace-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Fields = Readonly<Record<string, unknown>>;
const isTime = (value: unknown): boolean => typeof value === 'number' && Number.isFinite(value) && value >= 0;
const isId = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 0;

/** Trace Event Format: fields that each phase must have, and nothing that is not known. */
const PHASES: Readonly<Record<string, (record: Fields) => boolean>> = {
  M: ({ name, args }) =>
    (name === 'process_name' || name === 'thread_name') &&
    typeof (args as Fields | undefined)?.['name'] === 'string',
  X: ({ dur, cat }) => isTime(dur) && typeof cat === 'string',
  i: ({ s, cat, args }) => s === 't' && typeof cat === 'string' && typeof args === 'object',
};
const FIELDS = new Set(['ph', 'name', 'cat', 'pid', 'tid', 'ts', 'dur', 's', 'args']);

function wrong(record: Fields): boolean {
  const { ph, name, pid, tid, ts } = record;
  const phase = PHASES[ph as string];
  const known = Object.keys(record).every((field) => FIELDS.has(field));
  return !(known && typeof name === 'string' && isId(pid) && isId(tid) && isTime(ts) && phase?.(record));
}

test.skipIf(missing !== undefined)(
  `--trace FILE.json keeps to the format and has the events of the JSON lines${missing === undefined ? '' : ` (skipped: ${missing})`}`,
  () => {
    const [chrome, lines] = [join(folder, 'trace.json'), join(folder, 'trace.jsonl')];
    const boot = ['boot', 'snp-paravisor', '--offline', '--limit', '150000000', '--run', 'true', '--trace'];
    expect(vitrine([...boot, chrome]).status).toBe(124);
    expect(vitrine([...boot, lines]).status).toBe(124);
    const { traceEvents, ...rest } = JSON.parse(readFileSync(chrome, 'utf8')) as {
      readonly traceEvents: readonly Fields[];
    };
    expect(rest).toEqual({ displayTimeUnit: 'ns' });
    expect(traceEvents.filter(wrong)).toEqual([]);
    expect(
      traceEvents.filter(({ name }) => name === 'process_name').map(({ args }) => (args as Fields)['name']),
    ).toEqual(['guest', 'paravisor', 'host', 'silicon']);
    // One party has the processor at a time.
    const slices = traceEvents.filter(({ ph }) => ph === 'X') as unknown as readonly {
      pid: number;
      ts: number;
      dur: number;
    }[];
    expect(slices.length).toBeGreaterThan(50);
    // Guest and paravisor run; what the host does in between takes no time of theirs and is a row of events.
    expect(new Set(slices.map(({ pid }) => pid))).toEqual(new Set([0, 1]));
    expect(traceEvents.some(({ ph, pid }) => ph === 'i' && pid === 2)).toBe(true);
    for (const [k, { ts, dur }] of slices.entries())
      expect(ts + dur).toBeLessThanOrEqual((slices[k + 1]?.ts ?? Infinity) + 1e-6);
    const events = readFileSync(lines, 'utf8').trim().split('\n').length - 1;
    expect(traceEvents.filter(({ ph }) => ph === 'i').length).toBe(events);
  },
);
