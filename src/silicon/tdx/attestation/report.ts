/** TDREPORTs (Intel TDX Module 1.5 ABI, TDG.MR.REPORT and TDG.MR.VERIFYREPORT) and RTMRs. */
import { hmac } from '@noble/hashes/hmac.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { concat } from '../../../abi/bytes.ts';
import {
  AUTHENTICATED,
  REPORT_PART,
  reportMac,
  TD_REPORT_SIZE,
  TD_REPORT_TYPE,
  tdInfo,
  TEE_TCB_INFO_VALID,
  teeTcbInfo,
} from '../../../abi/tdx/report.ts';
import { sha384 } from '../../sha384.ts';
import type { TdxPlatform } from './platform.ts';

/** RTMR after TDG.MR.RTMR.EXTEND. */
export const extendRtmr = (rtmr: Uint8Array, value: Uint8Array): Uint8Array => sha384(concat(rtmr, value));

/** The HMAC-SHA-256 of a REPORTMACSTRUCT under the processor's key. */
const macOf = (platform: TdxPlatform, report: Uint8Array): Uint8Array =>
  hmac(sha256, platform.macKey, report.subarray(0, AUTHENTICATED));

/** A report on the TD that `info` describes. Without a service TD the version is 0. */
export function makeTdReport(
  platform: TdxPlatform,
  info: Parameters<typeof tdInfo.write>[0],
  reportData: Uint8Array,
): Uint8Array {
  const report = new Uint8Array(TD_REPORT_SIZE);
  teeTcbInfo.write(
    {
      valid: TEE_TCB_INFO_VALID,
      teeTcbSvn: platform.teeTcbSvn,
      mrSeam: platform.mrSeam,
      mrSignerSeam: platform.mrSignerSeam,
      teeTcbSvn2: platform.teeTcbSvn,
    },
    report,
    REPORT_PART.teeTcbInfo,
  );
  tdInfo.write(info, report, REPORT_PART.tdInfo);
  reportMac.write(
    {
      type: TD_REPORT_TYPE,
      version: info.servTdHash?.some((byte) => byte !== 0) === true ? 1 : 0,
      cpuSvn: platform.cpuSvn,
      teeTcbInfoHash: hashOf(report, REPORT_PART.teeTcbInfo, teeTcbInfo.size),
      teeInfoHash: hashOf(report, REPORT_PART.tdInfo, tdInfo.size),
      reportData,
    },
    report,
  );
  reportMac.set(report, 'mac', macOf(platform, report));
  return report;
}

const hashOf = (report: Uint8Array, at: number, length: number): Uint8Array =>
  sha384(report.subarray(at, at + length));

/** What TDG.MR.VERIFYREPORT says about a REPORTMACSTRUCT. */
export function verifyReportMac(platform: TdxPlatform, report: Uint8Array): 'valid' | 'cpu-svn' | 'mac' {
  const { type, cpuSvn, mac } = reportMac.read(report);
  if (type !== TD_REPORT_TYPE) return 'mac';
  if (!isSame(cpuSvn, platform.cpuSvn)) return 'cpu-svn';
  return isSame(mac, macOf(platform, report)) ? 'valid' : 'mac';
}

/** Whether the hashes in a TDREPORT are those of its other parts. */
export function areHashesRight(report: Uint8Array): boolean {
  const { teeTcbInfoHash, teeInfoHash } = reportMac.read(report);
  return (
    isSame(teeTcbInfoHash, hashOf(report, REPORT_PART.teeTcbInfo, teeTcbInfo.size)) &&
    isSame(teeInfoHash, hashOf(report, REPORT_PART.tdInfo, tdInfo.size))
  );
}

export const isSame = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, i) => byte === b[i]);
