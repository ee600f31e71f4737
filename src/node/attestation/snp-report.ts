/** What an SEV-SNP report says, and whether certificates bear it out. */
import { X509Certificate } from 'node:crypto';
import { readCertificateTable } from '../../abi/snp/certificate-table.ts';
import { tcbVersion } from '../../abi/snp/firmware.ts';
import {
  CURVE_P384,
  ECDSA_P384_SHA384,
  publicKey,
  report,
  SIGNED,
  toFirmware,
} from '../../abi/snp/report.ts';
import { numberOf, raw } from '../../silicon/pki/der.ts';
import { isSigned } from '../../silicon/snp/firmware/launch.ts';
import { checkChain, extension, isDevelopment, readCertificates } from './chain.ts';
import { hex, NOTHING_ABOUT_HARDWARE, type Lines } from './lines.ts';

const SIGNING_KEYS: Readonly<Record<number, string>> = { 0: 'VCEK', 1: 'VLEK', 7: 'none' };
const ARC = '1.3.6.1.4.1.3704.1';

const tcbText = (value: bigint): string => {
  const { bootLoader, tee, snp, microcode } = tcbVersion(value);
  return `boot loader ${bootLoader}, TEE ${tee}, SNP ${snp}, microcode ${microcode}`;
};

export function describeSnpReport(lines: Lines, bytes: Uint8Array): void {
  const fields = report.read(bytes);
  lines.field('kind', 'SEV-SNP attestation report');
  lines.field('version', fields.version);
  lines.field('vmpl', fields.vmpl);
  lines.field('measurement', fields.measurement);
  lines.field('report data', fields.reportData);
  lines.field('host data', fields.hostData);
  lines.field('policy', fields.policy);
  lines.field('guest svn', fields.guestSvn);
  lines.field('family id', fields.familyId);
  lines.field('image id', fields.imageId);
  lines.field('id key digest', fields.idKeyDigest);
  lines.field('author key digest', fields.authorKeyDigest);
  lines.field('report id', fields.reportId);
  lines.field('report id of ma', fields.reportIdMa);
  lines.field('chip id', fields.chipId);
  if (fields.version >= 3)
    lines.field(
      'processor',
      `family ${fields.cpuidFamily}, model ${fields.cpuidModel}, stepping ${fields.cpuidStepping}`,
    );
  lines.field('platform info', fields.platformInfo);
  lines.field(
    'signing key',
    SIGNING_KEYS[(fields.keyInfo >>> 2) & 7] ?? `unknown (${(fields.keyInfo >>> 2) & 7})`,
  );
  lines.field('current tcb', tcbText(fields.currentTcb));
  lines.field('reported tcb', tcbText(fields.reportedTcb));
  lines.field('committed tcb', tcbText(fields.committedTcb));
  lines.field('launch tcb', tcbText(fields.launchTcb));
  lines.field('current firmware', `${fields.currentMajor}.${fields.currentMinor}.${fields.currentBuild}`);
  lines.field(
    'committed firmware',
    `${fields.committedMajor}.${fields.committedMinor}.${fields.committedBuild}`,
  );
}

/** VCEK first, then ASK and ARK: from PEM, DER, or the table that a guest gets beside its report. */
export function snpCertificatesFrom(bytes: Uint8Array, where: string): X509Certificate[] {
  const table = readCertificateTable(bytes);
  if (table === undefined || table.length === 0) return readCertificates(bytes, where);
  return table.flatMap((entry) => readCertificates(entry.bytes, where));
}

/** Leaf first, each followed by its issuer, from certificates in any order. */
function ordered(certificates: readonly X509Certificate[]): X509Certificate[] {
  const leaf = certificates.find((one) => one.publicKey.asymmetricKeyType === 'ec');
  const chain: X509Certificate[] = leaf === undefined ? [] : [leaf];
  for (let last = leaf; last !== undefined;) {
    const issuer = certificates.find(
      (one) => !chain.includes(one) && (last as X509Certificate).checkIssued(one),
    );
    if (issuer !== undefined) chain.push(issuer);
    last = issuer;
  }
  return chain;
}

export function verifySnpReport(
  lines: Lines,
  bytes: Uint8Array,
  certificates: readonly X509Certificate[],
  root: X509Certificate | undefined,
): void {
  const fields = report.read(bytes);
  const chain = ordered(certificates);
  const vcek = chain[0];
  if (vcek === undefined) {
    lines.check('there is a VCEK among the certificates', false);
    return;
  }
  const jwk = vcek.publicKey.export({ format: 'jwk' });
  const key = publicKey.write({
    curve: CURVE_P384,
    x: toFirmware(Buffer.from(jwk.x ?? '', 'base64url')),
    y: toFirmware(Buffer.from(jwk.y ?? '', 'base64url')),
  });
  lines.check(
    'the signature algorithm is ECDSA P-384 with SHA-384',
    fields.signatureAlgorithm === ECDSA_P384_SHA384,
  );
  lines.check('the VCEK signed the report', isSigned(bytes.subarray(0, SIGNED), fields.signature, key));
  checkChain(lines, chain, root);
  checkExtensions(lines, vcek, fields);
  if (isDevelopment(vcek)) lines.note(NOTHING_ABOUT_HARDWARE);
}

/** The VCEK is for this chip and these versions (AMD 57230). A VLEK has no chip. */
function checkExtensions(lines: Lines, vcek: X509Certificate, fields: ReturnType<typeof report.read>): void {
  const number = (id: string): number | undefined => {
    const value = extension(vcek, `${ARC}.${id}`);
    return value === undefined ? undefined : numberOf(raw(value));
  };
  const tcb = tcbVersion(fields.reportedTcb);
  lines.check(
    'the VCEK is for the reported TCB',
    number('3.1') === tcb.bootLoader &&
      number('3.2') === tcb.tee &&
      number('3.3') === tcb.snp &&
      number('3.8') === tcb.microcode,
  );
  const chip = extension(vcek, `${ARC}.4`);
  if (chip !== undefined && fields.chipId.some((byte) => byte !== 0))
    lines.check('the VCEK is for the chip', hex(chip) === hex(fields.chipId));
}
