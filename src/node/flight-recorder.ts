/** The last exits of a run, kept for the report of a death. */
import { EVENT_CLASS, EVENT_ROWS } from '../abi/events.ts';
import { argument } from './event-log.ts';
import type { EventSink } from '../seats/events.ts';

const KEPT = 32;
const FIELDS = 7;

export class FlightRecorder implements EventSink {
  readonly mask =
    EVENT_CLASS.exit |
    EVENT_CLASS.msr |
    EVENT_CLASS.cpuid |
    EVENT_CLASS.io |
    EVENT_CLASS.hypercall |
    EVENT_CLASS.lifecycle;
  readonly #ring = new Float64Array(KEPT * FIELDS);
  #count = 0;

  emit(type: number, time: number, vp: number, a: number, b: number, c: number, d: number): void {
    const at = (this.#count++ % KEPT) * FIELDS;
    const ring = this.#ring;
    ring[at] = type;
    ring[at + 1] = time;
    ring[at + 2] = vp;
    ring[at + 3] = a;
    ring[at + 4] = b;
    ring[at + 5] = c;
    ring[at + 6] = d;
  }

  /** Oldest first, one line each; none when nothing was recorded. */
  lines(): string[] {
    const lines: string[] = [];
    for (let k = Math.max(0, this.#count - KEPT); k < this.#count; k++) {
      const [type = 0, time = 0, vp = 0, ...values] = this.#ring.subarray(
        (k % KEPT) * FIELDS,
        (k % KEPT) * FIELDS + FIELDS,
      );
      const row = EVENT_ROWS[type];
      const what = (row?.arguments ?? [])
        .map((name, n) => ` ${name} ${shown(argument(name, values[n] ?? 0))}`)
        .join('');
      lines.push(`  ${(time / 1e9).toFixed(9)} s vp ${vp} ${row?.name ?? type}${what}`);
    }
    return lines.length === 0 ? [] : ['last exits', ...lines];
  }
}

const shown = (value: number | null): string =>
  value === null ? 'never' : value < 0 ? String(value) : `0x${value.toString(16)}`;

/** Two listeners as one: each hears the classes that it asked for. */
export function bothSinks(first: EventSink, second: EventSink): EventSink {
  return {
    mask: (first.mask | second.mask) >>> 0,
    emit(type, time, vp, a, b, c, d) {
      const eventClass = EVENT_ROWS[type]?.class ?? 0xffffffff;
      if (first.mask & eventClass) first.emit(type, time, vp, a, b, c, d);
      if (second.mask & eventClass) second.emit(type, time, vp, a, b, c, d);
    },
  };
}
