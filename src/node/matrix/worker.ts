/** A worker thread boots one configuration: options in, progress and what was observed out. */
import { parentPort, workerData } from 'node:worker_threads';
import { Apt } from '../apt.ts';
import type { BootOptions } from '../boot.ts';
import { Cache } from '../cache.ts';
import { UserError } from '../errors.ts';
import { observeBoot, type Observed, type Progress } from './observe-boot.ts';

export type WorkerMessage =
  | { readonly kind: 'progress'; readonly progress: Progress }
  | { readonly kind: 'observed'; readonly observed: Observed }
  /** Bad input: one sentence. */
  | { readonly kind: 'refused'; readonly message: string };

const post = (message: WorkerMessage): void => parentPort?.postMessage(message);
export interface WorkerRequest {
  readonly options: BootOptions;
  readonly record: boolean;
}

const { options, record } = workerData as WorkerRequest;
const cache = new Cache(options.cacheDir);
try {
  // Whoever started this has fetched everything.
  const source = { cache, apt: new Apt(cache), offline: true, say: () => undefined };
  const observed = await observeBoot(options, source, (progress) => post({ kind: 'progress', progress }), {
    record,
  });
  post({ kind: 'observed', observed });
} catch (error) {
  if (!(error instanceof UserError)) throw error;
  post({ kind: 'refused', message: error.message });
}
