/** SynIC registers, message page and event-flags page (Hyper-V TLFS chapters 11 and 12). */

import { record } from '../record.ts';

export const SINT_COUNT = 16;
export const TIMER_COUNT = 4;
export const SYNIC_VERSION = 1;

/** A message page is 16 slots of this size, an event-flags page 16 bitmaps of this size. */
export const SLOT_SIZE = 256;
export const PAYLOAD_SIZE = 240;
export const EVENT_FLAG_COUNT = SLOT_SIZE * 8;

export const SCONTROL_ENABLE = 1;

/** SINTx, low half. */
export const SINT = {
  vectorMask: 0xff,
  masked: 1 << 16,
  autoEoi: 1 << 17,
  polling: 1 << 18,
  asIntercept: 1 << 19,
  proxy: 1 << 20,
} as const;

/** STIMERx_CONFIG, low half; the high half is reserved. */
export const TIMER = {
  enable: 1 << 0,
  periodic: 1 << 1,
  lazy: 1 << 2,
  autoEnable: 1 << 3,
  vectorShift: 4,
  vectorMask: 0xff << 4,
  direct: 1 << 12,
  sintShift: 16,
  sintMask: 0xf << 16,
} as const;

export const MESSAGE = {
  none: 0,
  /** Channel messages of VMBus; bit 31 clear, so not the hypervisor's own. */
  vmbus: 1,
  timerExpired: 0x8000_0010,
} as const;

export const messageHeader = record('HvMessageHeader', 'TLFS 11.8 "SynIC Message Page"', 16, [
  { name: 'type', offset: 0, width: 4 },
  { name: 'payloadSize', offset: 4, width: 1 },
  { name: 'flags', offset: 5, width: 1 },
  { name: 'reserved', offset: 6, width: 2 },
  { name: 'sender', offset: 8, width: 8 },
]);

/** Header flag: something waits behind this slot, so write EOM after emptying it. */
export const MESSAGE_PENDING = 1;

export const timerMessage = record('HvTimerMessagePayload', 'TLFS 12.1 "Synthetic Timers"', 24, [
  { name: 'timerIndex', offset: 0, width: 4 },
  { name: 'reserved', offset: 4, width: 4 },
  { name: 'expirationTime', offset: 8, width: 8 },
  { name: 'deliveryTime', offset: 16, width: 8 },
]);
