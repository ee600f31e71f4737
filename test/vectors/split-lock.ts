/**
 * Whether a case makes a locked access across two cache lines. Where the kernel detects those (`split_lock_detect`), it holds the
 * process up at each, in a virtual machine for good.
 */
import { MemorySizeExt, Mnemonic, Register, RegisterExt, OpKind } from 'iced-x86';
import { decode } from './random.ts';
import { FS_BASE, GS_BASE, RIP, type VectorCase, codeSegment, view } from './state.ts';

const LINE = 64n;

export function isSplitLock(c: VectorCase): boolean {
  // LOCK, or XCHG with memory.
  if (!c.code.includes(0xf0) && !/^(random )?xchg/.test(c.form)) return false;
  const state = view(c.state);
  const instruction = decode(c.code, state.getBigUint64(RIP, true), codeSegment(c).bits);
  try {
    if (!instruction.hasLockPrefix && instruction.mnemonic !== Mnemonic.Xchg) return false;
    const operands = Array.from({ length: instruction.opCount }, (_, i) => instruction.opKind(i));
    if (!operands.includes(OpKind.Memory)) return false;
    const value = (register: Register): bigint =>
      register === Register.None ? 0n : state.getBigUint64(RegisterExt.number(register) * 8, true);
    const narrow =
      RegisterExt.isGPR32(instruction.memoryBase) || RegisterExt.isGPR32(instruction.memoryIndex);
    const offset = instruction.isIpRelMemoryOperand
      ? instruction.ipRelMemoryAddress
      : value(instruction.memoryBase) +
        value(instruction.memoryIndex) * BigInt(instruction.memoryIndexScale) +
        instruction.memoryDisplacement;
    const segment =
      instruction.memorySegment === Register.FS
        ? state.getBigUint64(FS_BASE, true)
        : instruction.memorySegment === Register.GS
          ? state.getBigUint64(GS_BASE, true)
          : 0n;
    const address = BigInt.asUintN(64, BigInt.asUintN(narrow ? 32 : 64, offset) + segment);
    const size = BigInt(MemorySizeExt.size(instruction.memorySize));
    // A bit number in a register moves the access by a multiple of its size.
    const moves = /^(random )?lock bt/.test(c.form) && operands[1] === OpKind.Register;
    return moves ? address % size !== 0n : (address % LINE) + size > LINE;
  } finally {
    instruction.free();
  }
}
