/** Entry point of the command line: the commands, and what their endings mean. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { bootCommand } from './boot-command.ts';
import { cacheCommand, kernelCommand } from './cache-commands.ts';
import { matrixCommand } from './matrix-command.ts';
import { ExitStatus, STATUS, UserError } from './errors.ts';

const SIGPIPE = 13;
const REPORT = 'Please report it with the command line and what is above.';

function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

function program(): Command {
  const root = new Command('vitrine')
    .description('A software machine that runs, shows and attacks Hyper-V confidential VMs.')
    .version(version())
    .addHelpText('after', "\nStart with:  vitrine boot --run 'uname -a'\n")
    .enablePositionalOptions()
    .addCommand(bootCommand())
    .addCommand(matrixCommand())
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

function bug(error: Error): number {
  process.stderr.write(`vitrine: a bug of ours: ${error.message}\n${error.stack ?? ''}\n${REPORT}\n`);
  return STATUS.internal;
}

async function main(): Promise<number> {
  const root = program();
  try {
    await root.parseAsync();
    return STATUS.ok;
  } catch (error) {
    if (error instanceof ExitStatus) return error.status;
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return STATUS.ok;
      const words = process.argv.slice(2).filter((word) => !word.startsWith('-'));
      const command = root.commands.find((candidate) => candidate.name() === words[0]) ?? root;
      if (error.code === 'commander.help') {
        process.stderr.write(`vitrine: no command was given (see 'vitrine --help')\n`);
        return STATUS.usage;
      }
      const message = error.message.replace(/^error: /, '').replace(/\s*\n\s*/g, ' ');
      const help = command === root ? 'vitrine' : `vitrine ${command.name()}`;
      process.stderr.write(`vitrine: ${message} (see '${help} --help')\n`);
      return STATUS.usage;
    }
    if (error instanceof UserError) {
      process.stderr.write(`vitrine: ${error.message}\n`);
      return STATUS.usage;
    }
    return bug(error as Error);
  }
}

process.on('uncaughtException', (error) => process.exit(bug(error)));
// A reader that has left ends the run as it would end any other writer.
process.stdout.on('error', (error: NodeJS.ErrnoException) =>
  process.exit(error.code === 'EPIPE' ? 128 + SIGPIPE : STATUS.usage),
);
process.stderr.on('error', () => undefined);

// Standard output may be a pipe that has not taken everything yet: no exit() here.
process.exitCode = await main();
process.stdin.destroy();
