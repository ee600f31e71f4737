/** `npm run docs`: writes what is made from the code into docs/. `--check`: says whether it is up to date. */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { format } from 'prettier';
import { commandLineDoc } from '../src/node/command-line-doc.ts';
import { program } from '../src/node/program.ts';

const path = fileURLToPath(new URL('../docs/command-line.md', import.meta.url));
const text = await format(commandLineDoc(program()), { parser: 'markdown', printWidth: 110 });
if (process.argv.includes('--check')) {
  if (readFileSync(path, 'utf8') !== text) {
    console.error('docs/command-line.md is not what the code says: run npm run docs and commit it');
    process.exit(1);
  }
} else writeFileSync(path, text);
