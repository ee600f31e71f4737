/**
 * The way of a message to the local APICs of a VM (Intel SDM vol. 3, 11.6.2 and 11.7): who it is for, who wins a
 * lowest-priority arbitration, and what comes out at the processors.
 */

import { DELIVERY, type ApicMessage } from './apic-message.ts';
import {
  lapicAcceptsInterrupts,
  lapicArbitrationPriority,
  lapicDeliver,
  lapicMatches,
  lapicMode,
  NO_ACTIONS,
  type LapicAction,
  type LapicState,
} from './lapic.ts';

/** An action at the processor with this index in the list of APICs. */
export interface BusAction {
  readonly apic: number;
  readonly action: LapicAction;
}

export interface BusResult {
  /** APICs that took the message, by index. Empty: nobody did, and an IO-APIC must know. */
  readonly targets: readonly number[];
  readonly actions: readonly BusAction[];
}

/**
 * Delivers `message`, sent by the APIC with index `source` (-1: by an IO-APIC or a device). `targets` have a request
 * they did not have before, so their processors look at `lapicPendingVector` again.
 */
export function deliverMessage(
  apics: readonly LapicState[],
  source: number,
  message: ApicMessage,
): BusResult {
  const targets = targetsOf(apics, source, message);
  const actions: BusAction[] = [];
  for (const target of targets) {
    const apic = apics[target];
    if (apic === undefined) continue;
    for (const action of lapicDeliver(apic, message.delivery, message.vector, message.level)) {
      actions.push({ apic: target, action });
    }
  }
  return { targets, actions };
}

function targetsOf(apics: readonly LapicState[], source: number, message: ApicMessage): number[] {
  const { delivery } = message;
  const maskable =
    delivery === DELIVERY.fixed || delivery === DELIVERY.lowestPriority || delivery === DELIVERY.extInt;
  const targets: number[] = [];
  for (const [index, apic] of apics.entries()) {
    if (!isAddressed(apic, index, source, message) || lapicMode(apic) === 'disabled') continue;
    if (!maskable || lapicAcceptsInterrupts(apic)) targets.push(index);
  }
  if (delivery !== DELIVERY.lowestPriority || targets.length < 2) return targets;
  return [arbitrate(apics, targets)];
}

function isAddressed(apic: LapicState, index: number, source: number, message: ApicMessage): boolean {
  switch (message.target) {
    case 'self':
      return index === source;
    case 'all':
      return true;
    case 'others':
      return index !== source;
    case 'destination':
      return lapicMatches(apic, message);
    default:
      return message.target satisfies never;
  }
}

/** The lowest arbitration priority wins; among equals the first, so that two runs agree. */
function arbitrate(apics: readonly LapicState[], targets: readonly number[]): number {
  let winner = -1;
  let lowest = Infinity;
  for (const target of targets) {
    const apic = apics[target];
    const priority = apic === undefined ? Infinity : lapicArbitrationPriority(apic);
    if (priority < lowest) {
      lowest = priority;
      winner = target;
    }
  }
  return winner;
}

/**
 * Carries out everything that an APIC's own action list says, messages included, until only actions remain that the
 * owner has to act on: NMI, SMI, INIT and SIPI at processors, and EOIs for the IO-APICs.
 */
export function settleActions(
  apics: readonly LapicState[],
  source: number,
  actions: readonly LapicAction[],
): { readonly targets: readonly number[]; readonly actions: readonly BusAction[] } {
  if (actions === NO_ACTIONS) return NOTHING;
  const targets: number[] = [];
  const left: BusAction[] = [];
  for (const action of actions) {
    if (action.kind !== 'message') {
      left.push({ apic: source, action });
      continue;
    }
    const result = deliverMessage(apics, source, action.message);
    targets.push(...result.targets);
    left.push(...result.actions);
  }
  return { targets, actions: left };
}

const NOTHING: BusResult = { targets: [], actions: [] };
