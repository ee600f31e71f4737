/** Keys that a guest derives from the platform or from its own root (AMD 56860, 7.2). */
import { hmac } from '@noble/hashes/hmac.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { ascii, concat } from '../../../abi/bytes.ts';
import { STATUS, TCB_RESERVED, tcbVersion } from '../../../abi/snp/firmware.ts';
import {
  GUEST_FIELD,
  GUEST_FIELDS,
  KEY_SELECT,
  keyRequest,
  keyResponse,
} from '../../../abi/snp/guest-message.ts';
import { idBlock } from '../../../abi/snp/launch.ts';
import { record } from '../../../abi/record.ts';
import { derive } from '../../pki/seed.ts';
import type { GuestContext } from './guest-context.ts';
import type { SnpPlatform } from './platform.ts';

/** Everything that a key depends on besides its root. */
const mixed = record('key mix', 'AMD firmware source, SNP_MSG_KEY_REQ', 0xb0, [
  { name: 'select', offset: 0, width: 4 },
  { name: 'fields', offset: 8, width: 8 },
  { name: 'vmpl', offset: 0x10, width: 4 },
  { name: 'guestSvn', offset: 0x14, width: 4 },
  { name: 'tcbVersion', offset: 0x18, width: 8 },
  { name: 'policy', offset: 0x20, width: 8 },
  { name: 'imageId', offset: 0x28, width: 16, bytes: true },
  { name: 'familyId', offset: 0x38, width: 16, bytes: true },
  { name: 'measurement', offset: 0x48, width: 32, bytes: true },
  { name: 'hostData', offset: 0x68, width: 32, bytes: true },
  { name: 'idKey', offset: 0x88, width: 32, bytes: true },
]);

/** MSG_KEY_REQ to MSG_KEY_RSP. `vmpck` is the key that the request came under. */
export function deriveKey(
  platform: SnpPlatform,
  context: GuestContext,
  vmpck: number,
  request: Uint8Array,
): Uint8Array {
  const asked = keyRequest.read(request);
  const refuse = (status: number): Uint8Array => keyResponse.write({ status });
  const fromVmrk = (asked.select & 1) === 1;
  if (asked.select >>> 3 !== 0 || asked.reserved4 !== 0) return refuse(STATUS.invalidParam);
  const keySelect = (asked.select >>> 1) & 3;
  // No VLEK is installed.
  const isVcek = keySelect === KEY_SELECT.vcek || keySelect === KEY_SELECT.vlekOrVcek;
  if (!fromVmrk && (!isVcek || context.vcekDisabled)) return refuse(STATUS.invalidKey);
  if (asked.vmpl < vmpck || asked.vmpl > 3) return refuse(STATUS.invalidParam);
  if ((asked.guestFieldSelect & ~GUEST_FIELDS) !== 0n) return refuse(STATUS.invalidParam);

  const has = (field: bigint): boolean => (asked.guestFieldSelect & field) !== 0n;
  const block = idBlock.read(context.idBlock);
  if (has(GUEST_FIELD.tcbVersion) && !isReached(platform.tcb, asked.tcbVersion))
    return refuse(STATUS.invalidParam);
  if (has(GUEST_FIELD.guestSvn) && asked.guestSvn > block.guestSvn) return refuse(STATUS.invalidParam);
  const idKeySelect = context.authorKeyEnabled ? 2 : context.idBlockEnabled ? 1 : 0;
  const idKey = [new Uint8Array(32), context.idKeyDigest, context.authorKeyDigest][idKeySelect] as Uint8Array;
  const mix = mixed.write({
    select: (fromVmrk ? 1 : 0) | (idKeySelect << 1),
    fields: asked.guestFieldSelect,
    vmpl: asked.vmpl,
    hostData: context.hostData,
    idKey: idKey.subarray(0, 32),
    ...(has(GUEST_FIELD.guestSvn) ? { guestSvn: asked.guestSvn } : {}),
    ...(has(GUEST_FIELD.tcbVersion) ? { tcbVersion: asked.tcbVersion } : {}),
    ...(has(GUEST_FIELD.policy) ? { policy: context.policy } : {}),
    ...(has(GUEST_FIELD.imageId) ? { imageId: block.imageId } : {}),
    ...(has(GUEST_FIELD.familyId) ? { familyId: block.familyId } : {}),
    ...(has(GUEST_FIELD.measurement) ? { measurement: context.measurement.subarray(0, 32) } : {}),
  });
  const root = fromVmrk
    ? context.vmrk
    : has(GUEST_FIELD.tcbVersion)
      ? derive(platform.seed, `snp vcek root ${asked.tcbVersion}`, platform.vcekRoot.length)
      : platform.vcekRoot;
  return keyResponse.write({ status: STATUS.success, key: counterKdf(root, 'gmsg-keyreq', mix) });
}

/** Whether every part of `wanted` is at most what the platform has. */
function isReached(platform: bigint, wanted: bigint): boolean {
  const have = tcbVersion(platform);
  const want = tcbVersion(wanted);
  return (
    (wanted & TCB_RESERVED) === 0n &&
    want.bootLoader <= have.bootLoader &&
    want.tee <= have.tee &&
    want.snp <= have.snp &&
    want.microcode <= have.microcode
  );
}

/** 256 bits by HMAC-SHA-256 in counter mode (NIST SP 800-108); counter and length are little-endian as in the firmware. */
function counterKdf(root: Uint8Array, label: string, context: Uint8Array): Uint8Array {
  const counter = Uint8Array.of(1, 0, 0, 0);
  const bits = Uint8Array.of(0, 1, 0, 0);
  return hmac(sha256, root, concat(counter, ascii(label), 0, context, bits));
}
