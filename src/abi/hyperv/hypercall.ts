/** Hypercall numbers, status codes and the two control words (Hyper-V TLFS chapter 3 "Hypercall Interface"). */

export const CALL = {
  flushVirtualAddressSpace: 0x0002,
  flushVirtualAddressList: 0x0003,
  notifyLongSpinWait: 0x0008,
  sendSyntheticClusterIpi: 0x000b,
  flushVirtualAddressSpaceEx: 0x0013,
  flushVirtualAddressListEx: 0x0014,
  sendSyntheticClusterIpiEx: 0x0015,
  getPartitionId: 0x0046,
  getVpRegisters: 0x0050,
  setVpRegisters: 0x0051,
  postMessage: 0x005c,
  signalEvent: 0x005d,
  retargetDeviceInterrupt: 0x007e,
  startVirtualProcessor: 0x0099,
  getVpIndexFromApicId: 0x009a,
  flushGuestPhysicalAddressSpace: 0x00af,
  flushGuestPhysicalAddressList: 0x00b0,
  modifySparseGpaPageHostVisibility: 0x00db,
  mmioRead: 0x0106,
  mmioWrite: 0x0107,
  extQueryCapabilities: 0x8001,
  extMemoryHeatHint: 0x8003,
} as const;

/** TLFS appendix "Hypercall Status Codes". */
export const STATUS = {
  success: 0x00,
  invalidHypercallCode: 0x02,
  invalidHypercallInput: 0x03,
  invalidAlignment: 0x04,
  invalidParameter: 0x05,
  accessDenied: 0x06,
  invalidPartitionState: 0x07,
  operationDenied: 0x08,
  unknownProperty: 0x09,
  insufficientMemory: 0x0b,
  invalidPartitionId: 0x0d,
  invalidVpIndex: 0x0e,
  invalidPortId: 0x11,
  invalidConnectionId: 0x12,
  insufficientBuffers: 0x13,
  notAcknowledged: 0x14,
  invalidVpState: 0x15,
  invalidSynicState: 0x18,
  objectInUse: 0x19,
  featureUnavailable: 0x1e,
  invalidRegisterValue: 0x50,
  timeout: 0x78,
  unknownRegisterName: 0x87,
} as const;

/** Status is an open set: numbers without a name stay numbers. */
export type Status = number;

export interface Control {
  /** Bits 15:0. */
  readonly code: number;
  /** Bit 16: input in registers. */
  readonly fast: boolean;
  /** Bits 26:17, in 8 byte units. */
  readonly variableHeaderQwords: number;
  /** Bit 31: addressed to the hypervisor below. */
  readonly nested: boolean;
  /** Bits 43:32. */
  readonly repCount: number;
  /** Bits 59:48. */
  readonly repStart: number;
  /** Bits 30:27, 47:44 and 63:60 must be zero. */
  readonly reserved: boolean;
}

export function readControl(low: number, high: number): Control {
  return {
    code: low & 0xffff,
    fast: (low & 0x1_0000) !== 0,
    variableHeaderQwords: (low >>> 17) & 0x3ff,
    nested: (low & 0x8000_0000) !== 0,
    repCount: high & 0xfff,
    repStart: (high >>> 16) & 0xfff,
    reserved: (low & 0x7800_0000) !== 0 || (high & 0xf000_f000) !== 0,
  };
}

export function writeControl(control: Partial<Control>): { low: number; high: number } {
  const low =
    (control.code ?? 0) |
    (control.fast === true ? 0x1_0000 : 0) |
    ((control.variableHeaderQwords ?? 0) << 17) |
    (control.nested === true ? 0x8000_0000 : 0);
  return { low: low >>> 0, high: (((control.repStart ?? 0) << 16) | (control.repCount ?? 0)) >>> 0 };
}

/** Result word: status in 15:0, completed reps in 43:32 (so: the high half). */
export interface Result {
  readonly status: Status;
  readonly repsCompleted: number;
}

const callNames = new Map<number, string>(Object.entries(CALL).map(([name, code]) => [code, name]));
const statusNames = new Map<number, string>(Object.entries(STATUS).map(([name, code]) => [code, name]));

export function callName(code: number): string {
  return callNames.get(code) ?? `0x${code.toString(16)}`;
}

export function statusName(status: Status): string {
  return statusNames.get(status) ?? `0x${status.toString(16)}`;
}
