/** Other Debian kernels than the default one, each by package name and by a .deb file, against the list of warnings. */
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { Cache } from '../../src/node/cache.ts';
import { defaultCacheDir } from '../../src/node/cache-folder.ts';
import { vitrine, whyNoKernel } from '../e2e/vitrine.ts';
import { compareWarnings } from '../e2e/warnings.ts';

const folder = mkdtempSync(join(tmpdir(), 'vitrine-kernels-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Metapackages, so that this follows what apt offers. */
const KERNELS = [
  {
    name: "Debian's 6.1 cloud kernel",
    metapackage: 'linux-image-cloud-amd64',
    release: /^6\.1\.\S+cloud-amd64$/,
  },
  {
    name: "Debian's 6.12 generic kernel",
    metapackage: 'linux-image-6.12-amd64',
    release: /^6\.12\.\d[^-]*-amd64$/,
  },
] as const;

describe.for(KERNELS)('$name', ({ metapackage, release }) => {
  const missing = whyNoKernel(metapackage);
  const booting = test.skipIf(missing !== undefined);
  const reason = missing === undefined ? '' : ` (skipped: ${missing})`;
  const look = (how: readonly string[], cpus: number): string => {
    const ran = vitrine([
      'boot',
      ...how,
      '--cpus',
      String(cpus),
      '--run',
      'uname -r; nproc; grep -o hv_vmbus /proc/modules | head -1; dmesg -r',
    ]);
    expect(ran.status, ran.stderr).toBe(0);
    const [running = '', count, module, ...rest] = ran.stdout.toString().split('\n');
    expect(running).toMatch(release);
    expect(count).toBe(String(cpus));
    expect(module).toBe('hv_vmbus');
    const dmesg = rest.join('\n');
    expect(dmesg).toMatch(/hv_vmbus: Vmbus version:\d+\.\d+/);
    expect(compareWarnings(dmesg, { configuration: 'plain', release: running, model: 'EPYC-Milan' })).toEqual(
      [],
    );
    return running;
  };

  booting(`boots by package name${reason}`, () => {
    look(['--kernel-package', metapackage], 1);
  });

  booting(`goes through the matrix by a metapackage${reason}`, () => {
    const ran = vitrine(['matrix', '--only', 'plain', '--kernel-package', metapackage, '--json', '-']);
    expect(ran.status, ran.stderr).toBe(0);
    expect(JSON.parse(ran.stdout.toString())).toMatchObject({ boots: [{ outcome: 'booted' }] });
  });

  booting(`boots from a .deb file, with 2 processors${reason}`, () => {
    const cache = new Cache(defaultCacheDir());
    const [entry] = cache.find((name) => release.test(name.slice('linux-image-'.length, name.indexOf('_'))));
    expect(entry).toBeDefined();
    const file = join(folder, 'kernel.deb');
    copyFileSync(join(cache.dir, entry?.file ?? ''), file);
    look(['--kernel', file, '--offline'], 2);
  });
});

/** What 6.1 knows of paravisors: the isolation leaf. It clears shared pages through their private addresses, which is #MC (vector 18). */
const LEAVES = [
  ['snp-paravisor', '0xba2'],
  ['tdx-paravisor', '0xbe3'],
] as const;

describe.for(LEAVES)("Debian's 6.1 cloud kernel in %s", ([configuration, groupB]) => {
  const [{ metapackage, release }] = KERNELS;
  const missing = whyNoKernel(metapackage);
  const reason = missing === undefined ? '' : ` (skipped: ${missing})`;

  test.skipIf(missing !== undefined).for([1, 4])(
    `%i processors: reaches user space as the guest of a paravisor, and its vmbus_connect ends at the first shared page${reason}`,
    (cpus) => {
      const ran = vitrine([
        'boot',
        configuration,
        '--kernel-package',
        metapackage,
        '--cpus',
        String(cpus),
        '--run',
        'uname -r; nproc; grep -cE "sev|tdx" /proc/cpuinfo; dmesg',
      ]);
      expect(ran.status, ran.stderr).toBe(0);
      const [running = '', count, flags, ...rest] = ran.stdout.toString().split('\n');
      expect(running).toMatch(release);
      expect([count, flags]).toEqual([String(cpus), '0']);
      const dmesg = rest.join('\n');
      expect(dmesg).toContain(`Hyper-V: Isolation Config: Group A 0x1, Group B ${groupB}`);
      expect(dmesg).not.toContain('Disabled fast string operations');
      // An entry of early_idt_handler_array has 9 bytes: 0xa2 is the one of vector 18.
      expect(dmesg).toContain('early_idt_handler_array+0xa2/');
      expect(dmesg).toMatch(/RIP: \S+:vmbus_connect\+/);
    },
  );
});
