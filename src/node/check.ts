/** `--engine check`: a machine beside one that only interprets. */
import { LockStep } from '../machine/lockstep.ts';
import type { Machine, Platform } from '../machine/machine.ts';
import { restoreSnapshot, takeSnapshot } from '../machine/snapshot.ts';

/** `platform` makes a platform that the snapshot of a machine cannot make by itself. */
export function besideInterpreter(
  machine: Machine,
  platform?: (kind: string, config: unknown) => Platform | undefined,
): LockStep {
  const twin = restoreSnapshot(takeSnapshot(machine), {
    sink: { mask: 0, emit: () => undefined },
    engine: 'interpreter',
    ...(platform === undefined ? {} : { platform }),
  });
  if (!twin.ok) throw new Error(`the twin of the machine: ${twin.reason}`);
  return new LockStep(machine, twin.machine);
}
