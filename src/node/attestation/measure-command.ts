/** `vitrine measure`: what the launch of a configuration, or of an image, is measured as, without a machine. */
import { Command } from 'commander';
import {
  CONFIGURATIONS,
  findConfiguration,
  launchList,
  technologyOf,
  unmeasured,
  wrongVendor,
  type Configuration,
} from '../../machine/configurations.ts';
import { measureDirectives, type Measurement } from '../../machine/measure/measurement.ts';
import type { Directive } from '../../launch/directives.ts';
import { igvmLaunch } from '../../launch/igvm/read.ts';
import { hasZeroPages, igvmBytes } from '../../launch/igvm/write.ts';
import { sentence } from '../../launch/outcome.ts';
import { findCpuModel, type CpuModel } from '../../x86/cpuid.ts';
import { Apt } from '../apt.ts';
import { addLaunchOptions, checkTogether, machineOptions, type Given } from '../boot-command.ts';
import { prepare } from '../build.ts';
import { Cache } from '../cache.ts';
import { ExitStatus, STATUS, UserError } from '../errors.ts';
import { readUserFile } from '../kernel.ts';
import { checkWritable, writeWhole } from '../output.ts';
import { PagesFile } from './pages-file.ts';

type MeasureGiven = Given & {
  readonly pages?: string;
  readonly igvm?: string;
  readonly writeIgvm?: string;
};

/** The policy that a launch of ours asks for: SMT allowed and the bit that must be one. */
const SNP_POLICY = 0x30000n;
/** SEPT_VE_DISABLE (bit 1 of the policy of an IGVM file). */
const TDX_POLICY = 2n;

const say = (line: string): void => void process.stderr.write(`vitrine: ${line}\n`);

export function measureCommand(): Command {
  const command = new Command('measure')
    .description('print the launch digest or MRTD that a boot with the same options will have')
    .configureHelp({ optionDescription: ({ description }) => description })
    .argument('<configuration>', CONFIGURATIONS.map(({ name }) => name).join(', '));
  return addLaunchOptions(command)
    .optionsGroup('What is measured:')
    .option('--igvm <file>', 'measure an IGVM image instead, as the technology of the configuration does')
    .optionsGroup('What it writes:')
    .option('--pages <file>', 'list the measured pages: order, type, address, SHA-384')
    .option('--write-igvm <file>', 'write the launch as an IGVM image')
    .action(async (name: string, given: MeasureGiven, self: Command) => {
      throw new ExitStatus(await run(name, given, self));
    });
}

async function run(name: string, given: MeasureGiven, self: Command): Promise<number> {
  const { pages, igvm, writeIgvm } = given;
  if (writeIgvm !== undefined) checkWritable(writeIgvm, '--write-igvm');
  const { technology, directives } =
    igvm === undefined ? await launchOf(name, given, self) : imageOf(name, igvm, self);
  const file = pages === undefined ? undefined : new PagesFile(pages, technology);
  try {
    const measurement = measureDirectives(technology, directives, file && ((page) => file.add(page)));
    file?.finish();
    if (writeIgvm !== undefined) exportImage(writeIgvm, technology, directives);
    process.stdout.write(`${Buffer.from(measurement.value).toString('hex')}\n`);
    return STATUS.ok;
  } finally {
    file?.discard();
  }
}

interface Measured {
  readonly technology: Measurement['technology'];
  readonly directives: readonly Directive[];
}

/** The launch that a boot with these options has. */
async function launchOf(name: string, given: MeasureGiven, self: Command): Promise<Measured> {
  const said = (key: string): boolean => key === 'configuration' || self.getOptionValueSource(key) === 'cli';
  checkTogether((key) => key !== 'configuration' && said(key));
  const options = machineOptions(name, given, said);
  const known = findConfiguration(options.configuration) as Configuration;
  const model = findCpuModel(options.cpuModel) as CpuModel;
  const refusal = unmeasured(known) ?? wrongVendor(known, { model });
  if (refusal !== undefined) throw new UserError(sentence(refusal.error));
  const cache = new Cache(options.cacheDir);
  const source = { cache, apt: new Apt(cache), offline: options.offline, say };
  const { configuration, request } = await prepare(options, source, { mask: 0, emit: () => undefined });
  const list = launchList(configuration, request);
  if (!list.ok) throw new UserError(sentence(list.error));
  return { technology: technologyOf(configuration), directives: list.directives };
}

/** What an image has for the technology of a configuration. */
function imageOf(name: string, path: string, self: Command): Measured {
  const known = findConfiguration(name);
  if (known?.vendor === undefined) {
    const names = CONFIGURATIONS.filter(({ vendor }) => vendor !== undefined).map((row) => row.name);
    throw new UserError(
      `'${name}' has no technology to measure an image for: give one of ${names.join(', ')}`,
    );
  }
  const foreign = self.options.find(
    (option) =>
      !['igvm', 'pages', 'writeIgvm'].includes(option.attributeName()) &&
      self.getOptionValueSource(option.attributeName()) === 'cli',
  );
  if (foreign !== undefined)
    throw new UserError(
      `--igvm and ${foreign.long as string} do not go together (an image has in it all that is measured): leave one out`,
    );
  const technology = technologyOf(known);
  const outcome = igvmLaunch(readUserFile(path, '--igvm'), technology);
  if (!outcome.ok) throw new UserError(`--igvm ${path}: ${sentence(outcome.error)}`);
  return { technology, directives: outcome.launch.directives };
}

function exportImage(
  path: string,
  technology: Measurement['technology'],
  directives: readonly Directive[],
): void {
  if (technology === 'snp' && hasZeroPages(directives))
    say(
      'IGVM has no zero pages: the image has normal pages of zeros in their place and another launch digest',
    );
  const policy = technology === 'snp' ? SNP_POLICY : TDX_POLICY;
  writeWhole(path, igvmBytes({ platform: technology, policy, directives }), '--write-igvm');
}
