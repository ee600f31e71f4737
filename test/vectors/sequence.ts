/**
 * Sequences of 5 to 50 instructions with data flow through registers, flags and memory, forward branches and short
 * loops: for engines that translate more than one instruction at a time. Nothing in them is undefined: a reader of
 * flags comes only after a writer that defines them, and the last instruction defines all.
 */
import { CODE, DATA, RIP, Rng, type VectorCase, mix, view } from './state.ts';
import { initialState } from './values.ts';

/** Status flags that have a defined value; AF is not among them: only the last instruction shows it. */
export const [CF, PF, ZF, SF, OF, ALL] = [1, 2, 4, 8, 16, 31];

/** Flags that each condition reads. */
const READS = [
  OF,
  OF,
  CF,
  CF,
  ZF,
  ZF,
  CF | ZF,
  CF | ZF,
  SF,
  SF,
  PF,
  PF,
  SF | OF,
  SF | OF,
  ZF | SF | OF,
  ZF | SF | OF,
];

/** Registers with a part of their own: RCX counts loops, RSP and RSI and RDI address memory. */
const FREE = [0, 2, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15];
const RSI = 6;

export class Assembler {
  readonly bytes: number[] = [];
  readonly rng: Rng;
  defined = ALL;
  count = 0;

  constructor(rng: Rng) {
    this.rng = rng;
  }

  register(): number {
    return this.rng.pick(FREE);
  }

  /** `size` 1, 2, 4 or 8; `rm` a register, or undefined for memory at RSI or RDI. */
  emit(
    size: number,
    opcode: readonly number[],
    reg: number,
    rm: number | undefined,
    tail: readonly number[] = [],
    prefix?: number,
  ): void {
    const base = RSI + this.rng.below(2);
    const rex = (size === 8 ? 8 : 0) | ((reg >> 3) << 2) | (rm === undefined ? 0 : rm >> 3);
    if (size === 2) this.bytes.push(0x66);
    if (prefix !== undefined) this.bytes.push(prefix);
    // Always a REX for byte registers: SPL to DIL instead of AH to BH.
    if (rex !== 0 || size === 1) this.bytes.push(0x40 | rex);
    this.bytes.push(...opcode);
    if (rm === undefined) {
      const offset = this.rng.below(60) * 4 - 120;
      this.bytes.push(0x40 | ((reg & 7) << 3) | base, offset & 0xff);
    } else this.bytes.push(0xc0 | ((reg & 7) << 3) | (rm & 7));
    this.bytes.push(...tail);
    this.count++;
  }

  immediate(bytes: number): number[] {
    const value = this.rng.chance(0.5) ? this.rng.below(16) - 8 : this.rng.next() | 0;
    return Array.from({ length: bytes }, (_, i) => (value >> (8 * i)) & 0xff);
  }

  /** A condition whose flags are defined, after a CMP when none is. */
  condition(): number {
    for (let tries = 0; tries < 4; tries++) {
      const condition = this.rng.below(16);
      if (((READS[condition] ?? 0) & ~this.defined) === 0) return condition;
    }
    this.emit(this.rng.pick([4, 8]), [0x39], this.register(), this.register());
    this.defined = ALL;
    return this.rng.below(16);
  }

  one(): void {
    const { rng } = this;
    const size = rng.pick([1, 2, 4, 4, 4, 8, 8, 8]);
    const wide = rng.pick([4, 4, 8, 8, 2]);
    const memory = rng.chance(0.35);
    const rm = memory ? undefined : this.register();
    const byte = size === 1 ? 0 : 1;
    switch (rng.below(22)) {
      case 0:
      case 1:
      case 2: {
        const operation = rng.pick([0, 1, 2, 3, 4, 5, 6, 7]);
        if ((operation === 2 || operation === 3) && (this.defined & CF) === 0) this.condition();
        if ((operation === 2 || operation === 3) && (this.defined & CF) === 0) return;
        this.emit(size, [operation * 8 + (rng.chance(0.5) ? 0 : 2) + byte], this.register(), rm);
        this.defined = ALL;
        return;
      }
      case 3:
      case 4: {
        const operation = rng.pick([0, 1, 4, 5, 6, 7]);
        if (rng.chance(0.5) || size === 1)
          this.emit(size, [size === 1 ? 0x80 : 0x83], operation, rm, this.immediate(1));
        else this.emit(size, [0x81], operation, rm, this.immediate(size === 2 ? 2 : 4));
        this.defined = ALL;
        return;
      }
      case 5:
      case 6:
        return this.emit(size, [(rng.chance(0.5) ? 0x88 : 0x8a) + byte], this.register(), rm);
      case 7: {
        // LEA base+index*scale+disp8.
        const [reg, base, index] = [this.register(), this.register(), this.register()];
        this.bytes.push(
          0x48 | ((reg >> 3) << 2) | ((index >> 3) << 1) | (base >> 3),
          0x8d,
          0x44 | ((reg & 7) << 3),
        );
        this.bytes.push(
          (rng.below(4) << 6) | ((index & 7) === 4 && index < 8 ? 0 : (index & 7) << 3) | (base & 7),
          rng.below(256),
        );
        this.count++;
        return;
      }
      case 8:
        return this.emit(wide, [0x0f, rng.pick([0xb6, 0xb7, 0xbe, 0xbf])], this.register(), rm);
      case 9:
      case 10: {
        const count = 1 + rng.below(size === 8 ? 63 : size === 4 ? 31 : 7);
        const operation = rng.pick([4, 5, 7]);
        this.emit(size, [0xc0 + byte], operation, rm, [count]);
        this.defined = ALL & ~(count === 1 ? 0 : OF);
        return;
      }
      case 11: {
        const count = 1 + rng.below(7);
        this.emit(size, [0xc0 + byte], rng.below(2), rm, [count]);
        this.defined = (this.defined | CF) & ~(count === 1 ? 0 : OF);
        if (count === 1) this.defined |= OF;
        return;
      }
      case 12:
        this.emit(wide, [0x0f, 0xaf], this.register(), rm);
        this.defined = CF | OF;
        return;
      case 13: {
        const increment = rng.below(2);
        const kept = this.defined & CF;
        this.emit(size, [0xfe + byte], increment, rm);
        this.defined = kept | (ALL & ~CF);
        return;
      }
      case 14:
        if (rng.chance(0.5)) return this.emit(size, [0xf6 + byte], 2, rm);
        this.emit(size, [0xf6 + byte], 3, rm);
        this.defined = ALL;
        return;
      case 15:
        return this.emit(wide, [0x0f, 0x40 + this.condition()], this.register(), rm);
      case 16:
        return this.emit(1, [0x0f, 0x90 + this.condition()], 0, rm);
      case 17: {
        const register = this.register();
        if (register >= 8) this.bytes.push(0x41);
        this.bytes.push(0x50 + (register & 7));
        const other = this.register();
        if (other >= 8) this.bytes.push(0x41);
        this.bytes.push(0x58 + (other & 7));
        this.count += 2;
        return;
      }
      case 18:
        this.emit(wide, [0x0f, rng.pick([0xba])], 4 + rng.below(4), this.register(), [rng.below(64)]);
        this.defined = (this.defined & ZF) | CF;
        return;
      case 19:
        this.emit(wide, [0x0f, 0xb8], this.register(), rm, [], 0xf3);
        this.defined = ALL;
        return;
      case 20: {
        // MOVDQU load or store, then integer SIMD.
        this.emit(4, [0x0f, rng.pick([0x6f, 0x7f])], rng.below(16), undefined, [], 0xf3);
        this.emit(
          2,
          [0x0f, rng.pick([0xfe, 0xd4, 0xef, 0xfa, 0x72 - 2, 0xf4])],
          rng.below(16),
          rng.below(16),
          [],
        );
        if (this.bytes[this.bytes.length - 2] === 0x70) this.bytes.push(rng.below(256));
        return;
      }
      default:
        return this.emit(4, [0x0f, rng.pick([0x58, 0x59, 0x5c, 0x57])], rng.below(16), rng.below(16));
    }
  }
}

export function sequenceCase(seed: number): VectorCase {
  const rng = new Rng(mix(seed, 1));
  const state = initialState('f32', seed);
  const v = view(state);
  v.setBigUint64(RIP, BigInt(CODE + rng.below(2000)), true);
  v.setBigUint64(32, BigInt(DATA + 2048 + 8 * rng.below(100)), true);
  v.setBigUint64(48, BigInt(DATA + 512 + 4 * rng.below(200)), true);
  // Near the boundary of the two pages.
  v.setBigUint64(56, BigInt(DATA + 4096 - 100 + rng.below(200)), true);
  // SSE exceptions stay masked: a fault would leave undefined flags in view.
  v.setUint32(160 + 24, v.getUint32(160 + 24, true) | 0x1f80, true);
  v.setUint32(136, v.getUint32(136, true) & ~0x400, true);
  const a = new Assembler(rng);
  const wanted = 5 + rng.below(45);
  while (a.count < wanted) {
    if (rng.chance(0.08)) {
      // A loop: MOV ECX, n; body; DEC ECX; JNZ body.
      a.bytes.push(0xb9, 1 + rng.below(6), 0, 0, 0);
      const start = a.bytes.length;
      // The body starts with whatever the last round left: nothing may read flags before writing them.
      a.emit(4, [0x39], a.register(), a.register());
      a.defined = ALL;
      for (let i = rng.below(5); i >= 0; i--) a.one();
      a.bytes.push(0xff, 0xc9);
      const back = start - (a.bytes.length + 2);
      if (back >= -128) a.bytes.push(0x75, back & 0xff);
      a.defined = ALL & ~CF;
      a.count += 3;
    } else if (rng.chance(0.12)) {
      const condition = a.condition();
      const at = a.bytes.length;
      a.bytes.push(0x70 + condition, 0);
      const before = a.defined;
      for (let i = rng.below(4); i >= 0; i--) a.one();
      a.bytes[at + 1] = a.bytes.length - at - 2;
      a.defined &= before;
      a.count++;
    } else a.one();
  }
  // AF too is defined at the end.
  a.emit(8, [0x01], a.register(), a.register());
  const rip = Number(v.getBigUint64(RIP, true));
  const stop = rip + a.bytes.length;
  return { form: 'sequence', code: Uint8Array.from([...a.bytes, 0xcc]), state, patches: [], stop };
}
