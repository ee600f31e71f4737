/**
 * Event records: {type, time, vp, a, b, c, d}, all numbers. A row says which class a type belongs to, its name in a
 * trace and what its arguments are. Types are never renumbered: traces outlive versions.
 */

export const EVENT_CLASS = {
  exit: 1 << 0,
  msr: 1 << 1,
  cpuid: 1 << 2,
  io: 1 << 3,
  hypercall: 1 << 4,
  interrupt: 1 << 5,
  timer: 1 << 6,
  synic: 1 << 7,
  vmbus: 1 << 8,
  memory: 1 << 9,
  lifecycle: 1 << 10,
  console: 1 << 11,
  /** Page states, and what was refused. */
  page: 1 << 12,
  /** #VC, #VE, #HV and injected events. */
  exception: 1 << 13,
  /** Instructions and calls that only some privilege levels may use. */
  privileged: 1 << 14,
} as const;

export const EVENT = {
  io: 1,
  mmio: 2,
  msrRead: 3,
  msrWrite: 4,
  msrFault: 5,
  cpuid: 6,
  hypercall: 7,
  hypercallRefused: 8,
  halt: 9,
  tripleFault: 10,
  interruptRequested: 11,
  interruptAcknowledged: 12,
  ipi: 13,
  nmi: 14,
  init: 15,
  startup: 16,
  timerArmed: 17,
  timerExpired: 18,
  message: 19,
  messageQueued: 20,
  eventFlag: 21,
  vmbusReceived: 22,
  vmbusSent: 23,
  overlay: 24,
  tlbFlush: 25,
  crash: 26,
  end: 27,
  serial: 28,
  /** Of a context: every exit, whoever handles it. */
  exit: 29,
  /** #VC (29), #VE (20) or #HV (28) goes through the IDT of `context`; `reason`: its error code or exit reason. */
  confidentialException: 30,
  /** `pages` pages from `gpa` on are now in `state` (PAGE_STATE); `context`: who asked (-1: the host). */
  pageState: 31,
  /** PVALIDATE, RMPADJUST, TDCALL leaf...: `operation` is a member of PRIVILEGED_OPERATION, `status` 0 when it was done. */
  privilegedOperation: 32,
  /** HvCallModifySparseGpaPageHostVisibility reached the paravisor. `shared`: 1 to make visible, `status`: HV_STATUS. */
  visibility: 33,
  /** A hypercall of `from` reached `to` (contexts, -1: the host). `relayed`: 1 when a paravisor passed it on. */
  hypercallRoute: 34,
  /** An access to emulated MMIO came as a private (1) or shared (0) reference and reached `to`. */
  mmioRoute: 35,
  /** An event for `context`: `outcome` is a member of INJECTION_OUTCOME; `type` 0 interrupt, 2 NMI, 3 exception (APM vol. 2, 15.20). */
  injection: 36,
  /** The host touched guest memory: `outcome` is a member of HOST_ACCESS. */
  hostAccess: 37,
  /** The guest asked to be ended: SNP, GHCB termination (set, reason); TDX, ReportFatalError (-1, error code). */
  termination: 38,
  /**
   * The host, or a paravisor in its place, used the page at `gpa`, which the guest gave it for that, as `use` (PAGE_USE). `code`:
   * hypercall whose parameters it holds, otherwise 0.
   */
  pageUse: 39,
  /** A request in a GHCB: exit code and both information words (low halves). */
  ghcb: 40,
  /** A GHCB request that was not served: exit code (or MSR function) and reason (GHCB_ERROR). */
  ghcbRefused: 41,
  /** A nested page fault or EPT violation that the host got: address, information halves. */
  nestedFault: 42,
} as const;

/** States of a guest page, as `pageState` reports them. */
export const PAGE_STATE = {
  /** Readable and writable by the host. */
  shared: 0,
  /** Assigned (SNP) or added (TDX), but not validated or accepted: the guest cannot use it yet. */
  pending: 1,
  private: 2,
  /** Taken from the guest by the host (unassigned, blocked or removed). */
  none: 3,
} as const;

export const PRIVILEGED_OPERATION = {
  pvalidate: 1,
  rmpadjust: 2,
  rmpquery: 3,
  vmsaCreate: 4,
  pageStateChange: 5,
  accept: 6,
  attributeWrite: 7,
  mapGpa: 8,
  enterLower: 9,
} as const;

export const INJECTION_OUTCOME = {
  /** Went through the IDT when the architecture allows it. */
  delivered: 0,
  /** Went through the IDT although IF, a shadow or the task priority forbade it. */
  illegal: 1,
  /** Refused by the processor or its mode (restricted or alternate injection, the TDX module). */
  refused: 2,
  /** Filtered by the paravisor. */
  filtered: 3,
} as const;

export const PAGE_USE = {
  hypercallInput: 1,
  hypercallOutput: 2,
  synicMessages: 3,
  synicEventFlags: 4,
  monitor: 5,
  ghcb: 6,
  referenceTsc: 7,
  vpAssist: 8,
  quote: 9,
  guestMessage: 10,
  doorbell: 11,
} as const;

export const HOST_ACCESS = { clear: 0, ciphertext: 1, zeros: 2, refused: 3, poisoned: 4 } as const;

export interface EventRow {
  readonly name: string;
  readonly class: number;
  /** Names of a, b, c, d, as far as they are used. */
  readonly arguments: readonly string[];
}

export const EVENT_ROWS: Readonly<Record<number, EventRow>> = {
  [EVENT.io]: row('io', EVENT_CLASS.io, 'port', 'size', 'write', 'value'),
  [EVENT.mmio]: row('mmio', EVENT_CLASS.io, 'gpa', 'size', 'write', 'value'),
  [EVENT.msrRead]: row('msr-read', EVENT_CLASS.msr, 'index', 'lo', 'hi'),
  [EVENT.msrWrite]: row('msr-write', EVENT_CLASS.msr, 'index', 'lo', 'hi'),
  [EVENT.msrFault]: row('msr-fault', EVENT_CLASS.msr, 'index', 'write', 'lo', 'hi'),
  [EVENT.cpuid]: row('cpuid', EVENT_CLASS.cpuid, 'leaf', 'subleaf', 'eax', 'ebx'),
  [EVENT.hypercall]: row('hypercall', EVENT_CLASS.hypercall, 'code', 'status', 'reps', 'fast'),
  [EVENT.hypercallRefused]: row('hypercall-refused', EVENT_CLASS.hypercall, 'cpl'),
  [EVENT.halt]: row('halt', EVENT_CLASS.exit),
  [EVENT.tripleFault]: row('triple-fault', EVENT_CLASS.lifecycle),
  [EVENT.interruptRequested]: row('interrupt-requested', EVENT_CLASS.interrupt, 'vector', 'source'),
  [EVENT.interruptAcknowledged]: row('interrupt-acknowledged', EVENT_CLASS.interrupt, 'vector'),
  [EVENT.ipi]: row('ipi', EVENT_CLASS.interrupt, 'vector', 'target'),
  [EVENT.nmi]: row('nmi', EVENT_CLASS.interrupt),
  [EVENT.init]: row('init', EVENT_CLASS.lifecycle),
  [EVENT.startup]: row('startup', EVENT_CLASS.lifecycle, 'vector'),
  [EVENT.timerArmed]: row('timer-armed', EVENT_CLASS.timer, 'timer', 'due'),
  [EVENT.timerExpired]: row('timer-expired', EVENT_CLASS.timer, 'timer'),
  [EVENT.message]: row('message', EVENT_CLASS.synic, 'sint', 'type', 'size'),
  [EVENT.messageQueued]: row('message-queued', EVENT_CLASS.synic, 'sint', 'type', 'waiting'),
  [EVENT.eventFlag]: row('event-flag', EVENT_CLASS.synic, 'sint', 'flag', 'already'),
  [EVENT.vmbusReceived]: row('vmbus-received', EVENT_CLASS.vmbus, 'type', 'size'),
  [EVENT.vmbusSent]: row('vmbus-sent', EVENT_CLASS.vmbus, 'type', 'size'),
  [EVENT.overlay]: row('overlay', EVENT_CLASS.memory, 'slot', 'gpa', 'shown'),
  [EVENT.tlbFlush]: row('tlb-flush', EVENT_CLASS.memory, 'vps', 'ranges'),
  [EVENT.crash]: row('crash', EVENT_CLASS.lifecycle, 'p0', 'message-bytes'),
  [EVENT.end]: row('end', EVENT_CLASS.lifecycle, 'reason'),
  [EVENT.serial]: row('serial', EVENT_CLASS.console, 'unit', 'byte'),
  // Indices into EXIT_KINDS and EXIT_ROUTES; contexts as the silicon numbers them, -1: the host.
  [EVENT.exit]: row('exit', EVENT_CLASS.exit, 'kind', 'route', 'from', 'to'),
  [EVENT.confidentialException]: row(
    'confidential-exception',
    EVENT_CLASS.exception,
    'vector',
    'reason',
    'context',
  ),
  [EVENT.pageState]: row('page-state', EVENT_CLASS.page, 'gpa', 'pages', 'state', 'context'),
  [EVENT.privilegedOperation]: row(
    'privileged-operation',
    EVENT_CLASS.privileged,
    'operation',
    'gpa',
    'status',
    'context',
  ),
  [EVENT.visibility]: row('visibility', EVENT_CLASS.page, 'gpa', 'pages', 'shared', 'status'),
  [EVENT.hypercallRoute]: row('hypercall-route', EVENT_CLASS.hypercall, 'code', 'from', 'to', 'relayed'),
  [EVENT.mmioRoute]: row('mmio-route', EVENT_CLASS.io, 'gpa', 'private', 'write', 'to'),
  [EVENT.injection]: row('injection', EVENT_CLASS.exception, 'vector', 'type', 'outcome', 'context'),
  [EVENT.hostAccess]: row('host-access', EVENT_CLASS.page, 'gpa', 'bytes', 'write', 'outcome'),
  [EVENT.ghcb]: row('ghcb', EVENT_CLASS.exit, 'code', 'info1', 'info2'),
  [EVENT.ghcbRefused]: row('ghcb-refused', EVENT_CLASS.exit, 'code', 'reason'),
  [EVENT.nestedFault]: row('nested-fault', EVENT_CLASS.page, 'gpa', 'lo', 'hi'),
  [EVENT.termination]: row('termination', EVENT_CLASS.lifecycle, 'set', 'reason'),
  [EVENT.pageUse]: row('page-use', EVENT_CLASS.page, 'gpa', 'use', 'code'),
};

function row(name: string, eventClass: number, ...names: string[]): EventRow {
  return { name, class: eventClass, arguments: names };
}
