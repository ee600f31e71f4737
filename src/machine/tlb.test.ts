import { describe, expect, test } from 'vitest';
import { type Assembler, at, eax, rax, rbx, rcx, rdi } from '../../guests/asm.ts';
import { multibootImage } from '../../guests/multiboot-image.ts';
import { findCpuModel } from '../x86/cpuid.ts';
import { bootTestBoard } from './test-board/boot.ts';

/** The entry of the program's own PDPT for linear addresses from 1 GiB, and tables of 4 KiB pages behind it. */
const PDPT_ENTRY = 0x201008;
const DIRECTORY = 0x300000;
const TABLE = 0x301000;
const VIRTUAL = 0x40000000;
const FRAMES = [0x400000, 0x600000] as const;

/** Maps two frames that hold 1 and 2: the first at VIRTUAL. */
function mapPage(asm: Assembler, rights: number): void {
  asm.mov(rdi, DIRECTORY);
  asm.mov(rcx, 0x2000);
  asm.alu('xor', eax, eax);
  asm.rep('stosb');
  asm.movMem(8, at({ disp: FRAMES[0] }), 1);
  asm.movMem(8, at({ disp: FRAMES[1] }), 2);
  asm.movMem(8, at({ disp: TABLE }), FRAMES[0] | rights);
  asm.movMem(8, at({ disp: DIRECTORY }), TABLE | 3);
  asm.movMem(8, at({ disp: PDPT_ENTRY }), DIRECTORY | 3);
}

const load = (asm: Assembler): void => {
  asm.mov(rbx, VIRTUAL);
  asm.mov(rax, at({ base: rbx }));
};
const store = (asm: Assembler): void => {
  asm.mov(rbx, VIRTUAL);
  asm.mov(at({ base: rbx }), rax);
};
/** INVLPG [rbx] */
const invlpg = (asm: Assembler): void => asm.db(0x0f, 0x01, 0x3b);
const toggle = (asm: Assembler, control: 0 | 4, bit: number): void => {
  asm.movFromControl(rax, control);
  asm.alu('xor', rax, bit);
  asm.movToControl(control, rax);
};
const WP = 0x10000;
const PGE = 0x80;

/** What the program prints; undefined when a fault ended it, as it has no interrupt table. */
function result(body: (asm: Assembler) => void): number | undefined {
  const outcome = bootTestBoard({
    source: { kind: 'kernel', image: multibootImage(body), commandLine: 'guest', modules: [] },
    memoryBytes: 64 * 2 ** 20,
    cpus: 1,
    model: findCpuModel('EPYC-Milan')!,
  });
  if (!outcome.ok) throw new Error(outcome.error.what);
  let text = '';
  outcome.machine.onSerial = (_unit, bytes) => {
    text += new TextDecoder().decode(bytes);
  };
  const reason = outcome.machine.run(1_000_000);
  if (reason.kind === 'exit') return Number.parseInt(text, 16);
  if (reason.kind === 'end' && reason.reason === 'triple-fault') return undefined;
  throw new Error(`the program ended by ${reason.kind}`);
}

describe('CR0.WP', () => {
  const readOnly = (body: (asm: Assembler) => void) => (asm: Assembler) => {
    mapPage(asm, 1);
    body(asm);
    load(asm);
  };

  test('clear lets a supervisor write to a read-only page', () => {
    expect(result(readOnly((asm) => (asm.mov(rax, 7), store(asm))))).toBe(7);
  });

  test('set stops a write that the TLB has seen succeed while it was clear', () => {
    const program = readOnly((asm) => {
      asm.mov(rax, 7);
      store(asm);
      toggle(asm, 0, WP);
      store(asm);
    });
    expect(result(program)).toBeUndefined();
  });

  test('cleared again lets the write through', () => {
    const program = readOnly((asm) => {
      for (let k = 0; k < 4; k++) toggle(asm, 0, WP);
      load(asm);
      asm.mov(rax, 9);
      store(asm);
    });
    expect(result(program)).toBe(9);
  });
});

describe('a changed page-table entry', () => {
  const remapped = (flush: (asm: Assembler) => void, rights = 3) =>
    result((asm) => {
      mapPage(asm, rights);
      load(asm);
      asm.movMem(8, at({ disp: TABLE }), FRAMES[1] | rights);
      flush(asm);
      load(asm);
    });

  test('shows only after the translation was dropped: the TLB keeps it', () => {
    expect(remapped(() => undefined)).toBe(1);
  });
  test('shows after INVLPG', () => expect(remapped(invlpg)).toBe(2));
  test('shows after a write of CR3', () => {
    expect(remapped((asm) => (asm.movFromControl(rax, 3), asm.movToControl(3, rax)))).toBe(2);
  });
  test('of a global page shows after CR4.PGE changes', () => {
    expect(remapped((asm) => toggle(asm, 4, PGE), 0x103)).toBe(2);
  });

  test('of a large page shows at every piece after INVLPG of another one', () => {
    const program = (asm: Assembler): void => {
      mapPage(asm, 3);
      asm.movMem(8, at({ disp: DIRECTORY }), FRAMES[0] | 0x83);
      load(asm);
      asm.movMem(8, at({ disp: DIRECTORY }), FRAMES[1] | 0x83);
      asm.mov(rbx, VIRTUAL + 0x5000);
      invlpg(asm);
      load(asm);
    };
    expect(result(program)).toBe(2);
  });

  test('of a page with code shows after INVLPG', () => {
    // MOV EAX, imm32; RET in each frame.
    const program = (asm: Assembler): void => {
      mapPage(asm, 3);
      for (const [k, frame] of FRAMES.entries()) {
        asm.movMem(4, at({ disp: frame }), 0x000000b8 | ((k + 1) << 8));
        asm.movMem(4, at({ disp: frame + 4 }), 0x00c300);
      }
      asm.mov(rbx, VIRTUAL);
      asm.call(rbx);
      asm.movMem(8, at({ disp: TABLE }), FRAMES[1] | 3);
      invlpg(asm);
      asm.call(rbx);
    };
    expect(result(program)).toBe(2);
  });
});
