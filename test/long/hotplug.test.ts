/** Processors that Linux takes offline and brings back. */
import { expect, test } from 'vitest';
import { vitrine, whyNoKernel } from '../e2e/vitrine.ts';

const missing = whyNoKernel();
const reason = missing === undefined ? '' : ` (skipped: no kernel: ${missing})`;

const COMMAND = [
  'cd /sys/devices/system/cpu',
  'for k in 1 2 3; do echo 0 > cpu1/online; nproc; echo 1 > cpu1/online; nproc; done',
  'dmesg | grep -cE "WARNING: CPU|BUG:|do_boot_cpu failed"',
].join('; ');

test.skipIf(missing !== undefined).for(['plain', 'snp-paravisor', 'tdx-paravisor'])(
  `%s: a processor goes and comes back, three times${reason}`,
  (configuration) => {
    const { stdout, stderr } = vitrine(['boot', configuration, '--cpus', '2', '--run', COMMAND]);
    expect(stdout.toString().trim().split('\n'), stderr).toEqual(['1', '2', '1', '2', '1', '2', '0']);
  },
);

test.skipIf(missing !== undefined)(
  `tdx: Linux takes no processor of a TD offline (CC_ATTR_HOTPLUG_DISABLED)${reason}`,
  () => {
    const { stdout, stderr } = vitrine(['boot', 'tdx', '--cpus', '2', '--run', COMMAND]);
    expect(stderr).toContain('Operation not supported');
    expect(stdout.toString().trim().split('\n')).toEqual(['2', '2', '2', '2', '2', '2', '0']);
  },
);

test.skipIf(missing !== undefined)(
  `snp: a processor goes, and HvCallStartVirtualProcessor refuses one that runs (HV_STATUS_INVALID_VP_STATE)${reason}`,
  () => {
    const command =
      'cd /sys/devices/system/cpu; echo 0 > cpu1/online; nproc; echo 1 > cpu1/online; nproc; dmesg';
    const { stdout, stderr } = vitrine(['boot', 'snp', '--cpus', '2', '--run', command]);
    expect(stdout.toString().split('\n').slice(0, 2), stderr).toEqual(['1', '1']);
    expect(stdout.toString()).toContain('HvCallStartVirtualProcessor failed: 15');
  },
);
