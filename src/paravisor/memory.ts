/** Which memory a paravisor has to accept before its guest starts: all RAM that the launch has not loaded. */

import type { ParavisorConfig, Range } from './config.ts';

const PAGE = 4096;
const LARGE = 0x20_0000;

export interface Acceptance {
  /** First addresses of 2 MiB and of 4 KiB pages, ascending. */
  readonly large: readonly number[];
  readonly small: readonly number[];
}

export function toAccept({ ram, loaded }: Pick<ParavisorConfig, 'ram' | 'loaded'>): Acceptance {
  const large: number[] = [];
  const small: number[] = [];
  for (const free of ram.flatMap((range) => without(range, loaded))) {
    for (let gpa = free.gpa; gpa < free.gpa + free.length;) {
      if (gpa % LARGE === 0 && gpa + LARGE <= free.gpa + free.length) {
        large.push(gpa);
        gpa += LARGE;
      } else {
        small.push(gpa);
        gpa += PAGE;
      }
    }
  }
  return { large, small };
}

/** `range` less `holes`, which are ascending. */
export function without(range: Range, holes: readonly Range[]): Range[] {
  const rest: Range[] = [];
  let from = range.gpa;
  const end = range.gpa + range.length;
  for (const hole of holes) {
    if (hole.gpa + hole.length <= from || hole.gpa >= end) continue;
    if (hole.gpa > from) rest.push({ gpa: from, length: hole.gpa - from });
    from = Math.max(from, hole.gpa + hole.length);
  }
  if (from < end) rest.push({ gpa: from, length: end - from });
  return rest;
}
