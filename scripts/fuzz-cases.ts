/**
 * The inputs of scripts/fuzz-processor.ts and what it asks of the machine under test. A case is a function of (seed,
 * kind, index) alone, so that a failure is repeated by its number.
 */

/** How the processor stands when it meets the bytes. */
export const CODE_MODES = [
  'real',
  'virtual-8086',
  'protected-16',
  'protected-32',
  'protected-32-user',
  'compatibility',
  'long',
  'long-user',
] as const;
export type CodeMode = (typeof CODE_MODES)[number];

export interface CodeCase {
  readonly mode: CodeMode;
  /** To be run from where the target puts it; what lies behind it is the target's choice. */
  readonly code: Uint8Array;
  /** RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8-R15. The target may replace RSP where it needs a stack. */
  readonly registers: BigUint64Array;
}

/** Every way in which a guest may end; anything else is a bug of ours. `refused`: the loader said no, in a sentence. */
export const OUTCOMES = ['budget', 'halted', 'shutdown', 'exit', 'refused'] as const;
export type FuzzOutcome = (typeof OUTCOMES)[number];

export const FUZZ_ENGINES = ['check', 'translator', 'interpreter'] as const;
export type FuzzEngine = (typeof FUZZ_ENGINES)[number];

export interface FuzzTarget {
  /** Runs at most `budget` instructions of the case on a machine in the same state each time. */
  runCode(testCase: CodeCase, budget: number): FuzzOutcome;
  /** Loads the image as a multiboot kernel and runs at most `budget` instructions. */
  runImage(image: Uint8Array, budget: number): FuzzOutcome;
}

/** xorshift32 over a mixed seed: not random, but the same everywhere. */
export interface Random {
  u32(): number;
  below(limit: number): number;
}

export function random(seed: number, stream: number, index: number): Random {
  let state =
    (Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^
      Math.imul(stream + 1, 0xc2b2ae35) ^
      Math.imul(index + 1, 0x27d4eb2f)) >>>
    0;
  if (state === 0) state = 0x6d2b79f5;
  const u32 = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  for (let i = 0; i < 8; i++) u32();
  return { u32, below: (limit) => u32() % limit };
}

const PREFIXES = [0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65] as const;
/** Values near which instructions behave differently: sizes, signs, canonical limits. */
const CORNERS = [
  ...[0n, 1n, 2n, 7n, 0x7fn, 0x80n, 0xffn, 0x7fffn, 0x8000n, 0xffffn, 0x7fffffffn, 0x80000000n, 0xffffffffn],
  ...[
    0x7fffffffffffn,
    0x800000000000n,
    0xffff800000000000n,
    0x7fffffffffffffffn,
    0x8000000000000000n,
    0xffffffffffffffffn,
  ],
] as const;

/**
 * A third of the strings is noise; the others are built like instructions (prefixes, REX, an opcode from one of the
 * maps, ModRM and the rest), since noise mostly stops at its first byte.
 */
export function codeCase(seed: number, mode: CodeMode, index: number): CodeCase {
  const rng = random(seed, CODE_MODES.indexOf(mode), index);
  const bytes: number[] = [];
  if (rng.below(3) === 0) {
    const length = 1 + rng.below(64);
    while (bytes.length < length) bytes.push(rng.below(256));
  } else {
    const instructions = 1 + rng.below(8);
    for (let i = 0; i < instructions; i++) instructionLike(rng, mode, bytes);
  }
  const registers = BigUint64Array.from({ length: 16 }, () => registerValue(rng));
  return { mode, code: Uint8Array.from(bytes), registers };
}

function instructionLike(rng: Random, mode: CodeMode, bytes: number[]): void {
  while (rng.below(3) === 0) bytes.push(PREFIXES[rng.below(PREFIXES.length)] ?? 0);
  if (mode.startsWith('long') && rng.below(2) === 0) bytes.push(0x40 | rng.below(16));
  const map = rng.below(8);
  if (map >= 4) bytes.push(0x0f);
  if (map === 6) bytes.push(0x38);
  if (map === 7) bytes.push(0x3a);
  bytes.push(rng.below(256), rng.below(256));
  const tail = rng.below(6);
  for (let i = 0; i < tail; i++) bytes.push(rng.below(256));
}

function registerValue(rng: Random): bigint {
  switch (rng.below(4)) {
    case 0:
      return CORNERS[rng.below(CORNERS.length)] ?? 0n;
    case 1:
      return BigInt(rng.below(0x10000));
    case 2:
      // Near the megabyte where the test machine keeps its memory, so that some accesses succeed.
      return BigInt(0x100000 + rng.below(0x100000));
    default:
      return (BigInt(rng.u32()) << 32n) | BigInt(rng.u32());
  }
}

/** A sound image with one to eight changes: bits, bytes, words of the headers, a cut, a stretch of another place. */
export function mutatedImage(seed: number, base: Uint8Array, index: number): Uint8Array {
  const rng = random(seed, 100, index);
  let image: Uint8Array = base.slice();
  const changes = 1 + rng.below(8);
  for (let i = 0; i < changes && image.length > 0; i++) image = mutate(rng, image);
  return image;
}

function mutate(rng: Random, image: Uint8Array): Uint8Array {
  // Half of the changes hit the first 128 bytes: the ELF and the multiboot headers, where a loader decides.
  const at = rng.below(rng.below(2) === 0 ? Math.min(image.length, 128) : image.length);
  switch (rng.below(6)) {
    case 0:
      image[at] = (image[at] ?? 0) ^ (1 << rng.below(8));
      return image;
    case 1:
      image[at] = rng.below(256);
      return image;
    case 2: {
      const value = Number(BigInt.asUintN(32, CORNERS[rng.below(CORNERS.length)] ?? 0n));
      for (let i = 0; i < 4 && at + i < image.length; i++) image[at + i] = value >>> (i * 8);
      return image;
    }
    case 3:
      return image.slice(0, at);
    case 4: {
      const from = rng.below(image.length);
      image.copyWithin(at, from, Math.min(image.length, from + 1 + rng.below(32)));
      return image;
    }
    default:
      for (let i = 0; i < 4 && at + i < image.length; i++) image[at + i] = rng.below(256);
      return image;
  }
}
