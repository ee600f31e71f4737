/** General registers of whoever issued a TDCALL: a machine-code context, or a program at L1. */
import type { Engine } from '../../x86/engine.ts';
import { CPU } from '../../x86/layout.ts';
import { read64, write64 } from '../vcpu.ts';

export const GPR = {
  rax: 0,
  rcx: 1,
  rdx: 2,
  rbx: 3,
  rsp: 4,
  rbp: 5,
  rsi: 6,
  rdi: 7,
  r8: 8,
  r9: 9,
  r10: 10,
  r11: 11,
  r12: 12,
  r13: 13,
  r14: 14,
  r15: 15,
} as const;

export interface Registers {
  get(n: number): bigint;
  set(n: number, value: bigint): void;
}

export function contextRegisters(engine: Engine, cpu: number): Registers {
  return {
    get: (n) => read64(engine, cpu + CPU.gpr + n * 8),
    set: (n, value) => write64(engine, cpu + CPU.gpr + n * 8, value),
  };
}

/** Sixteen values in encoding order, unsigned. */
export function arrayRegisters(values: bigint[]): Registers {
  return {
    get: (n) => values[n] ?? 0n,
    set: (n, value) => void (values[n] = BigInt.asUintN(64, value)),
  };
}
