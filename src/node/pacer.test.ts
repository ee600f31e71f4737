import { expect, test } from 'vitest';
import { Pacer } from './pacer.ts';

test('an idle guest skips as far as real time went', () => {
  let ms = 1000;
  const pacer = new Pacer(5e6, () => ms);
  expect(pacer.target(5e6)).toBe(5e6);
  ms += 20;
  expect(pacer.target(5e6)).toBe(25e6);
  expect(pacer.wait(25e6, 35e6)).toBe(10);
  expect(pacer.wait(25e6, Infinity)).toBe(50);
  expect(pacer.wait(25e6, 25e6)).toBe(1);
});

test('a guest that computed for long does not catch up by sleeping less', () => {
  let ms = 0;
  const pacer = new Pacer(0, () => ms);
  ms = 10_000;
  expect(pacer.target(2e9)).toBe(2e9);
  ms += 50;
  expect(pacer.target(2e9)).toBe(2.05e9);
});

test('a guest that waits long is not taken for one that computed', () => {
  let clock = 0;
  const pacer = new Pacer(0, () => clock);
  const until = 5e9;
  for (; pacer.target(1000) < until && clock < 10_000; clock += 200) pacer.wait(1000, until);
  expect(clock).toBe(5000);
});

test('a computer that is slow to come back does not stop the time of a waiting guest', () => {
  let clock = 0;
  const pacer = new Pacer(0, () => clock);
  pacer.target(0);
  clock = 3000;
  expect(pacer.target(0)).toBe(3e9);
});
