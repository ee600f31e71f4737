/** Runs cases on an engine and compares what comes out with what the processor did. */
import { GENERAL_REGISTERS } from '../../src/abi/general-registers.ts';
import { APPROXIMATE, acceptedOutcome, maskFor } from './masks.ts';
import {
  CODE,
  CODE_BYTES,
  CODE_FILLER,
  CONSTANT,
  CONSTANT_BYTES,
  DATA,
  DATA_BYTES,
  FCW,
  FDP,
  FIP,
  FOP,
  FSW,
  FS_BASE,
  FTW,
  GS_BASE,
  MXCSR,
  type CaseSegments,
  type Patch,
  RFLAGS,
  RIP,
  ST,
  STATE_BYTES,
  type VectorCase,
  type VectorResult,
  XMM,
  codeSegment,
  view,
  windowContent,
} from './state.ts';

/**
 * What an engine gives to be tested: one virtual processor in 64-bit mode at CPL 3 with flat segments (CS 0x33, SS 0x2b,
 * the others null), CR0.NE, CR0.WP, CR0.AM, CR4.OSFXSR, CR4.OSXMMEXCPT, CR4.OSXSAVE (XCR0 x87 and SSE at least),
 * CR4.FSGSBASE, CR4.UMIP set, IOPL 0, no I/O permission bitmap.
 */
export interface VectorEngine {
  readonly name: string;
  /**
   * Maps user pages for the engine's life and returns a live view of their bytes. The harness writes through the view
   * whatever the guest may do with the page. Everything not mapped is absent.
   */
  map(address: number, length: number, access: 'execute' | 'write' | 'read'): Uint8Array;
  /** Runs of a case before the one that counts. */
  readonly warmUps: number;
  /** Makes a region that starts at `start`, which has run; false when what lies there cannot be translated. */
  translate(start: number): boolean;
  /** Instructions of the last run, exception handler's included, and how many of them no region executed. */
  taken(): { readonly executed: number; readonly interpreted: number };
  /** The harness changed bytes of an executable page. */
  codeChanged(address: number, length: number): void;
  /** Loads the 576 bytes of `state.ts`. Fields outside an FXSAVE64 image's 416 bytes take their reset values. */
  setState(state: Uint8Array, segments?: CaseSegments): void;
  /**
   * Executes one instruction (a repeated string instruction to its end or its fault), or, with `stop`, instructions
   * until rip is `stop`. Ends early at an exception, which is not delivered: the state is what its handler's frame and
   * registers would show (a fault's rip is on the instruction, a trap's behind it). `limit` instructions without an end
   * is vector -1. `single`: step by step, also in an engine that could run freely.
   */
  run(stop: number | undefined, limit: number, single: boolean): EngineOutcome;
  getState(state: Uint8Array): void;
}

export interface EngineOutcome {
  readonly vector: number | undefined;
  readonly errorCode: number;
  readonly cr2: bigint;
}

interface Window {
  readonly base: number;
  readonly live: Uint8Array;
  readonly pristine: Uint8Array;
}

/** An engine with the windows of `state.ts` mapped. */
export class VectorBench {
  readonly #engine: VectorEngine;
  readonly #code: Uint8Array;
  readonly #data: Window;
  readonly #constant: Window;
  readonly #expected: Uint8Array;
  readonly #expectedWords: Uint32Array;
  /** Cases on an engine that translates. */
  readonly counts = { translated: 0, untranslated: 0, executed: 0, interpreted: 0 };

  constructor(engine: VectorEngine) {
    const content = windowContent();
    this.#engine = engine;
    this.#code = engine.map(CODE, CODE_BYTES, 'execute').fill(CODE_FILLER);
    this.#data = { base: DATA, live: engine.map(DATA, DATA_BYTES, 'write'), pristine: content.data };
    this.#constant = {
      base: CONSTANT,
      live: engine.map(CONSTANT, CONSTANT_BYTES, 'read'),
      pristine: content.constant,
    };
    this.#data.live.set(content.data);
    this.#constant.live.set(content.constant);
    this.#expected = content.data.slice();
    this.#expectedWords = new Uint32Array(this.#expected.buffer);
  }

  run(c: VectorCase): VectorResult {
    const rip = Number(view(c.state).getBigUint64(RIP, true)) + codeSegment(c).base;
    const length = Math.min(c.code.length, CODE + CODE_BYTES - rip);
    this.#code.set(c.code.subarray(0, length), rip - CODE);
    this.#engine.codeChanged(rip, length);
    // Only 64-bit code is translated.
    const single = c.stop === undefined && (c.segments !== undefined || endsUnseen(c));
    const { warmUps } = this.#engine;
    for (let run = single ? warmUps : 0; run < warmUps; run++) this.#once(c, single);
    if (warmUps > 0 && !single) {
      this.#engine.setState(c.state);
      this.counts[this.#engine.translate(rip) ? 'translated' : 'untranslated']++;
    }
    const result = this.#once(c, single);
    if (warmUps > 0 && !single) {
      const { executed, interpreted } = this.#engine.taken();
      this.counts.executed += executed;
      this.counts.interpreted += interpreted;
    }
    this.#code.fill(CODE_FILLER, rip - CODE, rip - CODE + length);
    this.#engine.codeChanged(rip, length);
    return result;
  }

  /** One run on fresh memory, which is fresh again afterwards. */
  #once(c: VectorCase, single: boolean): VectorResult {
    const windowOf = (patch: Patch): Window => (patch.address >= CONSTANT ? this.#constant : this.#data);
    for (const patch of c.patches) {
      const window = windowOf(patch);
      window.live.set(patch.bytes, patch.address - window.base);
      if (window === this.#data) this.#expected.set(patch.bytes, patch.address - DATA);
    }
    this.#engine.setState(c.state, c.segments);
    const outcome = this.#engine.run(c.stop, 20000, single);
    const state = new Uint8Array(STATE_BYTES);
    this.#engine.getState(state);
    const changes: Patch[] = [];
    const live = this.#data.live;
    const liveWords = new Uint32Array(live.buffer, live.byteOffset, DATA_BYTES / 4);
    const expectedWords = this.#expectedWords;
    for (let i = 0; i < DATA_BYTES; i++) {
      while ((i & 3) === 0 && i < DATA_BYTES && liveWords[i >> 2] === expectedWords[i >> 2]) i += 4;
      if (i >= DATA_BYTES || live[i] === this.#expected[i]) continue;
      let end = i + 1;
      while (end < DATA_BYTES && live[end] !== this.#expected[end]) end++;
      changes.push({ address: DATA + i, bytes: live.slice(i, end) });
      i = end;
    }
    for (const patch of [...c.patches, ...changes]) {
      const window = windowOf(patch);
      const from = patch.address - window.base;
      const original = window.pristine.subarray(from, from + patch.bytes.length);
      window.live.set(original, from);
      if (window === this.#data) this.#expected.set(original, from);
    }
    return { ...outcome, state, changes };
  }
}

/**
 * Whether an engine that runs freely would not see the end of this instruction: a breakpoint itself, and a jump, which may go
 * into its own bytes.
 */
function endsUnseen({ form, code }: VectorCase): boolean {
  return (
    /^(random )?int/.test(form) ||
    code.includes(CODE_FILLER) ||
    /^(random )?(bnd |rep\w* )?(j|loop|call|ret)/.test(form)
  );
}

export interface Difference {
  readonly what: string;
  readonly expected: string;
  readonly actual: string;
}

const hex = (value: bigint | number, digits: number): string =>
  `0x${value.toString(16).padStart(digits, '0')}`;

function hexBytes(state: Uint8Array, from: number, length: number): string {
  return Array.from(state.subarray(from, from + length), (b) => b.toString(16).padStart(2, '0'))
    .reverse()
    .join('');
}

const FLAG_NAMES: readonly (readonly [number, string])[] = [
  [0x1, 'CF'],
  [0x4, 'PF'],
  [0x10, 'AF'],
  [0x40, 'ZF'],
  [0x80, 'SF'],
  [0x100, 'TF'],
  [0x200, 'IF'],
  [0x400, 'DF'],
  [0x800, 'OF'],
  [0x3000, 'IOPL'],
  [0x4000, 'NT'],
  [0x10000, 'RF'],
  [0x40000, 'AC'],
  [0x200000, 'ID'],
];

export const flagNames = (flags: number): string =>
  FLAG_NAMES.filter(([bit]) => (flags & bit) !== 0)
    .map(([, name]) => name)
    .join(' ') || '-';

/** rflags that user code can change; RF and VIF belong to delivery. */
const COMPARED_FLAGS = 0x247fd5 & ~0x10000;

const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
};

/** The usual case, without looking at any rule. */
function same(a: VectorResult, b: VectorResult): boolean {
  return (
    a.vector === b.vector &&
    a.errorCode === b.errorCode &&
    a.cr2 === b.cr2 &&
    sameBytes(a.state, b.state) &&
    a.changes.length === b.changes.length &&
    a.changes.every((p, i) => p.address === b.changes[i]?.address && sameBytes(p.bytes, b.changes[i].bytes))
  );
}

/** The differences that no rule of `masks.ts` explains. */
export function compare(c: VectorCase, expected: VectorResult, actual: VectorResult): Difference[] {
  if (same(expected, actual)) return [];
  const differences: Difference[] = [];
  const add = (what: string, e: string, a: string): void => {
    if (e !== a) differences.push({ what, expected: e, actual: a });
  };
  const vector = (value: number | undefined): string => (value === undefined ? 'completed' : `#${value}`);
  add('outcome', vector(expected.vector), vector(actual.vector));
  if (differences.length > 0) return acceptedOutcome(c, expected, actual) === undefined ? differences : [];
  const mask = maskFor(c, expected);
  if (expected.vector !== undefined) {
    // Linux shows a fault above what a process may map as a protection violation, whatever the page tables say.
    const upper = expected.vector === 14 && expected.cr2 >= 0x7fff_ffff_f000n;
    add(
      'error code',
      hex(expected.errorCode & (upper ? ~1 : ~0) & ~mask.error, 1),
      hex(actual.errorCode & (upper ? ~1 : ~0) & ~mask.error, 1),
    );
    if (expected.vector === 14 && !mask.cr2) add('cr2', hex(expected.cr2, 16), hex(actual.cr2, 16));
  }
  const e = view(expected.state);
  const a = view(actual.state);
  GENERAL_REGISTERS.forEach((name, i) => {
    const keep = BigInt.asUintN(64, ~(mask.registers.get(i) ?? 0n));
    add(name, hex(e.getBigUint64(i * 8, true) & keep, 16), hex(a.getBigUint64(i * 8, true) & keep, 16));
  });
  add('rip', hex(e.getBigUint64(RIP, true), 16), hex(a.getBigUint64(RIP, true), 16));
  const flags = COMPARED_FLAGS & ~mask.flags;
  add('rflags', flagNames(e.getUint32(RFLAGS, true) & flags), flagNames(a.getUint32(RFLAGS, true) & flags));
  add('fs base', hex(e.getBigUint64(FS_BASE, true), 16), hex(a.getBigUint64(FS_BASE, true), 16));
  add('gs base', hex(e.getBigUint64(GS_BASE, true), 16), hex(a.getBigUint64(GS_BASE, true), 16));
  if (!mask.fcw) add('fcw', hex(e.getUint16(FCW, true), 4), hex(a.getUint16(FCW, true), 4));
  add('fsw', hex(e.getUint16(FSW, true) & ~mask.fsw, 4), hex(a.getUint16(FSW, true) & ~mask.fsw, 4));
  if (!mask.tags) add('ftw', hex(e.getUint8(FTW), 2), hex(a.getUint8(FTW), 2));
  if (!mask.pointers) {
    add('fop', hex(e.getUint16(FOP, true), 4), hex(a.getUint16(FOP, true), 4));
    add('fip', hex(e.getBigUint64(FIP, true), 16), hex(a.getBigUint64(FIP, true), 16));
    add('fdp', hex(e.getBigUint64(FDP, true), 16), hex(a.getBigUint64(FDP, true), 16));
  }
  add(
    'mxcsr',
    hex(e.getUint32(MXCSR, true) & ~mask.mxcsr, 4),
    hex(a.getUint32(MXCSR, true) & ~mask.mxcsr, 4),
  );
  const sameRange = (at: number, length: number): boolean => {
    for (let i = at; i < at + length; i++) if (expected.state[i] !== actual.state[i]) return false;
    return true;
  };
  for (let i = 0; i < 8; i++) {
    const at = ST + i * 16;
    if (mask.st.has(i) || sameRange(at, 10)) continue;
    const from = hexBytes(expected.state, at, 10);
    const to = hexBytes(actual.state, at, 10);
    if (from !== to && !(APPROXIMATE.x87(c, expected.state, actual.state, i) && mask.approximate))
      add(`st${i}`, from, to);
  }
  for (let i = 0; i < 16 && !mask.xmm; i++) {
    const at = XMM + i * 16;
    if (sameRange(at, 16)) continue;
    const from = hexBytes(expected.state, at, 16);
    const to = hexBytes(actual.state, at, 16);
    if (from !== to && !(mask.approximate && APPROXIMATE.single(c, expected.state, actual.state, i)))
      add(`xmm${i}`, from, to);
  }
  const bytes = (list: readonly Patch[]): Map<number, number> =>
    new Map(list.flatMap((p) => Array.from(p.bytes, (value, i): [number, number] => [p.address + i, value])));
  const before = bytes(c.patches);
  const initial = windowContent0().data;
  const wanted = bytes(expected.changes);
  const got = bytes(actual.changes);
  for (const address of [...new Set([...wanted.keys(), ...got.keys()])].sort((x, y) => x - y)) {
    const original = before.get(address) ?? initial[address - DATA] ?? 0;
    if (mask.memory?.(address) === true) continue;
    add(
      `[${hex(address, 8)}]`,
      hex(wanted.get(address) ?? original, 2),
      hex(got.get(address) ?? original, 2),
    );
    if (differences.length > 40) break;
  }
  return differences;
}

let cachedContent: ReturnType<typeof windowContent> | undefined;
function windowContent0(): ReturnType<typeof windowContent> {
  cachedContent ??= windowContent();
  return cachedContent;
}

const hexCode = (code: Uint8Array): string =>
  Array.from(code, (b) => b.toString(16).padStart(2, '0')).join(' ');

/** Text of an instruction, when a disassembler is given. */
export type Disassemble = (code: Uint8Array, rip: bigint, bits: 16 | 32 | 64) => string;

/** A readable account of one failed case. */
export function explain(
  c: VectorCase,
  differences: readonly Difference[],
  disassemble?: Disassemble,
): string {
  const v = view(c.state);
  const rip = v.getBigUint64(RIP, true);
  const lines = [`${c.form}   ${hexCode(c.code)}   ${disassemble?.(c.code, rip, codeSegment(c).bits) ?? ''}`];
  if (c.segments !== undefined) lines.push(`  segments ${JSON.stringify(c.segments)}`);
  for (const d of differences)
    lines.push(`  ${d.what.padEnd(12)} processor ${d.expected}   engine ${d.actual}`);
  lines.push(`  before: rip ${hex(rip, 1)} rflags ${flagNames(v.getUint32(RFLAGS, true))}`);
  for (let i = 0; i < 16; i += 4) {
    lines.push(
      `    ${[0, 1, 2, 3].map((k) => `${(GENERAL_REGISTERS[i + k] ?? '').padStart(3)} ${hex(v.getBigUint64((i + k) * 8, true), 16)}`).join('  ')}`,
    );
  }
  const vectors = /xmm|\bmm/.test(c.form) || differences.some((d) => d.what.startsWith('xmm'));
  if (vectors || differences.some((d) => /^(st|f[cst]w|mxcsr)/.test(d.what))) {
    lines.push(
      `    fcw ${hex(v.getUint16(FCW, true), 4)} fsw ${hex(v.getUint16(FSW, true), 4)} ftw ${hex(v.getUint8(FTW), 2)} mxcsr ${hex(v.getUint32(MXCSR, true), 4)}`,
    );
    for (let i = 0; i < 8; i++) lines.push(`    st${i} ${hexBytes(c.state, ST + i * 16, 10)}`);
    if (vectors)
      for (let i = 0; i < 16; i++) lines.push(`    xmm${i} ${hexBytes(c.state, XMM + i * 16, 16)}`);
  }
  for (const p of c.patches) lines.push(`    [${hex(p.address, 8)}] ${hexCode(p.bytes.subarray(0, 64))}`);
  return lines.join('\n');
}
