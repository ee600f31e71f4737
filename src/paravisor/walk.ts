/**
 * The guest's own address translation, done by hand (AMD APM vol. 2, 5.2-5.4): for instruction bytes, and for the second operand of
 * string instructions. Rights are not looked at: the processor has made the access that is emulated, or the emulator only reads
 * what the guest executes.
 */

import { REGISTER } from '../abi/hyperv/registers.ts';
import type { HostView } from '../seats/host-view.ts';
import { getRegister } from './guest-registers.ts';

const PG = 1n << 31n;
const PAE = 1n << 5n;
const PSE = 1n << 4n;
const LA57 = 1n << 12n;
const LMA = 1n << 10n;
const PRESENT = 1n;
const LARGE = 1n << 7n;
const ADDRESS = (1n << 52n) - 0x1000n;

/** Guest-physical address with the shared alias as it stands in the tables; `undefined`: not present. */
export function translate(view: HostView, vp: number, linear: bigint): bigint | undefined {
  const cr0 = getRegister(view, vp, REGISTER.cr0);
  if ((cr0 & PG) === 0n) return linear & 0xffff_ffffn;
  const cr3 = getRegister(view, vp, REGISTER.cr3);
  const cr4 = getRegister(view, vp, REGISTER.cr4);
  if ((cr4 & PAE) === 0n) return walk32(view, cr3, (cr4 & PSE) !== 0n, linear);
  const long = (getRegister(view, vp, REGISTER.efer) & LMA) !== 0n;
  let table = long ? cr3 & ADDRESS : cr3 & 0xffff_ffe0n;
  for (let level = long ? ((cr4 & LA57) !== 0n ? 4 : 3) : 2; level >= 0; level--) {
    const shift = BigInt(12 + 9 * level);
    const index = (linear >> shift) & (long || level < 2 ? 511n : 3n);
    const entry = readEntry(view, table + index * 8n, 8);
    if (entry === undefined || (entry & PRESENT) === 0n) return undefined;
    const leaf = level === 0 || ((level === 1 || (long && level === 2)) && (entry & LARGE) !== 0n);
    if (leaf) {
      const mask = (1n << shift) - 1n;
      return (entry & ADDRESS & ~mask) | (linear & mask);
    }
    table = entry & ADDRESS;
  }
  return undefined;
}

function walk32(view: HostView, cr3: bigint, large: boolean, linear: bigint): bigint | undefined {
  const directory = readEntry(view, (cr3 & 0xffff_f000n) + ((linear >> 22n) & 1023n) * 4n, 4);
  if (directory === undefined || (directory & PRESENT) === 0n) return undefined;
  if (large && (directory & LARGE) !== 0n) {
    // PSE-36: bits 20:13 are address bits 39:32.
    return ((directory >> 13n) & 0xffn) * (1n << 32n) + (directory & 0xffc0_0000n) + (linear & 0x3f_ffffn);
  }
  const entry = readEntry(view, (directory & 0xffff_f000n) + ((linear >> 12n) & 1023n) * 4n, 4);
  if (entry === undefined || (entry & PRESENT) === 0n) return undefined;
  return (entry & 0xffff_f000n) + (linear & 0xfffn);
}

function readEntry(view: HostView, gpa: bigint, size: 4 | 8): bigint | undefined {
  if (gpa > BigInt(Number.MAX_SAFE_INTEGER)) return undefined;
  const read = view.read(Number(gpa), size);
  if (!read.ok) return undefined;
  let value = 0n;
  for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(read.bytes[i] ?? 0);
  return value;
}

/** Up to `length` bytes from linear address `linear` on: fewer where a page is not there. */
export function readLinear(view: HostView, vp: number, linear: bigint, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const at = linear + BigInt(done);
    const gpa = translate(view, vp, at);
    const count = Math.min(length - done, 4096 - Number(at & 0xfffn));
    if (gpa === undefined || gpa > BigInt(Number.MAX_SAFE_INTEGER)) break;
    const read = view.read(Number(gpa), count);
    if (!read.ok) break;
    bytes.set(read.bytes, done);
    done += count;
  }
  return bytes.subarray(0, done);
}

/** False: a page is not there, and what lies before it may have been written. */
export function writeLinear(view: HostView, vp: number, linear: bigint, bytes: Uint8Array): boolean {
  for (let done = 0; done < bytes.length;) {
    const at = linear + BigInt(done);
    const gpa = translate(view, vp, at);
    const count = Math.min(bytes.length - done, 4096 - Number(at & 0xfffn));
    if (gpa === undefined || gpa > BigInt(Number.MAX_SAFE_INTEGER)) return false;
    if (!view.write(Number(gpa), bytes.subarray(done, done + count)).ok) return false;
    done += count;
  }
  return true;
}
