import { beforeEach, describe, expect, test } from 'vitest';
import { x86Defs, x86Routines } from '../all.ts';
import { CPU, GDTR, SEG, TR, segField } from '../layout.ts';
import { freshRegisters, OneInstruction, type Outcome } from '../one-instruction.ts';
import { EFER } from '../registers.ts';

const cpu = new OneInstruction(x86Defs, x86Routines, ['syscall']);
const NO_DATA = new Uint8Array(0);
const [AMD, INTEL] = [0, 1];
const GP = 13;

const gdt = (index: number): number =>
  cpu.host(Number(cpu.view.getBigUint64(cpu.cpu + segField(GDTR, SEG.base), true))) + index * 8;

function run(code: readonly number[], gpr: Readonly<Record<number, bigint>>): Outcome {
  const registers = freshRegisters();
  for (const [n, value] of Object.entries(gpr)) registers.gpr[Number(n)] = value;
  return cpu.run(code, registers, NO_DATA);
}

describe('LTR in long mode', () => {
  const available = (index: number): void => {
    cpu.view.setBigUint64(gdt(index), 0x0000_8900_0000_0067n, true);
    cpu.view.setBigUint64(gdt(index + 1), 0n, true);
  };
  const ltr = (selector: number): Outcome => run([0x0f, 0x00, 0xd8], { 0: BigInt(selector) });

  test('takes a descriptor of 16 bytes', () => {
    available(4);
    expect(ltr(0x20).vector).toBe(-1);
    expect(cpu.view.getUint32(cpu.cpu + segField(TR, SEG.selector), true)).toBe(0x20);
    // Busy now.
    expect(ltr(0x20).vector).toBe(GP);
  });

  test('raises #GP when the table ends in the middle of it', () => {
    cpu.view.setUint32(cpu.cpu + segField(GDTR, SEG.limit), 0x3f, true);
    available(7);
    expect(ltr(0x38).vector).toBe(GP);
    cpu.view.setUint32(cpu.cpu + segField(GDTR, SEG.limit), 0xff, true);
    expect(ltr(0x38).vector).toBe(-1);
  });
});

describe('SYSRET to an address that is not canonical', () => {
  const sysret = (vendor: number): Outcome => {
    cpu.view.setUint32(cpu.cpu + CPU.vendor, vendor, true);
    return run([0x48, 0x0f, 0x07], { 1: 1n << 47n, 11: 2n });
  };
  beforeEach(() => {
    cpu.view.setUint32(cpu.cpu + CPU.efer, EFER.LME | EFER.LMA | EFER.SCE, true);
    cpu.view.setUint32(cpu.cpu + CPU.cpl, 0, true);
  });

  test('raises #GP at privilege level 0 on Intel', () => {
    expect(sysret(INTEL).vector).toBe(GP);
  });

  test('goes there on AMD: the fetch raises it', () => {
    sysret(AMD);
    expect(cpu.view.getUint32(cpu.cpu + CPU.cpl, true)).toBe(3);
    expect(cpu.view.getBigUint64(cpu.cpu + CPU.rip, true)).toBe(1n << 47n);
  });
});
