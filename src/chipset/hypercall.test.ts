import { describe, expect, test } from 'vitest';
import fc from 'fast-check';
import { STATUS, writeControl, type Control } from '../abi/hyperv/hypercall.ts';
import { dispatchHypercall, hypercallTable, type Hypercall, type HypercallPort } from './hypercall.ts';

interface Log {
  calls: Hypercall[];
  perCall: number;
}

const SIMPLE = 1;
const VARIABLE = 2;
const REP = 3;
const REP_OUT = 4;
const GUARDED = 5;
const OUTPUT_ONLY = 6;

const note = (log: Log, call: Hypercall, status: number = STATUS.success) => {
  log.calls.push(call);
  return { status };
};

const table = hypercallTable<Log>([
  { name: 'simple', code: SIMPLE, input: 24, output: 0, serve: note },
  { name: 'variable', code: VARIABLE, input: 8, output: 0, variableHeader: true, serve: note },
  {
    name: 'rep',
    code: REP,
    input: 8,
    output: 0,
    rep: { input: 8, output: 0 },
    variableHeader: true,
    serve: (log, call) => {
      log.calls.push(call);
      const reps = Math.min(call.control.repCount, call.control.repStart + log.perCall);
      return { status: STATUS.success, reps, unfinished: reps < call.control.repCount };
    },
  },
  {
    name: 'repOut',
    code: REP_OUT,
    input: 8,
    output: 0,
    rep: { input: 4, output: 16 },
    serve: (log, call) => {
      log.calls.push(call);
      call.output.fill(0x11);
      return { status: STATUS.unknownRegisterName, reps: log.perCall };
    },
  },
  { name: 'guarded', code: GUARDED, input: 8, output: 0, privilege: 0x10, serve: note },
  {
    name: 'outputOnly',
    code: OUTPUT_ONLY,
    input: 0,
    output: 8,
    serve: (_log, call) => {
      call.output.set([1, 2, 3, 4, 5, 6, 7, 8]);
      return { status: STATUS.success };
    },
  },
]);

function setup(control: Partial<Control>, input = 0x1000, output = 0x2000) {
  const ram = Uint8Array.from({ length: 0x4000 }, (_, i) => i * 7);
  const fast: [number, number, number][] = [];
  const { low, high } = writeControl(control);
  const log: Log = { calls: [], perCall: 1000 };
  const port = {
    memory: {
      read: (gpa, length) =>
        gpa + length <= ram.length
          ? { ok: true, bytes: ram.slice(gpa, gpa + length) }
          : { ok: false, reason: 'unmapped' },
      write: (gpa, bytes) => {
        if (gpa + bytes.length > ram.length) return { ok: false, reason: 'unmapped' };
        ram.set(bytes, gpa);
        return { ok: true };
      },
    },
    control: [low, high],
    input: [input, 0],
    output: [output, 0],
    readXmm: (index) => new Uint8Array(16).fill(0x50 + index),
    writeFast: (qword, lo, hi) => void fast.push([qword, lo, hi]),
    privilegesHigh: 0x10,
    xmmInput: true,
    fastOutput: true,
  } satisfies HypercallPort as { -readonly [K in keyof HypercallPort]: HypercallPort[K] };
  return { ram, port, fast, log, run: () => dispatchHypercall(table, log, port) };
}

const status = (value: number, reps = 0) => ({ kind: 'result', status: value, reps });

describe('slow calls', () => {
  test('input is read from its page', () => {
    const { ram, log, run } = setup({ code: SIMPLE }, 0x1008);
    expect(run()).toEqual(status(STATUS.success));
    expect(log.calls[0]?.input).toEqual(ram.slice(0x1008, 0x1020));
  });

  test.each([
    ['an unknown code', { code: 99 }, 0x1000, STATUS.invalidHypercallCode],
    ['reps on a simple call', { code: SIMPLE, repCount: 1 }, 0x1000, STATUS.invalidHypercallInput],
    ['no reps on a rep call', { code: REP }, 0x1000, STATUS.invalidHypercallInput],
    [
      'a start beyond the count',
      { code: REP, repCount: 2, repStart: 2 },
      0x1000,
      STATUS.invalidHypercallInput,
    ],
    [
      'a variable header where there is none',
      { code: SIMPLE, variableHeaderQwords: 1 },
      0x1000,
      STATUS.invalidHypercallInput,
    ],
    ['the nested bit', { code: SIMPLE, nested: true }, 0x1000, STATUS.invalidHypercallInput],
    ['input that is not aligned', { code: SIMPLE }, 0x1004, STATUS.invalidAlignment],
    ['input that crosses a page', { code: SIMPLE }, 0x1ff0, STATUS.invalidAlignment],
    ['reps that cross a page', { code: REP, repCount: 512 }, 0x1000, STATUS.invalidAlignment],
    ['input outside memory', { code: SIMPLE }, 0x8000, STATUS.invalidHypercallInput],
  ])('refuses %s', (_name, control, input, expected) => {
    const { log, run } = setup(control, input);
    expect(run()).toEqual(status(expected));
    expect(log.calls).toEqual([]);
  });

  test('refuses reserved bits', () => {
    const { port, run } = setup({ code: SIMPLE });
    port.control = [SIMPLE | 0x0800_0000, 0];
    expect(run()).toEqual(status(STATUS.invalidHypercallInput));
  });

  test('refuses a call without its privilege', () => {
    const { port, run } = setup({ code: GUARDED });
    expect(run()).toEqual(status(STATUS.success));
    port.privilegesHigh = 0;
    expect(run()).toEqual(status(STATUS.accessDenied));
  });

  test('does not look at a pointer that the call does not use', () => {
    expect(setup({ code: SIMPLE }, 0x1000, 0x2003).run()).toEqual(status(STATUS.success));
    expect(setup({ code: OUTPUT_ONLY }, 0x1003, 0x2000).run()).toEqual(status(STATUS.success));
    expect(setup({ code: OUTPUT_ONLY }, 0, 0x2004).run()).toEqual(status(STATUS.invalidAlignment));
  });

  test('output goes to its page', () => {
    const { ram, run } = setup({ code: OUTPUT_ONLY });
    run();
    expect(Array.from(ram.slice(0x2000, 0x2008))).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  test('a variable header of n qwords lies between header and elements', () => {
    const { log, run } = setup({ code: REP, variableHeaderQwords: 3, repCount: 2 });
    expect(run()).toEqual(status(STATUS.success, 2));
    expect(log.calls[0]).toMatchObject({ variableAt: 8, elementsAt: 32 });
    expect(log.calls[0]?.input.length).toBe(48);
  });
});

describe('rep calls', () => {
  test('an unfinished call runs again from where it stopped', () => {
    const { port, log, run } = setup({ code: REP, repCount: 5 });
    log.perCall = 2;
    const again = run();
    expect(again.kind).toBe('again');
    if (again.kind === 'again') port.control = again.control;
    run();
    log.perCall = 9;
    port.control = [REP, (4 << 16) | 5];
    expect(run()).toEqual(status(STATUS.success, 5));
    expect(log.calls.map((call) => call.control.repStart)).toEqual([0, 2, 4]);
  });

  test('a call that fails reports the reps it completed and their output only', () => {
    const { ram, log, run } = setup({ code: REP_OUT, repCount: 3 });
    const before = ram.slice(0x2020, 0x2030);
    log.perCall = 2;
    expect(run()).toEqual(status(STATUS.unknownRegisterName, 2));
    expect(ram.slice(0x2000, 0x2020).every((byte) => byte === 0x11)).toBe(true);
    expect(ram.slice(0x2020, 0x2030)).toEqual(before);
  });
});

describe('fast calls', () => {
  test('take input from the two registers, then XMM0..', () => {
    const { port, log, run } = setup({ code: SIMPLE, fast: true });
    port.input = [0x04030201, 0x08070605];
    port.output = [0x0c0b0a09, 0x100f0e0d];
    expect(run()).toEqual(status(STATUS.success));
    expect(Array.from(log.calls[0]?.input ?? [])).toEqual([
      ...Array.from({ length: 16 }, (_, i) => i + 1),
      ...Array<number>(8).fill(0x50),
    ]);
  });

  test('more than 16 bytes need the XMM feature', () => {
    const { port, run } = setup({ code: SIMPLE, fast: true });
    port.xmmInput = false;
    expect(run()).toEqual(status(STATUS.invalidHypercallInput));
  });

  test('what does not fit the registers is refused', () => {
    expect(setup({ code: REP, fast: true, repCount: 13 }).run()).toEqual(status(STATUS.success, 13));
    expect(setup({ code: REP, fast: true, repCount: 14 }).run()).toEqual(
      status(STATUS.invalidHypercallInput),
    );
  });

  test('output follows the input registers', () => {
    const { fast, log, run } = setup({ code: REP_OUT, fast: true, repCount: 2 });
    log.perCall = 1;
    run();
    expect(fast).toEqual([
      [2, 0x11111111, 0x11111111],
      [3, 0x11111111, 0x11111111],
    ]);
  });
});

test('any control word and any pointers have a defined status', () => {
  const word = fc.oneof(fc.integer({ min: 0, max: 0xffff_ffff }), fc.integer({ min: 0, max: 8 }));
  const known = new Set<number>(Object.values(STATUS));
  fc.assert(
    fc.property(fc.tuple(word, word, word, word, word, word), ([a, b, c, d, e, f]) => {
      const { port, log, run } = setup({});
      log.perCall = 1;
      Object.assign(port, { control: [a, b], input: [c, d], output: [e, f] });
      const outcome = run();
      expect(outcome.kind === 'again' || known.has(outcome.status)).toBe(true);
    }),
    { numRuns: 500 },
  );
});
