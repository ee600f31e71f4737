/** `vitrine boot`: files and options in, a machine that runs, an exit status out. */
import { closeSync, openSync, renameSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { basename } from 'node:path';
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { sentence } from '../launch/outcome.ts';
import { launchPlain } from '../launch/plain.ts';
import { initEntry } from '../launch/entry-state.ts';
import { DEFAULT_CONFIG } from '../host/config.ts';
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
import { interactive, lastWords, RunSession } from './sessions.ts';
import { logText } from './sanitize.ts';

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
  if (model === undefined) throw new UserError(`there is no processor model '${options.cpuModel}': give EPYC-Milan or SapphireRapids with --cpu-model`);
  const cache = new Cache(options.cacheDir);
  const source: PackageSource = { cache, apt: new Apt(cache), offline: options.offline, say };
  const events = options.trace === undefined ? undefined : new EventLog(options.trace);
  const sink: EventSink = events ?? { mask: 0, emit: () => undefined };
  const isRun = options.run !== undefined;
  const { machine, kernel } = options.resume === undefined ? await build(options, model, source, sink) : resume(options.resume, sink);

  const consoleFile = options.console !== undefined && options.console !== '-' ? openConsole(options.console) : undefined;
  const recent: Uint8Array[] = [];
  const toConsole = (bytes: Uint8Array): void => {
    recent.push(bytes.slice());
    if (recent.length > 4096) recent.splice(0, 2048);
    if (consoleFile !== undefined) writeSync(consoleFile, bytes);
    else if (options.console === '-' || !isRun) process.stdout.write(Uint8Array.from(bytes));
  };
  const session = isRun ? new RunSession() : undefined;
  machine.onSerial = (unit, bytes) => {
    if (unit === 0) toConsole(bytes);
    else session?.push(bytes);
  };

  const started = performance.now();
  const tty = !isRun && process.stdin.isTTY === true;
  const terminal = tty ? interactive(machine) : undefined;
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
  try {
    for (;;) {
      const left = options.limit - machine.instructions;
      const idleTo = paced ? (performance.now() - started) * 1e6 : Infinity;
      const untilHash = options.hashEvery > 0 ? nextHash - machine.instructions : Infinity;
      await gdb?.ready();
      if (gdb?.killed === true) return STATUS.ok;
      reason = (gdb ?? machine).run(Math.max(1, Math.min(SLICE, left, untilHash)), idleTo);
      if (options.hashEvery > 0 && machine.instructions >= nextHash) {
        process.stderr.write(`hash ${machine.instructions} ${stateHash(machine)}\n`);
        nextHash += options.hashEvery;
      }
      await breathe(reason, paced, machine, started);
      if (session !== undefined) await session.feed(machine);
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
      break;
    }
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
    terminal?.restore();
    session?.close();
    events?.close();
    gdb?.close();
    if (consoleFile !== undefined) closeSync(consoleFile);
  }
  const status = statusOf(reason, { timedOut, interrupted, left: terminal?.left === true, ...(session?.status === undefined ? {} : { run: session.status }), isRun });
  if (status === STATUS.guestDied) {
    process.stderr.write(logText(lastWords(recent)));
    process.stderr.write(`vitrine: the guest died: ${describe(reason)} after ${machine.instructions} instructions\n${registers(machine)}`);
  } else if (status === STATUS.limit) say(timedOut ? `the time limit of ${options.timeout} s was reached` : `the limit of ${options.limit} instructions was reached`);
  if (options.snapshot !== undefined) save(options.snapshot, machine);
  if (options.json !== undefined) writeReport(options, machine, kernel, reason, status, started);
  return interrupted === undefined ? status : 128 + interrupted;
}

interface Built {
  readonly machine: Machine;
  readonly kernel: { readonly name: string; readonly sha256: string };
}

/** A machine with the kernel and the initramfs that the options ask for. */
async function build(options: BootOptions, model: CpuModel, source: PackageSource, sink: EventSink): Promise<Built> {
  const kernel = await resolveKernel(
    {
      ...(options.kernel === undefined ? {} : { file: options.kernel }),
      ...(options.kernelPackage === undefined ? {} : { package: options.kernelPackage }),
      ...(options.modules === undefined ? {} : { modulesDir: options.modules }),
      offline: options.offline,
    },
    source,
  );
  const initrd = options.initrd === undefined ? await defaultInitramfs(options, source, kernel.modules) : readUserFile(options.initrd, 'initrd');
  const commandLine = ['console=ttyS0,115200', 'panic=-1', ...(options.run === undefined ? [] : ['quiet']), options.append ?? ''].join(' ').trim();
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
  if (!outcome.ok) throw new UserError(`snapshot ${path} cannot be resumed, ${outcome.reason}: take it again with --snapshot`);
  return { machine: outcome.machine, kernel: { name: path, sha256: '' } };
}

function save(path: string, machine: Machine): void {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    writeFileSync(temporary, zstdCompressSync(takeSnapshot(machine)));
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw new UserError(`cannot write the snapshot to ${path} (${(error as NodeJS.ErrnoException).code ?? 'error'}): give another file with --snapshot`);
  }
}

async function defaultInitramfs(options: BootOptions, source: PackageSource, modules: Parameters<typeof buildInitramfs>[0]['modules']): Promise<Uint8Array> {
  const { bytes, entry } = await packageBytes('busybox-static', source);
  return buildInitramfs({
    busybox: await busyboxFromDeb(bytes, entry.name),
    modules,
    ...(options.run === undefined ? {} : { command: options.run }),
    extra: options.add.map((text) => {
      const colon = text.indexOf(':');
      const host = colon < 0 ? text : text.slice(0, colon);
      const guest = colon < 0 ? basename(host) : text.slice(colon + 1);
      if (guest === '' || guest.endsWith('/')) throw new UserError(`--add ${text} names no file in the guest: give HOST:GUEST`);
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
    throw new UserError(`cannot write the console to ${path} (${(error as NodeJS.ErrnoException).code ?? 'error'}): give another file with --console`);
  }
}

/** Lets Node.js deliver input and signals; when the guest is idle and paced, waits for real time to catch up. */
async function breathe(reason: StopReason, paced: boolean, machine: Machine, started: number): Promise<void> {
  if (paced && reason.kind === 'idle') {
    const until = Math.min(reason.until, machine.now + 50e6);
    const wait = Math.max(1, Math.min(50, until / 1e6 - (performance.now() - started)));
    await new Promise((resolve) => setTimeout(resolve, wait));
    return;
  }
  await new Promise((resolve) => setImmediate(resolve));
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
  const names = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'];
  const lines: string[] = [];
  for (let vp = 0; vp < machine.config.vcpus; vp++) {
    const value = (name: number): string => {
      const [low, high] = machine.view.getRegister(vp, name) ?? [0, 0];
      return ((BigInt(high) << 32n) | BigInt(low)).toString(16).padStart(16, '0');
    };
    lines.push(`vp ${vp} rip ${value(0x20010)} rflags ${value(0x20011)} cr2 ${value(0x40001)} cr3 ${value(0x40002)}`);
    for (let row = 0; row < 4; row++) lines.push('  ' + names.slice(row * 4, row * 4 + 4).map((name, k) => `${name.padEnd(3)} ${value(0x20000 + row * 4 + k)}`).join(' '));
  }
  return `${lines.join('\n')}\n`;
}

function writeReport(options: BootOptions, machine: Machine, kernel: { name: string; sha256: string }, reason: StopReason, status: number, started: number): void {
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
      throw new UserError(`cannot write the report to ${options.json as string} (${(error as NodeJS.ErrnoException).code ?? 'error'}): give another file with --json`);
    }
}
