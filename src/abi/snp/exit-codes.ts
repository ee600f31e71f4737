/** SVM exit codes (AMD APM vol. 2, appendix C), and those of GHCBs (GHCB specification, 56421 revision 2.03, table 6). */
export const SVM_EXIT = {
  readDr7: 0x27,
  writeDr7: 0x37,
  exceptionDb: 0x41,
  exceptionAc: 0x51,
  interrupt: 0x60,
  nmi: 0x61,
  readTsc: 0x6e,
  readPmc: 0x6f,
  cpuid: 0x72,
  invd: 0x76,
  pause: 0x77,
  hlt: 0x78,
  io: 0x7b,
  msr: 0x7c,
  shutdown: 0x7f,
  vmmcall: 0x81,
  readTscp: 0x87,
  wbinvd: 0x89,
  monitor: 0x8a,
  mwait: 0x8b,
  nestedPageFault: 0x400,
  vmgexit: 0x403,
  notValidated: 0x404,
  /** VMEXIT_VC: with ReflectVC; what it is about stands in the VMSA. */
  reflected: 0x5d,
  /** VMEXIT_INVALID and VMEXIT_BUSY: entry was refused. */
  invalid: -1,
  busy: -2,
} as const;

/** EXITINFO1 of VMEXIT_NPF (APM vol. 2, 15.25.6 and 15.36.10): low word, then high word. */
export const NPF = {
  present: 1 << 0,
  write: 1 << 1,
  user: 1 << 2,
  reserved: 1 << 3,
  fetch: 1 << 4,
  rmp: 0x8000_0000,
  /** High word, bits 32-37. */
  final: 1 << 0,
  table: 1 << 1,
  encrypted: 1 << 2,
  sizeMismatch: 1 << 3,
  vmpl: 1 << 4,
} as const;

/** IOIO intercept information (APM vol. 2, 15.10.2). */
export const IOIO = {
  in: 1 << 0,
  string: 1 << 2,
  rep: 1 << 3,
  size8: 1 << 4,
  size16: 1 << 5,
  size32: 1 << 6,
  address16: 1 << 7,
  address32: 1 << 8,
  address64: 1 << 9,
} as const;

/** Non-automatic exits that only a GHCB has. */
export const GHCB_EXIT = {
  mmioRead: 0x8000_0001,
  mmioWrite: 0x8000_0002,
  nmiComplete: 0x8000_0003,
  apResetHold: 0x8000_0004,
  apJumpTable: 0x8000_0005,
  pageStateChange: 0x8000_0010,
  guestRequest: 0x8000_0011,
  extendedGuestRequest: 0x8000_0012,
  apCreation: 0x8000_0013,
  hvDoorbell: 0x8000_0014,
  hvIpi: 0x8000_0015,
  hvTimer: 0x8000_0016,
  apicIdList: 0x8000_0017,
  runVmpl: 0x8000_0018,
  features: 0x8000_fffd,
  terminate: 0x8000_fffe,
  unsupported: 0x8000_ffff,
} as const;
