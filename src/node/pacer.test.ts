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
