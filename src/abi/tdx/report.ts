/** TDREPORT_STRUCT and its parts (Intel TDX Module 1.5 ABI, "Measurement and Attestation Types"; SDM vol. 3, SEAMREPORT). */
import { record } from '../record.ts';

export const TD_REPORT_SIZE = 1024;

/** The part that the processor authenticates: type and version, hashes of the other parts, the caller's data. */
export const reportMac = record('REPORTMACSTRUCT', 'TDX Module 1.5 ABI, REPORTMACSTRUCT', 256, [
  /** 0x81: a TD's report. */
  { name: 'type', offset: 0, width: 1 },
  { name: 'subtype', offset: 1, width: 1 },
  /** 1 when service TDs are bound. */
  { name: 'version', offset: 2, width: 1 },
  { name: 'cpuSvn', offset: 16, width: 16, bytes: true },
  { name: 'teeTcbInfoHash', offset: 32, width: 48, bytes: true },
  { name: 'teeInfoHash', offset: 80, width: 48, bytes: true },
  { name: 'reportData', offset: 128, width: 64, bytes: true },
  { name: 'mac', offset: 224, width: 32, bytes: true },
]);
export const TD_REPORT_TYPE = 0x81;
/** What the MAC covers. */
export const AUTHENTICATED = 224;

/** About the TDX module. */
export const teeTcbInfo = record('TEE_TCB_INFO', 'TDX Module 1.5 ABI, TEE_TCB_INFO', 239, [
  { name: 'valid', offset: 0, width: 8 },
  { name: 'teeTcbSvn', offset: 8, width: 16, bytes: true },
  { name: 'mrSeam', offset: 24, width: 48, bytes: true },
  { name: 'mrSignerSeam', offset: 72, width: 48, bytes: true },
  { name: 'attributes', offset: 120, width: 8 },
  { name: 'teeTcbSvn2', offset: 128, width: 16, bytes: true },
]);
/** Which fields of TEE_TCB_INFO are there: all of a module of 1.5. */
export const TEE_TCB_INFO_VALID = 0x301ffn;

/** About the TD. */
export const tdInfo = record('TDINFO_STRUCT', 'TDX Module 1.5 ABI, TDINFO_STRUCT', 512, [
  { name: 'attributes', offset: 0, width: 8 },
  { name: 'xfam', offset: 8, width: 8 },
  { name: 'mrTd', offset: 16, width: 48, bytes: true },
  { name: 'mrConfigId', offset: 64, width: 48, bytes: true },
  { name: 'mrOwner', offset: 112, width: 48, bytes: true },
  { name: 'mrOwnerConfig', offset: 160, width: 48, bytes: true },
  { name: 'rtmr0', offset: 208, width: 48, bytes: true },
  { name: 'rtmr1', offset: 256, width: 48, bytes: true },
  { name: 'rtmr2', offset: 304, width: 48, bytes: true },
  { name: 'rtmr3', offset: 352, width: 48, bytes: true },
  { name: 'servTdHash', offset: 400, width: 48, bytes: true },
]);

/** Where the parts lie in a TDREPORT. */
export const REPORT_PART = { mac: 0, teeTcbInfo: 256, tdInfo: 512 } as const;
