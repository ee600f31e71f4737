/** The pages of a launch as a measurement sees them. */

export interface MeasuredPage {
  /** What the measurement makes of the page, in the words of the technology. */
  readonly type: string;
  readonly gpa: number;
  /** SHA-384 of the contents where they are the launch's own and count; none where only the address counts. */
  readonly digest?: Uint8Array;
  /** The contents behind `digest`, valid during the call only. */
  readonly contents?: Uint8Array;
}

/** Gets the pages in the order in which they are measured. */
export type PageVisitor = (page: MeasuredPage) => void;
