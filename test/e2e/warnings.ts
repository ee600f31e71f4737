/** Kernel messages at warning level or worse against the committed list, which says why each may be there. */
import expectedList from '../kernel-warnings.json' with { type: 'json' };

export interface ExpectedWarning {
  readonly configuration: string;
  /** Regular expression on the kernel's release. */
  readonly kernel: string;
  /** Processor model; absent: any. */
  readonly model?: string;
  /** Regular expression on the message without level and time. */
  readonly line: string;
  /** It may come more than once, such as once for each processor. */
  readonly repeats?: boolean;
  readonly reason: string;
}

export interface WarningsOf {
  readonly configuration: string;
  readonly release: string;
  readonly model: string;
}

/** Messages of `dmesg -r` with a level from emergency (0) to warning (4). */
export function warnings(dmesg: string): string[] {
  return dmesg
    .split('\n')
    .map((line) => /^<(\d+)>(?:\[ *\d+\.\d+\] ?)?(.*)$/.exec(line))
    .filter((match) => match !== null && (Number(match[1]) & 7) <= 4)
    .map((match) => (match as RegExpExecArray)[2] as string);
}

/** What is wrong, one sentence each; empty when the messages equal the list. */
export function compareWarnings(
  dmesg: string,
  of: WarningsOf,
  list: readonly ExpectedWarning[] = expectedList,
): string[] {
  const applicable = list.filter(
    ({ configuration, kernel, model }) =>
      configuration === of.configuration &&
      new RegExp(kernel).test(of.release) &&
      (model === undefined || model === of.model),
  );
  const lines = warnings(dmesg);
  const wrong = lines
    .filter((line) => !applicable.some((entry) => new RegExp(entry.line).test(line)))
    .map((line) => `not in the list: ${line}`);
  for (const entry of applicable) {
    const count = lines.filter((line) => new RegExp(entry.line).test(line)).length;
    if (count === 0) wrong.push(`did not come: ${entry.line}`);
    if (count > 1 && entry.repeats !== true) wrong.push(`came ${count} times: ${entry.line}`);
  }
  return wrong;
}
