/** `vitrine kernel` and `vitrine cache`: what was downloaded. */
import { Command, Option } from 'commander';
import { Apt } from './apt.ts';
import { Cache, type CacheEntry } from './cache.ts';
import { defaultCacheDir } from './cache-folder.ts';
import { ExitStatus, STATUS } from './errors.ts';
import { defaultKernelPackage, packageBytes, resolvePackage, type PackageSource } from './kernel.ts';

export function cacheDirOption(): Option {
  const dir = defaultCacheDir();
  return new Option('--cache-dir <dir>', `folder for downloads (default: ${dir})`).default(dir);
}

const print = (line: string): void => void process.stdout.write(`${line}\n`);
const show = ({ name, bytes, sha256 }: CacheEntry): void => print(`${name} ${bytes} ${sha256}`);

export function kernelCommand(): Command {
  const kernel = new Command('kernel').description('kernels in the cache and from apt');
  kernel
    .command('list')
    .description('list the cached kernel packages: name, bytes, SHA-256')
    .addOption(cacheDirOption())
    .action(({ cacheDir }: { cacheDir: string }) =>
      new Cache(cacheDir).find((name) => name.startsWith('linux-image')).forEach(show),
    );
  kernel
    .command('fetch')
    .description('download a kernel package (default: the newest 6.12 cloud kernel)')
    .argument('[package]')
    .option('--offline', 'use the cache only', false)
    .addOption(cacheDirOption())
    .action(async (name: string | undefined, options: { cacheDir: string; offline: boolean }) => {
      const cache = new Cache(options.cacheDir);
      const source: PackageSource = {
        cache,
        apt: new Apt(cache),
        offline: options.offline,
        fresh: !options.offline,
        say: (line) => void process.stderr.write(`vitrine: ${line}\n`),
      };
      const wanted =
        name === undefined ? await defaultKernelPackage(source) : await resolvePackage(name, source);
      show((await packageBytes(wanted, source)).entry);
    });
  return kernel;
}

export function cacheCommand(): Command {
  const cache = new Command('cache').description('the folder of downloads');
  cache
    .command('list')
    .description('list what is in it: name, bytes, SHA-256')
    .addOption(cacheDirOption())
    .action(({ cacheDir }: { cacheDir: string }) => new Cache(cacheDir).list().forEach(show));
  cache
    .command('verify')
    .description('check every file against its SHA-256, and remove damaged ones')
    .addOption(cacheDirOption())
    .action(({ cacheDir }: { cacheDir: string }) => {
      const { good, bad } = new Cache(cacheDir).verify();
      for (const entry of good) print(`good ${entry.name}`);
      for (const entry of bad) print(`damaged, removed ${entry.name}`);
      throw new ExitStatus(bad.length === 0 ? STATUS.ok : STATUS.failed);
    });
  cache
    .command('clear')
    .description('remove everything in it that came from here')
    .addOption(cacheDirOption())
    .action(({ cacheDir }: { cacheDir: string }) => print(`${new Cache(cacheDir).clear()} files removed`));
  return cache;
}
