/** The Hyper-V host as the machine's platform. */
import {
  createHost,
  hostAcknowledge,
  hostAdvance,
  hostExit,
  hostInterrupt,
  hostNextEvent,
  hostSerialInput,
  hostTakeNmi,
  hostTurn,
  type HostConfig,
} from '../host/host.ts';
import type { Platform } from './machine.ts';

export function hypervPlatform(config: HostConfig): Platform {
  const state = createHost(config);
  return {
    state,
    turn: (now) => hostTurn(state, now),
    exit: (vp, exit, world) => hostExit(state, vp, exit, world),
    advance: (world) => hostAdvance(state, world),
    nextEvent: () => hostNextEvent(state),
    interrupt: (vp) => hostInterrupt(state, vp),
    acknowledge: (vp, world) => hostAcknowledge(state, vp, world),
    takeNmi: (vp) => hostTakeNmi(state, vp),
    serialInput: (unit, bytes, world) => hostSerialInput(state, unit, bytes, world),
  };
}
