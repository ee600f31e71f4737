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
} as const;

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
};

function row(name: string, eventClass: number, ...names: string[]): EventRow {
  return { name, class: eventClass, arguments: names };
}
