import { describe, expect, test } from 'vitest';
import type { Field, Layout } from '../record.ts';
import * as inputs from './inputs.ts';
import * as pages from './pages.ts';
import * as synic from './synic.ts';
import * as vmbus from '../vmbus/messages.ts';
import { CALL, callName, readControl, STATUS, statusName, writeControl } from './hypercall.ts';
import { MSR, msrName } from './msr.ts';

// Written out a second time, from the C structures, so that a slip in a table does not agree with itself.
const expected: [
  Pick<Layout<readonly Field[]>, 'name' | 'size' | 'fields' | 'offsetOf'>,
  number,
  Record<string, number>,
][] = [
  [inputs.flushInput, 24, { addressSpace: 0, flags: 8, processorMask: 16 }],
  [inputs.flushExInput, 32, { addressSpace: 0, flags: 8, setFormat: 16, validBankMask: 24 }],
  [inputs.sendIpiInput, 16, { vector: 0, targetVtl: 4, processorMask: 8 }],
  [inputs.sendIpiExInput, 24, { vector: 0, targetVtl: 4, setFormat: 8, validBankMask: 16 }],
  [inputs.postMessageInput, 256, { connectionId: 0, messageType: 8, payloadSize: 12, payload: 16 }],
  [inputs.signalEventInput, 8, { connectionId: 0, flagNumber: 4 }],
  [inputs.getVpRegistersInput, 16, { partitionId: 0, vpIndex: 8, vtl: 12 }],
  [inputs.setVpRegistersElement, 32, { name: 0, value: 16 }],
  [inputs.startVpInput, 240, { vpIndex: 8, targetVtl: 12, context: 16 }],
  [inputs.initialContext, 224, { rip: 0, cs: 24, ldtr: 136, idtr: 152, gdtr: 168, efer: 184, pat: 216 }],
  [inputs.vpIndexFromApicIdInput, 16, { partitionId: 0, targetVtl: 8 }],
  [inputs.hostVisibilityInput, 16, { partitionId: 0, visibility: 8 }],
  [inputs.mmioInput, 16, { gpa: 0, size: 8 }],
  [pages.referenceTscPage, 24, { sequence: 0, scale: 8, offset: 16 }],
  [pages.vpAssistPage, 64, { apicAssist: 0, vtlControl: 8, nestedControl: 32, currentNestedVmcs: 48 }],
  [synic.messageHeader, 16, { type: 0, payloadSize: 4, flags: 5, sender: 8 }],
  [synic.timerMessage, 24, { timerIndex: 0, expirationTime: 8, deliveryTime: 16 }],
  [
    vmbus.initiateContact,
    40,
    { version: 8, targetVp: 12, sint: 16, vtl: 17, monitorPage1: 24, monitorPage2: 32 },
  ],
  [vmbus.versionResponse, 16, { supported: 8, connectionState: 9, connectionIdOrVersion: 12 }],
  [vmbus.openChannel, 148, { relid: 8, openId: 12, ringGpadl: 16, targetVp: 20, userData: 28 }],
  [vmbus.openChannelResult, 20, { relid: 8, openId: 12, status: 16 }],
  [vmbus.gpadlHeader, 20, { relid: 8, gpadl: 12, rangeBufferLength: 16, rangeCount: 18 }],
  [vmbus.gpadlCreated, 20, { relid: 8, gpadl: 12, status: 16 }],
  [vmbus.gpadlTorndown, 12, { gpadl: 8 }],
  [vmbus.modifyChannel, 16, { relid: 8, targetVp: 12 }],
  [vmbus.tlConnectResult, 44, { endpoint: 8, service: 24, status: 40 }],
];

test.each(expected)('$0.name has the size and offsets of its specification', (layout, size, offsets) => {
  expect(layout.size).toBe(size);
  expect(
    Object.fromEntries(
      Object.keys(offsets).map((name) => [name, layout.fields.find((field) => field.name === name)?.offset]),
    ),
  ).toEqual(offsets);
});

describe('hypercall control word', () => {
  test('takes its fields from the bits of TLFS 3.7', () => {
    const control = readControl(0x8007_005c, 0x0005_0011);
    expect(control).toEqual({
      code: 0x5c,
      fast: true,
      variableHeaderQwords: 3,
      nested: true,
      repCount: 0x11,
      repStart: 5,
      reserved: false,
    });
  });

  test.each([
    [0x0800_0000, 0],
    [0x4000_0000, 0],
    [0, 0x0000_1000],
    [0, 0x1000_0000],
  ])('sees the reserved bits in %o %o', (low, high) => {
    expect(readControl(low, high).reserved).toBe(true);
  });

  test('writeControl is the inverse', () => {
    const control = {
      code: 0x14,
      fast: false,
      variableHeaderQwords: 5,
      nested: false,
      repCount: 9,
      repStart: 4,
    };
    const { low, high } = writeControl(control);
    expect(readControl(low, high)).toEqual({ ...control, reserved: false });
  });
});

test('numbers have names, and unknown ones keep their number', () => {
  expect([callName(CALL.postMessage), callName(0x7777)]).toEqual(['postMessage', '0x7777']);
  expect([statusName(STATUS.invalidAlignment), statusName(0x99)]).toEqual(['invalidAlignment', '0x99']);
  expect(['sint0', 'sint15', 'stimer1Count', 'crashP4', '0x4000ffff']).toEqual(
    [MSR.sint0, MSR.sint15, 0x4000_00b3, MSR.crashP4, 0x4000_ffff].map(msrName),
  );
});
