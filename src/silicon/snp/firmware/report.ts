/** Attestation reports (AMD 56860, 7.3). */
import { idBlock } from '../../../abi/snp/launch.ts';
import { ECDSA_P384_SHA384, report, signature, SIGNED, toFirmware } from '../../../abi/snp/report.ts';
import { sign } from '../../pki/ec.ts';
import type { GuestContext } from './guest-context.ts';
import { ABI, REPORT_VERSION, type SnpPlatform } from './platform.ts';

/** A report on `vmpl` of the guest, signed by the VCEK. */
export function makeReport(
  platform: SnpPlatform,
  context: GuestContext,
  vmpl: number,
  reportData: Uint8Array,
): Uint8Array {
  const { guestSvn, familyId, imageId } = idBlock.read(context.idBlock);
  const family = ((platform.signature >>> 8) & 0xf) + ((platform.signature >>> 20) & 0xff);
  const model = ((platform.signature >>> 4) & 0xf) | ((platform.signature >>> 12) & 0xf0);
  const bytes = report.write({
    version: REPORT_VERSION,
    guestSvn,
    policy: context.policy,
    familyId,
    imageId,
    vmpl,
    signatureAlgorithm: ECDSA_P384_SHA384,
    currentTcb: platform.tcb,
    // No SMT, no TSME, no ECC: the machine has none of them.
    platformInfo: 0n,
    keyInfo: context.authorKeyEnabled ? 1 : 0,
    reportData,
    measurement: context.measurement,
    hostData: context.hostData,
    idKeyDigest: context.idKeyDigest,
    authorKeyDigest: context.authorKeyDigest,
    reportId: context.reportId,
    reportIdMa: context.reportIdMa,
    reportedTcb: platform.tcb,
    cpuidFamily: family,
    cpuidModel: model,
    cpuidStepping: platform.signature & 0xf,
    chipId: platform.chipId,
    committedTcb: platform.tcb,
    currentBuild: ABI.build,
    currentMinor: ABI.minor,
    currentMajor: ABI.major,
    committedBuild: ABI.build,
    committedMinor: ABI.minor,
    committedMajor: ABI.major,
    launchTcb: context.launchTcb,
  });
  const { r, s } = sign(platform.vcek, bytes.subarray(0, SIGNED));
  report.set(bytes, 'signature', signature.write({ r: toFirmware(r), s: toFirmware(s) }));
  return bytes;
}
