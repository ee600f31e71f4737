/** Code that changes while it runs, lies beside data, crosses pages, has two addresses, or loses its rights: on every engine. */
import { describe, expect, test } from 'vitest';
import {
  type Assembler,
  at,
  cl,
  eax,
  ecx,
  edi,
  r12,
  r13,
  r14,
  r15,
  r15d,
  rax,
  rbp,
  rbx,
  rcx,
  rdi,
  rdx,
  rsi,
  rsp,
} from '../../guests/asm.ts';
import {
  RIGHTS,
  TABLE,
  VIRTUAL,
  frame,
  handlers,
  invlpg,
  iretq,
  plant,
  pte,
  returns,
  smallPages,
  startOthers,
  times,
} from './guest.ts';
import { ENGINES, runOn } from './run.ts';

interface Guest {
  readonly body: (asm: Assembler) => void;
  readonly result: number;
  readonly cpus?: number;
  /** It is decoded anew each round. */
  readonly neverHot?: true;
}

/** CALL, and what comes back is added to RBX. */
function add(asm: Assembler, address: number): void {
  asm.mov(rdx, address);
  asm.call(rdx);
  asm.alu('add', rbx, rax);
}
/** CALL `label` so many times. */
function calls(asm: Assembler, count: number, label: string, loop: string): void {
  asm.mov(ecx, count);
  asm.label(loop);
  asm.call(label);
  asm.dec(ecx);
  asm.jcc('ne', loop);
}
const sum = (count: number, of: (n: number) => number): number =>
  Array.from({ length: count }, (_, n) => of(n)).reduce((a, b) => a + b, 0);

const ownInstructions: Guest = {
  body: (asm) => {
    asm.alu('xor', rbx, rbx);
    times(asm, 3000, 'again', () => {
      // MOV EAX, operand: the next round's.
      asm.db(0xb8);
      asm.label('operand');
      asm.dd(1);
      asm.alu('add', rbx, rax);
      asm.aluMem('add', 4, at({ disp: 'operand' }), 3);
      // ADD AL, operand: of this round, and of this block.
      asm.mov(rcx, r15);
      asm.mov(at({ disp: 'next' }), cl);
      asm.alu('xor', eax, eax);
      asm.db(0x04);
      asm.label('next');
      asm.db(0);
      asm.alu('add', rbx, rax);
    });
    asm.mov(rax, rbx);
  },
  result: sum(3000, (n) => 1 + 3 * n + ((3000 - n) & 255)),
  neverHot: true,
};

const dataBesideCode: Guest = {
  body: (asm) => {
    asm.alu('xor', rbx, rbx);
    asm.jmp('counting');
    asm.label('counter');
    asm.dq(0n);
    asm.label('counting');
    times(asm, 5000, 'again', () => {
      asm.aluMem('add', 8, at({ disp: 'counter' }), 1);
      asm.mov(rax, at({ disp: 'counter' }));
      asm.alu('add', rbx, rax);
    });
    asm.mov(rax, rbx);
  },
  result: sum(5000, (n) => n + 1),
};

const acrossPages: Guest = {
  body: (asm) => {
    smallPages(asm, [frame(0) | RIGHTS, frame(5) | RIGHTS]);
    const code = returns(5);
    plant(asm, frame(0) + 0xffd, code.slice(0, 3));
    plant(asm, frame(5), code.slice(3));
    plant(asm, frame(6), [9, 0, 0xc3]);
    asm.alu('xor', rbx, rbx);
    times(asm, 400, 'changed', () => {
      add(asm, VIRTUAL + 0xffd);
      asm.aluMem('add', 1, at({ disp: frame(5) }), 1);
    });
    // The rest of the instruction lies in another frame.
    asm.movMem(8, at({ disp: pte(1) }), frame(6) | RIGHTS);
    asm.mov(rdi, VIRTUAL + 0x1000);
    invlpg(asm);
    times(asm, 400, 'moved', () => add(asm, VIRTUAL + 0xffd));
    asm.mov(rax, rbx);
  },
  result: sum(400, (n) => 5 + (n & 255) * 0x10000) + 400 * (5 + 9 * 0x10000),
};

const twoAddresses: Guest = {
  body: (asm) => {
    smallPages(asm, [frame(0) | RIGHTS, frame(0) | RIGHTS]);
    plant(asm, frame(0), returns(1));
    asm.alu('xor', rbx, rbx);
    times(asm, 1000, 'again', () => {
      add(asm, VIRTUAL);
      asm.aluMem('add', 1, at({ disp: VIRTUAL + 0x1001 }), 1);
      add(asm, VIRTUAL + 0x1000);
    });
    asm.mov(rax, rbx);
  },
  result: sum(1000, (n) => ((1 + n) & 255) + ((2 + n) & 255)),
};

const otherFrame: Guest = {
  body: (asm) => {
    smallPages(asm, [frame(0) | RIGHTS]);
    plant(asm, frame(0), returns(1));
    plant(asm, frame(1), returns(100));
    asm.alu('xor', rbx, rbx);
    times(asm, 600, 'again', () => {
      add(asm, VIRTUAL);
      asm.mov(rax, at({ disp: pte(0) }));
      asm.alu('xor', rax, frame(0) ^ frame(1));
      asm.mov(at({ disp: pte(0) }), rax);
      asm.mov(edi, VIRTUAL);
      invlpg(asm);
    });
    asm.mov(rax, rbx);
  },
  result: 300 * 101,
};

/** A loop over pages and with an instruction in two pages, of which some are mapped elsewhere now and then. */
const loopOverPages: Guest = {
  body: (asm) => {
    const rel32 = (from: number, to: number): number[] =>
      [0, 8, 16, 24].map((shift) => ((to - from - 4) >> shift) & 0xff);
    smallPages(
      asm,
      [0, 1, 2, 3].map((n) => frame(n) | RIGHTS),
    );
    plant(asm, frame(0), [
      // MOV ECX, 50; CALL page 1; ADD RBX, RAX; JMP the end of page 2; DEC ECX; JNZ the CALL; RET
      ...[0xb9, 50, 0, 0, 0, 0xe8, ...rel32(6, 0x1000), 0x48, 0x01, 0xc3],
      ...[0xe9, ...rel32(14, 0x2fff), 0xff, 0xc9, 0x75, 0xef, 0xc3],
    ]);
    plant(asm, frame(1), returns(1));
    plant(asm, frame(5), returns(1000));
    // INC ESI or INC EBP, over the end of page 2; JMP the DEC
    plant(asm, frame(2) + 0xfff, [0xff]);
    plant(asm, frame(3), [0xc6, 0xe9, ...rel32(0x3002, 18)]);
    plant(asm, frame(7), [0xc5, 0xe9, ...rel32(0x3002, 18)]);
    for (const register of [rbx, rsi, rbp]) asm.alu('xor', register, register);
    times(asm, 200, 'again', () => {
      asm.mov(rdx, VIRTUAL);
      asm.call(rdx);
      for (const page of [1, 3]) {
        asm.mov(rax, at({ disp: pte(page) }));
        asm.alu('xor', rax, frame(page) ^ frame(page + 4));
        asm.mov(at({ disp: pte(page) }), rax);
        asm.mov(edi, VIRTUAL + page * 0x1000);
        invlpg(asm);
      }
    });
    asm.shift('shl', rbp, 24);
    asm.shift('shl', rsi, 40);
    asm.mov(rax, rbx);
    asm.alu('or', rax, rbp);
    asm.alu('or', rax, rsi);
  },
  result: 100 * 50 * 1001 + 100 * 50 * 2 ** 24 + 100 * 50 * 2 ** 40,
};

/** As kprobes and ftrace do it: INT3 over the first byte, then the rest, then the first byte. */
const breakpointFirst: Guest = {
  body: (asm) => {
    handlers(asm, { 3: 'breakpoint' });
    for (const register of [rbx, r12, r13]) asm.alu('xor', register, register);
    const threeCalls = (): void => {
      for (let n = 0; n < 3; n++) asm.call('traced');
    };
    times(asm, 40, 'again', () => {
      calls(asm, 50, 'traced', 'plain');
      asm.movMem(1, at({ disp: 'traced' }), 0xcc);
      threeCalls();
      asm.mov(eax, 'tracer');
      asm.mov(ecx, 'traced_body');
      asm.alu('sub', eax, ecx);
      asm.mov(at({ disp: 'traced_rest' }), eax);
      threeCalls();
      asm.movMem(1, at({ disp: 'traced' }), 0xe8);
      calls(asm, 50, 'traced', 'calling');
      asm.movMem(1, at({ disp: 'traced' }), 0xcc);
      threeCalls();
      asm.movMem(4, at({ disp: 'traced_rest' }), 0x441f);
      threeCalls();
      asm.movMem(1, at({ disp: 'traced' }), 0x0f);
    });
    asm.jmp('done');
    asm.align(16);
    asm.label('traced');
    asm.db(0x0f);
    asm.label('traced_rest');
    asm.db(0x1f, 0x44, 0, 0);
    asm.label('traced_body');
    asm.alu('add', rbx, 1);
    asm.ret();
    asm.label('tracer');
    asm.alu('add', r12, 1);
    asm.ret();
    asm.label('breakpoint');
    asm.alu('add', r13, 1);
    asm.aluMem('add', 8, at({ base: rsp }), 4);
    iretq(asm);
    asm.label('done');
    asm.shift('shl', r12, 16);
    asm.shift('shl', r13, 32);
    asm.mov(rax, rbx);
    asm.alu('or', rax, r12);
    asm.alu('or', rax, r13);
  },
  result: 40 * 112 + 40 * 50 * 2 ** 16 + 40 * 12 * 2 ** 32,
};

/** A static key: a jump of two bytes, or a NOP, by one store. */
const staticKey: Guest = {
  body: (asm) => {
    asm.alu('xor', rbx, rbx);
    times(asm, 20, 'again', () => {
      calls(asm, 100, 'branch', 'off');
      asm.movMem(2, at({ disp: 'branch' }), 0x02eb);
      calls(asm, 100, 'branch', 'on');
      asm.movMem(2, at({ disp: 'branch' }), 0x9066);
    });
    asm.jmp('done');
    asm.align(8);
    asm.label('branch');
    asm.db(0x66, 0x90);
    // INC EBX
    asm.db(0xff, 0xc3);
    asm.ret();
    asm.label('done');
    asm.mov(rax, rbx);
  },
  result: 2000,
};

const copiedOver: Guest = {
  body: (asm) => {
    smallPages(asm, [frame(0) | RIGHTS]);
    plant(asm, frame(1), returns(3));
    plant(asm, frame(1) + 16, returns(50));
    asm.alu('xor', rbx, rbx);
    asm.mov(r14, frame(1));
    times(asm, 500, 'again', () => {
      asm.mov(rsi, r14);
      asm.mov(rdi, frame(0));
      asm.mov(ecx, 6);
      asm.rep('movsb');
      asm.alu('xor', r14, 16);
      add(asm, VIRTUAL);
    });
    asm.mov(rax, rbx);
  },
  result: 250 * 53,
};

/** A store of eight bytes whose last five are an instruction in the next page; a push over code. */
const storesAcross: Guest = {
  body: (asm) => {
    smallPages(asm, [frame(0) | RIGHTS, frame(3) | RIGHTS, frame(2) | RIGHTS]);
    plant(asm, frame(3), returns(0));
    asm.alu('xor', rbx, rbx);
    times(asm, 300, 'again', () => {
      asm.mov(rcx, r15);
      asm.shift('shl', rcx, 32);
      asm.mov(eax, 0xb8010203 | 0);
      asm.alu('or', rax, rcx);
      asm.mov(rdx, VIRTUAL + 0xffd);
      asm.mov(at({ base: rdx }), rax);
      add(asm, VIRTUAL + 0x1000);
      // MOV EAX, R15D * 2; RET
      asm.movabs(rax, 0xc3_0000_0000_b8n);
      asm.mov(rcx, r15);
      asm.shift('shl', rcx, 9);
      asm.alu('or', rax, rcx);
      asm.mov(r14, rsp);
      asm.mov(rsp, VIRTUAL + 0x2008);
      asm.push(rax);
      asm.mov(rsp, r14);
      add(asm, VIRTUAL + 0x2000);
    });
    asm.mov(rax, rbx);
  },
  result: sum(300, (n) => 3 * (n + 1)),
};

/** A handler of #PF gives a small page all rights back, and counts in R13. */
const rights: Guest = {
  body: (asm) => {
    handlers(asm, { 14: 'fault' });
    smallPages(
      asm,
      [0, 1, 2, 3].map((n) => frame(n) | RIGHTS),
    );
    // EFER.NXE
    asm.mov(ecx, 0xc0000080 | 0);
    asm.rdmsr();
    asm.alu('or', eax, 0x800);
    asm.wrmsr();
    // CR0.WP
    asm.movFromControl(rax, 0);
    asm.alu('or', rax, 0x10000);
    asm.movToControl(0, rax);
    plant(asm, frame(0), returns(2));
    for (const register of [rbx, r13, r14]) asm.alu('xor', register, register);
    times(asm, 400, 'again', () => {
      add(asm, VIRTUAL);
      asm.aluMem('add', 8, at({ disp: VIRTUAL + 0x2000 }), 1);
      asm.alu('add', r14, at({ disp: VIRTUAL + 0x3000 }));
      const when = (round: number, page: number, change: () => void): void => {
        const skip = `not_${round}`;
        asm.mov(eax, r15d);
        asm.alu('and', eax, 15);
        asm.alu('cmp', eax, round);
        asm.jcc('ne', skip);
        change();
        asm.mov(rdi, VIRTUAL + page * 0x1000);
        invlpg(asm);
        asm.label(skip);
      };
      when(0, 2, () => asm.aluMem('and', 1, at({ disp: pte(2) }), 0xfd));
      when(5, 0, () => asm.aluMem('or', 1, at({ disp: pte(0) + 7 }), 0x80));
      when(10, 3, () => asm.aluMem('and', 1, at({ disp: pte(3) }), 0xfe));
      when(13, 0, () => asm.aluMem('and', 1, at({ disp: pte(0) }), 0xfe));
    });
    asm.jmp('done');
    asm.label('fault');
    for (const register of [rax, rdi]) asm.push(register);
    asm.movFromControl(rdi, 2);
    asm.mov(rax, rdi);
    asm.shift('shr', rax, 12);
    asm.alu('and', eax, 0xff);
    asm.shift('shl', rax, 3);
    asm.aluMem('or', 1, at({ base: rax, disp: TABLE }), RIGHTS);
    asm.aluMem('and', 1, at({ base: rax, disp: TABLE + 7 }), 0x7f);
    invlpg(asm);
    asm.alu('add', r13, 1);
    for (const register of [rdi, rax]) asm.pop(register);
    asm.alu('add', rsp, 8);
    iretq(asm);
    asm.label('done');
    asm.shift('shl', r13, 32);
    asm.mov(rax, rbx);
    asm.alu('or', rax, r13);
    asm.mov(rcx, at({ disp: VIRTUAL + 0x2000 }));
    asm.shift('shl', rcx, 16);
    asm.alu('or', rax, rcx);
  },
  result: 800 + 400 * 2 ** 16 + 100 * 2 ** 32,
};

/** One processor changes what another one runs, and waits until that has seen it. */
const otherProcessor: Guest = {
  cpus: 2,
  body: (asm) => {
    startOthers(asm, 'worker');
    const wait = (label: string, place: string): void => {
      asm.label(label);
      asm.db(0xf3, 0x90);
      asm.mov(eax, at({ disp: place }));
      asm.alu('cmp', rax, r14);
      asm.jcc('ne', label);
    };
    asm.mov(r14, 1);
    wait('first', 'seen');
    times(asm, 60, 'again', () => {
      asm.aluMem('add', 4, at({ disp: 'operand' }), 1);
      asm.alu('add', r14, 1);
      wait('spin', 'seen');
    });
    asm.movMem(4, at({ disp: 'ending' }), 1);
    asm.mov(r14, 1);
    wait('last', 'halted');
    asm.mov(eax, at({ disp: 'seen' }));
    asm.jmp('done');
    asm.align(64);
    asm.label('seen');
    asm.dd(0);
    asm.label('ending');
    asm.dd(0);
    asm.label('halted');
    asm.dd(0);
    asm.align(64);
    asm.label('shared');
    asm.db(0xb8);
    asm.label('operand');
    asm.dd(1);
    asm.ret();
    asm.label('worker');
    asm.call('shared');
    asm.mov(at({ disp: 'seen' }), eax);
    asm.aluMem('cmp', 4, at({ disp: 'ending' }), 0);
    asm.jcc('e', 'worker');
    asm.movMem(4, at({ disp: 'halted' }), 1);
    asm.cli();
    asm.hlt();
    asm.label('done');
  },
  result: 61,
};

const GUESTS: Readonly<Record<string, Guest>> = {
  'a loop that changes its own instructions': ownInstructions,
  'data in the line of the code that counts in it': dataBesideCode,
  'an instruction in two pages, of which one changes and moves': acrossPages,
  'code at two addresses of one page': twoAddresses,
  'a page of code that is mapped to another frame': otherFrame,
  'a loop over pages, some of which are mapped to other frames': loopOverPages,
  'a breakpoint while a call is patched in': breakpointFirst,
  'a static key': staticKey,
  'REP MOVSB over a function': copiedOver,
  'stores across pages and pushes over code': storesAcross,
  'rights that come and go': rights,
  'what another processor runs': otherProcessor,
};

describe.each(Object.entries(GUESTS))('%s', (_name, { body, result, cpus, neverHot }) => {
  const [interpreter, translator, mixed] = ENGINES.map((engine) => runOn(engine, body, cpus));
  test('gives the right result', () => {
    expect(interpreter?.run.result).toBe(result);
  });
  test('is the same on the translator, which makes regions of it', () => {
    expect(translator?.run).toEqual(interpreter?.run);
    expect((translator?.regions ?? 0) > 0).toBe(neverHot !== true);
  });
  test('is the same in odd slices', () => {
    expect(mixed?.run).toEqual(interpreter?.run);
  });
});
