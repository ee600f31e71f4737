import { describe, expect, test } from 'vitest';
import { MSR } from '../abi/hyperv/msr.ts';
import { TIMER, timerMessage } from '../abi/hyperv/synic.ts';
import { createReferenceTime, referenceCount } from './reference-time.ts';
import {
  createTimers,
  timerReadMsr,
  timersAdvance,
  timersNextEvent,
  timerWriteMsr,
  type TimerState,
} from './stimer.ts';

const time = createReferenceTime({ tscHz: 2_000_000_000, apicHz: 200_000_000 });
const CONFIG = MSR.stimer0Config;
const COUNT = CONFIG + 1;
const DIRECT = TIMER.direct | (0xed << TIMER.vectorShift);

function write(state: TimerState, now: number, index: number, value: number): void {
  timerWriteMsr(state, time, now, index, value >>> 0, Math.floor(value / 2 ** 32));
}

describe('one-shot timer', () => {
  test('fires once, in direct mode, when the counter reaches COUNT, and clears Enable', () => {
    const state = createTimers();
    write(state, 0, CONFIG, TIMER.enable | TIMER.autoEnable | DIRECT);
    write(state, 0, COUNT, 10_000);
    const due = timersNextEvent(state);
    expect(referenceCount(time, due)).toBe(10_000n);
    expect(timersAdvance(state, time, due - 1)).toEqual([]);
    expect(timersAdvance(state, time, due)).toEqual([{ timer: 0, kind: 'direct', vector: 0xed }]);
    expect(timerReadMsr(state, CONFIG)).toEqual({ lo: TIMER.autoEnable | DIRECT, hi: 0 });
    expect(timersNextEvent(state)).toBe(Infinity);
  });

  test('COUNT starts it again only with AutoEnable', () => {
    for (const autoEnable of [TIMER.autoEnable, 0]) {
      const state = createTimers();
      write(state, 0, CONFIG, TIMER.enable | autoEnable | DIRECT);
      write(state, 0, COUNT, 100);
      timersAdvance(state, time, 100_000);
      write(state, 100_000, COUNT, 2000);
      expect(Number.isFinite(timersNextEvent(state))).toBe(autoEnable !== 0);
    }
  });

  test('a time in the past expires at once', () => {
    const state = createTimers();
    write(state, 5_000_000, CONFIG, TIMER.enable | DIRECT);
    write(state, 5_000_000, COUNT, 1);
    expect(timersNextEvent(state)).toBeLessThanOrEqual(5_000_000);
  });

  test('a time beyond reach never expires', () => {
    const state = createTimers();
    timerWriteMsr(state, time, 0, CONFIG, TIMER.enable | DIRECT, 0);
    timerWriteMsr(state, time, 0, COUNT, 0xffff_ffff, 0xffff_ffff);
    expect(timersNextEvent(state)).toBe(Infinity);
  });

  test('COUNT 0 stops it and clears Enable', () => {
    const state = createTimers();
    write(state, 0, CONFIG, TIMER.enable | TIMER.autoEnable | DIRECT);
    write(state, 0, COUNT, 100);
    write(state, 0, COUNT, 0);
    expect(timersNextEvent(state)).toBe(Infinity);
    expect((timerReadMsr(state, CONFIG)?.lo ?? 0) & TIMER.enable).toBe(0);
  });
});

describe('periodic timer', () => {
  test('keeps its phase and does not make up for lost periods', () => {
    const state = createTimers();
    write(state, 1000, COUNT + 2, 10_000);
    write(state, 1000, CONFIG + 2, TIMER.enable | TIMER.periodic | DIRECT);
    const first = timersNextEvent(state);
    expect(referenceCount(time, first)).toBe(referenceCount(time, 1000) + 10_000n);
    expect(timersAdvance(state, time, first + 77)).toHaveLength(1);
    expect(referenceCount(time, timersNextEvent(state))).toBe(referenceCount(time, first) + 10_000n);
    expect(timersAdvance(state, time, first + 5_000_000)).toHaveLength(1);
    expect(timersNextEvent(state)).toBeGreaterThan(first + 5_000_000);
    expect((referenceCount(time, timersNextEvent(state)) - referenceCount(time, first)) % 10_000n).toBe(0n);
  });
});

describe('message mode', () => {
  test('names the timer and its expiration time', () => {
    const state = createTimers();
    write(state, 0, CONFIG + 6, TIMER.enable | (2 << TIMER.sintShift));
    write(state, 0, COUNT + 6, 500);
    const [expiry] = timersAdvance(state, time, timersNextEvent(state));
    expect(expiry).toMatchObject({ timer: 3, kind: 'message', sint: 2 });
    if (expiry?.kind !== 'message') throw new Error('no message');
    expect(timerMessage.read(expiry.message.payload)).toMatchObject({ timerIndex: 3, expirationTime: 500n });
  });

  test('SINT 0 leaves the timer disabled', () => {
    const state = createTimers();
    write(state, 0, COUNT, 500);
    write(state, 0, CONFIG, TIMER.enable);
    expect(timerReadMsr(state, CONFIG)).toEqual({ lo: 0, hi: 0 });
    expect(timersNextEvent(state)).toBe(Infinity);
  });
});
