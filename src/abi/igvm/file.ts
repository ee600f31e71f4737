/**
 * An IGVM file as its headers, and back. Nothing is interpreted: unknown structures and their bytes survive a round trip. File
 * data is addressed by offsets from the start of the file, so it is kept as one piece with the place where it stood.
 */
import { crc32 } from './crc32.ts';
import { fixedHeader, fixedHeader2, MAGIC, OPTIONAL, SECTIONS, variableHeader } from './headers.ts';

export interface IgvmHeader {
  /** Without the bit that says that it may be ignored. */
  readonly type: number;
  readonly optional: boolean;
  readonly payload: Uint8Array;
}

export interface IgvmFile {
  readonly version: number;
  readonly architecture: number;
  readonly pageSize: number;
  readonly headers: readonly IgvmHeader[];
  /** What comes behind the headers. */
  readonly data: Uint8Array;
  /** Where `data` begins in the file. */
  readonly dataOffset: number;
}

export type IgvmOutcome =
  | { readonly ok: true; readonly file: IgvmFile }
  | { readonly ok: false; readonly what: string; readonly at: number };

const bad = (what: string, at: number): IgvmOutcome => ({ ok: false, what, at });
const align = (value: number): number => (value + 7) & ~7;

export function isIgvm(bytes: Uint8Array): boolean {
  return fixedHeader.fits(bytes) && fixedHeader.get(bytes, 'magic') === MAGIC;
}

export function readIgvm(bytes: Uint8Array): IgvmOutcome {
  if (!isIgvm(bytes)) return bad('is not an IGVM file', 0);
  const fixed = fixedHeader.read(bytes);
  if (fixed.version !== 1 && fixed.version !== 2) return bad(`has version ${fixed.version}, not 1 or 2`, 4);
  const fixedSize = fixed.version === 1 ? fixedHeader.size : fixedHeader2.size;
  const end = fixed.headersOffset + fixed.headersSize;
  if (fixed.headersOffset < fixedSize || fixed.headersOffset % 8 !== 0)
    return bad(`has its headers at ${fixed.headersOffset}`, 8);
  if (end > bytes.length) return bad('is cut off in its headers', 12);
  if (fixed.fileSize !== bytes.length) return bad(`has ${bytes.length} bytes and says ${fixed.fileSize}`, 16);
  const checked = new Uint8Array(bytes.subarray(0, end));
  fixedHeader.set(checked, 'checksum', 0);
  if (crc32(checked) !== fixed.checksum) return bad('has a wrong checksum', 20);
  const extra = fixed.version === 1 ? { architecture: 0, pageSize: 4096 } : fixedHeader2.read(bytes);
  const headers: IgvmHeader[] = [];
  let section = 0;
  for (let at = fixed.headersOffset; at < end;) {
    if (at + variableHeader.size > end) return bad('is cut off in a header', at);
    const { type: word, length } = variableHeader.read(bytes, at);
    const start = at + variableHeader.size;
    if (start + length > end) return bad('has a header that leaves the headers', at);
    const type = (word & ~OPTIONAL) >>> 0;
    const found = SECTIONS.findIndex(([first, last]) => type >= first && type <= last);
    if (found < 0) return bad(`has a header of type 0x${type.toString(16)}`, at);
    if (found < section) return bad(`has a header of type 0x${type.toString(16)} behind later ones`, at);
    section = found;
    headers.push({
      type,
      optional: word >>> 31 === 1,
      payload: bytes.subarray(start, start + length),
    });
    at = align(start + length);
  }
  return {
    ok: true,
    file: {
      version: fixed.version,
      architecture: extra.architecture,
      pageSize: extra.pageSize,
      headers,
      data: bytes.subarray(end),
      dataOffset: end,
    },
  };
}

/** Bytes that the headers of a file take, so that a writer knows where its data will begin. */
export function headersEnd(version: number, headers: readonly Pick<IgvmHeader, 'payload'>[]): number {
  const start = version === 1 ? fixedHeader.size : fixedHeader2.size;
  return headers.reduce((at, { payload }) => at + align(variableHeader.size + payload.length), start);
}

/** `dataOffset` must be what `headersEnd` says, since the headers point into the data. */
export function writeIgvm(file: IgvmFile): Uint8Array {
  const start = file.version === 1 ? fixedHeader.size : fixedHeader2.size;
  const end = headersEnd(file.version, file.headers);
  if (end !== file.dataOffset)
    throw new RangeError(`IGVM data is laid out for ${file.dataOffset}, not ${end}`);
  const bytes = new Uint8Array(end + file.data.length);
  let at = start;
  for (const { type, optional, payload } of file.headers) {
    const word = ((optional ? OPTIONAL : 0) | type) >>> 0;
    variableHeader.write({ type: word, length: payload.length }, bytes, at);
    bytes.set(payload, at + variableHeader.size);
    at += align(variableHeader.size + payload.length);
  }
  bytes.set(file.data, end);
  const fixed = {
    magic: MAGIC,
    version: file.version,
    headersOffset: start,
    headersSize: end - start,
    fileSize: bytes.length,
  };
  if (file.version === 1) fixedHeader.write(fixed, bytes);
  else fixedHeader2.write({ ...fixed, architecture: file.architecture, pageSize: file.pageSize }, bytes);
  fixedHeader.set(bytes, 'checksum', crc32(bytes.subarray(0, end)));
  return bytes;
}
