/**
 * The machine that scripts/fuzz-processor.ts feeds: one processor on the test board with 2 MiB, put back into the same
 * state before each case. It drives the engine itself instead of a `Machine`, because a run that has ended stays ended.
 */
import { IDLE_GUEST } from '../guests/compute.ts';
import { eachPage, type InitialRegisters, type SegmentRegister } from '../src/launch/directives.ts';
import { resetEntry } from '../src/launch/entry-state.ts';
import { launchMultiboot } from '../src/launch/multiboot.ts';
import type { World } from '../src/machine/machine.ts';
import { stateHash } from '../src/machine/state-hash.ts';
import { boardPieces } from '../src/machine/test-board/board.ts';
import { bootTestBoard } from '../src/machine/test-board/boot.ts';
import { type TestBoardPlatform, testBoardPlatform } from '../src/machine/test-board/platform.ts';
import { complete, inject, readExit, setRegisters, write64 } from '../src/silicon/vcpu.ts';
import { cpuModels } from '../src/x86/cpuid.ts';
import { CPU, EXIT, PENDING, RUN } from '../src/x86/layout.ts';
import type { CodeCase, CodeMode, FuzzEngine, FuzzOutcome, FuzzTarget } from './fuzz-cases.ts';

const MEMORY = 2 * 2 ** 20;
const PAGE = 4096;
/** Memory is compared in pieces of this size before pages are. */
const CHUNK = 16 * PAGE;

/** Where the tables of the code cases lie. */
const AT = {
  gdt: 0x1000,
  idt32: 0x2000,
  handler: 0x3000,
  idt64: 0x4000,
  tss32: 0x5000,
  tss64: 0x6000,
  stack: 0x9000,
  pml4: 0xa000,
  pdpt: 0xb000,
  pd: 0xc000,
  code: 0x10000,
} as const;

const SELECTOR = {
  code32: 8,
  data: 0x10,
  code64: 0x18,
  user32: 0x23,
  userData: 0x2b,
  user64: 0x33,
  tss32: 0x38,
  tss64: 0x40,
} as const;

const GDT: readonly bigint[] = [
  0n,
  0x00cf9b000000ffffn,
  0x00cf93000000ffffn,
  0x00af9b000000ffffn,
  0x00cffb000000ffffn,
  0x00cff3000000ffffn,
  0x00affb000000ffffn,
  0x00008b0050000067n,
  0x00008b0060000067n,
  0n,
];

/** The machine's memory before a code case: descriptor tables, gates that end in HLT, 2 MiB pages one to one. */
function codeMemory(): Uint8Array {
  const memory = new Uint8Array(MEMORY);
  const view = new DataView(memory.buffer);
  GDT.forEach((descriptor, i) => view.setBigUint64(AT.gdt + i * 8, descriptor, true));
  for (let vector = 0; vector < 256; vector++) {
    const gate = (BigInt(SELECTOR.code32) << 16n) | BigInt(AT.handler) | (0xee00n << 32n);
    view.setBigUint64(AT.idt32 + vector * 8, gate, true);
    view.setBigUint64(
      AT.idt64 + vector * 16,
      (BigInt(SELECTOR.code64) << 16n) | BigInt(AT.handler) | (0xee00n << 32n),
      true,
    );
  }
  memory.set([0xf4, 0xeb, 0xfd], AT.handler);
  // Vectors of real mode lead there too, and what lies behind the code halts.
  for (let vector = 0; vector < 256; vector++) view.setUint32(vector * 4, AT.handler, true);
  memory.fill(0xf4, AT.code, AT.code + PAGE);
  view.setUint32(AT.tss32 + 4, AT.stack, true);
  view.setUint32(AT.tss32 + 8, SELECTOR.data, true);
  view.setBigUint64(AT.tss64 + 4, BigInt(AT.stack), true);
  view.setBigUint64(AT.pml4, BigInt(AT.pdpt | 7), true);
  view.setBigUint64(AT.pdpt, BigInt(AT.pd | 7), true);
  for (let i = 0; i < MEMORY >> 21; i++) view.setBigUint64(AT.pd + i * 8, BigInt(i * 0x200000) | 0x87n, true);
  return memory;
}

const segment = (selector: number, attributes: number, limit = 0xffffffff, base = 0): SegmentRegister => ({
  selector,
  base: BigInt(base),
  limit,
  attributes,
});

/** Attributes as in `SegmentRegister`. */
const CODE = { code16: 0x9b, code32: 0xc9b, code64: 0xa9b, user32: 0xcfb, user64: 0xafb } as const;
const DATA = { kernel: 0xc93, user: 0xcf3, real: 0x93, realUser: 0xf3 } as const;

function modeRegisters(mode: CodeMode, gprs: readonly bigint[], interrupts: boolean): InitialRegisters {
  const user = mode.endsWith('user') || mode === 'virtual-8086';
  const long = mode.startsWith('long') || mode === 'compatibility';
  const flags = (interrupts ? 0x202n : 2n) | (mode === 'virtual-8086' ? 0x20000n : 0n);
  const real = resetEntry(0);
  if (mode === 'real' || mode === 'virtual-8086') {
    const data = segment(AT.code >> 4, user ? DATA.realUser : DATA.real, 0xffff, AT.code);
    const code = segment(AT.code >> 4, user ? DATA.realUser : CODE.code16, 0xffff, AT.code);
    const tables = { ss: data, ds: data, es: data, fs: data, gs: data, cs: code };
    if (mode === 'real') return { ...real, ...tables, gprs, rip: 0n, rflags: flags, cr0: 0x10n };
    return { ...protectedTables(false), ...tables, gprs, rip: 0n, rflags: flags };
  }
  const data = user ? segment(SELECTOR.userData, DATA.user) : segment(SELECTOR.data, DATA.kernel);
  const code: Record<Exclude<CodeMode, 'real' | 'virtual-8086'>, SegmentRegister> = {
    'protected-16': segment(SELECTOR.code32, CODE.code16, 0xfffff),
    'protected-32': segment(SELECTOR.code32, CODE.code32),
    'protected-32-user': segment(SELECTOR.user32, CODE.user32),
    compatibility: segment(SELECTOR.code32, CODE.code32),
    long: segment(SELECTOR.code64, CODE.code64),
    'long-user': segment(SELECTOR.user64, CODE.user64),
  };
  const segments = { cs: code[mode], ss: data, ds: data, es: data, fs: data, gs: data };
  return { ...protectedTables(long), ...segments, gprs, rip: BigInt(AT.code), rflags: flags };
}

/** Everything of protected or long mode that is not a segment or a general register. */
function protectedTables(long: boolean): InitialRegisters {
  const tss = segment(long ? SELECTOR.tss64 : SELECTOR.tss32, 0x8b, 0x67, long ? AT.tss64 : AT.tss32);
  return {
    ...resetEntry(0),
    tr: tss,
    gdtr: { base: BigInt(AT.gdt), limit: GDT.length * 8 - 1 },
    idtr: { base: BigInt(long ? AT.idt64 : AT.idt32), limit: long ? 0xfff : 0x7ff },
    cr0: long ? 0x80010033n : 0x33n,
    cr3: long ? BigInt(AT.pml4) : 0n,
    // PAE, OSFXSR, OSXMMEXCPT, OSXSAVE: so that vector instructions are met too.
    cr4: 0x40620n,
    efer: long ? 0xd01n : 0n,
    fcw: 0x37f,
  };
}

/** What memory should hold; chunks that are all zero are one array, which stays in the cache. */
interface Wanted {
  readonly chunks: readonly Uint8Array[];
}

function inChunks(memory: Uint8Array): Wanted {
  const zero = new Uint8Array(CHUNK);
  const chunks = Array.from({ length: MEMORY / CHUNK }, (_, i) => {
    const chunk = memory.subarray(i * CHUNK, (i + 1) * CHUNK);
    return Buffer.compare(chunk, zero) === 0 ? zero : chunk;
  });
  return { chunks };
}

function place(memory: Uint8Array, gpa: number, bytes: Uint8Array): void {
  if (gpa + bytes.length > MEMORY) throw new Error(`no memory at 0x${gpa.toString(16)}`);
  memory.set(bytes, gpa);
}

export function createFuzzTarget(kind: FuzzEngine): FuzzTarget {
  const model = cpuModels()[0];
  if (model === undefined) throw new Error('there is no processor model');
  const source = { kind: 'kernel' as const, image: IDLE_GUEST.image(1), commandLine: '', modules: [] };
  const booted = bootTestBoard({
    source,
    memoryBytes: MEMORY,
    cpus: 1,
    model,
    engine: kind === 'interpreter' ? kind : 'translator',
  });
  if (!booted.ok) throw new Error(booted.error.what);
  const { machine, platform: first } = booted;
  const { engine, truth, view } = machine;
  engine.translateAfter(1);
  const cpu = engine.cpu(0);
  const { config } = first.state;
  const fresh = engine.u8.slice(cpu, cpu + CPU.size);
  const tables = inChunks(codeMemory());

  function store(gpa: number, bytes: Uint8Array): void {
    if (!truth.write(gpa, bytes)) {
      throw new Error(`no memory at 0x${gpa.toString(16)}`);
    }
  }

  /** Makes memory equal to `wanted`, writing only what differs. */
  function restoreMemory(wanted: Wanted): void {
    for (let at = 0; at < MEMORY; at += CHUNK) {
      const host = truth.host(at);
      if (host === undefined) throw new Error('memory cannot be read');
      const chunk = wanted.chunks[at / CHUNK] as Uint8Array;
      if (Buffer.compare(engine.u8.subarray(host, host + CHUNK), chunk) === 0) continue;
      for (let page = 0; page < CHUNK; page += PAGE) {
        const bytes = chunk.subarray(page, page + PAGE);
        if (Buffer.compare(engine.u8.subarray(host + page, host + page + PAGE), bytes) !== 0)
          store(at + page, bytes);
      }
    }
  }

  function run(platform: TestBoardPlatform, budget: number): FuzzOutcome {
    let clock = 0;
    let left = budget;
    let exits = 0;
    const world = (): World => ({ view, sink: { mask: 0, emit: () => undefined }, now: clock });
    while (left > 0 && exits < budget) {
      if (platform.nextEvent() <= clock) platform.advance(world());
      const waiting = engine.view.getUint32(cpu + CPU.answers, true) !== 0;
      const pending = waiting ? 'none' : platform.interrupt(0);
      const word = pending === 'none' ? 0 : pending === 'nmi' ? PENDING.nmi : PENDING.interrupt;
      engine.view.setUint32(cpu + CPU.pending, word, true);
      const reason = engine.run(cpu, waiting ? 1 : left, clock);
      const ran = engine.executed(cpu);
      clock += ran;
      left -= ran;
      if (reason === RUN.interrupt) {
        if (pending === 'nmi') platform.takeNmi(0);
        inject(engine, cpu, pending === 'nmi' ? 2 : platform.acknowledge(0, world()));
      }
      if (reason !== RUN.exit) continue;
      exits++;
      clock += 1000;
      const code = engine.view.getUint32(cpu + CPU.raiseVector, true);
      if (code === EXIT.wbinvd || code === EXIT.monitor || code === EXIT.pause) {
        complete(engine, cpu, { kind: 'done' });
        continue;
      }
      const exit = readExit(engine, cpu, machine.config.model);
      if (exit.kind === 'triple-fault') return 'shutdown';
      if (exit.kind === 'hlt') return 'halted';
      const { completion, actions } = platform.exit(0, exit, world());
      for (const action of actions) {
        if (action.kind === 'exit' || action.kind === 'end') return 'exit';
        if (action.kind === 'init' || action.kind === 'startup') return 'shutdown';
      }
      const isCall = exit.kind === 'hypercall' && completion.kind === 'value';
      if (isCall) write64(engine, cpu + CPU.gpr, (BigInt(completion.hi) << 32n) | BigInt(completion.lo));
      complete(engine, cpu, isCall ? { kind: 'done' } : completion);
    }
    return 'budget';
  }

  /** The tables with the bytes of a case behind them. */
  function withCode(code: Uint8Array): Wanted {
    const chunks = [...tables.chunks];
    const chunk = (chunks[AT.code / CHUNK] as Uint8Array).slice();
    chunk.set(code, AT.code % CHUNK);
    chunks[AT.code / CHUNK] = chunk;
    return { chunks };
  }

  /** One run by the interpreter, one that finds its blocks hot, one in regions: all the same. */
  function checked(once: () => FuzzOutcome): FuzzOutcome {
    if (kind !== 'check') return once();
    const results = Array.from({ length: 3 }, () => {
      const outcome = once();
      engine.translator?.compile();
      return `${outcome}, state hash ${stateHash(machine)}` as const;
    });
    if (new Set(results).size > 1) throw new Error(`the engines differ: ${results.join('; ')}`);
    return (results[0] as string).split(',')[0] as FuzzOutcome;
  }

  function start(registers: InitialRegisters, budget: number): FuzzOutcome {
    engine.u8.set(fresh, cpu);
    engine.tlbFlush(cpu);
    setRegisters(engine, cpu, registers);
    return run(testBoardPlatform(config), budget);
  }

  return {
    runCode({ mode, code, registers }: CodeCase, budget): FuzzOutcome {
      const wanted = withCode(code);
      const gprs = [...registers];
      const keepsStack = (gprs[0] ?? 0n) % 4n === 0n;
      if (!keepsStack) gprs[4] = BigInt(AT.stack - 0x800);
      const entry = modeRegisters(mode, gprs, (gprs[1] ?? 0n) % 2n === 0n);
      return checked(() => {
        restoreMemory(wanted);
        return start(entry, budget);
      });
    },
    runImage(image, budget): FuzzOutcome {
      const launched = launchMultiboot({
        image,
        commandLine: 'fuzz',
        modules: [],
        memoryBytes: MEMORY,
        vpCount: 1,
        boardPieces: boardPieces(config),
      });
      if (!launched.ok) return 'refused';
      let registers: InitialRegisters | undefined;
      const memory = new Uint8Array(MEMORY);
      for (const directive of launched.launch.directives) {
        if (directive.kind === 'pages') eachPage(directive, (gpa, bytes) => place(memory, gpa, bytes));
        else if (directive.kind === 'context' && directive.vp === 0) registers = directive.registers;
      }
      if (registers === undefined) throw new Error('the launch gives the first processor no registers');
      const [entry, wanted] = [registers, inChunks(memory)];
      return checked(() => {
        restoreMemory(wanted);
        return start(entry, budget);
      });
    },
  };
}
