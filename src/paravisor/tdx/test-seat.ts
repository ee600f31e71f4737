/** A TD for tests of the program at L1: memory, fields of an L2 VM by their identifiers, and pages that are accepted once. */

import { STATUS } from '../../abi/tdx/status.ts';
import { TDG } from '../../abi/tdx/leaves.ts';
import type { L1Seat, TdcallRegisters } from '../../seats/program.ts';

const PAGE = 4096;
const LARGE = 0x20_0000;

export class TestTd {
  readonly memory: Uint8Array;
  /** By identifier; what was never written is 0. */
  readonly fields = new Map<bigint, bigint>();
  readonly accepted = new Set<number>();
  /** Rights of the guest by page. */
  readonly rights = new Map<number, number>();
  readonly events: number[][] = [];
  /** Interrupts of L1's virtual APIC, and whether an NMI waits. */
  readonly interrupts: number[] = [];
  nmi = false;
  registers: bigint[] = Array.from({ length: 16 }, () => 0n);
  readonly xmm: [number, number, number, number][] = Array.from({ length: 16 }, () => [0, 0, 0, 0]);
  now = 1000;

  constructor(bytes: number) {
    this.memory = new Uint8Array(bytes);
  }

  load(gpa: number, bytes: Uint8Array): void {
    this.memory.set(bytes, gpa);
    for (let at = gpa; at < gpa + bytes.length; at += PAGE) this.accepted.add(at - (at % PAGE));
  }

  seat(vp = 0): L1Seat {
    const inside = (gpa: number, length: number): boolean => gpa >= 0 && gpa + length <= this.memory.length;
    return {
      vp,
      now: this.now,
      sink: { mask: 0xffff_ffff, emit: (...record) => void this.events.push(record) },
      registers: this.registers,
      read: (gpa, length) =>
        inside(gpa, length)
          ? { ok: true, bytes: this.memory.slice(gpa, gpa + length) }
          : { ok: false, reason: 'unmapped' },
      write: (gpa, bytes) => {
        if (!inside(gpa, bytes.length)) return { ok: false, reason: 'unmapped' };
        this.memory.set(bytes, gpa);
        return { ok: true };
      },
      random: () => [1, 2],
      tdcall: (registers) => this.#leaf(registers),
      cpuid: (leaf) => (leaf === 1 ? { eax: 0x806f8, ebx: 0, ecx: 0, edx: 0 } : undefined),
      takeInterrupt: () => this.interrupts.shift() ?? -1,
      takeNmi: () => {
        const taken = this.nmi;
        this.nmi = false;
        return taken;
      },
      readXmm: (_vm, index) => this.xmm[index] ?? [0, 0, 0, 0],
      writeXmm: (_vm, index, words) => void (this.xmm[index] = [...words]),
    };
  }

  #leaf(registers: TdcallRegisters): TdcallRegisters {
    const [rax, rcx, rdx, r8, ...rest] = registers;
    const answer = (status: number, value = r8): TdcallRegisters =>
      [BigInt(status) << 32n, rcx, rdx, value, ...rest] as unknown as TdcallRegisters;
    const gpa = Number(rcx & ~0xfffn);
    switch (Number(rax)) {
      case TDG.vpRd:
        return answer(STATUS.success, this.fields.get(rdx) ?? 0n);
      case TDG.vpWr:
        this.fields.set(rdx, r8);
        return answer(STATUS.success);
      case TDG.memPageAccept: {
        const large = (rcx & 7n) === 1n;
        const pages: number[] = [];
        for (let at = gpa; at < gpa + (large ? LARGE : PAGE); at += PAGE) pages.push(at);
        if (pages.some((page) => this.accepted.has(page)))
          return answer(large ? STATUS.pageSizeMismatch : STATUS.pageAlreadyAccepted);
        for (const page of pages) this.accepted.add(page);
        return answer(STATUS.success);
      }
      case TDG.memPageAttrWr: {
        const large = (rcx & 7n) === 1n;
        for (let at = gpa; at < gpa + (large ? LARGE : PAGE); at += PAGE)
          this.rights.set(at, Number((rdx >> 16n) & 0xffn));
        return answer(STATUS.success);
      }
      default:
        return answer(STATUS.operandInvalid);
    }
  }
}
