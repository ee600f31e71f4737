/** `vitrine measure`: what the launch of a configuration, or of an image, is measured as, without a machine. */
import { Command } from 'commander';
import {
  CONFIGURATIONS,
  findConfiguration,
  measureLaunch,
  unmeasured,
} from '../../machine/configurations.ts';
import { sentence } from '../../launch/outcome.ts';
import { Apt } from '../apt.ts';
import { addLaunchOptions, checkTogether, machineOptions, type Given } from '../boot-command.ts';
import { prepare } from '../build.ts';
import { Cache } from '../cache.ts';
import { ExitStatus, STATUS, UserError } from '../errors.ts';
import { PagesFile } from './pages-file.ts';

type MeasureGiven = Given & { readonly pages?: string };

const say = (line: string): void => void process.stderr.write(`vitrine: ${line}\n`);

export function measureCommand(): Command {
  const command = new Command('measure')
    .description('print the launch digest or MRTD that a boot with the same options will have')
    .configureHelp({ optionDescription: ({ description }) => description })
    .argument('<configuration>', CONFIGURATIONS.map(({ name }) => name).join(', '));
  return addLaunchOptions(command)
    .optionsGroup('What it writes:')
    .option('--pages <file>', 'list the measured pages: order, type, address, SHA-384')
    .action(async (name: string, given: MeasureGiven, self: Command) => {
      throw new ExitStatus(await run(name, given, self));
    });
}

async function run(name: string, given: MeasureGiven, self: Command): Promise<number> {
  const said = (key: string): boolean => key === 'configuration' || self.getOptionValueSource(key) === 'cli';
  checkTogether((key) => key !== 'configuration' && said(key));
  const { pages, ...rest } = given;
  const options = machineOptions(name, rest, said);
  const known = findConfiguration(options.configuration);
  const refusal = known === undefined ? undefined : unmeasured(known);
  if (refusal !== undefined) throw new UserError(sentence(refusal.error));
  const cache = new Cache(options.cacheDir);
  const source = { cache, apt: new Apt(cache), offline: options.offline, say };
  const { configuration, request } = await prepare(options, source, { mask: 0, emit: () => undefined });
  const file =
    pages === undefined ? undefined : new PagesFile(pages, configuration.vendor === 'intel' ? 'tdx' : 'snp');
  try {
    const outcome = measureLaunch(configuration, request, file && ((page) => file.add(page)));
    if (!outcome.ok) throw new UserError(sentence(outcome.error));
    file?.finish();
    process.stdout.write(`${Buffer.from(outcome.measurement.value).toString('hex')}\n`);
    return STATUS.ok;
  } finally {
    file?.discard();
  }
}
