/** The quoting enclave: a TDREPORT of this platform becomes a quote (Intel TDX DCAP Quoting Library API, appendix A). */
import { sha256 } from '@noble/hashes/sha2.js';
import { concat } from '../../../abi/bytes.ts';
import { setU16, setU32 } from '../../../abi/record.ts';
import {
  ATTESTATION_KEY_P256,
  BODY_TYPE,
  CERTIFICATION,
  enclaveReport,
  INTEL_QE_VENDOR,
  quoteHeader,
  tdBody10,
  tdBody15,
  TEE_TDX,
} from '../../../abi/tdx/quote.ts';
import { REPORT_PART, reportMac, tdInfo, teeTcbInfo } from '../../../abi/tdx/report.ts';
import { sign, type EcKey } from '../../pki/ec.ts';
import { pckChainPem } from './certificates.ts';
import type { TdxPlatform } from './platform.ts';
import { areHashesRight, verifyReportMac } from './report.ts';

/** Intel's enclave puts the bytes 0 to 31 there. */
const AUTH_DATA = Uint8Array.from({ length: 32 }, (_, i) => i);

/** A quote of version 4 or 5; undefined when the report is not one of this platform. */
export function makeQuote(platform: TdxPlatform, report: Uint8Array, version: 4 | 5): Uint8Array | undefined {
  if (verifyReportMac(platform, report) !== 'valid' || !areHashesRight(report)) return undefined;
  const signed = concat(header(platform, version), body(report, version));
  const { x, y } = platform.attestationKey;
  const key = concat(x, y);
  const qeReport = enclaveReport.write({
    cpuSvn: platform.cpuSvn,
    attributes: platform.qe.attributes,
    mrEnclave: platform.qe.mrEnclave,
    mrSigner: platform.qe.mrSigner,
    isvProdId: platform.qe.isvProdId,
    isvSvn: platform.qe.isvSvn,
    reportData: sha256(concat(key, AUTH_DATA)),
  });
  const authSize = new Uint8Array(2);
  setU16(authSize, 0, AUTH_DATA.length);
  const certification = certificationData(
    CERTIFICATION.qeReport,
    concat(
      qeReport,
      signatureOf(platform.pckKey, qeReport),
      authSize,
      AUTH_DATA,
      certificationData(CERTIFICATION.pckChain, pckChainPem(platform)),
    ),
  );
  const data = concat(signatureOf(platform.attestationKey, signed), key, certification);
  const size = new Uint8Array(4);
  setU32(size, 0, data.length);
  return concat(signed, size, data);
}

function header(platform: TdxPlatform, version: number): Uint8Array {
  return quoteHeader.write({
    version,
    attestationKeyType: ATTESTATION_KEY_P256,
    teeType: TEE_TDX,
    vendorId: INTEL_QE_VENDOR,
    userData: platform.qe.id,
  });
}

function body(report: Uint8Array, version: 4 | 5): Uint8Array {
  const tcb = teeTcbInfo.read(report, REPORT_PART.teeTcbInfo);
  const td = tdInfo.read(report, REPORT_PART.tdInfo);
  const fields = {
    teeTcbSvn: tcb.teeTcbSvn,
    mrSeam: tcb.mrSeam,
    mrSignerSeam: tcb.mrSignerSeam,
    seamAttributes: tcb.attributes,
    tdAttributes: td.attributes,
    xfam: td.xfam,
    mrTd: td.mrTd,
    mrConfigId: td.mrConfigId,
    mrOwner: td.mrOwner,
    mrOwnerConfig: td.mrOwnerConfig,
    rtmr0: td.rtmr0,
    rtmr1: td.rtmr1,
    rtmr2: td.rtmr2,
    rtmr3: td.rtmr3,
    reportData: reportMac.get(report, 'reportData'),
  };
  if (version === 4) return tdBody10.write(fields);
  return concat(
    sized(BODY_TYPE.td15, tdBody15.size),
    tdBody15.write({ ...fields, teeTcbSvn2: tcb.teeTcbSvn2, mrServiceTd: td.servTdHash }),
  );
}

/** A type of 2 bytes and a size of 4. */
function sized(type: number, size: number): Uint8Array {
  const bytes = new Uint8Array(6);
  setU16(bytes, 0, type);
  setU32(bytes, 2, size);
  return bytes;
}

const certificationData = (type: number, data: Uint8Array): Uint8Array =>
  concat(sized(type, data.length), data);

function signatureOf(key: EcKey, message: Uint8Array): Uint8Array {
  const { r, s } = sign(key, message);
  return concat(r, s);
}
