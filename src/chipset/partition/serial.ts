/** The UARTs COM1 to COM4, on IO-APIC pins 4 and 3, which two of them share. */

import { EVENT, EVENT_CLASS } from '../../abi/events.ts';
import {
  createUart,
  uartAdvance,
  uartInput,
  uartInterrupt,
  uartNextEvent,
  uartRead,
  uartTakeOutput,
  uartWrite,
  type UartState,
} from '../uart.ts';
import type { PartitionConfig } from './config.ts';
import { setLine } from './interrupts.ts';
import type { PartitionCall } from './state.ts';

/** First port of each unit, and its pin. */
export const UNITS = [
  { port: 0x3f8, pin: 4 },
  { port: 0x2f8, pin: 3 },
  { port: 0x3e8, pin: 4 },
  { port: 0x2e8, pin: 3 },
] as const;

export type SerialState = UartState[];

export function createSerial({ uarts }: PartitionConfig): SerialState {
  if (!Number.isInteger(uarts) || uarts < 0 || uarts > UNITS.length) {
    throw new RangeError(`a board has 0 to ${UNITS.length} UARTs, not ${uarts}`);
  }
  return Array.from({ length: uarts }, () => createUart());
}

export function serialRead(call: PartitionCall, unit: number, register: number): number {
  const uart = uartOf(call, unit);
  const value = uartRead(uart, call.now, register);
  settle(call, unit);
  return value;
}

export function serialWrite(call: PartitionCall, unit: number, register: number, value: number): void {
  uartWrite(uartOf(call, unit), call.now, register, value);
  settle(call, unit);
}

/** Bytes for the guest; how many were taken. */
export function serialInput(call: PartitionCall, unit: number, bytes: Uint8Array): number {
  const taken = uartInput(uartOf(call, unit), call.now, bytes);
  settle(call, unit);
  return taken;
}

export function serialAdvance(call: PartitionCall): void {
  for (const [unit, uart] of call.state.serial.entries()) {
    if (uartNextEvent(uart) > call.now) continue;
    uartAdvance(uart, call.now);
    settle(call, unit);
  }
}

export function serialNextEvent(serial: SerialState): number {
  return serial.reduce((next, uart) => Math.min(next, uartNextEvent(uart)), Infinity);
}

function uartOf({ state }: PartitionCall, unit: number): UartState {
  const uart = state.serial[unit];
  if (uart === undefined) throw new RangeError(`UART ${unit} of a board with ${state.serial.length}`);
  return uart;
}

/** Passes on what was sent, and drives the line. */
function settle(call: PartitionCall, unit: number): void {
  const { serial } = call.state;
  const bytes = uartTakeOutput(uartOf(call, unit), call.now);
  if (bytes.length > 0) {
    call.actions.push({ kind: 'serial', unit, bytes });
    if (call.sink.mask & EVENT_CLASS.console) {
      for (const byte of bytes) call.sink.emit(EVENT.serial, call.now, 0, unit, byte, 0, 0);
    }
  }
  const pin = UNITS[unit]?.pin ?? 0;
  setLine(
    call,
    pin,
    serial.some((uart, other) => UNITS[other]?.pin === pin && uartInterrupt(uart)),
  );
}
