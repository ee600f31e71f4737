/** Definitions that no opcode selects: what the decoder puts in place of an instruction that cannot be executed. */
import { VEC } from '../layout.ts';
import type { Def } from './def.ts';

/** Opcodes of unused maps never match; the encodings only give the definitions an operand-less form. */
export const undefinedOpcode: Def = {
  name: '(#UD)',
  enc: ['FF -'],
  ends: 'sync',
  sem: (e) => e.raise(VEC.UD),
};
export const tooLong: Def = { name: '(#GP)', enc: ['FF -'], ends: 'sync', sem: (e) => e.raise(VEC.GP, 0) };
/** x87, MMX, SSE or WAIT while CR0.TS (or EM for x87) is set. */
export const deviceNotAvailable: Def = {
  name: '(#NM)',
  enc: ['FF -'],
  ends: 'sync',
  sem: (e) => e.raise(VEC.NM),
};
