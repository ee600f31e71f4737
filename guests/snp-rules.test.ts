/**
 * Rules of SEV-SNP, each with a small guest program. Sections: AMD64 Architecture Programmer's Manual vol. 2 (24593) and vol. 3
 * (24594), GHCB specification (56421).
 */
import { describe, expect, it } from 'vitest';
import { NPF, SVM_EXIT } from '../src/abi/snp/exit-codes.ts';
import { EVENT_INJECTION, SEV_FEATURE, VINTR, vmsa } from '../src/abi/snp/vmsa.ts';
import type { NestedFaultExit } from '../src/seats/exits.ts';
import { RMP_STATUS, SVM_INTERCEPT } from '../src/seats/snp.ts';
import { ACCEPTED_FEATURES, FEATURE_ROWS } from '../src/silicon/snp/features.ts';
import type { CpuModel } from '../src/x86/cpuid.ts';
import type { Feature } from '../src/x86/defs/def.ts';
import { eax, ecx, edx, rax, rbx as asmRbx, rdi as asmRdi, rdx, rsi as asmRsi } from './asm.ts';
import {
  AT,
  C_BIT,
  linear,
  NOTE,
  runSnp,
  snpModel,
  type HostHand,
  type SnpGuest,
  type SnpOptions,
  type SnpRun,
} from './snp.ts';

interface Rule {
  readonly rule: string;
  readonly section: string;
  readonly options?: SnpOptions;
  readonly guest: (guest: SnpGuest) => void;
  readonly check: (run: SnpRun) => void;
}

const FREE = BigInt(AT.free);
const BLOCKS = BigInt(AT.blocks);
const SHARED = BigInt(AT.shared);
const SCRATCH = BigInt(AT.scratch);
const PAGE = 4096n;
const VC = 29;
const count = (vector: number): number => NOTE.count + vector * 8;
const errorOf = (vector: number): number => NOTE.error + vector * 8;
const ended = ({ reason }: SnpRun): void => expect(reason).toMatchObject({ kind: 'terminated' });
const faults = ({ exits }: SnpRun): NestedFaultExit[] => exits.filter((exit) => exit.kind === 'nested-fault');
/** Ends at the first nested fault. */
const endAtFault: SnpOptions['onExit'] = (_host, exit) => exit.kind === 'nested-fault';

/** One instruction that the host intercepts: #VC with this error code. */
const vc = (
  name: string,
  code: number,
  write: (guest: SnpGuest) => void,
  options: SnpOptions = {},
): Rule => ({
  rule: `${name} is #VC ${code.toString(16)}`,
  section: 'vol. 2, 15.35.5, table 15-35',
  options,
  guest: (guest) => guest.guarded('after', () => write(guest)),
  check: (run) => {
    ended(run);
    expect([run.note(count(VC)), run.note(errorOf(VC))]).toEqual([1n, BigInt(code)]);
  },
});

const spaOf = ({ view }: HostHand, gpa: number): number => {
  const mapping = view.mapping(gpa);
  return mapping.kind === 'page' ? mapping.spa : -1;
};
const nothing = (): void => undefined;
/** Enters the lower VMPL at the first VMGEXIT. */
const enterLower: SnpOptions['onExit'] = (host, exit, nth) => {
  if (exit.kind === 'vmgexit' && nth === 1) host.vmcb.vmsa = spaOf(host, AT.otherVmsa);
  return exit.kind === 'nested-fault';
};
/** A program at VMPL1 or lower, after VMPL0 has given it its pages and done `first`. */
const atLower = (
  lowerVmpl: 1 | 2 | 3,
  rule: string,
  section: string,
  first: (guest: SnpGuest) => void,
  lower: (guest: SnpGuest) => void,
  check: (run: SnpRun) => void,
): Rule => ({
  rule: `at VMPL${lowerVmpl} ${rule}`,
  section,
  options: { onExit: enterLower, lower, lowerVmpl },
  guest: (guest) => {
    guest.grantLower();
    first(guest);
    guest.pageState(SHARED, 2);
  },
  check,
});
/** VMPL0 and VMPL1 take turns at every VMGEXIT. `atSwitch` is the host's deed before each entry. */
const inTurns = (atSwitch: (host: HostHand) => void = nothing): NonNullable<SnpOptions['onExit']> => {
  let lower = false;
  return (host, exit, nth) => {
    if (nth === 1) lower = false;
    if (exit.kind !== 'vmgexit') return exit.kind === 'nested-fault';
    lower = !lower;
    host.vmcb.vmsa = spaOf(host, lower ? AT.otherVmsa : AT.vmsa);
    atSwitch(host);
    return false;
  };
};
/** VMPL0 writes a field of the other context's VMSA. */
const setContext = (guest: SnpGuest, name: Parameters<typeof vmsa.offsetOf>[0], value: bigint): void =>
  guest.store(BigInt(AT.otherVmsa + vmsa.offsetOf(name)), value);
/** V_INTR_VECTOR in bits 39:32, V_INTR_PRIO in 19:16, V_IRQ in 8 (APM vol. 2, table B-4). */
const virtualInterrupt = (vector: number): bigint =>
  (BigInt(vector) << 32n) | (BigInt(vector >> 4) << 16n) | 0x100n;
/** Of the host: 2^40 ticks. */
const HOST_OFFSET = 1n << 40n;
/** A processor that offers more than the models of the table. */
const modelWith = (feature: Feature): CpuModel => {
  const model = snpModel();
  return { ...model, features: new Set([...model.features, feature]) };
};

/** What each VMPL below 0 may do; the paravisor's guest is at 2. */
const lowerRules = (vmpl: 1 | 2 | 3): readonly Rule[] => {
  const nobody: readonly [string, bigint, number] = [
    'to VMPL4, which does not exist',
    0x0104n,
    RMP_STATUS.failInput,
  ];
  const next = BigInt(vmpl + 1);
  const allowed: readonly (readonly [string, bigint, number])[] =
    vmpl === 3
      ? [nobody]
      : [
          [`to VMPL${next} is allowed`, 0x0100n | next, RMP_STATUS.success],
          ['of more than it has is not', 0x1f00n | next, RMP_STATUS.failPermission],
          ['of the VMSA attribute is not', 0x1_0000n | next, RMP_STATUS.failPermission],
        ];
  const refused = Array.from({ length: vmpl + 1 }, (_, target): readonly [string, bigint, number] => [
    target === vmpl ? 'to itself is not' : `to VMPL${target} is not`,
    0x1_0100n | BigInt(target),
    RMP_STATUS.failPermission,
  ]);
  return [
    atLower(
      vmpl,
      'PVALIDATE is #GP',
      'vol. 3, PVALIDATE',
      nothing,
      (guest) => guest.guarded('lowerAfter', () => guest.pvalidate(SCRATCH, false, true, 0)),
      (run) => {
        ended(run);
        expect(run.note(count(13))).toBe(1n);
      },
    ),
    ...[...allowed, ...refused].map(([what, operand, status]) =>
      atLower(
        vmpl,
        `RMPADJUST ${what}`,
        'vol. 3, RMPADJUST',
        nothing,
        (guest) => guest.rmpadjust(SCRATCH, false, operand, 0),
        (run) => {
          ended(run);
          expect(run.word(0)).toBe(BigInt(status));
        },
      ),
    ),
    atLower(
      vmpl,
      'a page that VMPL0 gave for reading is read, and a write goes to the host',
      'vol. 2, 15.36.7 and table 15-38',
      (guest) => {
        guest.store(SCRATCH, 0x4242n);
        guest.rmpadjust(SCRATCH, false, 0x0100n | BigInt(vmpl), 9);
      },
      (guest) => {
        guest.load(SCRATCH);
        guest.result(0, rax);
        guest.store(SCRATCH, 1n);
      },
      (run) => {
        expect(run.word(0)).toBe(0x4242n);
        const [fault] = faults(run);
        expect((fault as NestedFaultExit).hi & NPF.vmpl).not.toBe(0);
        expect((fault as NestedFaultExit).gpa).toBe(AT.scratch);
        expect(run.machine.truth.read(AT.scratch, 2)).toEqual(Uint8Array.of(0x42, 0x42));
      },
    ),
    ...(
      [
        ['a page that VMPL0 did not give', BLOCKS],
        ['a VMSA page', BigInt(AT.vmsa)],
        ['its own VMSA page', BigInt(AT.otherVmsa)],
      ] as const
    ).map(([what, address]) =>
      atLower(
        vmpl,
        `${what} is out of reach`,
        'vol. 2, 15.36.7',
        nothing,
        (guest) => {
          guest.load(address);
          guest.result(0, 1n);
        },
        (run) => {
          expect((faults(run)[0] as NestedFaultExit).hi & NPF.vmpl).not.toBe(0);
          expect(run.word(0)).toBe(0n);
        },
      ),
    ),
    atLower(
      vmpl,
      'a page without supervisor-execute cannot be run',
      'vol. 2, table 15-38',
      (guest) => guest.rmpadjust(SCRATCH, false, 0x0300n | BigInt(vmpl), 9),
      (guest) => {
        guest.a.movabs(rax, SCRATCH);
        guest.a.jmp(rax);
      },
      (run) => {
        const [fault] = faults(run);
        expect((fault as NestedFaultExit).lo & NPF.fetch).not.toBe(0);
        expect((fault as NestedFaultExit).hi & NPF.vmpl).not.toBe(0);
      },
    ),
  ];
};

const RULES: readonly Rule[] = [
  ...lowerRules(1),
  ...lowerRules(2),
  ...lowerRules(3),
  {
    rule: 'a page that is validated already says so in CF',
    section: 'vol. 3, PVALIDATE',
    guest: (guest) => {
      guest.pvalidate(SCRATCH, false, true, 0);
      guest.pvalidate(SCRATCH, false, false, 1);
      guest.pvalidate(SCRATCH, false, false, 2);
      guest.pvalidate(SCRATCH, false, true, 3);
    },
    check: (run) => {
      ended(run);
      expect([0, 1, 2, 3].map(run.word)).toEqual([1n << 32n, 0n, 1n << 32n, 0n]);
    },
  },
  ...(['read', 'write', 'fetch'] as const).map((how): Rule => ({
    rule: `a ${how} of a page that was not validated is #VC 404 with its address in CR2`,
    section: 'vol. 2, 15.36.10, table 15-39',
    guest: (guest) =>
      guest.guarded('after', () => {
        if (how === 'read') guest.load(FREE + 0x123n);
        else if (how === 'write') guest.store(FREE + 0x123n, 1n);
        else {
          guest.a.movabs(rax, FREE + 0x123n);
          guest.a.jmp(rax);
        }
      }),
    check: (run) => {
      ended(run);
      expect([run.note(count(VC)), run.note(errorOf(VC)), run.note(NOTE.cr2)]).toEqual([
        1n,
        0x404n,
        FREE + 0x123n,
      ]);
    },
  })),
  {
    rule: 'a block is validated as one, and then it is used',
    section: 'vol. 3, PVALIDATE',
    guest: (guest) => {
      guest.pvalidate(FREE, true, true, 0);
      guest.store(FREE + 0x1000n, 0x1234n);
      guest.load(FREE + 0x1000n);
      guest.result(1, rax);
    },
    check: (run) => {
      ended(run);
      expect([run.word(0), run.word(1)]).toEqual([0n, 0x1234n]);
    },
  },
  {
    rule: "a private access to a page that is the host's goes to the host and makes no progress",
    section: 'vol. 2, 15.36.10, table 15-39',
    options: { onExit: endAtFault },
    guest: (guest) => {
      guest.result(0, 1n);
      guest.load(SHARED);
      guest.result(0, 2n);
    },
    check: (run) => {
      const [fault] = faults(run);
      expect(fault?.gpa).toBe(Number(SHARED));
      expect((fault as NestedFaultExit).lo & NPF.rmp).not.toBe(0);
      expect((fault as NestedFaultExit).hi & NPF.encrypted).not.toBe(0);
      expect(run.word(0)).toBe(1n);
    },
  },
  {
    rule: "a shared write to the guest's own page goes to the host",
    section: 'vol. 2, 15.36.10, table 15-39',
    options: { onExit: endAtFault },
    guest: (guest) => {
      guest.store(BLOCKS, 0x55n);
      guest.mapAt(0, BLOCKS);
      guest.store(linear(0), 1n);
    },
    check: (run) => {
      const [fault] = faults(run);
      expect((fault as NestedFaultExit).lo & NPF.rmp).not.toBe(0);
      expect((fault as NestedFaultExit).lo & NPF.write).not.toBe(0);
      expect((fault as NestedFaultExit).hi & NPF.encrypted).toBe(0);
      expect(run.machine.truth.read(Number(BLOCKS), 1)?.[0]).toBe(0x55);
    },
  },
  {
    rule: 'a shared read of a private page gives ciphertext, the same each time, and the page is unharmed',
    section: 'vol. 2, 15.34.5 and table 15-39',
    guest: (guest) => {
      guest.store(BLOCKS, 0x1122334455667788n);
      guest.mapAt(0, BLOCKS);
      guest.load(linear(0));
      guest.result(0, rax);
      guest.load(BLOCKS);
      guest.result(1, rax);
      guest.load(linear(0));
      guest.result(2, rax);
    },
    check: (run) => {
      ended(run);
      expect(run.word(0)).not.toBe(0x1122334455667788n);
      expect(run.word(2)).toBe(run.word(0));
      expect(run.word(1)).toBe(0x1122334455667788n);
    },
  },
  {
    rule: 'what is shared is clear on both sides',
    section: 'vol. 2, 15.34.5',
    guest: (guest) => {
      guest.mapAt(0, SHARED);
      guest.store(linear(0, 8), 0x77n);
    },
    check: (run) => {
      ended(run);
      const seen = run.hand().view.read(Number(SHARED) + 8, 1);
      expect(seen.ok && seen.bytes[0]).toBe(0x77);
    },
  },
  {
    rule: 'a 4 KiB PVALIDATE in a 2 MiB entry waits for the host to split it',
    section: 'vol. 3, PVALIDATE; vol. 2, 15.36.10 (SIZEM)',
    guest: (guest) => {
      guest.pvalidate(BLOCKS + PAGE, false, false, 0);
      guest.load(BLOCKS);
      guest.result(1, rax);
    },
    check: (run) => {
      ended(run);
      const [fault] = faults(run);
      expect((fault as NestedFaultExit).hi & NPF.sizeMismatch).not.toBe(0);
      expect(run.word(0)).toBe(0n);
    },
  },
  {
    rule: 'a 2 MiB PVALIDATE over 4 KiB entries is FAIL_SIZEMISMATCH',
    section: 'vol. 3, PVALIDATE',
    guest: (guest) => {
      guest.pvalidate(BLOCKS + PAGE, false, false, 0);
      guest.pvalidate(BLOCKS, true, false, 1);
    },
    check: (run) => {
      ended(run);
      expect(run.word(1)).toBe(BigInt(RMP_STATUS.failSizeMismatch));
    },
  },
  {
    rule: 'PVALIDATE of a shared mapping is #PF with RSVD',
    section: 'vol. 3, PVALIDATE (unverified)',
    guest: (guest) => {
      guest.mapAt(0, BLOCKS);
      guest.guarded('after', () => guest.pvalidate(linear(0), false, true, 0));
    },
    check: (run) => {
      ended(run);
      expect([run.note(count(14)), run.note(errorOf(14))]).toEqual([1n, 9n]);
    },
  },
  ...(
    [
      ['to a higher number, no more than it has', 0x0f01n, RMP_STATUS.success],
      ['to itself', 0x0f00n, RMP_STATUS.failPermission],
      ['more than it has', 0x1f01n, RMP_STATUS.failPermission],
      ['to a VMPL that does not exist', 0x0f04n, RMP_STATUS.failInput],
      ['with the VMSA attribute', 0x1_0001n, RMP_STATUS.success],
    ] as const
  ).map(([what, operand, status]): Rule => ({
    rule: `RMPADJUST at VMPL0 ${what}: ${status}`,
    section: 'vol. 3, RMPADJUST',
    guest: (guest) => guest.rmpadjust(SCRATCH, false, operand, 0),
    check: (run) => {
      ended(run);
      expect(run.word(0)).toBe(BigInt(status));
    },
  })),
  {
    rule: 'RMPADJUST of a page that is not validated is #VC 404',
    section: 'vol. 3, RMPADJUST',
    guest: (guest) => guest.guarded('after', () => guest.rmpadjust(FREE, true, 0x0f01n, 0)),
    check: (run) => {
      ended(run);
      expect(run.note(errorOf(VC))).toBe(0x404n);
    },
  },
  {
    rule: 'RMPUPDATE and PSMASH are no instructions of a guest',
    section: 'vol. 3, RMPUPDATE, PSMASH',
    guest: (guest) => {
      guest.guarded('first', () => guest.a.db(0xf2, 0x0f, 0x01, 0xfe));
      guest.guarded('second', () => guest.a.db(0xf3, 0x0f, 0x01, 0xff));
    },
    check: (run) => {
      ended(run);
      expect(run.note(count(6))).toBe(2n);
    },
  },
  vc('CPUID', SVM_EXIT.cpuid, ({ a }) => a.db(0x0f, 0xa2)),
  vc('IN', SVM_EXIT.io, ({ a }) => a.db(0xe4, 0x80)),
  vc('OUT', SVM_EXIT.io, ({ a }) => a.db(0xe6, 0x80)),
  vc('INS', SVM_EXIT.io, ({ a }) => {
    a.mov(asmRdi, AT.scratch);
    a.mov(edx, 0x80);
    a.db(0x6c);
  }),
  vc('OUTS', SVM_EXIT.io, ({ a }) => {
    a.mov(asmRsi, AT.scratch);
    a.mov(edx, 0x80);
    a.db(0x6e);
  }),
  vc('MONITOR', SVM_EXIT.monitor, ({ a }) => a.db(0x0f, 0x01, 0xc8), {
    intercepts: SVM_INTERCEPT.monitor,
    model: modelWith('monitor'),
  }),
  vc('MWAIT', SVM_EXIT.mwait, ({ a }) => a.db(0x0f, 0x01, 0xc9), {
    intercepts: SVM_INTERCEPT.monitor,
    model: modelWith('monitor'),
  }),
  vc('RDMSR', SVM_EXIT.msr, (guest) => guest.rdmsr(0x4000_0020, 0)),
  vc('WRMSR', SVM_EXIT.msr, (guest) => guest.wrmsr(0x4000_0000, 1n)),
  vc('VMMCALL', SVM_EXIT.vmmcall, ({ a }) => a.db(0x0f, 0x01, 0xd9)),
  vc('RDTSC', SVM_EXIT.readTsc, ({ a }) => a.db(0x0f, 0x31), { intercepts: SVM_INTERCEPT.rdtsc }),
  vc('RDTSCP', SVM_EXIT.readTscp, ({ a }) => a.db(0x0f, 0x01, 0xf9), { intercepts: SVM_INTERCEPT.rdtscp }),
  vc('RDPMC', SVM_EXIT.readPmc, ({ a }) => a.db(0x0f, 0x33), { intercepts: SVM_INTERCEPT.rdpmc }),
  vc('WBINVD', SVM_EXIT.wbinvd, ({ a }) => a.db(0x0f, 0x09), { intercepts: SVM_INTERCEPT.cache }),
  vc('INVD', SVM_EXIT.invd, ({ a }) => a.db(0x0f, 0x08), { intercepts: SVM_INTERCEPT.cache }),
  vc('a read of DR7', SVM_EXIT.readDr7, ({ a }) => a.db(0x0f, 0x21, 0xf8), { intercepts: SVM_INTERCEPT.dr7 }),
  vc('a write of DR7', SVM_EXIT.writeDr7, ({ a }) => a.db(0x0f, 0x23, 0xf8), {
    intercepts: SVM_INTERCEPT.dr7,
  }),
  vc('a read of emulated MMIO', SVM_EXIT.nestedPageFault, (guest) => {
    guest.mapAt(0, 0xfec0_0000n);
    guest.a.movabs(asmRbx, linear(0));
    guest.load(linear(0));
  }),
  vc('a write to emulated MMIO', SVM_EXIT.nestedPageFault, (guest) => {
    guest.mapAt(0, 0xfec0_0000n);
    guest.store(linear(0), 1n);
  }),
  {
    rule: 'HLT is an automatic exit: the host has it, and the guest no #VC',
    section: 'vol. 2, table 15-35',
    options: { onExit: (_host, exit) => exit.kind === 'hlt' },
    guest: (guest) => guest.a.db(0xf4),
    check: (run) => {
      expect(run.exits.map(({ kind }) => kind)).toEqual(['hlt']);
      expect(run.note(count(VC))).toBe(0n);
    },
  },
  {
    rule: "with DebugSwap DR7 is the guest's own",
    section: 'vol. 2, 15.36.20 (DebugSwap)',
    options: { features: SEV_FEATURE.debugSwap, intercepts: SVM_INTERCEPT.dr7 },
    guest: (guest) => {
      guest.a.mov(eax, 0x400);
      guest.a.db(0x0f, 0x23, 0xf8);
      guest.a.mov(eax, 0x1234);
      // DR0
      guest.a.db(0x0f, 0x23, 0xc0);
      guest.pageState(SHARED + 0x1000n, 2);
      guest.a.db(0x0f, 0x21, 0xc0);
      guest.result(0, rax);
    },
    check: (run) => {
      ended(run);
      expect([run.note(count(VC)), run.word(0)]).toEqual([0n, 0x1234n]);
    },
  },
  {
    rule: 'SEV_STATUS is native and says what is active; it cannot be written',
    section: 'vol. 2, 15.34.10',
    options: { features: SEV_FEATURE.debugSwap },
    guest: (guest) => {
      guest.rdmsr(0xc001_0131, 0);
      guest.guarded('after', () => guest.wrmsr(0xc001_0131, 0n));
    },
    check: (run) => {
      ended(run);
      expect([run.word(0), run.note(count(13))]).toEqual([0x87n, 1n]);
    },
  },
  {
    rule: 'EFER shows SVME and a write does not change it',
    section: 'vol. 2, 15.35.10',
    guest: (guest) => {
      guest.wrmsr(0xc000_0080, 0xd01n);
      guest.rdmsr(0xc000_0080, 0);
    },
    check: (run) => {
      ended(run);
      expect(run.word(0) & 0x1000n).toBe(0x1000n);
    },
  },
  {
    rule: 'Secure TSC has a frequency MSR; without it the MSR is #GP',
    section: 'vol. 2, 15.36.18',
    guest: (guest) => guest.guarded('after', () => guest.rdmsr(0xc001_0134, 0)),
    check: (run) => {
      ended(run);
      expect(run.note(count(13))).toBe(1n);
    },
  },
  {
    rule: 'an ordinary TSC has the offset that the host gives it',
    section: 'vol. 2, 15.30.5',
    options: { tscAtZero: HOST_OFFSET },
    guest: (guest) => {
      guest.a.db(0x0f, 0x31);
      guest.result(0, rdx);
    },
    check: (run) => {
      ended(run);
      expect(run.word(0)).toBe(HOST_OFFSET >> 32n);
    },
  },
  {
    rule: "Secure TSC: the frequency is told, and the host's offset counts for nothing",
    section: 'vol. 2, 15.36.18',
    options: { features: SEV_FEATURE.secureTsc, tscAtZero: HOST_OFFSET },
    guest: (guest) => {
      guest.rdmsr(0xc001_0134, 0);
      guest.a.db(0x0f, 0x31);
      guest.result(1, rdx);
    },
    check: (run) => {
      ended(run);
      expect([run.word(0), run.word(1)]).toEqual([2000n, 0n]);
    },
  },
  {
    rule: 'Secure TSC: a context has the scale and the offset of its own VMSA',
    section: 'vol. 2, 15.36.18',
    options: {
      lowerFeatures: SEV_FEATURE.secureTsc,
      tscAtZero: HOST_OFFSET,
      onExit: inTurns(),
      lower: (guest) => {
        guest.a.db(0x0f, 0x31);
        guest.result(0, rdx);
        guest.a.db(0x0f, 0x31);
        guest.result(1, rax);
      },
    },
    guest: (guest) => {
      guest.grantLower();
      setContext(guest, 'tscOffset', 0x1234n << 32n);
      // 8.32 fixed point: half the speed.
      setContext(guest, 'tscScale', 1n << 31n);
      guest.pageState(SHARED, 2);
    },
    check: (run) => {
      ended(run);
      expect(run.word(0)).toBe(0x1234n);
      expect(run.word(1)).toBeGreaterThan(0n);
      // One tick of the clock is 2 of an ordinary TSC here, and 1 of this one.
      expect(run.word(1)).toBeLessThanOrEqual(BigInt(run.machine.now));
    },
  },
  {
    rule: 'VMGEXIT leaves with RIP behind it',
    section: 'vol. 2, 15.35.6',
    guest: (guest) => {
      guest.wrmsr(0xc001_0130, 0x2n);
      guest.vmgexit();
      guest.rdmsr(0xc001_0130, 0);
    },
    check: (run) => {
      ended(run);
      expect(run.word(0) & 0xfffn).toBe(1n);
    },
  },
  {
    rule: "the host cannot write a page that is the guest's, and reads ciphertext",
    section: 'vol. 2, 15.36.10, table 15-39',
    guest: (guest) => guest.store(SCRATCH, 0x1122334455667788n),
    check: (run) => {
      ended(run);
      const { view } = run.hand();
      expect(view.write(AT.scratch, new Uint8Array(8))).toEqual({ ok: false, reason: 'private' });
      const seen = view.read(AT.scratch, 8);
      expect(seen.ok).toBe(true);
      if (seen.ok)
        expect(new DataView(seen.bytes.buffer).getBigUint64(0, true)).not.toBe(0x1122334455667788n);
      expect(run.machine.truth.read(AT.scratch, 1)?.[0]).toBe(0x88);
    },
  },
  {
    rule: 'two private pages that the host swaps are not reached any more',
    section: 'vol. 2, 15.36.10 (GPA of the RMP entry)',
    options: {
      onExit: (host, exit) => {
        if (exit.kind === 'nested-fault') return true;
        const { view } = host;
        const one = view.mapping(AT.scratch);
        const other = view.mapping(AT.otherVmsa);
        view.map(AT.scratch, other);
        view.map(AT.otherVmsa, one);
        return false;
      },
    },
    guest: (guest) => {
      guest.store(SCRATCH, 0x1111n);
      guest.store(BigInt(AT.otherVmsa), 0x2222n);
      guest.pageState(SHARED, 2);
      guest.load(SCRATCH);
      guest.result(0, rax);
    },
    check: (run) => {
      expect(faults(run)[0]?.gpa).toBe(AT.scratch);
      expect(run.word(0)).toBe(0n);
    },
  },
  {
    rule: 'a page that the host takes and gives back is not validated any more',
    section: 'vol. 3, RMPUPDATE',
    options: {
      onExit: ({ view }, exit) => {
        const mapping = view.mapping(AT.scratch);
        if (exit.kind !== 'vmgexit' || mapping.kind !== 'page') return false;
        const { spa } = mapping;
        view.rmpupdate(spa, { assigned: false, large: false, immutable: false, gpa: 0, asid: 0 });
        view.rmpupdate(spa, { assigned: true, large: false, immutable: false, gpa: AT.scratch, asid: 1 });
        return false;
      },
    },
    guest: (guest) => {
      guest.store(SCRATCH, 0x1111n);
      guest.pageState(SHARED, 2);
      guest.guarded('after', () => guest.load(SCRATCH));
    },
    check: (run) => {
      ended(run);
      expect(run.note(errorOf(VC))).toBe(0x404n);
    },
  },
  {
    rule: 'ciphertext that the host moves to another page is noise there',
    section: 'vol. 2, 7.10 (the address is part of the encryption)',
    options: {
      onExit: ({ view }, exit, nth) => {
        if (exit.kind !== 'vmgexit' || nth !== 1) return false;
        const from = view.mapping(AT.scratch);
        const to = view.mapping(AT.otherVmsa);
        if (from.kind !== 'page' || to.kind !== 'page') return true;
        const bytes = view.readSystem(from.spa, 4096);
        view.rmpupdate(to.spa, { assigned: false, large: false, immutable: false, gpa: 0, asid: 0 });
        if (bytes.ok) view.writeSystem(to.spa, bytes.bytes);
        view.rmpupdate(to.spa, {
          assigned: true,
          large: false,
          immutable: false,
          gpa: AT.otherVmsa,
          asid: 1,
        });
        return false;
      },
    },
    guest: (guest) => {
      guest.store(SCRATCH, 0x1122334455667788n);
      guest.pageState(SHARED, 2);
      // A guest that is careless enough to validate again.
      guest.pvalidate(BigInt(AT.otherVmsa), false, true, 0);
      guest.load(BigInt(AT.otherVmsa));
      guest.result(1, rax);
    },
    check: (run) => {
      ended(run);
      expect(run.word(1)).not.toBe(0x1122334455667788n);
      expect(run.word(1)).not.toBe(0n);
    },
  },
  {
    rule: 'ciphertext that the host puts back into the same page decrypts: replay is stopped by validation alone',
    section: 'vol. 2, 15.36.1',
    options: {
      onExit: ({ view }, exit, nth) => {
        if (exit.kind !== 'vmgexit' || nth !== 1) return false;
        const page = view.mapping(AT.scratch);
        if (page.kind !== 'page') return true;
        const bytes = view.readSystem(page.spa, 4096);
        view.rmpupdate(page.spa, { assigned: false, large: false, immutable: false, gpa: 0, asid: 0 });
        if (bytes.ok) view.writeSystem(page.spa, bytes.bytes);
        view.rmpupdate(page.spa, {
          assigned: true,
          large: false,
          immutable: false,
          gpa: AT.scratch,
          asid: 1,
        });
        return false;
      },
    },
    guest: (guest) => {
      guest.store(SCRATCH, 0x1122334455667788n);
      guest.pageState(SHARED, 2);
      guest.pvalidate(SCRATCH, false, true, 0);
      guest.load(SCRATCH);
      guest.result(1, rax);
    },
    check: (run) => {
      ended(run);
      expect([run.word(0), run.word(1)]).toEqual([0n, 0x1122334455667788n]);
    },
  },
  {
    rule: 'a page that becomes shared shows its old ciphertext to the host, never its plaintext',
    section: 'vol. 2, 15.34.5',
    guest: (guest) => {
      guest.store(SCRATCH, 0x1122334455667788n);
      guest.pvalidate(SCRATCH, false, false, 0);
      guest.pageState(SCRATCH, 2);
    },
    check: (run) => {
      ended(run);
      const seen = run.hand().view.read(AT.scratch, 8);
      expect(seen.ok && new DataView(seen.bytes.buffer).getBigUint64(0, true)).not.toBe(0x1122334455667788n);
    },
  },
  {
    rule: 'an ordinary guest takes the vector that the host injects',
    section: 'vol. 2, 15.20',
    options: {
      onExit: ({ vmcb }, exit, nth) => {
        if (exit.kind === 'vmgexit' && nth === 1)
          vmcb.eventInj = { lo: (EVENT_INJECTION.valid | 0x40) >>> 0, hi: 0 };
        return false;
      },
    },
    guest: (guest) => {
      guest.pageState(SHARED, 2);
      guest.a.db(0x90);
    },
    check: (run) => {
      ended(run);
      expect(run.note(NOTE.interrupts) & 0xffffn).toBe(0x41n);
    },
  },
  ...(
    [
      ['a software interrupt', EVENT_INJECTION.software, 0x80],
      ['#BP as an exception', EVENT_INJECTION.exception, 3],
      ['#OF as an exception', EVENT_INJECTION.exception, 4],
    ] as const
  ).map(([what, type, vector]): Rule => ({
    rule: `${what} cannot be injected: VMEXIT_INVALID`,
    section: 'vol. 2, 15.36.16 and 15.20',
    options: {
      onExit: ({ vmcb }, exit, nth) => {
        if (exit.kind === 'vmgexit' && nth === 1)
          vmcb.eventInj = {
            lo: (EVENT_INJECTION.valid | (type << EVENT_INJECTION.typeShift) | vector) >>> 0,
            hi: 0,
          };
        return false;
      },
    },
    guest: (guest) => guest.pageState(SHARED, 2),
    check: (run) => {
      expect(run.exits.at(-1)).toEqual({ kind: 'entry-failed', code: SVM_EXIT.invalid });
    },
  })),
  {
    rule: 'restricted injection: #HV is all that comes in',
    section: 'vol. 2, 15.36.16',
    options: {
      features: SEV_FEATURE.restrictedInjection,
      onExit: ({ vmcb }, exit, nth) => {
        if (exit.kind === 'vmgexit' && nth === 1)
          vmcb.eventInj = {
            lo: (EVENT_INJECTION.valid | (EVENT_INJECTION.exception << EVENT_INJECTION.typeShift) | 28) >>> 0,
            hi: 0,
          };
        return false;
      },
    },
    guest: (guest) => {
      guest.pageState(SHARED, 2);
      guest.a.db(0x90);
    },
    check: (run) => {
      ended(run);
      expect(run.note(count(28))).toBe(1n);
    },
  },
  // What a host did to the guest without it (threat model: int 0x80, #DE, a forged #VC, an NMI, an interrupt while IF is clear).
  ...(
    [
      ['the vector of int 0x80', EVENT_INJECTION.external, 0x80],
      ['#DE', EVENT_INJECTION.exception, 0],
      ['a forged #VC', EVENT_INJECTION.exception, VC],
      ['an NMI', EVENT_INJECTION.nmi, 2],
      ['an interrupt while IF is clear', EVENT_INJECTION.external, 0x45],
    ] as const
  ).map(([what, type, vector]): Rule => ({
    rule: `restricted injection: ${what} is VMEXIT_INVALID, and the guest is not reached`,
    section: 'vol. 2, 15.36.16',
    options: {
      features: SEV_FEATURE.restrictedInjection,
      onExit: ({ vmcb }, exit, nth) => {
        if (exit.kind === 'vmgexit' && nth === 1)
          vmcb.eventInj = {
            lo: (EVENT_INJECTION.valid | (type << EVENT_INJECTION.typeShift) | vector) >>> 0,
            hi: 0x72,
          };
        return false;
      },
    },
    guest: (guest) => {
      guest.pageState(SHARED, 2);
      guest.result(0, 1n);
    },
    check: (run) => {
      expect(run.exits.at(-1)).toEqual({ kind: 'entry-failed', code: SVM_EXIT.invalid });
      expect([run.word(0), run.note(NOTE.interrupts), run.note(count(vector & 31))]).toEqual([0n, 0n, 0n]);
    },
  })),
  {
    rule: "alternate injection: the host's event is ignored, that of the VMSA is delivered",
    section: 'vol. 2, 15.36.16',
    options: {
      features: SEV_FEATURE.alternateInjection,
      vmsa: (page) => vmsa.setHalves(page, 'eventInj', (EVENT_INJECTION.valid | 0x50) >>> 0, 0),
      onExit: ({ vmcb }, exit, nth) => {
        if (exit.kind === 'vmgexit' && nth === 1)
          vmcb.eventInj = { lo: (EVENT_INJECTION.valid | 0x40) >>> 0, hi: 0 };
        return false;
      },
    },
    guest: (guest) => {
      guest.a.db(0x90);
      guest.pageState(SHARED, 2);
      guest.a.db(0x90);
    },
    // It comes before the guest has an IDT of its own: the first instruction is not reached.
    check: (run) => expect(run.exits.at(-1)).toEqual({ kind: 'triple-fault' }),
  },
  {
    rule: 'alternate injection: the event that VMPL0 put into the VMSA is delivered, although IF is clear; the one of the VMCB is not',
    section: 'vol. 2, 15.36.16',
    options: {
      lowerFeatures: SEV_FEATURE.alternateInjection,
      onExit: inTurns((host) => {
        if (host.vmcb.vmsa === spaOf(host, AT.otherVmsa))
          host.vmcb.eventInj = { lo: (EVENT_INJECTION.valid | 0x40) >>> 0, hi: 0 };
      }),
      lower: (guest) => {
        guest.pageState(SHARED, 2);
        guest.note(NOTE.interrupts, 0);
      },
    },
    guest: (guest) => {
      guest.grantLower();
      guest.pageState(SHARED, 2);
      setContext(guest, 'eventInj', BigInt((EVENT_INJECTION.valid | 0x50) >>> 0));
      guest.pageState(SHARED, 2);
    },
    check: (run) => {
      ended(run);
      expect(run.word(0)).toBe(0x1_0051n);
    },
  },
  {
    rule: 'alternate injection: an exception with its error code',
    section: 'vol. 2, 15.36.16',
    options: {
      lowerFeatures: SEV_FEATURE.alternateInjection,
      onExit: inTurns(),
      lower: (guest) => guest.guarded('lowerAfter', () => guest.pageState(SHARED, 2)),
    },
    guest: (guest) => {
      guest.grantLower();
      guest.pageState(SHARED, 2);
      const event =
        EVENT_INJECTION.valid |
        EVENT_INJECTION.hasError |
        (EVENT_INJECTION.exception << EVENT_INJECTION.typeShift) |
        13;
      setContext(guest, 'eventInj', (0x123n << 32n) | BigInt(event >>> 0));
      guest.pageState(SHARED, 2);
    },
    check: (run) => {
      ended(run);
      expect([run.note(count(13)), run.note(errorOf(13))]).toEqual([1n, 0x123n]);
    },
  },
  {
    rule: 'alternate injection: a virtual interrupt of the VMSA waits for IF',
    section: 'vol. 2, 15.36.16 and 15.21.4',
    options: {
      lowerFeatures: SEV_FEATURE.alternateInjection,
      onExit: inTurns(),
      lower: (guest) => {
        guest.a.db(0x90);
        guest.note(NOTE.interrupts, 0);
        guest.a.db(0xfb, 0x90, 0x90);
        guest.note(NOTE.interrupts, 1);
      },
    },
    guest: (guest) => {
      guest.grantLower();
      setContext(guest, 'vintrControl', virtualInterrupt(0x60));
      guest.pageState(SHARED, 2);
    },
    check: (run) => {
      ended(run);
      expect([run.word(0), run.word(1)]).toEqual([0n, 0x1_0061n]);
    },
  },
  {
    rule: 'alternate injection: a virtual interrupt waits for the task priority, which CR8 is',
    section: 'vol. 2, 15.36.16 and 15.21.4',
    options: {
      lowerFeatures: SEV_FEATURE.alternateInjection,
      onExit: inTurns(),
      lower: (guest) => {
        guest.a.db(0xfb, 0x90, 0x90);
        guest.note(NOTE.interrupts, 0);
        guest.a.mov(eax, 0);
        guest.a.db(0x44, 0x0f, 0x22, 0xc0); // mov cr8, rax
        guest.a.db(0x90);
        guest.note(NOTE.interrupts, 1);
      },
    },
    guest: (guest) => {
      guest.grantLower();
      setContext(guest, 'vintrControl', virtualInterrupt(0x60) | 7n);
      guest.pageState(SHARED, 2);
    },
    check: (run) => {
      ended(run);
      expect([run.word(0), run.word(1)]).toEqual([0n, 0x1_0061n]);
    },
  },
  {
    rule: 'alternate injection: a virtual NMI of the VMSA does not wait for IF, but for the end of another NMI',
    section: 'vol. 2, 15.36.16',
    options: {
      lowerFeatures: SEV_FEATURE.alternateInjection,
      onExit: inTurns(),
      lower: (guest) => {
        guest.pageState(SHARED, 2);
        guest.a.db(0x90);
        guest.note(count(2), 0);
        guest.pageState(SHARED, 2);
        guest.a.db(0x90);
        guest.note(count(2), 1);
      },
    },
    guest: (guest) => {
      guest.grantLower();
      guest.pageState(SHARED, 2);
      setContext(guest, 'vintrControl', BigInt(VINTR.nmi | VINTR.nmiEnable | VINTR.nmiMask));
      guest.pageState(SHARED, 2);
      setContext(guest, 'vintrControl', BigInt(VINTR.nmi | VINTR.nmiEnable));
      guest.pageState(SHARED, 2);
    },
    check: (run) => {
      ended(run);
      expect([run.word(0), run.word(1)]).toEqual([0n, 1n]);
    },
  },
  {
    rule: 'alternate injection: a context that was left busy is VMEXIT_BUSY',
    section: 'vol. 2, 15.36.16 (GUEST_BUSY)',
    options: {
      features: SEV_FEATURE.alternateInjection,
      vmsa: (page) => vmsa.setHalves(page, 'vintrControl', 0, 0x8000_0000),
    },
    guest: () => undefined,
    check: (run) => expect(run.exits).toEqual([{ kind: 'entry-failed', code: SVM_EXIT.busy }]),
  },
  {
    rule: 'restricted and alternate injection exclude each other',
    section: 'vol. 2, 15.36.16',
    options: { features: SEV_FEATURE.restrictedInjection | SEV_FEATURE.alternateInjection },
    guest: () => undefined,
    check: (run) => expect(run.exits).toEqual([{ kind: 'entry-failed', code: SVM_EXIT.invalid }]),
  },
  {
    rule: 'a VMSA without EFER.SVME is VMEXIT_INVALID',
    section: 'vol. 2, 15.5.1',
    options: { vmsa: (page) => vmsa.setHalves(page, 'efer', vmsa.low(page, 'efer') & ~0x1000, 0) },
    guest: () => undefined,
    check: (run) => expect(run.exits).toEqual([{ kind: 'entry-failed', code: SVM_EXIT.invalid }]),
  },
  {
    rule: 'a page without the VMSA attribute is no context',
    section: 'vol. 2, 15.36.17',
    options: {
      onExit: ({ view, vmcb }, exit, nth) => {
        const mapping = view.mapping(AT.scratch);
        if (exit.kind === 'vmgexit' && nth === 1 && mapping.kind === 'page') vmcb.vmsa = mapping.spa;
        return false;
      },
    },
    guest: (guest) => guest.pageState(SHARED, 2),
    check: (run) => expect(run.exits.at(-1)).toEqual({ kind: 'entry-failed', code: SVM_EXIT.invalid }),
  },
  {
    rule: 'the host cannot write the VMSA of a processor between its turns, and reads ciphertext',
    section: 'vol. 2, 15.36.10, table 15-39',
    options: {
      onExit: (host, exit) => {
        if (exit.kind !== 'vmgexit') return false;
        const spa = spaOf(host, AT.vmsa);
        expect(host.view.writeSystem(spa + vmsa.offsetOf('rip'), new Uint8Array(8))).toEqual({
          ok: false,
          reason: 'private',
        });
        const seen = host.view.readSystem(spa, 4096);
        if (seen.ok) expect(vmsa.low(seen.bytes, 'cr3')).not.toBe(AT.tables);
        return false;
      },
    },
    guest: (guest) => {
      guest.pageState(SHARED, 2);
      guest.result(0, 7n);
    },
    check: (run) => {
      ended(run);
      expect(run.word(0)).toBe(7n);
    },
  },
  {
    rule: 'a VMSA page that the host takes and gives back is no context any more',
    section: 'vol. 3, RMPUPDATE; vol. 2, 15.36.17',
    options: {
      onExit: (host, exit, nth) => {
        if (exit.kind !== 'vmgexit' || nth !== 1) return false;
        const spa = spaOf(host, AT.vmsa);
        const { view } = host;
        view.rmpupdate(spa, { assigned: false, large: false, immutable: false, gpa: 0, asid: 0 });
        view.rmpupdate(spa, { assigned: true, large: false, immutable: false, gpa: AT.vmsa, asid: 1 });
        return false;
      },
    },
    guest: (guest) => guest.pageState(SHARED, 2),
    check: (run) => expect(run.exits.at(-1)).toEqual({ kind: 'entry-failed', code: SVM_EXIT.invalid }),
  },
  {
    rule: 'INVLPGB drops a translation, once TLBSYNC is over',
    section: 'vol. 3, INVLPGB, TLBSYNC',
    options: { model: modelWith('invlpgb') },
    guest: (guest) => {
      guest.store(BLOCKS, 0x11n);
      guest.store(BLOCKS + 0x20_0000n, 0x22n);
      guest.mapAt(0, BLOCKS | C_BIT);
      guest.load(linear(0));
      guest.result(0, rax);
      guest.store(BigInt(AT.tables + 0x3000), (BLOCKS + 0x20_0000n) | C_BIT | 0xe3n);
      // The address, valid in bit 0; one page; of this guest.
      guest.a.movabs(rax, linear(0) | 1n);
      guest.a.mov(ecx, 0);
      guest.a.mov(edx, 0);
      guest.a.db(0x0f, 0x01, 0xfe);
      guest.a.db(0x0f, 0x01, 0xff);
      guest.load(linear(0));
      guest.result(1, rax);
    },
    check: (run) => {
      ended(run);
      expect([run.word(0), run.word(1)]).toEqual([0x11n, 0x22n]);
    },
  },
  {
    rule: 'INVLPGB is #UD where CPUID does not offer it',
    section: 'vol. 3, INVLPGB',
    guest: (guest) => guest.guarded('after', () => guest.a.db(0x0f, 0x01, 0xfe)),
    check: (run) => {
      ended(run);
      expect(run.note(count(6))).toBe(1n);
    },
  },
  {
    rule: 'a VMSA can be split off, freed and reused by RMPADJUST, but not while it runs',
    section: 'vol. 3, RMPADJUST (FAIL_INUSE)',
    guest: (guest) => {
      guest.rmpadjust(BigInt(AT.vmsa), false, 0x1n, 0);
      guest.rmpadjust(BigInt(AT.otherVmsa), false, 0x1_0001n, 1);
      guest.rmpadjust(BigInt(AT.otherVmsa), false, 0x1n, 2);
    },
    check: (run) => {
      ended(run);
      expect([0, 1, 2].map(run.word)).toEqual([BigInt(RMP_STATUS.failInUse), 0n, 0n]);
    },
  },
  {
    rule: 'ReflectVC: what would be #VC is an exit, and its reason stands in the VMSA only',
    section: 'vol. 2, 15.36.9',
    options: {
      features: SEV_FEATURE.reflectVc,
      onExit: ({ vmcb }, exit) => {
        expect(exit.kind).toBe('reflected');
        expect(vmcb.exitInfo1).toEqual({ lo: 0, hi: 0 });
        return true;
      },
    },
    guest: (guest) => guest.a.db(0x0f, 0xa2),
    check: (run) => {
      const page = run.machine.truth.read(AT.vmsa, 4096) as Uint8Array;
      expect(vmsa.low(page, 'exitCode')).toBe(SVM_EXIT.cpuid);
      expect(run.note(count(VC))).toBe(0n);
    },
  },
  {
    rule: 'vTOM: addresses above it are shared, and a C-bit in a table is reserved',
    section: 'vol. 2, 15.36.8',
    options: { features: SEV_FEATURE.vTom, virtualTom: 1n << 46n },
    guest: (guest) => {
      guest.mapAt(0, SHARED | (1n << 46n));
      guest.store(linear(0, 8), 0x99n);
      guest.mapAt(1, BLOCKS | C_BIT);
      guest.guarded('after', () => guest.load(linear(1)));
    },
    check: (run) => {
      expect(run.note(errorOf(14))).toBe(9n);
      const seen = run.hand().view.read(Number(SHARED) + 8, 1);
      expect(seen.ok && seen.bytes[0]).toBe(0x99);
    },
  },
  ...FEATURE_ROWS.filter(({ status }) => status === 'refused').map(({ bit, name }): Rule => ({
    rule: `${name} is refused at VMRUN`,
    section: 'vol. 2, table B-4 (SEV_FEATURES)',
    options: { features: bit },
    guest: () => undefined,
    check: (run) => expect(run.exits).toEqual([{ kind: 'entry-failed', code: SVM_EXIT.invalid }]),
  })),
];

describe.each(['interpreter', 'translator'] as const)('rules of SEV-SNP, %s', (engine) => {
  it.each(RULES.map((rule) => [rule.rule, rule.section, rule] as const))(
    '%s (%s)',
    (_rule, _section, rule) => {
      rule.check(runSnp(rule.guest, { ...rule.options, engine }));
    },
  );
});
it('every feature bit is accepted or refused', () => {
  expect(ACCEPTED_FEATURES & SEV_FEATURE.secureAvic).toBe(0);
  expect(new Set(FEATURE_ROWS.map(({ bit }) => bit)).size).toBe(FEATURE_ROWS.length);
  expect(FEATURE_ROWS).toHaveLength(Object.keys(SEV_FEATURE).length);
});
