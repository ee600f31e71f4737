/** `vitrine report`: prints and verifies an attestation report, a TDREPORT or a quote. */
import { X509Certificate } from 'node:crypto';
import { Command } from 'commander';
import { report, REPORT_SIZE } from '../../abi/snp/report.ts';
import { reportResponse } from '../../abi/snp/guest-message.ts';
import { readQuote } from '../../abi/tdx/quote.ts';
import { reportMac, TD_REPORT_SIZE, TD_REPORT_TYPE } from '../../abi/tdx/report.ts';
import { snpCertificates } from '../../silicon/snp/firmware/certificates.ts';
import { snpPlatform } from '../../silicon/snp/firmware/platform.ts';
import { tdxCertificates } from '../../silicon/tdx/attestation/certificates.ts';
import { tdxPlatform } from '../../silicon/tdx/attestation/platform.ts';
import { seed } from '../arguments.ts';
import { ExitStatus, STATUS, UserError } from '../errors.ts';
import { readUserFile } from '../kernel.ts';
import { readCertificates } from './chain.ts';
import { Lines } from './lines.ts';
import { describeSnpReport, snpCertificatesFrom, verifySnpReport } from './snp-report.ts';
import { describeQuote, describeTdReport, verifyQuote, verifyTdReport } from './td-evidence.ts';

interface Given {
  readonly certificates?: string;
  readonly root?: string;
  readonly seed?: bigint;
}

export function reportCommand(): Command {
  return new Command('report')
    .description('print and verify an SEV-SNP report, a TDREPORT or a TD quote')
    .argument('<file>', 'the evidence, as the guest driver or configfs-tsm gives it')
    .option(
      '--certificates <file>',
      'VCEK, ASK and ARK of a report: PEM, DER or the table of an extended request',
    )
    .option('--root <file>', 'the root certificate that you trust: PEM or DER')
    .option('--seed <n>', 'verify against the development PKI of this seed', seed)
    .action((file: string, given: Given) => {
      const lines = new Lines();
      look(lines, file, given);
      process.stdout.write(lines.toString());
      throw new ExitStatus(lines.failed ? STATUS.failed : STATUS.ok);
    });
}

function look(lines: Lines, file: string, given: Given): void {
  const bytes = readUserFile(file, 'report');
  if (given.seed !== undefined && (given.certificates ?? given.root) !== undefined)
    throw new UserError(
      '--seed and other certificates do not go together (each says whom to trust): leave one out',
    );
  const root = given.root === undefined ? undefined : onlyOne(given.root);
  const snp = snpReport(bytes);
  if (snp !== undefined) return lookAtSnp(lines, snp, given, root);
  if (given.certificates !== undefined)
    throw new UserError(
      `${file} is no SEV-SNP report, and the evidence of a TD has its certificates with it: leave out --certificates`,
    );
  if (bytes.length === TD_REPORT_SIZE && reportMac.get(bytes, 'type') === TD_REPORT_TYPE) {
    describeTdReport(lines, bytes);
    return verifyTdReport(lines, bytes, given.seed === undefined ? undefined : tdxPlatform(given.seed));
  }
  const quote = readQuote(bytes);
  if (quote === undefined)
    throw new UserError(
      `${file} is neither an SEV-SNP report (${REPORT_SIZE} bytes) nor a TDREPORT (${TD_REPORT_SIZE} bytes) nor a TD quote of version 4 or 5: give one of them`,
    );
  describeQuote(lines, quote);
  const trusted =
    given.seed === undefined ? root : new X509Certificate(tdxCertificates(tdxPlatform(given.seed)).root);
  verifyQuote(lines, quote, file, trusted);
}

/** The report in a file: bare, or behind the header of the firmware's answer as /dev/sev-guest gives it. */
function snpReport(bytes: Uint8Array): Uint8Array | undefined {
  const isAnswer =
    bytes.length >= reportResponse.size + REPORT_SIZE &&
    reportResponse.get(bytes, 'status') === 0 &&
    reportResponse.get(bytes, 'reportSize') === REPORT_SIZE;
  const found = isAnswer ? bytes.subarray(reportResponse.size, reportResponse.size + REPORT_SIZE) : bytes;
  if (found.length !== REPORT_SIZE) return undefined;
  const version = report.get(found, 'version');
  return version >= 1 && version < 0x100 ? found : undefined;
}

function lookAtSnp(lines: Lines, bytes: Uint8Array, given: Given, root: X509Certificate | undefined): void {
  describeSnpReport(lines, bytes);
  if (given.seed !== undefined) {
    const { ark, ask, vcek } = snpCertificates(snpPlatform(given.seed, 0, 0));
    const [leaf, middle, top] = [vcek, ask, ark].map((der) => new X509Certificate(der));
    verifySnpReport(lines, bytes, [leaf, middle, top] as X509Certificate[], top);
  } else if (given.certificates !== undefined) {
    const where = `--certificates ${given.certificates}`;
    const certificates = snpCertificatesFrom(readUserFile(given.certificates, '--certificates'), where);
    verifySnpReport(lines, bytes, certificates, root);
  } else {
    lines.note('Not verified: give --certificates, or --seed for the development PKI of a machine.');
  }
}

function onlyOne(path: string): X509Certificate {
  const [certificate, ...more] = readCertificates(readUserFile(path, '--root'), `--root ${path}`);
  if (certificate === undefined || more.length > 0)
    throw new UserError(`--root ${path} holds ${1 + more.length} certificates: give the root alone`);
  return certificate;
}
