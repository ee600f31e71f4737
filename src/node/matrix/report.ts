/** What `vitrine matrix` found out: plain data from which every output is made. */
import { jsonText } from '../sanitize.ts';

/** `shown` and `failed` come from a check that ran; `not-shown` says what is missing; `not-applicable` that the statement is of other modes. */
export type Verdict = 'shown' | 'failed' | 'not-shown' | 'not-applicable';

export interface StatementResult {
  /** Name of the statement, see statements.ts. */
  readonly id: string;
  readonly configuration: string;
  readonly verdict: Verdict;
  /** Counts, console lines, addresses: what the verdict rests on. Guest text is not made harmless yet. */
  readonly evidence: readonly string[];
}

export interface ExitCount {
  /** Who left to whom: `guest > host`, `guest > paravisor`, `paravisor > host`, `guest > guest` (#VC, #VE). */
  readonly route: string;
  readonly kind: string;
  readonly count: number;
}

/** How much of each part of guest memory is shared with the host, at one moment. */
export interface PageMapSample {
  /** Virtual time, ns. */
  readonly time: number;
  /** Shared fraction (0 to 1) of equal parts of guest RAM, in ascending order of address. */
  readonly shared: readonly number[];
}

export interface BootResult {
  readonly configuration: string;
  /** `booted`: user space reported; `died`: see lastWords; `limit`: an instruction or time limit ended it. */
  readonly outcome: 'booted' | 'died' | 'limit';
  /** Why it ended, in words. */
  readonly end: string;
  /** Where the guest ran, and under whom. */
  readonly placement: string;
  /** Answer to CPUID 0x4000000C (EAX: group A, EBX: group B) that the guest saw. */
  readonly isolationLeaf: { readonly a: number; readonly b: number } | undefined;
  /** What the kernel itself reports of memory encryption; empty when it reports none. */
  readonly features: string;
  readonly vcpus: number;
  readonly exits: readonly ExitCount[];
  /** Pages of 4 KiB at the end. */
  readonly pages: { readonly private: number; readonly shared: number };
  readonly pageMap: readonly PageMapSample[];
  readonly instructions: number;
  readonly seconds: number;
  readonly lastWords: readonly string[];
}

export interface MatrixReport {
  readonly kernel: { readonly name: string; readonly sha256: string };
  readonly boots: readonly BootResult[];
  readonly statements: readonly StatementResult[];
}

/** Counts of verdicts. */
export function tally(statements: readonly StatementResult[]): Readonly<Record<Verdict, number>> {
  const counts: Record<Verdict, number> = { shown: 0, failed: 0, 'not-shown': 0, 'not-applicable': 0 };
  for (const { verdict } of statements) counts[verdict]++;
  return counts;
}

/** The report as a file, or for a terminal: control characters of a guest stay escaped. */
export function jsonReport(report: MatrixReport): string {
  return `${jsonText(report)}\n`;
}
