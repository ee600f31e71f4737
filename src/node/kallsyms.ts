/**
 * A Linux kernel's own symbol table, as it lies in the kernel's read-only data (scripts/kallsyms.c, kernel/kallsyms.c): names
 * compressed with a table of 256 tokens, addresses as 32-bit offsets from a base. Addresses are the run-time ones, because the
 * kernel relocates the base. Read by whoever looks at a guest from outside; nothing in a machine depends on it.
 */

export interface KernelSymbol {
  readonly address: bigint;
  /** As nm says: t and T are code. */
  readonly type: string;
  readonly name: string;
}

const TOKENS = 256;
const PER_MARKER = 256;
const DIGITS = Array.from({ length: 10 }, (_, digit) => `${digit}\0`).join('');

/** The symbols in ascending order of address; undefined when no table is found. */
export function readKallsyms(rodata: Uint8Array): readonly KernelSymbol[] | undefined {
  const bytes = Buffer.from(rodata.buffer, rodata.byteOffset, rodata.byteLength);
  // Characters that no longer token uses stand for themselves: the ten digits are neighbours.
  for (let at = bytes.indexOf(DIGITS, 0, 'latin1'); at >= 0; at = bytes.indexOf(DIGITS, at + 1, 'latin1')) {
    const tokens = tokensAround(bytes, at);
    const names = tokens === undefined ? undefined : namesBefore(bytes, tokens.start, tokens.list);
    const addresses =
      tokens === undefined || names === undefined
        ? undefined
        : addressesOf(bytes, tokens.end, names.start, names.list.length);
    if (names === undefined || addresses === undefined) continue;
    return names.list
      .map((text, k) => ({ address: addresses[k] as bigint, type: text.slice(0, 1), name: text.slice(1) }))
      .sort((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : 0));
  }
  return undefined;
}

const align = (value: number): number => Math.ceil(value / 8) * 8;

interface Tokens {
  readonly list: readonly string[];
  readonly start: number;
  /** Of the table of indices behind them. */
  readonly end: number;
}

function tokensAround(bytes: Buffer, digits: number): Tokens | undefined {
  // The digits are tokens 0x30 to 0x39: as many texts lie before them. The byte before those is the high one of a marker, 0.
  let start = digits;
  for (let before = 0; before < 0x30; before++) {
    if (start < 2 || bytes[start - 1] !== 0) return undefined;
    start = bytes.lastIndexOf(0, start - 2) + 1;
  }
  if (start % 8 !== 0) return undefined;
  const list: string[] = [];
  const indices: number[] = [];
  let at = start;
  while (list.length < TOKENS) {
    const end = bytes.indexOf(0, at);
    if (end < 0) return undefined;
    indices.push(at - start);
    list.push(bytes.toString('latin1', at, end));
    at = end + 1;
  }
  const table = align(at);
  if (table + 2 * TOKENS > bytes.length) return undefined;
  if (indices.some((index, k) => bytes.readUInt16LE(table + 2 * k) !== index)) return undefined;
  return { list, start, end: table + 2 * TOKENS };
}

/** Markers lie before the tokens, one for each 256 names; the names lie before them, and before those their number. */
function namesBefore(
  bytes: Buffer,
  end: number,
  tokens: readonly string[],
): { readonly list: readonly string[]; readonly start: number } | undefined {
  let first = end - 4;
  // Padding.
  if (bytes.readUInt32LE(first) === 0) first -= 4;
  const last = bytes.readUInt32LE(first);
  let markers = 1;
  while (first >= 4 && bytes.readUInt32LE(first) !== 0) {
    if (bytes.readUInt32LE(first - 4) >= bytes.readUInt32LE(first)) return undefined;
    first -= 4;
    markers++;
  }
  for (let start = align(first - last - 8); start >= 8; start -= 8) {
    const count = bytes.readUInt32LE(start - 8);
    if (Math.ceil(count / PER_MARKER) !== markers) continue;
    const list = namesFrom(bytes, start, count, first, tokens);
    if (list !== undefined) return { list, start };
  }
  return undefined;
}

function namesFrom(
  bytes: Buffer,
  start: number,
  count: number,
  markers: number,
  tokens: readonly string[],
): readonly string[] | undefined {
  const list: string[] = [];
  let at = start;
  for (let k = 0; k < count; k++) {
    if (k % PER_MARKER === 0 && bytes.readUInt32LE(markers + (k / PER_MARKER) * 4) !== at - start)
      return undefined;
    let length = bytes[at++] ?? 0;
    if (length & 0x80) length = (length & 0x7f) | ((bytes[at++] ?? 0) << 7);
    if (length === 0 || at + length > markers) return undefined;
    let text = '';
    for (const end = at + length; at < end; at++) text += tokens[bytes[at] as number] as string;
    list.push(text);
  }
  return align(at) === markers ? list : undefined;
}

/** Since 6.4 behind the tokens; before that in front of the number of names. */
function addressesOf(
  bytes: Buffer,
  behind: number,
  names: number,
  count: number,
): readonly bigint[] | undefined {
  const after = align(behind);
  const places = [
    { offsets: after, base: align(after + 4 * count) },
    { offsets: names - 16 - align(4 * count), base: names - 16 },
  ];
  for (const { offsets, base } of places) {
    if (offsets < 0 || base + 8 > bytes.length) continue;
    const address = bytes.readBigUInt64LE(base);
    if (address >> 31n !== 0x1ffffffffn) continue;
    const list = Array.from({ length: count }, (_, k) => bytes.readInt32LE(offsets + 4 * k));
    // With absolute per-processor symbols those are not negative and all others are.
    const perCpu = list.some((offset) => offset < 0);
    return list.map((offset) =>
      perCpu ? (offset < 0 ? address - 1n - BigInt(offset) : BigInt(offset)) : address + BigInt(offset >>> 0),
    );
  }
  return undefined;
}
