import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  createIoapic,
  IOAPIC,
  ioapicEoi,
  ioapicLine,
  ioapicRead,
  ioapicRejected,
  ioapicSetLine,
  ioapicWrite,
  resetIoapic,
  type IoapicAction,
  type IoapicState,
} from './ioapic.ts';

const MASKED = 0x1_0000;
const LEVEL = 0x8000;
const REMOTE_IRR = 0x4000;
const LOW = 0x2000;

function read(state: IoapicState, register: number): number {
  ioapicWrite(state, IOAPIC.select, register);
  return ioapicRead(state, IOAPIC.window);
}

function write(state: IoapicState, register: number, value: number): readonly IoapicAction[] {
  ioapicWrite(state, IOAPIC.select, register);
  return ioapicWrite(state, IOAPIC.window, value >>> 0);
}

function entry(state: IoapicState, pin: number): number {
  return read(state, 0x10 + pin * 2);
}

function program(state: IoapicState, pin: number, lo: number, hi = 0): readonly IoapicAction[] {
  write(state, 0x11 + pin * 2, hi);
  return write(state, 0x10 + pin * 2, lo);
}

function vectors(actions: readonly IoapicAction[]): (number | string)[] {
  return actions.map((action) => (action.kind === 'message' ? action.message.vector : action.kind));
}

describe('registers', () => {
  test('after reset: every entry masked, 24 pins, version 0x20', () => {
    const state = createIoapic();
    expect(read(state, 1)).toBe(0x0017_0020);
    for (let pin = 0; pin < 24; pin++) {
      expect(entry(state, pin)).toBe(MASKED);
      expect(read(state, 0x11 + pin * 2)).toBe(0);
    }
    expect(read(state, 0x10 + 48)).toBe(0);
    expect(read(state, 5)).toBe(0);
  });

  test('only bits 27:24 of the ID are writable; arbitration follows it and is read-only', () => {
    const state = createIoapic({ id: 2 });
    expect(read(state, 0)).toBe(0x0200_0000);
    write(state, 0, 0xfdff_ffff);
    expect(read(state, 0)).toBe(0x0d00_0000);
    expect(read(state, 2)).toBe(0x0d00_0000);
    write(state, 2, 0);
    expect(read(state, 2)).toBe(0x0d00_0000);
    write(state, 1, 0);
    expect(read(state, 1)).toBe(0x0017_0020);
    resetIoapic(state);
    expect(read(state, 0)).toBe(0x0200_0000);
  });

  test('an entry keeps its writable bits; status bits are read-only', () => {
    const state = createIoapic();
    program(state, 3, 0xffff_ffff, 0xffff_ffff);
    expect(entry(state, 3)).toBe(0x1_afff);
    expect(read(state, 0x17)).toBe(0xff00_0000);
    const extended = createIoapic({ extendedDestination: true });
    program(extended, 3, MASKED, 0xffff_ffff);
    expect(read(extended, 0x17)).toBe(0xfffe_0000);
  });

  test('other offsets of the page hold nothing', () => {
    const state = createIoapic();
    expect(ioapicRead(state, 0x20)).toBe(0);
    expect(ioapicWrite(state, 0x20, 0xff)).toEqual([]);
  });
});

describe('messages', () => {
  test('carry what the entry says', () => {
    const state = createIoapic({ extendedDestination: true });
    program(state, 5, LEVEL | 0x800 | 0x100 | 0x71, 0x0206_0000);
    expect(ioapicSetLine(state, 5, true)).toEqual([
      {
        kind: 'message',
        pin: 5,
        message: {
          delivery: 1,
          vector: 0x71,
          level: true,
          target: 'destination',
          logical: true,
          destination: 0x302,
          wide: false,
        },
      },
    ]);
  });

  test('NMI is edge-triggered even where the entry says level', () => {
    const state = createIoapic();
    program(state, 5, LEVEL | 0x400);
    expect(ioapicSetLine(state, 5, true)).toMatchObject([{ message: { delivery: 4, level: false } }]);
    expect(ioapicSetLine(state, 5, true)).toEqual([]);
    expect(entry(state, 5) & REMOTE_IRR).toBe(0);
  });
});

describe('edge-triggered', () => {
  test('one message per rising edge', () => {
    const state = createIoapic();
    program(state, 14, 0x76);
    expect(vectors(ioapicSetLine(state, 14, true))).toEqual([0x76]);
    expect(vectors(ioapicSetLine(state, 14, true))).toEqual([]);
    expect(vectors(ioapicSetLine(state, 14, false))).toEqual([]);
    expect(vectors(ioapicSetLine(state, 14, true))).toEqual([0x76]);
    expect(entry(state, 14)).toBe(0x76);
    expect(ioapicEoi(state, 0x76)).toEqual([]);
  });

  test('an edge on a masked pin is lost', () => {
    const state = createIoapic();
    program(state, 14, MASKED | 0x81);
    ioapicSetLine(state, 14, true);
    expect(program(state, 14, 0x81)).toEqual([]);
    ioapicSetLine(state, 14, false);
    expect(vectors(ioapicSetLine(state, 14, true))).toEqual([0x81]);
  });
});

describe('level-triggered', () => {
  test('one message until EOI, then again while the line is asserted', () => {
    const state = createIoapic();
    program(state, 14, LEVEL | 0x77);
    expect(vectors(ioapicSetLine(state, 14, true))).toEqual([0x77]);
    expect(entry(state, 14)).toBe(LEVEL | REMOTE_IRR | 0x77);
    ioapicSetLine(state, 14, false);
    expect(vectors(ioapicSetLine(state, 14, true))).toEqual([]);
    expect(ioapicEoi(state, 0x78)).toEqual([]);
    expect(vectors(ioapicEoi(state, 0x77))).toEqual(['ended', 0x77]);
    ioapicSetLine(state, 14, false);
    expect(vectors(ioapicEoi(state, 0x77))).toEqual(['ended']);
    expect(entry(state, 14)).toBe(LEVEL | 0x77);
  });

  test('unmasking an asserted line sends', () => {
    const state = createIoapic();
    program(state, 14, LEVEL | MASKED | 0x82);
    expect(ioapicSetLine(state, 14, true)).toEqual([]);
    expect(vectors(program(state, 14, LEVEL | 0x82))).toEqual([0x82]);
  });

  test('masked at its EOI it waits for the mask to go', () => {
    const state = createIoapic();
    program(state, 14, LEVEL | 0x83);
    ioapicSetLine(state, 14, true);
    program(state, 14, LEVEL | MASKED | 0x83);
    expect(entry(state, 14) & REMOTE_IRR).toBe(REMOTE_IRR);
    expect(vectors(ioapicEoi(state, 0x83))).toEqual(['ended']);
    expect(vectors(program(state, 14, LEVEL | 0x83))).toEqual([0x83]);
  });

  test('a new destination while in service: the EOI still finds it by vector', () => {
    const state = createIoapic();
    program(state, 13, LEVEL | 0x64);
    ioapicSetLine(state, 13, true);
    expect(write(state, 0x11 + 26, 0x0100_0000)).toEqual([]);
    expect(ioapicEoi(state, 0x64)).toMatchObject([{ kind: 'ended' }, { message: { destination: 1 } }]);
  });

  test('switching to edge and back drops remote IRR', () => {
    const state = createIoapic();
    program(state, 4, LEVEL | 0x50);
    ioapicSetLine(state, 4, true);
    program(state, 4, MASKED | 0x50);
    expect(entry(state, 4)).toBe(MASKED | 0x50);
    expect(vectors(program(state, 4, LEVEL | 0x50))).toEqual([0x50]);
  });

  test('what nobody took is not in service', () => {
    const state = createIoapic();
    program(state, 4, LEVEL | 0x50);
    ioapicSetLine(state, 4, true);
    ioapicRejected(state, 4);
    expect(entry(state, 4)).toBe(LEVEL | 0x50);
    expect(vectors(write(state, 0x18, LEVEL | 0x51))).toEqual([0x51]);
  });

  test('one EOI ends all pins of the vector', () => {
    const state = createIoapic();
    program(state, 4, LEVEL | 0x50);
    program(state, 5, LEVEL | 0x50);
    ioapicSetLine(state, 4, true);
    ioapicSetLine(state, 5, true);
    expect(ioapicEoi(state, 0x50)).toMatchObject([
      { kind: 'ended', pin: 4 },
      { kind: 'message', pin: 4 },
      { kind: 'ended', pin: 5 },
      { kind: 'message', pin: 5 },
    ]);
  });
});

describe('EOI register', () => {
  test.each([
    [0x20, 1],
    [0x11, 0],
  ])('version %i', (version, ended) => {
    const state = createIoapic({ version });
    program(state, 4, LEVEL | 0x50);
    ioapicSetLine(state, 4, true);
    ioapicSetLine(state, 4, false);
    expect(ioapicWrite(state, IOAPIC.eoi, 0x50)).toHaveLength(ended);
    expect((entry(state, 4) & REMOTE_IRR) === 0).toBe(ended === 1);
  });
});

describe('polarity', () => {
  test('an active-low entry on an active-high wire is active while the line is not asserted', () => {
    const state = createIoapic();
    expect(vectors(program(state, 6, LEVEL | LOW | 0x60))).toEqual([0x60]);
    ioapicSetLine(state, 6, true);
    expect(vectors(ioapicEoi(state, 0x60))).toEqual(['ended']);
    expect(vectors(ioapicSetLine(state, 6, false))).toEqual([0x60]);
  });

  test('an active-low wire wants an active-low entry', () => {
    const state = createIoapic({ activeLow: 1 << 6 });
    program(state, 6, LEVEL | LOW | 0x60);
    expect(entry(state, 6) & REMOTE_IRR).toBe(0);
    expect(vectors(ioapicSetLine(state, 6, true))).toEqual([0x60]);
    program(state, 7, LOW | 0x61);
    expect(vectors(ioapicSetLine(state, 7, true))).toEqual([]);
    expect(vectors(ioapicSetLine(state, 7, false))).toEqual([0x61]);
  });
});

test('a pin that does not exist', () => {
  const state = createIoapic({ pins: 8 });
  expect(ioapicSetLine(state, 8, true)).toEqual([]);
  expect(ioapicLine(state, 8)).toBe(false);
  expect(() => createIoapic({ pins: 33 })).toThrow('33 pins');
});

test('random traffic: never two messages of a level pin without an end between, and copies go on alike', () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('line' as const), pin: fc.nat(23), on: fc.boolean() }),
    fc.record({
      kind: fc.constant('write' as const),
      offset: fc.constantFrom(0, 0x10, 0x40, 0x20),
      value: fc.oneof(fc.nat(0xff), fc.nat(0xffff_ffff), fc.integer({ min: 0, max: 0x1_ffff })),
    }),
    fc.record({ kind: fc.constant('eoi' as const), vector: fc.nat(255) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), fc.nat(200), (steps, cut) => {
      let a = createIoapic();
      const b = createIoapic();
      steps.forEach((item, index) => {
        if (index === cut) a = JSON.parse(JSON.stringify(structuredClone(a))) as IoapicState;
        const results = [a, b].map((state) => {
          const held = [...state.entriesLo];
          const actions =
            item.kind === 'line'
              ? ioapicSetLine(state, item.pin, item.on)
              : item.kind === 'write'
                ? ioapicWrite(state, item.offset, item.value)
                : ioapicEoi(state, item.vector);
          const ended = new Set<number>();
          for (const action of actions) {
            if (action.kind === 'ended') ended.add(action.pin);
            else if (action.message.level && !ended.has(action.pin)) {
              const before = held[action.pin] ?? 0;
              expect((before & REMOTE_IRR) === 0 || (before & LEVEL) === 0).toBe(true);
            }
          }
          return actions;
        });
        expect(results[0]).toEqual(results[1]);
      });
      expect(a).toEqual(b);
      for (const value of [...a.entriesLo, ...a.entriesHi, a.lines, a.select]) {
        expect(Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff).toBe(true);
      }
    }),
  );
});
