/**
 * A party that sits at a privilege level of the guest instead of machine code: a paravisor at VMPL0 or at L1. It is
 * (state, entry) to exit, like the processor: each entry runs it from where its last exit left it, to its next exit.
 * What it knows lies in its state (plain data, part of snapshots) and in guest memory; it works through its seat.
 */
import type { EventSink } from './events.ts';
import type { CpuidRegisters } from './exits.ts';

export interface Program<Seat, ProgramExit> {
  /** Which program it is: in snapshots and reports. */
  readonly kind: string;
  /** Runs virtual processor `seat.vp` to its next exit. `ticks`: what the work cost. */
  run(seat: Seat): { readonly exit: ProgramExit; readonly ticks: number };
  readonly state: unknown;
  load(state: unknown): void;
}

export type SeatRefusal =
  /** Nothing there, or a device: the access would be #VC 0x400 or a nested fault. */
  | 'unmapped'
  /** The nested table or the RMP sends the access to the host (VMEXIT_NPF, EPT violation). */
  | 'nested-fault'
  /** Assigned but not accepted: #VC 0x404, #VE. */
  | 'not-validated';
export type SeatRead =
  { readonly ok: true; readonly bytes: Uint8Array } | { readonly ok: false; readonly reason: SeatRefusal };
export type SeatWrite = { readonly ok: true } | { readonly ok: false; readonly reason: SeatRefusal };

/** What every seat has. */
export interface Seat {
  readonly vp: number;
  /** Virtual time in ns: what the TSC shows, divided by its frequency. */
  readonly now: number;
  readonly sink: EventSink;
  /** Guest memory; `shared`: through a shared mapping. */
  read(gpa: number, length: number, shared: boolean): SeatRead;
  write(gpa: number, bytes: Uint8Array, shared: boolean): SeatWrite;
  /** RDRAND: two unsigned halves. */
  random(): readonly [lo: number, hi: number];
}

/** VMPL0 of an SNP guest. The VMSAs of lower VMPLs are pages that it reads and writes like any other. */
export interface Vmpl0Seat extends Seat {
  /** Zeros into private memory, which costs no memory where zeros are already. */
  clear(gpa: number, length: number): SeatWrite;
  /** MSR 0xC0010130. */
  getGhcb(): readonly [lo: number, hi: number];
  setGhcb(lo: number, hi: number): void;
  /** EAX and CF. `nested-fault`: the host must act first (size mismatch, page not assigned). */
  pvalidate(gpa: number, large: boolean, validate: boolean): RmpOutcome;
  /** EAX. RDX as the instruction takes it: target VMPL, permissions << 8, VMSA << 16. */
  rmpadjust(gpa: number, large: boolean, rdx: number): RmpOutcome;
  /** EAX, and the permissions of `vmpl` in RDX. */
  rmpquery(gpa: number, vmpl: number): RmpOutcome & { readonly rdx: number };
}

export type RmpOutcome =
  | { readonly kind: 'done'; readonly eax: number; readonly carry: boolean }
  | { readonly kind: 'nested-fault' };

export type Vmpl0Exit =
  /** With the GHCB MSR as the program left it. */
  { readonly kind: 'vmgexit' } | { readonly kind: 'hlt' };
export type Vmpl0Program = Program<Vmpl0Seat, Vmpl0Exit>;

/** Registers of a TDCALL: leaf in RAX (version and VM number as the leaf defines), operands, and XMM0-15 for none. */
export type TdcallRegisters = readonly [
  rax: bigint,
  rcx: bigint,
  rdx: bigint,
  r8: bigint,
  r9: bigint,
  r10: bigint,
  r11: bigint,
  r12: bigint,
  r13: bigint,
];

/** L1 of a partitioned TD: the guest side of the TDX module. */
export interface L1Seat extends Seat {
  /**
   * TDG.* leaves that return to their caller (not VP.VMCALL, not VP.ENTER). `undefined`: the host must act first (a page or
   * a table is missing); leave with the same registers as a `tdcall` exit, and find the result in `registers`.
   */
  tdcall(registers: TdcallRegisters): TdcallRegisters | undefined;
  /** General registers (RAX RCX RDX RBX RSP RBP RSI RDI R8-R15) that the host or the module left. */
  readonly registers: readonly bigint[];
  /** CPUID as L1 has it; `undefined`: #VE. */
  cpuid(leaf: number, subleaf: number): CpuidRegisters | undefined;
  /** Takes the highest interrupt that waits in L1's virtual APIC, and ends it: its vector, or -1. */
  takeInterrupt(): number;
  /** XMM register `index` of VM `vm` as four unsigned words: TDG.VP.ENTER leaves such registers as the VM had them. */
  readXmm(vm: number, index: number): readonly [number, number, number, number];
  writeXmm(vm: number, index: number, words: readonly [number, number, number, number]): void;
  /** Takes the NMI that the host has asked for. False: there is none. */
  takeNmi(): boolean;
}

export type L1Exit =
  /** TDG.VP.VMCALL: registers in encoding order; RCX is the mask of those that the host sees. */
  | { readonly kind: 'tdvmcall'; readonly registers: readonly bigint[] }
  /** A leaf for which the host must act: it is carried out again until it ends. */
  | { readonly kind: 'tdcall'; readonly registers: TdcallRegisters }
  /** TDG.VP.ENTER: the next entry of this program has the L2 exit in its registers. */
  | { readonly kind: 'vp-enter'; readonly registers: TdcallRegisters };
export type L1Program = Program<L1Seat, L1Exit>;
