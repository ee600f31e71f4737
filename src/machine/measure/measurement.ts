/** What a launch will be measured as, found without a machine: from the directives alone. */
import type { Directive } from '../../launch/directives.ts';
import type { PageVisitor } from './page.ts';
import { measureSnp } from './snp.ts';
import { measureTdx } from './tdx.ts';

export type { MeasuredPage, PageVisitor } from './page.ts';

export interface Measurement {
  readonly technology: 'snp' | 'tdx';
  /** What the value is called. */
  readonly name: 'launch digest' | 'MRTD';
  readonly value: Uint8Array;
}

export function measureDirectives(
  technology: Measurement['technology'],
  directives: readonly Directive[],
  visit?: PageVisitor,
): Measurement {
  return technology === 'snp'
    ? { technology, name: 'launch digest', value: measureSnp(directives, visit) }
    : { technology, name: 'MRTD', value: measureTdx(directives, visit) };
}
