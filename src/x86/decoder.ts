/**
 * Decodes one instruction by the opcode table: Intel SDM vol. 2 ch. 2 and appendix A, AMD APM vol. 3 ch. 1.
 * Pure: bytes in, a description out.
 */
import type { Entry, OpcodeTable, OperandSpec } from './encoding.ts';
import { variantKey } from './encoding.ts';
import type { Size } from './sem.ts';

/** What decoding depends on. */
export interface DecodeMode {
  /** Default size of code: 16, 32 or 64 bits. */
  readonly bits: 16 | 32 | 64;
  /** Real or virtual-8086 mode: no VEX. */
  readonly real: boolean;
}

export type DecodeResult = 'ok' | 'ud' | 'too-long' | 'more';

/** One decoded instruction. Reused between calls: copy what must stay. */
export class Insn {
  entry: Entry | undefined;
  length = 0;
  operandSize: Size = 4;
  addressSize: 2 | 4 | 8 = 8;
  lock = false;
  /** 0 none, 1 F3, 2 F2: the last of them. */
  rep: 0 | 1 | 2 = 0;
  opsizePrefix = false;
  rex = 0;
  hasRex = false;
  vexL = 0;
  vvvv = 0;
  opcode = 0;
  modrm = 0;
  mod = 0;
  reg = 0;
  rm = 0;
  mem = false;
  /** Register numbers, -1: none. */
  base = -1;
  index = -1;
  scale = 0;
  /** Displacement; low and high halves of a 64-bit moffs. */
  disp = 0;
  dispHigh = 0;
  ripRelative = false;
  /** Segment register number for the memory operand. */
  segment = 3;
  segmentOverride = -1;
  /** Immediate, as low and high 32-bit halves (sign- or zero-extended to 64), and a second one. */
  imm = 0;
  immHigh = 0;
  imm2 = 0;
  /** Variant for `Entry.handlers`. */
  variant = 0;
}

const PREFIXES = new Uint8Array(256);
for (const byte of [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3]) PREFIXES[byte] = 1;

const VEX_PREFIXES = ['np', '66', 'f3', 'f2'] as const;
const BASE16 = [3, 3, 5, 5, 6, 7, 5, 3] as const;
const INDEX16 = [6, 7, 6, 7, -1, -1, -1, -1] as const;

/**
 * Decodes at `bytes[at]`. `limit`: bytes available from `at`. Returns 'more' when the instruction goes on past them, 'ud' for
 * what no entry matches, 'too-long' past 15 bytes.
 */
export function decode(
  table: OpcodeTable,
  mode: DecodeMode,
  bytes: Uint8Array,
  at: number,
  limit: number,
  insn: Insn,
): DecodeResult {
  const long = mode.bits === 64;
  let p = at;
  const stop = at + Math.min(limit, 15);
  const short: DecodeResult = limit >= 15 ? 'too-long' : 'more';
  insn.lock = false;
  insn.rep = 0;
  insn.opsizePrefix = false;
  insn.rex = 0;
  insn.hasRex = false;
  insn.segmentOverride = -1;
  insn.vvvv = 0;
  insn.vexL = 0;
  insn.modrm = 0;
  insn.mod = 0;
  insn.reg = 0;
  insn.rm = 0;
  insn.mem = false;
  insn.base = -1;
  insn.index = -1;
  insn.scale = 0;
  insn.disp = 0;
  insn.dispHigh = 0;
  insn.ripRelative = false;
  insn.segment = 3;
  insn.imm = 0;
  insn.immHigh = 0;
  insn.imm2 = 0;
  insn.entry = undefined;
  let addressPrefix = false;
  let byte: number;
  for (;;) {
    if (p >= stop) return short;
    byte = bytes[p] as number;
    if (PREFIXES[byte] === 1) {
      insn.rex = 0;
      insn.hasRex = false;
      p++;
      switch (byte) {
        case 0x66:
          insn.opsizePrefix = true;
          break;
        case 0x67:
          addressPrefix = true;
          break;
        case 0xf0:
          insn.lock = true;
          break;
        case 0xf3:
          insn.rep = 1;
          break;
        case 0xf2:
          insn.rep = 2;
          break;
        case 0x64:
          insn.segmentOverride = 4;
          break;
        case 0x65:
          insn.segmentOverride = 5;
          break;
        default:
          // ES CS SS DS have no effect in 64-bit mode.
          if (!long) insn.segmentOverride = (byte >> 3) & 3;
      }
      continue;
    }
    if (long && (byte & 0xf0) === 0x40) {
      insn.rex = byte & 15;
      insn.hasRex = true;
      p++;
      continue;
    }
    break;
  }
  let map = 0;
  let vex = false;
  let vexPrefix = 0;
  let vexW = 0;
  if ((byte === 0xc4 || byte === 0xc5) && !mode.real) {
    if (p + 1 >= stop) return short;
    const next = bytes[p + 1] as number;
    if (long || next >= 0xc0) {
      if (insn.lock || insn.rep !== 0 || insn.opsizePrefix || insn.hasRex)
        return finish(insn, p + 1 - at, 'ud');
      vex = true;
      let last = next;
      if (byte === 0xc5) {
        insn.rex = next & 0x80 ? 0 : 4;
        map = 1;
        p += 2;
      } else {
        if (p + 2 >= stop) return short;
        last = bytes[p + 2] as number;
        insn.rex = (~(next >> 5) & 7) | (last & 0x80 ? 8 : 0);
        map = next & 31;
        vexW = last >> 7;
        p += 3;
        if (map < 1 || map > 3) return finish(insn, p - at, 'ud');
      }
      if (!long) insn.rex &= 8;
      insn.vvvv = (~last >> 3) & 15;
      insn.vexL = (last >> 2) & 1;
      vexPrefix = last & 3;
      if (p >= stop) return short;
      byte = bytes[p++] as number;
    } else {
      p++;
    }
  } else {
    p++;
    if (byte === 0x0f) {
      if (p >= stop) return short;
      byte = bytes[p++] as number;
      map = 1;
      if (byte === 0x38 || byte === 0x3a) {
        map = byte === 0x38 ? 2 : 3;
        if (p >= stop) return short;
        byte = bytes[p++] as number;
      }
    }
  }
  insn.opcode = byte;
  const list = (vex ? table.vex : table.legacy)[map * 256 + byte] as readonly Entry[];
  if (list.length === 0) return finish(insn, p - at, 'ud');

  const hasModrm = (list[0] as Entry).modrm;
  let modrm = 0;
  if (hasModrm) {
    if (p >= stop) return short;
    modrm = bytes[p] as number;
  }
  const mod = (list[0] as Entry).anyMod ? 3 : modrm >> 6;
  const memory = hasModrm && mod !== 3;
  const prefix = vex
    ? VEX_PREFIXES[vexPrefix]
    : insn.rep === 1
      ? 'f3'
      : insn.rep === 2
        ? 'f2'
        : insn.opsizePrefix
          ? '66'
          : 'np';
  let entry: Entry | undefined;
  for (const candidate of list) {
    if (candidate.prefix === 'norep') {
      if (insn.rep !== 0) continue;
    } else if (candidate.prefix !== 'any' && candidate.prefix !== prefix) continue;
    if (candidate.reg !== undefined && candidate.reg !== ((modrm >> 3) & 7)) continue;
    if (candidate.exact !== undefined && candidate.exact !== modrm) continue;
    if (candidate.form === 'mem' && !memory) continue;
    if (candidate.form === 'reg' && memory) continue;
    if (long ? candidate.no64 : candidate.only64) continue;
    // 90 is NOP, not XCHG of rAX with itself (which would clear the upper half); with REX.B it exchanges R8. With F3 it is
    // PAUSE, REX.B or not (measured on Intel; the manuals do not say).
    if (byte === 0x90 && map === 0 && candidate.prefix === 'any' && candidate.plus !== ((insn.rex & 1) === 1))
      continue;
    if (candidate.vex) {
      if (candidate.vex.l !== 'any' && candidate.vex.l !== insn.vexL) continue;
      if (candidate.vex.w !== 'any' && candidate.vex.w !== vexW) continue;
    }
    entry = candidate;
    break;
  }
  if (entry === undefined) return finish(insn, p - at, 'ud');
  insn.entry = entry;

  // Sizes.
  const w = (insn.rex & 8) !== 0;
  let size: Size;
  if (long) {
    if (entry.f64) size = 8;
    else if (w) size = 8;
    else if (insn.opsizePrefix && !(vex || entry.prefix === '66')) size = 2;
    else size = entry.d64 ? 8 : 4;
  } else {
    const wide = (mode.bits === 32) !== (insn.opsizePrefix && entry.prefix !== '66');
    size = wide ? 4 : 2;
  }
  insn.addressSize = long ? (addressPrefix ? 4 : 8) : (mode.bits === 32) !== addressPrefix ? 4 : 2;

  if (hasModrm) {
    p++;
    insn.modrm = modrm;
    insn.mod = mod;
    insn.reg = ((modrm >> 3) & 7) | ((insn.rex & 4) << 1);
    const rm = modrm & 7;
    if (mod === 3) {
      insn.rm = rm | ((insn.rex & 1) << 3);
    } else {
      insn.mem = true;
      let dispBytes = mod === 1 ? 1 : mod === 2 ? 4 : 0;
      if (insn.addressSize === 2) {
        insn.base = BASE16[rm] as number;
        insn.index = INDEX16[rm] as number;
        if (mod === 2) dispBytes = 2;
        if (mod === 0 && rm === 6) {
          insn.base = -1;
          dispBytes = 2;
        } else if (rm === 2 || rm === 3 || rm === 6) insn.segment = 2;
      } else if (rm === 4) {
        if (p >= stop) return short;
        const sib = bytes[p++] as number;
        insn.scale = sib >> 6;
        insn.index = ((sib >> 3) & 7) | ((insn.rex & 2) << 2);
        if (insn.index === 4) insn.index = -1;
        insn.base = (sib & 7) | ((insn.rex & 1) << 3);
        if ((sib & 7) === 5 && mod === 0) {
          insn.base = -1;
          dispBytes = 4;
        } else if (insn.base === 4 || insn.base === 5) insn.segment = 2;
      } else if (rm === 5 && mod === 0) {
        dispBytes = 4;
        insn.ripRelative = long;
      } else {
        insn.base = rm | ((insn.rex & 1) << 3);
        if (insn.base === 5 || insn.base === 4) insn.segment = 2;
      }
      if (p + dispBytes > stop) return short;
      if (dispBytes === 1) insn.disp = ((bytes[p] as number) << 24) >> 24;
      else if (dispBytes === 2)
        insn.disp = (((bytes[p] as number) | ((bytes[p + 1] as number) << 8)) << 16) >> 16;
      else if (dispBytes === 4) insn.disp = read32(bytes, p) | 0;
      insn.dispHigh = insn.disp >> 31;
      p += dispBytes;
    }
  } else if (entry.plus) {
    insn.rm = (byte & 7) | ((insn.rex & 1) << 3);
  }
  if (insn.segmentOverride >= 0) insn.segment = insn.segmentOverride;

  // Immediates.
  const { trailing } = entry.plan;
  for (let k = 0; k < trailing.length; k++) {
    const spec = trailing[k] as OperandSpec;
    if (spec.kind === 'I' || spec.kind === 'J') {
      const width = spec.size === 'v' ? size : spec.size === 'z' ? Math.min(size, 4) : (spec.size as number);
      if (p + width > stop) return short;
      let low: number;
      let high = 0;
      if (width === 1) low = spec.signed ? ((bytes[p] as number) << 24) >> 24 : (bytes[p] as number);
      else if (width === 2) {
        low = (bytes[p] as number) | ((bytes[p + 1] as number) << 8);
        if (spec.signed) low = (low << 16) >> 16;
      } else {
        low = read32(bytes, p) | 0;
        if (width === 8) high = read32(bytes, p + 4) | 0;
      }
      if (width !== 8) high = spec.signed ? low >> 31 : width === 4 ? 0 : 0;
      if (k === 0) {
        insn.imm = low;
        insn.immHigh = high;
      } else insn.imm2 = low;
      p += width;
    } else if (spec.kind === 'A') {
      const width = size === 2 ? 2 : 4;
      if (p + width + 2 > stop) return short;
      insn.imm = width === 2 ? (bytes[p] as number) | ((bytes[p + 1] as number) << 8) : read32(bytes, p) | 0;
      insn.immHigh = 0;
      insn.imm2 = (bytes[p + width] as number) | ((bytes[p + width + 1] as number) << 8);
      p += width + 2;
    } else if (spec.kind === 'O') {
      const width = insn.addressSize;
      if (p + width > stop) return short;
      insn.mem = true;
      insn.disp = width === 2 ? (bytes[p] as number) | ((bytes[p + 1] as number) << 8) : read32(bytes, p) | 0;
      insn.dispHigh = width === 8 ? read32(bytes, p + 4) | 0 : 0;
      p += width;
    }
  }
  insn.length = p - at;
  if (insn.lock && !(entry.lock && memory)) return 'ud';
  if (entry.vex && !entry.plan.third && insn.vvvv !== 0) return 'ud';
  // Outside 64-bit mode there are eight registers: the high bit of one that is named is ignored (measured).
  if (!long) insn.vvvv &= 7;
  insn.operandSize = size;
  const variantSize =
    entry.sizes.length === 1 ? (entry.sizes[0] as Size) : entry.sizes.length === 2 && size === 2 ? 4 : size;
  insn.variant = variantKey(variantSize, insn.mem && hasModrm, entry.rep ? insn.rep : 0);
  return 'ok';
}

function finish(insn: Insn, length: number, result: DecodeResult): DecodeResult {
  insn.length = length;
  return result;
}

function read32(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at] as number) |
      ((bytes[at + 1] as number) << 8) |
      ((bytes[at + 2] as number) << 16) |
      ((bytes[at + 3] as number) << 24)) >>>
    0
  );
}
