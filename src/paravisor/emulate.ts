/**
 * Instructions whose memory operand is a device, or that move between a port and memory: what they read or write, and what becomes
 * of it. One element of a string instruction at a time; RIP stays on it until the count is used up, as on the processor.
 *
 * An access is decoded once and is plain data: what other processors do to the code meanwhile changes nothing.
 */

import { REGISTER } from '../abi/hyperv/registers.ts';
import { highHalf, join, lowHalf } from '../abi/record.ts';
import type { HostView } from '../seats/host-view.ts';
import { decode, Insn } from '../x86/decoder.ts';
import {
  codeMode,
  generalRegister,
  getRegister,
  getSegment,
  RFLAGS,
  setRegister,
} from './guest-registers.ts';
import { readLinear, writeLinear } from './walk.ts';

export type OpcodeTable = Parameters<typeof decode>[0];

type Width = 1 | 2 | 4 | 8;
const ARITHMETIC = ['add', 'or', 'and', 'sub', 'xor', 'cmp', 'test'] as const;
type Arithmetic = (typeof ARITHMETIC)[number];

export interface Access {
  readonly size: Width;
  /** The device is read first; afterwards, where `write`, written. */
  readonly read: boolean;
  readonly write: boolean;
  /** Bytes of the instruction. */
  readonly length: number;
  /** What is written, where that does not depend on what is read. */
  readonly value: bigint;
  readonly effect:
    | { readonly kind: 'store' }
    | {
        readonly kind: 'load';
        readonly register: number;
        readonly operand: Width;
        readonly signed: boolean;
        readonly high: boolean;
      }
    | { readonly kind: 'exchange'; readonly register: number; readonly high: boolean }
    | {
        readonly kind: 'arithmetic';
        readonly operation: Arithmetic;
        /** The register is the destination. */
        readonly register: number | undefined;
        readonly high: boolean;
      }
    /** To the address in rDI. */
    | { readonly kind: 'copy' }
    /** Loads rAX. */
    | { readonly kind: 'string-load' };
  /** String instruction: which of rSI and rDI move, by how much, and whether rCX counts. */
  readonly string:
    | {
        readonly si: boolean;
        readonly di: boolean;
        readonly step: number;
        readonly counted: boolean;
        readonly addressSize: 2 | 4 | 8;
      }
    | undefined;
}

const STRINGS = ['movs', 'stos', 'lods', 'ins', 'outs'] as const;
const RAX = 0;
const RCX = 1;
const RSI = 6;
const RDI = 7;
const insn = new Insn();

/** The access that the instruction at RIP makes; `undefined`: it is none that can be emulated. */
export function decodeAccess(
  table: OpcodeTable,
  view: HostView,
  vp: number,
  faultIsWrite: boolean,
): Access | undefined {
  const mode = codeMode(view, vp);
  const cs = getSegment(view, vp, REGISTER.cs);
  const rip = getRegister(view, vp, REGISTER.rip);
  const linear = mode.bits === 64 ? rip : (cs.base + rip) & 0xffff_ffffn;
  const bytes = readLinear(view, vp, linear, 15);
  if (decode(table, mode, bytes, 0, bytes.length, insn) !== 'ok' || insn.entry === undefined)
    return undefined;
  const { name } = insn.entry.def;
  const string = STRINGS.find((known) => name === known || name === `${known}b`);
  if (string !== undefined) return stringAccess(view, vp, string, faultIsWrite);
  const [first, second] = insn.entry.operands;
  if (first === undefined || second === undefined || !insn.mem) return undefined;
  const memoryFirst = first.kind === 'E' || first.kind === 'O' || first.kind === 'M';
  const memory = memoryFirst ? first : second;
  const other = memoryFirst ? second : first;
  const size = widthOf(memory.size);
  const operand = widthOf(other.size);
  if (size === undefined || operand === undefined) return undefined;
  const isImmediate = other.kind === 'I';
  const register = registerOf(other.kind, other.register);
  if (!isImmediate && register === undefined) return undefined;
  const high =
    !isImmediate && operand === 1 && !insn.hasRex && (register ?? 0) >= 4 && other.kind !== 'fixed';
  const value = isImmediate
    ? truncate(join(insn.imm >>> 0, insn.immHigh >>> 0), size)
    : readGeneral(view, vp, register ?? 0, size, high);
  const common = { size, length: insn.length, value, string: undefined };
  switch (name) {
    case 'mov':
    case 'movnti':
      return memoryFirst
        ? { ...common, read: false, write: true, effect: { kind: 'store' } }
        : load(common, register ?? 0, operand, false, high);
    case 'movzx':
      return load(common, register ?? 0, operand, false, false);
    case 'movsx':
    case 'movsxd':
      return load(common, register ?? 0, operand, true, false);
    case 'xchg':
      return {
        ...common,
        read: true,
        write: true,
        effect: { kind: 'exchange', register: register ?? 0, high },
      };
    default:
      break;
  }
  const operation = ARITHMETIC.find((known) => known === name);
  if (operation === undefined) return undefined;
  const writes = memoryFirst && operation !== 'cmp' && operation !== 'test';
  return {
    ...common,
    read: true,
    write: writes,
    effect: { kind: 'arithmetic', operation, register: memoryFirst ? undefined : register, high },
  };
}

type Common = Pick<Access, 'size' | 'length' | 'value' | 'string'>;

function load(common: Common, register: number, operand: Width, signed: boolean, high: boolean): Access {
  return { ...common, read: true, write: false, effect: { kind: 'load', register, operand, signed, high } };
}

function stringAccess(
  view: HostView,
  vp: number,
  name: (typeof STRINGS)[number],
  isWrite: boolean,
): Access | undefined {
  const entry = insn.entry;
  const opcode = insn.opcode;
  if (entry === undefined) return undefined;
  const isPort = name === 'ins' || name === 'outs';
  // A port has at most 32 bits.
  const wide = isPort && insn.operandSize === 8 ? 4 : insn.operandSize;
  const size: Width = (opcode & 1) === 0 ? 1 : (wide as Width);
  const backwards = (getRegister(view, vp, REGISTER.rflags) & BigInt(RFLAGS.DF)) !== 0n;
  const string = {
    si: name !== 'stos' && name !== 'ins',
    di: name !== 'lods' && name !== 'outs',
    step: backwards ? -size : size,
    counted: insn.rep !== 0,
    addressSize: insn.addressSize,
  };
  const common = { size, length: insn.length, string };
  if (name === 'stos') {
    const value = readGeneral(view, vp, RAX, size, false);
    return { ...common, value, read: false, write: true, effect: { kind: 'store' } };
  }
  if (name === 'lods')
    return { ...common, value: 0n, read: true, write: false, effect: { kind: 'string-load' } };
  // To memory from a device or a port; of a MOVS the other side may be the device.
  if (name === 'ins' || (name === 'movs' && !isWrite))
    return { ...common, value: 0n, read: true, write: false, effect: { kind: 'copy' } };
  const from = segmentBase(view, vp, insn.segment) + pointer(view, vp, RSI, insn.addressSize);
  const source = readLinear(view, vp, from, size);
  if (source.length < size) return undefined;
  let value = 0n;
  for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(source[i] ?? 0);
  return { ...common, value, read: false, write: true, effect: { kind: 'store' } };
}

/** What an access that reads and then writes puts back; `undefined` for one that only reads. */
export function valueToWrite(access: Access, lo: number, hi: number): bigint {
  if (access.effect.kind !== 'arithmetic') return access.value;
  return compute(access.effect.operation, truncate(join(lo, hi), access.size), access.value, access.size)
    .result;
}

/** The access has been made: `lo`, `hi` were read. Registers, flags and RIP follow. False: its other operand is not there. */
export function finishAccess(view: HostView, vp: number, access: Access, lo: number, hi: number): boolean {
  const { effect, size, string } = access;
  const read = truncate(join(lo, hi), size);
  switch (effect.kind) {
    case 'store':
      break;
    case 'load': {
      const extended = effect.signed ? BigInt.asIntN(8 * size, read) : read;
      writeGeneral(view, vp, effect.register, effect.operand, effect.high, extended);
      break;
    }
    case 'exchange':
      writeGeneral(view, vp, effect.register, size, effect.high, read);
      break;
    case 'arithmetic': {
      const memoryIsFirst = effect.register === undefined;
      const [a, b] = memoryIsFirst ? [read, access.value] : [access.value, read];
      const { result, flags } = compute(effect.operation, a, b, size);
      if (effect.register !== undefined && effect.operation !== 'cmp' && effect.operation !== 'test')
        writeGeneral(view, vp, effect.register, size, effect.high, result);
      setRegister(
        view,
        vp,
        REGISTER.rflags,
        (getRegister(view, vp, REGISTER.rflags) & ~STATUS_FLAGS) | flags,
      );
      break;
    }
    case 'copy': {
      const bytes = new Uint8Array(size);
      for (let i = 0; i < size; i++) bytes[i] = Number((read >> BigInt(8 * i)) & 0xffn);
      const to = segmentBase(view, vp, 0) + pointer(view, vp, RDI, string?.addressSize ?? 8);
      if (!writeLinear(view, vp, to, bytes)) return false;
      break;
    }
    case 'string-load':
      writeGeneral(view, vp, RAX, size, false, read);
      break;
  }
  if (string === undefined || advanceString(view, vp, string)) {
    const rip = getRegister(view, vp, REGISTER.rip) + BigInt(access.length);
    setRegister(view, vp, REGISTER.rip, codeMode(view, vp).bits === 64 ? rip : rip & 0xffff_ffffn);
  }
  return true;
}

/** True: the instruction is complete. */
function advanceString(view: HostView, vp: number, string: NonNullable<Access['string']>): boolean {
  const width = string.addressSize;
  const step = BigInt(string.step);
  const move = (register: number, by: bigint): bigint => {
    const value = truncate(pointer(view, vp, register, width) + by, width);
    writeGeneral(view, vp, register, width, false, value);
    return value;
  };
  if (string.si) move(RSI, step);
  if (string.di) move(RDI, step);
  return !string.counted || move(RCX, -1n) === 0n;
}

function pointer(view: HostView, vp: number, register: number, width: 2 | 4 | 8): bigint {
  return truncate(getRegister(view, vp, generalRegister(register)), width);
}

const SEGMENTS = [REGISTER.es, REGISTER.cs, REGISTER.ss, REGISTER.ds, REGISTER.fs, REGISTER.gs] as const;

function segmentBase(view: HostView, vp: number, segment: number): bigint {
  const name = SEGMENTS[segment] ?? REGISTER.ds;
  const flat = codeMode(view, vp).bits === 64 && segment < 4;
  return flat ? 0n : getSegment(view, vp, name).base;
}

function widthOf(rule: number | string): Width | undefined {
  const { operandSize } = insn;
  switch (rule) {
    case 1:
    case 2:
    case 4:
    case 8:
      return rule;
    case 'v':
      return operandSize as Width;
    case 'y':
      return operandSize === 8 ? 8 : 4;
    case 'z':
      return operandSize === 2 ? 2 : 4;
    default:
      return undefined;
  }
}

function registerOf(kind: string, fixed: number): number | undefined {
  if (kind === 'G') return insn.reg;
  return kind === 'fixed' ? fixed : undefined;
}

function truncate(value: bigint, size: number): bigint {
  return BigInt.asUintN(8 * size, value);
}

/** `high`: AH, CH, DH, BH. */
function readGeneral(view: HostView, vp: number, register: number, size: number, high: boolean): bigint {
  const value = getRegister(view, vp, generalRegister(high ? register - 4 : register));
  return truncate(high ? value >> 8n : value, size);
}

/** 32-bit results clear the upper half, narrower ones keep the rest. */
function writeGeneral(
  view: HostView,
  vp: number,
  register: number,
  size: number,
  high: boolean,
  value: bigint,
): void {
  const name = generalRegister(high ? register - 4 : register);
  if (size >= 4) {
    setRegister(view, vp, name, truncate(value, size));
    return;
  }
  const shift = high ? 8n : 0n;
  const mask = ((1n << BigInt(8 * size)) - 1n) << shift;
  setRegister(view, vp, name, (getRegister(view, vp, name) & ~mask) | (truncate(value, size) << shift));
}

const STATUS_FLAGS = BigInt(RFLAGS.CF | RFLAGS.PF | RFLAGS.AF | RFLAGS.ZF | RFLAGS.SF | RFLAGS.OF);

function compute(
  operation: Arithmetic,
  a: bigint,
  b: bigint,
  size: number,
): { readonly result: bigint; readonly flags: bigint } {
  const sign = 1n << BigInt(8 * size - 1);
  const wide =
    operation === 'add'
      ? a + b
      : operation === 'sub' || operation === 'cmp'
        ? a - b
        : operation === 'or'
          ? a | b
          : operation === 'xor'
            ? a ^ b
            : a & b;
  const result = truncate(wide, size);
  const sum = operation === 'add';
  const difference = operation === 'sub' || operation === 'cmp';
  let flags = 0;
  if ((sum || difference) && wide !== result) flags |= RFLAGS.CF;
  const overflow = sum ? (a ^ result) & (b ^ result) : difference ? (a ^ b) & (a ^ result) : 0n;
  if ((overflow & sign) !== 0n) flags |= RFLAGS.OF;
  if ((sum || difference) && ((a ^ b ^ result) & 16n) !== 0n) flags |= RFLAGS.AF;
  if (result === 0n) flags |= RFLAGS.ZF;
  if ((result & sign) !== 0n) flags |= RFLAGS.SF;
  let ones = lowHalf(result) & 0xff;
  ones ^= ones >>> 4;
  ones ^= ones >>> 2;
  ones ^= ones >>> 1;
  if ((ones & 1) === 0) flags |= RFLAGS.PF;
  return { result, flags: BigInt(flags) };
}

/** The halves of a value for a device. */
export const halves = (value: bigint): readonly [lo: number, hi: number] => [lowHalf(value), highHalf(value)];
