/**
 * Loops of a region as WebAssembly's structured control flow has them. Blocks are numbered in the order in which they are
 * written; a loop is a run of them, from its head to the last block that jumps back there. Loops are nested or apart.
 */
export interface Loop {
  readonly head: number;
  /** The last block of it. */
  readonly end: number;
  readonly parent: Loop | undefined;
}

/** How control gets from one block to another. */
export type Route =
  /** Forward, to the label of the block. */
  | { readonly kind: 'forward' }
  /** Back to the head of a loop that both are in. */
  | { readonly kind: 'again'; readonly loop: Loop }
  /** Into the middle of a loop: forward to the label of its head, whose dispatch goes on to the block. */
  | { readonly kind: 'into'; readonly head: number }
  /** Back to something else: round the loop (undefined: the whole region), whose dispatch goes on to the block. */
  | { readonly kind: 'round'; readonly loop: Loop | undefined };

export interface Edge {
  readonly from: number;
  readonly to: number;
}

export class LoopNest {
  readonly #byHead = new Map<number, Loop>();
  /** The innermost loop of each block. */
  readonly #inside: (Loop | undefined)[];

  /** `edges`: of direct branches; those that lead back make the loops. */
  constructor(count: number, edges: readonly Edge[]) {
    const ends = new Map<number, number>();
    for (const { from, to } of edges) if (to <= from) ends.set(to, Math.max(from, ends.get(to) ?? 0));
    const heads = [...ends.keys()].sort((a, b) => a - b);
    // Where two overlap the outer one grows. From the inside out, so that one pass does it.
    for (const head of heads.toReversed())
      for (const other of heads) {
        const end = ends.get(head) as number;
        if (other > head && other <= end) ends.set(head, Math.max(end, ends.get(other) as number));
      }
    this.#inside = Array.from({ length: count }, () => undefined);
    for (const head of heads) {
      const loop = { head, end: ends.get(head) as number, parent: this.#inside[head] };
      this.#byHead.set(head, loop);
      this.#inside.fill(loop, head, loop.end + 1);
    }
  }

  at(head: number): Loop | undefined {
    return this.#byHead.get(head);
  }

  /** The outermost loop below `level` that has `block`; undefined: it is directly in `level` (undefined: the region). */
  below(level: Loop | undefined, block: number): Loop | undefined {
    let found: Loop | undefined;
    for (let loop = this.#inside[block]; loop !== level && loop !== undefined; loop = loop.parent)
      found = loop;
    return found;
  }

  route(from: number, to: number): Route {
    let common = this.#inside[to];
    while (common !== undefined && !has(common, from)) common = common.parent;
    if (to > from) {
      const entered = this.below(common, to);
      return entered === undefined || entered.head === to
        ? { kind: 'forward' }
        : { kind: 'into', head: entered.head };
    }
    return common?.head === to ? { kind: 'again', loop: common } : { kind: 'round', loop: common };
  }
}

export const has = ({ head, end }: Loop, block: number): boolean => head <= block && block <= end;
