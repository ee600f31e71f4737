/** The event stream as JSON lines: one object for each event, under the names of src/abi/events.ts. */
import { closeSync, openSync, writeSync } from 'node:fs';
import * as events from '../abi/events.ts';
import type { EventSink } from '../seats/events.ts';
import { UserError } from './errors.ts';

const NAMES = new Map<number, string>(
  Object.entries(events.EVENT).map(([name, number]) => [number as number, name]),
);

export class EventLog implements EventSink {
  readonly mask = 0xffffffff;
  readonly #file: number;
  #buffer = '';

  constructor(path: string) {
    try {
      this.#file = openSync(path, 'w');
    } catch (error) {
      throw new UserError(
        `cannot write the trace to ${path} (${(error as NodeJS.ErrnoException).code ?? 'error'}): give another file with --trace`,
      );
    }
  }

  emit(type: number, time: number, vp: number, a: number, b: number, c: number, d: number): void {
    this.#buffer += `{"time":${time},"vp":${vp},"event":"${NAMES.get(type) ?? type}","args":[${a},${b},${c},${d}]}\n`;
    if (this.#buffer.length > 1 << 16) this.#flush();
  }

  #flush(): void {
    writeSync(this.#file, this.#buffer);
    this.#buffer = '';
  }

  close(): void {
    this.#flush();
    closeSync(this.#file);
  }
}
