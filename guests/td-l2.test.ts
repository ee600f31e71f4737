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
import { at, eax, ecx, edx, r10, r11, r12, rax, rbx, rcx, rdx } from './asm.ts';
import { enterL2, L2, L2_CTLS_ID, l2MsrWord, l2Vmcs, prepareL2, shareWithL2, skipL2, vpWr } from './td-l2.ts';
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
