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
