/** Which kernel to boot: a file, a Debian package, or the newest 6.12 cloud kernel that apt offers. */
import { readFileSync, statSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Apt } from './apt.ts';
import { Cache, sha256, type CacheEntry } from './cache.ts';
import { readDeb } from './deb.ts';
import { UserError } from './errors.ts';
import { Unpacked } from './unpacked.ts';
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

/** A module that the default initramfs has, and what it asks the kernel for by name, without depending on it. */
interface WantedModule {
  readonly name: string;
  readonly asksFor: readonly string[];
}

/** Each is loaded when the guest has a device for it. */
export const WANTED_MODULES: readonly WantedModule[] = [
  { name: 'hv_vmbus', asksFor: [] },
  { name: 'hv_utils', asksFor: [] },
  // AES-GCM for the messages to the AMD-SP.
  { name: 'sev_guest', asksFor: ['ghash_generic', 'gcm'] },
  { name: 'tdx_guest', asksFor: [] },
];

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

/** A kernel as the cache keeps it. */
type UnpackedKernel = Omit<Kernel, 'package' | 'systemMap' | 'modules'> & {
  readonly systemMap: Uint8Array | undefined;
  readonly modules: readonly KernelModule[];
};
const unpackedKernels = new Unpacked<UnpackedKernel>(
  `kernel-1-${sha256(Buffer.from(JSON.stringify(WANTED_MODULES))).slice(0, 8)}`,
);

function fromUnpacked({ modules, systemMap, ...rest }: UnpackedKernel): Kernel {
  return {
    ...rest,
    modules: new Map(modules.map((module) => [module.name, module])),
    ...(systemMap === undefined ? {} : { systemMap: new TextDecoder('latin1').decode(systemMap) }),
  };
}

async function unpack(bytes: Uint8Array, where: string): Promise<UnpackedKernel> {
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
    systemMap: map === undefined || map.data.length < LEAST_SYSTEM_MAP ? undefined : map.data,
  };
}

/** Kernel and modules of a package, unpacked only the first time. */
async function fromDeb(bytes: Uint8Array, where: string, cache: Cache | undefined): Promise<Kernel> {
  if (cache === undefined) return fromUnpacked(await unpack(bytes, where));
  const hash = sha256(bytes);
  const kept = unpackedKernels.kept(cache, hash);
  if (kept !== undefined) return fromUnpacked(kept);
  const unpacked = await unpack(bytes, where);
  unpackedKernels.keep(cache, hash, unpacked);
  return fromUnpacked(unpacked);
}

/** A bzImage or ELF file as it is, or what a .deb holds. */
export async function kernelFromFile(bytes: Uint8Array, path: string, cache?: Cache): Promise<Kernel> {
  return isDeb(bytes)
    ? fromDeb(bytes, path, cache)
    : { image: bytes, name: basename(path), sha256: sha256(bytes), modules: new Map() };
}

/** Reads only the wanted modules and their dependencies: a package has thousands. */
async function chooseModules(files: readonly { path: string; data: Uint8Array }[]): Promise<KernelModule[]> {
  const byName = new Map(
    files.filter(({ path }) => isModulePath(path)).map((file) => [moduleName(file.path), file]),
  );
  const chosen = new Map<string, KernelModule>();
  const queue = WANTED_MODULES.flatMap(({ name, asksFor }) => [name, ...asksFor]);
  for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
    const file = byName.get(name);
    if (file === undefined || chosen.has(name)) continue;
    const module = await readModule(file.path, file.data);
    chosen.set(name, module);
    queue.push(...module.depends);
  }
  return [...chosen.values()];
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

const byVersion = (a: CacheEntry, b: CacheEntry): number => compareVersions(b.name, a.name);

/** A package from the cache if it is there and good, from apt otherwise. */
export async function packageBytes(
  name: string,
  source: PackageSource,
): Promise<{ bytes: Uint8Array; entry: CacheEntry }> {
  let damaged = false;
  const cached = (): { bytes: Uint8Array; entry: CacheEntry } | undefined => {
    for (const entry of cachedPackages(name, source.cache)) {
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

/** Newest first. */
function cachedPackages(name: string, cache: Cache): CacheEntry[] {
  return cache.find((file) => file.startsWith(`${name}_`)).sort(byVersion);
}

/** The newest 6.12 cloud kernel: from the cache if it has one, else from apt. */
export async function defaultKernelPackage(source: PackageSource): Promise<string> {
  const [newest] = source.cache
    .find((file) => CLOUD_612.test(file.slice(0, file.indexOf('_'))))
    .sort(byVersion);
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
    cachedPackages(name, source.cache).length > 0
  )
    return name;
  const target = (await source.apt.depends(name)).find((other) => other.startsWith('linux-image-'));
  return target ?? name;
}

export async function resolveKernel(request: KernelRequest, source: PackageSource): Promise<Kernel> {
  const kernel =
    request.file === undefined
      ? await packagedKernel(
          request.package === undefined
            ? await defaultKernelPackage(source)
            : await resolvePackage(request.package, source),
          source,
        )
      : await kernelFromFile(readUserFile(request.file, 'kernel'), request.file, source.cache);
  if (request.modulesDir === undefined) return kernel;
  const modules = await chooseModules(modulesIn(request.modulesDir));
  return { ...kernel, modules: new Map(modules.map((module) => [module.name, module])) };
}

async function packagedKernel(name: string, source: PackageSource): Promise<Kernel> {
  const [known] = cachedPackages(name, source.cache);
  const kept = known === undefined ? undefined : unpackedKernels.kept(source.cache, known.sha256);
  const say = ({ name, sha256 }: CacheEntry): void => source.say(`kernel ${name}, SHA-256 ${sha256}`);
  if (known !== undefined && kept !== undefined) {
    say(known);
    return { ...fromUnpacked(kept), package: name };
  }
  const { bytes, entry } = await packageBytes(name, source);
  const kernel = await fromDeb(bytes, entry.name, source.cache);
  say(entry);
  return { ...kernel, package: name };
}
