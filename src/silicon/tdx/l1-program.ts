/** L1 as a program: its seat, and what its exits become (a paravisor written in TypeScript, in the place of machine code). */
import { TDG } from '../../abi/tdx/leaves.ts';
import type { L1Exit, L1Program, L1Seat, SeatRead, SeatWrite, TdcallRegisters } from '../../seats/program.ts';
import { CPU } from '../../x86/layout.ts';
import { read64, write64 } from '../vcpu.ts';
import { isNativeLeaf, tdCpuid } from './cpuid.ts';
import type { LeafOutcome, TdxModule } from './module.ts';
import { arrayRegisters, GPR } from './registers.ts';
import type { VcpuState } from './state.ts';
import { PAGE, SEPT } from './tables.ts';
import { tdcall } from './tdcall.ts';
import { accept, deliverable, endOfInterrupt } from './vapic.ts';

/** Registers of TdcallRegisters, in its order. */
const OPERANDS = [GPR.rax, GPR.rcx, GPR.rdx, GPR.r8, GPR.r9, GPR.r10, GPR.r11, GPR.r12, GPR.r13] as const;

/** There is room for YMM. */
const XMM_STRIDE = 32;

/** A leaf on behalf of the program, with its registers in `l1Gprs`. */
export function programLeaf(module: TdxModule, vcpu: VcpuState): LeafOutcome {
  return tdcall({ module, vcpu, registers: arrayRegisters(vcpu.l1Gprs), cpu: -1 });
}

/** Registers of an exit; the leaf that it is. */
export function takeRegisters(vcpu: VcpuState, exit: L1Exit): void {
  if (exit.kind === 'tdvmcall') {
    for (let n = 0; n < 16; n++) vcpu.l1Gprs[n] = BigInt.asUintN(64, exit.registers[n] ?? 0n);
    vcpu.l1Gprs[GPR.rax] = BigInt(TDG.vpVmcall);
    return;
  }
  for (const [k, n] of OPERANDS.entries()) vcpu.l1Gprs[n] = BigInt.asUintN(64, exit.registers[k] ?? 0n);
  if (exit.kind === 'vp-enter') vcpu.l1Gprs[GPR.rax] = BigInt(TDG.vpEnter);
}

export function runL1(
  program: L1Program,
  module: TdxModule,
  vcpu: VcpuState,
): { readonly exit: L1Exit; readonly ticks: number } {
  return program.run(seatOf(module, vcpu));
}

function seatOf(module: TdxModule, vcpu: VcpuState): L1Seat {
  const { engine, tables } = module;
  const cpu = engine.cpu(vcpu.index, 0);
  const gpaOf = (gpa: number, shared: boolean): bigint => BigInt(gpa) | (shared ? module.sharedBit : 0n);
  /** Every page is reached before anything is read or written. */
  const pieces = (
    gpa: number,
    length: number,
    shared: boolean,
    write: boolean,
  ):
    | { readonly ok: true; readonly pieces: readonly (readonly [host: number, bytes: number])[] }
    | { readonly ok: false } => {
    const list: [number, number][] = [];
    for (let at = 0; at < length;) {
      const bytes = Math.min(length - at, PAGE - ((gpa + at) % PAGE));
      const reached = module.reach(gpaOf(gpa + at, shared), write);
      if (!reached.ok) return { ok: false };
      list.push([reached.host, bytes]);
      at += bytes;
    }
    return { ok: true, pieces: list };
  };
  const refusal = (
    gpa: number,
    shared: boolean,
  ): { readonly ok: false; readonly reason: 'unmapped' | 'nested-fault' | 'not-validated' } => ({
    ok: false,
    reason: shared ? 'unmapped' : tables.entry(gpa).state === SEPT.pending ? 'not-validated' : 'nested-fault',
  });
  return {
    vp: vcpu.index,
    get now() {
      return module.now();
    },
    sink: module.sink,
    registers: vcpu.l1Gprs,
    read(gpa, length, shared): SeatRead {
      const found = pieces(gpa, length, shared, false);
      if (!found.ok) return refusal(gpa, shared);
      const bytes = new Uint8Array(length);
      let at = 0;
      for (const [host, count] of found.pieces) {
        bytes.set(engine.u8.subarray(host, host + count), at);
        at += count;
      }
      return { ok: true, bytes };
    },
    write(gpa, bytes, shared): SeatWrite {
      const found = pieces(gpa, bytes.length, shared, true);
      if (!found.ok) return refusal(gpa, shared);
      let at = 0;
      for (const [host, count] of found.pieces) {
        module.writeHost(host, bytes.subarray(at, at + count));
        at += count;
      }
      return { ok: true };
    },
    random() {
      // The same generator as RDRAND of this context (xorshift64*).
      let x = read64(engine, cpu + CPU.entropy);
      x ^= x >> 12n;
      x = BigInt.asUintN(64, x ^ (x << 25n));
      x ^= x >> 27n;
      write64(engine, cpu + CPU.entropy, x);
      const value = BigInt.asUintN(64, x * 0x2545f4914f6cdd1dn);
      return [Number(value & 0xffff_ffffn), Number(value >> 32n)];
    },
    tdcall(registers): TdcallRegisters | undefined {
      const kept = [...vcpu.l1Gprs];
      for (const [k, n] of OPERANDS.entries()) vcpu.l1Gprs[n] = registers[k] as bigint;
      const outcome = programLeaf(module, vcpu);
      const result = OPERANDS.map((n) => vcpu.l1Gprs[n] as bigint) as unknown as TdcallRegisters;
      for (const [n, value] of kept.entries()) vcpu.l1Gprs[n] = value;
      // Calls that leave are exits of the program.
      if (outcome.kind === 'vmcall') vcpu.vmcall = undefined;
      return outcome.kind === 'done' ? result : undefined;
    },
    cpuid(leaf, subleaf) {
      if (!isNativeLeaf(leaf)) return undefined;
      const { td } = module;
      return tdCpuid(
        {
          model: module.model,
          state: { cr4: 0x40040, xcr0: Number(td.xfam), xss: 0 },
          vcpu: vcpu.index,
          vcpus: td.numVcpus,
          xfam: td.xfam,
          tscFrequency: td.tscFrequency,
        },
        leaf,
        subleaf,
      );
    },
    takeInterrupt() {
      const vector = deliverable(vcpu);
      if (vector < 0) return -1;
      accept(vcpu, vector);
      endOfInterrupt(vcpu);
      return vector;
    },
    readXmm(vm, index) {
      const at = engine.cpu(vcpu.index, vm) + CPU.xmm + index * XMM_STRIDE;
      const word = (n: number): number => engine.view.getUint32(at + 4 * n, true);
      return [word(0), word(1), word(2), word(3)];
    },
    writeXmm(vm, index, words) {
      const at = engine.cpu(vcpu.index, vm) + CPU.xmm + index * XMM_STRIDE;
      for (const [n, word] of words.entries()) engine.view.setUint32(at + 4 * n, word, true);
    },
    takeNmi() {
      const pending = vcpu.pendingNmi;
      vcpu.pendingNmi = false;
      return pending;
    },
  };
}
