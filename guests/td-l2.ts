/** Guest programs of two levels: L1 makes an L2 VM in 64-bit mode on the same page tables, enters it and notes its exits. */
import { TDG } from '../src/abi/tdx/leaves.ts';
import { L2_ENTER_GUEST_STATE } from '../src/abi/tdx/l2.ts';
import { at, rax, rbx, rcx, rdi, rdx, rsi, r8, r9, r11, r12, r13 } from './asm.ts';
import { AT, TDCALL_BYTES, type TdGuest } from './td.ts';

/** Private pages for the L2 VM, in the scratch area. */
export const L2 = {
  state: AT.scratch,
  apic: AT.scratch + 0x1000,
  stack: AT.scratch + 0x4000,
} as const;

const VM1 = 1n << 52n;
/** Identifier of an L2 VMCS field of VM 1, of an MSR bitmap word, and of L2_CTLS. */
export const l2Vmcs = (encoding: number): bigint => (36n << 56n) | (2n << 52n) | BigInt(encoding);
export const l2MsrWord = (qword: number): bigint => (37n << 56n) | (2n << 52n) | BigInt(qword);
export const L2_CTLS_ID = 0xa020_0003_0000_0051n;
export const L2_DEADLINE_ID = 0xa020_0003_0000_0059n;

const ALL = 0xffff_ffff_ffff_ffffn;

/** TDG.VP.WR; the status goes to no result. */
export function vpWr({ a }: TdGuest, id: bigint, value: bigint, mask = ALL): void {
  a.movabs(rcx, 0n);
  a.movabs(rdx, id);
  a.movabs(r8, value);
  a.movabs(r9, mask);
  a.movabs(rax, BigInt(TDG.vpWr));
  a.db(...TDCALL_BYTES);
}

/** RWX for VM 1 on every 4 KiB page below `end`. */
export function shareWithL2({ a }: TdGuest, name: string, start: number, end: number): void {
  a.mov(rbx, start);
  a.label(name);
  a.mov(rcx, rbx);
  a.movabs(rdx, 0xf_0000n);
  a.movabs(r8, 0xf_0000n);
  a.movabs(rax, BigInt(TDG.memPageAttrWr));
  a.db(...TDCALL_BYTES);
  a.alu('add', rbx, 4096);
  a.alu('cmp', rbx, end);
  a.jcc('b', name);
}

/** VMCS fields of a 64-bit L2 VM at CPL 0 that starts at `entry`; then its state page. */
export function prepareL2(guest: TdGuest, entry: string): void {
  const { a } = guest;
  const wr = (encoding: number, value: bigint): void => vpWr(guest, l2Vmcs(encoding), value);
  wr(0x2012, BigInt(L2.apic));
  wr(0x6800, 0x8000_0021n & 0x8005_001fn);
  wr(0x6802, BigInt(AT.tables));
  wr(0x6804, 0x60n);
  wr(0x2806, 0x501n);
  wr(0x4012, 1n << 9n);
  // CS, then the data segments.
  wr(0x802, 0x10n);
  wr(0x4816, 0xa09bn);
  for (const n of [0, 2, 3]) {
    wr(0x800 + n * 2, 0x18n);
    wr(0x4814 + n * 2, 0xc093n);
  }
  wr(0x6816, BigInt(AT.gdt));
  wr(0x4810, 0x27n);
  wr(0x6818, BigInt(AT.idt));
  wr(0x4812, 0xfffn);
  a.mov(rbx, L2.state);
  a.lea(rax, at({ disp: entry }));
  a.mov(at({ base: rbx, disp: L2_ENTER_GUEST_STATE.offsetOf('rip') }), rax);
  a.mov(rax, 2);
  a.mov(at({ base: rbx, disp: L2_ENTER_GUEST_STATE.offsetOf('rflags') }), rax);
  a.mov(rax, L2.stack);
  a.mov(at({ base: rbx, disp: 4 * 8 }), rax);
}

/** TDG.VP.ENTER; RAX RCX RDX R8 R9 R11 R12 R13 RSI RDI go to result words from `slot` on. */
export function enterL2({ a }: TdGuest, slot: number, flags = 0n, state: bigint = BigInt(L2.state)): void {
  a.movabs(rcx, VM1 | flags);
  a.movabs(rdx, state);
  a.movabs(rax, BigInt(TDG.vpEnter));
  a.db(...TDCALL_BYTES);
  for (const [k, register] of [rax, rcx, rdx, r8, r9, r11, r12, r13, rsi, rdi].entries())
    a.mov(at({ disp: AT.results + (slot + k) * 8 }), register);
}

/** Moves the L2 VM's RIP in the state page by `bytes`. */
export function skipL2({ a }: TdGuest, bytes: number): void {
  a.mov(rbx, L2.state + L2_ENTER_GUEST_STATE.offsetOf('rip'));
  a.aluMem('add', 8, at({ base: rbx }), bytes);
}
