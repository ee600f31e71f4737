/** The statements as a JUnit report: a suite for each configuration, a case for each statement and for the boot itself. */
import { logText, markupText } from '../sanitize.ts';
import { sentenceOf } from './statements.ts';
import type { BootResult, MatrixReport, StatementResult } from './report.ts';

/** Attribute and text values: markup and control characters of a guest have no effect. XML 1.0 allows no tab or newline unescaped in attributes. */
const attribute = (text: string): string => markupText(text).replace(/[\n\t]/g, ' ');

function bootCase(boot: BootResult): string {
  const open = `    <testcase classname="${attribute(boot.configuration)}" name="boot" time="${boot.seconds.toFixed(3)}"`;
  if (boot.outcome === 'booted') return `${open}/>`;
  return `${open}>\n      <failure message="${attribute(boot.end)}">${markupText(boot.lastWords.join('\n'))}</failure>\n    </testcase>`;
}

function statementCase({ id, configuration, verdict, evidence }: StatementResult): string {
  const open = `    <testcase classname="${attribute(configuration)}" name="${attribute(`${id}: ${sentenceOf(id)}`)}" time="0"`;
  const text = markupText(evidence.join('\n'));
  switch (verdict) {
    case 'shown':
      return `${open}>\n      <system-out>${text}</system-out>\n    </testcase>`;
    case 'failed':
      return `${open}>\n      <failure message="${attribute(evidence[0] ?? 'failed')}">${text}</failure>\n    </testcase>`;
    case 'not-shown':
    case 'not-applicable':
      return `${open}>\n      <skipped message="${attribute([verdict.replace('-', ' '), ...evidence].join(': '))}"/>\n    </testcase>`;
  }
}

export function junit(report: MatrixReport): string {
  const suites = report.boots.map((boot) => {
    const statements = report.statements.filter(
      ({ configuration, verdict }) => configuration === boot.configuration && verdict !== 'not-applicable',
    );
    const failures =
      statements.filter(({ verdict }) => verdict === 'failed').length + (boot.outcome === 'booted' ? 0 : 1);
    const skipped = statements.filter(({ verdict }) => verdict === 'not-shown').length;
    return [
      `  <testsuite name="${attribute(boot.configuration)}" tests="${statements.length + 1}" failures="${failures}" errors="0" skipped="${skipped}" time="${boot.seconds.toFixed(3)}">`,
      bootCase(boot),
      ...statements.map(statementCase),
      '  </testsuite>',
    ].join('\n');
  });
  const total = (name: string): number =>
    suites.reduce((sum, suite) => sum + Number(new RegExp(` ${name}="(\\d+)"`).exec(suite)?.[1] ?? 0), 0);
  // A log shows the file line by line.
  return logText(
    `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="vitrine matrix" tests="${total('tests')}" failures="${total('failures')}" errors="0">\n${suites.join('\n')}\n</testsuites>\n`,
  );
}
