/**
 * An ELF file that holds nothing but symbols, for a debugger: from a System.map, or from /proc/kallsyms of a guest that was booted
 * with `nokaslr`.
 *
 *   npx vitrine boot --append nokaslr --run 'cat /proc/kallsyms' | node bin/run.js scripts/symbol-elf.ts > vmlinux.symbols
 */
import { readFileSync, writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

interface Symbol {
  readonly address: bigint;
  readonly type: string;
  readonly name: string;
}

const HEADER = 64;
const SECTION = 64;
const ENTRY = 24;
const SHT = { symbols: 2, strings: 3, noBits: 8 } as const;
const SHF = { write: 1n, alloc: 2n, execute: 4n } as const;
const STT = { object: 1, function: 2 } as const;
const GLOBAL = 1;
const ABSOLUTE = 0xfff1;
/** Where kernel text may lie: below it are offsets of per-CPU variables. */
const KERNEL = 0xffff_ffff_8000_0000n;

export function parseSymbols(text: string): Symbol[] {
  const found: Symbol[] = [];
  for (const line of text.split('\n')) {
    const match = /^([0-9a-f]{8,16}) ([A-Za-z]) (\S+)(?:\t(\[\S+\]))?$/i.exec(line.trimEnd());
    // Modules come and go; their symbols would be in the way.
    if (match === null || match[4] !== undefined) continue;
    found.push({
      address: BigInt(`0x${match[1] as string}`),
      type: match[2] as string,
      name: match[3] as string,
    });
  }
  return found.sort((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : 0));
}

/** ELF64 for x86-64 with sections .text and .data that cover the symbols and hold no bytes (System V ABI, chapter 4). */
export function symbolElf(symbols: readonly Symbol[]): Uint8Array {
  const isText = ({ type, address }: Symbol): boolean => /[tTwW]/.test(type) && address >= KERNEL;
  const isData = (symbol: Symbol): boolean => !isText(symbol) && symbol.address >= KERNEL;
  const range = (of: (symbol: Symbol) => boolean): readonly [bigint, bigint] => {
    const addresses = symbols.filter(of).map(({ address }) => address);
    const first = addresses[0] ?? 0n;
    return [first, (addresses.at(-1) ?? first) - first + 4096n];
  };
  const names = ['', '.text', '.data', '.symtab', '.strtab', '.shstrtab'];
  const strings = [''].concat(symbols.map(({ name }) => name));
  const table = (list: readonly string[]): { bytes: Buffer; at: number[] } => {
    const at: number[] = [];
    let length = 0;
    for (const item of list) {
      at.push(length);
      length += Buffer.byteLength(item) + 1;
    }
    return { bytes: Buffer.from(`${list.join('\0')}\0`), at };
  };
  const sectionNames = table(names);
  const symbolNames = table(strings);
  const entries = Buffer.alloc((symbols.length + 1) * ENTRY);
  for (const [index, symbol] of symbols.entries()) {
    const at = (index + 1) * ENTRY;
    entries.writeUInt32LE(symbolNames.at[index + 1] as number, at);
    entries[at + 4] = (GLOBAL << 4) | (isText(symbol) ? STT.function : STT.object);
    entries.writeUInt16LE(isText(symbol) ? 1 : isData(symbol) ? 2 : ABSOLUTE, at + 6);
    entries.writeBigUInt64LE(symbol.address, at + 8);
  }
  const bodies = [
    Buffer.alloc(0),
    Buffer.alloc(0),
    Buffer.alloc(0),
    entries,
    symbolNames.bytes,
    sectionNames.bytes,
  ];
  const sections = Buffer.alloc(names.length * SECTION);
  let offset = HEADER;
  const describe = (index: number, type: number, flags: bigint, address: bigint, size: bigint): void => {
    const at = index * SECTION;
    sections.writeUInt32LE(sectionNames.at[index] as number, at);
    sections.writeUInt32LE(type, at + 4);
    sections.writeBigUInt64LE(flags, at + 8);
    sections.writeBigUInt64LE(address, at + 16);
    sections.writeBigUInt64LE(BigInt(offset), at + 24);
    sections.writeBigUInt64LE(size, at + 32);
    sections.writeBigUInt64LE(1n, at + 48);
    if (type !== SHT.noBits) offset += Number(size);
  };
  const [textAt, textSize] = range(isText);
  const [dataAt, dataSize] = range(isData);
  describe(1, SHT.noBits, SHF.alloc | SHF.execute, textAt, textSize);
  describe(2, SHT.noBits, SHF.alloc | SHF.write, dataAt, dataSize);
  describe(3, SHT.symbols, 0n, 0n, BigInt(entries.length));
  sections.writeUInt32LE(4, 3 * SECTION + 40);
  sections.writeUInt32LE(1, 3 * SECTION + 44);
  sections.writeBigUInt64LE(BigInt(ENTRY), 3 * SECTION + 56);
  describe(4, SHT.strings, 0n, 0n, BigInt(symbolNames.bytes.length));
  describe(5, SHT.strings, 0n, 0n, BigInt(sectionNames.bytes.length));
  const header = Buffer.alloc(HEADER);
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  header.writeUInt16LE(2, 16);
  header.writeUInt16LE(62, 18);
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(BigInt(offset), 40);
  header.writeUInt16LE(HEADER, 52);
  header.writeUInt16LE(SECTION, 58);
  header.writeUInt16LE(names.length, 60);
  header.writeUInt16LE(5, 62);
  return Uint8Array.from(Buffer.concat([header, ...bodies, sections]));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const symbols = parseSymbols(readFileSync(0, 'latin1'));
  if (symbols.length === 0) {
    process.stderr.write('standard input names no symbols: give a System.map or /proc/kallsyms\n');
    process.exit(2);
  }
  const bytes = symbolElf(symbols);
  for (let at = 0; at < bytes.length;) at += writeSync(1, bytes, at);
}
