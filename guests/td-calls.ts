/** What many guest programs of a TD do: calls to the host, loads, stores, and mappings of one physical page at another address. */
import { at, r10, r11, r12, r13, r14, rax, rbx, rcx } from './asm.ts';
import { AT, TDCALL_BYTES, type TdGuest } from './td.ts';

export const SHARED = 1n << 47n;
export const VMCALL_MASK = 0xffccn;
/** TDG.VP.VMCALL for sub-function `code`: R10, R11 to result words from `slot` on. */
export const vmcall = (
  { a }: TdGuest,
  code: number,
  operands: readonly bigint[],
  slot: number,
  mask = VMCALL_MASK & ~0x20n,
): void => {
  for (const [k, register] of [r12, r13, r14].entries()) a.movabs(register, operands[k] ?? 0n);
  a.movabs(r10, 0n);
  a.movabs(r11, BigInt(code));
  a.movabs(rcx, mask);
  a.movabs(rax, 0n);
  a.db(...TDCALL_BYTES);
  for (const [k, register] of [rax, r10, r11, r12, r13].entries())
    a.mov(at({ disp: AT.results + (slot + k) * 8 }), register);
};
export const load = ({ a }: TdGuest, address: bigint): void => {
  a.movabs(rbx, address);
  a.mov(rax, at({ base: rbx }));
};
export const store = ({ a }: TdGuest, address: bigint, value: bigint): void => {
  a.movabs(rbx, address);
  a.movabs(rax, value);
  a.mov(at({ base: rbx }), rax);
};
/** Maps linear 1 GiB to these physical addresses, with 2 MiB pages. */
const LINEAR = 0x4000_0000;
export const mapAt = (guest: TdGuest, slot: number, physical: bigint): void => {
  store(guest, BigInt(AT.tables + 0x3000 + slot * 8), physical | 0xe3n);
  guest.a.movFromControl(rax, 3);
  guest.a.movToControl(3, rax);
};
export const linear = (slot: number, offset = 0): bigint => BigInt(LINEAR + slot * 0x20_0000 + offset);
