/** Boots the real Debian kernel as a fully enlightened SEV-SNP guest, when apt or the cache has one. */
import { expect, test } from 'vitest';
import { vitrine, whyNoKernel } from './vitrine.ts';
import { compareWarnings } from './warnings.ts';

const missing = whyNoKernel();
const reason = missing === undefined ? '' : ` (skipped: no kernel: ${missing})`;
const booting = test.skipIf(missing !== undefined);

booting(`snp: 4 processors, the lines that prove it, and no unexpected warning${reason}`, () => {
  const { status, stdout, stderr } = vitrine([
    'boot',
    'snp',
    '--cpus',
    '4',
    '--run',
    'uname -r; nproc; ls /dev/sev-guest; cat /sys/devices/system/cpu/sev/vmpl; dmesg -r',
  ]);
  expect(status, stderr).toBe(0);
  const [release = '', count, device, vmpl, ...rest] = stdout.toString().split('\n');
  const text = rest.join('\n');
  expect([count, device, vmpl]).toEqual(['4', '/dev/sev-guest', '0']);
  for (const line of [
    'Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP',
    'Hyper-V: Isolation Config: Group A 0x0, Group B 0x2',
    'SEV: SNP running at VMPL0.',
    'SEV: Using SNP CPUID table',
    'hv_vmbus: Vmbus version:5.3',
    'Initialized SEV guest driver (using VMPCK0 communication key)',
  ])
    expect(text).toContain(line);
  expect(compareWarnings(text, { configuration: 'snp', release, model: 'EPYC-Milan' })).toEqual([]);
});

booting(`snp-paravisor: 4 processors, a kernel that knows of vTOM and of nothing else${reason}`, () => {
  const { status, stdout, stderr } = vitrine([
    'boot',
    'snp-paravisor',
    '--cpus',
    '4',
    '--run',
    'uname -r; nproc; grep -c -w -e sev -e sev_es -e sev_snp /proc/cpuinfo; grep -o hv_vmbus /proc/modules | head -1; dmesg -r',
  ]);
  expect(status, stderr).toBe(0);
  const [release = '', count, flags, module, ...rest] = stdout.toString().split('\n');
  const text = rest.join('\n');
  expect([count, flags, module]).toEqual(['4', '0', 'hv_vmbus']);
  for (const line of [
    /Memory Encryption Features active: AMD SEV\s*$/m,
    /SEV: Status: vTom\s*$/m,
    /Hyper-V: Isolation Config: Group A 0x1, Group B 0xba2$/m,
    /hv_vmbus: Vmbus version:5\.3/,
  ])
    expect(text).toMatch(line);
  expect(compareWarnings(text, { configuration: 'snp-paravisor', release, model: 'EPYC-Milan' })).toEqual([]);
});

test.for([
  [['boot', 'snp', '--cpu-model', 'SapphireRapids'], /SapphireRapids cannot run 'snp'/],
  [['boot', 'sev'], /no configuration 'sev'/],
  [['boot', 'sev-es'], /no configuration 'sev-es'/],
  [
    ['boot', 'snp', '--memory', '128M', '--offline'],
    /128 MiB of memory are too little for a confidential VM/,
  ],
] as const)('%s ends with 2 and one sentence', ([args, sentence]) => {
  const { status, stderr } = vitrine([...args]);
  expect(status).toBe(2);
  expect(stderr).toMatch(sentence);
  expect(
    stderr
      .trim()
      .split('\n')
      .filter((line) => !line.includes('SHA-256')),
  ).toHaveLength(1);
});
