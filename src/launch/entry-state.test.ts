import { describe, expect, test } from 'vitest';
import { initEntry, longModeEntry, multibootEntry, parkedFrom1, resetEntry } from './entry-state.ts';

const WB = 0x0606060606060606n;
const mtrr = { mtrrDefType: 0xc06n, mtrrFixed: [WB, WB, 0n, WB, WB, WB, WB, WB, WB, WB, WB] };
const none = Array.from({ length: 16 }, () => 0n);
const system = {
  ldtr: { selector: 0, base: 0n, limit: 0xffff, attributes: 0x82 },
  tr: { selector: 0, base: 0n, limit: 0xffff, attributes: 0x8b },
};
const common = {
  ...system,
  rflags: 2n,
  cr2: 0n,
  xcr0: 1n,
  pat: 0x0007040600070406n,
  dr6: 0xffff0ff0n,
  dr7: 0x400n,
  mxcsr: 0x1f80,
};

function everyData<T>(segment: T): { ds: T; es: T; fs: T; gs: T; ss: T } {
  return { ds: segment, es: segment, fs: segment, gs: segment, ss: segment };
}

describe('register states', () => {
  test('longModeEntry is boot.rst "64-bit Boot Protocol"', () => {
    expect(longModeEntry({ rip: 0x1000200, rsi: 0x2000, cr3: 0x4000n, gdt: 0x1000 })).toEqual({
      ...common,
      ...mtrr,
      gprs: none.with(6, 0x2000n),
      rip: 0x1000200n,
      cs: { selector: 0x10, base: 0n, limit: 0xffffffff, attributes: 0xa9b },
      ...everyData({ selector: 0x18, base: 0n, limit: 0xffffffff, attributes: 0xc93 }),
      gdtr: { base: 0x1000n, limit: 31 },
      idtr: { base: 0n, limit: 0 },
      cr0: 0x80000031n,
      cr3: 0x4000n,
      cr4: 0x20n,
      efer: 0xd01n,
      fcw: 0x37f,
    });
  });

  test('multibootEntry is Multiboot 3.2 "Machine state"', () => {
    expect(multibootEntry({ eip: 0x100000, magic: 0x2badb002, info: 0x9000 })).toEqual({
      ...common,
      ...mtrr,
      gprs: none.with(0, 0x2badb002n).with(3, 0x9000n),
      rip: 0x100000n,
      cs: { selector: 8, base: 0n, limit: 0xffffffff, attributes: 0xc9b },
      ...everyData({ selector: 0x10, base: 0n, limit: 0xffffffff, attributes: 0xc93 }),
      gdtr: { base: 0n, limit: 0 },
      idtr: { base: 0n, limit: 0 },
      cr0: 0x11n,
      cr3: 0n,
      cr4: 0n,
      efer: 0n,
      fcw: 0x37f,
    });
  });

  const reset = {
    ...common,
    gprs: none.with(2, 0x663n),
    rip: 0xfff0n,
    cs: { selector: 0xf000, base: 0xffff0000n, limit: 0xffff, attributes: 0x9b },
    ...everyData({ selector: 0, base: 0n, limit: 0xffff, attributes: 0x93 }),
    gdtr: { base: 0n, limit: 0xffff },
    idtr: { base: 0n, limit: 0xffff },
    cr0: 0x60000010n,
    cr3: 0n,
    cr4: 0n,
    efer: 0n,
    fcw: 0x40,
    mtrrDefType: 0n,
    mtrrFixed: Array.from({ length: 11 }, () => 0n),
  };

  test('resetEntry is the state after RESET', () => {
    expect(resetEntry(0x663)).toEqual(reset);
  });

  test('initEntry keeps the MTRRs', () => {
    expect(initEntry(0x663)).toEqual({ ...reset, ...mtrr });
  });

  test('parkedFrom1 gives every VP but the first the state after INIT, with MTRRs set', () => {
    expect(parkedFrom1(1)).toEqual([]);
    const registers = { ...reset, ...mtrr, gprs: none };
    expect(parkedFrom1(3)).toEqual([
      { kind: 'context', vp: 1, activity: 'wait-for-sipi', registers },
      { kind: 'context', vp: 2, activity: 'wait-for-sipi', registers },
    ]);
  });
});
