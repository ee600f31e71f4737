/** The engine of `src/x86` as an engine for instruction vectors: paging, user mode, a handler for each exception. */
import { x86Defs, x86Routines } from '../../src/x86/all.ts';
import type { Def } from '../../src/x86/defs/def.ts';
import { findCpuModel } from '../../src/x86/cpuid.ts';
import type { Block } from '../../src/x86/blocks.ts';
import { Engine } from '../../src/x86/engine.ts';
import {
  CPU,
  CS,
  DS,
  ES,
  EXIT,
  FS,
  GDTR,
  GS,
  HEAD,
  IDTR,
  LDTR,
  REC,
  RUN,
  SEG,
  SS,
  TR,
  segField,
} from '../../src/x86/layout.ts';
import { planMemory } from '../../src/x86/memory-plan.ts';
import { CR0, CR4, EFER } from '../../src/x86/registers.ts';
import { routine } from '../../src/x86/runtime/library.ts';
import { i32 } from '../../src/x86/wasm/value.ts';
import type { EngineOutcome, VectorEngine } from './compare.ts';
import {
  CODE_BYTES,
  CODE_SEGMENTS,
  DATA_SEGMENTS,
  FCW,
  FDP,
  FIP,
  FOP,
  FSW,
  FS_BASE,
  FTW,
  GDT_IMAGE,
  GS_BASE,
  LDT_IMAGE,
  MXCSR,
  RFLAGS,
  RIP,
  Rng,
  type Segment,
  ST,
  XMM,
  isRepeated,
  view as viewOf,
} from './state.ts';

const MEMORY = 4 << 20;
const MIB2 = 2 << 20;
/** The first 2 MiB of physical memory, for the supervisor only. */
const KERNEL = 0xffff_8000_0000_0000n;
const GDT = 0x1000;
/** Of Linux. */
const KERNEL_CS = 0x10;
const LDT = 0x1800;
const IDT = 0x2000;
const TSS = 0x3000;
const STACK_TOP = 0x5000;
const HANDLERS = 0x6000;
const TABLES = 0x10000;
const USER = MIB2;

/** What Linux starts a process with: key 0 for all, the other keys for nothing. */
const LINUX_PKRU = 0x55555554;
const HLT = 0xf4;

const STATUS = 0x8d5;
/** Exceptions with an error code in the frame. */
const WITH_ERROR = new Set([8, 10, 11, 12, 13, 14, 17]);

/**
 * `translator` runs what it can as a region; `mixed` gives out budgets of a few instructions, so that it goes in and out of
 * regions.
 */
export type VectorEngineKind = 'interpreter' | 'translator' | 'mixed';

/** Runs after which a block would be translated by itself: more than a case's loops make. */
const NEVER_HOT = 63;

/** `protectionKeys`: whether CR4.PKE is set, as the operating system of the processor that is compared with has it. */
export function createVectorEngine(
  modelName = 'EPYC-Milan',
  defs: readonly Def[] = x86Defs,
  protectionKeys = false,
  kind: VectorEngineKind = 'interpreter',
): VectorEngine {
  const model = findCpuModel(modelName);
  if (model === undefined) throw new Error(`no CPU model ${modelName}`);
  const plan = planMemory(1, 1, MEMORY, 4096);
  const stage = routine('second_stage', ['i32', 'i64', 'i32'], ['i32'], (f) => {
    f.store('64', f.p(0), f.p(1), CPU.stageGpa);
    f.store('32', f.p(0), i32(0), CPU.stageFlags);
    f.return(
      f
        .p(1)
        .wrap()
        .and(i32(MEMORY - 0x1000))
        .add(plan.frames),
    );
    f.unreachable();
  });
  const engine = new Engine({
    defs,
    features: model.features,
    routines: [...x86Routines, stage],
    plan,
    translate: kind !== 'interpreter',
  });
  const { translator } = engine;
  if (translator !== undefined) engine.blocks.heat = NEVER_HOT;
  const cpu = engine.cpu(0);
  const { view, u8 } = engine;
  const host = (physical: number): number => plan.frames + physical;
  const put64 = (physical: number, value: bigint): void => view.setBigUint64(host(physical), value, true);

  for (let vector = 0; vector < 32; vector++) {
    const target = KERNEL + BigInt(HANDLERS + vector * 16);
    // INT3 and INTO have gates that user code may use.
    const gate = vector === 3 || vector === 4 ? 0xee00n : 0x8e00n;
    put64(
      IDT + vector * 16,
      (target & 0xffffn) | (BigInt(KERNEL_CS) << 16n) | (gate << 32n) | (((target >> 16n) & 0xffffn) << 48n),
    );
    put64(IDT + vector * 16 + 8, target >> 32n);
    engine.u8[host(HANDLERS + vector * 16)] = HLT;
  }
  GDT_IMAGE.forEach((entry, i) => put64(GDT + i * 8, entry));
  LDT_IMAGE.forEach((entry, i) => put64(LDT + i * 8, entry));
  put64(TSS + 4, KERNEL + BigInt(STACK_TOP));
  // No I/O permission bitmap inside the limit.
  view.setUint16(host(TSS) + 0x66, 0x68, true);
  // Tables: 0 PML4, then one page for each table as it is needed.
  let nextTable = TABLES + 0x1000;
  const table = (parent: number, index: number): number => {
    const at = parent + index * 8;
    const entry = view.getBigUint64(host(at), true);
    if ((entry & 1n) !== 0n) return Number(entry & 0xffff_f000n);
    const made = nextTable;
    nextTable += 0x1000;
    put64(at, BigInt(made) | 7n);
    return made;
  };
  const kernelPd = table(table(TABLES, 256), 0);
  put64(kernelPd, 0x83n);
  let nextFrame = USER;

  const segment = (index: number, base: bigint, limit: number, attr: number, selector: number): void => {
    view.setBigUint64(cpu + segField(index, SEG.base), base, true);
    view.setUint32(cpu + segField(index, SEG.limit), limit, true);
    view.setUint32(cpu + segField(index, SEG.attr), attr, true);
    view.setUint32(cpu + segField(index, SEG.selector), selector, true);
  };
  const put = (offset: number, value: number): void => view.setUint32(cpu + offset, value, true);
  const word = (offset: number): number => view.getUint32(cpu + offset, true);
  segment(GDTR, KERNEL + BigInt(GDT), 0x7f, 0, 0);
  segment(LDTR, KERNEL + BigInt(LDT), LDT_IMAGE.length * 8 - 1, 0x82, 0x50);
  segment(IDTR, KERNEL + BigInt(IDT), 0xfff, 0, 0);
  segment(TR, KERNEL + BigInt(TSS), 0x67, 0x8b, 0x40);
  put(CPU.efer, EFER.SCE | EFER.LME | EFER.LMA | EFER.NXE);
  put(CPU.vendor, model.vendor === 'amd' ? 0 : 1);
  view.setBigUint64(cpu + CPU.xcr0Allowed, 3n, true);
  view.setBigUint64(cpu + CPU.entropy, 0x1234_5678_9abc_def1n, true);
  view.setBigUint64(cpu + CPU.cr3, BigInt(TABLES), true);
  put(CPU.cr0, (CR0.PE | CR0.MP | CR0.ET | CR0.NE | CR0.WP | CR0.AM | CR0.PG) >>> 0);
  const offered = CR4.PAE | CR4.PGE | CR4.OSFXSR | CR4.OSXMMEXCPT | CR4.UMIP | CR4.FSGSBASE | CR4.OSXSAVE;
  put(CPU.cr4, offered | (protectionKeys ? CR4.PKE : 0));
  put(CPU.xcr0, 3);

  let codeBase = 0;
  let code: Uint8Array = new Uint8Array(0);
  let codeHost = 0;
  let cases = 0;
  let raised: number | undefined;
  /** Host address of the exception's frame; 0 when none was delivered. */
  let frame = 0;
  /** Where the case ended by the breakpoint, or the unmapped page, behind it. */
  let ended: bigint | undefined;
  const rng = new Rng(1);

  const ZERO = [
    CPU.deliver,
    CPU.special,
    CPU.delivering,
    CPU.answers,
    CPU.answersUsed,
    CPU.shadow,
    CPU.pending,
    CPU.fcs,
    CPU.fds,
    CPU.flagKind,
    CPU.cr2,
    CPU.cr2 + 4,
  ];

  /** Of the last run that is counted. */
  let executed = 0;
  const heads = new Map<Block, number>();
  const heatOf = (block: Block): number => view.getUint32(block.record - HEAD.size + HEAD.heat, true);
  const codeBlocks = (): Set<Block> =>
    new Set(
      [0, 1].flatMap((page) => engine.blocks.inFrame((codeHost >>> 12) + page)).filter((b) => !b.stale),
    );

  /** One step of the engine; true when it came to an exception's handler. */
  const step = (budget: number): boolean => {
    let reason = engine.run(cpu, budget, cases);
    while (reason === RUN.exit && word(CPU.raiseVector) !== EXIT.hlt) {
      if (word(CPU.raiseVector) !== EXIT.cpuid)
        throw new Error(`exit ${word(CPU.raiseVector)} from user code`);
      put(CPU.answers, 1);
      reason = engine.run(cpu, budget, cases);
    }
    const rip = view.getBigUint64(cpu + CPU.rip, true);
    const offset = rip - KERNEL - BigInt(HANDLERS);
    if (offset < 0n || offset >= 512n) return false;
    raised = Number(offset >> 4n);
    frame =
      host(Number(view.getBigUint64(cpu + CPU.gpr + 32, true) - KERNEL)) + (WITH_ERROR.has(raised) ? 8 : 0);
    return true;
  };

  /** What an exception of a case that runs freely says: `stop`, or any place behind the first instruction, is its end. */
  const endOf = (start: bigint, stop: number | undefined): bigint | undefined => {
    const rip = view.getBigUint64(frame, true);
    if (raised === 3 && (stop === undefined ? rip - 1n !== start : Number(rip) - 1 === stop)) return rip - 1n;
    const fetch = raised === 14 && (view.getUint32(frame - 8, true) & 0x10) !== 0;
    if (stop === undefined && rip !== start && fetch && view.getBigUint64(cpu + CPU.cr2, true) === rip)
      return rip;
    return undefined;
  };

  const outcome = (): EngineOutcome => {
    if (raised === undefined) return { vector: undefined, errorCode: 0, cr2: 0n };
    return {
      vector: raised,
      errorCode: WITH_ERROR.has(raised) ? view.getUint32(frame - 8, true) : 0,
      cr2: raised === 14 ? view.getBigUint64(cpu + CPU.cr2, true) : 0n,
    };
  };

  return {
    name: `${kind}, ${model.name}`,
    warmUps: kind === 'interpreter' ? 0 : 2,
    translate(start) {
      const mode = word(CPU.mode);
      const at = codeHost + start - codeBase;
      const block = engine.blocks.find(at, mode, start | 0, 0);
      if (block === undefined || translator === undefined) return false;
      const before = translator.counts.regions;
      // The first instruction's region, then what is reached by jumps whose target no region knows.
      translator.hot(block);
      translator.compile();
      const made = translator.counts.regions > before;
      heads.clear();
      for (const other of codeBlocks()) if (heatOf(other) !== 0) translator.hot(other);
      translator.compile();
      for (const other of codeBlocks()) heads.set(other, heatOf(other));
      return made;
    },
    taken() {
      let interpreted = 0;
      for (const block of codeBlocks()) {
        const runs = (heads.get(block) ?? NEVER_HOT) - heatOf(block);
        if (runs > 0) interpreted += runs * (view.getUint32(block.record + REC.after, true) + 1);
      }
      return { executed, interpreted };
    },
    map(address, length, access) {
      const physical = nextFrame;
      nextFrame += length;
      for (let at = 0; at < length; at += 4096) {
        const va = address + at;
        const pt = table(table(table(TABLES, 0), Math.floor(va / 2 ** 30)), Math.floor(va / MIB2) % 512);
        const bits = access === 'write' ? (1n << 63n) | 7n : access === 'read' ? (1n << 63n) | 5n : 5n;
        put64(pt + (Math.floor(va / 4096) % 512) * 8, BigInt(physical + at) | bits);
      }
      engine.tlbFlush(cpu);
      const live = u8.subarray(host(physical), host(physical) + length);
      if (access === 'execute') [codeBase, code, codeHost] = [address, live, host(physical)];
      return live;
    },
    codeChanged(address, length) {
      // Code that keeps changing would not be translated any more.
      if (translator !== undefined) engine.blocks.flush();
      engine.blocks.codeChanged(codeHost + address - codeBase, Math.max(length, 1));
    },
    setState(state, segments) {
      const v = viewOf(state);
      u8.set(state.subarray(0, 128), cpu + CPU.gpr);
      for (let i = 0; i < 16; i++)
        u8.set(state.subarray(XMM + i * 16, XMM + i * 16 + 16), cpu + CPU.xmm + i * 32);
      const fsw = v.getUint16(FSW, true);
      const top = (fsw >> 11) & 7;
      for (let i = 0; i < 8; i++)
        u8.set(state.subarray(ST + i * 16, ST + i * 16 + 16), cpu + CPU.st + ((top + i) & 7) * 16);
      put(CPU.fcw, v.getUint16(FCW, true));
      put(CPU.fsw, fsw & ~0x3800);
      put(CPU.ftop, top);
      put(CPU.ftw, v.getUint8(FTW));
      put(CPU.fop, v.getUint16(FOP, true));
      view.setBigUint64(cpu + CPU.fip, v.getBigUint64(FIP, true), true);
      view.setBigUint64(cpu + CPU.fdp, v.getBigUint64(FDP, true), true);
      put(CPU.mxcsr, v.getUint32(MXCSR, true));
      view.setBigUint64(cpu + CPU.rip, v.getBigUint64(RIP, true), true);
      const rflags = v.getUint32(RFLAGS, true);
      put(CPU.eflags, (rflags & ~STATUS) | 2);
      for (const offset of ZERO) put(offset, 0);
      view.setBigUint64(cpu + CPU.flagR, BigInt(rflags & STATUS), true);
      put(CPU.cpl, 3);
      const load = (register: number, { base, limit, attributes, selector }: Segment): void =>
        segment(register, BigInt(base), limit, attributes, selector);
      load(CS, CODE_SEGMENTS[segments?.cs ?? 0] as Segment);
      load(SS, DATA_SEGMENTS[segments?.ss ?? 1] as Segment);
      load(DS, DATA_SEGMENTS[segments?.ds ?? 0] as Segment);
      load(ES, DATA_SEGMENTS[segments?.es ?? 0] as Segment);
      segment(FS, v.getBigUint64(FS_BASE, true), 0, 0x10000, 0);
      segment(GS, v.getBigUint64(GS_BASE, true), 0, 0x10000, 0);
      // What WRPKRU of the last case changed.
      const initial = protectionKeys ? LINUX_PKRU : 0;
      const keys = word(CPU.pkru) !== initial;
      put(CPU.pkru, initial);
      if (keys || ++cases % 64 === 0) engine.tlbFlush(cpu);
      engine.updateMode(cpu);
      raised = undefined;
      ended = undefined;
      frame = 0;
    },
    run(stop, limit, single): EngineOutcome {
      const start = view.getBigUint64(cpu + CPU.rip, true);
      if (kind !== 'interpreter' && !single) {
        // Mixed: mostly too little for a region, or for the whole of a program.
        const budget = (): number =>
          kind === 'translator' ? 1000 : 1 + rng.below(rng.chance(0.5) ? 40 : 250);
        let left = limit;
        while (left > 0 && !step(budget())) left -= engine.executed(cpu);
        executed = limit - left + engine.executed(cpu);
        if (raised === undefined) return { vector: -1, errorCode: 0, cr2: 0n };
        ended = endOf(start, stop);
        if (ended !== undefined) return { vector: undefined, errorCode: 0, cr2: 0n };
        return outcome();
      }
      const from = Number(start + view.getBigUint64(cpu + segField(CS, SEG.base), true)) - codeBase;
      const repeated = stop === undefined && isRepeated(code.subarray(from, Math.min(from + 15, CODE_BYTES)));
      for (let steps = 0; ; steps++) {
        if (steps > limit) return { vector: -1, errorCode: 0, cr2: 0n };
        if (step(1)) break;
        const rip = view.getBigUint64(cpu + CPU.rip, true);
        if (stop === undefined ? !repeated || rip !== start : Number(rip) === stop) break;
      }
      return outcome();
    },
    getState(state) {
      const v = viewOf(state);
      state.set(u8.subarray(cpu + CPU.gpr, cpu + CPU.gpr + 128), 0);
      if (raised === undefined) {
        v.setBigUint64(RIP, view.getBigUint64(cpu + CPU.rip, true), true);
        v.setUint32(RFLAGS, (word(CPU.eflags) | engine.statusFlags(cpu)) >>> 0, true);
      } else {
        v.setBigUint64(RIP, ended ?? view.getBigUint64(frame, true), true);
        v.setUint32(RFLAGS, view.getUint32(frame + 16, true), true);
        v.setBigUint64(32, view.getBigUint64(frame + 24, true), true);
      }
      v.setBigUint64(FS_BASE, view.getBigUint64(cpu + segField(FS, SEG.base), true), true);
      v.setBigUint64(GS_BASE, view.getBigUint64(cpu + segField(GS, SEG.base), true), true);
      const top = word(CPU.ftop);
      v.setUint16(FCW, word(CPU.fcw), true);
      v.setUint16(FSW, (word(CPU.fsw) & ~0x3800) | (top << 11), true);
      v.setUint8(FTW, word(CPU.ftw));
      v.setUint16(FOP, word(CPU.fop), true);
      v.setBigUint64(FIP, view.getBigUint64(cpu + CPU.fip, true), true);
      v.setBigUint64(FDP, view.getBigUint64(cpu + CPU.fdp, true), true);
      v.setUint32(MXCSR, word(CPU.mxcsr), true);
      for (let i = 0; i < 8; i++) {
        const from = cpu + CPU.st + ((top + i) & 7) * 16;
        state.set(u8.subarray(from, from + 10), ST + i * 16);
      }
      for (let i = 0; i < 16; i++)
        state.set(u8.subarray(cpu + CPU.xmm + i * 32, cpu + CPU.xmm + i * 32 + 16), XMM + i * 16);
    },
  };
}
