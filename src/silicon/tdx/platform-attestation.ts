/** The module's reports and the quoting enclave, on the platform that a seed makes. */
import { tdInfo } from '../../abi/tdx/report.ts';
import { tdxPlatform, type TdxPlatform } from './attestation/platform.ts';
import { makeQuote } from './attestation/quote.ts';
import { makeTdReport, verifyReportMac } from './attestation/report.ts';
import type { TdxModule } from './module.ts';
import type { TdState } from './state.ts';

export interface Attestation {
  /** TDREPORT_STRUCT for this report data. */
  report(module: TdxModule, reportData: Uint8Array): Uint8Array;
  /** Checks a REPORTMACSTRUCT. */
  verify(macStruct: Uint8Array): 'valid' | 'cpu-svn' | 'mac';
  /** A quote for a TDREPORT of this platform; version 4, as verifiers everywhere take it. */
  quote(report: Uint8Array): Uint8Array | undefined;
}

export function platformAttestation(seed: bigint, quoteVersion: 4 | 5 = 4): Attestation {
  let made: TdxPlatform | undefined;
  // Its keys take a while to compute, and most runs need none.
  const platform = (): TdxPlatform => (made ??= tdxPlatform(seed));
  return {
    report: ({ td }, reportData) => makeTdReport(platform(), tdInfoOf(td), reportData),
    verify: (macStruct) => verifyReportMac(platform(), macStruct),
    quote: (report) => makeQuote(platform(), report, quoteVersion),
  };
}

export function tdInfoOf(td: TdState): Parameters<typeof tdInfo.write>[0] {
  const [rtmr0, rtmr1, rtmr2, rtmr3] = td.rtmr as [Uint8Array, Uint8Array, Uint8Array, Uint8Array];
  return {
    attributes: td.attributes,
    xfam: td.xfam,
    mrTd: td.mrtd,
    mrConfigId: td.mrConfigId,
    mrOwner: td.mrOwner,
    mrOwnerConfig: td.mrOwnerConfig,
    rtmr0,
    rtmr1,
    rtmr2,
    rtmr3,
    servTdHash: new Uint8Array(48),
  };
}
