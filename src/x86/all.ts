/** Every instruction definition and library routine of the processor. */
import { arithmeticDefs } from './defs/arithmetic.ts';
import { controlDefs } from './defs/control.ts';
import type { Def } from './defs/def.ts';
import { fpuDefs } from './defs/fpu.ts';
import { moveDefs } from './defs/move.ts';
import { shiftDefs } from './defs/shift.ts';
import { stringDefs } from './defs/string.ts';
import { systemDefs } from './defs/system.ts';
import { transcendentalDefs } from './defs/transcendental.ts';
import { decimalRoutines } from './runtime/decimal.ts';
import { eventRoutines } from './runtime/events.ts';
import { farRoutines } from './runtime/far.ts';
import { fpuRoutines } from './runtime/fpu.ts';
import { integerRoutines } from './runtime/integer.ts';
import type { Routine } from './runtime/library.ts';
import { segmentRoutines } from './runtime/segments.ts';
import { stringRoutines } from './runtime/string.ts';
import { seriesRoutines } from './runtime/series.ts';
import { systemRoutines } from './runtime/system.ts';
import { transcendentalRoutines } from './runtime/transcendental.ts';
import { wideRoutines } from './runtime/wide.ts';
import { simdDefs, simdRoutines } from './simd.ts';

export const x86Defs: readonly Def[] = [
  ...arithmeticDefs,
  ...shiftDefs,
  ...moveDefs,
  ...controlDefs,
  ...stringDefs,
  ...systemDefs,
  ...fpuDefs,
  ...transcendentalDefs,
  ...simdDefs,
];

export const x86Routines: readonly Routine[] = [
  ...integerRoutines,
  ...stringRoutines,
  ...fpuRoutines,
  ...decimalRoutines,
  ...wideRoutines,
  ...seriesRoutines,
  ...transcendentalRoutines,
  ...segmentRoutines,
  ...eventRoutines,
  ...farRoutines,
  ...systemRoutines,
  ...simdRoutines,
];
