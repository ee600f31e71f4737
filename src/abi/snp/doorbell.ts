/**
 * The #HV doorbell page of a guest with restricted injection (AMD 56421, "#HV Doorbell Page"), and the part of it in which a host
 * that knows several VMPLs leaves what it has for the lower ones.
 */
import { record } from '../record.ts';

export const doorbellPage = record('HvDoorbell', 'AMD 56421, "#HV Doorbell Page"', 256, [
  { name: 'vector', offset: 0, width: 1 },
  { name: 'flags', offset: 1, width: 1 },
  /** The vector has been ended already. */
  { name: 'noEoiRequired', offset: 2, width: 1 },
  { name: 'vmplEvents', offset: 3, width: 1 },
  { name: 'vmpl1', offset: 64, width: 64, bytes: true },
  { name: 'vmpl2', offset: 128, width: 64, bytes: true },
  { name: 'vmpl3', offset: 192, width: 64, bytes: true },
]);

export const DOORBELL_FLAG = { nmi: 1, machineCheck: 2, noFurtherSignal: 0x80 } as const;

/** A VMPL's part: status word, then one bit for each vector from 32 on that is requested (7 words). */
export const vmplOffset = (vmpl: 1 | 2 | 3): number => 64 * vmpl;
export const REQUESTED_WORDS = 7;
export const FIRST_REQUESTED = 32;
export const VMPL_STATUS = {
  vector: 0xff,
  nmi: 1 << 8,
  machineCheck: 1 << 9,
  levelSensitive: 1 << 10,
  multipleVectors: 1 << 14,
} as const;
