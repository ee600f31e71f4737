/**
 * Puts pieces of any alignment into runs of whole pages. A piece that has its pages to itself stays a view of
 * the file it came from; pieces that share a page are copied together.
 */
import { PAGE, type PagesDirective } from './directives.ts';

export interface Piece {
  readonly gpa: number;
  readonly bytes: Uint8Array;
  readonly name: string;
}

export type ImageOutcome =
  | { readonly ok: true; readonly pages: readonly PagesDirective[] }
  | { readonly ok: false; readonly first: Piece; readonly second: Piece };

/** Fails with the two pieces that overlap. Empty pieces give nothing. */
export function pageRuns(pieces: readonly Piece[]): ImageOutcome {
  const sorted = pieces.filter((piece) => piece.bytes.length > 0).sort((a, b) => a.gpa - b.gpa);
  const pages: PagesDirective[] = [];
  let group: Piece[] = [];
  for (const piece of sorted) {
    const before = group.at(-1);
    if (before !== undefined) {
      const end = before.gpa + before.bytes.length;
      if (end > piece.gpa) return { ok: false, first: before, second: piece };
      if (roundUp(end) <= piece.gpa) {
        pages.push(merge(group));
        group = [];
      }
    }
    group.push(piece);
  }
  if (group.length > 0) pages.push(merge(group));
  return { ok: true, pages };
}

function merge(group: readonly Piece[]): PagesDirective {
  const first = group[0] as Piece;
  const last = group.at(-1) as Piece;
  const gpa = first.gpa - (first.gpa % PAGE);
  const end = last.gpa + last.bytes.length;
  const length = roundUp(end) - gpa;
  const name = [...new Set(group.map((piece) => piece.name))].join('+');
  let data = first.bytes;
  if (group.length > 1 || gpa !== first.gpa) {
    data = new Uint8Array(end - gpa);
    for (const piece of group) data.set(piece.bytes, piece.gpa - gpa);
  }
  return { kind: 'pages', gpa, length, type: 'normal', measured: true, name, data };
}

export function roundUp(value: number, to: number = PAGE): number {
  return Math.ceil(value / to) * to;
}
