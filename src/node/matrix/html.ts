/** The matrix as one self-contained page: boots, who exits to whom, page states over time, statements with their evidence. */
import { logText, markupText } from '../sanitize.ts';
import type { BootResult, MatrixReport, StatementResult, Verdict } from './report.ts';
import { tally } from './report.ts';
import { STATEMENTS } from './statements.ts';
import { leafText, routes } from './table.ts';

const STYLE = `
:root { color-scheme: light dark; --line: #8886; --ok: #1a7f37; --bad: #cf222e; --none: #777; --shared: #d9730d; }
@media (prefers-color-scheme: dark) { :root { --ok: #3fb950; --bad: #ff7b72; --none: #999; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 75rem; }
h1 { font-size: 1.4rem } h2 { font-size: 1.15rem; margin-top: 2rem } h3 { font-size: 1rem; margin: .6rem 0 .3rem }
.scroll { overflow-x: auto } p, h1, h2 { overflow-wrap: anywhere }
table { border-collapse: collapse; font-size: .95rem }
th, td { border: 1px solid var(--line); padding: .25rem .5rem; text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.shown { color: var(--ok) } .failed { color: var(--bad); font-weight: bold } .not-shown, .not-applicable { color: var(--none) }
.boots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem }
.boot { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; min-width: 0 }
svg { display: block; width: 100%; height: auto; margin: .4rem 0 }
svg .host { fill: #cf222e22 } svg .silicon { fill: #8882 } svg .paravisor, svg .guest { fill: #1a7f3722 }
details { margin: .3rem 0 } summary { cursor: pointer; padding: .15rem 0 }
ul { margin: .2rem 0 .5rem; padding-left: 1.2rem } li { overflow-wrap: anywhere }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem }
code { overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; margin: .5rem 0 } dd { margin: 0 } dt { font-weight: bold }
@media (max-width: 48rem) {
  .cards thead { display: none }
  .cards, .cards tbody, .cards tr, .cards th, .cards td { display: block; border: 0; padding: .1rem 0 }
  .cards tr { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .7rem; margin-bottom: .6rem }
  .cards td[data-name]::before { content: attr(data-name) ": "; color: CanvasText; font-weight: normal }
  .cards td.number { text-align: left }
  .cards td.not-applicable { display: none }
}
`;

const text = markupText;
const cell = (value: string | number, number = false): string =>
  `<td${number ? ' class="number"' : ''}>${text(String(value))}</td>`;

const BOOT_COLUMNS: readonly (readonly [name: string, value: (boot: BootResult) => string | number])[] = [
  ['outcome', ({ outcome }) => outcome],
  ['guest at', ({ placement }) => placement],
  ['leaf A/B', leafText],
  ['vCPUs', ({ vcpus }) => vcpus],
  ['pages private', ({ pages }) => pages.private],
  ['pages shared', ({ pages }) => pages.shared],
  ['instructions', ({ instructions }) => instructions],
  ['seconds', ({ seconds }) => seconds.toFixed(1)],
  ['the kernel says', ({ features }) => (features === '' ? '-' : features)],
];

function bootTable(boots: readonly BootResult[]): string {
  const rows = boots.map((boot) => {
    const cells = BOOT_COLUMNS.map(([name, valueOf]) => {
      const value = valueOf(boot);
      const kind =
        name === 'outcome'
          ? boot.outcome === 'booted'
            ? 'shown'
            : 'failed'
          : typeof value === 'number'
            ? 'number'
            : '';
      return `<td class="${kind}" data-name="${name}">${text(String(value))}</td>`;
    });
    return `<tr><th scope="row">${text(boot.configuration)}</th>${cells.join('')}</tr>`;
  });
  return `<div class="scroll"><table class="cards"><thead><tr><th scope="col">configuration</th>${BOOT_COLUMNS.map(([name]) => `<th scope="col">${name}</th>`).join('')}</tr></thead><tbody>${rows.join('')}</tbody></table></div>`;
}

/** Short enough for a column: 31354 is 31k. */
const shortCount = (count: number): string =>
  count < 10_000
    ? String(count)
    : count < 10_000_000
      ? `${Math.round(count / 1000)}k`
      : `${Math.round(count / 1e6)}M`;

const ROW = 40;
const NAMES = 84;
const COLUMN = 54;

/** A row for each party, from the least trusted (top) to the guest; a column for each route, its arrow as wide as its logarithm. */
function exitPicture(boot: BootResult): string {
  const all = routes(boot);
  const parties = ['host', 'silicon', 'paravisor', 'guest'].filter(
    (name) =>
      name === 'host' || name === 'guest' || all.some(({ route }) => route.split(' > ').includes(name)),
  );
  const shown = all.filter(({ route }) => route.split(' > ').every((name) => parties.includes(name)));
  const width = NAMES + COLUMN * Math.max(4, shown.length);
  const middle = (name: string): number => parties.indexOf(name) * ROW + ROW / 2;
  const bands = parties.map(
    (name, k) =>
      `<rect class="${name}" x="0" y="${k * ROW + 2}" width="${width}" height="${ROW - 4}" rx="5"/><text x="8" y="${k * ROW + ROW / 2 + 5}">${name}</text>`,
  );
  const bottom = parties.length * ROW;
  const arrows = shown.map(({ route, count }, k) => {
    const [from = '', to = ''] = route.split(' > ');
    const x = NAMES + COLUMN * k + COLUMN / 2;
    const stroke = `stroke="currentColor" fill="none" stroke-width="${(1 + Math.log10(Math.max(1, count)) / 2).toFixed(1)}"`;
    const label = `<text x="${x}" y="${bottom + 14}" text-anchor="middle">${shortCount(count)}</text>`;
    const title = `<title>${text(route)}: ${count}</title>`;
    if (from === to)
      return `<g>${title}<path d="M${x - 8} ${middle(from) + 6} a9 9 0 1 1 16 0" ${stroke} marker-end="url(#tip)"/>${label}</g>`;
    const down = middle(to) > middle(from);
    return `<g>${title}<circle cx="${x}" cy="${middle(from)}" r="3.5" fill="currentColor"/><path d="M${x} ${middle(from)} L${x} ${middle(to) + (down ? -4 : 4)}" ${stroke} marker-end="url(#tip)"/>${label}</g>`;
  });
  return (
    `<svg viewBox="0 0 ${width} ${bottom + 22}" role="img" aria-label="exits of ${text(boot.configuration)}" font-size="13" fill="currentColor">${bands.join('')}${arrows.join('')}</svg>` +
    `<small>${shown.map(({ route, count }) => `${text(route)} ${count}`).join(', ')}</small>`
  );
}

const MAP = { left: 52, top: 6, width: 290, height: 128, bottom: 20 };

/** Time to the right, addresses upwards; the darker, the more of it is shared with the host. */
function pageMap(boot: BootResult): string {
  const samples = boot.pageMap;
  const last = samples.at(-1);
  if (last === undefined || last.time === 0) return '';
  const { left, top, width, height, bottom } = MAP;
  const parts = last.shared.length;
  const cells: string[] = [];
  for (const [index, sample] of samples.entries()) {
    const x = left + (sample.time / last.time) * width;
    const end = left + ((samples[index + 1]?.time ?? last.time) / last.time) * width;
    for (const [part, shared] of sample.shared.entries())
      if (shared > 0)
        cells.push(
          `<rect x="${x.toFixed(1)}" y="${(top + height - ((part + 1) * height) / parts).toFixed(1)}" width="${Math.max(1, end - x).toFixed(1)}" height="${(height / parts).toFixed(2)}" opacity="${Math.max(0.25, shared).toFixed(2)}"/>`,
        );
  }
  const mebibytes = Math.round(((boot.pages.private + boot.pages.shared) * 4) / 1024);
  const label = (x: number, y: number, anchor: string, words: string): string =>
    `<text x="${x}" y="${y}" text-anchor="${anchor}">${words}</text>`;
  return (
    `<svg viewBox="0 0 ${left + width + 6} ${top + height + bottom}" role="img" aria-label="shared pages of ${text(boot.configuration)} over time" font-size="12" fill="currentColor">` +
    `<rect x="${left}" y="${top}" width="${width}" height="${height}" fill="none" stroke="currentColor" stroke-opacity=".4"/><g fill="var(--shared)">${cells.join('')}</g>` +
    label(left - 5, top + 10, 'end', `${mebibytes} MiB`) +
    label(left - 5, top + height, 'end', '0') +
    label(left, top + height + 15, 'start', '0 s') +
    label(left + width, top + height + 15, 'end', `${(last.time / 1e9).toFixed(1)} s`) +
    `</svg><small>memory that the host may read (orange), over the virtual time of the boot: ${boot.pages.shared} of ${boot.pages.private + boot.pages.shared} pages at the end</small>`
  );
}

function bootCard(boot: BootResult): string {
  const kinds = boot.exits.map(
    ({ route, kind, count }) => `<tr>${cell(route)}${cell(kind)}${cell(count, true)}</tr>`,
  );
  return (
    `<section class="boot"><h3>${text(boot.configuration)}</h3>${exitPicture(boot)}${pageMap(boot)}` +
    `<details><summary>exits by kind</summary><div class="scroll"><table><tbody>${kinds.join('')}</tbody></table></div></details>` +
    (boot.outcome === 'booted'
      ? ''
      : `<p class="failed">${text(boot.end)}</p><pre>${text(boot.lastWords.join('\n'))}</pre>`) +
    '</section>'
  );
}

const WORDS: Readonly<Record<Verdict, string>> = {
  shown: 'shown',
  failed: 'failed',
  'not-shown': 'not shown',
  'not-applicable': '–',
};

function statementRows(report: MatrixReport): string {
  return STATEMENTS.map(({ id, sentence, where }) => {
    const results = report.boots.map(({ configuration }) =>
      report.statements.find((entry) => entry.id === id && entry.configuration === configuration),
    );
    const verdicts = results.map(
      (result) =>
        `<td class="${result?.verdict ?? 'not-applicable'}" data-name="${text(result?.configuration ?? '')}">${WORDS[result?.verdict ?? 'not-applicable']}</td>`,
    );
    const evidence = results
      .filter((result): result is StatementResult => result !== undefined && result.evidence.length > 0)
      .map(
        ({ configuration, evidence: lines }) =>
          `<b>${text(configuration)}</b><ul>${lines.map((line) => `<li><code>${text(line)}</code></li>`).join('')}</ul>`,
      );
    return (
      `<tr id="${id}"><th scope="row"><code>${id}</code><br><small>${text(where)}</small></th><td>${text(sentence)}` +
      (evidence.length === 0 ? '' : `<details><summary>evidence</summary>${evidence.join('')}</details>`) +
      `</td>${verdicts.join('')}</tr>`
    );
  }).join('');
}

export function html(report: MatrixReport): string {
  const counts = tally(report.statements);
  const booted = report.boots.filter(({ outcome }) => outcome === 'booted').length;
  return logText(
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">' +
      `<title>Vitrine matrix</title><link rel="icon" href="data:,"><style>${STYLE}</style></head><body>` +
      `<h1>One kernel, ${report.boots.length} configurations</h1><p>${text(report.kernel.name)}, SHA-256 <code>${text(report.kernel.sha256)}</code>. ` +
      `${booted} of ${report.boots.length} booted; statements of coco.rst: <span class="shown">${counts.shown} shown</span>, ` +
      `<span class="failed">${counts.failed} failed</span>, <span class="not-shown">${counts['not-shown']} not shown</span>.</p>` +
      `<h2>Boots</h2>${bootTable(report.boots)}<h2>Who exits to whom, and what is shared</h2>` +
      '<p>An exit ends the run of one party and begins that of another. Each column is one route, with its count below.</p>' +
      '<dl><dt>guest</dt><dd>the kernel that was booted; its own #VC or #VE handler is <i>guest &gt; guest</i></dd>' +
      '<dt>paravisor</dt><dd>the layer below it that it trusts, at VMPL0 or L1; on SNP the host first sees that there was an exit, not why</dd>' +
      '<dt>silicon</dt><dd>the processor, its firmware and the TDX module</dd>' +
      '<dt>host</dt><dd>the hypervisor, which a confidential guest does not trust</dd></dl>' +
      '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="currentColor"/></marker></defs></svg>' +
      `<div class="boots">${report.boots.map(bootCard).join('')}</div>` +
      `<h2>Statements of Documentation/virt/hyperv/coco.rst</h2><p>Each verdict rests on the event stream and the guest of the boot above; open <i>evidence</i> to see on what. <span class="not-shown">not shown</span>: the check needs something that is not built.</p><div class="scroll"><table class="cards"><thead><tr><th scope="col">statement</th><th scope="col">in our words</th>` +
      `${report.boots.map(({ configuration }) => `<th scope="col">${text(configuration)}</th>`).join('')}</tr></thead><tbody>${statementRows(report)}</tbody></table></div></body></html>\n`,
  );
}
