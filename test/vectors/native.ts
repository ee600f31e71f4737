/** Runs cases on the processor of this machine: builds the runner with the system's C compiler and talks to it in files. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  CONSTANT_BYTES,
  DATA,
  DATA_BYTES,
  MXCSR,
  type Patch,
  STATE_BYTES,
  type VectorCase,
  type VectorResult,
  view,
  windowContent,
} from './state.ts';

const SOURCE = fileURLToPath(new URL('runner.c', import.meta.url));
const FLAGS = [
  '-O2',
  '-fno-stack-protector',
  '-mno-red-zone',
  '-mfsgsbase',
  '-fno-strict-aliasing',
  '-fPIE',
  '-pie',
  '-w',
];

/** Builds the runner if it is older than its source, and returns its path. */
export function buildRunner(): string {
  const folder = join(tmpdir(), `vitrine-vectors-${process.getuid?.() ?? 0}`);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const program = join(folder, 'runner');
  if (!existsSync(program) || statSync(program).mtimeMs < statSync(SOURCE).mtimeMs) {
    const result = spawnSync('cc', [...FLAGS, '-o', program, SOURCE], { encoding: 'utf8' });
    if (result.status !== 0)
      throw new Error(`cannot build ${SOURCE} with cc: ${result.error?.message ?? result.stderr}`);
  }
  return program;
}

const pad = (n: number): number => (n + 7) & ~7;

export function encodeBatch(cases: readonly VectorCase[]): Uint8Array {
  const { data, constant } = windowContent();
  const head = 8 + DATA_BYTES + CONSTANT_BYTES;
  const sizeOf = (c: VectorCase): number =>
    8 +
    STATE_BYTES +
    16 +
    pad(c.code.length) +
    c.patches.reduce((sum, p) => sum + 8 + pad(p.bytes.length), 0);
  const out = new Uint8Array(cases.reduce((sum, c) => sum + sizeOf(c), head));
  const v = view(out);
  v.setUint32(0, cases.length, true);
  out.set(data, 8);
  out.set(constant, 8 + DATA_BYTES);
  let at = head;
  for (const c of cases) {
    v.setUint32(at, sizeOf(c), true);
    const { cs, ss, ds, es } = c.segments ?? { cs: 0, ss: 0, ds: 0, es: 0 };
    v.setUint32(
      at + 4,
      (c.stop === undefined ? 0 : 1) | (cs << 8) | (ss << 12) | (ds << 16) | (es << 20),
      true,
    );
    out.set(c.state, at + 8);
    at += 8 + STATE_BYTES;
    v.setBigUint64(at, BigInt(c.stop ?? 0), true);
    v.setUint32(at + 8, c.code.length, true);
    v.setUint32(at + 12, c.patches.length, true);
    out.set(c.code, at + 16);
    at += 16 + pad(c.code.length);
    for (const p of c.patches) {
      v.setUint32(at, p.address, true);
      v.setUint32(at + 4, p.bytes.length, true);
      out.set(p.bytes, at + 8);
      at += 8 + pad(p.bytes.length);
    }
  }
  return out;
}

export function decodeResults(bytes: Uint8Array, count: number): (VectorResult | undefined)[] {
  const v = view(bytes);
  const results: (VectorResult | undefined)[] = [];
  let at = 0;
  while (results.length < count && at < bytes.length) {
    const end = at + v.getUint32(at, true);
    const vector = v.getUint32(at + 4, true);
    const changes: Patch[] = [];
    let p = at + 24 + STATE_BYTES;
    const total = v.getUint32(p, true);
    p += 8;
    for (let i = 0; i < total; i++) {
      const length = v.getUint32(p + 4, true);
      changes.push({ address: v.getUint32(p, true), bytes: bytes.slice(p + 8, p + 8 + length) });
      p += 8 + pad(length);
    }
    results.push(
      vector === 0xfe
        ? undefined
        : {
            vector: vector === 0xff ? undefined : vector,
            errorCode: Number(v.getBigUint64(at + 8, true)),
            cr2: v.getBigUint64(at + 16, true),
            state: bytes.slice(at + 24, at + 24 + STATE_BYTES),
            changes,
          },
    );
    at = end;
  }
  if (results.length !== count || at !== bytes.length) {
    throw new Error(`the runner answered ${results.length} of ${count} cases in ${bytes.length} bytes`);
  }
  return results;
}

const RFLAGS_AT = 136;
const TF = 0x100;
const RF = 0x10000;

/** Takes out what the measurement put in: TF in rflags and in what PUSHF stores, RF. */
function clean(c: VectorCase, result: VectorResult): VectorResult {
  const v = view(result.state);
  v.setUint32(RFLAGS_AT, v.getUint32(RFLAGS_AT, true) & ~(c.stop === undefined ? TF | RF : RF), true);
  if (c.stop === undefined && c.form.startsWith('pushf') && result.vector === undefined) {
    return { ...result, changes: clearStoredTf(c, result, Number(v.getBigUint64(32, true)) + 1) };
  }
  if (result.vector === undefined && /^f?xsave/.test(c.form)) hideMisalignedSse(c, result);
  return result;
}

/** Clears bit 0 of the byte at `address`, which the instruction stored. */
function clearStoredTf(c: VectorCase, result: VectorResult, address: number): readonly Patch[] {
  const changed = result.changes.find((p) => address >= p.address && address < p.address + p.bytes.length);
  if (changed !== undefined) {
    const at = address - changed.address;
    changed.bytes[at] = (changed.bytes[at] as number) & ~1;
    return result.changes;
  }
  // What it stored was there before.
  const patched = c.patches.findLast((p) => address >= p.address && address < p.address + p.bytes.length);
  const before =
    patched?.bytes[address - (patched?.address ?? 0)] ?? windowContent().data[address - DATA] ?? 0;
  return [...result.changes, { address, bytes: Uint8Array.of(before & ~1) }];
}

/** MXCSR_MASK in a stored image has bit 17, which belongs to AMD's misaligned SSE mode: not offered, so not recorded. */
function hideMisalignedSse(c: VectorCase, result: VectorResult): void {
  const content = windowContent().data;
  for (const list of [c.patches, result.changes]) {
    for (const patch of list) {
      if (patch.address >= DATA && patch.address < DATA + DATA_BYTES)
        content.set(patch.bytes, patch.address - DATA);
    }
  }
  const memory = view(content);
  const mxcsr = view(c.state).getUint32(MXCSR, true);
  for (const change of result.changes) {
    for (let i = 0; i < change.bytes.length; i++) {
      const at = change.address + i - DATA;
      if (at % 16 !== 14 || at < 30 || change.bytes[i] !== 2) continue;
      if (memory.getUint32(at - 2, true) === 0x2ffff && memory.getUint32(at - 6, true) === mxcsr)
        change.bytes[i] = 0;
    }
  }
}

/** Whether this kernel lets a process have segments of its own. */
export function hasSegments(): boolean {
  return spawnSync(buildRunner(), ['--ldt']).status === 0;
}

/** The processor's results; undefined for a case that did not end. */
export function runNative(cases: readonly VectorCase[]): (VectorResult | undefined)[] {
  const program = buildRunner();
  const results: (VectorResult | undefined)[] = [];
  const BATCH = 20000;
  for (let from = 0; from < cases.length; from += BATCH) {
    const batch = cases.slice(from, from + BATCH);
    const run = spawnSync(program, [], { input: encodeBatch(batch), maxBuffer: 2 ** 31 - 1 });
    if (run.status !== 0) {
      throw new Error(
        `the runner ended with ${run.status ?? run.signal ?? 'nothing'}: ${run.stderr?.toString() ?? ''}`,
      );
    }
    const decoded = decodeResults(run.stdout, batch.length);
    decoded.forEach((result, i) =>
      results.push(result === undefined ? undefined : clean(batch[i] as VectorCase, result)),
    );
  }
  return results;
}
