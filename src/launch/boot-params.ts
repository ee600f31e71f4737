/** Fills struct boot_params for an entry of Linux without EFI. */
import {
  BOOT_FLAG,
  E820_ENTRY,
  E820_MAX_ENTRIES,
  HEADER_MAGIC,
  LOADER_UNDEFINED,
  SETUP_DATA,
  SETUP_HEADER,
  SETUP_HEADER_OFFSET,
  ZERO_PAGE,
} from '../abi/boot-params.ts';
import { highHalf, join, lowHalf } from '../abi/record.ts';
import type { MapEntry } from './memory-map.ts';
import { fail, size, type Failure } from './outcome.ts';

export interface BootParams {
  /** The setup header of a bzImage, from `SETUP_HEADER_OFFSET` on; absent for an ELF kernel. */
  readonly header?: Uint8Array;
  readonly commandLine: number;
  readonly initrd: { readonly gpa: number; readonly length: number } | undefined;
  readonly e820: readonly MapEntry[];
  readonly rsdp: number;
  /** Address of the first setup_data node; 0: none. */
  readonly setupData: number;
}

/** Kernel alignment that an ELF kernel, which has no setup header, is said to have. */
const ELF_ALIGNMENT = 0x20_0000;

export function bootParams(values: BootParams): Uint8Array {
  if (values.e820.length > E820_MAX_ENTRIES)
    throw new RangeError(`${values.e820.length} e820 entries, 128 fit`);
  const page = new Uint8Array(ZERO_PAGE.size);
  if (values.header !== undefined) page.set(values.header, SETUP_HEADER_OFFSET);
  else {
    SETUP_HEADER.write({ bootFlag: BOOT_FLAG, header: HEADER_MAGIC, kernelAlignment: ELF_ALIGNMENT }, page);
  }
  const initrd = values.initrd ?? { gpa: 0, length: 0 };
  const [imageLow, imageHigh] = halves(initrd.gpa);
  const [lengthLow, lengthHigh] = halves(initrd.length);
  const [lineLow, lineHigh] = halves(values.commandLine);
  SETUP_HEADER.write(
    {
      typeOfLoader: LOADER_UNDEFINED,
      ramdiskImage: imageLow,
      ramdiskSize: lengthLow,
      cmdLinePtr: lineLow,
      setupData: BigInt(values.setupData),
    },
    page,
  );
  ZERO_PAGE.write(
    {
      acpiRsdpAddr: BigInt(values.rsdp),
      extRamdiskImage: imageHigh,
      extRamdiskSize: lengthHigh,
      extCmdLinePtr: lineHigh,
      e820Entries: values.e820.length,
    },
    page,
  );
  values.e820.forEach((entry, i) => {
    E820_ENTRY.write(
      { address: BigInt(entry.gpa), size: BigInt(entry.length), type: entry.type },
      page,
      ZERO_PAGE.offsetOf('e820Table') + i * E820_ENTRY.size,
    );
  });
  return page;
}

function halves(value: number): [number, number] {
  return [lowHalf(BigInt(value)), highHalf(BigInt(value))];
}

/** The e820 table of a zero page, as a kernel would read it. */
export function readE820(page: Uint8Array): MapEntry[] {
  const count = Math.min(ZERO_PAGE.get(page, 'e820Entries'), E820_MAX_ENTRIES);
  return Array.from({ length: count }, (_, i) => {
    const at = ZERO_PAGE.offsetOf('e820Table') + i * E820_ENTRY.size;
    const field = (name: 'address' | 'size'): number =>
      Number(join(E820_ENTRY.low(page, name, at), E820_ENTRY.high(page, name, at)));
    return { gpa: field('address'), length: field('size'), type: E820_ENTRY.get(page, 'type', at) };
  });
}

export interface SetupDataNode {
  readonly type: number;
  readonly payload: Uint8Array;
}

/** A chain of setup_data nodes that starts at `gpa`; each begins on an 8-byte boundary. */
export function setupDataChain(gpa: number, nodes: readonly SetupDataNode[]): Uint8Array {
  const lengths = nodes.map((node) => Math.ceil((SETUP_DATA.size + node.payload.length) / 8) * 8);
  const chain = new Uint8Array(lengths.reduce((sum, length) => sum + length, 0));
  let at = 0;
  nodes.forEach((node, i) => {
    const end = at + (lengths[i] ?? 0);
    const next = i + 1 < nodes.length ? BigInt(gpa + end) : 0n;
    SETUP_DATA.write({ next, type: node.type, length: node.payload.length }, chain, at);
    chain.set(node.payload, at + SETUP_DATA.size);
    at = end;
  });
  return chain;
}

/** What Linux takes at most without its NUL, where the image does not say (COMMAND_LINE_SIZE of x86). */
export const MOST_COMMAND_LINE = 2047;

export type CommandLineOutcome = { readonly ok: true; readonly bytes: Uint8Array } | Failure;

/** The command line with its NUL. */
export function commandLineBytes(line: string, most: number): CommandLineOutcome {
  const bad = /[^\t\x20-\x7e]/.exec(line);
  if (bad !== null) {
    const code = hexCode(line.charCodeAt(bad.index));
    return fail(
      `the command line has character ${code}`,
      `command line, character ${bad.index + 1}`,
      'use printable ASCII',
    );
  }
  if (line.length > most) {
    return fail(
      `the command line is ${size(line.length)} long`,
      'command line',
      `shorten it to the ${most} that this kernel takes`,
    );
  }
  const bytes = new Uint8Array(line.length + 1);
  for (let i = 0; i < line.length; i++) bytes[i] = line.charCodeAt(i);
  return { ok: true, bytes };
}

function hexCode(code: number): string {
  return `U+${code.toString(16).toUpperCase().padStart(4, '0')}`;
}
