/**
 * Registers of the local APIC: byte offsets in the xAPIC page; the x2APIC MSR is 0x800 + offset / 16 (Intel SDM
 * vol. 3, tables 11-1 and 11-6; AMD APM vol. 2, table 16-2).
 */

export const LAPIC = {
  id: 0x20,
  version: 0x30,
  tpr: 0x80,
  apr: 0x90,
  ppr: 0xa0,
  eoi: 0xb0,
  remoteRead: 0xc0,
  ldr: 0xd0,
  dfr: 0xe0,
  svr: 0xf0,
  isr: 0x100,
  tmr: 0x180,
  irr: 0x200,
  esr: 0x280,
  lvtCmci: 0x2f0,
  icrLow: 0x300,
  icrHigh: 0x310,
  lvtTimer: 0x320,
  lvtThermal: 0x330,
  lvtPerformance: 0x340,
  lvtLint0: 0x350,
  lvtLint1: 0x360,
  lvtError: 0x370,
  initialCount: 0x380,
  currentCount: 0x390,
  divide: 0x3e0,
  selfIpi: 0x3f0,
  /** AMD's extended APIC space (APM vol. 2, 16.3.4 ff). */
  extendedFeature: 0x400,
  extendedControl: 0x410,
  specificEoi: 0x420,
  enable: 0x480,
  extendedLvt: 0x500,
} as const;

export const APIC_MSR = {
  base: 0x1b,
  tscDeadline: 0x6e0,
  x2apicFirst: 0x800,
  x2apicLast: 0x8ff,
} as const;

/** IA32_APIC_BASE[31:0]. */
export const APIC_BASE = {
  bsp: 1 << 8,
  x2apic: 1 << 10,
  enable: 1 << 11,
  /** Bits 7:0 and 9. */
  reserved: 0x2ff,
} as const;

/** Local vector table, in the order of its registers from 0x320 on; CMCI is the one that not all parts have. */
export const LVT = {
  timer: 0,
  thermal: 1,
  performance: 2,
  lint0: 3,
  lint1: 4,
  error: 5,
  cmci: 6,
} as const;

export type LvtIndex = (typeof LVT)[keyof typeof LVT];

export const LVT_BIT = {
  deliveryMode: 7 << 8,
  deliveryStatus: 1 << 12,
  polarity: 1 << 13,
  remoteIrr: 1 << 14,
  level: 1 << 15,
  masked: 1 << 16,
  periodic: 1 << 17,
  tscDeadline: 1 << 18,
} as const;

const VECTOR_AND_MASK = 0xff | LVT_BIT.masked;
const WITH_MODE = VECTOR_AND_MASK | LVT_BIT.deliveryMode;
const PIN = WITH_MODE | LVT_BIT.polarity | LVT_BIT.level;

/** Bits that software may write, by LVT index. The timer's mode bits are added where the part has the mode. */
export const LVT_WRITABLE: readonly number[] = [
  VECTOR_AND_MASK | LVT_BIT.periodic,
  WITH_MODE,
  WITH_MODE,
  PIN,
  PIN,
  VECTOR_AND_MASK,
  WITH_MODE,
];

/** Bits that are read-only rather than reserved: a write of 1 changes nothing and never faults. */
export const LVT_READ_ONLY: readonly number[] = [
  LVT_BIT.deliveryStatus,
  LVT_BIT.deliveryStatus,
  LVT_BIT.deliveryStatus,
  LVT_BIT.deliveryStatus | LVT_BIT.remoteIrr,
  LVT_BIT.deliveryStatus | LVT_BIT.remoteIrr,
  LVT_BIT.deliveryStatus,
  LVT_BIT.deliveryStatus,
];

export const SVR = {
  vector: 0xff,
  enable: 1 << 8,
  focusDisabled: 1 << 9,
  suppressEoiBroadcast: 1 << 12,
} as const;

export const ESR = {
  sendIllegalVector: 1 << 5,
  receiveIllegalVector: 1 << 6,
  illegalRegister: 1 << 7,
} as const;

export const ICR = {
  vector: 0xff,
  logical: 1 << 11,
  deliveryStatus: 1 << 12,
  assert: 1 << 14,
  level: 1 << 15,
  shorthand: 3 << 18,
  writable: 0xc_cfff,
} as const;

/** Vectors below this are never interrupts. */
export const FIRST_VECTOR = 16;

/** LVT index of a register offset; -1 when it is none. */
export function lvtOfOffset(offset: number): LvtIndex | -1 {
  if (offset === LAPIC.lvtCmci) return LVT.cmci;
  if (offset < LAPIC.lvtTimer || offset > LAPIC.lvtError || (offset & 0xf) !== 0) return -1;
  return ((offset - LAPIC.lvtTimer) >>> 4) as LvtIndex;
}
