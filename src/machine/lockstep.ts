/**
 * Two machines that ought to be one: the same run on two engines, compared on registers, memory, TLB and time. What the
 * platform hears and says is compared by its state.
 */
import { CPU, SEG, TLB, segField } from '../x86/layout.ts';
import { validEntries } from '../x86/tlb.ts';
import { encodeValue } from './codec.ts';
import { read64, rflags } from '../silicon/vcpu.ts';
import type { Machine, StopReason } from './machine.ts';
import { rewind, takeSnapshot } from './snapshot.ts';

export interface Difference {
  readonly what: string;
  readonly first: string;
  readonly second: string;
}

const GPR_NAMES = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ');
const FIELDS: readonly (readonly [string, number])[] = [
  ...GPR_NAMES.map((name, n) => [name, CPU.gpr + n * 8] as const),
  ['rip', CPU.rip],
  ...(['cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'xcr0', 'efer'] as const).map((name) => [name, CPU[name]] as const),
  ...Array.from({ length: 10 }, (_, n) => [`segment ${n} base`, segField(n, SEG.base)] as const),
];
/** What has no name of its own. */
const RANGES: readonly (readonly [string, number, number])[] = [
  ['eflags', CPU.eflags, CPU.mode + 4],
  ['cpl', CPU.cpl, CPU.cpl + 4],
  ['interruptibility', CPU.shadow, CPU.shadow + 4],
  ['segments and system registers', CPU.seg, CPU.cr4Allowed],
  ['entropy', CPU.entropy, CPU.entropy + 8],
  ['x87 and SSE', CPU.st, CPU.xmm + 512],
  ['kept MSRs', CPU.keptMsr, CPU.keptMsr + 0x300],
];

const hex = (value: bigint | number): string => `0x${BigInt(value).toString(16)}`;

function cpuDifferences(a: Machine, b: Machine, slot: number): Difference[] {
  const found: Difference[] = [];
  const x = a.engine.cpu(0, slot);
  const y = b.engine.cpu(0, slot);
  for (const [what, offset] of FIELDS) {
    const first = read64(a.engine, x + offset);
    const second = read64(b.engine, y + offset);
    if (first !== second) found.push({ what, first: hex(first), second: hex(second) });
  }
  const flags = [rflags(a.engine, x), rflags(b.engine, y)] as const;
  if (flags[0] !== flags[1]) found.push({ what: 'rflags', first: hex(flags[0]), second: hex(flags[1]) });
  for (const [what, from, to] of RANGES) {
    for (let at = from; at < to; at += 4) {
      const first = a.engine.view.getUint32(x + at, true);
      const second = b.engine.view.getUint32(y + at, true);
      if (first !== second)
        found.push({ what: `${what} +${hex(at - from)}`, first: hex(first), second: hex(second) });
    }
  }
  return found;
}

/** Tags and guest-physical pages of the TLB. Bit 0 of a tag only says that somebody looks. */
function tlbDifferences(a: Machine, b: Machine, slot: number): Difference[] {
  const found: Difference[] = [];
  const x = a.engine.view.getUint32(a.engine.cpu(0, slot) + CPU.tlbArea, true);
  const y = b.engine.view.getUint32(b.engine.cpu(0, slot) + CPU.tlbArea, true);
  const tag = (machine: Machine, at: number): bigint => {
    const value = read64(machine.engine, at);
    return value === 0xffffffffffffffffn ? value : value & ~1n;
  };
  const places = [...validEntries(a.engine.u32, x), ...validEntries(b.engine.u32, y)];
  for (const at of new Set(places)) {
    for (const [what, field] of [
      ['read', TLB.read],
      ['write', TLB.write],
    ] as const) {
      const first = tag(a, x + at + field);
      const second = tag(b, y + at + field);
      if (first !== second)
        found.push({ what: `TLB entry ${hex(at)} ${what} tag`, first: hex(first), second: hex(second) });
    }
  }
  for (let at = TLB.fetch; at < TLB.areaBytes; at += 16) {
    const first = read64(a.engine, x + at);
    const second = read64(b.engine, y + at);
    if (first !== second)
      found.push({ what: `fetch entry ${hex(at)}`, first: hex(first), second: hex(second) });
  }
  return found;
}

/** Registers, TLB and time; not memory. */
export function stateDifferences(a: Machine, b: Machine): Difference[] {
  const found: Difference[] = [];
  for (const what of ['instructions', 'now', 'exits'] as const)
    if (a[what] !== b[what]) found.push({ what, first: `${a[what]}`, second: `${b[what]}` });
  for (let slot = 0; slot < a.config.vcpus * a.silicon.contexts; slot++) {
    found.push(...cpuDifferences(a, b, slot));
    found.push(...tlbDifferences(a, b, slot));
  }
  return found;
}

/** Guest memory and the platform. */
export function memoryDifferences(a: Machine, b: Machine): Difference[] {
  const places = new Map<number, number>();
  b.truth.eachPage((page, host) => places.set(page * 4096, host));
  const found: Difference[] = [];
  a.truth.eachPage((page, host) => {
    const gpa = page * 4096;
    const other = places.get(gpa);
    places.delete(gpa);
    for (let k = 0; k < 1024; k++) {
      const first = a.engine.u32[(host >>> 2) + k] as number;
      const second = other === undefined ? 0 : (b.engine.u32[(other >>> 2) + k] as number);
      if (first !== second && found.length < 16)
        found.push({ what: `memory ${hex(gpa + k * 4)}`, first: hex(first), second: hex(second) });
    }
  });
  for (const [gpa, host] of places) {
    for (let k = 0; k < 1024; k++) {
      const second = b.engine.u32[(host >>> 2) + k] as number;
      if (second !== 0 && found.length < 16)
        found.push({ what: `memory ${hex(gpa + k * 4)}`, first: '0x0', second: hex(second) });
    }
  }
  const states = [a, b].map(({ platform, silicon }) => encodeValue([platform.state, silicon.save()])) as [
    Uint8Array,
    Uint8Array,
  ];
  const at = states[0].findIndex((byte, k) => byte !== states[1][k]);
  if (at >= 0 || states[0].length !== states[1].length)
    found.push({ what: `platform state, byte ${at}`, first: `${states[0][at]}`, second: `${states[1][at]}` });
  return found;
}

export function sameReason(a: StopReason, b: StopReason): boolean {
  return JSON.stringify(a, printable) === JSON.stringify(b, printable);
}
const printable = (_key: string, value: unknown): unknown =>
  typeof value === 'bigint' ? value.toString() : value;

/** Instructions between comparisons of memory, and between snapshots to come back to. */
const MEMORY_EVERY = 64_000_000;

export interface Divergence {
  /** Both engines agree after this many instructions. */
  readonly agreed: number;
  /** The engines differ when this many more are run in one go, and agree when one fewer is. */
  readonly run: number;
  readonly differences: readonly Difference[];
  /** rip values of the reference from `agreed` on, with the code bytes there. */
  readonly path: readonly { readonly rip: bigint; readonly code: Uint8Array; readonly bits: 16 | 32 | 64 }[];
}

/** Runs both machines side by side. */
export class LockStep {
  readonly #subject: Machine;
  readonly #reference: Machine;
  #snapshot: Uint8Array;
  #nextMemory = 0;
  /** Calls since the snapshot, to be made again. */
  #calls: ((machine: Machine) => unknown)[] = [];

  /** The reference is the one that is believed. */
  constructor(subject: Machine, reference: Machine) {
    this.#subject = subject;
    this.#reference = reference;
    this.#snapshot = takeSnapshot(reference);
    this.#nextMemory = reference.instructions + MEMORY_EVERY;
  }

  get now(): number {
    return this.#subject.now;
  }

  serialInput(unit: number, bytes: Uint8Array): number {
    this.#calls.push((machine) => machine.serialInput(unit, bytes));
    this.#reference.serialInput(unit, bytes);
    return this.#subject.serialInput(unit, bytes);
  }

  run(budget: number, idleTo: number): StopReason | Divergence {
    const before = this.#reference.instructions;
    const reason = this.#subject.run(budget, idleTo);
    const other = this.#reference.run(budget, idleTo);
    const look = this.#reference.instructions >= this.#nextMemory;
    const found = this.#differences(reason, other, look);
    if (found.length > 0) return this.#narrow(found, budget, idleTo);
    if (look) {
      this.#snapshot = takeSnapshot(this.#reference);
      this.#calls = [];
      this.#nextMemory = this.#reference.instructions + MEMORY_EVERY;
    } else this.#calls.push((machine) => machine.run(budget, idleTo));
    void before;
    return reason;
  }

  /** What differs now, memory and platform too. */
  differences(): readonly Difference[] {
    return [
      ...stateDifferences(this.#subject, this.#reference),
      ...memoryDifferences(this.#subject, this.#reference),
    ];
  }

  #differences(reason: StopReason, other: StopReason, memory: boolean): Difference[] {
    const found = stateDifferences(this.#subject, this.#reference);
    if (!sameReason(reason, other))
      found.push({ what: 'reason to stop', first: JSON.stringify(reason), second: JSON.stringify(other) });
    if (memory) found.push(...memoryDifferences(this.#subject, this.#reference));
    return found;
  }

  /** Both back to the last snapshot, and then forward by the calls that were made. */
  #rewind(): void {
    for (const machine of [this.#subject, this.#reference]) rewind(machine, this.#snapshot);
  }

  /** Finds the shortest run after the last agreement that ends in a difference. */
  #narrow(found: readonly Difference[], budget: number, idleTo: number): Divergence {
    const calls = [...this.#calls, (machine: Machine) => machine.run(budget, idleTo)];
    const quiet = (machine: Machine): void => void (machine.onSerial = () => undefined);
    quiet(this.#subject);
    quiet(this.#reference);
    // Which of the calls since the snapshot makes the difference?
    let snapshot = this.#snapshot;
    this.#rewind();
    let differences: readonly Difference[] = [];
    for (const call of calls) {
      const before = takeSnapshot(this.#reference);
      for (const machine of [this.#subject, this.#reference]) call(machine);
      differences = [
        ...stateDifferences(this.#subject, this.#reference),
        ...memoryDifferences(this.#subject, this.#reference),
      ];
      snapshot = before;
      if (differences.length > 0) break;
    }
    const from = (): number => {
      for (const machine of [this.#subject, this.#reference]) rewind(machine, snapshot);
      return this.#reference.instructions;
    };
    const start = from();
    if (differences.length === 0) return { agreed: start, run: 0, differences: found, path: [] };
    const differs = (count: number): readonly Difference[] => {
      from();
      for (const machine of [this.#subject, this.#reference]) machine.run(count, idleTo);
      return [
        ...stateDifferences(this.#subject, this.#reference),
        ...memoryDifferences(this.#subject, this.#reference),
      ];
    };
    let low = 0;
    let high = budget;
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      const now = differs(middle);
      if (now.length > 0) {
        high = middle;
        differences = now;
      } else low = middle;
    }
    // A region is entered only with budget for all of it: it starts at most this far before the end.
    const back = Math.min(high, REGION_LIMIT);
    from();
    if (high > back) this.#reference.run(high - back, idleTo);
    const path: { rip: bigint; code: Uint8Array; bits: 16 | 32 | 64 }[] = [];
    const agreed = this.#reference.instructions;
    for (let k = 0; k < back; k++) {
      const { engine, silicon, current } = this.#reference;
      const cpu = silicon.cpu(current);
      const rip = read64(engine, cpu + CPU.rip);
      const mode = engine.view.getUint32(cpu + CPU.mode, true) & 3;
      const bits = mode === 2 ? 64 : mode === 1 ? 32 : 16;
      const base = bits === 64 ? 0n : read64(engine, cpu + segField(1, SEG.base));
      const gpa = engine.translate(cpu, rip + base);
      path.push({ rip, code: (gpa === undefined ? undefined : this.#code(gpa)) ?? new Uint8Array(), bits });
      if (this.#reference.run(1, idleTo).kind !== 'budget') break;
    }
    return { agreed, run: back, differences, path };
  }

  #code(gpa: number): Uint8Array | undefined {
    return this.#reference.truth.read(gpa, Math.min(15, 4096 - (gpa & 0xfff)));
  }
}

/** Most instructions that a region asks budget for. */
const REGION_LIMIT = 700;
