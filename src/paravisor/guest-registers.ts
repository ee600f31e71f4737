/** A guest's registers as the emulator of its instructions needs them, 64 bits wide. */

import { REGISTER } from '../abi/hyperv/registers.ts';
import type { RegisterValue } from '../abi/hyperv/registers.ts';
import { highHalf, join, lowHalf } from '../abi/record.ts';
import type { HostView } from '../seats/host-view.ts';

export interface Segment {
  readonly base: bigint;
  readonly limit: number;
  readonly selector: number;
  /** Type, S, DPL, P in 7:0; AVL, L, D, G in 15:12. */
  readonly attributes: number;
}

export const RFLAGS = {
  CF: 1,
  PF: 4,
  AF: 16,
  ZF: 64,
  SF: 128,
  IF: 512,
  DF: 1024,
  OF: 2048,
  VM: 1 << 17,
} as const;

const NOTHING: RegisterValue = [0, 0, 0, 0];

export function getRegister(view: HostView, vp: number, name: number): bigint {
  const value = view.getRegister(vp, name) ?? NOTHING;
  return join(value[0], value[1]);
}

export function setRegister(view: HostView, vp: number, name: number, value: bigint): void {
  view.setRegister(vp, name, [lowHalf(value), highHalf(value), 0, 0]);
}

export function getSegment(view: HostView, vp: number, name: number): Segment {
  const value = view.getRegister(vp, name) ?? NOTHING;
  return {
    base: join(value[0], value[1]),
    limit: value[2],
    selector: value[3] & 0xffff,
    attributes: value[3] >>> 16,
  };
}

/** General register `number` in encoding order. */
export const generalRegister = (number: number): number => REGISTER.rax + number;

const PE = 1n;
const LMA = 1n << 10n;
const CODE_LONG = 1 << 13;
const CODE_32 = 1 << 14;

/** What instructions mean here. */
export function codeMode(
  view: HostView,
  vp: number,
): { readonly bits: 16 | 32 | 64; readonly real: boolean } {
  const cs = getSegment(view, vp, REGISTER.cs);
  const real = (getRegister(view, vp, REGISTER.cr0) & PE) === 0n;
  const virtual = (getRegister(view, vp, REGISTER.rflags) & BigInt(RFLAGS.VM)) !== 0n;
  if (real || virtual) return { bits: 16, real: true };
  if ((getRegister(view, vp, REGISTER.efer) & LMA) !== 0n && (cs.attributes & CODE_LONG) !== 0)
    return { bits: 64, real: false };
  return { bits: (cs.attributes & CODE_32) !== 0 ? 32 : 16, real: false };
}
