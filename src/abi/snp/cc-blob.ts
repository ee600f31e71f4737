/** The confidential-computing blob of the Linux boot protocol (Linux 6.12 arch/x86/include/asm/sev.h, struct cc_blob_sev_info). */
import { record } from '../record.ts';

export const CC_BLOB_MAGIC = 0x4544_4d41;
export const ccBlob = record('cc_blob_sev_info', 'Linux 6.12 asm/sev.h', 40, [
  { name: 'magic', offset: 0, width: 4 },
  { name: 'version', offset: 4, width: 2 },
  { name: 'reserved', offset: 6, width: 2 },
  { name: 'secrets', offset: 8, width: 8 },
  { name: 'secretsLength', offset: 16, width: 4 },
  { name: 'reserved1', offset: 20, width: 4 },
  { name: 'cpuid', offset: 24, width: 8 },
  { name: 'cpuidLength', offset: 32, width: 4 },
  { name: 'reserved2', offset: 36, width: 4 },
]);
/** setup_data type whose payload is the u32 address of the blob. */
export const SETUP_CC_BLOB = 7;
