/**
 * Where the processor's state lies in the one linear memory.
 *
 * One CPU structure exists for each (vCPU, context), where a context is VMPL0-3, or L1 and L2 1-3. Generated code
 * reaches it through a base address that it is given and never through a constant. Offsets are in bytes.
 */

/** Offsets in the CPU structure. All integers little-endian; u64 unless said otherwise. */
export const CPU = {
  /** rax rcx rdx rbx rsp rbp rsi rdi r8-r15. */
  gpr: 0x000,
  rip: 0x080,
  /** Lazy status flags: kind (u32, see flags.ts), and sign-extended a, b, r. */
  flagKind: 0x088,
  flagA: 0x090,
  flagB: 0x098,
  flagR: 0x0a0,
  /** u32: EFLAGS without the status flags CF PF AF ZF SF OF; bit 1 set. */
  eflags: 0x0a8,
  /** u32: what decoding and dispatch depend on, see mode.ts. */
  mode: 0x0ac,
  /** Always zero: stands for an absent base or index register. */
  zero: 0x0b0,
  /** u32: current privilege level. */
  cpl: 0x0b8,
  /** u32: instructions left before run() must return, as of the entry of the current block. */
  budget: 0x0bc,
  /** u32: data TLB that the inlined fast path uses (an always-empty one while every access must be looked at). */
  tlbFast: 0x0c0,
  /** u32: data TLB that belongs to the current privilege. */
  tlbReal: 0x0c4,
  /** u32: fetch TLB of the current privilege. */
  tlbFetch: 0x0c8,
  /** u32: bits of INTERRUPTIBILITY: STI / MOV SS shadow, NMI blocked. */
  shadow: 0x0cc,
  /** u32: what waits for this vCPU, written from outside: see PENDING. */
  pending: 0x0d0,
  /** u32: address of the running record: where a fault happened. */
  record: 0x0d4,
  /** u32: instruction budget that run() started with. */
  budgetStart: 0x0d8,
  /** u32: bits of SPECIAL: why the next instruction cannot simply run. */
  special: 0x0dc,
  /** u64: virtual time (ticks) at which run() started. */
  clock: 0x0e0,
  // 0x0e8: the fetch window.
  /** u64: current fetch window: linear base, and i64 mask (~(size - 1)). */
  windowBase: 0x0e8,
  windowMask: 0x0f0,

  /** Segment registers, 32 bytes each: es cs ss ds fs gs ldtr tr gdtr idtr; see SEG. */
  seg: 0x100,
  // 10 * 0x20 = 0x140 -> 0x240
  cr0: 0x240,
  cr2: 0x248,
  cr3: 0x250,
  cr4: 0x258,
  cr8: 0x260,
  xcr0: 0x268,
  efer: 0x270,
  dr: 0x278, // dr0-dr3, dr6, dr7: 6 * 8
  star: 0x2a8,
  lstar: 0x2b0,
  cstar: 0x2b8,
  sfmask: 0x2c0,
  kernelGsBase: 0x2c8,
  sysenterCs: 0x2d0,
  sysenterEsp: 0x2d8,
  sysenterEip: 0x2e0,
  pat: 0x2e8,
  tscAux: 0x2f0,
  /** TSC = ticks * multiplier (u32 at tscMultiplier) + offset. */
  tscOffset: 0x2f8,
  tscMultiplier: 0x300,
  /** u32 PKRU. */
  pkru: 0x304,
  xss: 0x308,
  miscEnable: 0x310,
  mtrrDefType: 0x318,
  mtrrFixed: 0x320, // 11 * 8 -> 0x378
  mtrrVariable: 0x378, // 8 pairs -> 0x3f8
  specCtrl: 0x3f8,
  /** Reserved-bit masks that follow from CPUID: bits that may be set. */
  cr4Allowed: 0x400,
  eferAllowed: 0x408,
  xcr0Allowed: 0x410,
  /** u64: bits of a physical address that are reserved in page tables. */
  physReserved: 0x418,
  /** u64: bits of INTERCEPT; owner: whoever provides the intercept table. */
  intercepts: 0x420,
  /** u64: state of the deterministic entropy source (RDRAND, RDSEED). */
  entropy: 0x428,
  /** u32: MSR permission map (0: none), 0x2000 bytes: VMCB layout, APM vol. 2, 15.11. */
  msrMap: 0x430,
  /** u32: vCPU index. */
  index: 0x434,

  // Fault or exit being raised: written before the fault tag is thrown.
  /** u32: RAISE kind. */
  raiseKind: 0x438,
  /** u32: vector of a fault, or the exit code. */
  raiseVector: 0x43c,
  /** u32: error code; u32 whether there is one. */
  raiseError: 0x440,
  raiseHasError: 0x444,
  /** u64: information: CR2 for #PF, DR6 bits for #DB, exit qualification words. */
  raiseInfo: 0x448,
  raiseInfo2: 0x450,
  raiseInfo3: 0x458,
  /** u32: vector under delivery + 1 (0: none), and its class, for double faults. */
  delivering: 0x460,
  deliveringClass: 0x464,
  /** u32: answers given to the restarted instruction, and how many it has used. */
  answers: 0x468,
  answersUsed: 0x46c,
  /** Room for ANSWERS answers of 16 bytes (four u32 words: a CPUID answer has eax ebx ecx edx). */
  answer: 0x1000, // -> 0x2000
  /**
   * The event under delivery while an exit has the raise fields: u32 kind, vector, error code and whether there is one,
   * u64 information.
   */
  eventKind: 0x470,
  eventVector: 0x474,
  eventError: 0x478,
  eventHasError: 0x47c,
  eventInfo: 0x480,
  /** u32: length of the instruction that a software interrupt is for: a fault in its delivery is one of that instruction. */
  eventLength: 0x488,
  /** u64: dr6 bits that a data breakpoint set during the current instruction. */
  debugHits: 0x570,
  /**
   * u32: 1 when an event described by the raise fields waits to be delivered before the next instruction; 2 when its
   * delivery began, and the event fields have it.
   */
  deliver: 0x578,
  /** u32 stack-pointer mask helpers: 0xffff, 0xffffffff or 64-bit, by SS.B and mode: log2 bytes 2/4/8. */
  stackSize: 0x57c,
  /** u64: tag that a region's access missed with. Only there so that the tag has a second use: see RegionSem. */
  missed: 0x0f8,
  /** Scratch for handlers, 64 bytes. */
  scratch: 0x580, // -> 0x5c0
  /** u32: this context's TLB area (see TLB), and the always-empty data TLB. */
  tlbArea: 0x5c0,
  tlbEmpty: 0x5c4,
  /** Results of second_stage and page walks: u32 host address of the page (0: not memory), u32 SECOND bits, u64 gpa. */
  stageHost: 0x5c8,
  stageFlags: 0x5cc,
  stageGpa: 0x5d0,
  /** u32: host address of the fetch window's base. */
  windowHost: 0x5d8,
  /** u32: the machine-wide engine block (ENGINE). */
  engine: 0x5dc,
  /** u32 each: EFLAGS.TF at the start of a stepped instruction; run() wants a one-instruction block. */
  stepTf: 0x950,
  wantSingle: 0x954,
  /** u32: EXT bit for selector error codes while an event is delivered. */
  ext: 0x960,
  /** u32: 0 AMD, 1 Intel: where the manuals differ. */
  vendor: 0x964,
  /** u32 each: RF and shadow bits that the stepped instruction consumed. */
  steppedRf: 0x958,
  steppedShadow: 0x95c,
  /**
   * An exit that a second stage raises (routine `stage_exit`): u32 code (0: none), u32 the kind of event that was being
   * delivered, u64 guest-physical address, u64 information. It uses up no answer and leaves the raise fields alone, so
   * that the instruction or the delivery can simply be repeated.
   */
  stageExit: 0x968,
  stageKind: 0x96c,
  stageExitGpa: 0x970,
  stageExitInfo: 0x978,
  /** u64: linear address of the last page walk; u32: 0 while its tables are read, 1 behind it. */
  walkAddress: 0x980,
  walkDone: 0x9ac,
  /** Guest/host mask and read shadow of CR0 and CR4 (Intel SDM vol. 3, 25.6.6): u64 each, mask 0 without a hypervisor's. */
  cr0Mask: 0x988,
  cr0Shadow: 0x990,
  cr4Mask: 0x998,
  cr4Shadow: 0x9a0,
  /** u32: exceptions that leave for the outside instead of being delivered. */
  exceptionBitmap: 0x9a8,
  /** u32 IA32_PKRS, kept as u64. */
  pkrs: 0xff0,
  /** u32: an entry was filled whose right to write rests on CR0.WP being clear. */
  tlbWpOpen: 0xffc,
  /** PDPTE registers of PAE paging: 4 * 8. */
  pdpte: 0x5e0, // -> 0x600

  // x87 and MMX. Physical registers: 16 bytes each, mantissa u64 at +0, sign and exponent u16 at +8.
  st: 0x600, // 8 * 16 -> 0x680
  /** u16 values kept as u32. fsw without TOP; top kept apart (0-7). ftw: 8 bits, 1 = valid (abridged form). */
  fcw: 0x680,
  fsw: 0x684,
  ftop: 0x688,
  ftw: 0x68c,
  fop: 0x690,
  mxcsr: 0x694,
  fip: 0x698,
  fdp: 0x6a0,
  fcs: 0x6a8,
  fds: 0x6ac,
  /** xmm0-15, 32 bytes each (room for YMM). */
  xmm: 0x6c0, // 16 * 32 = 0x200 -> 0x8c0
  /** Softfloat scratch: flags raised by the operation under way (u32, MXCSR bit positions), rounding mode in force. */
  floatFlags: 0x8c0,
  floatRound: 0x8c4,
  /** 128 bytes for out-of-line results wider than 64 bits. */
  wide: 0x8d0, // -> 0x950
  /** MSRs that are only kept: slots of 8 bytes, see KEPT_MSRS in runtime/system.ts. */
  keptMsr: 0xb00, // -> 0xe00
  /** Platform state of the context: silicon's own, x86 never reads it. */
  platform: 0xa00, // -> 0xb00
  size: 0x2000,
} as const;

/**
 * Questions that one instruction may ask the outside. The most are asked by XSAVE or a task switch whose memory is a device's: one
 * for each eight bytes, or for each byte across pages.
 */
export const ANSWERS = 256;

/** Entries of a data array: 32 MiB, so that two pages that are used together seldom share one. */
const TLB_ENTRIES = 8192;
const TLB_ARRAY = TLB_ENTRIES * 32;
const FETCH_SMALL = 512;
const FETCH_LARGE = 64;
const FETCH_ARRAY = (FETCH_SMALL + FETCH_LARGE) * 16;
/** Fills since the last flush that a list names. */
const TLB_LISTED = 256;

/** Data TLB: 3 arrays (user; supervisor; supervisor with EFLAGS.AC or without SMAP), then the fetch arrays. */
export const TLB = {
  entries: TLB_ENTRIES,
  entryShift: 5,
  arrayBytes: TLB_ARRAY,
  user: 0,
  supervisor: 1,
  supervisorAc: 2,
  /** Entry: read tag, write tag (u64: page address, bit 0 set when observed; all ones: none), */
  read: 0,
  write: 8,
  /** u32: host address minus the low half of the page's linear address; u32 TLBFLAG bits; u64 guest-physical page. */
  addend: 16,
  flags: 20,
  gpa: 24,
  /** Fetch arrays, for user then supervisor: 4 KiB entries and 2 MiB entries, 16 bytes: u64 tag, u32 host, u32 flags. */
  fetch: 3 * TLB_ARRAY,
  fetchSmall: FETCH_SMALL,
  fetchLarge: FETCH_LARGE,
  fetchBytes: FETCH_ARRAY,
  /** Behind the arrays, what may be in them, so that a flush costs what was filled; see TLBUSE. */
  use: 3 * TLB_ARRAY + 2 * FETCH_ARRAY,
  areaBytes: 3 * TLB_ARRAY + 2 * FETCH_ARRAY + 128 + TLB_LISTED * 4,
} as const;

/** Offsets behind TLB.use. A bit of the first ones stands for 1/64 of an array that has had an entry since the last flush. */
export const TLBUSE = {
  /** u64 each: user, supervisor, supervisorAc. */
  data: 0,
  /** u64 each: 4 KiB fetch entries of user and supervisor; then their 2 MiB ones. */
  fetchSmall: 24,
  fetchLarge: 40,
  /** u64: bit (va >> 30) & 63 is set when a piece of a large page was filled. */
  large: 56,
  /** u32: data entries filled since the last flush; from `listed` on the list does not name them all. */
  filled: 64,
  listed: TLB_LISTED,
  /** u32 each: where in the area they are. */
  list: 128,
} as const;

export const TLBFLAG = { mmio: 1, global: 2, large: 4, user: 8 } as const;

/** What second_stage reports beside the host address. */
export const SECOND = {
  /** The guest may not write / execute there (a store or fetch raises what the second stage says). */
  noWrite: 1,
  noExecute: 2,
  /** The aligned 2 MiB around it is one contiguous, uniform block. */
  uniform: 4,
} as const;

/** Machine-wide engine block, reached through CPU.engine. */
export const ENGINE = {
  /** u32: first byte of guest frames, and their end. */
  framesBase: 0,
  framesEnd: 4,
  /** u32: one byte of PAGEFLAG bits for each 4 KiB frame. */
  pageFlags: 8,
  /** u32: one bit for each 64 bytes of frames that hold decoded code. */
  codeBitmap: 12,
  /** u32: jump cache, see interpreter.ts. */
  jumpCache: 16,
  /** For the second stage, see silicon. */
  stage: 20,
  /** u32: set when blocks were dropped: a region that called out leaves. */
  dropped: 24,
  size: 256,
} as const;

export const PAGEFLAG = { code: 1, watchRead: 2, watchWrite: 4 } as const;

/** Offsets inside a segment register of the CPU structure. */
export const SEG = {
  base: 0,
  /** u32: limit in bytes (granularity applied). */
  limit: 8,
  /** u32: attributes: descriptor bits 40-47 in bits 0-7, AVL L D G in bits 8-11; bit 16 set: unusable (null). */
  attr: 12,
  /** u32: selector. */
  selector: 16,
  stride: 32,
} as const;

export const ES = 0;
export const CS = 1;
export const SS = 2;
export const DS = 3;
export const FS = 4;
export const GS = 5;
export const LDTR = 6;
export const TR = 7;
export const GDTR = 8;
export const IDTR = 9;

/** Offset of a field of segment register `index` in the CPU structure. */
export function segField(index: number, field: number): number {
  return CPU.seg + index * SEG.stride + field;
}

export const RAX = 0;
export const RCX = 1;
export const RDX = 2;
export const RBX = 3;
export const RSP = 4;
export const RBP = 5;
export const RSI = 6;
export const RDI = 7;

/** Pre-decoded instruction record, 64 bytes. */
export const REC = {
  /** u16: case of the interpreter's switch; u16: table slot of the out-of-line handler. */
  handler: 0,
  slot: 2,
  /** u16 each: offsets in the CPU structure of the operands in modrm.reg, modrm.rm (register form), vvvv or opcode. */
  reg: 4,
  rm: 6,
  vvvv: 8,
  /** u16: offsets of base and index registers (CPU.zero when absent), and of the segment's base field. */
  base: 10,
  index: 12,
  segBase: 14,
  /** u8: log2 of the scale; u8 instruction length; u8 address size 2/4/8; u8 segment register number. */
  scale: 16,
  length: 17,
  addressSize: 18,
  segment: 19,
  /** u32: bits, see RECFLAG. */
  flags: 20,
  /** i64: displacement; for RIP-relative operands and moffs the whole offset. */
  disp: 24,
  /** i64: immediate, sign- or zero-extended as the operand says; for branches the target's rip. */
  imm: 32,
  /** u64: rip after this instruction. */
  next: 40,
  /** u32: instructions of the block after this one. */
  after: 48,
  /** u32: record of the successor block when taken / not taken (0: not linked). */
  taken: 52,
  fallthrough: 56,
  /** u32: second immediate (ENTER, far pointers: selector, EXTRQ), or the fused successor's data. */
  imm2: 60,
  size: 64,
} as const;

export const RECFLAG = {
  lock: 1,
  rexW: 2,
  /** Memory operand needs the general path: not 64-bit mode, or 32-bit addresses. */
  general: 4,
  repe: 8,
  repne: 16,
  opsize16: 32,
  /** Any REX prefix. */
  rex: 64,
  /** 64-bit mode. */
  long: 128,
} as const;

/** Words in front of a block's first record (offsets relative to it, in a header of REC.size bytes). */
export const HEAD = {
  /** i32: runs of the block until it is hot; 0: it is, and dispatch decides what to do. */
  heat: 0,
  /** u32: table slot of the translated region that has the block as an entry (0: none), the number of that entry. */
  slot: 4,
  entry: 8,
  /** u32: budget that the region needs to be entered. */
  need: 12,
  size: 64,
} as const;

/** Heat of a block that is not to be translated now. */
export const COLD = 0x7fffffff;

/** Why the fault tag was thrown. */
export const RAISE = {
  /** An exception of the instruction: rip stays at it. */
  fault: 0,
  /** An exception after the instruction: rip is after it (#DB traps, INT n, INT3, INTO). */
  trap: 1,
  /** Leave run() for the outside: the instruction will be restarted with an answer. */
  exit: 2,
  /** Software interrupt (INT n, INT3, INTO): trap with the privilege check of the gate. */
  software: 3,
  /** An external interrupt or NMI, injected between instructions. */
  external: 4,
  /** A translated region cannot execute this instruction (a store that changes code): the interpreter does. */
  interpret: 5,
} as const;

/** Why run() returned. */
export const RUN = {
  /** The instruction budget is used up. */
  budget: 0,
  /** No block is decoded for rip: the outside decodes one (CPU.wantSingle: of one instruction). */
  decode: 1,
  /** An instruction asks the outside: raiseVector has the EXIT code. */
  exit: 2,
  /** CPU.pending can be taken now. */
  interrupt: 3,
  /** A debugger's breakpoint: rip is at it. */
  breakpoint: 4,
  /** The block at rip became hot. */
  hot: 5,
} as const;

/** Bits of `CPU.mode`: what the decoding of a block depends on. */
export const MODE = {
  code16: 0,
  code32: 1,
  code64: 2,
  codeMask: 3,
  real: 4,
  em: 8,
  ts: 16,
  mp: 32,
  osfxsr: 64,
  /** Outside 64-bit mode, CS with a limit: it is above, in the 20 bits and the G bit of a descriptor. */
  limited: 0x80,
  limitPages: 0x800,
  limitShift: 12,
  single: 0x100,
  /** Only in the keys of blocks: fetched through a window of 2 MiB, so that it may go on across pages. */
  large: 0x200,
} as const;

/** Jump cache: direct-mapped by rip; 32 bytes: u64 rip, u32 host address, u32 mode, u32 record, u32 host of second page. */
export const JUMP = { entries: 32768, rip: 0, host: 8, mode: 12, record: 16, second: 20, shift: 5 } as const;

/**
 * Above the count of bytes of a slow access: the alignment that #AC asks for when it is not the size (at most 8). Unaligned 16-byte
 * operands ask for none, which implementations may choose (SDM vol. 2, MOVUPS, MOVDQU; measured on Intel).
 */
export const ALIGN = { any: 1 << 16, word: 2 << 16, dword: 4 << 16 } as const;

/** Cases of the interpreter's switch before the hot ones. */
export const CASE = { cold: 0, coldJump: 1, coldSync: 2, end: 3, stale: 4, stop: 5, hot: 6 } as const;

/** Low byte of `info` of an intercepted control-register write: MOV, CLTS, LMSW. */
export const CONTROL_EXIT = { mov: 0, clts: 2, lmsw: 3 } as const;

/** Bits of `CPU.pending`. */
export const PENDING = {
  /** A maskable interrupt waits at the owner of the local APIC. */
  interrupt: 1,
  nmi: 2,
  init: 4,
  smi: 8,
  /** Someone outside wants run() to return at the next instruction boundary. */
  attention: 16,
} as const;

/** Bits of `CPU.special`, computed by the `update_special` routine at synchronizing instructions and at entry. */
export const SPECIAL = {
  /** An interrupt, NMI, INIT, SMI or attention can be taken. */
  pending: 1,
  /** STI or MOV SS shadow. */
  shadow: 2,
  /** EFLAGS.TF, or breakpoints enabled in DR7. */
  debug: 4,
  /** The instruction is restarted with answers. */
  answers: 8,
  /** An instruction was just run by itself: what follows it is due. */
  stepped: 16,
} as const;

/** Bits of `CPU.shadow`. */
export const SHADOW = { sti: 1, movSs: 2, nmiBlocked: 4 } as const;

/** EFLAGS bits. */
export const FLAG = {
  CF: 0x1,
  PF: 0x4,
  AF: 0x10,
  ZF: 0x40,
  SF: 0x80,
  TF: 0x100,
  IF: 0x200,
  DF: 0x400,
  OF: 0x800,
  IOPL: 0x3000,
  NT: 0x4000,
  RF: 0x10000,
  VM: 0x20000,
  AC: 0x40000,
  VIF: 0x80000,
  VIP: 0x100000,
  ID: 0x200000,
} as const;
export const STATUS_FLAGS = FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.OF;

/** Architectural vectors. */
export const VEC = {
  DE: 0,
  DB: 1,
  NMI: 2,
  BP: 3,
  OF: 4,
  BR: 5,
  UD: 6,
  NM: 7,
  DF: 8,
  TS: 10,
  NP: 11,
  SS: 12,
  GP: 13,
  PF: 14,
  MF: 16,
  AC: 17,
  MC: 18,
  XM: 19,
  VE: 20,
  /** AMD: VMM communication exception (APM vol. 2, 15.35.5). */
  VC: 29,
} as const;

/** Instructions that leave only when somebody asks for it: bits of CPU.intercepts. */
export const INTERCEPT = { rdtsc: 1, rdtscp: 2, rdpmc: 4, dr7: 8, movDr: 16 } as const;

/** What an instruction asks of the outside: exit codes in `raiseVector` when `raiseKind` is RAISE.exit. */
export const EXIT = {
  /** info: port; info2: size | write << 8 | string << 9 | rep << 10; info3: value. Answer word 0: value read. */
  io: 1,
  /** info: MSR number; answer words 0-1: value. */
  rdmsr: 2,
  /** info: MSR number; info2: value. */
  wrmsr: 3,
  /** info: leaf; info2: subleaf. Answer words: eax ebx ecx edx. */
  cpuid: 4,
  hlt: 5,
  /** info: gpa; info2: size; answer words 0-1: value. */
  mmioRead: 6,
  /** info: gpa; info2: size; info3: value. */
  mmioWrite: 7,
  vmcall: 8,
  vmmcall: 9,
  /** INVD, WBINVD, WBNOINVD: info 0, 1, 2. */
  wbinvd: 10,
  monitor: 11,
  mwait: 12,
  pause: 13,
  /** Shutdown: a fault while delivering a double fault. */
  tripleFault: 14,
  /** Intercepted write to a control register. info: CONTROL_EXIT kind and number << 8; info2: value; info3: CR0 or CR4 as it is. */
  intercept: 15,
  /** Nested (second-stage) fault. info: gpa; info2: access bits. */
  nestedPageFault: 16,
  /** Write to CR8 / TPR: info: new value. Answered by the APIC's owner. */
  writeCr8: 17,
  readCr8: 18,
  /** An exception of the exception bitmap; the raise fields describe it as for delivery, but for raiseVector and raiseKind. */
  exception: 19,
  /** An instruction of INTERCEPT. info: its bit; info2: 1 when it writes DR7. Answered: it goes on as without. */
  instruction: 20,
  /** Platform rows number theirs from here. */
  platform: 64,
} as const;
