/** `npm run docs`: writes what is made from the code into docs/. `--check`: says whether it is up to date. */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { format } from 'prettier';
import { commandLineDoc } from '../src/node/command-line-doc.ts';
import { program } from '../src/node/program.ts';
import { traceDoc } from '../src/node/trace-doc.ts';

const PAGES: readonly (readonly [string, string])[] = [
  ['command-line.md', commandLineDoc(program())],
  ['trace.md', traceDoc()],
];

for (const [name, markdown] of PAGES) {
  const path = fileURLToPath(new URL(`../docs/${name}`, import.meta.url));
  const text = await format(markdown, { parser: 'markdown', printWidth: 110 });
  if (!process.argv.includes('--check')) writeFileSync(path, text);
  else if (readFileSync(path, 'utf8') !== text) {
    console.error(`docs/${name} is not what the code says: run npm run docs and commit it`);
    process.exitCode = 1;
  }
}
