/** Runs the command line as a user does. */
import { spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Without the starter that looks for a newer Node.js: the tests run under one. */
const MAIN = fileURLToPath(new URL('../../src/node/main.ts', import.meta.url));
export const PROGRAM = fileURLToPath(new URL('../../bin/vitrine.js', import.meta.url));

export interface Ran {
  readonly status: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export function vitrine(
  args: readonly string[],
  input: Uint8Array = new Uint8Array(0),
  env = process.env,
): Ran {
  const { status, stdout, stderr } = spawnSync(process.execPath, [PROGRAM, ...args], {
    input,
    env,
    maxBuffer: 2 ** 28,
  });
  return { status, stdout, stderr: stderr.toString('latin1') };
}

/** As `vitrine`, without waiting: two can run at once. */
export function vitrineAsync(args: readonly string[], env = process.env): Promise<Ran> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['--no-warnings', MAIN, ...args], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on('data', (data: Buffer) => out.push(data));
    child.stderr.on('data', (data: Buffer) => err.push(data));
    child.on('close', (status) =>
      resolve({ status, stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString('latin1') }),
    );
  });
}

/** Why there is no kernel to boot, or undefined. Asks apt when the cache has none. */
export function whyNoKernel(name?: string): string | undefined {
  const fetch = ['kernel', 'fetch', ...(name === undefined ? [] : [name])];
  if (vitrine([...fetch, '--offline']).status === 0) return undefined;
  const fetched = vitrine(fetch);
  return fetched.status === 0 ? undefined : (fetched.stderr.trim().split('\n').at(-1) ?? 'no kernel');
}
