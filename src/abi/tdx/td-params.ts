/** TD_PARAMS, the configuration that TDH.MNG.INIT takes (TDX Module 1.5 ABI, "TD_PARAMS"), and the bits in it. */
import { record } from '../record.ts';

export const TD_PARAMS = record('TD_PARAMS', 'TDX Module 1.5 ABI, TD_PARAMS', 1024, [
  { name: 'attributes', offset: 0, width: 8 },
  { name: 'xfam', offset: 8, width: 8 },
  { name: 'maxVcpus', offset: 16, width: 2 },
  { name: 'numL2Vms', offset: 18, width: 1 },
  { name: 'msrConfigControls', offset: 19, width: 1 },
  { name: 'eptpControls', offset: 24, width: 8 },
  { name: 'configFlags', offset: 32, width: 8 },
  { name: 'tscFrequency', offset: 40, width: 2 },
  { name: 'mrConfigId', offset: 80, width: 48, bytes: true },
  { name: 'mrOwner', offset: 128, width: 48, bytes: true },
  { name: 'mrOwnerConfig', offset: 176, width: 48, bytes: true },
]);

export const TD_ATTRIBUTE = {
  debug: 1n << 0n,
  septVeDisable: 1n << 28n,
  migratable: 1n << 29n,
  pks: 1n << 30n,
  keyLocker: 1n << 31n,
  perfmon: 1n << 63n,
} as const;

export const CONFIG_FLAG = {
  gpaw52: 1n << 0n,
  flexiblePendingVe: 1n << 1n,
  noRbpMod: 1n << 2n,
} as const;

export const TD_CTL = { pendingVeDisable: 1n << 0n } as const;

/** EPTP_CONTROLS: write-back memory type, page-walk length minus one in bits 5:3. */
export const EPTP_LEVELS_4 = 0x1en;
export const EPTP_LEVELS_5 = 0x26n;

/** TSC frequency in units of 25 MHz. */
export const TSC_UNIT_HZ = 25_000_000;
