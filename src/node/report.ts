/** The report of `--json`: how the machine was made, how it ended, and what shows that two runs were the same. */
import type { Machine, StopReason } from '../machine/machine.ts';
import { stateHash } from '../machine/state-hash.ts';

export interface RunReport {
  /** What --config reads back. */
  readonly configuration: Readonly<Record<string, unknown>>;
  readonly kernel: { readonly name: string; readonly sha256: string } | undefined;
  readonly reason: string;
  readonly status: number;
  readonly seconds: number;
}

/** Why a run ended, in one word: a guest command's own 124 is told from a limit by it. */
export function endReason(
  reason: StopReason,
  how: { readonly timedOut: boolean; readonly interrupted: boolean; readonly left: boolean },
): string {
  if (how.interrupted) return 'interrupted';
  if (how.left) return 'left';
  if (how.timedOut) return 'timeout';
  switch (reason.kind) {
    case 'end':
      return reason.reason;
    case 'budget':
      return 'limit';
    default:
      return reason.kind;
  }
}

export function reportText(machine: Machine, report: RunReport): string {
  const { configuration, kernel, reason, status, seconds } = report;
  return `${JSON.stringify(
    {
      configuration,
      ...(kernel === undefined ? {} : { kernel }),
      end: { reason, status },
      instructions: machine.instructions,
      exits: machine.exits,
      exitRoutes: machine.exitCounts(),
      virtualNanoseconds: machine.now,
      stateHash: stateHash(machine),
      seconds,
    },
    null,
    2,
  )}\n`;
}
