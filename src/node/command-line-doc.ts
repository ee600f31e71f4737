/** docs/command-line.md, made from the commands themselves: `npm run docs`. A test compares it with the file. */
import type { Command, Option } from 'commander';
import { defaultCacheDir } from './cache-folder.ts';

const escape = (text: string): string =>
  text.replaceAll('|', '\\|').replaceAll('<', '&lt;').replaceAll('\n', ' ');

function optionRows(options: readonly Option[]): string[] {
  return [
    '| option | meaning |',
    '| --- | --- |',
    ...options.map(
      (option) => `| \`${option.flags.replaceAll('|', '\\|')}\` | ${escape(option.description)} |`,
    ),
  ];
}

function section(path: string, command: Command): string[] {
  const visible = command.options.filter((option) => !option.hidden);
  const usage = [
    path,
    ...command.registeredArguments.map((argument) =>
      argument.required ? `<${argument.name()}>` : `[${argument.name()}]`,
    ),
  ];
  const groups = new Map<string, Option[]>();
  for (const option of visible) {
    const heading = option.helpGroupHeading ?? '';
    groups.set(heading, [...(groups.get(heading) ?? []), option]);
  }
  return [
    `## \`${usage.join(' ')}\``,
    '',
    ...(command.description() === '' ? [] : [`${escape(command.description())}.`, '']),
    ...command.registeredArguments
      .filter(({ description }) => description !== '')
      .flatMap((argument) => [`\`${argument.name()}\`: ${escape(argument.description)}`, '']),
    ...[...groups].flatMap(([heading, options]) => [
      ...(heading === '' ? [] : [heading, '']),
      ...optionRows(options),
      '',
    ]),
    ...command.commands.flatMap((child) => section(`${path} ${child.name()}`, child)),
  ];
}

export function commandLineDoc(root: Command): string {
  return [
    '# Command line',
    '',
    'What `vitrine` understands. Made from the code by `npm run docs`: do not edit.',
    '',
    ...root.commands.flatMap((command) => section(`vitrine ${command.name()}`, command)),
  ]
    .join('\n')
    .replaceAll(defaultCacheDir(), '~/.cache/vitrine')
    .replace(/\n{3,}/g, '\n\n')
    .trimEnd()
    .concat('\n');
}
