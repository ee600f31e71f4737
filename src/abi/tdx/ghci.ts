/** Guest-Hypervisor Communication Interface (Intel GHCI 1.5, 348552): what TDG.VP.VMCALL asks of the host. */

/** R11 when R10 is 0. */
export const TDVMCALL = {
  cpuid: 10,
  hlt: 12,
  io: 30,
  rdmsr: 31,
  wrmsr: 32,
  mmio: 48,
  wbinvd: 54,
  pconfig: 65,
  getTdVmCallInfo: 0x10000,
  mapGpa: 0x10001,
  getQuote: 0x10002,
  reportFatalError: 0x10003,
  setupEventNotifyInterrupt: 0x10004,
  service: 0x10005,
} as const;

export const TDVMCALL_NAMES: ReadonlyMap<number, string> = new Map([
  [TDVMCALL.cpuid, 'Instruction.CPUID'],
  [TDVMCALL.hlt, 'Instruction.HLT'],
  [TDVMCALL.io, 'Instruction.IO'],
  [TDVMCALL.rdmsr, 'Instruction.RDMSR'],
  [TDVMCALL.wrmsr, 'Instruction.WRMSR'],
  [TDVMCALL.mmio, '#VE.RequestMMIO'],
  [TDVMCALL.wbinvd, 'Instruction.WBINVD'],
  [TDVMCALL.pconfig, 'Instruction.PCONFIG'],
  [TDVMCALL.getTdVmCallInfo, 'GetTdVmCallInfo'],
  [TDVMCALL.mapGpa, 'MapGPA'],
  [TDVMCALL.getQuote, 'GetQuote'],
  [TDVMCALL.reportFatalError, 'ReportFatalError'],
  [TDVMCALL.setupEventNotifyInterrupt, 'SetupEventNotifyInterrupt'],
  [TDVMCALL.service, 'Service'],
]);

/** R10 on return. */
export const TDVMCALL_STATUS = {
  success: 0n,
  retry: 1n,
  invalidOperand: 0x8000_0000_0000_0000n,
  gpaInUse: 0x8000_0000_0000_0001n,
  alignmentError: 0x8000_0000_0000_0002n,
  subfunctionUnsupported: 0x8000_0000_0000_0003n,
} as const;

/** The buffer of GetQuote, in shared memory: four fields, then data. */
export const QUOTE_BUFFER = { version: 0, status: 8, inLength: 16, outLength: 20, data: 24 } as const;
export const QUOTE_BUFFER_VERSION = 1;
export const QUOTE_STATUS = {
  success: 0n,
  inFlight: 0xffff_ffff_ffff_ffffn,
  error: 0x8000_0000_0000_0000n,
  unavailable: 0x8000_0000_0000_0001n,
} as const;

/** Bits of RCX of TDG.VP.VMCALL: registers that the host sees. RAX, RCX and RSP cannot be among them. */
export const VMCALL_MASK = { forbidden: 0x13, rbp: 0x20, known: 0xffff_ffffn } as const;

/** ReportFatalError: the registers that hold the text, in order (GHCI 3.4). */
export const FATAL_TEXT_REGISTERS = [14, 15, 3, 7, 6, 8, 9, 2] as const;
