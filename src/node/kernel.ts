/** Which kernel to boot: a file, a Debian package, or the newest 6.12 cloud kernel that apt offers. */
import { readFileSync, statSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Apt } from './apt.ts';
import { Cache, sha256, type CacheEntry } from './cache.ts';
import { readDeb } from './deb.ts';
import { UserError } from './errors.ts';
import { isModulePath, moduleName, readModule, type KernelModule } from './modules.ts';

export interface Kernel {
  /** bzImage or ELF. */
  readonly image: Uint8Array;
  readonly name: string;
  readonly sha256: string;
  /** Debian package that it came from, when apt or the cache gave it. */
  readonly package?: string;
  /** Symbols that came with it, when they are real ones (Debian has them in another package). */
  readonly systemMap?: string;
  /** Modules that came with it, by name, those that were asked for and what they need. */
  readonly modules: ReadonlyMap<string, KernelModule>;
}

export interface KernelRequest {
  readonly file?: string;
  readonly package?: string;
  readonly modulesDir?: string;
}

/** What the default initramfs loads when the kernel has it as a module. */
export const WANTED_MODULES = [
  'hv_vmbus',
  'hv_utils',
  'configfs',
  // AES-GCM, which sev_guest asks the kernel for.
  'ghash_generic',
  'gcm',
  'sev_guest',
  'tdx_guest',
  'tsm',
] as const;

const MOST_FILE = 2 ** 31;

export function readUserFile(path: string, what: string): Uint8Array {
  let size: number;
  try {
    const stat = statSync(path);
    if (!stat.isFile()) throw new UserError(`${what} ${path} is not a file: give a regular file`);
    size = stat.size;
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(
      `cannot read ${what} ${path} (${(error as NodeJS.ErrnoException).code ?? 'error'}): give a file that exists`,
    );
  }
  if (size === 0) throw new UserError(`${what} ${path} is empty: give a whole file`);
  if (size > MOST_FILE)
    throw new UserError(`${what} ${path} has ${size} bytes, more than 2 GiB: give a smaller file`);
  try {
    // As what it is: the slices of a Buffer are views, and whoever changes a copy would change the file.
    const { buffer, byteOffset, length } = readFileSync(path);
    return new Uint8Array(buffer, byteOffset, length);
  } catch (error) {
    throw new UserError(
      `cannot read ${what} ${path} (${(error as NodeJS.ErrnoException).code ?? 'error'}): check its permissions`,
    );
  }
}

/** Debian's order of versions, for names that hold one: digits compare as numbers. */
export function compareVersions(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}

const isDeb = (bytes: Uint8Array): boolean => String.fromCharCode(...bytes.subarray(0, 7)) === '!<arch>';

/** Debian's image packages hold one line in place of a System.map. */
const LEAST_SYSTEM_MAP = 4096;

async function fromDeb(bytes: Uint8Array, where: string): Promise<Kernel> {
  const files = await readDeb(bytes, where, (path) => path.startsWith('boot/') || isModulePath(path));
  const image = files.find(({ path }) => path.startsWith('boot/vmlinu'));
  if (image === undefined)
    throw new UserError(
      `${where} holds no kernel (boot/vmlinuz-*): give a linux-image package, not a metapackage`,
    );
  const map = files.find(({ path }) => path.startsWith('boot/System.map'));
  return {
    image: image.data,
    name: basename(image.path),
    sha256: sha256(image.data),
    modules: await chooseModules(files),
    ...(map === undefined || map.data.length < LEAST_SYSTEM_MAP
      ? {}
      : { systemMap: new TextDecoder('latin1').decode(map.data) }),
  };
}

/** A bzImage or ELF file as it is, or what a .deb holds. */
export async function kernelFromFile(bytes: Uint8Array, path: string): Promise<Kernel> {
  return isDeb(bytes)
    ? fromDeb(bytes, path)
    : { image: bytes, name: basename(path), sha256: sha256(bytes), modules: new Map() };
}

/** Reads only the wanted modules and their dependencies: a package has thousands. */
async function chooseModules(
  files: readonly { path: string; data: Uint8Array }[],
): Promise<Map<string, KernelModule>> {
  const byName = new Map(
    files.filter(({ path }) => isModulePath(path)).map((file) => [moduleName(file.path), file]),
  );
  const chosen = new Map<string, KernelModule>();
  const queue: string[] = [...WANTED_MODULES];
  for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
    const file = byName.get(name);
    if (file === undefined || chosen.has(name)) continue;
    const module = await readModule(file.path, file.data);
    chosen.set(name, module);
    queue.push(...module.depends);
  }
  return chosen;
}

function modulesIn(folder: string): { path: string; data: Uint8Array }[] {
  let names: string[];
  try {
    names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  } catch (error) {
    throw new UserError(
      `cannot read the modules folder ${folder} (${(error as NodeJS.ErrnoException).code ?? 'error'}): give a folder with .ko files`,
    );
  }
  return names
    .filter(isModulePath)
    .map((name) => ({ path: join(folder, name), data: readFileSync(join(folder, name)) }));
}

const CLOUD_612 = /^linux-image-6\.12\.\d[^ ]*cloud-amd64(-unsigned)?$/;

export interface PackageSource {
  readonly cache: Cache;
  readonly apt: Apt;
  readonly offline: boolean;
  /** Asks apt even for what the cache has: there may be a newer one. */
  readonly fresh?: boolean;
  /** Says what is going on, on standard error. */
  readonly say: (line: string) => void;
}

/** A package from the cache if it is there and good, from apt otherwise. */
export async function packageBytes(
  name: string,
  source: PackageSource,
): Promise<{ bytes: Uint8Array; entry: CacheEntry }> {
  let damaged = false;
  const cached = (): { bytes: Uint8Array; entry: CacheEntry } | undefined => {
    const entries = source.cache
      .find((file) => file.startsWith(`${name}_`))
      .sort((a, b) => compareVersions(b.name, a.name));
    for (const entry of entries) {
      const bytes = source.cache.read(entry);
      if (bytes !== undefined) return { bytes, entry };
      damaged = true;
    }
    return undefined;
  };
  const known = cached();
  if (known !== undefined && source.fresh !== true) return known;
  if (source.offline)
    throw new UserError(
      `package ${name} ${damaged ? 'was damaged' : 'is not'} in the cache ${source.cache.dir}: run once without --offline`,
    );
  source.cache.prepare();
  source.say(`downloading ${name}`);
  const entry = await source.apt.download(name, source.cache);
  const bytes = source.cache.read(entry);
  if (bytes === undefined)
    throw new UserError(`the cache folder ${source.cache.dir} did not keep ${entry.file}: check the disk`);
  return { bytes, entry };
}

/** The newest 6.12 cloud kernel: from the cache if it has one, else from apt. */
export async function defaultKernelPackage(source: PackageSource): Promise<string> {
  const cached = source.cache
    .find((file) => CLOUD_612.test(file.slice(0, file.indexOf('_'))))
    .sort((a, b) => compareVersions(b.name, a.name));
  const [newest] = cached;
  if (newest !== undefined && source.fresh !== true) return newest.name.slice(0, newest.name.indexOf('_'));
  if (source.offline)
    throw new UserError(
      `the cache ${source.cache.dir} has no kernel: run once without --offline, or give one with --kernel FILE`,
    );
  source.cache.prepare();
  source.say('asking apt for kernels');
  const found = await source.apt.search(CLOUD_612);
  const [best] = found.sort((a, b) => compareVersions(b.version, a.version) || a.name.length - b.name.length);
  if (best === undefined)
    throw new UserError(
      'apt offers no 6.12 cloud kernel for amd64: give one with --kernel-package NAME or --kernel FILE',
    );
  return best.name;
}

/** A metapackage (linux-image-cloud-amd64) stands for the image that it depends on. */
export async function resolvePackage(name: string, source: PackageSource): Promise<string> {
  if (
    !/^linux-image-(?!(unsigned-)?\d+\.\d+\.\d)/.test(name) ||
    source.offline ||
    source.cache.find((file) => file.startsWith(`${name}_`)).length > 0
  )
    return name;
  const target = (await source.apt.depends(name)).find((other) => other.startsWith('linux-image-'));
  return target ?? name;
}

export async function resolveKernel(request: KernelRequest, source: PackageSource): Promise<Kernel> {
  let kernel: Kernel;
  if (request.file !== undefined) {
    kernel = await kernelFromFile(readUserFile(request.file, 'kernel'), request.file);
  } else {
    const name =
      request.package === undefined
        ? await defaultKernelPackage(source)
        : await resolvePackage(request.package, source);
    const { bytes, entry } = await packageBytes(name, source);
    kernel = { ...(await fromDeb(bytes, entry.name)), package: name };
    source.say(`kernel ${entry.name}, SHA-256 ${entry.sha256}`);
  }
  if (request.modulesDir === undefined) return kernel;
  return { ...kernel, modules: await chooseModules(modulesIn(request.modulesDir)) };
}
