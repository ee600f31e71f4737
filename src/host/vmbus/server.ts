/**
 * Host end of the VMBus control connection: version negotiation, offers, unload. State and one message in, new state
 * and messages out; how they travel (SynIC) is the caller's business. No device is offered yet, so whatever speaks of
 * a channel is about one that does not exist, and is refused in its own reply: a guest waits for these without limit.
 */

import * as wire from '../../abi/vmbus/messages.ts';
import {
  CHANNEL_MESSAGE,
  VMBUS_CONNECTION,
  VMBUS_DEFAULT_SINT,
  VMBUS_VERSION,
} from '../../abi/vmbus/messages.ts';
import { SINT_COUNT } from '../../abi/hyperv/synic.ts';

export interface VmbusState {
  /** Negotiated version; 0 while there is no connection. */
  version: number;
  /** Where the guest wants to be answered. */
  targetVp: number;
  sint: number;
}

export interface VmbusReply {
  readonly vp: number;
  readonly sint: number;
  readonly payload: Uint8Array;
}

const SERVED_VERSIONS: readonly number[] = Object.values(VMBUS_VERSION);

/** REQUESTOFFERS and the like. */
const bareMessage = (type: number): Uint8Array => wire.messageHeader.write({ type });

export function createVmbus(): VmbusState {
  return { version: 0, targetVp: 0, sint: VMBUS_DEFAULT_SINT };
}

/** True when `connectionId` is a port of this server. */
export function vmbusOwnsPort(connectionId: number): boolean {
  return connectionId === VMBUS_CONNECTION.messages || connectionId === VMBUS_CONNECTION.contact;
}

/**
 * Takes one channel message. Malformed ones, unknown types, and all before a successful contact are dropped, as a
 * real host does: there is nobody to tell.
 */
export function vmbusReceive(state: VmbusState, payload: Uint8Array, vpCount: number): VmbusReply[] {
  if (!wire.messageHeader.fits(payload)) return [];
  const type = wire.messageHeader.low(payload, 'type');
  if (type === CHANNEL_MESSAGE.initiateContact) return contact(state, payload, vpCount);
  if (state.version === 0) return [];
  const answer = answerTo(state, type, payload);
  const replies = answer === undefined ? [] : [{ vp: state.targetVp, sint: state.sint, payload: answer }];
  if (type === CHANNEL_MESSAGE.unload) Object.assign(state, createVmbus());
  return replies;
}

function contact(state: VmbusState, payload: Uint8Array, vpCount: number): VmbusReply[] {
  if (!wire.initiateContact.fits(payload)) return [];
  const request = wire.initiateContact.read(payload);
  if (request.targetVp >= vpCount) return [];
  // A second contact without UNLOAD (a kdump kernel, for one) starts over.
  Object.assign(state, createVmbus());
  const says = request.version >= VMBUS_VERSION.v5_0;
  const sint = says ? request.sint : VMBUS_DEFAULT_SINT;
  if (sint >= SINT_COUNT) return [];
  const supported = SERVED_VERSIONS.includes(request.version) && (!says || request.vtl === 0);
  if (supported) Object.assign(state, { version: request.version, targetVp: request.targetVp, sint });
  const response = wire.versionResponse.write({
    type: CHANNEL_MESSAGE.versionResponse,
    supported: supported ? 1 : 0,
    connectionState: 0,
    connectionIdOrVersion: says ? VMBUS_CONNECTION.messages : request.version,
  });
  return [{ vp: request.targetVp, sint, payload: response }];
}

function answerTo(state: VmbusState, type: number, payload: Uint8Array): Uint8Array | undefined {
  const status = wire.STATUS_UNSUCCESSFUL;
  switch (type) {
    case CHANNEL_MESSAGE.requestOffers:
      return bareMessage(CHANNEL_MESSAGE.allOffersDelivered);
    case CHANNEL_MESSAGE.unload:
      return bareMessage(CHANNEL_MESSAGE.unloadResponse);
    case CHANNEL_MESSAGE.openChannel: {
      if (!wire.openChannel.fits(payload)) return undefined;
      const { relid, openId } = wire.openChannel.read(payload);
      return wire.openChannelResult.write({ type: CHANNEL_MESSAGE.openChannelResult, relid, openId, status });
    }
    case CHANNEL_MESSAGE.gpadlHeader: {
      if (!wire.gpadlHeader.fits(payload)) return undefined;
      const { relid, gpadl } = wire.gpadlHeader.read(payload);
      return wire.gpadlCreated.write({ type: CHANNEL_MESSAGE.gpadlCreated, relid, gpadl, status });
    }
    case CHANNEL_MESSAGE.gpadlTeardown: {
      if (!wire.gpadlTeardown.fits(payload)) return undefined;
      const { gpadl } = wire.gpadlTeardown.read(payload);
      return wire.gpadlTorndown.write({ type: CHANNEL_MESSAGE.gpadlTorndown, gpadl });
    }
    case CHANNEL_MESSAGE.modifyChannel: {
      // Before 5.3 MODIFYCHANNEL has no reply.
      if (state.version < VMBUS_VERSION.v5_3 || !wire.modifyChannel.fits(payload)) return undefined;
      const { relid } = wire.modifyChannel.read(payload);
      return wire.modifyChannelResponse.write({ type: CHANNEL_MESSAGE.modifyChannelResponse, relid, status });
    }
    case CHANNEL_MESSAGE.tlConnectRequest: {
      if (!wire.tlConnectRequest.fits(payload)) return undefined;
      const { endpoint, service } = wire.tlConnectRequest.read(payload);
      return wire.tlConnectResult.write({
        type: CHANNEL_MESSAGE.tlConnectResult,
        endpoint,
        service,
        status: wire.STATUS_CONNECTION_REFUSED,
      });
    }
    // CLOSECHANNEL, RELID_RELEASED and GPADL_BODY have no reply; unknown types get none.
    default:
      return undefined;
  }
}
