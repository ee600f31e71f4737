/** Reads the encoding notation of defs/def.ts into tables for the decoder and the code generators. */
import type { Def } from './defs/def.ts';
import { recordPlan, type RecordPlan } from './record-plan.ts';
import type { Size } from './sem.ts';

export type OperandKind =
  | 'E' // modrm.rm: general register or memory
  | 'G' // modrm.reg: general register
  | 'R' // modrm.rm: register only
  | 'B' // VEX.vvvv
  | 'Z' // low opcode bits
  | 'fixed' // AL, CL, DX, rAX
  | 'one'
  | 'I'
  | 'J'
  | 'A'
  | 'O'
  | 'M'
  | 'S'
  | 'C'
  | 'D'
  | 'V'
  | 'W'
  | 'U'
  | 'P'
  | 'Q'
  | 'N'
  | 'STi';

export type Access = 'r' | 'w' | 'rw';

/** How many bytes an operand has: a number, or by operand size (v), 4/8 (y), 2/4 (z), none (address only). */
export type SizeRule = 1 | 2 | 4 | 8 | 10 | 16 | 'v' | 'y' | 'z' | 'none' | 'p';

export interface OperandSpec {
  readonly kind: OperandKind;
  readonly size: SizeRule;
  readonly access: Access;
  /** `bs`: sign-extended byte. */
  readonly signed: boolean;
  /** 128-bit memory operand that must be aligned. */
  readonly aligned: boolean;
  /** Fixed register number. */
  readonly register: number;
  /** Edw: register of operand size, 16-bit memory. */
  readonly memorySize: 2 | undefined;
}

export interface Entry {
  readonly def: Def;
  readonly text: string;
  readonly prefix: 'any' | 'norep' | 'np' | '66' | 'f3' | 'f2';
  /** 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A. */
  readonly map: number;
  readonly opcode: number;
  /** Register in the low three bits of the opcode. */
  readonly plus: boolean;
  readonly vex: { readonly l: 0 | 1 | 'any'; readonly w: 0 | 1 | 'any' } | undefined;
  readonly modrm: boolean;
  readonly reg: number | undefined;
  readonly form: 'any' | 'mem' | 'reg';
  readonly exact: number | undefined;
  readonly d64: boolean;
  readonly f64: boolean;
  readonly only64: boolean;
  readonly no64: boolean;
  readonly lock: boolean;
  readonly rep: boolean;
  /** modrm.mod is ignored: always the register form (MOV to and from control and debug registers). */
  readonly anyMod: boolean;
  readonly operands: readonly OperandSpec[];
  readonly plan: RecordPlan;
  /** Operand sizes for which variants exist. */
  readonly sizes: readonly Size[];
  /** Case and slot of each variant, by `variantKey`; filled by the engine. */
  readonly handlers: {
    handler: number;
    slot: number;
    /** Case of a copy that leaves dead status flags out; undefined: there is none. */
    deadFlags?: number;
  }[];
}

const SIZE_LETTERS: Readonly<Record<string, SizeRule>> = {
  b: 1,
  w: 2,
  d: 4,
  q: 8,
  v: 'v',
  y: 'y',
  z: 'z',
  x: 16,
  u: 16,
  t: 10,
  p: 'p',
  '': 'none',
};

const FIXED: Readonly<Record<string, [number, SizeRule]>> = {
  AL: [0, 1],
  CL: [1, 1],
  DX: [2, 2],
  AX: [0, 2],
  eAX: [0, 'z'],
  rAX: [0, 'v'],
};

function parseOperand(text: string): OperandSpec {
  const access: Access = text.endsWith('!') ? 'rw' : text.endsWith('=') ? 'w' : 'r';
  const body = access === 'r' ? text : text.slice(0, -1);
  const make = (kind: OperandKind, size: SizeRule, more: Partial<OperandSpec> = {}): OperandSpec => ({
    kind,
    size,
    access,
    signed: false,
    aligned: false,
    register: 0,
    memorySize: undefined,
    ...more,
  });
  const fixed = FIXED[body];
  if (fixed) return make('fixed', fixed[1], { register: fixed[0] });
  if (body === '1') return make('one', 1);
  if (body === 'STi') return make('STi', 'none');
  if (body === 'Edw') return make('E', 'v', { memorySize: 2 });
  if (body === 'Ibs') return make('I', 1, { signed: true });
  const kind = body.charAt(0);
  const letter = body.slice(1);
  const size = SIZE_LETTERS[letter];
  if (size === undefined || !'EGRBZIJAOMSCDVWUPQN'.includes(kind)) throw new Error(`unknown operand ${text}`);
  if (kind === 'I' && letter === 'z') return make('I', 'z', { signed: true });
  if (kind === 'J') return make('J', size, { signed: true });
  if (kind === 'C' || kind === 'D') return make(kind, size);
  return make(kind as OperandKind, size, { aligned: kind === 'W' && letter === 'x' });
}

export function parseEncoding(def: Def, text: string): Entry {
  const tokens = text.split(/\s+/).filter((token) => token !== '');
  let prefix: Entry['prefix'] = 'any';
  let vex: Entry['vex'];
  let map = 0;
  let opcode = -1;
  let plus = false;
  let modrm = false;
  let reg: number | undefined;
  let form: Entry['form'] = 'any';
  let exact: number | undefined;
  const modifiers = new Set<string>();
  let operands: OperandSpec[] | undefined;
  const opcodeBytes = (hex: string): void => {
    let rest = hex;
    if (rest.endsWith('+')) {
      plus = true;
      rest = rest.slice(0, -1);
    }
    if (rest.length === 6 && rest.startsWith('0F38')) ((map = 2), (rest = rest.slice(4)));
    else if (rest.length === 6 && rest.startsWith('0F3A')) ((map = 3), (rest = rest.slice(4)));
    else if (rest.length === 4 && rest.startsWith('0F')) ((map = 1), (rest = rest.slice(2)));
    if (!/^[0-9A-F]{2}$/.test(rest)) throw new Error(`${def.name}: opcode ${hex}`);
    opcode = parseInt(rest, 16);
  };
  for (const [at, token] of tokens.entries()) {
    if (opcode < 0) {
      if (token.startsWith('VEX.')) {
        const parts = token.split('.').slice(1);
        const [l, p, m, w] = parts;
        vex = { l: l === 'L0' ? 0 : l === 'L1' ? 1 : 'any', w: w === 'W0' ? 0 : w === 'W1' ? 1 : 'any' };
        prefix = p === 'NP' ? 'np' : p === '66' ? '66' : p === 'F3' ? 'f3' : 'f2';
        map = m === '0F' ? 1 : m === '0F38' ? 2 : 3;
      } else if (token === 'NP') prefix = 'np';
      else if (token === 'NR') prefix = 'norep';
      else if (token === '66' && at === 0 && tokens.length > 2) prefix = '66';
      else if (
        token === 'F3' &&
        at === 0 &&
        tokens.length > 1 &&
        /^0F|^[0-9A-F]{2}\+?$/.test(tokens[1] as string)
      )
        prefix = 'f3';
      else if (
        token === 'F2' &&
        at === 0 &&
        tokens.length > 1 &&
        /^0F|^[0-9A-F]{2}\+?$/.test(tokens[1] as string)
      )
        prefix = 'f2';
      else if (vex) opcode = parseInt(token, 16);
      else opcodeBytes(token);
    } else if (token.startsWith('/')) {
      modrm = true;
      const [ext, limit] = token.slice(1).split(':');
      if (ext !== 'r') reg = Number(ext);
      if (limit !== undefined) form = limit === 'm' ? 'mem' : 'reg';
    } else if (token.startsWith('=')) {
      modrm = true;
      exact = parseInt(token.slice(1), 16);
      form = 'reg';
    } else if (['d64', 'f64', 'o64', 'i64', 'nolong', 'v', 'rep', 'lock', 'anymod'].includes(token))
      modifiers.add(token);
    else if (token === '-') operands = [];
    else operands = token.split(',').map(parseOperand);
  }
  if (operands === undefined || opcode < 0) throw new Error(`${def.name}: incomplete encoding "${text}"`);
  if (operands.some((o) => 'MO'.includes(o.kind) && o.kind === 'M') && form === 'any') form = 'mem';
  if (operands.some((o) => 'RUN'.includes(o.kind)) && form === 'any') form = 'reg';
  if (operands.some((o) => 'EGMSCDVWUPQNR'.includes(o.kind[0] as string) && o.kind !== 'STi')) modrm = true;
  const f64 = modifiers.has('f64');
  const byV =
    modifiers.has('v') ||
    operands.some(
      (o) =>
        o.size === 'v' || o.size === 'z' || o.kind === 'A' || o.size === 'p' || (o.kind === 'I' && o.signed),
    );
  const byY = operands.some((o) => o.size === 'y');
  const firstFixed = operands.find((o) => typeof o.size === 'number' && o.size <= 8);
  const single = (firstFixed?.size ?? 4) as Size;
  const sizes: readonly Size[] = byV ? [2, 4, 8] : byY ? [4, 8] : [single];
  return {
    def,
    text,
    prefix,
    map,
    opcode,
    plus,
    vex,
    modrm,
    reg,
    form,
    exact,
    d64: modifiers.has('d64'),
    f64,
    only64: modifiers.has('o64'),
    no64: modifiers.has('i64') || modifiers.has('nolong'),
    lock: modifiers.has('lock'),
    rep: modifiers.has('rep'),
    anyMod: modifiers.has('anymod'),
    operands,
    plan: recordPlan(def, operands),
    sizes,
    handlers: [],
  };
}

/** Index into `Entry.handlers`: operand size, memory form, repeat prefix. */
export function variantKey(size: Size, mem: boolean, rep: 0 | 1 | 2): number {
  return (size === 1 ? 0 : size === 2 ? 1 : size === 4 ? 2 : 3) | (mem ? 4 : 0) | (rep << 3);
}

/** Bytes of an operand at operand size `size`. */
export function operandBytes(spec: OperandSpec, size: Size, mem: boolean): number {
  if (mem && spec.memorySize !== undefined && spec.kind === 'E') return spec.memorySize;
  switch (spec.size) {
    case 'v':
      return size;
    case 'y':
      return size === 8 ? 8 : 4;
    case 'z':
      return size === 2 ? 2 : 4;
    case 'p':
      return size + 2;
    case 'none':
      return 0;
    default:
      return spec.size;
  }
}

/** All entries by opcode: index map * 256 + opcode; VEX apart. */
export interface OpcodeTable {
  readonly legacy: readonly (readonly Entry[])[];
  readonly vex: readonly (readonly Entry[])[];
  readonly entries: readonly Entry[];
}

const SPECIFICITY = { f3: 0, f2: 0, '66': 1, np: 2, norep: 2, any: 3 } as const;

export function buildOpcodeTable(defs: readonly Def[]): OpcodeTable {
  const entries = defs.flatMap((def) => def.enc.map((text) => parseEncoding(def, text)));
  const legacy: Entry[][] = Array.from({ length: 1024 }, () => []);
  const vex: Entry[][] = Array.from({ length: 1024 }, () => []);
  for (const entry of entries) {
    const tables = entry.vex ? vex : legacy;
    for (let low = 0; low < (entry.plus ? 8 : 1); low++)
      (tables[entry.map * 256 + entry.opcode + low] as Entry[]).push(entry);
  }
  for (const list of [...legacy, ...vex]) {
    const rank = (entry: Entry): number =>
      SPECIFICITY[entry.prefix] * 4 + (entry.exact !== undefined ? 0 : entry.form !== 'any' ? 1 : 2);
    list.sort((a, b) => rank(a) - rank(b));
  }
  return { legacy, vex, entries };
}
