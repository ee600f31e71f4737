/** Exits of an SNP guest: what a host learns of them is a code, an address, and what the guest chose to put into its GHCB. */
import { EVENT, EVENT_CLASS } from '../../abi/events.ts';
import { NPF, SVM_EXIT } from '../../abi/snp/exit-codes.ts';
import { EVENT_INJECTION } from '../../abi/snp/vmsa.ts';
import { apicReadCr8, apicWriteCr8 } from '../../chipset/partition/interrupts.ts';
import { answerHlt, answerTripleFault, DONE } from '../../chipset/partition/exits.ts';
import type { VpState } from '../../chipset/partition/state.ts';
import type { ContextEntry } from '../../seats/entry.ts';
import type { Completion, Exit, NestedFaultExit } from '../../seats/exits.ts';
import type { HostCall, HostState } from '../state.ts';
import { runVmpl } from './contexts.ts';
import { answerGhcbMsr, pageAddress } from './ghcb-msr.ts';
import { answerGhcbPage } from './ghcb-page.ts';
import { pageWorld, smashPage } from './pages.ts';
import type { SnpVp } from './state.ts';
import { PARAVISOR_VMPL } from './vtl.ts';

function targetOf(state: HostState, vp: VpState): SnpVp {
  const target = state.snp?.vps[vp.index];
  if (target === undefined) throw new RangeError(`VP ${vp.index} has no VMCB`);
  return target;
}

export function answerSnpExit(call: HostCall, vp: VpState, exit: Exit): Completion {
  const target = targetOf(call.state, vp);
  if (target.vmpl !== PARAVISOR_VMPL && exit.kind !== 'vmgexit' && exit.kind !== 'triple-fault') {
    lowerExit(call, vp, target, exit);
    return DONE;
  }
  switch (exit.kind) {
    case 'vmgexit':
      if (target.vmcb.ghcb.lo & 0xfff) answerGhcbMsr(call, vp, target);
      else answerGhcbPage(call, vp, target, pageAddress(target.vmcb.ghcb));
      return DONE;
    case 'nested-fault':
      nestedFault(call, vp, exit);
      return DONE;
    case 'hlt':
      return answerHlt(call, vp);
    case 'triple-fault':
      return answerTripleFault(call, vp);
    case 'reflected':
      // VMPL0 looks into the lower context's VMSA and deals with it.
      runVmpl(call, target, 0);
      return DONE;
    case 'entry-failed':
      call.actions.push({
        kind: 'terminate',
        vp: vp.index,
        what: `VMRUN of the context at VMPL${target.vmpl} ended with exit code ${exit.code}`,
      });
      return DONE;
    default:
      throw new RangeError(`VP ${vp.index} of an SNP guest left by '${exit.kind}'`);
  }
}

/** A context below VMPL0 stopped: VMPL0 sees why in its VMSA. */
function lowerExit(call: HostCall, vp: VpState, target: SnpVp, exit: Exit): void {
  // The host's own business comes first; the context then goes on where it was.
  if (exit.kind === 'nested-fault' && nestedFault(call, vp, exit)) return;
  if (exit.kind === 'entry-failed' && exit.code !== SVM_EXIT.busy) {
    call.actions.push({
      kind: 'terminate',
      vp: vp.index,
      what: `VMRUN of the context at VMPL${target.vmpl} ended with exit code ${exit.code}`,
    });
    return;
  }
  runVmpl(call, target, PARAVISOR_VMPL);
}

/** What a host can mend: an RMP entry larger than the page that the guest names. Everything else repeats. */
function nestedFault(call: HostCall, vp: VpState, { gpa, lo, hi }: NestedFaultExit): boolean {
  if (call.sink.mask & EVENT_CLASS.page)
    call.sink.emit(EVENT.nestedFault, call.now, vp.index, gpa, lo, hi, 0);
  return (
    (lo & NPF.rmp) !== 0 && (hi & NPF.sizeMismatch) !== 0 && smashPage(pageWorld(call), gpa - (gpa % 0x1000))
  );
}

/** The context that the next turn of `vp` runs. An event whose delivery was cut off is injected again. */
export function snpEntry(state: HostState, vp: VpState): ContextEntry {
  const { vmcb } = targetOf(state, vp);
  if (vmcb.exitIntInfo.lo & EVENT_INJECTION.valid) {
    vmcb.eventInj = vmcb.exitIntInfo;
    vmcb.exitIntInfo = { lo: 0, hi: 0 };
  }
  return { kind: 'vmrun', vmcb };
}

/** The APIC's priority follows V_TPR before it is asked what is pending. */
export function syncPriority(state: HostState, vp: VpState): void {
  const { virtualTpr } = targetOf(state, vp).vmcb;
  if (apicReadCr8(vp) !== virtualTpr) apicWriteCr8(vp, virtualTpr);
}
