/** The options of `vitrine boot`: what they are called, what goes together, and what they become. */
import { PARTS, parseParts } from '../paravisor/parts.ts';
import { Command } from 'commander';
import { CONFIGURATIONS, findConfiguration, WITHHOLDABLE } from '../machine/configurations.ts';
import { cpuModels, findCpuModel } from '../x86/cpuid.ts';
import { date, each, integer, memorySize, oneOf, seed } from './arguments.ts';
import { bootBoard } from './board.ts';
import { boot, type BootOptions } from './boot.ts';
import { cacheDirOption } from './cache-commands.ts';
import { ENGINES } from './engine-choice.ts';
import { readConfiguration } from './configuration.ts';
import { ExitStatus, UserError } from './errors.ts';
import { readUserFile } from './kernel.ts';

const ANY = Number.MAX_SAFE_INTEGER;
const MODELS = cpuModels().map(({ name }) => name);
const DEFAULT_DATE = Date.UTC(2026, 0, 1) / 1000;
const text = (value: string): string => value;

/** As commander gives them. */
export interface Given extends Omit<BootOptions, 'configuration' | 'hyperv' | 'cpuModel'> {
  readonly hyperv: string | boolean;
  readonly cpuModel?: string;
  readonly config?: string;
  readonly board?: string;
  readonly bios?: string;
  readonly without: readonly string[];
}

/** What both commands that make machines take. */
export function addMachineOptions(command: Command): Command {
  return command
    .optionsGroup('What runs:')
    .option('--kernel <file>', 'bzImage, vmlinux or a kernel .deb, whose modules are then used')
    .option(
      '--kernel-package <name>',
      'Debian package to take the kernel from (default: newest 6.12 cloud kernel)',
    )
    .option('--modules <dir>', 'folder with the kernel modules for the default initramfs')
    .option('--initrd <file>', 'initial RAM disk instead of the default initramfs')
    .option('--add <host[:guest]>', 'add a file to the default initramfs (may be repeated)', each(text), [])
    .option('--append <text>', 'more kernel command line')
    .optionsGroup('The machine:')
    .option('--memory <size>', 'guest RAM, such as 512M or 2G (default: 512M)', memorySize, 512 * 1024 ** 2)
    .option('--cpus <n>', 'virtual processors (default: 1)', integer('a number', 1, 64), 1)
    .option(
      '--cpu-model <name>',
      `processor: ${MODELS.join(', ')} (default: the first that the configuration can have)`,
      (given) => findCpuModel(given)?.name ?? oneOf(MODELS)(given),
    )
    .option('--seed <n>', 'seed of all randomness (default: 1)', seed, 1n)
    .option('--date <date>', 'date and time at power-on (default: 2026-01-01)', date, DEFAULT_DATE)
    .option(
      '--hyperv <on|off>',
      'off: a machine without a hypervisor interface (the default with --board test)',
      oneOf(['on', 'off']),
      'on',
    )
    .option(
      '--hyperv-without <feature>',
      `keep a feature from the guest: ${Object.keys(WITHHOLDABLE).join(', ')} (may be repeated)`,
      each(oneOf(Object.keys(WITHHOLDABLE))),
      [],
    )
    .option(
      '--paravisor-without <part>',
      `leave a part of the paravisor out: ${PARTS.map(({ name }) => name).join(', ')} (a list, or repeated)`,
      parts,
      [],
    )
    .option('--hide-isolation', 'the paravisor lets its guest know nothing of isolation', false)
    .optionsGroup('Downloads:')
    .option('--offline', 'use the cache only', false)
    .addOption(cacheDirOption());
}

const PARAVISOR_CONFIGURATIONS = CONFIGURATIONS.filter(({ paravisor }) => paravisor).map(({ name }) => name);

/** Names of parts, separated by commas, behind those given before. */
function parts(given: string, before: readonly string[]): readonly string[] {
  if (given === '') return before;
  const parsed = parseParts(given);
  if (!parsed.ok)
    throw new UserError(
      `the paravisor has no part '${parsed.unknown}': give --paravisor-without one or more of ${PARTS.map(({ name }) => name).join(', ')}`,
    );
  return [...before, ...given.split(',').map((name) => name.trim())];
}

/** All that a launch depends on. */
export function addLaunchOptions(command: Command): Command {
  return addMachineOptions(command)
    .optionsGroup('What runs:')
    .option('--run <command>', 'run a shell command in the guest: its streams, its exit status')
    .optionsGroup('The machine:')
    .option('--config <file>', 'take all this from a report of --json; other options win');
}

export function bootCommand(): Command {
  const command = new Command('boot')
    .description('boot a kernel in a VM')
    .configureHelp({ optionDescription: ({ description }) => description })
    .argument(
      '[configuration]',
      CONFIGURATIONS.map(({ name, summary }) => `${name}: ${summary}`).join('; '),
      'plain',
    );
  return addLaunchOptions(command)
    .optionsGroup('The run:')
    .option('--console <file>', 'where the guest console goes, raw (- for standard output)')
    .option('--limit <n>', 'end after so many instructions since power-on', integer('a number', 1, ANY))
    .option('--timeout <seconds>', 'end after so much wall-clock time', integer('seconds', 1, 1e9), 0)
    .option('--realtime', 'pace virtual time by real time', false)
    .option('--snapshot <file>', 'write the machine there when the run ends')
    .option('--resume <file>', 'go on from a snapshot instead of a kernel')
    .optionsGroup('Looking inside:')
    .option('--json <file>', 'write a report (- for standard output)')
    .option('--trace <file>', 'write every event as a JSON line; FILE.json: as a Chrome trace, for Perfetto')
    .option(
      '--engine <name>',
      `how the processor runs, which changes nothing but the speed: ${ENGINES.join(', ')} (check: two side by side)`,
      oneOf(ENGINES),
      'auto',
    )
    .option(
      '--translate-after <n>',
      'how often the translator sees code run before it translates it (otherwise 6000): a few, to look for its bugs',
      integer('a number', 1, 1_000_000),
    )
    .option(
      '--hash-every <n>',
      'print the state hash every so many instructions',
      integer('a number', 1, ANY),
      0,
    )
    .option('--symbols <file>', 'System.map that names the addresses in the report of a death')
    .option('--gdb <port>', 'serve the GDB remote protocol on a loopback port', integer('a port', 1, 65535))
    .option('--no-gdb-wait', 'do not wait for the debugger before the first instruction')
    .optionsGroup('Processor tests:')
    .option(
      '--board <name>',
      'test: the bare board for processor tests instead of a Hyper-V VM',
      oneOf(['test']),
    )
    .option('--bios <file>', 'with --board test: a BIOS image at the reset vector')
    .option(
      '--without <feature>',
      'with --board test: take a CPU feature away (may be repeated)',
      each(text),
      [],
    )
    .action(async (name: string, given: Given, command: Command) => {
      throw new ExitStatus(await run(name, given, command));
    });
}

async function run(name: string, given: Given, command: Command): Promise<number> {
  const said = (key: string): boolean =>
    key === 'configuration' ? command.args.length > 0 : command.getOptionValueSource(key) === 'cli';
  checkTogether(said);
  if (given.board !== undefined)
    return bootBoard({
      ...given,
      // The board is a bare one unless somebody asks for more.
      hyperv: said('hyperv') && given.hyperv === 'on',
      cpuModel: given.cpuModel ?? (MODELS[0] as string),
      limit: given.limit ?? ANY,
    });
  const options = machineOptions(name, given, said);
  return boot(options);
}

/** What the command line and a saved configuration say together about the machine. */
export function machineOptions(name: string, given: Given, said: (key: string) => boolean): BootOptions {
  const { hyperv, config, ...rest } = given;
  const saved = config === undefined ? {} : savedOptions(config, said);
  const configuration = (saved['configuration'] as string | undefined) ?? name;
  const known = findConfiguration(configuration);
  if (known === undefined)
    throw new UserError(
      `there is no configuration '${configuration}': give one of ${CONFIGURATIONS.map((row) => row.name).join(', ')}`,
    );
  const options: BootOptions = {
    cpuModel: MODELS.find((model) =>
      [undefined, findCpuModel(model)?.vendor].includes(known.vendor),
    ) as string,
    ...rest,
    hyperv: hyperv === 'on',
    ...saved,
    configuration,
  };
  if (findCpuModel(options.cpuModel) === undefined)
    throw new UserError(
      `there is no processor model '${options.cpuModel}': give one of ${MODELS.join(', ')}`,
    );
  const withoutParavisor = !known.paravisor;
  if (withoutParavisor && (options.paravisorWithout.length > 0 || options.hideIsolation))
    throw new UserError(
      `${options.hideIsolation ? '--hide-isolation' : '--paravisor-without'} needs a paravisor, and '${configuration}' has none: boot one of ${PARAVISOR_CONFIGURATIONS.join(', ')}`,
    );
  parts(options.paravisorWithout.join(','), []);
  const foreign = options.hypervWithout.find((feature) => !(feature in WITHHOLDABLE));
  if (foreign !== undefined)
    throw new UserError(
      `there is no feature '${foreign}' to keep from the guest: give one of ${Object.keys(WITHHOLDABLE).join(', ')}`,
    );
  if (options.paravisorWithout.includes('irq.apic') && options.hypervWithout.includes('x2apic'))
    throw new UserError(
      'without its part irq.apic the paravisor hands on x2APIC registers only: give either --paravisor-without irq.apic or --hyperv-without x2apic, not both',
    );
  return options;
}

/** What --config sets and nobody said otherwise. */
function savedOptions(path: string, said: (key: string) => boolean): Record<string, unknown> {
  const saved = readConfiguration(new TextDecoder().decode(readUserFile(path, '--config')), path);
  const kernelSaid = said('kernel') || said('kernelPackage');
  return Object.fromEntries(
    Object.entries(saved).filter(
      ([key]) =>
        !said(key) && !(kernelSaid && (key === 'kernel' || key === 'kernelPackage' || key === 'modules')),
    ),
  );
}

type Key = keyof BootOptions | 'configuration' | 'config' | 'board' | 'bios' | 'without';

const OF_THE_MACHINE: readonly Key[] = [
  'configuration',
  'kernel',
  'kernelPackage',
  'modules',
  'initrd',
  'add',
  'append',
  'run',
  'memory',
  'cpus',
  'cpuModel',
  'seed',
  'date',
  'hyperv',
  'hypervWithout',
  'paravisorWithout',
  'hideIsolation',
  'config',
];

/** Pairs that contradict each other, with the way out. */
const APART: readonly (readonly [Key, readonly Key[], string])[] = [
  ['resume', OF_THE_MACHINE, 'a snapshot has its machine and its kernel in it'],
  ['kernel', ['kernelPackage'], 'each names a kernel'],
  ['initrd', ['run', 'add', 'modules'], 'it needs the default initramfs'],
  [
    'board',
    [
      'configuration',
      'kernelPackage',
      'modules',
      'add',
      'run',
      'resume',
      'snapshot',
      'gdb',
      'config',
      'trace',
    ],
    'the test board runs one image and nothing else',
  ],
];
const NEEDS_BOARD: readonly Key[] = ['bios', 'without'];

const flag = (key: Key): string =>
  key === 'configuration'
    ? 'a configuration'
    : `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

export function checkTogether(said: (key: string) => boolean): void {
  for (const [key, others, why] of APART) {
    const other = said(key) ? others.find(said) : undefined;
    if (other !== undefined)
      throw new UserError(`${flag(key)} and ${flag(other)} do not go together (${why}): leave one out`);
  }
  const orphan = said('board') ? undefined : NEEDS_BOARD.find(said);
  if (orphan !== undefined)
    throw new UserError(`${flag(orphan)} is for the test board: give --board test too`);
}
