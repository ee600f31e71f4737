/** Debian's gdb drives a booting kernel: VITRINE_VMLINUX names a vmlinux of that kernel; without it the guest's own symbols are taken. */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, expect, test } from 'vitest';
import { parseSymbols, symbolElf } from '../../scripts/symbol-elf.ts';
import { PROGRAM, vitrine, whyNoKernel } from '../e2e/vitrine.ts';

const missing = spawnSync('gdb', ['--version']).status === 0 ? whyNoKernel() : 'there is no gdb';
const reason = missing === undefined ? '' : ` (skipped: ${missing})`;
const folder = mkdtempSync(join(tmpdir(), 'vitrine-gdb-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function vmlinux(): string {
  const given = process.env['VITRINE_VMLINUX'];
  if (given !== undefined) return given;
  const listed = vitrine(['boot', '--offline', '--append', 'nokaslr', '--run', 'gzip -c /proc/kallsyms']);
  expect(listed.status, listed.stderr).toBe(0);
  const path = join(folder, 'vmlinux.symbols');
  writeFileSync(path, symbolElf(parseSymbols(gunzipSync(listed.stdout).toString('latin1'))));
  return path;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const COMMANDS = (port: number): string => `
set pagination off
set confirm off
set remotetimeout 600
set tcp connect-timeout 60
target remote 127.0.0.1:${port}
echo @threads\\n
info threads
echo @start\\n
break start_kernel
continue
delete
backtrace 4
echo @step\\n
stepi
stepi
stepi
info registers rip rsp
x/i $pc
echo @memory\\n
x/s (char *) &linux_banner
echo @watch\\n
watch *(unsigned int *) &system_state
continue
x/wx &system_state
delete
echo @second\\n
hbreak start_secondary
continue
info threads
backtrace 1
delete
echo @user\\n
break entry_SYSCALL_64
continue
delete
printf "user rip %lx\\n", $rcx
hbreak *$rcx
continue
printf "ring %d at %lx\\n", $cs & 3, $rip
delete
echo @end\\n
detach
`;

test.skipIf(missing !== undefined)(
  `break, step, backtrace, watch, threads, user space${reason}`,
  async () => {
    const symbols = vmlinux();
    const port = await freePort();
    const script = join(folder, 'commands.gdb');
    writeFileSync(script, COMMANDS(port));
    const boot = [
      'boot',
      '--offline',
      '--cpus',
      '2',
      '--append',
      'nokaslr',
      '--gdb',
      String(port),
      '--run',
      'exit 3',
    ];
    const machine = spawn(process.execPath, [PROGRAM, ...boot], { stdio: ['ignore', 'ignore', 'pipe'] });
    const status = new Promise<number | null>((resolve) => machine.on('close', resolve));
    let said = '';
    await new Promise<void>((resolve, reject) => {
      machine.stderr.on('data', (data: Buffer) => {
        said += data.toString();
        if (said.includes('target remote')) resolve();
      });
      machine.on('close', () => reject(new Error(said)));
    });
    const gdb = spawn('gdb', ['-nx', '-batch', '-x', script, symbols], { stdio: ['ignore', 'pipe', 'pipe'] });
    let text = '';
    gdb.stdout.on('data', (data: Buffer) => (text += data.toString()));
    gdb.stderr.on('data', (data: Buffer) => (text += data.toString()));
    await new Promise((resolve) => gdb.on('close', resolve));
    console.log(text);
    const part = (name: string): string => new RegExp(`^@${name}\\n([^@]*)`, 'm').exec(text)?.[1] ?? '';
    expect(part('threads')).toMatch(/1 +Thread 1 .*vCPU 0[^]*2 +Thread 2 .*vCPU 1/);
    expect(part('start')).toMatch(/Breakpoint 1,.* start_kernel/);
    expect(part('start')).toMatch(/#0 .*start_kernel[^]*#1 .*x86_64_start_reservations/);
    expect(part('step')).toMatch(/rip +0x[0-9a-f]+ +0x[0-9a-f]+ <(?:start_kernel|__fentry__)\+\d+>/);
    expect(part('memory')).toMatch(/Linux version 6\.12/);
    expect(part('watch')).toMatch(/Hardware watchpoint 2[^]*Old value = 0\nNew value = 1/);
    expect(part('watch')).toMatch(/^0xffffffff[0-9a-f]{8} <\S+>:\s+0x00000001$/m);
    expect(part('second')).toMatch(/\* 2 +Thread 2[^]*#0 .*start_secondary/);
    expect(part('user')).toMatch(/Breakpoint \d+,.* entry_SYSCALL_64/);
    const [, rip] = /user rip ([0-9a-f]+)/.exec(part('user')) ?? [];
    expect(part('user')).toContain(`ring 3 at ${rip}\n`);
    expect(BigInt(`0x${rip}`)).toBeLessThan(1n << 47n);
    expect(await status).toBe(3);
  },
);
