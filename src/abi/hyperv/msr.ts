/** Synthetic MSRs (Hyper-V TLFS appendix "Synthetic MSRs"). Two tables would drift: this is the only list. */

export const MSR = {
  guestOsId: 0x4000_0000,
  hypercall: 0x4000_0001,
  vpIndex: 0x4000_0002,
  reset: 0x4000_0003,
  vpRuntime: 0x4000_0010,
  timeRefCount: 0x4000_0020,
  referenceTsc: 0x4000_0021,
  tscFrequency: 0x4000_0022,
  apicFrequency: 0x4000_0023,
  eoi: 0x4000_0070,
  icr: 0x4000_0071,
  tpr: 0x4000_0072,
  vpAssistPage: 0x4000_0073,
  scontrol: 0x4000_0080,
  sversion: 0x4000_0081,
  siefp: 0x4000_0082,
  simp: 0x4000_0083,
  eom: 0x4000_0084,
  sint0: 0x4000_0090,
  sint15: 0x4000_009f,
  stimer0Config: 0x4000_00b0,
  stimer3Count: 0x4000_00b7,
  guestIdle: 0x4000_00f0,
  crashP0: 0x4000_0100,
  crashP4: 0x4000_0104,
  crashCtl: 0x4000_0105,
  reenlightenmentControl: 0x4000_0106,
  tscEmulationControl: 0x4000_0107,
  tscEmulationStatus: 0x4000_0108,
  tscInvariantControl: 0x4000_0118,
} as const;

/** First and last number of the block that belongs to the hypervisor. */
export const SYNTHETIC_FIRST = 0x4000_0000;
export const SYNTHETIC_LAST = 0x4000_ffff;

/** HYPERCALL, REFERENCE_TSC, VP_ASSIST_PAGE, SIEFP and SIMP: bit 0 enables, bits 63:12 are a page number. */
export const PAGE_ENABLE = 1;
/** HYPERCALL bit 1: no further write until reset. */
export const HYPERCALL_LOCKED = 2;

/** CRASH_CTL high half: bit 63 notify, bit 62 P3/P4 name a message. */
export const CRASH_NOTIFY_HIGH = 0x8000_0000;
export const CRASH_MESSAGE_HIGH = 0x4000_0000;

const names = new Map<number, string>(Object.entries(MSR).map(([name, index]) => [index, name]));

/** Name for traces; numbers without one keep their number. */
export function msrName(index: number): string {
  const name = names.get(index);
  if (name !== undefined && name !== 'sint15' && name !== 'stimer3Count' && name !== 'crashP4') return name;
  if (index >= MSR.sint0 && index <= MSR.sint15) return `sint${index - MSR.sint0}`;
  if (index >= MSR.stimer0Config && index <= MSR.stimer3Count) {
    const timer = (index - MSR.stimer0Config) >> 1;
    return `stimer${timer}${(index & 1) === 0 ? 'Config' : 'Count'}`;
  }
  if (index >= MSR.crashP0 && index <= MSR.crashP4) return `crashP${index - MSR.crashP0}`;
  return `0x${index.toString(16)}`;
}
