/**
 * Names of what stops a context, in events and reports. An event holds the index: append only, so that a trace outlives
 * versions.
 */
export const EXIT_KINDS = [
  'io',
  'mmio',
  'msr',
  'cpuid',
  'cr8',
  'hypercall',
  'hlt',
  'triple-fault',
  'budget',
  'cache',
  'monitor',
  'pause',
  'tsc',
  'pmc',
  'debug-register',
  'interrupt',
  'nested-fault',
  'not-validated',
  'page-state',
  'entry-failed',
  'vmgexit',
  'key-change',
  'tdcall',
  'tdvmcall',
  'context-entry',
  'context-exit',
  'machine-check',
  'control-register',
] as const;
export type ExitKind = (typeof EXIT_KINDS)[number];

/** Where an exit goes; an event holds the index. */
export const EXIT_ROUTES = ['guest', 'context', 'host', 'silicon'] as const;
export type ExitRoute = (typeof EXIT_ROUTES)[number];
