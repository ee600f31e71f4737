/**
 * Programs: sequences as in `sequence.ts` of more kinds of instructions, with calls and indirect jumps, and now and then one that
 * faults in the middle. What a fault shows is defined: a comparison of registers comes right before what may raise one.
 */
import { ALL, Assembler, CF, OF, SF, ZF } from './sequence.ts';
import {
  CODE,
  CONSTANT,
  DATA,
  DATA_BYTES,
  FCW,
  FX,
  MXCSR,
  RFLAGS,
  RIP,
  Rng,
  type VectorCase,
  mix,
  view,
} from './state.ts';
import { initialState } from './values.ts';

const RCX = 1;
const PREFIX = { none: 0, p66: 1, pf3: 2, pf2: 3 } as const;

class ProgramAssembler extends Assembler {
  /** Offsets of functions that can be called. */
  readonly functions: { readonly at: number; readonly leaves: number }[] = [];
  /** In a loop's body RCX counts. */
  inLoop = false;
  x87 = 0;
  repeats = 0;

  /** All flags, AF too, get a value. */
  compare(): void {
    this.emit(this.rng.pick([4, 8]), [0x39], this.register(), this.register());
    this.defined = ALL;
  }

  memoryOr(chance: number): number | undefined {
    return this.rng.chance(chance) ? undefined : this.register();
  }

  /** An instruction of VEX encoding on general registers: map 2 (0F38) or 3 (0F3A). */
  vex(
    map: 2 | 3,
    prefix: number,
    opcode: number,
    reg: number,
    other: number,
    rm: number | undefined,
    tail: number[] = [],
  ): void {
    const wide = this.rng.below(2);
    const base = 6 + this.rng.below(2);
    this.bytes.push(0xc4, (reg >> 3 ? 0 : 0x80) | 0x40 | ((rm ?? base) >> 3 ? 0 : 0x20) | map);
    this.bytes.push((wide << 7) | ((~other & 15) << 3) | prefix, opcode);
    if (rm === undefined)
      this.bytes.push(0x40 | ((reg & 7) << 3) | base, (this.rng.below(60) * 4 - 120) & 0xff);
    else this.bytes.push(0xc0 | ((reg & 7) << 3) | (rm & 7));
    this.bytes.push(...tail);
    this.count++;
  }

  /** An instruction on [disp32]. */
  absolute(size: number, opcode: readonly number[], reg: number, address: number, prefix?: number): void {
    if (size === 2) this.bytes.push(0x66);
    if (prefix !== undefined) this.bytes.push(prefix);
    const rex = (size === 8 ? 8 : 0) | ((reg >> 3) << 2);
    if (rex !== 0 || size === 1) this.bytes.push(0x40 | rex);
    this.bytes.push(...opcode, 0x04 | ((reg & 7) << 3), 0x25);
    for (let i = 0; i < 4; i++) this.bytes.push((address >>> (8 * i)) & 0xff);
    this.count++;
  }

  /** What may raise an exception, or just be near the edge of a page. */
  risky(): void {
    const { rng } = this;
    this.compare();
    const edge = DATA + DATA_BYTES - rng.below(20);
    const place = rng.pick([
      edge,
      edge,
      DATA - rng.below(16),
      CONSTANT + rng.below(4096),
      DATA + 4080 + rng.below(16),
    ]);
    const size = rng.pick([1, 2, 4, 8]);
    const byte = size === 1 ? 0 : 1;
    switch (rng.below(12)) {
      case 0:
        return this.absolute(size, [0x88 + byte], this.register(), place);
      case 1:
        return this.absolute(size, [0x8a + byte], this.register(), place);
      case 2: {
        const operation = rng.pick([0, 1, 4, 5, 6]);
        return this.absolute(size, [operation * 8 + byte + 2 * rng.below(2)], this.register(), place);
      }
      case 3:
        // MOVDQU and MOVDQA, MOVUPS and MOVAPS.
        return this.absolute(
          4,
          [0x0f, rng.pick([0x6f, 0x7f])],
          rng.below(16),
          place & ~(rng.below(2) * 15),
          rng.pick([0xf3, 0x66]),
        );
      case 4:
        return this.absolute(4, [0x0f, rng.pick([0x10, 0x11, 0x28, 0x29])], rng.below(16), place);
      case 5:
        // Read, changed and written: NOT, NEG, shifts, INC.
        if (rng.chance(0.5)) return this.absolute(size, [0xf6 + byte], rng.pick([2, 3]), place);
        return this.absolute(size, rng.chance(0.5) ? [0xd0 + byte] : [0xfe + byte], 0, place);
      case 6:
        // DIV and IDIV of whatever there is: mostly #DE.
        this.emit(rng.pick([4, 8]), [0xf7], 6 + rng.below(2), this.register());
        this.defined = 0;
        return;
      case 7:
        // PUSH and POP of memory.
        if (rng.chance(0.5)) return this.absolute(4, [0xff], 6, place);
        return this.absolute(4, [0x8f], 0, place);
      case 8:
        this.bytes.push(...rng.pick([[0x0f, 0x0b], [0xf4], [0xfa], [0x0f, 0x20, 0xc0], [0xed]]));
        this.count++;
        return;
      case 9:
        this.absolute(size, [0x0f, 0xb0 + byte], this.register(), place);
        this.defined = ALL;
        return;
      case 10:
        return this.absolute(size, [0x0f, 0xc0 + byte], this.register(), place);
      default:
        // FLD and FSTP of 8 and 10 bytes.
        if (this.x87 === 0) return;
        this.bytes.push(0x9b);
        return this.absolute(
          4,
          [rng.pick([0xdd, 0xdb])],
          rng.pick([0, 0, 3, 7]) | ((rng.below(2) * 5) & 5),
          place,
        );
    }
  }

  float(): void {
    const { rng } = this;
    if (this.x87 === 0) {
      this.bytes.push(0xdb, 0xe3);
      this.count++;
    }
    this.x87++;
    const st = (opcode: number, modrm: number): void => {
      this.bytes.push(opcode, modrm);
      this.count++;
    };
    switch (rng.below(9)) {
      case 0:
        return this.emit(4, [rng.pick([0xd9, 0xdd])], 0, undefined);
      case 1:
        return this.emit(4, [rng.pick([0xdb, 0xdf])], rng.pick([0, 5]), undefined);
      case 2:
        return this.emit(4, [rng.pick([0xd9, 0xdd])], 3, undefined);
      case 3:
        return this.emit(4, [rng.pick([0xdb, 0xdf])], 3, undefined);
      case 4:
        return st(0xd9, 0xe8 + rng.pick([0, 1, 3, 6]));
      case 5:
        return st(
          rng.pick([0xd8, 0xdc, 0xde]),
          0xc0 + rng.pick([0, 8, 0x20, 0x28, 0x30, 0x38]) + 1 + rng.below(2),
        );
      case 6:
        return st(0xd9, rng.pick([0xc9, 0xca, 0xe0, 0xe1, 0xfa, 0xfc, 0xc1]));
      case 7:
        // FCOMI: all flags.
        st(0xdb, 0xf0 + 1);
        this.defined = ALL;
        return;
      default:
        return this.emit(4, [rng.pick([0xd8, 0xdc])], rng.pick([0, 1, 4, 5]), undefined);
    }
  }

  override one(): void {
    const { rng } = this;
    if (rng.chance(0.4)) return super.one();
    const size = rng.pick([4, 8, 8, 2]);
    const any = rng.pick([1, 2, 4, 8]);
    const byte = any === 1 ? 0 : 1;
    switch (rng.below(27)) {
      case 0:
        // MUL and IMUL of rDX:rAX.
        this.emit(any, [0xf6 + byte], 4 + rng.below(2), this.memoryOr(0.3));
        this.defined = CF | OF;
        return;
      case 1: {
        // SHLD, SHRD.
        const count = 1 + rng.below(size === 8 ? 63 : size === 4 ? 31 : 15);
        this.emit(size, [0x0f, rng.pick([0xa4, 0xac])], this.register(), this.memoryOr(0.3), [count]);
        this.defined = ALL & ~(count === 1 ? 0 : OF);
        return;
      }
      case 2:
        if ((this.defined & CF) === 0) this.compare();
        // RCL, RCR by one.
        this.emit(any, [0xd0 + byte], 2 + rng.below(2), this.memoryOr(0.3));
        this.defined |= CF | OF;
        return;
      case 3:
        // Shifts and rotations by CL, with flags that are not defined.
        if (this.inLoop) return;
        this.bytes.push(0xb1, 1 + rng.below(31));
        this.emit(any === 8 ? 8 : 4, [0xd3], rng.pick([0, 1, 4, 5, 7]), this.memoryOr(0.3));
        this.count++;
        this.defined = 0;
        return;
      case 4:
        // TZCNT, LZCNT.
        this.emit(size, [0x0f, rng.pick([0xbc, 0xbd])], this.register(), this.memoryOr(0.3), [], 0xf3);
        this.defined = CF | ZF;
        return;
      case 5:
        this.emit(size, [0x0f, rng.pick([0xbc, 0xbd])], this.register(), this.memoryOr(0.3));
        this.defined = ZF;
        return;
      case 6:
        this.vex(2, PREFIX.none, 0xf2, this.register(), this.register(), this.memoryOr(0.3));
        this.defined = CF | ZF | SF | OF;
        return;
      case 7:
        // BLSR, BLSMSK, BLSI.
        this.vex(2, PREFIX.none, 0xf3, 1 + rng.below(3), this.register(), this.memoryOr(0.3));
        this.defined = CF | ZF | SF | OF;
        return;
      case 8:
        // SHLX, SARX, SHRX.
        return this.vex(2, rng.pick([1, 2, 3]), 0xf7, this.register(), this.register(), this.memoryOr(0.3));
      case 9:
        return this.vex(3, PREFIX.pf2, 0xf0, this.register(), 0, this.memoryOr(0.3), [rng.below(64)]);
      case 10:
        return this.vex(2, PREFIX.pf2, 0xf6, this.register(), this.register(), this.memoryOr(0.3));
      case 11:
        // PDEP, PEXT.
        return this.vex(2, rng.pick([2, 3]), 0xf5, this.register(), this.register(), this.memoryOr(0.3));
      case 12:
        // BEXTR, BZHI.
        this.vex(
          2,
          PREFIX.none,
          rng.chance(0.5) ? 0xf7 : 0xf5,
          this.register(),
          this.register(),
          this.memoryOr(0.3),
        );
        this.defined = ZF | CF | OF;
        return;
      case 13:
        // MOVBE and BSWAP.
        if (rng.chance(0.5))
          return this.emit(size, [0x0f, 0x38, 0xf0 + rng.below(2)], this.register(), undefined);
        {
          const register = this.register();
          this.bytes.push((register >> 3) | (rng.below(2) ? 0x48 : 0x40), 0x0f, 0xc8 | (register & 7));
          this.count++;
        }
        return;
      case 14:
        // CBW, CWDE, CDQE, CWD, CDQ, CQO.
        this.bytes.push(...rng.pick([[0x66], [], [0x48]]), rng.pick([0x98, 0x99]));
        this.count++;
        return;
      case 15:
        // CMC, CLC, STC.
        if ((this.defined & CF) === 0) this.compare();
        this.bytes.push(rng.pick([0xf5, 0xf8, 0xf9]));
        this.count++;
        return;
      case 16:
        // PUSHF into a register; LAHF.
        this.compare();
        if (rng.chance(0.5)) this.bytes.push(0x9c, 0x58);
        else this.bytes.push(0x9f);
        this.count += 2;
        return;
      case 17:
        this.compare();
        this.bytes.push(0x9e);
        this.count++;
        return;
      case 18:
        // XCHG, XADD, CMPXCHG.
        if (rng.chance(0.3)) return this.emit(any, [0x86 + byte], this.register(), this.register());
        this.emit(any, [0x0f, rng.pick([0xb0, 0xc0]) + byte], this.register(), this.memoryOr(0.5));
        this.defined = ALL;
        return;
      case 19:
        return this.strings();
      case 20:
        return this.call();
      case 21:
        return this.indirect();
      case 22:
      case 23:
        return this.float();
      case 24:
        // Doubles: ADD, MUL, SUB, MIN, DIV, MAX, SQRT packed and scalar; UNPCK, SHUFPD.
        if (rng.chance(0.2)) {
          this.emit(
            4,
            [0x0f, 0xc6],
            rng.below(16),
            rng.below(16),
            [rng.below(256)],
            rng.pick([undefined, 0x66]),
          );
          return;
        }
        {
          const prefix = rng.pick([undefined, 0x66, 0xf2, 0xf2, 0xf3]);
          const scalar = prefix === 0xf2 || prefix === 0xf3;
          const operation = rng.pick([0x58, 0x59, 0x5c, 0x5d, 0x5e, 0x5f, 0x51, scalar ? 0x58 : 0x14]);
          // Packed ones in memory would have to be aligned.
          const rm = scalar && rng.chance(0.4) ? undefined : rng.below(16);
          return this.emit(4, [0x0f, operation], rng.below(16), rm, [], prefix);
        }
      case 25:
        // Between integers and floating point.
        if (rng.chance(0.5))
          return this.emit(
            rng.pick([4, 8]),
            [0x0f, rng.pick([0x2a, 0x2a, 0x2d, 0x2c])],
            this.register(),
            this.register(),
            [],
            rng.pick([0xf2, 0xf3]),
          );
        this.emit(4, [0x0f, 0x2e], rng.below(16), rng.below(16));
        this.defined = ALL;
        return;
      default:
        // PMOVMSKB, PSHUFB, PCMPEQ, PMADDWD, PSLLDQ.
        return this.emit(
          2,
          rng.pick([
            [0x0f, 0x74],
            [0x0f, 0x76],
            [0x0f, 0xf5],
            [0x0f, 0x38, 0x00],
            [0x0f, 0x60],
            [0x0f, 0xdb],
          ]),
          rng.below(16),
          rng.below(16),
        );
    }
  }

  strings(): void {
    const { rng } = this;
    if (this.inLoop || this.repeats > 3) return;
    this.repeats++;
    const wide = rng.pick([[], [0x48], [0x66]]);
    const repeated = rng.chance(0.6);
    if (repeated) this.bytes.push(0xb9, rng.below(24), 0, 0, 0, 0xf3 - rng.below(2));
    // The repeat prefix comes before a REX prefix, after the operand size.
    const operation = rng.pick([0xa4, 0xaa, 0xac, 0xa6, 0xae]);
    const comparing = operation >= 0xa6 && operation !== 0xaa && operation !== 0xac;
    this.bytes.push(...wide, operation + rng.below(2));
    this.count += 2;
    // Without a comparison no flag is written.
    if (comparing) this.compare();
  }

  call(): void {
    const target = this.functions.length > 0 ? this.rng.pick(this.functions) : undefined;
    if (target === undefined) return;
    if (this.rng.chance(0.7)) {
      const relative = target.at - (this.bytes.length + 5);
      this.bytes.push(0xe8, ...[0, 8, 16, 24].map((shift) => (relative >> shift) & 0xff));
    } else {
      // LEA RAX, [rip + target]; CALL RAX.
      const relative = target.at - (this.bytes.length + 7);
      this.bytes.push(
        0x48,
        0x8d,
        0x05,
        ...[0, 8, 16, 24].map((shift) => (relative >> shift) & 0xff),
        0xff,
        0xd0,
      );
    }
    this.count += 2;
    this.defined = target.leaves;
  }

  /** LEA RAX, [rip + over]; JMP RAX; something that is not executed. */
  indirect(): void {
    this.bytes.push(0x48, 0x8d, 0x05);
    const at = this.bytes.length;
    this.bytes.push(0, 0, 0, 0, 0xff, 0xe0);
    this.bytes.push(...this.immediate(1 + this.rng.below(3)).map((b) => (b === 0xcc ? 0x90 : b)));
    this.bytes[at] = this.bytes.length - (at + 4);
    this.count += 2;
  }

  /** A function behind a jump over it. */
  define(): void {
    this.bytes.push(0xe9, 0, 0, 0, 0);
    const at = this.bytes.length;
    const { defined } = this;
    const functions = this.functions.splice(0);
    this.compare();
    this.inLoop = true;
    for (let i = this.rng.below(5); i >= 0; i--) this.one();
    this.inLoop = false;
    this.functions.push(...functions, { at, leaves: this.defined });
    this.bytes.push(0xc3);
    this.count += 2;
    const over = this.bytes.length - at;
    this.bytes[at - 4] = over & 0xff;
    this.bytes[at - 3] = over >> 8;
    this.defined = defined;
  }
}

export function programCase(seed: number): VectorCase {
  const rng = new Rng(mix(seed, 2));
  const state = initialState('f32', seed);
  const v = view(state);
  const rip = CODE + rng.below(4000);
  v.setBigUint64(RIP, BigInt(rip), true);
  v.setBigUint64(32, BigInt(DATA + 2048 + 8 * rng.below(100)), true);
  v.setBigUint64(48, BigInt(DATA + 512 + 4 * rng.below(200)), true);
  // Near the boundary of the two pages.
  v.setBigUint64(56, BigInt(DATA + 4096 - 100 + rng.below(200)), true);
  v.setUint32(MXCSR, v.getUint32(MXCSR, true) | 0x1f80, true);
  v.setUint32(RFLAGS, v.getUint32(RFLAGS, true) & ~0x400, true);
  // The x87 as FNINIT leaves it, with nothing in it.
  state.fill(0, FX, FX + 24);
  v.setUint16(FCW, 0x37f, true);
  state.fill(0, FX + 32, FX + 160);
  const a = new ProgramAssembler(rng);
  if (rng.chance(0.6)) a.define();
  if (rng.chance(0.3)) a.define();
  const wanted = a.count + 5 + rng.below(45);
  while (a.count < wanted && a.bytes.length < 380) {
    if (rng.chance(0.06)) {
      a.bytes.push(0xb9, 1 + rng.below(6), 0, 0, 0);
      const start = a.bytes.length;
      a.compare();
      a.inLoop = true;
      for (let i = rng.below(5); i >= 0; i--) a.one();
      a.inLoop = false;
      if (rng.chance(0.3)) {
        // LOOP changes no flag.
        a.bytes.push(0xe2, (start - (a.bytes.length + 2)) & 0xff);
      } else {
        a.bytes.push(0xff, 0xc8 + RCX, 0x75, (start - (a.bytes.length + 4)) & 0xff);
        a.defined = ALL & ~CF;
      }
      a.count += 3;
    } else if (rng.chance(0.1)) {
      const condition = a.condition();
      const at = a.bytes.length;
      a.bytes.push(0x70 + condition, 0);
      const before = a.defined;
      const floats = a.x87;
      for (let i = rng.below(4); i >= 0; i--) a.one();
      a.bytes[at + 1] = a.bytes.length - at - 2;
      a.defined &= before;
      if (floats === 0) a.x87 = 0;
      a.count++;
    } else if (rng.chance(0.02)) a.risky();
    else a.one();
  }
  // AF too is defined at the end.
  a.compare();
  const stop = rip + a.bytes.length;
  return { form: 'program', code: Uint8Array.from([...a.bytes, 0xcc]), state, patches: [], stop };
}
