/** `vitrine boot`: files and options in, a machine that runs, an exit status out. */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, resolve as resolvePath } from 'node:path';
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { sentence } from '../launch/outcome.ts';
import { launchPlain } from '../launch/plain.ts';
import { initEntry } from '../launch/entry-state.ts';
import { DEFAULT_CONFIG } from '../host/config.ts';
import { REGISTER } from '../abi/hyperv/registers.ts';
import { inspect } from '../machine/inspect.ts';
import { hypervPlatform } from '../machine/hyperv-platform.ts';
import { Machine, type StopReason } from '../machine/machine.ts';
import { stateHash } from '../machine/state-hash.ts';
import { restoreSnapshot, takeSnapshot } from '../machine/snapshot.ts';
import type { EventSink } from '../seats/events.ts';
import { findCpuModel, type CpuModel } from '../x86/cpuid.ts';
import { Apt } from './apt.ts';
import { Cache } from './cache.ts';
import { STATUS, UserError } from './errors.ts';
import { EventLog } from './event-log.ts';
import { GdbServer } from './gdb/server.ts';
import { buildInitramfs, busyboxFromDeb } from './initramfs.ts';
import { packageBytes, readUserFile, resolveKernel, type PackageSource } from './kernel.ts';
import { LogStream, logText } from './sanitize.ts';
import { interactive, lastWords, piped, RunSession } from './sessions.ts';
import { Pacer } from './pacer.ts';
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
  readonly limit: number;
  readonly timeout: number;
  readonly seed: bigint;
  readonly date: number;
  readonly realtime: boolean;
  readonly hyperv: boolean;
  readonly invariantTsc: boolean;
  readonly trace?: string;
  readonly hashEvery: number;
  readonly json?: string;
  readonly symbols?: string;
  readonly snapshot?: string;
  readonly resume?: string;
  readonly gdb?: number;
  readonly gdbWait: boolean;
  readonly offline: boolean;
  readonly cacheDir: string;
}

/** Instructions between looks at the outside world. */
const SLICE = 5_000_000;

export async function boot(options: BootOptions): Promise<number> {
  const say = (line: string): void => void process.stderr.write(`vitrine: ${line}\n`);
  const model = findCpuModel(options.cpuModel);
  if (model === undefined)
    throw new UserError(
      `there is no processor model '${options.cpuModel}': give EPYC-Milan or SapphireRapids with --cpu-model`,
    );
  if (isRunWithout(options))
    throw new UserError(
      '--run needs the default initramfs: leave out --initrd and --resume, or leave out --run',
    );
  for (const [path, what] of [
    [options.json === '-' ? undefined : options.json, '--json'],
    [options.snapshot, '--snapshot'],
  ] as const)
    if (path !== undefined) checkWritable(path, what);
  const symbols =
    options.symbols === undefined
      ? undefined
      : new Symbols(
          new TextDecoder('latin1').decode(readUserFile(options.symbols, 'symbols')),
          options.symbols,
        );
  const cache = new Cache(options.cacheDir);
  const source: PackageSource = { cache, apt: new Apt(cache), offline: options.offline, say };
  const events = options.trace === undefined ? undefined : new EventLog(options.trace);
  const sink: EventSink = events ?? { mask: 0, emit: () => undefined };
  const isRun = options.run !== undefined;
  const tty = !isRun && process.stdin.isTTY === true;
  let { machine, kernel } =
    options.resume === undefined ? await build(options, model, source, sink) : resume(options.resume, sink);

  const consoleFile =
    options.console !== undefined && options.console !== '-' ? openConsole(options.console) : undefined;
  // Raw for who asked for it or sits at it; what goes into a log by default is harmless there.
  const log = new LogStream();
  const recent: Uint8Array[] = [];
  const toConsole = (bytes: Uint8Array): void => {
    recent.push(bytes.slice());
    if (recent.length > 4096) recent.splice(0, 2048);
    if (consoleFile !== undefined) writeSync(consoleFile, bytes);
    else if (options.console === '-' || tty) process.stdout.write(Uint8Array.from(bytes));
    else if (!isRun) process.stdout.write(log.push(bytes));
  };
  const session = isRun ? new RunSession() : undefined;
  const onSerial = (unit: number, bytes: Uint8Array): void => {
    if (unit === 0) toConsole(bytes);
    else session?.push(bytes);
  };
  machine.onSerial = onSerial;

  const started = performance.now();
  const terminal = tty ? interactive() : isRun ? undefined : piped();
  const gdb = options.gdb === undefined ? undefined : new GdbServer(machine, options.gdbWait);
  if (gdb !== undefined) {
    await gdb.listen(options.gdb as number);
    say(`gdb: target remote localhost:${options.gdb as number}`);
  }
  let reason: StopReason;
  let timedOut = false;
  let interrupted: number | undefined;
  const onSignal = (signal: NodeJS.Signals): void => void (interrupted = signal === 'SIGINT' ? 2 : 15);
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  let nextHash = options.hashEvery;
  const paced = options.realtime || tty;
  let pacer = new Pacer(machine.now);
  // While a command may read input, an idle guest gets it before its clock skips to the next timer.
  let skipTo = 0;
  try {
    for (;;) {
      const left = options.limit - machine.instructions;
      const held = paced || session?.waiting === true;
      const idleTo = held
        ? pacer.target(machine.now)
        : session?.mayInput === true
          ? skipTo
          : terminal !== undefined
            ? Math.max(skipTo, machine.now)
            : Infinity;
      const untilHash = options.hashEvery > 0 ? nextHash - machine.instructions : Infinity;
      await gdb?.ready();
      if (gdb?.killed === true) return STATUS.ok;
      reason = (gdb ?? machine).run(Math.max(1, Math.min(SLICE, left, untilHash)), idleTo);
      if (options.hashEvery > 0 && machine.instructions >= nextHash) {
        process.stderr.write(`hash ${machine.instructions} ${stateHash(machine)}\n`);
        nextHash += options.hashEvery;
      }
      await breathe(reason, held ? pacer : undefined, machine);
      // Input goes to an idle guest before its clock skips to the next timer.
      if (terminal !== undefined) {
        terminal.pump(machine, reason.kind === 'idle');
        if (session === undefined) skipTo = reason.kind === 'idle' ? reason.until : machine.now;
      }
      while (process.stdout.writableNeedDrain && interrupted === undefined) await drained();
      if (session !== undefined) {
        const before = session.sent;
        await session.feed(machine);
        skipTo = reason.kind === 'idle' && session.sent === before ? reason.until : machine.now;
      }
      if (terminal?.left === true || interrupted !== undefined) break;
      if (options.timeout > 0 && performance.now() - started > options.timeout * 1000) {
        timedOut = true;
        break;
      }
      if (reason.kind === 'budget') {
        if (machine.instructions >= options.limit) break;
        continue;
      }
      if (reason.kind === 'idle') {
        if (reason.until === Infinity && !tty && (session === undefined || !session.mayInput)) break;
        continue;
      }
      if (
        tty &&
        gdb === undefined &&
        options.resume === undefined &&
        reason.kind === 'end' &&
        reason.reason === 'reset'
      ) {
        ({ machine, kernel } = await build(options, model, source, sink));
        machine.onSerial = onSerial;
        pacer = new Pacer(machine.now);
        continue;
      }
      break;
    }
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
    terminal?.restore();
    if (!isRun) process.stdout.write(log.end());
    session?.close();
    events?.close();
    gdb?.close();
    if (consoleFile !== undefined) closeSync(consoleFile);
  }
  const status = statusOf(reason, {
    timedOut,
    interrupted,
    left: terminal?.left === true,
    ...(session?.status === undefined ? {} : { run: session.status }),
    isRun,
  });
  if (status === STATUS.guestDied) {
    // Who sits at the console has seen them.
    if (!tty) process.stderr.write(logText(lastWords(recent)));
    process.stderr.write(
      `vitrine: the guest died: ${describe(reason)} after ${machine.instructions} instructions\n${registers(machine)}${symbols === undefined ? '' : stack(machine, symbols)}`,
    );
  } else if (status === STATUS.limit && interrupted === undefined)
    say(
      timedOut
        ? `the time limit of ${options.timeout} s was reached`
        : `the limit of ${options.limit} instructions was reached`,
    );
  if (options.snapshot !== undefined) save(options.snapshot, machine);
  if (options.json !== undefined) writeReport(options, machine, kernel, reason, status, started);
  return interrupted === undefined ? status : 128 + interrupted;
}

interface Built {
  readonly machine: Machine;
  readonly kernel: { readonly name: string; readonly sha256: string };
}

/** A machine with the kernel and the initramfs that the options ask for. */
async function build(
  options: BootOptions,
  model: CpuModel,
  source: PackageSource,
  sink: EventSink,
): Promise<Built> {
  const kernel = await resolveKernel(
    {
      ...(options.kernel === undefined ? {} : { file: options.kernel }),
      ...(options.kernelPackage === undefined ? {} : { package: options.kernelPackage }),
      ...(options.modules === undefined ? {} : { modulesDir: options.modules }),
      offline: options.offline,
    },
    source,
  );
  const initrd =
    options.initrd === undefined
      ? await defaultInitramfs(options, source, kernel.modules)
      : readUserFile(options.initrd, 'initrd');
  const commandLine = [
    'console=ttyS0,115200',
    'panic=-1',
    ...(options.run === undefined ? [] : ['quiet']),
    options.append ?? '',
  ]
    .join(' ')
    .trim();
  const launched = launchPlain({
    kernel: kernel.image,
    initrd,
    commandLine,
    memoryBytes: options.memory,
    vpCount: options.cpus,
    uarts: 2,
    entropy: entropyBytes(options.seed),
  });
  if (!launched.ok) throw new UserError(sentence(launched.error));

  const machine = new Machine({
    model,
    vcpus: options.cpus,
    seed: options.seed,
    tscHz: DEFAULT_CONFIG.tscHz,
    tscAtZero: 0n,
    directives: launched.launch.directives,
    sink,
    initRegisters: initEntry(model.signature),
  });
  machine.attach(
    hypervPlatform({
      ...DEFAULT_CONFIG,
      vpCount: options.cpus,
      vendor: model.vendor,
      hyperv: options.hyperv,
      invariantTsc: options.invariantTsc,
      startDate: options.date,
      physicalAddressBits: model.physicalAddressBits,
    }),
  );
  return { machine, kernel };
}

/** A machine from a snapshot file (zstd). Its configuration is the snapshot's. */
function resume(path: string, sink: EventSink): Built {
  const bytes = readUserFile(path, 'snapshot');
  let plain: Uint8Array;
  try {
    plain = zstdDecompressSync(bytes, { maxOutputLength: 2 ** 32 - 1 });
  } catch {
    throw new UserError(`snapshot ${path} is damaged: take it again with --snapshot`);
  }
  const outcome = restoreSnapshot(plain, { sink });
  if (!outcome.ok)
    throw new UserError(
      `snapshot ${path} cannot be resumed, ${outcome.reason}: take it again with --snapshot`,
    );
  return { machine: outcome.machine, kernel: { name: path, sha256: '' } };
}

function save(path: string, machine: Machine): void {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    writeFileSync(temporary, zstdCompressSync(takeSnapshot(machine)));
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw new UserError(
      `cannot write the snapshot to ${path} (${(error as NodeJS.ErrnoException).code ?? 'error'}): give another file with --snapshot`,
    );
  }
}

async function defaultInitramfs(
  options: BootOptions,
  source: PackageSource,
  modules: Parameters<typeof buildInitramfs>[0]['modules'],
): Promise<Uint8Array> {
  const { bytes, entry } = await packageBytes('busybox-static', source);
  return buildInitramfs({
    busybox: await busyboxFromDeb(bytes, entry.name),
    modules,
    ...(options.run === undefined ? {} : { command: options.run }),
    extra: options.add.map((text) => {
      const colon = text.indexOf(':');
      const host = colon < 0 ? text : text.slice(0, colon);
      const guest = colon < 0 ? basename(host) : text.slice(colon + 1);
      if (guest === '' || guest.endsWith('/'))
        throw new UserError(`--add ${text} names no file in the guest: give HOST:GUEST`);
      return { path: guest, data: readUserFile(host, 'file'), mode: statSync(host).mode & 0o777 };
    }),
  });
}

/** Bytes for the kernel's random generator, from the seed. */
function entropyBytes(seed: bigint): Uint8Array {
  const bytes = new Uint8Array(64);
  let state = seed & 0xffffffffffffffffn;
  for (let k = 0; k < bytes.length; k++) {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
    bytes[k] = Number(state >> 56n);
  }
  return bytes;
}

function openConsole(path: string): number {
  try {
    return openSync(path, 'w');
  } catch (error) {
    throw new UserError(
      `cannot write the console to ${path} (${(error as NodeJS.ErrnoException).code ?? 'error'}): give another file with --console`,
    );
  }
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

const isRunWithout = (options: BootOptions): boolean =>
  options.run !== undefined && (options.initrd !== undefined || options.resume !== undefined);

/** Says before the run that its result could not be written after it. */
function checkWritable(path: string, option: string): void {
  try {
    if (existsSync(path)) {
      if (statSync(path).isDirectory()) throw new UserError(`${option} ${path} is a folder: give a file`);
      accessSync(path, constants.W_OK);
    } else accessSync(dirname(resolvePath(path)), constants.W_OK);
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(
      `cannot write ${option} ${path} (${(error as NodeJS.ErrnoException).code ?? 'error'}): give another file`,
    );
  }
}

function statusOf(
  reason: StopReason,
  how: { timedOut: boolean; interrupted: number | undefined; left: boolean; run?: number; isRun: boolean },
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
      if (reason.reason === 'triple-fault') return STATUS.guestDied;
      return how.isRun ? STATUS.guestDied : STATUS.ok;
    case 'idle':
    case 'crash':
    case 'stuck':
    case 'debug':
      return STATUS.guestDied;
  }
}

function describe(reason: StopReason): string {
  switch (reason.kind) {
    case 'crash':
      return `it reported a crash (${reason.parameters.map((value) => `0x${value.toString(16)}`).join(' ')})`;
    case 'end':
      return reason.reason;
    case 'idle':
      return 'all processors wait and nothing will wake them';
    case 'stuck':
      return `processor ${reason.vp} repeats ${reason.exit} without progress`;
    default:
      return reason.kind;
  }
}

function registers(machine: Machine): string {
  const names = [
    'rax',
    'rcx',
    'rdx',
    'rbx',
    'rsp',
    'rbp',
    'rsi',
    'rdi',
    'r8',
    'r9',
    'r10',
    'r11',
    'r12',
    'r13',
    'r14',
    'r15',
  ];
  const lines: string[] = [];
  for (let vp = 0; vp < machine.config.vcpus; vp++) {
    const value = (name: number): string => {
      const [low, high] = machine.view.getRegister(vp, name) ?? [0, 0];
      return ((BigInt(high) << 32n) | BigInt(low)).toString(16).padStart(16, '0');
    };
    lines.push(
      `vp ${vp} rip ${value(0x20010)} rflags ${value(0x20011)} cr2 ${value(0x40001)} cr3 ${value(0x40002)}`,
    );
    for (let row = 0; row < 4; row++)
      lines.push(
        '  ' +
          names
            .slice(row * 4, row * 4 + 4)
            .map((name, k) => `${name.padEnd(3)} ${value(0x20000 + row * 4 + k)}`)
            .join(' '),
      );
  }
  return `${lines.join('\n')}\n`;
}

/** Return addresses on each stack, by name: every word that lies in the symbols' code, so some may be left from before. */
function stack(machine: Machine, symbols: Symbols): string {
  const inspector = inspect(machine);
  const lines: string[] = [];
  for (let vp = 0; vp < machine.config.vcpus; vp++) {
    const [low, high] = machine.view.getRegister(vp, REGISTER.lstar) ?? [0, 0];
    symbols.place('entry_SYSCALL_64', (BigInt(high) << 32n) | BigInt(low));
    const at = symbols.name(inspector.register(vp, 'rip'));
    if (at === undefined) continue;
    lines.push(`vp ${vp} stack`, `  ${at}`);
    const from = inspector.register(vp, 'rsp');
    for (let word = 0n; word < 512n && lines.length < 64 * (vp + 1); word++) {
      const bytes = inspector.read(vp, from + word * 8n, 8);
      if (bytes === undefined) break;
      const name = symbols.name(new DataView(bytes.buffer).getBigUint64(0, true));
      if (name !== undefined) lines.push(`  ${name}`);
    }
  }
  return lines.map((line) => `${line}\n`).join('');
}

function writeReport(
  options: BootOptions,
  machine: Machine,
  kernel: { name: string; sha256: string },
  reason: StopReason,
  status: number,
  started: number,
): void {
  const report = {
    configuration: { ...options, seed: options.seed.toString() },
    kernel: { name: kernel.name, sha256: kernel.sha256 },
    end: { reason: reason.kind === 'end' ? reason.reason : reason.kind, status },
    instructions: machine.instructions,
    exits: machine.exits,
    virtualNanoseconds: machine.now,
    stateHash: stateHash(machine),
    seconds: (performance.now() - started) / 1000,
  };
  const text = `${JSON.stringify(report, null, 2)}\n`;
  if (options.json === '-') process.stdout.write(text);
  else
    try {
      writeFileSync(options.json as string, text);
    } catch (error) {
      throw new UserError(
        `cannot write the report to ${options.json as string} (${(error as NodeJS.ErrnoException).code ?? 'error'}): give another file with --json`,
      );
    }
}
