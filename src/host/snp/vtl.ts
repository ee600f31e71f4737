/**
 * A partition whose guest has a paravisor: VTL 2 is VMPL0, VTL 0 is VMPL2. The host runs whichever was asked for last, and VMPL0
 * whenever there is something for it. Neither is trusted: what they may ask for is listed here.
 */
import { EVENT, EVENT_CLASS } from '../../abi/events.ts';
import { ghcbCall } from '../../abi/hyperv/ghcb-call.ts';
import { CALL, readControl, STATUS, type Status } from '../../abi/hyperv/hypercall.ts';
import {
  getVpRegistersInput,
  PARTITION_SELF,
  setVpRegistersElement,
  VP_SELF,
} from '../../abi/hyperv/inputs.ts';
import { MSR } from '../../abi/hyperv/msr.ts';
import { REGISTER } from '../../abi/hyperv/registers.ts';
import { exact, setU32, u32 } from '../../abi/record.ts';
import { DOORBELL_FLAG, FIRST_REQUESTED, vmplOffset, VMPL_STATUS } from '../../abi/snp/doorbell.ts';
import { dispatchHypercall, type HypercallPort } from '../../chipset/hypercall.ts';
import {
  acknowledgeInterrupt,
  apicWriteEoi,
  endsSilently,
  pendingVector,
} from '../../chipset/partition/interrupts.ts';
import type { VpState } from '../../chipset/partition/state.ts';
import { HYPERCALLS } from '../hypercalls.ts';
import type { HostCall } from '../state.ts';
import { runVmpl, setVmsa } from './contexts.ts';
import { withoutAlias } from './ghcb-msr.ts';
import { isShared } from './pages.ts';
import { PAGE, type SnpVp } from './state.ts';

export const PARAVISOR_VMPL = 0;
export const GUEST_VMPL = 2;

/** VTL of a return, as the caller writes it, to VMPL. */
const VMPL_OF_VTL: readonly (number | undefined)[] = [GUEST_VMPL, 1];

/** Usage 2 of a GHCB: VTL 2 lets a lower one run. False: refused. */
export function vtlReturn(call: HostCall, target: SnpVp, page: Uint8Array): boolean {
  const vmpl = VMPL_OF_VTL[page[0] ?? 0];
  return target.vmpl === PARAVISOR_VMPL && vmpl !== undefined && runVmpl(call, target, vmpl);
}

/** Hypercalls that each level may make straight to the host. */
const ALLOWED: Readonly<Record<number, readonly number[]>> = {
  [PARAVISOR_VMPL]: [CALL.setVpRegisters, CALL.postMessage, CALL.signalEvent],
  [GUEST_VMPL]: [CALL.postMessage, CALL.signalEvent],
};

/** Usage 1: the page is the call. The result goes where the control word was. */
export function ghcbHypercall(call: HostCall, vp: VpState, target: SnpVp, page: Uint8Array): void {
  const at = ghcbCall.offsetOf('control');
  const low = u32(page, at);
  const high = u32(page, at + 4);
  const { code } = readControl(low, high);
  // What the call does may have the host run another level next.
  const from = target.vmpl;
  const result = serveCall(call, vp, target, page, code, low, high);
  if (call.sink.mask & EVENT_CLASS.hypercall) {
    call.sink.emit(EVENT.hypercallRoute, call.now, vp.index, code, from, -1, 0);
    call.sink.emit(EVENT.hypercall, call.now, vp.index, code, result.status, result.reps, 0);
  }
  setU32(page, at, result.status);
  setU32(page, at + 4, result.reps);
}

interface Result {
  readonly status: Status;
  readonly reps: number;
}

function serveCall(
  call: HostCall,
  vp: VpState,
  target: SnpVp,
  page: Uint8Array,
  code: number,
  low: number,
  high: number,
): Result {
  if (ALLOWED[target.vmpl]?.includes(code) !== true) return { status: STATUS.accessDenied, reps: 0 };
  if (code === CALL.setVpRegisters) return setVtlRegisters(call, vp, target, page, low, high);
  const port: HypercallPort = {
    // Parameters lie in the page itself; the copy is what counts.
    memory: {
      read: (gpa, length) => ({ ok: true, bytes: page.slice(gpa, gpa + length) }),
      write: () => ({ ok: false, reason: 'unsupported' }),
    },
    control: [low, high],
    input: [0, 0],
    output: [0, 0],
    readXmm: () => undefined,
    writeFast: () => undefined,
    privilegesHigh: call.state.offer.privilegesHigh,
    xmmInput: false,
    fastOutput: false,
  };
  const outcome = dispatchHypercall(HYPERCALLS, { call, vp }, port);
  return outcome.kind === 'result' ? outcome : { status: STATUS.timeout, reps: 0 };
}

const USE_VTL0 = 0x10;
const ENABLE = 1;
const GHCB_REGISTER = 0x12;

/** HvCallSetVpRegisters of VTL 2 for VTL 0 of the same processor: its context, and the pages it shares with the host. */
function setVtlRegisters(
  call: HostCall,
  vp: VpState,
  target: SnpVp,
  page: Uint8Array,
  low: number,
  high: number,
): Result {
  const { repCount, repStart, fast } = readControl(low, high);
  const size = getVpRegistersInput.size + setVpRegistersElement.size * repCount;
  if (fast || repCount === 0 || repStart >= repCount || size > ghcbCall.offsetOf('outputGpa'))
    return { status: STATUS.invalidHypercallInput, reps: 0 };
  const { partitionId, vpIndex, vtl } = getVpRegistersInput.read(page);
  if (partitionId !== PARTITION_SELF) return { status: STATUS.invalidPartitionId, reps: 0 };
  if (vpIndex !== VP_SELF && vpIndex !== vp.index) return { status: STATUS.invalidVpIndex, reps: 0 };
  if (vtl !== USE_VTL0) return { status: STATUS.invalidParameter, reps: 0 };
  for (let rep = repStart; rep < repCount; rep++) {
    const at = getVpRegistersInput.size + setVpRegistersElement.size * rep;
    const status = setVtlRegister(call, vp, target, u32(page, at), u32(page, at + 16), u32(page, at + 20));
    if (status !== STATUS.success) return { status, reps: rep };
  }
  return { status: STATUS.success, reps: repCount };
}

function setVtlRegister(
  call: HostCall,
  vp: VpState,
  target: SnpVp,
  name: number,
  lo: number,
  hi: number,
): Status {
  const value = exact(lo, hi);
  if (value === undefined) return STATUS.invalidRegisterValue;
  const gpa = value - (value % PAGE);
  switch (name) {
    case REGISTER.sevControl:
      return value % PAGE === ENABLE && setVmsa(call, target, GUEST_VMPL, gpa)
        ? STATUS.success
        : STATUS.invalidRegisterValue;
    case REGISTER.ghcb:
      if (value % PAGE !== GHCB_REGISTER || !sharedPage(call, gpa)) return STATUS.invalidRegisterValue;
      target.ghcbs[GUEST_VMPL] = withoutAlias(call, gpa);
      // Where the guest finds it: with the alias bit, since it is shared.
      target.ghcbMsrs[GUEST_VMPL] = aliased(call, gpa);
      return STATUS.success;
    case REGISTER.simp:
    case REGISTER.siefp:
      if (!sharedPage(call, gpa)) return STATUS.invalidRegisterValue;
      if (name === REGISTER.simp) vp.synic.messagePage = { lo, hi };
      else vp.synic.flagsPage = { lo, hi };
      return STATUS.success;
    default:
      return STATUS.unknownRegisterName;
  }
}

function sharedPage(call: HostCall, gpa: number): boolean {
  const { snp } = call.state;
  return snp !== undefined && isShared(snp, withoutAlias(call, gpa), PAGE);
}

function aliased(call: HostCall, gpa: number): { lo: number; hi: number } {
  const address = withoutAlias(call, gpa) + 2 ** (call.state.snp?.aliasBit ?? 0);
  return { lo: address % 0x1_0000_0000, hi: Math.floor(address / 0x1_0000_0000) };
}

/** MSRs that the guest reaches at the host by its GHCB: identity and SynIC. */
export function guestMayReach(index: number): boolean {
  return index === MSR.guestOsId || (index >= MSR.scontrol && index <= MSR.sint15);
}

/** An interrupt of a SynIC source: for the guest, which the paravisor lets have it. */
export function proxyInterrupt(call: HostCall, vp: VpState, vector: number): void {
  const target = call.state.snp?.vps[vp.index];
  if (target === undefined || target.doorbell < 0 || vector < FIRST_REQUESTED) return;
  const at = target.doorbell + vmplOffset(GUEST_VMPL);
  const word = at + 4 * (1 + ((vector - FIRST_REQUESTED) >> 5));
  const before = call.view.read(word, 4);
  if (!before.ok) return;
  const bits = new Uint8Array(4);
  setU32(bits, 0, (u32(before.bytes, 0) | (1 << (vector & 31))) >>> 0);
  call.view.write(word, bits);
  const status = new Uint8Array(4);
  setU32(status, 0, VMPL_STATUS.multipleVectors);
  call.view.write(at, status);
  // One bit for each VMPL from 1 on.
  call.view.write(target.doorbell + 1, Uint8Array.of(DOORBELL_FLAG.noFurtherSignal));
  call.view.write(target.doorbell + 3, Uint8Array.of(1 << GUEST_VMPL));
  signal(call, vp, target);
}

/** Leaves what waits for VMPL0 in its doorbell page: its highest vector, one at a time. */
export function ringDoorbells(call: HostCall): void {
  const { snp, vps } = call.state;
  if (snp === undefined) return;
  for (const vp of vps) {
    if (pendingVector(vp) < 0) continue;
    const target = snp.vps[vp.index];
    if (target === undefined || target.doorbell < 0) continue;
    const before = call.view.read(target.doorbell, 3);
    if (!before.ok) continue;
    if (before.bytes[0] === 0) {
      const vector = acknowledgeInterrupt(vp);
      const silent = endsSilently(vp);
      if (silent) apicWriteEoi(call, vp);
      call.view.write(target.doorbell, Uint8Array.of(vector, DOORBELL_FLAG.noFurtherSignal, silent ? 1 : 0));
    }
    signal(call, vp, target);
  }
}

/** #HV for VMPL0: it runs next, whatever ran. */
function signal(call: HostCall, vp: VpState, target: SnpVp): void {
  runVmpl(call, target, PARAVISOR_VMPL);
  if (vp.activity !== 'waiting') vp.activity = 'running';
}
