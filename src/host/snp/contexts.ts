/** Which VMSA a virtual processor runs: switches between VMPLs, and new contexts for application processors. */
import { skipStartup } from '../../chipset/partition/interrupts.ts';
import type { VpState } from '../../chipset/partition/state.ts';
import type { Halves } from '../../seats/snp.ts';
import { PAGE, snpView, spaOf, VMPLS, type SnpVp } from './state.ts';
import type { HostCall } from '../state.ts';

/** The next VMRUN of this processor is of the context at `vmpl`. */
export function runVmpl(_call: HostCall, target: SnpVp, vmpl: number): boolean {
  const vmsa = vmpl < VMPLS ? (target.vmsas[vmpl] as number) : -1;
  if (vmsa < 0) return false;
  if (target.vmpl !== vmpl) {
    // Each level finds its own GHCB MSR, and what was to be injected was for the other.
    target.ghcbMsrs[target.vmpl] = target.vmcb.ghcb;
    target.vmcb.ghcb = { ...(target.ghcbMsrs[vmpl] as Halves) };
    target.vmcb.exitIntInfo = { lo: 0, hi: 0 };
  }
  target.vmpl = vmpl;
  target.vmcb.vmsa = vmsa;
  return true;
}

/**
 * The guest names a page as the context of a processor at a VMPL. Whether it is a VMSA only VMRUN finds out. Any page boundary
 * is taken.
 */
export function setVmsa(call: HostCall, target: SnpVp, vmpl: number, gpa: number): boolean {
  const spa = spaOf(snpView(call.view), gpa);
  if (vmpl >= VMPLS || gpa % PAGE !== 0 || spa === undefined) return false;
  target.vmsas[vmpl] = spa;
  return true;
}

/** Starts a processor that waits, in its context at `vmpl`. */
export function startContext(call: HostCall, vp: VpState, target: SnpVp, vmpl: number): void {
  target.vmcb.eventInj = { lo: 0, hi: 0 };
  target.vmcb.exitIntInfo = { lo: 0, hi: 0 };
  runVmpl(call, target, vmpl);
  skipStartup(vp);
}
