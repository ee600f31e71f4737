/**
 * The guest's contexts: VMSA pages that only VMPL0 reaches. One is read when it is first looked at in a turn and written back at the
 * end of it, so what lies here between turns lies in guest memory.
 */

import { REGISTER, type RegisterValue } from '../../abi/hyperv/registers.ts';
import { setU16, setU32, u16, u32 } from '../../abi/record.ts';
import { vmsa, XMM } from '../../abi/snp/vmsa.ts';
import type { Vmpl0Seat } from '../../seats/program.ts';

/** What of the page a turn may change. */
const BYTES = 0x670;

type Name = Parameters<typeof vmsa.offsetOf>[0];

const WIDE: ReadonlyMap<number, number> = new Map(
  (
    [
      [REGISTER.rax, 'rax'],
      [REGISTER.rcx, 'rcx'],
      [REGISTER.rdx, 'rdx'],
      [REGISTER.rbx, 'rbx'],
      [REGISTER.rsp, 'rsp'],
      [REGISTER.rbp, 'rbp'],
      [REGISTER.rsi, 'rsi'],
      [REGISTER.rdi, 'rdi'],
      [REGISTER.r8, 'r8'],
      [REGISTER.r9, 'r9'],
      [REGISTER.r10, 'r10'],
      [REGISTER.r11, 'r11'],
      [REGISTER.r12, 'r12'],
      [REGISTER.r13, 'r13'],
      [REGISTER.r14, 'r14'],
      [REGISTER.r15, 'r15'],
      [REGISTER.rip, 'rip'],
      [REGISTER.rflags, 'rflags'],
      [REGISTER.cr0, 'cr0'],
      [REGISTER.cr2, 'cr2'],
      [REGISTER.cr3, 'cr3'],
      [REGISTER.cr4, 'cr4'],
      [REGISTER.efer, 'efer'],
      [REGISTER.pat, 'pat'],
      [REGISTER.star, 'star'],
      [REGISTER.lstar, 'lstar'],
      [REGISTER.cstar, 'cstar'],
      [REGISTER.sfmask, 'sfmask'],
      [REGISTER.kernelGsBase, 'kernelGsBase'],
    ] as const satisfies readonly (readonly [number, Name])[]
  ).map(([register, name]) => [register, vmsa.offsetOf(name)]),
);

const SEGMENTS: ReadonlyMap<number, number> = new Map(
  (
    [
      [REGISTER.es, 'esSelector'],
      [REGISTER.cs, 'csSelector'],
      [REGISTER.ss, 'ssSelector'],
      [REGISTER.ds, 'dsSelector'],
      [REGISTER.fs, 'fsSelector'],
      [REGISTER.gs, 'gsSelector'],
      [REGISTER.ldtr, 'ldtrSelector'],
      [REGISTER.tr, 'trSelector'],
    ] as const satisfies readonly (readonly [number, Name])[]
  ).map(([register, name]) => [register, vmsa.offsetOf(name)]),
);

export class Context {
  readonly bytes: Uint8Array;
  dirty = false;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  low(name: Name): number {
    return u32(this.bytes, vmsa.offsetOf(name));
  }

  high(name: Name): number {
    return u32(this.bytes, vmsa.offsetOf(name) + 4);
  }

  set(name: Name, lo: number, hi: number): void {
    const at = vmsa.offsetOf(name);
    setU32(this.bytes, at, lo);
    setU32(this.bytes, at + 4, hi);
    this.dirty = true;
  }

  get(register: number): RegisterValue | undefined {
    const { bytes } = this;
    const wide = WIDE.get(register);
    if (wide !== undefined) return [u32(bytes, wide), u32(bytes, wide + 4), 0, 0];
    const segment = SEGMENTS.get(register);
    if (segment !== undefined) {
      // Attributes there are 12 bits wide; Hyper-V keeps the upper four apart (HV_X64_SEGMENT_REGISTER).
      const packed = u16(bytes, segment + 2);
      const attributes = (packed & 0xff) | ((packed & 0xf00) << 4);
      return [
        u32(bytes, segment + 8),
        u32(bytes, segment + 12),
        u32(bytes, segment + 4),
        (u16(bytes, segment) | (attributes << 16)) >>> 0,
      ];
    }
    if (register >= REGISTER.xmm0 && register < REGISTER.xmm0 + 16) {
      const at = XMM + 16 * (register - REGISTER.xmm0);
      return [u32(bytes, at), u32(bytes, at + 4), u32(bytes, at + 8), u32(bytes, at + 12)];
    }
    return undefined;
  }

  put(register: number, value: RegisterValue): boolean {
    const { bytes } = this;
    const wide = WIDE.get(register);
    if (wide !== undefined) {
      setU32(bytes, wide, value[0]);
      setU32(bytes, wide + 4, value[1]);
    } else if (register >= REGISTER.xmm0 && register < REGISTER.xmm0 + 16) {
      for (const [i, word] of value.entries())
        setU32(bytes, XMM + 16 * (register - REGISTER.xmm0) + 4 * i, word);
    } else return false;
    this.dirty = true;
    return true;
  }

  /** Attributes as in a VMSA. */
  setSegment(name: SegmentName, selector: number, base: bigint, limit: number, attributes: number): void {
    const at = vmsa.offsetOf(`${name}Selector`);
    setU16(this.bytes, at, selector);
    setU16(this.bytes, at + 2, attributes);
    setU32(this.bytes, at + 4, limit);
    vmsa.set(this.bytes, `${name}Base`, base);
    this.dirty = true;
  }

  setWide(name: Name, value: bigint): void {
    vmsa.set(this.bytes, name as 'rip', value);
    this.dirty = true;
  }
}

export type SegmentName = 'es' | 'cs' | 'ss' | 'ds' | 'fs' | 'gs' | 'gdtr' | 'ldtr' | 'idtr' | 'tr';

/** The contexts of all VPs, for the duration of a turn. */
export class Contexts {
  readonly #seat: Vmpl0Seat;
  readonly #first: number;
  readonly #open = new Map<number, Context>();

  constructor(seat: Vmpl0Seat, first: number) {
    this.#seat = seat;
    this.#first = first;
  }

  gpa(vp: number): number {
    return this.#first + 0x1000 * vp;
  }

  /** `undefined`: the page is gone, which only the host can have done. */
  of(vp: number): Context | undefined {
    const open = this.#open.get(vp);
    if (open !== undefined) return open;
    const read = this.#seat.read(this.gpa(vp), BYTES, false);
    if (!read.ok) return undefined;
    const context = new Context(read.bytes);
    this.#open.set(vp, context);
    return context;
  }

  /** Writes back what has changed. False: a page is gone. */
  close(): boolean {
    let ok = true;
    for (const [vp, context] of this.#open) {
      if (context.dirty) ok = this.#seat.write(this.gpa(vp), context.bytes, false).ok && ok;
    }
    this.#open.clear();
    return ok;
  }
}
