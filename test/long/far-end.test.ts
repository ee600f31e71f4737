/**
 * The far end of the spectrum: under a paravisor that says nothing of isolation, a program that knows nothing of it either.
 * Debian's memtest86+ fills memory with patterns that it wants back, and the host sees none of them.
 */
import { expect, test } from 'vitest';
import { findConfiguration, makeMachine, type Configuration } from '../../src/machine/configurations.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { Apt } from '../../src/node/apt.ts';
import { defaultCacheDir } from '../../src/node/cache-folder.ts';
import { Cache } from '../../src/node/cache.ts';
import { readDeb } from '../../src/node/deb.ts';
import { packageBytes, type PackageSource } from '../../src/node/kernel.ts';
import { paravisorBuild } from '../../src/node/paravisor-build.ts';
import { partsWithout } from '../../src/paravisor/parts.ts';
import { findCpuModel, type CpuModel } from '../../src/x86/cpuid.ts';

const PAGE = 4096;
const MEMORY = 256 * 2 ** 20;
const BUDGET = 1_500_000_000;
/** At most: the paravisor's own two pages for each processor that the host reads, and three of the guest. */
const SHARED_PAGES = 5;

async function memtest(): Promise<Uint8Array | string> {
  const cache = new Cache(defaultCacheDir());
  const source: PackageSource = { cache, apt: new Apt(cache), offline: false, say: () => undefined };
  try {
    const { bytes, entry } = await packageBytes('memtest86+', source);
    const [image] = await readDeb(bytes, entry.name, (path) => path === 'boot/memtest86+x64.bin');
    return image?.data ?? 'the package has no image for 64 bits';
  } catch (error) {
    return (error as Error).message;
  }
}

/** Pages that hold one word over and over, neither zeros nor what firmware leaves. */
function patterned(machine: Machine): number[] {
  const found: number[] = [];
  for (let page = 0; page < MEMORY / PAGE; page++) {
    const bytes = machine.truth.read(page * PAGE, PAGE);
    if (bytes === undefined) continue;
    const words = new BigUint64Array(bytes.buffer, bytes.byteOffset, PAGE / 8);
    if (words[0] !== 0n && words.every((word) => word === words[0])) found.push(page);
  }
  return found;
}

test.for([['snp-paravisor'], ['tdx-paravisor']] as const)(
  '%s: memtest86+ runs, and its memory is private',
  async ([name], context) => {
    const kernel = await memtest();
    if (typeof kernel === 'string') return context.skip(kernel);
    const configuration = findConfiguration(name) as Configuration;
    const outcome = makeMachine(configuration, {
      kernel,
      // It has no use for one.
      initrd: new Uint8Array(PAGE),
      commandLine: 'console=ttyS0,115200 nopause nobench',
      memoryBytes: MEMORY,
      vpCount: 1,
      model: findCpuModel(configuration.vendor === 'intel' ? 'SapphireRapids' : 'EPYC-Milan') as CpuModel,
      seed: 1n,
      startDate: 1_767_225_600,
      hyperv: true,
      withheld: [],
      paravisor: { build: paravisorBuild(), parts: partsWithout([]), hideIsolation: true },
      sink: { mask: 0, emit: () => undefined },
    });
    if (!outcome.ok) throw new Error(outcome.error.what);
    const { machine } = outcome;
    let screen = '';
    machine.onSerial = (unit, bytes) => {
      if (unit === 0) screen += Buffer.from(bytes).toString('latin1');
    };
    expect(machine.run(BUDGET).kind).toBe('budget');
    expect(screen).toContain('Memtest86+');
    expect(screen).toContain('Status: Testing');
    expect(screen).toMatch(/Pass: +0 +Errors: 0 /);
    expect(screen).not.toMatch(/Errors: [1-9]/);

    const pages = patterned(machine);
    const shared = Array.from({ length: MEMORY / PAGE }, (_, page) => page).filter(
      // No bytes: whether the host could write there.
      (page) => machine.view.write(page * PAGE, new Uint8Array(0)).ok,
    );
    console.log(
      `${name}: ${pages.length} pages hold a pattern, ${shared.length} of ${MEMORY / PAGE} are shared`,
    );
    expect(pages.length).toBeGreaterThan(500);
    expect(shared.length).toBeLessThanOrEqual(SHARED_PAGES);
    for (const page of pages.filter((_, k) => k % 16 === 0)) {
      const seen = machine.view.read(page * PAGE, PAGE);
      const truth = machine.truth.read(page * PAGE, 8) as Uint8Array;
      if (seen.ok) expect(Buffer.from(seen.bytes).includes(Buffer.from(truth))).toBe(false);
    }
  },
);
