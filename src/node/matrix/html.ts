/** The matrix as one self-contained page: boots, who exits to whom, page states over time, statements with their evidence. */
import { markupText } from '../sanitize.ts';
import type { BootResult, MatrixReport, StatementResult, Verdict } from './report.ts';
import { tally } from './report.ts';
import { STATEMENTS } from './statements.ts';
import { leafText, routes } from './table.ts';

const STYLE = `
:root { color-scheme: light dark; --line: #8886; --ok: #1a7f37; --bad: #cf222e; --none: #888; --shared: #d9730d; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 75rem; }
h1 { font-size: 1.4rem } h2 { font-size: 1.15rem; margin-top: 2rem } h3 { font-size: 1rem; margin: .6rem 0 .3rem }
.scroll { overflow-x: auto } p, h1, h2 { overflow-wrap: anywhere }
table { border-collapse: collapse; font-size: .9rem }
th, td { border: 1px solid var(--line); padding: .25rem .5rem; text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.shown { color: var(--ok) } .failed { color: var(--bad); font-weight: bold } .not-shown, .not-applicable { color: var(--none) }
.boots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem }
.boot { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem }
svg { display: block; width: 100%; height: auto }
details { margin: .3rem 0 } summary { cursor: pointer }
ul { margin: .2rem 0 .5rem; padding-left: 1.2rem } li { overflow-wrap: anywhere }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem }
code { overflow-wrap: anywhere }
`;

const text = markupText;
const cell = (value: string | number, number = false): string =>
  `<td${number ? ' class="number"' : ''}>${text(String(value))}</td>`;

function bootTable(boots: readonly BootResult[]): string {
  const head = [
    'configuration',
    'outcome',
    'guest at',
    'leaf A/B',
    'vCPUs',
    'pages private',
    'pages shared',
    'instructions',
    'seconds',
    'the kernel says',
  ];
  const rows = boots.map(
    (boot) =>
      `<tr><th scope="row">${text(boot.configuration)}</th><td class="${boot.outcome === 'booted' ? 'shown' : 'failed'}">${text(boot.outcome)}</td>` +
      cell(boot.placement) +
      cell(leafText(boot)) +
      cell(boot.vcpus, true) +
      cell(boot.pages.private, true) +
      cell(boot.pages.shared, true) +
      cell(boot.instructions, true) +
      cell(boot.seconds.toFixed(1), true) +
      cell(boot.features === '' ? '-' : boot.features) +
      '</tr>',
  );
  return `<div class="scroll"><table><thead><tr>${head.map((name) => `<th scope="col">${name}</th>`).join('')}</tr></thead><tbody>${rows.join('')}</tbody></table></div>`;
}

/** Boxes for the parties from the least trusted (top) to the guest; an arrow for each route, as wide as its logarithm. */
function exitPicture(boot: BootResult): string {
  const all = routes(boot);
  const parties = ['host', 'silicon', 'paravisor', 'guest'].filter(
    (name) =>
      name === 'host' || name === 'guest' || all.some(({ route }) => route.split(' > ').includes(name)),
  );
  const y = (name: string): number => parties.indexOf(name) * 76 + 8;
  const boxes = parties.map(
    (name) =>
      `<rect x="110" y="${y(name)}" width="120" height="34" rx="6" fill="none" stroke="currentColor"/><text x="170" y="${y(name) + 22}" text-anchor="middle">${name}</text>`,
  );
  let left = 0;
  let right = 0;
  const arrows = all.map(({ route, count }) => {
    const [from = '', to = ''] = route.split(' > ');
    if (!parties.includes(from) || !parties.includes(to)) return '';
    const width = 1 + Math.log10(Math.max(1, count));
    if (from === to)
      return `<path d="M230 ${y(from) + 8} C 275 ${y(from) - 4} 275 ${y(from) + 38} 230 ${y(from) + 26}" fill="none" stroke="currentColor" stroke-width="${width.toFixed(1)}"/><text x="268" y="${y(from) + 21}">${count}</text>`;
    const down = y(to) > y(from);
    // Neighbours meet inside, the others go around.
    const adjacent = Math.abs(parties.indexOf(from) - parties.indexOf(to)) === 1;
    const x = adjacent ? (down ? 150 : 190) : down ? 100 - 22 * left++ : 240 + 22 * right++;
    const start = down ? y(from) + 34 : y(from);
    const end = down ? y(to) : y(to) + 34;
    const path = adjacent
      ? `M${x} ${start} L${x} ${end}`
      : `M${down ? 110 : 230} ${y(from) + 17} L${x} ${y(from) + 17} L${x} ${y(to) + 17} L${down ? 110 : 230} ${y(to) + 17}`;
    const labelX = adjacent ? (down ? x - 6 : x + 6) : down ? x - 4 : x + 4;
    return `<path d="${path}" fill="none" stroke="currentColor" stroke-width="${width.toFixed(1)}" marker-end="url(#tip)"/><text x="${labelX}" y="${(start + end) / 2 + 5}" text-anchor="${down ? 'end' : 'start'}">${count}</text>`;
  });
  return `<svg viewBox="0 0 340 ${parties.length * 76 - 30}" role="img" aria-label="exits of ${text(boot.configuration)}" font-size="13" fill="currentColor">${boxes.join('')}${arrows.join('')}</svg>`;
}

/** Time to the right, addresses upwards; the darker, the more of it is shared with the host. */
function pageMap(boot: BootResult): string {
  const samples = boot.pageMap;
  const last = samples.at(-1);
  if (last === undefined || last.time === 0) return '';
  const width = 320;
  const height = 128;
  const parts = last.shared.length;
  const cells: string[] = [];
  for (const [index, sample] of samples.entries()) {
    const x = (sample.time / last.time) * width;
    const end = ((samples[index + 1]?.time ?? last.time) / last.time) * width;
    for (const [part, shared] of sample.shared.entries())
      if (shared > 0)
        cells.push(
          `<rect x="${x.toFixed(1)}" y="${(height - ((part + 1) * height) / parts).toFixed(1)}" width="${Math.max(1, end - x).toFixed(1)}" height="${(height / parts).toFixed(2)}" opacity="${Math.max(0.15, shared).toFixed(2)}"/>`,
        );
  }
  return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="shared pages of ${text(boot.configuration)} over time"><rect width="${width}" height="${height}" fill="none" stroke="currentColor" stroke-opacity=".4"/><g fill="var(--shared)">${cells.join('')}</g></svg><small>pages shared with the host: addresses upwards, ${(last.time / 1e9).toFixed(2)} s of virtual time to the right</small>`;
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
        `<td class="${result?.verdict ?? 'not-applicable'}">${WORDS[result?.verdict ?? 'not-applicable']}</td>`,
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
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">' +
    `<title>Vitrine matrix</title><link rel="icon" href="data:,"><style>${STYLE}</style></head><body>` +
    `<h1>One kernel, ${report.boots.length} configurations</h1><p>${text(report.kernel.name)}, SHA-256 <code>${text(report.kernel.sha256)}</code>. ` +
    `${booted} of ${report.boots.length} booted; statements of coco.rst: <span class="shown">${counts.shown} shown</span>, ` +
    `<span class="failed">${counts.failed} failed</span>, <span class="not-shown">${counts['not-shown']} not shown</span>.</p>` +
    `<h2>Boots</h2>${bootTable(report.boots)}<h2>Who exits to whom, and what is shared</h2>` +
    '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="currentColor"/></marker></defs></svg>' +
    `<div class="boots">${report.boots.map(bootCard).join('')}</div>` +
    `<h2>Statements of Documentation/virt/hyperv/coco.rst</h2><div class="scroll"><table><thead><tr><th scope="col">statement</th><th scope="col">in our words</th>` +
    `${report.boots.map(({ configuration }) => `<th scope="col">${text(configuration)}</th>`).join('')}</tr></thead><tbody>${statementRows(report)}</tbody></table></div></body></html>\n`
  );
}
