import { expect, test } from 'vitest';
import { type Assembler, r8, r9, rax, rcx, rdx, rsi } from '../../guests/asm.ts';
import { multibootImage } from '../../guests/multiboot-image.ts';
import { findCpuModel } from '../x86/cpuid.ts';
import { stateHash } from './state-hash.ts';
import { bootTestBoard } from './test-board/boot.ts';

function random(seed: number): (below: number) => number {
  let x = seed;
  return (below) => {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0;
    return Math.floor((x / 2 ** 32) * below);
  };
}

/** Register forms that write, keep, read or half write the status flags; RSP is left alone. */
function instruction(asm: Assembler, next: (below: number) => number): void {
  const register = (): number => [0, 1, 2, 3, 6, 7][next(6)] as number;
  const rm = (reg: number): number => 0xc0 | (reg << 3) | register();
  const wide = next(2) === 0 ? [0x48] : [];
  const count = [0, 1, 5, 31, 63][next(5)] as number;
  switch (next(10)) {
    case 0:
    case 1: // ADD OR ADC SBB AND SUB XOR CMP
      return asm.db(...wide, (next(8) << 3) | 1, rm(register()));
    case 2: // ROL ROR RCL RCR SHL SHR SAR by an immediate
      return asm.db(...wide, 0xc1, rm([0, 1, 2, 3, 4, 5, 7][next(7)] as number), count);
    case 3: // the same by CL and by 1
      return asm.db(...wide, next(2) === 0 ? 0xd3 : 0xd1, rm([0, 1, 2, 3, 4, 5, 7][next(7)] as number));
    case 4: // INC, DEC
      return asm.db(...wide, 0xff, rm(next(2)));
    case 5: // IMUL
      return asm.db(...wide, 0x0f, 0xaf, rm(register()));
    case 6: // SETcc, CMOVcc
      return next(2) === 0
        ? asm.db(0x0f, 0x90 | next(16), 0xc0 | next(4))
        : asm.db(...wide, 0x0f, 0x40 | next(16), rm(register()));
    case 7: // MOV, NOT, NEG, TEST
      return [
        () => asm.db(...wide, 0x89, rm(register())),
        () => asm.db(...wide, 0xf7, rm(2)),
        () => asm.db(...wide, 0xf7, rm(3)),
        () => asm.db(...wide, 0x85, rm(register())),
      ][next(4)]!();
    case 8: // STC, CLC, CMC
      return asm.db([0xf9, 0xf8, 0xf5][next(3)] as number);
    default: // PUSHFQ; POP
      return asm.db(0x9c, 0x58 | register());
  }
}

function run(
  seed: number,
  slice: number,
): {
  readonly printed: string;
  readonly hash: string;
  readonly instructions: number;
} {
  const outcome = bootTestBoard({
    source: {
      kind: 'kernel',
      image: multibootImage((asm) => {
        const next = random(seed);
        for (let k = 0; k < 400; k++) {
          // Shifts and masks empty the registers soon: what each stretch leaves is kept in R9.
          for (const register of [rax, rcx, rdx, rsi])
            asm.movabs(register, (BigInt(next(2 ** 32)) << 32n) | BigInt(next(2 ** 32)));
          for (let i = 0; i < 12; i++) instruction(asm, next);
          asm.db(0x9c);
          asm.pop(r8);
          for (const register of [r8, rax, rcx, rdx, rsi]) {
            asm.shift('rol', r9, 7);
            asm.alu('xor', r9, register);
          }
        }
        asm.mov(rax, r9);
      }),
      commandLine: 'guest',
      modules: [],
    },
    memoryBytes: 64 * 2 ** 20,
    cpus: 1,
    model: findCpuModel('EPYC-Milan')!,
  });
  if (!outcome.ok) throw new Error(outcome.error.what);
  const { machine } = outcome;
  let printed = '';
  machine.onSerial = (_unit, bytes) => {
    printed += new TextDecoder().decode(bytes);
  };
  for (;;) {
    const reason = machine.run(slice);
    if (reason.kind === 'exit')
      return { printed, hash: stateHash(machine), instructions: machine.instructions };
    if (reason.kind !== 'budget') throw new Error(reason.kind);
  }
}

// A slice of one instruction runs blocks of one instruction, in which no flag is dead.
test.each([1, 2, 3, 4])('blocks leave the flags that single instructions leave (seed %i)', (seed) => {
  expect(run(seed, 1_000_000)).toEqual(run(seed, 1));
});
