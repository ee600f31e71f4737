/**
 * A 16550A (National Semiconductor PC16550D datasheet) as a PC wires it: the interrupt passes only while OUT2 is set.
 *
 * Bytes leave as fast as the owner takes them: what it has not taken fills `output`, and a full `output` stops the
 * transmitter as a slow line would. Bytes come from a queue that waits for room in the FIFO and, with `flow`, for the
 * guest's RTS, so nothing overruns. With `timed`, every character also takes its time on the line.
 */

import { frequency, ticksAt, timeOfTick, type Frequency } from './frequency.ts';

export interface UartOptions {
  /** Characters take the time that divisor and format give them; otherwise none. */
  readonly timed?: boolean;
  readonly clockHz?: number;
  /** Input waits while RTS is off, as with hardware flow control. */
  readonly flow?: boolean;
  readonly outputLimit?: number;
  readonly inputLimit?: number;
}

export interface UartState {
  readonly timed: boolean;
  readonly clock: Frequency;
  readonly flow: boolean;
  readonly outputLimit: number;
  readonly inputLimit: number;
  ier: number;
  lcr: number;
  mcr: number;
  scratch: number;
  divisor: number;
  fifoEnabled: boolean;
  trigger: number;
  /** Error bits of LSR that have not been read: overrun, parity, framing, break. */
  lineErrors: number;
  /** CTS, DSR, RI, DCD as the other side drives them, in their places of MSR. */
  modemLines: number;
  modemDeltas: number;
  /** Received characters, with their LSR error bits above bit 8. */
  readonly rx: number[];
  readonly tx: number[];
  /** Character in the shift register, -1 for none, and when it has left. */
  shift: number;
  shiftDone: number;
  /** When the next character may arrive, and when the receiver FIFO has been idle for four characters; -1: never. */
  nextInput: number;
  idleDue: number;
  idle: boolean;
  /** The transmitter interrupt is a latch: a read of IIR takes it away. */
  transmitterEmpty: boolean;
  readonly input: number[];
  readonly output: number[];
}

export const UART = {
  /** Receiver buffer, transmitter holding register; divisor low with DLAB. */
  data: 0,
  ier: 1,
  /** IIR when read, FCR when written. */
  iir: 2,
  lcr: 3,
  mcr: 4,
  lsr: 5,
  msr: 6,
  scratch: 7,
} as const;

const IER = { receive: 1, transmit: 2, line: 4, modem: 8, all: 15 } as const;
const FCR = { enable: 1, clearReceiver: 2, clearTransmitter: 4 } as const;
const LCR = { stop: 4, parity: 8, dlab: 0x80 } as const;
const MCR = { dtr: 1, rts: 2, out1: 4, out2: 8, loop: 16, all: 31 } as const;
const LSR = {
  ready: 1,
  overrun: 2,
  parity: 4,
  framing: 8,
  break: 16,
  thre: 32,
  temt: 64,
  fifo: 128,
} as const;
const MSR = { cts: 0x10, dsr: 0x20, ri: 0x40, dcd: 0x80 } as const;
const IIR = { none: 1, line: 6, data: 4, timeout: 12, transmit: 2, modem: 0, fifo: 0xc0 } as const;

const CHARACTER_ERRORS = LSR.parity | LSR.framing | LSR.break;
const LINE_ERRORS = CHARACTER_ERRORS | LSR.overrun;
const FIFO_SIZE = 16;
const NOTHING = new Uint8Array(0);
const TRIGGERS = [1, 4, 8, 14] as const;

export function createUart(options: UartOptions = {}): UartState {
  const { timed = false, clockHz = 1_843_200, flow = true, outputLimit = 4096, inputLimit = 4096 } = options;
  return {
    timed,
    clock: frequency(clockHz),
    flow,
    outputLimit,
    inputLimit,
    ier: 0,
    lcr: 0,
    mcr: 0,
    scratch: 0,
    divisor: 1,
    fifoEnabled: false,
    trigger: 1,
    lineErrors: 0,
    modemLines: MSR.cts | MSR.dsr | MSR.dcd,
    modemDeltas: 0,
    rx: [],
    tx: [],
    shift: -1,
    shiftDone: 0,
    nextInput: 0,
    idleDue: -1,
    idle: false,
    transmitterEmpty: false,
    input: [],
    output: [],
  };
}

/** Level of the interrupt line. */
export function uartInterrupt(state: UartState): boolean {
  return (state.mcr & MCR.out2) !== 0 && identification(state) !== IIR.none;
}

/** The most urgent interrupt that is enabled and pending, in the coding of IIR. */
function identification(state: UartState): number {
  const { ier } = state;
  if ((ier & IER.line) !== 0 && state.lineErrors !== 0) return IIR.line;
  if ((ier & IER.receive) !== 0) {
    if (state.rx.length >= state.trigger) return IIR.data;
    if (state.idle && state.rx.length > 0) return IIR.timeout;
  }
  if ((ier & IER.transmit) !== 0 && state.transmitterEmpty) return IIR.transmit;
  if ((ier & IER.modem) !== 0 && state.modemDeltas !== 0) return IIR.modem;
  return IIR.none;
}

export function uartRead(state: UartState, now: number, register: number): number {
  uartAdvance(state, now);
  const dlab = (state.lcr & LCR.dlab) !== 0;
  switch (register) {
    case UART.data:
      return dlab ? state.divisor & 0xff : takeReceived(state, now);
    case UART.ier:
      return dlab ? state.divisor >>> 8 : state.ier;
    case UART.iir: {
      const source = identification(state);
      if (source === IIR.transmit) state.transmitterEmpty = false;
      return source | (state.fifoEnabled ? IIR.fifo : 0);
    }
    case UART.lcr:
      return state.lcr;
    case UART.mcr:
      return state.mcr;
    case UART.lsr: {
      const value = lineStatus(state);
      state.lineErrors = 0;
      return value;
    }
    case UART.msr: {
      const value = modemStatus(state) | state.modemDeltas;
      state.modemDeltas = 0;
      return value;
    }
    case UART.scratch:
      return state.scratch;
    default:
      return 0xff;
  }
}

export function uartWrite(state: UartState, now: number, register: number, value: number): void {
  uartAdvance(state, now);
  const dlab = (state.lcr & LCR.dlab) !== 0;
  switch (register) {
    case UART.data:
      if (dlab) state.divisor = (state.divisor & 0xff00) | (value & 0xff);
      else transmit(state, now, value & 0xff);
      break;
    case UART.ier:
      if (dlab) state.divisor = ((value & 0xff) << 8) | (state.divisor & 0xff);
      else writeIer(state, value);
      break;
    case UART.iir:
      writeFcr(state, value);
      break;
    case UART.lcr:
      state.lcr = value & 0xff;
      break;
    case UART.mcr: {
      const before = modemStatus(state);
      state.mcr = value & MCR.all;
      noteModemChange(state, before);
      break;
    }
    case UART.scratch:
      state.scratch = value & 0xff;
      break;
    default:
      // LSR and MSR: writes are for factory tests.
      break;
  }
  pump(state, now);
}

function writeIer(state: UartState, value: number): void {
  // Enabling the transmitter interrupt while the transmitter is empty raises it (drivers probe for this).
  const enabled = (value & ~state.ier & IER.transmit) !== 0;
  state.ier = value & IER.all;
  if (enabled && state.tx.length === 0) state.transmitterEmpty = true;
}

function writeFcr(state: UartState, value: number): void {
  const enabled = (value & FCR.enable) !== 0;
  const switched = enabled !== state.fifoEnabled;
  state.fifoEnabled = enabled;
  if (switched || (enabled && (value & FCR.clearReceiver) !== 0)) {
    state.rx.length = 0;
    state.idle = false;
    state.idleDue = -1;
  }
  if (switched || (enabled && (value & FCR.clearTransmitter) !== 0)) {
    if (state.tx.length > 0) state.transmitterEmpty = true;
    state.tx.length = 0;
  }
  state.trigger = enabled ? (TRIGGERS[(value >>> 6) & 3] ?? 1) : 1;
}

function lineStatus(state: UartState): number {
  let value = state.lineErrors;
  if (state.rx.length > 0) value |= LSR.ready;
  if (state.tx.length === 0) value |= LSR.thre | (state.shift < 0 ? LSR.temt : 0);
  if (state.fifoEnabled && state.rx.some((entry) => entry >>> 8 !== 0)) value |= LSR.fifo;
  return value;
}

function modemStatus(state: UartState): number {
  const { mcr } = state;
  if ((mcr & MCR.loop) === 0) return state.modemLines;
  return (
    ((mcr & MCR.rts) !== 0 ? MSR.cts : 0) |
    ((mcr & MCR.dtr) !== 0 ? MSR.dsr : 0) |
    ((mcr & MCR.out1) !== 0 ? MSR.ri : 0) |
    ((mcr & MCR.out2) !== 0 ? MSR.dcd : 0)
  );
}

function noteModemChange(state: UartState, before: number): void {
  const after = modemStatus(state);
  const changed = (before ^ after) >>> 4;
  // Of RI only the trailing edge counts.
  const ring = (before & ~after & MSR.ri) >>> 4;
  state.modemDeltas |= (changed & ~(MSR.ri >>> 4)) | ring;
}

/** Sets CTS (0x10), DSR (0x20), RI (0x40), DCD (0x80) as the other side drives them. */
export function uartSetModemLines(state: UartState, lines: number): void {
  const before = modemStatus(state);
  state.modemLines = lines & 0xf0;
  noteModemChange(state, before);
}

function capacity(state: UartState): number {
  return state.fifoEnabled ? FIFO_SIZE : 1;
}

function takeReceived(state: UartState, now: number): number {
  const entry = state.rx.shift() ?? 0;
  state.idle = false;
  state.idleDue = -1;
  const next = state.rx[0];
  if (next !== undefined) revealErrors(state);
  pump(state, now);
  startIdleTimer(state, now);
  return entry & 0xff;
}

/** Errors of a character show in LSR once it is the next to be read. */
function revealErrors(state: UartState): void {
  const top = state.rx[0] ?? 0;
  state.lineErrors |= (top >>> 8) & CHARACTER_ERRORS;
  state.rx[0] = top & 0xff;
}

function receive(state: UartState, character: number): void {
  if (state.rx.length >= capacity(state)) {
    state.lineErrors |= LSR.overrun;
    // Without a FIFO the new character takes the place of the old one; with one it is lost.
    if (state.fifoEnabled) return;
    state.rx.length = 0;
  }
  state.rx.push(character);
  if (state.rx.length === 1) revealErrors(state);
}

/** A FIFO that holds something and has been left alone for four characters says so (datasheet 8.4). */
function startIdleTimer(state: UartState, now: number): void {
  if (!state.fifoEnabled || state.rx.length === 0) return;
  if (state.timed) state.idleDue = now + 4 * characterTime(state, now);
  else state.idle = true;
}

/** Ns that one character occupies the line. */
function characterTime(state: UartState, now: number): number {
  const { lcr } = state;
  // Stop bits 1.5 and 2 both count as 2.
  const bits = 1 + 5 + (lcr & 3) + ((lcr & LCR.parity) !== 0 ? 1 : 0) + ((lcr & LCR.stop) !== 0 ? 2 : 1);
  const ticks = bits * 16 * (state.divisor === 0 ? 0x10000 : state.divisor);
  return timeOfTick(state.clock, ticksAt(state.clock, now) + ticks) - now;
}

function transmit(state: UartState, now: number, byte: number): void {
  state.transmitterEmpty = false;
  if (state.tx.length >= capacity(state)) state.tx.pop();
  state.tx.push(byte);
  pump(state, now);
}

/** Moves what can move without the line's time passing. */
function pump(state: UartState, now: number): void {
  pumpTransmitter(state, now);
  pumpReceiver(state, now);
}

function pumpTransmitter(state: UartState, now: number): void {
  while (state.tx.length > 0 && state.shift < 0) {
    const loop = (state.mcr & MCR.loop) !== 0;
    if (!loop && state.output.length >= state.outputLimit) return;
    const byte = state.tx.shift() ?? 0;
    if (state.timed) {
      state.shift = byte;
      state.shiftDone = now + characterTime(state, now);
    } else {
      leaveLine(state, now, byte);
    }
    if (state.tx.length === 0) state.transmitterEmpty = true;
  }
}

function leaveLine(state: UartState, now: number, byte: number): void {
  if ((state.mcr & MCR.loop) === 0) {
    state.output.push(byte);
    return;
  }
  receive(state, byte);
  startIdleTimer(state, now);
}

function inputMayFlow(state: UartState): boolean {
  if (state.input.length === 0 || (state.mcr & MCR.loop) !== 0) return false;
  if (state.flow && (state.mcr & MCR.rts) === 0) return false;
  return state.rx.length < capacity(state);
}

function pumpReceiver(state: UartState, now: number): void {
  if (!inputMayFlow(state)) return;
  if (state.timed) {
    if (state.nextInput > now) return;
    receive(state, state.input.shift() ?? 0);
    state.nextInput = now + characterTime(state, now);
  } else {
    for (const byte of state.input.splice(0, capacity(state) - state.rx.length)) receive(state, byte);
  }
  state.idle = false;
  startIdleTimer(state, now);
}

/** Virtual time in ns at which something happens on the line; Infinity when nothing will by itself. */
export function uartNextEvent(state: UartState): number {
  if (!state.timed) return Infinity;
  let next = Infinity;
  if (state.shift >= 0) next = state.shiftDone;
  if (inputMayFlow(state)) next = Math.min(next, state.nextInput);
  if (state.idleDue >= 0) next = Math.min(next, state.idleDue);
  return next;
}

/** Lets everything happen that is due by `now`, in its order. */
export function uartAdvance(state: UartState, now: number): void {
  for (;;) {
    const due = uartNextEvent(state);
    if (due > now) return;
    if (state.shift >= 0 && state.shiftDone === due) {
      const byte = state.shift;
      state.shift = -1;
      leaveLine(state, due, byte);
    } else if (state.idleDue === due) {
      state.idleDue = -1;
      state.idle = true;
    }
    pump(state, due);
  }
}

/** Hands in bytes from outside. Returns how many were taken: the queue is bounded. */
export function uartInput(state: UartState, now: number, bytes: Uint8Array): number {
  uartAdvance(state, now);
  const count = Math.min(bytes.length, state.inputLimit - state.input.length);
  for (let index = 0; index < count; index++) state.input.push(bytes[index] ?? 0);
  // An idle line can start at once, not where the last character ended long ago.
  if (state.nextInput < now) state.nextInput = now;
  pump(state, now);
  return count;
}

/** A break, or a character that arrived broken: `errors` are bits of LSR (parity 4, framing 8, break 16). */
export function uartReceive(state: UartState, now: number, byte: number, errors = 0): void {
  uartAdvance(state, now);
  receive(state, (byte & 0xff) | ((errors & LINE_ERRORS) << 8));
  startIdleTimer(state, now);
}

/** Takes what has been sent. */
export function uartTakeOutput(state: UartState, now: number): Uint8Array {
  uartAdvance(state, now);
  if (state.output.length === 0) return NOTHING;
  const bytes = Uint8Array.from(state.output);
  state.output.length = 0;
  pump(state, now);
  return bytes;
}
