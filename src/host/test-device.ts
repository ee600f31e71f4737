/**
 * The Hyper-V test device of kvm-unit-tests (lib of its hyperv_* tests): a 32-bit write to port 0x3000 makes message
 * and event connections that lead back to a VP of the guest itself, or raises a SINT.
 */

import { EVENT_FLAG_COUNT } from '../abi/hyperv/synic.ts';
import { STATUS, type Status } from '../abi/hyperv/hypercall.ts';
import { synicRaise } from '../chipset/synic.ts';
import { postMessage, raise, signalEvent } from '../chipset/partition/messages.ts';
import type { HostCall } from './state.ts';

export const TEST_DEVICE_PORT = 0x3000;

/** Bits 23:16 of the value written; 15:8 VP, 7:0 SINT, 31:24 connection. */
export const TEST_COMMAND = {
  sintRouteCreate: 1,
  sintRouteDestroy: 2,
  sintRouteSet: 3,
  messageConnectionCreate: 4,
  messageConnectionDestroy: 5,
  eventConnectionCreate: 6,
  eventConnectionDestroy: 7,
} as const;

interface Target {
  readonly vp: number;
  readonly sint: number;
}

export interface TestDevice {
  readonly messagePorts: Record<number, Target>;
  readonly eventPorts: Record<number, Target>;
}

export function createTestDevice(): TestDevice {
  return { messagePorts: {}, eventPorts: {} };
}

export function testDeviceWrite(call: HostCall, value: number): void {
  const { testDevice, vps } = call.state;
  const connection = value >>> 24;
  const target = { vp: (value >>> 8) & 0xff, sint: value & 0xf };
  switch ((value >>> 16) & 0xff) {
    case TEST_COMMAND.sintRouteSet: {
      const vp = vps[target.vp];
      if (vp === undefined) return;
      const interrupt = synicRaise(vp.synic, target.sint);
      if (interrupt !== undefined) raise(call, vp, interrupt);
      return;
    }
    case TEST_COMMAND.messageConnectionCreate:
      testDevice.messagePorts[connection] = target;
      return;
    case TEST_COMMAND.messageConnectionDestroy:
      delete testDevice.messagePorts[connection];
      return;
    case TEST_COMMAND.eventConnectionCreate:
      testDevice.eventPorts[connection] = target;
      return;
    case TEST_COMMAND.eventConnectionDestroy:
      delete testDevice.eventPorts[connection];
      return;
    // Routes need no preparation here; unknown commands do nothing.
    default:
      return;
  }
}

/** HvCallPostMessage: the message goes back to the guest. `undefined`: no such connection. */
export function testDevicePost(
  call: HostCall,
  connection: number,
  type: number,
  payload: Uint8Array,
): Status | undefined {
  const target = call.state.testDevice.messagePorts[connection];
  if (target === undefined) return undefined;
  const vp = call.state.vps[target.vp];
  if (vp === undefined) return STATUS.invalidVpIndex;
  switch (postMessage(call, vp, target.sint, { type, sender: 0n, payload, timer: -1 })) {
    case 'queued':
      return STATUS.success;
    case 'full':
      return STATUS.insufficientBuffers;
    case 'dropped':
      return STATUS.invalidSynicState;
  }
}

/** HvCallSignalEvent: sets the flag with the connection's number. `undefined`: no such connection. */
export function testDeviceSignal(call: HostCall, connection: number, flag: number): Status | undefined {
  const target = call.state.testDevice.eventPorts[connection];
  if (target === undefined) return undefined;
  const vp = call.state.vps[target.vp];
  if (vp === undefined) return STATUS.invalidVpIndex;
  if (connection + flag >= EVENT_FLAG_COUNT) return STATUS.invalidParameter;
  signalEvent(call, vp, target.sint, connection + flag);
  return STATUS.success;
}
