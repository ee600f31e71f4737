/**
 * Downloaded files under the user's cache folder. A file's name carries its SHA-256, it is written beside its place and
 * renamed, and it is verified whenever it is used: a cut-off, poisoned or concurrently written cache is never believed.
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { CODE_FOLDER } from './cache-folder.ts';
import { UserError } from './errors.ts';
import { errorCode } from './output.ts';

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

export interface CacheEntry {
  readonly file: string;
  readonly name: string;
  readonly sha256: string;
  readonly bytes: number;
}

/** Of a process that was killed while it wrote. */
const LEFT_OVER = /^\.(?:[0-9a-f]{16}\.tmp|probe-[0-9a-f]{12})$/;

const FOLDERS = ['apt', CODE_FOLDER] as const;

export class Cache {
  readonly dir: string;

  constructor(dir: string) {
    this.dir = dir;
  }

  /** Makes the folder; a clear sentence when that cannot be. */
  prepare(): void {
    try {
      mkdirSync(this.dir, { recursive: true });
      const probe = join(this.dir, `.probe-${randomBytes(6).toString('hex')}`);
      writeFileSync(probe, '');
      rmSync(probe);
    } catch (error) {
      throw new UserError(
        `cannot write to the cache folder ${this.dir} (${errorCode(error)}): give another one with --cache-dir`,
      );
    }
  }

  list(): CacheEntry[] {
    const entries: CacheEntry[] = [];
    for (const file of this.#files()) {
      const match = /^(.+)\.([0-9a-f]{64})$/.exec(file);
      // Another process may clear the folder meanwhile.
      const stat = match === null ? undefined : statSync(join(this.dir, file), { throwIfNoEntry: false });
      if (match === null || stat?.isFile() !== true) continue;
      entries.push({ file, name: match[1] as string, sha256: match[2] as string, bytes: stat.size });
    }
    return entries;
  }

  #files(): string[] {
    try {
      return existsSync(this.dir) ? readdirSync(this.dir).sort() : [];
    } catch (error) {
      throw new UserError(
        `cannot read the cache folder ${this.dir} (${errorCode(error)}): give another one with --cache-dir`,
      );
    }
  }

  /** The bytes of an entry, or undefined when they are not what the name says; then the file is removed. */
  read(entry: CacheEntry): Uint8Array | undefined {
    let bytes: Uint8Array;
    try {
      bytes = readFileSync(join(this.dir, entry.file));
    } catch {
      return undefined;
    }
    if (sha256(bytes) === entry.sha256) return bytes;
    this.#remove(entry.file);
    return undefined;
  }

  /** Newest entry whose name satisfies `match` by the order of `compare` on names. */
  find(match: (name: string) => boolean): CacheEntry[] {
    return this.list().filter(({ name }) => match(name));
  }

  write(name: string, bytes: Uint8Array): CacheEntry {
    this.prepare();
    const hash = sha256(bytes);
    const file = `${name}.${hash}`;
    const temporary = join(this.dir, `.${randomBytes(8).toString('hex')}.tmp`);
    try {
      writeFileSync(temporary, bytes);
      renameSync(temporary, join(this.dir, file));
    } catch (error) {
      rmSync(temporary, { force: true });
      throw new UserError(
        `cannot write ${file} to the cache folder ${this.dir} (${errorCode(error)}): free some room or give another one with --cache-dir`,
      );
    }
    return { file, name, sha256: hash, bytes: bytes.length };
  }

  /** Leaves the `most` newest of those that match. */
  removeOldest(match: (name: string) => boolean, most: number): void {
    const time = ({ file }: CacheEntry): number =>
      statSync(join(this.dir, file), { throwIfNoEntry: false })?.mtimeMs ?? 0;
    const entries = this.find(match).sort((a, b) => time(b) - time(a));
    for (const { file } of entries.slice(most)) this.#remove(file);
  }

  /** Entries that are damaged; they are removed. */
  verify(): { good: CacheEntry[]; bad: CacheEntry[] } {
    const good: CacheEntry[] = [];
    const bad: CacheEntry[] = [];
    for (const entry of this.list()) (this.read(entry) === undefined ? bad : good).push(entry);
    return { good, bad };
  }

  /** Removes what is ours and nothing else; says how many files that were. */
  clear(): number {
    const entries = this.list();
    for (const { file } of entries) this.#remove(file);
    for (const file of this.#files()) if (LEFT_OVER.test(file)) this.#remove(file);
    for (const folder of FOLDERS) this.#remove(folder);
    return entries.length;
  }

  #remove(file: string): void {
    try {
      rmSync(join(this.dir, file), { force: true, recursive: true });
    } catch (error) {
      throw new UserError(
        `cannot remove ${file} from the cache folder ${this.dir} (${errorCode(error)}): remove it yourself`,
      );
    }
  }
}
