/** A machine with the test board, made from files: a multiboot kernel, or a BIOS image at the reset vector. */
import { launchBios } from '../../launch/bios.ts';
import type { Directive } from '../../launch/directives.ts';
import { resetEntry } from '../../launch/entry-state.ts';
import { launchMultiboot } from '../../launch/multiboot.ts';
import type { Failure } from '../../launch/outcome.ts';
import type { EventSink } from '../../seats/events.ts';
import type { CpuModel } from '../../x86/cpuid.ts';
import { Machine, type EngineKind } from '../machine.ts';
import { DEFAULT_TEST_BOARD, boardPieces } from './board.ts';
import { type TestBoardPlatform, testBoardPlatform } from './platform.ts';
import type { TestBoardConfig } from './state.ts';

export interface TestBoardBoot {
  readonly source:
    | {
        readonly kind: 'kernel';
        readonly image: Uint8Array;
        /** Begins with the program's name. */
        readonly commandLine: string;
        readonly modules: readonly { readonly bytes: Uint8Array; readonly commandLine: string }[];
      }
    | { readonly kind: 'bios'; readonly image: Uint8Array };
  readonly memoryBytes: number;
  readonly cpus: number;
  readonly model: CpuModel;
  /** CPUID features to take away: of the model, or `x2apic` and `tsc-deadline` of the board. */
  readonly without?: readonly string[];
  /** A Hyper-V host owns the processors. */
  readonly hyperv?: boolean;
  readonly seed?: bigint;
  /** Seconds since 1970 (UTC) at virtual time 0. */
  readonly startDate?: number;
  readonly postPort?: number;
  readonly sink?: EventSink;
  readonly frameOrder?: (count: number) => Uint32Array;
  readonly engine?: EngineKind;
}

export type TestBoardOutcome =
  { readonly ok: true; readonly machine: Machine; readonly platform: TestBoardPlatform } | Failure;

const TSC_HZ = 2_000_000_000;
const SILENT: EventSink = { mask: 0, emit: () => undefined };

export function bootTestBoard(boot: TestBoardBoot): TestBoardOutcome {
  const without = new Set(boot.without ?? []);
  const model: CpuModel = {
    ...boot.model,
    features: new Set([...boot.model.features].filter((feature) => !without.has(feature))),
  };
  const config: TestBoardConfig = {
    ...DEFAULT_TEST_BOARD,
    cpus: boot.cpus,
    memoryBytes: boot.memoryBytes,
    vendor: model.vendor,
    x2apic: !without.has('x2apic'),
    tscDeadline: !without.has('tsc-deadline'),
    physicalAddressBits: model.physicalAddressBits,
    startDate: boot.startDate ?? DEFAULT_TEST_BOARD.startDate,
    firmware: boot.source.kind === 'kernel',
    hyperv: boot.hyperv ?? false,
    postPort: boot.postPort ?? DEFAULT_TEST_BOARD.postPort,
  };
  const launch = directives(boot, config, model.signature);
  if (!launch.ok) return launch;
  const machine = new Machine({
    model,
    vcpus: boot.cpus,
    seed: boot.seed ?? 1n,
    tscHz: TSC_HZ,
    tscAtZero: 0n,
    directives: launch.launch.directives,
    sink: boot.sink ?? SILENT,
    ...(boot.frameOrder === undefined ? {} : { frameOrder: boot.frameOrder }),
    initRegisters: resetEntry(model.signature),
    ...(boot.engine === undefined ? {} : { engine: boot.engine }),
  });
  const platform = testBoardPlatform(config);
  machine.attach(platform);
  return { ok: true, machine, platform };
}

function directives(
  { source, memoryBytes }: TestBoardBoot,
  config: TestBoardConfig,
  signature: number,
): { readonly ok: true; readonly launch: { readonly directives: readonly Directive[] } } | Failure {
  if (source.kind === 'bios') return launchBios({ image: source.image, memoryBytes, signature });
  const { image, commandLine, modules } = source;
  const vpCount = config.cpus;
  return launchMultiboot({
    image,
    commandLine,
    modules,
    memoryBytes,
    vpCount,
    boardPieces: boardPieces(config),
  });
}
