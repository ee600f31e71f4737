/**
 * What a boot showed: counts over the event stream and what the guest said, as plain data. Checks read this and nothing
 * else, so a test can break one property of it and see one check fail.
 */
import { EVENT, EVENT_CLASS, PAGE_STATE } from '../../abi/events.ts';
import type { EventSink } from '../../seats/events.ts';
import type { ConfigurationName } from '../../machine/facts.ts';
import type { ShareSite } from './share-sites.ts';
import type { PageMapSample } from './report.ts';

export interface Tally {
  readonly count: number;
  /** Virtual time, ns. */
  readonly first: number;
  readonly last: number;
}

/** Keys are the numbers that tell rows apart, joined by a space; see `KEYS`. */
export type Counts = Readonly<Record<string, Tally>>;

export interface Observation {
  readonly configuration: ConfigurationName;
  readonly kernelSha256: string;
  readonly vcpus: number;
  readonly memoryBytes: number;
  readonly booted: boolean;
  /** Lines of the kernel's log (`dmesg`), of `/proc/cpuinfo`'s flags, and what else the guest's script printed, by section. */
  readonly said: Readonly<Record<string, readonly string[]>>;
  readonly counts: Readonly<Record<keyof typeof KEYS, Counts>>;
  /** Last answer to each CPUID leaf and subleaf: [eax, ebx]. */
  readonly cpuid: Readonly<Record<string, readonly [number, number]>>;
  /** Runs of pages that are shared at the end. */
  readonly sharedRuns: readonly PageRun[];
  readonly pages: { readonly private: number; readonly shared: number };
  readonly pageMap: readonly PageMapSample[];
  /** Who in the guest asked for pages to be shared, in order. */
  readonly shareSites: readonly ShareSite[];
  /** The guest's own data that it marks __bss_decrypted, where its symbols tell. */
  readonly bssDecrypted?: { readonly from: number; readonly to: number };
  /** Findings of probes that looked into the guest while it ran, by name. */
  readonly probes: Readonly<Record<string, readonly string[]>>;
  /** How often each probe looked. */
  readonly looked: Readonly<Record<string, number>>;
}

export interface PageRun {
  readonly gpa: number;
  readonly pages: number;
}

/** Which arguments of an event make a row of their own. */
export const KEYS = {
  /** kind, route, from, to */
  exit: { type: EVENT.exit, arguments: ['a', 'b', 'c', 'd'] },
  /** vector, context */
  confidentialException: { type: EVENT.confidentialException, arguments: ['a', 'c'] },
  /** state, context */
  pageState: { type: EVENT.pageState, arguments: ['c', 'd'] },
  /** operation, status, context */
  privilegedOperation: { type: EVENT.privilegedOperation, arguments: ['a', 'c', 'd'] },
  /** shared, status */
  visibility: { type: EVENT.visibility, arguments: ['c', 'd'] },
  /** code, from, to, relayed */
  hypercallRoute: { type: EVENT.hypercallRoute, arguments: ['a', 'b', 'c', 'd'] },
  /** gpa of the page, private, to */
  mmioRoute: { type: EVENT.mmioRoute, arguments: ['page', 'b', 'd'] },
  /** vector, type, outcome, context */
  injection: { type: EVENT.injection, arguments: ['a', 'b', 'c', 'd'] },
  /** write, outcome */
  hostAccess: { type: EVENT.hostAccess, arguments: ['c', 'd'] },
  /** set, reason */
  termination: { type: EVENT.termination, arguments: ['a', 'b'] },
  /** gpa of the page, use, hypercall code */
  pageUse: { type: EVENT.pageUse, arguments: ['page', 'b', 'c'] },
} as const satisfies Record<string, { type: number; arguments: readonly string[] }>;

const PAGE_BYTES = 4096;
const MAP_PARTS = 128;
/** Above it lie the bits by which an address says that it is private or shared (C-bit, vTOM, shared bit). */
const ALIAS = 2 ** 40;
/** A sample of the page map for so much virtual time. */
const SAMPLE_NS = 20_000_000;

/** Is told each event and may look at the guest, which stands still. */
export interface EventProbe {
  /** What happens while it looks is its own doing. */
  readonly looking: boolean;
  event(time: number, type: number, a: number, b: number, c: number, d: number): void;
}

/** Counts events as they come; keeps no event. */
export class Observer implements EventSink {
  readonly mask =
    EVENT_CLASS.exit |
    EVENT_CLASS.cpuid |
    EVENT_CLASS.page |
    EVENT_CLASS.exception |
    EVENT_CLASS.privileged |
    EVENT_CLASS.hypercall |
    EVENT_CLASS.io |
    EVENT_CLASS.lifecycle;
  readonly #counts = new Map<number, Map<string, { count: number; first: number; last: number }>>();
  readonly #cpuid = new Map<string, [number, number]>();
  readonly #states: Uint8Array;
  readonly #sharedIn = new Uint32Array(MAP_PARTS);
  readonly #pageMap: PageMapSample[] = [];
  readonly #probe: EventProbe;
  #nextSample = 0;

  /**
   * `confidential`: pages start private, otherwise all of them are the host's to read.
   */
  constructor(
    memoryBytes: number,
    confidential: boolean,
    probe: EventProbe = { looking: false, event: () => undefined },
  ) {
    this.#states = new Uint8Array(Math.ceil(memoryBytes / PAGE_BYTES)).fill(
      confidential ? PAGE_STATE.pending : PAGE_STATE.shared,
    );
    if (!confidential) this.#sharedIn.fill(this.#perPart());
    for (const { type } of Object.values(KEYS)) this.#counts.set(type, new Map());
    this.#probe = probe;
  }

  #perPart(): number {
    return Math.ceil(this.#states.length / MAP_PARTS);
  }

  emit(type: number, time: number, vp: number, a: number, b: number, c: number, d: number): void {
    void vp;
    if (this.#probe.looking) return;
    if (type === EVENT.cpuid) this.#cpuid.set(`${a >>> 0} ${b >>> 0}`, [c >>> 0, d >>> 0]);
    const counts = this.#counts.get(type);
    if (counts === undefined) return;
    const key = keyOf(type, a, b, c, d);
    const tally = counts.get(key);
    if (tally === undefined) counts.set(key, { count: 1, first: time, last: time });
    else {
      tally.count++;
      tally.last = time;
    }
    if (type === EVENT.pageState) this.#setState(time, a, b, c);
    this.#probe.event(time, type, a, b, c, d);
  }

  #setState(time: number, gpa: number, pages: number, state: number): void {
    if (time >= this.#nextSample) this.#sample(time);
    const first = gpa / PAGE_BYTES;
    for (let page = first; page < first + pages && page < this.#states.length; page++) {
      const was = this.#states[page] === PAGE_STATE.shared ? 1 : 0;
      const is = state === PAGE_STATE.shared ? 1 : 0;
      const part = Math.floor(page / this.#perPart());
      this.#sharedIn[part] = (this.#sharedIn[part] as number) + is - was;
      this.#states[page] = state;
    }
  }

  #sample(time: number): void {
    const per = this.#perPart();
    this.#pageMap.push({
      time,
      shared: Array.from(this.#sharedIn, (count) => Math.round((count / per) * 1000) / 1000),
    });
    this.#nextSample = time + SAMPLE_NS;
  }

  /** Runs of pages that are shared now. */
  sharedRuns(): readonly PageRun[] {
    const runs: { gpa: number; pages: number }[] = [];
    for (const [page, state] of this.#states.entries()) {
      if (state !== PAGE_STATE.shared) continue;
      const last = runs.at(-1);
      if (last !== undefined && last.gpa + last.pages * PAGE_BYTES === page * PAGE_BYTES) last.pages++;
      else runs.push({ gpa: page * PAGE_BYTES, pages: 1 });
    }
    return runs;
  }

  /** What was seen until `time`. */
  result(
    time: number,
    about: Omit<Observation, 'counts' | 'cpuid' | 'sharedRuns' | 'pages' | 'pageMap'>,
  ): Observation {
    this.#sample(time);
    const counts = Object.fromEntries(
      Object.entries(KEYS).map(([name, { type }]) => [
        name,
        Object.fromEntries(this.#counts.get(type) ?? []),
      ]),
    ) as Record<keyof typeof KEYS, Counts>;
    const sharedRuns = this.sharedRuns();
    const shared = sharedRuns.reduce((sum, { pages }) => sum + pages, 0);
    return {
      ...about,
      counts,
      cpuid: Object.fromEntries(this.#cpuid),
      sharedRuns,
      pages: { shared, private: this.#states.length - shared },
      pageMap: this.#pageMap,
    };
  }
}

const ARGUMENTS = new Map<number, readonly string[]>(
  Object.values(KEYS).map(({ type, arguments: names }) => [type, names]),
);

/** What tells an event from others of its type. */
export function keyOf(type: number, a: number, b: number, c: number, d: number): string {
  const values: Readonly<Record<string, number>> = {
    a,
    b,
    c,
    d,
    page: Math.floor((a % ALIAS) / PAGE_BYTES) * PAGE_BYTES,
  };
  return (ARGUMENTS.get(type) ?? []).map((name) => values[name]).join(' ');
}

/** Sum over the rows of `counts` whose key numbers satisfy `where`. */
export function count(counts: Counts, where: (...key: number[]) => boolean): number {
  return rows(counts, where).reduce((sum, { tally }) => sum + tally.count, 0);
}

export function rows(
  counts: Counts,
  where: (...key: number[]) => boolean,
): readonly { readonly key: readonly number[]; readonly tally: Tally }[] {
  return Object.entries(counts)
    .map(([text, tally]) => ({ key: text.split(' ').map(Number), tally }))
    .filter(({ key }) => where(...key));
}
