/** Expands the rows of the opcode map to forms: one operand size, register or memory, one prefix. */
import { ROWS } from './opcodes.ts';
import type { Kind } from './values.ts';
import { KINDS } from './values.ts';

export interface Operand {
  /** The letter of the opcode map, or `implicit`. */
  readonly letter: string;
  /** Bytes; 0 where the operand has no size. */
  readonly bytes: number;
  /** True when `letter` allows memory and this form uses it. */
  readonly memory: boolean;
  readonly text: string;
}

export interface Form {
  readonly name: string;
  readonly mnemonic: string;
  readonly operands: readonly Operand[];
  /** 2, 4 or 8, or 0 when the instruction has no variable operand size. */
  readonly size: number;
  readonly mandatory: number;
  readonly rexW: boolean;
  /** REX bits that the row demands (R for MOV CR8). */
  readonly rex: number;
  readonly vex: boolean;
  /** 1, 0x0f, 0x0f38 or 0x0f3a. */
  readonly map: number;
  readonly opcode: number;
  readonly inOpcode: boolean;
  readonly digit: number | undefined;
  readonly fixed: number | undefined;
  readonly lock: boolean;
  readonly lockable: boolean;
  /** 0, 0xf2 or 0xf3 for string instructions. */
  readonly repeat: number;
  readonly string: boolean;
  /** Byte registers are AH, CH, DH, BH. */
  readonly high: boolean;
  readonly kind: Kind;
  readonly aligned: boolean;
  readonly weight: number;
}

interface Row {
  readonly mnemonic: string;
  readonly operands: readonly string[];
  readonly encoding: readonly string[];
  readonly attributes: readonly string[];
}

function parseRow(text: string): Row {
  const [left = '', encoding = '', attributes = ''] = text.split('|').map((part) => part.trim());
  const space = left.indexOf(' ');
  const split = (value: string): string[] => value.split(/\s+/).filter((token) => token !== '');
  return {
    mnemonic: space < 0 ? left : left.slice(0, space),
    operands: space < 0 ? [] : left.slice(space + 1).split(','),
    encoding: split(encoding),
    attributes: split(attributes),
  };
}

const SIZES: Readonly<Record<string, number>> = { b: 1, w: 2, d: 4, q: 8, t: 10, x: 16 };
const EITHER = 'EWQ';

function operandBytes(code: string, size: number): number {
  const suffix = code.slice(1);
  if (suffix === 'v' || suffix === 'y') return size;
  if (suffix === 'z') return Math.min(size, 4);
  if (/^\d+$/.test(suffix)) return Number(suffix);
  return SIZES[suffix] ?? 0;
}

function operandText(code: string, bytes: number, memory: boolean, high: boolean): string {
  const letter = code[0] ?? '';
  const bits = bytes * 8;
  if (memory) return bytes > 20 || bytes === 0 ? `m${bytes === 0 ? '' : `${bytes}byte`}` : `m${bits}`;
  switch (letter) {
    case 'E':
    case 'G':
    case 'R':
    case 'Z':
    case 'B':
      return bytes === 1 && high ? 'r8h' : `r${bits}`;
    case 'V':
    case 'W':
    case 'U':
      return 'xmm';
    case 'P':
    case 'Q':
    case 'N':
      return 'mm';
    case 'S':
      return 'sreg';
    case 'I':
      return `imm${bits}`;
    case 'J':
      return `rel${bits}`;
    case 'O':
      return `moffs${bits}`;
    default:
      return code;
  }
}

function isExplicit(code: string): boolean {
  return /^[EGRMZBVWUPQNSIJO]/.test(code);
}

function expand(row: Row): Form[] {
  const has = (attribute: string): boolean => row.attributes.includes(attribute);
  let mandatory = 0;
  let rexW = false;
  let rex = 0;
  let vex = false;
  let map = 1;
  let opcode = -1;
  let inOpcode = false;
  let digit: number | undefined;
  let fixed: number | undefined;
  for (const token of row.encoding) {
    if (opcode < 0 && /^(66|F2|F3)$/.test(token) && row.encoding.at(-1) !== token) {
      // CRC32 r32,r/m16 has both: 66 is then the operand size.
      if (mandatory === 0x66) rex |= 0x100;
      mandatory = parseInt(token, 16);
    } else if (token === 'W') rexW = true;
    else if (token === 'V') vex = true;
    else if (token === '44') rex |= 4;
    else if (token.startsWith(':')) fixed = parseInt(token.slice(1), 16);
    else if (token.startsWith('/')) digit = Number(token.slice(1));
    else {
      inOpcode = token.endsWith('+r');
      const bytes = token.replace('+r', '');
      if (/^0F3[8A]..$/.test(bytes)) map = parseInt(bytes.slice(0, 4), 16);
      else if (/^0F..$/.test(bytes)) map = 0x0f;
      opcode = parseInt(bytes.slice(-2), 16);
    }
  }
  if (opcode < 0) throw new Error(`a row without an opcode: ${row.mnemonic}`);

  const codes = row.operands.filter((code) => code !== 'v');
  const variable =
    row.operands.includes('v') || codes.some((code) => isExplicit(code) && /^.[vz]$/.test(code));
  const either = codes.some((code) => isExplicit(code) && /^.y$/.test(code));
  let sizes = variable ? [2, 4, 8] : either ? [4, 8] : [0];
  if (has('d64')) sizes = [8, 2];
  if (has('s32')) sizes = [4];
  if (has('s64')) sizes = [8];

  const forms: Form[] = [];
  const modes =
    codes.some((code) => isExplicit(code) && EITHER.includes(code[0] ?? '')) && fixed === undefined
      ? [false, true]
      : [false];
  const weight = Number(row.attributes.find((attribute) => attribute.startsWith('n='))?.slice(2) ?? 1);
  for (const size of sizes) {
    for (const memory of modes) {
      const build = (high: boolean, lock: boolean, repeat: number): void => {
        const operands = codes.map((code): Operand => {
          const explicit = isExplicit(code) && fixed === undefined;
          const letter = explicit
            ? (code[0] as string)
            : isExplicit(code) && /^[IJ]/.test(code)
              ? (code[0] as string)
              : 'implicit';
          const isMemory = explicit && ((memory && EITHER.includes(letter)) || letter === 'M');
          const bytes = isExplicit(code) ? operandBytes(code, size) : 0;
          const text = isExplicit(code)
            ? operandText(code, bytes, isMemory, high)
            : code === 'rax' && size !== 0
              ? { 2: 'ax', 4: 'eax', 8: 'rax' }[size as 2 | 4 | 8]
              : code === 'sti'
                ? 'st(i)'
                : code === 'st0'
                  ? 'st'
                  : code;
          return { letter, bytes, memory: isMemory, text };
        });
        const suffix =
          codes.length === row.operands.length && size === 2 && codes.every((c) => !isExplicit(c))
            ? '16'
            : '';
        const mnemonic =
          codes.length !== row.operands.length
            ? row.mnemonic + ({ 2: 'w', 4: 'd', 8: 'q' }[size as 2 | 4 | 8] ?? '')
            : row.mnemonic;
        const prefix = lock ? 'lock ' : repeat === 0xf2 ? 'repne ' : repeat === 0xf3 ? 'rep ' : '';
        forms.push({
          name: `${prefix}${mnemonic}${suffix}${operands.length === 0 ? '' : ' '}${operands.map((o) => o.text).join(',')}`,
          mnemonic,
          operands,
          size,
          mandatory,
          rexW: rexW || (size === 8 && !has('d64') && !has('s64')),
          rex,
          vex,
          map,
          opcode,
          inOpcode,
          digit,
          fixed,
          lock,
          lockable: has('lock'),
          repeat,
          string: has('rep'),
          high,
          kind: KINDS.find((kind) => has(kind)) ?? 'int',
          aligned: has('aligned'),
          weight,
        });
      };
      const hasMemory = memory || codes.some((code) => code.startsWith('M'));
      build(false, false, 0);
      if (has('lock') && hasMemory) build(false, true, 0);
      if (has('rep')) {
        build(false, false, 0xf2);
        build(false, false, 0xf3);
      }
      const byteRegister = codes.some(
        (code) => isExplicit(code) && /^[EGRZ]b$/.test(code) && !(memory && code.startsWith('E')),
      );
      // With REX.W in the encoding there is no way to name AH.
      if (byteRegister && !rexW && size !== 8 && fixed === undefined) build(true, false, 0);
    }
  }
  return forms;
}

export const FORMS: readonly Form[] = ROWS.flatMap((row) => expand(parseRow(row)));
