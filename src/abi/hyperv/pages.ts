/** Pages that the hypervisor shows to the guest, except those of the SynIC. */

import { record } from '../record.ts';

export const PAGE_SIZE = 4096;

/** time = ((tsc * scale) >> 64) + offset, in 100 ns; sequence 0 means: use the MSR. */
export const referenceTscPage = record(
  'HvReferenceTscPage',
  'TLFS 12.7.2 "Partition Reference TSC Page"',
  24,
  [
    { name: 'sequence', offset: 0, width: 4 },
    { name: 'reserved', offset: 4, width: 4 },
    { name: 'scale', offset: 8, width: 8 },
    { name: 'offset', offset: 16, width: 8 },
  ],
);

export const vpAssistPage = record('HvVpAssistPage', 'TLFS 7.8.7 "Virtual VP Assist Page"', 64, [
  { name: 'apicAssist', offset: 0, width: 4 },
  { name: 'reserved', offset: 4, width: 4 },
  { name: 'vtlControl', offset: 8, width: 24, bytes: true },
  { name: 'nestedControl', offset: 32, width: 8 },
  { name: 'enlightenVmEntry', offset: 40, width: 1 },
  { name: 'currentNestedVmcs', offset: 48, width: 8 },
]);

/** APIC assist bit 0: the last interrupt needs no EOI write. */
export const NO_EOI_REQUIRED = 1;
