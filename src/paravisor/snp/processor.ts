/** What the paravisor does at VMPL0 of an SNP guest: pages by PVALIDATE and RMPADJUST, contexts in VMSA pages. */

import { initialContext } from '../../abi/hyperv/inputs.ts';
import { PAGE_SIZE } from '../../abi/hyperv/pages.ts';
import { u16, u32 } from '../../abi/record.ts';
import { GENERAL_REGISTERS } from '../../abi/general-registers.ts';
import { SEV_FEATURE, vmsa, X87_ALL_VALID } from '../../abi/snp/vmsa.ts';
import type { CpuidRegisters } from '../../seats/exits.ts';
import type { HostView } from '../../seats/host-view.ts';
import type { RmpOutcome, Vmpl0Seat } from '../../seats/program.ts';
import type { ParavisorConfig } from '../config.ts';
import { hasPart } from '../parts.ts';
import type { Processor } from '../processor.ts';
import type { Context, Contexts, SegmentName } from './context.ts';
import { cpuidFromPage } from './cpuid-page.ts';

export const GUEST_VMPL = 2;
/** Read, write, execute in user and supervisor mode (APM vol. 2, table 15-38). */
const ALL_RIGHTS = 0xf;
const RIGHTS_SHIFT = 8;
const VMSA_BIT = 1 << 16;

const LARGE_PAGE = 0x20_0000;
const SIZE_MISMATCH = 6;

/** Whether an instruction on a page did what it was for. `no change`: the RMP entry was in that state already. */
export type PageOutcome = 'done' | 'no change' | 'size' | 'failed';

export function pageOutcome(outcome: RmpOutcome): PageOutcome {
  if (outcome.kind !== 'done') return 'failed';
  if (outcome.eax === SIZE_MISMATCH) return 'size';
  if (outcome.eax !== 0) return 'failed';
  return outcome.carry ? 'no change' : 'done';
}

/** Rights of the guest on a page; `false` takes all away. */
export function setRights(seat: Vmpl0Seat, gpa: number, large: boolean, granted: boolean): PageOutcome {
  const rights = granted ? ALL_RIGHTS << RIGHTS_SHIFT : 0;
  const outcome = seat.rmpadjust(gpa, large, GUEST_VMPL | rights);
  return pageOutcome(outcome.kind === 'done' ? { ...outcome, carry: false } : outcome);
}

/** The same for a range that may have been split into small pages; `isLarge` hears of those that are large ones. */
export function setRangeRights(
  seat: Vmpl0Seat,
  start: number,
  end: number,
  isLarge: (gpa: number) => void,
): boolean {
  for (let gpa = start; gpa < end;) {
    const large = gpa % LARGE_PAGE === 0 && gpa + LARGE_PAGE <= end;
    const outcome = setRights(seat, gpa, large, true);
    if (outcome === 'done') {
      if (large) isLarge(gpa);
      gpa += large ? LARGE_PAGE : PAGE_SIZE;
    } else if (outcome === 'size' && large) {
      const stop = gpa + LARGE_PAGE;
      for (; gpa < stop; gpa += PAGE_SIZE) if (setRights(seat, gpa, false, true) !== 'done') return false;
    } else return false;
  }
  return true;
}

/** Makes a page a VMSA, which takes it from everybody but VMPL0. */
export function makeVmsa(seat: Vmpl0Seat, gpa: number): boolean {
  const outcome = seat.rmpadjust(gpa, false, GUEST_VMPL | VMSA_BIT);
  return outcome.kind === 'done' && outcome.eax === 0;
}

/** SEV_FEATURES of the guest's contexts, as the parts that are on have it. */
export function guestFeatures({ parts }: ParavisorConfig): number {
  return (
    SEV_FEATURE.snp |
    SEV_FEATURE.vTom |
    SEV_FEATURE.debugSwap |
    SEV_FEATURE.alternateInjection |
    (hasPart(parts, 'exc.reflect') ? SEV_FEATURE.reflectVc : 0)
  );
}

export class SnpProcessor implements Processor {
  readonly view: HostView;
  readonly #seat: Vmpl0Seat;
  readonly #contexts: Contexts;
  readonly #config: ParavisorConfig;

  constructor(seat: Vmpl0Seat, contexts: Contexts, config: ParavisorConfig) {
    this.#seat = seat;
    this.#contexts = contexts;
    this.#config = config;
    this.view = {
      read: (gpa, length) => {
        const read = seat.read(gpa, length, false);
        return read.ok ? read : { ok: false, reason: 'unmapped' };
      },
      write: (gpa, bytes) =>
        seat.write(gpa, bytes, false).ok ? { ok: true } : { ok: false, reason: 'unmapped' },
      overlay: () => ({ ok: false, reason: 'unsupported' }),
      getRegister: (vp, name) => contexts.of(vp)?.get(name),
      setRegister: (vp, name, value) => contexts.of(vp)?.put(name, value) ?? false,
    };
  }

  nativeCpuid(vp: number, leaf: number, subleaf: number): CpuidRegisters {
    const page = this.#seat.read(this.#config.pages.cpuid, PAGE_SIZE, false);
    const context = this.#contexts.of(vp);
    if (!page.ok || context === undefined) return { eax: 0, ebx: 0, ecx: 0, edx: 0 };
    const state = { xcr0: context.low('xcr0'), xss: context.low('xss'), cr4: context.low('cr4') };
    return cpuidFromPage(page.bytes, leaf, subleaf, state);
  }

  release(gpa: number): boolean {
    if (setRights(this.#seat, gpa, false, false) !== 'done') return false;
    return pageOutcome(this.#seat.pvalidate(gpa, false, false)) === 'done';
  }

  claim(gpa: number): boolean {
    // "No change" would be a page that the host had kept validated somewhere: never accept one twice.
    if (pageOutcome(this.#seat.pvalidate(gpa, false, true)) !== 'done') return false;
    if (!this.#seat.clear(gpa, PAGE_SIZE).ok) return false;
    return setRights(this.#seat, gpa, false, true) === 'done';
  }

  flush(vps: readonly number[]): void {
    // APM vol. 2, 15.36.15: a PCPU_ID of 0 makes the next VMRUN flush.
    for (const vp of vps) this.#contexts.of(vp)?.set('pcpuId', 0, 0);
  }

  init(vp: number): void {
    const context = this.#contexts.of(vp);
    if (context !== undefined) resetContext(context, guestFeatures(this.#config), this.#boundary());
  }

  startup(vp: number, vector: number): void {
    const context = this.#contexts.of(vp);
    if (context === undefined) return;
    resetContext(context, guestFeatures(this.#config), this.#boundary());
    context.setSegment('cs', vector << 8, BigInt(vector) << 12n, 0xffff, REAL_CODE);
    context.setWide('rip', 0n);
  }

  startContext(vp: number, context: Uint8Array): void {
    const target = this.#contexts.of(vp);
    if (target === undefined) return;
    resetContext(target, guestFeatures(this.#config), this.#boundary());
    for (const name of ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'tr', 'ldtr'] as const) {
      const segment = initialContext.get(context, name);
      const wide = u16(segment, 14);
      const base = (BigInt(u32(segment, 4)) << 32n) | BigInt(u32(segment, 0));
      target.setSegment(name, u16(segment, 12), base, u32(segment, 8), (wide & 0xff) | ((wide >> 4) & 0xf00));
    }
    for (const name of ['gdtr', 'idtr'] as const) {
      const table = initialContext.get(context, name);
      const base = (BigInt(u32(table, 12)) << 32n) | BigInt(u32(table, 8));
      target.setSegment(name, 0, base, u16(table, 6), 0);
    }
    for (const name of ['rip', 'rsp', 'rflags', 'cr0', 'cr3', 'cr4', 'pat'] as const) {
      target.setWide(name, initialContext.get(context, name));
    }
    target.setWide('efer', initialContext.get(context, 'efer') | SVME);
  }

  #boundary(): bigint {
    return 1n << BigInt(this.#config.boundaryBits);
  }
}

const REAL_CODE = 0x9b;
const REAL_DATA = 0x93;
/** VMRUN wants it in every context (APM vol. 2, 15.36.12). */
const SVME = 1n << 12n;

/** State after INIT (AMD APM vol. 2, 14.1.3), of a context that runs at the guest's VMPL. */
export function resetContext(context: Context, features: number, virtualTom: bigint): void {
  for (const name of ['es', 'ss', 'ds', 'fs', 'gs'] as const satisfies readonly SegmentName[])
    context.setSegment(name, 0, 0n, 0xffff, REAL_DATA);
  context.setSegment('cs', 0xf000, 0xffff_0000n, 0xffff, REAL_CODE);
  context.setSegment('gdtr', 0, 0n, 0xffff, 0);
  context.setSegment('idtr', 0, 0n, 0xffff, 0);
  context.setSegment('ldtr', 0, 0n, 0xffff, 0x82);
  context.setSegment('tr', 0, 0n, 0xffff, 0x8b);
  for (const name of GENERAL_REGISTERS) context.setWide(name, 0n);
  context.setWide('rip', 0xfff0n);
  context.setWide('rflags', 2n);
  context.setWide('cr0', 0x6000_0010n);
  context.setWide('cr2', 0n);
  context.setWide('cr3', 0n);
  context.setWide('cr4', 0n);
  context.setWide('efer', SVME);
  context.setWide('dr6', 0xffff_0ff0n);
  context.setWide('dr7', 0x400n);
  context.bytes[vmsa.offsetOf('vmpl')] = GUEST_VMPL;
  context.bytes[vmsa.offsetOf('cpl')] = 0;
  context.set('sevFeatures', features, 0);
  context.setWide('virtualTom', virtualTom);
  context.set('eventInj', 0, 0);
  context.set('vintrControl', 0, 0);
  context.set('exitIntInfo', 0, 0);
  context.set('pcpuId', 0, 0);
  const fresh = context.low('xcr0') === 0;
  if (!fresh) return;
  // Power-up values of what INIT leaves alone.
  context.setWide('xcr0', 1n);
  context.setWide('pat', 0x0007_0406_0007_0406n);
  vmsa.set(context.bytes, 'mxcsr', 0x1f80);
  vmsa.set(context.bytes, 'fcw', 0x40);
  vmsa.set(context.bytes, 'ftw', X87_ALL_VALID);
}
