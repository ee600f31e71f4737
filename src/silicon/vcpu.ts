/** vCPU state at the boundary: initial registers in, register values out, answers to exits. */
import type { InitialRegisters, SegmentRegister } from '../seats/launch.ts';
import type { Completion, CpuidRegisters, OpenExit } from '../seats/exits.ts';
import type { CpuModel } from '../x86/cpuid.ts';
import { cr4Allowed, nativeCpuid, xcr0Allowed } from '../x86/cpuid.ts';
import type { Engine } from '../x86/engine.ts';
import {
  CPU,
  CS,
  DS,
  ES,
  EXIT,
  FS,
  GDTR,
  GS,
  IDTR,
  LDTR,
  RAISE,
  SEG,
  SS,
  TR,
  VEC,
  segField,
} from '../x86/layout.ts';
import { EFER } from '../x86/registers.ts';
import { HWCR_OFFSET } from '../x86/runtime/system.ts';

const U64 = (1n << 64n) - 1n;

export function write64(engine: Engine, at: number, value: bigint): void {
  engine.view.setBigUint64(at, value & U64, true);
}
export function read64(engine: Engine, at: number): bigint {
  return engine.view.getBigUint64(at, true);
}

export interface VcpuConstants {
  readonly model: CpuModel;
  readonly tscHz: number;
  readonly tscAtZero: bigint;
}

/** Entropy of a virtual processor: its own for each. */
export function vcpuSeed(seed: bigint, vp: number): bigint {
  return (seed ^ (BigInt(vp + 1) * 0x9e3779b97f4a7c15n)) & U64;
}

/** Constants of the model: what CR4, EFER and XCR0 may hold, reserved physical address bits, entropy. */
export function configureVcpu(
  engine: Engine,
  cpu: number,
  { model, tscAtZero, tscHz }: VcpuConstants,
  seed: bigint,
): void {
  write64(engine, cpu + CPU.cr4Allowed, BigInt(cr4Allowed(model) >>> 0));
  write64(
    engine,
    cpu + CPU.eferAllowed,
    BigInt(EFER.SCE | EFER.LME | EFER.LMA | EFER.NXE | (model.vendor === 'amd' ? EFER.FFXSR : 0)),
  );
  write64(engine, cpu + CPU.xcr0Allowed, BigInt(xcr0Allowed(model)));
  const reserved = ((1n << 52n) - 1n) & ~((1n << BigInt(model.physicalAddressBits)) - 1n);
  write64(engine, cpu + CPU.physReserved, reserved);
  // xorshift needs a state that is not zero.
  write64(engine, cpu + CPU.entropy, seed === 0n ? 0x9e3779b97f4a7c15n : seed);
  write64(engine, cpu + CPU.tscOffset, tscAtZero);
  engine.view.setUint32(cpu + CPU.tscMultiplier, Math.round(tscHz / 1e9), true);
  engine.view.setUint32(cpu + CPU.vendor, model.vendor === 'amd' ? 0 : 1, true);
  write64(engine, cpu + CPU.miscEnable, model.vendor === 'intel' ? 0x1n : 0n);
  write64(engine, cpu + HWCR_OFFSET, model.vendor === 'amd' ? HWCR_AFTER_RESET : 0n);
}

/** As firmware leaves it: SMM is locked, the TSC counts at the frequency of P0 (PPR for family 19h, MSRC001_0015). */
const HWCR_AFTER_RESET = 0x0100_0001n;

function setSegment(
  engine: Engine,
  cpu: number,
  index: number,
  { selector, base, limit, attributes }: SegmentRegister,
): void {
  write64(engine, cpu + segField(index, SEG.base), base);
  engine.view.setUint32(cpu + segField(index, SEG.limit), limit >>> 0, true);
  engine.view.setUint32(
    cpu + segField(index, SEG.attr),
    attributes & 0x80 ? attributes : attributes | 0x10000,
    true,
  );
  engine.view.setUint32(cpu + segField(index, SEG.selector), selector, true);
}

export function setRegisters(engine: Engine, cpu: number, r: InitialRegisters): void {
  const { view } = engine;
  for (const [n, value] of r.gprs.entries()) write64(engine, cpu + CPU.gpr + n * 8, value);
  write64(engine, cpu + CPU.rip, r.rip);
  setRflags(engine, cpu, Number(r.rflags & 0xffffffffn));
  for (const [index, segment] of [
    [ES, r.es],
    [CS, r.cs],
    [SS, r.ss],
    [DS, r.ds],
    [FS, r.fs],
    [GS, r.gs],
    [LDTR, r.ldtr],
    [TR, r.tr],
  ] as const) {
    setSegment(engine, cpu, index, segment);
  }
  for (const [index, table] of [
    [GDTR, r.gdtr],
    [IDTR, r.idtr],
  ] as const) {
    write64(engine, cpu + segField(index, SEG.base), table.base);
    view.setUint32(cpu + segField(index, SEG.limit), table.limit, true);
  }
  write64(engine, cpu + CPU.cr0, r.cr0);
  write64(engine, cpu + CPU.cr2, r.cr2);
  write64(engine, cpu + CPU.cr3, r.cr3);
  write64(engine, cpu + CPU.cr4, r.cr4);
  write64(engine, cpu + CPU.efer, r.efer);
  write64(engine, cpu + CPU.xcr0, r.xcr0);
  write64(engine, cpu + CPU.pat, r.pat);
  for (let n = 0; n < 4; n++) write64(engine, cpu + CPU.dr + n * 8, 0n);
  write64(engine, cpu + CPU.dr + 32, r.dr6);
  write64(engine, cpu + CPU.dr + 40, r.dr7);
  view.setUint32(cpu + CPU.mxcsr, r.mxcsr, true);
  view.setUint32(cpu + CPU.fcw, r.fcw, true);
  for (const field of [
    CPU.fsw,
    CPU.ftop,
    CPU.ftw,
    CPU.fop,
    CPU.shadow,
    CPU.special,
    CPU.deliver,
    CPU.delivering,
    CPU.answers,
    CPU.answersUsed,
  ])
    view.setUint32(cpu + field, 0, true);
  write64(engine, cpu + CPU.mtrrDefType, r.mtrrDefType);
  for (const [n, value] of r.mtrrFixed.entries()) write64(engine, cpu + CPU.mtrrFixed + n * 8, value);
  view.setUint32(cpu + CPU.cpl, (view.getUint32(cpu + segField(SS, SEG.attr), true) >> 5) & 3, true);
  engine.tlbFlush(cpu);
  engine.updateMode(cpu);
}

/**
 * Registers of HV_INITIAL_VP_CONTEXT (TLFS, HvCallStartVirtualProcessor; 224 bytes): what it does not name stays as
 * INIT leaves it.
 */
export function startRegisters(context: Uint8Array, init: InitialRegisters): InitialRegisters {
  const view = new DataView(context.buffer, context.byteOffset, context.byteLength);
  const u64 = (at: number): bigint => view.getBigUint64(at, true);
  const segment = (index: number): SegmentRegister => {
    const at = 24 + index * 16;
    const bits = view.getUint16(at + 14, true);
    return {
      base: u64(at),
      limit: view.getUint32(at + 8, true),
      selector: view.getUint16(at + 12, true),
      attributes: (bits & 0xff) | ((bits >> 4) & 0xf00),
    };
  };
  const table = (at: number): { base: bigint; limit: number } => ({
    limit: view.getUint16(at + 6, true),
    base: u64(at + 8),
  });
  const [cs, ds, es, fs, gs, ss, tr, ldtr] = [0, 1, 2, 3, 4, 5, 6, 7].map(segment) as [
    SegmentRegister,
    SegmentRegister,
    SegmentRegister,
    SegmentRegister,
    SegmentRegister,
    SegmentRegister,
    SegmentRegister,
    SegmentRegister,
  ];
  return {
    ...init,
    gprs: init.gprs.map((value, n) => (n === 4 ? u64(8) : value)),
    rip: u64(0),
    rflags: u64(16),
    ...{ cs, ds, es, fs, gs, ss, tr, ldtr },
    idtr: table(152),
    gdtr: table(168),
    efer: u64(184),
    cr0: u64(192),
    cr3: u64(200),
    cr4: u64(208),
    pat: u64(216),
  };
}

export function rflags(engine: Engine, cpu: number): number {
  return (engine.view.getUint32(cpu + CPU.eflags, true) | engine.statusFlags(cpu)) >>> 0;
}
export function setRflags(engine: Engine, cpu: number, value: number): void {
  engine.view.setUint32(cpu + CPU.eflags, ((value & ~0x8d5) | 2) >>> 0, true);
  engine.view.setUint32(cpu + CPU.flagKind, 0, true);
  write64(engine, cpu + CPU.flagR, BigInt(value & 0x8d5));
}

/** The exit that ended a run, as the owner of the vCPU sees it. */
export function readExit(engine: Engine, cpu: number, model: CpuModel): OpenExit {
  const { view } = engine;
  const word = (offset: number): number => view.getUint32(cpu + offset, true);
  const info = word(CPU.raiseInfo);
  const code = word(CPU.raiseVector);
  switch (code) {
    case EXIT.io: {
      const flags = word(CPU.raiseInfo2);
      return {
        kind: 'io',
        port: info,
        size: (flags & 0xff) as 1 | 2 | 4,
        write: (flags & 0x100) !== 0,
        value: word(CPU.raiseInfo3),
      };
    }
    case EXIT.rdmsr:
      return { kind: 'msr', index: info, write: false, lo: 0, hi: 0 };
    case EXIT.wrmsr:
      return {
        kind: 'msr',
        index: info,
        write: true,
        lo: word(CPU.raiseInfo2),
        hi: word(CPU.raiseInfo2 + 4),
      };
    case EXIT.cpuid: {
      const subleaf = word(CPU.raiseInfo2);
      return { kind: 'cpuid', leaf: info, subleaf, native: native(engine, cpu, model, info, subleaf) };
    }
    case EXIT.hlt:
    case EXIT.mwait:
      return { kind: 'hlt' };
    case EXIT.mmioRead:
    case EXIT.mmioWrite:
      return {
        kind: 'mmio',
        gpa: info + word(CPU.raiseInfo + 4) * 0x100000000,
        size: word(CPU.raiseInfo2) as 1 | 2 | 4 | 8,
        write: code === EXIT.mmioWrite,
        lo: word(CPU.raiseInfo3),
        hi: word(CPU.raiseInfo3 + 4),
      };
    case EXIT.vmcall:
    case EXIT.vmmcall:
      return {
        kind: 'hypercall',
        long: (view.getUint32(cpu + CPU.mode, true) & 3) === 2,
        cpl: word(CPU.cpl),
      };
    case EXIT.readCr8:
      return { kind: 'cr8', write: false, value: 0 };
    case EXIT.writeCr8:
      return { kind: 'cr8', write: true, value: info };
    case EXIT.tripleFault:
    case EXIT.nestedPageFault:
      return { kind: 'triple-fault' };
    default:
      throw new Error(`the processor left with exit code ${code}, which nobody handles`);
  }
}

function native(engine: Engine, cpu: number, model: CpuModel, leaf: number, subleaf: number): CpuidRegisters {
  const word = (offset: number): number => engine.view.getUint32(cpu + offset, true);
  return nativeCpuid(model, { cr4: word(CPU.cr4), xcr0: word(CPU.xcr0), xss: word(CPU.xss) }, leaf, subleaf);
}

/** Gives the stopped instruction its answer. It is restarted and uses it. */
export function complete(engine: Engine, cpu: number, completion: Completion): void {
  switch (completion.kind) {
    case 'done':
      pushAnswer(engine, cpu, 0, 0, 0, 0);
      return;
    case 'value':
      pushAnswer(engine, cpu, completion.lo, completion.hi, 0, 0);
      return;
    case 'registers':
      pushAnswer(engine, cpu, completion.eax, completion.ebx, completion.ecx, completion.edx);
      return;
    case 'fault':
      raiseFault(engine, cpu, completion.vector, completion.errorCode);
      return;
    case 'again':
      engine.view.setUint32(cpu + CPU.answers, 0, true);
      return;
    case 'td-enter':
      throw new RangeError('only a TD is entered with registers');
  }
}

/** The result word of a hypercall goes into RAX, or EDX:EAX; the instruction is done. */
export function completeHypercall(
  engine: Engine,
  cpu: number,
  long: boolean,
  { lo, hi }: { readonly lo: number; readonly hi: number },
): void {
  if (long) write64(engine, cpu + CPU.gpr, (BigInt(hi) << 32n) | BigInt(lo));
  else {
    write64(engine, cpu + CPU.gpr, BigInt(lo));
    write64(engine, cpu + CPU.gpr + 16, BigInt(hi));
  }
  complete(engine, cpu, { kind: 'done' });
}

export function pushAnswer(engine: Engine, cpu: number, ...words: readonly number[]): void {
  const { view } = engine;
  const count = view.getUint32(cpu + CPU.answers, true);
  for (const [k, word] of words.entries())
    view.setUint32(cpu + CPU.answer + count * 16 + k * 4, word >>> 0, true);
  view.setUint32(cpu + CPU.answers, count + 1, true);
}

/** An exception of the instruction that stopped. */
export function raiseFault(engine: Engine, cpu: number, vector: number, errorCode?: number): void {
  raise(engine, cpu, RAISE.fault, vector, errorCode);
}

/** An external interrupt or NMI between instructions. */
export function inject(engine: Engine, cpu: number, vector: number): void {
  raise(engine, cpu, RAISE.external, vector);
}

/** Intel SDM vol. 3, table 6-4: 0 benign, 1 contributory, 2 page faults and #VE, 3 double fault. */
export function eventClass(vector: number): 0 | 1 | 2 | 3 {
  if ([0, 10, 11, 12, 13, VEC.VC].includes(vector)) return 1;
  if (vector === VEC.PF || vector === VEC.VE) return 2;
  return vector === VEC.DF ? 3 : 0;
}

function raise(engine: Engine, cpu: number, kind: number, vector: number, errorCode?: number): void {
  const { view } = engine;
  view.setUint32(cpu + CPU.raiseKind, kind, true);
  view.setUint32(cpu + CPU.raiseVector, vector, true);
  view.setUint32(cpu + CPU.raiseHasError, errorCode === undefined ? 0 : 1, true);
  view.setUint32(cpu + CPU.raiseError, errorCode ?? 0, true);
  view.setUint32(cpu + CPU.deliver, 1, true);
  view.setUint32(cpu + CPU.delivering, vector + 1, true);
  view.setUint32(cpu + CPU.deliveringClass, kind === RAISE.fault ? eventClass(vector) : 0, true);
  view.setUint32(cpu + CPU.answers, 0, true);
  view.setUint32(cpu + CPU.answersUsed, 0, true);
}
