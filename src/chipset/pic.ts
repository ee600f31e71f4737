/**
 * The two 8259A interrupt controllers of a PC (Intel 8259A datasheet), the slave on input 2 of the master, with the
 * edge/level registers of later chipsets (ports 0x4D0 and 0x4D1).
 */

export interface PicChip {
  /** Voltage on the inputs, one bit each. */
  lines: number;
  /** Edges that have not been acknowledged; an edge lives only as long as its input stays high. */
  edges: number;
  imr: number;
  isr: number;
  elcr: number;
  /** Upper five bits of the vector (ICW2). */
  base: number;
  icw1: number;
  icw3: number;
  icw4: number;
  /** Initialisation word that the next write to the data port is: 2, 3 or 4; 0 when there is none. */
  expects: number;
  /** Input with the lowest priority. */
  lowest: number;
  rotateOnAutoEoi: boolean;
  specialMask: boolean;
  readsIsr: boolean;
  poll: boolean;
}

export interface PicState {
  readonly master: PicChip;
  readonly slave: PicChip;
}

export const PIC_PORT = {
  masterCommand: 0x20,
  masterData: 0x21,
  slaveCommand: 0xa0,
  slaveData: 0xa1,
  masterElcr: 0x4d0,
  slaveElcr: 0x4d1,
} as const;

const ICW1 = { needsIcw4: 1, single: 2, level: 8, init: 0x10 } as const;
const ICW4 = { autoEoi: 2, specialFullyNested: 0x10 } as const;
const OCW3 = { command: 8, read: 2, readIsr: 1, poll: 4, setsMask: 0x40, mask: 0x20 } as const;
const CASCADE = 2;
/** System timer, keyboard, cascade, clock and coprocessor can only be edge-triggered. */
const MASTER_ELCR = 0xf8;
const SLAVE_ELCR = 0xde;
const SPURIOUS = 7;

function createChip(): PicChip {
  return {
    lines: 0,
    edges: 0,
    imr: 0,
    isr: 0,
    elcr: 0,
    base: 0,
    icw1: 0,
    icw3: 0,
    icw4: 0,
    expects: 0,
    lowest: 7,
    rotateOnAutoEoi: false,
    specialMask: false,
    readsIsr: false,
    poll: false,
  };
}

export function createPic(): PicState {
  return { master: createChip(), slave: createChip() };
}

/** Inputs that ask: those on level while high, the others since their rising edge. */
function requests(chip: PicChip): number {
  const level = (chip.icw1 & ICW1.level) !== 0 ? 0xff : chip.elcr;
  return (chip.lines & level) | (chip.edges & chip.lines & ~level);
}

/** 0 for the highest priority; 8 for none. */
function priorityOf(chip: PicChip, bits: number): number {
  for (let priority = 0; priority < 8; priority++) {
    if (((bits >>> ((chip.lowest + 1 + priority) & 7)) & 1) !== 0) return priority;
  }
  return 8;
}

function inputOf(chip: PicChip, priority: number): number {
  return (chip.lowest + 1 + priority) & 7;
}

/** The input that would be served now; -1 for none. */
function pendingInput(chip: PicChip, isMaster: boolean): number {
  if (chip.expects !== 0) return -1;
  const asked = priorityOf(chip, requests(chip) & ~chip.imr);
  if (asked === 8) return -1;
  let blocking = chip.specialMask ? chip.isr & ~chip.imr : chip.isr;
  // A slave in service does not lock out its own more urgent inputs (datasheet, "special fully nested mode").
  if (isMaster && (chip.icw4 & ICW4.specialFullyNested) !== 0) blocking &= ~(1 << CASCADE);
  return asked < priorityOf(chip, blocking) ? inputOf(chip, asked) : -1;
}

function setChipLine(chip: PicChip, input: number, high: boolean): void {
  const bit = 1 << input;
  if (high) {
    if ((chip.lines & bit) === 0) chip.edges |= bit;
    chip.lines |= bit;
  } else {
    chip.lines &= ~bit;
    chip.edges &= ~bit;
  }
}

function cascade(state: PicState): void {
  setChipLine(state.master, CASCADE, pendingInput(state.slave, false) >= 0);
}

/** Sets the voltage of IRQ 0 to 15; IRQ 2 is the cascade and not a pin. */
export function picSetLine(state: PicState, irq: number, high: boolean): void {
  if (irq === CASCADE || irq < 0 || irq > 15) return;
  setChipLine(irq < 8 ? state.master : state.slave, irq & 7, high);
  cascade(state);
}

/** Level of the INT output, which goes to INTR or to LINT0. */
export function picOutput(state: PicState): boolean {
  return pendingInput(state.master, true) >= 0;
}

/** What an INTA cycle does in one chip. */
function acknowledgeChip(chip: PicChip, input: number): void {
  chip.edges &= ~(1 << input);
  if ((chip.icw4 & ICW4.autoEoi) === 0) chip.isr |= 1 << input;
  else if (chip.rotateOnAutoEoi) chip.lowest = input;
}

/** The INTA cycles: gives the vector. With nothing pending any more it is the spurious one, input 7. */
export function picAcknowledge(state: PicState): number {
  const { master, slave } = state;
  const input = pendingInput(master, true);
  if (input < 0) return master.base | SPURIOUS;
  acknowledgeChip(master, input);
  if (input !== CASCADE) return master.base | input;
  const slaveInput = pendingInput(slave, false);
  if (slaveInput >= 0) acknowledgeChip(slave, slaveInput);
  // INT of the slave falls with the acknowledgement; what still waits is a new edge for the master.
  setChipLine(master, CASCADE, false);
  cascade(state);
  return slave.base | (slaveInput < 0 ? SPURIOUS : slaveInput);
}

export function picRead(state: PicState, port: number): number {
  switch (port) {
    case PIC_PORT.masterElcr:
      return state.master.elcr;
    case PIC_PORT.slaveElcr:
      return state.slave.elcr;
    default: {
      const value = readChip(port < PIC_PORT.slaveCommand ? state.master : state.slave, state, port);
      cascade(state);
      return value;
    }
  }
}

function readChip(chip: PicChip, state: PicState, port: number): number {
  if (chip.poll) {
    // The read is the acknowledgement.
    chip.poll = false;
    const isMaster = chip === state.master;
    const input = pendingInput(chip, isMaster);
    if (input < 0) return 0;
    acknowledgeChip(chip, input);
    if (!isMaster) setChipLine(state.master, CASCADE, false);
    return 0x80 | input;
  }
  if ((port & 1) !== 0) return chip.imr;
  return chip.readsIsr ? chip.isr : requests(chip);
}

export function picWrite(state: PicState, port: number, value: number): void {
  switch (port) {
    case PIC_PORT.masterElcr:
      state.master.elcr = value & MASTER_ELCR;
      break;
    case PIC_PORT.slaveElcr:
      state.slave.elcr = value & SLAVE_ELCR;
      break;
    default: {
      const chip = port < PIC_PORT.slaveCommand ? state.master : state.slave;
      if ((port & 1) !== 0) writeData(chip, value & 0xff);
      else writeCommand(chip, value & 0xff);
    }
  }
  cascade(state);
}

function writeCommand(chip: PicChip, value: number): void {
  if ((value & ICW1.init) !== 0) initialise(chip, value);
  else if ((value & OCW3.command) !== 0) writeOcw3(chip, value);
  else writeOcw2(chip, value);
}

function initialise(chip: PicChip, value: number): void {
  chip.icw1 = value;
  if ((value & ICW1.needsIcw4) === 0) chip.icw4 = 0;
  chip.edges = 0;
  chip.imr = 0;
  chip.isr = 0;
  chip.lowest = 7;
  chip.rotateOnAutoEoi = false;
  chip.specialMask = false;
  chip.readsIsr = false;
  chip.poll = false;
  chip.expects = 2;
}

function writeData(chip: PicChip, value: number): void {
  switch (chip.expects) {
    case 2:
      chip.base = value & 0xf8;
      if ((chip.icw1 & ICW1.single) === 0) chip.expects = 3;
      else chip.expects = (chip.icw1 & ICW1.needsIcw4) !== 0 ? 4 : 0;
      break;
    case 3:
      chip.icw3 = value;
      chip.expects = (chip.icw1 & ICW1.needsIcw4) !== 0 ? 4 : 0;
      break;
    case 4:
      chip.icw4 = value & 0x1f;
      chip.expects = 0;
      break;
    default:
      chip.imr = value;
  }
}

function writeOcw3(chip: PicChip, value: number): void {
  if ((value & OCW3.setsMask) !== 0) chip.specialMask = (value & OCW3.mask) !== 0;
  if ((value & OCW3.poll) !== 0) chip.poll = true;
  else if ((value & OCW3.read) !== 0) chip.readsIsr = (value & OCW3.readIsr) !== 0;
}

function writeOcw2(chip: PicChip, value: number): void {
  const input = value & 7;
  switch (value >>> 5) {
    case 0:
    case 4:
      chip.rotateOnAutoEoi = value >>> 5 === 4;
      break;
    case 1:
    case 5: {
      // In special mask mode a masked input in service is left alone (datasheet, "end of interrupt").
      const served = chip.specialMask ? chip.isr & ~chip.imr : chip.isr;
      const priority = priorityOf(chip, served);
      if (priority === 8) break;
      const ended = inputOf(chip, priority);
      chip.isr &= ~(1 << ended);
      if (value >>> 5 === 5) chip.lowest = ended;
      break;
    }
    case 3:
    case 7:
      chip.isr &= ~(1 << input);
      if (value >>> 5 === 7) chip.lowest = input;
      break;
    case 6:
      chip.lowest = input;
      break;
    default:
      // 2: no operation.
      break;
  }
}
