/** All definitions and routines of MMX and SSE. */
import { cryptoDefs } from './defs/crypto.ts';
import type { Def } from './defs/def.ts';
import { sseIntDefs } from './defs/sse-int.ts';
import { simdStateDefs } from './defs/simd-state.ts';
import { sseDefs } from './defs/sse.ts';
import { floatRoutines } from './runtime/float.ts';
import type { Routine } from './runtime/library.ts';
import { reciprocalRoutines } from './runtime/reciprocal.ts';
import { sseFloatRoutines } from './runtime/sse-float.ts';
import { sseMiscRoutines } from './runtime/sse-misc.ts';
import { xsaveRoutines } from './runtime/xsave.ts';

export const simdDefs: readonly Def[] = [...sseDefs, ...sseIntDefs, ...cryptoDefs, ...simdStateDefs];

export const simdRoutines: readonly Routine[] = [
  ...floatRoutines,
  ...sseFloatRoutines,
  ...reciprocalRoutines,
  ...sseMiscRoutines,
  ...xsaveRoutines,
];
