/**
 * The grid of a device clock on virtual time: tick n begins at the first nanosecond at which `ticksAt` is n. Both
 * directions are exact for every time that a number can count, so that a timer's interrupt and a read of its counter
 * never disagree.
 */

/** `ticks` per `nanoseconds`, in lowest terms. */
export interface Frequency {
  readonly ticks: number;
  readonly nanoseconds: number;
}

const NS_PER_SECOND = 1_000_000_000;

export function frequency(hz: number): Frequency {
  if (!Number.isSafeInteger(hz) || hz <= 0) throw new RangeError(`${hz} is not a frequency in Hz`);
  const divisor = greatestCommonDivisor(hz, NS_PER_SECOND);
  return { ticks: hz / divisor, nanoseconds: NS_PER_SECOND / divisor };
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/** Ticks that have begun by `now` ns, the one at 0 not counted. */
export function ticksAt(clock: Frequency, now: number): number {
  return scaleDown(now, clock.ticks, clock.nanoseconds);
}

/** First time in ns at which `ticksAt` is at least `tick`; Infinity beyond what a number counts. */
export function timeOfTick(clock: Frequency, tick: number): number {
  if (tick > Number.MAX_SAFE_INTEGER) return Infinity;
  const { ticks, nanoseconds } = clock;
  const floor = scaleDown(tick, nanoseconds, ticks);
  if (floor >= Number.MAX_SAFE_INTEGER) return Infinity;
  return ticksAt(clock, floor) < tick ? floor + 1 : floor;
}

/** floor(value * factor / divisor), with no intermediate beyond 2^53. */
function scaleDown(value: number, factor: number, divisor: number): number {
  const whole = Math.floor(value / divisor);
  const rest = value - whole * divisor;
  const part =
    divisor * factor <= Number.MAX_SAFE_INTEGER
      ? Math.floor((rest * factor) / divisor)
      : Number((BigInt(rest) * BigInt(factor)) / BigInt(divisor));
  return whole * factor + part;
}
