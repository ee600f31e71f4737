/**
 * The test board: a bare PC for programs that test a processor. Never part of the Hyper-V machine.
 *
 * It has the test device (ports 0xE0 to 0xEB, 0x2000 and up, 64 KiB at 0xFF000000), port 0xF4, which ends the run with
 * the status `(code << 1) | 1`, port 0x8900, which ends it after "Shutdown", POST ports, fw_cfg with the processor
 * count and the memory size, two 8259As, PIT, HPET, RTC, ACPI power management, COM1, a local APIC for each VP and an
 * IO-APIC at their usual addresses. Reads of anything else give all ones, writes go nowhere.
 *
 * The machine calls it like this, over and over:
 *
 * 1. `boardAdvance` when the clock has reached `boardNextEvent`: timers expire.
 * 2. `boardTurn` says which VP runs and for how many instructions, or until when all of them wait.
 * 3. The machine runs that VP. Before it starts, and whenever the VP can take one, it asks `boardInterrupt` what is
 *    pending and takes it by `boardAcknowledge` or `boardTakeNmi`. An exit of one VP may change this for every VP.
 * 4. `boardExit` answers the exit. The machine carries out the actions, in order, then completes the instruction.
 *
 * `idle` until Infinity means that nothing will ever happen again: the run ends with `boardIdleStatus`.
 */
import { REGISTER } from '../../abi/hyperv/registers.ts';
import { isLapicMsr, lapicReadMsr, lapicWriteMsr } from '../../chipset/lapic-access.ts';
import { lapicAdvance, lapicNextEvent, lapicSetTscOffset } from '../../chipset/lapic-timer.ts';
import { createLapic, lapicReadCr8, lapicWriteCr8 } from '../../chipset/lapic.ts';
import type { Completion, Cr8Exit, OpenExit, IoExit, MmioExit, MsrExit } from '../../seats/exits.ts';
import { answerCpuid } from './cpuid.ts';
import { type FirmwarePiece, enableVirtualWire, firmwarePieces } from './firmware.ts';
import { answerHypercall } from './hypercall.ts';
import { acknowledge, hasInterrupt, setIntr, setIoapicPin, settle } from './interrupts.ts';
import { readMemory, writeMemory } from './memory.ts';
import { PM_PORTS, advanceChips, createChips, nextChipEvent, readPorts, writePorts } from './ports.ts';
import { type Turn, nextTurn } from './schedule.ts';
import { suspend } from './sleep.ts';
import {
  type BoardAction,
  type BoardCall,
  type BoardVp,
  type BoardWorld,
  MAX_CPUS,
  type Owner,
  type TestBoard,
  type TestBoardConfig,
} from './state.ts';

export type { BoardAction, BoardWorld, TestBoard, TestBoardConfig } from './state.ts';
export { DEFAULT_TEST_BOARD } from './state.ts';
export type { Turn } from './schedule.ts';

const VECTOR_GP = 13;
const RFLAGS_IF = 1 << 9;
const DONE: Completion = { kind: 'done' };
const GP: Completion = { kind: 'fault', vector: VECTOR_GP, errorCode: 0 };
const value = (lo: number, hi = 0): Completion => ({ kind: 'value', lo: lo >>> 0, hi: hi >>> 0 });

export interface BoardStep {
  readonly completion: Completion;
  readonly actions: readonly BoardAction[];
}

export function createTestBoard(config: TestBoardConfig): TestBoard {
  const { cpus } = config;
  if (!Number.isInteger(cpus) || cpus < 1 || cpus > MAX_CPUS) {
    throw new RangeError(`a test board has 1 to ${String(MAX_CPUS)} processors, not ${String(cpus)}`);
  }
  const vps = config.hyperv ? [] : Array.from({ length: cpus }, (_, index) => createVp(config, index));
  return {
    config,
    vps,
    host: undefined,
    ...createChips(config),
    post: -1,
    shutdownLetters: 0,
    asleep: false,
    turn: { vp: 0, until: 0 },
  };
}

function createVp(config: TestBoardConfig, index: number): BoardVp {
  const apic = createLapic({
    id: index,
    bootstrap: index === 0,
    vendor: config.vendor,
    x2apic: config.x2apic ? 'offered' : 'absent',
    tscDeadline: config.tscDeadline,
    physicalAddressBits: config.physicalAddressBits,
  });
  if (index === 0 && config.firmware) enableVirtualWire(apic);
  return { index, apic, activity: index === 0 ? 'running' : 'waiting', haltedWithInterrupts: true, nmis: 0 };
}

/** What the board's firmware keeps in memory, for the loader. */
export function boardPieces({ cpus, firmware }: TestBoardConfig): FirmwarePiece[] {
  return firmware ? firmwarePieces(cpus, PM_PORTS) : [];
}

/** Answers an exit of VP `vp`. */
export function boardExit(board: TestBoard, vp: number, exit: OpenExit, world: BoardWorld): BoardStep {
  const call = begin(board, world);
  if (boardNextEvent(board) <= call.now) advance(call);
  return { completion: answer(call, vpOf(board, vp), exit), actions: call.actions };
}

/** The board's own processors. */
const OWN: Owner = { intr: setIntr, pin: setIoapicPin, suspend };

const begin = (board: TestBoard, { view, sink, now }: BoardWorld): BoardCall => ({
  board,
  owner: OWN,
  view,
  sink,
  now,
  actions: [],
});

function vpOf(board: TestBoard, index: number): BoardVp {
  const vp = board.vps[index];
  if (vp === undefined)
    throw new RangeError(`VP ${String(index)} of a board with ${String(board.vps.length)}`);
  return vp;
}

function answer(call: BoardCall, vp: BoardVp, exit: OpenExit): Completion {
  switch (exit.kind) {
    case 'io':
      return io(call, exit);
    case 'mmio':
      return mmio(call, vp, exit);
    case 'msr':
      return msr(call, vp, exit);
    case 'cpuid':
      return {
        kind: 'registers',
        ...answerCpuid(call.board.config, vp, exit.leaf, exit.subleaf, exit.native),
      };
    case 'cr8':
      return cr8(vp, exit);
    case 'hypercall':
      return answerHypercall(call, vp, exit);
    case 'hlt':
      return halt(call, vp);
    case 'triple-fault':
      call.actions.push({ kind: 'end', reason: 'triple-fault' });
      return DONE;
    case 'budget':
      return DONE;
    default:
      return assertNever(exit);
  }
}

function assertNever(exit: never): never {
  throw new TypeError(`the test board cannot answer exit ${JSON.stringify(exit)}`);
}

function io(call: BoardCall, { port, size, write, value: written }: IoExit): Completion {
  if (!write) return value(readPorts(call, port, size));
  writePorts(call, port, size, written);
  return DONE;
}

function mmio(call: BoardCall, vp: BoardVp, { gpa, size, write, lo, hi }: MmioExit): Completion {
  if (!write) return value(...readMemory(call, vp, gpa, size));
  writeMemory(call, vp, gpa, size, [lo, hi]);
  return DONE;
}

function msr({ now, ...call }: BoardCall, vp: BoardVp, { index, write, lo, hi }: MsrExit): Completion {
  if (!isLapicMsr(index)) return GP;
  if (!write) {
    const read = lapicReadMsr(vp.apic, now, index);
    return read === undefined ? GP : value(read.lo, read.hi);
  }
  const actions = lapicWriteMsr(vp.apic, now, index, lo, hi);
  if (actions === undefined) return GP;
  settle({ now, ...call }, vp, actions);
  return DONE;
}

function cr8({ apic }: BoardVp, exit: Cr8Exit): Completion {
  if (!exit.write) return value(lapicReadCr8(apic));
  if (exit.value > 15) return GP;
  lapicWriteCr8(apic, exit.value);
  return DONE;
}

function halt({ view }: BoardCall, vp: BoardVp): Completion {
  const flags = view.getRegister(vp.index, REGISTER.rflags);
  vp.haltedWithInterrupts = flags === undefined || (flags[0] & RFLAGS_IF) !== 0;
  vp.activity = 'halted';
  return DONE;
}

/** Lets everything happen that is due at `now`. */
export function boardAdvance(board: TestBoard, world: BoardWorld): readonly BoardAction[] {
  const call = begin(board, world);
  advance(call);
  return call.actions;
}

function advance(call: BoardCall): void {
  for (const { apic } of call.board.vps) lapicAdvance(apic, call.now);
  advanceChips(call);
}

/** Virtual time in ns at which `boardAdvance` next has something to do; Infinity: never. */
export function boardNextEvent(board: TestBoard): number {
  let next = nextChipEvent(board);
  for (const { apic } of board.vps) next = Math.min(next, lapicNextEvent(apic));
  return next;
}

/** Whose turn it is. To be asked again after every exit. */
export function boardTurn(board: TestBoard, now: number): Turn {
  return nextTurn(board, now, boardNextEvent(board));
}

/** The VP whose turn it is gives way: for a machine that sees it spin. */
export function boardYield(board: TestBoard, now: number): void {
  board.turn.until = now;
}

/** What waits for the VP; NMIs first. The machine knows whether the VP can take it now. */
export function boardInterrupt(board: TestBoard, vp: number): 'none' | 'interrupt' | 'nmi' {
  const target = vpOf(board, vp);
  if (target.nmis > 0) return 'nmi';
  return hasInterrupt(target) ? 'interrupt' : 'none';
}

/** Takes the pending interrupt: its vector. */
export function boardAcknowledge(board: TestBoard, vp: number, world: BoardWorld): number {
  return acknowledge(begin(board, world), vpOf(board, vp));
}

export function boardTakeNmi(board: TestBoard, vp: number): void {
  const target = vpOf(board, vp);
  target.nmis = Math.max(0, target.nmis - 1);
}

/** The guest wrote the VP's TSC or TSC_ADJUST: what the TSC would have been at virtual time 0, modulo 2^64. */
export function boardTscOffset(board: TestBoard, vp: number, now: number, lo: number, hi: number): void {
  lapicSetTscOffset(vpOf(board, vp).apic, now, lo, hi);
}

/** A BIOS image that writes this to the POST port has finished. */
const POST_DONE = 0xff;

/**
 * Exit status of a run in which nothing will ever happen again: 0 for a BIOS image that got through, 1 for one that
 * stopped at another POST value; `undefined` when no POST value was written, and the guest just hangs.
 */
export function boardIdleStatus({ post }: TestBoard): number | undefined {
  if (post < 0) return undefined;
  return post === POST_DONE ? 0 : 1;
}
