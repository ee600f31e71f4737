/**
 * `npm run record:matrix [-- NAME...]`: boots the default kernel in every configuration, or in those named, and writes the shortened event streams to test/recorded,
 * for the tests that break each property of them on purpose.
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defaultCacheDir } from '../src/node/cache-folder.ts';
import { CONFIGURATION_NAMES } from '../src/machine/facts.ts';
import { DEFAULTS } from '../src/node/matrix/defaults.ts';
import { progressView } from '../src/node/matrix/progress.ts';
import { observeAll } from '../src/node/matrix/run.ts';
import { shortened } from '../src/node/matrix/recording.ts';
import { table } from '../src/node/matrix/table.ts';
import { bootsOf, wholeMatrix } from '../src/node/matrix/whole.ts';

const given = process.argv.slice(2);
const names = CONFIGURATION_NAMES.filter((name) => given.length === 0 || given.includes(name));
const boots = bootsOf({ ...DEFAULTS, cacheDir: defaultCacheDir() }, names);
const progress = progressView(
  process.stderr,
  boots.map(({ label }) => label),
);
const results = await observeAll(boots, progress.update, true);
const { report, findings } = wholeMatrix(names, results);
process.stdout.write(table(report));
for (const { recording } of results.slice(0, names.length)) {
  if (recording === undefined) continue;
  const { configuration } = recording.about;
  const probes = findings.boots.get(configuration)?.probes ?? {};
  const file = fileURLToPath(new URL(`../test/recorded/${configuration}.json`, import.meta.url));
  writeFileSync(
    file,
    `${JSON.stringify(shortened({ ...recording, about: { ...recording.about, probes } }))}\n`,
  );
}
