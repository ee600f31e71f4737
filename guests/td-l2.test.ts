/**
 * Rules of TD partitioning, each with a small program at L1 and one in an L2 VM. Sections: Intel TDX Module 1.5 TD Partitioning
 * Architecture (354807) and ABI (344551) specifications.
 */
import { describe, expect, it } from 'vitest';
import { addVector } from '../src/chipset/vector-set.ts';
import { ENTRY_FAILURE, EXIT_REASON, EXTENDED_EPT } from '../src/abi/tdx/exit-reasons.ts';
import { TDVMCALL, TDVMCALL_STATUS } from '../src/abi/tdx/ghci.ts';
import { L2_CTL, L2_ENTER_GUEST_STATE } from '../src/abi/tdx/l2.ts';
import { TDG } from '../src/abi/tdx/leaves.ts';
import { OPERAND, status, statusCode, STATUS } from '../src/abi/tdx/status.ts';
import type { Platform } from '../src/machine/machine.ts';
import type { TdxHostState } from '../src/host/tdx/host.ts';
import { at, eax, ecx, edx, r10, r11, r12, rax, rbx, rcx, rdx, rsi } from './asm.ts';
import { linear, load, mapAt, SHARED, store, vmcall } from './td-calls.ts';
import {
  enterL2,
  L2,
  L2_CTLS_ID,
  L2_DEADLINE_ID,
  l2MsrWord,
  l2Vmcs,
  prepareL2,
  shareWithL2,
  skipL2,
  vpWr,
} from './td-l2.ts';
import { AT, ENGINES, NOTE, runTd, TDCALL_BYTES, type TdGuest, type TdOptions, type TdRun } from './td.ts';

interface Rule {
  readonly rule: string;
  readonly section: string;
  readonly options?: TdOptions;
  /** Between preparation and entry, at L1. */
  readonly l1: (guest: TdGuest) => void;
  /** The L2 VM's program. */
  readonly l2?: (guest: TdGuest) => void;
  readonly check: (run: TdRun) => void;
}

const VM1 = 1n << 52n;
const reasonOf = (word: bigint): number => Number(word & 0xffff_ffffn);
/** Slots of enterL2's results. */
const R = { rax: 0, rcx: 1, rdx: 2, r8: 3, r9: 4, r11: 5, r12: 6, r13: 7, rsi: 8, rdi: 9 } as const;
const FREE = BigInt(AT.free);

const exits = (run: TdRun, slot: number, reason: number, code: number = STATUS.success): void => {
  expect([statusCode(run.word(slot)), reasonOf(run.word(slot))]).toEqual([code, reason]);
};
const setState = ({ a }: TdGuest, field: 'rflags' | 'rvi', value: number): void => {
  a.mov(rbx, L2.state + L2_ENTER_GUEST_STATE.offsetOf(field));
  a.movMem(field === 'rvi' ? 1 : 8, at({ base: rbx }), value);
};
const gpr = ({ a }: TdGuest, n: number, slot: number): void => {
  a.mov(rax, at({ disp: L2.state + n * 8 }));
  a.mov(at({ disp: AT.results + slot * 8 }), rax);
};
const tdvmcall = ({ a }: TdGuest): void => {
  a.movabs(r10, 0n);
  a.movabs(r11, BigInt(TDVMCALL.getTdVmCallInfo));
  a.movabs(r12, 0n);
  a.movabs(rcx, 0x3c00n);
  a.movabs(rax, 0n);
  a.db(...TDCALL_BYTES);
};

/** A host that gives L1 the turn after a call of an L2 VM. */
const resumesL1 = (platform: Platform): Platform => ({
  ...platform,
  get state() {
    return platform.state;
  },
  exit(vp, exit, world) {
    const step = platform.exit(vp, exit, world);
    const fromL2 = exit.kind === 'td-exit' && (((exit.registers[1] ?? 0n) >> 52n) & 3n) !== 0n;
    if (step.completion.kind !== 'td-enter' || !fromL2) return step;
    return { ...step, completion: { ...step.completion, resumeL1: true } };
  },
});
/** The VM begins again. */
const restart = ({ a }: TdGuest): void => {
  a.lea(rax, at({ disp: 'l2' }));
  a.mov(at({ disp: L2.state + L2_ENTER_GUEST_STATE.offsetOf('rip') }), rax);
};
const BLOCK = 2n << 20n;

const RULES: readonly Rule[] = [
  {
    rule: 'TDG.VP.ENTER: VM, reserved bits, alignment and privacy of the state page are checked',
    section: 'ABI, TDG.VP.ENTER',
    l1: ({ tdcall }) => {
      const rdx = BigInt(L2.state);
      tdcall(TDG.vpEnter, { rcx: 0n, rdx }, 0);
      tdcall(TDG.vpEnter, { rcx: 2n << 52n, rdx }, 8);
      tdcall(TDG.vpEnter, { rcx: VM1 | 4n, rdx }, 16);
      tdcall(TDG.vpEnter, { rcx: VM1 | (1n << 54n), rdx }, 24);
      tdcall(TDG.vpEnter, { rcx: VM1, rdx: rdx + 8n }, 32);
      tdcall(TDG.vpEnter, { rcx: VM1, rdx: rdx | (1n << 47n) }, 40);
    },
    check: ({ word }) => {
      for (const slot of [0, 8, 16, 24]) expect(word(slot)).toBe(status(STATUS.operandInvalid, OPERAND.rcx));
      for (const slot of [32, 40]) expect(word(slot)).toBe(status(STATUS.operandInvalid, OPERAND.rdx));
    },
  },
  {
    rule: 'without a virtual-APIC page a VM is not entered',
    section: 'ABI, TDG.VP.ENTER',
    options: { l2Vms: 2 },
    l1: ({ tdcall }) => tdcall(TDG.vpEnter, { rcx: 2n << 52n, rdx: BigInt(L2.state) }, 0),
    check: ({ word }) => expect(word(0)).toBe(status(STATUS.operandInvalid, OPERAND.l2VapicGpa)),
  },
  {
    rule: 'an interrupt that L1 could take keeps it from entering',
    section: 'ABI, TDG.VP.ENTER, PENDING_INTERRUPT',
    l1: (guest) => {
      const { a } = guest;
      a.mov(ecx, 0x83f);
      a.mov(eax, 0x55);
      a.alu('xor', edx, edx);
      a.wrmsr();
      enterL2(guest, 0);
    },
    check: (run) => expect(statusCode(run.word(0))).toBe(STATUS.pendingInterrupt),
  },
  {
    rule: 'instructions leave for L1 with reason, length and qualification, and never as #VE',
    section: 'Partitioning, table of L2 VM exits',
    l1: (guest) => {
      const lengths = [2, 1, 2, 3, 2, 2];
      for (const [k, length] of lengths.entries()) {
        enterL2(guest, k * 10);
        skipL2(guest, length);
      }
      guest.note(NOTE.ve, 60);
    },
    l2: ({ a }) => {
      a.db(0x0f, 0xa2, 0xf4, 0xe4, 0x71, 0x0f, 0x01, 0xc1, 0x0f, 0x32, 0x0f, 0x09);
    },
    check: (run) => {
      const reasons = [
        EXIT_REASON.cpuid,
        EXIT_REASON.hlt,
        EXIT_REASON.io,
        EXIT_REASON.vmcall,
        EXIT_REASON.rdmsr,
        EXIT_REASON.wbinvd,
      ];
      for (const [k, reason] of reasons.entries()) exits(run, k * 10, reason);
      expect([0, 1, 2, 3, 4, 5].map((k) => run.word(k * 10 + R.r11) >> 32n)).toEqual([
        2n,
        1n,
        2n,
        3n,
        2n,
        2n,
      ]);
      expect(run.word(20 + R.rcx)).toBe(0x71_0008n);
      // CS: selector, access rights and limit.
      expect(run.word(R.rsi)).toBe(0xffff_ffff_a09b_0010n);
      expect(run.word(60)).toBe(0n);
    },
  },
  {
    rule: 'a private page without an alias is an EPT violation for L1, with its address; rights are checked one by one',
    section: 'Partitioning, "L2 SEPT"',
    l1: (guest) => {
      const { tdcall } = guest;
      // Readable only.
      tdcall(TDG.memPageAttrWr, { rcx: BigInt(AT.scratch + 0x5000), rdx: 1n << 16n, r8: 0x800f_0000n }, 40);
      enterL2(guest, 0);
      skipL2(guest, 8);
      enterL2(guest, 10);
    },
    l2: ({ a }) => {
      a.mov(rax, at({ disp: 0x3_0010 }));
      a.mov(rax, at({ disp: AT.scratch + 0x5000 }));
      a.mov(at({ disp: AT.scratch + 0x5008 }), rax);
    },
    check: (run) => {
      // 0x30010 is memory that L1 has not been given either: the host is asked, adds it, and L1 finds it pending.
      exits(run, 0, EXIT_REASON.eptViolation);
      expect(run.word(R.r8)).toBe(0x3_0010n);
      expect(run.word(R.rdx)).toBe(0x3_0010n);
      expect(run.word(R.r13)).toBe(BigInt(EXTENDED_EPT.pending));
      exits(run, 10, EXIT_REASON.eptViolation);
      expect(run.word(10 + R.r8)).toBe(BigInt(AT.scratch + 0x5008));
      expect(run.word(10 + R.rcx) & 3n).toBe(2n);
      expect(run.word(10 + R.r13)).toBe(0n);
    },
  },
  {
    rule: 'a private address behind which nothing is goes to the host, which lets L1 have it',
    section: 'Partitioning, RESUME_L1',
    l1: (guest) => enterL2(guest, 0),
    l2: ({ a }) => {
      a.movabs(rbx, 0xfec0_0000n);
      a.mov(eax, at({ base: rbx, disp: 0x10 }));
    },
    check: (run) => {
      exits(run, 0, EXIT_REASON.eptViolation, STATUS.l2ExitHostRoutedAsync);
      expect(run.word(R.r8)).toBe(0xfec0_0010n);
      expect(run.word(R.rdx)).toBe(0xfec0_0010n);
    },
  },
  {
    rule: 'TDG.VP.VMCALL of an L2 VM reaches the host only where L1 allows it; other leaves never do',
    section: 'Partitioning, L2_CTLS',
    l1: (guest) => {
      enterL2(guest, 0);
      vpWr(guest, L2_CTLS_ID, L2_CTL.enableTdvmcall);
      enterL2(guest, 10);
      gpr(guest, 10, 20);
      skipL2(guest, 1);
      enterL2(guest, 30);
    },
    l2: (guest) => {
      const { a } = guest;
      tdvmcall(guest);
      a.hlt();
      a.movabs(rax, BigInt(TDG.vpInfo));
      a.db(...TDCALL_BYTES);
    },
    check: (run) => {
      exits(run, 0, EXIT_REASON.tdcall);
      exits(run, 10, EXIT_REASON.hlt);
      expect(run.word(20)).toBe(TDVMCALL_STATUS.success);
      exits(run, 30, EXIT_REASON.tdcall);
    },
  },
  {
    rule: 'MSR bitmaps: a register that L1 lets through stays in the processor, TPR is that of the virtual-APIC page',
    section: 'Partitioning, "L2 MSR bitmaps"',
    l1: (guest) => {
      enterL2(guest, 0);
      // LSTAR (0xC0000082) read and write; x2APIC TPR (0x808) write.
      for (const qword of [128 + 2, 384 + 2]) vpWr(guest, l2MsrWord(qword), 0n, 4n);
      vpWr(guest, l2MsrWord(256 + 0x20), 0n, 0x100n);
      enterL2(guest, 10);
      gpr(guest, 0, 20);
      guest.a.mov(rbx, L2.apic + 0x80);
      guest.a.mov(eax, at({ base: rbx }));
      guest.result(21, rax);
    },
    l2: ({ a }) => {
      a.mov(ecx, 0xc000_0082 | 0);
      a.mov(eax, 0x1234);
      a.alu('xor', edx, edx);
      a.wrmsr();
      a.mov(ecx, 0x808);
      a.mov(eax, 0x50);
      a.wrmsr();
      a.mov(ecx, 0xc000_0082 | 0);
      a.rdmsr();
      a.hlt();
    },
    check: (run) => {
      exits(run, 0, EXIT_REASON.wrmsr);
      exits(run, 10, EXIT_REASON.hlt);
      expect(run.word(20)).toBe(0x1234n);
      expect(run.word(21)).toBe(0x50n);
    },
  },
  {
    rule: 'CR0: bits that L1 owns are read from its shadow, and a write that differs leaves with the register number',
    section: 'Partitioning, "CR0 and CR4"; SDM vol. 3, 25.6.6',
    l1: (guest) => {
      vpWr(guest, l2Vmcs(0x6000), 0x28n);
      vpWr(guest, l2Vmcs(0x6004), 0x0n);
      enterL2(guest, 0);
      gpr(guest, 3, 10);
    },
    l2: ({ a }) => {
      a.movFromControl(rbx, 0);
      a.mov(rdx, rbx);
      a.alu('or', rdx, 8);
      a.movToControl(0, rdx);
    },
    check: (run) => {
      exits(run, 0, EXIT_REASON.controlRegister);
      expect(run.word(R.rcx)).toBe(0x200n);
      // NE is set in the register and clear in the shadow.
      expect(run.word(10) & 0x20n).toBe(0n);
    },
  },
  {
    rule: 'exceptions of the bitmap leave for L1 with vector and type; others go through the VM itself',
    section: 'SDM vol. 3, 26.2',
    l1: (guest) => {
      vpWr(guest, l2Vmcs(0x4004), 1n << 6n);
      enterL2(guest, 0);
      guest.note(NOTE.ud, 10);
    },
    l2: ({ a }) => {
      a.db(0x0f, 0x0b);
    },
    check: (run) => {
      exits(run, 0, EXIT_REASON.exceptionOrNmi);
      expect(run.word(R.r9) & 0xffff_ffffn).toBe(0x8000_0306n);
      expect(run.word(10)).toBe(0n);
    },
  },
  {
    rule: 'event injection goes through the VM, and an interrupt window leaves once IF is set',
    section: 'SDM vol. 3, 27.6 and 26.2',
    l1: (guest) => {
      setState(guest, 'rflags', 0x202);
      vpWr(guest, l2Vmcs(0x4016), 0x8000_0060n);
      // The handler's EOI leaves, since L1 wants all MSRs.
      enterL2(guest, 0);
      skipL2(guest, 2);
      vpWr(guest, l2Vmcs(0x4002), 4n, 4n);
      enterL2(guest, 10);
    },
    l2: (guest) => {
      const { a } = guest;
      a.hlt();
    },
    check: (run) => {
      exits(run, 0, EXIT_REASON.wrmsr);
      exits(run, 10, EXIT_REASON.interruptWindow);
    },
  },
  {
    rule: 'an event that the VM could not take is a failed entry, and stays there to be injected',
    section: 'SDM vol. 3, 27.3.1.4 and 27.3.1.5',
    l1: (guest) => {
      vpWr(guest, l2Vmcs(0x4016), 0x8000_0060n);
      enterL2(guest, 0);
      setState(guest, 'rflags', 0x202);
      vpWr(guest, l2Vmcs(0x4824), 1n);
      enterL2(guest, 10);
      vpWr(guest, l2Vmcs(0x4824), 8n);
      vpWr(guest, l2Vmcs(0x4016), 0x8000_0202n);
      enterL2(guest, 20);
      vpWr(guest, l2Vmcs(0x4824), 0n);
      vpWr(guest, l2Vmcs(0x4016), 0x8000_0060n);
      enterL2(guest, 30);
      guest.note(NOTE.interrupts, 40);
      guest.tdcall(TDG.vpRd, { rcx: 0n, rdx: l2Vmcs(0x4016) }, 50);
    },
    check: (run) => {
      for (const slot of [0, 10, 20]) exits(run, slot, (ENTRY_FAILURE + EXIT_REASON.entryFailureState) >>> 0);
      // The handler's EOI.
      exits(run, 30, EXIT_REASON.wrmsr);
      expect(run.word(40)).toBe(1n);
      expect(run.word(53)).toBe(0x60n);
    },
  },
  {
    rule: "RDTSC, RDTSCP and RDPMC leave for L1 where it wants them, and RDTSC is the processor's otherwise",
    section: 'Partitioning, "L2 VMCS", processor-based controls; SDM vol. 3, 25.6.2',
    l1: (guest) => {
      enterL2(guest, 0);
      skipL2(guest, 1);
      vpWr(guest, l2Vmcs(0x4002), 0x1800n, 0x1800n);
      enterL2(guest, 10);
      skipL2(guest, 2);
      enterL2(guest, 20);
      skipL2(guest, 3);
      enterL2(guest, 30);
    },
    l2: ({ a }) => {
      a.db(0x0f, 0x31, 0xf4);
      a.db(0x0f, 0x31, 0x0f, 0x01, 0xf9, 0x0f, 0x33);
    },
    check: (run) => {
      exits(run, 0, EXIT_REASON.hlt);
      exits(run, 10, EXIT_REASON.rdtsc);
      exits(run, 20, EXIT_REASON.rdtscp);
      expect(run.word(20 + R.r11) >> 32n).toBe(3n);
      exits(run, 30, EXIT_REASON.rdpmc);
    },
  },
  {
    rule: 'MOV DR leaves for L1 where it wants it, with register, direction and general register',
    section: 'Partitioning, "L2 VMCS", processor-based controls; SDM vol. 3, table 28-4',
    l1: (guest) => {
      enterL2(guest, 0);
      skipL2(guest, 1);
      vpWr(guest, l2Vmcs(0x4002), 1n << 23n, 1n << 23n);
      enterL2(guest, 10);
      skipL2(guest, 3);
      enterL2(guest, 20);
    },
    l2: ({ a }) => {
      a.db(0x0f, 0x21, 0xd8, 0xf4); // mov rax, dr3; hlt
      a.db(0x0f, 0x21, 0xda); // mov rdx, dr3
      a.db(0x0f, 0x23, 0xf9); // mov dr7, rcx
    },
    check: (run) => {
      exits(run, 0, EXIT_REASON.hlt);
      exits(run, 10, EXIT_REASON.debugRegister);
      expect(run.word(10 + R.rcx)).toBe(0x213n);
      exits(run, 20, EXIT_REASON.debugRegister);
      expect(run.word(20 + R.rcx)).toBe(0x107n);
    },
  },
  {
    rule: 'CR8 is the task priority of the virtual-APIC page; where L1 wants loads or stores they leave with the general register',
    section: 'SDM vol. 3, 30.3 and table 28-3',
    l1: (guest) => {
      enterL2(guest, 0);
      skipL2(guest, 1);
      guest.a.mov(rbx, L2.apic + 0x80);
      guest.a.mov(eax, at({ base: rbx }));
      guest.result(40, rax);
      vpWr(guest, l2Vmcs(0x4002), 3n << 19n, 3n << 19n);
      enterL2(guest, 10);
      skipL2(guest, 4);
      enterL2(guest, 20);
    },
    l2: ({ a }) => {
      a.mov(rax, 6);
      a.db(0x44, 0x0f, 0x22, 0xc0, 0xf4); // mov cr8, rax; hlt
      a.db(0x44, 0x0f, 0x22, 0xc2); // mov cr8, rdx
      a.db(0x44, 0x0f, 0x20, 0xc3); // mov rbx, cr8
    },
    check: (run) => {
      exits(run, 0, EXIT_REASON.hlt);
      expect(run.word(40)).toBe(0x60n);
      exits(run, 10, EXIT_REASON.controlRegister);
      expect(run.word(10 + R.rcx)).toBe(0x208n);
      exits(run, 20, EXIT_REASON.controlRegister);
      expect(run.word(20 + R.rcx)).toBe(0x318n);
    },
  },
  {
    rule: "a task priority below L1's threshold leaves behind the instruction, where L1 delivers interrupts itself",
    section: 'SDM vol. 3, 30.1.2',
    l1: (guest) => {
      vpWr(guest, l2Vmcs(0x401e), 0n, 1n << 9n);
      vpWr(guest, l2Vmcs(0x401c), 5n, 0xfn);
      enterL2(guest, 0);
      gpr(guest, 3, 20);
      enterL2(guest, 10);
    },
    l2: ({ a }) => {
      a.mov(rbx, 0);
      a.mov(rax, 6);
      a.db(0x44, 0x0f, 0x22, 0xc0);
      a.mov(rbx, 1);
      a.mov(rax, 4);
      a.db(0x44, 0x0f, 0x22, 0xc0, 0xf4);
    },
    check: (run) => {
      exits(run, 0, EXIT_REASON.tprBelowThreshold);
      expect(run.word(20)).toBe(1n);
      exits(run, 10, EXIT_REASON.hlt);
    },
  },
  {
    rule: 'an NMI window leaves as soon as NMIs are not blocked, and not before',
    section: 'SDM vol. 3, 26.2, "NMI-window exiting"',
    l1: (guest) => {
      vpWr(guest, l2Vmcs(0x4002), 1n << 22n, 1n << 22n);
      vpWr(guest, l2Vmcs(0x4824), 8n);
      enterL2(guest, 0);
      vpWr(guest, l2Vmcs(0x4824), 0n);
      enterL2(guest, 10);
      gpr(guest, 3, 20);
    },
    l2: ({ a }) => {
      a.mov(rbx, 1);
      a.hlt();
      a.mov(rbx, 2);
    },
    check: (run) => {
      exits(run, 0, EXIT_REASON.hlt);
      exits(run, 10, EXIT_REASON.nmiWindow);
      expect(run.word(20)).toBe(1n);
    },
  },
  {
    rule: 'TSC_DEADLINE ends the turn of the VM, at once when it has passed and never when there is none',
    section: 'Partitioning, TSC_DEADLINE; SDM vol. 3, 26.5.1',
    l1: (guest) => {
      const { a } = guest;
      vpWr(guest, L2_DEADLINE_ID, 1n);
      enterL2(guest, 0);
      gpr(guest, 3, 30);
      // 20,000 ticks from now on, which is more than L2 has to do before it spins.
      a.db(0x0f, 0x31);
      a.db(0x48, 0xc1, 0xe2, 0x20); // shl rdx, 32
      a.alu('or', rax, rdx);
      a.alu('add', rax, 20_000);
      a.db(0x49, 0x89, 0xc0); // mov r8, rax
      a.movabs(rcx, 0n);
      a.movabs(rdx, L2_DEADLINE_ID);
      a.db(0x49, 0xc7, 0xc1, 0xff, 0xff, 0xff, 0xff); // mov r9, -1
      a.movabs(rax, BigInt(TDG.vpWr));
      a.db(...TDCALL_BYTES);
      enterL2(guest, 10);
      gpr(guest, 3, 31);
      vpWr(guest, L2_DEADLINE_ID, 0xffff_ffff_ffff_ffffn);
      a.mov(rbx, L2.state + 6 * 8);
      a.movMem(8, at({ base: rbx }), 0);
      enterL2(guest, 20);
    },
    l2: ({ a }) => {
      a.mov(rbx, 7);
      a.mov(rsi, 1);
      a.label('wait');
      a.test(rsi, rsi);
      a.jcc('ne', 'wait');
      a.hlt();
    },
    check: (run) => {
      exits(run, 0, EXIT_REASON.preemptionTimer);
      expect(run.word(30)).toBe(0n);
      exits(run, 10, EXIT_REASON.preemptionTimer);
      expect(run.word(31)).toBe(7n);
      exits(run, 20, EXIT_REASON.hlt);
    },
  },
  {
    rule: 'an end of interrupt that L1 wants to know of leaves behind the write, with the vector',
    section: 'SDM vol. 3, 30.1.4',
    l1: (guest) => {
      setState(guest, 'rflags', 0x202);
      setState(guest, 'rvi', 0x61);
      vpWr(guest, l2MsrWord(256 + 0x20), 0n, 1n << 11n);
      vpWr(guest, l2Vmcs(0x201e), 1n << 33n);
      enterL2(guest, 0);
      guest.a.movzx(eax, at({ disp: L2.state + L2_ENTER_GUEST_STATE.offsetOf('svi') }), 1);
      guest.result(20, rax);
      enterL2(guest, 10);
      guest.note(NOTE.interrupts, 21);
    },
    l2: ({ a }) => a.db(0x90, 0xf4),
    check: (run) => {
      exits(run, 0, EXIT_REASON.virtualizedEoi);
      expect(run.word(R.rcx)).toBe(0x61n);
      expect(run.word(20)).toBe(0n);
      exits(run, 10, EXIT_REASON.hlt);
      expect(run.word(21)).toBe(1n);
    },
  },
  {
    rule: 'a call of the VM that the host has answered and then gives L1 the turn: the call is complete',
    section: 'ABI, L2_EXIT_HOST_ROUTED_TDVMCALL',
    options: { platform: resumesL1 },
    l1: (guest) => {
      vpWr(guest, L2_CTLS_ID, L2_CTL.enableTdvmcall);
      enterL2(guest, 0);
      gpr(guest, 0, 20);
      gpr(guest, 10, 21);
      enterL2(guest, 10);
    },
    l2: tdvmcall,
    check: (run) => {
      exits(run, 0, EXIT_REASON.tdcall, STATUS.l2ExitHostRoutedTdvmcall);
      expect([run.word(20), run.word(21)]).toEqual([0n, TDVMCALL_STATUS.success]);
      exits(run, 10, EXIT_REASON.hlt);
    },
  },
  {
    rule: 'a call of the VM with a mask that no TD may use is refused without anybody',
    section: 'ABI, TDG.VP.VMCALL',
    l1: (guest) => {
      vpWr(guest, L2_CTLS_ID, L2_CTL.enableTdvmcall);
      enterL2(guest, 0);
      gpr(guest, 0, 20);
    },
    l2: ({ a }) => {
      a.movabs(rcx, 0x10n);
      a.movabs(rax, 0n);
      a.db(...TDCALL_BYTES);
      a.hlt();
    },
    check: (run) => {
      exits(run, 0, EXIT_REASON.hlt);
      expect(run.word(20)).toBe(status(STATUS.operandInvalid, OPERAND.rcx));
    },
  },
  {
    rule: 'shared memory is there for the VM where L1 allows it, and otherwise the host has the exit and may give it to L1',
    section: 'Partitioning, L2_CTLS.ENABLE_SHARED_EPTP',
    l1: (guest) => {
      vmcall(guest, TDVMCALL.mapGpa, [FREE | SHARED, 0x1000n], 40);
      mapAt(guest, 0, FREE | SHARED);
      store(guest, linear(0), 0x5a5an);
      enterL2(guest, 0);
      vpWr(guest, L2_CTLS_ID, L2_CTL.enableSharedEptp);
      enterL2(guest, 10);
      gpr(guest, 0, 20);
    },
    l2: (guest) => {
      load(guest, linear(0));
      guest.a.hlt();
    },
    check: (run) => {
      exits(run, 0, EXIT_REASON.eptViolation, STATUS.l2ExitHostRoutedAsync);
      expect(run.word(R.r8)).toBe(FREE | SHARED);
      exits(run, 10, EXIT_REASON.hlt);
      expect(run.word(20)).toBe(0x5a5an);
    },
  },
  {
    rule: 'an address above the shared bit is an EPT violation for L1',
    section: 'Partitioning, table of L2 VM exits',
    l1: (guest) => {
      mapAt(guest, 1, 1n << 48n);
      enterL2(guest, 0);
    },
    l2: (guest) => load(guest, linear(1, 0x18)),
    check: (run) => {
      exits(run, 0, EXIT_REASON.eptViolation);
      expect([run.word(R.r8), run.word(R.rdx)]).toEqual([(1n << 48n) | 0x18n, linear(1, 0x18)]);
    },
  },
  {
    rule: 'each way to drop translations at an entry drops what L1 has changed',
    section: 'ABI, TDG.VP.ENTER, RCX 1:0',
    l1: (guest) => {
      store(guest, BigInt(AT.scratch + 0x5000), 0n);
      for (const [k, flags] of [1n, 2n, 3n].entries()) {
        // The VM walks L1's tables: one page of 2 MiB, and then the next.
        mapAt(guest, 2, 0n);
        enterL2(guest, 60);
        restart(guest);
        mapAt(guest, 2, BLOCK);
        enterL2(guest, k * 10, flags);
        restart(guest);
      }
    },
    l2: (guest) => {
      const { a } = guest;
      a.movabs(rbx, linear(2, AT.scratch));
      a.mov(rax, at({ base: rbx }));
      a.hlt();
    },
    check: (run) => {
      exits(run, 60, EXIT_REASON.hlt);
      // Nobody has given the VM the second block: that it leaves shows that it no longer uses the first.
      for (const slot of [0, 10, 20]) {
        exits(run, slot, EXIT_REASON.eptViolation);
        expect(run.word(slot + R.rdx)).toBe(linear(2, AT.scratch));
      }
    },
  },
  {
    rule: "CR4: what L1 owns and what the module keeps leave for L1; CR0.NE is #GP, caching off is L1's to judge",
    section: 'Partitioning, "CR0 and CR4"',
    l1: (guest) => {
      vpWr(guest, l2Vmcs(0x6002), 0x80n);
      vpWr(guest, l2Vmcs(0x6006), 0n);
      enterL2(guest, 0);
      skipL2(guest, 3);
      enterL2(guest, 10);
      skipL2(guest, 3);
      enterL2(guest, 20);
      gpr(guest, 2, 50);
      skipL2(guest, 3);
      enterL2(guest, 30);
      guest.note(NOTE.gp, 40);
    },
    l2: (guest) => {
      const { a } = guest;
      a.movFromControl(rcx, 4);
      a.alu('or', rcx, 0x80);
      a.movToControl(4, rcx);
      a.movFromControl(rcx, 4);
      a.alu('or', rcx, 0x2000);
      a.movToControl(4, rcx);
      a.movFromControl(rdx, 0);
      a.alu('or', rdx, 0x4000_0000);
      a.movToControl(0, rdx);
      guest.guarded('kept', () => {
        a.movFromControl(rdx, 0);
        a.alu('and', rdx, ~0x20);
        a.movToControl(0, rdx);
      });
      a.hlt();
    },
    check: (run) => {
      exits(run, 0, EXIT_REASON.controlRegister);
      expect(run.word(R.rcx)).toBe(0x104n);
      exits(run, 10, EXIT_REASON.controlRegister);
      expect(run.word(10 + R.rcx)).toBe(0x104n);
      exits(run, 20, EXIT_REASON.controlRegister);
      expect(run.word(20 + R.rcx)).toBe(0x200n);
      exits(run, 30, EXIT_REASON.hlt);
      expect(run.word(40)).toBe(1n);
    },
  },
  {
    rule: 'code runs where the alias lets it, by supervisor and user right where L1 tells them apart',
    section: 'Partitioning, "L2 SEPT"; SDM vol. 3, 29.3.3.1',
    l1: (guest) => {
      const { tdcall } = guest;
      const page = BigInt(AT.scratch + 0x6000);
      store(guest, page, 0xf4n);
      const rights = (attributes: bigint, slot: number): void =>
        tdcall(TDG.memPageAttrWr, { rcx: page, rdx: attributes << 16n, r8: 0x800f_0000n }, slot);
      rights(3n, 50);
      enterL2(guest, 0);
      // Xu alone is no right of the supervisor, with and without the control that tells them apart.
      rights(0xbn, 50);
      vpWr(guest, l2Vmcs(0x401e), 1n << 22n, 1n << 22n);
      enterL2(guest, 10);
      rights(7n, 50);
      enterL2(guest, 20);
    },
    l2: ({ a }) => {
      a.mov(rbx, AT.scratch + 0x6000);
      a.jmp(rbx);
    },
    check: (run) => {
      for (const slot of [0, 10]) {
        exits(run, slot, EXIT_REASON.eptViolation);
        expect(run.word(slot + R.r8)).toBe(BigInt(AT.scratch + 0x6000));
        // Fetch.
        expect(run.word(slot + R.rcx) & 7n).toBe(4n);
      }
      exits(run, 20, EXIT_REASON.hlt);
    },
  },
  {
    rule: 'an event whose delivery runs into an EPT violation is told to L1 with it',
    section: 'SDM vol. 3, 28.2.4, IDT-vectoring information',
    l1: (guest) => {
      const { tdcall } = guest;
      const idt = BigInt(AT.idt);
      tdcall(TDG.memPageAttrWr, { rcx: idt, rdx: 0n, r8: 0x800f_0000n }, 50);
      setState(guest, 'rflags', 0x202);
      vpWr(guest, l2Vmcs(0x4016), 0x8000_0060n);
      enterL2(guest, 0);
      guest.result(40, r10);
      tdcall(TDG.memPageAttrWr, { rcx: idt, rdx: 0xf_0000n, r8: 0x800f_0000n }, 50);
      enterL2(guest, 10);
    },
    check: (run) => {
      exits(run, 0, EXIT_REASON.eptViolation);
      expect(run.word(R.r8) & ~0xfffn).toBe(BigInt(AT.idt));
      expect(run.word(40)).toBe(0x8000_0060n);
      // L1 has not injected it again.
      exits(run, 10, EXIT_REASON.hlt);
    },
  },
  {
    rule: 'a page fault of the bitmap leaves with address and error code, and CR2 is left alone',
    section: 'SDM vol. 3, 26.2 and 28.2.1',
    l1: (guest) => {
      vpWr(guest, l2Vmcs(0x4004), 1n << 14n);
      enterL2(guest, 0);
      guest.note(NOTE.pf, 20);
    },
    l2: (guest) => store(guest, 0x12_3456_7000n, 1n),
    check: (run) => {
      exits(run, 0, EXIT_REASON.exceptionOrNmi);
      expect(run.word(R.r9)).toBe((2n << 32n) | 0x8000_0b0en);
      expect(run.word(R.rcx)).toBe(0x12_3456_7000n);
      expect(run.word(20)).toBe(0n);
    },
  },
  {
    rule: 'a triple fault of the VM is an exit like others, and the TD lives',
    section: 'Partitioning, table of L2 VM exits',
    l1: (guest) => enterL2(guest, 0),
    l2: ({ a }) => a.db(0x6a, 0, 0x48, 0x0f, 0x01, 0x1c, 0x24, 0x0f, 0x0b), // push 0; lidt [rsp]; ud2
    check: (run) => exits(run, 0, EXIT_REASON.tripleFault),
  },
  {
    rule: 'each VM has rights of its own on a page',
    section: 'ABI, TDG.MEM.PAGE.ATTR.WR',
    options: { l2Vms: 3 },
    l1: ({ tdcall }) => {
      const rcx = BigInt(AT.scratch + 0x5000);
      tdcall(
        TDG.memPageAttrWr,
        { rcx, rdx: (1n << 16n) | (3n << 32n) | (5n << 48n), r8: 0xf_000f_000f_0000n },
        0,
      );
      tdcall(TDG.memPageAttrRd, { rcx }, 8);
      tdcall(TDG.memPageAttrWr, { rcx, rdx: 0n, r8: 0xf_0000_0000n }, 16);
      tdcall(TDG.memPageAttrRd, { rcx }, 24);
    },
    check: ({ word }) => {
      expect([word(0), word(16)]).toEqual([0n, 0n]);
      const vms = (attributes: bigint): readonly bigint[] =>
        [16n, 32n, 48n].map((shift) => (attributes >> shift) & 0xfn);
      expect(vms(word(10))).toEqual([1n, 3n, 5n]);
      expect(vms(word(26))).toEqual([1n, 0n, 5n]);
    },
  },
  {
    rule: 'a virtual interrupt is delivered by RVI, and its end is the virtual APIC',
    section: 'SDM vol. 3, 30.2; Partitioning, L2_ENTER_GUEST_STATE',
    l1: (guest) => {
      setState(guest, 'rflags', 0x202);
      setState(guest, 'rvi', 0x61);
      // EOI (0x80B) and SELF_IPI may be written.
      vpWr(guest, l2MsrWord(256 + 0x20), 0n, 1n << 11n);
      enterL2(guest, 0);
      guest.note(NOTE.interrupts, 10);
      guest.a.movzx(eax, at({ disp: L2.state + L2_ENTER_GUEST_STATE.offsetOf('svi') }), 1);
      guest.result(11, rax);
    },
    l2: ({ a }) => a.db(0x90, 0xf4),
    check: (run) => {
      exits(run, 0, EXIT_REASON.hlt);
      expect([run.word(10), run.word(11)]).toEqual([1n, 0n]);
    },
  },
  {
    rule: 'an interrupt for L1 ends the turn of the L2 VM',
    section: 'ABI, L2_EXIT_PENDING_INTERRUPT',
    options: {
      platform: (platform: Platform): Platform => ({
        ...platform,
        get state() {
          return platform.state;
        },
        exit(vp, exit, world) {
          const { vps } = platform.state as TdxHostState;
          const apic = vps[0]?.lapic.apic;
          if (apic !== undefined) addVector(apic.irr, 0x51);
          return platform.exit(vp, exit, world);
        },
      }),
    },
    l1: (guest) => {
      vpWr(guest, L2_CTLS_ID, L2_CTL.enableTdvmcall);
      enterL2(guest, 0);
    },
    l2: (guest) => {
      tdvmcall(guest);
      guest.a.label('spin');
      guest.a.jmp('spin');
    },
    check: (run) => exits(run, 0, EXIT_REASON.externalInterrupt, STATUS.l2ExitPendingInterrupt),
  },
  {
    rule: 'real mode in L2: PE may be 0 there',
    section: 'Partitioning, "L2 CR0"',
    l1: (guest) => {
      vpWr(guest, l2Vmcs(0x6800), 0n);
      vpWr(guest, l2Vmcs(0x2806), 0n);
      vpWr(guest, l2Vmcs(0x4012), 0n);
      vpWr(guest, l2Vmcs(0x802), BigInt(AT.code >>> 4));
      vpWr(guest, l2Vmcs(0x6808), BigInt(AT.code));
      vpWr(guest, l2Vmcs(0x4802), 0xffffn);
      vpWr(guest, l2Vmcs(0x4816), 0x9bn);
      guest.a.mov(rbx, L2.state + L2_ENTER_GUEST_STATE.offsetOf('rip'));
      guest.a.aluMem('sub', 8, at({ base: rbx }), AT.code);
      enterL2(guest, 0);
      gpr(guest, 0, 10);
    },
    // mov ax, 0x1234; mov bx, cs; hlt
    l2: ({ a }) => a.db(0xb8, 0x34, 0x12, 0x8c, 0xcb, 0xf4),
    check: (run) => {
      exits(run, 0, EXIT_REASON.hlt);
      expect(run.word(10) & 0xffffn).toBe(0x1234n);
      expect(run.word(R.rdi)).toBe(BigInt(AT.code));
    },
  },
  {
    rule: 'a state that no processor enters comes back as a failed entry',
    section: 'SDM vol. 3, 27.8',
    l1: (guest) => {
      vpWr(guest, l2Vmcs(0x6804), 0x40n);
      enterL2(guest, 0);
    },
    check: (run) => exits(run, 0, (ENTRY_FAILURE + EXIT_REASON.entryFailureState) >>> 0),
  },
  {
    rule: 'L2 VMCS fields: read-only controls, masks, bits that the module keeps, an APIC page that is none',
    section: 'Partitioning, "L2 VMCS"',
    l1: ({ tdcall }) => {
      const all = 0xffff_ffff_ffff_ffffn;
      tdcall(TDG.vpWr, { rcx: 0n, rdx: l2Vmcs(0x4000), r8: 0n, r9: all }, 0);
      tdcall(TDG.vpWr, { rcx: 0n, rdx: l2Vmcs(0x4004), r8: 0n, r9: 1n << 18n }, 8);
      tdcall(TDG.vpWr, { rcx: 0n, rdx: l2Vmcs(0x2012), r8: 8n, r9: all }, 16);
      tdcall(TDG.vpWr, { rcx: 0n, rdx: l2Vmcs(0x1234), r8: 0n, r9: all }, 24);
      tdcall(TDG.vpRd, { rcx: 0n, rdx: l2Vmcs(0x6804) }, 32);
      tdcall(TDG.vpRd, { rcx: 0n, rdx: l2Vmcs(0x6804) | (8n << 56n) }, 40);
      tdcall(TDG.vpWr, { rcx: 0n, rdx: L2_CTLS_ID, r8: all, r9: all }, 48);
      tdcall(TDG.vpRd, { rcx: 0n, rdx: L2_CTLS_ID }, 56);
    },
    check: ({ word }) => {
      expect(word(0)).toBe(status(STATUS.metadataFieldNotWritable, OPERAND.rdx));
      expect(word(8)).toBe(status(STATUS.metadataWriteMaskNotValid, OPERAND.r9));
      expect(word(16)).toBe(status(STATUS.metadataFieldValueNotValid, OPERAND.r8));
      expect(word(24) >> 32n).toBe(BigInt(STATUS.metadataFieldIdIncorrect));
      expect([word(32), word(35)]).toEqual([0n, 0x2060n]);
      expect(word(40) >> 32n).toBe(BigInt(STATUS.metadataFieldIdIncorrect));
      expect([word(48), word(59)]).toEqual([0n, 7n]);
    },
  },
  {
    rule: 'page attributes: L1 keeps its own, write needs read, the level must fit, and what was set is read back',
    section: 'ABI, TDG.MEM.PAGE.ATTR.WR and RD',
    l1: ({ tdcall }) => {
      const rcx = BigInt(AT.scratch + 0x5000);
      tdcall(TDG.memPageAttrWr, { rcx, rdx: 0n, r8: 1n }, 0);
      tdcall(TDG.memPageAttrWr, { rcx, rdx: 2n << 16n, r8: 3n << 16n }, 8);
      tdcall(TDG.memPageAttrWr, { rcx, rdx: 0x80n << 16n, r8: 0x80n << 16n }, 16);
      tdcall(TDG.memPageAttrWr, { rcx, rdx: 1n << 32n, r8: 1n << 32n }, 24);
      tdcall(TDG.memPageAttrWr, { rcx: 1n, rdx: 1n << 16n, r8: 1n << 16n }, 32);
      tdcall(TDG.memPageAttrWr, { rcx, rdx: 3n << 16n, r8: 0xfn << 16n }, 40);
      tdcall(TDG.memPageAttrRd, { rcx }, 48);
    },
    check: ({ word }) => {
      expect(word(0)).toBe(status(STATUS.operandInvalid, OPERAND.r8));
      expect(word(8) >> 32n).toBe(BigInt(STATUS.pageAttrInvalid));
      expect(word(16)).toBe(status(STATUS.operandInvalid, OPERAND.r8));
      expect(word(24)).toBe(status(STATUS.operandInvalid, OPERAND.r8));
      expect(word(32) >> 32n).toBe(BigInt(STATUS.pageSizeMismatch));
      expect(word(40)).toBe(0n);
      expect([word(48), word(49), (word(50) >> 16n) & 0xffffn]).toEqual([
        0n,
        BigInt(AT.scratch + 0x5000),
        0x8003n,
      ]);
    },
  },
  {
    rule: 'a pending page may have attributes: they come to life with its acceptance',
    section: 'ABI, TDG.MEM.PAGE.ATTR.WR',
    l1: (guest) => {
      const { tdcall } = guest;
      tdcall(TDG.memPageAttrWr, { rcx: FREE | 1n, rdx: 0xfn << 16n, r8: 0xfn << 16n }, 20);
      enterL2(guest, 0);
      tdcall(TDG.memPageAccept, { rcx: FREE | 1n }, 30);
      enterL2(guest, 10);
    },
    l2: ({ a }) => {
      a.movabs(rbx, FREE);
      a.mov(rax, at({ base: rbx }));
      a.hlt();
    },
    check: (run) => {
      expect(run.word(20)).toBe(0n);
      exits(run, 0, EXIT_REASON.eptViolation);
      expect(run.word(R.r13)).toBe(BigInt(EXTENDED_EPT.pending));
      expect(run.word(30)).toBe(0n);
      exits(run, 10, EXIT_REASON.hlt);
    },
  },
  {
    rule: 'TDG.VP.INVEPT and TDG.VP.INVGLA check their VMs and addresses; a list tells how far it came',
    section: 'ABI, TDG.VP.INVEPT and TDG.VP.INVGLA',
    l1: ({ a, tdcall }) => {
      tdcall(TDG.vpInvept, { rcx: 1n }, 0);
      tdcall(TDG.vpInvept, { rcx: 4n }, 8);
      tdcall(TDG.vpInvept, { rcx: 2n }, 16);
      tdcall(TDG.vpInvgla, { rcx: VM1, rdx: 0x8000_0000_0000n }, 24);
      tdcall(TDG.vpInvgla, { rcx: VM1, rdx: BigInt(AT.code) }, 32);
      a.mov(rbx, AT.scratch + 0x6000);
      a.movabs(rax, 0x8000_0000_0000n);
      a.mov(at({ base: rbx, disp: 8 }), rax);
      tdcall(TDG.vpInvgla, { rcx: VM1 | 1n, rdx: BigInt(AT.scratch + 0x6000) | (3n << 52n) }, 40);
    },
    check: ({ word }) => {
      expect(word(0)).toBe(status(STATUS.operandInvalid, OPERAND.rcx));
      expect(word(8)).toBe(status(STATUS.operandInvalid, OPERAND.rcx));
      expect(word(16)).toBe(0n);
      expect(word(24) >> 32n).toBe(BigInt(STATUS.glaNotCanonical));
      expect(word(32)).toBe(0n);
      expect(word(40) >> 32n).toBe(BigInt(STATUS.glaNotCanonical));
      expect(word(42)).toBe(BigInt(AT.scratch + 0x6000) | 1n | (2n << 52n));
    },
  },
];

describe.each(ENGINES)('rules of TD partitioning, %s', (engine) => {
  it.each(RULES)('$rule ($section)', ({ options, l1, l2, check }) => {
    const run = runTd(
      (guest) => {
        shareWithL2(guest, 'share', 0, 0x3_0000);
        prepareL2(guest, 'l2');
        l1(guest);
        guest.end();
        guest.a.label('l2');
        l2?.(guest);
        guest.a.hlt();
      },
      { l2Vms: 1, engine, ...options },
    );
    expect(run.message).toBe('');
    check(run);
  });
});
