/** The test board as the machine's platform. */
import { uartInput } from '../../chipset/uart.ts';
import type { OpenExit } from '../../seats/exits.ts';
import type { Platform } from '../machine.ts';
import {
  type TestBoard,
  type TestBoardConfig,
  boardAcknowledge,
  boardAdvance,
  boardExit,
  boardInterrupt,
  boardNextEvent,
  boardTakeNmi,
  boardTurn,
  createTestBoard,
} from './board.ts';
import { hypervBoardPlatform } from './hyperv.ts';

export interface TestBoardPlatform extends Platform {
  readonly state: TestBoard;
}

export function testBoardPlatform(config: TestBoardConfig): TestBoardPlatform {
  return config.hyperv ? hypervBoardPlatform(config) : barePlatform(config);
}

function barePlatform(config: TestBoardConfig): TestBoardPlatform {
  let state = createTestBoard(config);
  return {
    kind: 'test-board',
    config,
    get state() {
      return state;
    },
    load: (saved) => {
      state = saved as TestBoard;
    },
    turn: (now) => boardTurn(state, now),
    // The board is only built with the silicon of an ordinary VM.
    exit: (vp, exit, world) => boardExit(state, vp, exit as OpenExit, world),
    advance: (world) => boardAdvance(state, world),
    nextEvent: () => boardNextEvent(state),
    interrupt: (vp) => boardInterrupt(state, vp),
    acknowledge: (vp, world) => boardAcknowledge(state, vp, world),
    takeNmi: (vp) => boardTakeNmi(state, vp),
    serialInput: (unit, bytes, world) => {
      const taken = unit === 0 ? uartInput(state.com1, world.now, bytes) : 0;
      return { taken, actions: boardAdvance(state, world) };
    },
  };
}
