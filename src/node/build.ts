/** Files and options in, a machine out. */
import { partsWithout } from '../paravisor/parts.ts';
import { paravisorBuild } from './paravisor-build.ts';
import { engineFor } from './engine-choice.ts';
import { statSync } from 'node:fs';
import { basename } from 'node:path';
import {
  findConfiguration,
  makeMachine,
  type Configuration,
  type MachineRequest,
} from '../machine/configurations.ts';
import type { Machine } from '../machine/machine.ts';
import { checkInitrd } from './initrd.ts';
import { checkKernel, checkMemory } from '../launch/kernel-check.ts';
import { sentence, type Failure } from '../launch/outcome.ts';
import type { EventSink } from '../seats/events.ts';
import { findCpuModel, type CpuModel } from '../x86/cpuid.ts';
import type { BootOptions } from './boot.ts';
import { UserError } from './errors.ts';
import { buildInitramfs, busyboxFromDeb } from './initramfs.ts';
import { packageBytes, readUserFile, resolveKernel, type Kernel, type PackageSource } from './kernel.ts';

export interface Built {
  readonly machine: Machine;
  readonly kernel: Pick<Kernel, 'name' | 'sha256' | 'package' | 'systemMap'>;
}

/** A machine with the kernel and the initramfs that the options ask for. */
export async function build(options: BootOptions, source: PackageSource, sink: EventSink): Promise<Built> {
  const { configuration, request, kernel } = await prepare(options, source, sink);
  const outcome = makeMachine(configuration, request);
  if (!outcome.ok) throw new UserError(sentence(outcome.error));
  return { machine: outcome.machine, kernel };
}

export interface Prepared {
  readonly configuration: Configuration;
  readonly request: MachineRequest;
  readonly kernel: Kernel;
}

/** Everything that a machine is made from. */
export async function prepare(
  options: BootOptions,
  source: PackageSource,
  sink: EventSink,
): Promise<Prepared> {
  const configuration = findConfiguration(options.configuration) as Configuration;
  expectGood(checkMemory(options.memory));
  const kernel = await resolveKernel(
    {
      ...(options.kernel === undefined ? {} : { file: options.kernel }),
      ...(options.kernelPackage === undefined ? {} : { package: options.kernelPackage }),
      ...(options.modules === undefined ? {} : { modulesDir: options.modules }),
    },
    source,
  );
  expectGood(checkKernel(kernel.image));
  const initrd =
    options.initrd === undefined
      ? await defaultInitramfs(options, source, kernel.modules)
      : await checkInitrd(readUserFile(options.initrd, 'initrd'), options.initrd);
  const request = {
    kernel: kernel.image,
    initrd,
    commandLine: commandLine(options),
    memoryBytes: options.memory,
    vpCount: options.cpus,
    model: findCpuModel(options.cpuModel) as CpuModel,
    seed: options.seed,
    startDate: options.date,
    hyperv: options.hyperv,
    withheld: options.hypervWithout,
    paravisor: {
      build: paravisorBuild(),
      parts: partsWithout(options.paravisorWithout),
      hideIsolation: options.hideIsolation,
    },
    sink,
    engine: engineFor(options.engine),
  };
  return { configuration, request, kernel };
}

/** Bad input costs no download. */
export function expectGood(outcome: { readonly ok: true } | Failure): void {
  if (!outcome.ok) throw new UserError(sentence(outcome.error));
}

function commandLine(options: BootOptions): string {
  return [
    'console=ttyS0,115200',
    'panic=-1',
    // Tests of the kernel's own cryptography: almost half of all instructions of a boot. A later parameter wins.
    'cryptomgr.notests',
    ...(options.run === undefined ? [] : ['quiet']),
    options.append ?? '',
  ]
    .join(' ')
    .trim();
}

async function defaultInitramfs(
  options: BootOptions,
  source: PackageSource,
  modules: Kernel['modules'],
): Promise<Uint8Array> {
  const { bytes, entry } = await packageBytes('busybox-static', source);
  return buildInitramfs({
    busybox: await busyboxFromDeb(bytes, entry.name, source.cache),
    modules,
    ...(options.run === undefined ? {} : { command: options.run }),
    extra: options.add.map(readAdded),
  });
}

/** HOST[:GUEST] of --add. */
function readAdded(text: string): { path: string; data: Uint8Array; mode: number } {
  const colon = text.indexOf(':');
  const host = colon < 0 ? text : text.slice(0, colon);
  const guest = colon < 0 ? basename(host) : text.slice(colon + 1);
  const parts = guest.split('/').filter((part) => part !== '');
  if (parts.length === 0 || guest.endsWith('/') || parts.some((part) => part === '.' || part === '..'))
    throw new UserError(`--add ${text} names no file in the guest: give HOST:GUEST`);
  return { path: parts.join('/'), data: readUserFile(host, '--add'), mode: statSync(host).mode & 0o777 };
}
