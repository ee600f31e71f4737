/** Boots the real Debian kernel through the command line, when apt or the cache has one. */
import { createHash, randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { vitrine, whyNoKernel } from './vitrine.ts';
import { compareWarnings } from './warnings.ts';

const missing = whyNoKernel();
const reason = missing === undefined ? '' : ` (skipped: no kernel: ${missing})`;
const booting = test.skipIf(missing !== undefined);

const LOOK = `uname -r; nproc; cut -d' ' -f1 /proc/uptime
cd /sys/devices/system/clocksource/clocksource0
cat current_clocksource
grep HVS /proc/interrupts
lsmod
dmesg -r`;

booting.for([
  [1, 'tsc', []],
  [4, 'tsc', []],
  [1, 'hyperv_clocksource_tsc_page', ['--hyperv-without', 'invariant-tsc']],
] as const)(
  `the kernel boots with %i processors and clocksource %s%s${reason}`,
  ([cpus, clocksource, more]) => {
    const { status, stdout, stderr } = vitrine(['boot', '--cpus', String(cpus), ...more, '--run', LOOK]);
    expect(status, stderr).toBe(0);
    const [release = '', count, uptime, clock, timers = '', ...rest] = stdout.toString().split('\n');
    const text = rest.join('\n');
    expect(release).toMatch(/^6\.12\.\S+cloud-amd64$/);
    expect(count).toBe(String(cpus));
    expect(Number(uptime)).toBeGreaterThan(0.1);
    expect(clock).toBe(clocksource);
    // Every processor has its synthetic timer at work.
    const interrupts = timers
      .trim()
      .split(/\s+/)
      .slice(1, 1 + cpus)
      .map(Number);
    expect(interrupts).toHaveLength(cpus);
    for (const interrupt of interrupts) expect(interrupt).toBeGreaterThan(50);
    expect(text).toMatch(/^hv_vmbus /m);
    expect(text).toContain('Hypervisor detected: Microsoft Hyper-V');
    expect(text).toMatch(/hv_vmbus: Vmbus version:\d+\.\d+/);
    expect(compareWarnings(text, { configuration: 'plain', release, model: 'EPYC-Milan' })).toEqual([]);
  },
);

booting(`without the hypervisor interface it is a bare machine with two processors${reason}`, () => {
  const look = `uname -r; nproc; cat /sys/devices/system/clocksource/clocksource0/current_clocksource
grep LOC /proc/interrupts
cat /proc/modules
dmesg -r`;
  const { status, stdout, stderr } = vitrine(['boot', '--cpus', '2', '--hyperv', 'off', '--run', look]);
  expect(status, stderr).toBe(0);
  const [release = '', count, clock, timers = '', ...rest] = stdout.toString().split('\n');
  const text = rest.join('\n');
  expect(count).toBe('2');
  expect(clock).toBe('tsc');
  for (const interrupts of timers.trim().split(/\s+/).slice(1, 3).map(Number))
    expect(interrupts).toBeGreaterThan(50);
  expect(text).not.toMatch(/Hypervisor detected|hv_vmbus/);
  expect(
    compareWarnings(text, { configuration: 'plain --hyperv off', release, model: 'EPYC-Milan' }),
  ).toEqual([]);
});

booting(`standard streams are byte-exact and the status is the command's${reason}`, () => {
  const data = randomBytes(300_000);
  const { stdout, stderr, status } = vitrine(
    [
      'boot',
      '--offline',
      '--run',
      'tee /tmp/copy | sha256sum >&2; printf "\\\\0\\\\377" >&2; cat /tmp/copy; exit 7',
    ],
    data,
  );
  expect(stdout.equals(data)).toBe(true);
  const digest = createHash('sha256').update(data).digest('hex');
  expect(stderr).toContain(`${digest}  -\n\0\xff`);
  expect(status).toBe(7);
});
