/**
 * `npm run record:matrix`: boots the default kernel in every configuration and writes the shortened event streams to test/recorded,
 * for the tests that break each property of them on purpose.
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defaultCacheDir } from '../src/node/cache.ts';
import { CONFIGURATION_NAMES } from '../src/machine/facts.ts';
import { progressView } from '../src/node/matrix/progress.ts';
import { observeAll } from '../src/node/matrix/run.ts';
import { shortened } from '../src/node/matrix/recording.ts';
import { table } from '../src/node/matrix/table.ts';
import { bootsOf, wholeMatrix } from '../src/node/matrix/whole.ts';

const options = {
  add: [],
  memory: 512 * 2 ** 20,
  cpus: 1,
  timeout: 0,
  seed: 1n,
  date: Date.UTC(2026, 0, 1) / 1000,
  realtime: false,
  hyperv: true,
  hypervWithout: [],
  paravisorWithout: [],
  hideIsolation: false,
  hashEvery: 0,
  gdbWait: false,
  offline: true,
  cacheDir: defaultCacheDir(),
};
const boots = bootsOf(options, CONFIGURATION_NAMES);
const progress = progressView(
  process.stderr,
  boots.map(({ label }) => label),
);
const results = await observeAll(boots, progress.update, true);
const { report, findings } = wholeMatrix(CONFIGURATION_NAMES, results);
process.stdout.write(table(report));
for (const { recording } of results.slice(0, CONFIGURATION_NAMES.length)) {
  if (recording === undefined) continue;
  const { configuration } = recording.about;
  const probes = findings.boots.get(configuration)?.probes ?? {};
  const file = fileURLToPath(new URL(`../test/recorded/${configuration}.json`, import.meta.url));
  writeFileSync(
    file,
    `${JSON.stringify(shortened({ ...recording, about: { ...recording.about, probes } }))}\n`,
  );
}
