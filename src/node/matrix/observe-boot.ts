/** One boot under observation: the guest reports on itself, probes look at it while it stands still. */
import { build } from '../build.ts';
import type { BootOptions } from '../boot.ts';
import { describeStop } from '../death.ts';
import type { PackageSource } from '../kernel.ts';
import { RunReceiver, inputFrame } from '../run-protocol.ts';
import { EXIT_KINDS, EXIT_ROUTES } from '../../abi/exit-kinds.ts';
import type { Machine, StopReason } from '../../machine/machine.ts';
import { attemptsOn } from './attempts.ts';
import type { Refusals } from './refusals.ts';
import { FACTS, party, type ConfigurationName } from '../../machine/facts.ts';
import { Observer, rows, type Observation } from './observation.ts';
import { bothSinks } from '../flight-recorder.ts';
import type { EventSink } from '../../seats/events.ts';
import { StreamRecorder, type Recording } from './recording.ts';
import { Probes, SECRET_SCRIPT } from './probes.ts';
import { guestSymbols } from './guest-symbols.ts';
import type { BootResult } from './report.ts';

/** Sections of what the guest says about itself. */
export const GUEST_SCRIPT = `${SECRET_SCRIPT}
section() { echo "@@ $1"; }
# What the processor attests of the guest, where a driver of the kernel asks for it.
tsm=/sys/kernel/config/tsm/report
[ -d $tsm ] && mkdir $tsm/matrix && head -c 64 /dev/zero > $tsm/matrix/inblob && wc -c < $tsm/matrix/outblob > /run/evidence
section evidence; cat /run/evidence 2>/dev/null
section dmesg; dmesg
section flags; grep -m1 '^flags' /proc/cpuinfo
section iomem; cat /proc/iomem
section modules; cat /proc/modules
section nproc; nproc
section end`;

export interface Progress {
  readonly stage: 'launch' | 'kernel' | 'user space' | 'done';
  readonly instructions: number;
  readonly seconds: number;
}

export interface Observed {
  readonly boot: BootResult;
  readonly observation: Observation;
  readonly kernel: { readonly name: string; readonly sha256: string };
  /** Answers to what its host asked for when the guest had ended. */
  readonly refusals: Refusals;
  /** Where one was asked for. */
  readonly recording?: Recording;
}

/** Instructions between reports of progress. */
const SLICE = 20_000_000;
const LAST_WORDS = 24;

export async function observeBoot(
  options: BootOptions,
  source: PackageSource,
  onProgress: (progress: Progress) => void,
  { record = false, sabotage }: { readonly record?: boolean; readonly sabotage?: Sabotage } = {},
): Promise<Observed> {
  const configuration = options.configuration as ConfigurationName;
  const facts = FACTS[configuration];
  const confidential = facts.technology !== 'none';
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  onProgress({ stage: 'launch', instructions: 0, seconds: 0 });
  const probes = new Probes(facts);
  const observer = new Observer(options.memory, confidential, probes);
  const recorder = record ? new StreamRecorder() : undefined;
  const sink = recorder === undefined ? observer : bothSinks(observer, unlessLooking(probes, recorder));
  const broken = sabotage === undefined ? sink : sabotaged(sabotage, sink);
  const { machine, kernel } = await build({ ...options, run: GUEST_SCRIPT }, source, broken);
  sabotage?.started?.(machine);
  probes.attach(machine);

  const said: string[] = [];
  const console: string[] = [];
  let status: number | undefined;
  const decoder = new TextDecoder('latin1');
  const receiver = new RunReceiver({
    stdout(bytes) {
      if (said.length === 0) probes.secretMade();
      said.push(decoder.decode(bytes));
    },
    stderr: () => undefined,
    // The script reads nothing.
    wantInput: () => void machine.serialInput(1, inputFrame(new Uint8Array(0))),
    status: (value) => void (status = value),
  });
  machine.onSerial = (unit, bytes) => {
    if (unit === 0) console.push(decoder.decode(bytes));
    else receiver.push(bytes);
  };

  const { reason, timedOut } = runToEnd(machine, options, () => {
    onProgress({
      stage: said.length > 0 ? 'user space' : 'kernel',
      instructions: machine.instructions,
      seconds: seconds(),
    });
    return options.timeout > 0 && seconds() > options.timeout;
  });
  const sections = sectionsOf(said.join(''));
  const booted = status === 0 && sections['end'] !== undefined;
  const limited = timedOut || reason.kind === 'budget';
  sabotage?.ended?.(machine);
  probes.finish(booted, observer.sharedRuns());
  const known = guestSymbols(machine, kernel.systemMap, sections['iomem'] ?? []);
  const end = machine.now;
  const about = {
    configuration,
    kernelSha256: kernel.sha256,
    vcpus: options.cpus,
    memoryBytes: options.memory,
    booted,
    said: sections,
    probes: probes.findings(),
    looked: probes.looked(),
    shareSites: probes.sites.sites(known?.symbols, sections['modules'] ?? []),
    ...(known?.bssDecrypted === undefined ? {} : { bssDecrypted: known.bssDecrypted }),
  };
  const observation = observer.result(end, about);
  const refusals = booted ? attemptsOn(machine, facts) : {};
  onProgress({ stage: 'done', instructions: machine.instructions, seconds: seconds() });
  return {
    observation,
    kernel: { name: kernel.name, sha256: kernel.sha256 },
    refusals,
    ...(recorder === undefined ? {} : { recording: { about, end, refusals, events: recorder.events() } }),
    boot: {
      configuration,
      outcome: booted ? 'booted' : limited ? 'limit' : 'died',
      end: booted
        ? 'power-off'
        : limited
          ? timedOut
            ? `the time limit of ${options.timeout} s was reached`
            : 'the instruction limit was reached'
          : describeStop(reason),
      placement: facts.placement,
      isolationLeaf: leafOf(observation),
      features: featuresOf(sections['dmesg'] ?? []),
      vcpus: Number(sections['nproc']?.[0] ?? 0),
      exits: exitsOf(observation),
      pages: observation.pages,
      pageMap: observation.pageMap,
      instructions: machine.instructions,
      seconds: seconds(),
      lastWords: booted
        ? []
        : console
            .join('')
            .replaceAll('\r', '')
            .split('\n')
            .filter((line) => line !== '')
            .slice(-LAST_WORDS),
    },
  };
}

/** Breaks something on purpose while a guest runs: tests see a check fail then. */
export interface Sabotage {
  started?(machine: Machine): void;
  /** Before anybody else hears of it. */
  event?(type: number, a: number, b: number, c: number, d: number): void;
  /** The guest has ended, nothing was looked at for the last time yet. */
  ended?(machine: Machine): void;
}

function sabotaged(sabotage: Sabotage, sink: EventSink): EventSink {
  return {
    mask: sink.mask,
    emit: (type, time, vp, a, b, c, d) => {
      sabotage.event?.(type, a, b, c, d);
      sink.emit(type, time, vp, a, b, c, d);
    },
  };
}

function unlessLooking(probes: Probes, sink: EventSink): EventSink {
  return {
    mask: sink.mask,
    emit: (type, time, vp, a, b, c, d) => {
      if (!probes.looking) sink.emit(type, time, vp, a, b, c, d);
    },
  };
}

function runToEnd(
  machine: Machine,
  options: BootOptions,
  onSlice: () => boolean,
): { reason: StopReason; timedOut: boolean } {
  for (;;) {
    const left = (options.limit ?? Infinity) - machine.instructions;
    const reason = machine.run(Math.max(1, Math.min(SLICE, left)));
    const timedOut = onSlice();
    if (timedOut || reason.kind !== 'budget' || machine.instructions >= (options.limit ?? Infinity))
      return { reason, timedOut };
  }
}

function sectionsOf(text: string): Record<string, string[]> {
  const sections: Record<string, string[]> = {};
  let current: string[] = [];
  for (const line of text.split('\n')) {
    const name = /^@@ (\w+)$/.exec(line)?.[1];
    if (name !== undefined) sections[name] = current = [];
    else if (line !== '') current.push(line);
  }
  return sections;
}

export function leafOf(o: Observation): BootResult['isolationLeaf'] {
  const answer = o.cpuid[`${0x4000000c} 0`];
  if (answer !== undefined) return { a: answer[0], b: answer[1] };
  // From a CPUID page: no event tells, but the kernel does.
  for (const line of o.said['dmesg'] ?? []) {
    const [, a, b] = /Isolation Config: Group A (0x[0-9a-f]+), Group B (0x[0-9a-f]+)/.exec(line) ?? [];
    if (a !== undefined && b !== undefined) return { a: Number(a), b: Number(b) };
  }
  return undefined;
}

export function featuresOf(dmesg: readonly string[]): string {
  const found = dmesg
    .map((line) => /Memory Encryption Features active: (.*)$/.exec(line)?.[1])
    .find((text) => text !== undefined);
  return found?.trim() ?? '';
}

export function exitsOf(o: Observation): BootResult['exits'] {
  const facts = FACTS[o.configuration];
  return rows(o.counts.exit, () => true)
    .map(({ key: [kind = 0, route = 0, from = 0, to = 0], tally }) => {
      const source = party(facts, from);
      const target = EXIT_ROUTES[route] === 'silicon' ? 'silicon' : party(facts, to);
      return { route: `${source} > ${target}`, kind: EXIT_KINDS[kind] ?? String(kind), count: tally.count };
    })
    .sort((a, b) => b.count - a.count);
}
