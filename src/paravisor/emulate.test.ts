import { beforeEach, describe, expect, test } from 'vitest';
import { REGISTER, type RegisterValue } from '../abi/hyperv/registers.ts';
import { highHalf, lowHalf } from '../abi/record.ts';
import type { HostView } from '../seats/host-view.ts';
import { x86Defs } from '../x86/all.ts';
import { buildOpcodeTable } from '../x86/encoding.ts';
import { decodeAccess, finishAccess, valueToWrite, type Access } from './emulate.ts';
import { getRegister } from './guest-registers.ts';
import { translate } from './walk.ts';

const table = buildOpcodeTable(x86Defs);
const memory = new Uint8Array(0x10000);
const registers = new Map<number, RegisterValue>();
const view: HostView = {
  read: (gpa, length) =>
    gpa + length <= memory.length
      ? { ok: true, bytes: memory.slice(gpa, gpa + length) }
      : { ok: false, reason: 'unmapped' },
  write: (gpa, bytes) => {
    memory.set(bytes, gpa);
    return { ok: true };
  },
  overlay: () => ({ ok: false, reason: 'unsupported' }),
  getRegister: (_vp, name) => registers.get(name),
  setRegister: (_vp, name, value) => void registers.set(name, value) === undefined,
};
const set = (name: number, value: bigint): void =>
  void registers.set(name, [lowHalf(value), highHalf(value), 0, 0]);
const get = (name: number): bigint => getRegister(view, 0, name);

const RIP = 0x8000n;

beforeEach(() => {
  memory.fill(0);
  registers.clear();
  // 64-bit code with paging off is no mode of a processor; the emulator asks for bits, and addresses are physical so.
  set(REGISTER.cr0, 1n);
  set(REGISTER.efer, 1n << 10n);
  registers.set(REGISTER.cs, [0, 0, 0, (0x2000 << 16) >>> 0]);
  set(REGISTER.rip, RIP);
  set(REGISTER.rflags, 2n);
});

function access(bytes: readonly number[], isWrite = false): Access {
  memory.set(bytes, Number(RIP));
  const found = decodeAccess(table, view, 0, isWrite);
  if (found === undefined) throw new Error('not decoded');
  return found;
}

describe('decodeAccess', () => {
  test('a store takes as much of the register as it writes', () => {
    set(REGISTER.rax, 0x1122_3344_5566_7788n);
    // mov [rbx], eax; mov [rbx], ah; mov word [rbx], 0x1234
    expect(access([0x89, 0x03])).toMatchObject({ size: 4, write: true, value: 0x5566_7788n, length: 2 });
    expect(access([0x88, 0x23])).toMatchObject({ size: 1, value: 0x77n });
    expect(access([0x66, 0xc7, 0x03, 0x34, 0x12])).toMatchObject({ size: 2, value: 0x1234n, length: 5 });
  });

  test('an instruction without memory, and one that nobody emulates, are none', () => {
    memory.set([0x89, 0xc3], Number(RIP));
    expect(decodeAccess(table, view, 0, false)).toBeUndefined();
    // divps xmm0, [rbx]
    memory.set([0x0f, 0x5e, 0x03], Number(RIP));
    expect(decodeAccess(table, view, 0, false)).toBeUndefined();
  });
});

describe('finishAccess', () => {
  test('a 32-bit load clears the upper half, a narrower one keeps it', () => {
    set(REGISTER.rax, 0x1122_3344_5566_7788n);
    finishAccess(view, 0, access([0x8a, 0x03]), 0xffff_ffff, 0);
    expect([get(REGISTER.rax), get(REGISTER.rip)]).toEqual([0x1122_3344_5566_77ffn, RIP + 2n]);
    set(REGISTER.rip, RIP);
    finishAccess(view, 0, access([0x8b, 0x03]), 0x8765_4321, 0);
    expect(get(REGISTER.rax)).toBe(0x8765_4321n);
  });

  test('extensions', () => {
    // movzx eax, byte [rbx]; movsx rax, byte [rbx]
    finishAccess(view, 0, access([0x0f, 0xb6, 0x03]), 0xff80, 0);
    expect(get(REGISTER.rax)).toBe(0x80n);
    set(REGISTER.rip, RIP);
    finishAccess(view, 0, access([0x48, 0x0f, 0xbe, 0x03]), 0x80, 0);
    expect(get(REGISTER.rax)).toBe(0xffff_ffff_ffff_ff80n);
  });

  test('read, modify, write: the device gets the result, the guest the flags', () => {
    // and dword [rbx], 0xf0
    const found = access([0x81, 0x23, 0xf0, 0, 0, 0]);
    expect(found).toMatchObject({ read: true, write: true });
    expect(valueToWrite(found, 0x0f, 0)).toBe(0n);
    finishAccess(view, 0, found, 0x0f, 0);
    // ZF and PF.
    expect(get(REGISTER.rflags)).toBe(2n | 0x44n);
  });

  test('comparison: borrow and overflow', () => {
    // cmp byte [rbx], 1 with 0 and with 0x80
    finishAccess(view, 0, access([0x80, 0x3b, 0x01]), 0, 0);
    expect(get(REGISTER.rflags)).toBe(2n | 0x95n);
    set(REGISTER.rip, RIP);
    finishAccess(view, 0, access([0x80, 0x3b, 0x01]), 0x80, 0);
    expect(get(REGISTER.rflags)).toBe(2n | 0x810n);
  });

  test('a repeated string instruction stays until its count is used up', () => {
    set(REGISTER.rcx, 2n);
    set(REGISTER.rdi, 0x100n);
    set(REGISTER.rsi, 0x9000n);
    // rep movsb from a device
    finishAccess(view, 0, access([0xf3, 0xa4], false), 0x41, 0);
    expect([get(REGISTER.rcx), get(REGISTER.rdi), get(REGISTER.rip)]).toEqual([1n, 0x101n, RIP]);
    finishAccess(view, 0, access([0xf3, 0xa4], false), 0x42, 0);
    expect([get(REGISTER.rcx), get(REGISTER.rip)]).toEqual([0n, RIP + 2n]);
    expect([...memory.slice(0x100, 0x102)]).toEqual([0x41, 0x42]);
  });

  test('INS puts what the port gave into memory, OUTS takes what is there', () => {
    set(REGISTER.rcx, 2n);
    set(REGISTER.rdi, 0x200n);
    // rep insd, which REX.W does not widen
    const found = access([0xf3, 0x48, 0x6d]);
    expect(found).toMatchObject({ size: 4, read: true, write: false });
    finishAccess(view, 0, found, 0x4433_2211, 0);
    expect([get(REGISTER.rcx), get(REGISTER.rdi), get(REGISTER.rip)]).toEqual([1n, 0x204n, RIP]);
    expect([...memory.slice(0x200, 0x205)]).toEqual([0x11, 0x22, 0x33, 0x44, 0]);
    set(REGISTER.rsi, 0x201n);
    // outsw
    const out = access([0x66, 0x6f]);
    expect(out).toMatchObject({ size: 2, write: true, value: 0x3322n });
    finishAccess(view, 0, out, 0, 0);
    expect([get(REGISTER.rsi), get(REGISTER.rcx), get(REGISTER.rip)]).toEqual([0x203n, 1n, RIP + 2n]);
  });

  test('exchange gives the device the register and the register what was there', () => {
    set(REGISTER.rax, 7n);
    const found = access([0x87, 0x03]);
    expect(valueToWrite(found, 9, 0)).toBe(7n);
    finishAccess(view, 0, found, 9, 0);
    expect(get(REGISTER.rax)).toBe(9n);
  });
});

describe('translate', () => {
  const entry = (at: number, value: bigint): void =>
    new DataView(memory.buffer).setBigUint64(at, value, true);
  test('four levels, a large page, and one that is not there', () => {
    set(REGISTER.cr0, 0x8000_0001n);
    set(REGISTER.cr4, 1n << 5n);
    set(REGISTER.cr3, 0x1000n);
    entry(0x1000, 0x2003n);
    entry(0x2000, 0x3003n);
    entry(0x3000, 0x4003n);
    entry(0x3008, (1n << 46n) | 0x4020_0083n);
    entry(0x4008, 0x5000n | 3n);
    expect(translate(view, 0, 0x1234n)).toBe(0x5234n);
    expect(translate(view, 0, 0x20_0678n)).toBe((1n << 46n) | 0x4020_0678n);
    expect(translate(view, 0, 0x2000n)).toBeUndefined();
  });

  test('32-bit tables', () => {
    set(REGISTER.cr0, 0x8000_0001n);
    set(REGISTER.efer, 0n);
    set(REGISTER.cr4, 1n << 4n);
    set(REGISTER.cr3, 0x1000n);
    const view32 = new DataView(memory.buffer);
    view32.setUint32(0x1004, 0x2003, true);
    view32.setUint32(0x2004, 0x7003, true);
    view32.setUint32(0x1008, 0x00c0_0083, true);
    expect(translate(view, 0, 0x40_1abcn)).toBe(0x7abcn);
    expect(translate(view, 0, 0x80_0abcn)).toBe(0xc0_0abcn);
  });
});
