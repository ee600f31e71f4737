import { execFileSync, spawnSync } from 'node:child_process';
import { createDecipheriv, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MESSAGE, reportRequest } from '../../../abi/snp/guest-message.ts';
import { report, signature } from '../../../abi/snp/report.ts';
import { readCertificateTable } from '../../../abi/snp/certificate-table.ts';
import { pem } from '../../pki/pem.ts';
import { certificateChainPem, hostCertificateTable, snpCertificates } from './certificates.ts';
import { guestRequest, seal } from './guest-request.ts';
import { snpPlatform } from './platform.ts';
import { platform, nothing, hex, launched } from './test-guest.ts';

// Without the command there is nothing to compare with.
const hasOpenssl = spawnSync('openssl', ['version']).status === 0;

describe('snpCertificates', () => {
  const certificates = snpCertificates(platform);
  it('form a chain that another implementation verifies, and say what they are', () => {
    const [ark, ask, vcek] = [certificates.ark, certificates.ask, certificates.vcek].map(
      (der) => new X509Certificate(der),
    ) as [X509Certificate, X509Certificate, X509Certificate];
    expect(ark.verify(ark.publicKey)).toBe(true);
    expect(ask.verify(ark.publicKey)).toBe(true);
    expect(vcek.verify(ask.publicKey)).toBe(true);
    for (const { subject } of [ark, ask, vcek])
      expect(subject).toMatch(/Development PKI: proves nothing about hardware/);
    expect(vcek.publicKey.asymmetricKeyDetails?.namedCurve).toBe('secp384r1');
    expect(ark.publicKey.asymmetricKeyDetails?.modulusLength).toBe(4096);
  });
  it('are the same for the same seed and others for another one', () => {
    expect(hex(snpCertificates(snpPlatform(1n, 0x00a00f11, 1)).vcek)).toBe(hex(certificates.vcek));
    expect(hex(snpCertificates(snpPlatform(2n, 0x00a00f11, 1)).vcek)).not.toBe(hex(certificates.vcek));
  });
  it('fit as a table into what Linux takes', () => {
    const table = hostCertificateTable(certificates);
    expect(table.length).toBeLessThanOrEqual(0x4000);
    expect(readCertificateTable(table)?.map((entry) => entry.bytes)).toEqual([
      certificates.vcek,
      certificates.ask,
      certificates.ark,
    ]);
  });
  // Without the openssl command there is nothing to compare with.
  it.skipIf(!hasOpenssl)('verify by OpenSSL alone, with report and revocation list', () => {
    const folder = mkdtempSync(join(tmpdir(), 'vitrine-'));
    try {
      const context = launched();
      const request = seal(
        context.vmpcks[0] as Uint8Array,
        1n,
        MESSAGE.reportRequest,
        0,
        reportRequest.write({}),
      );
      const { response } = guestRequest(platform, context, request, nothing);
      const file = (name: string, contents: Uint8Array | string): string => {
        writeFileSync(join(folder, name), contents);
        return join(folder, name);
      };
      const script = new URL('../../../../scripts/verify-snp-report.sh', import.meta.url).pathname;
      // Under key and sequence of this test the payload is known to start with the response header.
      const iv = Buffer.alloc(12);
      iv[0] = 2;
      const decipher = createDecipheriv('aes-256-gcm', context.vmpcks[0] as Uint8Array, iv);
      const made = decipher.update((response as Uint8Array).subarray(0x60)).subarray(0x20);
      const path = file('report.bin', made);
      const chain = file('chain.pem', certificateChainPem(certificates));
      expect(execFileSync(script, [path, chain], { encoding: 'utf8' })).toMatch(/report: signature good/);
      const crl = file('crl.pem', pem('X509 CRL', certificates.crl));
      const ark = file('ark.pem', pem('CERTIFICATE', certificates.ark));
      expect(
        execFileSync('openssl', ['crl', '-in', crl, '-CAfile', ark, '-noout', '-verify'], {
          encoding: 'utf8',
          stdio: 'pipe',
        }),
      ).toBe('');
      made[0x90] = (made[0x90] as number) ^ 1;
      expect(() => execFileSync(script, [file('bad.bin', made), chain], { stdio: 'pipe' })).toThrow();
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
