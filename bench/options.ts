/** Options of the bench commands: what is wrong with them is one sentence, and status 2. */
import { parseArgs, type ParseArgsOptionsConfig } from 'node:util';

export function refuse(sentence: string): never {
  console.error(`bench: ${sentence}`);
  process.exit(2);
}

/** Every option takes a text. */
export function parseOptions<T extends ParseArgsOptionsConfig>(
  options: T,
): ReturnType<typeof parseArgs<{ options: T }>>['values'] {
  try {
    return parseArgs({ options }).values;
  } catch (error) {
    const names = Object.keys(options).map((name) => `--${name}`);
    const said = (error instanceof Error ? error.message : String(error)).split(/[.\n] ?/)[0] ?? '';
    return refuse(`${said.charAt(0).toLowerCase()}${said.slice(1)}: the options are ${names.join(', ')}.`);
  }
}

/** A number above zero, whole where `whole`. */
export function positive(name: string, text: string, whole = false): number {
  const value = Number(text);
  if (text.trim() !== '' && value > 0 && Number.isFinite(value) && (!whole || Number.isInteger(value)))
    return value;
  return refuse(`--${name} ${text} is not a ${whole ? 'whole ' : ''}number above zero.`);
}
