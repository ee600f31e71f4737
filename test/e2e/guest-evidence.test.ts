/** Evidence that a stock kernel's own driver gets in the guest, judged outside by programs with nothing of ours in them. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { readCertificateTable } from '../../src/abi/snp/certificate-table.ts';
import { report, REPORT_SIZE } from '../../src/abi/snp/report.ts';
import { readQuote, tdBody10 } from '../../src/abi/tdx/quote.ts';
import { pem } from '../../src/silicon/pki/pem.ts';
import { verifyQuote } from '../dcap.ts';

const path = (relative: string): string => fileURLToPath(new URL(`../../${relative}`, import.meta.url));
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

function vitrine(...args: readonly string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [path('bin/vitrine.js'), ...args], {
    maxBuffer: 2 ** 26,
  });
  return { status, stdout, stderr: stderr.toString() };
}

const fetched = vitrine('kernel', 'fetch');
const available = fetched.status === 0;
const reason = available ? '' : ` (skipped: no kernel: ${fetched.stderr.trim().split('\n').at(-1) ?? ''})`;
const hasOpenssl = spawnSync('openssl', ['version']).status === 0;
const hasPython = spawnSync('python3', ['--version']).status === 0;

/** configfs-tsm with report data of 64 times `x`; what the driver gives goes to standard output. */
const ASK = [
  // Mounted already, unless somebody gave another init.
  '{ mount -t configfs none /sys/kernel/config 2>/dev/null || true; }',
  'mkdir /sys/kernel/config/tsm/report/a',
  'cd /sys/kernel/config/tsm/report/a',
  "head -c 64 /dev/zero | tr '\\0' x > inblob",
  'cat outblob',
].join(' && ');
const SECONDS = 300_000;

function inFolder(use: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'vitrine-'));
  try {
    use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test.skipIf(!available)(
  `tdx: the driver gives a quote with the chosen data and the MRTD that measure says; a DCAP verifier accepts it${reason}`,
  { timeout: SECONDS },
  () => {
    const { status, stdout, stderr } = vitrine('boot', 'tdx', '--run', ASK);
    expect(status, stderr).toBe(0);
    const measured = vitrine('measure', 'tdx', '--run', ASK).stdout.toString().trim();
    const body = tdBody10.read(readQuote(stdout)?.body as Uint8Array);
    expect(hex(body.mrTd)).toBe(measured);
    expect(hex(body.reportData)).toBe('78'.repeat(64));
    expect(verifyQuote(stdout).status).toBe('UpToDate');
  },
);

test.skipIf(!available || !hasOpenssl)(
  `snp: the driver gives a report with the chosen data, the launch digest that measure says, and certificates; OpenSSL alone verifies them${reason}`,
  { timeout: SECONDS },
  () => {
    const ask = `${ASK} auxblob`;
    const { status, stdout, stderr } = vitrine('boot', 'snp', '--run', ask);
    expect(status, stderr).toBe(0);
    const made = stdout.subarray(0, REPORT_SIZE);
    const fields = report.read(made);
    expect(hex(fields.measurement)).toBe(vitrine('measure', 'snp', '--run', ask).stdout.toString().trim());
    expect(hex(fields.reportData)).toBe('78'.repeat(64));
    const ders = readCertificateTable(stdout.subarray(REPORT_SIZE))?.map(({ bytes }) => bytes) ?? [];
    expect(ders.length).toBe(3);
    inFolder((folder) => {
      const [file, chain] = [join(folder, 'report'), join(folder, 'chain.pem')];
      writeFileSync(file, made);
      writeFileSync(chain, ders.map((der) => pem('CERTIFICATE', der)).join(''));
      const said = execFileSync(path('scripts/verify-snp-report.sh'), [file, chain], { encoding: 'utf8' });
      expect(said).toBe('chain: good\nreport: signature good\n');
    });
  },
);

test.skipIf(!available || !hasPython).for([
  ['snp', 'snp-launch-digest.py'],
  ['snp-paravisor', 'snp-launch-digest.py'],
  ['tdx', 'tdx-mrtd.py'],
  ['tdx-paravisor', 'tdx-mrtd.py'],
] as const)(
  `%s: another language recomputes the measurement from the pages; another command line changes it${reason}`,
  { timeout: SECONDS },
  ([name, script]) =>
    inFolder((folder) => {
      const list = join(folder, 'pages');
      const measured = vitrine('measure', name, '--pages', list).stdout.toString().trim();
      expect(measured).toMatch(/^[0-9a-f]{96}$/);
      const program = path(`scripts/${script}`);
      expect(execFileSync('python3', [program, list], { encoding: 'utf8' }).trim()).toBe(measured);
      expect(vitrine('measure', name, '--append', 'x').stdout.toString().trim()).not.toBe(measured);
    }),
);
