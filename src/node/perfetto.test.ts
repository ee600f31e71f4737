import { describe, expect, test } from 'vitest';
import { EVENT } from '../abi/events.ts';
import { EXIT_KINDS, EXIT_ROUTES } from '../abi/exit-kinds.ts';
import { FACTS } from '../machine/facts.ts';
import { ChromeTrace } from './perfetto.ts';

interface Record_ {
  readonly ph: string;
  readonly name: string;
  readonly pid: number;
  readonly tid: number;
  readonly ts: number;
  readonly dur?: number;
  readonly s?: string;
  readonly args?: Readonly<Record<string, unknown>>;
}

function traced(): Record_[] {
  const records: Record_[] = [];
  const trace = new ChromeTrace(
    FACTS['snp-paravisor'],
    (text) => void records.push(JSON.parse(text) as Record_),
  );
  const exit = (
    time: number,
    kind: 'cpuid' | 'vmgexit',
    route: 'context' | 'host',
    from: number,
    to: number,
  ): void => trace.emit(EVENT.exit, time, 1, EXIT_KINDS.indexOf(kind), EXIT_ROUTES.indexOf(route), from, to);
  exit(1000, 'cpuid', 'context', 2, 0);
  exit(1500, 'vmgexit', 'host', 0, -1);
  trace.emit(EVENT.pageState, 1600, 1, 0x1000, 1, 0, 0);
  trace.emit(EVENT.io, 1700, 1, 0x3f8, 1, 1, 65);
  trace.emit(999, 1800, 0, 1, 2, 3, 4);
  return records;
}

describe('ChromeTrace', () => {
  test('every record has what the format asks of its phase', () => {
    for (const { ph, name, pid, tid, ts, dur, s, args } of traced()) {
      expect(['M', 'X', 'i']).toContain(ph);
      expect([typeof name, typeof pid, typeof tid, typeof ts]).toEqual([
        'string',
        'number',
        'number',
        'number',
      ]);
      if (ph === 'X') expect(dur).toBeGreaterThanOrEqual(0);
      if (ph === 'i') expect(s).toBe('t');
      if (ph === 'M') expect(typeof args?.['name']).toBe('string');
    }
  });
  test('a party has the processor from where it got it to its exit', () => {
    const names = new Map(
      traced()
        .filter(({ name }) => name === 'process_name')
        .map(({ pid, args }) => [pid, args?.['name']]),
    );
    const slices = traced()
      .filter(({ ph }) => ph === 'X')
      .map(({ pid, ts, dur }) => [names.get(pid), ts, dur]);
    expect(slices).toEqual([
      ['guest', 0, 1],
      ['paravisor', 1, 0.5],
    ]);
  });
  test('an event lies on the track of its context, or of the host', () => {
    const names = new Map(
      traced()
        .filter(({ name }) => name === 'process_name')
        .map(({ pid, args }) => [pid, args?.['name']]),
    );
    const at = (name: string) => names.get(traced().find((record) => record.name === name)?.pid ?? -1);
    expect([at('page-state'), at('io'), at('event 999')]).toEqual(['paravisor', 'host', 'host']);
  });
});
