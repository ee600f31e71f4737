/** The Hyper-V host as the machine's platform. */
import {
  createHost,
  hostAcknowledge,
  hostAdvance,
  hostExit,
  hostInterrupt,
  hostLaunch,
  hostNextEvent,
  hostSerialInput,
  hostTakeNmi,
  hostTurn,
  type HostConfig,
} from '../host/host.ts';
import type { Platform } from './machine.ts';

export function hypervPlatform(config: HostConfig): Platform {
  let state = createHost(config);
  return {
    kind: 'hyperv',
    config,
    get state() {
      return state;
    },
    load: (saved) => {
      state = saved as typeof state;
    },
    turn: (now) => hostTurn(state, now),
    launch: (directives, world) => hostLaunch(state, directives, world),
    exit: (vp, exit, world) => hostExit(state, vp, exit, world),
    advance: (world) => hostAdvance(state, world),
    nextEvent: () => hostNextEvent(state),
    interrupt: (vp) => hostInterrupt(state, vp),
    acknowledge: (vp, world) => hostAcknowledge(state, vp, world),
    takeNmi: (vp) => hostTakeNmi(state, vp),
    serialInput: (unit, bytes, world) => hostSerialInput(state, unit, bytes, world),
  };
}
