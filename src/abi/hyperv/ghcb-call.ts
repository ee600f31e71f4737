/** Hyper-V's own uses of a GHCB page: usage 1, a hypercall; usage 2, run a lower VTL (Linux 6.12 ivm.c, union hv_ghcb). */
import { record } from '../record.ts';

/** Parameters from offset 0, at most as far as the first field. */
export const ghcbCall = record('HvGhcbCall', 'Linux 6.12 ivm.c, union hv_ghcb', 4096, [
  { name: 'outputGpa', offset: 0xfe8, width: 8 },
  /** Control word; afterwards the result word. */
  { name: 'control', offset: 0xff0, width: 8 },
]);
