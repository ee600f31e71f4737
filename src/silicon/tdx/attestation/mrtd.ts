/**
 * MRTD (Intel TDX Module 1.5 base specification, 12.3): one SHA-384 over records of 128 bytes, in the order of the host's calls.
 * A page adds its address; each 256 bytes of it that the host extends add address and contents.
 */
import { ascii } from '../../../abi/bytes.ts';
import { addBlocks, finish, start, type Sha384State } from '../../sha384.ts';

export const CHUNK = 256;
const RECORD = 128;

function measurementRecord(name: 'MEM.PAGE.ADD' | 'MR.EXTEND', gpa: number, room: number): Uint8Array {
  const record = new Uint8Array(room);
  record.set(ascii(name));
  new DataView(record.buffer).setBigUint64(16, BigInt(gpa), true);
  return record;
}

/** What TDH.MEM.PAGE.ADD does to the measurement. */
export function measurePageAdd(state: Sha384State, gpa: number): void {
  addBlocks(state, measurementRecord('MEM.PAGE.ADD', gpa, RECORD));
}

/** What TDH.MR.EXTEND does, for the 256 bytes at `gpa`. */
export function measureExtend(state: Sha384State, gpa: number, chunk: Uint8Array): void {
  const record = measurementRecord('MR.EXTEND', gpa, RECORD + CHUNK);
  record.set(chunk, RECORD);
  addBlocks(state, record);
}

/** A page as hosts add it: address, then its 16 chunks when its contents are measured. */
export function measurePage(state: Sha384State, gpa: number, contents: Uint8Array | undefined): void {
  measurePageAdd(state, gpa);
  if (contents === undefined) return;
  for (let at = 0; at < contents.length; at += CHUNK)
    measureExtend(state, gpa + at, contents.subarray(at, at + CHUNK));
}

export { start as startMeasurement, finish as finishMeasurement };
