/** The commands on the pages of the configurations are run, and print what stands below them. */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { CONFIGURATION_NAMES } from '../../src/machine/facts.ts';
import { PROGRAM, whyNoKernel } from './vitrine.ts';

const FOLDER = new URL('../../docs/configurations/', import.meta.url);
const missing = whyNoKernel();

interface Documented {
  readonly page: string;
  readonly command: string;
  readonly output: string | undefined;
}

/** A block `sh` holds commands, a block `text` behind it what the last of them prints. */
function documented(page: string): readonly Documented[] {
  const blocks = [...readFileSync(new URL(page, FOLDER), 'utf8').matchAll(/^```(\w+)\n([^]*?)^```$/gm)];
  return blocks.flatMap(([, language, body = ''], k) => {
    if (language !== 'sh') return [];
    const commands = body.trim().split('\n');
    const output = blocks[k + 1]?.[1] === 'text' ? blocks[k + 1]?.[2] : undefined;
    return commands.map((command, n) => ({
      page,
      command,
      output: n === commands.length - 1 ? output : undefined,
    }));
  });
}

const pages = readdirSync(FOLDER);
const all = pages.flatMap(documented);

test('every configuration has a page with commands, which are those of the command line', () => {
  expect(pages.sort()).toEqual(CONFIGURATION_NAMES.map((name) => `${name}.md`).sort());
  for (const page of pages) expect(documented(page).length).toBeGreaterThan(0);
  for (const { command } of all) expect(command).toMatch(/^npx vitrine /);
});

test.skipIf(missing !== undefined).for(all)(
  `$page: $command${missing === undefined ? '' : ` (skipped: ${missing})`}`,
  ({ command, output }) => {
    const run = command.replace(/^npx vitrine/, `'${process.execPath}' '${PROGRAM}'`);
    const { status, stdout, stderr } = spawnSync('sh', ['-c', run], { encoding: 'utf8' });
    expect(status, stderr).toBe(0);
    if (output !== undefined) expect(stdout).toBe(output);
    else expect(stdout).not.toBe('');
  },
);
