/**
 * Small guest programs at VMPL0 of an SNP guest: 64-bit mode from the first instruction, page tables with the C-bit, an
 * interrupt table whose handlers note what came. Results are u64 words in private memory, read by tests as ground truth.
 */
import { DEFAULT_CONFIG, type HostConfig } from '../src/host/config.ts';
import type { Directive, PagesDirective, PageType } from '../src/launch/directives.ts';
import { initEntry, longModeEntry } from '../src/launch/entry-state.ts';
import { identityPageTables } from '../src/launch/page-tables.ts';
import { vmsaPage } from '../src/launch/vmsa-page.ts';
import { hypervPlatform } from '../src/machine/hyperv-platform.ts';
import { Machine, type EngineKind, type Platform, type StopReason } from '../src/machine/machine.ts';
import { SEV_FEATURE } from '../src/abi/snp/vmsa.ts';
import type { EventSink } from '../src/seats/events.ts';
import type { Exit } from '../src/seats/exits.ts';
import type { SnpHostView, Vmcb } from '../src/seats/snp.ts';
import type { Vmpl0Program } from '../src/seats/program.ts';
import { snpSilicon } from '../src/silicon/snp/silicon.ts';
import { findCpuModel, type CpuModel } from '../src/x86/cpuid.ts';
import * as asm from './asm.ts';
import { Assembler, at, eax, ecx, edx, rax, rcx, rdx } from './asm.ts';
import type { HostState } from '../src/host/state.ts';

export const MIB = 1 << 20;
export const MEMORY = 16 * MIB;
export const C_BIT = 1n << 51n;
/** Where things lie. */
export const AT = {
  gdt: 0x1000,
  tables: 0x4000,
  idt: 0xb000,
  stack: 0xf000,
  code: 0x1_0000,
  results: 0x2_0000,
  notes: 0x2_1000,
  scratch: 0x2_2000,
  vmsa: 0x2_3000,
  /** A page for the VMSA of another VMPL, or of an application processor. */
  otherVmsa: 0x2_4000,
  /** Assigned by the host and not validated: blocks of 2 MiB. */
  free: 4 * MIB,
  /** Validated, as blocks of 2 MiB. */
  blocks: 8 * MIB,
  /** The host's: shared. */
  shared: 12 * MIB,
} as const;
/** Linear addresses that the guest maps as it likes: slots of 2 MiB. */
export const LINEAR = 0x4000_0000;

/** Words at AT.notes. */
export const NOTE = {
  /** For each vector from 0 to 31: count, error code. */
  count: 0,
  error: 0x100,
  cr2: 0x200,
  /** Where handlers go on. */
  resume: 0x208,
  /** External interrupts: how many, and the last vector + 1. */
  interrupts: 0x210,
} as const;

const GHCB_MSR = 0xc001_0130;
const WITH_ERROR: readonly number[] = [8, 10, 11, 12, 13, 14, 17, 29];
const GATES = 256;

export interface SnpGuest {
  readonly a: Assembler;
  result(slot: number, value: asm.Reg | bigint): void;
  note(offset: number, slot: number): void;
  /** The instruction may fault or be reflected; execution goes on behind it. */
  guarded(label: string, instruction: () => void): void;
  load(address: bigint): void;
  store(address: bigint, value: bigint): void;
  /** Maps a slot of LINEAR to 2 MiB of physical addresses, C-bit as given. */
  mapAt(slot: number, physical: bigint): void;
  /** EAX and CF (bit 32) to a result word. */
  pvalidate(address: bigint, large: boolean, validate: boolean, slot: number): void;
  rmpadjust(address: bigint, large: boolean, rdx: bigint, slot: number): void;
  wrmsr(index: number, value: bigint): void;
  rdmsr(index: number, slot: number): void;
  vmgexit(): void;
  /** Lets the lower VMPL use everything below the VMSAs, but for what comes later. */
  grantLower(): void;
  /** Asks the host to make a page shared or private, by the MSR protocol. */
  pageState(gpa: bigint, operation: 1 | 2): void;
  end(): void;
}

export const linear = (slot: number, offset = 0): bigint => BigInt(LINEAR + slot * 0x20_0000 + offset);

function guestCode(
  write: (guest: SnpGuest) => void,
  lower: ((guest: SnpGuest) => void) | undefined,
  lowerVmpl: number,
): { code: Uint8Array; idt: Uint8Array; lowerEntry: number } {
  const a = new Assembler(AT.code);
  a.bits(64);
  a.mov(asm.rsp, AT.stack);
  a.mov(rax, AT.idt + GATES * 16);
  a.db(0x0f, 0x01, 0x18); // lidt [rax]
  const word = (address: number): asm.Mem => at({ disp: address });
  const guest: SnpGuest = {
    a,
    result(slot, value) {
      if (typeof value === 'bigint') {
        a.movabs(rax, value);
        a.mov(word(AT.results + slot * 8), rax);
      } else a.mov(word(AT.results + slot * 8), value);
    },
    note(offset, slot) {
      a.mov(rax, word(AT.notes + offset));
      a.mov(word(AT.results + slot * 8), rax);
    },
    guarded(label, instruction) {
      a.mov(eax, label);
      a.mov(word(AT.notes + NOTE.resume), rax);
      instruction();
      a.label(label);
    },
    load(address) {
      a.movabs(asm.rbx, address);
      a.mov(rax, at({ base: asm.rbx }));
    },
    store(address, value) {
      a.movabs(asm.rbx, address);
      a.movabs(rax, value);
      a.mov(at({ base: asm.rbx }), rax);
    },
    mapAt(slot, physical) {
      guest.store(BigInt(AT.tables + 0x3000 + slot * 8), physical | 0xe3n);
      a.movFromControl(rax, 3);
      a.movToControl(3, rax);
    },
    pvalidate(address, large, validate, slot) {
      a.movabs(rax, address);
      a.mov(ecx, large ? 1 : 0);
      a.mov(edx, validate ? 1 : 0);
      a.db(0xf2, 0x0f, 0x01, 0xff);
      a.mov(asm.rbx, 0);
      a.setcc('b', asm.bl);
      a.mov(word(AT.results + slot * 8), eax);
      a.mov(word(AT.results + slot * 8 + 4), asm.ebx);
    },
    rmpadjust(address, large, rdxValue, slot) {
      a.movabs(rdx, rdxValue);
      a.movabs(rax, address);
      a.mov(rcx, large ? 1 : 0);
      a.db(0xf3, 0x0f, 0x01, 0xfe);
      a.mov(word(AT.results + slot * 8), rax);
    },
    wrmsr(index, value) {
      a.mov(eax, Number(value & 0xffffffffn) | 0);
      a.mov(edx, Number(value >> 32n) | 0);
      a.mov(ecx, index | 0);
      a.db(0x0f, 0x30);
    },
    rdmsr(index, slot) {
      a.mov(ecx, index | 0);
      a.db(0x0f, 0x32);
      a.mov(word(AT.results + slot * 8), eax);
      a.mov(word(AT.results + slot * 8 + 4), edx);
    },
    vmgexit: () => a.db(0xf3, 0x0f, 0x01, 0xd9),
    grantLower() {
      a.mov(asm.r8, 0);
      a.label('grant');
      a.mov(rax, asm.r8);
      a.mov(rcx, 0);
      a.mov(rdx, 0x0f00 | lowerVmpl);
      a.db(0xf3, 0x0f, 0x01, 0xfe);
      a.alu('add', asm.r8, 4096);
      a.alu('cmp', asm.r8, AT.vmsa);
      a.jcc('b', 'grant');
    },
    pageState(gpa, operation) {
      guest.wrmsr(GHCB_MSR, gpa | (BigInt(operation) << 52n) | 0x14n);
      guest.vmgexit();
    },
    end() {
      guest.wrmsr(GHCB_MSR, 0x100n);
      guest.vmgexit();
      a.label(`end${ends++}`);
      a.db(0xf4);
    },
  };
  let ends = 0;
  write(guest);
  guest.end();
  a.label('lower');
  a.mov(asm.rsp, AT.stack - 0x800);
  a.mov(rax, AT.idt + GATES * 16);
  a.db(0x0f, 0x01, 0x18);
  lower?.(guest);
  guest.end();
  // Handlers.
  const gates: string[] = [];
  for (let vector = 0; vector < 32; vector++) {
    const label = `vector${vector}`;
    gates[vector] = label;
    a.label(label);
    const error = WITH_ERROR.includes(vector) ? 8 : 0;
    a.push(rax);
    a.push(rcx);
    if (error !== 0) {
      a.mov(rax, at({ base: asm.rsp, disp: 16 }));
      a.mov(word(AT.notes + NOTE.error + vector * 8), rax);
    }
    a.movFromControl(rax, 2);
    a.mov(word(AT.notes + NOTE.cr2), rax);
    a.mov(rax, word(AT.notes + NOTE.count + vector * 8));
    a.inc(rax);
    a.mov(word(AT.notes + NOTE.count + vector * 8), rax);
    // #HV and NMI come between instructions: they go on where they were.
    if (vector !== 28 && vector !== 2) {
      a.mov(rax, word(AT.notes + NOTE.resume));
      a.mov(at({ base: asm.rsp, disp: 16 + error }), rax);
    }
    a.pop(rcx);
    a.pop(rax);
    if (error !== 0) a.alu('add', asm.rsp, 8);
    a.db(0x48, 0xcf);
  }
  for (let vector = 32; vector < GATES; vector++) {
    const label = `vector${vector}`;
    gates[vector] = label;
    a.label(label);
    a.push(rax);
    a.mov(rax, word(AT.notes + NOTE.interrupts));
    a.alu('and', rax, ~0xffff | 0);
    a.alu('add', rax, 0x1_0000 | (vector + 1));
    a.mov(word(AT.notes + NOTE.interrupts), rax);
    a.pop(rax);
    a.db(0x48, 0xcf);
  }
  const code = a.finish();
  const idt = new Uint8Array(GATES * 16 + 10);
  const view = new DataView(idt.buffer);
  gates.forEach((label, vector) => {
    const target = a.address(label);
    view.setUint16(vector * 16, target & 0xffff, true);
    view.setUint16(vector * 16 + 2, 0x10, true);
    view.setUint16(vector * 16 + 4, 0x8e00, true);
    view.setUint16(vector * 16 + 6, target >>> 16, true);
  });
  view.setUint16(GATES * 16, GATES * 16 - 1, true);
  view.setBigUint64(GATES * 16 + 2, BigInt(AT.idt), true);
  return { code, idt, lowerEntry: a.address('lower') };
}

export interface SnpOptions {
  readonly vcpus?: number;
  /** SEV_FEATURES beside SNP. */
  readonly features?: number;
  /** Changes the VMSA page before the launch. */
  readonly vmsa?: (page: Uint8Array) => void;
  /** Runs at a lower VMPL once the host enters it; VMPL0 calls `grantLower` first. */
  readonly lower?: (guest: SnpGuest) => void;
  /** Otherwise 1. */
  readonly lowerVmpl?: 1 | 2 | 3;
  /** SEV_FEATURES of the lower VMPL beside SNP. */
  readonly lowerFeatures?: number;
  readonly model?: CpuModel;
  /** Of an ordinary TSC when the machine starts. */
  readonly tscAtZero?: bigint;
  /** With vTOM: no C-bit in the tables. */
  readonly virtualTom?: bigint;
  readonly intercepts?: number;
  /** What the host does before it answers this exit; true: it ends the run instead. */
  readonly onExit?: (host: HostHand, exit: Exit, count: number) => boolean | undefined;
  readonly budget?: number;
  readonly seed?: bigint;
  readonly program?: Vmpl0Program;
  readonly engine?: EngineKind;
  readonly sink?: EventSink;
}

/** What a test lets the host do. */
export interface HostHand {
  readonly view: SnpHostView;
  readonly platform: Platform;
  /** VMCB of VP 0. */
  readonly vmcb: Vmcb;
}
const vmcbOf = (platform: Platform): Vmcb | undefined => (platform.state as HostState).snp?.vps[0]?.vmcb;

export interface SnpRun {
  readonly machine: Machine;
  readonly reason: StopReason;
  readonly exits: readonly Exit[];
  word(slot: number): bigint;
  note(offset: number): bigint;
  hand(): HostHand;
}

const ENTRY_CS = 0x10;

export function snpDirectives(write: (guest: SnpGuest) => void, options: SnpOptions = {}): Directive[] {
  const { code, idt, lowerEntry } = guestCode(write, options.lower, options.lowerVmpl ?? 1);
  const encryption = options.virtualTom === undefined ? C_BIT : 0n;
  const page = (
    gpa: number,
    length: number,
    data: Uint8Array = new Uint8Array(0),
    type: PageType = 'normal',
  ): PagesDirective => ({
    kind: 'pages',
    gpa,
    length,
    type,
    measured: true,
    name: 'program',
    data,
  });
  const gdt = new Uint8Array(32);
  const view = new DataView(gdt.buffer);
  view.setBigUint64(ENTRY_CS, 0x00af_9b00_0000_ffffn, true);
  view.setBigUint64(0x18, 0x00cf_9300_0000_ffffn, true);
  const registers = longModeEntry({ rip: AT.code, rsi: 0, cr3: BigInt(AT.tables) | encryption, gdt: AT.gdt });
  const vmsa = vmsaPage(registers, {
    vmpl: 0,
    features: SEV_FEATURE.snp | (options.features ?? 0),
    virtualTom: options.virtualTom ?? 0n,
  });
  options.vmsa?.(vmsa);
  const other =
    options.lower === undefined
      ? page(AT.otherVmsa, 4096, undefined, 'zero')
      : page(
          AT.otherVmsa,
          4096,
          vmsaPage(
            { ...registers, rip: BigInt(lowerEntry) },
            {
              vmpl: options.lowerVmpl ?? 1,
              features: SEV_FEATURE.snp | (options.lowerFeatures ?? 0),
              virtualTom: 0n,
            },
          ),
          'vmsa',
        );
  return [
    { kind: 'region', gpa: 0, length: MEMORY, backing: 'ram' },
    page(0, AT.tables, gdtAt(gdt)),
    page(AT.tables, AT.idt - AT.tables, identityPageTables(AT.tables, 2 * 1024 * MIB, encryption)),
    page(AT.idt, AT.code - AT.idt, idt),
    page(AT.code, AT.results - AT.code, code),
    page(AT.results, AT.vmsa - AT.results),
    page(AT.otherVmsa + 4096, 2 * MIB - AT.otherVmsa - 4096, undefined, 'zero'),
    page(AT.blocks, 4 * MIB, undefined, 'zero'),
    page(AT.shared, 2 * MIB, undefined, 'shared'),
    page(AT.vmsa, 4096, vmsa, 'vmsa'),
    other,
    { kind: 'context', vp: 0, activity: 'running', gpa: AT.vmsa, registers },
  ];
}

function gdtAt(gdt: Uint8Array): Uint8Array {
  const low = new Uint8Array(AT.gdt + gdt.length);
  low.set(gdt, AT.gdt);
  return low;
}

export const snpModel = (): CpuModel => findCpuModel('EPYC-Milan') as CpuModel;
export const snpConfig = (options: SnpOptions = {}): HostConfig => ({
  ...DEFAULT_CONFIG,
  vpCount: options.vcpus ?? 1,
  physicalAddressBits: snpModel().physicalAddressBits,
  isolation: { kind: 'snp', aliasBit: options.virtualTom === undefined ? 0 : 46 },
});

/** A machine at its first instruction, and every exit that its host gets. */
export function snpMachine(
  write: (guest: SnpGuest) => void,
  options: SnpOptions = {},
): { readonly machine: Machine; readonly exits: Exit[]; hand(): HostHand } {
  const directives = snpDirectives(write, options);
  const config = snpConfig(options);
  const exits: Exit[] = [];
  const inner = hypervPlatform(config);
  const hand = (): HostHand => ({
    view: machine.view as SnpHostView,
    platform: inner,
    vmcb: vmcbOf(inner) as Vmcb,
  });
  const platform: Platform = {
    ...inner,
    get state() {
      return inner.state;
    },
    exit(vp, exit, world) {
      exits.push(exit);
      const end = options.onExit?.(hand(), exit, exits.length);
      if (end === true)
        return { completion: { kind: 'done' }, actions: [{ kind: 'terminate', vp, what: 'by the test' }] };
      return inner.exit(vp, exit, world);
    },
  };
  const machine = new Machine({
    model: options.model ?? snpModel(),
    vcpus: config.vpCount,
    seed: options.seed ?? 1n,
    tscHz: config.tscHz,
    tscAtZero: options.tscAtZero ?? 0n,
    directives,
    sink: options.sink ?? { mask: 0, emit: () => undefined },
    initRegisters: initEntry(snpModel().signature),
    ...(options.engine === undefined ? {} : { engine: options.engine }),
    silicon: snpSilicon(options.program === undefined ? {} : { program: options.program }),
  });
  machine.attach(platform);
  const failure = machine.launch();
  if (failure !== undefined) throw new Error(failure);
  const vmcb = vmcbOf(inner);
  if (vmcb !== undefined && options.intercepts !== undefined) vmcb.intercepts |= options.intercepts;
  return { machine, exits, hand };
}

export function runSnp(write: (guest: SnpGuest) => void, options: SnpOptions = {}): SnpRun {
  const { machine, exits, hand } = snpMachine(write, options);
  const reason = machine.run(options.budget ?? 200_000);
  const word = (gpa: number): bigint => {
    const bytes = machine.truth.read(gpa, 8) as Uint8Array;
    return new DataView(bytes.buffer).getBigUint64(0, true);
  };
  return {
    machine,
    reason,
    exits,
    hand,
    word: (slot) => word(AT.results + slot * 8),
    note: (offset) => word(AT.notes + offset),
  };
}
