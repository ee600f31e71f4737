/** `vitrine matrix`: one kernel in every configuration, and what that shows. */
import { Command } from 'commander';
import { checkKernel, checkMemory } from '../launch/kernel-check.ts';
import { Apt } from './apt.ts';
import { integer } from './arguments.ts';
import { addMachineOptions, checkTogether } from './boot-command.ts';
import { expectGood } from './build.ts';
import { Cache } from './cache.ts';
import { ExitStatus, STATUS, UserError } from './errors.ts';
import { packageBytes, resolveKernel, type PackageSource } from './kernel.ts';
import { CONFIGURATION_NAMES, type ConfigurationName } from '../machine/facts.ts';
import { html } from './matrix/html.ts';
import { junit } from './matrix/junit.ts';
import { progressView } from './matrix/progress.ts';
import { jsonReport, tally } from './matrix/report.ts';
import { observeAll } from './matrix/run.ts';
import { table } from './matrix/table.ts';
import { bootsOf, wholeMatrix, type MatrixOptions } from './matrix/whole.ts';
import { checkWritable, writeWhole } from './output.ts';

type Given = MatrixOptions & {
  readonly only?: readonly ConfigurationName[];
  readonly junit?: string;
  readonly html?: string;
};

export function matrixCommand(): Command {
  const command = new Command('matrix')
    .description('boot one kernel in all five configurations and check the statements of coco.rst')
    .configureHelp({ optionDescription: ({ description }) => description });
  return addMachineOptions(command)
    .optionsGroup('The run:')
    .option('--only <names>', `some of ${CONFIGURATION_NAMES.join(',')}`, names)
    .option(
      '--limit <n>',
      'end each boot after so many instructions',
      integer('a number', 1, Number.MAX_SAFE_INTEGER),
    )
    .option(
      '--timeout <seconds>',
      'end each boot after so much wall-clock time',
      integer('seconds', 1, 1e9),
      0,
    )
    .optionsGroup('What it writes:')
    .option('--json <file>', 'everything as JSON (- for standard output, instead of the table)')
    .option('--junit <file>', 'the verdicts for a CI system')
    .option('--html <file>', 'one self-contained page')
    .action(async (given: Given, self: Command) => {
      checkTogether((key) => self.getOptionValueSource(key) === 'cli');
      if (given.initrd !== undefined)
        throw new UserError(
          'the matrix asks its guests by a script in the default initramfs: leave out --initrd, or boot it with `vitrine boot`',
        );
      throw new ExitStatus(
        await run({ ...given, engine: 'auto', hyperv: (given.hyperv as unknown) !== 'off' }),
      );
    });
}

function names(text: string): ConfigurationName[] {
  return text.split(',').map((name) => {
    const known = CONFIGURATION_NAMES.find((candidate) => candidate === name);
    if (known === undefined)
      throw new UserError(
        `there is no configuration '${name}': give some of ${CONFIGURATION_NAMES.join(',')} with --only`,
      );
    return known;
  });
}

async function run(given: Given): Promise<number> {
  for (const [path, option] of [
    [given.json, '--json'],
    [given.junit, '--junit'],
    [given.html, '--html'],
  ] as const)
    if (path !== undefined && path !== '-') checkWritable(path, option);
  const configurations = CONFIGURATION_NAMES.filter((name) => given.only?.includes(name) ?? true);
  const boots = bootsOf({ ...given, ...(await fetchAll(given)) }, configurations);
  const progress = progressView(
    process.stderr,
    boots.map(({ label }) => label),
  );
  const { report } = wholeMatrix(configurations, await observeAll(boots, progress.update));
  if (given.json === '-') process.stdout.write(jsonReport(report));
  else {
    process.stdout.write(table(report));
    if (given.json !== undefined) writeWhole(given.json, jsonReport(report), '--json');
  }
  if (given.junit !== undefined) writeWhole(given.junit, junit(report), '--junit');
  if (given.html !== undefined) writeWhole(given.html, html(report), '--html');
  const ok =
    tally(report.statements).failed === 0 && report.boots.every(({ outcome }) => outcome === 'booted');
  return ok ? STATUS.ok : STATUS.failed;
}

/**
 * Packages come here once, not in every worker; a kernel that is none is found out before anything boots. Resolves to the kernel's
 * package, also when a metapackage was given: the workers look into the cache only.
 */
async function fetchAll(given: Given): Promise<Pick<Given, 'kernelPackage'>> {
  const cache = new Cache(given.cacheDir);
  const say = (line: string): void => void process.stderr.write(`vitrine: ${line}\n`);
  const source: PackageSource = { cache, apt: new Apt(cache), offline: given.offline, say };
  expectGood(checkMemory(given.memory));
  const kernel = await resolveKernel(
    {
      ...(given.kernel === undefined ? {} : { file: given.kernel }),
      ...(given.kernelPackage === undefined ? {} : { package: given.kernelPackage }),
      ...(given.modules === undefined ? {} : { modulesDir: given.modules }),
    },
    source,
  );
  expectGood(checkKernel(kernel.image));
  await packageBytes('busybox-static', source);
  return kernel.package === undefined ? {} : { kernelPackage: kernel.package };
}
