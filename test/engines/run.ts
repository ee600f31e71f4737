/** Runs a guest program on each engine: what it prints, and everything else that may not depend on the engine. */
import type { Assembler } from '../../guests/asm.ts';
import { multibootImage } from '../../guests/multiboot-image.ts';
import { stateHash } from '../../src/machine/state-hash.ts';
import { bootTestBoard } from '../../src/machine/test-board/boot.ts';
import { findCpuModel } from '../../src/x86/cpuid.ts';

/**
 * The translator makes regions of what has run four times, after slices of 5000 instructions; `mixed` of what has run 40
 * times, in slices of any length, so that every region is left and entered again in odd places.
 */
export const ENGINES = ['interpreter', 'translator', 'mixed'] as const;
export type EngineName = (typeof ENGINES)[number];

export interface EngineRun {
  /** The 64-bit result of the program. */
  readonly result: number;
  readonly instructions: number;
  readonly now: number;
  readonly exits: number;
  readonly hash: string;
}

export interface EngineReport {
  readonly run: EngineRun;
  /** Of the translator: regions made, and regions dropped because their code changed. */
  readonly regions: number;
  readonly drops: number;
}

const LIMIT = 20_000_000;

export function runOn(engine: EngineName, body: (asm: Assembler) => void, cpus = 1): EngineReport {
  const outcome = bootTestBoard({
    source: { kind: 'kernel', image: multibootImage(body), commandLine: 'guest', modules: [] },
    memoryBytes: 64 * 2 ** 20,
    cpus,
    model: findCpuModel('EPYC-Milan')!,
    engine: engine === 'interpreter' ? 'interpreter' : 'translator',
  });
  if (!outcome.ok) throw new Error(outcome.error.what);
  const { machine } = outcome;
  const { blocks, translator } = machine.engine;
  if (translator !== undefined) blocks.heat = engine === 'translator' ? 4 : 40;
  let text = '';
  machine.onSerial = (_unit, bytes) => {
    text += new TextDecoder().decode(bytes);
  };
  let x = 1;
  const slice = (): number => {
    if (engine !== 'mixed') return 5000;
    x = (Math.imul(x, 1103515245) + 12345) >>> 0;
    return 1 + (x % 1499);
  };
  while (machine.instructions < LIMIT) {
    const reason = machine.run(slice());
    if (reason.kind === 'exit') {
      return {
        run: {
          result: Number.parseInt(text, 16),
          instructions: machine.instructions,
          now: machine.now,
          exits: machine.exits,
          hash: stateHash(machine),
        },
        regions: translator?.counts.regions ?? 0,
        drops: translator?.counts.drops ?? 0,
      };
    }
    if (reason.kind !== 'budget') throw new Error(`the program ended by ${JSON.stringify(reason)}`);
    translator?.compile();
  }
  throw new Error('the program does not end');
}
