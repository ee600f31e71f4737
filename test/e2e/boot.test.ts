/** Boots the real Debian kernel through the command line, when apt or the cache has one. */
import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const program = fileURLToPath(new URL('../../bin/vitrine.js', import.meta.url));

function vitrine(args: readonly string[], input: Uint8Array = new Uint8Array(0)) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], {
    input,
    maxBuffer: 2 ** 26,
  });
  return { status, stdout: stdout.toString(), stderr: stderr.toString() };
}

const fetched = vitrine(['kernel', 'fetch']);
const available = fetched.status === 0;
const reason = available ? '' : ` (skipped: no kernel: ${fetched.stderr.trim().split('\n').at(-1) ?? ''})`;

test.skipIf(!available).for([1, 4])(`the kernel boots and sees %i processors${reason}`, (cpus) => {
  const { status, stdout } = vitrine(['boot', '--cpus', String(cpus), '--run', 'uname -r; nproc']);
  expect(stdout).toMatch(new RegExp(`^6\\.12\\.\\S+cloud-amd64\\n${cpus}\\n$`));
  expect(status).toBe(0);
});

test.skipIf(!available)(`the status of the guest's command is the exit status${reason}`, () => {
  expect(vitrine(['boot', '--run', 'exit 7']).status).toBe(7);
});

test.skipIf(!available)(`standard input reaches the guest byte for byte${reason}`, () => {
  const data = randomBytes(100_000);
  const { stdout, status } = vitrine(['boot', '--run', 'sha256sum'], data);
  expect(stdout).toBe(`${createHash('sha256').update(data).digest('hex')}  -\n`);
  expect(status).toBe(0);
});

test.for([
  [['boot', '--nonsense']],
  [['boot', 'snp']],
  [['boot', 'nowhere']],
  [['boot', '--cpus', '0']],
  [['boot', '--memory', 'lots']],
  [['boot', '--cpu-model', 'Z80']],
  [['boot', '--kernel', '/nonexistent/kernel']],
  [['nonsense']],
])('%j: bad input ends with status 2 and one line', ([args]) => {
  const { status, stderr } = vitrine(args as string[]);
  expect(status).toBe(2);
  expect(stderr).toMatch(/^vitrine: [^\n]+\n$/);
});
