/**
 * The processor state and the address space of an instruction case: shared by the generator, the runner on the host
 * processor, the recorded files and the engine under test.
 *
 * A state is 576 bytes, little endian: rax rcx rdx rbx rsp rbp rsi rdi r8..r15 (0), rip (128), rflags (136), FS base
 * (144), GS base (152), then the first 416 bytes of an FXSAVE64 image (160).
 */
export const STATE_BYTES = 576;
export const RIP = 128;
export const RFLAGS = 136;
export const FS_BASE = 144;
export const GS_BASE = 152;
export const FX = 160;
export const FX_BYTES = 416;
export const FCW = FX;
export const FSW = FX + 2;
export const FTW = FX + 4;
export const FOP = FX + 6;
export const FIP = FX + 8;
export const FDP = FX + 16;
export const MXCSR = FX + 24;
export const MXCSR_MASK = FX + 28;
export const ST = FX + 32;
export const XMM = FX + 160;

/** Readable and executable, not writable. Unmapped on both sides. */
export const CODE = 0x1000_0000;
export const CODE_BYTES = 8192;
/** Readable and writable, not executable. Unmapped on both sides. */
export const DATA = 0x2000_0000;
export const DATA_BYTES = 8192;
/** Readable only. Unmapped on both sides. */
export const CONSTANT = 0x2000_4000;
export const CONSTANT_BYTES = 4096;
/** What the code pages hold where no case has put its instruction. */
export const CODE_FILLER = 0xcc;

/** Selectors while a case runs; DS, ES, FS and GS are null with usable (flat, 64-bit mode) hidden parts. */
export const CS_SELECTOR = 0x33;
export const SS_SELECTOR = 0x2b;

/** A segment that a case of compatibility mode may run with; attributes as in the engine: the descriptor's bits 40 to 55. */
export interface Segment {
  readonly selector: number;
  readonly base: number;
  readonly limit: number;
  readonly attributes: number;
}

/** By number: what `runner.c` puts into the LDT, and the flat ones of Linux. Number 0 is that of 64-bit mode. */
export const CODE_SEGMENTS: readonly (Segment & { readonly bits: 16 | 32 | 64 })[] = [
  { selector: CS_SELECTOR, base: 0, limit: 0xffffffff, attributes: 0xafb, bits: 64 },
  { selector: 0x23, base: 0, limit: 0xffffffff, attributes: 0xcfb, bits: 32 },
  { selector: 0x07, base: CODE, limit: 0x1fff, attributes: 0x0fb, bits: 16 },
  { selector: 0x0f, base: CODE, limit: 0x17f0, attributes: 0x4fb, bits: 32 },
];
export const DATA_SEGMENTS: readonly Segment[] = [
  { selector: 0, base: 0, limit: 0, attributes: 0x10000 },
  { selector: 0x2b, base: 0, limit: 0xffffffff, attributes: 0xcf3 },
  { selector: 0x17, base: DATA, limit: 0x1fff, attributes: 0x4f3 },
  { selector: 0x1f, base: DATA, limit: 0x1ffc, attributes: 0x0f3 },
  // Expands down, with 32-bit and with 16-bit offsets.
  { selector: 0x27, base: DATA - 0x1000, limit: 0xfff, attributes: 0x4f7 },
  { selector: 0x2f, base: DATA - 0x1000, limit: 0x1003, attributes: 0x0f7 },
  // Read-only.
  { selector: 0x37, base: DATA, limit: 0x1fff, attributes: 0x4f1 },
];

/**
 * The descriptors of Linux's GDT as far as user code can tell them apart, and the LDT of `runner.c`: entries 7 to 9 (data and
 * code that is not present, code that cannot be read) are only loaded and asked about.
 */
export const GDT_IMAGE: readonly bigint[] = [
  0n,
  0x00cf9b000000ffffn,
  0x00af9b000000ffffn,
  0x00cf93000000ffffn,
  0x00cffb000000ffffn,
  0x00cff3000000ffffn,
  0x00affb000000ffffn,
];

/** A descriptor from its parts; the limit is in bytes and below 1 MiB, or all of the 4 GiB. */
export function descriptor({ base, limit, attributes }: Segment): bigint {
  const b = BigInt(base);
  const l = BigInt(limit === 0xffffffff ? 0xfffff : limit);
  const a = BigInt(attributes);
  return (
    (l & 0xffffn) |
    ((b & 0xffffffn) << 16n) |
    ((a & 0xffn) << 40n) |
    ((l >> 16n) << 48n) |
    ((a >> 8n) << 52n) |
    ((b >> 24n) << 56n)
  );
}

export const LDT_IMAGE: readonly bigint[] = [
  ...[...CODE_SEGMENTS, ...DATA_SEGMENTS]
    .filter(({ selector }) => (selector & 4) !== 0)
    .sort((a, b) => a.selector - b.selector)
    .map(descriptor),
  descriptor({ selector: 0x3f, base: DATA, limit: 0x1fff, attributes: 0x473 }),
  descriptor({ selector: 0x47, base: CODE, limit: 0x1fff, attributes: 0x47b }),
  descriptor({ selector: 0x4f, base: CODE, limit: 0x1fff, attributes: 0x4f9 }),
];

/** Numbers of the segments in CS, SS, DS and ES. */
export interface CaseSegments {
  readonly cs: number;
  readonly ss: number;
  readonly ds: number;
  readonly es: number;
}

export const codeSegment = ({ segments }: Pick<VectorCase, 'segments'>) =>
  CODE_SEGMENTS[segments?.cs ?? 0] as (typeof CODE_SEGMENTS)[number];

export interface Patch {
  readonly address: number;
  readonly bytes: Uint8Array;
}

export interface VectorCase {
  /** What the case is counted as and masked by, such as `add m32,r32`. */
  readonly form: string;
  readonly code: Uint8Array;
  readonly state: Uint8Array;
  /** Memory that differs from the windows' common content before the instruction. */
  readonly patches: readonly Patch[];
  /** Run from rip until this address instead of for one instruction. */
  readonly stop: number | undefined;
  /** Compatibility mode with these; absent: 64-bit mode. */
  readonly segments?: CaseSegments;
}

export interface VectorResult {
  /** The exception that ended the case, or undefined when it completed. */
  readonly vector: number | undefined;
  readonly errorCode: number;
  readonly cr2: bigint;
  readonly state: Uint8Array;
  /** Data window bytes that differ from their content before the instruction. */
  readonly changes: readonly Patch[];
}

export function view(state: Uint8Array): DataView {
  return new DataView(state.buffer, state.byteOffset, state.byteLength);
}

/** Common content of the data window and the read-only page: pseudo-random bytes that depend on nothing. */
export function windowContent(): { readonly data: Uint8Array; readonly constant: Uint8Array } {
  const rng = new Rng(0x5eed);
  const fill = (bytes: number): Uint8Array => {
    const out = new Uint8Array(bytes);
    for (let i = 0; i < bytes; i++) out[i] = rng.next() >>> 24;
    return out;
  };
  return { data: fill(DATA_BYTES), constant: fill(CONSTANT_BYTES) };
}

/** A small counter-based generator (the finaliser of MurmurHash3 over a Weyl sequence). Recorded files depend on it. */
export class Rng {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 32 random bits, unsigned. */
  next(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    let x = this.#state;
    x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    return (x ^ (x >>> 16)) >>> 0;
  }

  /** An integer in [0, limit). */
  below(limit: number): number {
    return Math.floor((this.next() / 0x1_0000_0000) * limit);
  }

  chance(probability: number): boolean {
    return this.next() < probability * 0x1_0000_0000;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }
}

/** A seed from two numbers. */
export function mix(a: number, b: number): number {
  return new Rng(Math.imul(a, 0x01000193) ^ Math.imul(b + 0x7f4a7c15, 0x85ebca6b)).next();
}

/** True for a string instruction with F2 or F3, which ends only when its count or condition does. */
export function isRepeated(code: Uint8Array): boolean {
  let repeat = false;
  for (const byte of code) {
    if (byte === 0xf2 || byte === 0xf3) repeat = true;
    else if (
      ![0x66, 0x67, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0xf0].includes(byte) &&
      (byte & 0xf0) !== 0x40
    ) {
      return (
        repeat &&
        ((byte >= 0x6c && byte <= 0x6f) || (byte >= 0xa4 && byte <= 0xa7) || (byte >= 0xaa && byte <= 0xaf))
      );
    }
  }
  return false;
}
