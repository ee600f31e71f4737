/** MRTD of a list of directives, for a host that adds each page and then extends its 16 chunks, in the order of the list. */
import type { Directive } from '../../launch/directives.ts';
import { eachPage } from '../../launch/directives.ts';
import { finishMeasurement, measurePage, startMeasurement } from '../../silicon/tdx/attestation/mrtd.ts';
import { sha384 } from '../../silicon/sha384.ts';
import type { PageVisitor } from './page.ts';

const NOTHING = new Uint8Array(0);

/**
 * Contexts count for nothing: a TD's processors start in one architectural state. Shared pages are not added; rooms for
 * parameters are, without their contents.
 * `visit` costs a hash of each page, which MRTD itself does not need.
 */
export function measureTdx(directives: readonly Directive[], visit?: PageVisitor): Uint8Array {
  const state = startMeasurement();
  for (const entry of directives) {
    if (entry.kind !== 'pages' && entry.kind !== 'parameter') continue;
    if (entry.kind === 'pages' && entry.type === 'shared') continue;
    const isMeasured = entry.kind === 'pages' && entry.measured;
    eachPage({ data: NOTHING, ...entry }, (gpa, contents) => {
      measurePage(state, gpa, isMeasured ? contents : undefined);
      visit?.(
        isMeasured ? { type: 'extended', gpa, digest: sha384(contents), contents } : { type: 'added', gpa },
      );
    });
  }
  return finishMeasurement(state);
}
