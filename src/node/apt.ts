/**
 * Debian packages through the user's own apt, in a state folder of ours: neither root nor an earlier update is needed, and the
 * user's package state is not touched.
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { UserError } from './errors.ts';
import { sha256, type Cache, type CacheEntry } from './cache.ts';

const run = promisify(execFile);
const NO_APT =
  'this computer has no apt-get: give --kernel FILE (bzImage, vmlinux or .deb) and --initrd FILE, or a --cache-dir that was filled elsewhere';

/** Against the size and SHA-256 of `--print-uris`: 'URI' FILE SIZE SHA256:HASH. */
function isAnnounced(bytes: Uint8Array, announced: string): boolean {
  const match = /^'[^']*' \S+ (\d+)(?: SHA256:([0-9a-f]{64}))?/m.exec(announced);
  if (match === null) return false;
  return bytes.length === Number(match[1]) && (match[2] === undefined || match[2] === sha256(bytes));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

export class Apt {
  readonly #all: string;
  readonly #state: string;
  #updated = false;

  constructor(cache: Cache) {
    this.#all = join(cache.dir, 'apt');
    this.#state = join(this.#all, `${process.pid}-${randomBytes(6).toString('hex')}`);
  }

  #options(): string[] {
    return [
      '-o',
      `Dir::State=${this.#state}/state`,
      '-o',
      `Dir::State::status=${this.#state}/status`,
      '-o',
      `Dir::Cache=${this.#state}/cache`,
      '-o',
      'APT::Architecture=amd64',
      '-o',
      'APT::Architectures::=amd64',
      '-o',
      'APT::Sandbox::User=',
      '-o',
      'Debug::NoLocking=1',
      '-o',
      'Acquire::Languages=none',
    ];
  }

  async #exec(tool: string, args: readonly string[], cwd?: string): Promise<string> {
    try {
      const { stdout } = await run(tool, [...args.slice(0, 1), ...this.#options(), ...args.slice(1)], {
        maxBuffer: 64 << 20,
        env: { ...process.env, LC_ALL: 'C' },
        ...(cwd === undefined ? {} : { cwd }),
      });
      return stdout;
    } catch (error) {
      const { code, stderr, message } = error as NodeJS.ErrnoException & { stderr?: string };
      if (code === 'ENOENT') throw new UserError(NO_APT);
      const reason =
        (stderr ?? message).split('\n').find((line) => line.startsWith('E:')) ??
        message.split('\n')[0] ??
        'failed';
      throw new UserError(
        `${tool} ${args.join(' ')} failed (${reason.trim()}): check apt's sources and the network, or give --kernel FILE and --initrd FILE`,
      );
    }
  }

  /** Package lists of this process alone: two that run at once never see each other's half-written ones. */
  async update(): Promise<void> {
    if (this.#updated) return;
    process.once('exit', () => this.close());
    this.#sweep();
    for (const folder of ['state/lists/partial', 'cache/archives/partial'])
      mkdirSync(join(this.#state, folder), { recursive: true });
    if (!existsSync(join(this.#state, 'status'))) writeFileSync(join(this.#state, 'status'), '');
    await this.#exec('apt-get', ['update', '-q']);
    this.#updated = true;
  }

  /** What processes left that were killed. */
  #sweep(): void {
    for (const folder of existsSync(this.#all) ? readdirSync(this.#all) : []) {
      const pid = parseInt(folder, 10);
      if (pid > 0 && !isAlive(pid)) rmSync(join(this.#all, folder), { recursive: true, force: true });
    }
  }

  /** Removes the lists: they are asked for anew when they are needed again. */
  close(): void {
    rmSync(this.#state, { recursive: true, force: true });
  }

  /** Names of packages that match a regular expression of apt-cache, with their candidate version. */
  async search(pattern: RegExp): Promise<{ name: string; version: string }[]> {
    await this.update();
    const names = (await this.#exec('apt-cache', ['pkgnames', 'linux-image']))
      .split('\n')
      .filter((name) => pattern.test(name));
    if (names.length === 0) return [];
    const policy = await this.#exec('apt-cache', ['policy', ...names]);
    const found: { name: string; version: string }[] = [];
    let name = '';
    for (const line of policy.split('\n')) {
      const head = /^(\S+):$/.exec(line);
      if (head !== null) name = (head[1] as string).replace(/:amd64$/, '');
      const candidate = /^ {2}Candidate: (\S+)$/.exec(line);
      if (candidate !== null && candidate[1] !== '(none)')
        found.push({ name, version: candidate[1] as string });
    }
    return found;
  }

  /** Names that a package depends on (metapackages lead to the real one). */
  async depends(name: string): Promise<string[]> {
    await this.update();
    const text = await this.#exec('apt-cache', ['depends', '--important', name]);
    return [...text.matchAll(/Depends: (\S+)/g)].map((match) => match[1] as string);
  }

  /** Downloads the candidate version into the cache. */
  async download(name: string, cache: Cache): Promise<CacheEntry> {
    await this.update();
    const folder = mkdtempSync(join(this.#state, 'download-'));
    try {
      const announced = await this.#exec(
        'apt-get',
        ['download', '--print-uris', '-q', `${name}:amd64`],
        folder,
      );
      await this.#exec('apt-get', ['download', '-q', `${name}:amd64`], folder);
      const [file] = readdirSync(folder).filter((entry) => entry.endsWith('.deb'));
      if (file === undefined)
        throw new UserError(`apt-get download ${name} left no file: check apt's sources`);
      const bytes = readFileSync(join(folder, file));
      if (!isAnnounced(bytes, announced))
        throw new UserError(`the download of ${name} is cut off or altered: run it again`);
      return cache.write(file, bytes);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
}
