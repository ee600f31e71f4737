/** MRTD of a list of directives, for a host that adds each page and then extends its 16 chunks, in the order of the list. */
import type { Directive } from '../../launch/directives.ts';
import { eachPage } from '../../launch/directives.ts';
import { finishMeasurement, measurePage, startMeasurement } from '../../silicon/tdx/attestation/mrtd.ts';
import { sha384 } from '../../silicon/sha384.ts';
import type { Measurement, PageVisitor } from './measurement.ts';

/**
 * Contexts count for nothing: a TD's processors start in one architectural state. Shared pages are not added.
 * `visit` costs a hash of each page, which MRTD itself does not need.
 */
export function measureTdx(directives: readonly Directive[], visit?: PageVisitor): Measurement {
  const state = startMeasurement();
  for (const entry of directives) {
    if (entry.kind !== 'pages' || entry.type === 'shared') continue;
    eachPage(entry, (gpa, contents) => {
      measurePage(state, gpa, entry.measured ? contents : undefined);
      visit?.(
        entry.measured
          ? { type: 'extended', gpa, digest: sha384(contents), contents }
          : { type: 'added', gpa },
      );
    });
  }
  return { technology: 'tdx', name: 'MRTD', value: finishMeasurement(state) };
}
