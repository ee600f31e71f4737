/** A watched page is touched by the interpreter alone, so that a watch is hit, and stops the machine, in the same places everywhere. */
import { expect, test } from 'vitest';
import { type Assembler, at, eax, r15, rax, rbx, rdi, xmm } from '../../guests/asm.ts';
import { DATA, multibootImage } from '../../guests/multiboot-image.ts';
import { read64 } from '../../src/silicon/vcpu.ts';
import { bootTestBoard } from '../../src/machine/test-board/boot.ts';
import { findCpuModel } from '../../src/x86/cpuid.ts';
import { CPU } from '../../src/x86/layout.ts';
import { times } from './guest.ts';

/** Writes, reads, changes and moves 16 bytes of an array, one element after the other. */
const program = (asm: Assembler): void => {
  asm.alu('xor', rbx, rbx);
  times(asm, 20, 'again', () => {
    asm.mov(rdi, DATA);
    asm.mov(eax, 1000);
    asm.label('element');
    asm.mov(at({ base: rdi }), r15);
    asm.alu('add', rbx, at({ base: rdi }));
    asm.alu('add', at({ base: rdi }), rax);
    asm.movdqu(xmm(0), at({ base: rdi }));
    asm.movdqu(at({ base: rdi }), xmm(0));
    asm.alu('add', rdi, 8);
    asm.dec(eax);
    asm.jcc('ne', 'element');
  });
  asm.mov(rax, rbx);
};

interface Stop {
  readonly instructions: number;
  readonly rip: bigint;
  readonly value: bigint;
}

function watched(engine: 'interpreter' | 'translator'): { stops: Stop[]; hits: string[]; regions: number } {
  const outcome = bootTestBoard({
    source: { kind: 'kernel', image: multibootImage(program), commandLine: 'guest', modules: [] },
    memoryBytes: 64 * 2 ** 20,
    cpus: 1,
    model: findCpuModel('EPYC-Milan')!,
    engine,
  });
  if (!outcome.ok) throw new Error(outcome.error.what);
  const { machine } = outcome;
  const { translator, blocks } = machine.engine;
  if (translator !== undefined) blocks.heat = 4;
  const hits: string[] = [];
  const stops: Stop[] = [];
  const host = machine.truth.host(DATA + 700 * 8) as number;
  // From the middle of the program on, when it is hot.
  for (let k = 0; k < 20; k++) {
    machine.run(2000);
    translator?.compile();
  }
  machine.engine.setWatches([{ host, length: 8, read: true, write: true }]);
  machine.engine.onWatch = ({ watch, write, bytes }) => {
    hits.push(`${write ? 'write' : 'read'} ${bytes}`);
    machine.stopForWatch(watch);
  };
  for (;;) {
    const reason = machine.run(5000);
    translator?.compile();
    if (reason.kind === 'exit') return { stops, hits, regions: translator?.counts.regions ?? 0 };
    if (reason.kind === 'debug')
      stops.push({
        instructions: machine.instructions,
        rip: read64(machine.engine, machine.engine.cpu(0) + CPU.rip),
        value: machine.engine.view.getBigUint64(host, true),
      });
    else if (reason.kind !== 'budget') throw new Error(reason.kind);
  }
}

test('hits of a watch stop both engines behind the same instructions', () => {
  const interpreter = watched('interpreter');
  const translator = watched('translator');
  expect(interpreter.stops.length).toBeGreaterThan(50);
  expect(translator.stops).toEqual(interpreter.stops);
  expect(translator.hits).toEqual(interpreter.hits);
  expect(translator.regions).toBeGreaterThan(0);
});
