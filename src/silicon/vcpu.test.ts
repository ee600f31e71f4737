import { expect, test } from 'vitest';
import { initEntry } from '../launch/entry-state.ts';
import { startRegisters } from './vcpu.ts';

test('startRegisters reads HV_INITIAL_VP_CONTEXT field by field', () => {
  const bytes = new Uint8Array(224);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, 0x1000n, true);
  view.setBigUint64(8, 0x2000n, true);
  view.setBigUint64(16, 2n, true);
  // CS: 64-bit code, attributes with L (bit 13) and G (bit 15).
  view.setUint32(32, 0xffffffff, true);
  view.setUint16(36, 0x10, true);
  view.setUint16(38, 0xa09b, true);
  view.setUint16(24 + 5 * 16 + 12, 0x18, true);
  view.setUint16(158, 0xfff, true);
  view.setBigUint64(160, 0x3000n, true);
  view.setUint16(174, 0x7f, true);
  view.setBigUint64(176, 0x4000n, true);
  view.setBigUint64(184, 0xd01n, true);
  view.setBigUint64(192, 0x80000031n, true);
  view.setBigUint64(200, 0x5000n, true);
  view.setBigUint64(208, 0x20n, true);
  view.setBigUint64(216, 0x7040600070406n, true);
  const registers = startRegisters(bytes, initEntry(0xa00f11));
  expect(registers).toMatchObject({
    rip: 0x1000n,
    rflags: 2n,
    cs: { base: 0n, limit: 0xffffffff, selector: 0x10, attributes: 0xa9b },
    ss: { selector: 0x18 },
    idtr: { base: 0x3000n, limit: 0xfff },
    gdtr: { base: 0x4000n, limit: 0x7f },
    efer: 0xd01n,
    cr0: 0x80000031n,
    cr3: 0x5000n,
    cr4: 0x20n,
    pat: 0x7040600070406n,
  });
  expect(registers.gprs[4]).toBe(0x2000n);
});
