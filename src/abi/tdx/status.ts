/**
 * Completion status of TDCALL and SEAMCALL leaves (Intel TDX Module 1.5 ABI, 344551, "Interface Function Completion
 * Status"): what RAX holds. Bits 63:32 say what happened; bits 31:0 are an operand id, a level or an exit reason.
 */

export const STATUS = {
  success: 0,
  nonRecoverableVcpu: 0x4000_0001,
  nonRecoverableTd: 0x6000_0002,
  interruptedResumable: 0x8000_0003,
  interruptedRestartable: 0x8000_0004,
  nonRecoverableTdNonAccessible: 0x6000_0005,
  invalidResumption: 0xc000_0006,
  tdWrongApicMode: 0xe000_0007,
  crossTdFault: 0x8000_0008,
  crossTdTrap: 0x9000_0009,
  operandInvalid: 0xc000_0100,
  operandAddrRangeError: 0xc000_0101,
  operandBusy: 0x8000_0200,
  pageMetadataIncorrect: 0xc000_0300,
  pageAlreadyFree: 0x0000_0301,
  pageNotOwnedByTd: 0xc000_0302,
  pageNotFree: 0xc000_0303,
  tdAssociatedPagesExist: 0xc000_0400,
  sysInitNotPending: 0xc000_0500,
  tdNotInitialized: 0xc000_0600,
  tdInitialized: 0xc000_0601,
  tdNotFinalized: 0xc000_0602,
  tdFinalized: 0xc000_0603,
  tdFatal: 0xe000_0604,
  tdNonDebug: 0xc000_0605,
  lifecycleStateIncorrect: 0xc000_0607,
  opStateIncorrect: 0xc000_0608,
  tdcxNumIncorrect: 0xc000_0610,
  vcpuStateIncorrect: 0xc000_0700,
  vcpuAssociated: 0x8000_0701,
  vcpuNotAssociated: 0x8000_0702,
  noValidVeInfo: 0xc000_0704,
  maxVcpusExceeded: 0xc000_0705,
  tscRollback: 0xc000_0706,
  interrupted: 0x8000_0803,
  keyStateIncorrect: 0xc000_0810,
  tlbTrackingNotDone: 0xc000_0b08,
  eptWalkFailed: 0xc000_0b00,
  eptEntryFree: 0xc000_0b01,
  eptEntryNotFree: 0xc000_0b02,
  eptEntryNotPresent: 0xc000_0b03,
  eptEntryNotLeaf: 0xc000_0b04,
  eptEntryLeaf: 0xc000_0b05,
  gpaRangeNotBlocked: 0xc000_0b06,
  gpaRangeAlreadyBlocked: 0x0000_0b07,
  eptInvalidPromoteConditions: 0xc000_0b09,
  pageAlreadyAccepted: 0x0000_0b0a,
  pageSizeMismatch: 0xc000_0b0b,
  gpaRangeBlocked: 0xc000_0b0c,
  eptEntryStateIncorrect: 0xc000_0b0d,
  l2SeptPageNotFree: 0xc000_0b0e,
  l2SeptWalkFailed: 0xc000_0b0f,
  l2SeptEntryNotFree: 0xc000_0b10,
  pageAttrInvalid: 0xc000_0b11,
  l2SeptPageNotProvided: 0xc000_0b12,
  metadataFieldIdIncorrect: 0xc000_0c00,
  metadataFieldNotWritable: 0xc000_0c01,
  metadataFieldNotReadable: 0xc000_0c02,
  metadataFieldValueNotValid: 0xc000_0c03,
  metadataFieldCurrentlyNotWritable: 0xc000_0c09,
  metadataWriteMaskNotValid: 0xc000_0c0a,
  metadataFirstFieldIdInContext: 0x0000_0c0b,
  invalidCpuSvn: 0xc000_1000,
  invalidReportMacStruct: 0xc000_1001,
  l2ExitHostRoutedAsync: 0x0000_1100,
  l2ExitHostRoutedTdvmcall: 0x0000_1101,
  l2ExitPendingInterrupt: 0x0000_1102,
  pendingInterrupt: 0x0000_1120,
  glaNotCanonical: 0xc000_1160,
  tdVmcsFieldNotInitialized: 0xc000_0730,
  vmcsFieldError: 0xc000_0731,
} as const;
export type StatusCode = (typeof STATUS)[keyof typeof STATUS];

/** Operand ids in bits 31:0: registers by number, then fields. */
export const OPERAND = {
  rax: 0,
  rcx: 1,
  rdx: 2,
  rbx: 3,
  rsi: 6,
  rdi: 7,
  r8: 8,
  r9: 9,
  r10: 10,
  r11: 11,
  r12: 12,
  r13: 13,
  attributes: 64,
  xfam: 65,
  execControls: 66,
  eptpControls: 67,
  maxVcpus: 68,
  cpuidConfig: 69,
  tscFrequency: 70,
  numL2Vms: 73,
  tdmr: 160,
  page: 161,
  rtmr: 168,
  l2VapicGpa: 170,
  metadataField: 176,
} as const;

/** RAX of a leaf that ended like this. */
export function status(code: number, detail = 0): bigint {
  return (BigInt(code >>> 0) << 32n) | BigInt(detail >>> 0);
}

/** Bits 63:32. */
export function statusCode(rax: bigint): number {
  return Number(BigInt.asUintN(32, rax >> 32n));
}

export function isError(rax: bigint): boolean {
  return rax >> 63n !== 0n;
}
