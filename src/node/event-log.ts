/** The event stream as JSON lines: one object for each event. docs/trace.md describes them. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { EVENT_ROWS } from '../abi/events.ts';
import type { EventSink } from '../seats/events.ts';
import { UserError } from './errors.ts';
import { errorCode } from './output.ts';

/** Version of the line format: a reader refuses what it does not know. */
export const TRACE_VERSION = 1;
const FLUSH_CHARACTERS = 1 << 16;

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
  readonly #path: string;
  #file: number | undefined;
  #buffer = `{"trace":"vitrine","version":${TRACE_VERSION}}\n`;

  /** The file is made at the first flush: a run that cannot start leaves none. */
  constructor(path: string) {
    this.#path = path;
  }

  emit(type: number, time: number, vp: number, a: number, b: number, c: number, d: number): void {
    this.#buffer += `${traceLine(type, time, vp, [a, b, c, d])}\n`;
    if (this.#buffer.length > FLUSH_CHARACTERS) this.#flush();
  }

  #flush(): void {
    try {
      this.#file ??= openSync(this.#path, 'w');
      for (let bytes = Buffer.from(this.#buffer); bytes.length > 0;)
        bytes = bytes.subarray(writeSync(this.#file, bytes));
    } catch (error) {
      throw new UserError(
        `cannot write the trace to ${this.#path} (${errorCode(error)}): give another file with --trace`,
      );
    }
    this.#buffer = '';
  }

  close(): void {
    this.#flush();
    if (this.#file !== undefined) closeSync(this.#file);
  }
}
