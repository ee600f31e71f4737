/**
 * The firmware configuration device that kvm-unit-tests and direct-boot firmware read (QEMU docs/specs/fw_cfg): a
 * selector, a byte stream, and optionally DMA. Only boards that are not Hyper-V's have one.
 */

export interface FwCfgFile {
  readonly name: string;
  readonly data: Uint8Array;
}

export interface FwCfgOptions {
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly dma?: boolean;
  readonly files?: readonly FwCfgFile[];
  /** More items by key, as they appear in the stream. */
  readonly items?: Readonly<Record<number, Uint8Array>>;
}

export interface FwCfgItem {
  readonly key: number;
  readonly data: readonly number[];
}

export interface FwCfgState {
  readonly dma: boolean;
  readonly items: readonly FwCfgItem[];
  selected: number;
  offset: number;
  dmaHigh: number;
}

export const FW_CFG_PORT = { select: 0x510, data: 0x511, dmaHigh: 0x514, dmaLow: 0x518 } as const;

export const FW_CFG_KEY = {
  signature: 0x00,
  id: 0x01,
  ramSize: 0x03,
  cpus: 0x05,
  maximumCpus: 0x0f,
  directory: 0x19,
  firstFile: 0x20,
} as const;

/** What DMA reaches memory through; a refused access is an error that the guest sees. */
export interface FwCfgMemory {
  read(
    gpa: number,
    length: number,
  ): { readonly ok: true; readonly bytes: Uint8Array } | { readonly ok: false };
  write(gpa: number, bytes: Uint8Array): { readonly ok: boolean };
}

const KEY_MASK = 0x3fff;
const ARCHITECTURE_LOCAL = 0x8000;
const NAME_SIZE = 56;
const DMA = { error: 1, read: 2, skip: 4, select: 8, write: 16 } as const;
const DMA_SIGNATURE = [0x51, 0x45, 0x4d, 0x55, 0x20, 0x43, 0x46, 0x47] as const;
/** One control block moves at most this much, so that a guest's length does not become ours. */
const DMA_CHUNK = 0x10000;

export function createFwCfg(options: FwCfgOptions): FwCfgState {
  const { cpus, memoryBytes, dma = false, files = [], items = {} } = options;
  const list: FwCfgItem[] = [
    { key: FW_CFG_KEY.signature, data: [0x51, 0x45, 0x4d, 0x55] },
    { key: FW_CFG_KEY.id, data: littleEndian(dma ? 3 : 1, 4) },
    { key: FW_CFG_KEY.ramSize, data: littleEndian(memoryBytes, 8) },
    { key: FW_CFG_KEY.cpus, data: littleEndian(cpus, 2) },
    { key: FW_CFG_KEY.maximumCpus, data: littleEndian(cpus, 2) },
    { key: FW_CFG_KEY.directory, data: directory(files) },
  ];
  files.forEach((file, index) => list.push({ key: FW_CFG_KEY.firstFile + index, data: [...file.data] }));
  for (const [key, data] of Object.entries(items)) list.push({ key: Number(key), data: [...data] });
  return { dma, items: list, selected: 0, offset: 0, dmaHigh: 0 };
}

function littleEndian(value: number, size: number): number[] {
  return Array.from({ length: size }, (_, index) => Math.floor(value / 2 ** (8 * index)) % 256);
}

function bigEndian(value: number, size: number): number[] {
  return littleEndian(value, size).reverse();
}

/** The directory is big-endian, unlike the numbers in the items. */
function directory(files: readonly FwCfgFile[]): number[] {
  const bytes = bigEndian(files.length, 4);
  files.forEach((file, index) => {
    const name = Array.from(file.name, (character) => character.charCodeAt(0));
    if (name.length >= NAME_SIZE || name.some((code) => code === 0 || code > 0x7f)) {
      throw new RangeError(`fw_cfg file name "${file.name}" must be ASCII, shorter than ${NAME_SIZE}`);
    }
    const padding = new Array<number>(NAME_SIZE - name.length).fill(0);
    bytes.push(...bigEndian(file.data.length, 4), ...bigEndian(FW_CFG_KEY.firstFile + index, 2), 0, 0);
    bytes.push(...name, ...padding);
  });
  return bytes;
}

function select(state: FwCfgState, key: number): void {
  state.selected = key & (KEY_MASK | ARCHITECTURE_LOCAL);
  state.offset = 0;
}

function nextByte(state: FwCfgState): number {
  const item = state.items.find(({ key }) => key === state.selected);
  const value = item?.data[state.offset];
  if (value === undefined) return 0;
  state.offset++;
  return value;
}

/** The data port gives a byte at a time; unknown items and what lies behind the end read 0. */
export function fwCfgRead(state: FwCfgState, port: number, size: number): number {
  if (port === FW_CFG_PORT.data && size === 1) return nextByte(state);
  if (state.dma && port >= FW_CFG_PORT.dmaHigh && port < FW_CFG_PORT.dmaLow + 4) {
    let value = 0;
    for (let index = 0; index < size; index++) {
      value += (DMA_SIGNATURE[port - FW_CFG_PORT.dmaHigh + index] ?? 0) * 2 ** (8 * index);
    }
    return value;
  }
  return size === 4 ? 0xffff_ffff : (1 << (size * 8)) - 1;
}

/** Writes to the data port are ignored, as in QEMU since 2.4. DMA runs within the write of its low half. */
export function fwCfgWrite(
  state: FwCfgState,
  port: number,
  size: number,
  value: number,
  memory?: FwCfgMemory,
): void {
  if (port === FW_CFG_PORT.select && size === 2) {
    select(state, value);
  } else if (state.dma && size === 4 && port === FW_CFG_PORT.dmaHigh) {
    state.dmaHigh = swap(value);
  } else if (state.dma && size === 4 && port === FW_CFG_PORT.dmaLow) {
    const gpa = state.dmaHigh * 2 ** 32 + swap(value);
    state.dmaHigh = 0;
    if (memory !== undefined && Number.isSafeInteger(gpa)) runDma(state, gpa, memory);
  }
}

function swap(value: number): number {
  return ((value >>> 24) | ((value >>> 8) & 0xff00) | ((value & 0xff00) << 8) | (value << 24)) >>> 0;
}

function runDma(state: FwCfgState, gpa: number, memory: FwCfgMemory): void {
  const block = memory.read(gpa, 16);
  if (!block.ok) return;
  const view = new DataView(block.bytes.buffer, block.bytes.byteOffset, 16);
  const control = view.getUint32(0);
  const length = view.getUint32(4);
  const address = view.getUint32(8) * 2 ** 32 + view.getUint32(12);
  if ((control & DMA.select) !== 0) select(state, control >>> 16);
  let failed = (control & DMA.write) !== 0;
  if (!failed && (control & DMA.read) !== 0) failed = !copyOut(state, address, length, memory);
  else if (!failed && (control & DMA.skip) !== 0) skip(state, length);
  memory.write(gpa, Uint8Array.from([0, 0, 0, failed ? DMA.error : 0]));
}

function skip(state: FwCfgState, length: number): void {
  const item = state.items.find(({ key }) => key === state.selected);
  state.offset = Math.min(state.offset + length, item?.data.length ?? 0);
}

function copyOut(state: FwCfgState, address: number, length: number, memory: FwCfgMemory): boolean {
  for (let done = 0; done < length; done += DMA_CHUNK) {
    const size = Math.min(DMA_CHUNK, length - done);
    const target = address + done;
    if (!Number.isSafeInteger(target)) return false;
    const bytes = Uint8Array.from({ length: size }, () => nextByte(state));
    if (!memory.write(target, bytes).ok) return false;
  }
  return true;
}
