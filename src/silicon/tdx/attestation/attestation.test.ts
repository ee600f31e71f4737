import { QuoteVerifier } from '@phala/dcap-qvl';
import { createHash, createHmac, X509Certificate } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { readQuote, tdBody10, tdBody15 } from '../../../abi/tdx/quote.ts';
import { REPORT_PART, reportMac, tdInfo, teeTcbInfo } from '../../../abi/tdx/report.ts';
import { verifierInput, verifyQuote } from '../../../../test/dcap.ts';
import { tdxCertificates } from './certificates.ts';
import { tdxCollateral } from './collateral.ts';
import { finishMeasurement, measurePage, startMeasurement } from './mrtd.ts';
import { tdxPlatform } from './platform.ts';
import { makeQuote } from './quote.ts';
import { areHashesRight, extendRtmr, makeTdReport, verifyReportMac } from './report.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const platform = tdxPlatform(1n);
const reportData = Uint8Array.from({ length: 64 }, (_, i) => 255 - i);
/** SEPT_VE_DISABLE. */
const ATTRIBUTES = 1n << 28n;
const info = {
  attributes: ATTRIBUTES,
  xfam: 3n,
  mrTd: new Uint8Array(48).fill(0x11),
  rtmr0: new Uint8Array(48).fill(0x22),
  rtmr3: new Uint8Array(48).fill(0x33),
};
const NOW = 1_800_000_000;

describe('measurePage', () => {
  it('hashes the records of the specification in order', () => {
    const state = startMeasurement();
    const contents = Uint8Array.from({ length: 4096 }, (_, i) => i >> 4);
    measurePage(state, 0x1000, contents);
    measurePage(state, 0x2000, undefined);
    const hash = createHash('sha384');
    const record = (name: string, gpa: number): Buffer => {
      const made = Buffer.alloc(128);
      made.write(name);
      made.writeBigUInt64LE(BigInt(gpa), 16);
      return made;
    };
    hash.update(record('MEM.PAGE.ADD', 0x1000));
    for (let at = 0; at < 4096; at += 256)
      hash.update(record('MR.EXTEND', 0x1000 + at)).update(contents.subarray(at, at + 256));
    hash.update(record('MEM.PAGE.ADD', 0x2000));
    expect(hex(finishMeasurement(state))).toBe(hash.digest('hex'));
  });
});

describe('extendRtmr', () => {
  it('hashes old value and new', () => {
    const value = new Uint8Array(48).fill(5);
    expect(hex(extendRtmr(new Uint8Array(48), value))).toBe(
      createHash('sha384').update(Buffer.alloc(48)).update(value).digest('hex'),
    );
  });
});

describe('makeTdReport', () => {
  const report = makeTdReport(platform, info, reportData);
  it('hashes its parts and authenticates the hashes', () => {
    const mac = reportMac.read(report);
    expect(mac).toMatchObject({ type: 0x81, subtype: 0, version: 0 });
    expect(mac.reportData).toEqual(reportData);
    expect(hex(mac.teeTcbInfoHash)).toBe(
      createHash('sha384').update(report.subarray(256, 495)).digest('hex'),
    );
    expect(hex(mac.teeInfoHash)).toBe(createHash('sha384').update(report.subarray(512)).digest('hex'));
    expect(hex(mac.mac)).toBe(
      createHmac('sha256', platform.macKey).update(report.subarray(0, 224)).digest('hex'),
    );
    expect(teeTcbInfo.get(report, 'valid', REPORT_PART.teeTcbInfo)).toBe(0x301ffn);
    expect(tdInfo.get(report, 'rtmr3', REPORT_PART.tdInfo)).toEqual(info.rtmr3);
    expect(areHashesRight(report)).toBe(true);
  });
  it('says when a service TD is bound', () => {
    const bound = makeTdReport(platform, { ...info, servTdHash: new Uint8Array(48).fill(1) }, reportData);
    expect(reportMac.get(bound, 'version')).toBe(1);
  });
});

describe('verifyReportMac', () => {
  it('tells a changed report, another processor and another version apart', () => {
    const report = makeTdReport(platform, info, reportData);
    expect(verifyReportMac(platform, report)).toBe('valid');
    expect(verifyReportMac(tdxPlatform(2n), report)).toBe('mac');
    for (const [at, verdict] of [
      [0, 'mac'],
      [2, 'mac'],
      [16, 'cpu-svn'],
      [32, 'mac'],
      [128, 'mac'],
      [223, 'mac'],
      [224, 'mac'],
    ] as const) {
      const changed = report.slice();
      changed[at] = (changed[at] as number) ^ 1;
      expect(verifyReportMac(platform, changed), `byte ${at}`).toBe(verdict);
    }
  });
});

describe('makeQuote', () => {
  const report = makeTdReport(platform, info, reportData);
  it.each([4, 5] as const)(
    'version %i is accepted by an independent verifier that is given our root',
    (version) => {
      const quote = makeQuote(platform, report, version) as Uint8Array;
      const verified = verifyQuote(quote);
      expect(verified.status).toBe('UpToDate');
      expect(verified.advisory_ids).toEqual([]);
      const td = verified.report.asTd10();
      expect(hex(td?.mrTd as Uint8Array)).toBe(hex(info.mrTd));
      expect(hex(td?.rtMr3 as Uint8Array)).toBe(hex(info.rtmr3));
      expect(hex(td?.reportData as Uint8Array)).toBe(hex(reportData));
      expect(verified.report.asTd15() !== null).toBe(version === 5);
    },
  );
  it("is refused under another root, Intel's among them, and after any change", () => {
    const quote = makeQuote(platform, report, 4) as Uint8Array;
    expect(() => verifyQuote(quote, platform, tdxCollateral(tdxPlatform(2n)).root)).toThrow();
    expect(() =>
      QuoteVerifier.newProd().verify(Buffer.from(quote), verifierInput(tdxCollateral(platform)), NOW),
    ).toThrow();
    // Header, body, signature, key, QE report, its signature, authentication data.
    for (const at of [30, 48 + 136, 48 + 583, 636, 700, 770 + 64, 770 + 320, 1154, 1220]) {
      const changed = quote.slice();
      changed[at] = (changed[at] as number) ^ 1;
      expect(() => verifyQuote(changed), `byte ${at}`).toThrow();
    }
  });
  it('makes none of a report that this platform did not make', () => {
    expect(makeQuote(tdxPlatform(2n), report, 4)).toBeUndefined();
    const changed = report.slice();
    changed[600] = (changed[600] as number) ^ 1;
    expect(makeQuote(platform, changed, 4)).toBeUndefined();
  });
  it('is the same each time', () => {
    expect(hex(makeQuote(tdxPlatform(1n), report, 5) as Uint8Array)).toBe(
      hex(makeQuote(platform, report, 5) as Uint8Array),
    );
  });
});

describe('readQuote', () => {
  const report = makeTdReport(platform, info, reportData);
  it('takes both versions apart', () => {
    const four = readQuote(makeQuote(platform, report, 4) as Uint8Array);
    expect(four).toMatchObject({ version: 4, isBody15: false });
    expect(tdBody10.get(four?.body as Uint8Array, 'rtmr0')).toEqual(info.rtmr0);
    const five = readQuote(makeQuote(platform, report, 5) as Uint8Array);
    expect(five).toMatchObject({ version: 5, isBody15: true });
    expect(tdBody15.get(five?.body as Uint8Array, 'teeTcbSvn2')).toEqual(platform.teeTcbSvn);
    expect(new TextDecoder().decode(five?.pckChain).match(/BEGIN CERTIFICATE/g)?.length).toBe(3);
  });
  it('refuses every quote that is cut off, and other things', () => {
    const quote = makeQuote(platform, report, 5) as Uint8Array;
    for (let length = 0; length < quote.length; length += 37)
      expect(readQuote(quote.subarray(0, length))).toBeUndefined();
    for (const at of [0, 2, 4, 48, 50]) {
      const other = quote.slice();
      other[at] = 0x77;
      expect(readQuote(other), `byte ${at}`).toBeUndefined();
    }
  });
});

describe('tdxCertificates', () => {
  it('form chains that another implementation verifies, and say what they are', () => {
    const made = tdxCertificates(platform);
    const [root, authority, pck, signing] = [made.root, made.pckAuthority, made.pck, made.tcbSigning].map(
      (der) => new X509Certificate(der),
    ) as [X509Certificate, X509Certificate, X509Certificate, X509Certificate];
    expect(root.verify(root.publicKey)).toBe(true);
    for (const [leaf, issuer] of [
      [authority, root],
      [pck, authority],
      [signing, root],
    ] as const) {
      expect(leaf.verify(issuer.publicKey)).toBe(true);
      expect(leaf.checkIssued(issuer)).toBe(true);
      expect(leaf.subject).toMatch(/Development PKI: proves nothing about hardware/);
    }
    expect([root.ca, authority.ca, pck.ca, signing.ca]).toEqual([true, true, false, false]);
  });
});

describe('tdxCollateral', () => {
  it('has responses whose parts are what was signed', () => {
    const { tcbInfo, qeIdentity } = tdxCollateral(platform);
    expect(JSON.parse(tcbInfo.response)).toEqual({
      tcbInfo: JSON.parse(tcbInfo.text),
      signature: tcbInfo.signature,
    });
    expect(JSON.parse(qeIdentity.response).enclaveIdentity.id).toBe('TD_QE');
    expect(tcbInfo.response).toContain(tcbInfo.text);
  });
});
