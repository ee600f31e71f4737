/**
 * The event stream as a Chrome trace (the JSON format that Perfetto opens): a process for each party, a thread for each
 * virtual processor. A party's slice reaches from where it got the processor to its next exit; everything else is an instant.
 * Times are virtual: a microsecond in the viewer is a microsecond of the guest.
 */
import { EVENT, EVENT_ROWS } from '../abi/events.ts';
import { EXIT_KINDS, EXIT_ROUTES } from '../abi/exit-kinds.ts';
import type { EventSink } from '../seats/events.ts';
import { LateFile } from './output.ts';
import type { ConfigurationFacts } from '../machine/facts.ts';
import { party } from '../machine/facts.ts';

const PARTIES = ['guest', 'paravisor', 'host', 'silicon'];

interface Running {
  readonly party: string;
  readonly since: number;
}

/** Builds the records; gives each as one line of JSON. */
export class ChromeTrace {
  readonly #configuration: ConfigurationFacts;
  readonly #write: (record: string) => void;
  readonly #running = new Map<number, Running>();
  readonly #threads = new Set<string>();

  constructor(configuration: ConfigurationFacts, write: (record: string) => void) {
    this.#configuration = configuration;
    this.#write = write;
    for (const [pid, name] of PARTIES.entries())
      this.#record({ ph: 'M', name: 'process_name', pid, tid: 0, ts: 0, args: { name } });
  }

  #record(record: object): void {
    this.#write(JSON.stringify(record));
  }

  #track(name: string, vp: number): { readonly pid: number; readonly tid: number } {
    const known = PARTIES.indexOf(name);
    const pid = known < 0 ? PARTIES.indexOf('silicon') : known;
    if (!this.#threads.has(`${pid} ${vp}`)) {
      this.#threads.add(`${pid} ${vp}`);
      this.#record({ ph: 'M', name: 'thread_name', pid, tid: vp, ts: 0, args: { name: `VP ${vp}` } });
    }
    return { pid, tid: vp };
  }

  emit(type: number, time: number, vp: number, a: number, b: number, c: number, d: number): void {
    const ts = time / 1000;
    if (type === EVENT.exit) {
      const from = party(this.#configuration, c);
      const route = EXIT_ROUTES[b] ?? String(b);
      const to = route === 'silicon' ? from : party(this.#configuration, d);
      const running = this.#running.get(vp);
      const since = running?.since ?? 0;
      const name = EXIT_KINDS[a] ?? `exit ${a}`;
      this.#record({
        ph: 'X',
        name: 'run',
        cat: 'run',
        ...this.#track(from, vp),
        ts: since / 1000,
        dur: (time - since) / 1000,
      });
      this.#record({ ph: 'i', s: 't', name, cat: 'exit', ...this.#track(from, vp), ts, args: { route, to } });
      this.#running.set(vp, { party: to, since: time });
      return;
    }
    const row = EVENT_ROWS[type];
    const values = [a, b, c, d];
    const args = Object.fromEntries((row?.arguments ?? []).map((argument, k) => [argument, values[k]]));
    const context = row?.arguments.indexOf('context') ?? -1;
    const who = context < 0 ? 'host' : party(this.#configuration, values[context] as number);
    this.#record({
      ph: 'i',
      s: 't',
      name: row?.name ?? `event ${type}`,
      cat: 'event',
      ...this.#track(who, vp),
      ts,
      args,
    });
  }
}

/** `--trace FILE.json`. */
export class ChromeTraceFile implements EventSink {
  readonly mask = 0xffffffff;
  readonly #file: LateFile;
  readonly #trace: ChromeTrace;

  constructor(path: string, configuration: ConfigurationFacts) {
    this.#file = new LateFile(path, 'the trace', '--trace', '{"displayTimeUnit":"ns","traceEvents":[\n');
    let separator = '';
    this.#trace = new ChromeTrace(configuration, (record) => {
      this.#file.write(separator + record);
      separator = ',\n';
    });
  }

  emit(type: number, time: number, vp: number, a: number, b: number, c: number, d: number): void {
    this.#trace.emit(type, time, vp, a, b, c, d);
  }

  close(): void {
    this.#file.write('\n]}\n');
    this.#file.close();
  }
}
