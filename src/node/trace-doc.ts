/** docs/trace.md, made from the tables of events. */
import {
  EVENT_CLASS,
  EVENT_ROWS,
  HOST_ACCESS,
  INJECTION_OUTCOME,
  PAGE_STATE,
  PRIVILEGED_OPERATION,
} from '../abi/events.ts';
import { EXIT_KINDS, EXIT_ROUTES } from '../abi/exit-kinds.ts';
import { TRACE_VERSION, traceLine } from './event-log.ts';

const EXAMPLE = [
  `{"trace":"vitrine","version":${TRACE_VERSION}}`,
  traceLine(1, 312_077_214, 0, [0x3fd, 1, 0, 0x60]),
  traceLine(4, 312_101_870, 1, [0x400000b0, 0x8f3200, 0, 0]),
];

const code = (text: string | number): string => `\`${text}\``;

/** Members of a table of numbers, as `0 name`. */
const members = (table: Readonly<Record<string, number>>): string =>
  Object.entries(table)
    .map(([name, value]) => `${value} ${name}`)
    .join(', ');
const listed = (names: readonly string[]): string =>
  names.map((name, index) => `${index} ${name}`).join(', ');

export function traceDoc(): string {
  const className = (bit: number): string =>
    Object.entries(EVENT_CLASS).find(([, value]) => value === bit)?.[0] ?? String(bit);
  const rows = Object.values(EVENT_ROWS).map(
    (row) => `| ${code(row.name)} | ${className(row.class)} | ${row.arguments.map(code).join(', ')} |`,
  );
  return `# Traces

The lines that \`vitrine boot --trace FILE.jsonl\` writes. Made from the code by \`npm run docs\`: do not edit.

Each line is one JSON object. The first says what the file is; a reader refuses a \`version\` that it does not know. Every other line is an event:

\`\`\`json
${EXAMPLE.join('\n')}
\`\`\`

| key | meaning |
| --- | --- |
| \`time\` | virtual nanoseconds since power-on: the instructions of all processors, charges for exits, and what was skipped while idle |
| \`vp\` | index of the virtual processor |
| \`event\` | name of the event, from the table below |
| others | its arguments: integers without a sign, but contexts may be -1 (the host); \`null\` is a time that never comes |

Lines are in the order in which things happened. Names and arguments are only ever added. Two runs of one configuration write the same bytes; a run with a trace and one without are the same run. When nobody listens, an event costs one test of a mask.

## Events

| event | class | arguments |
| --- | --- | --- |
${rows.join('\n')}

## Numbers in arguments

| argument | values |
| --- | --- |
| \`kind\` of \`exit\` | ${listed(EXIT_KINDS)} |
| \`route\` of \`exit\` | ${listed(EXIT_ROUTES)} |
| \`state\` of \`page-state\` | ${members(PAGE_STATE)} |
| \`operation\` of \`privileged-operation\` | ${members(PRIVILEGED_OPERATION)} |
| \`outcome\` of \`injection\` | ${members(INJECTION_OUTCOME)} |
| \`outcome\` of \`host-access\` | ${members(HOST_ACCESS)} |
| \`lo\`, \`hi\` | the halves of a 64-bit value |
| \`code\`, \`status\` of \`hypercall\` | the call code, and HV_STATUS (0: success), of the Hyper-V TLFS |
`;
}
