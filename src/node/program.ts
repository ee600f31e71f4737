/** The commands of `vitrine`. */
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { certificatesCommand } from './attestation/certificates-command.ts';
import { measureCommand } from './attestation/measure-command.ts';
import { reportCommand } from './attestation/report-command.ts';
import { bootCommand } from './boot-command.ts';
import { cacheCommand, kernelCommand } from './cache-commands.ts';
import { matrixCommand } from './matrix-command.ts';

function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

export function program(): Command {
  const root = new Command('vitrine')
    .description('A software machine that runs, shows and attacks Hyper-V confidential VMs.')
    .version(version())
    .addHelpText('after', "\nStart with:  vitrine boot --run 'uname -a'\n")
    .enablePositionalOptions()
    .addCommand(bootCommand())
    .addCommand(matrixCommand())
    .addCommand(measureCommand())
    .addCommand(reportCommand())
    .addCommand(certificatesCommand())
    .addCommand(kernelCommand())
    .addCommand(cacheCommand());
  quiet(root);
  return root;
}

/** Endings are said by `main`, in one line. */
function quiet(command: Command): void {
  command.exitOverride().configureOutput({ writeErr: () => undefined });
  command.commands.forEach(quiet);
}
