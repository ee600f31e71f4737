/** The Hyper-V host of a TD: exits of TDH.VP.ENTER in, registers for the next entry out. */
import { EXIT_REASON, EXTENDED_EPT } from '../../abi/tdx/exit-reasons.ts';
import { STATUS, statusCode } from '../../abi/tdx/status.ts';
import { EVENT, EVENT_CLASS } from '../../abi/events.ts';
import { endRun } from '../../chipset/partition/board.ts';
import { partitionAdvance } from '../../chipset/partition/clock.ts';
import { postInterrupt } from '../../chipset/partition/interrupts.ts';
import { partitionVp } from '../../chipset/partition/state.ts';
import type { HostAction } from '../../seats/actions.ts';
import type { Completion, Exit, TdExit } from '../../seats/exits.ts';
import type { Directive } from '../../seats/launch.ts';
import type { TdxHostView } from '../../seats/tdx.ts';
import { hostNextEvent, type HostStep, type HostWorld } from '../host.ts';
import { nextTurn, type Turn } from '../scheduler.ts';
import { runtimeOf, type VpState } from '../state.ts';
import { launchTd } from './launch.ts';
import { addTables, augment, backingOf, entryOf, isShared, PAGE, type TdMemory } from './memory.ts';
import { quotesAdvance, quotesNextEvent } from './quote.ts';
import type { TdxCall, TdxHostState } from './state.ts';
import { serveVmcall, sharedBit } from './tdvmcall.ts';

export { createTdxHost } from './state.ts';
export type { TdxHostConfig, TdxHostState } from './state.ts';

function begin(state: TdxHostState, { view, sink, now }: HostWorld): TdxCall {
  return {
    state,
    view: view as TdxHostView,
    sink,
    now,
    actions: [],
    runtimeOf: (vp) => runtimeOf(state, vp, now),
  };
}

export function tdxLaunch(
  state: TdxHostState,
  directives: readonly Directive[],
  world: HostWorld,
): string | undefined {
  return launchTd(state, directives, world.view as TdxHostView);
}

export function tdxExit(state: TdxHostState, vp: number, exit: Exit, world: HostWorld): HostStep {
  const call = begin(state, world);
  if (exit.kind !== 'td-exit') throw new RangeError(`VP ${vp} of a TD left by '${exit.kind}'`);
  const completion = answer(call, partitionVp(state, vp), exit);
  return { completion, actions: possible(state, call.actions) };
}

/** INIT and SIPI reach no virtual processor of a TD. */
function possible(state: TdxHostState, actions: readonly HostAction[]): readonly HostAction[] {
  return actions.filter((action) => {
    if (action.kind !== 'init' && action.kind !== 'startup') return true;
    const vp = partitionVp(state, action.vp);
    vp.activity = 'running';
    vp.lapic.apic.waitsForStartup = false;
    return false;
  });
}

const enter = (registers: readonly bigint[], xmm?: Uint8Array): Completion => ({
  kind: 'td-enter',
  registers,
  ...(xmm === undefined ? {} : { xmm }),
});

const NOTHING: Extract<Completion, { kind: 'td-enter' }> = { kind: 'td-enter', registers: [] };

function answer(call: TdxCall, vp: VpState, { registers, xmm }: TdExit): Completion {
  const rax = registers[0] ?? 0n;
  const code = statusCode(rax);
  if (code !== STATUS.success) {
    ended(call, vp, code, rax);
    return enter([]);
  }
  switch (Number(rax & 0xffffn)) {
    case EXIT_REASON.tdcall: {
      const values = [...registers];
      serveVmcall({ call, vp, registers: values, xmm });
      return enter(values, xmm);
    }
    case EXIT_REASON.eptViolation:
      return eptViolation(call, vp, registers) ? { ...NOTHING, resumeL1: true } : NOTHING;
    default:
      // An interrupt of the host's own, and the like: nothing to do.
      return enter([]);
  }
}

/** The module runs this virtual processor, or this TD, no more. */
function ended(call: TdxCall, vp: VpState, code: number, rax: bigint): void {
  if (code === STATUS.nonRecoverableVcpu && Number(rax & 0xffffn) === EXIT_REASON.tripleFault) {
    if (call.sink.mask & EVENT_CLASS.lifecycle)
      call.sink.emit(EVENT.tripleFault, call.now, vp.index, 0, 0, 0, 0);
    endRun(call, 'triple-fault');
    return;
  }
  const why =
    code === STATUS.nonRecoverableTd || code === STATUS.tdFatal
      ? 'machine check in the TD: a private page has lost its integrity'
      : `TDH.VP.ENTER: status 0x${rax.toString(16)}`;
  call.actions.push({ kind: 'crash', parameters: [rax], message: text(why) });
}

const text = (line: string): Uint8Array => Uint8Array.from(line, (c) => c.charCodeAt(0));

/** True: the L2 VM's exit is for L1, which knows what it has put there. */
function eptViolation(call: TdxCall, vp: VpState, registers: readonly bigint[]): boolean {
  const { td } = call.state;
  const memory: TdMemory = { view: call.view, td };
  const address = registers[8] ?? 0n;
  const bit = sharedBit(call);
  const extended = registers[2] ?? 0n;
  const gpa = Number(address & (bit - 1n));
  const fromL2 = (registers[10] ?? 0n) >> 32n !== 0n;
  const stuck = (what: string): false => {
    const line = `VP ${vp.index}: ${what} at guest-physical address 0x${address.toString(16)}, and the host cannot help`;
    call.actions.push({ kind: 'crash', parameters: [address, registers[1] ?? 0n], message: text(line) });
    return false;
  };
  if (fromL2) {
    // Memory that the host may still owe; all else, shared or not, is L1's to judge.
    if ((address & bit) === 0n && backingOf(td, gpa) !== undefined && !isShared(memory, gpa))
      if (augment(memory, gpa - (gpa % PAGE), 0)) return false;
    return true;
  }
  if ((address & bit) !== 0n) return stuck('access to shared memory that is not mapped, or code in it');
  if ((extended & 0xfn) === BigInt(EXTENDED_EPT.pending))
    return stuck('access to a private page that the guest has not accepted');
  if (backingOf(td, gpa) === undefined) return stuck('access to private memory that there is none of');
  if ((extended & 0xfn) === BigInt(EXTENDED_EPT.attributes)) addTables(memory, gpa, 1);
  // A page that the guest shares and uses as private: what it did before is lost, and it must accept a new one.
  const level = (extended & 0xfn) === BigInt(EXTENDED_EPT.accept) && ((extended >> 32n) & 7n) === 1n ? 1 : 0;
  if (isShared(memory, gpa)) return stuck('private access to a page that the guest shares');
  if (level === 1 && augment(memory, gpa, 1)) return false;
  if ((extended & 0xfn) === BigInt(EXTENDED_EPT.attributes) && entryOf(memory, gpa).state !== 'free')
    return false;
  if (!augment(memory, gpa - (gpa % PAGE), 0))
    return stuck('access to a private page that the host cannot add');
  return false;
}

export function tdxAdvance(state: TdxHostState, world: HostWorld): readonly HostAction[] {
  const call = begin(state, world);
  partitionAdvance(call);
  quotesAdvance(call);
  return possible(state, call.actions);
}

export function tdxNextEvent(state: TdxHostState): number {
  return Math.min(hostNextEvent(state), quotesNextEvent(state));
}

export function tdxTurn(state: TdxHostState, now: number): Turn {
  return nextTurn(state, now, tdxNextEvent(state));
}

/** Posts the highest vector that the host's part of the local APIC holds. */
export function tdxPost(state: TdxHostState, vp: number, world: HostWorld): number {
  const call = begin(state, world);
  const vector = postInterrupt(call, partitionVp(state, vp));
  if (world.sink.mask & EVENT_CLASS.interrupt)
    world.sink.emit(EVENT.interruptAcknowledged, world.now, vp, vector, 0, 0, 0);
  return vector;
}
