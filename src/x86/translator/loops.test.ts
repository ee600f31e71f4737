import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { has, LoopNest, type Edge, type Loop } from './loops.ts';

const loopsOf = (nest: LoopNest, count: number): Loop[] =>
  Array.from({ length: count }, (_, k) => nest.at(k)).filter((loop) => loop !== undefined);

describe('LoopNest', () => {
  test('a loop goes from its head to the last block that jumps back', () => {
    const nest = new LoopNest(6, [
      { from: 2, to: 1 },
      { from: 3, to: 1 },
      { from: 4, to: 0 },
    ]);
    expect(loopsOf(nest, 6).map(({ head, end, parent }) => [head, end, parent?.head])).toEqual([
      [0, 4, undefined],
      [1, 3, 0],
    ]);
  });

  test('of two that overlap the first one grows around the second', () => {
    const nest = new LoopNest(5, [
      { from: 2, to: 0 },
      { from: 4, to: 1 },
    ]);
    expect(nest.at(0)).toMatchObject({ head: 0, end: 4 });
    expect(nest.at(1)).toMatchObject({ head: 1, end: 4, parent: { head: 0 } });
  });

  test('routes: forward, again, into the middle, round to another block', () => {
    const nest = new LoopNest(8, [
      { from: 5, to: 2 },
      { from: 4, to: 3 },
    ]);
    expect(nest.route(0, 1)).toEqual({ kind: 'forward' });
    expect(nest.route(0, 2)).toEqual({ kind: 'forward' });
    expect(nest.route(4, 7)).toEqual({ kind: 'forward' });
    expect(nest.route(5, 2)).toMatchObject({ kind: 'again', loop: { head: 2 } });
    expect(nest.route(0, 3)).toEqual({ kind: 'into', head: 2 });
    expect(nest.route(2, 4)).toEqual({ kind: 'into', head: 3 });
    expect(nest.route(5, 4)).toMatchObject({ kind: 'round', loop: { head: 2 } });
    expect(nest.route(7, 4)).toEqual({ kind: 'round', loop: undefined });
  });

  const graphs = fc.integer({ min: 1, max: 24 }).chain((count) =>
    fc.record({
      count: fc.constant(count),
      edges: fc.array(fc.record({ from: fc.nat(count - 1), to: fc.nat(count - 1) }), { maxLength: 40 }),
    }),
  );

  test('loops are nested or apart, and every edge back has a loop', () => {
    fc.assert(
      fc.property(graphs, ({ count, edges }) => {
        const nest = new LoopNest(count, edges);
        const loops = loopsOf(nest, count);
        for (const a of loops)
          for (const b of loops) if (a !== b && has(a, b.head)) expect(has(a, b.end)).toBe(true);
        for (const { from, to } of edges)
          if (to <= from) expect(nest.route(from, to)).toMatchObject({ kind: 'again', loop: { head: to } });
      }),
    );
  });

  test('a walk by dispatches arrives', () => {
    fc.assert(
      fc.property(graphs, fc.nat(), fc.nat(), ({ count, edges }: { count: number; edges: Edge[] }, a, b) => {
        const nest = new LoopNest(count, edges);
        const from = a % count;
        const to = b % count;
        const route = nest.route(from, to);
        // Where control is, and the loops that it has gone through the heads of.
        let level: Loop | undefined;
        if (route.kind === 'forward' || route.kind === 'again') return;
        level = route.kind === 'into' ? nest.at(route.head) : route.loop;
        for (let steps = 0; ; steps++) {
          expect(steps).toBeLessThanOrEqual(count);
          expect(level === undefined || has(level, to)).toBe(true);
          const inner = nest.below(level, to);
          if (inner === undefined || inner.head === to) return;
          level = inner;
        }
      }),
    );
  });
});
