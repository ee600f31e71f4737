import { describe, expect, test } from 'vitest';
import { REGISTER, registerValue } from '../../abi/hyperv/registers.ts';
import type { Completion, OpenExit } from '../../seats/exits.ts';
import type { HostView } from '../../seats/host-view.ts';
import {
  type BoardAction,
  type BoardWorld,
  DEFAULT_TEST_BOARD,
  type TestBoard,
  type TestBoardConfig,
  boardAcknowledge,
  boardAdvance,
  boardExit,
  boardIdleStatus,
  boardInterrupt,
  boardNextEvent,
  boardPieces,
  boardTakeNmi,
  boardTurn,
  createTestBoard,
} from './board.ts';
import { WAKING_VECTOR } from './tables.ts';

/** A board with hands: a guest that the test plays, a small memory, registers by name. */
class Bench {
  readonly board: TestBoard;
  readonly actions: BoardAction[] = [];
  readonly registers = new Map<number, number>([[REGISTER.rflags, 0x202]]);
  readonly memory = new Map<number, Uint8Array>();
  now = 0;

  constructor(config: Partial<TestBoardConfig> = {}) {
    this.board = createTestBoard({ ...DEFAULT_TEST_BOARD, firmware: false, ...config });
    this.store(SVR, 0x1ff);
  }

  get world(): BoardWorld {
    const view: HostView = {
      read: (gpa, length) => ({ ok: true, bytes: this.memory.get(gpa) ?? new Uint8Array(length) }),
      write: () => ({ ok: true }),
      overlay: () => ({ ok: false, reason: 'unsupported' }),
      getRegister: (_vp, name) => {
        const register = this.registers.get(name);
        return register === undefined ? undefined : registerValue(register);
      },
      setRegister: () => true,
    };
    return { view, sink: { mask: 0, emit: () => undefined }, now: this.now };
  }

  exit(exit: OpenExit, vp = 0): Completion {
    const { completion, actions } = boardExit(this.board, vp, exit, this.world);
    this.actions.push(...actions);
    return completion;
  }

  out(port: number, value: number, size: 1 | 2 | 4 = 1): void {
    expect(this.exit({ kind: 'io', port, size, write: true, value })).toEqual({ kind: 'done' });
  }

  in(port: number, size: 1 | 2 | 4 = 1): number {
    const completion = this.exit({ kind: 'io', port, size, write: false, value: 0 });
    return completion.kind === 'value' ? completion.lo : NaN;
  }

  store(gpa: number, value: number, vp = 0): void {
    this.exit({ kind: 'mmio', gpa, size: 4, write: true, lo: value, hi: 0 }, vp);
  }

  load(gpa: number, vp = 0, size: 1 | 2 | 4 | 8 = 4): number {
    const completion = this.exit({ kind: 'mmio', gpa, size, write: false, lo: 0, hi: 0 }, vp);
    return completion.kind === 'value' ? completion.lo : NaN;
  }

  readMsr(index: number, vp = 0): Completion {
    return this.exit({ kind: 'msr', index, write: false, lo: 0, hi: 0 }, vp);
  }

  writeMsr(index: number, lo: number, hi = 0, vp = 0): Completion {
    return this.exit({ kind: 'msr', index, write: true, lo, hi }, vp);
  }

  halt(vp = 0): void {
    this.exit({ kind: 'hlt' }, vp);
  }

  /** Lets the board run to its next event, as a machine in which every VP waits would. */
  skip(): void {
    const next = boardNextEvent(this.board);
    expect(next).toBeLessThan(Infinity);
    this.now = Math.max(this.now, next);
    this.actions.push(...boardAdvance(this.board, this.world));
  }

  pending(vp = 0): string {
    return boardInterrupt(this.board, vp);
  }

  take(vp = 0): number {
    return boardAcknowledge(this.board, vp, this.world);
  }

  redirect(pin: number, lo: number, destination = 0): void {
    this.store(IOAPIC, 0x10 + pin * 2);
    this.store(IOAPIC + 0x10, lo);
    this.store(IOAPIC, 0x11 + pin * 2);
    this.store(IOAPIC + 0x10, destination << 24);
  }
}

const IOAPIC = 0xfec00000;
const LAPIC = 0xfee00000;
const EOI = LAPIC + 0xb0;
const ICR_LOW = LAPIC + 0x300;
const ICR_HIGH = LAPIC + 0x310;
const LVT_TIMER = LAPIC + 0x320;
const TIMER_COUNT = LAPIC + 0x380;
const TIMER_DIVIDE = LAPIC + 0x3e0;
const SVR = LAPIC + 0xf0;
const LEVEL = 1 << 15;

const NATIVE = { eax: 1, ebx: 0x12345678, ecx: 0xffffffff, edx: 0xffffffff };

describe('ends', () => {
  test('port 0xF4 ends the run with the code shifted and odd', () => {
    const bench = new Bench();
    bench.out(0xf4, 0, 4);
    bench.out(0xf4, 63, 4);
    expect(bench.actions).toEqual([
      { kind: 'exit', status: 1 },
      { kind: 'exit', status: 127 },
    ]);
  });

  test('port 0x8900 wants the whole word', () => {
    const bench = new Bench();
    for (const letter of 'ShutShutdow') bench.out(0x8900, letter.charCodeAt(0));
    expect(bench.actions).toEqual([]);
    bench.out(0x8900, 'n'.charCodeAt(0));
    expect(bench.actions).toEqual([{ kind: 'end', reason: 'power-off' }]);
  });

  test('a triple fault ends it, and writes to the reset port', () => {
    const bench = new Bench();
    bench.out(0xcf8, 0xffffffff, 4);
    expect(bench.actions).toEqual([]);
    bench.exit({ kind: 'triple-fault' });
    bench.out(0xcf9, 6);
    expect(bench.actions).toEqual([
      { kind: 'end', reason: 'triple-fault' },
      { kind: 'end', reason: 'reset' },
    ]);
  });

  test('a BIOS image that stops is judged by its POST value', () => {
    const bench = new Bench();
    expect(boardIdleStatus(bench.board)).toBeUndefined();
    bench.out(0x190, 0x20);
    expect(boardIdleStatus(bench.board)).toBe(1);
    bench.out(0x190, 0xff);
    expect(boardIdleStatus(bench.board)).toBe(0);
  });
});

describe('devices', () => {
  test('COM1 sends bytes out', () => {
    const bench = new Bench();
    expect(bench.in(0x3fd) & 0x20).toBe(0x20);
    bench.out(0x3f8, 0x41);
    expect(bench.actions).toEqual([{ kind: 'serial', unit: 0, bytes: Uint8Array.of(0x41) }]);
  });

  test('fw_cfg tells the number of processors and the memory size', () => {
    const bench = new Bench({ cpus: 3, memoryBytes: 0x12345000 });
    const bytes = (selector: number, count: number): number => {
      bench.out(0x510, selector, 2);
      let value = 0;
      for (let i = 0; i < count; i++) value += bench.in(0x511) * 2 ** (8 * i);
      return value;
    };
    expect(bytes(5, 2)).toBe(3);
    expect(bytes(3, 8)).toBe(0x12345000);
  });

  test('the test device remembers, and has memory of its own', () => {
    const bench = new Bench();
    bench.out(0xe0, 0x9999, 2);
    expect(bench.in(0xe0)).toBe(0x99);
    bench.store(0xff000010, 0xdeadbeef);
    expect(bench.load(0xff000010)).toBe(0xdeadbeef);
    expect(bench.load(0xff000012, 0, 1)).toBe(0xad);
  });

  test('nothing is there elsewhere', () => {
    const bench = new Bench();
    expect(bench.in(0x1234, 4)).toBe(0xffffffff);
    expect(bench.in(0xcfc, 4)).toBe(0xffffffff);
    expect(bench.load(0xf0000000)).toBe(0xffffffff);
    expect(bench.readMsr(0x4b564d00)).toEqual({ kind: 'fault', vector: 13, errorCode: 0 });
    expect(bench.writeMsr(0x4b564d00, 0)).toEqual({ kind: 'fault', vector: 13, errorCode: 0 });
  });

  test('the PM timer counts at 3.579545 MHz where the tables say it is', () => {
    const bench = new Bench();
    const first = bench.in(0x608, 4);
    bench.now = 1_000_000_000;
    expect((bench.in(0x608, 4) - first) & 0xffffff).toBe(3_579_545);
  });

  test('the HPET counts once it is enabled', () => {
    const bench = new Bench();
    bench.store(0xfed00010, 1);
    const first = bench.load(0xfed000f0);
    bench.now = 10_000_000;
    expect(bench.load(0xfed000f0)).toBeGreaterThan(first);
  });
});

describe('interrupts', () => {
  test('an edge on a line of the test device becomes a vector, once', () => {
    const bench = new Bench();
    bench.redirect(14, 0x76);
    bench.out(0x200e, 1);
    bench.out(0x200e, 0);
    expect(bench.pending()).toBe('interrupt');
    expect(bench.take()).toBe(0x76);
    expect(bench.pending()).toBe('none');
    bench.store(EOI, 0);
    expect(bench.pending()).toBe('none');
  });

  test('a level stays until the line falls, and its end is seen by the IO-APIC', () => {
    const bench = new Bench();
    bench.redirect(14, 0x77 | LEVEL);
    bench.out(0x200e, 1);
    expect(bench.take()).toBe(0x77);
    bench.store(EOI, 0);
    expect(bench.take()).toBe(0x77);
    bench.out(0x200e, 0);
    bench.store(EOI, 0);
    expect(bench.pending()).toBe('none');
  });

  test('line 0 is pin 2 of the IO-APIC', () => {
    const bench = new Bench();
    bench.redirect(2, 0x30);
    bench.out(0x2000, 1);
    expect(bench.take()).toBe(0x30);
  });

  test('the timer of the local APIC expires on time', () => {
    const bench = new Bench();
    bench.store(TIMER_DIVIDE, 0xb);
    bench.store(LVT_TIMER, 0xee);
    bench.store(TIMER_COUNT, 200);
    // 200 ticks of 200 MHz.
    expect(boardNextEvent(bench.board)).toBe(1000);
    bench.now = 999;
    bench.actions.push(...boardAdvance(bench.board, bench.world));
    expect(bench.pending()).toBe('none');
    bench.skip();
    expect(bench.take()).toBe(0xee);
  });

  test('the PIT interrupts through the 8259A and LINT0', () => {
    const bench = new Bench({ firmware: true });
    // Mode 2 raises OUT at once; initialising the 8259A afterwards forgets that edge.
    for (const [port, value] of [
      [0x43, 0x34],
      [0x40, 0xe8],
      [0x40, 0x03],
      [0x20, 0x11],
      [0x21, 0x08],
      [0x21, 0x04],
      [0x21, 0x01],
      [0x21, 0xfe],
    ] as const) {
      bench.out(port, value);
    }
    expect(bench.pending()).toBe('none');
    while (bench.pending() === 'none' && bench.now < 5_000_000) bench.skip();
    // 1000 ticks of 1.193182 MHz.
    expect(bench.now).toBeGreaterThan(837_000);
    expect(bench.now).toBeLessThan(840_000);
    expect(bench.take()).toBe(8);
  });

  test('NMIs wait: one inside a handler, two outside', () => {
    const bench = new Bench();
    const send = (): void => {
      bench.store(ICR_LOW, 0x400 | (1 << 14));
    };
    for (let i = 0; i < 3; i++) send();
    expect(bench.board.vps[0]?.nmis).toBe(1);
    bench.registers.set(REGISTER.interruptState, 0);
    for (let i = 0; i < 3; i++) send();
    expect(bench.board.vps[0]?.nmis).toBe(2);
    boardTakeNmi(bench.board, 0);
    boardTakeNmi(bench.board, 0);
    bench.registers.set(REGISTER.interruptState, 2);
    for (let i = 0; i < 3; i++) send();
    expect(bench.board.vps[0]?.nmis).toBe(1);
  });
});

describe('processors', () => {
  test('INIT and SIPI start another VP', () => {
    const bench = new Bench({ cpus: 2 });
    bench.store(ICR_LOW, 0xc0000 | 0x500 | (1 << 14));
    bench.store(ICR_LOW, 0xc0000 | 0x600 | 0x01);
    expect(bench.actions).toEqual([
      { kind: 'init', vp: 1 },
      { kind: 'startup', vp: 1, vector: 1 },
    ]);
    bench.halt();
    expect(boardTurn(bench.board, bench.now)).toMatchObject({ kind: 'run', vp: 1 });
  });

  test('an interrupt from one VP wakes another', () => {
    const bench = new Bench({ cpus: 2 });
    bench.store(ICR_LOW, 0xc0500);
    bench.store(ICR_LOW, 0xc0601);
    bench.store(SVR, 0x1ff, 1);
    bench.halt(1);
    bench.store(ICR_HIGH, 1 << 24);
    bench.store(ICR_LOW, 0x4020);
    expect(bench.pending(1)).toBe('interrupt');
    bench.halt(0);
    expect(boardTurn(bench.board, bench.now)).toMatchObject({ kind: 'run', vp: 1 });
    expect(bench.take(1)).toBe(0x20);
  });

  test('VPs take turns in slices, and a lone one is not sliced', () => {
    const bench = new Bench({ cpus: 2, slice: 700 });
    expect(boardTurn(bench.board, 0)).toMatchObject({ kind: 'run', vp: 0 });
    bench.store(ICR_LOW, 0xc0500);
    bench.store(ICR_LOW, 0xc0601);
    const first = boardTurn(bench.board, 10_000);
    const second = boardTurn(bench.board, 10_700);
    expect(first).toMatchObject({ kind: 'run', instructions: 700 });
    expect(second).toMatchObject({ kind: 'run', instructions: 700 });
    expect(new Set([first, second].map((turn) => turn.kind === 'run' && turn.vp)).size).toBe(2);
    bench.halt(1);
    const alone = boardTurn(bench.board, 11_400);
    expect(alone).toMatchObject({ kind: 'run', vp: 0 });
    expect(alone.kind === 'run' ? alone.instructions : 0).toBeGreaterThan(700);
  });

  test('a VP that halts with interrupts off is not woken by one', () => {
    const bench = new Bench();
    bench.redirect(14, 0x76);
    bench.registers.set(REGISTER.rflags, 2);
    bench.halt();
    bench.out(0x200e, 1);
    expect(boardTurn(bench.board, 0).kind).toBe('idle');
  });

  test('a board whose processors cannot be woken has nothing to wait for', () => {
    const bench = new Bench({ firmware: true, cpus: 2 });
    expect(boardNextEvent(bench.board)).toBeLessThan(Infinity);
    bench.registers.set(REGISTER.rflags, 2);
    bench.halt();
    expect(boardTurn(bench.board, 0)).toEqual({ kind: 'idle', until: Infinity });
    // The tick as an NMI would wake it.
    bench.redirect(2, 0x400);
    expect(boardTurn(bench.board, 0)).toMatchObject({ kind: 'idle', until: boardNextEvent(bench.board) });
  });

  test('CPUID follows the enable bit of the APIC, and hides what the board does not have', () => {
    const bench = new Bench({ cpus: 2, x2apic: false });
    const features = (vp: number): { ebx: number; ecx: number; edx: number } => {
      const completion = bench.exit({ kind: 'cpuid', leaf: 1, subleaf: 0, native: NATIVE }, vp);
      if (completion.kind !== 'registers') throw new Error(completion.kind);
      return completion;
    };
    expect(features(1).ebx).toBe(0x01025678);
    expect(features(0).ecx & (1 << 21)).toBe(0);
    expect(features(0).edx & (1 << 9)).not.toBe(0);
    bench.writeMsr(0x1b, 0xfee00100);
    expect(features(0).edx & (1 << 9)).toBe(0);
    expect(bench.load(LAPIC + 0x30)).toBe(0xffffffff);
  });

  test('x2APIC mode is refused where it is not offered', () => {
    expect(new Bench({ x2apic: false }).writeMsr(0x1b, 0xfee00d00).kind).toBe('fault');
    expect(new Bench({ x2apic: true }).writeMsr(0x1b, 0xfee00d00).kind).toBe('done');
  });

  test('CR8 is the task priority', () => {
    const bench = new Bench();
    expect(bench.exit({ kind: 'cr8', write: true, value: 9 })).toEqual({ kind: 'done' });
    expect(bench.load(LAPIC + 0x80)).toBe(0x90);
    expect(bench.exit({ kind: 'cr8', write: false, value: 0 })).toEqual({ kind: 'value', lo: 9, hi: 0 });
    expect(bench.exit({ kind: 'cr8', write: true, value: 16 }).kind).toBe('fault');
  });

  test('an unknown hypercall is answered as unknown, one that sends interrupts sends them', () => {
    const bench = new Bench();
    bench.registers.set(REGISTER.rax, 0xffffffff);
    expect(bench.exit({ kind: 'hypercall', long: true, cpl: 0 })).toEqual({
      kind: 'value',
      lo: 0xfffffc18,
      hi: 0xffffffff,
    });
    bench.registers.set(REGISTER.rax, 10);
    bench.registers.set(REGISTER.rbx, 1);
    bench.registers.set(REGISTER.rsi, 0x44);
    expect(bench.exit({ kind: 'hypercall', long: true, cpl: 0 })).toEqual({ kind: 'value', lo: 1, hi: 0 });
    expect(bench.take()).toBe(0x44);
  });
});

test('suspend to memory ends at the alarm, at the address that the FACS holds', () => {
  const bench = new Bench({ cpus: 2 });
  bench.memory.set(WAKING_VECTOR, Uint8Array.of(0, 0x10, 0, 0));
  bench.out(0x602, 0x400, 2);
  for (const register of [1, 3, 5]) {
    bench.out(0x70, register);
    bench.out(0x71, 0xc0);
  }
  bench.out(0x70, 0xb);
  bench.out(0x71, bench.in(0x71) | 0x20);
  bench.actions.length = 0;
  bench.out(0x604, 0x2400, 2);
  expect(boardTurn(bench.board, bench.now).kind).toBe('idle');
  expect(bench.actions).toEqual([
    { kind: 'init', vp: 0 },
    { kind: 'init', vp: 1 },
  ]);
  bench.actions.length = 0;
  for (let i = 0; i < 100 && bench.actions.length === 0; i++) bench.skip();
  expect(bench.actions).toEqual([{ kind: 'startup', vp: 0, vector: 1 }]);
  expect(boardTurn(bench.board, bench.now)).toMatchObject({ kind: 'run', vp: 0 });
});

test('firmware leaves its tables behind, and a tick that returns through them', () => {
  const pieces = boardPieces(DEFAULT_TEST_BOARD);
  expect(pieces.map(({ gpa }) => gpa)).toEqual([0, 0xf5000, 0xff000]);
  const bench = new Bench({ firmware: true });
  while (bench.pending() === 'none') bench.skip();
  const vector = bench.take();
  const table = pieces[0]?.bytes ?? new Uint8Array();
  const [offset = 0, segment = 0] = new Uint16Array(table.slice(vector * 4, vector * 4 + 4).buffer);
  const stub = pieces[2]?.bytes.subarray(segment * 16 + offset - 0xff000) ?? [];
  // mov al, 20h; out 20h, al: the end of the interrupt.
  expect([...stub.slice(1, 5)]).toEqual([0xb0, 0x20, 0xe6, 0x20]);
  expect(boardPieces({ ...DEFAULT_TEST_BOARD, firmware: false })).toEqual([]);
});

test('a copy of the board goes on as the board does', () => {
  const bench = new Bench();
  bench.store(TIMER_COUNT, 5000);
  bench.out(0x43, 0x34);
  bench.out(0x40, 0);
  bench.out(0x40, 1);
  const copy = structuredClone(bench.board);
  expect(boardNextEvent(copy)).toBe(boardNextEvent(bench.board));
  bench.skip();
  boardAdvance(copy, bench.world);
  expect(copy).toEqual(bench.board);
});
