/** The host of a TD as the machine's platform. */
import { hostInterrupt, hostSerialInput, hostTakeNmi } from '../host/host.ts';
import {
  createTdxHost,
  tdxAdvance,
  tdxExit,
  tdxLaunch,
  tdxNextEvent,
  tdxPost,
  tdxTurn,
  type TdxHostConfig,
} from '../host/tdx/host.ts';
import type { Platform } from './machine.ts';

export function tdxPlatform(config: TdxHostConfig): Platform {
  let state = createTdxHost(config);
  return {
    kind: 'hyperv-tdx',
    config,
    get state() {
      return state;
    },
    load: (saved) => {
      state = saved as typeof state;
    },
    launch: (directives, world) => tdxLaunch(state, directives, world),
    turn: (now) => tdxTurn(state, now),
    exit: (vp, exit, world) => tdxExit(state, vp, exit, world),
    advance: (world) => tdxAdvance(state, world),
    nextEvent: () => tdxNextEvent(state),
    interrupt: (vp) => hostInterrupt(state, vp),
    acknowledge: (vp, world) => tdxPost(state, vp, world),
    takeNmi: (vp) => hostTakeNmi(state, vp),
    serialInput: (unit, bytes, world) => hostSerialInput(state, unit, bytes, world),
  };
}
