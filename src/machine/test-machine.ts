/** A machine for tests of small guests: what most of them do not care about is the same everywhere. */
import { findCpuModel, type CpuModel } from '../x86/cpuid.ts';
import { findConfiguration, makeMachine, type Configuration, type MachineRequest } from './configurations.ts';
import type { Machine } from './machine.ts';

/** A machine of the configuration `name` with the processor `model`: one VP, 64 MiB, seed 1, unless `request` says otherwise. */
export function testMachine(
  name: string,
  model: string,
  request: Partial<MachineRequest> & Pick<MachineRequest, 'kernel'>,
): Machine {
  const outcome = makeMachine(findConfiguration(name) as Configuration, {
    initrd: new Uint8Array(16),
    commandLine: '',
    memoryBytes: 64 << 20,
    vpCount: 1,
    model: findCpuModel(model) as CpuModel,
    seed: 1n,
    startDate: 0,
    hyperv: true,
    withheld: [],
    sink: { mask: 0, emit: () => undefined },
    ...request,
  });
  if (!outcome.ok) throw new Error(outcome.error.what);
  return outcome.machine;
}
