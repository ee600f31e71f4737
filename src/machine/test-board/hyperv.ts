/**
 * The test board with a Hyper-V host: the host owns the processors, their local APICs, the IO-APIC and everything that
 * Hyper-V adds, as it does in its own machine. The board's ports, timers and memory stay what they are; port 0x3000 is the
 * host's test device.
 */
import {
  createHost,
  hostAcknowledge,
  hostAdvance,
  hostExit,
  hostInterrupt,
  hostNextEvent,
  hostSetLine,
  hostSetLocalPin,
  hostTakeExternal,
  hostTakeNmi,
  hostTurn,
  type HostState,
} from '../../host/host.ts';
import { DEFAULT_CONFIG } from '../../host/config.ts';
import { TEST_DEVICE_PORT } from '../../host/test-device.ts';
import { uartInput } from '../../chipset/uart.ts';
import type { Completion, Exit } from '../../seats/exits.ts';
import { createTestBoard } from './board.ts';
import { enableVirtualWire } from './firmware.ts';
import { acknowledgePic } from './interrupts.ts';
import { isDevice, readDevice, writeDevice } from './memory.ts';
import type { TestBoardPlatform } from './platform.ts';
import { advanceChips, nextChipEvent, readPorts, writePorts } from './ports.ts';
import type { BoardCall, BoardWorld, Owner, TestBoard, TestBoardConfig } from './state.ts';

const hostOf = ({ host }: TestBoard): HostState => {
  if (host === undefined) throw new TypeError('this test board has no host');
  return host;
};

const HOST: Owner = {
  intr: (call, high) => {
    const host = hostOf(call.board);
    for (const { index } of host.vps) call.actions.push(...hostSetLocalPin(host, index, 0, high, call));
  },
  pin: (call, pin, asserted) =>
    void call.actions.push(...hostSetLine(hostOf(call.board), pin, asserted, call)),
  // A host that resumes suspended partitions is not part of a board for tests.
  suspend: (call) => void call.actions.push({ kind: 'end', reason: 'hibernate' }),
};

const begin = (board: TestBoard, { view, sink, now }: BoardWorld): BoardCall => ({
  board,
  owner: HOST,
  view,
  sink,
  now,
  actions: [],
});

function createHypervBoard(config: TestBoardConfig): TestBoard {
  const host = createHost({
    ...DEFAULT_CONFIG,
    vpCount: config.cpus,
    x2apic: config.x2apic,
    tscDeadline: config.tscDeadline,
    vendor: config.vendor,
    startDate: config.startDate,
    uarts: 0,
    physicalAddressBits: config.physicalAddressBits,
    testDevice: true,
    slice: config.slice,
  });
  const first = host.vps[0];
  if (config.firmware && first !== undefined) enableVirtualWire(first.lapic.apic);
  return { ...createTestBoard(config), host };
}

/** What the board itself answers; `undefined`: the host's. */
function answer(call: BoardCall, exit: Exit): Completion | undefined {
  if (exit.kind === 'io' && exit.port !== TEST_DEVICE_PORT) {
    if (!exit.write) return { kind: 'value', lo: readPorts(call, exit.port, exit.size), hi: 0 };
    writePorts(call, exit.port, exit.size, exit.value);
    return { kind: 'done' };
  }
  if (exit.kind === 'mmio' && isDevice(exit.gpa)) {
    if (exit.write) {
      writeDevice(call, exit.gpa, exit.size, [exit.lo, exit.hi]);
      return { kind: 'done' };
    }
    const [lo, hi] = readDevice(call, exit.gpa, exit.size);
    return { kind: 'value', lo, hi };
  }
  return undefined;
}

export function hypervBoardPlatform(config: TestBoardConfig): TestBoardPlatform {
  let state = createHypervBoard(config);
  const nextEvent = (): number => Math.min(nextChipEvent(state), hostNextEvent(hostOf(state)));
  const advance = (world: BoardWorld) => {
    const call = begin(state, world);
    call.actions.push(...hostAdvance(hostOf(state), world));
    advanceChips(call);
    return call.actions;
  };
  return {
    kind: 'test-board',
    config,
    get state() {
      return state;
    },
    load: (saved) => {
      state = saved as TestBoard;
    },
    turn: (now) => {
      const turn = hostTurn(hostOf(state), now);
      const next = nextChipEvent(state);
      return turn.kind === 'idle'
        ? { kind: 'idle', until: Math.min(turn.until, next) }
        : { ...turn, instructions: Math.max(1, Math.min(turn.instructions, next - now)) };
    },
    exit: (vp, exit, world) => {
      const call = begin(state, world);
      if (nextChipEvent(state) <= world.now) advanceChips(call);
      const completion = answer(call, exit);
      if (completion !== undefined) return { completion, actions: call.actions };
      const step = hostExit(hostOf(state), vp, exit, world);
      return { completion: step.completion, actions: [...call.actions, ...step.actions] };
    },
    advance,
    nextEvent,
    interrupt: (vp) => hostInterrupt(hostOf(state), vp),
    acknowledge: (vp, world) => hostAcknowledge(hostOf(state), vp, world),
    takeNmi: (vp) => hostTakeNmi(hostOf(state), vp),
    takeExternal: (vp, world) => {
      hostTakeExternal(hostOf(state), vp);
      // The 8259As' output only falls by this, which asks nothing of anybody.
      return acknowledgePic(begin(state, world));
    },
    serialInput: (unit, bytes, world) => {
      const taken = unit === 0 ? uartInput(state.com1, world.now, bytes) : 0;
      return { taken, actions: advance(world) };
    },
  };
}
