/** Every encoding that a definition has in 64-bit mode, in each form and operand size, has a recorded case. */
import { expect, test } from 'vitest';
import { SYSTEM, isSystem, recorded, table, uncovered } from './coverage.ts';

test('every form of every definition is recorded, but for what user code cannot run', () => {
  expect(table.entries.length).toBeGreaterThan(900);
  const missing = uncovered(recorded);
  expect(missing.filter((key) => !isSystem(key))).toEqual([]);
  // The list names nothing that is covered.
  const listed = new Set(missing.map((key) => key.split(' ')[0]));
  expect([...SYSTEM].filter((name) => !listed.has(name))).toEqual([]);
});

test('a form whose cases are missing is found', () => {
  const fewer = new Set([...recorded].filter((key) => !key.startsWith('fbstp')));
  expect(uncovered(fewer).filter((key) => !isSystem(key))).toEqual(['fbstp DF /6:m Mt 0 memory']);
});
