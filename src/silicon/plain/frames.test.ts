import { describe, expect, test } from 'vitest';
import { planMemory } from '../../x86/memory-plan.ts';
import { Frames, type FrameState, frameBytesFor, stageBytes } from './frames.ts';

const REGIONS = [
  { gpa: 0, length: 8 << 20 },
  { gpa: 8 << 20, length: 0x3000, readOnly: true },
];
const frameBytes = frameBytesFor(REGIONS);
const plan = planMemory(1, 1, frameBytes, stageBytes((8 << 20) + 0x3000, frameBytes));

function make(order?: (count: number) => Uint32Array) {
  const memory = new ArrayBuffer(plan.framesEnd);
  const frames = new Frames(memory, plan, REGIONS, order);
  return {
    frames,
    put: (gpa: number, value: number) => frames.write(gpa, Uint8Array.of(value), () => undefined),
    at: (gpa: number) => frames.read(gpa, 1)?.[0],
    /** Contents by page number, as a snapshot has them. */
    pages: (): Map<number, Uint8Array> => {
      const all = new Map<number, Uint8Array>();
      frames.eachTouchedPage((gpa, host) =>
        all.set(gpa / 4096, new Uint8Array(memory.slice(host, host + 4096))),
      );
      return all;
    },
    fill: (pages: ReadonlyMap<number, Uint8Array>) => {
      for (const [page, bytes] of pages) new Uint8Array(memory).set(bytes, frames.page(page)!);
    },
  };
}

describe('Frames.overlay', () => {
  test('shows a page of zeros that keeps what is written, and gives back what it covered', () => {
    const { frames, put, at } = make();
    put(0x5000, 1);
    expect(frames.overlay(3, 0x5000)).toBe(true);
    expect(at(0x5000)).toBe(0);
    put(0x5000, 2);
    expect(frames.overlay(3, 0x400000)).toBe(true);
    expect([at(0x5000), at(0x400000)]).toEqual([1, 2]);
    expect(frames.overlay(3, undefined)).toBe(true);
    expect([at(0x5000), at(0x400000)]).toEqual([1, 0]);
    frames.overlay(3, 0x5000);
    expect(at(0x5000)).toBe(2);
  });

  test.each([
    [0, 1],
    [1, 0],
  ])('of two at one address, taken away in the order %i, %i, leaves memory as it was', (...order) => {
    const { frames, put, at } = make();
    put(0x5000, 9);
    for (const slot of [0, 1]) {
      frames.overlay(slot, 0x5000);
      put(0x5000, slot + 1);
    }
    frames.overlay(order[0], undefined);
    expect(at(0x5000)).toBe(order[0] === 0 ? 2 : 1);
    frames.overlay(order[1], undefined);
    expect(at(0x5000)).toBe(9);
    for (const slot of [0, 1]) {
      frames.overlay(slot, 0x6000 + slot * 0x1000);
      expect(at(0x6000 + slot * 0x1000)).toBe(slot + 1);
    }
  });

  test('is refused where there is no memory, and changes nothing', () => {
    const { frames, at, put } = make();
    frames.overlay(0, 0x5000);
    put(0x5000, 4);
    expect(frames.overlay(0, 0x900000)).toBe(false);
    expect(frames.overlay(0, 0x5001)).toBe(false);
    expect(at(0x5000)).toBe(4);
  });

  test('shows nowhere by itself: behind the last block there is no memory', () => {
    const { frames } = make();
    for (const gpa of [10 << 20, (10 << 20) + 0x1000]) expect(frames.host(gpa)).toBeUndefined();
  });

  test('can be everywhere once', () => {
    const { frames } = make();
    for (let gpa = 0; gpa < 8 << 20; gpa += 0x1000) expect(frames.overlay(0, gpa)).toBe(true);
    expect(frames.overlay(1, (8 << 20) + 0x2000)).toBe(true);
  });

  test('covered and hidden contents survive by page number', () => {
    const one = make();
    one.put(0x5000, 1);
    one.put(0x6000, 6);
    for (const slot of [0, 1]) {
      one.frames.overlay(slot, 0x5000);
      one.put(0x5000, slot + 2);
    }
    const other = make((count) => Uint32Array.from({ length: count }, (_, k) => count - 1 - k));
    other.fill(one.pages());
    other.frames.load(JSON.parse(JSON.stringify(one.frames.save())) as FrameState);
    expect(other.at(0x5000)).toBe(3);
    other.frames.overlay(0, undefined);
    expect(other.at(0x5000)).toBe(3);
    other.frames.overlay(1, 0x7000);
    expect([0x5000, 0x6000, 0x7000].map(other.at)).toEqual([1, 6, 3]);
    // The same blocks are in pieces, so that translations are of the same size.
    one.frames.overlay(0, undefined);
    one.frames.overlay(1, 0x7000);
    expect(other.frames.save()).toEqual(one.frames.save());
  });
});
