/**
 * MSRs of a TD that the host answers beside the synthetic ones and the local APIC's: one table. Values are those of a machine
 * on which none of it is in use; writes of what is there already are taken.
 */
import type { VpState } from '../state.ts';

interface Row {
  readonly read: bigint;
  /** Which writes are taken: none, the value that it has, any. */
  readonly write: 'none' | 'same' | 'any';
}

const ROWS: ReadonlyMap<number, Row> = new Map<number, Row>([
  // IA32_PLATFORM_ID, IA32_FEATURE_CONTROL (locked), IA32_BIOS_SIGN_ID.
  [0x17, { read: 0n, write: 'none' }],
  [0x3a, { read: 1n, write: 'same' }],
  [0x8b, { read: 0n, write: 'any' }],
  // MSR_CORE_CAPABILITIES, MSR_PLATFORM_INFO.
  [0xcf, { read: 0n, write: 'none' }],
  [0xce, { read: 0n, write: 'none' }],
  // IA32_MTRRCAP without registers, IA32_MTRR_DEF_TYPE off: the guest may not change the memory types of a TD.
  [0xfe, { read: 0n, write: 'none' }],
  [0x2ff, { read: 0n, write: 'same' }],
  // IA32_MCG_CAP without banks, IA32_MCG_STATUS.
  [0x179, { read: 0n, write: 'none' }],
  [0x17a, { read: 0n, write: 'same' }],
]);

export function hostMsrRead(_vp: VpState, index: number): bigint | undefined {
  return ROWS.get(index)?.read;
}

/** `undefined`: not an MSR of this table. */
export function hostMsrWrite(index: number, value: bigint): boolean | undefined {
  const row = ROWS.get(index);
  if (row === undefined) return undefined;
  return row.write === 'any' || (row.write === 'same' && value === row.read);
}

export const HOST_MSRS: readonly number[] = [...ROWS.keys()];
