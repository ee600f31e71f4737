/**
 * VMBus channel messages: the payload of SynIC messages of type 1 (guest to host by HvCallPostMessage, host to guest
 * in the slot of the SINT that INITIATE_CONTACT named). Layouts: Linux 6.12 include/linux/hyperv.h, where
 * `vmbus_channel_message_header` is {u32 type, u32 padding}.
 */

import { record } from '../record.ts';

export const CHANNEL_MESSAGE = {
  offerChannel: 1,
  rescindChannelOffer: 2,
  requestOffers: 3,
  allOffersDelivered: 4,
  openChannel: 5,
  openChannelResult: 6,
  closeChannel: 7,
  gpadlHeader: 8,
  gpadlBody: 9,
  gpadlCreated: 10,
  gpadlTeardown: 11,
  gpadlTorndown: 12,
  relidReleased: 13,
  initiateContact: 14,
  versionResponse: 15,
  unload: 16,
  unloadResponse: 17,
  tlConnectRequest: 21,
  modifyChannel: 22,
  tlConnectResult: 23,
  modifyChannelResponse: 24,
} as const;

const names = new Map<number, string>(Object.entries(CHANNEL_MESSAGE).map(([name, type]) => [type, name]));

export function channelMessageName(type: number): string {
  return names.get(type) ?? String(type);
}

/** Protocol versions, major << 16 | minor, newest first. */
export const VMBUS_VERSION = {
  v5_3: 0x0005_0003,
  v5_2: 0x0005_0002,
  v5_1: 0x0005_0001,
  v5_0: 0x0005_0000,
  v4_1: 0x0004_0001,
  v4_0: 0x0004_0000,
  v3_0: 0x0003_0000,
  v2_4: 0x0002_0004,
} as const;

/** Message ports of the VMBus server: contact of protocol below 5.0 and all later messages, and contact of 5.0 on. */
export const VMBUS_CONNECTION = { messages: 1, contact: 4 } as const;

/** The SINT that guests below protocol 5.0 use without saying so. */
export const VMBUS_DEFAULT_SINT = 2;

const SOURCE = 'Linux 6.12 include/linux/hyperv.h';

export const messageHeader = record('VmbusChannelMessageHeader', SOURCE, 8, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'padding', offset: 4, width: 4 },
]);

/** REQUESTOFFERS, ALLOFFERS_DELIVERED, UNLOAD and UNLOAD_RESPONSE are a bare header. */
export const initiateContact = record('VmbusInitiateContact', SOURCE, 40, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'version', offset: 8, width: 4 },
  { name: 'targetVp', offset: 12, width: 4 },
  // From protocol 5.0 on; below it the 8 bytes are the GPA of the interrupt page.
  { name: 'sint', offset: 16, width: 1 },
  { name: 'vtl', offset: 17, width: 1 },
  { name: 'reserved', offset: 18, width: 2 },
  { name: 'featureFlags', offset: 20, width: 4 },
  { name: 'monitorPage1', offset: 24, width: 8 },
  { name: 'monitorPage2', offset: 32, width: 8 },
]);

export const versionResponse = record('VmbusVersionResponse', SOURCE, 16, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'supported', offset: 8, width: 1 },
  { name: 'connectionState', offset: 9, width: 1 },
  { name: 'padding', offset: 10, width: 2 },
  // From protocol 5.0 on the connection id for what follows, below it the selected version.
  { name: 'connectionIdOrVersion', offset: 12, width: 4 },
]);

export const openChannel = record('VmbusOpenChannel', SOURCE, 148, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'relid', offset: 8, width: 4 },
  { name: 'openId', offset: 12, width: 4 },
  { name: 'ringGpadl', offset: 16, width: 4 },
  { name: 'targetVp', offset: 20, width: 4 },
  { name: 'downstreamPageOffset', offset: 24, width: 4 },
  { name: 'userData', offset: 28, width: 120, bytes: true },
]);

export const openChannelResult = record('VmbusOpenResult', SOURCE, 20, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'relid', offset: 8, width: 4 },
  { name: 'openId', offset: 12, width: 4 },
  { name: 'status', offset: 16, width: 4 },
]);

/** RESCIND_CHANNELOFFER, CLOSECHANNEL and RELID_RELEASED. */
export const relidMessage = record('VmbusRelidMessage', SOURCE, 12, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'relid', offset: 8, width: 4 },
]);

/** The range {u32 byteCount, u32 byteOffset, u64 pfn[]} follows. */
export const gpadlHeader = record('VmbusGpadlHeader', SOURCE, 20, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'relid', offset: 8, width: 4 },
  { name: 'gpadl', offset: 12, width: 4 },
  { name: 'rangeBufferLength', offset: 16, width: 2 },
  { name: 'rangeCount', offset: 18, width: 2 },
]);

/** u64 pfn[] follow. */
export const gpadlBody = record('VmbusGpadlBody', SOURCE, 16, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'messageNumber', offset: 8, width: 4 },
  { name: 'gpadl', offset: 12, width: 4 },
]);

export const gpadlCreated = record('VmbusGpadlCreated', SOURCE, 20, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'relid', offset: 8, width: 4 },
  { name: 'gpadl', offset: 12, width: 4 },
  { name: 'status', offset: 16, width: 4 },
]);

export const gpadlTeardown = record('VmbusGpadlTeardown', SOURCE, 16, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'relid', offset: 8, width: 4 },
  { name: 'gpadl', offset: 12, width: 4 },
]);

export const gpadlTorndown = record('VmbusGpadlTorndown', SOURCE, 12, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'gpadl', offset: 8, width: 4 },
]);

export const tlConnectRequest = record('VmbusTlConnectRequest', SOURCE, 40, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'endpoint', offset: 8, width: 16, bytes: true },
  { name: 'service', offset: 24, width: 16, bytes: true },
]);

/** Linux 6.12 has no handler for the result, so it is not in its header; layout of openvmm's vmbus_core protocol. */
export const tlConnectResult = record('VmbusTlConnectResult', 'openvmm vmbus_core protocol', 44, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'endpoint', offset: 8, width: 16, bytes: true },
  { name: 'service', offset: 24, width: 16, bytes: true },
  { name: 'status', offset: 40, width: 4 },
]);

export const modifyChannel = record('VmbusModifyChannel', SOURCE, 16, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'relid', offset: 8, width: 4 },
  { name: 'targetVp', offset: 12, width: 4 },
]);

export const modifyChannelResponse = record('VmbusModifyChannelResponse', SOURCE, 16, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'relid', offset: 8, width: 4 },
  { name: 'status', offset: 12, width: 4 },
]);

/** NTSTATUS that answers a TL_CONNECT nobody listens to. */
export const STATUS_CONNECTION_REFUSED = 0xc000_0236;
/** NTSTATUS for an open, a GPADL or a change of a channel that was never offered. */
export const STATUS_UNSUCCESSFUL = 0xc000_0001;
