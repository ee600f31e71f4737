/**
 * Small guest programs at L1 of a TD: from the reset vector to 64-bit mode, with an interrupt table whose handlers note what came.
 * Results are u64 words in private memory, which a test reads as ground truth.
 */
import { TDG } from '../src/abi/tdx/leaves.ts';
import { TDVMCALL } from '../src/abi/tdx/ghci.ts';
import { CONFIG_FLAG, TD_ATTRIBUTE } from '../src/abi/tdx/td-params.ts';
import { DEFAULT_CONFIG } from '../src/host/config.ts';
import type { TdConfig, TdxHostConfig } from '../src/host/tdx/state.ts';
import type { Directive, PagesDirective } from '../src/launch/directives.ts';
import { initEntry } from '../src/launch/entry-state.ts';
import { identityPageTables } from '../src/launch/page-tables.ts';
import { RESET_PAGE } from '../src/launch/tdx/layout.ts';
import { Machine, type EngineKind, type Platform, type StopReason } from '../src/machine/machine.ts';
import { tdxPlatform } from '../src/machine/tdx-platform.ts';
import type { L1Program } from '../src/seats/program.ts';
import { tdxSilicon } from '../src/silicon/tdx/silicon.ts';
import { findCpuModel, xcr0Allowed, type CpuModel } from '../src/x86/cpuid.ts';
import * as asm from './asm.ts';
import { Assembler, at, eax, ecx, rax, rcx, rdx, rsp, r8, r9, r10, r11, r12, r13 } from './asm.ts';

export const MIB = 1 << 20;
export const MEMORY = 16 * MIB;
/** Where things lie; everything below FREE is added at launch. */
export const AT = {
  tables: 0x4000,
  idt: 0xb000,
  /** The same descriptors as L1's, for an L2 VM. */
  gdt: 0xc100,
  stack: 0xf000,
  code: 0x1_0000,
  results: 0x2_0000,
  /** What the handlers note: u64 words, see NOTE. */
  notes: 0x2_1000,
  scratch: 0x2_2000,
  /** 2 MiB boundary: memory that nobody has added. */
  free: 4 * MIB,
} as const;
const ADDED_END = 0x3_0000;

/** Words at AT.notes. */
export const NOTE = {
  /** Number of #VEs, and RAX RCX RDX R8 R9 R10 of the last TDG.VP.VEINFO.GET. */
  ve: 0,
  veInfo: 8,
  /** Number of #GPs, last error code. */
  gp: 0x40,
  gpError: 0x48,
  ud: 0x50,
  df: 0x58,
  pf: 0x60,
  pfError: 0x68,
  pfAddress: 0x70,
  /** Where #GP, #UD and #PF handlers go on. */
  resume: 0x78,
  /** Non-zero: the #VE handler does not fetch the information and goes on at `resume`. */
  keepVe: 0x80,
  interrupts: 0x88,
  nmi: 0x90,
} as const;

export interface TdGuest {
  readonly a: Assembler;
  /** TDCALL with these registers; RAX RCX RDX R8 R9 R10 R11 go to result words from `slot` on. */
  tdcall(leaf: number | bigint, operands: Partial<Record<Operand, bigint>>, slot: number): void;
  /** Stores a register or a constant in a result word. */
  result(slot: number, value: asm.Reg | bigint): void;
  /** Copies a word of AT.notes to a result word. */
  note(note: number, slot: number): void;
  /** The instruction that follows may fault; execution goes on behind it, at the label. */
  guarded(label: string, instruction: () => void): void;
  /** Ends the run. */
  end(): void;
}

export type Operand = 'rcx' | 'rdx' | 'rbx' | 'r8' | 'r9' | 'r10' | 'r11' | 'r12' | 'r13' | 'r14' | 'r15';
const REGISTERS: Readonly<Record<Operand, asm.Reg>> = {
  rcx,
  rdx,
  rbx: asm.rbx,
  r8,
  r9,
  r10,
  r11,
  r12,
  r13,
  r14: asm.r14,
  r15: asm.r15,
};

export const TDCALL_BYTES = [0x66, 0x0f, 0x01, 0xcc] as const;

export interface TdOptions {
  readonly vcpus?: number;
  readonly td?: Partial<TdConfig>;
  readonly l2Vms?: number;
  readonly l1?: L1Program;
  /** Stands between the machine and its host. */
  readonly platform?: (platform: Platform) => Platform;
  readonly budget?: number;
  readonly seed?: bigint;
  readonly frameOrder?: (count: number) => Uint32Array;
  readonly engine?: EngineKind;
}

export const ENGINES: readonly EngineKind[] = ['translator', 'interpreter'];

export interface TdRun {
  readonly machine: Machine;
  readonly reason: StopReason;
  /** Result word `slot`. */
  word(slot: number): bigint;
  note(offset: number): bigint;
  /** Text of what ended it. */
  readonly message: string;
}

/** Null, unused, 64-bit code, data, 32-bit code; data and 64-bit code of CPL 3. */
const GDT = [
  0n,
  0n,
  0x00af_9b00_0000_ffffn,
  0x00cf_9300_0000_ffffn,
  0x00cf_9b00_0000_ffffn,
  0x00cf_f300_0000_ffffn,
  0x00af_fb00_0000_ffffn,
];
export const CODE32 = 0x20;
export const USER = { data: 0x2b, code: 0x33 } as const;
const GATES = 256;

/** A program that runs in 64-bit mode at CPL 0, interrupts off. `write` emits it. */
export function tdPages(write: (guest: TdGuest) => void): PagesDirective[] {
  const reset = new Assembler(RESET_PAGE);
  reset.bits(32);
  reset.label('start32');
  reset.lgdt(at({ disp: 'gdtr' }));
  reset.movFromControl(eax, 4);
  reset.alu('or', eax, 0x20);
  reset.movToControl(4, eax);
  reset.mov(eax, AT.tables);
  reset.movToControl(3, eax);
  reset.movFromControl(eax, 0);
  reset.alu('or', eax, 0x8000_0000 | 0);
  reset.movToControl(0, eax);
  reset.jmpFar(0x10, 'start64');
  reset.bits(64);
  reset.label('start64');
  reset.mov(eax, 0x18);
  for (const segment of [0, 2, 3]) reset.movToSegment(segment, eax);
  reset.mov(rsp, AT.stack);
  reset.mov(rax, AT.idt + GATES * 16);
  reset.db(0x0f, 0x01, 0x18); // lidt [rax]
  reset.mov(rax, AT.code);
  reset.jmp(rax);
  reset.align(16);
  reset.label('gdt');
  reset.dq(...GDT);
  reset.label('gdtr');
  reset.dw(GDT.length * 8 - 1);
  reset.dd('gdt');
  reset.zeros(RESET_PAGE + 0xff0 - reset.here);
  reset.bits(32);
  reset.jmp('start32');
  reset.zeros(RESET_PAGE + 4096 - reset.here);

  const a = new Assembler(AT.code);
  a.bits(64);
  let labels = 0;
  const word = (base: number, offset: number): asm.Mem => at({ disp: base + offset });
  const guest: TdGuest = {
    a,
    tdcall(leaf, operands, slot) {
      for (const [name, value] of Object.entries(operands)) a.movabs(REGISTERS[name as Operand], value);
      a.movabs(rax, BigInt(leaf));
      a.db(...TDCALL_BYTES);
      for (const [k, register] of [rax, rcx, rdx, r8, r9, r10, r11].entries())
        a.mov(word(AT.results, (slot + k) * 8), register);
    },
    result(slot, value) {
      if (typeof value === 'bigint') {
        a.movabs(rax, value);
        a.mov(word(AT.results, slot * 8), rax);
      } else a.mov(word(AT.results, slot * 8), value);
    },
    note(note, slot) {
      a.mov(rax, word(AT.notes, note));
      a.mov(word(AT.results, slot * 8), rax);
    },
    guarded(label, instruction) {
      a.mov(eax, label);
      a.mov(word(AT.notes, NOTE.resume), rax);
      instruction();
      a.label(label);
    },
    end() {
      a.label(`end${labels}`);
      a.movabs(r10, 0n);
      a.movabs(r11, BigInt(TDVMCALL.reportFatalError));
      a.movabs(r12, 0n);
      a.mov(ecx, 0xfcc4 & ~0x20);
      a.mov(eax, TDG.vpVmcall);
      a.db(...TDCALL_BYTES);
      a.jmp(`end${labels++}`);
    },
  };
  write(guest);
  guest.end();
  writeHandlers(a, word);
  const code = a.finish();

  const idt = new Uint8Array(AT.gdt + GDT.length * 8 - AT.idt);
  const view = new DataView(idt.buffer);
  for (let vector = 0; vector < GATES; vector++) {
    const target = BigInt(a.address(HANDLERS.get(vector) ?? (vector < 32 ? 'other' : 'interrupt')));
    view.setBigUint64(
      vector * 16,
      (target & 0xffffn) | (0x10n << 16n) | (0x8e00n << 32n) | ((target & 0xffff_0000n) << 32n),
      true,
    );
    view.setBigUint64(vector * 16 + 8, target >> 32n, true);
  }
  view.setUint16(GATES * 16, GATES * 16 - 1, true);
  view.setBigUint64(GATES * 16 + 2, BigInt(AT.idt), true);
  for (const [k, descriptor] of GDT.entries()) view.setBigUint64(AT.gdt - AT.idt + k * 8, descriptor, true);
  const page = (gpa: number, data: Uint8Array, length = 4096): PagesDirective => ({
    kind: 'pages',
    gpa,
    length: Math.max(length, Math.ceil(data.length / 4096) * 4096),
    type: 'normal',
    measured: true,
    name: 'program',
    data,
  });
  return [
    page(0, new Uint8Array(0), AT.tables),
    page(AT.tables, identityPageTables(AT.tables, 4 * 1024 * MIB)),
    page(AT.tables + 0x6000, new Uint8Array(0), AT.idt - AT.tables - 0x6000),
    page(AT.idt, idt, 0x2000),
    page(AT.idt + 0x2000, new Uint8Array(0), AT.code - AT.idt - 0x2000),
    page(AT.code, code, AT.results - AT.code),
    page(AT.results, new Uint8Array(0), ADDED_END - AT.results),
    page(RESET_PAGE, reset.finish()),
  ];
}

const HANDLERS: ReadonlyMap<number, string> = new Map([
  [2, 'nmi'],
  [6, 'ud'],
  [8, 'df'],
  [13, 'gp'],
  [14, 'pf'],
  [20, 've'],
]);

function writeHandlers(a: Assembler, word: (base: number, offset: number) => asm.Mem): void {
  const iretq = (): void => a.db(0x48, 0xcf);
  const count = (note: number): void => {
    a.mov(rax, word(AT.notes, note));
    a.inc(rax);
    a.mov(word(AT.notes, note), rax);
  };
  const resume = (): void => {
    a.mov(rax, word(AT.notes, NOTE.resume));
    a.mov(at({ base: rsp }), rax);
  };
  a.label('ve');
  a.mov(rax, word(AT.notes, NOTE.keepVe));
  a.test(rax, rax);
  a.jcc('ne', 'keep');
  for (const register of [rcx, rdx, r8, r9, r10]) a.push(register);
  a.mov(eax, TDG.vpVeinfoGet);
  a.db(...TDCALL_BYTES);
  for (const [k, register] of [rax, rcx, rdx, r8, r9, r10].entries())
    a.mov(word(AT.notes, NOTE.veInfo + k * 8), register);
  // Goes on behind the instruction.
  a.mov(rax, r10);
  a.mov(ecx, eax);
  a.alu('add', at({ base: rsp, disp: 40 }), rcx);
  for (const register of [r10, r9, r8, rdx, rcx]) a.pop(register);
  count(NOTE.ve);
  iretq();
  a.label('keep');
  count(NOTE.ve);
  resume();
  iretq();
  a.label('gp');
  a.pop(rax);
  a.mov(word(AT.notes, NOTE.gpError), rax);
  count(NOTE.gp);
  resume();
  iretq();
  a.label('pf');
  a.pop(rax);
  a.mov(word(AT.notes, NOTE.pfError), rax);
  a.movFromControl(rax, 2);
  a.mov(word(AT.notes, NOTE.pfAddress), rax);
  count(NOTE.pf);
  resume();
  iretq();
  a.label('ud');
  count(NOTE.ud);
  resume();
  iretq();
  a.label('nmi');
  a.push(rax);
  count(NOTE.nmi);
  a.pop(rax);
  iretq();
  a.label('interrupt');
  a.push(rax);
  a.push(rcx);
  a.push(rdx);
  count(NOTE.interrupts);
  // EOI.
  a.mov(ecx, 0x80b);
  a.alu('xor', eax, eax);
  a.alu('xor', asm.edx, asm.edx);
  a.wrmsr();
  a.pop(rdx);
  a.pop(rcx);
  a.pop(rax);
  iretq();
  a.label('df');
  a.pop(rax);
  count(NOTE.df);
  resume();
  iretq();
  a.label('other');
  a.jmp('other');
}

export const tdConfig = (options: TdOptions = {}): TdxHostConfig => ({
  ...DEFAULT_CONFIG,
  vendor: 'intel',
  physicalAddressBits: 52,
  vpCount: options.vcpus ?? 1,
  x2apic: true,
  x2apicLocked: true,
  td: {
    attributes: TD_ATTRIBUTE.septVeDisable,
    xfam: BigInt(xcr0Allowed(tdModel())),
    numL2Vms: options.l2Vms ?? 0,
    configFlags: CONFIG_FLAG.noRbpMod,
    mrConfigId: new Uint8Array(48),
    mrOwner: new Uint8Array(48),
    mrOwnerConfig: new Uint8Array(48),
    launchParameter: 0,
    ...options.td,
  },
});

export const tdModel = (): CpuModel => findCpuModel('SapphireRapids') as CpuModel;

export function tdDirectives(pages: readonly PagesDirective[]): Directive[] {
  return [
    { kind: 'region', gpa: 0, length: MEMORY, backing: 'ram' },
    { kind: 'region', gpa: RESET_PAGE, length: 4096, backing: 'ram' },
    ...pages,
  ];
}

/** A machine with the program in it; the host has built the TD. */
export function tdMachine(pages: readonly PagesDirective[], options: TdOptions = {}): Machine {
  const model = tdModel();
  const config = tdConfig(options);
  const machine = new Machine({
    model,
    vcpus: config.vpCount,
    seed: options.seed ?? 1n,
    tscHz: config.tscHz,
    tscAtZero: 0n,
    directives: tdDirectives(pages),
    sink: { mask: 0, emit: () => undefined },
    initRegisters: initEntry(model.signature),
    ...(options.frameOrder === undefined ? {} : { frameOrder: options.frameOrder }),
    ...(options.engine === undefined ? {} : { engine: options.engine }),
    silicon: tdxSilicon({
      l2Vms: options.l2Vms ?? 0,
      ...(options.l1 === undefined ? {} : { l1: options.l1 }),
    }),
  });
  const platform = tdxPlatform(config);
  machine.attach(options.platform?.(platform) ?? platform);
  const refused = machine.launch();
  if (refused !== undefined) throw new Error(refused);
  return machine;
}

export function runTd(write: (guest: TdGuest) => void, options: TdOptions = {}): TdRun {
  const machine = tdMachine(tdPages(write), options);
  return finishTd(machine, options.budget ?? 2_000_000);
}

export function finishTd(machine: Machine, budget: number): TdRun {
  const reason = machine.run(budget);
  const words = (gpa: number): bigint => {
    const bytes = machine.truth.read(gpa, 8);
    return bytes === undefined ? -1n : new DataView(bytes.buffer).getBigUint64(0, true);
  };
  const bytes = reason.kind === 'crash' ? reason.message : undefined;
  return {
    machine,
    reason,
    word: (slot) => words(AT.results + slot * 8),
    note: (offset) => words(AT.notes + offset),
    message: bytes === undefined ? '' : new TextDecoder('latin1').decode(bytes),
  };
}
