/** `vitrine certificates`: the development PKI of a seed, for verifiers. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { pem } from '../../silicon/pki/pem.ts';
import {
  certificateChainPem,
  hostCertificateTable,
  snpCertificates,
} from '../../silicon/snp/firmware/certificates.ts';
import { snpPlatform } from '../../silicon/snp/firmware/platform.ts';
import { pckChainPem, tdxCertificates } from '../../silicon/tdx/attestation/certificates.ts';
import { tdxCollateral } from '../../silicon/tdx/attestation/collateral.ts';
import { tdxPlatform } from '../../silicon/tdx/attestation/platform.ts';
import { seed } from '../arguments.ts';
import { UserError } from '../errors.ts';
import { errorCode, writeWhole } from '../output.ts';

const TECHNOLOGIES = ['snp', 'tdx'];
type Files = Readonly<Record<string, Uint8Array | string>>;

export function certificatesCommand(): Command {
  return new Command('certificates')
    .description('write the development certificates and collateral of a seed, PEM and DER')
    .argument('<technology>', TECHNOLOGIES.join(', '))
    .requiredOption('--out <dir>', 'folder to write to')
    .option('--seed <n>', 'seed of the machine (default: 1)', seed, 1n)
    .action((technology: string, given: { out: string; seed: bigint }) => {
      if (!TECHNOLOGIES.includes(technology))
        throw new UserError(
          `there are no certificates of '${technology}': give ${TECHNOLOGIES.join(' or ')}`,
        );
      write(given.out, technology === 'snp' ? snpFiles(given.seed) : tdxFiles(given.seed));
      process.stderr.write('vitrine: a development PKI: it proves nothing about hardware\n');
    });
}

function write(folder: string, files: Files): void {
  try {
    mkdirSync(folder, { recursive: true });
  } catch (error) {
    throw new UserError(`cannot make folder ${folder} (${errorCode(error)}): give another one with --out`);
  }
  for (const [name, contents] of Object.entries(files)) {
    writeWhole(join(folder, name), contents, '--out');
    process.stdout.write(`${name}\n`);
  }
}

const both = (name: string, label: string, der: Uint8Array): Files => ({
  [`${name}.der`]: der,
  [`${name}.pem`]: pem(label, der),
});

function snpFiles(of: bigint): Files {
  const certificates = snpCertificates(snpPlatform(of, 0, 0));
  return {
    ...both('ark', 'CERTIFICATE', certificates.ark),
    ...both('ask', 'CERTIFICATE', certificates.ask),
    ...both('vcek', 'CERTIFICATE', certificates.vcek),
    ...both('crl', 'X509 CRL', certificates.crl),
    'chain.pem': certificateChainPem(certificates),
    'certificate-table.bin': hostCertificateTable(certificates),
  };
}

function tdxFiles(of: bigint): Files {
  const platform = tdxPlatform(of);
  const certificates = tdxCertificates(platform);
  const collateral = tdxCollateral(platform);
  return {
    ...both('root', 'CERTIFICATE', certificates.root),
    ...both('pck-authority', 'CERTIFICATE', certificates.pckAuthority),
    ...both('pck', 'CERTIFICATE', certificates.pck),
    ...both('tcb-signing', 'CERTIFICATE', certificates.tcbSigning),
    ...both('root-crl', 'X509 CRL', certificates.rootCrl),
    ...both('pck-crl', 'X509 CRL', certificates.pckCrl),
    'pck-chain.pem': pckChainPem(platform),
    'tcb-info.json': collateral.tcbInfo.response,
    'qe-identity.json': collateral.qeIdentity.response,
  };
}
