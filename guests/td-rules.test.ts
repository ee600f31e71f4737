/**
 * Rules of a TD, each with a small guest program at L1. Sections: Intel TDX Module 1.5 Base Architecture (348549) and ABI (344551)
 * specifications, GHCI 1.5 (348552).
 */
import { describe, expect, it } from 'vitest';
import { EXIT_REASON } from '../src/abi/tdx/exit-reasons.ts';
import { TDVMCALL, TDVMCALL_STATUS } from '../src/abi/tdx/ghci.ts';
import { TDG } from '../src/abi/tdx/leaves.ts';
import { OPERAND, status, STATUS } from '../src/abi/tdx/status.ts';
import { CONFIG_FLAG } from '../src/abi/tdx/td-params.ts';
import type { TdxHostState } from '../src/host/tdx/host.ts';
import type { Platform } from '../src/machine/machine.ts';
import type { TdxHostView } from '../src/seats/tdx.ts';
import { MSR_ROWS, type MsrRow, type MsrRule } from '../src/silicon/tdx/msr.ts';
import { sha384 } from '../src/silicon/sha384.ts';
import { at, eax, ecx, edx, rax, rbx, rcx, rdx, r10, r11, r12, r13, r14 } from './asm.ts';
import { linear, load, mapAt, SHARED, store, vmcall, VMCALL_MASK } from './td-calls.ts';
import {
  AT,
  CODE32,
  ENGINES,
  NOTE,
  runTd,
  TDCALL_BYTES,
  USER,
  type TdGuest,
  type TdOptions,
  type TdRun,
} from './td.ts';

interface Rule {
  readonly rule: string;
  /** Where it is written. */
  readonly section: string;
  readonly options?: TdOptions;
  readonly guest: (guest: TdGuest) => void;
  readonly check: (run: TdRun) => void;
}

const FREE = BigInt(AT.free);
const SCRATCH = BigInt(AT.scratch);
const BLOCK = 2n << 20n;

const cpuid = ({ a }: TdGuest, leaf: number, subleaf = 0): void => {
  a.mov(eax, leaf | 0);
  a.mov(ecx, subleaf);
  a.db(0x0f, 0xa2);
};
const keep = (guest: TdGuest, label: string, instruction: () => void): void => {
  store(guest, BigInt(AT.notes + NOTE.keepVe), 1n);
  guest.guarded(label, instruction);
  store(guest, BigInt(AT.notes + NOTE.keepVe), 0n);
};

/** A host that changes what it gives back. */
const hostile =
  (change: (registers: bigint[], exit: readonly bigint[]) => void) =>
  (platform: Platform): Platform => ({
    ...platform,
    get state() {
      return platform.state;
    },
    exit(vp, exit, world) {
      const step = platform.exit(vp, exit, world);
      if (step.completion.kind !== 'td-enter' || exit.kind !== 'td-exit') return step;
      const registers = [...step.completion.registers];
      change(registers, exit.registers);
      return { ...step, completion: { ...step.completion, registers } };
    },
  });

const RULES: readonly Rule[] = [
  {
    rule: 'an unknown leaf, an unsupported version and reserved bits of RAX are refused by operand RAX',
    section: 'ABI, TDCALL',
    guest: ({ tdcall }) => {
      tdcall(0x1ff, {}, 0);
      tdcall(TDG.vpInfo | (1 << 16), {}, 8);
      tdcall(0x1_0000_0001n, {}, 16);
    },
    check: ({ word }) => {
      for (const slot of [0, 8, 16]) expect(word(slot)).toBe(status(STATUS.operandInvalid, OPERAND.rax));
    },
  },
  {
    rule: 'TDCALL outside 64-bit mode is #GP(0), and no leaf runs',
    section: 'ABI, TDCALL',
    guest: ({ a, note }) => {
      a.mov(eax, 'behind');
      a.mov(at({ disp: AT.notes + NOTE.resume }), rax);
      a.db(0xff, 0x2c, 0x25); // jmp far [far]
      a.dd('far');
      a.label('far');
      a.dd('compat');
      a.dw(CODE32);
      a.bits(32);
      a.label('compat');
      a.db(...TDCALL_BYTES);
      a.label('behind');
      a.jmpFar(0x10, 'back');
      a.bits(64);
      a.label('back');
      note(NOTE.gp, 0);
      note(NOTE.gpError, 1);
    },
    check: ({ word }) => expect([word(0), word(1)]).toEqual([1n, 0n]),
  },
  {
    rule: 'TDCALL of a user program is #GP(0), and no leaf runs',
    section: 'ABI, TDCALL; Trust Domain CPU Architectural Extensions (343754), TDCALL',
    options: { budget: 20_000 },
    guest: (guest) => {
      const { a } = guest;
      // The page tables let CPL 3 in, and page 0 holds the task-state segment that TDH.VP.INIT points TR at.
      for (const table of [0, 0x1000, 0x2000]) a.aluMem('or', 8, at({ disp: AT.tables + table }), 4);
      a.movFromControl(rax, 3);
      a.movToControl(3, rax);
      store(guest, 4n, BigInt(AT.stack));
      a.mov(eax, 'behind');
      a.mov(at({ disp: AT.notes + NOTE.resume }), rax);
      for (const value of [USER.data, AT.stack - 0x800, 2, USER.code]) {
        a.mov(eax, value);
        a.push(rax);
      }
      a.mov(eax, 'user');
      a.push(rax);
      a.db(0x48, 0xcf); // iretq
      a.label('user');
      a.movabs(rax, BigInt(TDG.vpInfo));
      a.db(...TDCALL_BYTES);
      guest.result(0, 1n);
      a.label('behind');
      a.mov(eax, 1);
      a.mov(at({ disp: AT.results + 8 }), rax);
      a.label('spin');
      a.jmp('spin');
    },
    check: ({ word, note }) => {
      expect([word(0), word(1)]).toEqual([0n, 1n]);
      expect([note(NOTE.gp), note(NOTE.gpError)]).toEqual([1n, 0n]);
    },
  },
  {
    rule: 'TDG.MEM.PAGE.ACCEPT checks level, alignment, reserved bits and the shared bit',
    section: 'ABI, TDG.MEM.PAGE.ACCEPT',
    guest: ({ tdcall }) => {
      tdcall(TDG.memPageAccept, { rcx: FREE | 2n }, 0);
      tdcall(TDG.memPageAccept, { rcx: FREE | 8n }, 8);
      tdcall(TDG.memPageAccept, { rcx: (FREE + 0x1000n) | 1n }, 16);
      tdcall(TDG.memPageAccept, { rcx: FREE | SHARED }, 24);
      tdcall(TDG.memPageAccept, { rcx: FREE | (1n << 52n) }, 32);
    },
    check: ({ word }) => {
      for (const slot of [0, 8, 16, 24, 32])
        expect(word(slot)).toBe(status(STATUS.operandInvalid, OPERAND.rcx));
    },
  },
  {
    rule: 'a pending page is accepted once and zeroed; a second time it is already accepted, at its level',
    section: 'ABI, TDG.MEM.PAGE.ACCEPT',
    guest: (guest) => {
      const { tdcall, result } = guest;
      tdcall(TDG.memPageAccept, { rcx: FREE | 1n }, 0);
      load(guest, FREE + 0x5000n);
      result(7, rax);
      tdcall(TDG.memPageAccept, { rcx: FREE | 1n }, 8);
      tdcall(TDG.memPageAccept, { rcx: FREE + 0x3000n }, 16);
      tdcall(TDG.memPageAccept, { rcx: FREE + BLOCK }, 24);
      tdcall(TDG.memPageAccept, { rcx: FREE + BLOCK }, 32);
    },
    check: ({ word }) => {
      expect(word(0)).toBe(0n);
      expect(word(7)).toBe(0n);
      expect(word(8)).toBe(status(STATUS.pageAlreadyAccepted, 1));
      expect(word(16)).toBe(status(STATUS.pageAlreadyAccepted, 1));
      expect(word(24)).toBe(0n);
      expect(word(32)).toBe(status(STATUS.pageAlreadyAccepted, 0));
    },
  },
  {
    rule: 'a 2 MiB acceptance of a block that has 4 KiB entries is a size mismatch',
    section: 'ABI, TDG.MEM.PAGE.ACCEPT',
    guest: ({ tdcall }) => {
      tdcall(TDG.memPageAccept, { rcx: FREE }, 0);
      tdcall(TDG.memPageAccept, { rcx: FREE | 1n }, 8);
    },
    check: ({ word }) => {
      expect(word(0)).toBe(0n);
      expect(word(8) >> 32n).toBe(BigInt(STATUS.pageSizeMismatch));
    },
  },
  {
    rule: 'with SEPT_VE_DISABLE an access to a pending page never comes back without the guest',
    section: 'Base Architecture, "EPT violation on a pending page"',
    guest: (guest) => load(guest, FREE),
    check: ({ reason, message }) => {
      expect(reason.kind).toBe('crash');
      expect(message).toContain('has not accepted');
    },
  },
  {
    rule: 'without it the access is #VE 48 with a private address',
    section: 'Base Architecture, "EPT violation on a pending page"',
    options: { td: { attributes: 0n } },
    guest: (guest) => {
      guest.tdcall(TDG.memPageAccept, { rcx: FREE + BLOCK }, 0);
      // The host adds it with the first access; the second one finds it pending.
      load(guest, FREE + 0x123n);
    },
    check: ({ note, word }) => {
      expect(word(0)).toBe(0n);
      expect(note(NOTE.ve)).toBe(1n);
      expect(note(NOTE.veInfo + 8)).toBe(BigInt(EXIT_REASON.eptViolation));
      expect(note(NOTE.veInfo + 24)).toBe(FREE + 0x123n);
      expect(note(NOTE.veInfo + 32)).toBe(FREE + 0x123n);
    },
  },
  {
    rule: 'CONFIG_FLAGS.FLEXIBLE_PENDING_VE lets the guest turn it off itself, otherwise TD_CTLS is not writable',
    section: 'ABI, TD_CTLS',
    options: { td: { attributes: 0n, configFlags: CONFIG_FLAG.noRbpMod | CONFIG_FLAG.flexiblePendingVe } },
    guest: ({ tdcall }) => {
      tdcall(TDG.vmWr, { rcx: 0n, rdx: 0x1110_0003_0000_0017n, r8: 1n, r9: 1n }, 0);
      tdcall(TDG.vmRd, { rcx: 0n, rdx: 0x1110_0003_0000_0017n }, 8);
    },
    check: ({ word }) => {
      expect(word(0)).toBe(0n);
      expect([word(8), word(11)]).toEqual([0n, 1n]);
    },
  },
  {
    rule: 'MapGPA to shared and back loses the contents; the page must be accepted again and is zero',
    section: 'GHCI 3.2, Base Architecture "Removing TD private pages"',
    guest: (guest) => {
      const { tdcall, result } = guest;
      tdcall(TDG.memPageAccept, { rcx: FREE | 1n }, 0);
      store(guest, FREE + 0x1000n, 0x5ec2e7n);
      vmcall(guest, TDVMCALL.mapGpa, [(FREE + 0x1000n) | SHARED, 0x1000n], 8);
      mapAt(guest, 0, FREE | SHARED);
      load(guest, linear(0, 0x1000));
      result(16, rax);
      store(guest, linear(0, 0x1000), 0x77n);
      vmcall(guest, TDVMCALL.mapGpa, [FREE + 0x1000n, 0x1000n], 24);
      tdcall(TDG.memPageAccept, { rcx: FREE + 0x1000n }, 32);
      load(guest, FREE + 0x1000n);
      result(40, rax);
    },
    check: ({ word }) => {
      expect(word(9)).toBe(TDVMCALL_STATUS.success);
      expect(word(16)).toBe(0n);
      expect(word(25)).toBe(TDVMCALL_STATUS.success);
      expect(word(32)).toBe(0n);
      expect(word(40)).toBe(0n);
    },
  },
  {
    rule: 'MapGPA: alignment, memory that there is none of, and a host that refuses',
    section: 'GHCI 3.2',
    options: {
      platform: hostile((registers, exit) => {
        if (exit[11] === BigInt(TDVMCALL.mapGpa) && exit[12] === ((FREE + 2n * BLOCK) | SHARED))
          registers[10] = TDVMCALL_STATUS.gpaInUse;
      }),
    },
    guest: (guest) => {
      vmcall(guest, TDVMCALL.mapGpa, [(FREE + 8n) | SHARED, 0x1000n], 0);
      vmcall(guest, TDVMCALL.mapGpa, [FREE | SHARED, 0x800n], 8);
      vmcall(guest, TDVMCALL.mapGpa, [0x1_0000_0000n | SHARED, 0x1000n], 16);
      vmcall(guest, TDVMCALL.mapGpa, [FREE | SHARED, 0n], 24);
      vmcall(guest, TDVMCALL.mapGpa, [(FREE + 2n * BLOCK) | SHARED, 0x1000n], 32);
    },
    check: ({ word }) => {
      expect(word(1)).toBe(TDVMCALL_STATUS.alignmentError);
      expect(word(9)).toBe(TDVMCALL_STATUS.alignmentError);
      expect(word(17)).toBe(TDVMCALL_STATUS.invalidOperand);
      expect(word(25)).toBe(TDVMCALL_STATUS.invalidOperand);
      expect(word(33)).toBe(TDVMCALL_STATUS.gpaInUse);
    },
  },
  {
    rule: 'MapGPA of much memory asks to be continued, at an address of the same kind',
    section: 'GHCI 3.2',
    guest: (guest) => vmcall(guest, TDVMCALL.mapGpa, [FREE | SHARED, 10n << 20n], 0),
    check: ({ word }) => {
      expect(word(1)).toBe(TDVMCALL_STATUS.retry);
      expect(word(2)).toBe((FREE + (8n << 20n)) | SHARED);
    },
  },
  {
    rule: 'a shared access to a page that is private is #VE 48 with the shared bit, and never the private contents',
    section: 'Base Architecture, "EPT violation on a shared GPA"',
    guest: (guest) => {
      mapAt(guest, 0, SHARED);
      load(guest, linear(0, AT.code + 0x10));
    },
    check: ({ note }) => {
      expect(note(NOTE.ve)).toBe(1n);
      expect(note(NOTE.veInfo + 8)).toBe(BigInt(EXIT_REASON.eptViolation));
      expect(note(NOTE.veInfo + 24)).toBe(linear(0, AT.code + 0x10));
      expect(note(NOTE.veInfo + 32)).toBe(BigInt(AT.code + 0x10) | SHARED);
    },
  },
  {
    rule: 'a private access to a page that is shared does not reach the shared page',
    section: 'Base Architecture, "Private and shared GPA"',
    guest: (guest) => {
      vmcall(guest, TDVMCALL.mapGpa, [FREE | SHARED, 0x1000n], 0);
      load(guest, FREE);
    },
    check: ({ word, reason, message }) => {
      expect(word(1)).toBe(TDVMCALL_STATUS.success);
      expect(reason.kind).toBe('crash');
      expect(message).toContain('the guest shares');
    },
  },
  {
    rule: 'code in shared memory is not executed',
    section: 'Base Architecture, "Shared EPT"',
    guest: (guest) => {
      vmcall(guest, TDVMCALL.mapGpa, [FREE | SHARED, 0x1000n], 0);
      mapAt(guest, 0, FREE | SHARED);
      guest.a.movabs(rax, linear(0));
      guest.a.jmp(rax);
    },
    check: ({ message }) => expect(message).toContain('code in it'),
  },
  {
    rule: 'an address with bits above the shared bit is a page fault with the reserved bit',
    section: 'Base Architecture, "GPA above the shared bit"',
    guest: (guest) => {
      mapAt(guest, 0, 1n << 49n);
      guest.guarded('next', () => load(guest, linear(0, 0x40)));
    },
    check: ({ note }) => {
      expect(note(NOTE.pf)).toBe(1n);
      expect(note(NOTE.pfError) & 8n).toBe(8n);
      expect(note(NOTE.pfAddress)).toBe(linear(0, 0x40));
    },
  },
  {
    rule: 'a #VE while the information of the last one was not fetched is #DF; the information stays that of the first',
    section: 'Base Architecture, "Virtualization exception"',
    guest: (guest) => {
      const { tdcall } = guest;
      keep(guest, 'first', () => cpuid(guest, 0x4000_0000));
      store(guest, BigInt(AT.notes + NOTE.keepVe), 1n);
      guest.guarded('second', () => guest.a.hlt());
      tdcall(TDG.vpVeinfoGet, {}, 0);
      tdcall(TDG.vpVeinfoGet, {}, 8);
    },
    check: ({ word, note }) => {
      expect(note(NOTE.ve)).toBe(1n);
      expect(note(NOTE.df)).toBe(1n);
      expect([word(0), word(1)]).toEqual([0n, BigInt(EXIT_REASON.cpuid)]);
      expect(word(8)).toBe(status(STATUS.noValidVeInfo));
      expect([word(9), word(10), word(11)]).toEqual([0n, 0n, 0n]);
    },
  },
  {
    rule: 'an NMI waits while the information of a #VE was not fetched',
    section: 'Base Architecture, "Virtualization exception", NMI blocking',
    options: {
      platform: (platform) => ({
        ...platform,
        get state() {
          return platform.state;
        },
        exit(vp, exit, world) {
          const { vps } = platform.state as TdxHostState;
          const lapic = vps[0]?.lapic;
          if (lapic !== undefined) lapic.nmi = true;
          return platform.exit(vp, exit, world);
        },
      }),
    },
    guest: (guest) => {
      const { a, note, tdcall } = guest;
      keep(guest, 'first', () => cpuid(guest, 0x4000_0000));
      vmcall(guest, TDVMCALL.getTdVmCallInfo, [0n], 10);
      a.db(0x90, 0x90);
      note(NOTE.nmi, 0);
      tdcall(TDG.vpVeinfoGet, {}, 20);
      a.db(0x90);
      note(NOTE.nmi, 1);
    },
    check: ({ word }) => {
      expect(word(0)).toBe(0n);
      expect([word(20), word(21)]).toEqual([0n, BigInt(EXIT_REASON.cpuid)]);
      expect(word(1)).toBe(1n);
    },
  },
  {
    rule: 'instructions that the module does not let through are #VE with their reason and length',
    section: 'Base Architecture, "Instructions that cause #VE"',
    guest: ({ a, note, result }) => {
      const instructions: readonly (readonly number[])[] = [
        [0xf4],
        [0xe4, 0x71],
        [0x0f, 0x01, 0xc1],
        [0x0f, 0x08],
        [0x0f, 0x09],
      ];
      for (const [k, bytes] of instructions.entries()) {
        a.db(...bytes);
        note(NOTE.veInfo + 8, k * 3);
        note(NOTE.veInfo + 40, k * 3 + 1);
        note(NOTE.veInfo + 16, k * 3 + 2);
      }
      result(20, 1n);
    },
    check: ({ word, note }) => {
      expect(note(NOTE.ve)).toBe(5n);
      const reasons = [0, 3, 6, 9, 12].map((slot) => Number(word(slot)));
      expect(reasons).toEqual([
        EXIT_REASON.hlt,
        EXIT_REASON.io,
        EXIT_REASON.vmcall,
        EXIT_REASON.invd,
        EXIT_REASON.wbinvd,
      ]);
      expect([1, 4, 7, 10, 13].map((slot) => Number(word(slot)))).toEqual([1, 2, 3, 2, 2]);
      expect(word(5)).toBe(0x71_0008n);
    },
  },
  {
    rule: 'VMX, SMX and TD host instructions are #UD, and RDPMC without PERFMON is #GP',
    section: 'Base Architecture, "Instructions that cause #UD or #GP"',
    guest: ({ a, guarded }) => {
      // SEAMCALL, GETSEC, VMXOFF, VMFUNC, ENCLS.
      for (const [k, bytes] of [
        [0x66, 0x0f, 0x01, 0xcf],
        [0x0f, 0x37],
        [0x0f, 0x01, 0xc4],
        [0x0f, 0x01, 0xd4],
        [0x0f, 0x01, 0xcf],
      ].entries())
        guarded(`ud${k}`, () => a.db(...bytes));
      guarded('pmc', () => a.db(0x0f, 0x33));
    },
    check: ({ note }) => expect([note(NOTE.ud), note(NOTE.gp), note(NOTE.ve)]).toEqual([5n, 1n, 0n]),
  },
  {
    rule: 'CPUID: leaves of the table are native, others #VE; the TDX leaf, 52 address bits, TSC frequency, APIC id',
    section: 'ABI, "CPUID virtualization"',
    guest: (guest) => {
      const { result, note } = guest;
      for (const leaf of [
        0, 1, 4, 7, 0xd, 0x15, 0x21, 0x23, 0x8000_0000, 0x8000_0001, 0x8000_0007, 0x8000_0008,
      ])
        cpuid(guest, leaf);
      note(NOTE.ve, 0);
      for (const leaf of [2, 6, 9, 0xb, 0x16, 0x1f, 0x4000_0000, 0x4fff_ffff, 0x8000_0002, 0x8000_0006])
        cpuid(guest, leaf);
      note(NOTE.ve, 1);
      cpuid(guest, 0x21);
      for (const [k, register] of [rax, rbx, rcx, rdx].entries()) result(2 + k, register);
      cpuid(guest, 0x8000_0008);
      result(6, rax);
      cpuid(guest, 0x15);
      for (const [k, register] of [rax, rbx, rcx].entries()) result(7 + k, register);
      cpuid(guest, 1);
      result(10, rbx);
      result(11, rcx);
    },
    check: ({ word }) => {
      expect([word(0), word(1)]).toEqual([0n, 10n]);
      expect([word(2), word(3), word(4), word(5)]).toEqual([0n, 0x65746e49n, 0x20202020n, 0x5844546cn]);
      expect(word(6) & 0xffn).toBe(52n);
      expect([word(7), word(8), word(9)]).toEqual([1n, 80n, 25_000_000n]);
      expect(word(10) >> 24n).toBe(0n);
      // Hypervisor, x2APIC, no VMX.
      expect(word(11) & ((1n << 31n) | (1n << 21n) | (1n << 5n))).toBe((1n << 31n) | (1n << 21n));
    },
  },
  {
    rule: 'TDG.VP.CPUIDVE.SET makes every CPUID #VE',
    section: 'ABI, TDG.VP.CPUIDVE.SET',
    guest: (guest) => {
      guest.tdcall(TDG.vpCpuidveSet, { rcx: 4n }, 0);
      guest.tdcall(TDG.vpCpuidveSet, { rcx: 1n }, 8);
      cpuid(guest, 0);
      guest.tdcall(TDG.vpCpuidveSet, { rcx: 0n }, 16);
      cpuid(guest, 0);
    },
    check: ({ word, note }) => {
      expect(word(0)).toBe(status(STATUS.operandInvalid, OPERAND.rcx));
      expect(note(NOTE.ve)).toBe(1n);
    },
  },
  {
    rule: 'CR0 and CR4: what the architecture forbids is #GP, what the module keeps is #VE 28, the rest is free',
    section: 'Base Architecture, "CR0 and CR4"',
    guest: ({ a, guarded, note }) => {
      const write = (register: 0 | 4, label: string, set: number, clear: number): void => {
        guarded(label, () => {
          a.movFromControl(rbx, register);
          if (set !== 0) a.alu('or', rbx, set);
          if (clear !== 0) a.alu('and', rbx, ~clear);
          a.movToControl(register, rbx);
        });
      };
      write(0, 'ts', 8, 0);
      write(0, 'am', 0x40000, 0);
      note(NOTE.ve, 0);
      note(NOTE.gp, 1);
      write(0, 'cd', 0x4000_0000, 0);
      note(NOTE.veInfo + 8, 2);
      write(0, 'ne', 0, 0x20);
      write(0, 'nw', 0x2000_0000, 0);
      note(NOTE.gp, 3);
      write(4, 'mce', 0, 0x40);
      write(4, 'vmxe', 0x2000, 0);
      write(4, 'smxe', 0x4000, 0);
      note(NOTE.ve, 4);
      write(4, 'unknown', 0x80_0000, 0);
      note(NOTE.gp, 5);
      write(4, 'smep', 0x10_0000, 0);
      note(NOTE.gp, 6);
    },
    check: ({ word }) => {
      expect([word(0), word(1)]).toEqual([0n, 0n]);
      expect(word(2)).toBe(BigInt(EXIT_REASON.controlRegister));
      expect(word(3)).toBe(2n);
      expect(word(4)).toBe(4n);
      expect([word(5), word(6)]).toEqual([3n, 3n]);
    },
  },
  {
    rule: 'EFER: unchanged values and SCE are taken, LME and NXE are kept by #VE 32',
    section: 'ABI, "MSR virtualization"',
    guest: ({ a, guarded, note }) => {
      const write = (label: string, flip: number): void =>
        guarded(label, () => {
          a.mov(ecx, 0xc000_0080 | 0);
          a.rdmsr();
          a.alu('xor', eax, flip);
          a.wrmsr();
        });
      write('same', 0);
      write('sce', 1);
      note(NOTE.ve, 0);
      note(NOTE.gp, 1);
      write('nxe', 0x800);
      note(NOTE.ve, 2);
      note(NOTE.veInfo + 8, 3);
      write('svme', 0x1000);
      note(NOTE.gp, 4);
    },
    check: ({ word }) =>
      expect([0, 1, 2, 3, 4].map(word)).toEqual([0n, 0n, 1n, BigInt(EXIT_REASON.wrmsr), 1n]),
  },
  {
    rule: 'TDG.VP.VMCALL: RAX, RCX, RSP, RBP and unknown bits of the mask are refused by operand RCX',
    section: 'ABI, TDG.VP.VMCALL',
    guest: (guest) => {
      for (const [k, mask] of [1n, 2n, 0x10n, 0x20n, 1n << 32n].entries())
        vmcall(guest, TDVMCALL.cpuid, [], k * 8, mask | 0x3c00n);
    },
    check: ({ word }) => {
      for (let k = 0; k < 5; k++) expect(word(k * 8)).toBe(status(STATUS.operandInvalid, OPERAND.rcx));
    },
  },
  {
    rule: 'a host changes only what the guest selected: other registers, RAX and RCX keep their values',
    section: 'ABI, TDG.VP.VMCALL',
    options: { platform: hostile((registers) => registers.fill(0xdead_beefn)) },
    guest: (guest) => {
      const { a, result } = guest;
      a.movabs(rbx, 0xb0b0n);
      a.movabs(r14, 0x1414n);
      a.movabs(rdx, 0xd0d0n);
      a.movabs(r10, 0n);
      a.movabs(r11, 0x10000n);
      a.movabs(rcx, 0xc00n);
      a.movabs(rax, 0n);
      a.db(...TDCALL_BYTES);
      a.mov(at({ disp: AT.results }), rax);
      for (const [k, register] of [rcx, rbx, rdx, r14, r10].entries()) result(1 + k, register);
    },
    check: ({ word }) =>
      expect([0, 1, 2, 3, 4, 5].map(word)).toEqual([0n, 0xc00n, 0xb0b0n, 0xd0d0n, 0x1414n, 0xdead_beefn]),
  },
  {
    rule: 'metadata: unknown fields, foreign handles and read-only fields are refused, and R8 is 0',
    section: 'ABI, TDG.VM.RD and TDG.VM.WR',
    guest: ({ tdcall }) => {
      tdcall(TDG.vmRd, { rcx: 0n, rdx: 0x1110_0003_0000_0000n, r8: 7n }, 0);
      tdcall(TDG.vmRd, { rcx: 0n, rdx: 0x1110_0003_0000_0999n, r8: 7n }, 8);
      tdcall(TDG.vmRd, { rcx: 1n, rdx: 0x1110_0003_0000_0000n, r8: 7n }, 16);
      tdcall(TDG.vmRd, { rcx: 0n, rdx: 0x1110_0003_0000_0000n | (1n << 34n), r8: 7n }, 24);
      tdcall(TDG.vmWr, { rcx: 0n, rdx: 0x1110_0003_0000_0000n, r8: 7n, r9: 7n }, 32);
      tdcall(TDG.vmWr, { rcx: 0n, rdx: 0x9100_0000_0000_0010n, r8: 1n, r9: 0xffff_ffff_ffff_ffffn }, 40);
      tdcall(TDG.vmWr, { rcx: 0n, rdx: 0x9100_0000_0000_0010n, r8: 1n, r9: 2n }, 48);
      tdcall(TDG.vmWr, { rcx: 0n, rdx: 0x1110_0003_0000_0017n, r8: 0n, r9: 1n }, 56);
    },
    check: ({ word }) => {
      expect([word(0), word(3)]).toEqual([0n, 1n << 28n]);
      expect(word(8)).toBe(status(STATUS.metadataFieldIdIncorrect, OPERAND.rdx));
      expect(word(11)).toBe(0n);
      expect(word(16)).toBe(status(STATUS.operandInvalid, OPERAND.rcx));
      expect(word(24) >> 32n).toBe(BigInt(STATUS.metadataFieldIdIncorrect));
      expect(word(32) >> 32n).toBe(BigInt(STATUS.metadataFieldNotWritable));
      expect(word(40)).toBe(0n);
      expect(word(48) >> 32n).toBe(BigInt(STATUS.metadataWriteMaskNotValid));
      expect(word(56) >> 32n).toBe(BigInt(STATUS.metadataFieldCurrentlyNotWritable));
    },
  },
  {
    rule: 'TDG.MR.RTMR.EXTEND hashes into one of four registers; index, alignment and a shared buffer are refused',
    section: 'ABI, TDG.MR.RTMR.EXTEND',
    guest: ({ tdcall }) => {
      tdcall(TDG.mrRtmrExtend, { rcx: SCRATCH, rdx: 2n }, 0);
      tdcall(TDG.mrRtmrExtend, { rcx: SCRATCH, rdx: 4n }, 8);
      tdcall(TDG.mrRtmrExtend, { rcx: SCRATCH + 8n, rdx: 2n }, 16);
      tdcall(TDG.mrRtmrExtend, { rcx: SCRATCH | SHARED, rdx: 2n }, 24);
      tdcall(TDG.vmRd, { rcx: 0n, rdx: 0x1310_0003_0000_0040n + 12n }, 32);
    },
    check: ({ word }) => {
      expect(word(0)).toBe(0n);
      expect(word(8)).toBe(status(STATUS.operandInvalid, OPERAND.rtmr));
      expect(word(16)).toBe(status(STATUS.operandInvalid, OPERAND.rcx));
      expect(word(24)).toBe(status(STATUS.operandInvalid, OPERAND.rcx));
      const digest = sha384(new Uint8Array(96));
      expect(word(35)).toBe(new DataView(digest.buffer).getBigUint64(0, true));
    },
  },
  {
    rule: 'TDG.MR.REPORT and VERIFYREPORT: operands, and a report that was changed',
    section: 'ABI, TDG.MR.REPORT and TDG.MR.VERIFYREPORT',
    guest: (guest) => {
      const { tdcall } = guest;
      tdcall(TDG.mrReport, { rcx: SCRATCH + 0x400n, rdx: SCRATCH, r8: 0n }, 0);
      tdcall(TDG.mrReport, { rcx: SCRATCH + 0x200n, rdx: SCRATCH, r8: 0n }, 8);
      tdcall(TDG.mrReport, { rcx: SCRATCH + 0x400n, rdx: SCRATCH + 8n, r8: 0n }, 16);
      tdcall(TDG.mrReport, { rcx: SCRATCH + 0x400n, rdx: SCRATCH, r8: 1n }, 24);
      tdcall(TDG.mrVerifyReport, { rcx: SCRATCH + 0x400n }, 32);
      store(guest, SCRATCH + 0x400n + 128n, 1n);
      tdcall(TDG.mrVerifyReport, { rcx: SCRATCH + 0x400n }, 40);
      store(guest, SCRATCH + 0x400n + 16n, 1n);
      tdcall(TDG.mrVerifyReport, { rcx: SCRATCH + 0x400n }, 48);
    },
    check: ({ word }) => {
      expect(word(0)).toBe(0n);
      expect(word(8)).toBe(status(STATUS.operandInvalid, OPERAND.rcx));
      expect(word(16)).toBe(status(STATUS.operandInvalid, OPERAND.rdx));
      expect(word(24)).toBe(status(STATUS.operandInvalid, OPERAND.r8));
      expect(word(32)).toBe(0n);
      expect(word(40)).toBe(status(STATUS.invalidReportMacStruct));
      expect(word(48)).toBe(status(STATUS.invalidCpuSvn));
    },
  },
  {
    rule: 'the virtual APIC: SELF_IPI waits for IF and the task priority, EOI and TPR need no host',
    section: 'Base Architecture, "Virtual APIC"',
    guest: ({ a, note }) => {
      const wrmsr = (index: number, value: number): void => {
        a.mov(ecx, index);
        a.mov(eax, value);
        a.alu('xor', edx, edx);
        a.wrmsr();
      };
      wrmsr(0x83f, 0x55);
      note(NOTE.interrupts, 0);
      wrmsr(0x808, 0x60);
      a.db(0xfb, 0x90); // sti, nop
      note(NOTE.interrupts, 1);
      wrmsr(0x808, 0);
      a.db(0x90);
      note(NOTE.interrupts, 2);
      a.cli();
      note(NOTE.ve, 3);
    },
    check: ({ word }) => expect([0, 1, 2, 3].map(word)).toEqual([0n, 0n, 1n, 0n]),
  },
  {
    rule: 'a host that writes to a private page kills the TD with its next access, and gets zeros itself',
    section: 'Base Architecture, "Memory integrity"',
    options: {
      platform: (platform) => ({
        ...platform,
        get state() {
          return platform.state;
        },
        exit(vp, exit, world) {
          const view = world.view as TdxHostView;
          const gpa = BigInt(AT.scratch);
          const { rcx: entry } = view.seamcall(25, { rcx: gpa, rdx: tdrOf(platform) });
          const spa = Number(entry & ~0xfffn);
          const read = view.readSystem(spa, 8);
          if (!read.ok || read.bytes.some((byte) => byte !== 0)) throw new Error('the host read a secret');
          view.writeSystem(spa, Uint8Array.of(1));
          return platform.exit(vp, exit, world);
        },
      }),
    },
    guest: (guest) => {
      store(guest, SCRATCH, 0x5ec2e7n);
      vmcall(guest, TDVMCALL.getTdVmCallInfo, [0n], 0);
      load(guest, SCRATCH);
      guest.result(20, 1n);
    },
    check: ({ word, reason, message }) => {
      expect(reason.kind).toBe('crash');
      expect(message).toContain('lost its integrity');
      expect(word(20)).toBe(0n);
    },
  },
  {
    rule: 'a triple fault ends the virtual processor',
    section: 'Base Architecture, "Triple fault"',
    guest: ({ a }) => {
      a.db(0x6a, 0, 0x48, 0x0f, 0x01, 0x1c, 0x24); // push 0; lidt [rsp]
      a.db(0x0f, 0x0b);
    },
    check: ({ reason }) => expect(reason).toEqual({ kind: 'end', reason: 'triple-fault' }),
  },
];

function tdrOf(platform: Platform): bigint {
  return BigInt((platform.state as { td: { tdr: number } }).td.tdr);
}

describe.each(ENGINES)('rules of a TD, %s', (engine) => {
  it.each(RULES)('$rule ($section)', ({ guest, options, check }) => {
    check(runTd(guest, { engine, ...options }));
  });

  /** What an access to each of these leads to: the counts of #VE and #GP behind it say. */
  const outcomes = (indices: readonly number[], access: (guest: TdGuest) => void): readonly MsrRule[] => {
    const run = runTd(
      (guest) => {
        const { a, guarded, note } = guest;
        for (const [k, index] of indices.entries()) {
          guarded(`msr${k}`, () => {
            a.mov(ecx, index | 0);
            access(guest);
          });
          note(NOTE.ve, k * 2);
          note(NOTE.gp, k * 2 + 1);
        }
      },
      { engine },
    );
    return indices.map((_, k) => {
      const change = (offset: number): boolean =>
        run.word(k * 2 + offset) !== (k === 0 ? 0n : run.word(k * 2 - 2 + offset));
      return change(0) ? 've' : change(1) ? 'gp' : 'native';
    });
  };
  const ends = (rows: readonly MsrRow[]): readonly number[] =>
    rows.flatMap(({ first, last }) => [first, last]);

  it('a read of every MSR of the table is native, #VE or #GP as it says (ABI, "MSR virtualization")', () => {
    const known = MSR_ROWS.filter(({ read }) => read !== 'module');
    expect(known.length).toBeGreaterThan(40);
    expect(outcomes(ends(known), ({ a }) => a.rdmsr())).toEqual(known.flatMap(({ read }) => [read, read]));
  });

  it('a write of every MSR of the table is native, #VE or #GP as it says (ABI, "MSR virtualization")', () => {
    const known = MSR_ROWS.filter(({ write }) => write !== 'module');
    expect(known.length).toBeGreaterThan(50);
    const write = ({ a }: TdGuest): void => {
      a.alu('xor', eax, eax);
      a.alu('xor', edx, edx);
      a.wrmsr();
    };
    expect(outcomes(ends(known), write)).toEqual(known.flatMap(({ write: rule }) => [rule, rule]));
  });

  it('MSRs in no row of the table are #VE, in and outside the architectural ranges', () => {
    const others = [0x1b, 0xfe, 0x17a, 0x2ff, 0x1fff, 0x2000, 0x4000_0000, 0xc000_1fff, 0xffff_ffff];
    const all = others.map(() => 've');
    expect(outcomes(others, ({ a }) => a.rdmsr())).toEqual(all);
    expect(outcomes(others, ({ a }) => a.wrmsr())).toEqual(all);
  });

  it.each([
    ['SPEC_CTRL', 0x48, 1 << 11],
    ['PRED_CMD', 0x49, 2],
    ['FLUSH_CMD', 0x10b, 2],
    ['DEBUGCTL', 0x1d9, 0x40],
    ['TPR', 0x808, 0x100],
    ['EOI', 0x80b, 1],
    ['SELF_IPI', 0x83f, 0x100],
    ['XSS', 0xda0, 1 << 11],
    ['EFER', 0xc000_0080, 0x1000],
  ] as const)(
    'a write to %s of what the module checks: reserved bits are #GP, and 0 is not (ABI, "MSR virtualization")',
    (_, index, reserved) => {
      const write =
        (value: number) =>
        ({ a }: TdGuest): void => {
          a.mov(eax, value);
          a.alu('xor', edx, edx);
          a.wrmsr();
        };
      expect(outcomes([index], write(reserved))).toEqual(['gp']);
      // EFER without LME and NXE is another matter, which has a rule of its own.
      if (index !== 0xc000_0080) expect(outcomes([index], write(0))).toEqual(['native']);
    },
  );
});
