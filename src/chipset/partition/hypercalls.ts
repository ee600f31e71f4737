/**
 * Hypercalls that the owner of a partition's processors serves from its own state: flushes, interrupts, registers, processor
 * starts. The owner adds those that reach further.
 */

import { PRIVILEGE_HIGH } from '../../abi/hyperv/cpuid.ts';
import { CALL, STATUS, type Status } from '../../abi/hyperv/hypercall.ts';
import * as inputs from '../../abi/hyperv/inputs.ts';
import { FLUSH, PARTITION_SELF, VP_SELF, VP_SET_ALL, VP_SET_SPARSE } from '../../abi/hyperv/inputs.ts';
import { MSR } from '../../abi/hyperv/msr.ts';
import { REGISTER } from '../../abi/hyperv/registers.ts';
import { EVENT, EVENT_CLASS } from '../../abi/events.ts';
import { setU32, u32 } from '../../abi/record.ts';
import { done, type Hypercall, type HypercallAnswer, type HypercallRow } from '../hypercall.ts';
import type { Pair } from '../synic.ts';
import type { FlushRange } from '../../seats/actions.ts';
import { requestInterrupt, skipStartup } from './interrupts.ts';
import { readSynthetic, writeSynthetic } from './msr.ts';
import type { PartitionCall, VpState } from './state.ts';

/** Who calls. */
export interface Caller {
  readonly call: PartitionCall;
  readonly vp: VpState;
}

export const PARTITION_HYPERCALL_ROWS: readonly HypercallRow<Caller>[] = [
  {
    name: 'HvCallFlushVirtualAddressSpace',
    code: CALL.flushVirtualAddressSpace,
    input: inputs.flushInput.size,
    output: 0,
    serve: flush,
  },
  {
    name: 'HvCallFlushVirtualAddressList',
    code: CALL.flushVirtualAddressList,
    input: inputs.flushInput.size,
    output: 0,
    rep: { input: 8, output: 0 },
    serve: flush,
  },
  {
    name: 'HvCallSendSyntheticClusterIpi',
    code: CALL.sendSyntheticClusterIpi,
    input: inputs.sendIpiInput.size,
    output: 0,
    serve: sendIpi,
  },
  {
    name: 'HvCallFlushVirtualAddressSpaceEx',
    code: CALL.flushVirtualAddressSpaceEx,
    input: inputs.flushExInput.size,
    output: 0,
    variableHeader: true,
    serve: flushEx,
  },
  {
    name: 'HvCallFlushVirtualAddressListEx',
    code: CALL.flushVirtualAddressListEx,
    input: inputs.flushExInput.size,
    output: 0,
    rep: { input: 8, output: 0 },
    variableHeader: true,
    serve: flushEx,
  },
  {
    name: 'HvCallSendSyntheticClusterIpiEx',
    code: CALL.sendSyntheticClusterIpiEx,
    input: inputs.sendIpiExInput.size,
    output: 0,
    variableHeader: true,
    serve: sendIpiEx,
  },
  {
    name: 'HvCallGetVpRegisters',
    code: CALL.getVpRegisters,
    input: inputs.getVpRegistersInput.size,
    output: 0,
    rep: { input: 4, output: 16 },
    privilege: PRIVILEGE_HIGH.accessVpRegisters,
    serve: getVpRegisters,
  },
  {
    name: 'HvCallSetVpRegisters',
    code: CALL.setVpRegisters,
    input: inputs.getVpRegistersInput.size,
    output: 0,
    rep: { input: inputs.setVpRegistersElement.size, output: 0 },
    privilege: PRIVILEGE_HIGH.accessVpRegisters,
    serve: setVpRegisters,
  },
  {
    name: 'HvCallStartVirtualProcessor',
    code: CALL.startVirtualProcessor,
    input: inputs.startVpInput.size,
    output: 0,
    privilege: PRIVILEGE_HIGH.startVirtualProcessor,
    serve: startVp,
  },
  {
    name: 'HvCallGetVpIndexFromApicId',
    code: CALL.getVpIndexFromApicId,
    input: inputs.vpIndexFromApicIdInput.size,
    output: 0,
    rep: { input: 4, output: 4 },
    privilege: PRIVILEGE_HIGH.startVirtualProcessor,
    serve: vpIndexFromApicId,
  },
  {
    name: 'HvExtCallQueryCapabilities',
    code: CALL.extQueryCapabilities,
    input: 0,
    output: 8,
    privilege: PRIVILEGE_HIGH.extendedHypercalls,
    serve: () => done(STATUS.success),
  },
];

function maskedVps(state: PartitionCall['state'], low: number, high: number, first = 0): VpState[] {
  const chosen: VpState[] = [];
  const end = Math.min(64, state.vps.length - first);
  for (let bit = 0; bit < end; bit++) {
    const word = bit < 32 ? low : high;
    const vp = state.vps[first + bit];
    if (vp !== undefined && ((word >>> (bit & 31)) & 1) !== 0) chosen.push(vp);
  }
  return chosen;
}

/**
 * The VP set of the Ex calls (TLFS 7.8.7.3): `format` and `validBankMask` in the fixed header, one qword for each valid
 * bank in the variable header. VPs that do not exist are passed over.
 */
function vpSet(
  { call }: Caller,
  { input, control, variableAt }: Hypercall,
  formatAt: number,
): VpState[] | Status {
  const { state } = call;
  if (u32(input, formatAt + 4) !== 0) return STATUS.invalidParameter;
  const format = u32(input, formatAt);
  if (format === VP_SET_ALL) return state.vps.slice();
  if (format !== VP_SET_SPARSE) return STATUS.invalidParameter;
  const vps: VpState[] = [];
  let banks = 0;
  for (let bank = 0; bank < 64; bank++) {
    const word = u32(input, formatAt + 8 + (bank < 32 ? 0 : 4));
    if (((word >>> (bank & 31)) & 1) === 0) continue;
    if (banks >= control.variableHeaderQwords) return STATUS.invalidHypercallInput;
    const at = variableAt + 8 * banks++;
    vps.push(...maskedVps(state, u32(input, at), u32(input, at + 4), bank * 64));
  }
  return banks === control.variableHeaderQwords ? vps : STATUS.invalidHypercallInput;
}

const FLUSH_FLAGS =
  FLUSH.allProcessors |
  FLUSH.allVirtualAddressSpaces |
  FLUSH.nonGlobalMappingsOnly |
  FLUSH.useExtendedRangeFormat;

function flush({ call }: Caller, hypercall: Hypercall): HypercallAnswer {
  const { input } = hypercall;
  const flags = inputs.flushInput.low(input, 'flags');
  const vps =
    (flags & FLUSH.allProcessors) !== 0
      ? call.state.vps
      : maskedVps(
          call.state,
          inputs.flushInput.low(input, 'processorMask'),
          inputs.flushInput.high(input, 'processorMask'),
        );
  return flushVps(call, vps, flags, inputs.flushInput.high(input, 'flags'), hypercall);
}

function flushEx(caller: Caller, hypercall: Hypercall): HypercallAnswer {
  const { input } = hypercall;
  const flags = inputs.flushExInput.low(input, 'flags');
  const vps =
    (flags & FLUSH.allProcessors) !== 0
      ? caller.call.state.vps
      : vpSet(caller, hypercall, inputs.flushExInput.offsetOf('setFormat'));
  if (typeof vps === 'number') return done(vps);
  return flushVps(caller.call, vps, flags, inputs.flushExInput.high(input, 'flags'), hypercall);
}

/**
 * The address space is not looked at: with page-table isolation a guest has two CR3 values for one address space and
 * names only one, so every translation of the addresses goes, whatever its CR3 and PCID.
 */
function flushVps(
  call: PartitionCall,
  vps: readonly VpState[],
  flags: number,
  flagsHigh: number,
  { control, input, elementsAt }: Hypercall,
): HypercallAnswer {
  if ((flags & ~FLUSH_FLAGS) !== 0 || flagsHigh !== 0) return done(STATUS.invalidParameter);
  const reps = control.repCount;
  // The extended format may name large pages; everything is a correct superset.
  const listed = reps > 0 && (flags & FLUSH.useExtendedRangeFormat) === 0;
  const ranges: FlushRange[] = [];
  for (let rep = control.repStart; listed && rep < reps; rep++) {
    const low = u32(input, elementsAt + 8 * rep);
    ranges.push({
      lo: (low & 0xffff_f000) >>> 0,
      hi: u32(input, elementsAt + 8 * rep + 4),
      pages: (low & 0xfff) + 1,
    });
  }
  if (vps.length > 0) {
    call.actions.push({
      kind: 'flush-tlb',
      vps: vps.map(({ index }) => index),
      ranges: listed ? ranges : undefined,
      keepGlobal: !listed && (flags & FLUSH.nonGlobalMappingsOnly) !== 0,
    });
  }
  if (call.sink.mask & EVENT_CLASS.memory) {
    call.sink.emit(EVENT.tlbFlush, call.now, 0, vps.length, ranges.length, 0, 0);
  }
  return { status: STATUS.success, reps };
}

/** Vectors 0 to 15 are exceptions' (TLFS 10.5). */
const FIRST_IPI_VECTOR = 0x10;
/** "Use target VTL" with VTL 0 is the only VTL there is. */
const USE_TARGET_VTL = 0x10;

function ipiAllowed(vector: number, targetVtl: number): boolean {
  return vector >= FIRST_IPI_VECTOR && vector <= 0xff && (targetVtl & ~USE_TARGET_VTL) === 0;
}

function sendIpi({ call, vp }: Caller, { input }: Hypercall): HypercallAnswer {
  const vector = inputs.sendIpiInput.low(input, 'vector');
  const targetVtl = inputs.sendIpiInput.low(input, 'targetVtl');
  if (!ipiAllowed(vector, targetVtl)) return done(STATUS.invalidParameter);
  const low = inputs.sendIpiInput.low(input, 'processorMask');
  const high = inputs.sendIpiInput.high(input, 'processorMask');
  interruptAll(call, vp, maskedVps(call.state, low, high), vector);
  return done(STATUS.success);
}

function sendIpiEx(caller: Caller, hypercall: Hypercall): HypercallAnswer {
  const { vector, targetVtl } = inputs.sendIpiExInput.read(hypercall.input);
  if (!ipiAllowed(vector, targetVtl)) return done(STATUS.invalidParameter);
  const vps = vpSet(caller, hypercall, inputs.sendIpiExInput.offsetOf('setFormat'));
  if (typeof vps === 'number') return done(vps);
  interruptAll(caller.call, caller.vp, vps, vector);
  return done(STATUS.success);
}

function interruptAll(call: PartitionCall, from: VpState, vps: readonly VpState[], vector: number): void {
  for (const vp of vps) {
    if (call.sink.mask & EVENT_CLASS.interrupt) {
      call.sink.emit(EVENT.ipi, call.now, from.index, vector, vp.index, 0, 0);
    }
    requestInterrupt(call, vp, vector, {});
  }
}

/** The VP that a register call or a start names, or why there is none. */
function namedVp({ call, vp }: Caller, partition: bigint, index: number, vtl: number): VpState | Status {
  if (partition !== PARTITION_SELF) return STATUS.invalidPartitionId;
  const named = index === VP_SELF ? vp : call.state.vps[index];
  if (named === undefined) return STATUS.invalidVpIndex;
  return (vtl & ~USE_TARGET_VTL) === 0 ? named : STATUS.invalidParameter;
}

/** Registers that are synthetic MSRs under another name. */
function msrOfRegister(name: number): number | undefined {
  if (name >= REGISTER.sint0 && name < REGISTER.sint0 + 16) return MSR.sint0 + (name - REGISTER.sint0);
  if (name >= REGISTER.stimer0Config && name <= REGISTER.stimer3Count) {
    return MSR.stimer0Config + (name - REGISTER.stimer0Config);
  }
  return MSR_OF_REGISTER.get(name);
}

const MSR_OF_REGISTER: ReadonlyMap<number, number> = new Map([
  [REGISTER.hypercall, MSR.hypercall],
  [REGISTER.guestOsId, MSR.guestOsId],
  [REGISTER.vpIndex, MSR.vpIndex],
  [REGISTER.timeRefCount, MSR.timeRefCount],
  [REGISTER.vpAssistPage, MSR.vpAssistPage],
  [REGISTER.referenceTsc, MSR.referenceTsc],
  [REGISTER.scontrol, MSR.scontrol],
  [REGISTER.sversion, MSR.sversion],
  [REGISTER.siefp, MSR.siefp],
  [REGISTER.simp, MSR.simp],
  [REGISTER.eom, MSR.eom],
]);

/** Active VTL 0, of which only VTL 0 is enabled (bits 31:16). */
const VSM_VP_STATUS: Pair = { lo: 1 << 16, hi: 0 };

function getVpRegisters(caller: Caller, { control, input, elementsAt, output }: Hypercall): HypercallAnswer {
  const { partitionId, vpIndex, vtl } = inputs.getVpRegistersInput.read(input);
  const vp = namedVp(caller, partitionId, vpIndex, vtl);
  if (typeof vp === 'number') return { status: vp, reps: control.repStart };
  for (let rep = control.repStart; rep < control.repCount; rep++) {
    const name = u32(input, elementsAt + 4 * rep);
    const msr = msrOfRegister(name);
    const value =
      name === REGISTER.vsmVpStatus
        ? VSM_VP_STATUS
        : msr === undefined
          ? undefined
          : readSynthetic(caller.call, vp, msr);
    if (value === undefined) return { status: STATUS.unknownRegisterName, reps: rep };
    setU32(output, 16 * rep, value.lo);
    setU32(output, 16 * rep + 4, value.hi);
  }
  return { status: STATUS.success, reps: control.repCount };
}

function setVpRegisters(caller: Caller, { control, input, elementsAt }: Hypercall): HypercallAnswer {
  const { partitionId, vpIndex, vtl } = inputs.getVpRegistersInput.read(input);
  const vp = namedVp(caller, partitionId, vpIndex, vtl);
  if (typeof vp === 'number') return { status: vp, reps: control.repStart };
  for (let rep = control.repStart; rep < control.repCount; rep++) {
    const at = elementsAt + inputs.setVpRegistersElement.size * rep;
    const msr = msrOfRegister(u32(input, at));
    if (msr === undefined) return { status: STATUS.unknownRegisterName, reps: rep };
    if (!writeSynthetic(caller.call, vp, msr, u32(input, at + 16), u32(input, at + 20))) {
      return { status: STATUS.invalidRegisterValue, reps: rep };
    }
  }
  return { status: STATUS.success, reps: control.repCount };
}

function startVp(caller: Caller, { input }: Hypercall): HypercallAnswer {
  const { partitionId, vpIndex, targetVtl, context } = inputs.startVpInput.read(input);
  const vp = namedVp(caller, partitionId, vpIndex, targetVtl);
  if (typeof vp === 'number') return done(vp);
  if (vp.activity !== 'waiting') return done(STATUS.invalidVpState);
  skipStartup(vp);
  caller.call.actions.push({ kind: 'start-context', vp: vp.index, context });
  return done(STATUS.success);
}

function vpIndexFromApicId(
  caller: Caller,
  { control, input, elementsAt, output }: Hypercall,
): HypercallAnswer {
  const { partitionId, targetVtl } = inputs.vpIndexFromApicIdInput.read(input);
  if (partitionId !== PARTITION_SELF) return { status: STATUS.invalidPartitionId, reps: control.repStart };
  if ((targetVtl & ~USE_TARGET_VTL) !== 0) return { status: STATUS.invalidParameter, reps: control.repStart };
  for (let rep = control.repStart; rep < control.repCount; rep++) {
    // VP index and APIC id are the same number here.
    const apicId = u32(input, elementsAt + 4 * rep);
    if (apicId >= caller.call.state.vps.length) return { status: STATUS.invalidParameter, reps: rep };
    setU32(output, 4 * rep, apicId);
  }
  return { status: STATUS.success, reps: control.repCount };
}
