/** What a TDREPORT or a TD's quote says, and whether certificates bear it out. */
import { createHash, createPublicKey, verify, type X509Certificate } from 'node:crypto';
import { enclaveReport, tdBody10, tdBody15, type Quote } from '../../abi/tdx/quote.ts';
import { REPORT_PART, reportMac, tdInfo, teeTcbInfo } from '../../abi/tdx/report.ts';
import { areHashesRight, verifyReportMac } from '../../silicon/tdx/attestation/report.ts';
import type { TdxPlatform } from '../../silicon/tdx/attestation/platform.ts';
import { checkChain, isDevelopment, readCertificates } from './chain.ts';
import { NOTHING_ABOUT_HARDWARE, type Lines } from './lines.ts';

export function describeTdReport(lines: Lines, bytes: Uint8Array): void {
  const mac = reportMac.read(bytes);
  const tcb = teeTcbInfo.read(bytes, REPORT_PART.teeTcbInfo);
  const td = tdInfo.read(bytes, REPORT_PART.tdInfo);
  lines.field('kind', 'TDREPORT');
  lines.field('version', mac.version);
  lines.field('mrtd', td.mrTd);
  for (const name of ['rtmr0', 'rtmr1', 'rtmr2', 'rtmr3'] as const) lines.field(name, td[name]);
  lines.field('report data', mac.reportData);
  lines.field('attributes', td.attributes);
  lines.field('xfam', td.xfam);
  lines.field('mrconfigid', td.mrConfigId);
  lines.field('mrowner', td.mrOwner);
  lines.field('mrownerconfig', td.mrOwnerConfig);
  lines.field('servtd hash', td.servTdHash);
  lines.field('cpu svn', mac.cpuSvn);
  lines.field('tee tcb svn', tcb.teeTcbSvn);
  lines.field('mrseam', tcb.mrSeam);
  lines.field('mrsignerseam', tcb.mrSignerSeam);
  lines.field('mac', mac.mac);
}

/** Only the processor that made a MAC can check it; `platform` is a development one whose key is known. */
export function verifyTdReport(lines: Lines, bytes: Uint8Array, platform: TdxPlatform | undefined): void {
  lines.check('the hashes in REPORTMACSTRUCT are those of TEE_TCB_INFO and TDINFO', areHashesRight(bytes));
  if (platform === undefined) {
    lines.note(
      'The MAC can be checked by the processor that made it only: give --seed for a development one, or a quote.',
    );
    return;
  }
  lines.check('the MAC is that of the development processor', verifyReportMac(platform, bytes) === 'valid');
  lines.note(NOTHING_ABOUT_HARDWARE);
}

export function describeQuote(lines: Lines, quote: Quote): void {
  const body = tdBody10.read(quote.body);
  lines.field('kind', `TD quote, version ${quote.version}`);
  lines.field('mrtd', body.mrTd);
  for (const name of ['rtmr0', 'rtmr1', 'rtmr2', 'rtmr3'] as const) lines.field(name, body[name]);
  lines.field('report data', body.reportData);
  lines.field('attributes', body.tdAttributes);
  lines.field('xfam', body.xfam);
  lines.field('mrconfigid', body.mrConfigId);
  lines.field('mrowner', body.mrOwner);
  lines.field('mrownerconfig', body.mrOwnerConfig);
  lines.field('tee tcb svn', body.teeTcbSvn);
  lines.field('mrseam', body.mrSeam);
  lines.field('mrsignerseam', body.mrSignerSeam);
  lines.field('seam attributes', body.seamAttributes);
  if (quote.isBody15) {
    const { teeTcbSvn2, mrServiceTd } = tdBody15.read(quote.body);
    lines.field('tee tcb svn 2', teeTcbSvn2);
    lines.field('mrservicetd', mrServiceTd);
  }
  const qe = enclaveReport.read(quote.qeReport);
  lines.field('qe mrsigner', qe.mrSigner);
  lines.field('qe isvsvn', qe.isvSvn);
}

/** ECDSA P-256 over SHA-256, R and S of 32 bytes. */
function isSignedBy(
  key: ReturnType<typeof createPublicKey>,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  return verify('sha256', message, { key, dsaEncoding: 'ieee-p1363' }, signature);
}

export function verifyQuote(
  lines: Lines,
  quote: Quote,
  where: string,
  root: X509Certificate | undefined,
): void {
  const chain = readCertificates(quote.pckChain, `the certification data of ${where}`);
  const pck = chain[0] as X509Certificate;
  const x = Buffer.from(quote.attestationKey.subarray(0, 32)).toString('base64url');
  const y = Buffer.from(quote.attestationKey.subarray(32)).toString('base64url');
  let isQuoteSigned = false;
  try {
    const key = createPublicKey({ key: { kty: 'EC', crv: 'P-256', x, y }, format: 'jwk' });
    isQuoteSigned = isSignedBy(key, quote.signed, quote.signature);
  } catch {
    // The library throws at a point that is not on the curve.
  }
  lines.check('the attestation key signed the quote', isQuoteSigned);
  const bound = createHash('sha256').update(quote.attestationKey).update(quote.qeAuthData).digest();
  const { reportData } = enclaveReport.read(quote.qeReport);
  lines.check(
    "the quoting enclave's report is bound to the attestation key",
    bound.equals(reportData.subarray(0, 32)) && reportData.subarray(32).every((byte) => byte === 0),
  );
  lines.check(
    "the PCK signed the quoting enclave's report",
    isSignedBy(pck.publicKey, quote.qeReport, quote.qeReportSignature),
  );
  checkChain(lines, chain, root);
  lines.note(
    'TCB level and revocation are not judged here: give the quote and collateral to a DCAP verifier.',
  );
  if (isDevelopment(pck)) lines.note(NOTHING_ABOUT_HARDWARE);
}
