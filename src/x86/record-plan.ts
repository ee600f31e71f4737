/** What decoding and writing a record need to know of an encoding, found out once for each. */
import type { Def } from './defs/def.ts';
import type { OperandKind, OperandSpec } from './encoding.ts';

/** What the `reg` field of a record holds. */
export const REG = {
  general: 0,
  /** A byte register: without REX, 4-7 are AH CH DH BH. */
  byte: 1,
  segment: 2,
  number: 3,
  xmm: 4,
  mmx: 5,
} as const;

/** What the `rm` field of a record holds. */
export const RM = {
  general: 0,
  /** A byte register unless the operand is in memory, or always. */
  byteOrMemory: 1,
  byte: 2,
  xmm: 3,
  mmx: 4,
  stack: 5,
} as const;

/**
 * `writes`: all status flags, reading none; `keeps`: shows none to anybody, and may write some; both without any fault. What
 * is dead behind a shift or an increment is dead in front of it.
 */
export type FlagUse = 'writes' | 'keeps' | 'other';

export interface RecordPlan {
  readonly reg: number;
  readonly rm: number;
  /** Operands that have bytes of their own behind modrm, in their order. */
  readonly trailing: readonly OperandSpec[];
  readonly branch: boolean;
  /** VEX.vvvv names an operand. */
  readonly third: boolean;
  /** A memory operand is an access: not of LEA or NOP. */
  readonly accesses: boolean;
  readonly flagUse: FlagUse;
  /** Memory references without modrm go through SS. */
  readonly stack: boolean;
}

const TRAILING: ReadonlySet<OperandKind> = new Set(['I', 'J', 'A', 'O']);

const WRITES_FLAGS = new Set(['add', 'or', 'and', 'sub', 'xor', 'cmp', 'test', 'neg', 'imul']);
const KEEPS_FLAGS = new Set([
  ...['mov', 'lea', 'movzx', 'movsx', 'movsxd', 'not', 'nop', 'bswap'],
  ...['inc', 'dec', 'rol', 'ror', 'shl', 'shr', 'sar'],
]);
/** General registers, immediates, CL and the 1 of a shift. */
const PLAIN_OPERANDS: ReadonlySet<OperandKind> = new Set(['E', 'G', 'Z', 'I', 'M', 'fixed', 'one']);

/** Of a register form. MOV to segment, control and debug registers is another definition of that name: it may fault. */
function flagUse(def: Def, operands: readonly OperandSpec[]): FlagUse {
  if (WRITES_FLAGS.has(def.name)) return 'writes';
  if (KEEPS_FLAGS.has(def.name) && operands.every(({ kind }) => PLAIN_OPERANDS.has(kind))) return 'keeps';
  return 'other';
}

/** Instructions whose memory references without modrm go through SS. */
const STACK_NAMES = new Set([
  ...[
    'push',
    'pop',
    'call',
    'ret',
    'enter',
    'leave',
    'pushf',
    'popf',
    'pusha',
    'popa',
    'iret',
    'retf',
    'callf',
  ],
]);

export function recordPlan(def: Def, operands: readonly OperandSpec[]): RecordPlan {
  let reg: number = REG.general;
  let rm: number = RM.general;
  for (const { kind, size } of operands) {
    switch (kind) {
      case 'G':
        reg = size === 1 ? REG.byte : REG.general;
        break;
      case 'S':
        reg = REG.segment;
        break;
      case 'C':
      case 'D':
        reg = REG.number;
        break;
      case 'V':
        reg = REG.xmm;
        break;
      case 'P':
        reg = REG.mmx;
        break;
      case 'E':
      case 'R':
        rm = size === 1 ? RM.byteOrMemory : RM.general;
        break;
      case 'Z':
        rm = size === 1 ? RM.byte : RM.general;
        break;
      case 'W':
      case 'U':
        rm = RM.xmm;
        break;
      case 'Q':
      case 'N':
        rm = RM.mmx;
        break;
      case 'STi':
        rm = RM.stack;
        break;
      default:
        break;
    }
  }
  return {
    reg,
    rm,
    trailing: operands.filter(({ kind }) => TRAILING.has(kind)),
    branch: operands.some(({ kind }) => kind === 'J'),
    third: operands.some(({ kind }) => kind === 'B'),
    accesses: def.name !== 'lea' && def.name !== 'nop',
    flagUse: flagUse(def, operands),
    stack: STACK_NAMES.has(def.name),
  };
}
