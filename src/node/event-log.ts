/** The event stream as JSON lines: one object for each event. docs/trace.md describes them. */
import { EVENT_ROWS } from '../abi/events.ts';
import type { EventSink } from '../seats/events.ts';
import { LateFile } from './output.ts';

/** Version of the line format: a reader refuses what it does not know. */
export const TRACE_VERSION = 1;

/** Contexts are numbered from 0, and -1 is the host; everything else has no sign. */
const SIGNED = new Set(['from', 'to', 'context']);

export function argument(name: string, value: number): number | null {
  if (!Number.isFinite(value)) return null;
  return value < 0 && !SIGNED.has(name) ? value >>> 0 : value;
}

/** One line, without the newline. Arguments that a row does not name are left out; `null` is a time that never comes. */
export function traceLine(
  type: number,
  time: number,
  vp: number,
  values: readonly [number, number, number, number],
): string {
  const row = EVENT_ROWS[type];
  let line = `{"time":${time},"vp":${vp},"event":"${row?.name ?? type}"`;
  for (const [k, name] of (row?.arguments ?? ['a', 'b', 'c', 'd']).entries()) {
    line += `,"${name}":${argument(name, values[k] as number)}`;
  }
  return `${line}}`;
}

export class EventLog implements EventSink {
  readonly mask = 0xffffffff;
  readonly #file: LateFile;

  constructor(path: string) {
    const head = `{"trace":"vitrine","version":${TRACE_VERSION}}\n`;
    this.#file = new LateFile(path, 'the trace', '--trace', head);
  }

  emit(type: number, time: number, vp: number, a: number, b: number, c: number, d: number): void {
    this.#file.write(`${traceLine(type, time, vp, [a, b, c, d])}\n`);
  }

  close(): void {
    this.#file.close();
  }
}
