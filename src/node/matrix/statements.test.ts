import { describe, expect, test } from 'vitest';
import { NOT_SHOWN, STATEMENTS } from './statements.ts';

describe('STATEMENTS', () => {
  test('covers each paragraph of coco.rst', () => {
    const paragraphs: Readonly<Record<string, number>> = {
      intro: 9,
      modes: 9,
      effects: 6,
      hypercalls: 1,
      communication: 10,
      zeropad: 3,
    };
    for (const [section, count] of Object.entries(paragraphs)) {
      const covered = new Set(
        STATEMENTS.flatMap(({ where }) => {
          const [, name, from, to] = /^(\w+) (\d+)(?:-(\d+))?$/.exec(where) ?? [];
          if (name !== section) return [];
          return Array.from({ length: Number(to ?? from) - Number(from) + 1 }, (_, k) => Number(from) + k);
        }),
      );
      expect([section, [...covered].sort((a, b) => a - b)]).toEqual([
        section,
        Array.from({ length: count }, (_, k) => k + 1),
      ]);
    }
    expect(STATEMENTS.length).toBe(new Set(STATEMENTS.map(({ id }) => id)).size);
  });

  test('what is not shown is a statement', () => {
    const ids = STATEMENTS.map(({ id }) => id);
    for (const id of Object.keys(NOT_SHOWN)) expect(ids).toContain(id);
  });
});
