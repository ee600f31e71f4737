/** The register states in which loaders start a VP. */
import type { ContextDirective, InitialRegisters, SegmentRegister } from './directives.ts';
import { BOOT_CS, BOOT_DS, GDT_LIMIT } from './page-tables.ts';

const FLAT = 0xffff_ffff;
/** Attributes as in `SegmentRegister`: 64-bit code, 32-bit code, flat data, LDT, busy 64/32-bit TSS. */
const CODE64 = 0xa9b;
const CODE32 = 0xc9b;
const DATA = 0xc93;
const REAL_CODE = 0x09b;
const REAL_DATA = 0x093;
const LDT = 0x082;
const TSS = 0x08b;

const CR0_PE = 0x1n;
const CR0_ET = 0x10n;
const CR0_NE = 0x20n;
const CR0_NW = 0x2000_0000n;
const CR0_CD = 0x4000_0000n;
const CR0_PG = 0x8000_0000n;
const CR4_PAE = 0x20n;
const EFER_LONG = 0xd01n; // SCE, LME, LMA, NXE

const MTRR_WB = 0x0606_0606_0606_0606n;
/** Write-back everywhere but in the VGA window: enabled, fixed ranges enabled, default write-back. */
const MTRR = {
  mtrrDefType: 0xc06n,
  mtrrFixed: [MTRR_WB, MTRR_WB, 0n, ...Array.from({ length: 8 }, () => MTRR_WB)],
} as const;

const NO_TABLE = { base: 0n, limit: 0 } as const;

function flat(selector: number, attributes: number): SegmentRegister {
  return { selector, base: 0n, limit: FLAT, attributes };
}

/** What INIT and the launches have in common (Intel SDM vol. 3, table 10-1). */
const COMMON = {
  rflags: 2n,
  ldtr: { selector: 0, base: 0n, limit: 0xffff, attributes: LDT },
  tr: { selector: 0, base: 0n, limit: 0xffff, attributes: TSS },
  cr2: 0n,
  xcr0: 1n,
  pat: 0x0007_0406_0007_0406n,
  dr6: 0xffff_0ff0n,
  dr7: 0x400n,
  mxcsr: 0x1f80,
} as const;

function gprs(values: Partial<Record<'rax' | 'rbx' | 'rdx' | 'rsi', bigint>>): bigint[] {
  const all = Array.from({ length: 16 }, () => 0n);
  all[0] = values.rax ?? 0n;
  all[2] = values.rdx ?? 0n;
  all[3] = values.rbx ?? 0n;
  all[6] = values.rsi ?? 0n;
  return all;
}

/**
 * The 64-bit entry of Linux (boot.rst, "64-bit Boot Protocol"): long mode on identity page tables, interrupts off,
 * RSI = boot_params. No IDT: a fault before the kernel has its own ends the VM.
 */
export function longModeEntry(at: {
  readonly rip: number;
  readonly rsi: number;
  readonly cr3: bigint;
  readonly gdt: number;
}): InitialRegisters {
  const data = flat(BOOT_DS, DATA);
  return {
    ...COMMON,
    ...MTRR,
    gprs: gprs({ rsi: BigInt(at.rsi) }),
    rip: BigInt(at.rip),
    cs: flat(BOOT_CS, CODE64),
    ss: data,
    ds: data,
    es: data,
    fs: data,
    gs: data,
    gdtr: { base: BigInt(at.gdt), limit: GDT_LIMIT },
    idtr: NO_TABLE,
    cr0: CR0_PG | CR0_NE | CR0_ET | CR0_PE,
    cr3: at.cr3,
    cr4: CR4_PAE,
    efer: EFER_LONG,
    fcw: 0x37f,
  };
}

/**
 * Multiboot 0.6.96, 3.2 "Machine state": 32-bit protected mode, flat segments, paging and interrupts off. GDTR and
 * IDTR are invalid there, and are empty here, so that an image which relies on them fails at once.
 */
export function multibootEntry(at: {
  readonly eip: number;
  readonly magic: number;
  readonly info: number;
}): InitialRegisters {
  const data = flat(0x10, DATA);
  return {
    ...COMMON,
    ...MTRR,
    gprs: gprs({ rax: BigInt(at.magic), rbx: BigInt(at.info) }),
    rip: BigInt(at.eip),
    cs: flat(0x8, CODE32),
    ss: data,
    ds: data,
    es: data,
    fs: data,
    gs: data,
    gdtr: NO_TABLE,
    idtr: NO_TABLE,
    cr0: CR0_ET | CR0_PE,
    cr3: 0n,
    cr4: 0n,
    efer: 0n,
    fcw: 0x37f,
  };
}

/** After RESET (AMD APM vol. 2, table 14-1): real mode, at 16 bytes below 4 GiB. EDX has the processor signature. */
export function resetEntry(signature: number): InitialRegisters {
  const data: SegmentRegister = { selector: 0, base: 0n, limit: 0xffff, attributes: REAL_DATA };
  return {
    ...COMMON,
    gprs: gprs({ rdx: BigInt(signature) }),
    rip: 0xfff0n,
    cs: { selector: 0xf000, base: 0xffff_0000n, limit: 0xffff, attributes: REAL_CODE },
    ss: data,
    ds: data,
    es: data,
    fs: data,
    gs: data,
    gdtr: { base: 0n, limit: 0xffff },
    idtr: { base: 0n, limit: 0xffff },
    cr0: CR0_CD | CR0_NW | CR0_ET,
    cr3: 0n,
    cr4: 0n,
    efer: 0n,
    fcw: 0x40,
    mtrrDefType: 0n,
    mtrrFixed: Array.from({ length: 11 }, () => 0n),
  };
}

/**
 * After INIT on a board whose firmware has set the MTRRs of all processors alike: INIT does not touch them. Without
 * them Linux warns of processors with inconsistent settings.
 */
export function initEntry(signature: number): InitialRegisters {
  return { ...resetEntry(signature), ...MTRR };
}

/** Application processors before their SIPI. */
export function parkedFrom1(vpCount: number): ContextDirective[] {
  return Array.from({ length: vpCount - 1 }, (_, i) => ({
    kind: 'context',
    vp: i + 1,
    activity: 'wait-for-sipi',
    registers: initEntry(0),
  }));
}
