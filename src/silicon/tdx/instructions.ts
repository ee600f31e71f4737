/** TDCALL (Intel Trust Domain CPU Architectural Extensions, 343754). SEAMCALL, SEAMRET and SEAMOPS are #UD inside a TD. */
import type { Def } from '../../x86/defs/def.ts';
import { EXIT_TDX } from './layout.ts';

export const tdxDefs: readonly Def[] = [
  {
    name: 'tdcall',
    enc: ['66 0F01 =CC -'],
    ends: 'sync',
    sem: (e) => {
      e.requireCpl0();
      e.ask(EXIT_TDX.tdcall);
    },
  },
];
