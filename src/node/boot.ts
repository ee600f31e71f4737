/** `vitrine boot`: a machine that runs between a terminal, files and a debugger, and an exit status at its end. */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { Machine, StopReason } from '../machine/machine.ts';
import { stateHash } from '../machine/state-hash.ts';
import type { EventSink } from '../seats/events.ts';
import { Apt } from './apt.ts';
import { build, type Built } from './build.ts';
import { Cache } from './cache.ts';
import { besideInterpreter } from './check.ts';
import { printedConfiguration } from './configuration.ts';
import { deathReport } from './death.ts';
import { describeDivergence } from './divergence.ts';
import { engineFor } from './engine-choice.ts';
import { STATUS, UserError } from './errors.ts';
import { EventLog } from './event-log.ts';
import { bothSinks, FlightRecorder } from './flight-recorder.ts';
import { GdbServer } from './gdb/server.ts';
import { readUserFile, type PackageSource } from './kernel.ts';
import { checkWritable, errorCode, writeWhole } from './output.ts';
import { FACTS, type ConfigurationName } from '../machine/facts.ts';
import { Pacer } from './pacer.ts';
import { ChromeTraceFile } from './perfetto.ts';
import { endReason, reportText } from './report.ts';
import { LogStream, logText } from './sanitize.ts';
import { interactive, lastWords, piped, RunSession } from './sessions.ts';
import { resumeSnapshot, saveSnapshot, type SavedSession } from './snapshot-file.ts';
import { Symbols } from './symbols.ts';

export interface BootOptions {
  readonly configuration: string;
  readonly kernel?: string;
  readonly kernelPackage?: string;
  readonly modules?: string;
  readonly initrd?: string;
  readonly add: readonly string[];
  readonly append?: string;
  readonly memory: number;
  readonly cpus: number;
  readonly cpuModel: string;
  readonly run?: string;
  readonly console?: string;
  /** Instructions since power-on; none: no limit. */
  readonly limit?: number;
  /** Seconds; 0: no limit. */
  readonly timeout: number;
  readonly seed: bigint;
  readonly date: number;
  readonly realtime: boolean;
  readonly hyperv: boolean;
  readonly hypervWithout: readonly string[];
  /** Names of PARTS. */
  readonly paravisorWithout: readonly string[];
  readonly hideIsolation: boolean;
  readonly trace?: string;
  readonly hashEvery: number;
  readonly engine?: string;
  readonly translateAfter?: number;
  readonly json?: string;
  readonly symbols?: string;
  readonly snapshot?: string;
  readonly resume?: string;
  readonly gdb?: number;
  readonly gdbWait: boolean;
  readonly offline: boolean;
  readonly cacheDir: string;
}

/**
 * The outside world is looked at when the count of instructions passes a multiple of this, and when the guest is idle: input
 * then comes at the same instruction however a run was cut.
 */
const SLICE = 5_000_000;
const NOTHING_SAVED: SavedSession = { run: undefined, typed: new Uint8Array(0), skipTo: 0 };

const say = (line: string): void => void process.stderr.write(`vitrine: ${line}\n`);

/** What a run starts from: a machine that was built, or one from a snapshot file. */
interface Start {
  readonly machine: Machine;
  readonly kernel: Built['kernel'] | undefined;
  readonly configuration: Readonly<Record<string, unknown>>;
  readonly session: SavedSession;
}

async function start(options: BootOptions, source: PackageSource, sink: EventSink): Promise<Start> {
  if (options.resume !== undefined) {
    const { machine, configuration, session } = resumeSnapshot(
      options.resume,
      sink,
      engineFor(options.engine),
    );
    return { machine, configuration, session, kernel: undefined };
  }
  const { machine, kernel } = await build(options, source, sink);
  const configuration = printedConfiguration(options, kernel.package);
  return { machine, kernel, configuration, session: NOTHING_SAVED };
}

function readSymbols(path: string): Symbols {
  return Symbols.fromSystemMap(new TextDecoder('latin1').decode(readUserFile(path, 'symbols')), path);
}

export async function boot(options: BootOptions): Promise<number> {
  for (const [path, option] of [
    [options.json, '--json'],
    [options.console, '--console'],
    [options.trace, '--trace'],
    [options.snapshot, '--snapshot'],
  ] as const)
    if (path !== undefined && (path !== '-' || option === '--trace' || option === '--snapshot'))
      checkWritable(path, option);
  let symbols = options.symbols === undefined ? undefined : readSymbols(options.symbols);
  const cache = new Cache(options.cacheDir);
  const source: PackageSource = { cache, apt: new Apt(cache), offline: options.offline, say };
  const recorder = new FlightRecorder();
  const trace = options.trace === undefined ? undefined : openTrace(options.trace, options.configuration);
  const sink = trace === undefined ? recorder : bothSinks(recorder, trace);

  let { machine, kernel, configuration, session: saved } = await start(options, source, sink);
  if (symbols === undefined && kernel?.systemMap !== undefined)
    symbols = Symbols.fromSystemMap(kernel.systemMap, 'the System.map of the package');
  if (options.translateAfter !== undefined) machine.engine.translateAfter(options.translateAfter);
  const isRun = options.run !== undefined || saved.run !== undefined;
  const tty = !isRun && process.stdin.isTTY === true;

  const consoleFile =
    options.console !== undefined && options.console !== '-' ? openConsole(options.console) : undefined;
  // Raw for who asked for it or sits at it; what goes into a log by default is harmless there.
  const log = new LogStream();
  const recent: Uint8Array[] = [];
  const toConsole = (bytes: Uint8Array): void => {
    recent.push(bytes.slice());
    if (recent.length > 4096) recent.splice(0, 2048);
    if (consoleFile !== undefined) writeAll(consoleFile, bytes);
    else if (options.console === '-' || tty) process.stdout.write(Uint8Array.from(bytes));
    else if (!isRun) process.stdout.write(log.push(bytes));
  };
  const session = isRun ? new RunSession(saved.run) : undefined;
  const onSerial = (unit: number, bytes: Uint8Array): void => {
    if (unit === 0) toConsole(bytes);
    else session?.push(bytes);
  };
  machine.onSerial = onSerial;

  const check = options.engine === 'check' ? besideInterpreter(machine) : undefined;
  const started = performance.now();
  const gdb = options.gdb === undefined ? undefined : new GdbServer(machine, options.gdbWait);
  if (gdb !== undefined) {
    await gdb.listen(options.gdb as number);
    say(`gdb: target remote localhost:${options.gdb as number}`);
  }
  if (tty) say('Ctrl-A x leaves, Ctrl-A h helps');
  const terminal = tty ? interactive(saved.typed) : isRun ? undefined : piped(saved.typed);
  const limit = options.limit ?? Infinity;
  let reason: StopReason;
  let timedOut = false;
  let interrupted: number | undefined;
  const onSignal = (signal: NodeJS.Signals): void => void (interrupted = signal === 'SIGINT' ? 2 : 15);
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  const nextMultiple = (of: number): number =>
    of > 0 ? (Math.floor(machine.instructions / of) + 1) * of : Infinity;
  let hashAt = nextMultiple(options.hashEvery);
  let lookAt = nextMultiple(SLICE);
  const paced = options.realtime || tty;
  let pacer = new Pacer(machine.now);
  // While a command may read input, an idle guest gets it before its clock skips to the next timer.
  let skipTo = saved.skipTo;
  try {
    for (;;) {
      const held = paced || session?.waiting === true;
      const idleTo = held
        ? pacer.target(machine.now)
        : session?.mayInput === true
          ? skipTo
          : terminal !== undefined
            ? Math.max(skipTo, machine.now)
            : Infinity;
      await gdb?.ready();
      if (gdb?.killed === true) return STATUS.ok;
      const budget = Math.min(lookAt, limit, hashAt) - machine.instructions;
      const next = (check ?? gdb ?? machine).run(Math.max(1, budget), idleTo);
      if ('agreed' in next) {
        process.stderr.write(await describeDivergence(next));
        return STATUS.failed;
      }
      reason = next;
      if (machine.instructions >= hashAt) {
        process.stderr.write(`hash ${machine.instructions} ${stateHash(machine)}\n`);
        hashAt = nextMultiple(options.hashEvery);
      }
      await breathe(reason, held ? pacer : undefined, machine);
      const looks = tty || reason.kind === 'idle' || machine.instructions >= lookAt;
      if (machine.instructions >= lookAt) lookAt = nextMultiple(SLICE);
      // Input goes to an idle guest before its clock skips to the next timer.
      if (terminal !== undefined) {
        terminal.pump(check ?? machine, reason.kind === 'idle');
        if (session === undefined) skipTo = reason.kind === 'idle' ? reason.until : machine.now;
      }
      while (process.stdout.writableNeedDrain && interrupted === undefined) await drained();
      if (session !== undefined && looks) {
        const before = session.sent;
        await session.feed(check ?? machine);
        skipTo = reason.kind === 'idle' && session.sent === before ? reason.until : machine.now;
      }
      if (terminal?.left === true || interrupted !== undefined) break;
      if (options.timeout > 0 && performance.now() - started > options.timeout * 1000) {
        timedOut = true;
        break;
      }
      if (reason.kind === 'budget') {
        if (machine.instructions >= limit) break;
        continue;
      }
      if (reason.kind === 'idle') {
        if (reason.until === Infinity && !tty && (session === undefined || !session.mayInput)) break;
        continue;
      }
      const reboots =
        tty &&
        gdb === undefined &&
        options.resume === undefined &&
        reason.kind === 'end' &&
        reason.reason === 'reset';
      if (!reboots) break;
      ({ machine, kernel, configuration } = await start(options, source, sink));
      machine.onSerial = onSerial;
      pacer = new Pacer(machine.now);
      hashAt = nextMultiple(options.hashEvery);
      lookAt = nextMultiple(SLICE);
    }
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
    terminal?.restore();
    if (!isRun) process.stdout.write(log.end());
    session?.close();
    trace?.close();
    gdb?.close();
    if (consoleFile !== undefined) closeSync(consoleFile);
  }
  const left = terminal?.left === true;
  const status = statusOf(reason, { timedOut, left, isRun, run: session?.status });
  if (interrupted !== undefined || session?.status !== undefined) {
    // Whoever sent the signal knows, and the command has said what it had to say.
  } else if (status === STATUS.guestDied) {
    // Who sits at the console has seen them.
    if (!tty) process.stderr.write(logText(lastWords(recent)));
    process.stderr.write(deathReport(machine, reason, symbols, recorder));
  } else if (status === STATUS.limit)
    say(
      timedOut
        ? `the time limit of ${options.timeout} s was reached`
        : `the limit of ${limit} instructions was reached`,
    );
  if (options.snapshot !== undefined)
    saveSnapshot(options.snapshot, machine, configuration, {
      run: session?.save(),
      typed: terminal?.typed ?? new Uint8Array(0),
      skipTo,
    });
  if (options.json !== undefined) {
    const text = reportText(machine, {
      configuration,
      kernel: kernel === undefined ? undefined : { name: kernel.name, sha256: kernel.sha256 },
      reason: endReason(reason, { timedOut, interrupted: interrupted !== undefined, left }),
      status: interrupted === undefined ? status : 128 + interrupted,
      seconds: (performance.now() - started) / 1000,
    });
    if (options.json === '-') process.stdout.write(text);
    else writeWhole(options.json, text, '--json');
  }
  return interrupted === undefined ? status : 128 + interrupted;
}

/** JSON lines, or a Chrome trace when the name ends in .json. */
function openTrace(path: string, configuration: string): EventSink & { close(): void } {
  if (!path.endsWith('.json')) return new EventLog(path);
  return new ChromeTraceFile(path, FACTS[configuration as ConfigurationName]);
}

function openConsole(path: string): number {
  try {
    return openSync(path, 'w');
  } catch (error) {
    throw new UserError(
      `cannot write the console to ${path} (${errorCode(error)}): give another file with --console`,
    );
  }
}

function writeAll(file: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at);
}

/** Lets Node.js deliver input and signals; when the guest is idle and paced, waits for real time to catch up. */
async function breathe(reason: StopReason, pacer: Pacer | undefined, machine: Machine): Promise<void> {
  if (pacer !== undefined && reason.kind === 'idle') {
    const wait = pacer.wait(machine.now, reason.until);
    await new Promise((resolve) => setTimeout(resolve, wait));
    return;
  }
  await new Promise((resolve) => setImmediate(resolve));
}

/** Waits a moment for a reader that is slower than the guest. */
async function drained(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 5));
}

function statusOf(
  reason: StopReason,
  how: {
    readonly timedOut: boolean;
    readonly left: boolean;
    readonly isRun: boolean;
    readonly run: number | undefined;
  },
): number {
  if (how.run !== undefined) return how.run;
  if (how.left) return STATUS.ok;
  if (how.timedOut) return STATUS.limit;
  switch (reason.kind) {
    case 'budget':
      return STATUS.limit;
    case 'exit':
      return reason.status;
    case 'end':
      // A reset that was not followed by a boot: a panic without crash registers looks like this.
      return reason.reason === 'power-off' || reason.reason === 'hibernate'
        ? how.isRun
          ? STATUS.guestDied
          : STATUS.ok
        : STATUS.guestDied;
    case 'idle':
    case 'crash':
    case 'terminated':
    case 'stuck':
    case 'debug':
      return STATUS.guestDied;
  }
}
