/**
 * L2 VMCS fields, as TDG.VP.RD and TDG.VP.WR reach them (TDX Module 1.5 TD Partitioning, 354807, "L2 VMCS"): one table. Guest
 * state lives in the CPU structure of the L2 context; controls live in the module.
 *
 * Deviations: the processor behind this module has no exits for INVLPG, CR3 accesses, descriptor-table accesses, RDRAND, RDSEED,
 * PAUSE, XSETBV and XSAVES, and no monitor trap flag: their bits of the execution controls are not writable.
 */
import { FIELD_CLASS, parseFieldId } from '../../abi/tdx/metadata.ts';
import { L2_CTL } from '../../abi/tdx/l2.ts';
import { OPERAND, STATUS } from '../../abi/tdx/status.ts';
import { CPU, GDTR, IDTR, SEG, SHADOW, segField } from '../../x86/layout.ts';
import { EFER } from '../../x86/registers.ts';
import { read64, rflags, setRflags, write64 } from '../vcpu.ts';
import type { LeafOutcome, TdxModule } from './module.ts';
import { nativeInProcessor } from './msr.ts';
import { GPR } from './registers.ts';
import type { L2State, VcpuState } from './state.ts';
import { ended, succeeded, type Caller } from './tdcall.ts';

/** Encodings that other files name. */
export const VMCS = {
  pinControls: 0x4000,
  procControls: 0x4002,
  secondaryControls: 0x401e,
  tertiaryControls: 0x2034,
  exitControls: 0x400c,
  entryControls: 0x4012,
  exceptionBitmap: 0x4004,
  cr0Mask: 0x6000,
  cr4Mask: 0x6002,
  cr0Shadow: 0x6004,
  cr4Shadow: 0x6006,
  entryInterruption: 0x4016,
  entryErrorCode: 0x4018,
  entryLength: 0x401a,
  virtualApic: 0x2012,
  tprThreshold: 0x401c,
  cr0: 0x6800,
  cr4: 0x6804,
  efer: 0x2806,
} as const;

export const PROC = {
  interruptWindow: 1 << 2,
  rdpmc: 1 << 11,
  rdtsc: 1 << 12,
  cr8Load: 1 << 19,
  cr8Store: 1 << 20,
  nmiWindow: 1 << 22,
  drAccess: 1 << 23,
} as const;
export const SECONDARY = { x2apic: 1 << 4, virtualInterrupts: 1 << 9, modeBasedExecute: 1 << 22 } as const;
export const ENTRY_IA32E = 1 << 9;

interface L2Subject {
  readonly module: TdxModule;
  readonly l2: L2State;
  /** CPU structure of the L2 context. */
  readonly cpu: number;
}

interface L2FieldRow {
  readonly encoding: number;
  /** Bits that L1 may write. */
  readonly writable: bigint;
  read(subject: L2Subject): bigint;
  write(subject: L2Subject, value: bigint): void;
}

const ALL = 0xffff_ffff_ffff_ffffn;
const NONE = 0n;

/** A control: kept by the module, from its initial value on. */
function control(encoding: number, initial: bigint, writable: bigint): L2FieldRow {
  return {
    encoding,
    writable,
    read: ({ l2 }) => l2.vmcs[encoding] ?? initial,
    write: ({ l2 }, value) => void (l2.vmcs[encoding] = value),
  };
}

/** Guest state of 64 bits at an offset of the CPU structure. */
function state64(encoding: number, offset: number, writable: bigint = ALL, flush = false): L2FieldRow {
  return {
    encoding,
    writable,
    read: ({ module, cpu }) => read64(module.engine, cpu + offset),
    write: ({ module, l2, cpu }, value) => {
      write64(module.engine, cpu + offset, value);
      if (flush) l2.stale = true;
    },
  };
}
function state32(encoding: number, offset: number, mask = 0xffff_ffffn): L2FieldRow {
  return {
    encoding,
    writable: mask,
    read: ({ module, cpu }) => BigInt(module.engine.view.getUint32(cpu + offset, true)),
    write: ({ module, cpu }, value) => module.engine.view.setUint32(cpu + offset, Number(value & mask), true),
  };
}

/** VMX access rights: L, D/B, G and AVL in bits 15:12; the CPU structure has them in bits 11:8. */
export function toAccessRights(attributes: number): number {
  return (attributes & 0xff) | ((attributes & 0xf00) << 4) | (attributes & 0x10000);
}
function fromAccessRights(rights: number): number {
  return (rights & 0xff) | ((rights >> 4) & 0xf00) | (rights & 0x10000);
}

/** ES CS SS DS FS GS LDTR TR, as the CPU structure counts them. */
const SEGMENTS = [0, 1, 2, 3, 4, 5, 6, 7];

const rows: L2FieldRow[] = [
  control(VMCS.pinControls, 0x29n, NONE),
  control(
    VMCS.procControls,
    0x9122_0088n,
    BigInt(
      PROC.interruptWindow |
        PROC.rdpmc |
        PROC.rdtsc |
        PROC.cr8Load |
        PROC.cr8Store |
        PROC.nmiWindow |
        PROC.drAccess,
    ),
  ),
  control(
    VMCS.secondaryControls,
    0x1338_b3fan,
    BigInt(SECONDARY.virtualInterrupts | SECONDARY.modeBasedExecute),
  ),
  control(VMCS.tertiaryControls, 0x80n, NONE),
  control(VMCS.exitControls, 0x1f3c_8204n, NONE),
  control(VMCS.entryControls, 0x003e_c004n, BigInt(ENTRY_IA32E)),
  // Machine checks are the module's.
  control(VMCS.exceptionBitmap, 1n << 18n, 0xfffb_ffffn),
  control(0x4006, 0n, 0xffff_ffffn),
  control(0x4008, 0n, 0xffff_ffffn),
  control(VMCS.cr0Mask, 0n, ALL),
  control(VMCS.cr4Mask, 0n, ALL),
  control(VMCS.cr0Shadow, 0n, ALL),
  control(VMCS.cr4Shadow, 0n, ALL),
  control(VMCS.entryInterruption, 0n, 0xffff_ffffn),
  control(VMCS.entryErrorCode, 0n, 0xffff_ffffn),
  control(VMCS.entryLength, 0n, 0xfn),
  control(VMCS.tprThreshold, 0n, 0xfn),
  ...[0x201c, 0x201e, 0x2020, 0x2022].map((encoding) => control(encoding, 0n, ALL)),
  control(VMCS.virtualApic, ALL, ALL),
  state64(VMCS.cr0, CPU.cr0, 0x8005_001fn, true),
  state64(0x6802, CPU.cr3, ALL, true),
  {
    // VMXE is set in the real register and means nothing to the guest.
    encoding: VMCS.cr4,
    writable: 0x03ff_1fbfn,
    read: ({ module, cpu }) => read64(module.engine, cpu + CPU.cr4) | 0x2000n,
    write: ({ module, l2, cpu }, value) => {
      write64(module.engine, cpu + CPU.cr4, value & ~0x2000n);
      l2.stale = true;
    },
  },
  state64(VMCS.efer, CPU.efer, BigInt(EFER.SCE | EFER.LME | EFER.LMA), true),
  state64(0x2804, CPU.pat),
  control(0x2802, 0n, 3n),
  state64(0x681a, CPU.dr + 40),
  state64(0x681c, CPU.gpr + 4 * 8),
  state64(0x681e, CPU.rip),
  {
    encoding: 0x6820,
    writable: 0x3f_7fd7n,
    read: ({ module, cpu }) => BigInt(rflags(module.engine, cpu)),
    write: ({ module, cpu }, value) => setRflags(module.engine, cpu, Number(value)),
  },
  control(0x6822, 0n, 0x1_500fn),
  {
    encoding: 0x4824,
    writable: 0xbn,
    read: ({ module, cpu }) => {
      const shadow = module.engine.view.getUint32(cpu + CPU.shadow, true);
      return BigInt((shadow & 3) | (shadow & SHADOW.nmiBlocked ? 8 : 0));
    },
    write: ({ module, cpu }, value) => {
      const bits = Number(value);
      module.engine.view.setUint32(cpu + CPU.shadow, (bits & 3) | (bits & 8 ? SHADOW.nmiBlocked : 0), true);
    },
  },
  control(0x4826, 0n, NONE),
  state32(0x482a, CPU.sysenterCs),
  state64(0x6824, CPU.sysenterEsp),
  state64(0x6826, CPU.sysenterEip),
  ...SEGMENTS.flatMap((n): L2FieldRow[] => [
    state32(0x800 + n * 2, segField(n, SEG.selector), 0xffffn),
    state32(0x4800 + n * 2, segField(n, SEG.limit)),
    {
      encoding: 0x4814 + n * 2,
      writable: 0x1_f0ffn,
      read: ({ module, cpu }) =>
        BigInt(toAccessRights(module.engine.view.getUint32(cpu + segField(n, SEG.attr), true))),
      write: ({ module, cpu }, value) =>
        module.engine.view.setUint32(cpu + segField(n, SEG.attr), fromAccessRights(Number(value)), true),
    },
    state64(0x6806 + n * 2, segField(n, SEG.base)),
  ]),
  state32(0x4810, segField(GDTR, SEG.limit), 0xffffn),
  state32(0x4812, segField(IDTR, SEG.limit), 0xffffn),
  state64(0x6816, segField(GDTR, SEG.base)),
  state64(0x6818, segField(IDTR, SEG.base)),
];

const ROWS: ReadonlyMap<number, L2FieldRow> = new Map(rows.map((row) => [row.encoding, row]));

/** Encodings that L1 can read, for tests. */
export const L2_ENCODINGS: readonly number[] = [...ROWS.keys()];

/** A field as the module itself reads it. */
export function l2Field(module: TdxModule, vcpu: VcpuState, vm: number, encoding: number): bigint {
  const row = ROWS.get(encoding);
  if (row === undefined) throw new RangeError(`there is no L2 VMCS field 0x${encoding.toString(16)}`);
  return row.read(subjectOf(module, vcpu, vm));
}
export function setL2Field(
  module: TdxModule,
  vcpu: VcpuState,
  vm: number,
  encoding: number,
  value: bigint,
): void {
  ROWS.get(encoding)?.write(subjectOf(module, vcpu, vm), value);
}

function subjectOf(module: TdxModule, vcpu: VcpuState, vm: number): L2Subject {
  return { module, l2: vcpu.l2[vm - 1] as L2State, cpu: module.engine.cpu(vcpu.index, vm) };
}

interface Named {
  readonly read: () => bigint;
  readonly writable: bigint;
  /** What is wrong with a value; `undefined`: nothing. */
  readonly check: (value: bigint) => number | undefined;
  readonly write: (value: bigint) => void;
}

const CTLS_CODE = 0x50;
const DEADLINE_CODE = 0x58;

/** The field of an L2 VM that an identifier names; `undefined`: none of them. */
function named(caller: Caller, id: bigint): Named | undefined {
  const { module, vcpu } = caller;
  const parsed = parseFieldId(id);
  if (parsed === undefined) return undefined;
  const exists = (vm: number): boolean => vm >= 1 && vm <= module.td.numL2Vms;
  const valid = (): undefined => undefined;
  const vmcsVm = FIELD_CLASS.l2Vmcs.indexOf(parsed.class as 36 | 44 | 52) + 1;
  if (exists(vmcsVm)) {
    const row = ROWS.get(parsed.code);
    if (row === undefined) return undefined;
    const subject = subjectOf(module, vcpu, vmcsVm);
    return {
      read: () => row.read(subject),
      writable: row.writable,
      check: (value) => checkField(module, row.encoding, value),
      write: (value) => row.write(subject, value),
    };
  }
  const mapVm = FIELD_CLASS.l2MsrBitmap.indexOf(parsed.class as 37 | 45 | 53) + 1;
  if (exists(mapVm) && parsed.code < 512) {
    const l2 = vcpu.l2[mapVm - 1] as L2State;
    const view = new DataView(l2.msrBitmaps.buffer, l2.msrBitmaps.byteOffset);
    return {
      read: () => view.getBigUint64(parsed.code * 8, true),
      writable: ALL,
      check: valid,
      write: (value) => {
        view.setBigUint64(parsed.code * 8, value, true);
        applyMsrBitmap(module, vcpu, mapVm, parsed.code);
      },
    };
  }
  if (parsed.class !== FIELD_CLASS.vcpuManagement) return undefined;
  const ctlsVm = parsed.code - CTLS_CODE;
  if (exists(ctlsVm)) {
    const l2 = vcpu.l2[ctlsVm - 1] as L2State;
    return {
      read: () => l2.ctls,
      writable: L2_CTL.writable,
      check: valid,
      write: (value) => void (l2.ctls = value),
    };
  }
  const deadlineVm = parsed.code - DEADLINE_CODE;
  if (exists(deadlineVm)) {
    const l2 = vcpu.l2[deadlineVm - 1] as L2State;
    return {
      read: () => l2.tscDeadline,
      writable: ALL,
      check: valid,
      write: (value) => void (l2.tscDeadline = value),
    };
  }
  return undefined;
}

/** Fields whose value must make sense when it is written. */
function checkField(module: TdxModule, encoding: number, value: bigint): number | undefined {
  if (encoding === VMCS.virtualApic && !module.isPrivateGpa(value, 4096))
    return STATUS.metadataFieldValueNotValid;
  return undefined;
}

/** `undefined`: not a field of an L2 VM. */
export function readL2Field(caller: Caller): LeafOutcome | undefined {
  const { registers } = caller;
  const field = named(caller, registers.get(GPR.rdx));
  if (field === undefined) return undefined;
  registers.set(GPR.r8, field.read());
  registers.set(GPR.rdx, ALL);
  return succeeded(caller);
}

export function writeL2Field(caller: Caller): LeafOutcome | undefined {
  const { registers } = caller;
  const field = named(caller, registers.get(GPR.rdx));
  if (field === undefined) return undefined;
  const value = registers.get(GPR.r8);
  const mask = registers.get(GPR.r9);
  registers.set(GPR.r8, 0n);
  if (field.writable === 0n) return ended(caller, STATUS.metadataFieldNotWritable, OPERAND.rdx);
  const effective = mask & field.writable;
  if (effective === 0n) return ended(caller, STATUS.metadataWriteMaskNotValid, OPERAND.r9);
  const old = field.read();
  const next = (old & ~effective) | (value & effective);
  const bad = field.check(next);
  if (bad !== undefined) return ended(caller, bad, OPERAND.r8);
  field.write(next);
  registers.set(GPR.r8, old);
  return succeeded(caller);
}

/** Reads low, reads high, writes low, writes high: 1 KiB of L1's bitmaps each. */
const MAP_PARTS = [
  { first: 0, write: 0 },
  { first: 0xc000_0000, write: 0 },
  { first: 0, write: 1 },
  { first: 0xc000_0000, write: 1 },
] as const;

/**
 * Carries 64 bits of L1's MSR bitmaps over to the permission map of the L2 context: a register stays inside the processor when L1
 * lets it and the processor keeps it.
 */
function applyMsrBitmap(module: TdxModule, vcpu: VcpuState, vm: number, qword: number): void {
  const l2 = vcpu.l2[vm - 1] as L2State;
  const part = MAP_PARTS[qword >>> 7] as (typeof MAP_PARTS)[number];
  const map = module.msrMapOf(vcpu.index, vm);
  const { u8 } = module.engine;
  for (let bit = 0; bit < 64; bit++) {
    const offset = (qword & 127) * 64 + bit;
    const index = part.first + offset;
    const intercepted = ((l2.msrBitmaps[qword * 8 + (bit >>> 3)] as number) >>> (bit & 7)) & 1;
    const stays = intercepted === 0 && nativeInProcessor(index, part.write === 1);
    const at = map + (part.first === 0 ? 0 : 0x800) + ((offset * 2 + part.write) >>> 3);
    const mask = 1 << ((offset * 2 + part.write) & 7);
    u8[at] = stays ? (u8[at] as number) & ~mask : (u8[at] as number) | mask;
  }
}

/** Whether L1 wants to see this access; registers that no bitmap covers always go to it. */
export function l1InterceptsMsr(l2: L2State, index: number, write: boolean): boolean {
  const high = index >>> 13 === 0xc000_0000 >>> 13;
  if (!high && index >= 0x2000) return true;
  const offset = index & 0x1fff;
  const at = (write ? 2048 : 0) + (high ? 1024 : 0) + (offset >>> 3);
  return (((l2.msrBitmaps[at] as number) >>> (offset & 7)) & 1) !== 0;
}

/** After a snapshot was loaded, and at first. */
export function applyMsrBitmaps(module: TdxModule, vcpu: VcpuState, vm: number): void {
  for (let qword = 0; qword < 512; qword++) applyMsrBitmap(module, vcpu, vm, qword);
}
