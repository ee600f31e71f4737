/**
 * The event stream of a real boot, shortened to what tells something apart: of each row that is counted the first events and the
 * last, and runs of page states as one. Tests break it on purpose and judge it again.
 */
import { EVENT } from '../../abi/events.ts';
import type { EventSink } from '../../seats/events.ts';
import { FACTS } from '../../machine/facts.ts';
import { keyOf, KEYS, Observer, type Observation } from './observation.ts';
import type { Refusals } from './refusals.ts';

/** type, time, a, b, c, d */
export type RecordedEvent = readonly [number, number, number, number, number, number];

export interface Recording {
  readonly about: Omit<Observation, 'counts' | 'cpuid' | 'sharedRuns' | 'pages' | 'pageMap'>;
  readonly end: number;
  readonly refusals: Refusals;
  readonly events: readonly RecordedEvent[];
}

const COUNTED = new Set<number>(Object.values(KEYS).map(({ type }) => type));
const PAGE_BYTES = 4096;
/** Events of a row that are kept beside the last. */
const FIRST = 2;

/** Keeps events as they come, shortened. */
export class StreamRecorder implements EventSink {
  readonly mask = 0xffffffff;
  readonly #kept: RecordedEvent[] = [];
  readonly #rows = new Map<string, { seen: number; last: RecordedEvent | undefined }>();

  emit(type: number, time: number, _vp: number, a: number, b: number, c: number, d: number): void {
    const event: RecordedEvent = [type, time, a, b, c, d];
    if (type === EVENT.pageState) {
      const last = this.#kept.at(-1);
      if (last?.[0] === type && last[4] === c && last[5] === d && last[2] + last[3] * PAGE_BYTES === a)
        this.#kept[this.#kept.length - 1] = [type, last[1], last[2], last[3] + b, c, d];
      else this.#kept.push(event);
      return;
    }
    if (!COUNTED.has(type) && type !== EVENT.cpuid) return;
    const key = type === EVENT.cpuid ? `cpuid ${a} ${b}` : `${type} ${keyOf(type, a, b, c, d)}`;
    const row = this.#rows.get(key) ?? { seen: 0, last: undefined };
    this.#rows.set(key, row);
    // Of answers to CPUID only the last counts.
    if (++row.seen <= FIRST && type !== EVENT.cpuid) this.#kept.push(event);
    else row.last = event;
  }

  events(): readonly RecordedEvent[] {
    const lasts = [...this.#rows.values()].flatMap(({ last }) => (last === undefined ? [] : [last]));
    return [...this.#kept, ...lasts.sort((a, b) => a[1] - b[1])];
  }
}

/** What the checks read of a recording. */
export function replay({ about, events, end }: Recording): Observation {
  const confidential = FACTS[about.configuration].technology !== 'none';
  const observer = new Observer(about.memoryBytes, confidential);
  for (const [type, time, a, b, c, d] of events) observer.emit(type, time, 0, a, b, c, d);
  return observer.result(end, about);
}

/** Lines of the kernel's log that a check may look for. */
const TELLING = /Memory Encryption|Isolation Config|SEV:|software IO TLB|tdx|Hyper-V/i;

/** Without what the guest said and no check reads. */
export function shortened(recording: Recording): Recording {
  const { said } = recording.about;
  return {
    ...recording,
    about: {
      ...recording.about,
      said: {
        ...said,
        dmesg: (said['dmesg'] ?? []).filter((line) => TELLING.test(line)),
        iomem: [],
        modules: [],
      },
    },
  };
}
