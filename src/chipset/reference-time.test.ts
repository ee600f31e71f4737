import { describe, expect, test } from 'vitest';
import fc from 'fast-check';
import { referenceTscPage } from '../abi/hyperv/pages.ts';
import {
  createReferenceTime,
  nextReferenceTscPage,
  referenceCount,
  timeOfCount,
  tscAt,
} from './reference-time.ts';

const plain = createReferenceTime({ tscHz: 2_000_000_000, apicHz: 200_000_000 });

/** What a guest does with the page: Linux hv_read_tsc_page_tsc. */
function guestTime(page: Uint8Array, tsc: bigint): bigint {
  const { scale, offset } = referenceTscPage.read(page);
  return BigInt.asUintN(64, ((tsc * scale) >> 64n) + BigInt.asIntN(64, offset));
}

describe('reference time', () => {
  test('counts 100 ns from 0', () => {
    expect(referenceCount(plain, 0)).toBe(0n);
    const second = referenceCount(plain, 1_000_000_000);
    expect(second >= 9_999_999n && second <= 10_000_000n).toBe(true);
  });

  test('the MSR equals the page at every TSC value', () => {
    const options = fc.record({
      tscHz: fc.integer({ min: 10_000_001, max: 5_000_000_000 }),
      tscAtZero: fc.bigInt(0n, 1n << 62n),
      now: fc.integer({ min: 0, max: 2 ** 50 }),
    });
    fc.assert(
      fc.property(options, ({ tscHz, tscAtZero, now }) => {
        const time = createReferenceTime({ tscHz, apicHz: 1, tscAtZero });
        expect(referenceCount(time, 0)).toBe(0n);
        expect(guestTime(nextReferenceTscPage(time), tscAt(time, now))).toBe(referenceCount(time, now));
      }),
    );
  });

  test('timeOfCount is the first time at which the counter shows the count', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 10_000_001, max: 5_000_000_000 }),
        fc.bigInt(0n, 1n << 60n),
        fc.bigInt(1n, 1n << 40n),
        (tscHz, tscAtZero, count) => {
          const time = createReferenceTime({ tscHz, apicHz: 1, tscAtZero });
          const due = timeOfCount(time, count);
          expect(referenceCount(time, due) >= count).toBe(true);
          expect(due === 0 || referenceCount(time, due - 1) < count).toBe(true);
        },
      ),
    );
  });

  test('a count that is out of reach has no time', () => {
    expect(timeOfCount(plain, 0xffff_ffff_ffff_ffffn)).toBe(Infinity);
  });

  test('the sequence changes with each page and is never an invalid marker', () => {
    const time = createReferenceTime({ tscHz: 2_000_000_000, apicHz: 1 });
    expect(referenceTscPage.get(nextReferenceTscPage(time), 'sequence')).toBe(1);
    expect(referenceTscPage.get(nextReferenceTscPage(time), 'sequence')).toBe(2);
    time.sequence = 0xffff_fffe;
    expect(referenceTscPage.get(nextReferenceTscPage(time), 'sequence')).toBe(1);
  });
});
