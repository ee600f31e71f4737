/** What VMRUN checks before it enters a guest with encrypted state (AMD APM vol. 2, 15.5.1, 15.35.8, 15.36.17). */
import { SVM_EXIT } from '../../abi/snp/exit-codes.ts';
import { EVENT_INJECTION, SEV_FEATURE, VINTR, vmsa } from '../../abi/snp/vmsa.ts';
import type { Halves, Vmcb } from '../../seats/snp.ts';
import { CR0, CR4, EFER } from '../../x86/registers.ts';
import { ACCEPTED_FEATURES } from './features.ts';
import { RMP } from './layout.ts';
import type { SnpSystem } from './system.ts';

const PAGE = 4096;
const HV = 28;

/** The exit code with which the entry ends, or undefined when it may go on. `page`: a view of the VMSA's bytes. */
export function checkEntry(system: SnpSystem, vmcb: Vmcb, page: Uint8Array): number | undefined {
  const low = (name: Parameters<typeof vmsa.low>[1]): number => vmsa.low(page, name);
  const high = (name: Parameters<typeof vmsa.high>[1]): number => vmsa.high(page, name);
  const features = low('sevFeatures');
  const invalid = SVM_EXIT.invalid;
  if (
    (features & SEV_FEATURE.snp) === 0 ||
    (features & ~ACCEPTED_FEATURES) !== 0 ||
    high('sevFeatures') !== 0
  )
    return invalid;
  const { allowedFeatures } = vmcb;
  if (allowedFeatures !== undefined && (features & ~allowedFeatures.lo) !== 0) return invalid;
  const restricted = (features & SEV_FEATURE.restrictedInjection) !== 0;
  const alternate = (features & SEV_FEATURE.alternateInjection) !== 0;
  if (restricted && alternate) return invalid;
  if (vmsa.get(page, 'vmpl') > 3) return invalid;
  // Illegal guest state (15.5.1).
  const efer = low('efer');
  const cr0 = low('cr0');
  const cr4 = low('cr4');
  if ((efer & EFER.SVME) === 0) return invalid;
  if ((cr0 & CR0.CD) === 0 && (cr0 & CR0.NW) !== 0) return invalid;
  if (high('cr0') !== 0 || high('dr6') !== 0 || high('dr7') !== 0) return invalid;
  const long = (efer & EFER.LME) !== 0 && (cr0 & CR0.PG) !== 0;
  if (long && (cr4 & CR4.PAE) === 0) return invalid;
  if (long && (cr0 & CR0.PE) === 0) return invalid;
  const cs = vmsa.get(page, 'csAttributes');
  if (long && (cs & 0x600) === 0x600) return invalid;
  if (alternate && (high('vintrControl') & VINTR.highBusy) !== 0) return SVM_EXIT.busy;
  if (!isInjectable(vmcb.eventInj, restricted, alternate)) return invalid;
  void system;
  return undefined;
}

/** Whether the page may be entered at all. */
export function isVmsaPage(system: SnpSystem, vmcb: Vmcb): boolean {
  const page = vmcb.vmsa / PAGE;
  if (!Number.isInteger(page) || !system.isInside(vmcb.vmsa, PAGE)) return false;
  const bits = system.rmp.bits(page);
  const needed = RMP.assigned | RMP.vmsa | RMP.validated;
  return (bits & (needed | RMP.immutable | RMP.large)) === needed && bits >>> RMP.asidShift === vmcb.asid;
}

/** What a host may inject (15.36.16): no software interrupts, not #BP and #OF; with restricted injection only #HV. */
function isInjectable({ lo }: Halves, restricted: boolean, alternate: boolean): boolean {
  if ((lo & EVENT_INJECTION.valid) === 0) return true;
  // With alternate injection EVENTINJ of the VMSA is used.
  if (alternate) return true;
  const type = (lo >>> EVENT_INJECTION.typeShift) & EVENT_INJECTION.typeMask;
  const vector = lo & EVENT_INJECTION.vector;
  if (restricted) return type === EVENT_INJECTION.exception && vector === HV;
  if (type === EVENT_INJECTION.exception) return vector < 32 && vector !== 2 && vector !== 3 && vector !== 4;
  return type === EVENT_INJECTION.external || type === EVENT_INJECTION.nmi;
}
