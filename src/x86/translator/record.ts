/** A decoded record as the translator reads it: see REC in layout.ts. */
import { CPU, REC } from '../layout.ts';

/** A register operand by its place in the CPU structure. */
export interface Place {
  readonly file: 'gpr' | 'xmm' | 'mmx';
  readonly index: number;
  /** AH, CH, DH, BH. */
  readonly high: boolean;
}

export class RecordMemory {
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly i32: Int32Array;

  constructor(memory: ArrayBuffer) {
    this.u8 = new Uint8Array(memory);
    this.u16 = new Uint16Array(memory);
    this.i32 = new Int32Array(memory);
  }
}

export class Record {
  readonly address: number;
  readonly #memory: RecordMemory;

  constructor(memory: RecordMemory, address: number) {
    this.#memory = memory;
    this.address = address;
  }

  byte(field: number): number {
    return this.#memory.u8[this.address + field] as number;
  }
  half(field: number): number {
    return this.#memory.u16[(this.address + field) >> 1] as number;
  }
  word(field: number): number {
    return this.#memory.i32[(this.address + field) >> 2] as number;
  }
  long(field: number): bigint {
    return (BigInt(this.word(field + 4)) << 32n) | BigInt(this.word(field) >>> 0);
  }

  place(field: typeof REC.reg | typeof REC.rm | typeof REC.vvvv): Place {
    const offset = this.half(field);
    if (offset >= CPU.xmm) return { file: 'xmm', index: (offset - CPU.xmm) >> 5, high: false };
    if (offset >= CPU.st) return { file: 'mmx', index: (offset - CPU.st) >> 4, high: false };
    return { file: 'gpr', index: (offset - CPU.gpr) >> 3, high: (offset & 7) === 1 };
  }
  /** Number of the base or index register, -1 when there is none. */
  addressRegister(field: typeof REC.base | typeof REC.index): number {
    const offset = this.half(field);
    return offset === CPU.zero ? -1 : (offset - CPU.gpr) >> 3;
  }
}
