import { expect, test } from 'vitest';
import { type Assembler, al, at, dx, eax, ecx, edx, rax, rbx } from '../../../guests/asm.ts';
import { handlers, iretq } from '../../../test/engines/guest.ts';
import { ENGINES, runOn } from '../../../test/engines/run.ts';

const VECTOR = 0x40;

/** The local APIC's timer in x2APIC mode, so many of its ticks from now. */
function timer(asm: Assembler, ticks: number): void {
  const write = (msr: number, value: number): void => {
    asm.mov(ecx, msr);
    asm.mov(eax, value);
    asm.alu('xor', edx, edx);
    asm.wrmsr();
  };
  write(0x83e, 0xb);
  write(0x832, VECTOR);
  write(0x838, ticks);
}

/** STI; HLT; CLI: the interrupt comes in front of CLI, once each time. */
const program = (asm: Assembler): void => {
  handlers(asm, { [VECTOR]: 'tick' });
  // No interrupts of the PICs.
  for (const port of [0x21, 0xa1]) {
    asm.mov(dx, port);
    asm.mov(al, 0xff);
    asm.outDx(al);
  }
  asm.mov(ecx, 0x1b);
  asm.rdmsr();
  asm.alu('or', eax, 0xc00);
  asm.wrmsr();
  asm.mov(ecx, 0x80f);
  asm.mov(eax, 0x1ff);
  asm.alu('xor', edx, edx);
  asm.wrmsr();
  asm.alu('xor', rbx, rbx);
  for (let n = 1; n <= 5; n++) {
    timer(asm, n * 1000);
    asm.db(0xfb);
    asm.hlt();
    asm.cli();
    // What the handler has counted when CLI is over.
    asm.shift('shl', rbx, 8);
    asm.alu('or', rbx, at({ disp: 'ticks' }));
  }
  asm.mov(rax, rbx);
  asm.jmp('done');
  asm.align(8);
  asm.label('ticks');
  asm.dq(0n);
  asm.label('tick');
  for (const register of [rax, rbx]) asm.push(register);
  asm.db(0x52, 0x51);
  asm.aluMem('add', 8, at({ disp: 'ticks' }), 1);
  asm.mov(ecx, 0x80b);
  asm.alu('xor', eax, eax);
  asm.alu('xor', edx, edx);
  asm.wrmsr();
  asm.db(0x59, 0x5a);
  for (const register of [rbx, rax]) asm.pop(register);
  iretq(asm);
  asm.label('done');
};

test.each(ENGINES)('an interrupt that ends HLT comes before the next instruction (%s)', (engine) => {
  expect(runOn(engine, program).run.result).toBe(0x0102030405);
});
