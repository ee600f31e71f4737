/** From what a configuration consists of to a machine whose launch the host has carried out. */
import type { HostConfig } from '../host/config.ts';
import type { Directive } from '../launch/directives.ts';
import { initEntry } from '../launch/entry-state.ts';
import { fail } from '../launch/outcome.ts';
import type { SiliconKind } from '../silicon/silicon.ts';
import type { MachineRequest, MakeOutcome } from './configurations.ts';
import { Machine, type Platform } from './machine.ts';
import type { ProgramAt } from './program.ts';

export interface MachineParts {
  readonly host: HostConfig;
  readonly directives: readonly Directive[];
  readonly platform: Platform;
  /** Without it that of an ordinary VM. */
  readonly silicon?: SiliconKind;
  /** Of the paravisor, when `silicon` has one. */
  readonly program?: ProgramAt;
}

export function assemble(request: MachineRequest, parts: MachineParts): MakeOutcome {
  const { model } = request;
  const { host, directives, platform, silicon, program } = parts;
  const machine = new Machine({
    model,
    vcpus: request.vpCount,
    seed: request.seed,
    tscHz: host.tscHz,
    tscAtZero: host.tscAtZero,
    directives,
    sink: request.sink,
    initRegisters: initEntry(model.signature),
    ...(silicon === undefined ? {} : { silicon }),
    ...(program === undefined ? {} : { program }),
    ...(request.frameOrder === undefined ? {} : { frameOrder: request.frameOrder }),
    ...(request.engine === undefined ? {} : { engine: request.engine }),
  });
  machine.attach(platform);
  const failure = machine.launch();
  return failure === undefined
    ? { ok: true, machine }
    : fail(failure, 'launch', 'report this: the launch of this configuration is our own');
}
