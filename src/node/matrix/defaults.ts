/** The options of `vitrine matrix` when none are given, for tests and scripts that run it. */
import type { MatrixOptions } from './whole.ts';

export const DEFAULTS: Omit<MatrixOptions, 'cacheDir'> = {
  add: [],
  memory: 512 * 2 ** 20,
  cpus: 1,
  timeout: 0,
  seed: 1n,
  date: Date.UTC(2026, 0, 1) / 1000,
  realtime: false,
  hyperv: true,
  hypervWithout: [],
  paravisorWithout: [],
  hideIsolation: false,
  hashEvery: 0,
  gdbWait: false,
  offline: true,
};
