/** The host under a hostile L1 and L2, all cases. */
import { expect, it } from 'vitest';
import { attackHost } from '../../guests/td-hostile.ts';

const CASES = 100_000;

it(`the host answers ${CASES} exits of a hostile L1 and L2`, () => {
  const { fromL1, fromL2, exits, ends } = attackHost(CASES);
  console.info(
    `${fromL1} exits of L1 and ${fromL2} of L2 to the host, ${exits} exits in all; runs by their end: ${JSON.stringify([...ends])}`,
  );
  expect(fromL2).toBeGreaterThan(CASES / 20);
});
