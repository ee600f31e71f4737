/** The I/O ports of the test board, and the chips behind them. */
import { FW_CFG_PORT, createFwCfg, fwCfgRead, fwCfgWrite } from '../../chipset/fwcfg.ts';
import { createHpet, hpetAdvance, hpetNextEvent, type HpetAction } from '../../chipset/hpet.ts';
import { createIoapic } from '../../chipset/ioapic.ts';
import { PIC_PORT, createPic, picRead, picWrite } from '../../chipset/pic.ts';
import { PIT_PORT, createPit, pitAdvance, pitNextEvent, pitRead, pitWrite } from '../../chipset/pit.ts';
import { PM, createPm, pmAdvance, pmInterrupt, pmNextEvent, pmRead, pmWrite } from '../../chipset/pm.ts';
import { createRtc, rtcAdvance, rtcInterrupt, rtcNextEvent, rtcRead, rtcWrite } from '../../chipset/rtc.ts';
import {
  createUart,
  uartAdvance,
  uartInterrupt,
  uartNextEvent,
  uartRead,
  uartTakeOutput,
  uartWrite,
} from '../../chipset/uart.ts';
import { initialisePic, startTimer } from './firmware.ts';
import { driveIntr, setLine } from './interrupts.ts';
import { rtcAlarm } from './sleep.ts';
import type { BoardCall, TestBoard, TestBoardConfig } from './state.ts';
import { createTestDevice, readTestPort, writeTestPort } from './test-device.ts';

type Size = 1 | 2 | 4;

const EXIT_PORT = 0xf4;
const EXIT_PORT_SIZE = 4;
const SHUTDOWN_PORT = 0x8900;
const SHUTDOWN_WORD = 'Shutdown';
const POST_PORT = 0x80;
const FAST_A20_PORT = 0x92;
const A20_ENABLED = 2;
const PCI_ADDRESS_PORT = 0xcf8;
const RESET_PORT = 0xcf9;
const RESET_CPU = 4;
const COM1_PORT = 0x3f8;
const PM_PORT = 0x600;

export const PM_PORTS = {
  event: PM_PORT + PM.status,
  control: PM_PORT + PM.control,
  timer: PM_PORT + PM.timer,
};

/** SLP_TYP of power-off and of suspend to memory: there is no AML that would say it. */
const SLEEP_TYPES = { s5: 0, s4: 1 };

const LINE = { timer: 0, com1: 4, rtc: 8, sci: 9 } as const;

const within = (port: number, base: number, count: number): boolean => port >= base && port < base + count;

type Chips = Pick<
  TestBoard,
  | 'ioapic'
  | 'pic'
  | 'pit'
  | 'hpet'
  | 'rtc'
  | 'pm'
  | 'com1'
  | 'fwcfg'
  | 'device'
  | 'lines'
  | 'testLines'
  | 'hpetLines'
  | 'rtcHigh'
>;

export function createChips(config: TestBoardConfig): Chips {
  const pic = createPic();
  const pit = createPit();
  if (config.firmware) {
    initialisePic(pic);
    startTimer(pit);
  }
  return {
    ioapic: createIoapic(),
    pic,
    pit,
    hpet: createHpet(),
    rtc: createRtc({ date: config.startDate }),
    pm: createPm({ sleepTypes: SLEEP_TYPES }),
    com1: createUart(),
    fwcfg: createFwCfg({ cpus: config.cpus, memoryBytes: config.memoryBytes }),
    device: createTestDevice(),
    lines: 0,
    testLines: 0,
    hpetLines: 0,
    rtcHigh: false,
  };
}

/** Ports of chips that are a byte wide: a wider access is one for each of its bytes. */
function readByte(call: BoardCall, port: number): number {
  const { board, now } = call;
  if (isPic(port)) return picRead(board.pic, port);
  if (isPit(port)) return pitRead(board.pit, now, port);
  if (within(port, COM1_PORT, 8)) return uartRead(board.com1, now, port - COM1_PORT);
  switch (port) {
    case 0x70:
    case 0x71:
      return rtcRead(board.rtc, now, port);
    case FAST_A20_PORT:
      return A20_ENABLED;
    default:
      return 0xff;
  }
}

function writeByte(call: BoardCall, port: number, value: number): void {
  const { board, now } = call;
  if (isPic(port)) {
    picWrite(board.pic, port, value);
    driveIntr(call);
  } else if (isPit(port)) {
    pitWrite(board.pit, now, port, value);
  } else if (within(port, COM1_PORT, 8)) {
    uartWrite(board.com1, now, port - COM1_PORT, value);
    takeOutput(call);
  } else if (port === 0x70 || port === 0x71) {
    rtcWrite(board.rtc, now, port, value);
  } else if (port === SHUTDOWN_PORT) {
    shutdownLetter(call, value);
  } else if (port === RESET_PORT && (value & RESET_CPU) !== 0) {
    call.actions.push({ kind: 'end', reason: 'reset' });
  }
}

const PIC_PORTS: readonly number[] = Object.values(PIC_PORT);
const isPic = (port: number): boolean => PIC_PORTS.includes(port);
const isPit = (port: number): boolean => within(port, PIT_PORT.counter0, 4) || port === PIT_PORT.speaker;

/** The word counts as soon as it is complete; a wrong letter begins it again. */
function shutdownLetter(call: BoardCall, value: number): void {
  const { board } = call;
  const letter = String.fromCharCode(value);
  if (letter !== SHUTDOWN_WORD[board.shutdownLetters])
    board.shutdownLetters = letter === SHUTDOWN_WORD[0] ? 1 : 0;
  else if (++board.shutdownLetters === SHUTDOWN_WORD.length)
    call.actions.push({ kind: 'end', reason: 'power-off' });
}

function takeOutput(call: BoardCall): void {
  const bytes = uartTakeOutput(call.board.com1, call.now);
  if (bytes.length > 0) call.actions.push({ kind: 'serial', unit: 0, bytes });
}

export function readPorts(call: BoardCall, port: number, size: Size): number {
  const { board, now } = call;
  const tested = readTestPort(board.device, port, size);
  if (tested.claimed) return tested.value;
  if (within(port, FW_CFG_PORT.select, 2)) return fwCfgRead(board.fwcfg, port, size);
  if (within(port, EXIT_PORT, EXIT_PORT_SIZE)) return 0;
  if (within(port, PM_PORT, PM.length)) return pmRead(board.pm, now, port - PM_PORT, size);
  let value = 0;
  for (let i = 0; i < size; i++) value |= readByte(call, port + i) << (i * 8);
  driveLines(call);
  return value >>> 0;
}

export function writePorts(call: BoardCall, port: number, size: Size, value: number): void {
  const { board, now } = call;
  const tested = writeTestPort(board.device, port, size, value);
  switch (tested.kind) {
    case 'done':
      return;
    case 'line': {
      const bit = 1 << tested.line;
      board.testLines = tested.level ? board.testLines | bit : board.testLines & ~bit;
      driveLines(call);
      return;
    }
    case 'not-claimed':
      break;
  }
  // The address register of PCI configuration space is this wide; the byte in the middle of it is the reset port.
  if (port === PCI_ADDRESS_PORT && size === 4) return;
  if (within(port, EXIT_PORT, EXIT_PORT_SIZE)) {
    call.actions.push({ kind: 'exit', status: ((value << 1) | 1) & 0xff });
  } else if (within(port, FW_CFG_PORT.select, 2)) {
    fwCfgWrite(board.fwcfg, port, size, value);
  } else if (within(port, PM_PORT, PM.length)) {
    writePm(call, port - PM_PORT, size, value);
  } else if (port === board.config.postPort || port === POST_PORT) {
    board.post = value & 0xff;
  } else {
    for (let i = 0; i < size; i++) writeByte(call, port + i, (value >>> (i * 8)) & 0xff);
    driveLines(call);
  }
}

function writePm(call: BoardCall, offset: number, size: Size, value: number): void {
  const end = pmWrite(call.board.pm, call.now, offset, size, value);
  if (end === 'hibernate') call.owner.suspend(call);
  else if (end !== undefined) call.actions.push({ kind: 'end', reason: end });
  driveLines(call);
}

/** The PIT and the RTC lose their lines to the HPET while it replaces them (HPET 1.0a, 2.4.6). */
const HPET_LEGACY = 2;

/** Brings every interrupt line to the level that the devices on it give it now. */
export function driveLines(call: BoardCall): void {
  const { board, now } = call;
  const legacy = (board.hpet.config & HPET_LEGACY) !== 0;
  const timer = pitAdvance(board.pit, now);
  // A pulse that rose and fell, or fell and rose, since the last look is an edge all the same.
  if (timer.rose && !legacy) change(call, board.lines & ~(1 << LINE.timer));
  const rtc = rtcInterrupt(board.rtc);
  if (rtc && !board.rtcHigh) rtcAlarm(call);
  board.rtcHigh = rtc;
  let lines = board.testLines | board.hpetLines;
  if (timer.level && !legacy) lines |= 1 << LINE.timer;
  if (rtc && !legacy) lines |= 1 << LINE.rtc;
  if (uartInterrupt(board.com1)) lines |= 1 << LINE.com1;
  if (pmInterrupt(board.pm)) lines |= 1 << LINE.sci;
  change(call, lines);
}

function change(call: BoardCall, lines: number): void {
  const { board } = call;
  const changed = board.lines ^ lines;
  board.lines = lines;
  for (let line = 0; changed >>> line !== 0; line++) {
    if (((changed >>> line) & 1) !== 0) setLine(call, line, ((lines >>> line) & 1) !== 0);
  }
}

export function driveHpet(call: BoardCall, actions: readonly HpetAction[]): void {
  const { board } = call;
  for (const { kind, pin, isa } of actions) {
    const bit = 1 << (isa < 0 ? pin : isa);
    if (kind !== 'assert') {
      board.hpetLines &= ~bit;
      driveLines(call);
    }
    if (kind === 'release') continue;
    board.hpetLines |= bit;
    driveLines(call);
  }
}

export function advanceChips(call: BoardCall): void {
  const { board, now } = call;
  rtcAdvance(board.rtc, now);
  pmAdvance(board.pm, now);
  uartAdvance(board.com1, now);
  driveHpet(call, hpetAdvance(board.hpet, now));
  driveLines(call);
}

export function nextChipEvent({ pit, hpet, rtc, pm, com1 }: TestBoard): number {
  return Math.min(
    pitNextEvent(pit),
    hpetNextEvent(hpet),
    rtcNextEvent(rtc),
    pmNextEvent(pm),
    uartNextEvent(com1),
  );
}
