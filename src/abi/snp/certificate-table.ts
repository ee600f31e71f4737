/** The certificate table that a host returns for an extended guest request (GHCB specification 2.03, 4.1.8.1). */
import { setU32, u32 } from '../record.ts';

/** Kinds of entries, in the order of the text form. */
export const CERTIFICATE = {
  vcek: '63da758d-e664-4564-adc5-f4b93be8accd',
  vlek: 'a8074bc2-a25a-483e-aae6-39c045a0b8a1',
  ask: '4ab7b379-bbac-4fe4-a02f-05aef327c782',
  ark: 'c0b406a4-a803-4952-9743-3fb6014cd0ae',
  crl: '92f81bc3-5811-4d3d-97ff-d19f88dc67ea',
} as const;

export interface CertificateEntry {
  readonly guid: string;
  readonly bytes: Uint8Array;
}

/** GUID of 16 bytes, offset and length of 4; an entry of zeros ends the table. */
const ENTRY = 24;

function guidBytes(guid: string): Uint8Array {
  const digits = guid.replaceAll('-', '');
  return Uint8Array.from({ length: 16 }, (_, i) => parseInt(digits.slice(2 * i, 2 * i + 2), 16));
}

function guidText(bytes: Uint8Array): string {
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return [8, 12, 16, 20, 32].map((end, i, ends) => digits.slice(ends[i - 1] ?? 0, end)).join('-');
}

/** Table and certificates, without padding to pages. */
export function certificateTable(entries: readonly CertificateEntry[]): Uint8Array {
  let end = ENTRY * (entries.length + 1);
  const table = new Uint8Array(entries.reduce((length, { bytes }) => length + bytes.length, end));
  entries.forEach(({ guid, bytes }, i) => {
    table.set(guidBytes(guid), ENTRY * i);
    setU32(table, ENTRY * i + 16, end);
    setU32(table, ENTRY * i + 20, bytes.length);
    table.set(bytes, end);
    end += bytes.length;
  });
  return table;
}

/** The entries, or undefined when one lies outside or the table has no end. */
export function readCertificateTable(table: Uint8Array): CertificateEntry[] | undefined {
  const entries: CertificateEntry[] = [];
  for (let at = 0; at + ENTRY <= table.length; at += ENTRY) {
    const guid = table.subarray(at, at + 16);
    const from = u32(table, at + 16);
    const length = u32(table, at + 20);
    if (guid.every((byte) => byte === 0)) return entries;
    if (from + length > table.length) return undefined;
    entries.push({ guid: guidText(guid), bytes: table.slice(from, from + length) });
  }
  return undefined;
}
