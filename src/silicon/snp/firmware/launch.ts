/**
 * The launch commands of the firmware (AMD 56860, 8.16 to 8.18) as far as they concern the guest context. States and owners of
 * pages are checked by whoever keeps the RMP.
 */
import { PAGE_TYPE, POLICY, STATUS } from '../../../abi/snp/firmware.ts';
import { idAuth, idBlock, VMSA_TSC } from '../../../abi/snp/launch.ts';
import {
  CURVE_P384,
  ECDSA_P384_SHA384,
  fromFirmware,
  publicKey,
  signature,
} from '../../../abi/snp/report.ts';
import { verify } from '../../pki/ec.ts';
import { sha384 } from '../../sha384.ts';
import { checkCpuidPage, type Hardware } from './cpuid-page.ts';
import type { GuestContext } from './guest-context.ts';
import { extendDigest } from './launch-digest.ts';
import { ABI, type SnpPlatform } from './platform.ts';
import { makeSecretsPage } from './secrets-page.ts';
import { tscScale } from './tsc.ts';

export interface LaunchStart {
  readonly policy: bigint;
  /** Guest OS visible workarounds, 16 bytes. */
  readonly gosvw?: Uint8Array;
  readonly desiredTscKhz?: number;
}

/** SNP_LAUNCH_START without a migration agent. The machine has no SMT. */
export function launchStart(context: GuestContext, start: LaunchStart): number {
  if (context.state !== 'init') return STATUS.invalidGuestState;
  const { policy } = start;
  const major = Number((policy >> 8n) & 0xffn);
  const minor = Number(policy & 0xffn);
  if ((policy & POLICY.reserved) === 0n || (policy & POLICY.mustBeZero) !== 0n) return STATUS.policyFailure;
  if (major > ABI.major || (major === ABI.major && minor > ABI.minor)) return STATUS.policyFailure;
  context.policy = policy;
  if (start.gosvw !== undefined) context.gosvw.set(start.gosvw);
  context.desiredTscKhz = start.desiredTscKhz ?? 0;
  context.state = 'launch';
  return STATUS.success;
}

export interface LaunchUpdate {
  /** PAGE_TYPE. */
  readonly type: number;
  readonly gpa: number | bigint;
  /** 4096 bytes, as the host put them there. */
  readonly contents: Uint8Array;
  readonly permissions?: readonly [number, number, number];
}

export interface LaunchUpdateResult {
  readonly status: number;
  /**
   * What the page holds afterwards: encrypted for the guest after success; after a CPUID page that was refused, what the
   * firmware would have accepted, in clear for the host.
   */
  readonly contents?: Uint8Array;
}

const ZEROS = new Uint8Array(4096);
const SEV_FEATURES = 0x3b0;
const SECURE_TSC = 1 << 1;

/** SNP_LAUNCH_UPDATE of one 4 KiB page; a 2 MiB page is 512 of them in order. */
export function launchUpdate(
  platform: SnpPlatform,
  context: GuestContext,
  update: LaunchUpdate,
  hardware: Hardware,
): LaunchUpdateResult {
  if (context.state !== 'launch') return { status: STATUS.invalidGuestState };
  const page = newContents(platform, context, update, hardware);
  if (page.status !== STATUS.success) return page;
  context.measurement = extendDigest(context.measurement, update);
  return page;
}

function newContents(
  platform: SnpPlatform,
  context: GuestContext,
  { type, contents }: LaunchUpdate,
  hardware: Hardware,
): LaunchUpdateResult {
  switch (type) {
    case PAGE_TYPE.normal:
    case PAGE_TYPE.unmeasured:
      return { status: STATUS.success, contents };
    case PAGE_TYPE.zero:
      return { status: STATUS.success, contents: ZEROS };
    case PAGE_TYPE.vmsa: {
      // SEV_FEATURES bit 9: Secure TSC.
      if (((contents[SEV_FEATURES + 1] as number) & SECURE_TSC) === 0)
        return { status: STATUS.success, contents };
      const page = new Uint8Array(contents);
      const view = new DataView(page.buffer);
      view.setBigUint64(VMSA_TSC.scale, tscScale(context.desiredTscKhz, platform.referenceKhz), true);
      view.setBigUint64(VMSA_TSC.offset, 0n, true);
      return { status: STATUS.success, contents: page };
    }
    case PAGE_TYPE.secrets:
      return { status: STATUS.success, contents: makeSecretsPage(platform, context) };
    case PAGE_TYPE.cpuid: {
      const { good, corrected } = checkCpuidPage(contents, hardware);
      return {
        status: good ? STATUS.success : STATUS.invalidParam,
        ...(corrected === undefined ? {} : { contents: corrected }),
      };
    }
    default:
      return { status: STATUS.invalidParam };
  }
}

export interface LaunchFinish {
  /** ID block and ID authentication page: both or none. */
  readonly id?: { readonly block: Uint8Array; readonly auth: Uint8Array; readonly authorKey: boolean };
  readonly vcekDisabled?: boolean;
  readonly hostData?: Uint8Array;
}

/** SNP_LAUNCH_FINISH. */
export function launchFinish(context: GuestContext, finish: LaunchFinish): number {
  if (context.state !== 'launch') return STATUS.invalidGuestState;
  if (finish.id !== undefined) {
    const status = checkIdBlock(context, finish.id);
    if (status !== STATUS.success) return status;
    const { block, auth, authorKey } = finish.id;
    context.idBlock = block.slice(0, idBlock.size);
    context.idBlockEnabled = true;
    context.authorKeyEnabled = authorKey;
    context.idKeyDigest = sha384(idAuth.get(auth, 'idKey'));
    if (authorKey) context.authorKeyDigest = sha384(idAuth.get(auth, 'authorKey'));
  }
  context.vcekDisabled = finish.vcekDisabled ?? false;
  if (finish.hostData !== undefined) context.hostData.set(finish.hostData);
  context.state = 'running';
  return STATUS.success;
}

function checkIdBlock(context: GuestContext, id: NonNullable<LaunchFinish['id']>): number {
  const block = idBlock.read(id.block);
  const auth = idAuth.read(id.auth);
  if (block.digest.some((byte, i) => byte !== context.measurement[i])) return STATUS.badMeasurement;
  if (block.policy !== context.policy) return STATUS.policyFailure;
  if (auth.idKeyAlgorithm !== ECDSA_P384_SHA384) return STATUS.invalidParam;
  if (id.authorKey && auth.authorKeyAlgorithm !== ECDSA_P384_SHA384) return STATUS.invalidParam;
  if (!isSigned(id.block.subarray(0, idBlock.size), auth.idBlockSignature, auth.idKey))
    return STATUS.badSignature;
  if (id.authorKey && !isSigned(auth.idKey, auth.idKeySignature, auth.authorKey)) return STATUS.badSignature;
  return STATUS.success;
}

/** Whether `key` signed `message`, both in the firmware's forms. */
export function isSigned(message: Uint8Array, signed: Uint8Array, key: Uint8Array): boolean {
  const x = fromFirmware(publicKey.get(key, 'x'));
  const y = fromFirmware(publicKey.get(key, 'y'));
  const r = fromFirmware(signature.get(signed, 'r'));
  const s = fromFirmware(signature.get(signed, 's'));
  if (publicKey.get(key, 'curve') !== CURVE_P384) return false;
  if (x === undefined || y === undefined || r === undefined || s === undefined) return false;
  return verify('p-384', x, y, message, r, s);
}
