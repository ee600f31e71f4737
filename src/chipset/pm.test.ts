import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  createPm,
  PM,
  PM_STATUS,
  PM_TIMER_HZ,
  pmAdvance,
  pmInterrupt,
  pmNextEvent,
  pmRaise,
  pmRaiseGpe,
  pmRead,
  pmTimer,
  pmWrite,
  type PmState,
} from './pm.ts';

const SECOND = 1e9;

test('registers are where a Gen-2 VM has them', () => {
  expect(PM).toEqual({
    status: 0,
    enable: 2,
    control: 4,
    timer: 8,
    gpeStatus: 0xc,
    gpeEnable: 0xe,
    reset: 0x33,
    sleepControl: 0x34,
    sleepStatus: 0x35,
    length: 0x37,
  });
  expect(PM_STATUS).toEqual({ timer: 1, global: 0x20, powerButton: 0x100, rtc: 0x400, wake: 0x8000 });
});

describe('timer', () => {
  test('counts at its rate and wraps at 32 bits', () => {
    const state = createPm();
    expect(pmRead(state, 0, PM.timer, 4)).toBe(0);
    expect(pmRead(state, SECOND, PM.timer, 4)).toBe(PM_TIMER_HZ);
    expect(pmTimer(2000 * SECOND)).toBe((2000 * PM_TIMER_HZ) % 2 ** 32);
  });

  test('its top bit sets TMR_STS both ways, and interrupts when enabled', () => {
    const state = createPm();
    expect(pmNextEvent(state)).toBe(Infinity);
    pmWrite(state, 0, PM.enable, 2, PM_STATUS.timer);
    for (let turn = 1; turn <= 3; turn++) {
      const due = pmNextEvent(state);
      expect(Math.abs(due / SECOND - (turn * 2 ** 31) / PM_TIMER_HZ)).toBeLessThan(1e-6);
      pmAdvance(state, due - 1);
      expect(pmInterrupt(state)).toBe(false);
      pmAdvance(state, due);
      expect(pmInterrupt(state)).toBe(true);
      expect(pmNextEvent(state)).toBe(Infinity);
      pmWrite(state, due, PM.status, 2, PM_STATUS.timer);
      expect(pmInterrupt(state)).toBe(false);
    }
  });
});

describe('fixed events', () => {
  test('status is write-one-to-clear and interrupts only where enabled', () => {
    const state = createPm();
    pmRaise(state, PM_STATUS.powerButton);
    expect(pmRead(state, 0, PM.status, 2)).toBe(0x100);
    expect(pmInterrupt(state)).toBe(false);
    pmWrite(state, 0, PM.enable, 2, 0x100);
    expect(pmInterrupt(state)).toBe(true);
    pmWrite(state, 0, PM.status, 2, 0xfeff);
    expect(pmInterrupt(state)).toBe(true);
    pmWrite(state, 0, PM.status, 2, 0x100);
    expect(pmInterrupt(state)).toBe(false);
  });

  test('writable bits, by word, by byte and as one double word', () => {
    const state = createPm();
    pmWrite(state, 0, PM.enable, 2, 0xffff);
    expect(pmRead(state, 0, PM.enable, 2)).toBe(0x0521);
    pmWrite(state, 0, PM.enable + 1, 1, 0);
    expect(pmRead(state, 0, PM.enable, 2)).toBe(0x0021);
    pmRaise(state, PM_STATUS.rtc | PM_STATUS.global);
    expect(pmRead(state, 0, PM.status, 4)).toBe(0x0021_0420);
    pmWrite(state, 0, PM.status, 4, 0x0100_0400);
    expect(pmRead(state, 0, PM.status, 4)).toBe(0x0100_0020);
  });

  test('general-purpose events', () => {
    const state = createPm();
    pmWrite(state, 0, PM.gpeEnable, 2, 0xffff);
    expect(pmRead(state, 0, PM.gpeEnable, 2)).toBe(0x0f01);
    pmRaiseGpe(state, 9);
    pmRaiseGpe(state, 3);
    expect(pmRead(state, 0, PM.gpeStatus, 2)).toBe(0x0200);
    expect(pmInterrupt(state)).toBe(true);
    pmWrite(state, 0, PM.gpeStatus, 2, 0x0200);
    expect(pmInterrupt(state)).toBe(false);
  });
});

describe('control', () => {
  test('SCI_EN is always set, SLP_EN never reads back', () => {
    const state = createPm();
    expect(pmRead(state, 0, PM.control, 2)).toBe(1);
    expect(pmWrite(state, 0, PM.control, 2, 0x2000 | (5 << 10))).toBe(undefined);
    expect(pmRead(state, 0, PM.control, 2)).toBe((5 << 10) | 1);
  });

  test('the rest of it keeps bus-master reload and the sleep type, byte by byte', () => {
    const state = createPm();
    pmWrite(state, 0, PM.control, 2, 0xdfff);
    expect(pmRead(state, 0, PM.control, 2)).toBe(0x1c03);
    pmWrite(state, 0, PM.control, 1, 0);
    expect(pmRead(state, 0, PM.control, 2)).toBe(0x1c01);
    pmWrite(state, 0, PM.control, 1, 2);
    pmWrite(state, 0, PM.control + 1, 1, 0);
    expect(pmRead(state, 0, PM.control, 4)).toBe(3);
  });

  test.each([
    ['a word', 2, 0x2000, 0x04],
    ['its upper byte', 1, 0x20, 0x05],
    ['a double word', 4, 0x2000, 0x04],
  ])('S5 by %s', (_, size, value, offset) => {
    expect(pmWrite(createPm(), 0, offset, size, value)).toBe('power-off');
    expect(pmWrite(createPm(), 0, offset, size, size === 1 ? 0x24 : 0x2400)).toBe('hibernate');
    expect(pmWrite(createPm(), 0, offset, size, 0)).toBe(undefined);
  });

  test('sleep types are those of the DSDT', () => {
    const state = createPm({ sleepTypes: { s5: 5, s4: 6 } });
    expect(pmWrite(state, 0, PM.control, 2, 0x2000)).toBe(undefined);
    expect(pmWrite(state, 0, PM.control, 2, 0x2000 | (5 << 10))).toBe('power-off');
    expect(pmWrite(state, 0, PM.control, 2, 0x2000 | (6 << 10))).toBe('hibernate');
  });

  test('reset register', () => {
    expect(pmWrite(createPm(), 0, PM.reset, 1, 1)).toBe('reset');
    expect(pmWrite(createPm(), 0, PM.reset, 1, 0)).toBe(undefined);
    expect(pmRead(createPm(), 0, PM.reset, 1)).toBe(0);
  });
});

describe('hardware-reduced', () => {
  test('has sleep control, sleep status and reset, and nothing else', () => {
    const state = createPm({ hardwareReduced: true });
    expect(pmRead(state, 0, PM.status, 4)).toBe(0xffff_ffff);
    expect(pmRead(state, SECOND, PM.timer, 4)).toBe(0xffff_ffff);
    expect(pmWrite(state, 0, PM.control, 2, 0x2000)).toBe(undefined);
    expect(pmWrite(state, 0, PM.sleepControl, 1, 0x24)).toBe('hibernate');
    expect(pmRead(state, 0, PM.sleepControl, 1)).toBe(0x04);
    expect(pmWrite(state, 0, PM.sleepControl, 1, 0x20)).toBe('power-off');
    expect(pmWrite(state, 0, PM.reset, 1, 1)).toBe('reset');
    pmRaise(state, PM_STATUS.powerButton);
    pmWrite(state, 0, PM.enable, 2, 0x100);
    expect(pmInterrupt(state)).toBe(false);
  });

  test('wake status is write-one-to-clear', () => {
    const state = createPm({ hardwareReduced: true });
    expect(pmRead(state, 0, PM.sleepStatus, 1)).toBe(0);
    pmRaise(state, PM_STATUS.wake);
    pmWrite(state, 0, PM.sleepStatus, 1, 0x7f);
    expect(pmRead(state, 0, PM.sleepStatus, 1)).toBe(0x80);
    pmWrite(state, 0, PM.sleepStatus, 1, 0x80);
    expect(pmRead(state, 0, PM.sleepStatus, 1)).toBe(0);
  });

  test('full ACPI does not have the sleep registers', () => {
    expect(pmWrite(createPm(), 0, PM.sleepControl, 1, 0x20)).toBe(undefined);
    expect(pmRead(createPm(), 0, PM.sleepControl, 1)).toBe(0xff);
  });
});

test('random traffic: values fit their size, copies go on alike', () => {
  const step = fc.record({
    offset: fc.nat(0x38),
    size: fc.constantFrom(1, 2, 4),
    value: fc.nat(0xffff_ffff),
    isWrite: fc.boolean(),
    wait: fc.oneof(fc.nat(1000), fc.nat(1e12)),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), fc.boolean(), fc.nat(80), (steps, reduced, cut) => {
      let a = createPm({ hardwareReduced: reduced });
      const b = createPm({ hardwareReduced: reduced });
      let now = 0;
      steps.forEach(({ offset, size, value, isWrite, wait }, index) => {
        now += wait;
        if (index === cut) a = JSON.parse(JSON.stringify(structuredClone(a))) as PmState;
        if (isWrite) {
          expect(pmWrite(a, now, offset, size, value)).toBe(pmWrite(b, now, offset, size, value));
        } else {
          const got = pmRead(a, now, offset, size);
          expect(got).toBe(pmRead(b, now, offset, size));
          expect(got).toSatisfy((item: number) => item >= 0 && item < 2 ** (8 * size));
        }
        expect(pmNextEvent(a)).toBeGreaterThan(now);
      });
      expect(a).toEqual(b);
    }),
  );
});
