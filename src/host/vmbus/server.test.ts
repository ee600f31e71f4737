import { describe, expect, test } from 'vitest';
import fc from 'fast-check';
import * as wire from '../../abi/vmbus/messages.ts';
import { CHANNEL_MESSAGE, VMBUS_VERSION } from '../../abi/vmbus/messages.ts';
import { createVmbus, vmbusOwnsPort, vmbusReceive, type VmbusState } from './server.ts';

const contact = (version: number, more: { targetVp?: number; sint?: number; vtl?: number } = {}) =>
  wire.initiateContact.write({ type: CHANNEL_MESSAGE.initiateContact, version, sint: 2, ...more });

function connected(version: number = VMBUS_VERSION.v5_3): VmbusState {
  const state = createVmbus();
  vmbusReceive(state, contact(version), 4);
  return state;
}

describe('contact', () => {
  test.each(Object.values(VMBUS_VERSION))('accepts version %i', (version) => {
    const state = createVmbus();
    const [reply] = vmbusReceive(state, contact(version, { targetVp: 3 }), 4);
    expect(reply).toMatchObject({ vp: 3, sint: 2 });
    expect(wire.versionResponse.read(reply!.payload)).toEqual({
      type: CHANNEL_MESSAGE.versionResponse,
      supported: 1,
      connectionState: 0,
      padding: 0,
      connectionIdOrVersion: version >= VMBUS_VERSION.v5_0 ? 1 : version,
    });
    expect(state.version).toBe(version);
  });

  test.each([0x0006_0000, 0x0001_0001, 0, 0xffff_ffff])(
    'answers version %i with: not supported',
    (version) => {
      const state = createVmbus();
      const [reply] = vmbusReceive(state, contact(version), 4);
      expect(wire.versionResponse.read(reply!.payload).supported).toBe(0);
      expect(
        vmbusReceive(state, wire.messageHeader.write({ type: CHANNEL_MESSAGE.requestOffers }), 4),
      ).toEqual([]);
    },
  );

  test('uses the SINT that protocol 5 names, and 2 before', () => {
    expect(vmbusReceive(createVmbus(), contact(VMBUS_VERSION.v5_2, { sint: 5 }), 1)[0]?.sint).toBe(5);
    expect(vmbusReceive(createVmbus(), contact(VMBUS_VERSION.v4_1, { sint: 5 }), 1)[0]?.sint).toBe(2);
    expect(vmbusReceive(createVmbus(), contact(VMBUS_VERSION.v5_2, { sint: 16 }), 1)).toEqual([]);
  });

  test('is not for another VTL, nor for a VP that does not exist', () => {
    const [reply] = vmbusReceive(createVmbus(), contact(VMBUS_VERSION.v5_3, { vtl: 2 }), 1);
    expect(wire.versionResponse.read(reply!.payload).supported).toBe(0);
    expect(vmbusReceive(createVmbus(), contact(VMBUS_VERSION.v5_3, { targetVp: 1 }), 1)).toEqual([]);
  });
});

describe('a connected guest', () => {
  test('gets the end of an empty list of offers', () => {
    const [reply] = vmbusReceive(
      connected(),
      wire.messageHeader.write({ type: CHANNEL_MESSAGE.requestOffers }),
      4,
    );
    expect(reply?.payload).toEqual(wire.messageHeader.write({ type: CHANNEL_MESSAGE.allOffersDelivered }));
  });

  test('is answered UNLOAD, and may make contact again', () => {
    const state = connected();
    const [reply] = vmbusReceive(state, wire.messageHeader.write({ type: CHANNEL_MESSAGE.unload }), 4);
    expect(reply?.payload).toEqual(wire.messageHeader.write({ type: CHANNEL_MESSAGE.unloadResponse }));
    expect(state).toEqual(createVmbus());
    expect(vmbusReceive(state, contact(VMBUS_VERSION.v5_2), 4)).toHaveLength(1);
    expect(state.version).toBe(VMBUS_VERSION.v5_2);
  });

  test.each([
    [
      wire.openChannel.write({ type: 5, relid: 9, openId: 8 }),
      { type: 6, relid: 9, openId: 8 },
      wire.openChannelResult,
    ],
    [
      wire.gpadlHeader.write({ type: 8, relid: 9, gpadl: 7 }),
      { type: 10, relid: 9, gpadl: 7 },
      wire.gpadlCreated,
    ],
    [wire.gpadlTeardown.write({ type: 11, relid: 9, gpadl: 7 }), { type: 12, gpadl: 7 }, wire.gpadlTorndown],
    [wire.modifyChannel.write({ type: 22, relid: 9 }), { type: 24, relid: 9 }, wire.modifyChannelResponse],
    [wire.tlConnectRequest.write({ type: 21 }), { type: 23, status: 0xc0000236 }, wire.tlConnectResult],
  ] as const)('is refused a channel that does not exist, case %#', (message, expected, layout) => {
    const [reply] = vmbusReceive(connected(), message, 4);
    const answer = layout.read(reply!.payload) as Record<string, unknown>;
    expect(answer).toMatchObject(expected);
    expect(answer.status).not.toBe(0);
  });

  test('below 5.3 MODIFYCHANNEL has no reply', () => {
    const message = wire.modifyChannel.write({ type: 22, relid: 9 });
    expect(vmbusReceive(connected(VMBUS_VERSION.v5_2), message, 4)).toEqual([]);
  });
});

test('any bytes give replies of at most 240 bytes to a VP and SINT that exist', () => {
  const message = fc.tuple(fc.integer({ min: 0, max: 30 }), fc.uint8Array({ maxLength: 240 }));
  fc.assert(
    fc.property(fc.array(message, { maxLength: 20 }), (messages) => {
      const state = connected();
      for (const [type, bytes] of messages) {
        if (bytes.length > 0) bytes[0] = type;
        bytes.fill(0, 1, 4);
        for (const reply of vmbusReceive(state, bytes, 4)) {
          expect(reply.payload.length).toBeLessThanOrEqual(240);
          expect(reply.vp).toBeLessThan(4);
          expect(reply.sint).toBeLessThan(16);
        }
      }
    }),
  );
});

test('owns ports 1 and 4', () => {
  expect([0, 1, 2, 3, 4, 5, 0x10001].filter(vmbusOwnsPort)).toEqual([1, 4]);
});
