/**
 * SNP_GUEST_REQUEST (AMD 56860, 8.26): a message from the guest under one of its VMPCKs, answered under the same key. What the
 * host did wrong is the command's status and leaves the message count as it was; what the guest asked wrongly is a status in
 * the answer.
 */
import { gcm } from '@noble/ciphers/aes.js';
import { STATUS } from '../../../abi/snp/firmware.ts';
import {
  AES_256_GCM,
  AUTHENTICATED,
  cpuidMessage,
  cpuidResponse,
  keyRequest,
  KEY_SELECT,
  MESSAGE,
  messageHeader,
  reportRequest,
  reportResponse,
  TAG,
  TSC_INFO_SIZE,
  tscInfoResponse,
} from '../../../abi/snp/guest-message.ts';
import { concat } from '../../../abi/bytes.ts';
import { CPUID_FUNCTIONS, cpuidFunction } from '../../../abi/snp/launch.ts';
import { REPORT_SIZE } from '../../../abi/snp/report.ts';
import { checkedFunctions, checkFunctions, type Hardware } from './cpuid-page.ts';
import { deriveKey } from './derived-key.ts';
import type { GuestContext } from './guest-context.ts';
import type { SnpPlatform } from './platform.ts';
import { makeReport } from './report.ts';
import { tscScale } from './tsc.ts';

const PAGE = 4096;
const MOST_SEQUENCE = (1n << 64n) - 2n;

export interface GuestRequestResult {
  /** What the host sees. */
  readonly status: number;
  /** Header and payload of the answer, when there is one. */
  readonly response?: Uint8Array;
}

/** `request`: from the message's first byte to the end of its page. */
export function guestRequest(
  platform: SnpPlatform,
  context: GuestContext,
  request: Uint8Array,
  hardware: Hardware,
): GuestRequestResult {
  if (context.state !== 'running') return { status: STATUS.invalidGuestState };
  if (request.length < messageHeader.size) return { status: STATUS.invalidParam };
  const header = messageHeader.read(request);
  const key = context.vmpcks[header.vmpck];
  const isWellFormed =
    header.headerVersion === 1 &&
    header.headerSize === messageHeader.size &&
    header.algorithm === AES_256_GCM &&
    header.messageSize > 0 &&
    header.messageSize % 16 === 0 &&
    messageHeader.size + header.messageSize <= Math.min(request.length, PAGE);
  if (!isWellFormed || key === undefined) return { status: STATUS.invalidParam };
  const payload = open(key, request, header.sequence, header.messageSize);
  if (payload === undefined) return { status: STATUS.badMeasurement };
  const count = context.messageCounts[header.vmpck] as bigint;
  if (count === MOST_SEQUENCE || header.sequence !== count + 1n) return { status: STATUS.aeadOverflow };
  if (header.messageVersion !== 1) return { status: STATUS.invalidParam };
  const answer = respond(platform, context, header.type, header.vmpck, payload, hardware);
  if (answer === undefined) return { status: STATUS.invalidParam };
  context.messageCounts[header.vmpck] = count + 2n;
  const type = header.type + 1;
  return { status: STATUS.success, response: seal(key, header.sequence + 1n, type, header.vmpck, answer) };
}

/** The IV is the sequence number, little-endian, in 12 bytes. */
function ivOf(sequence: bigint): Uint8Array {
  const iv = new Uint8Array(12);
  new DataView(iv.buffer).setBigUint64(0, sequence, true);
  return iv;
}

function open(key: Uint8Array, message: Uint8Array, sequence: bigint, size: number): Uint8Array | undefined {
  const sealed = concat(
    message.subarray(messageHeader.size, messageHeader.size + size),
    message.subarray(0, TAG),
  );
  const authenticated = message.slice(AUTHENTICATED.from, AUTHENTICATED.to);
  try {
    return gcm(key, ivOf(sequence), authenticated).decrypt(sealed);
  } catch {
    // The library's way to say that the tag is wrong.
    return undefined;
  }
}

/** A message as the other side reads it. Also what a guest does to ask. */
export function seal(
  key: Uint8Array,
  sequence: bigint,
  type: number,
  vmpck: number,
  payload: Uint8Array,
): Uint8Array {
  const message = new Uint8Array(messageHeader.size + payload.length);
  messageHeader.write(
    {
      sequence,
      algorithm: AES_256_GCM,
      headerVersion: 1,
      headerSize: messageHeader.size,
      type,
      messageVersion: 1,
      messageSize: payload.length,
      vmpck,
    },
    message,
  );
  const authenticated = message.slice(AUTHENTICATED.from, AUTHENTICATED.to);
  const sealed = gcm(key, ivOf(sequence), authenticated).encrypt(payload);
  message.set(sealed.subarray(0, payload.length), messageHeader.size);
  message.set(sealed.subarray(payload.length), 0);
  return message;
}

/** The answer's payload; undefined for what is no message of a guest without migration. */
function respond(
  platform: SnpPlatform,
  context: GuestContext,
  type: number,
  vmpck: number,
  payload: Uint8Array,
  hardware: Hardware,
): Uint8Array | undefined {
  switch (type) {
    case MESSAGE.cpuidRequest:
      return payload.length < cpuidMessage.size ? undefined : cpuid(payload, hardware);
    case MESSAGE.keyRequest:
      return payload.length < keyRequest.size ? undefined : deriveKey(platform, context, vmpck, payload);
    case MESSAGE.reportRequest:
      return payload.length < reportRequest.size ? undefined : attest(platform, context, vmpck, payload);
    case MESSAGE.tscInfoRequest:
      return payload.length < TSC_INFO_SIZE ? undefined : tscInfo(platform, context, payload);
    default:
      return undefined;
  }
}

function cpuid(payload: Uint8Array, hardware: Hardware): Uint8Array {
  const { count, reserved4, reserved8 } = cpuidMessage.read(payload);
  const answer = new Uint8Array(payload.length);
  const isBad =
    count > CPUID_FUNCTIONS ||
    reserved4 !== 0 ||
    reserved8 !== 0n ||
    cpuidMessage.size + count * cpuidFunction.size > payload.length;
  if (isBad) return cpuidResponse.write({ status: STATUS.invalidParam }, answer);
  answer.set(payload.subarray(cpuidMessage.size), cpuidMessage.size);
  const good = checkFunctions(answer, cpuidMessage.size, count, hardware);
  return cpuidResponse.write(
    {
      status: good ? STATUS.success : STATUS.invalidParam,
      count: checkedFunctions(answer, cpuidMessage.size, count),
    },
    answer,
  );
}

function attest(
  platform: SnpPlatform,
  context: GuestContext,
  vmpck: number,
  payload: Uint8Array,
): Uint8Array {
  const asked = reportRequest.read(payload);
  const answer = new Uint8Array(reportResponse.size + REPORT_SIZE);
  const end = (status: number): Uint8Array =>
    reportResponse.write({ status, reportSize: REPORT_SIZE }, answer);
  const isReservedSet = asked.reserved.some((byte) => byte !== 0) || asked.keySelect >>> 2 !== 0;
  if (isReservedSet) return end(STATUS.invalidParam);
  // No VLEK is installed.
  const isVcek = asked.keySelect === KEY_SELECT.vcek || asked.keySelect === KEY_SELECT.vlekOrVcek;
  if (!isVcek || context.vcekDisabled) return end(STATUS.invalidKey);
  if (asked.vmpl < vmpck || asked.vmpl > 3) return end(STATUS.invalidParam);
  answer.set(makeReport(platform, context, asked.vmpl, asked.reportData), reportResponse.size);
  return end(STATUS.success);
}

function tscInfo(platform: SnpPlatform, context: GuestContext, payload: Uint8Array): Uint8Array {
  if (payload.some((byte) => byte !== 0)) return tscInfoResponse.write({ status: STATUS.invalidParam });
  return tscInfoResponse.write({
    status: STATUS.success,
    scale: tscScale(context.desiredTscKhz, platform.referenceKhz),
  });
}
