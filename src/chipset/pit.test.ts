import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { frequency, ticksAt, timeOfTick } from './frequency.ts';
import {
  createPit,
  PIT_HZ,
  PIT_PORT,
  pitAdvance,
  pitNextEvent,
  pitOutput,
  pitRead,
  pitWrite,
  type PitState,
} from './pit.ts';

const CLOCK = frequency(PIT_HZ);

/** Time of a tick. */
function at(tick: number): number {
  return timeOfTick(CLOCK, tick);
}

function control(state: PitState, tick: number, value: number): void {
  pitWrite(state, at(tick), PIT_PORT.control, value);
}

/** Both bytes of a count; it is in the counter one tick later. */
function count(state: PitState, tick: number, channel: number, value: number): void {
  pitWrite(state, at(tick), PIT_PORT.counter0 + channel, value & 0xff);
  pitWrite(state, at(tick), PIT_PORT.counter0 + channel, value >>> 8);
}

function program(tick: number, channel: number, mode: number, value: number): PitState {
  const state = createPit();
  control(state, tick, (channel << 6) | 0x30 | (mode << 1));
  count(state, tick, channel, value);
  return state;
}

function word(state: PitState, tick: number, channel: number): number {
  const port = PIT_PORT.counter0 + channel;
  const low = pitRead(state, at(tick), port);
  return low | (pitRead(state, at(tick), port) << 8);
}

function latched(state: PitState, tick: number, channel: number): number {
  control(state, tick, channel << 6);
  return word(state, tick, channel);
}

/** OUT from `from` on, one character a tick. */
function wave(state: PitState, channel: number, from: number, length: number): string {
  return Array.from({ length }, (_, index) => (pitOutput(state, at(from + index), channel) ? 'H' : '_')).join(
    '',
  );
}

function gate2(state: PitState, tick: number, on: boolean): void {
  pitWrite(state, at(tick), PIT_PORT.speaker, on ? 1 : 0);
}

describe('outputs, with a count of 4 (or 5) loaded at tick 1', () => {
  test.each([
    [0, 4, '_____HHHHHHH'],
    [2, 4, 'HHHH_HHH_HHH_'],
    [3, 4, 'HHH__HH__HH__'],
    [3, 5, 'HHHH__HHH__HHH'],
    [4, 4, 'HHHHH_HHHHHH'],
  ])('mode %i, count %i', (mode, value, expected) => {
    expect(wave(program(0, 0, mode, value), 0, 0, expected.length)).toBe(expected);
  });

  test('mode 1 waits for its gate, and starts again with it', () => {
    const state = program(0, 2, 1, 4);
    expect(wave(state, 2, 0, 5)).toBe('HHHHH');
    gate2(state, 10, true);
    expect(wave(state, 2, 10, 7)).toBe('H____HH');
    gate2(state, 20, false);
    gate2(state, 21, true);
    expect(wave(state, 2, 21, 3)).toBe('H__');
    gate2(state, 23, false);
    gate2(state, 24, true);
    expect(wave(state, 2, 24, 6)).toBe('____HH');
  });

  test('mode 5 strobes after its gate', () => {
    const state = program(0, 2, 5, 4);
    gate2(state, 10, true);
    expect(wave(state, 2, 10, 8)).toBe('HHHHH_HH');
  });
});

describe('gate', () => {
  test('low suspends modes 0 and 4', () => {
    const state = createPit();
    gate2(state, 0, true);
    control(state, 0, 0xb0);
    count(state, 0, 2, 10);
    gate2(state, 4, false);
    expect(latched(state, 4, 2)).toBe(7);
    expect(latched(state, 100, 2)).toBe(7);
    gate2(state, 200, true);
    expect(latched(state, 203, 2)).toBe(4);
    expect(wave(state, 2, 206, 3)).toBe('_HH');
  });

  test('a count written while it is low waits', () => {
    const state = program(0, 2, 0, 5);
    expect(wave(state, 2, 100, 2)).toBe('__');
    gate2(state, 200, true);
    expect(wave(state, 2, 204, 2)).toBe('_H');
    const rate = program(0, 2, 2, 5);
    expect(latched(rate, 103, 2)).toBe(5);
    expect(wave(rate, 2, 104, 8)).toBe('HHHHHHHH');
  });

  test('low sets OUT of modes 2 and 3 high; its edge starts them afresh', () => {
    const state = createPit();
    gate2(state, 0, true);
    control(state, 0, 0xb6);
    count(state, 0, 2, 6);
    expect(wave(state, 2, 4, 3)).toBe('___');
    gate2(state, 5, false);
    expect(wave(state, 2, 5, 4)).toBe('HHHH');
    gate2(state, 20, true);
    expect(wave(state, 2, 21, 7)).toBe('HHH___H');
  });
});

describe('counts', () => {
  test('0 stands for the largest', () => {
    expect(latched(program(0, 0, 2, 0), 1, 0)).toBe(0);
    expect(latched(program(0, 0, 2, 0), 2, 0)).toBe(0xffff);
    expect(latched(program(0, 0, 2, 0), 0x10000, 0)).toBe(1);
  });

  test('mode 3 counts by two', () => {
    const state = program(0, 0, 3, 8);
    expect([1, 2, 3, 4, 5, 6, 9].map((tick) => latched(state, tick, 0))).toEqual([8, 6, 4, 2, 8, 6, 8]);
  });

  test('mode 0 goes on below zero', () => {
    expect(latched(program(0, 0, 0, 4), 8, 0)).toBe(0xfffd);
  });

  test('BCD', () => {
    const state = createPit();
    control(state, 0, 0x35);
    count(state, 0, 0, 0x1234);
    expect(latched(state, 1, 0)).toBe(0x1234);
    expect(latched(state, 6, 0)).toBe(0x1229);
    count(state, 0, 0, 0);
    const other = createPit();
    control(other, 0, 0x31);
    count(other, 0, 0, 0);
    expect(latched(other, 2, 0)).toBe(0x9999);
  });

  test('a new count of mode 2 begins when the cycle ends, of mode 3 when its half ends', () => {
    const two = program(0, 0, 2, 4);
    expect(wave(two, 0, 0, 2)).toBe('HH');
    count(two, 2, 0, 3);
    expect(wave(two, 0, 2, 9)).toBe('HH_HH_HH_');
    const three = program(0, 0, 3, 8);
    count(three, 2, 0, 4);
    expect(wave(three, 0, 2, 11)).toBe('HHH__HH__HH');
    const low = program(0, 0, 3, 8);
    expect(pitOutput(low, at(6), 0)).toBe(false);
    count(low, 6, 0, 4);
    expect(wave(low, 0, 6, 8)).toBe('___HH__H');
  });

  test('a new count of mode 0 begins at once; its first byte stops the old one', () => {
    const state = program(0, 0, 0, 4);
    pitWrite(state, at(3), 0x40, 10);
    expect(wave(state, 0, 3, 5)).toBe('_____');
    pitWrite(state, at(10), 0x40, 0);
    expect(wave(state, 0, 19, 3)).toBe('__H');
  });
});

describe('reading', () => {
  test('a latched count stays until it is read', () => {
    const state = program(0, 0, 2, 1000);
    control(state, 11, 0x00);
    control(state, 50, 0x00);
    expect(word(state, 100, 0)).toBe(990);
    expect(word(state, 101, 0)).toBe(900);
  });

  test('a latched 0 is a latched count', () => {
    const state = program(0, 0, 0, 4);
    control(state, 5, 0x00);
    expect(word(state, 9, 0)).toBe(0);
  });

  test('modes 6 and 7 are 2 and 3', () => {
    for (const [written, mode] of [
      [6, 2],
      [7, 3],
    ] as const) {
      const state = program(0, 0, written, 4);
      control(state, 1, 0xe2);
      expect((pitRead(state, at(1), 0x40) >>> 1) & 7).toBe(mode);
    }
  });

  test('channel 1 takes a new count over as well', () => {
    const state = program(0, 1, 2, 4);
    count(state, 2, 1, 3);
    expect(wave(state, 1, 2, 9)).toBe('HH_HH_HH_');
  });

  test('one byte at a time, as the access mode says', () => {
    const state = createPit();
    control(state, 0, 0x14);
    pitWrite(state, at(0), 0x40, 0x80);
    expect(pitRead(state, at(1), 0x40)).toBe(0x80);
    expect(pitRead(state, at(2), 0x40)).toBe(0x7f);
    const high = createPit();
    control(high, 0, 0x24);
    pitWrite(high, at(0), 0x40, 0x80);
    expect(pitRead(high, at(1), 0x40)).toBe(0x80);
    expect(pitRead(high, at(2), 0x40)).toBe(0x7f);
  });

  test('read-back: status before count, of the chosen counters', () => {
    const state = program(0, 0, 2, 1000);
    control(state, 11, 0xc2);
    expect(pitRead(state, at(12), 0x40)).toBe(0xb4);
    expect(word(state, 20, 0)).toBe(990);
    control(state, 30, 0xd2);
    expect(word(state, 40, 0)).toBe(971);
    control(state, 50, 0xe4);
    expect(pitRead(state, at(50), 0x41)).toBe(0x70);
  });

  test('null count until the new count is in the counter', () => {
    const state = program(0, 0, 2, 1000);
    control(state, 0, 0xe2);
    expect(pitRead(state, at(0), 0x40) & 0x40).toBe(0x40);
    control(state, 1, 0xe2);
    expect(pitRead(state, at(1), 0x40) & 0x40).toBe(0);
    count(state, 10, 0, 500);
    control(state, 500, 0xe2);
    expect(pitRead(state, at(500), 0x40) & 0x40).toBe(0x40);
    control(state, 1001, 0xe2);
    expect(pitRead(state, at(1001), 0x40) & 0x40).toBe(0);
  });
});

describe('port 0x61', () => {
  test('keeps four bits, shows refresh and OUT of channel 2', () => {
    const state = createPit();
    pitWrite(state, 0, PIT_PORT.speaker, 0xff);
    expect(pitRead(state, 0, PIT_PORT.speaker)).toBe(0x0f);
    expect(pitRead(state, 15_085, PIT_PORT.speaker)).toBe(0x1f);
    expect(pitRead(state, 30_170, PIT_PORT.speaker)).toBe(0x0f);
    pitWrite(state, 0, PIT_PORT.speaker, 0);
    expect(pitRead(state, 45_255, PIT_PORT.speaker)).toBe(0x10);
  });

  test('the calibration loop: mode 0 with the gate on, until bit 5', () => {
    const state = createPit();
    pitWrite(state, 0, PIT_PORT.speaker, 1);
    pitWrite(state, 0, PIT_PORT.control, 0xb0);
    const ticks = Math.floor(PIT_HZ / 100);
    pitWrite(state, 0, 0x42, ticks & 0xff);
    pitWrite(state, 0, 0x42, ticks >>> 8);
    let now = 0;
    while ((pitRead(state, now, PIT_PORT.speaker) & 0x20) === 0) now += 100;
    expect(Math.abs(now - 10_000_000)).toBeLessThan(2000);
  });
});

describe('IRQ 0', () => {
  test('events are exactly the changes of OUT', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(0, 2, 3, 4),
        fc.integer({ min: 2, max: 40 }),
        fc.integer({ min: 2, max: 40 }),
        fc.integer({ min: 0, max: 90 }),
        (mode, first, second, when) => {
          const announced = program(0, 0, mode, first);
          const watched = program(0, 0, mode, first);
          const changes: number[] = [];
          let level = pitOutput(watched, at(0), 0);
          for (let tick = 1; tick < 200; tick++) {
            if (tick === when) count(watched, tick, 0, second);
            const next = pitOutput(watched, at(tick), 0);
            if (next !== level) changes.push(tick);
            level = next;
          }
          const events: number[] = [];
          let previous = pitAdvance(announced, at(0)).level;
          let written = when === 0;
          for (;;) {
            const due = ticksAt(CLOCK, pitNextEvent(announced));
            if (!written && !(due < when)) {
              // A change that the write undoes in the same tick is none.
              count(announced, when, 0, second);
              const after = pitAdvance(announced, at(when)).level;
              if (after !== previous) events.push(when);
              previous = after;
              written = true;
              continue;
            }
            if (!(due < 200)) break;
            const { level: next } = pitAdvance(announced, at(due));
            if (next !== previous) events.push(due);
            previous = next;
          }
          if (when === 0) return;
          expect(events).toEqual(changes);
        },
      ),
    );
  });

  test('a rise is reported once, however late', () => {
    const state = program(0, 0, 2, 4);
    pitAdvance(state, at(0));
    expect(pitAdvance(state, at(4))).toEqual({ rose: false, level: false });
    expect(pitAdvance(state, at(5))).toEqual({ rose: true, level: true });
    expect(pitAdvance(state, at(5))).toEqual({ rose: false, level: true });
    expect(pitAdvance(state, at(1003))).toEqual({ rose: true, level: true });
  });

  test('a rise that a read passes over is not lost', () => {
    const state = program(0, 0, 2, 4);
    pitAdvance(state, at(0));
    latched(state, 6, 0);
    pitOutput(state, at(10), 0);
    expect(pitAdvance(state, at(11)).rose).toBe(true);
  });

  test('a new count that begins with a low half makes none', () => {
    const state = program(0, 0, 3, 8);
    count(state, 2, 0, 4);
    pitAdvance(state, at(2));
    expect(pitAdvance(state, at(6))).toEqual({ rose: false, level: false });
    expect(pitAdvance(state, at(7))).toEqual({ rose: true, level: true });
  });

  test('a gate edge before the first count starts nothing', () => {
    const state = createPit();
    control(state, 0, 0xb4);
    gate2(state, 5, true);
    expect(wave(state, 2, 5, 5)).toBe('HHHHH');
    count(state, 10, 2, 3);
    gate2(state, 12, false);
    expect(latched(state, 50, 2)).toBe(2);
  });

  test('programming may make one', () => {
    const state = program(0, 0, 0, 100);
    expect(pitAdvance(state, at(5))).toEqual({ rose: false, level: false });
    control(state, 6, 0x34);
    expect(pitAdvance(state, at(6))).toEqual({ rose: true, level: true });
  });
});

test('random traffic: bytes stay bytes, events lie ahead, copies go on alike', () => {
  const step = fc.record({
    port: fc.constantFrom(0x40, 0x41, 0x42, 0x43, 0x61),
    value: fc.nat(255),
    isWrite: fc.boolean(),
    wait: fc.oneof(fc.nat(2000), fc.nat(1e9), fc.constant(1e15)),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 150 }), fc.nat(150), (steps, cut) => {
      let a = createPit();
      const b = createPit();
      let now = 0;
      steps.forEach(({ port, value, isWrite, wait }, index) => {
        now = Math.min(now + wait, 4e15);
        if (index === cut) a = JSON.parse(JSON.stringify(structuredClone(a))) as PitState;
        if (isWrite) {
          for (const state of [a, b]) pitWrite(state, now, port, value);
        } else {
          const got = pitRead(a, now, port);
          expect(got).toBe(pitRead(b, now, port));
          expect(got).toSatisfy((byte: number) => Number.isInteger(byte) && byte >= 0 && byte <= 255);
        }
        expect(pitAdvance(a, now)).toEqual(pitAdvance(b, now));
        expect(pitNextEvent(a)).toBeGreaterThan(now);
      });
      expect(a).toEqual(b);
    }),
  );
});
