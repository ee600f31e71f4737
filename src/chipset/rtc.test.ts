import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  createRtc,
  resetRtc,
  RTC,
  rtcAdvance,
  rtcInterrupt,
  rtcNextEvent,
  rtcRead,
  rtcWrite,
  type RtcState,
} from './rtc.ts';

const SECOND = 1e9;
/** 2024-02-28 23:59:58 UTC, a Wednesday. */
const DATE = Date.UTC(2024, 1, 28, 23, 59, 58) / 1000;

function read(state: RtcState, index: number, now = 0): number {
  rtcWrite(state, now, 0x70, index);
  return rtcRead(state, now, 0x71);
}

function write(state: RtcState, index: number, value: number, now = 0): void {
  rtcWrite(state, now, 0x70, index);
  rtcWrite(state, now, 0x71, value);
}

/** Century, year, month, day, hours, minutes, seconds, weekday, as the registers hold them. */
function time(state: RtcState, now: number): number[] {
  const { centuryByte, year, month, day, hours, minutes, seconds, weekday } = RTC;
  return [centuryByte, year, month, day, hours, minutes, seconds, weekday].map((index) =>
    read(state, index, now),
  );
}

describe('time', () => {
  test('starts at the configured date, in BCD and 24 hours', () => {
    const state = createRtc({ date: DATE });
    expect(time(state, 0)).toEqual([0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x58, 4]);
    expect([read(state, RTC.a), read(state, RTC.b), read(state, RTC.c), read(state, RTC.d)]).toEqual([
      0x26, 0x02, 0, 0x80,
    ]);
  });

  test('carries into the leap day and the weekday', () => {
    const state = createRtc({ date: DATE });
    expect(time(state, 2 * SECOND - 1)).toEqual([0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x59, 4]);
    expect(time(state, 2 * SECOND)).toEqual([0x20, 0x24, 0x02, 0x29, 0x00, 0x00, 0x00, 5]);
  });

  test('carries into the century', () => {
    const state = createRtc({ date: Date.UTC(2099, 11, 31, 23, 59, 59) / 1000 });
    expect(time(state, SECOND).slice(0, 4)).toEqual([0x21, 0x00, 0x01, 0x01]);
  });

  test('binary and 12 hours', () => {
    const state = createRtc({ date: DATE });
    write(state, RTC.b, 0x86);
    write(state, RTC.seconds, 58);
    write(state, RTC.minutes, 59);
    write(state, RTC.hours, 23);
    write(state, RTC.b, 0x06);
    expect(read(state, RTC.seconds, SECOND)).toBe(59);
    const twelve = createRtc({ date: DATE });
    write(twelve, RTC.b, 0x80);
    for (const [index, value] of [
      [RTC.hours, 0x91],
      [RTC.minutes, 0x59],
      [RTC.seconds, 0x59],
    ] as const) {
      write(twelve, index, value);
    }
    write(twelve, RTC.b, 0);
    // 11:59:59 PM and a second is 12 AM.
    expect(read(twelve, RTC.hours, SECOND)).toBe(0x12);
    expect(read(twelve, RTC.hours, 3600 * SECOND)).toBe(0x12);
    expect(read(twelve, RTC.hours, 3601 * SECOND)).toBe(0x01);
  });

  test('every hour of a day in 12-hour form', () => {
    const state = createRtc({ date: 0 });
    write(state, RTC.b, 0x80);
    write(state, RTC.hours, 0x12);
    write(state, RTC.b, 0);
    const seen = Array.from({ length: 24 }, (_, hour) => read(state, RTC.hours, hour * 3600 * SECOND + 1));
    const morning = [0x12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x10, 0x11];
    expect(seen).toEqual([...morning, ...morning.map((hour) => hour | 0x80)]);
  });

  test('SET stops the update, not the divider; what was written is what it goes on from', () => {
    const state = createRtc({ date: DATE });
    write(state, RTC.b, 0x82, SECOND / 2);
    expect(read(state, RTC.seconds, 10 * SECOND)).toBe(0x58);
    write(state, RTC.seconds, 0x10, 10 * SECOND);
    write(state, RTC.b, 0x02, 10.5 * SECOND);
    expect(read(state, RTC.seconds, 11 * SECOND - 1)).toBe(0x10);
    expect(read(state, RTC.seconds, 11 * SECOND)).toBe(0x11);
  });

  test('a held divider stops everything; released, the first update comes in half a second', () => {
    const state = createRtc({ date: DATE });
    write(state, RTC.a, 0x76, SECOND / 2);
    expect(read(state, RTC.seconds, 100 * SECOND)).toBe(0x58);
    write(state, RTC.a, 0x26, 100.1 * SECOND);
    expect(read(state, RTC.seconds, 100.6 * SECOND - 1)).toBe(0x58);
    expect(read(state, RTC.seconds, 100.6 * SECOND)).toBe(0x59);
  });

  test('update in progress shows before the registers change', () => {
    const state = createRtc({ date: DATE });
    const rise = SECOND - 2_228_000;
    expect(read(state, RTC.a, rise - 1) & 0x80).toBe(0);
    expect(read(state, RTC.a, rise) & 0x80).toBe(0x80);
    expect(read(state, RTC.a, SECOND - 1) & 0x80).toBe(0x80);
    expect(read(state, RTC.a, SECOND) & 0x80).toBe(0);
  });

  test('looks the same however often it is looked at', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 4e13 }), { maxLength: 30 }), (steps) => {
        const often = createRtc({ date: DATE });
        let now = 0;
        for (const step of steps) {
          now += step;
          rtcAdvance(often, now);
        }
        const once = createRtc({ date: DATE });
        expect(time(once, now)).toEqual(time(often, now));
        expect(once).toEqual(often);
      }),
    );
  });
});

describe('interrupts', () => {
  test('update-ended, until C is read', () => {
    const state = createRtc({ date: DATE });
    write(state, RTC.b, 0x12);
    expect(rtcNextEvent(state)).toBe(SECOND);
    rtcAdvance(state, SECOND - 1);
    expect(rtcInterrupt(state)).toBe(false);
    rtcAdvance(state, SECOND);
    expect(rtcInterrupt(state)).toBe(true);
    expect(rtcNextEvent(state)).toBe(Infinity);
    expect(read(state, RTC.c, SECOND) & 0xb0).toBe(0x90);
    expect(rtcInterrupt(state)).toBe(false);
    expect(read(state, RTC.c, SECOND)).toBe(0);
    expect(rtcNextEvent(state)).toBe(2 * SECOND);
  });

  test('flags are set without being enabled', () => {
    const state = createRtc({ date: DATE });
    expect(read(state, RTC.c, SECOND)).toBe(0x50);
  });

  test.each([
    [1, 256],
    [2, 128],
    [3, 8192],
    [6, 1024],
    [15, 2],
  ])('periodic rate %i is %i Hz', (rate, hz) => {
    const state = createRtc({ date: DATE });
    write(state, RTC.a, 0x20 | rate);
    write(state, RTC.b, 0x42);
    let now = 0;
    for (let turn = 1; turn <= 10; turn++) {
      now = rtcNextEvent(state);
      expect(Math.abs(now - (turn * SECOND) / hz)).toBeLessThan(1);
      rtcAdvance(state, now - 1);
      expect(rtcInterrupt(state)).toBe(false);
      rtcAdvance(state, now);
      expect(rtcInterrupt(state)).toBe(true);
      read(state, RTC.c, now);
    }
  });

  test('rate 0 is none', () => {
    const state = createRtc({ date: DATE });
    write(state, RTC.a, 0x20);
    write(state, RTC.b, 0x42);
    expect(rtcNextEvent(state)).toBe(Infinity);
    expect(read(state, RTC.c, 10 * SECOND) & 0x40).toBe(0);
  });

  function alarm(hours: number, minutes: number, seconds: number, date = DATE): number {
    const state = createRtc({ date });
    write(state, RTC.hoursAlarm, hours);
    write(state, RTC.minutesAlarm, minutes);
    write(state, RTC.secondsAlarm, seconds);
    write(state, RTC.b, 0x22);
    for (let turn = 0; turn < 100_000; turn++) {
      const now = rtcNextEvent(state);
      rtcAdvance(state, now);
      if (rtcInterrupt(state)) return now / SECOND;
    }
    return NaN;
  }

  test('alarm at a time, and with wildcards', () => {
    expect(alarm(0x00, 0x00, 0x05)).toBe(7);
    expect(alarm(0x01, 0x02, 0x03)).toBe(2 + 3723);
    expect(alarm(0xff, 0xff, 0xff)).toBe(1);
    expect(alarm(0xc0, 0xc0, 0x30)).toBe(32);
    expect(alarm(0xff, 0x10, 0x00)).toBe(602);
  });

  test('alarm fields of 0 are times, not wildcards', () => {
    expect(alarm(0xff, 0xff, 0x00, 30)).toBe(30);
    expect(alarm(0xff, 0x00, 0x00, 330)).toBe(3270);
    expect(alarm(0x00, 0xff, 0x00, 5 * 3600 + 30)).toBe(19 * 3600 - 30);
  });

  test('an alarm that passed while nobody looked', () => {
    for (const [seconds, found] of [
      [3, 0],
      [5, 0x20],
      [1_000_000, 0x20],
    ] as const) {
      const state = createRtc({ date: DATE });
      write(state, RTC.hoursAlarm, 0);
      write(state, RTC.minutesAlarm, 0);
      write(state, RTC.secondsAlarm, 2);
      expect(read(state, RTC.c, seconds * SECOND) & 0x20).toBe(found);
    }
  });

  test('RESET turns them off and leaves the time', () => {
    const state = createRtc({ date: DATE });
    write(state, RTC.b, 0x72);
    resetRtc(state, 5 * SECOND);
    expect(rtcInterrupt(state)).toBe(false);
    expect(read(state, RTC.b, 5 * SECOND)).toBe(0x02);
    expect(read(state, RTC.seconds, 5 * SECOND)).toBe(0x03);
  });
});

describe('ports', () => {
  test('memory behind the clock, 128 bytes; C and D are read-only; port 0x70 cannot be read', () => {
    const state = createRtc({ date: DATE });
    write(state, 0x8f, 0x5a);
    expect(read(state, 0x0f)).toBe(0x5a);
    write(state, 0x7f, 0xa5);
    expect(read(state, 0x7f)).toBe(0xa5);
    write(state, RTC.d, 0);
    write(state, RTC.c, 0xff);
    expect(read(state, RTC.d)).toBe(0x80);
    expect(read(state, RTC.c)).toBe(0);
    expect(rtcRead(state, 0, 0x70)).toBe(0xff);
  });

  test('register B is kept; SET takes the update interrupt away', () => {
    const state = createRtc({ date: DATE });
    write(state, RTC.b, 0xff);
    expect(read(state, RTC.b)).toBe(0xef);
    write(state, RTC.b, 0x7f);
    expect(read(state, RTC.b)).toBe(0x7f);
    write(state, RTC.b, 0x01);
    expect(rtcNextEvent(state)).toBe(Infinity);
  });

  test('a date that is none is refused', () => {
    expect(() => createRtc({ date: 0.5 })).toThrow('not a Unix time');
  });
});

test('random traffic: bytes stay bytes, copies go on alike, events lie ahead', () => {
  const step = fc.record({
    index: fc.oneof(fc.nat(15), fc.nat(127)),
    value: fc.nat(255),
    isWrite: fc.boolean(),
    wait: fc.oneof(fc.nat(1_000_000), fc.nat(3_000_000_000), fc.constant(1e14)),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.nat(60), (steps, cut) => {
      let a = createRtc({ date: DATE });
      const b = createRtc({ date: DATE });
      let now = 0;
      steps.forEach(({ index, value, isWrite, wait }, position) => {
        now += wait;
        if (position === cut) a = JSON.parse(JSON.stringify(structuredClone(a))) as RtcState;
        if (isWrite) for (const state of [a, b]) write(state, index, value, now);
        else expect(read(a, index, now)).toBe(read(b, index, now));
        expect(rtcNextEvent(a)).toBeGreaterThan(now);
        expect(a.bytes.every((item) => Number.isInteger(item) && item >= 0 && item <= 255)).toBe(true);
      });
      expect(a).toEqual(b);
    }),
  );
});
