/** One instruction case from a form and a seed: encoding, operand places, operand values. */
import type { Form, Operand } from './forms.ts';
import {
  CODE,
  CODE_BYTES,
  CONSTANT,
  CONSTANT_BYTES,
  DATA,
  DATA_BYTES,
  FCW,
  FS_BASE,
  FSW,
  FTW,
  FX,
  GS_BASE,
  type Patch,
  RFLAGS,
  RIP,
  Rng,
  ST,
  type VectorCase,
  XMM,
  mix,
  view,
} from './state.ts';
import { type Kind, controlWord, fillKind, float80, initialState, integer64, mxcsr } from './values.ts';

const RAX = 0;
const RCX = 1;
const RDX = 2;
const RBX = 3;
const RSP = 4;
const RBP = 5;
const RSI = 6;
const RDI = 7;

const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);

/** Where a memory operand lies: mostly in the data window, often at or across the edges that matter. */
export function chooseAddress(rng: Rng, bytes: number, aligned: boolean): bigint {
  const size = Math.max(bytes, 1);
  const unit = aligned ? (size >= 576 ? 64 : 16) : rng.chance(0.5) ? Math.min(size, 16) : 1;
  const inside = (base: number, total: number): number =>
    base + unit * rng.below(Math.floor((total - size) / unit) + 1);
  if (aligned && rng.chance(0.93)) {
    return BigInt(rng.chance(0.95) ? inside(DATA, DATA_BYTES) : inside(CONSTANT, CONSTANT_BYTES));
  }
  const roll = rng.below(100);
  const part = 1 + rng.below(Math.max(1, size - 1));
  if (roll < 68) return BigInt(inside(DATA, DATA_BYTES));
  if (roll < 78) return BigInt(DATA + 4096 - part);
  if (roll < 81) return BigInt(DATA + DATA_BYTES - size);
  if (roll < 85) return BigInt(DATA + DATA_BYTES - part + (rng.chance(0.2) ? size : 0));
  if (roll < 87) return BigInt(DATA - part);
  if (roll < 91) return BigInt(inside(CONSTANT, CONSTANT_BYTES));
  if (roll < 92) return BigInt(CONSTANT + CONSTANT_BYTES - part);
  if (roll < 94) return BigInt(CODE + rng.below(CODE_BYTES));
  if (roll < 96) return BigInt(0x3000_0000 + rng.below(0x1000_0000));
  if (roll < 98) return 0x8000_0000_0000n + (integer64(rng) & 0x7fff_ffff_ffff_ffffn & ~0xffffn) / 3n;
  if (roll < 99) return u64(-0x8000_0000_0000n - BigInt(rng.below(1 << 20)));
  return 0x7fff_ffff_fff8n + BigInt(rng.below(16));
}

/** Splits a patch so that each part lies in one writable-by-the-harness window, and drops the rest. */
export function placePatch(patches: Patch[], address: bigint, bytes: Uint8Array): void {
  for (const [base, total] of [
    [DATA, DATA_BYTES],
    [CONSTANT, CONSTANT_BYTES],
  ] as const) {
    const from = address > BigInt(base) ? address : BigInt(base);
    const to =
      address + BigInt(bytes.length) < BigInt(base + total)
        ? address + BigInt(bytes.length)
        : BigInt(base + total);
    if (from < to) {
      const start = Number(from - address);
      patches.push({ address: Number(from), bytes: bytes.slice(start, start + Number(to - from)) });
    }
  }
}

interface Encoded {
  /** Prefix bytes of the address: segment, address size. */
  readonly prefixes: readonly number[];
  /** ModRM without its reg field, SIB, displacement. */
  readonly bytes: readonly number[];
  readonly rexX: number;
  readonly rexB: number;
  /** The displacement counts from the end of the instruction. */
  readonly ripRelative: boolean;
}

export class CaseBuilder {
  readonly rng: Rng;
  readonly state: Uint8Array;
  readonly v: DataView;
  readonly patches: Patch[] = [];
  /** Registers whose value makes the address. */
  readonly pinned = new Set<number>();
  /** Registers that may not make an address: their value decides what the instruction does on this host. */
  avoided: readonly number[] = [];

  constructor(kind: Kind, seed: number) {
    this.rng = new Rng(mix(seed, 1));
    this.state = initialState(kind, seed);
    this.v = view(this.state);
  }

  get(register: number): bigint {
    return this.v.getBigUint64(register * 8, true);
  }

  set(register: number, value: bigint): void {
    if (!this.pinned.has(register)) this.v.setBigUint64(register * 8, u64(value), true);
  }

  patch(address: bigint, bytes: Uint8Array): void {
    placePatch(this.patches, address, bytes);
  }

  patchValue(address: bigint, value: bigint, bytes: number): void {
    const content = new Uint8Array(16);
    view(content).setBigUint64(0, u64(value), true);
    view(content).setBigUint64(8, u64(value >> 64n), true);
    this.patch(address, content.slice(0, bytes));
  }

  /** An addressing form for a linear address, with the registers set to reach it. */
  address(target: bigint, rexAllowed: boolean): Encoded {
    const { rng } = this;
    const register = (): number => {
      for (;;) {
        const index = rng.below(rexAllowed ? 16 : 8);
        if (!this.avoided.includes(index)) return index;
      }
    };
    const prefixes: number[] = [];
    let effective = target;
    if (rng.chance(0.1)) {
      const segment = rng.chance(0.5) ? FS_BASE : GS_BASE;
      const at = rng.chance(0.2) ? -BigInt(rng.below(1 << 28)) : BigInt(rng.below(1 << 28));
      const base = target - at;
      if (base >= 0n && base < 0x7fff_0000_0000n) {
        prefixes.push(segment === FS_BASE ? 0x64 : 0x65);
        this.v.setBigUint64(segment, base, true);
        effective = u64(at);
      }
    } else if (rng.chance(0.06)) prefixes.push(rng.pick([0x26, 0x2e, 0x36, 0x3e]));

    const narrow = effective < 0x1_0000_0000n && rng.chance(0.08);
    if (narrow) prefixes.push(0x67);
    const mask = narrow ? 0xffff_ffffn : 0xffff_ffff_ffff_ffffn;
    const setAddress = (index: number, value: bigint): void => {
      const noise = narrow ? BigInt(rng.next()) << 32n : 0n;
      this.v.setBigUint64(index * 8, (value & mask) | noise, true);
      this.pinned.add(index);
    };
    const signed32 = BigInt.asIntN(32, effective);
    const absolute = u64(signed32) === effective || (narrow && effective < 0x1_0000_0000n);
    const displacement = (): { mod: number; value: bigint; bytes: number } => {
      switch (rng.below(3)) {
        case 0:
          return { mod: 0, value: 0n, bytes: 0 };
        case 1:
          return { mod: 1, value: BigInt(rng.below(256) - 128), bytes: 1 };
        default:
          return {
            mod: 2,
            value: BigInt(rng.chance(0.5) ? rng.below(4096) - 2048 : rng.next() | 0),
            bytes: 4,
          };
      }
    };
    const little = (value: bigint, bytes: number): number[] =>
      Array.from({ length: bytes }, (_, i) => Number((u64(value) >> BigInt(8 * i)) & 0xffn));

    const form = rng.below(10);
    if (form === 0 && absolute) {
      // SIB without base and index.
      return {
        prefixes,
        bytes: [0x04, 0x25 | (rng.below(4) << 6), ...little(effective, 4)],
        rexX: 0,
        rexB: rexAllowed ? rng.below(2) : 0,
        ripRelative: false,
      };
    }
    if (form === 1) {
      const distance = BigInt.asIntN(64, effective - BigInt(CODE));
      if (distance > -0x7000_0000n && distance < 0x7000_0000n) {
        return {
          prefixes,
          bytes: [0x05, ...little(effective, 4)],
          rexX: 0,
          rexB: rexAllowed ? rng.below(2) : 0,
          ripRelative: true,
        };
      }
    }
    if (form === 2) {
      // Index without base.
      let index = register();
      if (index === RSP) index = RBP;
      const scale = rng.below(4);
      const aligned = effective & ~((1n << BigInt(scale)) - 1n);
      const value = integer64(rng) & 0x1fff_ffffn;
      const disp = BigInt.asIntN(32, aligned - (value << BigInt(scale)));
      const rest = u64(effective - u64(disp));
      if ((rest & ((1n << BigInt(scale)) - 1n)) === 0n) {
        setAddress(index, rest >> BigInt(scale));
        return {
          prefixes,
          bytes: [0x04, (scale << 6) | ((index & 7) << 3) | 5, ...little(disp, 4)],
          rexX: index >> 3,
          rexB: rexAllowed ? rng.below(2) : 0,
          ripRelative: false,
        };
      }
    }
    if (form < 6) {
      const base = register();
      let index = register();
      const scale = rng.below(4);
      if (index === base) index = RSP;
      let disp = displacement();
      if (disp.bytes === 0 && (base & 7) === RBP) disp = { mod: 1, value: 3n, bytes: 1 };
      let offset = 0n;
      if (index !== RSP) {
        const value = rng.chance(0.7) ? BigInt(rng.below(512) - 256) : integer64(rng);
        setAddress(index, value);
        offset = (narrow ? value & mask : value) << BigInt(scale);
      }
      setAddress(base, effective - disp.value - offset);
      return {
        prefixes,
        bytes: [
          (disp.mod << 6) | 4,
          (scale << 6) | ((index & 7) << 3) | (base & 7),
          ...little(disp.value, disp.bytes),
        ],
        rexX: index >> 3,
        rexB: base >> 3,
        ripRelative: false,
      };
    }
    const base = register();
    let disp = displacement();
    if (disp.bytes === 0 && (base & 7) === RBP) disp = { mod: 1, value: -1n, bytes: 1 };
    setAddress(base, effective - disp.value);
    const sib = (base & 7) === RSP ? [0x24 | (rng.below(4) << 6)] : [];
    return {
      prefixes,
      bytes: [(disp.mod << 6) | (base & 7), ...sib, ...little(disp.value, disp.bytes)],
      rexX: 0,
      rexB: base >> 3,
      ripRelative: false,
    };
  }

  finish(form: string, code: readonly number[], stop?: number): VectorCase {
    return { form, code: Uint8Array.from(code), state: this.state, patches: this.patches, stop };
  }
}

const STACK = new Set(['push', 'pop', 'call', 'ret', 'enter', 'leave', 'pushf', 'popf']);
const NO_ACCESS = new Set([
  'lea',
  'nop',
  'prefetchnta',
  'prefetcht0',
  'prefetcht1',
  'prefetcht2',
  'prefetchw',
]);

function pickOpcodeRegister(form: Form, rng: Rng, rexAllowed: boolean): number {
  if (form.high) return 4 + rng.below(4);
  return rng.below(rexAllowed ? 16 : 8);
}

const FREE_ST7 = 0.6;

/** Full and empty x87 registers such that most operations find operands and room. */
function placeTags(b: CaseBuilder): void {
  const { rng, v } = b;
  if (!rng.chance(FREE_ST7)) return;
  const top = (v.getUint16(FSW, true) >> 11) & 7;
  const empty = rng.chance(0.8) ? 1 : 1 + rng.below(4);
  let tags = 0xff;
  for (let i = 1; i <= empty; i++) tags &= ~(1 << ((top - i) & 7));
  v.setUint8(FTW, tags);
}

function environmentImage(b: CaseBuilder, bytes: number, size: number): Uint8Array {
  const { rng } = b;
  const out = new Uint8Array(bytes);
  for (let i = 0; i < bytes; i++) out[i] = rng.next() >>> 24;
  const unit = size === 2 ? 2 : 4;
  const v = view(out);
  v.setUint16(0, rng.chance(0.8) ? controlWord(rng) : rng.next() & 0xffff, true);
  v.setUint16(unit, rng.next() & 0xffff, true);
  v.setUint16(unit * 2, rng.pick([0, 0xffff, rng.next() & 0xffff]), true);
  for (let at = unit * 7; at + 10 <= bytes; at += 10) {
    const value = float80(rng);
    v.setBigUint64(at, value.significand, true);
    v.setUint16(at + 8, value.high, true);
  }
  return out;
}

function fxImage(b: CaseBuilder, bytes: number): Uint8Array {
  const { rng } = b;
  const out = new Uint8Array(bytes);
  out.set(initialState(rng.pick(['x87', 'mmx', 'int'] as const), rng.next()).subarray(FX, FX + 416));
  for (let i = 416; i < Math.min(bytes, 512); i++) out[i] = rng.next() >>> 24;
  const v = view(out);
  v.setUint32(24, mxcsr(rng), true);
  if (rng.chance(0.2)) {
    v.setUint16(0, rng.next() & 0xffff, true);
    v.setUint16(2, rng.next() & 0xffff, true);
    v.setUint16(6, rng.next() & 0xffff, true);
    v.setBigUint64(8, integer64(rng) & 0x7fff_ffff_ffffn, true);
    v.setBigUint64(16, integer64(rng) & 0x7fff_ffff_ffffn, true);
  }
  if (rng.chance(0.06)) v.setUint32(24, v.getUint32(24, true) | (1 << (18 + rng.below(14))), true);
  if (bytes > 512) {
    out.fill(0, 512);
    let low = rng.below(4);
    if (rng.chance(0.03)) low |= 1 << 20;
    v.setUint32(512, low, true);
    if (rng.chance(0.03)) v.setUint32(516, 0x4000_0000, true);
    if (rng.chance(0.15)) {
      v.setUint32(520, rng.pick([3, 3, low, 1, 2]), true);
      v.setUint32(524, 0x8000_0000, true);
    } else if (rng.chance(0.03)) v.setUint32(520, 1, true);
    if (rng.chance(0.03)) v.setUint8(528 + rng.below(48), 1);
  }
  return out;
}

function memoryContent(b: CaseBuilder, form: Form, operand: Operand, target: bigint): void {
  const { rng } = b;
  const { mnemonic } = form;
  const bytes = operand.bytes;
  if (bytes === 0 || NO_ACCESS.has(mnemonic)) return;
  if (mnemonic === 'fldenv' || mnemonic === 'frstor')
    return b.patch(target, environmentImage(b, bytes, bytes === 14 || bytes === 94 ? 2 : 4));
  if (bytes === 512 || bytes === 576) {
    if (/rstor/.test(mnemonic)) b.patch(target, fxImage(b, bytes));
    return;
  }
  if (bytes > 16) return;
  const content = new Uint8Array(bytes);
  const v = view(content);
  if (mnemonic === 'ldmxcsr') {
    v.setUint32(0, mxcsr(rng) | (rng.chance(0.1) ? 1 << (18 + rng.below(14)) : 0), true);
  } else if (mnemonic === 'fldcw')
    v.setUint16(0, rng.chance(0.7) ? controlWord(rng) : rng.next() & 0xffff, true);
  else if (mnemonic === 'fbld') {
    for (let i = 0; i < 9; i++) content[i] = rng.below(10) * 16 + rng.below(10);
    content[9] = rng.next() & 0x80;
    if (rng.chance(0.1)) content[rng.below(10)] = rng.next() & 0xff;
  } else if (mnemonic === 'cmpxchg8b' || mnemonic === 'cmpxchg16b') {
    const half = bytes / 2;
    const mask = (1n << BigInt(half * 8)) - 1n;
    let value = (b.get(RAX) & mask) | ((b.get(RDX) & mask) << BigInt(half * 8));
    if (rng.chance(0.4)) value ^= 1n << BigInt(rng.below(bytes * 8));
    return b.patchValue(target, value, bytes);
  } else if (mnemonic === 'cmpxchg' && rng.chance(0.5)) return b.patchValue(target, b.get(RAX), bytes);
  else if (form.kind === 'x87' && /^fi/.test(mnemonic)) {
    for (let i = 0; i < bytes; i++) content[i] = 0;
    v.setUint16(0, Number(integer64(rng) & 0xffffn), true);
    if (bytes >= 4) v.setUint32(0, Number(integer64(rng) & 0xffff_ffffn), true);
    if (bytes >= 8) v.setBigUint64(0, integer64(rng), true);
  } else if (form.kind === 'int' || form.kind === 'mmx') {
    if (rng.chance(0.4)) return;
    fillKind(rng, form.kind, content, 0, bytes);
    const value = integer64(rng);
    if (bytes < 8) for (let i = 0; i < bytes; i++) content[i] = Number((value >> BigInt(8 * i)) & 0xffn);
  } else fillKind(rng, form.kind, content, 0, bytes);
  const other = form.operands.find((o) => o.letter === 'V');
  if (other !== undefined && rng.chance(0.1)) content.set(b.state.subarray(XMM, XMM + bytes));
  b.patch(target, content);
}

/** Puts implicit operands where they make the instruction worth executing. */
function implicitOperands(b: CaseBuilder, form: Form, prefixes: number[]): void {
  const { rng, v } = b;
  const { mnemonic, size } = form;
  if (form.kind === 'x87') placeTags(b);
  if (form.operands.some((o) => o.text === 'cl')) {
    const count = rng.chance(0.3)
      ? rng.pick([0, 1, 31, 32, 33, 63, 64, 7, 8, 9, 15, 16, 17])
      : rng.below(256);
    b.set(RCX, (b.get(RCX) & ~0xffn) | BigInt(count));
  }
  if (STACK.has(mnemonic) && rng.chance(0.35)) {
    b.set(RSP, chooseAddress(rng, 8, false) + (/^(push|call|enter)/.test(mnemonic) ? BigInt(size || 8) : 0n));
  }
  if (mnemonic === 'leave')
    b.set(RBP, rng.chance(0.6) ? BigInt(DATA + rng.below(8184)) : chooseAddress(rng, 8, false));
  if (mnemonic === 'enter')
    b.set(RBP, rng.chance(0.7) ? BigInt(DATA + 512 + rng.below(7000)) : chooseAddress(rng, 8, false));
  if (mnemonic === 'popf') b.patchValue(b.get(RSP), BigInt(rng.next() & 0x3fff_feff), size);
  if (mnemonic === 'ret') b.patchValue(b.get(RSP), branchTarget(rng), 8);
  if (/^(loop|loope|loopne|jrcxz)$/.test(mnemonic)) {
    if (rng.chance(0.2)) prefixes.push(0x67);
    b.set(RCX, rng.pick([0n, 1n, 2n, 0x1_0000_0000n, 0x1_0000_0001n, 0x8000_0000n, integer64(rng)]));
  }
  if (/^i?div$/.test(mnemonic) && rng.chance(0.75)) {
    // A quotient that fits, or just does not.
    const bits = BigInt((form.operands[0]?.bytes ?? 4) * 8);
    if (bits === 8n) b.set(RAX, (b.get(RAX) & ~0xffffn) | BigInt(rng.below(1 << (4 + rng.below(13)))));
    else if (rng.chance(0.5))
      b.set(RDX, rng.pick([0n, 0n, 1n, 0xffff_ffff_ffff_ffffn, BigInt(rng.below(100))]));
    else b.set(RDX, b.get(RAX) & (1n << (bits - 1n)) ? 0xffff_ffff_ffff_ffffn : 0n);
  }
  if (mnemonic === 'xlat') b.set(RBX, chooseAddress(rng, 1, false) - (b.get(RAX) & 0xffn));
  if (/^maskmov/.test(mnemonic)) b.set(RDI, chooseAddress(rng, mnemonic === 'maskmovq' ? 8 : 16, false));
  if (/^pcmpe/.test(mnemonic)) {
    for (const register of [RAX, RDX]) {
      b.set(
        register,
        rng.chance(0.85)
          ? BigInt(rng.below(40) - 20) & (rng.chance(0.5) ? 0xffff_ffffn : ~0n)
          : integer64(rng),
      );
    }
  }
  if (/^x(save|rstor)/.test(mnemonic)) {
    b.set(RAX, (integer64(rng) & ~0xffff_ffffn) | BigInt(rng.pick([3, 3, 3, 1, 2, 0])));
    b.set(RDX, rng.chance(0.8) ? 0n : integer64(rng));
  }
  if (mnemonic === 'xgetbv') b.set(RCX, rng.pick([0n, 0n, 0x1_0000_0000n, 2n, 77n]));
  if (mnemonic === 'cpuid') {
    b.set(RAX, rng.pick([0n, 1n, 0x8000_0000n]));
    b.set(RCX, 0n);
  }
  if (/^(wrfsbase|wrgsbase)$/.test(mnemonic) && rng.chance(0.8)) {
    for (let i = 0; i < 16; i++) b.set(i, integer64(rng) & 0x7fff_ffff_ffffn);
  }
  if (/^(rdfsbase|rdgsbase)$/.test(mnemonic)) {
    v.setBigUint64(FS_BASE, integer64(rng) & 0x7fff_ffff_ffffn, true);
    v.setBigUint64(GS_BASE, integer64(rng) & 0x7fff_ffff_ffffn, true);
  }
  if (mnemonic === 'f2xm1' && rng.chance(0.8))
    v.setUint16(ST + 8, (v.getUint16(ST + 8, true) & 0x8000) | (0x3ffe - rng.below(70)), true);
  if (mnemonic === 'fyl2xp1' && rng.chance(0.8))
    v.setUint16(ST + 8, (v.getUint16(ST + 8, true) & 0x8000) | (0x3ffd - rng.below(70)), true);
  if (/^(fsin|fcos|fsincos|fptan)$/.test(mnemonic) && rng.chance(0.6)) {
    v.setUint16(ST + 8, (v.getUint16(ST + 8, true) & 0x8000) | (0x3fff + rng.below(70) - 60), true);
  }
  if (mnemonic === 'fscale' && rng.chance(0.6))
    v.setUint16(ST + 24, (v.getUint16(ST + 24, true) & 0x8000) | (0x3fff + rng.below(15)), true);
  if (/^fprem/.test(mnemonic) && rng.chance(0.7)) {
    v.setUint16(ST + 8, (v.getUint16(ST + 8, true) & 0x8000) | (0x3fff + rng.below(120)), true);
    v.setUint16(ST + 24, (v.getUint16(ST + 24, true) & 0x8000) | (0x3fff + rng.below(40)), true);
  }
  if (/^(fbstp|fist|fistp|fisttp)$/.test(mnemonic) && rng.chance(0.5)) {
    v.setUint16(ST + 8, (v.getUint16(ST + 8, true) & 0x8000) | (0x3fff + rng.below(66) - 2), true);
    v.setUint8(ST + 7, v.getUint8(ST + 7) | 0x80);
  }
  if (/^f(add|sub|mul|div|com|ucom)/.test(mnemonic) && rng.chance(0.3)) {
    // Operands of like magnitude, or equal ones.
    const high = v.getUint16(ST + 8, true);
    for (let i = 1; i < 8; i++) {
      v.setUint16(ST + i * 16 + 8, (high ^ (rng.next() & 0x8000)) + rng.pick([0, 0, 1, -1, 2]), true);
      if (rng.chance(0.3)) v.setBigUint64(ST + i * 16, v.getBigUint64(ST, true), true);
    }
  }
}

export function branchTarget(rng: Rng): bigint {
  const roll = rng.below(20);
  if (roll < 5) return BigInt(CODE + rng.below(CODE_BYTES));
  if (roll < 15) return integer64(rng) & 0x7fff_ffff_ffffn;
  if (roll < 17) return integer64(rng) | 0xffff_8000_0000_0000n;
  return integer64(rng);
}

function stringOperands(b: CaseBuilder, form: Form, prefixes: number[]): void {
  const { rng, v } = b;
  const bytes = form.size || 1;
  const count = form.repeat === 0 ? 1 : rng.pick([0, 1, 2, 3, 5, 8, 17, 40]);
  const down = rng.chance(0.35);
  v.setUint32(RFLAGS, (v.getUint32(RFLAGS, true) & ~0x400) | (down ? 0x400 : 0), true);
  const total = bytes * Math.max(count, 1);
  const place = (): bigint => {
    const low = rng.chance(0.75)
      ? BigInt(DATA + rng.below(DATA_BYTES - total))
      : chooseAddress(rng, total, false);
    return down ? low + BigInt(total - bytes) : low;
  };
  const narrow = rng.chance(0.1);
  const source = place();
  let destination = place();
  if (rng.chance(0.15)) destination = source + BigInt(rng.below(9) - 4);
  const noise = narrow ? BigInt(rng.next()) << 32n : 0n;
  const fit = (address: bigint): bigint => (narrow ? (address & 0xffff_ffffn) | noise : address);
  const overridden = rng.chance(0.12);
  let base = 0n;
  if (overridden) {
    const segment = rng.chance(0.5) ? FS_BASE : GS_BASE;
    base = BigInt(rng.below(0x1000_0000));
    v.setBigUint64(segment, base, true);
    prefixes.push(segment === FS_BASE ? 0x64 : 0x65);
  }
  b.set(RSI, fit(u64(source - base)));
  b.set(RDI, fit(destination));
  if (form.repeat !== 0) b.set(RCX, narrow ? (BigInt(rng.next()) << 32n) | BigInt(count) : BigInt(count));
  if (narrow) prefixes.push(0x67);
  const { mnemonic } = form;
  const equal = mnemonic.startsWith('cmps') || mnemonic.startsWith('scas');
  if (equal && rng.chance(0.7)) {
    // A run of equal (or, one time in two, unequal) elements.
    const content = new Uint8Array(total);
    const value = mnemonic.startsWith('scas') ? b.get(RAX) : integer64(rng);
    for (let i = 0; i < total; i++) content[i] = Number((value >> BigInt(8 * (i % bytes))) & 0xffn);
    const low = (address: bigint): bigint => (down ? address - BigInt(total - bytes) : address);
    b.patch(low(destination), content);
    if (mnemonic.startsWith('cmps')) b.patch(low(source), content);
    if (rng.chance(0.5))
      b.patch(
        destination + BigInt((down ? -1 : 1) * bytes * rng.below(Math.max(count, 1))),
        Uint8Array.of(rng.next() & 0xff),
      );
  }
}

function immediate(b: CaseBuilder, form: Form, bytes: number, index: number): bigint {
  const { rng } = b;
  const { mnemonic } = form;
  if (mnemonic === 'enter')
    return index === 0
      ? BigInt(rng.chance(0.8) ? rng.below(256) : rng.below(0x10000))
      : BigInt(rng.pick([0, 0, 1, 2, 3, 5, 31, 32, 33, rng.below(256)]));
  if (mnemonic === 'ret') return BigInt(rng.chance(0.7) ? rng.below(64) * 8 : rng.below(0x10000));
  if (/^(ro[lr]|rc[lr]|s[ah][lr]|shld|shrd|bt|bts|btr|btc)$/.test(mnemonic)) {
    return BigInt(
      rng.chance(0.3)
        ? rng.pick([0, 1, 31, 32, 33, 63, 64, 7, 8, 9, 15, 16, 17])
        : rng.below(rng.chance(0.7) ? 64 : 256),
    );
  }
  if (/^cmp[ps][sd]$/.test(mnemonic) && rng.chance(0.85)) return BigInt(rng.below(8));
  if (/^ps[lr]/.test(mnemonic) && rng.chance(0.7)) return BigInt(rng.below(20));
  if (/^(palignr|round)/.test(mnemonic) && rng.chance(0.8))
    return BigInt(rng.below(mnemonic === 'palignr' ? 34 : 16));
  if (bytes === 8) return integer64(rng);
  return integer64(rng) & ((1n << BigInt(bytes * 8)) - 1n);
}

const SHIFT_COUNT = /^ps[lr][lwdq]/;

export function generateCase(form: Form, seed: number): VectorCase {
  const b = new CaseBuilder(form.kind, seed);
  const { rng, v } = b;
  const rexAllowed = !form.high;

  if (rng.chance(0.04)) v.setBigUint64(RIP, BigInt(CODE + 4096 - 1 - rng.below(6)), true);
  else if (rng.chance(0.02) && !form.mnemonic.startsWith('ud'))
    v.setBigUint64(RIP, BigInt(CODE + CODE_BYTES - 1 - rng.below(8)), true);

  // The mask of state components: only x87 and SSE are the same everywhere.
  if (/^x(save|rstor)/.test(form.mnemonic)) b.avoided = [RAX, RDX];

  const prefixes: number[] = [];
  let rex = form.rex & 0xff;
  let force = false;
  let reg = form.digit ?? 0;
  let rm: Encoded | undefined;
  let registerRm = rng.below(8);
  let opcodeRegister = 0;
  let vvvv = 0;
  let fixed = form.fixed;
  const tail: number[] = [];
  let memory: { operand: Operand; target: bigint } | undefined;
  if (form.rexW) rex |= 8;
  const bits = 0x00ff;
  const little = (value: bigint, bytes: number): void => {
    for (let i = 0; i < bytes; i++) tail.push(Number((u64(value) >> BigInt(8 * i)) & BigInt(bits)));
  };
  if (form.string) stringOperands(b, form, prefixes);

  const bitOffset =
    /^bt[src]?$/.test(form.mnemonic) && form.operands[1]?.letter === 'G' && form.operands[0]?.memory === true;
  for (const operand of form.operands) {
    const { letter, bytes } = operand;
    if (operand.memory) {
      const aligned = form.aligned && bytes >= 16;
      let target = NO_ACCESS.has(form.mnemonic)
        ? integer64(rng)
        : chooseAddress(rng, bitOffset ? form.size : bytes, aligned);
      if (form.mnemonic === 'lea' && rng.chance(0.3)) target &= 0xffff_ffffn;
      rm = b.address(bitOffset ? u64(target - 0n) : target, rexAllowed);
      memory = { operand, target };
      continue;
    }
    const general = (): number => {
      const register = pickOpcodeRegister(form, rng, rexAllowed);
      if (bytes === 1 && !form.high && register >= 4 && register < 8) force = true;
      return register;
    };
    switch (letter) {
      case 'G': {
        reg = general();
        rex |= (reg >> 3) << 2;
        break;
      }
      case 'E':
      case 'R': {
        registerRm = general();
        rex |= registerRm >> 3;
        break;
      }
      case 'Z': {
        opcodeRegister = general();
        rex |= opcodeRegister >> 3;
        opcodeRegister &= 7;
        break;
      }
      case 'B':
        vvvv = rng.below(16);
        break;
      case 'V':
        reg = rng.below(16);
        rex |= (reg >> 3) << 2;
        break;
      case 'W':
      case 'U':
        registerRm = rng.below(16);
        rex |= registerRm >> 3;
        break;
      case 'P':
        reg = rng.below(8);
        break;
      case 'Q':
      case 'N':
        registerRm = rng.below(8);
        break;
      case 'S':
        reg = rng.below(6);
        break;
      case 'I':
        little(immediate(b, form, bytes, tail.length === 0 ? 0 : 1), bytes);
        break;
      case 'J':
        little(BigInt(bytes === 1 || rng.chance(0.6) ? rng.below(256) - 128 : rng.next() | 0), bytes);
        break;
      case 'O': {
        let target = chooseAddress(rng, bytes, false);
        if (rng.chance(0.1) && target < 0x1_0000_0000n) {
          prefixes.push(0x67);
          little(target, 4);
        } else {
          if (rng.chance(0.1) && target > 0x1000n && target < 0x7000_0000n) {
            v.setBigUint64(FS_BASE, 0x1000n, true);
            prefixes.push(0x64);
            little(target - 0x1000n, 8);
          } else little(target, 8);
        }
        target = u64(target);
        memory = { operand: { ...operand, memory: true }, target };
        break;
      }
      default:
        break;
    }
  }
  const implicitRegister = form.operands.some((o) => o.text === 'st(i)');
  if (fixed !== undefined && implicitRegister) fixed |= rng.chance(0.6) ? rng.below(3) : rng.below(8);

  implicitOperands(b, form, prefixes);
  if (bitOffset && memory !== undefined) {
    const source = reg;
    if (!b.pinned.has(source)) {
      const offset = rng.chance(0.9) ? BigInt(rng.below(40000) - 20000) : integer64(rng);
      b.set(
        source,
        (integer64(rng) & ~((1n << BigInt(form.size * 8)) - 1n)) |
          (offset & ((1n << BigInt(form.size * 8)) - 1n)),
      );
    }
  } else if (memory !== undefined) memoryContent(b, form, memory.operand, memory.target);
  if (form.mnemonic === 'popf') b.patchValue(b.get(RSP), BigInt(rng.next() & 0x3fff_feff), form.size);
  if ((form.mnemonic === 'jmp' || form.mnemonic === 'call') && form.operands[0]?.letter === 'E') {
    if (memory !== undefined) b.patchValue(memory.target, branchTarget(rng), 8);
    else b.set(registerRm, branchTarget(rng));
  }
  if (memory === undefined && form.mnemonic === 'cmpxchg' && rng.chance(0.5))
    b.set(RAX, b.get(form.high ? registerRm - 4 : registerRm));
  const first = form.operands[0]?.letter;
  const second = form.operands[1]?.letter;
  if (first === 'V' && (second === 'W' || second === 'U') && memory === undefined) {
    if (rng.chance(0.12))
      b.state.copyWithin(XMM + reg * 16, XMM + registerRm * 16, XMM + registerRm * 16 + 16);
    if (rng.chance(0.1)) b.state.copyWithin(XMM + reg * 16, XMM + registerRm * 16, XMM + registerRm * 16 + 8);
  }
  if (SHIFT_COUNT.test(form.mnemonic) && memory === undefined && rng.chance(0.7)) {
    if (second === 'W') v.setBigUint64(XMM + registerRm * 16, BigInt(rng.below(70)), true);
    if (second === 'Q') v.setBigUint64(ST + registerRm * 16, BigInt(rng.below(70)), true);
  } else if (SHIFT_COUNT.test(form.mnemonic) && memory !== undefined && rng.chance(0.7)) {
    b.patchValue(memory.target, BigInt(rng.below(70)), 8);
  }
  if (form.mnemonic === 'pinsrw' || form.mnemonic === 'movd' || form.mnemonic === 'movq') reg &= 15;

  // Assembly.
  const code: number[] = [];
  const addressPrefixes = rm?.prefixes ?? [];
  const legacy = [...prefixes, ...addressPrefixes];
  if (form.lock) legacy.push(0xf0);
  // LOCK MOV CR0 is MOV CR8 on AMD (AltMovCr8), #UD elsewhere.
  else if (!form.vex && !(form.map === 0x0f && (form.opcode & 0xfc) === 0x20) && rng.chance(0.008))
    legacy.push(0xf0);
  const size16 = form.size === 2 || (form.rex & 0x100) !== 0;
  if (size16) legacy.push(0x66);
  // F2 and F3 before LOOPNE and LOOPE change which of the two AMD executes; nobody documents it.
  const plain = !/^loopn?e$/.test(form.mnemonic) && form.map === 1 && form.mandatory === 0 && !form.string;
  if (plain && form.opcode !== 0x90 && !(form.opcode >= 0x6c && form.opcode <= 0x6f) && rng.chance(0.015))
    legacy.push(rng.pick([0xf2, 0xf3]));
  for (let i = legacy.length - 1; i > 0; i--) {
    const j = rng.below(i + 1);
    [legacy[i], legacy[j]] = [legacy[j] as number, legacy[i] as number];
  }
  if (!form.vex && !form.high && rng.chance(0.006)) code.push(0x40 | rng.below(16), 0x2e); // a REX that does not count
  code.push(...legacy);
  if (form.repeat !== 0) code.push(form.repeat);
  if (form.mandatory !== 0 && !form.vex) code.push(form.mandatory);
  rex |= ((rm?.rexX ?? 0) << 1) | (rm?.rexB ?? 0);
  if (form.vex) {
    const pp = { 0: 0, 0x66: 1, 0xf3: 2, 0xf2: 3 }[form.mandatory as 0 | 0x66 | 0xf2 | 0xf3];
    const long = rng.chance(0.02) ? 4 : 0;
    code.push(
      0xc4,
      (~rex & 4 ? 0x80 : 0) | (~rex & 2 ? 0x40 : 0) | (~rex & 1 ? 0x20 : 0) | (form.map === 0x0f38 ? 2 : 3),
      (rex & 8 ? 0x80 : 0) | ((~vvvv & 15) << 3) | long | pp,
    );
    code.push(form.opcode);
  } else {
    // Bits that mean nothing for this instruction, seldom.
    if (!form.high && rng.chance(0.01)) force = true;
    if (rex !== 0 || force) code.push(0x40 | rex);
    if (form.map === 0x0f) code.push(0x0f);
    else if (form.map !== 1) code.push(0x0f, form.map & 0xff);
    code.push(form.opcode | opcodeRegister);
  }
  let ripFix = -1;
  if (fixed !== undefined) code.push(fixed);
  else if (rm !== undefined) {
    const [modrm = 0, ...rest] = rm.bytes;
    code.push(modrm | ((reg & 7) << 3));
    if (rm.ripRelative) ripFix = code.length;
    code.push(...rest);
  } else if (form.operands.some((o) => 'GERVWUPQNS'.includes(o.letter)) || form.digit !== undefined) {
    code.push(0xc0 | ((reg & 7) << 3) | (registerRm & 7));
  }
  code.push(...tail);
  if (ripFix >= 0) {
    const target = code.slice(ripFix, ripFix + 4).reduce((sum, byte, i) => sum + byte * 2 ** (8 * i), 0);
    // The form was chosen for addresses near the code; modulo 2^32 is exact.
    const displacement = (target - (Number(v.getBigUint64(RIP, true)) + code.length)) >>> 0;
    for (let i = 0; i < 4; i++) code[ripFix + i] = (displacement >>> (8 * i)) & 0xff;
  }
  if (v.getUint16(FCW, true) === 0 && form.kind === 'int') v.setUint16(FCW, 0x37f, true);
  return b.finish(form.name, code);
}
