import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  createFwCfg,
  FW_CFG_KEY,
  FW_CFG_PORT,
  fwCfgRead,
  fwCfgWrite,
  type FwCfgMemory,
  type FwCfgState,
} from './fwcfg.ts';

const MEMORY_SIZE = 0x10000;

function bytesOf(state: FwCfgState, key: number, count: number): number[] {
  fwCfgWrite(state, FW_CFG_PORT.select, 2, key);
  return Array.from({ length: count }, () => fwCfgRead(state, FW_CFG_PORT.data, 1));
}

function memoryOf(ram: Uint8Array): FwCfgMemory {
  return {
    read: (gpa, length) =>
      gpa + length <= ram.length ? { ok: true, bytes: ram.slice(gpa, gpa + length) } : { ok: false },
    write: (gpa, bytes) => {
      if (gpa + bytes.length > ram.length) return { ok: false };
      ram.set(bytes, gpa);
      return { ok: true };
    },
  };
}

/** Writes a control block at 0x100 and starts it; returns its control word afterwards. */
function dma(state: FwCfgState, ram: Uint8Array, control: number, length: number, address: number): number {
  const view = new DataView(ram.buffer);
  view.setUint32(0x100, control);
  view.setUint32(0x104, length);
  view.setUint32(0x108, 0);
  view.setUint32(0x10c, address);
  fwCfgWrite(state, FW_CFG_PORT.dmaLow, 4, 0x0001_0000, memoryOf(ram));
  return view.getUint32(0x100);
}

describe('items', () => {
  const state = createFwCfg({ cpus: 4, memoryBytes: 0x1_2345_6789 });

  test('as kvm-unit-tests reads them', () => {
    expect(bytesOf(state, FW_CFG_KEY.cpus, 2)).toEqual([4, 0]);
    expect(bytesOf(state, FW_CFG_KEY.maximumCpus, 2)).toEqual([4, 0]);
    expect(bytesOf(state, FW_CFG_KEY.ramSize, 8)).toEqual([0x89, 0x67, 0x45, 0x23, 1, 0, 0, 0]);
  });

  test('signature and features', () => {
    expect(String.fromCharCode(...bytesOf(state, 0, 4))).toBe('QEMU');
    expect(bytesOf(state, 1, 4)).toEqual([1, 0, 0, 0]);
    expect(bytesOf(createFwCfg({ cpus: 1, memoryBytes: 0, dma: true }), 1, 4)).toEqual([3, 0, 0, 0]);
  });

  test('selecting starts over; behind the end and unknown keys give 0', () => {
    expect(bytesOf(state, 0, 6).slice(4)).toEqual([0, 0]);
    expect(bytesOf(state, 0, 1)).toEqual([0x51]);
    expect(bytesOf(state, 0x77, 3)).toEqual([0, 0, 0]);
  });

  test('other widths and ports', () => {
    expect(fwCfgRead(state, FW_CFG_PORT.select, 2)).toBe(0xffff);
    expect(fwCfgRead(state, FW_CFG_PORT.dmaHigh, 4)).toBe(0xffff_ffff);
  });
});

describe('files', () => {
  const state = createFwCfg({
    cpus: 1,
    memoryBytes: 0,
    files: [
      { name: 'etc/first', data: Uint8Array.of(1, 2, 3) },
      { name: 'etc/second', data: Uint8Array.of(9) },
    ],
    items: { 0x8001: Uint8Array.of(7) },
  });

  test('directory and contents', () => {
    const directory = bytesOf(state, FW_CFG_KEY.directory, 4 + 128);
    expect(directory.slice(0, 12)).toEqual([0, 0, 0, 2, 0, 0, 0, 3, 0, 0x20, 0, 0]);
    expect(String.fromCharCode(...directory.slice(12, 22))).toBe('etc/first\0');
    expect(directory.slice(68, 76)).toEqual([0, 0, 0, 1, 0, 0x21, 0, 0]);
    expect(bytesOf(state, 0x20, 4)).toEqual([1, 2, 3, 0]);
    expect(bytesOf(state, 0x21, 1)).toEqual([9]);
    expect(bytesOf(state, 0x8001, 1)).toEqual([7]);
  });

  test('names that do not fit are refused', () => {
    const file = { name: 'x'.repeat(56), data: Uint8Array.of() };
    expect(() => createFwCfg({ cpus: 1, memoryBytes: 0, files: [file] })).toThrow('fw_cfg file name');
  });
});

describe('DMA', () => {
  function board(): { state: FwCfgState; ram: Uint8Array } {
    return {
      state: createFwCfg({ cpus: 3, memoryBytes: 0, dma: true }),
      ram: new Uint8Array(MEMORY_SIZE),
    };
  }

  test('selects, reads and skips', () => {
    const { state, ram } = board();
    expect(dma(state, ram, (FW_CFG_KEY.signature << 16) | 8 | 2, 2, 0x200)).toBe(0);
    expect([...ram.slice(0x200, 0x203)]).toEqual([0x51, 0x45, 0]);
    expect(dma(state, ram, 4, 1, 0)).toBe(0);
    expect(dma(state, ram, 2, 2, 0x300)).toBe(0);
    expect([...ram.slice(0x300, 0x302)]).toEqual([0x55, 0]);
  });

  test('writing and refused memory are errors', () => {
    const { state, ram } = board();
    expect(dma(state, ram, 16, 2, 0x200)).toBe(1);
    expect(dma(state, ram, 2, 0xffff_ffff, 0x200)).toBe(1);
  });

  test('its address register reads as a signature', () => {
    const { state } = board();
    const bytes = [0, 1, 2, 3, 4, 5, 6, 7].map((index) => fwCfgRead(state, 0x514 + index, 1));
    expect(String.fromCharCode(...bytes)).toBe('QEMU CFG');
  });

  test('a control block outside memory does nothing', () => {
    const { state, ram } = board();
    fwCfgWrite(state, FW_CFG_PORT.dmaHigh, 4, 0xffff_ffff, memoryOf(ram));
    fwCfgWrite(state, FW_CFG_PORT.dmaLow, 4, 0, memoryOf(ram));
    expect(ram.every((byte) => byte === 0)).toBe(true);
  });
});

test('random traffic: bytes in, bytes out, copies go on alike', () => {
  const step = fc.record({
    port: fc.integer({ min: 0x50e, max: 0x51c }),
    size: fc.constantFrom(1, 2, 4),
    value: fc.oneof(fc.nat(0x30), fc.nat(0xffff_ffff)),
    isWrite: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 100 }), fc.nat(100), (steps, cut) => {
      let a = createFwCfg({ cpus: 2, memoryBytes: 1, dma: true });
      const b = createFwCfg({ cpus: 2, memoryBytes: 1, dma: true });
      const memories = [memoryOf(new Uint8Array(64)), memoryOf(new Uint8Array(64))] as const;
      steps.forEach(({ port, size, value, isWrite }, index) => {
        if (index === cut) a = JSON.parse(JSON.stringify(structuredClone(a))) as FwCfgState;
        if (isWrite) {
          fwCfgWrite(a, port, size, value, memories[0]);
          fwCfgWrite(b, port, size, value, memories[1]);
        } else {
          const got = fwCfgRead(a, port, size);
          expect(got).toBe(fwCfgRead(b, port, size));
          expect(got).toSatisfy((item: number) => item >= 0 && item < 2 ** (8 * size));
        }
      });
      expect(a).toEqual(b);
    }),
  );
});
