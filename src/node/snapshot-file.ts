/**
 * A snapshot as a file: zstd with a checksum over the machine and the shell's half of a --run conversation, so that a run that
 * was cut anywhere goes on as if it had not been.
 */
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { decodeValue, encodeValue } from '../machine/codec.ts';
import type { EngineKind, Machine } from '../machine/machine.ts';
import { restoreSnapshot, takeSnapshot } from '../machine/snapshot.ts';
import type { EventSink } from '../seats/events.ts';
import { UserError } from './errors.ts';
import { readUserFile } from './kernel.ts';
import { writeWhole } from './output.ts';
import { paravisorBuild } from './paravisor-build.ts';
import type { RunState } from './sessions.ts';

const MAGIC = 'vitrine snapshot file 1';
const MOST_BYTES = 2 ** 32 - 1;

interface SnapshotFile {
  readonly magic: string;
  /** `configuration` of the report of the run that was saved. */
  readonly configuration: string;
  readonly session: SavedSession;
  readonly machine: Uint8Array;
}

/** The shell's half of what was going on. */
export interface SavedSession {
  /** Present when the saved run was one of --run. */
  readonly run: RunState | undefined;
  /** Typed into the console, not yet taken by the guest. */
  readonly typed: Uint8Array;
  /** Virtual time up to which an idle guest had been offered input. */
  readonly skipTo: number;
}

export interface Resumed {
  readonly machine: Machine;
  readonly configuration: Readonly<Record<string, unknown>>;
  readonly session: SavedSession;
}

export function saveSnapshot(
  path: string,
  machine: Machine,
  configuration: Readonly<Record<string, unknown>>,
  session: SavedSession,
): void {
  const file: SnapshotFile = {
    magic: MAGIC,
    configuration: JSON.stringify(configuration),
    session,
    machine: takeSnapshot(machine),
  };
  const params = { [constants.ZSTD_c_checksumFlag]: 1, [constants.ZSTD_c_compressionLevel]: 1 };
  writeWhole(path, zstdCompressSync(encodeValue(file), { params }), '--snapshot');
}

export function resumeSnapshot(path: string, sink: EventSink, engine: EngineKind): Resumed {
  const refuse = (why: string): never => {
    throw new UserError(`snapshot ${path} ${why}: take it again with --snapshot`);
  };
  const bytes = readUserFile(path, 'snapshot');
  let file: SnapshotFile;
  let configuration: Record<string, unknown>;
  try {
    file = decodeValue(zstdDecompressSync(bytes, { maxOutputLength: MOST_BYTES })) as SnapshotFile;
    if (file.magic !== MAGIC) return refuse('is not one of this version');
    configuration = JSON.parse(file.configuration) as Record<string, unknown>;
  } catch (error) {
    if (error instanceof UserError) throw error;
    return refuse('is damaged or no snapshot');
  }
  const outcome = restoreSnapshot(file.machine, { sink, engine, paravisorBuild: paravisorBuild() });
  if (!outcome.ok) return refuse(`cannot be resumed, ${outcome.reason}`);
  return { machine: outcome.machine, configuration, session: file.session };
}
