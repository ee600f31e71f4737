/** Basic VM-exit reasons and exit qualifications (Intel SDM vol. 3, appendix C and 28.2). */

export const EXIT_REASON = {
  exceptionOrNmi: 0,
  externalInterrupt: 1,
  tripleFault: 2,
  interruptWindow: 7,
  nmiWindow: 8,
  taskSwitch: 9,
  cpuid: 10,
  getsec: 11,
  hlt: 12,
  invd: 13,
  invlpg: 14,
  rdpmc: 15,
  rdtsc: 16,
  vmcall: 18,
  controlRegister: 28,
  debugRegister: 29,
  io: 30,
  rdmsr: 31,
  wrmsr: 32,
  entryFailureState: 33,
  mwait: 36,
  monitor: 39,
  pause: 40,
  machineCheckEntry: 41,
  tprBelowThreshold: 43,
  virtualizedEoi: 45,
  gdtrIdtr: 46,
  ldtrTr: 47,
  eptViolation: 48,
  eptMisconfiguration: 49,
  rdtscp: 51,
  preemptionTimer: 52,
  wbinvd: 54,
  xsetbv: 55,
  apicWrite: 56,
  rdrand: 57,
  invpcid: 58,
  rdseed: 61,
  tdcall: 77,
} as const;

/** VM entry failed (bit 31 of an exit reason). */
export const ENTRY_FAILURE = 0x8000_0000;

export const EPT_QUALIFICATION = {
  read: 1 << 0,
  write: 1 << 1,
  fetch: 1 << 2,
  readable: 1 << 3,
  writable: 1 << 4,
  executable: 1 << 5,
  /** The guest linear address is valid, and the access was to what it translates to (not to a page table). */
  linearValid: 1 << 7,
  linearTranslation: 1 << 8,
} as const;

/** Extended exit qualification of a TD exit on an EPT violation (TDX Module ABI, TDH.VP.ENTER output RDX). */
export const EXTENDED_EPT = { none: 0, accept: 1, attributes: 2, pending: 6 } as const;

/** Exit qualification of IN and OUT (SDM table 28-5). */
export function ioQualification(io: {
  readonly size: number;
  readonly input: boolean;
  readonly string: boolean;
  readonly repeated: boolean;
  readonly immediate: boolean;
  readonly port: number;
}): number {
  return (
    ((io.size - 1) |
      (io.input ? 1 << 3 : 0) |
      (io.string ? 1 << 4 : 0) |
      (io.repeated ? 1 << 5 : 0) |
      (io.immediate ? 1 << 6 : 0) |
      (io.port << 16)) >>>
    0
  );
}

/** Exit qualification of control-register accesses (SDM table 28-3). */
export function controlQualification(cr: {
  readonly register: number;
  /** 0 MOV to, 1 MOV from, 2 CLTS, 3 LMSW. */
  readonly access: number;
  readonly gpr: number;
  readonly source: number;
}): number {
  return (cr.register | (cr.access << 4) | (cr.gpr << 8) | ((cr.source & 0xffff) << 16)) >>> 0;
}

/** Exit qualification of MOV DR (SDM table 28-4). */
export function debugQualification(dr: {
  readonly register: number;
  /** MOV from the debug register. */
  readonly read: boolean;
  readonly gpr: number;
}): number {
  return dr.register | (dr.read ? 1 << 4 : 0) | (dr.gpr << 8);
}
