/** The hypercalls that this host serves, in one table: what is not in it is INVALID_HYPERCALL_CODE. */

import { PRIVILEGE_HIGH } from '../abi/hyperv/cpuid.ts';
import { CALL, STATUS } from '../abi/hyperv/hypercall.ts';
import * as inputs from '../abi/hyperv/inputs.ts';
import { PARTITION_SELF, VP_SELF } from '../abi/hyperv/inputs.ts';
import { MESSAGE, PAYLOAD_SIZE } from '../abi/hyperv/synic.ts';
import { EVENT, EVENT_CLASS, PAGE_USE } from '../abi/events.ts';
import { CHANNEL_MESSAGE, initiateContact } from '../abi/vmbus/messages.ts';
import { join, setU32, u32 } from '../abi/record.ts';
import {
  done,
  hypercallTable,
  type Hypercall,
  type HypercallAnswer,
  type HypercallRow,
} from '../chipset/hypercall.ts';
import { PARTITION_HYPERCALL_ROWS } from '../chipset/partition/hypercalls.ts';
import { postMessage } from '../chipset/partition/messages.ts';
import { setVmsa, startContext } from './snp/contexts.ts';
import { yieldTurn } from './scheduler.ts';
import type { HostCall, VpState } from './state.ts';
import { testDevicePost, testDeviceSignal } from './test-device.ts';
import { vmbusOwnsPort, vmbusReceive } from './vmbus/server.ts';

/** Who calls. */
export interface Caller {
  readonly call: HostCall;
  readonly vp: VpState;
}

export const HYPERCALL_ROWS: readonly HypercallRow<Caller>[] = [
  ...PARTITION_HYPERCALL_ROWS.map((row): HypercallRow<Caller> => {
    if (row.code !== CALL.startVirtualProcessor) return row;
    return {
      ...row,
      serve: (caller, hypercall) =>
        caller.call.state.snp === undefined ? row.serve(caller, hypercall) : startSnpVp(caller, hypercall),
    };
  }),
  {
    name: 'HvCallNotifyLongSpinWait',
    code: CALL.notifyLongSpinWait,
    input: 8,
    output: 0,
    serve: ({ call }) => {
      // The VP that the caller waits for may be one that waits for its turn.
      yieldTurn(call.state, call.now);
      return done(STATUS.success);
    },
  },
  {
    name: 'HvCallGetPartitionId',
    code: CALL.getPartitionId,
    input: 0,
    output: 8,
    privilege: PRIVILEGE_HIGH.accessPartitionId,
    serve: (_caller, { output }) => {
      setU32(output, 0, 1);
      return done(STATUS.success);
    },
  },
  {
    name: 'HvCallPostMessage',
    code: CALL.postMessage,
    input: inputs.postMessageInput.size,
    output: 0,
    privilege: PRIVILEGE_HIGH.postMessages,
    serve: post,
  },
  {
    name: 'HvCallSignalEvent',
    code: CALL.signalEvent,
    input: inputs.signalEventInput.size,
    output: 0,
    privilege: PRIVILEGE_HIGH.signalEvents,
    serve: signal,
  },
  {
    // A partition without isolation has no private pages, and lacks the privilege: ACCESS_DENIED.
    name: 'HvCallModifySparseGpaPageHostVisibility',
    code: CALL.modifySparseGpaPageHostVisibility,
    input: inputs.hostVisibilityInput.size,
    output: 0,
    rep: { input: 8, output: 0 },
    privilege: PRIVILEGE_HIGH.isolation,
    serve: () => done(STATUS.accessDenied),
  },
];

export const HYPERCALLS = hypercallTable(HYPERCALL_ROWS);

/**
 * HvCallStartVirtualProcessor of an SNP guest: the context's first word is the address of a VMSA with bit 0 set (Linux
 * 6.12 arch/x86/hyperv/ivm.c, hv_snp_boot_ap).
 */
function startSnpVp({ call, vp }: Caller, { input }: Hypercall): HypercallAnswer {
  const { partitionId, vpIndex, targetVtl, context } = inputs.startVpInput.read(input);
  if (partitionId !== PARTITION_SELF) return done(STATUS.invalidPartitionId);
  const index = vpIndex === VP_SELF ? vp.index : vpIndex;
  const target = call.state.snp?.vps[index];
  const named = call.state.vps[index];
  if (target === undefined || named === undefined) return done(STATUS.invalidVpIndex);
  if ((targetVtl & 0xf) !== 0) return done(STATUS.invalidParameter);
  const word = join(u32(context, 0), u32(context, 4));
  if ((word & 0xfffn) !== 1n || word >> 52n !== 0n) return done(STATUS.invalidParameter);
  if (named.activity !== 'waiting') return done(STATUS.invalidVpState);
  if (!setVmsa(call, target, 0, Number(word - 1n))) return done(STATUS.invalidParameter);
  startContext(call, named, target, 0);
  return done(STATUS.success);
}

function post({ call }: Caller, { input }: Hypercall): HypercallAnswer {
  const { connectionId, messageType, payloadSize, payload } = inputs.postMessageInput.read(input);
  // Types with bit 31 are the hypervisor's own, and 0 marks an empty slot.
  if (payloadSize > PAYLOAD_SIZE || messageType === MESSAGE.none || messageType >= 0x8000_0000) {
    return done(STATUS.invalidParameter);
  }
  const body = payload.slice(0, payloadSize);
  if (call.state.config.testDevice) {
    const status = testDevicePost(call, connectionId, messageType, body);
    if (status !== undefined) return done(status);
  }
  if (!vmbusOwnsPort(connectionId)) return done(STATUS.invalidConnectionId);
  if (messageType !== MESSAGE.vmbus) return done(STATUS.invalidParameter);
  toVmbus(call, body);
  return done(STATUS.success);
}

function toVmbus(call: HostCall, body: Uint8Array): void {
  const { state, sink } = call;
  const listened = (sink.mask & EVENT_CLASS.vmbus) !== 0;
  if (sink.mask & EVENT_CLASS.page) monitorPages(call, body);
  if (listened) sink.emit(EVENT.vmbusReceived, call.now, 0, messageKind(body), body.length, 0, 0);
  for (const { vp, sint, payload } of vmbusReceive(state.vmbus, body, state.vps.length)) {
    const target = state.vps[vp];
    if (target === undefined) throw new RangeError(`VMBus answers to VP ${vp} of ${state.vps.length}`);
    if (listened) sink.emit(EVENT.vmbusSent, call.now, vp, messageKind(payload), payload.length, 0, 0);
    postMessage(call, target, sint, { type: MESSAGE.vmbus, sender: 0n, payload, timer: -1 });
  }
}

/** The pages on which both sides could see each other's signals, named by INITIATE_CONTACT. */
function monitorPages({ sink, now }: HostCall, body: Uint8Array): void {
  if (messageKind(body) !== CHANNEL_MESSAGE.initiateContact || !initiateContact.fits(body)) return;
  const { monitorPage1, monitorPage2 } = initiateContact.read(body);
  for (const gpa of [monitorPage1, monitorPage2])
    sink.emit(EVENT.pageUse, now, 0, Number(gpa), PAGE_USE.monitor, 0, 0);
}

function messageKind(payload: Uint8Array): number {
  return payload.length >= 4 ? u32(payload, 0) : 0;
}

function signal({ call }: Caller, { input }: Hypercall): HypercallAnswer {
  const { connectionId, flagNumber } = inputs.signalEventInput.read(input);
  if (call.state.config.testDevice) {
    const status = testDeviceSignal(call, connectionId, flagNumber);
    if (status !== undefined) return done(status);
  }
  // Event ports belong to channels, and there are none.
  return done(STATUS.invalidConnectionId);
}
