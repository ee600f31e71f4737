/** `vitrine boot --board test`: a multiboot program or a BIOS image on the bare test board. */
import { basename } from 'node:path';
import { bootTestBoard } from '../machine/test-board/boot.ts';
import { boardIdleStatus } from '../machine/test-board/board.ts';
import { sentence } from '../launch/outcome.ts';
import { cpuModels, findCpuModel } from '../x86/cpuid.ts';
import { stateHash } from '../machine/state-hash.ts';
import { testBoardPlatform } from '../machine/test-board/platform.ts';
import type { TestBoardConfig } from '../machine/test-board/state.ts';
import { besideInterpreter } from './check.ts';
import { describeDivergence } from './divergence.ts';
import { engineFor } from './engine-choice.ts';
import type { Machine, StopReason } from '../machine/machine.ts';
import { STATUS, UserError } from './errors.ts';
import { readUserFile } from './kernel.ts';
import { checkWritable, writeWhole } from './output.ts';

export interface BoardOptions {
  readonly kernel?: string;
  readonly bios?: string;
  readonly initrd?: string;
  readonly append?: string;
  readonly memory: number;
  readonly cpus: number;
  readonly cpuModel: string;
  readonly without: readonly string[];
  readonly hyperv: boolean;
  readonly seed: bigint;
  readonly date: number;
  readonly limit: number;
  readonly timeout: number;
  readonly engine?: string;
  readonly translateAfter?: number;
  readonly json?: string;
}

/** What --without may name: features of any model, and what belongs to the board's APICs. */
const hidable = (): Set<string> =>
  new Set([...cpuModels().flatMap(({ features }) => [...features]), 'x2apic', 'tsc-deadline']);

const SLICE = 5_000_000;

/** What --json writes when a program has ended: the same for each engine. */
function writeReport(path: string, machine: Machine, reason: StopReason): void {
  const { instructions, exits } = machine;
  const report = { ended: reason, instructions, exits, stateHash: stateHash(machine) };
  const text = `${JSON.stringify(report, undefined, 2)}\n`;
  if (path === '-') process.stdout.write(text);
  else writeWhole(path, text, '--json');
}

/** Runs to the program's own exit status (port 0xF4), a halt that nothing ends, or a limit. COM1 goes to standard output. */
export async function bootBoard(options: BoardOptions): Promise<number> {
  const model = findCpuModel(options.cpuModel);
  if (options.json !== undefined && options.json !== '-') checkWritable(options.json, '--json');
  if (model === undefined)
    throw new UserError(
      `there is no processor model '${options.cpuModel}': give EPYC-Milan or SapphireRapids with --cpu-model`,
    );
  const foreign = options.without.find((feature) => !hidable().has(feature));
  if (foreign !== undefined)
    throw new UserError(
      `there is no CPU feature '${foreign}' to take away: give --without one of ${[...hidable()].sort().join(', ')}`,
    );
  if ((options.kernel === undefined) === (options.bios === undefined))
    throw new UserError('the test board needs one image: give --kernel FILE (multiboot) or --bios FILE');
  const source =
    options.bios !== undefined
      ? { kind: 'bios' as const, image: readUserFile(options.bios, 'BIOS image') }
      : {
          kind: 'kernel' as const,
          image: readUserFile(options.kernel as string, 'kernel'),
          commandLine: `${basename(options.kernel as string)} ${options.append ?? ''}`.trim(),
          modules:
            options.initrd === undefined
              ? []
              : [{ bytes: readUserFile(options.initrd, 'initrd'), commandLine: basename(options.initrd) }],
        };
  const outcome = bootTestBoard({
    source,
    memoryBytes: options.memory,
    cpus: options.cpus,
    model,
    without: options.without,
    hyperv: options.hyperv,
    seed: options.seed,
    startDate: options.date,
    engine: engineFor(options.engine),
  });
  if (!outcome.ok) throw new UserError(sentence(outcome.error));
  const { machine, platform } = outcome;
  if (options.translateAfter !== undefined) machine.engine.translateAfter(options.translateAfter);
  machine.onSerial = (_unit, bytes) => void process.stdout.write(Uint8Array.from(bytes));
  const check =
    options.engine === 'check'
      ? besideInterpreter(machine, (kind, config) =>
          kind === 'test-board' ? testBoardPlatform(config as TestBoardConfig) : undefined,
        )
      : undefined;
  const started = performance.now();
  for (;;) {
    const budget = Math.max(1, Math.min(SLICE, options.limit - machine.instructions));
    const reason = check === undefined ? machine.run(budget) : check.run(budget, Infinity);
    if ('agreed' in reason) {
      process.stderr.write(await describeDivergence(reason));
      return STATUS.failed;
    }
    if (check !== undefined && reason.kind !== 'budget') {
      const [first] = check.differences();
      if (first !== undefined) {
        process.stderr.write(
          `vitrine: the engines differ at the end: ${first.what}: ${first.first}, ${first.second}\n`,
        );
        return STATUS.failed;
      }
      process.stderr.write(
        `vitrine: the engines agree on ${machine.instructions} instructions, state hash ${stateHash(machine)}\n`,
      );
    }
    if (options.json !== undefined && reason.kind !== 'budget') writeReport(options.json, machine, reason);
    switch (reason.kind) {
      case 'exit':
        return reason.status;
      case 'end':
        if (reason.reason === 'power-off' || reason.reason === 'hibernate') return STATUS.ok;
        process.stderr.write(
          `vitrine: the program ended by ${reason.reason} after ${machine.instructions} instructions\n`,
        );
        return STATUS.guestDied;
      case 'idle': {
        const status = boardIdleStatus(platform.state);
        if (status === undefined)
          process.stderr.write(
            `vitrine: all processors wait and nothing will wake them, after ${machine.instructions} instructions\n`,
          );
        else
          process.stderr.write(
            `vitrine: the image stopped at POST 0x${platform.state.post.toString(16)}, after ${machine.instructions} instructions\n`,
          );
        return status ?? STATUS.guestDied;
      }
      case 'budget':
        break;
      default:
        process.stderr.write(
          `vitrine: the program ended by ${reason.kind} after ${machine.instructions} instructions\n`,
        );
        return STATUS.guestDied;
    }
    if (
      machine.instructions >= options.limit ||
      (options.timeout > 0 && performance.now() - started > options.timeout * 1000)
    ) {
      process.stderr.write(`vitrine: the limit was reached after ${machine.instructions} instructions\n`);
      return STATUS.limit;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}
