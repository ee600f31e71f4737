/** Entry point of the command line: the commands, and what their endings mean. */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { Cache, defaultCacheDir } from './cache.ts';
import { Apt } from './apt.ts';
import { bootBoard } from './board.ts';
import { boot, type BootOptions } from './boot.ts';
import { readConfiguration } from './configuration.ts';
import { ExitStatus, STATUS, UserError } from './errors.ts';
import { defaultKernelPackage, packageBytes, readUserFile, type PackageSource } from './kernel.ts';

const CONFIGURATIONS = ['plain', 'snp', 'snp-paravisor', 'tdx', 'tdx-paravisor'];

function integer(what: string, least: number, most: number) {
  return (text: string): number => {
    const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : NaN;
    if (!Number.isSafeInteger(value) || value < least || value > most)
      throw new InvalidArgumentError(`give ${what} from ${least} to ${most}.`);
    return value;
  };
}

/** 512M, 1G, 65536K or bytes. */
function memorySize(text: string): number {
  const match = /^(\d+)([KMG]?)i?B?$/i.exec(text);
  const unit = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 }[(match?.[2] ?? '').toUpperCase()];
  const value = Number(match?.[1]) * (unit ?? NaN);
  if (!Number.isSafeInteger(value) || value <= 0)
    throw new InvalidArgumentError('give a size such as 512M or 2G.');
  return value;
}

function date(text: string): number {
  const value = Date.parse(text);
  if (Number.isNaN(value)) throw new InvalidArgumentError('give a date such as 2026-01-01T00:00:00Z.');
  return Math.floor(value / 1000);
}

function seed(text: string): bigint {
  try {
    const value = BigInt(text);
    if (value < 0n || value >> 64n !== 0n) throw new RangeError();
    return value;
  } catch {
    throw new InvalidArgumentError('give an integer from 0 to 2^64 - 1.');
  }
}

const readText = (path: string): string => new TextDecoder().decode(readUserFile(path, 'configuration'));

const collect = (value: string, list: string[]): string[] => [...list, value];

function source(options: { cacheDir: string; offline: boolean }): PackageSource {
  const cache = new Cache(options.cacheDir);
  return {
    cache,
    apt: new Apt(cache),
    offline: options.offline,
    say: (line) => void process.stderr.write(`vitrine: ${line}\n`),
  };
}

function program(): Command {
  const root = new Command('vitrine')
    .description('A software machine that runs, shows and attacks Hyper-V confidential VMs.')
    .exitOverride()
    .configureOutput({ writeErr: () => undefined })
    .enablePositionalOptions();
  const cacheDir = (): Option =>
    new Option('--cache-dir <dir>', 'folder for downloads').default(defaultCacheDir());
  root
    .command('boot')
    .description('boot a kernel in a VM')
    .argument('[configuration]', CONFIGURATIONS.join(', '), 'plain')
    .option('--board <name>', 'test: the bare board for processor tests instead of a Hyper-V VM')
    .option('--bios <file>', 'with --board test: a BIOS image at the reset vector')
    .option(
      '--without <feature>',
      'with --board test: take a CPU feature away (may be repeated)',
      collect,
      [],
    )
    .option('--kernel <file>', 'bzImage, vmlinux or a kernel .deb')
    .option('--kernel-package <name>', 'Debian package to take the kernel from')
    .option('--modules <dir>', 'folder with the kernel modules for the default initramfs')
    .option('--initrd <file>', 'initial RAM disk instead of the default one')
    .option('--add <host:guest>', 'add a file to the default initramfs (may be repeated)', collect, [])
    .option('--append <text>', 'more kernel command line')
    .option('--memory <size>', 'guest RAM', memorySize, 512 * 1024 ** 2)
    .option('--cpus <n>', 'virtual processors', integer('a number', 1, 64), 1)
    .option('--cpu-model <name>', 'EPYC-Milan or SapphireRapids', 'EPYC-Milan')
    .option('--run <command>', 'run a shell command in the guest; its status is the exit status')
    .option('--console <file>', 'where the guest console goes (- for standard output)')
    .option(
      '--limit <n>',
      'end after so many instructions',
      integer('a number', 1, Number.MAX_SAFE_INTEGER),
      Number.MAX_SAFE_INTEGER,
    )
    .option('--timeout <seconds>', 'end after so much wall-clock time', integer('seconds', 1, 1e9), 0)
    .addOption(new Option('--seed <n>', 'seed of all randomness').argParser(seed).default(1n, '1'))
    .option('--date <date>', 'date and time at power-on', date, Date.parse('2026-01-01T00:00:00Z') / 1000)
    .option('--realtime', 'pace virtual time by real time', false)
    .option('--hyperv <on|off>', 'off: a bare machine without a hypervisor interface', 'on')
    .option('--no-invariant-tsc', 'withhold the invariant TSC privilege')
    .option('--trace <file>', 'write every event as a JSON line')
    .option(
      '--hash-every <n>',
      'print the state hash every so many instructions',
      integer('a number', 1, Number.MAX_SAFE_INTEGER),
      0,
    )
    .option('--config <file>', 'take the configuration from a report of --json; other options win')
    .option('--symbols <file>', 'System.map that names the addresses in the report of a death')
    .option('--snapshot <file>', 'write the machine there when the run ends')
    .option('--resume <file>', 'go on from a snapshot')
    .option('--gdb <port>', 'serve the GDB remote protocol on a loopback port', integer('a port', 1, 65535))
    .option('--no-gdb-wait', 'do not wait for the debugger before the first instruction')
    .option('--json <file>', 'write a report (- for standard output)')
    .option('--offline', 'use the cache only', false)
    .addOption(cacheDir())
    .action(
      async (
        given: string,
        asked: Omit<BootOptions, 'configuration' | 'hyperv'> & {
          hyperv: string;
          board?: string;
          bios?: string;
          without: string[];
          config?: string;
        },
        command: Command,
      ) => {
        const options = { ...asked };
        const chosen = { configuration: given };
        const saved =
          asked.config === undefined ? {} : readConfiguration(readText(asked.config), asked.config);
        for (const [key, value] of Object.entries(saved)) {
          const said =
            key === 'configuration' ? command.args.length > 0 : command.getOptionValueSource(key) === 'cli';
          if (!said)
            Object.assign(key === 'configuration' ? chosen : options, {
              [key]: key === 'hyperv' ? (value === true ? 'on' : 'off') : value,
            });
        }
        if (options.board !== undefined) {
          if (options.board !== 'test')
            throw new UserError(`there is no board '${options.board}': give --board test`);
          throw new ExitStatus(await bootBoard(options));
        }
        const { configuration } = chosen;
        if (!CONFIGURATIONS.includes(configuration))
          throw new UserError(
            `there is no configuration '${configuration}': give one of ${CONFIGURATIONS.join(', ')}`,
          );
        if (configuration !== 'plain')
          throw new UserError(`configuration '${configuration}' is not built yet: boot 'plain'`);
        if (!['on', 'off'].includes(options.hyperv))
          throw new UserError(`--hyperv ${options.hyperv} is neither on nor off: give one of them`);
        throw new ExitStatus(await boot({ ...options, configuration, hyperv: options.hyperv === 'on' }));
      },
    );
  const kernel = root.command('kernel').description('kernels in the cache and from apt');
  kernel
    .command('list')
    .description('list the cached kernel packages')
    .addOption(cacheDir())
    .action((options: { cacheDir: string }) => {
      for (const entry of new Cache(options.cacheDir).find((name) => name.startsWith('linux-image')))
        process.stdout.write(`${entry.name} ${entry.bytes} ${entry.sha256}\n`);
    });
  kernel
    .command('fetch')
    .description('download a kernel package (default: the newest 6.12 cloud kernel)')
    .argument('[package]')
    .option('--offline', 'use the cache only', false)
    .addOption(cacheDir())
    .action(async (name: string | undefined, options: { cacheDir: string; offline: boolean }) => {
      const from = { ...source(options), fresh: !options.offline };
      const { entry } = await packageBytes(name ?? (await defaultKernelPackage(from)), from);
      process.stdout.write(`${entry.name} ${entry.bytes} ${entry.sha256}\n`);
    });
  const cache = root.command('cache').description('the folder of downloads');
  cache
    .command('list')
    .addOption(cacheDir())
    .action((options: { cacheDir: string }) => {
      for (const entry of new Cache(options.cacheDir).list())
        process.stdout.write(`${entry.name} ${entry.bytes} ${entry.sha256}\n`);
    });
  cache
    .command('verify')
    .addOption(cacheDir())
    .action((options: { cacheDir: string }) => {
      const { good, bad } = new Cache(options.cacheDir).verify();
      for (const entry of good) process.stdout.write(`good ${entry.name}\n`);
      for (const entry of bad) process.stdout.write(`damaged, removed ${entry.name}\n`);
      throw new ExitStatus(bad.length === 0 ? STATUS.ok : STATUS.failed);
    });
  cache
    .command('clear')
    .addOption(cacheDir())
    .action((options: { cacheDir: string }) => {
      process.stdout.write(`${new Cache(options.cacheDir).clear()} files removed\n`);
    });
  return root;
}

async function main(): Promise<number> {
  try {
    await program().parseAsync();
    return STATUS.ok;
  } catch (error) {
    if (error instanceof ExitStatus) return error.status;
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return STATUS.ok;
      if (error.code === 'commander.help') {
        process.stdout.write(program().helpInformation());
        return STATUS.usage;
      }
      process.stderr.write(`vitrine: ${error.message.replace(/^error: /, '')} (see 'vitrine --help')\n`);
      return STATUS.usage;
    }
    if (error instanceof UserError) {
      process.stderr.write(`vitrine: ${error.message}\n`);
      return STATUS.usage;
    }
    const { stack, message } = error as Error;
    process.stderr.write(
      `vitrine: a bug of ours: ${message}\n${stack ?? ''}\nPlease report it with the command line and what is above.\n`,
    );
    return STATUS.internal;
  }
}

process.on('uncaughtException', (error) => {
  process.stderr.write(
    `vitrine: a bug of ours: ${error.message}\n${error.stack ?? ''}\nPlease report it with the command line and what is above.\n`,
  );
  process.exit(STATUS.internal);
});
// A reader that has left ends the run as it would end any other writer.
const SIGPIPE = 13;
process.stdout.on('error', (error: NodeJS.ErrnoException) =>
  process.exit(error.code === 'EPIPE' ? 128 + SIGPIPE : STATUS.usage),
);
process.stderr.on('error', () => undefined);

const status = await main();
// Standard output may be a pipe that has not taken everything yet.
process.exitCode = status;
process.stdin.destroy();
