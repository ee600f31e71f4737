/** The matrix on a terminal or in a log: the boots, then the statements. Guest text is made harmless. */
import { logText, oneLine } from '../sanitize.ts';
import { tally, type BootResult, type MatrixReport, type Verdict } from './report.ts';
import { STATEMENTS } from './statements.ts';

const MARK: Readonly<Record<Verdict, string>> = {
  shown: 'ok',
  failed: 'FAILED',
  'not-shown': 'not shown',
  'not-applicable': '-',
};

function columns(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? '').length)),
  );
  return rows
    .map((row) =>
      row
        .map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)))
        .join('  '),
    )
    .join('\n');
}

export const leafText = (boot: BootResult): string =>
  boot.isolationLeaf === undefined
    ? '-'
    : `0x${boot.isolationLeaf.a.toString(16)}/0x${boot.isolationLeaf.b.toString(16)}`;

/** Exits by route: `guest > host 120, guest > paravisor 3400`. */
export function routes(boot: BootResult): readonly { readonly route: string; readonly count: number }[] {
  const sums = new Map<string, number>();
  for (const { route, count } of boot.exits) sums.set(route, (sums.get(route) ?? 0) + count);
  return [...sums].map(([route, count]) => ({ route, count })).sort((a, b) => b.count - a.count);
}

function boots(report: MatrixReport): string {
  return columns([
    [
      'configuration',
      'outcome',
      'guest at',
      'leaf A/B',
      'vCPUs',
      'pages private/shared',
      'instructions',
      'seconds',
      'kernel says',
    ],
    ...report.boots.map((boot) => [
      boot.configuration,
      boot.outcome,
      boot.placement,
      leafText(boot),
      String(boot.vcpus),
      `${boot.pages.private}/${boot.pages.shared}`,
      String(boot.instructions),
      boot.seconds.toFixed(1),
      boot.features === '' ? '-' : oneLine(boot.features),
    ]),
  ]);
}

function exits(report: MatrixReport): string {
  return columns(
    report.boots.map((boot) => [
      `exits ${boot.configuration}`,
      routes(boot)
        .map(({ route, count }) => `${route} ${count}`)
        .join(', '),
    ]),
  );
}

function statements(report: MatrixReport): string {
  const names = report.boots.map(({ configuration }) => configuration);
  const at = (id: string, configuration: string) =>
    report.statements.find((entry) => entry.id === id && entry.configuration === configuration);
  const lines = [
    columns([
      ['statement', ...names, 'coco.rst'],
      ...STATEMENTS.map(({ id, sentence }) => [
        id,
        ...names.map((name) => MARK[at(id, name)?.verdict ?? 'not-applicable']),
        sentence,
      ]),
    ]),
  ];
  const failed = report.statements.filter(({ verdict }) => verdict === 'failed');
  if (failed.length > 0)
    lines.push(
      '',
      ...failed.map(
        ({ id, configuration, evidence }) =>
          `FAILED ${id} in ${configuration}: ${evidence.map(oneLine).join('; ')}`,
      ),
    );
  return lines.join('\n');
}

export function table(report: MatrixReport): string {
  const counts = tally(report.statements);
  const died = report.boots.filter(({ outcome }) => outcome !== 'booted');
  return logText(
    [
      `kernel ${oneLine(report.kernel.name)}, SHA-256 ${report.kernel.sha256}`,
      '',
      boots(report),
      '',
      exits(report),
      '',
      statements(report),
      '',
      ...died.flatMap(({ configuration, end, lastWords }) => [
        `${configuration} did not boot: ${oneLine(end)}`,
        ...lastWords.map((line) => `  | ${oneLine(line)}`),
        '',
      ]),
      `${report.boots.length - died.length} of ${report.boots.length} booted; statements: ${counts.shown} shown, ${counts.failed} failed, ${counts['not-shown']} not shown`,
      '',
    ].join('\n'),
  );
}
