/** Boots configurations on worker threads, as many at a time as there are processors. */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { BootOptions } from '../boot.ts';
import { UserError } from '../errors.ts';
import type { Observed, Progress } from './observe-boot.ts';
import type { WorkerMessage, WorkerRequest } from './worker.ts';

export interface Boot {
  readonly label: string;
  readonly options: BootOptions;
}

export async function observeAll(
  boots: readonly Boot[],
  onProgress: (label: string, progress: Progress) => void,
  record = false,
): Promise<readonly Observed[]> {
  const results: Observed[] = [];
  const workers = new Set<Worker>();
  const queue = [...boots.entries()];
  const drain = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const [index, { label, options }] = next;
      const worker = new Worker(new URL('./worker.ts', import.meta.url), {
        workerData: { options, record } satisfies WorkerRequest,
      });
      workers.add(worker);
      results[index] = await observed(worker, label, (progress) => onProgress(label, progress));
      workers.delete(worker);
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(availableParallelism(), boots.length) }, drain));
  } finally {
    // One that was refused ends all: its input is that of the others.
    queue.length = 0;
    await Promise.all([...workers].map((worker) => worker.terminate()));
  }
  return results;
}

function observed(
  worker: Worker,
  label: string,
  onProgress: (progress: Progress) => void,
): Promise<Observed> {
  return new Promise((resolve, reject) => {
    worker.on('message', (message: WorkerMessage) => {
      if (message.kind === 'progress') onProgress(message.progress);
      else if (message.kind === 'observed') resolve(message.observed);
      else reject(new UserError(message.message));
    });
    worker.on('error', reject);
    worker.on('exit', (code) => reject(new Error(`the worker of ${label} left with status ${code}`)));
  });
}
