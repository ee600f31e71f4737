/** Resident memory of the process while a guest makes new code again and again. */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { NEW_CODE_GUEST } from '../guests/compute.ts';

const PROGRAM = fileURLToPath(new URL('../src/node/main.ts', import.meta.url));
/** The guest writes 96 MiB of pages full of functions again and again: more often than anybody waits for. */
const PASSES = 1_000_000;

export interface MemoryResult {
  /** Largest resident set in bytes in the second and in the last quarter of the run. */
  readonly early: number;
  readonly late: number;
  /** It was still at it when the time was over. */
  readonly sound: boolean;
}

function resident(pid: number | undefined): number {
  try {
    return Number(/VmRSS:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

export function measureNewCode(folder: string, minutes: number): Promise<MemoryResult> {
  const image = join(folder, 'new-code.elf');
  writeFileSync(image, NEW_CODE_GUEST.image(PASSES));
  return new Promise((resolve, reject) => {
    const args = ['--no-warnings', PROGRAM, 'boot', '--board', 'test', '--kernel', image];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'ignore'] });
    const readings: number[] = [];
    const poll = setInterval(() => readings.push(resident(child.pid)), 100);
    const end = setTimeout(() => child.kill('SIGKILL'), minutes * 60_000);
    child.stdout.resume();
    child.on('error', reject);
    child.on('close', (_status, signal) => {
      clearInterval(poll);
      clearTimeout(end);
      const quarter = (n: number): number =>
        Math.max(...readings.slice((readings.length * n) >> 2, (readings.length * (n + 1)) >> 2));
      resolve({ early: quarter(1), late: quarter(3), sound: signal === 'SIGKILL' });
    });
  });
}
