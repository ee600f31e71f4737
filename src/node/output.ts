/** Files that a run leaves behind: checked before it starts, written whole or not at all. */
import {
  accessSync,
  closeSync,
  constants,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
  type Stats,
} from 'node:fs';
import { dirname, resolve } from 'node:path';
import { UserError } from './errors.ts';

export function errorCode(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? 'error';
}

/** Says before the run that its result could not be written after it. */
export function checkWritable(path: string, option: string): void {
  if (path === '-') throw new UserError(`${option} - is no file: give a name`);
  try {
    const stat = existing(path);
    if (stat?.isDirectory() === true) throw new UserError(`${option} ${path} is a folder: give a file`);
    accessSync(stat === undefined ? dirname(resolve(path)) : path, constants.W_OK);
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`cannot write ${option} ${path} (${errorCode(error)}): give another file`);
  }
}

/** Beside its place first, so that nobody ever sees half of it; a pipe or device is written as it is. */
export function writeWhole(path: string, data: Uint8Array | string, option: string): void {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    const stat = existing(path);
    if (stat !== undefined && !stat.isFile()) {
      writeFileSync(path, data);
      return;
    }
    writeFileSync(temporary, data);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw new UserError(`cannot write ${option} ${path} (${errorCode(error)}): give another file`);
  }
}

function existing(path: string): Stats | undefined {
  return statSync(path, { throwIfNoEntry: false });
}

const FLUSH_CHARACTERS = 1 << 16;

/** Text that comes in pieces. The file is made at the first flush: a run that cannot start leaves none. */
export class LateFile {
  readonly #path: string;
  readonly #what: string;
  readonly #option: string;
  #file: number | undefined;
  #buffer: string;

  constructor(path: string, what: string, option: string, start: string) {
    this.#path = path;
    this.#what = what;
    this.#option = option;
    this.#buffer = start;
  }

  write(text: string): void {
    this.#buffer += text;
    if (this.#buffer.length > FLUSH_CHARACTERS) this.#flush();
  }

  #flush(): void {
    try {
      this.#file ??= openSync(this.#path, 'w');
      for (let bytes = Buffer.from(this.#buffer); bytes.length > 0;)
        bytes = bytes.subarray(writeSync(this.#file, bytes));
    } catch (error) {
      throw new UserError(
        `cannot write ${this.#what} to ${this.#path} (${errorCode(error)}): give another file with ${this.#option}`,
      );
    }
    this.#buffer = '';
  }

  close(): void {
    this.#flush();
    if (this.#file !== undefined) closeSync(this.#file);
  }
}
