/** `vitrine report`, `vitrine certificates` and `vitrine measure` through the command line. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Directive } from '../../src/launch/directives.ts';
import { igvmBytes } from '../../src/launch/igvm/write.ts';
import { measureDirectives } from '../../src/machine/measure/measurement.ts';
import { createContext } from '../../src/silicon/snp/firmware/guest-context.ts';
import { launchFinish, launchStart } from '../../src/silicon/snp/firmware/launch.ts';
import { snpPlatform } from '../../src/silicon/snp/firmware/platform.ts';
import { makeReport } from '../../src/silicon/snp/firmware/report.ts';
import { tdxPlatform } from '../../src/silicon/tdx/attestation/platform.ts';
import { makeQuote } from '../../src/silicon/tdx/attestation/quote.ts';
import { makeTdReport } from '../../src/silicon/tdx/attestation/report.ts';

const program = fileURLToPath(new URL('../../bin/vitrine.js', import.meta.url));
const real = (name: string): string => fileURLToPath(new URL(`../attestation/${name}`, import.meta.url));

function vitrine(...args: readonly string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args]);
  return { status, stdout: stdout.toString(), stderr: stderr.toString() };
}

let folder = '';
const at = (name: string): string => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vitrine-'));
  writeFileSync(at('milan.bin'), Buffer.from(readFileSync(real('milan-report.hex'), 'latin1').trim(), 'hex'));
  writeFileSync(
    at('milan.pem'),
    readFileSync(real('milan-vcek.pem'), 'latin1') + readFileSync(real('milan-ask-ark.pem'), 'latin1'),
  );
  const snp = snpPlatform(1n, 0x00a00f11, 1);
  const guest = createContext(snp, 0);
  launchStart(guest, { policy: 0x30000n });
  launchFinish(guest, {});
  writeFileSync(at('snp.bin'), makeReport(snp, guest, 0, new Uint8Array(64).fill(0xab)));
  const tdx = tdxPlatform(1n);
  const td = makeTdReport(tdx, { attributes: 1n << 28n, xfam: 3n }, new Uint8Array(64).fill(0xcd));
  writeFileSync(at('td.bin'), td);
  writeFileSync(at('quote4.bin'), makeQuote(tdx, td, 4) as Uint8Array);
  writeFileSync(at('quote5.bin'), makeQuote(tdx, td, 5) as Uint8Array);
});
afterAll(() => rmSync(folder, { recursive: true }));

const PAGE = 4096;
/** A list like one of ours: code, memory of zeros, and a context. */
const launch: readonly Directive[] = [
  {
    kind: 'pages',
    gpa: 0x1000,
    length: 2 * PAGE,
    type: 'normal',
    measured: true,
    name: 'code',
    data: new Uint8Array(5000).fill(3),
  },
  {
    kind: 'pages',
    gpa: 0x8000,
    length: PAGE,
    type: 'vmsa',
    measured: true,
    name: 'context',
    data: new Uint8Array(PAGE).fill(5),
  },
];

const DEVELOPMENT = /proves nothing about hardware/;

describe('report', () => {
  test('accepts a real report by its certificates and says nothing of development', () => {
    const { status, stdout } = vitrine('report', at('milan.bin'), '--certificates', at('milan.pem'));
    expect(stdout).toMatch(/^measurement +7a1e5c26/m);
    expect(stdout).toMatch(/good {2}the VCEK signed the report/);
    expect(stdout).toMatch(/good {2}the VCEK is for the chip/);
    expect(stdout).not.toMatch(DEVELOPMENT);
    expect(status).toBe(0);
  });
  test('accepts our report under our seed, and neither under another seed nor under real certificates', () => {
    const ours = vitrine('report', at('snp.bin'), '--seed', '1');
    expect(ours.stdout).toMatch(DEVELOPMENT);
    expect(ours.stdout).not.toMatch(/BAD/);
    expect(ours.status).toBe(0);
    expect(vitrine('report', at('snp.bin'), '--seed', '2').status).toBe(1);
    expect(vitrine('report', at('snp.bin'), '--certificates', at('milan.pem')).status).toBe(1);
  });
  test.for(['td.bin', 'quote4.bin', 'quote5.bin'])('accepts our %s under our seed only', (name) => {
    const ours = vitrine('report', at(name), '--seed', '1');
    expect(ours.stdout).toMatch(/report data +(cd){64}/);
    expect(ours.stdout).toMatch(DEVELOPMENT);
    expect(ours.stdout).not.toMatch(/BAD/);
    expect(ours.status).toBe(0);
    expect(vitrine('report', at(name), '--seed', '2').status).toBe(1);
  });
  test('finds a changed byte', () => {
    for (const [name, offset] of [
      ['snp.bin', 0x90],
      ['td.bin', 600],
      ['quote4.bin', 200],
    ] as const) {
      const changed = readFileSync(at(name));
      changed[offset] = (changed[offset] as number) ^ 1;
      writeFileSync(at('changed.bin'), changed);
      const { status, stdout } = vitrine('report', at('changed.bin'), '--seed', '1');
      expect(stdout, name).toMatch(/^BAD/m);
      expect(status, name).toBe(1);
    }
  });
  test('says what it did not verify', () => {
    expect(vitrine('report', at('snp.bin'))).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/Not verified/),
    });
    expect(vitrine('report', at('td.bin')).stdout).toMatch(/The MAC can be checked by the processor/);
    expect(vitrine('report', at('quote5.bin')).stdout).toMatch(/give the one you trust with --root/);
  });
});

describe('certificates', () => {
  test('writes what report then takes', () => {
    expect(vitrine('certificates', 'snp', '--out', at('snp'), '--seed', '1').stderr).toMatch(DEVELOPMENT);
    expect(vitrine('certificates', 'tdx', '--out', at('tdx'), '--seed', '1').status).toBe(0);
    expect(readdirSync(at('snp'))).toEqual(
      expect.arrayContaining(['ark.der', 'ark.pem', 'vcek.pem', 'chain.pem', 'certificate-table.bin']),
    );
    expect(readdirSync(at('tdx'))).toEqual(
      expect.arrayContaining(['root.der', 'pck-chain.pem', 'tcb-info.json', 'qe-identity.json']),
    );
    for (const certificates of ['chain.pem', 'certificate-table.bin']) {
      const checked = vitrine(
        'report',
        at('snp.bin'),
        '--certificates',
        join(at('snp'), certificates),
        '--root',
        join(at('snp'), 'ark.pem'),
      );
      expect(checked.stdout, certificates).not.toMatch(/BAD|--root/);
      expect(checked.status, certificates).toBe(0);
    }
    expect(vitrine('report', at('quote4.bin'), '--root', join(at('tdx'), 'root.der')).stdout).not.toMatch(
      /BAD|--root/,
    );
  });
});

describe('measure', () => {
  test('prints the launch digest of an IGVM image, lists its pages, and writes it again', () => {
    writeFileSync(at('image.igvm'), igvmBytes({ platform: 'snp', policy: 0x30000n, directives: launch }));
    const { status, stdout } = vitrine(
      'measure',
      'snp',
      '--igvm',
      at('image.igvm'),
      '--pages',
      at('pages'),
      '--write-igvm',
      at('again.igvm'),
    );
    expect(stdout).toBe(`${Buffer.from(measureDirectives('snp', launch).value).toString('hex')}\n`);
    expect(status).toBe(0);
    const lines = readFileSync(at('pages'), 'utf8').split('\n');
    expect(lines.slice(2, 4)).toEqual([
      expect.stringMatching(/^0 normal 0x1000 [0-9a-f]{96}$/),
      expect.stringMatching(/^1 normal 0x2000 [0-9a-f]{96}$/),
    ]);
    expect(readFileSync(at('again.igvm'))).toEqual(readFileSync(at('image.igvm')));
    expect(vitrine('measure', 'tdx', '--igvm', at('image.igvm')).stderr).toMatch(
      /the image is for snp, not for tdx/,
    );
  });
});

test.for([
  [['report']],
  [['report', '/nonexistent']],
  [['report', program]],
  [['report', real('milan-vcek.pem'), '--seed', '1']],
  [['report', real('README.md'), '--seed', 'x']],
  [['certificates', 'sgx', '--out', 'x']],
  [['certificates', 'snp', '--out', `${program}/x`]],
  [['measure']],
  [['measure', 'nowhere']],
  [['measure', 'plain']],
  [['measure', 'plain', '--igvm', program]],
  [['measure', 'snp', '--cpu-model', 'SapphireRapids', '--offline']],
  [['measure', 'snp', '--igvm', program]],
  [['measure', 'snp', '--igvm', program, '--cpus', '2']],
  [['measure', 'snp', '--igvm', '/nonexistent', '--pages', `${program}/x`]],
])('%j: bad input ends with status 2 and one line', ([args]) => {
  const { status, stderr, stdout } = vitrine(...(args as string[]));
  expect(stderr).toMatch(/^vitrine: [^\n]+\n$/);
  expect(stdout).toBe('');
  expect(status).toBe(2);
});
