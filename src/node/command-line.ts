/** The command line: the commands, and what their endings mean. */
import { CommanderError } from 'commander';
import { ExitStatus, STATUS, UserError } from './errors.ts';
import { oneLine } from './sanitize.ts';
import { program } from './program.ts';

const SIGPIPE = 13;
const REPORT = 'Please report it with the command line and what is above.';

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
      // Names of files and of what is in them may hold anything.
      process.stderr.write(`vitrine: ${oneLine(error.message)}\n`);
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
