/**
 * The host under a hostile L1 and a hostile L2: a program at L1 that does whatever the seat lets it with random operands, and a VM of
 * random instructions with random registers. Every exit gets an answer, and the books of the module stay right.
 */
import { TDVMCALL, TDVMCALL_NAMES } from '../src/abi/tdx/ghci.ts';
import { L2_ENTER_GUEST_STATE } from '../src/abi/tdx/l2.ts';
import { TDG } from '../src/abi/tdx/leaves.ts';
import type { Machine } from '../src/machine/machine.ts';
import type { L1Exit, L1Program, L1Seat, TdcallRegisters } from '../src/seats/program.ts';
import { L2_ENCODINGS } from '../src/silicon/tdx/l2-fields.ts';
import { TdxSilicon } from '../src/silicon/tdx/silicon.ts';
import { SEPT } from '../src/silicon/tdx/tables.ts';
import { LEAF_NUMBERS } from '../src/silicon/tdx/tdcall.ts';
import { L2, L2_CTLS_ID, L2_DEADLINE_ID, l2MsrWord, l2Vmcs } from './td-l2.ts';
import { source, type Source } from './random.ts';
import { AT, MEMORY, tdConfig, tdMachine, tdPages } from './td.ts';

const VM1 = 1n << 52n;
const ALL = 0xffff_ffff_ffff_ffffn;
const SHARED = 1n << 47n;
const CODE_END = 0x1_1000;
/** Virtual time in ns that the VM has. */
const TURN = 6000;
const TSC_RATE = BigInt(Math.round(tdConfig().tscHz / 1e9));

/** Leaves of the seat: those that do not leave L1. */
const CALLS = LEAF_NUMBERS.filter((leaf) => leaf !== TDG.vpVmcall && leaf !== TDG.vpEnter);
const ADDRESSES = [
  0n,
  BigInt(AT.free),
  BigInt(AT.free) | SHARED,
  BigInt(MEMORY),
  BigInt(MEMORY) | SHARED,
  0xfec0_0000n,
  0xfec0_0010n | SHARED,
  0xfee0_0300n,
  1n << 48n,
];
/** What L1 cannot run without: giving one of these away ends the run soon. */
const VITAL = [L2.state, L2.apic, AT.tables, AT.code].map(BigInt);
const NUMBERS = [...ADDRESSES, 0x4000_0000n, 0x4000_0083n, 0x830n, 0x3f8n, 0x1000n, 0x1_005dn, 0x5cn, 0xdbn];
/** Everything but the end of the run. */
const FUNCTIONS = [...TDVMCALL_NAMES.keys()]
  .filter((code) => code !== TDVMCALL.reportFatalError && code !== TDVMCALL.hlt)
  .map(BigInt);

/** Instructions of the VM: each does what its registers happen to say. */
const INSTRUCTIONS: readonly (readonly number[])[] = [
  [0x66, 0x0f, 0x01, 0xcc], // tdcall
  [0x66, 0x0f, 0x01, 0xcc],
  [0x0f, 0x01, 0xc1], // vmcall
  [0x0f, 0xa2], // cpuid
  [0x0f, 0x32], // rdmsr
  [0x0f, 0x30], // wrmsr
  [0xec], // in al, dx
  [0xef], // out dx, eax
  [0x6d], // insd
  [0x48, 0x8b, 0x06], // mov rax, [rsi]
  [0x48, 0x89, 0x07], // mov [rdi], rax
  [0x0f, 0x22, 0xc0], // mov cr0, rax
  [0x0f, 0x22, 0xe0], // mov cr4, rax
  [0x0f, 0x22, 0xd8], // mov cr3, rax
  [0x44, 0x0f, 0x22, 0xc0], // mov cr8, rax
  [0x0f, 0x09], // wbinvd
  [0xf4], // hlt
  [0x0f, 0x0b], // ud2
  [0xcc], // int3
  [0xfb], // sti
];

function hostileL1(r: Source): L1Program {
  let state = { begun: false, spoilt: true };
  const call = (seat: L1Seat, registers: readonly bigint[]): void =>
    void seat.tdcall(
      Array.from({ length: 9 }, (_, k) =>
        BigInt.asUintN(64, registers[k] ?? 0n),
      ) as unknown as TdcallRegisters,
    );
  const write = (seat: L1Seat, id: bigint, value: bigint): void =>
    call(seat, [BigInt(TDG.vpWr), 0n, id, value, ALL]);
  /** All that was added is the VM's too. */
  const share = (seat: L1Seat): void => {
    for (let gpa = 0; gpa < 0x3_0000; gpa += 4096)
      call(seat, [BigInt(TDG.memPageAttrWr), BigInt(gpa), 0xf_0000n, 0xf_0000n]);
  };
  /** The VM in 64-bit mode on the tables that are there. */
  const prepare = (seat: L1Seat): void => {
    const fields: readonly (readonly [number, bigint])[] = [
      [0x2012, BigInt(L2.apic)],
      [0x6800, 0x8000_0021n],
      [0x6802, BigInt(AT.tables)],
      [0x6804, 0x60n],
      [0x2806, 0x501n],
      [0x4012, 1n << 9n],
      [0x802, 0x10n],
      [0x4816, 0xa09bn],
      ...[0, 2, 3].flatMap((n): [number, bigint][] => [
        [0x800 + n * 2, 0x18n],
        [0x4814 + n * 2, 0xc093n],
      ]),
      [0x6816, BigInt(AT.gdt)],
      [0x4810, 0x27n],
      [0x6818, BigInt(AT.idt)],
      [0x4812, 0xfffn],
      // Exceptions leave: the handlers that are there wait for ever.
      [0x4004, 0xffff_ffffn],
    ];
    for (const [encoding, value] of fields) write(seat, l2Vmcs(encoding), value);
  };
  const enter = (seat: L1Seat): L1Exit => {
    const page = new Uint8Array(L2_ENTER_GUEST_STATE.size);
    const view = new DataView(page.buffer);
    for (let n = 0; n < 16; n++) view.setBigUint64(n * 8, r.word(NUMBERS), true);
    if (r.below(2) === 0) {
      // TDG.VP.VMCALL as one would make it.
      view.setBigUint64(0, 0n, true);
      view.setBigUint64(8, r.below(4) === 0 ? r.word(NUMBERS) : 0xfcccn, true);
      if (r.below(3) !== 0) view.setBigUint64(10 * 8, 0n, true);
      view.setBigUint64(11 * 8, r.pick(FUNCTIONS), true);
      view.setBigUint64(13 * 8, BigInt(r.below(16)) * 0x1000n, true);
    }
    view.setBigUint64(4 * 8, BigInt(L2.stack), true);
    view.setBigUint64(128, r.below(2) === 0 ? 2n : 0x202n, true);
    view.setBigUint64(136, BigInt(AT.code + 4 * r.below((CODE_END - AT.code) / 4)), true);
    view.setUint8(152, r.below(4) === 0 ? 0x61 : 0);
    seat.write(L2.state, page, false);
    write(seat, L2_CTLS_ID, BigInt(r.below(4)));
    // A VM that spins is left.
    write(seat, L2_DEADLINE_ID, BigInt(Math.floor(seat.now) + TURN) * TSC_RATE);
    const rcx = VM1 | BigInt(r.below(4)) | (r.below(64) === 0 ? r.word(NUMBERS) : 0n);
    const rdx = r.below(64) === 0 ? r.word(NUMBERS) : BigInt(L2.state);
    return {
      kind: 'vp-enter',
      registers: [BigInt(TDG.vpEnter), BigInt.asUintN(64, rcx), rdx, 0n, 0n, 0n, 0n, 0n, 0n],
    };
  };
  const ask = (): L1Exit => {
    const registers = Array.from({ length: 16 }, () => r.word(NUMBERS));
    registers[1] = r.below(8) === 0 ? r.word(NUMBERS) : 0xfcccn;
    if (r.below(4) !== 0) registers[10] = 0n;
    registers[11] = r.below(8) === 0 ? r.word(NUMBERS) : r.pick(FUNCTIONS);
    if (registers[11] === BigInt(TDVMCALL.reportFatalError)) registers[11] = 0n;
    if (r.below(256) === 0) registers[12] = r.pick(VITAL) | SHARED;
    registers[13] = BigInt(r.below(16)) * 0x1000n;
    return { kind: 'tdvmcall', registers };
  };
  return {
    kind: 'hostile',
    get state() {
      return state;
    },
    load: (saved) => void (state = saved as typeof state),
    run(seat) {
      while (seat.takeInterrupt() >= 0);
      if (!state.begun || r.below(16) === 0) share(seat);
      if (state.spoilt) prepare(seat);
      state.spoilt = false;
      state.begun = true;
      if (r.below(4) === 0) {
        state.spoilt = true;
        const id =
          r.below(2) === 0
            ? l2Vmcs(r.pick(L2_ENCODINGS))
            : r.below(2) === 0
              ? l2MsrWord(r.below(512))
              : r.word(NUMBERS);
        if (r.below(2) === 0) write(seat, id, r.word(NUMBERS));
        else call(seat, [BigInt(r.pick(CALLS)), r.word(NUMBERS), id, r.word(NUMBERS), r.word(NUMBERS)]);
      }
      return { exit: r.below(2) === 0 ? ask() : enter(seat), ticks: 100 };
    },
  };
}

/** Instructions of one run. */
const BUDGET = 200_000;

export interface HostileRun {
  readonly fromL1: number;
  readonly fromL2: number;
  /** Exits of any kind, also those that the host does not see. */
  readonly exits: number;
  /** Runs by their end. */
  readonly ends: ReadonlyMap<string, number>;
}

/** At least `cases` exits to the host. Throws when one has no answer, or the books of the module are wrong afterwards. */
export function attackHost(cases: number): HostileRun {
  const ends = new Map<string, number>();
  let fromL1 = 0;
  let fromL2 = 0;
  let exits = 0;
  for (let round = 0; fromL1 + fromL2 < cases; round++) {
    const r = source(1000 + round);
    const made: { machine?: Machine } = {};
    const machine = tdMachine(program(r), {
      l2Vms: 1,
      l1: hostileL1(r),
      platform: (platform) => ({
        ...platform,
        get state() {
          return platform.state;
        },
        exit(vp, exit, world) {
          const vm = (made.machine?.silicon as TdxSilicon | undefined)?.module.vcpus[0]?.vm ?? 0;
          if (vm === 0) fromL1++;
          else fromL2++;
          const step = platform.exit(vp, exit, world);
          if (step.completion.kind !== 'td-enter')
            throw new Error(`the host answers by ${step.completion.kind}`);
          return step;
        },
      }),
    });
    made.machine = machine;
    const { kind } = machine.run(BUDGET);
    exits += machine.exits;
    ends.set(kind, (ends.get(kind) ?? 0) + 1);
    if (!['budget', 'crash', 'end', 'idle', 'stuck'].includes(kind))
      throw new Error(`a run ended by ${kind}`);
    booksAreRight(machine);
  }
  return { fromL1, fromL2, exits, ends };
}

/** Random instructions, with those of the tables and handlers beside them. */
function program(r: Source): ReturnType<typeof tdPages> {
  return tdPages(({ a }) => {
    for (let at = AT.code; at < CODE_END; at += 4) {
      const bytes = r.pick(INSTRUCTIONS);
      a.db(...bytes, ...new Array<number>(4 - bytes.length).fill(0x90));
    }
  });
}

/** No system page is behind two private addresses, nor private and shared at once. */
function booksAreRight(machine: Machine): void {
  const { tables } = (machine.silicon as TdxSilicon).module;
  const owners = new Map<number, number>();
  tables.eachEntry((gpa, level, { state, spa }) => {
    if (state === SEPT.split || state === SEPT.free) return;
    for (let at = 0; at < (level === 1 ? 2 << 20 : 4096); at += 4096) {
      if (owners.has(spa + at))
        throw new Error(`system page ${spa + at} is at ${owners.get(spa + at)} and at ${gpa + at}`);
      owners.set(spa + at, gpa + at);
    }
  });
  for (let gpa = 0; gpa < MEMORY; gpa += 4096) {
    const { flags, spa } = tables.sharedEntry(gpa);
    if (flags !== 0 && owners.has(spa)) throw new Error(`system page ${spa} is private and shared`);
  }
}
