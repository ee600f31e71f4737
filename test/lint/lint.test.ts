import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';

const project = fileURLToPath(new URL('../../', import.meta.url));
const { TABLE } = createRequire(import.meta.url)('../../scripts/import-table.cjs') as {
  TABLE: Record<string, string[]>;
};
const folders = Object.keys(TABLE);
const temporary = mkdtempSync(join(tmpdir(), 'vitrine-lint-'));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

/** The linter's output and status over a tree of these files beside one harmless file for each folder. */
function lint(files: Record<string, string>): { status: number; output: string } {
  const root = mkdtempSync(join(temporary, 'tree-'));
  const all: Record<string, string> = {
    'tsconfig.json':
      '{"compilerOptions":{"module":"NodeNext","allowImportingTsExtensions":true,"noEmit":true},"include":["src"]}',
    ...Object.fromEntries(
      [...folders, 'silicon/snp', 'silicon/tdx', 'node'].map((folder) => [
        `src/${folder}/thing.ts`,
        'export interface Thing { n: number }\nexport const thing = 1;\n',
      ]),
    ),
    'src/machine/inspect.ts': 'export interface Thing { n: number }\nexport const thing = 2;\n',
    ...files,
  };
  for (const [name, text] of Object.entries(all)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), text);
  }
  symlinkSync(join(project, 'node_modules'), join(root, 'node_modules'));
  try {
    return {
      status: 0,
      output: execFileSync(process.execPath, [join(project, 'scripts/lint.cjs'), root], { encoding: 'utf8' }),
    };
  } catch (error) {
    const { status, stdout } = error as { status: number; stdout: string };
    return { status, output: stdout };
  }
}

const up = (from: string): string => '../'.repeat(from.split('/').length);

test('a clean tree has no findings', () => {
  const { status, output } = lint({});
  expect(output).toContain('0 findings');
  expect(status).toBe(0);
});

describe('one planted import per folder fails', () => {
  const planted = folders.map(
    (folder) =>
      [
        folder,
        folders.find(
          (other) =>
            other !== folder &&
            !(TABLE[folder] as string[]).some((allowed) => allowed.split('/')[0] === other),
        ) ?? 'node',
      ] as const,
  );
  test.each([
    ...planted,
    ['paravisor', 'x86'],
    ['silicon/snp', 'silicon/tdx'],
    ['silicon/tdx', 'silicon/snp'],
  ] as const)('%s imports %s', (from, to) => {
    for (const statement of [
      `import { thing as other } from '${up(from)}${to}/thing.ts';\nexport const use = other;\n`,
      `import type { Thing } from '${up(from)}${to}/thing.ts';\nexport type Use = Thing;\n`,
    ]) {
      const { status, output } = lint({ [`src/${from}/planted.ts`]: statement });
      expect(output).toContain(`src/${from}/planted.ts imports src/${to}/thing.ts`);
      expect(status).toBe(1);
    }
  });
});

test('machine/inspect is for the shells', () => {
  const text = "import { thing } from './inspect.ts';\nexport const use = thing;\n";
  expect(lint({ 'src/machine/planted.ts': text }).output).toContain('inspect-is-for-shells');
  expect(
    lint({
      'src/node/planted.ts': "import { thing } from '../machine/inspect.ts';\nexport const use = thing;\n",
    }).status,
  ).toBe(0);
});

test('the core does not know Node.js', () => {
  expect(
    lint({
      'src/host/planted.ts': "import { readFileSync } from 'node:fs';\nexport const use = readFileSync;\n",
    }).output,
  ).toContain('core-without-node');
});

test.each([
  ['the clock', 'export const now = Date.now();'],
  ['randomness', 'export const r = Math.random();'],
  ['promises', 'export async function f() {}'],
  ['generators', 'export function* f() {}'],
  ['timers', 'setTimeout(() => undefined, 1);'],
  ['the console', 'console.log(1);'],
])('the core does not use %s', (what, text) => {
  const { status, output } = lint({ 'src/chipset/planted.ts': `${text}\n` });
  expect(output).toContain(`uses ${what}`);
  expect(status).toBe(1);
});

test('a file that the import check does not look at is found', () => {
  const { status, output } = lint({ 'src/host/node_modules/hidden/thing.ts': 'export const hidden = 1;\n' });
  expect(output).toContain('src/host/node_modules/hidden/thing.ts was not seen by the import check');
  expect(status).toBe(1);
});

test('a dependency whose licence is not on the list is found', () => {
  const packages = {
    '': {},
    'node_modules/one': { license: 'GPL-3.0' },
    'node_modules/two': { license: 'GPL-3.0', dev: true },
    'node_modules/three': { license: 'MIT' },
  };
  const { status, output } = lint({ 'package-lock.json': JSON.stringify({ packages }) });
  expect(output).toContain('node_modules/one has licence GPL-3.0');
  expect(output).toContain('1 findings');
  expect(status).toBe(1);
});
