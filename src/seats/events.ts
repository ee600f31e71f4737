/**
 * The one stream of events, as a party sees it: write only. Events are numbers; `src/abi/events.ts` says what each
 * number means. A party tests `mask` before it computes anything for an event, so a class nobody wants costs one test.
 */

export interface EventSink {
  /** Bits of EVENT_CLASS that somebody listens to. */
  readonly mask: number;
  /** `type` is a row of EVENT; `time` in ns; unused arguments are 0. */
  emit(type: number, time: number, vp: number, a: number, b: number, c: number, d: number): void;
}
