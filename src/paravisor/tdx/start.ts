/** How the guest of a virtual processor begins: as it was loaded, or after INIT, SIPI or HvCallStartVirtualProcessor. */

import { initialContext } from '../../abi/hyperv/inputs.ts';
import { u16, u32 } from '../../abi/record.ts';
import { GENERAL_REGISTERS } from '../../abi/general-registers.ts';
import { vmsa } from '../../abi/snp/vmsa.ts';
import { L2_CTL } from '../../abi/tdx/l2.ts';
import type { ParavisorConfig } from '../config.ts';
import { bitmapId, CONTROLS_ID, FIELD, IA32E_GUEST, NATIVE_MSRS, SEGMENTS, segmentFields } from './fields.ts';
import type { Guest, Start } from './processor.ts';

export const CR0 = { pe: 1n, ne: 1n << 5n, nw: 1n << 29n, cd: 1n << 30n, pg: 1n << 31n } as const;
export const CR4 = { mce: 1n << 6n, vmxe: 1n << 13n } as const;
export const EFER = { sce: 1n, lme: 1n << 8n, lma: 1n << 10n, nxe: 1n << 11n } as const;
/** What leaves for L1 when the guest changes it: the mode, and what the module keeps as it is. */
const CR0_OWNED = CR0.pe | CR0.pg | CR0.ne | CR0.nw | CR0.cd;
const CR4_OWNED = CR4.mce | CR4.vmxe;
const ET = 1n << 4n;
const PROCEDURE_CONTROLS = 0x9122_0088n;

/** Controls of VM 1 that stay the same: what it may do without L1. False: the module refused. */
export function setUpVm(guest: Guest, config: ParavisorConfig, virtualApic: number): boolean {
  // With isolation hidden the guest has neither shared memory nor a way to the host.
  const controls = config.hideIsolation ? 0n : L2_CTL.enableSharedEptp | L2_CTL.enableTdvmcall;
  let ok = guest.write(CONTROLS_ID, controls);
  guest.setField(FIELD.virtualApic, BigInt(virtualApic));
  guest.setField(FIELD.cr0Mask, CR0_OWNED);
  guest.setField(FIELD.cr4Mask, CR4_OWNED);
  guest.setField(FIELD.procControls, PROCEDURE_CONTROLS);
  const words = new Map<number, bigint>();
  const clear = (index: number, write: boolean): void => {
    const bit = index & 0x1fff;
    const word = (write ? 256 : 0) + (index >= 0xc000_0000 ? 128 : 0) + (bit >>> 6);
    words.set(word, (words.get(word) ?? 0xffff_ffff_ffff_ffffn) & ~(1n << BigInt(bit & 63)));
  };
  for (const { index, write } of NATIVE_MSRS) {
    clear(index, false);
    if (write) clear(index, true);
  }
  for (const [word, bits] of words) ok = guest.write(bitmapId(word), bits) && ok;
  return ok;
}

/** The guest sees `value`; bits that the module keeps set are set in the real register. */
export function setCr0(guest: Guest, value: bigint): void {
  guest.setField(FIELD.cr0Shadow, value);
  guest.setField(FIELD.cr0, (value | CR0.ne | ET) & ~(CR0.nw | CR0.cd));
}

export function setCr4(guest: Guest, value: bigint): void {
  guest.setField(FIELD.cr4Shadow, value);
  guest.setField(FIELD.cr4, value | CR4_OWNED);
}

/** Long mode is active when it is enabled and paging is on (Intel SDM vol. 3, 11.8.5). */
export function setLongMode(guest: Guest, cr0: bigint, efer: bigint): void {
  const long = (cr0 & CR0.pg) !== 0n && (efer & EFER.lme) !== 0n;
  guest.setField(FIELD.efer, long ? efer | EFER.lma : efer & ~EFER.lma);
  const controls = guest.field(FIELD.entryControls);
  guest.setField(
    FIELD.entryControls,
    long ? controls | BigInt(IA32E_GUEST) : controls & ~BigInt(IA32E_GUEST),
  );
}

/** VMX access rights from 12 bits of attributes; an empty one is unusable. */
const rights = (attributes: number): bigint =>
  (attributes & 0x80) === 0 ? 0x1_0000n : BigInt((attributes & 0xff) | ((attributes & 0xf00) << 4));

function setSegment(
  guest: Guest,
  index: number,
  value: { selector: number; base: bigint; limit: number; attributes: number },
): void {
  const fields = segmentFields(index);
  guest.setField(fields.selector, BigInt(value.selector));
  guest.setField(fields.base, value.base);
  guest.setField(fields.limit, BigInt(value.limit >>> 0));
  guest.setField(fields.rights, rights(value.attributes));
}

/** From a page in the form of a VMSA, which the launch has measured. */
export function startLoaded(guest: Guest, page: Uint8Array): void {
  for (const [n, name] of GENERAL_REGISTERS.entries()) guest.setGeneral(n, vmsa.get(page, name));
  guest.rip = vmsa.get(page, 'rip');
  guest.rflags = vmsa.get(page, 'rflags');
  for (const [index, name] of SEGMENTS.entries())
    setSegment(guest, index, {
      selector: vmsa.get(page, `${name}Selector`),
      base: vmsa.get(page, `${name}Base`),
      limit: vmsa.get(page, `${name}Limit`),
      attributes: vmsa.get(page, `${name}Attributes`),
    });
  guest.setField(FIELD.gdtrBase, vmsa.get(page, 'gdtrBase'));
  guest.setField(FIELD.gdtrLimit, BigInt(vmsa.get(page, 'gdtrLimit')));
  guest.setField(FIELD.idtrBase, vmsa.get(page, 'idtrBase'));
  guest.setField(FIELD.idtrLimit, BigInt(vmsa.get(page, 'idtrLimit')));
  guest.setField(FIELD.cr3, vmsa.get(page, 'cr3'));
  guest.setField(FIELD.pat, vmsa.get(page, 'pat'));
  guest.setField(FIELD.dr7, vmsa.get(page, 'dr7'));
  setCr0(guest, vmsa.get(page, 'cr0'));
  setCr4(guest, vmsa.get(page, 'cr4'));
  setLongMode(guest, vmsa.get(page, 'cr0'), vmsa.get(page, 'efer') & (EFER.sce | EFER.lme | EFER.lma));
}

const REAL_CODE = 0x9b;
const REAL_DATA = 0x93;

/** State after INIT (Intel SDM vol. 3, table 11-1). */
function reset(guest: Guest, signature: number): void {
  for (let n = 0; n < 16; n++) guest.setGeneral(n, 0n);
  guest.setGeneral(2, BigInt(signature));
  guest.rflags = 2n;
  for (const index of [0, 2, 3, 4, 5])
    setSegment(guest, index, { selector: 0, base: 0n, limit: 0xffff, attributes: REAL_DATA });
  setSegment(guest, 1, { selector: 0xf000, base: 0xffff_0000n, limit: 0xffff, attributes: REAL_CODE });
  setSegment(guest, 6, { selector: 0, base: 0n, limit: 0xffff, attributes: 0x82 });
  setSegment(guest, 7, { selector: 0, base: 0n, limit: 0xffff, attributes: 0x8b });
  for (const field of [
    FIELD.gdtrBase,
    FIELD.idtrBase,
    FIELD.cr3,
    FIELD.interruptibility,
    FIELD.entryInterruption,
  ])
    guest.setField(field, 0n);
  guest.setField(FIELD.gdtrLimit, 0xffffn);
  guest.setField(FIELD.idtrLimit, 0xffffn);
  guest.setField(FIELD.dr7, 0x400n);
  guest.rip = 0xfff0n;
  setCr0(guest, 0x6000_0010n);
  setCr4(guest, 0n);
  setLongMode(guest, 0x6000_0010n, 0n);
}

export function carryOutStart(guest: Guest, start: Start, signature: number): void {
  reset(guest, signature);
  switch (start.kind) {
    case 'init':
      return;
    case 'startup':
      setSegment(guest, 1, {
        selector: start.vector << 8,
        base: BigInt(start.vector) << 12n,
        limit: 0xffff,
        attributes: REAL_CODE,
      });
      guest.rip = 0n;
      return;
    case 'context':
      startGiven(guest, start.context);
      return;
  }
}

function startGiven(guest: Guest, context: Uint8Array): void {
  for (const [index, name] of SEGMENTS.entries()) {
    const segment = initialContext.get(context, name);
    const wide = u16(segment, 14);
    setSegment(guest, index, {
      selector: u16(segment, 12),
      base: (BigInt(u32(segment, 4)) << 32n) | BigInt(u32(segment, 0)),
      limit: u32(segment, 8),
      attributes: (wide & 0xff) | ((wide >> 4) & 0xf00),
    });
  }
  for (const [name, base, limit] of [
    ['gdtr', FIELD.gdtrBase, FIELD.gdtrLimit],
    ['idtr', FIELD.idtrBase, FIELD.idtrLimit],
  ] as const) {
    const table = initialContext.get(context, name);
    guest.setField(base, (BigInt(u32(table, 12)) << 32n) | BigInt(u32(table, 8)));
    guest.setField(limit, BigInt(u16(table, 6)));
  }
  guest.rip = initialContext.get(context, 'rip');
  guest.rflags = initialContext.get(context, 'rflags');
  guest.setGeneral(4, initialContext.get(context, 'rsp'));
  guest.setField(FIELD.cr3, initialContext.get(context, 'cr3'));
  guest.setField(FIELD.pat, initialContext.get(context, 'pat'));
  const cr0 = initialContext.get(context, 'cr0');
  setCr0(guest, cr0);
  setCr4(guest, initialContext.get(context, 'cr4'));
  setLongMode(guest, cr0, initialContext.get(context, 'efer') & (EFER.sce | EFER.lme | EFER.lma));
}
