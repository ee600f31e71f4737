/** What code a paravisor consists of, as one digest: it goes into the measured page, and the program refuses a page with another. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Folders and files that the program is made of: its own, and all that it may import. */
const PARTS = [
  'paravisor',
  'chipset',
  'abi',
  'seats',
  'x86/decoder.ts',
  'x86/encoding.ts',
  'x86/record-plan.ts',
  'x86/defs',
] as const;

/** SHA-384 over the names and contents of the source files, tests left out. */
export function paravisorBuild(): Uint8Array {
  const source = join(import.meta.dirname, '..');
  const files = PARTS.flatMap((part) =>
    part.endsWith('.ts')
      ? [part]
      : readdirSync(join(source, part), { recursive: true, encoding: 'utf8' })
          .map((name) => `${part}/${name.replaceAll('\\', '/')}`)
          .filter((name) => name.endsWith('.ts') && !/\.test\.ts$|\/test-/.test(name)),
  ).sort();
  const hash = createHash('sha384');
  for (const name of files) {
    const bytes = readFileSync(join(source, name));
    // Lengths, so that bytes cannot move between a name and a content.
    hash.update(`${name.length} ${name} ${bytes.length} `).update(bytes);
  }
  return new Uint8Array(hash.digest());
}
