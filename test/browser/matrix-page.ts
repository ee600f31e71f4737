/**
 * `npm run test:browser [-- REPORT.json]`: the page of `vitrine matrix --html` in headless Chromium, at the width of a desk and
 * of a phone. REPORT.json is what `vitrine matrix --json` wrote; without it the page is of the recorded boots. Needs Debian's
 * `chromium` (or name another with --chromium).
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { judge } from '../../src/node/matrix/checks.ts';
import { FACTS, CONFIGURATION_NAMES } from '../../src/machine/facts.ts';
import { html } from '../../src/node/matrix/html.ts';
import { exitsOf, featuresOf, leafOf } from '../../src/node/matrix/observe-boot.ts';
import { replay, type Recording } from '../../src/node/matrix/recording.ts';
import { refusalsOf } from '../../src/node/matrix/refusals.ts';
import type { MatrixReport } from '../../src/node/matrix/report.ts';

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { chromium: { type: 'string', default: '/usr/bin/chromium' }, screenshots: { type: 'string' } },
});
if (!existsSync(options.chromium)) {
  console.error(
    `test:browser: there is no ${options.chromium}: install Debian's chromium or name one with --chromium.`,
  );
  process.exit(2);
}

/** From the recorded boots, one of which ends badly. */
function recorded(): MatrixReport {
  const recordings = CONFIGURATION_NAMES.map(
    (name) =>
      JSON.parse(readFileSync(new URL(`../recorded/${name}.json`, import.meta.url), 'utf8')) as Recording,
  );
  const observations = recordings.map(replay);
  return {
    kernel: { name: 'vmlinuz-test', sha256: 'ab'.repeat(32) },
    statements: judge({
      boots: new Map(observations.map((o) => [o.configuration, o])),
      refusals: Object.assign(refusalsOf(CONFIGURATION_NAMES), ...recordings.map(({ refusals }) => refusals)),
    }),
    boots: observations.map((o) => ({
      configuration: o.configuration,
      outcome: o.configuration === 'tdx' ? 'died' : 'booted',
      end: 'triple fault',
      placement: FACTS[o.configuration].placement,
      isolationLeaf: leafOf(o),
      features: featuresOf(o.said['dmesg'] ?? []),
      vcpus: 1,
      exits: exitsOf(o),
      pages: o.pages,
      pageMap: o.pageMap,
      instructions: 2_000_000_000,
      seconds: 9.5,
      lastWords: ['Kernel panic - not syncing: <b>test</b>'],
    })),
  };
}

const [path] = positionals;
const report = path === undefined ? recorded() : (JSON.parse(readFileSync(path, 'utf8')) as MatrixReport);
const folder = mkdtempSync(join(tmpdir(), 'vitrine-page-'));
const problems: string[] = [];
const expect = (ok: boolean, what: string): void => {
  console.log(`${ok ? 'ok    ' : 'FAILED'} ${what}`);
  if (!ok) problems.push(what);
};
try {
  const file = join(folder, 'matrix.html');
  writeFileSync(file, html(report));
  const browser = await chromium.launch({
    executablePath: options.chromium,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
  for (const [name, width] of [
    ['desk', 1280],
    ['phone', 360],
  ] as const) {
    const page = await browser.newPage({ viewport: { width, height: 800 } });
    const said: string[] = [];
    page.on('console', (message) => void said.push(message.text()));
    page.on('pageerror', (error) => void said.push(error.message));
    page.on('request', (request) => {
      if (!/^(file|data):/.test(request.url())) said.push(`request to ${request.url()}`);
    });
    await page.goto(pathToFileURL(file).href);
    expect(said.length === 0, `${name}: nothing on the console, nothing fetched ${said.join('; ')}`);
    const shown = await page.locator('body').innerText();
    for (const { configuration } of report.boots) {
      expect(shown.includes(configuration), `${name}: ${configuration} is named`);
      expect(
        await page.getByLabel(`exits of ${configuration}`, { exact: true }).isVisible(),
        `${name}: exits of ${configuration} are drawn`,
      );
    }
    expect(
      (await page.locator('tr[id]').count()) === new Set(report.statements.map(({ id }) => id)).size,
      `${name}: every statement has a row`,
    );
    const overflow = await page.evaluate(
      'document.documentElement.scrollWidth - document.documentElement.clientWidth',
    );
    expect(overflow === 0, `${name}: the page itself scrolls only downwards (${String(overflow)} px over)`);
    const size = await page.evaluate('parseFloat(getComputedStyle(document.querySelector("p")).fontSize)');
    expect(Number(size) >= 14, `${name}: text of ${String(size)} px`);
    if (options.screenshots !== undefined)
      await page.screenshot({ path: join(options.screenshots, `${name}.png`), fullPage: true });
    await page.close();
  }
  await browser.close();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
console.log(`${problems.length === 0 ? 'all as it should be' : `${problems.length} problems`}`);
process.exit(problems.length === 0 ? 0 : 1);
