/** Names for addresses, from a System.map (the output of nm), and the kernel's place when it chose a random one. */
import { UserError } from './errors.ts';

export class Symbols {
  readonly #addresses: bigint[];
  readonly #names: string[];
  readonly #byName: ReadonlyMap<string, bigint>;
  /** What was added to every address at run time. */
  slide = 0n;

  constructor(text: string, where: string) {
    const found: [bigint, string][] = [];
    for (const line of text.split('\n')) {
      const match = /^([0-9a-f]{1,16}) ([A-Za-z]) (\S+)/i.exec(line);
      if (match !== null && /[tTwW]/.test(match[2] as string))
        found.push([BigInt(`0x${match[1] as string}`), match[3] as string]);
    }
    if (found.length === 0)
      throw new UserError(
        `${where} names no code: give a System.map (Debian's is in the kernel's -dbg package)`,
      );
    found.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    this.#addresses = found.map(([address]) => address);
    this.#names = found.map(([, name]) => name);
    this.#byName = new Map(found.map(([address, name]) => [name, address]));
  }

  /** A symbol whose run-time address is known tells where the rest is. */
  place(name: string, address: bigint): void {
    const linked = this.#byName.get(name);
    if (linked !== undefined && address !== 0n) this.slide = address - linked;
  }

  /** `name+0xoffset`, or undefined for an address outside the symbols. */
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
    if (low === 0 || low === this.#addresses.length) return undefined;
    return `${this.#names[low - 1] as string}+0x${(linked - (this.#addresses[low - 1] as bigint)).toString(16)}`;
  }
}
