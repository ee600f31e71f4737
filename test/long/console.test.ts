/** The interactive console, and guests that die: what a person sees, and the exit status. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, expect, test } from 'vitest';
import { vitrine, whyNoKernel } from '../e2e/vitrine.ts';
import { hasScript, TerminalSession } from './terminal.ts';

const missing = hasScript ? whyNoKernel() : "there is no 'script' program";
const reason = missing === undefined ? '' : ` (skipped: ${missing})`;
const booting = test.skipIf(missing !== undefined);
const folder = mkdtempSync(join(tmpdir(), 'vitrine-console-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** BusyBox asks the terminal where its cursor is. */
const PROMPT = /vitrine:\S+# (?:\x1b\[6n)?$/;
const CTRL_A = '\x01';
const CTRL_C = '\x03';
const CTRL_Z = '\x1a';

booting(`a shell with job control; reboot reboots, poweroff ends with 0${reason}`, async () => {
  const terminal = new TerminalSession(['boot', '--offline']);
  await terminal.expect(/Ctrl-A x leaves/);
  await terminal.expect(PROMPT);
  // A key that comes before the shell has given the terminal to the job would be typed text.
  terminal.send('(while :; do echo tick; sleep 1; done)\r');
  await terminal.expect(/\ntick\r*\n/);
  terminal.send(CTRL_Z);
  await terminal.expect(/Stopped/);
  await terminal.expect(PROMPT);
  terminal.send('jobs\r');
  await terminal.expect(/\[1\].*Stopped/);
  await terminal.expect(PROMPT);
  terminal.send('fg\r');
  await terminal.expect(/\ntick\r*\n/);
  terminal.send(CTRL_C);
  await terminal.expect(PROMPT);
  terminal.send('echo status $?\r');
  await terminal.expect(/\nstatus 130\r*\n/);
  await terminal.expect(PROMPT);
  terminal.send(`${CTRL_A}h`);
  await terminal.expect(/Ctrl-A x {2}leave/);
  terminal.send('reboot\r');
  await terminal.expect(/Linux version/);
  await terminal.expect(PROMPT);
  terminal.send('poweroff\r');
  expect(await terminal.status).toBe(0);
});

booting(`a crash at the console gives 125, registers and a symbolised stack${reason}`, async () => {
  const symbols = join(folder, 'System.map');
  const listed = vitrine(['boot', '--offline', '--run', 'grep -i " [tw] " /proc/kallsyms | gzip']);
  expect(listed.status, listed.stderr).toBe(0);
  writeFileSync(symbols, gunzipSync(listed.stdout));
  const terminal = new TerminalSession(['boot', '--offline', '--symbols', symbols]);
  await terminal.expect(PROMPT);
  terminal.send('echo c > /proc/sysrq-trigger\r');
  await terminal.expect(/Kernel panic - not syncing: sysrq triggered crash/);
  const report = await terminal.expect(/last exits/);
  expect(report).toMatch(/vitrine: the guest died: it reported a crash \(0x/);
  expect(report).toMatch(/vp 0 rip [0-9a-f]{16}/);
  expect(report).toMatch(/vp 0 stack\r*\n {2}\w+\+0x[0-9a-f]+/);
  expect(report).toMatch(/sysrq_handle_crash\+0x/);
  expect(report).toMatch(/write_sysrq_trigger\+0x/);
  expect(await terminal.status).toBe(125);
});

booting(`Ctrl-A x leaves with 0 in the middle of a boot${reason}`, async () => {
  const terminal = new TerminalSession(['boot', '--offline']);
  await terminal.expect(/Linux version/);
  terminal.send(`${CTRL_A}x`);
  expect(await terminal.status).toBe(0);
});

booting.for([
  ['reboot -f', [], /the guest died: it reset after/],
  ['reboot', [], /the guest died: it reset after/],
  ['poweroff -f', [], /it powered off before the command of --run ended/],
  ['reboot -f', ['--append', 'reboot=t'], /the guest died: triple fault/],
  ['echo c > /proc/sysrq-trigger', [], /sysrq triggered crash[^]*the guest died: it reported a crash/],
  // Nothing is left that could wake it.
  ['echo o > /proc/sysrq-trigger; sleep 9', [], /powered off before/],
] as const)(`--run '%s' %j: a dead guest, 125${reason}`, ([command, more, words]) => {
  const { status, stderr } = vitrine(['boot', '--offline', ...more, '--run', command]);
  expect(stderr).toMatch(words);
  expect(stderr).toMatch(/vp 0 rip [0-9a-f]{16}[^]*last exits\n/);
  expect(status).toBe(125);
});
