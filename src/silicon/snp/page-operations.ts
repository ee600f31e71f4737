/** PVALIDATE, RMPADJUST and RMPQUERY behind their translation (AMD APM vol. 3): for guest code and for a seat. */
import { NPF } from '../../abi/snp/exit-codes.ts';
import { RMP_STATUS } from '../../seats/snp.ts';
import { RMP } from './layout.ts';
import type { SnpSystem } from './system.ts';

const BLOCK_PAGES = 512;
const PAGE = 4096;

export interface Caller {
  readonly asid: number;
  readonly vmpl: number;
}

export type OperationOutcome =
  /** EAX, whether the state was already as asked (CF of PVALIDATE), RDX and RCX of RMPQUERY. */
  | {
      readonly kind: 'done';
      readonly eax: number;
      readonly unchanged: boolean;
      readonly rdx: number;
      readonly rcx: number;
    }
  /** VMEXIT_NPF: halves of EXITINFO1. */
  | { readonly kind: 'nested-fault'; readonly lo: number; readonly hi: number }
  /** A reserved bit in the nested entry: #VC 0x400. */
  | { readonly kind: 'mmio' }
  /** #VC 0x404. */
  | { readonly kind: 'not-validated' };

const done = (eax: number, unchanged = false, rdx = 0, rcx = 0): OperationOutcome => ({
  kind: 'done',
  eax,
  unchanged,
  rdx,
  rcx,
});

type Target =
  | { readonly kind: 'page'; readonly page: number; readonly large: boolean }
  | Exclude<OperationOutcome, { kind: 'done' }>;

/** Nested walk and the owner checks that all three have in common. */
function find(system: SnpSystem, { asid }: Caller, gpa: number): Target {
  const mapping = system.mapping(gpa);
  const high = NPF.final | NPF.encrypted;
  if (mapping.kind === 'mmio') return { kind: 'mmio' };
  if (mapping.kind === 'absent') return { kind: 'nested-fault', lo: NPF.user, hi: high };
  const { rmp } = system;
  const page = mapping.spa / PAGE;
  const bits = rmp.bits(page);
  const isOwn =
    (bits & (RMP.assigned | RMP.immutable)) === RMP.assigned &&
    bits >>> RMP.asidShift === asid &&
    rmp.gpa(page) === gpa;
  if (!isOwn) return { kind: 'nested-fault', lo: (NPF.rmp | NPF.present | NPF.user) >>> 0, hi: high };
  return { kind: 'page', page, large: mapping.large };
}

/** The size that was asked for against those of the nested and the RMP entry. */
function sizes(
  system: SnpSystem,
  target: { page: number; large: boolean },
  large: boolean,
): OperationOutcome | undefined {
  const rmpLarge = (system.rmp.bits(target.page) & RMP.large) !== 0;
  if (large) return rmpLarge && target.large ? undefined : done(RMP_STATUS.failSizeMismatch);
  if (!rmpLarge && !target.large) return undefined;
  return {
    kind: 'nested-fault',
    lo: (NPF.rmp | NPF.present | NPF.user) >>> 0,
    hi: NPF.final | NPF.encrypted | NPF.sizeMismatch,
  };
}

export function pvalidate(
  system: SnpSystem,
  caller: Caller,
  gpa: number,
  large: boolean,
  validate: boolean,
): OperationOutcome {
  if (large && gpa % (BLOCK_PAGES * PAGE) !== 0) return done(RMP_STATUS.failInput);
  const target = find(system, caller, gpa);
  if (target.kind !== 'page') return target;
  const wrong = sizes(system, target, large);
  if (wrong !== undefined) return wrong;
  const { rmp } = system;
  const was = (rmp.bits(target.page) & RMP.validated) !== 0;
  if (was === validate) return done(RMP_STATUS.success, true);
  rmp.setBits(target.page, validate ? RMP.validated : 0, validate ? 0 : RMP.validated);
  // What was not validated has no translation.
  if (!validate) system.flush();
  return done(RMP_STATUS.success);
}

/** RDX: target VMPL in bits 7-0, permissions in 15-8, VMSA in 16. */
export function rmpadjust(
  system: SnpSystem,
  caller: Caller,
  gpa: number,
  large: boolean,
  rdx: number,
): OperationOutcome {
  const vmpl = rdx & 0xff;
  const permissions = (rdx >>> 8) & 0xff;
  const isVmsa = ((rdx >>> 16) & 1) !== 0;
  if (large && gpa % (BLOCK_PAGES * PAGE) !== 0) return done(RMP_STATUS.failInput);
  if (vmpl > 3) return done(RMP_STATUS.failInput);
  const target = find(system, caller, gpa);
  if (target.kind !== 'page') return target;
  const wrong = sizes(system, target, large);
  if (wrong !== undefined) return wrong;
  const { rmp } = system;
  const { page } = target;
  if ((rmp.bits(page) & RMP.validated) === 0) return { kind: 'not-validated' };
  if (vmpl <= caller.vmpl) return done(RMP_STATUS.failPermission);
  // Nobody gives more than he has.
  if ((permissions & ~rmp.permissions(page, caller.vmpl)) !== 0) return done(RMP_STATUS.failPermission);
  const wasVmsa = (rmp.bits(page) & RMP.vmsa) !== 0;
  if (isVmsa !== wasVmsa && caller.vmpl !== 0) return done(RMP_STATUS.failPermission);
  if (isVmsa && large) return done(RMP_STATUS.failInput);
  if (rmp.inUse.has(page)) return done(RMP_STATUS.failInUse);
  rmp.setPermissions(page, vmpl, permissions);
  rmp.setBits(page, isVmsa ? RMP.vmsa : 0, isVmsa ? 0 : RMP.vmsa);
  system.flush();
  return done(RMP_STATUS.success);
}

/** Permissions of a VMPL (bits 15-8 of RDX), VMSA (16); RCX: 1 for a 2 MiB entry. Bits of RDX that are returned: unverified. */
export function rmpquery(system: SnpSystem, caller: Caller, gpa: number, vmpl: number): OperationOutcome {
  if (vmpl > 3) return done(RMP_STATUS.failInput);
  const target = find(system, caller, gpa);
  if (target.kind !== 'page') return target;
  const { rmp } = system;
  const bits = rmp.bits(target.page);
  if ((bits & RMP.validated) === 0) return { kind: 'not-validated' };
  if (vmpl < caller.vmpl) return done(RMP_STATUS.failPermission);
  const rdx = vmpl | (rmp.permissions(target.page, vmpl) << 8) | (bits & RMP.vmsa ? 1 << 16 : 0);
  return done(RMP_STATUS.success, false, rdx, bits & RMP.large ? 1 : 0);
}
