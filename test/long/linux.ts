/** A machine with the default kernel and an initramfs that runs a command, driven by a test in slices. */
import { findConfiguration, makeMachine, type Configuration } from '../../src/machine/configurations.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { Apt } from '../../src/node/apt.ts';
import { Cache } from '../../src/node/cache.ts';
import { defaultCacheDir } from '../../src/node/cache-folder.ts';
import { buildInitramfs, busyboxFromDeb } from '../../src/node/initramfs.ts';
import { packageBytes, resolveKernel, type PackageSource } from '../../src/node/kernel.ts';
import { paravisorBuild } from '../../src/node/paravisor-build.ts';
import type { EventSink } from '../../src/seats/events.ts';
import { findCpuModel, type CpuModel } from '../../src/x86/cpuid.ts';
import { partsWithout } from '../../src/paravisor/parts.ts';

export interface LinuxRequest {
  readonly configuration: string;
  readonly command: string;
  readonly append?: string;
  /** 512 MiB when absent. */
  readonly memoryBytes?: number;
  readonly sink?: EventSink;
}

export interface Linux {
  readonly machine: Machine;
  /** What the guest has written to its first UART so far; what its command has, in the frames of its second one. */
  console(): string;
  output(): string;
  /** Runs until the console shows `text`. False: the machine stopped before, or `limit` instructions were over. */
  runUntil(text: string, limit?: number): boolean;
}

const SLICE = 1_000_000;
const MODEL = { amd: 'EPYC-Milan', intel: 'SapphireRapids' } as const;
const LIMIT = 8_000_000_000;

export async function makeLinux(request: LinuxRequest): Promise<Linux> {
  const cache = new Cache(defaultCacheDir());
  const source: PackageSource = { cache, apt: new Apt(cache), offline: true, say: () => undefined };
  const found = await resolveKernel({}, source);
  const { bytes, entry } = await packageBytes('busybox-static', source);
  const configuration = findConfiguration(request.configuration) as Configuration;
  const outcome = makeMachine(configuration, {
    kernel: found.image,
    initrd: buildInitramfs({
      busybox: await busyboxFromDeb(bytes, entry.name, cache),
      modules: found.modules,
      command: request.command,
      extra: [],
    }),
    commandLine: `console=ttyS0,115200 panic=-1 quiet ${request.append ?? ''}`.trim(),
    memoryBytes: request.memoryBytes ?? 512 * 2 ** 20,
    vpCount: 1,
    model: findCpuModel(MODEL[configuration.vendor ?? 'amd']) as CpuModel,
    seed: 1n,
    startDate: 1_767_225_600,
    hyperv: true,
    withheld: [],
    paravisor: { build: paravisorBuild(), parts: partsWithout([]), hideIsolation: false },
    sink: request.sink ?? { mask: 0, emit: () => undefined },
  });
  if (!outcome.ok) throw new Error(outcome.error.what);
  const { machine } = outcome;
  let console = '';
  let output = '';
  machine.onSerial = (unit, written) => {
    const text = Buffer.from(written).toString('latin1');
    if (unit === 0) console += text;
    else output += text;
  };
  return {
    machine,
    console: () => console,
    output: () => output,
    runUntil(text, limit = LIMIT) {
      const end = machine.instructions + limit;
      while (machine.instructions < end) {
        const { kind } = machine.run(SLICE);
        if (console.includes(text)) return true;
        if (kind !== 'budget') return false;
      }
      return false;
    },
  };
}
