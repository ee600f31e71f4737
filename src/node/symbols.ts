/** Names for addresses, from a System.map (the output of nm) or a kernel's own table, and the kernel's place when it chose a random one. */
import { UserError } from './errors.ts';
import type { KernelSymbol } from './kallsyms.ts';

/** Types of nm: text, and weak symbols. */
const CODE = /[tTwW]/;

export class Symbols {
  readonly #addresses: bigint[];
  readonly #names: string[];
  readonly #isCode: boolean[];
  readonly #byName: ReadonlyMap<string, bigint>;
  /** What was added to every address at run time. */
  slide = 0n;

  constructor(symbols: readonly KernelSymbol[]) {
    const found = symbols.toSorted(({ address: a }, { address: b }) => (a < b ? -1 : a > b ? 1 : 0));
    this.#addresses = found.map(({ address }) => address);
    this.#names = found.map(({ name }) => name);
    this.#isCode = found.map(({ type }) => CODE.test(type));
    this.#byName = new Map(found.map(({ address, name }) => [name, address]));
  }

  static fromSystemMap(text: string, where: string): Symbols {
    const found: KernelSymbol[] = [];
    for (const line of text.split('\n')) {
      const match = /^([0-9a-f]{1,16}) ([A-Za-z]) (\S+)/i.exec(line);
      if (match !== null)
        found.push({
          address: BigInt(`0x${match[1] as string}`),
          type: match[2] as string,
          name: match[3] as string,
        });
    }
    if (!found.some(({ type }) => CODE.test(type)))
      throw new UserError(
        `${where} names no code: give a System.map (Debian's is in the kernel's -dbg package)`,
      );
    return new Symbols(found);
  }

  /** A symbol whose run-time address is known tells where the rest is. */
  place(name: string, address: bigint): void {
    const linked = this.#byName.get(name);
    if (linked !== undefined && address !== 0n) this.slide = address - linked;
  }

  /** `name+0xoffset`, or undefined for an address that is in no code. */
  name(address: bigint): string | undefined {
    const linked = address - this.slide;
    let low = 0;
    let high = this.#addresses.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#addresses[middle] as bigint) <= linked) low = middle + 1;
      else high = middle;
    }
    // The last symbol marks the end: what lies behind it is not code.
    if (low === 0 || low === this.#addresses.length || this.#isCode[low - 1] !== true) return undefined;
    return `${this.#names[low - 1] as string}+0x${(linked - (this.#addresses[low - 1] as bigint)).toString(16)}`;
  }
}
