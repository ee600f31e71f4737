/**
 * A small x86 assembler for start code and guest programs: enough instructions to write them without an external tool.
 * Encodings: AMD64 Architecture Programmer's Manual, volume 3, appendix A.
 * Branches always take the 32-bit form, so that one pass with fixups is enough.
 */

export type OperandSize = 1 | 2 | 4 | 8;

export interface Reg {
  readonly kind: 'reg';
  readonly n: number;
  readonly size: OperandSize;
}

export interface Xmm {
  readonly kind: 'xmm';
  readonly n: number;
}

/** base + index * scale + disp. A label as `disp` is the label's absolute address. */
export interface Mem {
  readonly kind: 'mem';
  readonly base?: Reg;
  readonly index?: Reg;
  readonly scale: 1 | 2 | 4 | 8;
  readonly disp: number | string;
}

type RegOrMem = Reg | Mem;

const regs = (size: OperandSize): readonly Reg[] =>
  Array.from({ length: 16 }, (_, n) => ({ kind: 'reg', n, size }));
const pick = (all: readonly Reg[], n: number): Reg => all[n] as Reg;

const QWORD = regs(8);
const DWORD = regs(4);
const WORD = regs(2);
const BYTE = regs(1);

export const rax = pick(QWORD, 0);
export const rcx = pick(QWORD, 1);
export const rdx = pick(QWORD, 2);
export const rbx = pick(QWORD, 3);
export const rsp = pick(QWORD, 4);
export const rbp = pick(QWORD, 5);
export const rsi = pick(QWORD, 6);
export const rdi = pick(QWORD, 7);
export const r8 = pick(QWORD, 8);
export const r9 = pick(QWORD, 9);
export const r10 = pick(QWORD, 10);
export const r11 = pick(QWORD, 11);
export const r12 = pick(QWORD, 12);
export const r13 = pick(QWORD, 13);
export const r14 = pick(QWORD, 14);
export const r15 = pick(QWORD, 15);

export const eax = pick(DWORD, 0);
export const ecx = pick(DWORD, 1);
export const edx = pick(DWORD, 2);
export const ebx = pick(DWORD, 3);
export const esp = pick(DWORD, 4);
export const ebp = pick(DWORD, 5);
export const esi = pick(DWORD, 6);
export const edi = pick(DWORD, 7);
export const r8d = pick(DWORD, 8);
export const r9d = pick(DWORD, 9);
export const r10d = pick(DWORD, 10);
export const r11d = pick(DWORD, 11);
export const r12d = pick(DWORD, 12);
export const r13d = pick(DWORD, 13);
export const r14d = pick(DWORD, 14);
export const r15d = pick(DWORD, 15);

export const ax = pick(WORD, 0);
export const dx = pick(WORD, 2);
export const al = pick(BYTE, 0);
export const cl = pick(BYTE, 1);
export const dl = pick(BYTE, 2);
export const bl = pick(BYTE, 3);

export const xmm = (n: number): Xmm => ({ kind: 'xmm', n });

/** A memory operand: `at({ base: rsi, index: rcx, scale: 8, disp: 16 })`. */
export function at(parts: { base?: Reg; index?: Reg; scale?: 1 | 2 | 4 | 8; disp?: number | string }): Mem {
  return { kind: 'mem', scale: 1, disp: 0, ...parts };
}

const ALU = { add: 0, or: 1, adc: 2, sbb: 3, and: 4, sub: 5, xor: 6, cmp: 7 } as const;
const SHIFT = { rol: 0, ror: 1, rcl: 2, rcr: 3, shl: 4, shr: 5, sar: 7 } as const;
const CONDITION = {
  ...{
    o: 0,
    no: 1,
    b: 2,
    ae: 3,
    e: 4,
    ne: 5,
    be: 6,
    a: 7,
    s: 8,
    ns: 9,
    p: 10,
    np: 11,
    l: 12,
    ge: 13,
    le: 14,
    g: 15,
  },
} as const;
/** SSE2 instructions of the form `op xmm, xmm/m128` with the 66 prefix. */
const PACKED = {
  ...{ paddb: 0xfc, paddw: 0xfd, paddd: 0xfe, paddq: 0xd4, psubd: 0xfa, pmuludq: 0xf4, pmullw: 0xd5 },
  ...{ pand: 0xdb, por: 0xeb, pxor: 0xef, punpckldq: 0x62, punpckhdq: 0x6a, pcmpgtd: 0x66, pcmpeqd: 0x76 },
  ...{ addpd: 0x58, mulpd: 0x59 },
} as const;

interface Fixup {
  readonly at: number;
  readonly label: string;
  readonly kind: 'rel32' | 'abs32' | 'abs64';
}

export class Assembler {
  readonly origin: number;
  #bytes: number[] = [];
  #labels = new Map<string, number>();
  #fixups: Fixup[] = [];
  #bits: 16 | 32 | 64 = 32;

  constructor(origin: number) {
    this.origin = origin;
  }

  /** The address of the next byte. */
  get here(): number {
    return this.origin + this.#bytes.length;
  }

  bits(bits: 16 | 32 | 64): void {
    this.#bits = bits;
  }

  label(name: string): void {
    if (this.#labels.has(name)) throw new Error(`assembler: label ${name} is defined twice`);
    this.#labels.set(name, this.here);
  }

  db(...bytes: readonly number[]): void {
    for (const byte of bytes) this.#bytes.push(byte & 0xff);
  }

  dw(...values: readonly number[]): void {
    for (const value of values) this.db(value, value >> 8);
  }

  dd(...values: readonly (number | string)[]): void {
    for (const value of values) {
      if (typeof value === 'string') this.#fix(value, 'abs32');
      else this.db(value, value >> 8, value >> 16, value >> 24);
    }
  }

  dq(...values: readonly (bigint | string)[]): void {
    for (const value of values) {
      if (typeof value === 'string') this.#fix(value, 'abs64');
      else for (let shift = 0n; shift < 64n; shift += 8n) this.db(Number((value >> shift) & 0xffn));
    }
  }

  align(boundary: number, fill = 0): void {
    while (this.here % boundary !== 0) this.db(fill);
  }

  zeros(count: number): void {
    for (let i = 0; i < count; i++) this.#bytes.push(0);
  }

  #fix(label: string, kind: Fixup['kind']): void {
    this.#fixups.push({ at: this.#bytes.length, label, kind });
    for (let i = 0; i < (kind === 'abs64' ? 8 : 4); i++) this.#bytes.push(0);
  }

  #imm(value: number, size: OperandSize): void {
    this.db(value);
    if (size === 1) return;
    this.db(value >> 8);
    if (size === 2) return;
    this.db(value >> 16, value >> 24);
  }

  /** Prefixes, opcode, ModRM, SIB and displacement of one instruction with a register field and an r/m operand. */
  #encode(
    opcode: readonly number[],
    reg: number,
    rm: RegOrMem | Xmm,
    options: { size?: OperandSize; mandatory?: number; byteReg?: Reg | undefined } = {},
  ): void {
    const size = options.size ?? 4;
    if (size === 2 && this.#bits !== 16) this.db(0x66);
    if (size === 4 && this.#bits === 16) this.db(0x66);
    if (this.#bits === 16 && rm.kind === 'mem') this.db(0x67);
    if (options.mandatory !== undefined) this.db(options.mandatory);
    const index = rm.kind === 'mem' ? (rm.index?.n ?? 0) : 0;
    const base = rm.kind === 'mem' ? (rm.base?.n ?? 0) : rm.n;
    let rex = (size === 8 ? 8 : 0) | ((reg >> 3) << 2) | ((index >> 3) << 1) | (base >> 3);
    const high = [options.byteReg, rm.kind === 'reg' && rm.size === 1 ? rm : undefined];
    if (high.some((r) => r !== undefined && r.n >= 4 && r.n < 8)) rex |= 0x40;
    if (rex !== 0) {
      if (this.#bits !== 64) throw new Error('assembler: 64-bit operand outside 64-bit code');
      this.db(0x40 | rex);
    }
    this.db(...opcode);
    const field = (reg & 7) << 3;
    if (rm.kind !== 'mem') {
      this.db(0xc0 | field | (rm.n & 7));
      return;
    }
    this.#memory(field, rm);
  }

  #memory(field: number, mem: Mem): void {
    const { base, index, disp } = mem;
    const scale = { 1: 0, 2: 1, 4: 2, 8: 3 }[mem.scale] << 6;
    if (base === undefined) {
      // Without a base: 32-bit code has a form of its own, which 64-bit code reads as RIP-relative.
      if (index === undefined && this.#bits !== 64) this.db(field | 5);
      else this.db(field | 4, index === undefined ? 0x25 : scale | ((index.n & 7) << 3) | 5);
      if (typeof disp === 'string') this.#fix(disp, 'abs32');
      else this.#imm(disp, 4);
      return;
    }
    const short = typeof disp === 'number' && disp >= -128 && disp <= 127;
    const mod = disp === 0 && (base.n & 7) !== 5 ? 0 : short ? 0x40 : 0x80;
    if (index === undefined && (base.n & 7) !== 4) this.db(mod | field | (base.n & 7));
    else this.db(mod | field | 4, (index === undefined ? 0x20 : scale | ((index.n & 7) << 3)) | (base.n & 7));
    if (mod === 0) return;
    if (typeof disp === 'string') this.#fix(disp, 'abs32');
    else this.#imm(disp, mod === 0x40 ? 1 : 4);
  }

  /** `opcode` for bytes, `opcode + 1` for larger operands: the usual pair. */
  #sized(opcode: number, reg: Reg, rm: RegOrMem): void {
    this.#encode([reg.size === 1 ? opcode : opcode + 1], reg.n, rm, {
      size: reg.size,
      byteReg: reg.size === 1 ? reg : undefined,
    });
  }

  mov(dst: RegOrMem, src: RegOrMem | number | string): void {
    if (typeof src === 'object') {
      if (src.kind === 'reg') this.#sized(0x88, src, dst);
      else if (dst.kind === 'reg') this.#sized(0x8a, dst, src);
      else throw new Error('assembler: mov needs a register');
      return;
    }
    if (dst.kind === 'mem') throw new Error('assembler: use movMem to store an immediate');
    if (typeof src === 'string') {
      if (dst.size !== 4) throw new Error('assembler: a label fits a 32-bit register');
      if (dst.n > 7) this.db(0x41);
      this.db(0xb8 | (dst.n & 7));
      this.#fix(src, 'abs32');
    } else if (dst.size === 8) {
      this.#encode([0xc7], 0, dst, { size: 8 });
      this.#imm(src, 4);
    } else {
      this.#encode([dst.size === 1 ? 0xc6 : 0xc7], 0, dst, { size: dst.size });
      this.#imm(src, dst.size);
    }
  }

  movMem(size: OperandSize, dst: Mem, value: number): void {
    this.#encode([size === 1 ? 0xc6 : 0xc7], 0, dst, { size });
    this.#imm(value, size === 8 ? 4 : size);
  }

  movabs(dst: Reg, value: bigint): void {
    this.db(0x48 | (dst.n >> 3), 0xb8 | (dst.n & 7));
    this.dq(value);
  }

  movzx(dst: Reg, src: RegOrMem, from: 1 | 2): void {
    this.#encode([0x0f, from === 1 ? 0xb6 : 0xb7], dst.n, src, { size: dst.size });
  }

  lea(dst: Reg, src: Mem): void {
    this.#encode([0x8d], dst.n, src, { size: dst.size });
  }

  alu(op: keyof typeof ALU, dst: RegOrMem, src: RegOrMem | number): void {
    const row = ALU[op];
    if (typeof src === 'object') {
      if (src.kind === 'reg') this.#sized(row * 8, src, dst);
      else if (dst.kind === 'reg') this.#sized(row * 8 + 2, dst, src);
      else throw new Error(`assembler: ${op} needs a register`);
      return;
    }
    if (dst.kind === 'mem') throw new Error('assembler: use aluMem with an immediate');
    this.#aluImm(row, dst.size, dst, src);
  }

  aluMem(op: keyof typeof ALU, size: OperandSize, dst: Mem, value: number): void {
    this.#aluImm(ALU[op], size, dst, value);
  }

  #aluImm(row: number, size: OperandSize, dst: RegOrMem, value: number): void {
    const short = value >= -128 && value <= 127;
    this.#encode([size === 1 ? 0x80 : short ? 0x83 : 0x81], row, dst, { size });
    this.#imm(value, size === 1 || short ? 1 : size === 2 ? 2 : 4);
  }

  test(dst: RegOrMem, src: Reg): void {
    this.#sized(0x84, src, dst);
  }

  inc(dst: Reg): void {
    this.#encode([dst.size === 1 ? 0xfe : 0xff], 0, dst, { size: dst.size });
  }

  dec(dst: Reg): void {
    this.#encode([dst.size === 1 ? 0xfe : 0xff], 1, dst, { size: dst.size });
  }

  neg(dst: Reg): void {
    this.#encode([dst.size === 1 ? 0xf6 : 0xf7], 3, dst, { size: dst.size });
  }

  not(dst: Reg): void {
    this.#encode([dst.size === 1 ? 0xf6 : 0xf7], 2, dst, { size: dst.size });
  }

  mul(src: Reg): void {
    this.#encode([0xf7], 4, src, { size: src.size });
  }

  div(src: Reg): void {
    this.#encode([0xf7], 6, src, { size: src.size });
  }

  imul(dst: Reg, src: RegOrMem): void {
    this.#encode([0x0f, 0xaf], dst.n, src, { size: dst.size });
  }

  shift(op: keyof typeof SHIFT, dst: Reg, count: number | 'cl'): void {
    if (count === 'cl') {
      this.#encode([dst.size === 1 ? 0xd2 : 0xd3], SHIFT[op], dst, { size: dst.size });
      return;
    }
    this.#encode([dst.size === 1 ? 0xc0 : 0xc1], SHIFT[op], dst, { size: dst.size });
    this.db(count);
  }

  bswap(dst: Reg): void {
    const rex = (dst.size === 8 ? 8 : 0) | (dst.n >> 3);
    if (rex !== 0) this.db(0x40 | rex);
    this.db(0x0f, 0xc8 | (dst.n & 7));
  }

  push(src: Reg): void {
    if (src.n > 7) this.db(0x41);
    this.db(0x50 | (src.n & 7));
  }

  pop(dst: Reg): void {
    if (dst.n > 7) this.db(0x41);
    this.db(0x58 | (dst.n & 7));
  }

  jmp(target: string | Reg | Mem): void {
    if (typeof target === 'string') {
      this.db(0xe9);
      this.#fix(target, 'rel32');
      return;
    }
    this.#encode([0xff], 4, target);
  }

  call(target: string | Reg | Mem): void {
    if (typeof target === 'string') {
      this.db(0xe8);
      this.#fix(target, 'rel32');
      return;
    }
    this.#encode([0xff], 2, target);
  }

  ret(): void {
    this.db(0xc3);
  }

  jcc(condition: keyof typeof CONDITION, target: string): void {
    this.db(0x0f, 0x80 | CONDITION[condition]);
    this.#fix(target, 'rel32');
  }

  setcc(condition: keyof typeof CONDITION, dst: Reg): void {
    this.#encode([0x0f, 0x90 | CONDITION[condition]], 0, dst, { byteReg: dst });
  }

  cmov(condition: keyof typeof CONDITION, dst: Reg, src: RegOrMem): void {
    this.#encode([0x0f, 0x40 | CONDITION[condition]], dst.n, src, { size: dst.size });
  }

  /** A far jump with a 32-bit offset, in 32-bit code. */
  jmpFar(selector: number, target: string): void {
    this.db(0xea);
    this.#fix(target, 'abs32');
    this.dw(selector);
  }

  movdqu(dst: Xmm | Mem, src: Xmm | Mem): void {
    if (dst.kind === 'xmm') this.#encode([0x0f, 0x6f], dst.n, src, { mandatory: 0xf3 });
    else if (src.kind === 'xmm') this.#encode([0x0f, 0x7f], src.n, dst, { mandatory: 0xf3 });
    else throw new Error('assembler: movdqu needs a register');
  }

  movdqa(dst: Xmm, src: Xmm | Mem): void {
    this.#encode([0x0f, 0x6f], dst.n, src, { mandatory: 0x66 });
  }

  movq(dst: Xmm | Reg, src: Xmm | Reg): void {
    if (dst.kind === 'xmm' && src.kind === 'reg')
      this.#encode([0x0f, 0x6e], dst.n, src, { mandatory: 0x66, size: 8 });
    else if (dst.kind === 'reg' && src.kind === 'xmm')
      this.#encode([0x0f, 0x7e], src.n, dst, { mandatory: 0x66, size: 8 });
    else throw new Error('assembler: movq moves between a general and an XMM register');
  }

  packed(op: keyof typeof PACKED, dst: Xmm, src: Xmm | Mem): void {
    this.#encode([0x0f, PACKED[op]], dst.n, src, { mandatory: 0x66 });
  }

  pshufd(dst: Xmm, src: Xmm, order: number): void {
    this.#encode([0x0f, 0x70], dst.n, src, { mandatory: 0x66 });
    this.db(order);
  }

  /** psrld, pslld, psrlq, psllq by an immediate. */
  packedShift(op: 'psrld' | 'pslld' | 'psrlq' | 'psllq', dst: Xmm, count: number): void {
    const opcode = op.endsWith('d') ? 0x72 : 0x73;
    this.#encode([0x0f, opcode], op.startsWith('psr') ? 2 : 6, dst, { mandatory: 0x66 });
    this.db(count);
  }

  movToControl(index: number, src: Reg): void {
    this.db(0x0f, 0x22, 0xc0 | (index << 3) | src.n);
  }

  movFromControl(dst: Reg, index: number): void {
    this.db(0x0f, 0x20, 0xc0 | (index << 3) | dst.n);
  }

  movToSegment(index: number, src: Reg): void {
    this.db(0x8e, 0xc0 | (index << 3) | src.n);
  }

  lgdt(src: Mem): void {
    this.#encode([0x0f, 0x01], 2, src);
  }

  outDx(src: Reg): void {
    if (src.size === 2) this.db(0x66);
    this.db(src.size === 1 ? 0xee : 0xef);
  }

  inDx(dst: Reg): void {
    if (dst.size === 2) this.db(0x66);
    this.db(dst.size === 1 ? 0xec : 0xed);
  }

  cli(): void {
    this.db(0xfa);
  }

  cld(): void {
    this.db(0xfc);
  }

  hlt(): void {
    this.db(0xf4);
  }

  rdmsr(): void {
    this.db(0x0f, 0x32);
  }

  wrmsr(): void {
    this.db(0x0f, 0x30);
  }

  rep(op: 'movsb' | 'movsq' | 'stosb' | 'stosq'): void {
    this.db(0xf3);
    if (op.endsWith('q')) this.db(0x48);
    this.db({ movsb: 0xa4, movsq: 0xa5, stosb: 0xaa, stosq: 0xab }[op]);
  }

  /** The program, with every label resolved. */
  finish(): Uint8Array {
    const bytes = Uint8Array.from(this.#bytes);
    const view = new DataView(bytes.buffer);
    for (const fixup of this.#fixups) {
      const target = this.#labels.get(fixup.label);
      if (target === undefined) throw new Error(`assembler: label ${fixup.label} is not defined`);
      if (fixup.kind === 'rel32') view.setInt32(fixup.at, target - (this.origin + fixup.at + 4), true);
      else view.setUint32(fixup.at, target, true);
    }
    return bytes;
  }

  address(label: string): number {
    const target = this.#labels.get(label);
    if (target === undefined) throw new Error(`assembler: label ${label} is not defined`);
    return target;
  }
}
