/** Runs single instructions in 64-bit mode on the generated interpreter, without a machine around it: for tests. */
import type { Def, Feature } from './defs/def.ts';
import { Engine } from './engine.ts';
import { CPU, CS, DS, ES, IDTR, SEG, SS, segField, GDTR } from './layout.ts';
import { planMemory } from './memory-plan.ts';
import { CR0, CR4, EFER } from './registers.ts';
import { routine, type Routine } from './runtime/library.ts';
import { i32 } from './wasm/value.ts';

/** Where the code and the data of a case lie (linear and physical). */
export const CODE = 0x100000;
export const DATA = 0x110000;
/** Size of the data area that is shown: two pages. */
export const DATA_BYTES = 8192;
const STACK = 0x120800;
const IDT = 0x130000;
const GDT = 0x132000;
const HANDLERS = 0x140000;

/** General registers in the order of their numbers; `st` are the physical registers: 80 bits in 16 bytes each. */
export interface Registers {
  readonly gpr: bigint[];
  rflags: number;
  readonly xmm: Uint8Array[];
  mxcsr: number;
  readonly st: Uint8Array[];
  fcw: number;
  fsw: number;
  top: number;
  tags: number;
}

export interface Outcome extends Registers {
  /** Vector of the exception that the instruction raised, or -1. */
  readonly vector: number;
  /** Relative to CODE, when there was none. */
  readonly rip: number;
  readonly data: Uint8Array;
}

export function freshRegisters(): Registers {
  return {
    gpr: new Array<bigint>(16).fill(0n),
    rflags: 2,
    xmm: Array.from({ length: 16 }, () => new Uint8Array(16)),
    mxcsr: 0x1f80,
    st: Array.from({ length: 8 }, () => new Uint8Array(16)),
    fcw: 0x37f,
    fsw: 0,
    top: 0,
    tags: 0,
  };
}

/** Frames lie at guest-physical addresses from 0. */
function flatStage(frames: number): Routine {
  return routine('second_stage', ['i32', 'i64', 'i32'], ['i32'], (f) => {
    f.store('64', f.p(0), f.p(1), CPU.stageGpa);
    f.store('32', f.p(0), i32(0), CPU.stageFlags);
    f.return(f.p(1).wrap().and(0x1ff000).add(frames));
    f.unreachable();
  });
}

export class OneInstruction {
  readonly engine: Engine;
  readonly cpu: number;
  /** CR0 and CR4 before each case. */
  cr0 = CR0.PE | CR0.NE | CR0.MP;
  cr4 = CR4.OSFXSR | CR4.OSXMMEXCPT | CR4.PAE | CR4.OSXSAVE;
  xcr0 = 3;

  constructor(defs: readonly Def[], routines: readonly Routine[], features: readonly Feature[]) {
    const plan = planMemory(1, 1, 2 << 20, 4096);
    this.engine = new Engine({
      defs,
      routines: [...routines, flatStage(plan.frames)],
      features: new Set(features),
      plan,
    });
    this.cpu = this.engine.cpu(0);
    const { view, cpu } = this;
    for (let vector = 0; vector < 32; vector++) {
      const gate = this.host(IDT) + vector * 16;
      const target = HANDLERS + vector * 16;
      view.setUint32(gate, (8 << 16) | (target & 0xffff), true);
      view.setUint32(gate + 4, ((target & 0xffff0000) | 0x8e00) >>> 0, true);
    }
    view.setBigUint64(this.host(GDT) + 8, 0x00af9b000000ffffn, true);
    view.setBigUint64(this.host(GDT) + 16, 0x00cf93000000ffffn, true);
    const segment = (index: number, selector: number, attr: number): void => {
      view.setBigUint64(cpu + segField(index, SEG.base), 0n, true);
      view.setUint32(cpu + segField(index, SEG.limit), 0xffffffff, true);
      view.setUint32(cpu + segField(index, SEG.attr), attr, true);
      view.setUint32(cpu + segField(index, SEG.selector), selector, true);
    };
    segment(CS, 8, 0xa9b);
    for (const index of [SS, DS, ES]) segment(index, 16, 0xc93);
    view.setBigUint64(cpu + segField(IDTR, SEG.base), BigInt(IDT), true);
    view.setUint32(cpu + segField(IDTR, SEG.limit), 0xfff, true);
    view.setBigUint64(cpu + segField(GDTR, SEG.base), BigInt(GDT), true);
    view.setUint32(cpu + segField(GDTR, SEG.limit), 0xff, true);
    view.setUint32(cpu + CPU.efer, EFER.LME | EFER.LMA, true);
    view.setBigUint64(cpu + CPU.xcr0Allowed, 0x203n, true);
  }

  get view(): DataView {
    return this.engine.view;
  }
  /** Offset in linear memory of a physical address. */
  host(address: number): number {
    return this.engine.plan.frames + address;
  }

  run(code: readonly number[] | Uint8Array, input: Registers, data: Uint8Array): Outcome {
    const { engine, view, cpu } = this;
    const { u8 } = engine;
    engine.blocks.flush();
    u8.set(code, this.host(CODE));
    u8.set(data, this.host(DATA));
    const put = (offset: number, value: number): void => view.setUint32(cpu + offset, value, true);
    for (const [n, value] of input.gpr.entries()) view.setBigUint64(cpu + CPU.gpr + n * 8, value, true);
    // The stack is the exception frames'.
    if (input.gpr[4] === 0n) view.setBigUint64(cpu + CPU.gpr + 32, BigInt(STACK), true);
    for (let n = 0; n < 16; n++) u8.set(input.xmm[n] as Uint8Array, cpu + CPU.xmm + n * 32);
    for (let n = 0; n < 8; n++) u8.set(input.st[n] as Uint8Array, cpu + CPU.st + n * 16);
    put(CPU.mxcsr, input.mxcsr);
    put(CPU.fcw, input.fcw);
    put(CPU.fsw, input.fsw);
    put(CPU.ftop, input.top);
    put(CPU.ftw, input.tags);
    put(CPU.eflags, (input.rflags & ~0x8d5) | 2);
    put(CPU.flagKind, 0);
    view.setBigUint64(cpu + CPU.flagR, BigInt(input.rflags & 0x8d5), true);
    view.setBigUint64(cpu + CPU.rip, BigInt(CODE), true);
    put(CPU.cr0, this.cr0);
    put(CPU.cr4, this.cr4);
    put(CPU.xcr0, this.xcr0);
    for (const offset of [
      CPU.deliver,
      CPU.special,
      CPU.delivering,
      CPU.answers,
      CPU.answersUsed,
      CPU.shadow,
      CPU.fop,
      CPU.fip,
      CPU.fip + 4,
      CPU.fcs,
      CPU.fdp,
      CPU.fdp + 4,
      CPU.fds,
    ])
      put(offset, 0);
    return this.#step();
  }

  /** Runs another instruction on the state and the data that the last one left. */
  runAgain(code: readonly number[]): Outcome {
    this.engine.blocks.flush();
    this.engine.u8.set(code, this.host(CODE));
    this.view.setBigUint64(this.cpu + CPU.rip, BigInt(CODE), true);
    return this.#step();
  }

  #step(): Outcome {
    const { engine, view, cpu } = this;
    const { u8 } = engine;
    engine.tlbFlush(cpu);
    engine.updateMode(cpu);
    engine.run(cpu, 1, 0);
    const rip = Number(view.getBigUint64(cpu + CPU.rip, true));
    const vector = rip >= HANDLERS ? (rip - HANDLERS) >> 4 : -1;
    const word = (offset: number): number => view.getUint32(cpu + offset, true);
    return {
      vector,
      rip: rip - CODE,
      gpr: Array.from({ length: 16 }, (_, n) => view.getBigUint64(cpu + CPU.gpr + n * 8, true)),
      rflags: (word(CPU.eflags) | engine.statusFlags(cpu)) >>> 0,
      xmm: Array.from({ length: 16 }, (_, n) =>
        u8.slice(cpu + CPU.xmm + n * 32, cpu + CPU.xmm + n * 32 + 16),
      ),
      st: Array.from({ length: 8 }, (_, n) => u8.slice(cpu + CPU.st + n * 16, cpu + CPU.st + n * 16 + 16)),
      mxcsr: word(CPU.mxcsr),
      fcw: word(CPU.fcw),
      fsw: word(CPU.fsw),
      top: word(CPU.ftop),
      tags: word(CPU.ftw),
      data: u8.slice(this.host(DATA), this.host(DATA) + DATA_BYTES),
    };
  }
}
