/** Ties virtual time to real time while somebody outside is waited for. The only place of a run that reads the wall clock for it. */

/** A guest that computed for longer than this does not sleep less to make up for it. */
const MOST_LAG = 100e6;

export class Pacer {
  readonly #clock: () => number;
  #real: number;
  #virtual: number;
  /** Virtual time at the last call: the same again means that nothing ran since. */
  #last = -1;

  /** `clock` in milliseconds, `virtual` time in ns. */
  constructor(virtual: number, clock: () => number = () => performance.now()) {
    this.#clock = clock;
    this.#real = clock();
    this.#virtual = virtual;
  }

  /** Virtual time up to which an idle guest at `now` may skip. */
  target(now: number): number {
    const target = this.#virtual + (this.#clock() - this.#real) * 1e6;
    // A guest that only waits, waits for the real time.
    if (now === this.#last || target - now <= MOST_LAG) {
      this.#last = now;
      return target;
    }
    this.#last = now;
    this.#real = this.#clock();
    this.#virtual = now;
    return now;
  }

  /** Milliseconds to wait for a guest that has nothing to do before `until`; at most 50, so that input is seen. */
  wait(now: number, until: number): number {
    return Math.max(1, Math.min(50, (until - this.target(now)) / 1e6));
  }
}
